//! Dumps from the command line: `create postgres --mode logical`, `restore-postgres --connection`.
//!
//! The servers are real ones; see `backup-sources/tests/postgres_server`.

#![cfg(feature = "postgres")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

#[path = "../../../backup-sources/tests/postgres_server/mod.rs"]
mod postgres_server;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use postgres_server::{Cluster, PASSWORD};
use serde_json::{Value, json};

/// A repository, and the programs of the servers' version.
struct World {
    directory: tempfile::TempDir,
    programs: String,
}

impl World {
    fn new(cluster: &Cluster) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("key"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
        let world = Self { directory, programs: cluster.version().bin().display().to_string() };
        world.json(0, &["init"]);
        world
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.directory.path()).env("PGPASSWORD", PASSWORD);
        command.arg("--repo").arg(self.directory.path().join("repository"));
        command.arg("--key-file").arg(self.directory.path().join("key"));
        command
    }

    /// What a command says, as JSON, and on standard error.
    fn said(&self, code: i32, arguments: &[&str]) -> (Value, String) {
        let output = self.command().arg("--json").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (document, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        self.said(code, arguments).0
    }

    fn dump(&self, cluster: &Cluster, arguments: &[&str]) -> Value {
        let connection = over_tcp(cluster);
        let dump = [
            "create",
            "postgres",
            "--mode",
            "logical",
            "--connection",
            &connection,
            "--programs",
            &self.programs,
        ];
        self.json(0, &[&dump[..], arguments].concat())
    }

    fn restore(&self, code: i32, cluster: &Cluster, arguments: &[&str]) -> Value {
        let connection = over_tcp(cluster);
        let restore =
            ["restore-postgres", "latest", "--connection", &connection, "--programs", &self.programs];
        self.json(code, &[&restore[..], arguments].concat())
    }
}

fn over_tcp(cluster: &Cluster) -> String {
    format!("host=127.0.0.1 port={} user=postgres dbname=postgres", cluster.port())
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|database| database["into"].as_str().unwrap()).collect()
}

#[test]
fn databases_are_dumped_and_restored_elsewhere() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let world = World::new(&cluster);
    let odd = "Shop = host=evil /1";
    cluster.sql("create role clerk login password 'x'");
    cluster.sql(&format!("create database \"{odd}\" owner clerk"));
    cluster.sql("create database rest");
    cluster.sql_in(odd, "create table t as select n, md5(n::text) from generate_series(1, 20000) n; create table u (n int); alter table t owner to clerk");

    // Nothing is there to be restored, and a physical backup is none.
    let none = world.restore(4, &other, &[]);
    assert_eq!(none["error"]["kind"], "nothing_matches", "{none:#}");
    let made = world.dump(&cluster, &["--cluster", "shop"]);
    assert_eq!((&made["outcome"], &made["entries"]), (&json!("complete"), &json!(4)), "{made:#}");
    let shown = world.json(0, &["show", "latest"]);
    assert!(shown.to_string().contains("\"mode\":\"logical\""), "{shown:#}");

    // A plan says what is missing, and changes nothing.
    let refused = world.restore(1, &other, &["--dry-run"]);
    let why = refused["error"]["message"].as_str().unwrap().to_owned();
    assert!(why.contains("`rest` is not there") && why.contains(&format!("`{odd}` is not there")), "{why}");
    let plan = world.restore(0, &other, &["--dry-run", "--create"]);
    assert_eq!(names(&plan["plan"]["databases"]), [odd, "postgres", "rest"], "{plan:#}");
    assert_eq!(other.sql("select count(*) from pg_database"), "3");

    let restored = world.restore(0, &other, &["--create", "--globals", "--owners"]);
    assert_eq!(names(&restored["databases"]), [odd, "postgres", "rest"], "{restored:#}");
    assert_eq!(restored["globals"]["kept"], json!(["role postgres"]), "{restored:#}");
    assert_eq!(cluster.checksum(odd, "t"), other.checksum(odd, "t"));
    assert_eq!(other.sql_in(odd, "select relowner::regrole from pg_class where relname = 't'"), "clerk");

    // What is there stays, unless that is said; one table, one database.
    other.sql_in(odd, "delete from t where n > 5");
    let refused = world.restore(1, &other, &["--database", odd]);
    assert!(refused["error"]["message"].as_str().unwrap().contains("is not empty"), "{refused:#}");
    assert_eq!(other.sql_in(odd, "select count(*) from t"), "5");
    world.restore(0, &other, &["--database", odd, "--table", "t", "--clean"]);
    assert_eq!(cluster.checksum(odd, "t"), other.checksum(odd, "t"));
    other.sql("create database copy template template0");
    world.restore(0, &other, &["--database", odd, "--into", "copy"]);
    assert_eq!(cluster.checksum(odd, "t"), other.checksum("copy", "t"));

    // A recovery needs files, and says so of dumps.
    let to = world.directory.path().join("to").display().to_string();
    world.json(4, &["restore-postgres", "latest", "--to", &to]);
    let id = made["snapshot"].as_str().unwrap();
    let wrong = world.json(1, &["restore-postgres", id, "--to", &to]);
    assert!(wrong["error"]["message"].as_str().unwrap().contains("over a connection"), "{wrong:#}");
    assert!(!std::path::Path::new(&to).exists());
}

#[test]
fn a_dump_that_fails_is_no_snapshot_and_nonsense_is_refused() {
    let cluster = Cluster::new();
    let world = World::new(&cluster);
    let bin = world.directory.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] || {{ echo cut; exit 1; }}\nexec {}/pg_dump --version\n",
        world.programs
    );
    fs::write(bin.join("pg_dump"), script).unwrap();
    fs::set_permissions(bin.join("pg_dump"), fs::Permissions::from_mode(0o755)).unwrap();
    let (connection, bin) = (over_tcp(&cluster), bin.display().to_string());
    let create = ["create", "postgres", "--connection", &connection];
    let logical = [&create[..], &["--mode", "logical"]].concat();
    let failed = world.json(1, &[&logical[..], &["--no-globals", "--programs", &bin]].concat());
    assert!(failed["error"]["message"].as_str().unwrap().contains("exit status 1"), "{failed:#}");
    assert_eq!(world.json(0, &["list"])["snapshots"], json!([]));
    let nonsense: [&[&str]; 8] = [
        &["--pgdata", "/x"],
        &["--type", "full"],
        &["--no-log-wait"],
        &["--dump-format", "plain"],
        &["--dump-format", "directory"],
        &["--scratch", "/tmp"],
        &["--connections", "0"],
        &["--no-globals", "--no-role-passwords"],
    ];
    for arguments in nonsense {
        world.said(2, &[&logical[..], arguments].concat());
    }
    world.said(2, &[&create[..], &["--database", "postgres"]].concat());
    let restore = ["restore-postgres", "latest"];
    for arguments in [
        &[] as &[&str],
        &["--to", "/x", "--connection", &connection],
        &["--to", "/x", "--database", "d"],
        &["--connection", &connection, "--table", "t"],
        &["--connection", &connection, "--target-lsn", "0/1"],
        &["--connection", &connection, "--standby"],
        &["--connection", "nonsense"],
    ] {
        world.said(2, &[&restore[..], arguments].concat());
    }
}
