//! Small objects: one JSON document in one sealed frame. Config, snapshots, sets and sessions are documents.

mod flat;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::object::{ObjectHeader, ObjectOpener, ObjectWriter, Scratch};
use super::page::TreeRoot;
use crate::limits;
use crate::protection::{Protection, RepositoryId};
use crate::report::Outcome;
use crate::snapshot::{SnapshotId, SnapshotInfo};
use crate::transform::{ObjectType, TransformSet, Zstd};
use crate::{Error, ErrorKind, OwnerNames, Result, Timestamp};

/// The sealed parameters of a repository: the object `config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryParameters {
    /// The repository; the same as in the object's header.
    pub repository: RepositoryId,
    /// When it was created, by its creator's clock.
    pub created: Timestamp,
    /// Features that a program must know to read or write the repository. Version 1 has none.
    pub required_features: Vec<String>,
    /// How content is cut.
    pub chunker: crate::chunker::ChunkerParameters,
}

/// A session's outcome that is a snapshot: the object `snapshots/<session>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "flat::FlatSnapshot")]
pub struct SnapshotDocument {
    /// Everything about the snapshot but its entries.
    #[serde(flatten)]
    pub info: SnapshotInfo,
    /// Its sorted entries; none if there are none.
    pub tree: Option<TreeRoot>,
    /// Its entries known only at the end.
    pub trailing: Option<TreeRoot>,
    /// The names that owners had where it was taken.
    #[serde(skip_serializing_if = "OwnerNames::is_empty")]
    pub owners: OwnerNames,
    /// The repository; a snapshot cannot be moved to another.
    pub repository: RepositoryId,
}

/// A session's outcome that shuts it out: the object `snapshots/<session>`, or `control/sessions/<session>/decision` of one
/// that makes no snapshot, created by somebody else because the session had stopped. Whoever creates the object first
/// decides; its session then begins anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceDocument {
    /// Always true; what tells a fence from a snapshot.
    pub fence: bool,
    /// The session that is shut out.
    pub session: SnapshotId,
    /// The repository.
    pub repository: RepositoryId,
    /// When it was made, by its maker's clock.
    pub time: Timestamp,
}

/// What `snapshots/<session>` holds.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionOutcome {
    /// The session committed.
    Snapshot(Box<SnapshotDocument>),
    /// The session was shut out; there is no snapshot.
    Fence(FenceDocument),
}

/// Several snapshots taken as one: the object `sets/<id>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSet {
    /// Its identity: 16 random bytes, as snapshots have.
    pub id: SnapshotId,
    /// The name of the set in the configuration.
    pub name: String,
    /// When it was begun, by its writer's clock.
    pub time: Timestamp,
    /// Complete if every component is.
    pub outcome: Outcome,
    /// Its parts in the order of backing up.
    pub components: Vec<SetComponent>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// A part of a set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetComponent {
    /// The component's name in the configuration.
    pub name: String,
    /// Its snapshot; none where it failed or was skipped.
    pub snapshot: Option<SnapshotId>,
    /// How it ended; none where there is no snapshot.
    pub outcome: Option<Outcome>,
    /// Why there is no snapshot.
    pub reason: Option<String>,
    /// Its place in the order of restoring, lowest first.
    pub restore_order: u32,
}

/// A writer's registered activity: the object `control/sessions/<id>/open`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionDocument {
    /// The session.
    pub session: SnapshotId,
    /// When it was opened, by its writer's clock.
    pub opened: Timestamp,
    /// The writer's host.
    pub host: String,
    /// What it does: `backup`, `repair`, `merge`, `repack`.
    pub purpose: String,
    /// Whether its outcome is a snapshot, at `snapshots/<session>`; otherwise it is decided at
    /// `control/sessions/<session>/decision`.
    #[serde(default)]
    pub makes_snapshot: bool,
    /// What its machine calls the writer's process, with a number for this registration, for others on the same machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
}

/// Seals a document.
pub fn seal<T: Serialize>(
    protection: &dyn Protection,
    object_type: ObjectType,
    salt: [u8; 32],
    document: &T,
) -> Result<Bytes> {
    let json = serde_json::to_vec(document)
        .map_err(|e| Error::internal("a document has no JSON form").with_source(e))?;
    if json.len() > limits::SNAPSHOT_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            "a document would exceed the largest allowed length",
        ));
    }
    let transforms = [std::sync::Arc::new(Zstd::default()) as _];
    let mut writer = ObjectWriter::new(protection, object_type, &transforms, salt, Vec::new())?;
    writer.push_frame(&json, &[])?;
    Ok(writer.finish()?.bytes)
}

/// Opens a document, of which `object` is the whole object. Every byte of it is checked.
pub fn open<T: DeserializeOwned>(
    protection: &dyn Protection,
    object_type: ObjectType,
    object: &[u8],
) -> Result<T> {
    parse(&open_json(protection, object_type, object)?)
}

/// The object `config`. A feature that this version does not know is [`ErrorKind::Unsupported`], whatever else stands there:
/// who requires it may have added members, too.
pub fn open_config(protection: &dyn Protection, object: &[u8]) -> Result<RepositoryParameters> {
    let json = open_json(protection, ObjectType::Config, object)?;
    let required: RequiredFeatures = parse(&json)?;
    if let Some(feature) = required.required_features.first() {
        let message = format!("the repository needs the feature `{feature}`, which this build lacks");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    parse(&json)
}

#[derive(Deserialize)]
struct RequiredFeatures {
    required_features: Vec<String>,
}

/// Opens the outcome of a session, of which `object` is the whole object.
pub fn open_outcome(protection: &dyn Protection, object: &[u8]) -> Result<SessionOutcome> {
    #[derive(Deserialize)]
    struct Mark {
        #[serde(default)]
        fence: bool,
    }
    let json = open_json(protection, ObjectType::Snapshot, object)?;
    let mark: Mark = parse(&json)?;
    Ok(if mark.fence {
        SessionOutcome::Fence(parse(&json)?)
    } else {
        SessionOutcome::Snapshot(Box::new(parse(&json)?))
    })
}

/// Opens the decision of a session that makes no snapshot, of which `object` is the whole object. Returns its session, and
/// whether it committed; otherwise it was shut out.
pub fn open_decision(protection: &dyn Protection, object: &[u8]) -> Result<(SnapshotId, bool)> {
    #[derive(Deserialize)]
    struct Decided {
        session: SnapshotId,
        #[serde(default)]
        fence: bool,
    }
    let Decided { session, fence } = open(protection, ObjectType::Session, object)?;
    Ok((session, !fence))
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json)
        .map_err(|e| Error::corruption("a document is not what its place says").with_source(e))
}

fn open_json(protection: &dyn Protection, object_type: ObjectType, object: &[u8]) -> Result<Vec<u8>> {
    let opener = ObjectOpener::new(protection, &TransformSet::builtin(), object_type, object)?;
    let directory = opener.open_directory(object, object.len() as u64)?;
    let [record] = directory.frames[..] else {
        return Err(Error::corruption("a document must have exactly one frame"));
    };
    let start = opener.header_len();
    let end = start.saturating_add(record.stored_len as usize);
    let stored = object.get(start..end).ok_or_else(|| Error::corruption("a document is cut short"))?;
    let mut json = Vec::new();
    opener.open_frame(0, &record, stored, &mut Scratch::default(), &mut json)?;
    Ok(json)
}

/// What the object `config` says in clear: enough to find the keys.
pub fn peek(config: &[u8]) -> Result<ObjectHeader> {
    let (header, _) = ObjectHeader::decode(config)?;
    if header.object_type == ObjectType::Config {
        Ok(header)
    } else {
        Err(Error::corruption("is not a repository's configuration"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unprotected;

    #[test]
    fn a_later_version_is_told_from_damage() {
        let protection = Unprotected::new(RepositoryId([1; 16]));
        let open = |text: &str| {
            let document: serde_json::Value = serde_json::from_str(text).unwrap();
            open_config(&protection, &seal(&protection, ObjectType::Config, [2; 32], &document).unwrap())
        };
        let known = r#""repository":"01010101010101010101010101010101","created":"2026-11-20T08:00:00Z",
            "chunker":{"min_bytes":131072,"avg_bytes":524288,"max_bytes":2097152}"#;
        open(&format!(r#"{{{known},"required_features":[]}}"#)).unwrap();
        let later = open(&format!(r#"{{{known},"required_features":["sky"],"clouds":1}}"#)).unwrap_err();
        assert_eq!(later.kind(), ErrorKind::Unsupported);
        assert!(later.message().contains("`sky`"), "{later}");
        let damaged = open(&format!(r#"{{{known},"required_features":[],"clouds":1}}"#)).unwrap_err();
        assert!(damaged.is_corruption(), "{damaged}");
    }
}
