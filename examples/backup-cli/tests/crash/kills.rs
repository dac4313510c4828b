//! SIGKILL at random moments.

use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use crate::long;
use crate::story::{Random, Story};

/// New bytes of each run: enough that the first pack is closed, and stored, while the rest is still being read.
const NEW_BYTES: usize = 36_000_000;
/// Kills after which a new repository begins, so that judging stays quick. At its end every acknowledged snapshot is
/// restored; before that only the latest, after every kill.
const KILLS_A_REPOSITORY: usize = 5;

#[derive(Debug, Default)]
struct Count {
    kills: usize,
    struck: usize,
    unacknowledged_but_whole: usize,
    with_packs: usize,
    reused_bytes: u64,
    restored: usize,
}

#[test]
fn a_backup_killed_at_random_loses_nothing_acknowledged_and_its_work_is_reused() {
    let kills = if long() { 1000 } else { 20 };
    let seed = match std::env::var("BACKUP_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    };
    println!("BACKUP_SEED={seed}");
    let began = Instant::now();
    let mut count = Count::default();
    // Few moments lie between the first pack and the commit: until one is met it goes on, within reason.
    while count.kills < kills || (count.with_packs == 0 && count.kills < 5 * kills) {
        repository(seed.wrapping_add(count.kills as u64), &mut count);
    }
    println!("{count:?} in {:?}", began.elapsed());
    assert!(count.struck * 4 > count.kills, "most kills came too late");
    assert!(count.with_packs > 0, "no kill came between the first pack and the commit");
}

fn repository(seed: u64, count: &mut Count) {
    let mut story = Story::new(seed);
    let mut random = Random(!seed);
    story.change(NEW_BYTES);
    let began = Instant::now();
    story.create();
    let usual = began.elapsed();
    for _ in 0..KILLS_A_REPOSITORY {
        count.kills += 1;
        let written = story.change(NEW_BYTES);
        let packs_before = story.bytes_in_packs();
        let known = story.listed().len();
        // One worker closes its first pack earlier than two.
        let jobs = if random.below(2) == 0 { "1" } else { "2" };
        let mut command = story.scratch.command(["--json", "--jobs", jobs, "create", "files", "tree"]);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let micros = u64::try_from(usual.as_micros()).unwrap();
        let delay = Duration::from_micros(random.below(micros * 11 / 10));
        std::thread::sleep(delay);
        process.kill().unwrap();
        let ended = process.wait_with_output().unwrap();
        count.struck += usize::from(!ended.status.success());
        let acknowledged = story.acknowledge(&String::from_utf8_lossy(&ended.stdout)).is_some();
        assert!(acknowledged || !ended.status.success(), "it succeeded and said nothing");
        // Snapshots whose commit was the last thing that happened are whole, too.
        let now = story.listed().len();
        assert!(now == known || now == known + 1);
        count.unacknowledged_but_whole += usize::from(now > known && !acknowledged);
        let stored = story.bytes_in_packs() - packs_before;
        let report = story.create();
        let added = report["bytes_added"].as_u64().unwrap();
        assert!(
            stored + added <= written + written / 20,
            "{stored} bytes were in packs when the process was killed after {delay:?}; of {written} bytes \
             {added} were stored again: {report:#}"
        );
        if stored > 1_000_000 && now == known {
            count.with_packs += 1;
            count.reused_bytes += stored;
        }
        story.assert_swept();
        story.verify();
        story.restores(report["snapshot"].as_str().unwrap());
        count.restored += 1;
    }
    story.listed();
    story.restores_all();
    count.restored += story.acknowledged.len();
}
