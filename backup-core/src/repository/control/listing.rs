//! What a listing of `control/` says by names and times alone.

use std::collections::{BTreeMap, BTreeSet};

use super::super::keys::ControlKey;
use crate::{ObjectMeta, SnapshotId, Timestamp};

/// The objects under `control/`, by what they belong to.
#[derive(Debug, Clone, Default)]
pub(crate) struct ControlListing {
    pub(crate) sessions: BTreeMap<SnapshotId, ListedSession>,
    pub(crate) collections: BTreeMap<u64, ListedCollection>,
    pub(crate) digests: BTreeSet<SnapshotId>,
    pub(crate) tombstones: BTreeMap<SnapshotId, BTreeMap<u32, ListedTombstone>>,
    pub(crate) holds: BTreeMap<SnapshotId, BTreeSet<SnapshotId>>,
    /// Snapshots whose anomaly somebody has looked at.
    pub(crate) confirmed: BTreeSet<SnapshotId>,
}

/// A session.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListedSession {
    pub(crate) open: bool,
    /// It is decided, and made no snapshot.
    pub(crate) decision: bool,
    pub(crate) beats: BTreeSet<u64>,
    /// When the store first had the latest of its files that its own writer put.
    pub(crate) last_sign: Option<Timestamp>,
}

/// A collection.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListedCollection {
    pub(crate) open: bool,
    pub(crate) parts: BTreeSet<u32>,
    pub(crate) condemned: bool,
    pub(crate) decision: bool,
}

/// A tombstone and its fate.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListedTombstone {
    /// When the store first had the tombstone, where it says so.
    pub(crate) created: Option<Timestamp>,
    pub(crate) open: bool,
    pub(crate) fate: bool,
}

impl ControlListing {
    /// What these objects are; others than the format's are passed over.
    pub(crate) fn of(listed: &[ObjectMeta]) -> Self {
        let mut control = Self::default();
        for meta in listed {
            match ControlKey::parse(&meta.key) {
                None => tracing::debug!(key = %meta.key, "is no object of the repository"),
                Some(key) => control.add(key, meta.created),
            }
        }
        control
    }

    fn add(&mut self, key: ControlKey, created: Option<Timestamp>) {
        match key {
            ControlKey::SessionOpen(id) => {
                let session = self.sessions.entry(id).or_default();
                session.open = true;
                session.last_sign = session.last_sign.max(created);
            }
            ControlKey::SessionBeat(id, number) => {
                let session = self.sessions.entry(id).or_default();
                session.beats.insert(number);
                session.last_sign = session.last_sign.max(created);
            }
            ControlKey::SessionDecision(id) => self.sessions.entry(id).or_default().decision = true,
            ControlKey::CollectionOpen(number) => self.collections.entry(number).or_default().open = true,
            ControlKey::CollectionPart(number, part) => {
                self.collections.entry(number).or_default().parts.insert(part);
            }
            ControlKey::CollectionCondemned(number) => {
                self.collections.entry(number).or_default().condemned = true;
            }
            ControlKey::CollectionDecision(number) => {
                self.collections.entry(number).or_default().decision = true;
            }
            ControlKey::Digest(id) => {
                self.digests.insert(id);
            }
            ControlKey::Tombstone(id, number) => {
                let tombstone = self.tombstones.entry(id).or_default().entry(number).or_default();
                tombstone.open = true;
                tombstone.created = created;
            }
            ControlKey::Fate(id, number) => {
                self.tombstones.entry(id).or_default().entry(number).or_default().fate = true;
            }
            ControlKey::Hold(id, hold) => {
                self.holds.entry(id).or_default().insert(hold);
            }
            ControlKey::Confirmed(id) => {
                self.confirmed.insert(id);
            }
            // Only who applies retention reads these.
            ControlKey::Observed(_) | ControlKey::Reserve => {}
        }
    }
}
