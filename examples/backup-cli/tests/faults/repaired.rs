//! Snapshots of which something is lost, and whether `repair snapshots` does what it may: beside each stands a copy that lacks
//! what is lost, and nothing else changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_cli::exit::Exit;
use backup_core::{ObjectKey, Sink};
use backup_sinks::MemorySink;
use serde_json::Value;

use crate::judge::{Judge, comparable};
use crate::verbs::text;
use crate::world::{Objects, Ran, Restored, World, copy_of};

/// A repository with a damaged pack.
#[derive(Default)]
pub(crate) struct Hurt {
    pub objects: Objects,
    pack: String,
    /// Of each damaged snapshot the names that are lost, as `verify` has them.
    lost: BTreeMap<String, BTreeSet<String>>,
}

impl Hurt {
    /// Damages a pack of content that some snapshots need and others do not.
    pub(crate) async fn make(world: &World, objects: &Objects) -> Self {
        let mut all = Vec::new();
        for (key, bytes) in objects.iter().filter(|(key, _)| key.as_str().starts_with("data/")) {
            let mut hurt = Self { objects: objects.clone(), pack: key.to_string(), lost: BTreeMap::new() };
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            hurt.objects.insert(key.clone(), bytes.into());
            hurt.lost = damaged(world, &verify(world, &copy_of(&hurt.objects).await).await);
            all.push(hurt);
        }
        all.retain(|hurt| hurt.lost.len() > 1);
        all.into_iter().min_by_key(|hurt| hurt.lost.len()).unwrap()
    }
}

impl Judge<'_> {
    /// Judges what the repair has left. What was read or listed in part may be taken for lost, but then it is named. After
    /// `finished` no copy is missing.
    pub(crate) async fn is_repaired(
        &self,
        held: &Objects,
        ran: &Ran,
        broken: &[String],
        in_part: bool,
        finished: bool,
    ) {
        let (what, hurt) = (&self.what, &self.base.hurt);
        // But for registrations of sessions that are over.
        for (key, bytes) in
            hurt.objects.iter().filter(|(key, _)| !key.as_str().starts_with("control/sessions/"))
        {
            assert_eq!(held.get(key), Some(bytes), "{what}: {key} is not what it was");
        }
        let sink = copy_of(held).await;
        self.remove_broken(&sink, broken).await;
        let mut sound = self.base.snapshots.clone();
        for (id, lost) in &hurt.lost {
            let mut left = sound.remove(id).unwrap();
            left.retain(|name, _| !with_links(lost).contains(name));
            let (ran, restored) = self.restore(&sink, id).await;
            assert_eq!(ran.exit, Some(Exit::Partial), "{what}: {id}: {ran:?}");
            self.assert_same(id, &restored, &left);
        }
        self.restores(&sink, &sound).await;
        let mut repaired = BTreeSet::new();
        let mut there = BTreeSet::new();
        let list = self.world.ok(&sink, &["list"]).await;
        for info in list["snapshots"].as_array().unwrap() {
            let id = text(&info["id"]);
            if !self.base.snapshots.contains_key(&id) {
                let original = text(&info["tags"]["repaired"]);
                self.is_copy(&sink, info, &original, in_part).await;
                repaired.insert(original);
            }
            there.insert(id);
        }
        for id in stored(ran) {
            assert!(there.contains(&id), "{what}: {id} was acknowledged and is gone");
        }
        let all = hurt.lost.keys().all(|original| repaired.contains(original));
        assert!(all || !finished, "{what}: only {repaired:?} were stored again");
    }

    /// Whether this snapshot lacks what it says, and what is there is right.
    async fn is_copy(&self, sink: &MemorySink, info: &Value, original: &str, in_part: bool) {
        let (what, id) = (&self.what, text(&info["id"]));
        let (ran, restored) = self.restore(sink, &id).await;
        assert_eq!(ran.exit, Some(Exit::Done), "{what}: {id}: {ran:?}");
        let skipped: BTreeSet<String> = names(self.world, info["skipped"].as_array().unwrap());
        let whole = &self.base.snapshots[original];
        if !in_part {
            assert_eq!(skipped, with_links(&self.base.hurt.lost[original]), "{what}: {id}");
            let mut left: Restored = whole.clone();
            left.retain(|name, _| !skipped.contains(name));
            self.assert_same(&id, &restored, &left);
        }
        let restored = comparable(&restored, whole);
        for (name, (_, content)) in &restored {
            assert_eq!(Some(content), whole.get(name).map(|(_, content)| content), "{what}: {id}: {name}");
        }
        // Of a page of entries that could not be read nobody knows the names.
        let pages = skipped.contains("");
        for name in whole.keys().filter(|name| !restored.contains_key(*name)) {
            assert!(
                pages || skipped.contains(name),
                "{what}: {id}: {name} is missing, which nobody says: {skipped:?}"
            );
        }
    }

    /// Removes what a fault has broken. Nothing else may be damaged but what was so before.
    async fn remove_broken(&self, sink: &MemorySink, broken: &[String]) {
        let (what, hurt) = (&self.what, &self.base.hurt);
        let mut report = verify(self.world, sink).await;
        let mut removed = false;
        for object in report["damaged_objects"].as_array().unwrap() {
            let key = text(&object["object"]);
            if key != hurt.pack {
                assert!(broken.contains(&key), "{what}: {key} is damaged: {report}");
                sink.delete(&ObjectKey::new(&key).unwrap()).await.unwrap();
                removed = true;
            }
        }
        if removed {
            report = verify(self.world, sink).await;
        }
        let objects = report["damaged_objects"].as_array().unwrap();
        let objects: Vec<String> = objects.iter().map(|object| text(&object["object"])).collect();
        assert_eq!(objects, [&*hurt.pack], "{what}: {report}");
        assert_eq!(damaged(self.world, &report), hurt.lost, "{what}: {report}");
    }
}

/// Lost names and those of hard links to them.
pub(crate) fn with_links(lost: &BTreeSet<String>) -> BTreeSet<String> {
    let link = lost.contains("deep/same").then(|| "long".to_owned());
    lost.iter().cloned().chain(link).collect()
}

/// The snapshots that a repair says it has stored.
fn stored(ran: &Ran) -> Vec<String> {
    let Ok(report) = serde_json::from_slice::<Value>(&ran.out) else { return Vec::new() };
    let snapshots = report["snapshots"].as_array().cloned().unwrap_or_default();
    snapshots.iter().map(|stored| text(&stored["repaired"])).collect()
}

async fn verify(world: &World, sink: &MemorySink) -> Value {
    let arguments = ["--json", "verify", "--level", "content"].map(str::to_owned);
    world.run(Arc::new(sink.clone()), &arguments).await.json()
}

/// The damaged entries of a report, by snapshot.
fn damaged(world: &World, report: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut damaged = BTreeMap::<_, BTreeSet<String>>::new();
    for entry in report["damaged_entries"].as_array().unwrap() {
        let names = names(world, std::slice::from_ref(entry));
        damaged.entry(text(&entry["snapshot"])).or_default().extend(names);
    }
    damaged
}

/// The names of entries, below the tree.
pub(crate) fn names(world: &World, entries: &[Value]) -> BTreeSet<String> {
    let tree = format!("{}/", world.name("tree"));
    let below = |entry: &Value| text(&entry["name"]).trim_start_matches(&tree).to_owned();
    entries.iter().map(below).collect()
}
