//! Runs the real program on scratch directories.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, here as well")]

pub mod odd;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A directory with a key file, a tree to back up and a place for a repository.
pub struct Scratch {
    directory: tempfile::TempDir,
}

/// What a run did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
    pub raw: Vec<u8>,
}

impl Scratch {
    pub fn new() -> Self {
        let scratch = Self { directory: tempfile::tempdir().unwrap() };
        // 32 bytes in base64, as `head -c 32 /dev/urandom | base64` prints them.
        std::fs::write(scratch.path("key"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
        std::fs::create_dir_all(scratch.path("tree/deep/deeper")).unwrap();
        std::fs::write(scratch.path("tree/a.txt"), "alpha\n").unwrap();
        std::fs::write(scratch.path("tree/deep/b.bin"), pseudo_random(300_000, 1)).unwrap();
        std::fs::write(scratch.path("tree/deep/deeper/c.txt"), "gamma\n".repeat(10_000)).unwrap();
        std::os::unix::fs::symlink("a.txt", scratch.path("tree/link")).unwrap();
        scratch
    }

    /// With a repository that has a key.
    pub fn with_repository() -> Self {
        let scratch = Self::new();
        scratch.ok(["init"]);
        scratch
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The name in snapshots of a path of this scratch.
    pub fn name(&self, name: &str) -> String {
        self.text(name).trim_start_matches('/').to_owned()
    }

    /// The program with the repository and key of this scratch, in a clean environment.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = bare(arguments);
        command.current_dir(self.directory.path());
        command.env("BACKUP_REPO", self.path("repository")).env("BACKUP_KEY_FILE", self.path("key"));
        command
    }

    /// The same as somebody without privileges, also where the tests run as root, to whom nothing is forbidden.
    pub fn command_of_nobody<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        use std::os::unix::fs::PermissionsExt;
        use std::os::unix::process::CommandExt;
        if !rustix::process::geteuid().is_root() {
            return self.command(arguments);
        }
        // Where the program stands, nobody else may be able to go.
        let copy = self.path("program");
        if !copy.exists() {
            // By another process: what this one has open for writing, commands started meanwhile by other tests have open,
            // too, for a moment, and then it cannot be executed (ETXTBSY, execve(2)).
            let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_backup")).arg(&copy).status().unwrap();
            assert!(copied.success());
            let open = std::fs::Permissions::from_mode(0o777);
            std::fs::set_permissions(self.directory.path(), open).unwrap();
        }
        let model = self.command(arguments);
        let mut command = Command::new(copy);
        command.args(model.get_args()).stdin(Stdio::null()).current_dir(self.directory.path()).env_clear();
        command.envs(model.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.uid(65_534).gid(65_534);
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        run(&mut self.command(arguments))
    }

    /// A run that must succeed.
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        self.run(arguments).expect(0)
    }

    /// A run with `--json` that must end with `code`; the one document it prints.
    pub fn json<S: AsRef<OsStr>>(&self, code: i32, arguments: impl IntoIterator<Item = S>) -> Value {
        // First: what follows a `--` belongs to another program.
        let mut command = self.command(["--json"]);
        command.args(arguments);
        run(&mut command).expect(code).json()
    }

    /// Backs up the tree; the snapshot's id.
    pub fn snapshot(&self) -> String {
        let report = self.json(0, ["create", "files", "tree"]);
        report["snapshot"].as_str().unwrap().to_owned()
    }
}

impl Ran {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        let mut documents = serde_json::Deserializer::from_str(&self.out).into_iter::<Value>();
        let document = documents.next().unwrap_or_else(|| panic!("no document: {self:#?}")).unwrap();
        assert!(documents.next().is_none(), "more than one document: {self:#?}");
        document
    }
}

/// The program in a clean environment, without a repository.
pub fn bare<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backup"));
    command.args(arguments).stdin(Stdio::null());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    if let Some(temporary) = std::env::var_os("TMPDIR") {
        command.env("TMPDIR", temporary);
    }
    command
}

pub fn run(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().unwrap();
    Ran {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
        raw: stdout,
    }
}

/// The same command, with no signal ignored: these tests may run in the background or below `nohup`, which pass on what
/// they ignore.
pub fn heeding_signals(model: &Command) -> Command {
    let mut command = Command::new("/usr/bin/env");
    command.arg("--default-signal=HUP,INT,TERM").arg(model.get_program()).args(model.get_args());
    command.stdin(Stdio::null()).env_clear();
    command.envs(model.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = model.get_current_dir() {
        command.current_dir(directory);
    }
    command
}

/// Bytes that do not compress, the same for the same seed.
pub fn pseudo_random(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// Everything in a tree: names, kinds, modes, modification times, contents.
pub fn listing(root: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut all = Vec::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(path) = left.pop() {
        let there = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let content = if there.is_symlink() {
            format!("-> {}", path.read_link().unwrap().display())
        } else if there.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else {
            format!("{:?}", std::fs::read(&path).unwrap())
        };
        all.push(format!("{name} {:o} {}.{} {content}", there.mode(), there.mtime(), there.mtime_nsec()));
    }
    all.sort();
    all
}

/// The largest file in a tree.
pub fn largest(root: &Path) -> PathBuf {
    let mut found = Vec::new();
    for directory in std::fs::read_dir(root).unwrap() {
        for file in std::fs::read_dir(directory.unwrap().path()).unwrap() {
            let file = file.unwrap();
            found.push((file.metadata().unwrap().len(), file.path()));
        }
    }
    found.into_iter().max().unwrap().1
}
