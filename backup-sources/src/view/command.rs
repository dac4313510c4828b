//! Commands of file systems and volume managers.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backup_core::{Error, ErrorKind, Result};

/// How long a command may take.
const TIME_MAX: Duration = Duration::from_secs(300);
/// How often it is looked whether one has ended.
const TICK: Duration = Duration::from_millis(10);
/// How much of what one prints is read.
const OUTPUT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where commands are found.
#[derive(Debug, Clone, Default)]
pub(super) struct Commands {
    /// A directory; without one, the directories of `PATH`.
    pub(super) directory: Option<PathBuf>,
}

impl Commands {
    /// Runs a command to its end; what it printed.
    pub(super) fn run(&self, program: &str, arguments: &[&OsStr]) -> Result<String> {
        let path = self.directory.as_ref().map_or_else(|| PathBuf::from(program), |at| at.join(program));
        let failed = |why: String| Error::new(ErrorKind::Io, format!("the command `{program}` {why}"));
        let mut child = Command::new(path)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::io(format!("the command `{program}` cannot be started"), error))?;
        let out = child.stdout.take().map(reader);
        let err = child.stderr.take().map(reader);
        let deadline = Instant::now().checked_add(TIME_MAX);
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {
                    std::thread::sleep(TICK)
                }
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(failed(format!("did not end within {} s", TIME_MAX.as_secs())));
                }
                Err(error) => return Err(failed(format!("cannot be waited for: {error}"))),
            }
        };
        let text = |reader: Option<std::thread::JoinHandle<Vec<u8>>>| {
            let bytes = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (out, err) = (text(out), text(err));
        if status.success() { Ok(out) } else { Err(failed(format!("failed ({status}): {}", err.trim()))) }
    }
}

/// Words as arguments.
pub(super) fn words<const N: usize>(words: [&str; N]) -> [&OsStr; N] {
    words.map(OsStr::new)
}

/// The names in a directory; none if there is no directory.
pub(super) fn names_in(directory: &Path) -> Result<Vec<OsString>> {
    let failed = |error| Error::io(format!("`{}` cannot be listed", directory.display()), error);
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(failed)?.file_name())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

/// Reads on a thread, so that neither of two pipes fills up while the other is read.
fn reader(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.by_ref().take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        // The rest is read and dropped, so that the command can end.
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        bytes
    })
}
