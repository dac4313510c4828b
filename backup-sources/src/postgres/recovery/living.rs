//! Which servers run on this machine, and what else on its disks is theirs.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};

/// The process of the server that runs in a data directory, by its `postmaster.pid`. A file that a server left which is gone counts
/// for nothing; where that cannot be told, it counts.
pub(super) fn running_server(data: &Path) -> Result<Option<u32>> {
    let path = data.join("postmaster.pid");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format!("`{}` cannot be read", path.display()), error)),
    };
    // A server in single-user mode writes its number with a minus.
    let number = text.lines().next().and_then(|line| line.trim().trim_start_matches('-').parse::<i32>().ok());
    let Some(pid) = number.and_then(rustix::process::Pid::from_raw) else {
        let message = format!("`{}` names no process; remove it if no server runs there", path.display());
        return Err(Error::invalid_input(message));
    };
    if rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
        return Ok(None);
    }
    // The number may be another process's by now. A server stands in its data directory.
    let number = pid.as_raw_nonzero().get();
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
    // One that has ended, and that nobody has collected yet.
    if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')) {
        return Ok(None);
    }
    let stands_in = fs::read_link(format!("/proc/{number}/cwd")).ok();
    named(data, number, stands_in.as_deref())
}

/// The same of a process that is there, by where it stands as far as that is shown.
fn named(data: &Path, number: i32, stands_in: Option<&Path>) -> Result<Option<u32>> {
    let is_elsewhere = stands_in.is_some_and(|place| fs::canonicalize(data).is_ok_and(|data| data != place));
    if is_elsewhere && number == 1 {
        // It was never a server's number here, and it is that of every server that is alone in its container.
        let message = format!(
            "`{}` names process 1: the server of a container, which cannot be seen from here; remove it if none runs there",
            data.join("postmaster.pid").display()
        );
        return Err(Error::invalid_input(message));
    }
    Ok(if is_elsewhere { None } else { u32::try_from(number).ok() })
}

/// A cluster in whose data directory a process stands.
#[derive(Debug)]
pub(super) struct Living {
    process: u32,
    data: PathBuf,
    uses: HashSet<Identity>,
}

/// What tells a directory from every other, whatever path leads there, also from within a container.
type Identity = (u64, u64);

/// The clusters in whose data directories processes stand, but for `data`. Blocks.
///
/// Where a process stands is not shown to everybody; then it is what it was started with.
pub(super) fn others(data: &Path) -> Vec<Living> {
    let mut seen: HashSet<Identity> = identity(data).into_iter().collect();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut processes: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    processes.sort_unstable();
    let mut found = Vec::new();
    for process in processes {
        let shown = PathBuf::from(format!("/proc/{process}"));
        for place in places(&shown) {
            let is_new = identity(&place).is_some_and(|identity| seen.insert(identity));
            if is_new && place.join("PG_VERSION").exists() {
                found.push(Living::look(process, &shown, &place));
            }
        }
    }
    found
}

/// Why nothing may be changed in a directory that one of these clusters uses; none if none does.
pub(super) fn why_not_taken(others: &[Living], directory: &Path) -> Option<String> {
    let own = identity(directory)?;
    let Living { process, data, .. } = others.iter().find(|living| living.uses.contains(&own))?;
    Some(format!(
        "is used by the cluster in `{}`, where process {process} runs: stop that one if it is to be lost, or remove the link that leads there",
        data.display()
    ))
}

/// The same of the directory of the log, which may be a link from the data directory to elsewhere.
pub(super) fn why_log_not_taken(others: &[Living], data: &Path) -> Option<String> {
    let log = data.join("pg_wal");
    let why = why_not_taken(others, &log)?;
    let leads_to = fs::canonicalize(&log).unwrap_or(log);
    Some(format!("has its log in `{}`, which {why}", leads_to.display()))
}

impl Living {
    fn look(process: u32, shown: &Path, place: &Path) -> Self {
        let spaces = fs::read_dir(place.join("pg_tblspc")).into_iter().flatten().flatten();
        let paths = spaces.map(|entry| entry.path()).chain([place.to_owned(), place.join("pg_wal")]);
        let uses = paths.filter_map(|path| identity_seen_by(shown, &path)).collect();
        let data = fs::read_link(place).unwrap_or_else(|_| place.to_owned());
        Self { process, data, uses }
    }
}

/// Directories in which a process stands, or, where that is not shown, which it was started with.
fn places(shown: &Path) -> Vec<PathBuf> {
    let stands_in = shown.join("cwd");
    match fs::read_link(&stands_in) {
        Ok(_) => vec![stands_in],
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            started_with(&fs::read(shown.join("cmdline")).unwrap_or_default())
        }
        Err(_) => Vec::new(),
    }
}

/// The absolute paths among a command's words, also those that stand right behind `-D`.
fn started_with(command: &[u8]) -> Vec<PathBuf> {
    let words = command.split(|byte| *byte == 0);
    let paths =
        words.map(|word| word.strip_prefix(b"-D").unwrap_or(word)).filter(|word| word.starts_with(b"/"));
    paths.map(|word| PathBuf::from(OsStr::from_bytes(word))).collect()
}

/// What a path leads to for a process: links that begin at the root begin at its own.
fn identity_seen_by(shown: &Path, path: &Path) -> Option<Identity> {
    let target = fs::read_link(path).ok();
    let below = target.as_deref().and_then(|target| target.strip_prefix("/").ok());
    below.and_then(|below| identity(&shown.join("root").join(below))).or_else(|| identity(path))
}

fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn stand_in(data: &Path) -> Child {
        Command::new("sleep").arg("600").current_dir(data).spawn().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_server_is_found_by_its_file_and_its_process() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path();
        let write = |text: &str| fs::write(data.join("postmaster.pid"), text).unwrap();
        assert_eq!(running_server(data).unwrap(), None);
        // A process that stands elsewhere has got a number that was a server's.
        write(&format!("{}\n", std::process::id()));
        assert_eq!(running_server(data).unwrap(), None);
        let child = stand_in(data);
        let number = child.id();
        for sign in ["", "-"] {
            write(&format!("{sign}{number}\n{}\n", data.display()));
            assert_eq!(running_server(data).unwrap(), Some(number));
        }
        end(child);
        assert_eq!(running_server(data).unwrap(), None);
        for text in ["", "x\n", "0\n"] {
            write(text);
            assert!(running_server(data).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_server_of_a_container_is_not_taken_for_one_that_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path();
        let error = named(data, 1, Some(Path::new("/"))).unwrap_err().to_string();
        assert!(error.contains("process 1") && error.contains("container"), "{error}");
        assert!(error.contains(data.join("postmaster.pid").to_str().unwrap()), "{error}");
        // In the container itself it is seen, or at least there.
        let own = fs::canonicalize(data).unwrap();
        assert_eq!(named(data, 1, Some(&own)).unwrap(), Some(1));
        assert_eq!(named(data, 1, None).unwrap(), Some(1));
        assert_eq!(named(data, 77, Some(Path::new("/"))).unwrap(), None);
        fs::write(data.join("postmaster.pid"), "1\n").unwrap();
        assert!(!matches!(running_server(data), Ok(None)), "it was taken for one that is gone");
    }

    #[test]
    fn what_a_living_cluster_uses_is_found_by_whatever_path_leads_there() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |path: &str| scratch.path().join(path);
        for path in ["one/pg_tblspc", "other/pg_tblspc", "log", "space", "free"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("one/PG_VERSION"), "15\n").unwrap();
        let link = |to: &str, from: &str| std::os::unix::fs::symlink(at(to), at(from)).unwrap();
        link("log", "one/pg_wal");
        link("space", "one/pg_tblspc/16400");
        link("log", "other/pg_wal");
        link("one", "alias");
        assert_eq!(why_log_not_taken(&others(&at("other")), &at("other")), None, "nobody lives there");

        let server = stand_in(&at("one"));
        let living = others(&at("other"));
        for path in ["log", "space", "one", "alias", "other/pg_wal"] {
            let why = why_not_taken(&living, &at(path)).unwrap_or_else(|| panic!("{path} is not used"));
            assert!(why.contains(&server.id().to_string()), "{why}");
            assert!(why.contains(fs::canonicalize(at("one")).unwrap().to_str().unwrap()), "{why}");
        }
        let why = why_log_not_taken(&living, &at("other")).unwrap();
        assert!(why.contains(fs::canonicalize(at("log")).unwrap().to_str().unwrap()), "{why}");
        for path in ["free", "other", "missing"] {
            assert_eq!(why_not_taken(&living, &at(path)), None, "{path}");
        }
        // Whatever is used by the cluster itself, whose server is looked for otherwise.
        let living = others(&at("alias"));
        assert_eq!(why_log_not_taken(&living, &at("one")), None);
        end(server);
        assert_eq!(why_not_taken(&others(&at("other")), &at("log")), None);
    }

    #[test]
    fn where_nobody_sees_where_a_process_stands_its_command_tells() {
        let command = b"/usr/lib/postgresql/15/bin/postgres\0-D\0/data/one\0-c\0port=5432\0-D/data/two\0";
        let expected = ["/usr/lib/postgresql/15/bin/postgres", "/data/one", "/data/two"];
        assert_eq!(started_with(command), expected.map(PathBuf::from));
        assert_eq!(started_with(b""), Vec::<PathBuf>::new());
    }
}
