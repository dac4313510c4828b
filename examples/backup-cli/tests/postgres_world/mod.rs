//! A cluster that archives into a repository by the real program, and runs of that program.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test, of which each file uses a part"
)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use backup_core::{JobContext, Repository, Sink, TransformSet};
use backup_crypto::{Keyring, Recipient};
use backup_sinks::LocalSink;
use backup_sources::postgres::WalArchive;
use serde_json::Value;

use crate::postgres_server::{Builder, Cluster, eventually, run};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";

/// A cluster that archives into a repository.
#[derive(Debug)]
pub struct World {
    pub cluster: Cluster,
    pub program: PathBuf,
    directory: PathBuf,
}

/// What a run did.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl World {
    pub fn new() -> Self {
        Self::with(Cluster::builder().config("archive_timeout = 3600"))
    }

    /// Of a cluster that is described, and started then.
    pub fn with(builder: Builder) -> Self {
        let cluster = builder.config("archive_mode = on\nwal_level = replica").make();
        let directory = cluster.directory("backup");
        // Where the program stands the server's user may not be able to go. By another process, so that nobody has it open for writing.
        let program = directory.join("program");
        run(Command::new("cp").arg(env!("CARGO_BIN_EXE_backup")).arg(&program));
        fs::write(directory.join("key"), KEY).unwrap();
        cluster.account().own(&directory);
        let world = Self { cluster, program, directory };
        world.ok(["init"]);
        world.cluster.append_config(&format!("archive_command = '{}'", world.called("log push %p")));
        world.cluster.start();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The program in the words of a server's setting. A server whose command was killed waits for ten seconds; one whose command failed
    /// for one.
    pub fn called(&self, words: &str) -> String {
        // The record of seals of a whole run of tests is in a directory that the server's user may not enter.
        format!(
            "env -u BACKUP_SEAL_LOG {} --repo {} --key-file {} {words}",
            self.program.display(),
            self.path("repository").display(),
            self.path("key").display()
        )
    }

    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.cluster.account().command(&self.program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", &self.directory);
        command.arg("--repo").arg(self.path("repository")).arg("--key-file").arg(self.path("key"));
        command.args(arguments);
        command
    }

    /// A process that says nothing but into a file.
    pub fn spawn<S: AsRef<OsStr>>(&self, said: &str, arguments: impl IntoIterator<Item = S>) -> Child {
        let said = fs::File::create(self.path(said)).unwrap();
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().unwrap()
    }

    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    pub fn ok<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.out
    }

    pub fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let ran = self.run(all);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
    }

    /// The words that back up a cluster.
    pub fn backing_up(&self, cluster: &Cluster) -> Vec<String> {
        let pgdata = cluster.data().display().to_string();
        let connection = cluster.conninfo("postgres");
        let words =
            ["create", "postgres", "--connection", &connection, "--pgdata", &pgdata, "--fast-checkpoint"];
        words.map(str::to_owned).to_vec()
    }

    pub fn back_up(&self) -> Value {
        self.back_up_of(&self.cluster)
    }

    /// Backs up another server of the same cluster.
    pub fn back_up_of(&self, cluster: &Cluster) -> Value {
        let words = self.backing_up(cluster);
        self.json(0, &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Waits until the log is archived up to here.
    pub fn archived(&self) {
        archived(&self.cluster);
    }

    pub fn programs(&self) -> String {
        let program = self.cluster.program("postgres");
        Path::new(program.get_program()).parent().unwrap().display().to_string()
    }

    /// The archived log, seen without the program.
    pub async fn archive(&self) -> WalArchive {
        let job = JobContext::new();
        let sink: Arc<dyn Sink> = Arc::new(LocalSink::open(self.path("repository")).unwrap());
        let recipient = Recipient::key_file(KEY.as_bytes()).unwrap();
        let protection = Keyring::unlock(&sink, &[recipient], &job).await.unwrap();
        let repository = Repository::open(sink, protection, TransformSet::builtin(), &job).await.unwrap();
        WalArchive::new(vec![repository]).unwrap()
    }
}

/// Waits until a server has archived its log up to here. Its statistics know only of what it has asked for, and not of what was archived
/// beside that.
pub fn archived(cluster: &Cluster) {
    let segment = cluster.switch_wal();
    let done = cluster.data().join("pg_wal/archive_status").join(format!("{segment}.done"));
    eventually("an archived segment", || {
        let last = cluster.sql("select coalesce(last_archived_wal, '') from pg_stat_archiver");
        (done.exists() || last >= segment).then_some(())
    });
}
