//! A snapshot's document as it is read: member by member.
//!
//! What serde flattens it holds in memory first, with everything that nobody asked for: a few kilobytes of compressed
//! zeros in an unknown member would become hundreds of megabytes. Here unknown members are passed over.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::SnapshotDocument;
use crate::format::page::TreeRoot;
use crate::limits;
use crate::protection::RepositoryId;
use crate::report::Outcome;
use crate::snapshot::{Origin, SnapshotId, SnapshotInfo};
use crate::{Anomaly, Change, KindLoad, OwnerNames, Skipped, Timestamp, Workload};

#[derive(serde::Deserialize)]
pub(super) struct FlatSnapshot {
    id: SnapshotId,
    time: Timestamp,
    stored: Option<Timestamp>,
    source: String,
    #[serde(deserialize_with = "identity")]
    identity: Vec<String>,
    host: String,
    label: Option<String>,
    tenant: Option<String>,
    description: Option<String>,
    tags: BTreeMap<String, String>,
    position: BTreeMap<String, String>,
    parent: Option<SnapshotId>,
    outcome: Outcome,
    entries: u64,
    bytes_logical: u64,
    bytes_added: u64,
    #[serde(deserialize_with = "skipped")]
    skipped: Vec<Skipped>,
    skipped_count: u64,
    origin: Option<Origin>,
    change: Option<Change>,
    #[serde(default, deserialize_with = "anomaly")]
    anomaly: Option<Anomaly>,
    #[serde(default, deserialize_with = "workload")]
    workload: Option<Workload>,
    tree: Option<TreeRoot>,
    trailing: Option<TreeRoot>,
    #[serde(default)]
    owners: OwnerNames,
    repository: RepositoryId,
}

impl From<FlatSnapshot> for SnapshotDocument {
    fn from(flat: FlatSnapshot) -> Self {
        let FlatSnapshot { id, time, stored, source, identity, host, label, tenant, .. } = flat;
        let FlatSnapshot { description, tags, position, parent, outcome, .. } = flat;
        let FlatSnapshot { entries, bytes_logical, bytes_added, skipped, skipped_count, .. } = flat;
        let FlatSnapshot { origin, change, anomaly, workload, tree, trailing, owners, repository, .. } = flat;
        let info = SnapshotInfo {
            id,
            time,
            stored,
            source,
            identity,
            host,
            label,
            tenant,
            description,
            tags,
            position,
            parent,
            outcome,
            entries,
            bytes_logical,
            bytes_added,
            skipped,
            skipped_count,
            origin,
            change,
            anomaly,
            workload,
        };
        Self { info, tree, trailing, owners, repository }
    }
}

fn identity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_seq(AtMost { max: limits::IDENTITY_PARTS_MAX, items: PhantomData })
}

fn skipped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Skipped>, D::Error> {
    deserializer.deserialize_seq(AtMost { max: limits::REPORT_SKIPPED_MAX, items: PhantomData })
}

fn anomaly<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Anomaly>, D::Error> {
    #[derive(serde::Deserialize)]
    struct Flat {
        score: u8,
        #[serde(default, deserialize_with = "reasons")]
        reasons: Vec<String>,
    }
    let read = Option::<Flat>::deserialize(deserializer)?;
    Ok(read.map(|Flat { score, reasons }| Anomaly { score, reasons }))
}

fn reasons<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_seq(AtMost { max: limits::ANOMALY_REASONS_MAX, items: PhantomData })
}

fn workload<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Workload>, D::Error> {
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Flat {
        seconds: f64,
        bytes_read: u64,
        bytes_stored: u64,
        objects_stored: u64,
        #[serde(deserialize_with = "kinds")]
        kinds: BTreeMap<String, KindLoad>,
    }
    let read = Option::<Flat>::deserialize(deserializer)?;
    Ok(read.map(|Flat { seconds, bytes_read, bytes_stored, objects_stored, kinds }| Workload {
        seconds,
        bytes_read,
        bytes_stored,
        objects_stored,
        kinds,
    }))
}

fn kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, KindLoad>, D::Error> {
    deserializer.deserialize_map(AtMostKinds(limits::WORKLOAD_KINDS_MAX))
}

/// A list that is given up when it gets longer than it may be: items can take many times what they are written in.
struct AtMost<T> {
    max: usize,
    items: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} items", self.max)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            if items.len() >= self.max {
                return Err(A::Error::invalid_length(items.len().saturating_add(1), &self));
            }
            items.push(item);
        }
        Ok(items)
    }
}

/// The same of kinds of data.
struct AtMostKinds(usize);

impl<'de> Visitor<'de> for AtMostKinds {
    type Value = BTreeMap<String, KindLoad>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {} kinds", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut kinds = BTreeMap::new();
        while let Some((name, load)) = map.next_entry()? {
            kinds.insert(name, load);
            if kinds.len() > self.0 {
                return Err(A::Error::invalid_length(kinds.len(), &self));
            }
        }
        Ok(kinds)
    }
}

#[cfg(test)]
mod tests {
    use crate::format::document::SnapshotDocument;
    use crate::limits;

    fn document(identity: usize, skipped: usize) -> String {
        let zeros = "0".repeat(32);
        let identity = vec!["\"\""; identity].join(",");
        let skipped = vec![r#"{"name":"","reason":""}"#; skipped].join(",");
        format!(
            r#"{{"id":"{zeros}","repository":"{zeros}","time":"2026-11-20T08:00:00Z","stored":null,"source":"","host":"",
            "identity":[{identity}],"skipped":[{skipped}],"label":null,"tags":{{}},"position":{{}},"outcome":"complete",
            "entries":0,"bytes_logical":0,"bytes_added":0,"skipped_count":0,"unknown":[[{{}}]],
            "tree":{{"id":"{zeros}{zeros}","len":1,"levels":2,"rows":3,"unknown":1}}}}"#
        )
    }

    #[test]
    fn unknown_members_are_passed_over_and_long_lists_given_up() {
        let read = |identity, skipped| serde_json::from_str::<SnapshotDocument>(&document(identity, skipped));
        let snapshot = read(limits::IDENTITY_PARTS_MAX, limits::REPORT_SKIPPED_MAX).unwrap();
        assert_eq!(snapshot.tree.unwrap().levels, 2);
        let written = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<SnapshotDocument>(&written).unwrap(), snapshot);
        assert!(read(limits::IDENTITY_PARTS_MAX + 1, 0).unwrap_err().to_string().contains("at most"));
        assert!(read(0, limits::REPORT_SKIPPED_MAX + 1).is_err());
        let with_reasons = |count: usize| {
            let reasons = vec!["\"\""; count].join(",");
            let anomaly = format!(r#"{{"score":87,"reasons":[{reasons}]}}"#);
            let document = document(0, 0).replacen('{', &format!("{{\"anomaly\":{anomaly},"), 1);
            serde_json::from_str::<SnapshotDocument>(&document)
        };
        let most = with_reasons(limits::ANOMALY_REASONS_MAX).unwrap().info.anomaly.unwrap();
        assert_eq!((most.score, most.reasons.len()), (87, limits::ANOMALY_REASONS_MAX));
        assert!(with_reasons(limits::ANOMALY_REASONS_MAX + 1).is_err());
    }
}
