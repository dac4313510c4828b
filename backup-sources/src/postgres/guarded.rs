//! A directory of one use that goes with whoever made it, and the server that runs in it with it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use backup_core::{Error, Result};

/// Waits until its input is closed, by whom it was started or by the system at that one's end; then ends the server whose data is in `data`, if there is
/// one, and removes all. What still writes there then cannot make further files, and ends.
const GUARD: &str = r#"
read -r _
here=
cd -- "$1" && here=$(pwd -P)/data
cd /
# A server stands in its data directory; a number that a dead one has left behind may be anybody's by now, and a link in the directory's place leads
# to somebody else's. Where another user's processes stand is not even shown to root in most containers: then it is what they were started with.
is_ours() {
    [ -n "$here" ] && [ -e "$1/data/postmaster.pid" ] || return 1
    [ -e /proc/self/cwd ] || return 0
    stands=$(readlink "/proc/$pid/cwd")
    if [ -n "$stands" ]; then
        [ "$stands" = "$here" ]
    else
        [ ! -h "$1/data" ] && tr '\0' '\n' <"/proc/$pid/cmdline" | grep -Fxq -e "$1/data"
    fi
}
if read -r pid <"$1/data/postmaster.pid" && is_ours "$1"; then
    kill -QUIT "$pid"
    n=0
    while is_ours "$1" && [ "$n" -lt 100 ]; do
        sleep 0.1
        n=$((n + 1))
    done
    is_ours "$1" && kill -KILL "$pid"
fi
n=0
while [ -e "$1" ] && [ "$n" -lt 100 ]; do
    rm -rf -- "$1"
    [ ! -e "$1" ] || sleep 0.1
    n=$((n + 1))
done
"#;

/// Names that are tried.
const NUMBERS: u32 = 1000;

/// Dropping it removes it with all that is in it, in the background; so does the end of this process, also by `kill -9`.
#[derive(Debug)]
pub(super) struct GuardedDirectory {
    path: PathBuf,
    guard: Option<Child>,
}

impl GuardedDirectory {
    /// A new directory `NAME-PROCESS-NUMBER` below `parent`, with the mode 0700. Blocks.
    ///
    /// # Errors
    ///
    /// `parent` is relative, or nothing can be made there.
    pub(super) fn new(parent: &Path, name: &str) -> Result<Self> {
        if !parent.is_absolute() {
            let message =
                format!("`{}` is relative; give the whole path of a scratch directory", parent.display());
            return Err(Error::invalid_input(message));
        }
        for number in 0..NUMBERS {
            let path = parent.join(format!("{name}-{}-{number}", std::process::id()));
            match private(&path) {
                Ok(()) => {
                    let guard = guard(&path).inspect_err(|_| {
                        let _ = fs::remove_dir(&path);
                    })?;
                    return Ok(Self { path, guard: Some(guard) });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(format!("`{}` cannot be made", path.display()), error)),
            }
        }
        let message = format!("`{}` is full of directories `{name}-…`; remove them", parent.display());
        Err(Error::invalid_input(message))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the server in it and removes everything. Blocks.
    ///
    /// # Errors
    ///
    /// It is still there.
    pub(super) fn remove(mut self) -> Result<()> {
        if let Some(guard) = self.guard.take() {
            let ended = end(guard);
            ended.map_err(|error| Error::io("the guard of a directory cannot be waited for", error))?;
        }
        match self.path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            _ => Err(Error::internal(format!("`{}` is still there; remove it", self.path.display()))),
        }
    }
}

impl Drop for GuardedDirectory {
    fn drop(&mut self) {
        let Some(mut guard) = self.guard.take() else { return };
        drop(guard.stdin.take());
        // Nobody may wait here; somebody must, or the guard would stay as a zombie.
        let waiting = std::thread::Builder::new().name("backup-guard-end".into());
        let _ = waiting.spawn(move || guard.wait());
    }
}

/// Makes a directory that only its owner sees.
pub(super) fn private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

fn end(mut guard: Child) -> io::Result<()> {
    drop(guard.stdin.take());
    guard.wait().map(|_| ())
}

fn guard(path: &Path) -> Result<Child> {
    let spawned = Command::new("sh")
        .args(["-c", GUARD, "sh"])
        .arg(path)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // What ends this process from a terminal must not end it, too.
        .process_group(0)
        .spawn();
    spawned.map_err(|error| Error::io("the guard of a scratch directory cannot be started", error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn it_is_private_and_goes_when_it_is_removed_or_forgotten() {
        let parent = tempfile::tempdir().unwrap();
        let new = || GuardedDirectory::new(parent.path(), "dump").unwrap();
        let (one, other) = (new(), new());
        assert_ne!(one.path(), other.path());
        assert_eq!(fs::metadata(one.path()).unwrap().permissions().mode() & 0o777, 0o700);
        for path in [one.path(), other.path()] {
            fs::create_dir(path.join("d")).unwrap();
            fs::write(path.join("d/file"), "12345").unwrap();
        }
        one.remove().unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        drop(other);
        let until = Instant::now() + Duration::from_secs(20);
        while fs::read_dir(parent.path()).unwrap().count() > 0 {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(GuardedDirectory::new(Path::new("relative"), "dump").is_err());
        assert!(GuardedDirectory::new(&parent.path().join("missing"), "dump").is_err());
    }

    #[test]
    fn the_server_in_it_ends_with_it() {
        let parent = tempfile::tempdir().unwrap();
        let directory = GuardedDirectory::new(parent.path(), "drill").unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        let program = r#"trap 'rm "$1"; exit 3' QUIT; echo $$ >"$1.new"; mv "$1.new" "$1"; while :; do sleep 0.1; done"#;
        let mut server = Command::new("sh");
        server.args(["-c", program, "sh"]).arg(data.join("postmaster.pid")).current_dir(&data);
        let mut server = server.spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while !data.join("postmaster.pid").exists() {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(20));
        }
        directory.remove().unwrap();
        assert_eq!(server.wait().unwrap().code(), Some(3));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);

        // The same where nobody sees in which directory it stands.
        let directory = GuardedDirectory::new(parent.path(), "drill").unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        let bin = tempfile::tempdir().unwrap();
        let blind = bin.path().join("readlink");
        fs::write(&blind, "#!/bin/sh\nexit 1\n").unwrap();
        fs::set_permissions(&blind, fs::Permissions::from_mode(0o755)).unwrap();
        let program = r#"trap 'rm "$1/postmaster.pid"; exit 4' QUIT; echo $$ >"$1.new"; mv "$1.new" "$1/postmaster.pid"; while :; do sleep 0.1; done"#;
        let mut server =
            Command::new("sh").args(["-c", program, "sh"]).arg(&data).current_dir("/").spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while !data.join("postmaster.pid").exists() {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(20));
        }
        let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "sh"]).arg(directory.path()).env("PATH", path).stdin(Stdio::null());
        assert!(guard.status().unwrap().success());
        assert_eq!(server.wait().unwrap().code(), Some(4));
        directory.remove().unwrap();

        // The directory of another server in the place of its own.
        let directory = GuardedDirectory::new(parent.path(), "drill").unwrap();
        let other = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(other.path(), directory.path().join("data")).unwrap();
        let mut stranger = Command::new("sleep").arg("1000").current_dir(other.path()).spawn().unwrap();
        fs::write(other.path().join("postmaster.pid"), format!("{}\n", stranger.id())).unwrap();
        directory.remove().unwrap();
        assert!(stranger.try_wait().unwrap().is_none(), "it was killed");
        assert!(other.path().join("postmaster.pid").exists());
        stranger.kill().unwrap();
        stranger.wait().unwrap();

        // A number that is somebody else's by now.
        let directory = GuardedDirectory::new(parent.path(), "drill").unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(data.join("postmaster.pid"), format!("{}\n", stranger.id())).unwrap();
        directory.remove().unwrap();
        assert!(stranger.try_wait().unwrap().is_none(), "it was killed");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
