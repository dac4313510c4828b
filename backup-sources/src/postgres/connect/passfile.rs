//! Passwords from a file like `~/.pgpass`.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{At, Host, Secret};

/// Longest password file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The password that the first fitting line of the file has. A file that is not there, or that others can read, has none.
pub(super) fn look_up(file: &Path, host: &Host, database: &str, user: &str) -> Option<Secret> {
    let opened = File::open(file).ok()?;
    let metadata = opened.metadata().ok()?;
    if !metadata.is_file() {
        tracing::warn!(file = %file.display(), "is not read for passwords: it is no file");
        return None;
    }
    if metadata.mode() & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "is not read for passwords: others can read it; it must have the mode 0600");
        return None;
    }
    let mut text = String::new();
    opened.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    find(&text, host, database, user)
}

pub(super) fn find(text: &str, host: &Host, database: &str, user: &str) -> Option<Secret> {
    let (name, port) = (name_of(host), host.port.to_string());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut fields = fields(line);
        if fields.len() != 5 {
            continue;
        }
        let password = fields.pop()?;
        let wanted = [name.as_str(), port.as_str(), database, user];
        if fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted) {
            return Some(Secret(password.into()));
        }
    }
    None
}

/// What such files call a host: the usual socket is `localhost`.
fn name_of(host: &Host) -> String {
    match &host.at {
        At::Socket(directory)
            if directory == Path::new("/var/run/postgresql") || directory == Path::new("/tmp") =>
        {
            "localhost".to_owned()
        }
        At::Socket(directory) => directory.display().to_string(),
        At::Tcp(name, _) => name.clone(),
    }
}

/// The fields of a line: colons stand between them, and a backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let taken = match character {
            '\\' => characters.next(),
            // All that follows the fourth is the password.
            ':' if fields.len() < 5 => {
                fields.push(String::new());
                None
            }
            other => Some(other),
        };
        if let Some(last) = fields.last_mut() {
            last.extend(taken);
        }
    }
    fields
}
