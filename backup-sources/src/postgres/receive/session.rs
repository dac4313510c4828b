//! One connection, from where the store stands until something ends it.

use std::pin::Pin;

use backup_core::{Error, ErrorKind, JobContext, Result};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::time::{Instant, sleep_until};

use super::tail::{Part, Tail};
use super::{Position, Receiver, SlotState, Standing, WalStatus, start};
use crate::postgres::replication::{EndOfTimeline, ReplicationClient, ReplicationStream, StreamEvent};
use crate::postgres::wal::{SegmentName, SegmentSize, TimelineHistory};
use crate::postgres::{Lsn, Timeline};

/// Parts of the log that are stored at once.
const PUTS_MAX: usize = 4;

/// What the server says where a part of its log is not there any more: a file that does not exist, or, while it is being removed, an
/// error without a code of its own. Where that is said in another language, the next attempt finds no file.
const REMOVED: [&str; 2] = ["SQLSTATE 58P01", "has already been removed"];

type Stored<'a> = Pin<Box<dyn Future<Output = Result<Done>> + Send + 'a>>;
type SlotCheck<'a> = Pin<Box<dyn Future<Output = Result<Option<SlotState>>> + Send + 'a>>;

/// A part that is durable.
#[derive(Debug)]
struct Done {
    end: Lsn,
    is_whole: bool,
    waiting_since: Instant,
}

#[derive(Debug)]
pub(super) struct Session<'a> {
    receiver: &'a Receiver,
    job: &'a JobContext,
    /// Up to where all is durable.
    flushed: Lsn,
    /// Whether it was said already that the slot is about to lose something.
    alerted: bool,
}

/// Why a stream ended.
enum Ended {
    Timeline,
    Until,
}

impl<'a> Session<'a> {
    pub(super) fn new(receiver: &'a Receiver, job: &'a JobContext) -> Self {
        Self { receiver, job, flushed: Lsn::INVALID, alerted: false }
    }

    pub(super) async fn run(&mut self) -> Result<()> {
        let mut client = ReplicationClient::connect(&self.receiver.connect).await?;
        let identity = client.identify_system().await?;
        let size = client.segment_size().await?;
        let (history, histories) = histories(&mut client, identity.timeline).await?;
        let log = &*self.receiver.log;
        let standing = log.standing(identity.system_identifier, &history, size, self.job).await?;
        let restart = self.slot(&mut client, &history, standing).await?;
        let mut at = match standing {
            Some(standing) => start::after(&history, standing.frontier, size)?,
            None => start::anew(&history, restart.unwrap_or(identity.flushed), size),
        };
        // Before anything of their timelines.
        for (timeline, content) in histories {
            log.put_history(timeline, content, self.job).await?;
        }
        self.flushed = standing.map_or(at.start(size), |standing| standing.frontier.lsn);
        let mut standing = standing;
        loop {
            let stored = standing.map_or(at.start(size), |standing| standing.frontier.lsn);
            let slot = self.receiver.options.slot.as_deref();
            let streamed = match client.start(slot, at.timeline(), at.start(size)).await {
                Ok(mut stream) => {
                    let ended = self.stream(&mut stream, at, size, stored).await;
                    ended.map(|ended| (ended, stream))
                }
                Err(error) => Err(error),
            };
            let (ended, stream) = match streamed {
                Ok(ended) => ended,
                Err(error) if REMOVED.iter().any(|said| error.message().contains(said)) => {
                    self.removed(standing, at, size, &error).await?;
                    // What comes after the gap.
                    at = match standing.filter(|standing| standing.furthest.lsn > standing.frontier.lsn) {
                        Some(standing) => start::after(&history, standing.furthest, size)?,
                        None => start::anew(&history, identity.flushed, size),
                    };
                    standing = None;
                    self.flushed = at.start(size);
                    client = ReplicationClient::connect(&self.receiver.connect).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match ended {
                Ended::Until => return Ok(()),
                Ended::Timeline => {
                    let EndOfTimeline { client: next_client, next, switched_at } = stream.finish().await?;
                    client = next_client;
                    let content = client.timeline_history(next).await?;
                    log.put_history(next, content, self.job).await?;
                    self.receiver.status.send_modify(|status| {
                        status.timelines_ended = status.timelines_ended.saturating_add(1);
                    });
                    at = SegmentName::of(next, switched_at, size);
                    // Nothing is known to be stored of the next timeline, though it may be.
                    standing = None;
                }
            }
        }
    }

    /// Looks after the slot; returns from where on the server keeps its log for it.
    async fn slot(
        &mut self,
        client: &mut ReplicationClient,
        history: &TimelineHistory,
        standing: Option<Standing>,
    ) -> Result<Option<Lsn>> {
        let Some(slot) = &self.receiver.options.slot else { return Ok(None) };
        let mut state = match self.ask_for_slot().await {
            Ok(state) => state,
            // A user who may replicate only is let in to no database: then the server's answers to the replication have to do.
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound) => {
                tracing::warn!(%error, "the state of the replication slot cannot be seen");
                if self.receiver.options.create_slot
                    && let Err(error) = client.create_slot(slot).await
                    && error.kind() != ErrorKind::AlreadyExists
                {
                    return Err(error);
                }
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if let Some(known) = &state {
            self.watch_slot(known);
            if known.wal_status == WalStatus::Lost {
                let from = standing.map(|standing| standing.frontier);
                let from = from.unwrap_or(Position { timeline: history.timeline(), lsn: Lsn::INVALID });
                let why = format!("the server has removed what the replication slot `{slot}` was to keep");
                self.record(from, &why).await?;
                if !self.receiver.options.accept_gap {
                    return Err(self.receiver.lost(from, &why));
                }
                client.drop_slot(slot).await?;
                state = None;
            }
        }
        if state.is_none() {
            if !self.receiver.options.create_slot {
                let message = format!(
                    "there is no replication slot `{slot}`: create it, or say that it is to be created"
                );
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            client.create_slot(slot).await?;
            state = self.ask_for_slot().await?;
        }
        Ok(state.and_then(|state| state.restart_lsn))
    }

    async fn ask_for_slot(&self) -> Result<Option<SlotState>> {
        let Some(slot) = &self.receiver.options.slot else { return Ok(None) };
        let client = self.receiver.connect.connect_sql().await?;
        let asking = SlotState::of(&client, slot);
        tokio::time::timeout(self.receiver.options.silence_max, asking).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Transient, "the server does not say how a slot is"))
        })
    }

    /// Says what must be seen to, once.
    fn watch_slot(&mut self, state: &SlotState) {
        self.receiver.status.send_modify(|status| status.slot = Some(state.wal_status));
        let endangered = matches!(state.wal_status, WalStatus::Unreserved | WalStatus::Lost);
        if endangered && !self.alerted {
            let slot = self.receiver.options.slot.as_deref().unwrap_or_default();
            let message = match state.wal_status {
                WalStatus::Lost => format!("the replication slot `{slot}` has lost a part of the log"),
                _ => format!(
                    "the replication slot `{slot}` is about to lose a part of the log (unreserved): the archive is too slow, or \
                     max_slot_wal_keep_size too small"
                ),
            };
            self.receiver.alert(message, self.job);
        }
        self.alerted = endangered;
    }

    /// Records that the log from here on cannot be had.
    async fn record(&self, from: Position, why: &str) -> Result<()> {
        self.receiver.alert(format!("the log from {} on is lost: {why}", from.lsn), self.job);
        if !from.lsn.is_valid() {
            return Ok(());
        }
        self.receiver.log.put_gap(from.timeline, from.lsn, why, self.job).await
    }

    /// The server does not have what comes next: an error unless that is accepted.
    async fn removed(
        &self,
        standing: Option<Standing>,
        at: SegmentName,
        size: SegmentSize,
        error: &Error,
    ) -> Result<()> {
        let from = Position { timeline: at.timeline(), lsn: self.flushed.max(at.start(size)) };
        let further = standing.is_some_and(|standing| standing.furthest.lsn > standing.frontier.lsn);
        let why = match further {
            true => "it is missing between what is archived, and the server has removed it",
            false => error.message(),
        };
        self.record(from, why).await?;
        if self.receiver.options.accept_gap { Ok(()) } else { Err(self.receiver.lost(from, why)) }
    }

    /// Receives until the timeline ends. All that came is durable then.
    async fn stream(
        &mut self,
        stream: &mut ReplicationStream,
        at: SegmentName,
        size: SegmentSize,
        stored: Lsn,
    ) -> Result<Ended> {
        let (receiver, options) = (self.receiver, &self.receiver.options);
        let mut tail = Tail::new(at, size, stored);
        let mut storing: FuturesOrdered<Stored<'a>> = FuturesOrdered::new();
        let (mut heard, mut told) = (Instant::now(), Instant::now());
        let mut checking = self.slot_check();
        let timeline = at.timeline();
        receiver.status.send_modify(|status| {
            (status.connected, status.timeline) = (true, Some(timeline));
            status.flushed = status.flushed.max(self.flushed);
        });
        // The server says then how far it is.
        stream.status(tail.end(), self.flushed, true).await?;
        let mut ended = false;
        let mut left = Bytes::new();
        loop {
            if ended && storing.is_empty() && tail.waiting() == 0 {
                return Ok(Ended::Timeline);
            }
            if options.until.is_some_and(|until| self.flushed >= until) {
                // What comes after it may be stored already: broken off, what is before that would look like a gap.
                while let Some(stored) = storing.next().await {
                    stored?;
                }
                return Ok(Ended::Until);
            }
            let has_room = storing.len() < PUTS_MAX;
            if has_room && !left.is_empty() {
                let (part, rest) = tail.take(std::mem::take(&mut left), Instant::now());
                left = rest;
                storing.extend(part.map(|part| self.store(part)));
                continue;
            }
            let is_due = ended || tail.waiting() >= options.flush_bytes;
            if has_room
                && is_due
                && let Some(part) = tail.piece()
            {
                storing.push_back(self.store(part));
                continue;
            }
            let flush_at = tail.waiting_since().map(|since| since + options.flush_interval);
            let status_at = told + options.status_interval;
            tokio::select! {
                biased;
                Some(done) = storing.next() => {
                    let Done { end, is_whole, waiting_since } = done?;
                    self.flushed = self.flushed.max(end);
                    self.count(is_whole, waiting_since);
                    if !ended {
                        stream.status(tail.end(), self.flushed, false).await?;
                        told = Instant::now();
                    }
                }
                () = sleep_until(flush_at.unwrap_or(status_at)), if flush_at.is_some() && has_room => {
                    storing.extend(tail.piece().map(|part| self.store(part)));
                }
                () = sleep_until(status_at), if !ended => {
                    // Nobody listens while there is no room, so nobody can have been heard.
                    if has_room && heard.elapsed() > options.silence_max {
                        return Err(Error::new(ErrorKind::Transient, "the server has been silent for too long"));
                    }
                    stream.status(tail.end(), self.flushed, true).await?;
                    told = Instant::now();
                }
                state = &mut checking => {
                    match state {
                        Ok(Some(state)) => self.watch_slot(&state),
                        Ok(None) => {}
                        Err(error) => tracing::debug!(%error, "the replication slot cannot be seen"),
                    }
                    checking = self.slot_check();
                }
                event = stream.next(), if has_room && !ended && left.is_empty() => {
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
                                stream.status(tail.end(), self.flushed, false).await?;
                                told = Instant::now();
                            }
                        }
                        StreamEvent::EndOfTimeline => ended = true,
                    }
                }
            }
        }
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

    /// Asks for the slot's state, after a while.
    fn slot_check(&self) -> SlotCheck<'a> {
        let (receiver, job) = (self.receiver, self.job);
        Box::pin(async move {
            if receiver.options.slot.is_none() {
                return std::future::pending().await;
            }
            tokio::time::sleep(receiver.options.status_interval).await;
            Session::new(receiver, job).ask_for_slot().await
        })
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
