//! What must be there: every snapshot that was acknowledged, unless somebody set out to forget it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use crate::common::pseudo_random;

/// The files of a tree: what each holds, by what that is made from.
pub(crate) type Tree = BTreeMap<String, u64>;

#[derive(Debug, Clone)]
struct Acknowledged {
    tree: Tree,
    /// Somebody set out to forget it.
    doomed: bool,
    /// How often it was doomed or saved.
    turns: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    snapshots: Mutex<BTreeMap<String, Acknowledged>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

/// A snapshot that must be there, as far as was known at one time.
#[derive(Debug, Clone)]
pub(crate) struct Owed {
    pub(crate) id: String,
    pub(crate) tree: Tree,
    turns: u64,
}

impl Book {
    pub(crate) fn acknowledge(&self, id: String, tree: Tree) {
        self.snapshots.lock().unwrap().insert(id, Acknowledged { tree, doomed: false, turns: 0 });
        self.count("acknowledged");
    }

    /// Everything that must be there.
    pub(crate) fn owed(&self) -> Vec<Owed> {
        let snapshots = self.snapshots.lock().unwrap();
        let owed = snapshots.iter().filter(|(_, snapshot)| !snapshot.doomed);
        owed.map(|(id, Acknowledged { tree, turns, .. })| Owed {
            id: id.clone(),
            tree: tree.clone(),
            turns: *turns,
        })
        .collect()
    }

    /// What may be gone, and may be taken back.
    pub(crate) fn doomed(&self) -> Vec<String> {
        let snapshots = self.snapshots.lock().unwrap();
        snapshots.iter().filter(|(_, snapshot)| snapshot.doomed).map(|(id, _)| id.clone()).collect()
    }

    /// Somebody is about to forget it.
    pub(crate) fn doom(&self, id: &str) {
        let mut snapshots = self.snapshots.lock().unwrap();
        let snapshot = snapshots.get_mut(id).unwrap();
        (snapshot.doomed, snapshot.turns) = (true, snapshot.turns + 1);
    }

    /// Somebody was told that it is kept.
    pub(crate) fn save(&self, id: &str) {
        let mut snapshots = self.snapshots.lock().unwrap();
        let snapshot = snapshots.get_mut(id).unwrap();
        (snapshot.doomed, snapshot.turns) = (false, snapshot.turns + 1);
    }

    /// Whether nobody has set out to forget it since.
    pub(crate) fn is_owed_still(&self, owed: &Owed) -> bool {
        let snapshots = self.snapshots.lock().unwrap();
        snapshots.get(&owed.id).is_some_and(|snapshot| !snapshot.doomed && snapshot.turns == owed.turns)
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
    }

    pub(crate) fn counted(&self, what: &str) -> u64 {
        self.counts.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    pub(crate) fn summary(&self) -> String {
        let counts = self.counts.lock().unwrap();
        counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
    }

    /// A run in which nobody got anything done shows nothing.
    pub(crate) fn assert_something_happened(&self, whole: bool) {
        let counts = self.counts.lock().unwrap();
        let wanted = ["acknowledged", "swept", "forgotten", "restored", "killed", "verified"];
        let more = ["undeleted", "stopped"];
        for what in wanted.iter().chain(more.iter().filter(|_| whole)) {
            assert!(counts.get(what).is_some_and(|count| *count > 0), "never {what}: {counts:?}");
        }
    }
}

/// The content that is made from a seed. Few of them are long.
pub(crate) fn content(seed: u64) -> Vec<u8> {
    let len = if seed.is_multiple_of(7) { 300_000 } else { 500 + seed as usize * 97 % 9_000 };
    let mut bytes = pseudo_random(len, seed);
    // Some of it compresses.
    bytes.iter_mut().step_by(3).for_each(|byte| *byte = b'a');
    bytes
}

/// Compares a directory with a tree.
pub(crate) fn compare(directory: &Path, tree: &Tree) -> Result<(), String> {
    let mut found = 0;
    for file in std::fs::read_dir(directory).map_err(|e| format!("{}: {e}", directory.display()))? {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        let Some(seed) = tree.get(&name) else { return Err(format!("{name} should not be there")) };
        if std::fs::read(file.path()).unwrap() != content(*seed) {
            return Err(format!("{name} is not what it was"));
        }
        found += 1;
    }
    if found == tree.len() { Ok(()) } else { Err(format!("{found} of {} files are there", tree.len())) }
}
