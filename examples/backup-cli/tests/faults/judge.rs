//! Whether a repository is what it must be after something went wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_cli::exit::Exit;
use backup_core::testing::{Operation, RecordingSink};
use backup_core::{ObjectKey, Sink, SinkExt};
use backup_sinks::MemorySink;
use serde_json::Value;

use crate::verbs::{Base, text};
use crate::world::{Ran, Restored, World, tree_of};

/// What a run has promised: snapshots that it named, and so must be there for ever.
pub(crate) fn acknowledged(ran: &Ran) -> Vec<String> {
    let Ok(document) = serde_json::from_slice::<Value>(&ran.out) else { return Vec::new() };
    let components = document["components"].as_array().cloned().unwrap_or_default();
    let all = std::iter::once(document).chain(components);
    all.filter_map(|report| report["snapshot"].as_str().map(str::to_owned)).collect()
}

/// What a command has deleted that needs not delete anything: a run that failed before it stored anything may take its own
/// registration back, and each may remove those of sessions that are decided.
pub(crate) fn deleted<S: Sink + ?Sized>(
    recording: &RecordingSink<S>,
    before: &BTreeSet<String>,
    after: &BTreeSet<String>,
) -> Vec<String> {
    let deletes = recording.calls().into_iter().filter(|call| call.operation == Operation::Delete);
    let may_go = |key: &str| {
        let Some((session, name)) =
            key.strip_prefix("control/sessions/").and_then(|rest| rest.split_once('/'))
        else {
            return false;
        };
        let outcomes = [format!("snapshots/{session}"), format!("control/sessions/{session}/decision")];
        let decided = outcomes.iter().any(|outcome| before.contains(outcome) || after.contains(outcome));
        name == "open" && (decided || !before.contains(key))
    };
    deletes.map(|call| call.key).filter(|key| !may_go(key)).collect()
}

/// The keys of all objects of a store.
pub(crate) async fn keys_of(sink: &dyn Sink) -> BTreeSet<String> {
    sink.list_all("").await.unwrap().into_iter().map(|meta| meta.key.to_string()).collect()
}

/// How `verify` calls the index as a whole, which may lack packs.
pub(crate) const INDEX: &str = "index";

/// Whether `verify` calls a pack missing, and nothing else.
fn is_missing_pack(object: &Value) -> bool {
    let key = text(&object["object"]);
    (key.starts_with("data/") || key.starts_with("meta/")) && text(&object["reason"]) == "is missing"
}

/// What must hold, whatever happened.
pub(crate) struct Judge<'a> {
    pub world: &'a World,
    pub base: &'a Base,
    /// How a failure is called.
    pub what: String,
}

impl Judge<'_> {
    /// Verifies every content. Only objects among `broken` may be damaged, which a fault has broken; they are removed, as their
    /// owner would do, and then nothing is damaged. Whether nothing was.
    pub(crate) async fn is_whole(&self, sink: &MemorySink, broken: &[String]) -> bool {
        let what = &self.what;
        let (exit, report) = self.verify(sink).await;
        if exit == Some(Exit::Done) {
            return true;
        }
        assert_eq!(exit, Some(Exit::Partial), "{what}: {report}");
        for entry in report["damaged_entries"].as_array().unwrap() {
            let snapshot = format!("snapshots/{}", text(&entry["snapshot"]));
            assert!(broken.contains(&snapshot), "{what}: {entry} is damaged: {report}");
        }
        // Who cannot read what was swept takes it for missing as long as the index names it.
        let unknown = broken.iter().any(|key| key.starts_with("control/digests/"));
        for object in report["damaged_objects"].as_array().unwrap() {
            if unknown && is_missing_pack(object) {
                continue;
            }
            let key = text(&object["object"]);
            assert!(broken.contains(&key), "{what}: {key} is damaged: {report}");
            match key.strip_prefix("keys/1/") {
                Some(recipient) => drop(self.world.ok(sink, &["key", "remove", recipient]).await),
                None if key == INDEX => drop(self.world.ok(sink, &["repair", "index"]).await),
                None => sink.delete(&ObjectKey::new(&key).unwrap()).await.unwrap(),
            }
        }
        let (exit, report) = self.verify(sink).await;
        if unknown {
            assert_eq!(report["damaged_entries"], serde_json::json!([]), "{what}: {report}");
            let damaged = report["damaged_objects"].as_array().unwrap();
            assert!(damaged.iter().all(is_missing_pack), "{what}: {report}");
        } else {
            assert_eq!(exit, Some(Exit::Done), "{what}: {report}");
        }
        false
    }

    async fn verify(&self, sink: &MemorySink) -> (Option<Exit>, Value) {
        let arguments = ["--json", "verify", "--level", "content"].map(str::to_owned);
        let ran = self.world.run(Arc::new(sink.clone()), &arguments).await;
        (ran.exit, ran.json())
    }

    /// Restores these snapshots, all of which must be there.
    pub(crate) async fn restores(&self, sink: &MemorySink, expected: &BTreeMap<String, Restored>) {
        for (id, expected) in expected {
            let ran = self.restore(sink, id).await;
            assert_eq!(ran.0.exit, Some(Exit::Done), "{}: {id}: {:?}", self.what, ran.0);
            self.assert_same(id, &ran.1, expected);
        }
    }

    /// Restores every snapshot that is listed, whether anybody was told of it or not, and compares it with its source.
    /// Those of `promised` must be among them.
    pub(crate) async fn all_restore(&self, sink: &MemorySink, promised: &[String]) {
        self.new_restore(sink, promised).await;
        self.restores(sink, &self.base.snapshots).await;
    }

    /// The same without those of the base.
    pub(crate) async fn new_restore(&self, sink: &MemorySink, promised: &[String]) {
        let list = self.world.ok(sink, &["list"]).await;
        let mut there = BTreeSet::new();
        for info in list["snapshots"].as_array().unwrap() {
            let id = text(&info["id"]);
            if !self.base.snapshots.contains_key(&id) {
                let doubtful = self.base.doubtful.get(&id).cloned();
                let expected = doubtful.unwrap_or_else(|| self.base.expected(&text(&info["source"])));
                self.restores(sink, &BTreeMap::from([(id.clone(), expected)])).await;
            }
            there.insert(id);
        }
        for id in promised {
            assert!(there.contains(id), "{}: {id} was acknowledged and is gone", self.what);
        }
    }

    pub(crate) async fn restore(&self, sink: &MemorySink, id: &str) -> (Ran, Restored) {
        let to = self.world.scratch();
        let arguments = ["restore", id, "--to", &to.path().display().to_string()].map(str::to_owned);
        let ran = self.world.run(Arc::new(sink.clone()), &arguments).await;
        (ran, self.below(to.path()))
    }

    /// What was restored below a directory: of the tree, or of another source.
    pub(crate) fn below(&self, to: &std::path::Path) -> Restored {
        let tree = to.join(self.world.name("tree"));
        if tree.is_dir() { tree_of(&tree) } else { tree_of(to) }
    }

    /// Whether it is what one of these must restore to.
    pub(crate) fn is_one_of(&self, restored: &Restored, all: &[Restored]) -> bool {
        all.iter().any(|expected| comparable(restored, expected) == *expected)
    }

    pub(crate) fn assert_same(&self, id: &str, restored: &Restored, expected: &Restored) {
        let restored = comparable(restored, expected);
        for name in restored.keys().chain(expected.keys()) {
            let same = restored.get(name) == expected.get(name);
            let kinds = (restored.get(name).map(|(kind, _)| kind), expected.get(name).map(|(kind, _)| kind));
            assert!(same, "{}: {id}: {name} is not what it was: {kinds:?}", self.what);
        }
    }
}

/// What says nothing of modes and times is compared by content, and without its directories.
pub(crate) fn comparable(restored: &Restored, expected: &Restored) -> Restored {
    if expected.values().any(|(kind, _)| !kind.is_empty()) {
        return restored.clone();
    }
    let files = restored.iter().filter(|(_, (kind, _))| kind.starts_with("file"));
    files.map(|(name, (_, content))| (name.clone(), (String::new(), content.clone()))).collect()
}
