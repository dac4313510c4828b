//! Every process of ours that has to do with a cluster, killed at random under load: nothing that was acknowledged is missing, nothing
//! needs to be cleaned up by hand, and what stands in a target starts as one cluster or not at all.
//!
//! The seed is printed; `BACKUP_SEED` repeats a run, as far as processes let themselves be repeated.

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

mod postgres_world;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use backup_core::JobContext;
use backup_sources::postgres::archive::Fetched;
use backup_sources::postgres::wal::{SegmentName, SegmentSize, WalFile};
use backup_sources::postgres::{Lsn, Timeline};
use postgres_server::{Cluster, eventually};
use postgres_world::World;

/// Rows and checksums of pgbench's tables.
const STATE: &str = "select (select count(*) || ':' || sum(hashtextextended(t::text, 0)::numeric) from pgbench_accounts t) || ' ' || \
                     (select count(*) || ':' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) from pgbench_history t)";

/// Which process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Create,
    Push,
    Receive,
    Fetch,
    /// The one that a recovering server calls.
    FetchOfServer,
    Restore,
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn within(&mut self, time: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(time.as_micros()).unwrap().max(1)))
    }
}

struct Kills {
    world: World,
    random: Random,
    receiver: Child,
    /// Up to where somebody was told that the log is durable.
    acknowledged: Lsn,
    /// The first segment that is archived; `initdb` has used those before.
    first: u64,
    snapshots: BTreeSet<String>,
    create_takes: Duration,
    restore_takes: Duration,
    /// How often a process was struck before it was done.
    struck: Vec<Victim>,
}

fn small() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

/// Kills a process that was started here, and says whether it was still at work.
fn kill(mut child: Child) -> bool {
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

impl Kills {
    fn new(seed: u64) -> Self {
        // What was archived stays in pg_wal, to be compared.
        let config = "wal_keep_size = 8GB\nmax_wal_size = 1GB";
        let world = World::with(Cluster::builder().initdb("--wal-segsize=1").config(config));
        // A server whose command is killed waits for ten seconds; one whose command fails for one.
        world.cluster.configure(&format!("archive_command = '{} || exit 1'", world.called("log push %p")));
        world.cluster.bench_init(1);
        let receiver = receive(&world);
        let slot = "select count(restart_lsn) from pg_replication_slots";
        eventually("the slot", || (world.cluster.sql(slot) == "1").then_some(()));
        let began = Instant::now();
        let made = world.back_up();
        let create_takes = began.elapsed();
        let snapshots = BTreeSet::from([made["snapshot"].as_str().unwrap().to_owned()]);
        Self {
            world,
            random: Random(seed),
            receiver,
            acknowledged: Lsn::INVALID,
            first: u64::MAX,
            snapshots,
            create_takes,
            restore_takes: Duration::from_secs(2),
            struck: Vec::new(),
        }
    }

    fn target(&self) -> PathBuf {
        self.world.path("restored")
    }

    fn restoring(&self, more: &[&str]) -> Vec<String> {
        let to = self.target().display().to_string();
        let words = ["restore-postgres", "latest", "--to", &to, "--replace"];
        words.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }

    fn strike(&mut self, victim: Victim, is_struck: bool) {
        if is_struck {
            self.struck.push(victim);
        }
    }

    fn round(&mut self, victim: Victim) {
        match victim {
            Victim::Create => self.create(),
            Victim::Push => self.push(),
            Victim::Receive => self.receive(),
            Victim::Fetch => self.fetch(),
            Victim::FetchOfServer => self.fetch_of_server(),
            Victim::Restore => self.restore(),
        }
        self.remember();
    }

    /// Takes down what is acknowledged: what the server need not keep for its archive any more, as `log push` returned 0 for it or marked it,
    /// and what it was told over the slot.
    fn remember(&mut self) {
        let status = fs::read_dir(self.world.cluster.data().join("pg_wal/archive_status")).unwrap();
        for entry in status.flatten() {
            let name = entry.file_name();
            let done = name.to_str().and_then(|name| name.strip_suffix(".done"));
            if let Some(Ok(WalFile::Segment(segment))) = done.map(str::parse) {
                self.acknowledged = self.acknowledged.max(segment.end(small()));
                self.first = self.first.min(segment.number(small()));
            }
        }
        let slot = "select coalesce(restart_lsn, '0/0') from pg_replication_slots";
        self.acknowledged = self.acknowledged.max(self.world.cluster.sql(slot).parse().unwrap());
    }

    fn listed(&self) -> BTreeSet<String> {
        let listed = self.world.json(0, &["list"]);
        let ids = listed["snapshots"].as_array().unwrap().iter();
        ids.map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect()
    }

    fn create(&mut self) {
        let words = self.world.backing_up(&self.world.cluster);
        let child = self.world.spawn("create", &words);
        sleep(self.random.within(self.create_takes));
        self.strike(Victim::Create, kill(child));
        // None, or one more: a complete one, as is verified in the end.
        let now = self.listed();
        assert!(now.is_superset(&self.snapshots) && now.len() <= self.snapshots.len() + 1, "{now:?}");
        let began = Instant::now();
        let made = self.world.back_up();
        self.create_takes = began.elapsed();
        assert_eq!(made["outcome"], "complete", "{made:#}");
        self.snapshots = self.listed();
    }

    /// Processes of the program that somebody else has called with these words.
    fn called(&self, words: [&str; 2]) -> Option<u32> {
        let own = self.receiver.id();
        fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let mut line = line.split(|byte| *byte == 0);
            let program = line.next()? == self.world.program.as_os_str().as_encoded_bytes();
            let rest: Vec<&[u8]> = line.collect();
            let is_meant = rest.windows(2).any(|pair| pair == [words[0].as_bytes(), words[1].as_bytes()]);
            (program && is_meant && pid != own).then_some(pid)
        })
    }

    /// Kills one that the server has called, a while after it is seen.
    fn kill_called(&mut self, words: [&str; 2], within: Duration, until: Instant) -> bool {
        loop {
            if let Some(pid) = self.called(words) {
                sleep(self.random.within(within));
                // It may be done, and its number another's: it is asked once more, and may end even then.
                if self.called(words) == Some(pid) {
                    let killed = Command::new("kill").args(["-9", &pid.to_string()]).output().unwrap();
                    if killed.status.success() {
                        return true;
                    }
                }
            }
            if Instant::now() > until {
                return false;
            }
            sleep(Duration::from_millis(1));
        }
    }

    fn push(&mut self) {
        // Most of them are done before they are struck.
        let struck = (0..40).any(|_| {
            self.world.cluster.switch_wal();
            let until = Instant::now() + Duration::from_secs(2);
            self.kill_called(["log", "push"], Duration::from_millis(80), until)
        });
        assert!(struck, "nothing was pushed");
        self.strike(Victim::Push, true);
    }

    fn receive(&mut self) {
        sleep(self.random.within(Duration::from_millis(1500)));
        self.receiver.kill().unwrap();
        assert!(!self.receiver.wait().unwrap().success(), "the receiver had ended before");
        self.strike(Victim::Receive, true);
        self.receiver = receive(&self.world);
    }

    /// A segment that is acknowledged.
    fn some_segment(&mut self) -> SegmentName {
        self.remember();
        let end = small().number_of(self.acknowledged);
        SegmentName::numbered(Timeline::FIRST, self.first + self.random.below(end - self.first), small())
    }

    fn fetch(&mut self) {
        let segment = self.some_segment();
        let directory = self.world.path("fetched");
        fs::create_dir_all(&directory).unwrap();
        self.world.cluster.account().own(&directory);
        let destination = directory.join("RECOVERYXLOG");
        let spool = self.world.path("spool").display().to_string();
        let words =
            ["log", "fetch", &segment.to_string(), &destination.display().to_string(), "--spool", &spool];
        let words = words.map(str::to_owned);
        let began = Instant::now();
        self.world.ok(&words);
        let takes = began.elapsed();
        fs::remove_file(&destination).unwrap();
        // Behind the last segment nothing was to be fetched ahead.
        let _ = fs::remove_dir_all(&spool);
        let child = self.world.spawn("fetch", &words);
        sleep(self.random.within(takes));
        self.strike(Victim::Fetch, kill(child));
        let own = fs::read(self.world.cluster.data().join("pg_wal").join(segment.to_string())).unwrap();
        if destination.exists() {
            assert!(fs::read(&destination).unwrap() == own, "half of {segment} stands at the destination");
        }
        // What it has left in the spool serves no wrong bytes, and what it has left beside the destination goes.
        for next in [segment, segment.previous(small()).unwrap_or(segment)] {
            let own = fs::read(self.world.cluster.data().join("pg_wal").join(next.to_string()));
            let Ok(own) = own else { continue };
            let mut words = words.clone();
            words[2] = next.to_string();
            self.world.ok(&words);
            assert!(fs::read(&destination).unwrap() == own, "{next}");
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "something was left beside the destination");
    }

    /// Restores, and returns what a server is called there.
    fn restored(&mut self) -> Cluster {
        let words = self.restoring(&["--action", "promote"]);
        // While several segments are on their way into the archive, a later one may be there before an earlier one: then a plan to
        // the end of the log is refused, and the next is not.
        let takes = eventually("a restore", || {
            let began = Instant::now();
            let ran = self.world.run(&words);
            assert!(ran.code == Some(0) || ran.err.contains("in the archive"), "{ran:?}");
            (ran.code == Some(0)).then(|| began.elapsed())
        });
        self.restore_takes = takes;
        Cluster::adopt(self.world.cluster.version(), &self.target())
    }

    fn fetch_of_server(&mut self) {
        let server = self.restored();
        let data = self.target();
        let starting = std::thread::spawn(move || (server.try_start(), server));
        let until = Instant::now() + Duration::from_secs(20);
        let is_struck = self.kill_called(["log", "fetch"], Duration::from_millis(100), until);
        self.strike(Victim::FetchOfServer, is_struck);
        let (started, server) = starting.join().unwrap();
        // A server whose command is killed stops; whether it had come up before or not, it has not promoted for that.
        let stopped = eventually("the server's end, or its recovery", || match server.is_running() {
            false => Some(true),
            true => (server.try_sql("select pg_is_in_recovery()").ok()? == "f").then_some(false),
        });
        if stopped {
            assert!(!data.join("pg_wal/00000002.history").exists(), "it promoted: {started:?}");
            server.start();
            eventually("the recovery", || {
                (server.try_sql("select pg_is_in_recovery()").ok()? == "f").then_some(())
            });
        }
        self.whole(&server);
        server.stop(postgres_server::Stop::Immediate);
    }

    /// Whether a recovered server has all that was archived when its recovery was begun: each account's balance is the sum of its changes.
    fn whole(&self, server: &Cluster) {
        let sums = "select (select sum(abalance) from pgbench_accounts) = coalesce((select sum(delta) from pgbench_history), 0)";
        assert_eq!(server.sql(sums), "t");
    }

    fn restore(&mut self) {
        let data = self.target();
        if data.join("global/pg_control").exists() {
            // What a restore has not begun with, and what it removes before anything starts again.
            fs::write(data.join("stranger"), "").unwrap();
        }
        let words = self.restoring(&["--action", "promote"]);
        let child = self.world.spawn("restore", &words);
        let at = self.random.within(self.restore_takes);
        sleep(at);
        self.strike(Victim::Restore, kill(child));
        let server = Cluster::adopt(self.world.cluster.version(), &data);
        if !data.join("global/pg_control").exists() {
            let error = server.try_start().unwrap_err();
            assert!(error.contains("pg_control"), "killed after {at:?}: {error}");
        } else if data.join("stranger").exists() {
            // Nothing was begun.
            server.start();
            server.stop(postgres_server::Stop::Immediate);
        } else {
            let label = fs::read_to_string(data.join("backup_label")).unwrap();
            assert!(label.contains("START WAL LOCATION") && data.join("recovery.signal").exists(), "{at:?}");
            let mut verify = server.version().judging().program("pg_verifybackup", &server.account());
            let verified = verify.arg("-n").arg(&data).output().unwrap();
            let said = String::from_utf8_lossy(&verified.stderr).into_owned();
            let leftovers = ["recovery-in-progress.json", "global/pg_control.before-recovery"];
            let is_leftover =
                |line: &str| leftovers.iter().any(|name| line.contains(name)) || line.contains(".new\"");
            let only = !said.is_empty() && said.lines().all(is_leftover);
            assert!(verified.status.success() || only, "killed after {at:?}: {said}");
        }
    }

    /// Everything that was acknowledged is there, and is what the server has.
    async fn all_is_there(&mut self) {
        let cluster = &self.world.cluster;
        let end: Lsn = cluster.lsn().parse().unwrap();
        cluster.sql("select pg_create_restore_point('the end')");
        self.world.archived();
        eventually("the receiver's end", || {
            let flushed: Lsn = cluster.sql("select restart_lsn from pg_replication_slots").parse().unwrap();
            (flushed >= end).then_some(())
        });
        self.remember();
        let (archive, job) = (self.world.archive().await, JobContext::new());
        let audit = archive.audit(None, &job).await.unwrap();
        assert!(audit.is_sound(), "{audit:?}");
        assert!(audit.frontier.unwrap() >= self.acknowledged, "{audit:?} and {}", self.acknowledged);
        let last = small().number_of(Lsn::new(self.acknowledged.get() - 1));
        for number in self.first..=last {
            let name = SegmentName::numbered(Timeline::FIRST, number, small());
            let own = fs::read(self.world.cluster.data().join("pg_wal").join(name.to_string())).unwrap();
            let Fetched::Found(kept) = archive.get(WalFile::Segment(name), &job).await.unwrap() else {
                panic!("{name} was never archived, it is said")
            };
            let bytes = self.acknowledged.bytes_since(name.start(small())).min(small().bytes());
            let bytes = usize::try_from(bytes).unwrap();
            assert!(kept[..bytes] == own[..bytes], "{name} is not what the server has");
        }
        println!("{} segments are there and the same, up to {}", last - self.first + 1, self.acknowledged);
    }
}

fn receive(world: &World) -> Child {
    let connection = world.cluster.conninfo("postgres");
    let words = ["log", "receive", "--connection", &connection, "--slot", "kills", "--flush-interval", "1s"];
    world.spawn("receive", words)
}

impl Drop for Kills {
    fn drop(&mut self) {
        let _ = self.receiver.kill();
        let _ = self.receiver.wait();
        if std::thread::panicking() {
            for said in ["create", "receive", "fetch", "restore"] {
                let text = fs::read_to_string(self.world.path(said)).unwrap_or_default();
                eprintln!("the last `{said}` said: {text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_process_killed_at_random_loses_nothing_acknowledged_and_leaves_nothing_to_clean() {
    let rounds = if std::env::var_os("BACKUP_LONG").is_some() { 100 } else { 10 };
    let seed = match std::env::var("BACKUP_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs(),
    };
    println!("BACKUP_SEED={seed}");
    let began = Instant::now();
    let mut kills = Kills::new(seed);
    // What stands in the target first is another cluster, which starts.
    let old = Cluster::builder().make();
    fs::rename(old.data(), kills.target()).unwrap();
    fs::write(kills.target().join("stranger"), "").unwrap();
    kills.world.cluster.account().own(&kills.target());
    let load = kills.world.cluster.load_with(&["-c", "2", "--rate", "150"]);
    // Each kind in its turn, in an order that the seed says.
    use Victim::{Create, Fetch, FetchOfServer, Push, Receive, Restore};
    let mut victims: Vec<Victim> =
        [Push, Receive, Create, Restore, Fetch, Push, Receive, FetchOfServer, Restore, Push]
            .into_iter()
            .cycle()
            .take(rounds)
            .collect();
    for at in (1..victims.len()).rev() {
        let other = usize::try_from(kills.random.below(at as u64 + 1)).unwrap();
        victims.swap(at, other);
    }
    for victim in victims {
        let round = Instant::now();
        kills.round(victim);
        println!("{victim:?}: {:?}", round.elapsed());
    }
    drop(load);
    println!("struck at work: {:?}", kills.struck);
    assert!(kills.struck.len() * 2 >= rounds, "most kills came too late");
    let expected = kills.world.cluster.sql(STATE);
    kills.all_is_there().await;
    let server = kills.restored();
    server.start();
    eventually("the recovery", || (server.sql("select pg_is_in_recovery()") == "f").then_some(()));
    assert_eq!(server.sql(STATE), expected);
    // What was killed has left nothing that is not whole.
    kills.world.ok(["verify", "--level", "content"]);
    println!("{rounds} kills in {:?}", began.elapsed());
}
