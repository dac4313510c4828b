//! A repository with what it must restore to, and what damage must do to it: be found, and restore nothing wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::report::Outcome;
use backup_core::repository::{SetComponent, SnapshotSet, VerifyLevel};
use backup_core::{Entry, EntryKind, EntryName, Error, ErrorKind, Result, SnapshotId, SystemRandom};
use backup_sinks::MemorySink;
use bytes::Bytes;

use crate::common::{
    Collected, Protect, Setup, TINY, TestEntry, TestSource, in_memory, objects, random, replace, sink_of,
    text,
};

pub type Objects = BTreeMap<String, Bytes>;
pub type Entries = BTreeMap<EntryName, Collected>;

/// A small repository with every type of object: two snapshots, a set, packs, paged chunk lists, trailing entries, slots.
pub struct Victim {
    pub setup: Setup,
    pub objects: Objects,
    pub snapshots: Vec<(SnapshotId, Entries)>,
}

/// What was done to the store.
pub enum Damage {
    /// Other bytes, or none, in an object's place.
    Replace(String, Option<Bytes>),
    /// Two objects change places.
    Swap(String, String),
}

impl Victim {
    /// Makes one whose longest content has so many bytes.
    pub async fn make(protect: Protect, bytes: usize) -> Self {
        let (setup, sink) = in_memory(protect, TINY).await;
        let mut entries = vec![
            TestEntry::other(Entry::directory("d").unwrap()),
            TestEntry::file("d/long", text(1, bytes)),
            TestEntry::file("d/inline", &b"few bytes"[..]),
            TestEntry::file("d/random", random(2, 300)),
            TestEntry::file("empty", &b""[..]),
            TestEntry::other(Entry::new("link", EntryKind::Symlink { target: (*b"d/long").into() }).unwrap()),
        ];
        let mut first = TestSource::new(entries.clone());
        first.trailing = vec![TestEntry::file("label", text(3, 150))];
        first.position = vec![("lsn".into(), "0/16B3748".into())];
        entries[3] = TestEntry::file("d/random", random(4, 200));
        let second = TestSource::new(entries);
        let mut snapshots = Vec::new();
        for source in [first, second] {
            snapshots.push((setup.store(&source).await, source.expected()));
        }
        let set = SnapshotSet {
            id: SnapshotId::random(&SystemRandom).unwrap(),
            name: "all".into(),
            time: setup.job.now(),
            outcome: Outcome::Complete,
            components: vec![SetComponent {
                name: "files".into(),
                snapshot: Some(snapshots[0].0),
                outcome: Some(Outcome::Complete),
                reason: None,
                restore_order: 0,
            }],
            tags: BTreeMap::new(),
        };
        setup.repository.create_set(&set, &setup.job).await.unwrap();
        setup.assert_clean().await;
        let objects = that_matter(&sink).await;
        for prefix in ["config", "data/", "meta/", "index/", "snapshots/", "sets/", "control/sessions/"] {
            assert!(objects.keys().any(|key| key.starts_with(prefix)), "{prefix}");
        }
        assert_eq!(protect == Protect::Encrypted, objects.keys().any(|key| key.starts_with("keys/")));
        Victim { setup, objects, snapshots }
    }

    /// Opens the whole repository, damages it, and asks `verify` (which must find it), and a restore if `restore`.
    pub async fn try_out(&self, damage: &Damage, restore: bool) -> Result<(), String> {
        let sink = sink_of(&self.objects).await;
        let setup = self.setup.reopen(Arc::new(sink.clone())).await.unwrap();
        self.apply(&sink, damage).await;
        let report =
            setup.verify(VerifyLevel::Content).await.map_err(|error| format!("an error: {error}"))?;
        if report.is_clean() {
            return Err("not found by verify".into());
        }
        if restore {
            match self.setup.reopen(Arc::new(sink)).await {
                Ok(opened) => self.restore_all(&opened).await?,
                Err(error) => expected_failure(&error)?,
            }
            self.restore_all(&setup).await?;
        }
        Ok(())
    }

    async fn apply(&self, sink: &MemorySink, damage: &Damage) {
        match damage {
            Damage::Replace(key, bytes) => replace(sink, key, bytes.clone()).await,
            Damage::Swap(a, b) => {
                replace(sink, a, Some(self.objects[b].clone())).await;
                replace(sink, b, Some(self.objects[a].clone())).await;
            }
        }
    }

    // Every entry is as it was, or named as failed; unreadable pages are named by the empty name.
    async fn restore_all(&self, setup: &Setup) -> Result<(), String> {
        for (id, expected) in &self.snapshots {
            match setup.restore(*id).await {
                Err(error) => expected_failure(&error)?,
                Ok((found, report)) => {
                    let failed: BTreeSet<_> =
                        report.failed.named().iter().map(|item| item.name.clone()).collect();
                    judge(&found, expected, &failed)?;
                }
            }
        }
        Ok(())
    }

    pub fn keys(&self) -> impl Iterator<Item = (&String, &Bytes)> {
        self.objects.iter()
    }
}

/// All objects but the reserve, which holds nothing that anybody would miss.
pub async fn that_matter(sink: &MemorySink) -> Objects {
    let mut objects = objects(sink).await;
    objects.remove("control/reserve").unwrap();
    objects
}

fn expected_failure(error: &Error) -> Result<(), String> {
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::NotFound | ErrorKind::Unsupported | ErrorKind::Denied => Ok(()),
        kind => Err(format!("restoring fails with {kind:?}: {error}")),
    }
}

pub fn judge(found: &Entries, expected: &Entries, failed: &BTreeSet<String>) -> Result<(), String> {
    for (name, expected) in expected {
        match found.get(name) {
            Some(found) if found == expected => {}
            Some(_) => return Err(format!("{name} was restored wrongly")),
            None if failed.contains(&name.to_string()) || failed.contains("") => {}
            None => return Err(format!("{name} is missing and not named")),
        }
    }
    match found.keys().find(|name| !expected.contains_key(*name)) {
        Some(name) => Err(format!("{name} comes from nowhere")),
        None => Ok(()),
    }
}

/// Tries all damages on two threads; prints how many there were.
pub async fn try_all(what: String, victim: Victim, damages: Vec<Damage>, restore_every: usize) {
    let count = damages.len();
    let (victim, damages) = (Arc::new(victim), Arc::new(damages));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..2 {
        let (victim, damages, what) = (victim.clone(), damages.clone(), what.clone());
        tasks.spawn(async move {
            let mut restored = 0;
            for (number, damage) in damages.iter().enumerate().skip(task).step_by(2) {
                let restore = number % restore_every < 2;
                restored += usize::from(restore);
                if let Err(problem) = victim.try_out(damage, restore).await {
                    match damage {
                        Damage::Replace(key, bytes) => {
                            let len = bytes.as_ref().map(Bytes::len);
                            panic!("{what} {number} of {key} ({len:?} bytes now): {problem}")
                        }
                        Damage::Swap(a, b) => panic!("{what} of {a} and {b}: {problem}"),
                    }
                }
            }
            restored
        });
    }
    let restored: usize = tasks.join_all().await.into_iter().sum();
    println!("{what}: {count} damages detected, {restored} of them also restored from");
}

/// Objects whose loss no snapshot would notice: what protects its bytes is not a reference to it.
pub fn unreferenced(key: &str) -> bool {
    ["snapshots/", "sets/", "control/", "keys/", "logs/"].iter().any(|prefix| key.starts_with(prefix))
}
