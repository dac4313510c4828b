//! Buckets as sources: over HTTP, through a proxy that counts requests and injects faults.
#![cfg(all(feature = "s3", feature = "azure", feature = "gcs"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod common;
#[path = "../../../backup-sinks/tests/common/mod.rs"]
mod stores;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backup_core::testing::source::conformance;
use common::{Ran, Scratch, pseudo_random, run};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;
use stores::gcs::FakeGcs;
use stores::proxy::{Fault, PASSING, Plan, Proxy, put};
use stores::server::{AZURITE_ACCOUNT, AZURITE_KEY, Server};
use stores::{azure_settings, gcs_settings, s3_settings};

/// Objects in the bucket of many: some pages of a listing, and with `--long` ten of them.
fn many() -> usize {
    if std::env::var_os("BACKUP_LONG").is_some() { 10_000 } else { 2_100 }
}

/// A repository on a disk, and a configuration with the job `bucket`.
fn configured(server: SocketAddr, prefix: &str) -> Scratch {
    let scratch = Scratch::new();
    configure(&scratch, server, prefix);
    with(&scratch, &["init"]).expect(0);
    scratch
}

fn configure(scratch: &Scratch, server: SocketAddr, prefix: &str) {
    let text = format!(
        r#"
[places.disk]
kind = "local"
path = "repository"
[keys.file]
kind = "key-file"
secret = "file:key"
[repositories.main]
place = "disk"
keys = ["file"]
[sources.uploads]
kind = "bucket"
url = "s3://{bucket}/{prefix}"
endpoint = "http://{server}"
region = "us-east-1"
allow_http = true
timeout_seconds = 2
access_key_id = "command:echo test"
secret_access_key = "command:echo s3cret-of-the-test"
[jobs.bucket]
source = "uploads"
repository = "main"
"#,
        bucket = stores::BUCKET
    );
    std::fs::write(scratch.path("backup.toml"), text).unwrap();
}

/// The program with the configuration alone.
fn with(scratch: &Scratch, arguments: &[&str]) -> Ran {
    let mut command = scratch.command(arguments);
    command.env_remove("BACKUP_REPO").env_remove("BACKUP_KEY_FILE");
    run(command.env("BACKUP_CONFIG", scratch.path("backup.toml")))
}

/// The same beside the servers and proxies of the test, with `--json`.
async fn json(scratch: &Arc<Scratch>, code: i32, arguments: &[&str]) -> Value {
    let scratch = Arc::clone(scratch);
    let arguments: Vec<String> = arguments.iter().chain(&["--json"]).map(|text| text.to_string()).collect();
    let ran = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        with(&scratch, &arguments)
    });
    ran.await.unwrap().expect(code).json()
}

/// The report of the job.
async fn back_up(scratch: &Arc<Scratch>, code: i32) -> Value {
    json(scratch, code, &["run", "bucket"]).await["components"][0].clone()
}

/// What a report names as skipped, with the reasons.
fn skipped(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = report["skipped"].as_array().cloned().unwrap_or_default();
    let mut found: Vec<_> = found.iter().map(|item| (text(&item["name"]), text(&item["reason"]))).collect();
    found.sort();
    found
}

/// Stores an object in moto.
async fn store(server: SocketAddr, key: &str, content: impl Into<Vec<u8>>) {
    let encode = |byte: u8| match byte {
        b'/' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let key: String = key.bytes().map(encode).collect();
    put(server, &format!("/{}/{key}", stores::BUCKET), content.into()).await.unwrap();
}

async fn store_many(server: SocketAddr) {
    for number in 0..many() {
        store(server, &format!("many/{}/{number}", number % 7), format!("content of {number}")).await;
    }
}

/// Objects asked for, in whole or in part.
fn gets(proxy: &Proxy) -> Vec<String> {
    let requested = proxy.requested().into_iter();
    requested.filter(|line| line.starts_with("GET") && !line.contains("list-type=2")).collect()
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_objects_are_listed_in_pages_and_only_what_changed_is_asked_for_again() {
    let server = Server::moto().await;
    store_many(server.address).await;
    let proxy = Proxy::start(server.address, Plan::Far(Duration::ZERO)).await;
    let scratch = Arc::new(configured(proxy.address, "many"));
    let first = back_up(&scratch, 0).await;
    assert_eq!((&first["outcome"], &first["entries"]), (&"complete".into(), &many().into()), "{first:#}");
    assert_eq!(gets(&proxy).len(), many(), "one request for each object");
    let pages = proxy.requested().len() - many();
    assert_eq!(pages, many().div_ceil(1000), "pages of the listing");

    proxy.forget();
    let second = back_up(&scratch, 0).await;
    assert_eq!((&second["parent"], &second["bytes_read"]), (&first["snapshot"], &0.into()), "{second:#}");
    assert_eq!(gets(&proxy), Vec::<String>::new());

    proxy.forget();
    store(server.address, "many/3/17", "CONTENT of 17").await;
    let third = back_up(&scratch, 0).await;
    assert_eq!(third["bytes_read"], 13, "{third:#}");
    assert_eq!(gets(&proxy), [format!("GET /{}/many/3/17", stores::BUCKET)]);

    // Listings that break off go on where they were: here every second request is one that fails.
    let faulty = Proxy::start(server.address, Plan::InTurn(2)).await;
    configure(&scratch, faulty.address, "many");
    let fourth = back_up(&scratch, 0).await;
    let same = (&fourth["outcome"], &fourth["entries"], &fourth["bytes_read"]);
    assert_eq!(same, (&"complete".into(), &many().into(), &0.into()), "{fourth:#}");
    assert!(faulty.struck().len() >= 2, "{:?}", faulty.struck());

    json(&scratch, 0, &["restore", "latest", "--to", "restored", "--verify"]).await;
    for number in [0, 1, 999, 1000, many() - 1] {
        let expected = format!("content of {number}");
        assert_eq!(read(scratch.path(&format!("restored/{}/{number}", number % 7))), expected.as_bytes());
    }
    assert_eq!(read(scratch.path("restored/3/17")), b"CONTENT of 17");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_networks_and_servers_do_the_content_is_right() {
    let server = Server::moto().await;
    let contents: Vec<Vec<u8>> = [0, 1, 100_000, 4 << 20, (4 << 20) + 1, 9_000_000, 21 << 20]
        .into_iter()
        .cycle()
        .take(14)
        .enumerate()
        .map(|(seed, len)| pseudo_random(len, seed as u64))
        .collect();
    for (number, content) in contents.iter().enumerate() {
        store(server.address, &format!("in/{number}"), content.clone()).await;
    }
    let proxy = Proxy::start(server.address, Plan::InTurn(2)).await;
    let scratch = Arc::new(configured(proxy.address, "in"));
    let report = back_up(&scratch, 0).await;
    assert_eq!(report["outcome"], "complete", "{report:#}");
    let struck: BTreeSet<Fault> = proxy.struck().into_keys().collect();
    let possible = PASSING.into_iter().filter(|fault| !matches!(fault, Fault::Answered(409 | 412)));
    assert_eq!(struck, possible.collect(), "not everything happened");
    json(&scratch, 0, &["restore", "latest", "--to", "restored"]).await;
    for (number, content) in contents.iter().enumerate() {
        assert!(read(scratch.path(&format!("restored/{number}"))) == *content, "object {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_stays_away_fails_the_job_and_is_asked_a_few_times() {
    let server = Server::moto().await;
    store(server.address, "in/a", "content").await;
    for (from, fault, most) in [
        // The listing, and then the object.
        (1, Fault::Answered(503), 6),
        (2, Fault::Answered(500), 7),
        (2, Fault::CutBody, 7),
    ] {
        let proxy = Proxy::start(server.address, Plan::FromThenOn(from, fault)).await;
        let scratch = Arc::new(configured(proxy.address, "in"));
        let ran = json(&scratch, 1, &["run", "bucket"]).await;
        assert!(ran.to_string().contains("transient"), "{ran:#}");
        assert_eq!(proxy.requests(), most, "{fault:?}");
        assert!(!ran.to_string().contains("s3cret"), "{ran:#}");
        let listed = json(&scratch, 0, &["list"]).await;
        assert_eq!(listed["snapshots"].as_array().unwrap().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_object_replaced_while_it_is_read_is_named_and_never_mixed() {
    let server = Server::moto().await;
    // Replaced by one of the same length, a longer one, a shorter one.
    for len in [20 << 20, 30 << 20, 1] {
        let old = pseudo_random(20 << 20, 1);
        store(server.address, "in/long", old.clone()).await;
        store(server.address, "in/other", "content").await;
        let proxy = Proxy::start(server.address, Plan::ReplacedInReading("/long", len)).await;
        let scratch = Arc::new(configured(proxy.address, "in"));
        let report = back_up(&scratch, 3).await;
        let [(name, reason)] = &skipped(&report)[..] else { panic!("{report:#}") };
        assert_eq!(name, "long");
        assert!(reason.contains("changed while it was read"), "{reason}");
        assert_eq!(report["entries"], 1, "{report:#}");
        // The next run has the new content.
        let report = back_up(&scratch, 0).await;
        assert_eq!((&report["outcome"], &report["entries"]), (&"complete".into(), &2.into()), "{report:#}");
        json(&scratch, 0, &["restore", "latest", "--to", "restored"]).await;
        assert!(read(scratch.path("restored/long")) == vec![b'n'; len]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn odd_keys_are_stored_or_named() {
    let server = Server::moto().await;
    let stored = [
        "a b",
        " lead",
        "trail ",
        "ünï/ß",
        "p%2Fq",
        "plus+q?#",
        "quote'\"<&>",
        "back\\slash",
        "{}[]^`|~",
        "e\u{301}",
        "\u{1f980}",
        "-/--x",
        "a",
        "a-b",
        "a.b/c",
        "...",
        "C:nul",
        "\u{202e}txt",
    ];
    let unreachable = ["x//y", "x/../y", "./z", "tab\there", "full/"];
    for key in stored.iter().chain(&unreachable) {
        store(server.address, &format!("odd/{key}"), format!("content of {key}")).await;
    }
    store(server.address, "odd/dir/", "").await;
    store(server.address, "odd/", "").await;
    store(server.address, "odd-beside", "no").await;
    let scratch = Arc::new(configured(server.address, "odd"));
    let report = back_up(&scratch, 3).await;
    assert_eq!(report["outcome"], "partial");
    let named: BTreeSet<String> = skipped(&report).into_iter().map(|(name, _)| name).collect();
    assert_eq!(named, unreachable.map(String::from).into(), "{report:#}");
    json(&scratch, 0, &["restore", "latest", "--to", "restored", "--verify"]).await;
    for key in stored {
        let found = read(scratch.path("restored").join(key));
        assert_eq!(String::from_utf8_lossy(&found), format!("content of {key}"));
    }
    assert!(scratch.path("restored/dir").is_dir());
    let shown = json(&scratch, 0, &["show", "latest"]).await;
    assert_eq!(shown["snapshots"][0]["identity"][0], "s3://bucket/odd", "{shown:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_object_beside_others_below_its_name_is_kept() {
    let server = Server::moto().await;
    store(server.address, "in/a", "file").await;
    store(server.address, "in/a/b", "below").await;
    let scratch = Arc::new(configured(server.address, "in"));
    let report = back_up(&scratch, 0).await;
    assert_eq!(report["entries"], 2);
    for (name, content) in [("a", "file"), ("a/b", "below")] {
        assert_eq!(with(&scratch, &["cat", "latest", name]).expect(0).out, content);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn create_bucket_and_restore_return_what_was_in_the_clouds() {
    let (s3, azure, gcs) = (Server::moto().await, Server::azurite().await, FakeGcs::start().await);
    let connection = format!(
        "AccountName={AZURITE_ACCOUNT};AccountKey={AZURITE_KEY};BlobEndpoint=http://{}/{AZURITE_ACCOUNT}",
        azure.address
    );
    let environment = [
        ("AWS_ENDPOINT_URL", format!("http://{}", s3.address)),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_ACCESS_KEY_ID", "test".into()),
        ("AWS_SECRET_ACCESS_KEY", "test".into()),
        ("AZURE_STORAGE_CONNECTION_STRING", connection),
        ("GOOGLE_BASE_URL", format!("http://{}", gcs.address)),
        ("GOOGLE_ALLOW_HTTP", "true".into()),
        ("GOOGLE_SKIP_SIGNATURE", "true".into()),
    ];
    let contents = [("one", vec![]), ("two/three", b"words".to_vec()), ("long", pseudo_random(9_000_000, 3))];
    for (url, settings) in [
        ("s3", s3_settings(s3.address, "in")),
        ("az", azure_settings(azure.address, "in")),
        ("gs", gcs_settings(gcs.address, "in")),
    ] {
        let url = format!("{url}://{}/in", stores::BUCKET);
        let client = client(settings, &url).await;
        for (key, content) in &contents {
            client.put(&Key::from(format!("in/{key}")), content.clone().into()).await.unwrap();
        }
        let scratch = Arc::new(Scratch::with_repository());
        let go = async |arguments: &[&str]| {
            let mut command = scratch.command(["--json"]);
            command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
            tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
        };
        let report = go(&["create", "bucket", &url]).await.expect(0).json();
        assert_eq!((&report["outcome"], &report["entries"]), (&"complete".into(), &3.into()), "{url}");
        let report = go(&["create", "bucket", &url]).await.expect(0).json();
        assert_eq!(report["bytes_read"], 0, "{url}: {report:#}");
        go(&["restore", "latest", "--to", "restored", "--verify"]).await.expect(0);
        for (key, content) in &contents {
            assert!(read(scratch.path("restored").join(key)) == *content, "{url}: {key}");
        }
    }
}

/// The store that settings of a sink describe.
async fn client(settings: backup_core::config::Component, url: &str) -> Arc<dyn ObjectStore> {
    let mut values = serde_json::to_value(&settings).unwrap().as_object().unwrap().clone();
    values.retain(|key, _| !["kind", "bucket", "container", "prefix"].contains(&key.as_str()));
    values.insert("url".into(), url.into());
    let settings = backup_core::config::Settings::new("test", "", values);
    let bucket = backup_sinks::clouds::open(&settings, &Default::default(), None).await.unwrap();
    assert!(!format!("{bucket:?}").contains("s3cret"));
    bucket.store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_kind_bucket_keeps_the_contract_of_sources() {
    let server = Server::moto().await;
    for number in 0..30_usize {
        store(server.address, &format!("in/{}/{number}", number % 3), vec![b'x'; number * 200_000]).await;
    }
    let source = backup_core::config::Component::new("bucket")
        .with("url", format!("s3://{}/in", stores::BUCKET))
        .with("endpoint", format!("http://{}", server.address))
        .with("allow_http", true)
        .with("access_key_id", "command:echo test")
        .with("secret_access_key", "command:echo s3cret-of-the-test");
    let registry = backup_cli::registry();
    let source = registry.make_source(&source, "test", "", &Default::default()).await.unwrap();
    conformance(&*source).await.unwrap();
    assert!(!format!("{source:?} {:?}", source.info()).contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_missing_is_named_and_secrets_are_not() {
    let server = Server::moto().await;
    store(server.address, "in/a", "content").await;
    let address = format!("http://{}", server.address);
    let scratch = Arc::new(Scratch::with_repository());
    let environment = [
        ("AWS_ENDPOINT_URL", address.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "s3cret-id"),
        ("AWS_SECRET_ACCESS_KEY", "s3cret-of-the-test"),
    ];
    for (url, without, words) in [
        ("s3://no-such-bucket/in", "", &["NoSuchBucket", "s3://no-such-bucket/in"][..]),
        ("s3://bucket/typo", "", &["s3://bucket/typo", "no object to back up"]),
        ("s3://bucket/in//x", "", &["in//x", "prefix"]),
        ("s3://key:s3cret@bucket/in", "", &["credentials and options do not belong there"]),
        ("bucket/in", "", &["s3://bucket/prefix", "az://container/prefix"]),
        ("ftp://bucket/in", "", &["s3://bucket/prefix"]),
        ("s3://bucket/in", "AWS_ALLOW_HTTP", &["AWS_ALLOW_HTTP"]),
        ("s3://bucket/in", "AWS_ACCESS_KEY_ID", &["AccessKeyId"]),
    ] {
        let mut command = scratch.command(["create", "bucket", url]);
        command.envs(environment.into_iter().filter(|(name, _)| *name != without));
        let ran = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap().expect(1);
        print!("{}", ran.err);
        for words in words {
            assert!(ran.err.contains(words), "{url} without {without:?}: {ran:?}");
        }
        assert!(!ran.err.contains("s3cret"), "{ran:?}");
    }
    configure(&scratch, server.address, "in");
    let text = std::fs::read_to_string(scratch.path("backup.toml")).unwrap();
    std::fs::write(scratch.path("backup.toml"), text.replace("region =", "regoin =")).unwrap();
    let ran = with(&scratch, &["run", "bucket"]).expect(1);
    assert!(ran.err.contains("sources.uploads") && ran.err.contains("regoin"), "{ran:?}");
}
