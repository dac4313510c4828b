//! A mount that a test looks into, by the real program and the kernel.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Scratch, heeding_signals};

/// Somebody without privileges.
pub const NOBODY: u32 = 65_534;

/// A running `backup mount`.
pub struct Mounted {
    child: Child,
    directory: PathBuf,
    errors: PathBuf,
    // Held, so that what the program still prints does not end it.
    _out: BufReader<ChildStdout>,
}

impl Mounted {
    /// Mounts the repository of a scratch on its directory `mnt`.
    pub fn start(scratch: &Scratch, options: &[&str]) -> Self {
        Self::start_at(scratch, "mnt", options)
    }

    pub fn start_at(scratch: &Scratch, name: &str, options: &[&str]) -> Self {
        let mut command = scratch.command(["--json", "mount"]);
        command.arg(scratch.path(name)).args(options);
        Self::start_by(heeding_signals(&command), scratch, name)
    }

    /// Mounts it as somebody without privileges, on a directory of theirs.
    pub fn start_as_nobody(scratch: &Scratch, name: &str) -> Self {
        let directory = scratch.path(name);
        let mut command = scratch.command_of_nobody(["--json", "mount"]);
        command.arg(&directory);
        fs::create_dir(&directory).unwrap();
        let mut command = heeding_signals(&command);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&directory, Some(NOBODY), Some(NOBODY)).unwrap();
            command.uid(NOBODY).gid(NOBODY);
        }
        Self::start_by(command, scratch, name)
    }

    /// Mounts by this command, which names the directory.
    pub fn start_by(mut command: Command, scratch: &Scratch, name: &str) -> Self {
        assert!(
            Path::new("/dev/fuse").exists(),
            "mounting is tested for real, and there is no /dev/fuse: load the module (modprobe fuse), or give the container \
             the device (docker run --device /dev/fuse --cap-add SYS_ADMIN)"
        );
        let directory = scratch.path(name);
        let errors = scratch.path(&format!("{name}.errors"));
        fs::create_dir_all(&directory).unwrap();
        command.stdout(Stdio::piped()).stderr(fs::File::create(&errors).unwrap());
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let document: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        assert_eq!(
            document["mounted"].as_str(),
            Some(directory.to_str().unwrap()),
            "{line}{}",
            fs::read_to_string(&errors).unwrap()
        );
        Self { child, directory, errors, _out: out }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What the program said on standard error.
    pub fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How the program ended, which it must soon.
    pub fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not end: {}", self.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Unmounts it from outside and expects this exit code.
    pub fn unmount(mut self, code: i32) {
        assert!(fusermount(&self.directory, &["-u"]), "{}", self.errors());
        assert_eq!(self.ended().code(), Some(code), "{}", self.errors());
        assert!(!is_mounted(&self.directory));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Command::new("fusermount3").args(["-u", "-z", "-q"]).arg(&self.directory).status();
    }
}

pub fn fusermount(directory: &Path, options: &[&str]) -> bool {
    let done = Command::new("fusermount3").args(options).arg(directory).status();
    done.unwrap_or_else(|e| panic!("fusermount3 must be installed (apt-get install fuse3): {e}")).success()
}

pub fn is_mounted(directory: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(1) == directory.to_str())
}

/// The names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
