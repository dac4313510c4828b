//! A repository of 20 million chunks: merging its index, finding what nobody needs, collecting that, each in a process of
//! its own, whose peak the system counts.
//!
//! With BACKUP_LONG there are 20 million in 612,000 packs, which takes 1.5 GB and as many inodes where temporary files are;
//! otherwise a hundredth of that, with an index that is beyond memory all the same. Then what does not grow is what is
//! measured: segments that are fetched ahead, one that is written, caches.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod numbers;
mod written;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use backup_core::repository::{CollectOptions, CreateOptions, ForgetOptions, Repository};
use backup_core::{JobContext, Protection, Resources, Sink, TransformSet, limits};
use backup_crypto::{Keyring, PassphraseCost, Recipient};
use backup_sinks::LocalSink;
use numbers::{FORGOTTEN, Numbers};
use tokio::runtime::Runtime;

const STAGE: &str = "BACKUP_COLLECTED_STAGE";
const PLACE: &str = "BACKUP_COLLECTED_PLACE";

fn long() -> bool {
    std::env::var_os("BACKUP_LONG").is_some()
}

/// How many chunks, and what a stage may need, in KiB.
fn size() -> (Numbers, u64) {
    let (chunks, peak_max) = if long() { (20_000_000, 256 * 1024) } else { (200_000, 64 * 1024) };
    (Numbers { chunks }, peak_max)
}

fn recipient() -> Recipient {
    let cost = PassphraseCost::new(8, 1, 1).unwrap();
    Recipient::passphrase("correct horse".to_owned()).unwrap().with_cost(cost)
}

fn job(place: &Path) -> JobContext {
    let resources = Resources::new().with_scratch_directory(place.join("scratch"));
    // The index is beyond memory, as it is at full size.
    let resources = if long() { resources } else { resources.with_index_bytes(limits::MIB) };
    JobContext::new().with_resources(resources)
}

fn store(place: &Path) -> LocalSink {
    LocalSink::create(place.join("repository")).unwrap()
}

async fn open(place: &Path, job: &JobContext) -> Repository {
    let sink: Arc<dyn Sink> = Arc::new(store(place));
    let protection = Keyring::unlock(&sink, &[recipient()], job).await.unwrap();
    Repository::open(sink, protection, TransformSet::builtin(), job).await.unwrap()
}

/// Makes the repository, and forgets its first snapshots.
async fn make(numbers: Numbers, place: &Path) {
    let (job, sink) = (job(place), store(place));
    let shared: Arc<dyn Sink> = Arc::new(sink.clone());
    let protection: Arc<dyn Protection> = Keyring::create(&shared, &[recipient()], &job).await.unwrap();
    Repository::create(shared, protection.clone(), CreateOptions::default(), &job).await.unwrap();
    written::write(numbers, &sink, &*protection, &job).await;
    let forgotten: Vec<_> = (0..FORGOTTEN).map(written::snapshot_id).collect();
    let repository = open(place, &job).await;
    repository.forget(&forgotten, &ForgetOptions::default(), &job).await.unwrap();
}

/// One stage, as a process of its own does it. Returns its report as JSON.
async fn work(stage: &str, place: &Path) -> serde_json::Value {
    let job = job(place);
    let repository = open(place, &job).await;
    let options = CollectOptions { dry_run: stage == "plan", ..CollectOptions::default() };
    match stage {
        "merge" => serde_json::to_value(repository.compact_index(&job).await.unwrap()),
        _ => serde_json::to_value(repository.collect(&options, &job).await.unwrap()),
    }
    .unwrap()
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What a stage reported, and its peak in KiB.
fn run(stage: &str, place: &Path, test: &str) -> (serde_json::Value, u64) {
    let started = Instant::now();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(STAGE, stage)
        .env(PLACE, place)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{stage}: {output}{}", String::from_utf8_lossy(&child.stderr));
    let line = |what: &str| output.split_once(what).unwrap().1.lines().next().unwrap();
    let peak = line("peak: ").parse().unwrap();
    println!("{stage}: {} s, peak {} MiB", started.elapsed().as_secs(), peak / 1024);
    (serde_json::from_str(line("report: ")).unwrap(), peak)
}

#[cfg(target_os = "linux")]
#[test]
fn a_collection_of_twenty_million_chunks_needs_less_than_256_mib() {
    if let (Some(stage), Some(place)) = (std::env::var_os(STAGE), std::env::var_os(PLACE)) {
        let report = Runtime::new().unwrap().block_on(work(stage.to_str().unwrap(), Path::new(&place)));
        println!("report: {report}");
        println!("peak: {}", peak_kib());
        return;
    }
    let (numbers, peak_max) = size();
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    fs::create_dir(place.join("scratch")).unwrap();
    let started = Instant::now();
    Runtime::new().unwrap().block_on(make(numbers, place));
    println!(
        "{} chunks in {} packs, made in {} s",
        numbers.chunks,
        numbers.packs(),
        started.elapsed().as_secs()
    );

    let test = "a_collection_of_twenty_million_chunks_needs_less_than_256_mib";
    let stages = ["merge", "plan", "collect", "plan", "merge"];
    let reports = stages.map(|stage| (stage, run(stage, place, test)));
    for (stage, (report, _)) in &reports {
        println!("{stage}: {report}");
    }
    for (stage, (_, peak)) in &reports {
        assert!(*peak <= peak_max, "{stage} needed {} MiB", peak / 1024);
    }
    let [merged, planned, collected, after, _] = reports.map(|(_, (report, _))| report);
    let figure = |report: &serde_json::Value, name: &str| report[name].as_u64().unwrap();
    assert!(figure(&merged, "segments_before") > 6 * figure(&merged, "segments_written"), "{merged}");
    assert_eq!(planned["packs_unneeded"], collected["packs_unneeded"]);
    assert_eq!(collected["outcome"], "swept", "{collected}");
    // What is needed is there, every page and chunk, and nothing else.
    assert_eq!((figure(&after, "packs_unneeded"), &after["damaged_objects"]), (0, &serde_json::json!([])));
    assert_eq!(after["packs_kept"], collected["packs_kept"]);
    assert_packs(numbers, place);
}

/// Of packs of content those are left that hold something needed, of twins one.
fn assert_packs(numbers: Numbers, place: &Path) {
    let root = place.join("repository");
    let is_there = |pack: u64| written::place(&root, &numbers::digest(pack)).exists();
    let mut gone = 0;
    for pack in 0..numbers.packs() {
        let places = numbers.twins(pack).map(is_there);
        let expected = usize::from(numbers.is_needed(pack));
        assert_eq!(places.filter(|there| *there).count(), expected, "pack {pack}");
        gone += u64::from(!is_there(pack));
    }
    assert!(gone > numbers.packs() / 4, "{gone} of {}", numbers.packs());
}
