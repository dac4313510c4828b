//! The whole way there and back over HTTP, while a proxy does to requests what networks and servers do.
#![cfg(all(feature = "s3", feature = "gcs", feature = "azure"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backup_core::config::Component;
use backup_core::repository::{VerifyLevel, VerifyOptions};
use backup_core::{
    CreateOptions, ErrorKind, JobContext, ObjectKey, Pipeline, Repository, RestoreOptions, TransformSet,
};
use backup_crypto::{Keyring, PassphraseCost, Recipient};
use backup_sinks::probe;
use backup_sources::{DirectoryTarget, FilesSource};
use common::gcs::FakeGcs;
use common::proxy::{Fault, PASSING, Plan, Proxy};
use common::server::Server;
use common::{azure_settings, gcs_settings, make, s3_settings};

type SettingsOf = fn(SocketAddr, &str) -> Component;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_with_faults_of_every_kind_loses_nothing() {
    let server = Server::moto().await;
    there_and_back("S3 (moto)", server.address, s3_settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn azure_with_faults_of_every_kind_loses_nothing() {
    let server = Server::azurite().await;
    there_and_back("Azure (Azurite)", server.address, azure_settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fake_of_google_with_faults_of_every_kind_loses_nothing() {
    let server = FakeGcs::start().await;
    there_and_back("a fake of Google Cloud Storage", server.address, gcs_settings).await;
}

async fn there_and_back(name: &str, server: SocketAddr, settings: SettingsOf) {
    let started = Instant::now();
    let proxy = Proxy::start(server, Plan::InTurn(4)).await;
    let sink = || async {
        // What stands still is given up after a second.
        make(settings(proxy.address, "a/repository").with("timeout_seconds", 1)).await.unwrap()
    };
    let scratch = tempfile::tempdir().unwrap();
    let (tree, job) = (scratch.path().join("tree"), JobContext::new());
    grow(&tree, 1);
    let recipient = || {
        let cost = PassphraseCost::new(8, 1, 1).unwrap();
        Recipient::passphrase("correct horse".to_owned()).unwrap().with_cost(cost)
    };

    // init, and two snapshots.
    let store = sink().await;
    probe(&store).await.unwrap();
    let keys = Keyring::create(&store, &[recipient()], &job).await.unwrap();
    let repository = Repository::create(store, keys, CreateOptions::default(), &job).await.unwrap();
    let source = || Pipeline::new(FilesSource::new(&tree).unwrap()).label("tree");
    let first = source().run(&repository, &job).await.unwrap().backup;
    let before = contents(&tree);
    grow(&tree, 2);
    let second = source().run(&repository, &job).await.unwrap().backup;
    let after = contents(&tree);
    assert!(before.len() > 20 && after.len() > before.len());

    // Everything anew, as another process would: verify and restore.
    let store = sink().await;
    let keys = Keyring::unlock(&store, &[recipient()], &job).await.unwrap();
    let repository = Repository::open(store, keys, TransformSet::builtin(), &job).await.unwrap();
    let options = VerifyOptions { level: VerifyLevel::Content, ..VerifyOptions::default() };
    let verified = repository.verify(&options, &job).await.unwrap();
    assert!(verified.is_clean(), "{verified:?}");
    for (report, expected, directory) in [(first, before, "first"), (second, after, "second")] {
        let snapshot = repository.snapshot(report.snapshot.unwrap(), &job).await.unwrap();
        let to = scratch.path().join(directory);
        let target = DirectoryTarget::new(&to);
        let restored =
            repository.restore(&snapshot, &target, &RestoreOptions::default(), &job).await.unwrap();
        assert!(restored.failed.is_empty(), "{restored:?}");
        let found = contents(&to.join(tree.strip_prefix("/").unwrap()));
        assert!(found == expected, "{name}: what was restored is not what was backed up");
    }

    let struck = proxy.struck();
    println!("{name}: {} requests in {:.1?}", proxy.requests(), started.elapsed());
    for fault in PASSING {
        let times = struck.get(&fault).copied().unwrap_or_default();
        println!("  {fault:?}: {times}");
        assert!(times > 0, "{name}: {fault:?} never happened: {struck:?}");
    }
}

/// A tree of small and larger files; a second time with more and changed ones.
fn grow(tree: &Path, generation: u8) {
    for number in 0..24_u8 {
        let directory = tree.join(format!("directory-{}", number % 4));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("small-{number}-{}", if number % 3 == 0 { generation } else { 0 }));
        std::fs::write(path, format!("{number} ").repeat(usize::from(number) * 20)).unwrap();
    }
    let mut state = u64::from(generation);
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let large: Vec<u8> = (0..6_000_000).map(|_| noise()).collect();
    std::fs::write(tree.join(format!("large-{generation}")), large).unwrap();
}

fn contents(tree: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![tree.to_path_buf()];
    while let Some(directory) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(path.strip_prefix(tree).unwrap().to_path_buf(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The client says of a 409 that there is such an object, also where nothing was stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conflicts_without_an_object_are_failures_and_never_an_object() {
    let (s3, azure) = (Server::moto().await, Server::azurite().await);
    let servers: [(SocketAddr, SettingsOf); 2] = [(s3.address, s3_settings), (azure.address, azure_settings)];
    let key = ObjectKey::new("config").unwrap();
    for (server, settings) in servers {
        for status in [409, 412] {
            let proxy = Proxy::start(server, Plan::EveryPut(Fault::Answered(status))).await;
            let sink = make(settings(proxy.address, "conflicts")).await.unwrap();
            // It tries for minutes; within these seconds nobody must be told that there is an object.
            let put = tokio::time::timeout(Duration::from_secs(2), sink.put(&key, "bytes".into())).await;
            assert!(put.is_err(), "{status}: {put:?}");
            assert!(proxy.struck()[&Fault::Answered(status)] > 3, "{:?}", proxy.struck());
            let there = make(settings(server, "conflicts")).await.unwrap();
            assert!(there.list("", None, 1).await.unwrap().is_empty());
        }
    }
}

/// A full store is an error that says so, at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_store_fails_a_put_at_once_and_says_so() {
    let server = FakeGcs::start().await;
    let proxy = Proxy::start(server.address, Plan::EveryPut(Fault::Answered(507))).await;
    let sink = make(gcs_settings(proxy.address, "")).await.unwrap();
    let error = sink.put(&ObjectKey::new("config").unwrap(), "bytes".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!(proxy.requests(), 1);
}
