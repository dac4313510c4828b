//! Receiving a server's log as it is written, so that a disaster costs seconds of it and not segments.

mod keeping;
mod session;
mod slot;
mod start;
mod tail;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{Archived, Error, ErrorKind, Event, JobContext, Result};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;

use super::connect::Connect;
use super::replication::slot_name;
use super::wal::{SegmentName, SegmentSize, Summary, TimelineHistory};
use super::{Lsn, Timeline};
use session::Session;
pub use slot::{SlotState, WalStatus};

/// The shortest time before a connection is tried again, and the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The timeline.
    pub timeline: Timeline,
    /// How far on it.
    pub lsn: Lsn,
}

/// How far a log was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Up to here all is there that was near before it: here receiving goes on.
    pub frontier: Position,
    /// Up to here something is there: here it goes on if the server does not have what is missing before.
    pub furthest: Position,
}

/// Where a [`Receiver`] puts what it receives. Whatever returned `Ok` is durable: the server is told so.
///
/// Calls for different parts come side by side; all of them may come again with the same bytes.
#[async_trait]
pub trait ReceivedLog: fmt::Debug + Send + Sync + 'static {
    /// How far the log of a cluster was stored along a history; none if nothing was.
    ///
    /// An error where what is there is another cluster's, or was stored along another history.
    async fn standing(
        &self,
        system_identifier: u64,
        history: &TimelineHistory,
        size: SegmentSize,
        job: &JobContext,
    ) -> Result<Option<Standing>>;

    /// Whether a segment is stored to its end, in every place. Something is stored already when this is asked.
    async fn has_segment(&self, segment: SegmentName, job: &JobContext) -> Result<bool>;

    /// Stores a whole segment.
    async fn put_segment(&self, segment: SegmentName, content: Bytes, job: &JobContext) -> Result<Archived>;

    /// Stores a part of the last segment. `summary` has what was seen of this segment up to the part's end. What stays of a segment in which a
    /// timeline ended is its parts; the server that was promoted has a file `.partial` of them, filled up to a segment's
    /// length: other bytes, which therefore have another name.
    async fn put_piece(
        &self,
        segment: SegmentName,
        offset: u64,
        content: Bytes,
        summary: &Summary,
        job: &JobContext,
    ) -> Result<Archived>;

    /// Stores a timeline's history. It comes before anything of its timeline.
    async fn put_history(&self, timeline: Timeline, content: Bytes, job: &JobContext) -> Result<Archived>;

    /// Records that something was lost from a position on.
    async fn put_gap(&self, timeline: Timeline, from: Lsn, reason: &str, job: &JobContext) -> Result<()>;
}

/// How a log is received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiveOptions {
    /// The replication slot, for which the server keeps what was not acknowledged. Without one it may remove what a receiver that
    /// was away has not seen.
    pub slot: Option<String>,
    /// Whether to create the slot if it is not there.
    pub create_slot: bool,
    /// How long bytes may wait before they are stored as a part of their segment: the promise of what a disaster costs, together with the
    /// time that storing takes.
    pub flush_interval: Duration,
    /// So many bytes do not wait.
    pub flush_bytes: usize,
    /// How often the server is told how far all is, and asked for the slot's state.
    pub status_interval: Duration,
    /// For how long the server may be silent, and for how long the store may take nothing: then the connection is closed until it does.
    pub silence_max: Duration,
    /// Go on after a loss, which is recorded. Recoveries cross no gap: take a full backup after it.
    pub accept_gap: bool,
    /// End once all up to here is durable.
    pub until: Option<Lsn>,
    /// Give up once connections have failed for so long, of which none brought anything or stood for 15 seconds; none: never.
    pub give_up_after: Option<Duration>,
}

impl ReceiveOptions {
    /// With a slot of this name, which is created if it is not there.
    #[must_use]
    pub fn with_slot(slot: impl Into<String>) -> Self {
        Self { slot: Some(slot.into()), create_slot: true, ..Self::default() }
    }
}

/// No slot, a second, 4 MiB, ten seconds, a minute of silence, for ever.
impl Default for ReceiveOptions {
    fn default() -> Self {
        Self {
            slot: None,
            create_slot: false,
            flush_interval: Duration::from_secs(1),
            flush_bytes: 4 << 20,
            status_interval: Duration::from_secs(10),
            silence_max: Duration::from_secs(60),
            accept_gap: false,
            until: None,
            give_up_after: None,
        }
    }
}

/// How receiving stands, for whoever watches over it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct ReceiveStatus {
    /// Whether the server is connected.
    pub connected: bool,
    /// The timeline that is received.
    pub timeline: Option<Timeline>,
    /// Up to where the log was received.
    pub received: Lsn,
    /// Up to where it is durable, and acknowledged.
    pub flushed: Lsn,
    /// Up to where the server's log goes, as it last said.
    pub server_end: Lsn,
    /// Whole segments that were stored.
    pub segments: u64,
    /// Parts of segments that were stored.
    pub pieces: u64,
    /// Bytes that were received.
    pub bytes: u64,
    /// Timelines that ended.
    pub timelines_ended: u64,
    /// Connections that failed.
    pub reconnects: u64,
    /// The longest time that a received byte waited until it was durable, in milliseconds.
    pub longest_wait_ms: u64,
    /// What the server says of the slot.
    pub slot: Option<WalStatus>,
    /// Why the last connection failed.
    pub last_error: Option<String>,
}

/// Receives a server's log and stores it.
///
/// It begins where the store stands, or else where the slot does, or else at the server's present end. Whole segments are stored as such, and what
/// waits for the rest of its segment within [`flush_interval`](ReceiveOptions::flush_interval). Only what is durable is acknowledged. When a timeline ends, what is
/// left of it is stored, then the history of the next, then what comes after. A connection that fails is made anew, after waits from a tenth
/// of a second up to 15.
///
/// Pieces wait until the segments in front of them are stored: if everything but the store is lost at some moment, a piece that was faster would make
/// a gap of what was not acknowledged yet, across which nobody recovers to the latest state.
///
/// In memory there are at most four segments that are being stored, and the one that is being received.
///
/// Of several servers that the connection names, each attempt takes one, and asks it alone for its log and of the slot.
///
/// Each slot is for one receiver. A slot that is about to lose what it keeps (`unreserved`) is an [`Event::Alert`], also while the store
/// stands still; so is one whose state cannot be seen. One that has lost it is an error that says so, after the gap was recorded.
///
/// While the store takes nothing for [`silence_max`](ReceiveOptions::silence_max), or the slot is in danger meanwhile, the connection is
/// closed until all that came is stored: `max_slot_wal_keep_size` cannot take hold while a server is sending to somebody who does not read.
#[derive(Debug)]
pub struct Receiver {
    connect: Connect,
    log: Arc<dyn ReceivedLog>,
    options: ReceiveOptions,
    status: watch::Sender<ReceiveStatus>,
}

impl Receiver {
    /// A receiver that has not begun yet.
    ///
    /// # Errors
    ///
    /// A slot's name that can be none.
    pub fn new(connect: Connect, log: Arc<dyn ReceivedLog>, options: ReceiveOptions) -> Result<Self> {
        if let Some(slot) = &options.slot {
            slot_name(slot)?;
        }
        Ok(Self { connect, log, options, status: watch::Sender::new(ReceiveStatus::default()) })
    }

    /// How it stands, now and whenever that changes.
    pub fn status(&self) -> watch::Receiver<ReceiveStatus> {
        self.status.subscribe()
    }

    /// Receives until the job is cancelled, or what [`until`](ReceiveOptions::until) says is durable.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Cancelled`]: what was acknowledged is durable, what was received last may not be. [`ErrorKind::NotFound`]: the server does not have
    /// any more what comes next, nor has its `archive_command` brought it within three minutes; or the slot has lost what it was to keep. A full backup
    /// is needed. [`ErrorKind::AlreadyExists`]: another server brought other bytes under the same names. Settings
    /// that the server refuses. What may pass is tried again, until [`give_up_after`](ReceiveOptions::give_up_after).
    pub async fn run(&self, job: &JobContext) -> Result<ReceiveStatus> {
        let (mut backoff, mut failing_since) = (BACKOFF_MIN, None);
        loop {
            let (before, began) = (self.status.borrow().flushed, tokio::time::Instant::now());
            let ended = job.until_cancelled(Session::new(self, job).run()).await;
            let stood = self.status.borrow().connected && began.elapsed() >= BACKOFF_MAX;
            self.status.send_modify(|status| status.connected = false);
            let error = match ended {
                Ok(()) => return Ok(self.status.borrow().clone()),
                Err(error) => error,
            };
            let may_pass = matches!(error.kind(), ErrorKind::Transient | ErrorKind::Io | ErrorKind::NoSpace);
            if !may_pass {
                return Err(error);
            }
            // Where nobody writes nothing comes, however well it is received.
            if stood || self.status.borrow().flushed > before {
                (backoff, failing_since) = (BACKOFF_MIN, None);
            }
            let now = tokio::time::Instant::now();
            let since = *failing_since.get_or_insert(now);
            if self.options.give_up_after.is_some_and(|patience| now.duration_since(since) >= patience) {
                return Err(error);
            }
            tracing::warn!(%error, "receiving the log was interrupted");
            self.status.send_modify(|status| {
                status.reconnects = status.reconnects.saturating_add(1);
                status.last_error = Some(error.to_string());
            });
            let waiting = async {
                tokio::time::sleep(backoff).await;
                Ok(())
            };
            job.until_cancelled(waiting).await?;
            backoff = backoff.saturating_mul(2).min(BACKOFF_MAX);
        }
    }

    /// Tells whoever watches that somebody must see to something.
    fn alert(&self, message: String, job: &JobContext) {
        tracing::warn!(message, "receiving the log");
        job.emit(&Event::Alert { subject: self.connect.address(), message });
    }

    /// What was not stored, and cannot be had any more.
    fn lost(&self, from: Position, why: &str) -> Error {
        let Position { timeline, lsn } = from;
        let message = format!(
            "{}: the log of timeline {timeline} from {lsn} on is lost: {why}. Nobody recovers across this gap: take a full backup, and \
             receive on with `accept_gap`",
            self.connect.address()
        );
        Error::new(ErrorKind::NotFound, message)
    }
}
