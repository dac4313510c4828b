//! Looking after what the server keeps: the slot, and what of the log is lost.

use std::pin::Pin;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};

use super::session::Session;
use super::{Position, Receiver, SlotState, Standing, WalStatus};
use crate::postgres::replication::ReplicationClient;
use crate::postgres::wal::{SegmentName, SegmentSize, TimelineHistory};
use crate::postgres::{Connect, Lsn};

pub(super) type SlotCheck<'a> = Pin<Box<dyn Future<Output = Result<Option<SlotState>>> + Send + 'a>>;

/// How long a server's `archive_command` is waited for to bring what the server does not send, and how often one looks. A server whose command fails
/// tries it again after a minute.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_secs(2);

impl<'a> Session<'a> {
    /// Looks after the slot; returns from where on the server keeps its log for it. `resumed` is where receiving goes on.
    pub(super) async fn slot(
        &mut self,
        client: &mut ReplicationClient,
        history: &TimelineHistory,
        resumed: Option<Position>,
    ) -> Result<Option<Lsn>> {
        let Some(slot) = &self.receiver.options.slot else { return Ok(None) };
        let mut state = match ask_for_slot(self.receiver, &self.connect).await {
            Ok(state) => state,
            // A user who may replicate only is let in to no database: then the server's answers to the replication have to do.
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound) => {
                self.unseen(&error);
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
                let from = resumed.unwrap_or(Position { timeline: history.timeline(), lsn: Lsn::INVALID });
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
            state = ask_for_slot(self.receiver, &self.connect).await?;
            if let Some(known) = &state {
                self.watch_slot(known);
            }
        }
        Ok(state.and_then(|state| state.restart_lsn))
    }

    /// Asks for the slot's state, after a while.
    pub(super) fn slot_check(&self) -> SlotCheck<'a> {
        let (receiver, connect) = (self.receiver, self.connect.clone());
        Box::pin(async move {
            if receiver.options.slot.is_none() {
                return std::future::pending().await;
            }
            sleep(receiver.options.status_interval).await;
            ask_for_slot(receiver, &connect).await
        })
    }

    /// Takes what a [check](Self::slot_check) brought. Returns whether the server is about to remove what it keeps.
    pub(super) fn checked(&mut self, state: Result<Option<SlotState>>) -> bool {
        let error = match state {
            Ok(Some(state)) => return self.watch_slot(&state),
            Ok(None) => Error::new(ErrorKind::NotFound, "it is not there any more"),
            Err(error) => error,
        };
        self.unseen(&error);
        false
    }

    /// Says what must be seen to, once. Returns whether there is something.
    fn watch_slot(&mut self, state: &SlotState) -> bool {
        self.receiver.status.send_modify(|status| status.slot = Some(state.wal_status));
        self.blind = false;
        let endangered = matches!(state.wal_status, WalStatus::Unreserved | WalStatus::Lost);
        if endangered && self.slot_was != Some(state.wal_status) {
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
        self.slot_was = Some(state.wal_status);
        endangered
    }

    /// Says once that nobody sees whether the server keeps the log.
    fn unseen(&mut self, error: &Error) {
        self.receiver.status.send_modify(|status| status.slot = Some(WalStatus::Unknown));
        if !std::mem::replace(&mut self.blind, true) {
            let slot = self.receiver.options.slot.as_deref().unwrap_or_default();
            let message = format!(
                "the state of the replication slot `{slot}` cannot be seen, and nobody would notice that the server is about to remove \
                 what it keeps for it: {error}"
            );
            self.receiver.alert(message, self.job);
        }
    }

    /// Records that the log from here on cannot be had.
    async fn record(&self, from: Position, why: &str) -> Result<()> {
        self.receiver.alert(format!("the log from {} on is lost: {why}", from.lsn), self.job);
        if !from.lsn.is_valid() {
            return Ok(());
        }
        self.receiver.log.put_gap(from.timeline, from.lsn, why, self.job).await
    }

    /// Whether what comes next, and the server does not send, is archived by now. Where the server archives by itself, that is waited for, a few
    /// minutes at most: it may be what is about to be archived. After a promotion it is: a server remembers the number of the segment that it
    /// removed last, not the timeline, and says of one that waits to be archived that it is gone.
    pub(super) async fn comes_otherwise(
        &self,
        history: &TimelineHistory,
        at: SegmentName,
        size: SegmentSize,
    ) -> Result<bool> {
        self.receiver.status.send_modify(|status| status.connected = false);
        // That very segment: a frontier that is further may be beyond others that are missing. Where a timeline ends in it, it is the next one's.
        let number = at.number(size);
        let next = SegmentName::numbered(history.timeline_of_segment(number, size), number, size);
        let (began, mut archives) = (Instant::now(), None);
        loop {
            let log = &self.receiver.log;
            if log.has_segment(at, self.job).await? || (next != at && log.has_segment(next, self.job).await?)
            {
                return Ok(true);
            }
            if archives.is_none() {
                let mut client = ReplicationClient::connect(&self.connect).await?;
                let is_on = client.show("archive_mode").await? != "off";
                if is_on {
                    let message = format!(
                        "the server does not send {at} of its log any more: waiting whether its archive_command brings it"
                    );
                    self.receiver.alert(message, self.job);
                }
                archives = Some(is_on);
            }
            if archives == Some(false) || began.elapsed() >= PATIENCE {
                return Ok(false);
            }
            sleep(LOOK).await;
        }
    }

    /// The server does not have what comes next: an error unless that is accepted.
    pub(super) async fn removed(
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
}

/// What a server says of the receiver's slot.
async fn ask_for_slot(receiver: &Receiver, connect: &Connect) -> Result<Option<SlotState>> {
    let Some(slot) = &receiver.options.slot else { return Ok(None) };
    let asking = async {
        let client = connect.connect_to_ask().await?;
        SlotState::of(&client, slot).await
    };
    tokio::time::timeout(receiver.options.silence_max, asking)
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Transient, "the server does not say how a slot is")))
}
