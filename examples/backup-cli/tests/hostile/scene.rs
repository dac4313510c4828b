//! Where a case is played: a repository, a target, and what stands around it and must not change.

use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The 32 bytes of a key file in base64.
pub const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";

/// The directories of a case, in a scratch directory that holds nothing else.
#[derive(Debug, Clone)]
pub struct Scene {
    pub top: PathBuf,
}

impl Scene {
    /// Lays it out.
    pub fn build(top: &Path) -> Self {
        let scene = Self { top: top.to_owned() };
        // Whoever gave away their privileges must still get here.
        fs::set_permissions(top, fs::Permissions::from_mode(0o755)).unwrap();
        let outside = scene.outside();
        fs::create_dir_all(outside.join("directory/deep")).unwrap();
        fs::write(outside.join("victim"), "untouched").unwrap();
        fs::write(outside.join("directory/victim"), "untouched below").unwrap();
        symlink("victim", outside.join("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            outside.join("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        xattr::set(outside.join("victim"), "user.kept", b"yes").unwrap();
        fs::set_permissions(outside.join("victim"), fs::Permissions::from_mode(0o640)).unwrap();
        set_time(&outside.join("victim"), 1_000_000_000);
        fs::write(top.join("key"), KEY).unwrap();
        for target in [scene.target(), scene.program_target()] {
            fs::create_dir(&target).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o777)).unwrap();
        }
        scene
    }

    pub fn outside(&self) -> PathBuf {
        self.top.join("outside")
    }

    pub fn repository(&self) -> PathBuf {
        self.top.join("repository")
    }

    /// What the library restores into.
    pub fn target(&self) -> PathBuf {
        self.top.join("target")
    }

    /// What the program restores into.
    pub fn program_target(&self) -> PathBuf {
        self.top.join("program-target")
    }

    /// All that is not in the targets, in words. With `links`, somebody may link to it meanwhile, which changes the count
    /// of names and the time of change.
    pub fn digest(&self, links: bool) -> String {
        let mut text = String::new();
        let mut left = vec![self.top.clone()];
        while let Some(path) = left.pop() {
            let meta = path.symlink_metadata().unwrap();
            let kind = meta.file_type();
            let shown = path.strip_prefix(&self.top).unwrap().display();
            write!(text, "{shown} {:o} {}:{} ", meta.mode(), meta.uid(), meta.gid()).unwrap();
            write!(text, "{}.{} {} ", meta.mtime(), meta.mtime_nsec(), meta.ino()).unwrap();
            if !links {
                write!(text, "{}.{} {} ", meta.ctime(), meta.ctime_nsec(), meta.nlink()).unwrap();
            }
            for name in xattr::list(&path).unwrap() {
                write!(text, "{name:?}={:?} ", xattr::get(&path, &name).unwrap()).unwrap();
            }
            if kind.is_symlink() {
                write!(text, "-> {:?}", fs::read_link(&path).unwrap()).unwrap();
            } else if kind.is_file() {
                write!(text, "{}", blake3::hash(&fs::read(&path).unwrap())).unwrap();
            } else if kind.is_dir() && path != self.target() && path != self.program_target() {
                let mut below: Vec<_> =
                    fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
                below.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
                left.extend(below);
            } else if kind.is_char_device() || kind.is_block_device() {
                write!(text, "device {}", meta.rdev()).unwrap();
            }
            // The targets themselves change; what they are called and that they are directories does not.
            if path == self.target() || path == self.program_target() {
                let line = text.rfind('\n').map_or(0, |at| at + 1);
                text.truncate(line);
                write!(text, "{shown}").unwrap();
            }
            text.push('\n');
        }
        text
    }

    /// Removes all of it; trees may be deeper than a recursion is.
    pub fn remove(&self) {
        let removed = Command::new("rm").arg("-rf").arg(&self.top).status().unwrap();
        assert!(removed.success());
    }
}

/// Gives a file a time of modification, to the second.
pub fn set_time(path: &Path, seconds: i64) {
    let at = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: at, last_modification: at };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
