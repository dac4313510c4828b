//! The example configuration of an analytics platform as it stands, but for its paths: a database with its log, configuration and
//! application logs kept for different times, a bucket that gets everything later, the health probe and the weekly drill.

#![cfg(all(feature = "postgres", feature = "s3"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

#[path = "../../../backup-sources/tests/postgres_server/mod.rs"]
mod postgres_server;
#[path = "../../../backup-sinks/tests/common/mod.rs"]
mod stores;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use postgres_server::{Cluster, eventually, run};
use serde_json::Value;
use stores::server::Server;

const DAY: Duration = Duration::from_secs(86_400);

/// The platform: a server that archives, directories, a bucket.
struct Platform {
    cluster: Cluster,
    program: PathBuf,
    directory: PathBuf,
    bucket: Server,
}

impl Platform {
    async fn new() -> Self {
        let bucket = Server::moto().await;
        let cluster = Cluster::builder().config("archive_mode = on\narchive_timeout = 60").make();
        let directory = cluster.directory("platform");
        let platform = Self { program: directory.join("program"), cluster, directory, bucket };
        // Where the program stands the server's user may not be able to go.
        run(Command::new("cp").arg(env!("CARGO_BIN_EXE_backup")).arg(&platform.program));
        for name in ["etc/analytics", "etc/postgresql", "logs", "scratch", "socket"] {
            fs::create_dir_all(platform.path(name)).unwrap();
        }
        fs::write(platform.path("key"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
        fs::write(platform.path("etc/analytics/app.toml"), "threads = 4\n").unwrap();
        fs::write(platform.path("etc/postgresql/pg_hba.conf"), "local all all trust\n").unwrap();
        fs::write(platform.path("logs/app.log"), "started\n".repeat(1000)).unwrap();
        fs::write(platform.path("logs/old.gz"), "left out").unwrap();
        fs::write(platform.path("e.toml"), platform.configuration()).unwrap();
        platform.cluster.account().own(&platform.directory);
        let archive = format!(
            "env -u BACKUP_SEAL_LOG {} --config {} log push %p",
            platform.program.display(),
            platform.text("e.toml")
        );
        platform.cluster.append_config(&format!("archive_command = '{archive}'"));
        tokio::task::block_in_place(|| platform.json_ago(200, &["init"]));
        platform.cluster.start();
        platform.cluster.sql("create role backup superuser login");
        platform
    }

    /// The example, with the paths of this test.
    fn configuration(&self) -> String {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("configurations/e-analytics.toml");
        let mut text = fs::read_to_string(example).unwrap();
        let cluster = &self.cluster;
        let socket = format!("host={} port={} user=backup", cluster.socket().display(), cluster.port());
        for (of_example, here) in [
            ("/srv/backup/analytics", self.text("repository")),
            ("s3://analytics-backup/main", format!("s3://{}/main", stores::BUCKET)),
            ("/etc/backup/key", self.text("key")),
            ("host=/run/postgresql user=backup", socket),
            ("/var/lib/postgresql/15/main", cluster.data().display().to_string()),
            ("/etc/analytics", self.text("etc/analytics")),
            ("/etc/postgresql", self.text("etc/postgresql")),
            ("/var/log/analytics", self.text("logs")),
            ("/var/lib/backup-drills", self.text("scratch")),
        ] {
            let quoted = [format!("\"{of_example}"), format!("file:{of_example}")];
            assert!(quoted.iter().any(|quoted| text.contains(quoted)), "{of_example}");
            text = text.replace(&format!("file:{of_example}"), &format!("file:{here}"));
            text = text.replace(&format!("\"{of_example}"), &format!("\"{here}"));
        }
        let server = cluster.program("postgres");
        let programs = Path::new(server.get_program()).parent().unwrap().display().to_string();
        // The server runs as whoever tests, and its programs stand where this version has them.
        text.replace("owner = \"postgres\"", &format!("programs = \"{programs}\""))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.cluster.account().command(&self.program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .env("HOME", &self.directory)
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.bucket.address));
        for (name, value) in [
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
        ] {
            command.env(name, value);
        }
        command.arg("--config").arg(self.path("e.toml")).arg("--json").args(arguments);
        command
    }

    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        document(code, &mut self.command(arguments))
    }

    /// The same so long ago: the program's clock is back, and what it stored has the store's time of then.
    fn json_ago(&self, days: u32, arguments: &[&str]) -> Value {
        let mut command = Command::new("faketime");
        let made = self.command(arguments);
        command.args(["-f", &format!("-{days}d")]).arg(made.get_program()).args(made.get_args());
        command.env_clear().envs(made.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let document = document(0, &mut command);
        self.cluster.account().own(&self.directory);
        let now = SystemTime::now();
        let files =
            run(Command::new("find").arg(self.path("repository")).args(["-type", "f", "-mmin", "-60"]));
        for file in files.lines() {
            fs::File::open(file).unwrap().set_modified(now - DAY * days).unwrap();
        }
        document
    }

    fn health(&self, code: i32) -> Value {
        let limits =
            ["--max-age", "24h", "--max-log-lag", "15m", "--max-drill-age", "8d", "--max-disk", "100"];
        self.json(code, &[&["health"], &limits[..]].concat())
    }

    /// Waits until the log is archived up to here.
    fn archived(&self) {
        let segment = self.cluster.switch_wal();
        eventually("an archived segment", || {
            let last = self.cluster.sql("select coalesce(last_archived_wal, '') from pg_stat_archiver");
            (last >= segment).then_some(())
        });
    }
}

fn document(code: i32, command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn statuses(report: &Value, name: &str) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap();
    let of_name = checks.iter().filter(|check| check["name"].as_str().unwrap().starts_with(name));
    of_name.map(|check| check["status"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_analytics_platform_is_backed_up_watched_rehearsed_and_restored() {
    let platform = Platform::new().await;
    tokio::task::spawn_blocking(move || story(&platform)).await.unwrap();
}

fn story(platform: &Platform) {
    let cluster = &platform.cluster;
    cluster.sql("create database warehouse");
    cluster.sql_in(
        "warehouse",
        "create table orders as select n, repeat('x', n % 90) from generate_series(1, 3000) n",
    );

    // Configuration is kept for 90 days, application logs for 30.
    let mut made = Vec::new();
    for days in [100, 40] {
        let ran = platform.json_ago(days, &["run", "configuration", "logs"]);
        made.extend(ran["components"].as_array().unwrap().iter().map(|made| made["snapshot"].clone()));
    }
    let checked = platform.json(0, &["check"]);
    assert_eq!(statuses(&checked, "source warehouse"), ["ok"], "{checked:#}");
    assert_eq!(statuses(&checked, "archiving of warehouse"), ["ok"], "{checked:#}");
    assert_eq!(statuses(&checked, "drill weekly"), ["ok"], "{checked:#}");

    // The nightly run: nothing before the log that the backup needs is archived.
    let ran = platform.json(0, &["run", "warehouse", "configuration", "logs"]);
    assert_eq!(ran["outcome"], "complete", "{ran:#}");
    let planned = platform.json(0, &["forget", "--dry-run"]);
    assert_eq!(
        planned["remove"],
        Value::from([made[0].clone(), made[1].clone(), made[3].clone()].to_vec()),
        "{planned:#}"
    );
    let kept = planned["keep"].to_string();
    assert!(
        kept.contains(made[2].as_str().unwrap()),
        "the configuration of 40 days ago is kept: {planned:#}"
    );

    // What is archived of the log goes to the bucket, too, where the server has no keys for.
    platform.json(0, &["places", "sync"]);
    let places = platform.json(0, &["places", "report"]);
    assert_eq!(places["places"][1]["missing"], 0, "{places:#}");

    // Nobody has rehearsed a recovery yet.
    let health = platform.health(1);
    assert_eq!(statuses(&health, "drill"), ["warning"], "{health:#}");
    assert_eq!(statuses(&health, "log of PostgreSQL"), ["ok"], "{health:#}");
    cluster.sql_in("warehouse", "insert into orders values (3001, 'after the backup')");
    platform.archived();
    let drill = platform.json(0, &["drill", "weekly"]);
    assert!(drill["passed"] == true && drill["rto_seconds"].is_f64(), "{drill:#}");
    // Of the moment that was recorded after the backup, and not what came later.
    let checks: Vec<&str> =
        drill["checks"].as_array().unwrap().iter().filter_map(|check| check["name"].as_str()).collect();
    assert_eq!(checks, ["orders are there", "warehouse.public.orders"], "{drill:#}");
    assert_eq!(fs::read_dir(platform.path("scratch")).unwrap().count(), 0);
    let health = platform.health(0);
    assert_eq!(
        (statuses(&health, "drill"), statuses(&health, "lag of the log")),
        (vec!["ok".into()], vec!["ok".into()])
    );
    assert_eq!(statuses(&health, "disk of").len(), 1, "{health:#}");

    // The log stays behind, and somebody is told.
    cluster.configure("archive_command = 'false'");
    let segment = cluster.switch_wal();
    cluster.sql_in("warehouse", "insert into orders values (3002, 'not archived')");
    cluster.switch_wal();
    eventually("a failure of the archiver", || {
        let failed = cluster.sql("select coalesce(last_failed_wal, '') from pg_stat_archiver");
        (failed >= segment).then_some(())
    });
    let health = platform.health(2);
    assert_eq!(statuses(&health, "archiving of PostgreSQL"), ["critical"], "{health:#}");
    // A drill that the log does not reach says so, and from then on nothing is well before another has passed.
    let refused = [
        "restore-postgres",
        "latest",
        "--to",
        &platform.text("refused"),
        "--target-time",
        "2125-01-01T00:00:00Z",
    ];
    let error = platform.json(1, &refused);
    assert!(!platform.path("refused").exists(), "{error:#}");

    // A restore to the moment of the drill, from the bucket alone.
    fs::rename(platform.path("repository"), platform.path("lost")).unwrap();
    let to = platform.text("restored");
    let restore = ["--repo", "main@bucket", "restore", "latest", "--label", "configuration", "--to", &to];
    platform.json(0, &restore);
    let restored = to + &platform.text("etc/analytics/app.toml");
    assert_eq!(fs::read_to_string(restored).unwrap(), "threads = 4\n");
}
