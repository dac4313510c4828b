//! A proxy before a server, which does to one request what networks and servers do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::http::{Request, answer, find, read_request, send};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Every kind of fault.
pub const FAULTS: [Fault; 13] = [
    Fault::LostAnswer,
    Fault::AnsweredAfterEffect(500),
    Fault::AnsweredAfterEffect(503),
    Fault::Answered(409),
    Fault::Answered(412),
    Fault::Answered(429),
    Fault::Answered(500),
    Fault::Answered(503),
    Fault::Cut,
    Fault::CutBody,
    Fault::StalledBody,
    Fault::SlowBody,
    Fault::Answered(507),
];

/// What a proxy does.
#[derive(Debug, Clone, Copy)]
pub enum Plan {
    /// Nothing but count.
    Forward,
    /// This to the request of this number, counting from 1.
    Once(usize, Fault),
    /// This to all requests from this number on.
    FromThenOn(usize, Fault),
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
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(upstream: SocketAddr, plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let counter = Arc::clone(&counter);
                // A client that goes away is the client's affair.
                tokio::spawn(async move { serve(client, upstream, plan, &counter).await.ok() });
            }
        });
        Self { address, requests, task }
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut client: TcpStream,
    upstream: SocketAddr,
    plan: Plan,
    counter: &AtomicUsize,
) -> io::Result<()> {
    let Some(mut request) = read_request(&mut client).await? else { return Ok(()) };
    let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
    let fault = match plan {
        Plan::Once(at, fault) if at == number => Some(fault),
        Plan::FromThenOn(at, fault) if at <= number => Some(fault),
        _ => None,
    };
    if matches!(plan, Plan::StripConditions)
        || matches!(plan, Plan::StripConditionsAfter(first) if number > first)
    {
        request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("if-none-match"));
    }
    let Some(fault) = fault else {
        let response = ask(upstream, &request).await?;
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
