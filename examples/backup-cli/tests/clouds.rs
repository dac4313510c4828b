//! Repositories in object stores, by URL and the clouds' own environment variables.
#![cfg(all(feature = "s3", feature = "azure", feature = "gcs"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;
#[path = "../../../backup-sinks/tests/common/mod.rs"]
mod stores;

use std::net::SocketAddr;
use std::time::Duration;

use common::{Ran, Scratch, listing, run};
use stores::proxy::{Plan, Proxy};
use stores::server::{AZURITE_ACCOUNT, AZURITE_KEY, Server};

/// A repository and the environment that leads to it.
struct Remote {
    scratch: Scratch,
    url: String,
    environment: Vec<(&'static str, String)>,
}

impl Remote {
    fn s3(server: SocketAddr, keys: &str) -> Self {
        let environment = vec![
            ("AWS_ENDPOINT_URL", format!("http://{server}")),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_ACCESS_KEY_ID", keys.into()),
            ("AWS_SECRET_ACCESS_KEY", keys.into()),
            ("AWS_REGION", "us-east-1".into()),
        ];
        Self { scratch: Scratch::new(), url: format!("s3://{}/some/prefix", stores::BUCKET), environment }
    }

    fn azure(server: SocketAddr) -> Self {
        let connection = format!(
            "AccountName={AZURITE_ACCOUNT};AccountKey={AZURITE_KEY};BlobEndpoint=http://{server}/{AZURITE_ACCOUNT}"
        );
        let environment = vec![("AZURE_STORAGE_CONNECTION_STRING", connection)];
        Self { scratch: Scratch::new(), url: format!("az://{}/some/prefix", stores::BUCKET), environment }
    }

    /// In a thread of its own: the servers and proxies of the test run meanwhile.
    async fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.scratch.command(["--json"]);
        command.args(arguments).env("BACKUP_REPO", &self.url);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
    }

    async fn there_and_back(&self) {
        let checked = self.run(&["check"]).await.expect(0).json();
        assert!(checked["checks"].to_string().contains("sixteen callers"), "{checked:#}");
        self.run(&["init"]).await.expect(0);
        self.run(&["init"]).await.expect(1);
        let first = self.run(&["create", "files", "tree"]).await.expect(0).json();
        assert_eq!(first["outcome"], "complete");
        let second = self.run(&["create", "files", "tree"]).await.expect(0).json();
        assert_eq!((&second["parent"], &second["bytes_read"]), (&first["snapshot"], &0.into()));
        self.run(&["verify", "--level", "content"]).await.expect(0);
        self.run(&["restore", "latest", "--to", "restored", "--verify"]).await.expect(0);
        let (restored, tree) = (self.scratch.path("restored/tree"), self.scratch.path("tree"));
        assert_eq!(listing(&restored), listing(&tree));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_repository_in_s3_is_used_like_any_other() {
    let server = Server::moto().await;
    let proxy = Proxy::start(server.address, Plan::Forward).await;
    let remote = Remote::s3(proxy.address, "test");
    remote.there_and_back().await;

    // Copies of what is read often spare requests, and `verify` does not read them.
    let requests = async |arguments: &[&str]| {
        let before = proxy.requests();
        remote.run(arguments).await.expect(0);
        proxy.requests() - before
    };
    let cold = requests(&["--cache-dir", "cache", "ls", "latest"]).await;
    let warm = requests(&["--cache-dir", "cache", "ls", "latest"]).await;
    let without = requests(&["--no-cache", "ls", "latest"]).await;
    println!("`ls latest` needs {without} requests, with a cold cache {cold}, with a warm one {warm}");
    assert!(warm < without && cold <= without + 1, "{warm} {cold} {without}");
    let verifying = requests(&["--no-cache", "verify", "--level", "checksum"]).await;
    let cached = requests(&["--cache-dir", "cache", "verify", "--level", "checksum"]).await;
    assert_eq!(verifying, cached, "verify read copies");

    // Copies are for their owner: those of objects below the repository's own name, and the names of its key slots.
    let mut names = Vec::new();
    for entry in std::fs::read_dir(remote.scratch.path("cache")).unwrap() {
        let directory = entry.unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&directory.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700, "{directory:?}");
        names.push(directory.file_name().into_string().unwrap());
    }
    names.sort_by_key(String::len);
    assert!(names.len() == 2 && names[0] == "slots" && names[1].len() > 30, "{names:?}");
    // A cache that was asked for and cannot be is an error.
    let ran = remote.run(&["--cache-dir", "key", "ls", "latest"]).await.expect(1);
    assert!(ran.err.contains("copies"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_unchanged_backup_far_away_waits_for_four_answers_at_most() {
    let server = Server::moto().await;
    let proxy = Proxy::start(server.address, Plan::Far(Duration::from_millis(50))).await;
    let remote = Remote::s3(proxy.address, "test");
    remote.run(&["init"]).await.expect(0);
    for (arguments, expected) in [
        (&["create", "files", "tree"][..], None),
        (&["create", "files", "tree"], None),
        // By now what never changes is known, and nothing is new.
        (&["create", "files", "tree"], Some(4)),
        (&["ls", "latest"], Some(3)),
        (&["list"], Some(2)),
    ] {
        proxy.forget();
        remote.run(&[&["--cache-dir", "cache"], arguments].concat()).await.expect(0);
        let (round_trips, requests) = (proxy.round_trips(), proxy.requested());
        println!("{arguments:?}: {round_trips} round trips, {} requests", requests.len());
        assert!(expected.is_none_or(|most| round_trips <= most), "{round_trips}: {requests:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_repository_in_azure_is_used_like_any_other() {
    let server = Server::azurite().await;
    Remote::azure(server.address).there_and_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn init_and_check_refuse_a_store_that_lies_and_say_why() {
    let server = Server::s3rver().await;
    let remote = Remote::s3(server.address, "S3RVER");
    let ran = remote.run(&["init"]).await.expect(1);
    print!("{}", ran.err);
    for words in ["no repository was made at s3://", "replaced an object although asked to create it only"] {
        assert!(ran.err.contains(words), "{ran:?}");
    }
    assert_eq!(ran.json()["error"]["kind"], "unsupported");
    let ran = remote.run(&["check"]).await.expect(1);
    assert!(ran.out.contains("replaced an object although asked to create it only"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_missing_is_named_and_secrets_are_not() {
    let server = Server::moto().await;
    let mut remote = Remote::s3(server.address, "s3cret-of-the-test");
    let ran = remote.run(&["list"]).await.expect(1);
    assert!(ran.err.contains("backup init"), "{ran:?}");
    remote.url = "s3://no-such-bucket/prefix".into();
    let ran = remote.run(&["init"]).await.expect(1);
    assert!(ran.err.contains("NoSuchBucket"), "{ran:?}");
    remote.environment.retain(|(name, _)| *name != "AWS_ALLOW_HTTP");
    let ran = remote.run(&["list"]).await.expect(1);
    assert!(ran.err.contains("AWS_ALLOW_HTTP"), "{ran:?}");
    assert!(!format!("{ran:?}").contains("s3cret"), "{ran:?}");
}
