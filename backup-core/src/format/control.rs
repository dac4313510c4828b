//! Control documents: how sessions, collections, forgetting and holding are written down. All but sessions are of type 9.
//!
//! What each means for whoever reads it, and in which order they are written, is the protocol of many writers; see
//! `docs/decisions/0022-the-protocol-as-modelled.md`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::snapshot::SnapshotId;
use crate::transform::ObjectType;
use crate::{ObjectKey, Timestamp};

/// A list of fixed-size items, in JSON one string: base64 of the items one after the other.
///
/// ```
/// use backup_core::format::control::Packed;
///
/// let packed = Packed::<2>(vec![[0, 1], [2, 3]]);
/// let json = serde_json::to_string(&packed)?;
/// assert_eq!(json, r#""AAECAw==""#);
/// assert_eq!(serde_json::from_str::<Packed<2>>(&json)?, packed);
/// assert!(serde_json::from_str::<Packed<3>>(&json).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed<const BYTES: usize>(pub Vec<[u8; BYTES]>);

impl<const BYTES: usize> Serialize for Packed<BYTES> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0.as_flattened()))
    }
}

impl<'de, const BYTES: usize> Deserialize<'de> for Packed<BYTES> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        let (items, rest) = bytes.as_chunks::<BYTES>();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom(format!("a list of items of {BYTES} bytes is cut short")));
        }
        Ok(Self(items.to_vec()))
    }
}

/// What something that may be swept is called for ever: the first 16 bytes of the SHA-256 that a pack is named by, or of
/// the SHA-256 of a log segment's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SweptName(pub [u8; 16]);

impl SweptName {
    /// That of a pack.
    pub fn of_pack(digest: &[u8; 32]) -> Self {
        Self(digest.first_chunk().copied().unwrap_or_default())
    }

    /// That of a log segment.
    pub fn of_log(key: &ObjectKey) -> Self {
        Self::of_pack(&Sha256::digest(key.as_str()).into())
    }
}

/// Names of packs and log segments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Packs of content, by their SHA-256.
    pub data: Packed<32>,
    /// Packs of pages.
    pub meta: Packed<32>,
    /// Log segments, by their keys.
    pub logs: Vec<ObjectKey>,
}

impl Names {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.data.0.len().saturating_add(self.meta.0.len()).saturating_add(self.logs.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The packs, with what they hold.
    pub fn packs(&self) -> impl Iterator<Item = (ObjectType, &[u8; 32])> {
        let data = self.data.0.iter().map(|digest| (ObjectType::Data, digest));
        data.chain(self.meta.0.iter().map(|digest| (ObjectType::Meta, digest)))
    }

    /// What they are called for ever.
    pub fn swept(&self) -> impl Iterator<Item = SweptName> {
        let packs = self.packs().map(|(_, digest)| SweptName::of_pack(digest));
        packs.chain(self.logs.iter().map(SweptName::of_log))
    }
}

/// A sign of life: the object `control/sessions/<id>/beat/<n>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatDocument {
    /// The session.
    pub session: SnapshotId,
    /// Which sign it is; they count from 0.
    pub number: u64,
}

/// A collection that was begun: the object `control/collections/<n>/open`. Its creation takes the number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionDocument {
    /// The number.
    pub collection: u64,
    /// Who took it: 16 random bytes, drawn for this collection.
    pub collector: SnapshotId,
    /// When, by the collector's clock.
    pub opened: Timestamp,
    /// Where the collector runs.
    pub host: String,
}

/// A part of what a collection condemns: the object `control/collections/<n>/parts/<i>`. Parts mean nothing until the
/// collection's [`CondemnedDocument`] names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CondemnedPart {
    /// The collection.
    pub collection: u64,
    /// Which part it is; they count from 0.
    pub part: u32,
    /// The names.
    pub names: Names,
}

/// What a collection condemns: the object `control/collections/<n>/condemned`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CondemnedDocument {
    /// The collection.
    pub collection: u64,
    /// The SHA-256 of its parts, the objects as they are stored, in order.
    pub parts: Packed<32>,
    /// How many names there are in all parts.
    pub names: u64,
    /// How many bytes the objects of these names have.
    pub bytes: u64,
}

/// What came of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// What it condemned and did not rescue may be deleted, whoever does it.
    Sweep,
    /// Nothing may be deleted.
    Abandoned,
}

/// The decision of a collection: the object `control/collections/<n>/decision`. Whoever creates it first decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionDocument {
    /// The collection.
    pub collection: u64,
    /// What came of it.
    pub decision: Verdict,
    /// Of a sweep: the parts of what was condemned, as in [`CondemnedDocument`].
    pub parts: Packed<32>,
    /// Names in these parts that are not swept.
    pub rescued: Names,
    /// When, by the clock of whoever decided.
    pub time: Timestamp,
}

/// What is final, whatever else appears: an object `control/digests/<id>`. All digests count together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestDocument {
    /// Collections with lower numbers are finished: their files mean nothing any more.
    pub finished: u64,
    /// Snapshots that have expired. Their sessions had committed.
    pub expired: Packed<16>,
    /// What was swept: names that are never used again.
    pub swept: Packed<16>,
}

/// A snapshot is to be forgotten: the object `control/forgotten/<snapshot>/<n>/open`. It stays until a fate says that it has
/// expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TombstoneDocument {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Which tombstone it is; they count from 0, and each further one follows a fate `kept`.
    pub number: u32,
    /// When, by the clock of whoever forgot it.
    pub time: Timestamp,
    /// For so many seconds after the store had this object it can be undeleted for certain.
    pub undelete_seconds: u64,
    /// Why.
    pub reason: String,
}

/// What came of a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The snapshot is gone.
    Expired,
    /// The snapshot is kept: it was undeleted.
    Kept,
}

/// The fate of a tombstone: the object `control/forgotten/<snapshot>/<n>/fate`. Whoever creates it first decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FateDocument {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The tombstone.
    pub number: u32,
    /// What came of it.
    pub fate: Fate,
    /// When, by the clock of whoever decided.
    pub time: Timestamp,
}

/// Somebody has looked at the anomaly of a snapshot, and found that it is as it should be: the object
/// `control/confirmed/<snapshot>`. Collections need not wait for it any longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmedDocument {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// When, by the clock of whoever confirmed it.
    pub time: Timestamp,
    /// What was found.
    pub reason: String,
}

/// When the store first had snapshots: an object `control/observed/<id>`. The times of its objects are those of a copy once
/// the repository was copied object by object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedDocument {
    /// 16 bytes that are a snapshot's identity, and 8 that are the seconds since 1970, the most significant first.
    pub times: Packed<24>,
}

/// A snapshot must not be forgotten: an object `control/holds/<snapshot>/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldDocument {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The hold's own identity.
    pub hold: SnapshotId,
    /// Until when, by the store's clock; for ever if that is not said.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// When it was made, by its maker's clock.
    pub time: Timestamp,
}
