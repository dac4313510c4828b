//! Real servers: moto for S3, Azurite for Azure, and one that lies. `.ci/servers` installs them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::BUCKET;

/// The account that Azurite has, and its key, which is the same everywhere and documented.
pub const AZURITE_ACCOUNT: &str = "devstoreaccount1";
pub const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A server of this test; dropping it stops it.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Server {
    /// moto, an S3 server, with a bucket.
    pub async fn moto() -> Self {
        Self::moto_with(&[]).await
    }

    /// The same in an environment.
    pub async fn moto_with(environment: &[(&str, String)]) -> Self {
        let program = installed("moto/bin/moto_server");
        let port = free_port();
        let arguments = ["-H", "127.0.0.1", "-p", &port.to_string()];
        let server = Self::start_with(&program, &arguments, port, environment).await;
        let answer = server.ask(&format!("PUT /{BUCKET} HTTP/1.1"), "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "the bucket was not created: {answer}");
        server
    }

    /// Azurite, an Azure server, with a container.
    pub async fn azurite() -> Self {
        let program = installed("node_modules/.bin/azurite-blob");
        let port = free_port().to_string();
        let arguments = ["--silent", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"];
        let place = ["--blobHost", "127.0.0.1", "--blobPort", &port];
        let server = Self::start(&program, &[&arguments[..], &place].concat(), port.parse().unwrap()).await;
        server.create_container().await;
        server
    }

    /// S3rver, which takes `If-None-Match` and replaces objects all the same, with a bucket. Its keys are `S3RVER`.
    pub async fn s3rver() -> Self {
        let program = installed("node_modules/.bin/s3rver");
        let port = free_port();
        let place = ["--directory", ".", "--address", "127.0.0.1", "--port", &port.to_string()];
        let bucket = ["--silent", "--no-vhost-buckets", "--configure-bucket", BUCKET];
        Self::start(&program, &[&place[..], &bucket].concat(), port).await
    }

    async fn start(program: &Path, arguments: &[&str], port: u16) -> Self {
        Self::start_with(program, arguments, port, &[]).await
    }

    async fn start_with(
        program: &Path,
        arguments: &[&str],
        port: u16,
        environment: &[(&str, String)],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The shell ends the server when its input closes: also when this test is killed.
        let script = r#""$@" & server=$!; read -r _; kill $server; wait $server"#;
        let child = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        let server = Self { address, child, _directory: directory };
        let started = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(120), "{} does not start", program.display());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }

    /// Answers nothing any more until it is resumed; connections stay, and new ones are taken by the kernel.
    pub fn pause(&self) {
        assert!(self.signal("-STOP"), "the server is not there");
    }

    /// Goes on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) -> bool {
        // The child is the shell that ends the server.
        let shell = self.child.id().to_string();
        let done = Command::new("pkill").args([signal, "--parent", &shell]).status();
        done.unwrap_or_else(|e| panic!("pkill must be installed (apt-get install procps): {e}")).success()
    }

    /// Makes moto give back what is asked for of an archive with the n-th look at it, and not at once.
    pub async fn set_restores_by_hand(&self, looks: u32) {
        let body = format!(
            r#"{{"model_name":"s3::keyrestore","transition":{{"progression":"manual","times":{looks}}}}}"#
        );
        let head = format!(
            "POST /moto-api/state-manager/set-transition HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    async fn ask(&self, first: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let address = self.address;
        let text =
            format!("{first}\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Signed with the account's key: <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>.
    async fn create_container(&self) {
        let date = rfc_1123(SystemTime::now());
        let version = "2021-08-06";
        let resource = format!("/{AZURITE_ACCOUNT}/{AZURITE_ACCOUNT}/{BUCKET}\nrestype:container");
        let signed =
            format!("PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{version}\n{resource}");
        let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(AZURITE_KEY).unwrap()).unwrap();
        mac.update(signed.as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let headers = format!(
            "x-ms-date: {date}\r\nx-ms-version: {version}\r\nauthorization: SharedKey {AZURITE_ACCOUNT}:{signature}\r\n"
        );
        let first = format!("PUT /{AZURITE_ACCOUNT}/{BUCKET}?restype=container HTTP/1.1");
        let answer = self.ask(&first, &headers).await;
        assert!(answer.starts_with("HTTP/1.1 201"), "the container was not created: {answer}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that is stopped would not end.
        self.resume();
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

/// A program that `.ci/test` installs below the target directory.
pub fn installed(program: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let path = target.join("servers").join(program);
    assert!(path.exists(), "{} is missing: `.ci/servers` installs it", path.display());
    path
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A time as HTTP writes it.
pub fn rfc_1123(time: SystemTime) -> String {
    let zoned = jiff::Timestamp::try_from(time).unwrap();
    zoned.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
