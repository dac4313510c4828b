//! Connections that fetch pieces of files.
//!
//! Workers ask through one queue and wait for their answers; a task for each connection takes what was asked first. A task
//! never waits for a worker, as each answer has its place from the beginning, so nobody waits in a circle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use backup_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use super::session::{self, Identity};
use super::sql::stopped;
use crate::postgres::Connect;
use crate::postgres::connect::explain;

/// Bytes of a piece.
pub(super) const PIECE_BYTES: u32 = 1024 * 1024;
/// Pieces that may be asked for and not taken up by a connection yet.
const WAITING_MAX: usize = 256;
/// Memory for what is fetched before anybody reads it, in KiB.
const EARLY_KIB: usize = 32 * 1024;
/// How often a piece is asked for again on a new connection, and how long before that.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);

/// What came of a request: none if the file is not there any more.
pub(super) type Reply = Option<Bytes>;

/// A part of a file that somebody waits for.
pub(super) struct Request {
    pub(super) path: Arc<str>,
    pub(super) offset: u64,
    pub(super) bytes: u32,
    /// With room for the one answer.
    pub(super) reply: Sender<Result<Reply>>,
}

/// A pool of connections. Dropping it ends them.
pub(super) struct Fetcher {
    queue: Sender<Request>,
    early: Arc<Semaphore>,
    connections: usize,
    _tasks: JoinSet<()>,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("connections", &self.connections).finish_non_exhaustive()
    }
}

impl Fetcher {
    /// Logs in to a server as often as there are to be connections; the first that cannot fails.
    pub(super) async fn start(connect: &Connect, server: Identity, connections: usize) -> Result<Self> {
        let (queue, requests) = async_channel::bounded(WAITING_MAX);
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let session = Some(Session::open(connect, server).await?);
            let worker = Worker { connect: connect.clone(), server, session };
            tasks.spawn(worker.run(requests.clone()));
        }
        Ok(Self { queue, early: Arc::new(Semaphore::new(EARLY_KIB)), connections, _tasks: tasks })
    }

    /// How many pieces of one file may be under way.
    pub(super) fn pieces_ahead(&self) -> usize {
        self.connections.saturating_add(1).clamp(2, 8)
    }

    /// Memory for bytes that nobody waits for yet, if there is any.
    pub(super) fn memory(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024).max(1)).ok()?;
        Arc::clone(&self.early).try_acquire_many_owned(kib).ok()
    }

    /// Asks unless too much is asked for already.
    pub(super) fn try_ask(&self, request: Request) -> bool {
        self.queue.try_send(request).is_ok()
    }

    pub(super) async fn ask(&self, request: Request) -> Result<()> {
        self.queue.send(request).await.map_err(|_| Error::cancelled())
    }

    /// Asks from a thread that may wait.
    pub(super) fn ask_blocking(&self, request: Request) -> std::io::Result<()> {
        self.queue.send_blocking(request).map_err(|_| stopped())
    }
}

struct Session {
    client: Client,
    read: Statement,
}

impl Session {
    async fn open(connect: &Connect, server: Identity) -> Result<Self> {
        const READ: &str = "SELECT pg_catalog.pg_read_binary_file($1, $2, $3, true)";
        let client = connect.connect_to_ask().await?;
        server.check(&client).await?;
        session::settle(&client).await?;
        let types = [Type::TEXT, Type::INT8, Type::INT8];
        let read = client.prepare_typed(READ, &types).await.map_err(|error| explain(&error))?;
        Ok(Self { client, read })
    }

    async fn read(&self, request: &Request) -> Result<Reply> {
        let (path, offset, bytes) = (&*request.path, request.offset, i64::from(request.bytes));
        let offset = i64::try_from(offset).map_err(|_| Error::internal("an offset exceeds 63 bits"))?;
        let row = self.client.query_one(&self.read, &[&path, &offset, &bytes]).await;
        let bytes =
            row.and_then(|row| row.try_get::<_, Option<&[u8]>>(0).map(|b| b.map(Bytes::copy_from_slice)));
        bytes.map_err(|error| explain(&error))
    }
}

struct Worker {
    connect: Connect,
    server: Identity,
    session: Option<Session>,
}

impl Worker {
    async fn run(mut self, requests: Receiver<Request>) {
        while let Ok(request) = requests.recv().await {
            let answer = self.answer(&request).await;
            // Who asked may have given up; the answer has its place in any case.
            let _ = request.reply.try_send(answer);
        }
    }

    /// Reads, on a new connection if the old one broke.
    async fn answer(&mut self, request: &Request) -> Result<Reply> {
        let mut attempt = 1_u32;
        loop {
            let answer = match &self.session {
                Some(session) => session.read(request).await,
                None => match Session::open(&self.connect, self.server).await {
                    Ok(session) => {
                        let session = self.session.insert(session);
                        session.read(request).await
                    }
                    Err(error) => Err(error),
                },
            };
            match answer {
                Err(error) if error.kind() == ErrorKind::Transient && attempt < ATTEMPTS => {
                    tracing::debug!(%error, path = %request.path, "a piece is asked for again");
                    self.session = None;
                    tokio::time::sleep(PAUSE.saturating_mul(attempt)).await;
                    attempt = attempt.saturating_add(1);
                }
                answer => return answer,
            }
        }
    }
}
