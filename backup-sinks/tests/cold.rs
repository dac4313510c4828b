//! Content in a class from which it cannot be read at once: backups go on, and restores ask for what they need.
#![cfg(all(feature = "s3", feature = "gcs", feature = "azure"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod common;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use backup_core::config::{BuildContext, Component, Place, Registry};
use backup_core::repository::ThawOptions;
use backup_core::{
    CreateOptions, EntryName, ErrorKind, GetRange, JobContext, ObjectKey, Pipeline, Readiness, Repository,
    RepositoryId, RestoreOptions, Selection, SystemRandom, Thaw, ThawSpeed, Unprotected, VerifyLevel,
    VerifyOptions,
};
use backup_sources::{DirectoryTarget, FilesSource};
use common::server::Server;
use common::{azure_settings, make, s3_settings};

fn cold(server: &Server) -> Component {
    let classes: serde_json::Map<_, _> = [("data".to_owned(), "GLACIER".into())].into_iter().collect();
    s3_settings(server.address, "cold/place").with("storage_classes", classes)
}

async fn thaw(settings: Component) -> Arc<dyn Thaw> {
    let mut registry = Registry::new();
    backup_sinks::register(&mut registry);
    let (place, context) = (Place::Kind(settings), BuildContext::default());
    registry.make_thaw(&place, "test.toml", "places.test", &context).await.unwrap().unwrap()
}

/// What cannot be guessed, so that packs are many and none holds another's content.
fn noise(len: usize, mut state: u64) -> Vec<u8> {
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restore_asks_for_the_packs_it_needs_and_waits_for_them() {
    let server = Server::moto().await;
    // An object comes back with the fourth look at it.
    server.set_restores_by_hand(4).await;
    let sink = make(cold(&server)).await.unwrap();
    let job = JobContext::new();
    let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom).unwrap()));
    let repository =
        Repository::create(sink.clone(), protection, CreateOptions::default(), &job).await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..3_u8 {
        fs::write(tree.join(format!("file{number}")), noise(40 << 20, 1 + u64::from(number))).unwrap();
    }
    let back_up = || async {
        let source = FilesSource::new(&tree).unwrap();
        Pipeline::new(source).label("tree").run(&repository, &job).await.unwrap().backup
    };
    let first = back_up().await;
    let packs = sink.list("data/", None, 1000).await.unwrap();
    assert!(packs.len() >= 3, "{} packs", packs.len());
    for pack in &packs {
        let error = sink.get(&pack.key, GetRange::Bounded(0..1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cold, "{error}");
    }
    // Everything else is where it can be read: unchanged content is known, and what is stored is listed.
    fs::write(tree.join("more"), "more").unwrap();
    let second = back_up().await;
    assert_eq!((second.entries_unchanged, second.bytes_read), (3, 4), "{second:?}");
    let structure = VerifyOptions { level: VerifyLevel::Structure, ..VerifyOptions::default() };
    assert!(repository.verify(&structure, &job).await.unwrap().is_clean());
    // What must read the packs themselves says that they are cold, and calls nothing damaged.
    for level in [VerifyLevel::Checksum, VerifyLevel::Content] {
        let options = VerifyOptions { level, ..VerifyOptions::default() };
        let refused = repository.verify(&options, &job).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Cold, "{level:?}: {refused}");
    }

    // Without asking nothing comes, and nothing is called damaged.
    let snapshot = repository.snapshot(first.snapshot.unwrap(), &job).await.unwrap();
    let name = tree.join("file1").display().to_string();
    let one = Selection::Names(vec![EntryName::new(name.trim_start_matches('/')).unwrap()]);
    let target = |name: &str| DirectoryTarget::new(scratch.path().join(name));
    let restore = RestoreOptions { select: one.clone() };
    let refused = repository.restore(&snapshot, &target("refused"), &restore, &job).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Cold, "{refused}");

    // Asked for, and not there yet.
    let thaw = thaw(cold(&server)).await;
    let options = ThawOptions { select: one, wait: Duration::ZERO, ..ThawOptions::default() };
    let asked = repository.thaw(&snapshot, &*thaw, &options, &job).await.unwrap();
    println!("{asked:?} of {} packs", packs.len());
    assert!(asked.objects >= 1 && asked.objects < packs.len() as u64, "what else is stored is left alone");
    assert_eq!((asked.waiting, asked.bytes_waiting), (asked.objects, asked.bytes));
    // Waited for: what another command asked for counts.
    let options = ThawOptions { wait: Duration::from_secs(60), poll: Duration::from_millis(50), ..options };
    let there = repository.thaw(&snapshot, &*thaw, &options, &job).await.unwrap();
    assert_eq!((there.objects, there.waiting), (asked.objects, 0), "{there:?}");
    let report = repository.restore(&snapshot, &target("one"), &restore, &job).await.unwrap();
    assert!(report.failed.is_empty(), "{report:?}");
    let restored = scratch.path().join("one").join(name.trim_start_matches('/'));
    assert!(fs::read(restored).unwrap() == fs::read(tree.join("file1")).unwrap());
    // The others still are where they were.
    let mut still_cold = 0;
    for pack in &packs {
        let read = sink.get(&pack.key, GetRange::Bounded(0..1)).await;
        still_cold += u64::from(read.is_err_and(|error| error.kind() == ErrorKind::Cold));
    }
    assert_eq!(still_cold, packs.len() as u64 - asked.objects);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_not_cold_is_ready_and_what_is_not_there_is_named() {
    let server = Server::moto().await;
    let sink = make(s3_settings(server.address, "cold/place")).await.unwrap();
    let (warm, missing) = (ObjectKey::new("data/warm").unwrap(), ObjectKey::new("data/missing").unwrap());
    sink.put(&warm, "bytes".into()).await.unwrap();
    let thaw = thaw(cold(&server)).await;
    assert_eq!(thaw.thaw(&warm, 1, ThawSpeed::Bulk).await.unwrap(), Readiness::Ready);
    let error = thaw.thaw(&missing, 1, ThawSpeed::Standard).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("data/missing"), "{error}");
    assert!(!format!("{thaw:?}").contains("s3cret"), "{thaw:?}");
    drop(server);
    let error = thaw.thaw(&warm, 1, ThawSpeed::Standard).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
}

#[tokio::test]
async fn classes_that_could_not_work_are_refused_before_anything_is_sent() {
    let nobody = "127.0.0.1:1".parse().unwrap();
    let with = |settings: Component, kind: &str, class: &str| {
        let classes: serde_json::Map<_, _> = [(kind.to_owned(), class.into())].into_iter().collect();
        settings.with("storage_classes", classes)
    };
    for settings in [
        with(s3_settings(nobody, ""), "index", "DEEP_ARCHIVE"),
        with(s3_settings(nobody, ""), "control", "STANDARD_IA"),
        with(azure_settings(nobody, ""), "data", "Archive"),
    ] {
        let error = make(settings).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("places.test: storage_classes: "), "{error}");
    }
}
