//! A directory for dumps that programs want as files: of nobody else's, and gone with whoever made it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use backup_core::{Error, ErrorKind, Result};

/// Waits until its input is closed, by whom it was started or by the system at that one's end. What still writes there then cannot make further
/// files, and ends.
const GUARD: &str = r#"
read -r _
n=0
while [ -e "$1" ] && [ "$n" -lt 100 ]; do
    rm -rf -- "$1"
    [ ! -e "$1" ] || sleep 0.1
    n=$((n + 1))
done
"#;

/// Dropping it removes it with all that is in it, in the background; so does the end of this process, also by `kill -9`.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    guard: Option<Child>,
}

impl Scratch {
    /// A new directory below `parent` with the mode 0700. Blocks.
    pub(super) fn new(parent: &Path) -> Result<Self> {
        if !parent.is_absolute() {
            let message =
                format!("`{}` is relative; give the whole path of a scratch directory", parent.display());
            return Err(Error::invalid_input(message));
        }
        for number in 0..1000 {
            let path = parent.join(format!("dump-{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
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
        Err(Error::invalid_input(format!("`{}` is full of dumps; remove them", parent.display())))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it now. Blocks.
    pub(super) fn remove(mut self) {
        if let Some(guard) = self.guard.take() {
            end(guard, &self.path);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(guard) = self.guard.take() else { return };
        let path = std::mem::take(&mut self.path);
        // Nobody may wait here; somebody must, or the guard would stay as a zombie.
        let waiting = std::thread::Builder::new().name("backup-scratch-end".into());
        let _ = waiting.spawn(move || end(guard, &path));
    }
}

fn end(mut guard: Child, path: &Path) {
    let _ = fs::remove_dir_all(path);
    drop(guard.stdin.take());
    let _ = guard.wait();
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

/// Bytes of all files below a directory. Blocks.
pub(super) fn bytes_in(directory: &Path) -> u64 {
    let mut bytes = 0_u64;
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        // What vanishes meanwhile takes no space.
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => open.push(entry.path()),
                Ok(metadata) => bytes = bytes.saturating_add(metadata.len()),
                Err(_) => {}
            }
        }
    }
    bytes
}

/// Refuses what does not fit any more.
pub(super) fn check_bound(directory: &Path, bytes_max: u64) -> Result<()> {
    let bytes = bytes_in(directory);
    if bytes <= bytes_max {
        return Ok(());
    }
    let message = format!(
        "the scratch directory may hold {bytes_max} bytes, and dumps take more: give it more room, or use the custom \
         format, which needs none"
    );
    Err(Error::new(ErrorKind::NoSpace, message))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_private_bounded_and_goes() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(parent.path()).unwrap();
        let other = Scratch::new(parent.path()).unwrap();
        assert_ne!(scratch.path(), other.path());
        assert_eq!(fs::metadata(scratch.path()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::create_dir(scratch.path().join("d")).unwrap();
        fs::write(scratch.path().join("d/file"), "12345").unwrap();
        assert_eq!(bytes_in(scratch.path()), 5);
        check_bound(scratch.path(), 5).unwrap();
        assert_eq!(check_bound(scratch.path(), 4).unwrap_err().kind(), ErrorKind::NoSpace);
        scratch.remove();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        drop(other);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while fs::read_dir(parent.path()).unwrap().count() > 0 {
            assert!(std::time::Instant::now() < until);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(Scratch::new(Path::new("relative")).is_err());
    }
}
