//! A FAKE of the part of Google Cloud Storage's XML API that a sink uses, which enforces generations.
//!
//! It shows that the client speaks the protocol as documented, not how Google's servers behave:
//! <https://cloud.google.com/storage/docs/xml-api/overview>. For that there is a test with real credentials.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::BUCKET;
use super::http::{Request, answer, read_request, send};
use super::server::rfc_1123;

/// Objects in one page of a listing.
const PAGE: usize = 1000;

#[derive(Debug, Clone)]
struct Object {
    bytes: Vec<u8>,
    generation: u64,
    modified: SystemTime,
    metadata: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Object>,
    generations: u64,
}

/// The running fake; dropping it stops it.
#[derive(Debug)]
pub struct FakeGcs {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl FakeGcs {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bucket = Arc::new(Mutex::new(Bucket::default()));
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let bucket = Arc::clone(&bucket);
                tokio::spawn(async move { serve(client, &bucket).await.ok() });
            }
        });
        Self { address, task }
    }
}

impl Drop for FakeGcs {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, bucket: &Mutex<Bucket>) -> io::Result<()> {
    let Some(request) = read_request(&mut client).await? else { return Ok(()) };
    let response = respond(&request, &mut bucket.lock().unwrap());
    send(&mut client, &response).await
}

fn respond(request: &Request, bucket: &mut Bucket) -> Vec<u8> {
    let path = request.path();
    let Some(rest) = path.strip_prefix(&format!("/{BUCKET}")) else {
        return refuse(404, "NoSuchBucket");
    };
    let key = rest.trim_start_matches('/');
    match (request.method.as_str(), key) {
        ("GET", "") => list(request, bucket),
        ("PUT", key) => put(request, bucket, key),
        ("GET" | "HEAD", key) => get(request, bucket, key),
        ("DELETE", key) => match bucket.objects.remove(key) {
            Some(_) => answer(204, &[], b""),
            None => refuse(404, "NoSuchKey"),
        },
        _ => refuse(405, "MethodNotAllowed"),
    }
}

fn put(request: &Request, bucket: &mut Bucket, key: &str) -> Vec<u8> {
    let there = bucket.objects.get(key).map_or(0, |object| object.generation);
    let wanted = request.header("x-goog-if-generation-match").map(|value| value.parse::<u64>().unwrap());
    if wanted.is_some_and(|wanted| wanted != there) {
        return refuse(412, "PreconditionFailed");
    }
    bucket.generations += 1;
    let generation = bucket.generations;
    let metadata = request
        .headers
        .iter()
        .filter(|(name, _)| name.to_ascii_lowercase().starts_with("x-goog-meta-"))
        .cloned()
        .collect();
    let object = Object { bytes: request.body.clone(), generation, modified: SystemTime::now(), metadata };
    bucket.objects.insert(key.to_owned(), object);
    let generation = generation.to_string();
    answer(200, &[("etag", &format!("\"{generation}\"")), ("x-goog-generation", &generation)], b"")
}

fn get(request: &Request, bucket: &Bucket, key: &str) -> Vec<u8> {
    let Some(object) = bucket.objects.get(key) else { return refuse(404, "NoSuchKey") };
    let len = object.bytes.len();
    let (status, range) = match request.header("range") {
        None => (200, 0..len),
        Some(text) => {
            let (start, end) = text.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            let range = match (start, end) {
                ("", suffix) => len.saturating_sub(suffix.parse().unwrap())..len,
                (start, "") => start.parse().unwrap()..len,
                (start, end) => start.parse().unwrap()..(end.parse::<usize>().unwrap() + 1).min(len),
            };
            if range.start >= len {
                return refuse(416, "InvalidRange");
            }
            (206, range)
        }
    };
    let generation = object.generation.to_string();
    let content = format!("bytes {}-{}/{len}", range.start, range.end.saturating_sub(1));
    let (etag, modified) = (format!("\"{generation}\""), rfc_1123(object.modified));
    let length = range.len().to_string();
    let mut headers: Vec<(&str, &str)> = vec![
        ("content-length", &length),
        ("etag", &etag),
        ("last-modified", &modified),
        ("x-goog-generation", &generation),
    ];
    headers.extend(object.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    if status == 206 {
        headers.push(("content-range", &content));
    }
    let body = if request.method == "HEAD" { &[] } else { &object.bytes[range] };
    answer(status, &headers, body)
}

fn list(request: &Request, bucket: &Bucket) -> Vec<u8> {
    assert_eq!(request.query("list-type").as_deref(), Some("2"));
    let prefix = request.query("prefix").unwrap_or_default();
    // A token is the last key of the page before.
    let after = request.query("continuation-token").or_else(|| request.query("start-after"));
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut found =
        bucket.objects.range((start, Bound::Unbounded)).filter(|(key, _)| key.starts_with(&prefix));
    let mut xml = String::from("<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>");
    let mut last = String::new();
    for (key, object) in found.by_ref().take(PAGE) {
        let modified = jiff::Timestamp::try_from(object.modified).unwrap();
        xml.push_str(&format!(
            "<Contents><Key>{key}</Key><Generation>{}</Generation><LastModified>{modified}</LastModified><ETag>\"{}\"</ETag><Size>{}</Size></Contents>",
            object.generation, object.generation, object.bytes.len()
        ));
        last.clone_from(key);
    }
    if found.next().is_some() {
        xml.push_str(&format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
        ));
    }
    xml.push_str("</ListBucketResult>");
    answer(200, &[("content-type", "application/xml")], xml.as_bytes())
}

fn refuse(status: u16, code: &str) -> Vec<u8> {
    answer(status, &[], format!("<?xml version='1.0'?><Error><Code>{code}</Code></Error>").as_bytes())
}
