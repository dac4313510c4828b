//! Where each object stands in the store.

use crate::transform::ObjectType;
use crate::{Error, ObjectKey, Result, SnapshotId, limits};

/// The repository's parameters; its creation makes the repository.
pub(crate) const CONFIG: &str = "config";
/// Key slots, `keys/<epoch>/<recipient>`.
pub(crate) const KEYS: &str = "keys/";
/// Packs of content.
pub(crate) const DATA: &str = "data/";
/// Packs of pages.
pub(crate) const META: &str = "meta/";
/// Index segments.
pub(crate) const INDEX: &str = "index/";
/// Outcomes of sessions.
pub(crate) const SNAPSHOTS: &str = "snapshots/";
/// Sets of snapshots.
pub(crate) const SETS: &str = "sets/";
/// Log segments.
pub(crate) const LOGS: &str = "logs/";
/// All that is not under object lock: sessions, collections and what belongs to them.
pub(crate) const CONTROL: &str = "control/";
/// Registered activity.
pub(crate) const SESSIONS: &str = "control/sessions/";
/// Collections.
pub(crate) const COLLECTIONS: &str = "control/collections/";
/// What is final.
pub(crate) const DIGESTS: &str = "control/digests/";
/// Tombstones and fates.
pub(crate) const FORGOTTEN: &str = "control/forgotten/";
/// When the store first had snapshots.
pub(crate) const OBSERVED: &str = "control/observed/";
/// Room for a collection where there is no other.
pub(crate) const RESERVE: &str = "control/reserve";
/// Evidence of what was done.
pub(crate) const EVIDENCE: &str = "evidence/";
/// Holds.
pub(crate) const HOLDS: &str = "control/holds/";
/// Anomalies that somebody has looked at.
pub(crate) const CONFIRMED: &str = "control/confirmed/";

/// `config`.
pub(crate) fn config() -> Result<ObjectKey> {
    ObjectKey::new(CONFIG)
}

/// `data/<2 hex>/<sha256>` or `meta/<2 hex>/<sha256>`.
pub(crate) fn pack(object_type: ObjectType, digest: &[u8; 32]) -> Result<ObjectKey> {
    let prefix = match object_type {
        ObjectType::Data => DATA,
        ObjectType::Meta => META,
        _ => return Err(Error::internal("only content and pages are kept in packs")),
    };
    let name = hex::encode(digest);
    ObjectKey::new(format!("{prefix}{}/{name}", name.get(..2).unwrap_or_default()))
}

/// `index/<sha256>`.
pub(crate) fn segment(digest: &[u8; 32]) -> Result<ObjectKey> {
    ObjectKey::new(format!("{INDEX}{}", hex::encode(digest)))
}

/// `snapshots/<session>`.
pub(crate) fn snapshot(id: SnapshotId) -> Result<ObjectKey> {
    ObjectKey::new(format!("{SNAPSHOTS}{id}"))
}

/// `evidence/<kind>/<id>`.
pub(crate) fn evidence(kind: &str, id: SnapshotId) -> Result<ObjectKey> {
    ObjectKey::new(format!("{}{id}", evidence_of(kind)))
}

/// What evidence of a kind begins with: what is no small letter and no digit is a hyphen there, and only so much of it stands there.
pub(crate) fn evidence_of(kind: &str) -> String {
    let letter = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let kind: String = kind.chars().take(limits::EVIDENCE_KIND_CHARS).map(letter).collect();
    format!("{EVIDENCE}{}/", if kind.is_empty() { "-" } else { &kind })
}

/// `sets/<id>`.
pub(crate) fn set(id: SnapshotId) -> Result<ObjectKey> {
    ObjectKey::new(format!("{SETS}{id}"))
}

/// An object under `control/`, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ControlKey {
    /// `control/sessions/<id>/open`.
    SessionOpen(SnapshotId),
    /// `control/sessions/<id>/beat/<n>`.
    SessionBeat(SnapshotId, u64),
    /// `control/sessions/<id>/decision`.
    SessionDecision(SnapshotId),
    /// `control/collections/<n>/open`.
    CollectionOpen(u64),
    /// `control/collections/<n>/parts/<i>`.
    CollectionPart(u64, u32),
    /// `control/collections/<n>/condemned`.
    CollectionCondemned(u64),
    /// `control/collections/<n>/decision`.
    CollectionDecision(u64),
    /// `control/digests/<id>`.
    Digest(SnapshotId),
    /// `control/forgotten/<snapshot>/<n>/open`.
    Tombstone(SnapshotId, u32),
    /// `control/forgotten/<snapshot>/<n>/fate`.
    Fate(SnapshotId, u32),
    /// `control/holds/<snapshot>/<id>`.
    Hold(SnapshotId, SnapshotId),
    /// `control/confirmed/<snapshot>`.
    Confirmed(SnapshotId),
    /// `control/observed/<id>`.
    Observed(SnapshotId),
    /// `control/reserve`.
    Reserve,
}

impl ControlKey {
    /// What an object of this key is; none if it is nothing that the format knows.
    pub(crate) fn parse(key: &ObjectKey) -> Option<Self> {
        let parts: Vec<&str> = key.as_str().strip_prefix(CONTROL)?.split('/').collect();
        let id = |text: &str| text.parse::<SnapshotId>().ok();
        let parsed = match parts[..] {
            ["sessions", session, "open"] => Self::SessionOpen(id(session)?),
            ["sessions", session, "beat", number] => Self::SessionBeat(id(session)?, number.parse().ok()?),
            ["sessions", session, "decision"] => Self::SessionDecision(id(session)?),
            ["collections", number, "open"] => Self::CollectionOpen(number.parse().ok()?),
            ["collections", number, "parts", part] => {
                Self::CollectionPart(number.parse().ok()?, part.parse().ok()?)
            }
            ["collections", number, "condemned"] => Self::CollectionCondemned(number.parse().ok()?),
            ["collections", number, "decision"] => Self::CollectionDecision(number.parse().ok()?),
            ["digests", digest] => Self::Digest(id(digest)?),
            ["forgotten", snapshot, number, "open"] => Self::Tombstone(id(snapshot)?, number.parse().ok()?),
            ["forgotten", snapshot, number, "fate"] => Self::Fate(id(snapshot)?, number.parse().ok()?),
            ["holds", snapshot, hold] => Self::Hold(id(snapshot)?, id(hold)?),
            ["confirmed", snapshot] => Self::Confirmed(id(snapshot)?),
            ["observed", id_of_it] => Self::Observed(id(id_of_it)?),
            ["reserve"] => Self::Reserve,
            _ => return None,
        };
        // One object has one name: leading zeros and capitals are others' objects.
        (parsed.key().ok()? == *key).then_some(parsed)
    }

    /// The key.
    pub(crate) fn key(self) -> Result<ObjectKey> {
        ObjectKey::new(match self {
            Self::SessionOpen(session) => format!("{SESSIONS}{session}/open"),
            Self::SessionBeat(session, number) => format!("{SESSIONS}{session}/beat/{number}"),
            Self::SessionDecision(session) => format!("{SESSIONS}{session}/decision"),
            Self::CollectionOpen(number) => format!("{COLLECTIONS}{number}/open"),
            Self::CollectionPart(number, part) => format!("{COLLECTIONS}{number}/parts/{part}"),
            Self::CollectionCondemned(number) => format!("{COLLECTIONS}{number}/condemned"),
            Self::CollectionDecision(number) => format!("{COLLECTIONS}{number}/decision"),
            Self::Digest(id) => format!("{DIGESTS}{id}"),
            Self::Tombstone(snapshot, number) => format!("{FORGOTTEN}{snapshot}/{number}/open"),
            Self::Fate(snapshot, number) => format!("{FORGOTTEN}{snapshot}/{number}/fate"),
            Self::Hold(snapshot, hold) => format!("{HOLDS}{snapshot}/{hold}"),
            Self::Confirmed(snapshot) => format!("{CONFIRMED}{snapshot}"),
            Self::Observed(id) => format!("{OBSERVED}{id}"),
            Self::Reserve => RESERVE.to_owned(),
        })
    }
}

/// The digest that a key ends in.
pub(crate) fn digest_of(key: &ObjectKey) -> Result<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(key.name(), &mut digest).map_err(|_| {
        Error::corruption("is not named by a SHA-256 and does not belong here").with_object(key)
    })?;
    Ok(digest)
}

/// The identity that a key ends in.
pub(crate) fn id_of(key: &ObjectKey) -> Result<SnapshotId> {
    key.name().parse().map_err(|_| {
        Error::corruption("is not named by an identity and does not belong here").with_object(key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_keys_are_read_as_they_are_written_and_nothing_else_is() {
        let id = SnapshotId::from_bytes([0xab; 16]);
        let all = [
            ControlKey::SessionOpen(id),
            ControlKey::SessionBeat(id, 12),
            ControlKey::SessionDecision(id),
            ControlKey::CollectionOpen(0),
            ControlKey::CollectionPart(7, 3),
            ControlKey::CollectionCondemned(u64::MAX),
            ControlKey::Confirmed(id),
            ControlKey::CollectionDecision(7),
            ControlKey::Digest(id),
            ControlKey::Tombstone(id, 0),
            ControlKey::Fate(id, u32::MAX),
            ControlKey::Hold(id, id),
            ControlKey::Observed(id),
            ControlKey::Reserve,
        ];
        for key in all {
            assert_eq!(ControlKey::parse(&key.key().unwrap()), Some(key));
        }
        let hex = id.to_string();
        for other in [
            "control/collections/07/open".to_owned(),
            "control/collections/+7/open".to_owned(),
            "control/collections/7".to_owned(),
            "control/collections/18446744073709551616/open".to_owned(),
            format!("control/digests/{}", hex.to_uppercase()),
            format!("control/sessions/{hex}/open/more"),
            "snapshots/7".to_owned(),
        ] {
            // A sign is no character of keys.
            let Ok(key) = ObjectKey::new(&other) else { continue };
            assert_eq!(ControlKey::parse(&key), None, "{other}");
        }
    }
}
