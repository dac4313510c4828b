//! Where each object stands in the store.

use crate::transform::ObjectType;
use crate::{Error, ObjectKey, Result, SnapshotId};

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
/// Steps of collections, which this version does not know.
pub(crate) const COLLECTIONS: &str = "control/collections/";
/// Registered activity.
pub(crate) const SESSIONS: &str = "control/sessions/";

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

/// `sets/<id>`.
pub(crate) fn set(id: SnapshotId) -> Result<ObjectKey> {
    ObjectKey::new(format!("{SETS}{id}"))
}

/// `control/sessions/<id>/open`.
pub(crate) fn session(id: SnapshotId) -> Result<ObjectKey> {
    ObjectKey::new(format!("{SESSIONS}{id}/open"))
}

/// `control/sessions/<id>/decision`: the outcome of a session that makes no snapshot.
pub(crate) fn decision(id: SnapshotId) -> Result<ObjectKey> {
    ObjectKey::new(format!("{SESSIONS}{id}/decision"))
}

/// The session that an object under `control/sessions/` of this name belongs to.
pub(crate) fn session_of(key: &ObjectKey, name: &str) -> Option<SnapshotId> {
    key.as_str().strip_prefix(SESSIONS)?.strip_suffix(name)?.parse().ok()
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
