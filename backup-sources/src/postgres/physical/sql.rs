//! The files of a cluster as its server reads them, over several connections: nothing runs on the server's machine.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_channel::Receiver;
use async_trait::async_trait;
use backup_core::source::Gone;
use backup_core::{Error, ErrorKind, Result, Timestamp};
use bytes::{Buf, Bytes};
use tokio::sync::OwnedSemaphorePermit;
use tokio_postgres::Client;

use super::fetch::{Fetcher, PIECE_BYTES, Reply, Request};
use super::reader::{Listed, ListedKind, Listing, Opener, PgFile, PgFileReader};
use crate::postgres::connect::explain;

/// Files that a server reads and sends.
pub(super) struct SqlFiles {
    /// For listings, which are asked one after the other.
    client: Client,
    fetcher: Arc<Fetcher>,
}

impl fmt::Debug for SqlFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlFiles").field("fetcher", &self.fetcher).finish_non_exhaustive()
    }
}

impl SqlFiles {
    pub(super) fn new(client: Client, fetcher: Fetcher) -> Self {
        Self { client, fetcher: Arc::new(fetcher) }
    }
}

#[async_trait]
impl PgFileReader for SqlFiles {
    async fn list(&self, directory: &str) -> Result<Option<Listing>> {
        let shown = if directory.is_empty() { "." } else { directory };
        // A directory that is gone has no entries; the outer row tells it from one that is empty.
        const LIST: &str = "SELECT d.isdir, e.name, s.size, s.isdir, extract(epoch from s.modification)::bigint \
             FROM (SELECT isdir FROM pg_catalog.pg_stat_file($1, true)) AS d \
             LEFT JOIN LATERAL pg_catalog.pg_ls_dir($1, true, false) AS e(name) ON true \
             LEFT JOIN LATERAL pg_catalog.pg_stat_file($1 || '/' || e.name, true) AS s ON true";
        let failed = |error: &tokio_postgres::Error| {
            let error = explain(error);
            let message = format!("the directory {shown} of the server cannot be listed");
            Error::new(error.kind(), message).with_source(error)
        };
        let rows = self.client.query(LIST, &[&shown]).await.map_err(|error| failed(&error))?;
        let mut listing = Listing::default();
        let mut is_there = false;
        for row in &rows {
            let get = |at: usize| row.try_get::<_, Option<i64>>(at).map_err(|error| failed(&error));
            let is_directory = |at: usize| row.try_get::<_, Option<bool>>(at).map_err(|error| failed(&error));
            is_there |= is_directory(0)? == Some(true);
            let name: Option<String> = row.try_get(1).map_err(|error| failed(&error))?;
            // What vanished between the two questions has a name and nothing else.
            let (Some(name), Some(bytes), Some(is_directory), Some(seconds)) =
                (name, get(2)?, is_directory(3)?, get(4)?)
            else {
                continue;
            };
            listing.entries.push(Listed {
                name,
                kind: if is_directory { ListedKind::Directory } else { ListedKind::File },
                bytes: u64::try_from(bytes).unwrap_or_default(),
                modified: Timestamp::new(seconds, 0),
                owner: None,
                stamp: b"sql".to_vec(),
            });
        }
        Ok(is_there.then_some(listing))
    }

    async fn tablespace(&self, oid: u32) -> Result<String> {
        let row = self.client.query_one("SELECT pg_catalog.pg_tablespace_location($1)", &[&oid]).await;
        row.and_then(|row| row.try_get(0)).map_err(|error| {
            let error = explain(&error);
            Error::new(error.kind(), format!("where the tablespace {oid} is cannot be told"))
                .with_source(error)
        })
    }

    async fn read_all(&self, path: &str) -> Result<Option<Bytes>> {
        let (reply, received) = async_channel::bounded(1);
        let request = Request { path: path.into(), offset: 0, bytes: PIECE_BYTES, reply };
        self.fetcher.ask(request).await?;
        received.recv().await.map_err(|_| Error::cancelled())?.map_err(|error| error.with_entry(path))
    }

    fn open(&self, path: &str, end: Option<u64>, expected: u64, wanted: Option<&[Range<u64>]>) -> Opener {
        let path: Arc<str> = path.into();
        let end = end.unwrap_or(u64::MAX);
        let mut file = SqlFile {
            fetcher: Arc::clone(&self.fetcher),
            path,
            end,
            expected: expected.min(end),
            wanted: wanted.map(|ranges| ranges.iter().cloned().collect()),
            at: 0,
            asked: 0,
            ahead: VecDeque::new(),
            piece: Bytes::new(),
            ended: false,
        };
        // The first piece is asked for now, so that short files come while others are being stored.
        file.ask_early();
        Box::new(move || Ok(Box::new(file)))
    }
}

/// A file, of which some pieces are asked for ahead.
struct SqlFile {
    fetcher: Arc<Fetcher>,
    path: Arc<str>,
    /// Where reading ends, even if there is more.
    end: u64,
    /// Where the file probably ends: beyond that, nothing is asked for ahead.
    expected: u64,
    /// What of it will probably be read, as far as it is not asked for; none: all.
    wanted: Option<VecDeque<Range<u64>>>,
    /// Where reading stands.
    at: u64,
    /// How far pieces are asked for.
    asked: u64,
    ahead: VecDeque<Ahead>,
    piece: Bytes,
    ended: bool,
}

struct Ahead {
    offset: u64,
    bytes: u64,
    reply: Receiver<Result<Reply>>,
    /// Of a piece that nobody waits for yet; given back when it is taken.
    _memory: Option<OwnedSemaphorePermit>,
}

impl SqlFile {
    /// The next piece to ask for; none at the end of what is wanted.
    fn next_piece(&mut self) -> Option<(u64, u32)> {
        let mut next = self.asked..self.end;
        if let Some(wanted) = &mut self.wanted {
            while wanted.front().is_some_and(|range| range.end <= self.asked) {
                wanted.pop_front();
            }
            let range = wanted.front()?;
            next = self.asked.max(range.start)..range.end.min(self.end);
        }
        piece(next)
    }

    fn ask_early(&mut self) {
        let Some((offset, bytes)) = self.next_piece() else { return };
        // A file that is read to its end is asked for in full, and not for more memory than it takes.
        let Some(memory) = self.fetcher.memory(self.expected.min(u64::from(bytes))) else { return };
        let (reply, received) = async_channel::bounded(1);
        let request = Request { path: Arc::clone(&self.path), offset, bytes, reply };
        if self.fetcher.try_ask(request) {
            self.note_asked(offset, bytes, received, Some(memory));
        }
    }

    fn note_asked(
        &mut self,
        offset: u64,
        bytes: u32,
        reply: Receiver<Result<Reply>>,
        memory: Option<OwnedSemaphorePermit>,
    ) {
        self.asked = offset.saturating_add(u64::from(bytes));
        self.ahead.push_back(Ahead { offset, bytes: u64::from(bytes), reply, _memory: memory });
    }

    /// Asks for further pieces, as many as there are connections for.
    fn ask_ahead(&mut self) -> io::Result<()> {
        self.asked = self.asked.max(self.at);
        while self.ahead.is_empty()
            || (self.ahead.len() < self.fetcher.pieces_ahead() && self.asked < self.expected)
        {
            let Some((offset, bytes)) = self.next_piece() else { break };
            let reply = self.ask(offset, bytes)?;
            self.note_asked(offset, bytes, reply, None);
        }
        Ok(())
    }

    /// The piece in which the next byte stands; none at the end.
    fn next_reply(&mut self) -> io::Result<Option<Ahead>> {
        self.ask_ahead()?;
        if self.ahead.front().is_some_and(|next| next.offset <= self.at) {
            return Ok(self.ahead.pop_front());
        }
        // It was not expected to be read.
        let before = self.ahead.front().map_or(self.end, |next| next.offset);
        let Some((offset, bytes)) = piece(self.at..before) else { return Ok(None) };
        let reply = self.ask(offset, bytes)?;
        Ok(Some(Ahead { offset, bytes: u64::from(bytes), reply, _memory: None }))
    }

    fn ask(&self, offset: u64, bytes: u32) -> io::Result<Receiver<Result<Reply>>> {
        let (reply, received) = async_channel::bounded(1);
        let request = Request { path: Arc::clone(&self.path), offset, bytes, reply };
        self.fetcher.ask_blocking(request)?;
        Ok(received)
    }

    fn receive(reply: &Receiver<Result<Reply>>) -> io::Result<Bytes> {
        match reply.recv_blocking() {
            Ok(Ok(Some(bytes))) => Ok(bytes),
            Ok(Ok(None)) => Err(Gone.into_error()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(stopped()),
        }
    }
}

pub(super) fn stopped() -> io::Error {
    Error::new(ErrorKind::Cancelled, "the reading over SQL was stopped").into()
}

/// The first piece of a range, and where it stands.
fn piece(range: Range<u64>) -> Option<(u64, u32)> {
    let bytes = range.end.saturating_sub(range.start).min(u64::from(PIECE_BYTES));
    u32::try_from(bytes).ok().filter(|bytes| *bytes > 0).map(|bytes| (range.start, bytes))
}

impl PgFile for SqlFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            let Some(next) = self.next_reply()? else {
                self.ended = true;
                break;
            };
            self.piece = Self::receive(&next.reply)?;
            // The server gives less than it was asked for only at the end of the file.
            self.ended = (self.piece.len() as u64) < next.bytes;
            let passed = usize::try_from(self.at.saturating_sub(next.offset)).unwrap_or(usize::MAX);
            self.piece.advance(passed.min(self.piece.len()));
        }
        let len = self.piece.len().min(buffer.len());
        if let Some(space) = buffer.get_mut(..len) {
            space.copy_from_slice(&self.piece.split_to(len));
        }
        self.at = self.at.saturating_add(len as u64);
        Ok(len)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let of_piece = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.piece.len());
        self.piece.advance(of_piece);
        self.at = self.at.saturating_add(bytes);
        let at = self.at;
        while self.ahead.front().is_some_and(|next| next.offset.saturating_add(next.bytes) <= at) {
            self.ahead.pop_front();
        }
        Ok(())
    }

    fn read_again(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = u32::try_from(buffer.len()).map_err(io::Error::other)?;
        let again = Self::receive(&self.ask(offset, bytes)?)?;
        let len = again.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..len), again.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }
}
