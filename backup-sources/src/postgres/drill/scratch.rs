//! The directory of a drill, which goes with the server that runs in it, whatever happens to the drill.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use backup_core::{Error, Result};

/// Waits until its input is closed, by whom it was started or by the system at that one's end; then ends the server and removes all.
const GUARD: &str = r#"
read -r _
if read -r pid <"$1/postmaster.pid"; then
    kill -QUIT "$pid"
    n=0
    while [ -e "$1/postmaster.pid" ] && [ "$n" -lt 100 ]; do
        sleep 0.1
        n=$((n + 1))
    done
    [ ! -e "$1/postmaster.pid" ] || kill -KILL "$pid"
fi
rm -rf -- "$2"
"#;

/// A directory of a drill. Dropping it ends the server in it and removes it, in the background; so does the end of this process.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    guard: Option<Child>,
}

impl Scratch {
    /// A new directory below `parent`, for a user's server.
    pub(super) fn new(parent: &Path, owner: Option<(u32, u32)>) -> Result<Self> {
        let path = unused(parent)?;
        let scratch = Self { guard: Some(guard(&path)?), path };
        for directory in [&scratch.path, &scratch.socket(), &scratch.data(), &scratch.tablespaces()] {
            make(directory)?;
            if let Some((user, group)) = owner {
                let given = std::os::unix::fs::chown(directory, Some(user), Some(group));
                given.map_err(|error| {
                    let message = format!("`{}` cannot be given to the server's user", directory.display());
                    Error::io(message, error)
                })?;
            }
        }
        Ok(scratch)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.path.join("s")
    }

    pub(super) fn tablespaces(&self) -> PathBuf {
        self.path.join("tablespaces")
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the server and removes everything. Blocks.
    pub(super) fn remove(mut self) -> Result<()> {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let ended = guard.wait();
            ended.map_err(|error| Error::io("the end of a drill's server cannot be waited for", error))?;
        }
        match self.path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(Error::internal(format!("`{}` is still there; remove it", self.path.display()))),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(mut guard) = self.guard.take() else { return };
        drop(guard.stdin.take());
        // Nobody may wait here; somebody must, or it would stay as a zombie.
        let waiting = std::thread::Builder::new().name("backup-drill-end".into());
        let _ = waiting.spawn(move || guard.wait());
    }
}

fn unused(parent: &Path) -> Result<PathBuf> {
    if !parent.is_absolute() {
        let message =
            format!("`{}` is relative; give the whole path of a directory for drills", parent.display());
        return Err(Error::invalid_input(message));
    }
    for number in 0..1000 {
        let path = parent.join(format!("drill-{}-{number}", std::process::id()));
        match make_new(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(format!("`{}` cannot be made", path.display()), error)),
        }
    }
    Err(Error::invalid_input(format!("`{}` is full of drills; remove them", parent.display())))
}

fn make_new(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(path)
}

fn make(path: &Path) -> Result<()> {
    match make_new(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::io(format!("`{}` cannot be made", path.display()), error))
        }
        _ => Ok(()),
    }
}

fn guard(path: &Path) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    let spawned = Command::new("sh")
        .args(["-c", GUARD, "sh"])
        .arg(path.join("data"))
        .arg(path)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // What ends this process from a terminal must not end it, too.
        .process_group(0)
        .spawn();
    spawned.map_err(|error| Error::io("the guard of a drill cannot be started", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_when_it_is_removed_and_when_it_is_forgotten() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(parent.path(), None).unwrap();
        let other = Scratch::new(parent.path(), None).unwrap();
        fs::write(scratch.data().join("file"), "x").unwrap();
        fs::write(other.data().join("file"), "x").unwrap();
        scratch.remove().unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        drop(other);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while fs::read_dir(parent.path()).unwrap().count() > 0 {
            assert!(std::time::Instant::now() < until);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(Scratch::new(Path::new("relative"), None).is_err());
    }
}
