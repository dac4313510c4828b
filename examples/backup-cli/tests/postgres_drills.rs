//! Drills of two clusters whose data belong together: both are recovered to one common moment.

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
use std::path::{Path, PathBuf};
use std::process::Command;

use postgres_server::{Cluster, eventually, run};
use serde_json::Value;

/// Two clusters that archive into one repository.
struct Two {
    orders: Cluster,
    billing: Cluster,
    directory: PathBuf,
}

impl Two {
    fn new() -> Self {
        let make = || Cluster::builder().config("archive_mode = on").make();
        let two = Self { orders: make(), billing: make(), directory: PathBuf::new() };
        let directory = two.orders.directory("two");
        let two = Self { directory, ..two };
        run(Command::new("cp").arg(env!("CARGO_BIN_EXE_backup")).arg(two.path("program")));
        fs::write(two.path("key"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
        fs::create_dir(two.path("scratch")).unwrap();
        fs::write(two.path("two.toml"), two.configuration()).unwrap();
        two.orders.account().own(&two.directory);
        two.json(0, &["init"]);
        for cluster in two.both() {
            let (program, config) = (two.path("program"), two.path("two.toml"));
            // The server's user may not write the record of seals of a whole run of tests.
            let push = format!(
                "env -u BACKUP_SEAL_LOG {} --config {} log push --new-system %p",
                program.display(),
                config.display()
            );
            cluster.append_config(&format!("archive_command = '{push}'"));
            cluster.start();
            cluster.sql("create table said (what text)");
        }
        two
    }

    fn configuration(&self) -> String {
        let server = self.orders.program("postgres");
        let programs = Path::new(server.get_program()).parent().unwrap().display().to_string();
        let source = |name: &str, cluster: &Cluster| {
            format!(
                "[sources.{name}]\nkind = \"postgres\"\nconnection = \"\"\"{}\"\"\"\npgdata = \"{}\"\ncluster = \"{name}\"\n\
                 fast_checkpoint = true\n[jobs.{name}]\nsource = \"{name}\"\nrepository = \"main\"\n",
                cluster.conninfo("postgres"),
                cluster.data().display(),
            )
        };
        let drill = |name: &str, orders: u32, billing: u32| {
            let check = |label: &str, rows: u32| {
                format!(
                    "{{ label = \"{label}\", checks = [{{ database = \"postgres\", query = \"select count(*) from public.said\", \
                     value = \"{rows}\" }}] }}"
                )
            };
            format!(
                "[drills.{name}]\nkind = \"postgres\"\nrepository = \"main\"\nscratch = \"scratch\"\nprograms = \"{programs}\"\n\
                 report = \"{name}.json\"\nclusters = [{}, {}]\n",
                check("orders", orders),
                check("billing", billing)
            )
        };
        let repository = "[places.here]\nkind = \"local\"\npath = \"repository\"\n[keys.file]\nkind = \"key-file\"\nsecret = \"file:key\"\n\
                          [repositories.main]\nplace = \"here\"\nkeys = [\"file\"]\n";
        [
            repository.to_owned(),
            source("orders", &self.orders),
            source("billing", &self.billing),
            drill("common", 2, 1),
            drill("wrong", 2, 2),
        ]
        .concat()
    }

    fn both(&self) -> [&Cluster; 2] {
        [&self.orders, &self.billing]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let mut command = self.orders.account().command(self.path("program"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.directory);
        command.arg("--config").arg(self.path("two.toml")).arg("--json").args(arguments);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Waits until both logs are archived up to here.
    fn archived(&self) {
        for cluster in self.both() {
            let segment = cluster.switch_wal();
            eventually("an archived segment", || {
                let last = cluster.sql("select coalesce(last_archived_wal, '') from pg_stat_archiver");
                (last >= segment).then_some(())
            });
        }
    }
}

#[test]
fn two_clusters_are_rehearsed_to_one_common_moment() {
    let two = Two::new();
    two.json(0, &["run"]);
    let say = |cluster: &Cluster, what: &str| cluster.sql(&format!("insert into said values ('{what}')"));
    say(&two.orders, "one");
    say(&two.billing, "one");
    say(&two.orders, "two");
    // The latest of the one that was written to first: the common moment is just before.
    say(&two.billing, "two");
    say(&two.orders, "three");
    two.archived();

    let report = two.json(0, &["drill", "common"]);
    assert!(report["passed"] == true && report["moment"].is_string(), "{report:#}");
    assert_eq!(report["drills"].as_array().unwrap().len(), 2, "{report:#}");
    assert!(report["rto_seconds"].is_f64() && report["rpo_seconds"].is_f64(), "{report:#}");
    let written: Value = serde_json::from_slice(&fs::read(two.path("common.json")).unwrap()).unwrap();
    assert_eq!(written["moment"], report["moment"]);
    assert_eq!(fs::read_dir(two.path("scratch")).unwrap().count(), 0);

    // One of two that is not as it should be is enough.
    let report = two.json(1, &["drill", "wrong"]);
    let passed: Vec<&Value> =
        report["drills"].as_array().unwrap().iter().map(|drill| &drill["passed"]).collect();
    assert_eq!(
        (passed, &report["passed"]),
        (vec![&Value::Bool(true), &Value::Bool(false)], &Value::Bool(false))
    );
    let evidence = two.json(0, &["evidence", "list", "--kind", "drill"]);
    assert_eq!(evidence["evidence"].as_array().unwrap().len(), 2, "{evidence:#}");

    // By names of snapshots, too; what has no meaning for both is refused.
    let listed = two.json(0, &["list"]);
    let ids: Vec<&str> = listed["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|snapshot| snapshot["id"].as_str().unwrap())
        .collect();
    let scratch = two.path("scratch").display().to_string();
    let named = ["drill", ids[0], ids[1], "--scratch", &scratch];
    let error = two.json(2, &[&named[..], &["--target-lsn", "0/9000000"]].concat());
    assert!(
        error["error"]["message"].as_str().unwrap().contains("something else in each cluster"),
        "{error:#}"
    );
    let error = two.json(2, &["drill", ids[0], ids[0], "--scratch", &scratch]);
    assert!(error["error"]["message"].as_str().unwrap().contains("one cluster"), "{error:#}");
    // A moment before one of the backups ended is none for both.
    let early = two.json(1, &[&named[..], &["--target-time", "2020-01-01T00:00:00Z"]].concat());
    assert_eq!(early["passed"], false, "{early:#}");
}
