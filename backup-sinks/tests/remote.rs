//! Sinks over HTTP keep the contract of sinks, and are tried before a repository is made in them.
#![cfg(all(feature = "s3", feature = "gcs", feature = "azure"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::sync::Arc;

use backup_core::testing::sink::conformance;
use backup_core::{ErrorKind, GetRange, ObjectKey, PutOutcome, Sink};
use backup_sinks::{ObjectStoreSink, probe};
use common::gcs::FakeGcs;
use common::proxy::{Fault, Plan, Proxy};
use common::server::Server;
use common::{azure_settings, gcs_settings, make, s3_settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_keeps_the_contract() {
    let server = Server::moto().await;
    let sink = make(s3_settings(server.address, "some/prefix")).await.unwrap();
    probe(&sink).await.unwrap();
    conformance(sink).await.unwrap();
    let whole = make(s3_settings(server.address, "")).await.unwrap();
    assert!(whole.list("", None, 10).await.unwrap().is_empty(), "the suite left something");
    nobody_is_told_secrets(server.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn azure_keeps_the_contract() {
    let server = Server::azurite().await;
    let sink = make(azure_settings(server.address, "some/prefix")).await.unwrap();
    probe(&sink).await.unwrap();
    conformance(sink).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fake_of_google_cloud_storage_keeps_the_contract() {
    let server = FakeGcs::start().await;
    let sink = make(gcs_settings(server.address, "some/prefix")).await.unwrap();
    probe(&sink).await.unwrap();
    conformance(sink).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn google_cloud_storage_keeps_the_contract_where_credentials_are_given() {
    let Ok(url) = std::env::var("BACKUP_TEST_GCS_URL") else {
        println!("NOT RUN: set BACKUP_TEST_GCS_URL to gs://BUCKET/PREFIX, and credentials in GOOGLE_*");
        return;
    };
    let mut registry = backup_core::config::Registry::new();
    backup_sinks::register(&mut registry);
    let (place, context) = (backup_core::config::Place::Url(url), Default::default());
    let sink = registry.make_sink(&place, "the environment", "", &context).await.unwrap();
    probe(&sink).await.unwrap();
    conformance(sink).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_of_ones_own_keeps_the_contract() {
    let store = Arc::new(object_store::memory::InMemory::new());
    let sink = ObjectStoreSink::new(store, "some/prefix").unwrap();
    let (ordered, unordered): (Arc<dyn Sink>, Arc<dyn Sink>) =
        (Arc::new(sink.clone().with_ordered_listing(true)), Arc::new(sink));
    probe(&unordered).await.unwrap();
    conformance(unordered).await.unwrap();
    conformance(ordered).await.unwrap();
}

/// S3rver accepts `If-None-Match` and does not look at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_lies_is_refused_with_the_reason() {
    let server = Server::s3rver().await;
    let settings = s3_settings(server.address, "").with("access_key_id", "command:echo S3RVER");
    let sink = make(settings.with("secret_access_key", "command:echo S3RVER")).await.unwrap();
    let error = probe(&sink).await.unwrap_err();
    println!("{error}");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("replaced an object although asked to create it only"), "{error}");
    let left = sink.list("", None, 10).await.unwrap();
    assert!(left.is_empty(), "the probe left {left:?}");
}

/// Also where a good server stands behind something that takes the condition away, always or in races only.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_proxy_that_takes_the_condition_away_is_refused_with_the_reason() {
    let server = Server::moto().await;
    let proxy = Proxy::start(server.address, Plan::StripConditions).await;
    let sink = make(s3_settings(proxy.address, "")).await.unwrap();
    let error = probe(&sink).await.unwrap_err();
    println!("{error}");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("replaced an object although asked to create it only"), "{error}");
    let left = make(s3_settings(server.address, "")).await.unwrap().list("", None, 10).await.unwrap();
    assert!(left.is_empty(), "the probe left {left:?}");

    // One that keeps the condition as long as nobody races.
    let proxy = Proxy::start(server.address, Plan::StripConditionsAfter(5)).await;
    let sink = make(s3_settings(proxy.address, "")).await.unwrap();
    let error = probe(&sink).await.unwrap_err();
    println!("{error}");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("16 callers at once"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_put_whose_answer_is_lost_still_says_that_it_created_the_object() {
    let server = Server::moto().await;
    for (number, fault) in [
        Fault::LostAnswer,
        Fault::AnsweredAfterEffect(500),
        Fault::Answered(409),
        Fault::Answered(412),
        Fault::Answered(500),
        Fault::Cut,
        Fault::CutBody,
        Fault::StalledBody,
    ]
    .into_iter()
    .enumerate()
    {
        let key = ObjectKey::new(format!("object-{number}")).unwrap();
        let proxy = Proxy::start(server.address, Plan::Once(1, fault)).await;
        let sink = make(s3_settings(proxy.address, "").with("timeout_seconds", 1)).await.unwrap();
        let outcome = sink.put(&key, "bytes".into()).await.unwrap();
        assert_eq!(outcome, PutOutcome::Created, "{fault:?}");
        assert_eq!(sink.put(&key, "bytes".into()).await.unwrap(), PutOutcome::AlreadyExists, "{fault:?}");
        // Of someone else's object it never says so, whatever happens to the request.
        let other = Proxy::start(server.address, Plan::Once(1, fault)).await;
        let other = make(s3_settings(other.address, "").with("timeout_seconds", 1)).await.unwrap();
        assert_eq!(other.put(&key, "bytes".into()).await.unwrap(), PutOutcome::AlreadyExists, "{fault:?}");
        assert_eq!(sink.get(&key, GetRange::Full).await.unwrap().bytes, "bytes");
    }
}

async fn nobody_is_told_secrets(server: std::net::SocketAddr) {
    let proxy = Proxy::start(server, Plan::FromThenOn(1, Fault::Answered(403))).await;
    let sink = make(s3_settings(proxy.address, "a")).await.unwrap();
    let key = ObjectKey::new("config").unwrap();
    let error = sink.get(&key, GetRange::Full).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let text = format!("{error} {error:?} {sink:?}");
    assert!(text.contains("s3://bucket/a") && text.contains("config") && text.contains("403"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    let missing = make(s3_settings(server, "").with("bucket", "no-such-bucket")).await.unwrap();
    let error = missing.get(&key, GetRange::Full).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("NoSuchBucket"), "{error}");
}
