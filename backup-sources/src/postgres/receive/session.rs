//! One connection, from where the store stands until something ends it.

use std::pin::Pin;

use backup_core::{Error, ErrorKind, JobContext, Result};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::time::{Instant, sleep_until};

use super::tail::{Part, Tail};
use super::{Position, Receiver, WalStatus, start};
use crate::postgres::replication::{EndOfTimeline, ReplicationClient, ReplicationStream, StreamEvent};
use crate::postgres::wal::{SegmentName, SegmentSize, TimelineHistory};
use crate::postgres::{Connect, Lsn, Timeline};

/// Parts of the log that are stored at once.
const PUTS_MAX: usize = 4;

/// What the server says where a part of its log is not there any more: a file that does not exist, or, while it is being removed, an
/// error without a code of its own. Where that is said in another language, the next attempt finds no file.
const REMOVED: [&str; 2] = ["SQLSTATE 58P01", "has already been removed"];

type Stored<'a> = Pin<Box<dyn Future<Output = Result<Done>> + Send + 'a>>;

/// A part that is durable.
#[derive(Debug)]
struct Done {
    end: Lsn,
    is_whole: bool,
    waiting_since: Instant,
}

#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) receiver: &'a Receiver,
    pub(super) job: &'a JobContext,
    /// The one server of which everything is asked: of several that one may name, each has slots and a log of its own.
    pub(super) connect: Connect,
    /// Up to where all is durable.
    pub(super) flushed: Lsn,
    /// What the slot was last.
    pub(super) slot_was: Option<WalStatus>,
    /// Whether it was said already that the slot cannot be seen.
    pub(super) blind: bool,
}

/// Why a stream ended.
enum Ended {
    Timeline(Box<ReplicationStream>),
    Until,
}

impl<'a> Session<'a> {
    pub(super) fn new(receiver: &'a Receiver, job: &'a JobContext) -> Self {
        let connect = receiver.connect.clone();
        Self { receiver, job, connect, flushed: Lsn::INVALID, slot_was: None, blind: false }
    }

    pub(super) async fn run(&mut self) -> Result<()> {
        self.connect = self.receiver.connect.resolve().await?;
        let mut client = ReplicationClient::connect(&self.connect).await?;
        let identity = client.identify_system().await?;
        let size = client.segment_size().await?;
        let (history, histories) = histories(&mut client, identity.timeline).await?;
        let log = &*self.receiver.log;
        let standing = log.standing(identity.system_identifier, &history, size, self.job).await?;
        let resumed =
            standing.map(|standing| start::resumed(&history, standing.frontier, size)).transpose()?;
        let restart = self.slot(&mut client, &history, resumed).await?;
        let mut at = match resumed {
            Some(Position { timeline, lsn }) => SegmentName::of(timeline, lsn, size),
            None => start::anew(&history, restart.unwrap_or(identity.flushed), size),
        };
        // Before anything of their timelines.
        for (timeline, content) in histories {
            log.put_history(timeline, content, self.job).await?;
        }
        let (mut standing, mut history, mut skipped) = (standing, history, false);
        let mut stored = resumed.map_or(at.start(size), |resumed| resumed.lsn);
        self.flushed = stored;
        loop {
            let slot = self.receiver.options.slot.as_deref();
            let streamed = match client.start(slot, at.timeline(), at.start(size)).await {
                Ok(stream) => self.stream(stream, at, size, stored).await,
                Err(error) => Err(error),
            };
            let ended = match streamed {
                Ok(ended) => ended,
                Err(error) if REMOVED.iter().any(|said| error.message().contains(said)) => {
                    if skipped {
                        let message = "the server has removed what was to come after a gap";
                        return Err(Error::new(ErrorKind::Transient, message).with_source(error));
                    }
                    if self.comes_otherwise(&history, at, size).await? {
                        // The server removes what its other way into the archive has brought there meanwhile.
                        let message = "the server has removed what was archived otherwise since";
                        return Err(Error::new(ErrorKind::Transient, message).with_source(error));
                    }
                    self.removed(standing, at, size, &error).await?;
                    // What comes after the gap, of what the server has by now.
                    client = ReplicationClient::connect(&self.connect).await?;
                    let now = client.identify_system().await?;
                    if now.timeline != identity.timeline {
                        return Err(Error::new(ErrorKind::Transient, "the server was promoted meanwhile"));
                    }
                    self.slot(&mut client, &history, None).await?;
                    at = match standing.filter(|standing| standing.furthest.lsn > standing.frontier.lsn) {
                        Some(standing) => start::after(&history, standing.furthest, size)?,
                        None => start::anew(&history, now.flushed, size),
                    };
                    skipped = true;
                    standing = None;
                    stored = at.start(size);
                    self.flushed = stored;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match ended {
                Ended::Until => return Ok(()),
                Ended::Timeline(stream) => {
                    let EndOfTimeline { client: next_client, next, switched_at } = stream.finish().await?;
                    client = next_client;
                    let content = client.timeline_history(next).await?;
                    history = TimelineHistory::parse(next, &content)?;
                    log.put_history(next, content, self.job).await?;
                    self.receiver.status.send_modify(|status| {
                        status.timelines_ended = status.timelines_ended.saturating_add(1);
                    });
                    at = SegmentName::of(next, switched_at, size);
                    // Nothing is known to be stored of the next timeline, though it may be.
                    (standing, skipped) = (None, false);
                    stored = at.start(size);
                }
            }
        }
    }

    /// Receives until the timeline ends. All that came is durable then.
    ///
    /// A store that stands still is not waited for with the connection: a server cannot end a connection over which it is sending
    /// what nobody reads, and its checkpoints would wait for that, for ever.
    async fn stream(
        &mut self,
        stream: ReplicationStream,
        at: SegmentName,
        size: SegmentSize,
        stored: Lsn,
    ) -> Result<Ended> {
        let (receiver, options) = (self.receiver, &self.receiver.options);
        let mut open = Some(stream);
        let mut tail = Tail::new(at, size, stored);
        let mut storing: FuturesOrdered<Stored<'a>> = FuturesOrdered::new();
        let (mut heard, mut told) = (Instant::now(), Instant::now());
        let (mut full_since, mut wholes) = (None, 0_usize);
        let mut checking = self.slot_check();
        let timeline = at.timeline();
        receiver.status.send_modify(|status| {
            (status.connected, status.timeline) = (true, Some(timeline));
            status.flushed = status.flushed.max(self.flushed);
        });
        // The server says then how far it is.
        tell(&mut open, tail.end(), self.flushed, true).await?;
        let mut ended = false;
        let mut left = Bytes::new();
        loop {
            if ended && storing.is_empty() && tail.waiting() == 0 {
                let stream = open.ok_or_else(|| Error::internal("a timeline ended without a connection"))?;
                return Ok(Ended::Timeline(Box::new(stream)));
            }
            if options.until.is_some_and(|until| self.flushed >= until) {
                // What comes after it may be stored already: broken off, what is before that would look like a gap.
                while let Some(stored) = storing.next().await {
                    stored?;
                }
                return Ok(Ended::Until);
            }
            if open.is_none() && storing.is_empty() {
                return Err(Error::new(ErrorKind::Transient, "the archive takes the log again"));
            }
            let has_room = open.is_some() && storing.len() < PUTS_MAX;
            if has_room && !left.is_empty() {
                let (part, rest) = tail.take(std::mem::take(&mut left), Instant::now());
                left = rest;
                wholes = wholes.saturating_add(usize::from(part.is_some()));
                storing.extend(part.map(|part| self.store(part)));
                continue;
            }
            // Stored before the segment in front of it, as it is shorter, a piece would make a gap of that one if both hosts were lost at this moment.
            let takes_pieces = has_room && wholes == 0;
            let is_due = ended || tail.waiting() >= options.flush_bytes;
            if takes_pieces
                && is_due
                && let Some(part) = tail.piece()
            {
                storing.push_back(self.store(part));
                continue;
            }
            let is_held_up = !has_room && open.is_some() && !ended;
            let is_late = |since: Instant| wholes > 0 && since.elapsed() > options.flush_interval;
            let is_waiting = open.is_some() && !ended && tail.waiting_since().is_some_and(is_late);
            full_since =
                if is_held_up || is_waiting { full_since.or_else(|| Some(Instant::now())) } else { None };
            let flush_at = tail.waiting_since().map(|since| since + options.flush_interval);
            let status_at = told + options.status_interval;
            let let_go_at = full_since.map(|since| since + options.silence_max);
            tokio::select! {
                biased;
                Some(done) = storing.next() => {
                    let Done { end, is_whole, waiting_since } = done?;
                    self.flushed = self.flushed.max(end);
                    wholes = wholes.saturating_sub(usize::from(is_whole));
                    self.count(is_whole, waiting_since);
                    if !ended {
                        tell(&mut open, tail.end(), self.flushed, false).await?;
                        told = Instant::now();
                    }
                }
                () = sleep_until(flush_at.unwrap_or(status_at)), if flush_at.is_some() && takes_pieces => {
                    storing.extend(tail.piece().map(|part| self.store(part)));
                }
                () = sleep_until(let_go_at.unwrap_or(status_at)), if let_go_at.is_some() => {
                    open = self.let_go("has taken nothing for too long");
                }
                () = sleep_until(status_at), if !ended && open.is_some() => {
                    // Nobody listens while there is no room, so nobody can have been heard.
                    if has_room && heard.elapsed() > options.silence_max {
                        return Err(Error::new(ErrorKind::Transient, "the server has been silent for too long"));
                    }
                    tell(&mut open, tail.end(), self.flushed, true).await?;
                    told = Instant::now();
                }
                state = &mut checking => {
                    let is_endangered = self.checked(state);
                    checking = self.slot_check();
                    if is_endangered && is_held_up {
                        open = self.let_go("is too slow for what the server keeps");
                    }
                }
                event = next(&mut open), if has_room && !ended && left.is_empty() => {
                    heard = Instant::now();
                    match event? {
                        StreamEvent::Data { start, bytes, server_end } => {
                            if start != tail.end() {
                                let message = format!("the server sends its log from {start} on, and not from {}", tail.end());
                                return Err(Error::new(ErrorKind::Io, message));
                            }
                            let count = bytes.len() as u64;
                            left = bytes;
                            receiver.status.send_modify(|status| {
                                status.bytes = status.bytes.saturating_add(count);
                                status.received = start.saturating_add(count);
                                status.server_end = server_end;
                            });
                        }
                        StreamEvent::Keepalive { server_end, wants_status } => {
                            receiver.status.send_modify(|status| status.server_end = server_end);
                            if wants_status {
                                tell(&mut open, tail.end(), self.flushed, false).await?;
                                told = Instant::now();
                            }
                        }
                        StreamEvent::EndOfTimeline => ended = true,
                    }
                }
            }
        }
    }

    /// Lets go of the connection until all that came is stored.
    fn let_go(&self, why: &str) -> Option<ReplicationStream> {
        self.receiver.status.send_modify(|status| status.connected = false);
        let message =
            format!("the archive {why}: the connection for receiving is closed until it takes the log again");
        self.receiver.alert(message, self.job);
        None
    }

    /// Stores a part.
    fn store(&self, part: Part) -> Stored<'a> {
        let (log, job) = (&*self.receiver.log, self.job);
        Box::pin(async move {
            let Part { segment, offset, content, summary, end, waiting_since } = part;
            match offset {
                None => log.put_segment(segment, content, job).await?,
                Some(offset) => log.put_piece(segment, offset, content, &summary, job).await?,
            };
            Ok(Done { end, is_whole: offset.is_none(), waiting_since })
        })
    }

    fn count(&self, is_whole: bool, waiting_since: Instant) {
        let waited = u64::try_from(waiting_since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.receiver.status.send_modify(|status| {
            status.flushed = self.flushed;
            status.longest_wait_ms = status.longest_wait_ms.max(waited);
            let counter = if is_whole { &mut status.segments } else { &mut status.pieces };
            *counter = counter.saturating_add(1);
        });
    }
}

/// What comes next over a connection, if there is one.
async fn next(open: &mut Option<ReplicationStream>) -> Result<StreamEvent> {
    match open {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

/// Says how far all is, if there is a connection.
async fn tell(
    open: &mut Option<ReplicationStream>,
    received: Lsn,
    flushed: Lsn,
    wants_answer: bool,
) -> Result<()> {
    match open {
        Some(stream) => stream.status(received, flushed, wants_answer).await,
        None => Ok(()),
    }
}

/// The server's history, and the files of those timelines in it that have one.
async fn histories(
    client: &mut ReplicationClient,
    timeline: Timeline,
) -> Result<(TimelineHistory, Vec<(Timeline, Bytes)>)> {
    if timeline == Timeline::FIRST {
        return Ok((TimelineHistory::root(timeline), Vec::new()));
    }
    let content = client.timeline_history(timeline).await?;
    let history = TimelineHistory::parse(timeline, &content)?;
    let mut files = Vec::new();
    for ancestor in history.ancestors().iter().filter(|ancestor| ancestor.timeline != Timeline::FIRST) {
        match client.timeline_history(ancestor.timeline).await {
            Ok(content) => files.push((ancestor.timeline, content)),
            // Standbys have only what they needed; the youngest history tells of all.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::warn!(timeline = %ancestor.timeline, "the server does not have a timeline's history");
            }
            Err(error) => return Err(error),
        }
    }
    files.push((timeline, content));
    Ok((history, files))
}
