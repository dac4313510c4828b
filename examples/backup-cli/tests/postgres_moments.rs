//! Twenty moments of a busy cluster with a tablespace, across two promotions whose timelines jump: its log is pushed and received at once
//! into one lineage of a repository, and recoveries to each moment have exactly what was recorded.

#![cfg(feature = "postgres")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test"
)]

#[path = "../../../backup-sources/tests/postgres_archive/moments.rs"]
mod moments;
#[path = "../../../backup-sources/tests/postgres_server/mod.rs"]
mod postgres_server;

mod postgres_world;

use std::fs;
use std::process::{Child, Command};
use std::time::Instant;

use backup_core::JobContext;
use backup_sources::postgres::Timeline;
use backup_sources::postgres::recovery::{RecoveryTarget, StopAt, TargetTimeline};
use backup_sources::postgres::wal::WalFile;
use moments::{Moment, Recorder, state_query};
use postgres_server::{Cluster, Guard, Stop, eventually, free_port, run};
use postgres_world::{World, archived};
use serde_json::Value;

/// A timeline by its number.
fn on(number: u32) -> TargetTimeline {
    TargetTimeline::Number(Timeline::new(number))
}

/// `log receive` at work.
struct Receiver {
    child: Child,
    said: String,
}

impl Receiver {
    fn start(world: &World, server: &Cluster, slot: &str) -> Self {
        let connection = server.conninfo("postgres");
        let words = ["--json", "log", "receive", "--connection", &connection, "--slot", slot];
        let said = world.path(slot).display().to_string();
        let out = fs::File::create(&said).unwrap();
        let mut command = world.command(words);
        Self { child: command.stdout(out).spawn().unwrap(), said }
    }

    /// Ends it, and returns how it stood.
    fn stop(mut self) -> Value {
        run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]));
        self.child.wait().unwrap();
        serde_json::from_str(&fs::read_to_string(&self.said).unwrap()).unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A standby that follows, and gets what it lacks from the archive.
fn standby_of(world: &World, primary: &Cluster) -> Cluster {
    let standby = primary.make_standby();
    let fetch = world.called("log fetch %f %p");
    standby.append_config(&format!("restore_command = '{fetch}'\nrecovery_target_timeline = current"));
    standby.start();
    standby
}

/// Makes a standby a primary on a timeline whose number does not follow: somebody else has taken the one that would.
async fn promote(world: &World, standby: &Cluster, primary: &Cluster, taken: u32) {
    standby.catch_up(primary);
    primary.stop(Stop::Fast);
    let file = WalFile::History(Timeline::new(taken));
    let archive = world.archive().await;
    archive.put(file, "1\t0/1000000\tabandoned\n".into(), None, &JobContext::new()).await.unwrap();
    world.cluster.account().own(&world.path("repository"));
    standby.promote();
    standby.checkpoint();
    assert_eq!(standby.timeline(), taken + 1);
}

/// A moment in the words of the command line.
fn words(target: &RecoveryTarget) -> Vec<String> {
    let (option, value) = match &target.stop {
        StopAt::Time(time) => ("--target-time", time.to_string()),
        StopAt::Lsn(lsn) => ("--target-lsn", lsn.to_string()),
        StopAt::Xid(xid) => ("--target-xid", xid.to_string()),
        StopAt::Name(name) => ("--target-name", name.clone()),
        _ => return vec!["--timeline".into(), target.timeline.to_string()],
    };
    vec![option.to_owned(), value, "--timeline".to_owned(), target.timeline.to_string()]
}

/// Recovers to a moment, compares what is there, and returns the plan.
fn recover(world: &World, snapshot: &str, moment: &Moment, oid: &str) -> Value {
    let began = Instant::now();
    let site = world.cluster.directory("site");
    let (data, socket) = (site.join("data"), world.cluster.directory("s").display().to_string());
    let (port, programs) = (free_port().to_string(), world.programs());
    let space = format!("{oid}={}", site.join("space").display());
    let to = data.display().to_string();
    let place = ["restore-postgres", snapshot, "--to", &to, "--tablespace-map", &space];
    let start = ["--start", "--programs", &programs, "--socket", &socket, "--port", &port];
    let target = words(&moment.target);
    let target: Vec<&str> = target.iter().map(String::as_str).collect();
    let guard = Guard::new(&data, None);
    let restored = world.json(0, &[&place[..], &target[..], &start[..]].concat());
    let mut psql = world.cluster.program("psql");
    psql.args(["-XAtq", "-h", &socket, "-p", &port, "-U", "postgres", "-c", &state_query()]);
    assert_eq!(run(&mut psql), moment.state, "{} on {}", moment.target, moment.timeline);
    drop(guard);
    let plan = restored["plan"].clone();
    assert_eq!(number(&plan["timeline"]), moment.timeline, "{plan:#}");
    println!("{} from {}: {:?}", moment.target, plan["base"]["id"], began.elapsed());
    fs::remove_dir_all(&site).unwrap();
    restored
}

/// A timeline, which is written in hexadecimal digits.
fn number(timeline: &Value) -> u32 {
    u32::from_str_radix(timeline.as_str().unwrap(), 16).unwrap()
}

fn timelines(restored: &Value) -> Vec<u32> {
    let legs = restored["plan"]["legs"].as_array().unwrap().iter();
    legs.map(|leg| number(&leg["timeline"])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_moments_are_recovered_exactly_from_a_log_that_was_pushed_and_received_at_once() {
    let world = World::with(Cluster::builder().initdb("--wal-segsize=1"));
    let primary = &world.cluster;
    primary.tablespace("elsewhere");
    primary.bench_init_with(1, &["--tablespace=elsewhere"]);
    primary.sql("create table moments (number int)");
    let oid = primary.sql("select oid from pg_tablespace where spcname = 'elsewhere'");
    let mut recorder = Recorder::default();

    // The first timeline, with a base backup under load.
    let receiver = Receiver::start(&world, primary, "one");
    let load = primary.load(2);
    let first = world.back_up()["snapshot"].as_str().unwrap().to_owned();
    recorder.record_many(primary, 1, 8);
    drop(load);
    primary.bench(1, 20);
    let second = standby_of(&world, primary);
    promote(&world, &second, primary, 2).await;
    let one = receiver.stop();

    // The next one, with a base backup of a standby.
    let receiver = Receiver::start(&world, &second, "two");
    let third = standby_of(&world, &second);
    let load = second.load(2);
    recorder.record_many(&second, 3, 3);
    let other = world.back_up_of(&third)["snapshot"].as_str().unwrap().to_owned();
    recorder.record_many(&second, 3, 3);
    drop(load);
    second.bench(1, 20);
    promote(&world, &third, &second, 4).await;
    let two = receiver.stop();

    // And the last.
    let receiver = Receiver::start(&world, &third, "three");
    let load = third.load(2);
    recorder.record_many(&third, 5, 6);
    drop(load);
    third.bench(1, 20);
    let end = third.lsn();
    let state = third.sql(&state_query());
    archived(&third);
    let flushed = format!("select restart_lsn >= '{end}' from pg_replication_slots");
    eventually("the receiver's end", || (third.sql(&flushed) == "t").then_some(()));
    let three = receiver.stop();
    // Both have brought something of every timeline.
    for (received, server) in [(one, None), (two, None), (three, Some(&third))] {
        assert!(
            received["segments"].as_u64().zip(received["pieces"].as_u64()).is_some_and(|(a, b)| a + b > 3),
            "{received:#}"
        );
        let pushed = server.map(|server| server.sql("select archived_count > 0 from pg_stat_archiver"));
        assert!(pushed.is_none_or(|pushed| pushed == "t"));
    }
    let archive = world.archive().await;
    let audit = archive.audit(Some(end.parse().unwrap()), &JobContext::new()).await.unwrap();
    assert!(audit.is_sound() && audit.lag_bytes == Some(0), "{audit:?}");
    let found: Vec<u32> = audit.timelines.iter().map(|timeline| timeline.timeline.get()).collect();
    assert_eq!(found, [1, 2, 3, 4, 5]);

    assert_eq!(recorder.moments.len(), 20);
    let mut ways = Vec::new();
    for moment in &recorder.moments {
        let restored = recover(&world, "latest", moment, &oid);
        assert!(restored["state"].to_string().contains("paused"), "{restored:#}");
        ways.push((restored["plan"]["base"]["id"].as_str().unwrap().to_owned(), timelines(&restored)));
    }
    let latest = Moment { target: RecoveryTarget::latest(), state, timeline: 5 };
    let restored = recover(&world, "latest", &latest, &oid);
    assert!(restored["state"].to_string().contains("promoted"), "{restored:#}");
    assert!(ways.contains(&(first.clone(), vec![1, 3])), "{ways:?}");
    assert!(ways.contains(&(other, vec![3, 5])), "{ways:?}");
    // From the first base all the way.
    let restored = recover(&world, &first, recorder.moments.last().unwrap(), &oid);
    assert_eq!(timelines(&restored), [1, 3, 5]);
}
