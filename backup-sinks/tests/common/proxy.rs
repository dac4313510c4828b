//! A proxy before a server, which does to one request what networks and servers do.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::http::{Request, answer, find, read_request, send};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It has its effect; the answer is lost.
    LostAnswer,
    /// It has its effect; the answer is this status.
    AnsweredAfterEffect(u16),
    /// It has no effect; the answer is this status, for 429 with `Retry-After`.
    Answered(u16),
    /// The connection is cut before the server hears of it.
    Cut,
    /// The connection is cut in the middle of the answer's body (or head, if there is no body).
    CutBody,
    /// Half of the answer comes, and then nothing more.
    StalledBody,
    /// The answer comes in small pieces, slowly.
    SlowBody,
}

/// Those that a good client survives, of every kind there is.
pub const PASSING: [Fault; 12] = [
    Fault::LostAnswer,
    Fault::Answered(409),
    Fault::Cut,
    Fault::Answered(503),
    Fault::CutBody,
    Fault::Answered(412),
    Fault::SlowBody,
    Fault::Answered(500),
    Fault::AnsweredAfterEffect(500),
    Fault::Answered(429),
    Fault::StalledBody,
    Fault::AnsweredAfterEffect(503),
];

impl Fault {
    /// Whether servers do that to a request of this method: conditions and conflicts are about writing.
    fn befalls(self, method: &str) -> bool {
        !matches!(self, Self::Answered(409 | 412)) || method == "PUT"
    }
}

/// What a proxy does.
#[derive(Debug, Clone, Copy)]
pub enum Plan {
    /// Nothing but count.
    Forward,
    /// Every answer takes this long, as if the server were far away.
    Far(Duration),
    /// This to the request of this number, counting from 1.
    Once(usize, Fault),
    /// This to all requests from this number on.
    FromThenOn(usize, Fault),
    /// To every so manieth request one of [`PASSING`], in turn, as far as it can happen to such a request.
    InTurn(usize),
    /// An object whose key ends so is replaced by so many bytes `n` once a part of it was read, before the answer comes.
    ReplacedInReading(&'static str, usize),
    /// This to every put, and nothing to other requests.
    EveryPut(Fault),
    /// Takes the condition out of every put, so that the store behind it replaces objects: what a store looks like that
    /// accepts `If-None-Match` and ignores it.
    StripConditions,
    /// Takes the condition out of the puts after the first so many: creates twice in a row are told apart, races are not.
    StripConditionsAfter(usize),
}

/// A running proxy; dropping it stops it.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

/// What went through a proxy.
#[derive(Debug, Default)]
struct Seen {
    requests: AtomicUsize,
    replaced: AtomicBool,
    /// Faults of [`Plan::InTurn`] whose turn is still to come.
    waiting: Mutex<VecDeque<Fault>>,
    struck: Mutex<BTreeMap<Fault, usize>>,
    /// When each request came and was answered, with its first line, where the server is far away.
    spans: Mutex<Vec<(Instant, Instant, String)>>,
}

impl Seen {
    fn fault(&self, plan: Plan, request: &Request, number: usize) -> Option<Fault> {
        let fault = match plan {
            Plan::Once(at, fault) if at == number => Some(fault),
            Plan::FromThenOn(at, fault) if at <= number => Some(fault),
            Plan::EveryPut(fault) if request.method == "PUT" => Some(fault),
            Plan::InTurn(every) if number.is_multiple_of(every) => {
                let mut waiting = self.waiting.lock().unwrap();
                if waiting.len() < PASSING.len() {
                    waiting.extend(PASSING);
                }
                let next = waiting.iter().position(|fault| fault.befalls(&request.method));
                next.and_then(|next| waiting.remove(next))
            }
            _ => None,
        };
        if let Some(fault) = fault {
            *self.struck.lock().unwrap().entry(fault).or_default() += 1;
        }
        fault
    }
}

impl Proxy {
    pub async fn start(upstream: SocketAddr, plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let counter = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let counter = Arc::clone(&counter);
                // A client that goes away is the client's affair.
                tokio::spawn(async move { serve(client, upstream, plan, &counter).await.ok() });
            }
        });
        Self { address, seen, task }
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.seen.spans.lock().unwrap().clear();
    }

    /// How many requests of [`Plan::Far`] at least were made one after the other, each after the answer to the one before.
    pub fn round_trips(&self) -> usize {
        let mut spans = self.seen.spans.lock().unwrap().clone();
        spans.sort_by_key(|(_, answered, _)| *answered);
        let mut free_from = None;
        let mut count = 0;
        for (came, answered, _) in spans {
            if free_from.is_none_or(|free| came >= free) {
                count += 1;
                free_from = Some(answered);
            }
        }
        count
    }

    /// The requests of [`Plan::Far`], in the order in which they came.
    pub fn requested(&self) -> Vec<String> {
        let mut spans = self.seen.spans.lock().unwrap().clone();
        spans.sort_by_key(|(came, ..)| *came);
        spans.into_iter().map(|(.., line)| line).collect()
    }

    /// How often each fault has happened.
    pub fn struck(&self) -> BTreeMap<Fault, usize> {
        self.seen.struck.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, upstream: SocketAddr, plan: Plan, seen: &Seen) -> io::Result<()> {
    let Some(mut request) = read_request(&mut client).await? else { return Ok(()) };
    let number = seen.requests.fetch_add(1, Ordering::SeqCst) + 1;
    let fault = seen.fault(plan, &request, number);
    if matches!(plan, Plan::StripConditions)
        || matches!(plan, Plan::StripConditionsAfter(first) if number > first)
    {
        request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("if-none-match"));
    }
    if let Plan::Far(away) = plan {
        let came = Instant::now();
        let response = ask(upstream, &request).await?;
        tokio::time::sleep(away).await;
        let line = format!("{} {}", request.method, request.target);
        seen.spans.lock().unwrap().push((came, Instant::now(), line));
        return send(&mut client, &response).await;
    }
    let Some(fault) = fault else {
        let response = ask(upstream, &request).await?;
        if let Plan::ReplacedInReading(key, len) = plan
            && request.header("range").is_some()
            && request.path().ends_with(key)
            && !seen.replaced.swap(true, Ordering::SeqCst)
        {
            put(upstream, &request.target, vec![b'n'; len]).await?;
        }
        return send(&mut client, &response).await;
    };
    match fault {
        Fault::LostAnswer => {
            ask(upstream, &request).await?;
        }
        Fault::AnsweredAfterEffect(status) => {
            ask(upstream, &request).await?;
            send(&mut client, &refusal(status)).await?;
        }
        Fault::Answered(status) => send(&mut client, &refusal(status)).await?,
        Fault::Cut => {}
        Fault::CutBody => {
            let response = ask(upstream, &request).await?;
            client.write_all(&response[..half(&response)]).await?;
        }
        Fault::StalledBody => {
            let response = ask(upstream, &request).await?;
            client.write_all(&response[..half(&response)]).await?;
            // Until the client loses patience.
            client.read_u8().await?;
        }
        Fault::SlowBody => {
            let response = ask(upstream, &request).await?;
            for piece in response.chunks(response.len().div_ceil(10).max(1)) {
                client.write_all(piece).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            client.shutdown().await?;
        }
    }
    Ok(())
}

/// Stores an object in moto, which looks at no signatures; `target` is its path, encoded.
pub async fn put(server: SocketAddr, target: &str, body: Vec<u8>) -> io::Result<()> {
    let headers = vec![
        ("host".into(), server.to_string()),
        (
            "authorization".into(),
            "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
                .into(),
        ),
        ("content-type".into(), "text/odd".into()),
        ("x-amz-meta-owner".into(), "somebody".into()),
        ("content-length".into(), body.len().to_string()),
    ];
    let request = Request { method: "PUT".into(), target: target.into(), headers, body };
    let response = ask(server, &request).await?;
    assert!(response.starts_with(b"HTTP/1.1 200"), "{target}: {}", String::from_utf8_lossy(&response));
    Ok(())
}

/// The server's whole answer.
async fn ask(upstream: SocketAddr, request: &Request) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream).await?;
    server.write_all(&request.to_bytes()).await?;
    let mut response = Vec::new();
    server.read_to_end(&mut response).await?;
    Ok(response)
}

/// The middle of the body, or of the head where there is no body.
fn half(response: &[u8]) -> usize {
    let body = find(response, b"\r\n\r\n").map_or(0, |end| end + 4);
    if body < response.len() { (body + response.len()) / 2 } else { response.len() / 2 }
}

fn refusal(status: u16) -> Vec<u8> {
    let body = format!("<Error><Code>Injected</Code><Message>status {status} on purpose</Message></Error>");
    let headers: &[(&str, &str)] = if status == 429 { &[("retry-after", "1")] } else { &[] };
    answer(status, headers, body.as_bytes())
}
