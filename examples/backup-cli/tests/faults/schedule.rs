//! Several faults in a short history of commands, and what must be so at its end.

use std::collections::BTreeMap;

use backup_cli::exit::Exit;
use backup_core::Sink;
use backup_core::testing::{FailingSink, Fault, Manner, Operation, RecordingSink};
use std::sync::Arc;

use crate::judge::{INDEX, Judge, acknowledged, deleted, keys_of};
use crate::verbs::{Base, text};
use crate::world::{Ran, Restored, Stop, World, copy_of, objects};

/// A command of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Backs up the tree in this version.
    Tree(u64),
    Command,
    Repair,
    AddKey,
    Restore,
    Verify,
    List,
}

/// A command and what goes wrong while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub act: Act,
    pub faults: Vec<Fault>,
    pub stop: Stop,
}

impl Step {
    pub(crate) fn new(act: Act) -> Self {
        Self { act, faults: Vec::new(), stop: Stop::Drop }
    }

    /// Whether the store may hide objects that are there, which nobody can notice.
    fn hides(&self) -> bool {
        let hiding = |manner| matches!(manner, Manner::CutShort | Manner::Stale { .. });
        self.faults.iter().any(|fault| fault.operation() == Some(Operation::List) && hiding(fault.manner()))
    }

    fn is(&self, wanted: impl Fn(Manner) -> bool) -> bool {
        self.faults.iter().any(|fault| wanted(fault.manner()))
    }
}

/// How many calls of each kind each command makes if nothing goes wrong.
pub(crate) async fn calls(world: &World, base: &Base, acts: &[Act]) -> Vec<Vec<(Operation, u64)>> {
    let store = world.store_of(&base.objects).await;
    let mut all = Vec::new();
    for act in acts {
        let recording = RecordingSink::over(store.sink.clone());
        let to = world.scratch();
        if let Act::Tree(version) = act {
            world.turn_tree(*version);
        }
        let ran = world.run(Arc::new(recording.clone()), &arguments(*act, world, to.path())).await;
        assert_eq!(ran.exit, Some(Exit::Done), "{act:?}: {ran:?}");
        all.push(crate::OPERATIONS.map(|operation| (operation, recording.count(operation) as u64)).to_vec());
    }
    all
}

/// Runs a history and judges; how many of its faults came about.
pub(crate) async fn try_schedule(world: &World, base: &Base, what: &str, steps: &[Step]) -> usize {
    let judge = Judge { world, base, what: format!("{what}: {steps:?}") };
    let what = &judge.what;
    let store = world.store_of(&base.objects).await;
    let mut promised = base.snapshots.clone();
    let mut seen: Vec<Restored> = promised.values().cloned().collect();
    let (mut sinks, mut broken, mut struck) = (Vec::new(), Vec::new(), 0);
    for step in steps {
        let before = keys_of(&*store.sink).await;
        let recording = RecordingSink::over(store.sink.clone());
        let below: Arc<dyn Sink> = Arc::new(recording.clone());
        let failing = FailingSink::over(below, step.faults.clone());
        match step.act {
            Act::Tree(version) => seen.push(world.turn_tree(version)),
            Act::Command => seen.push(base.expected("command")),
            _ => {}
        }
        let to = world.scratch();
        let arguments = arguments(step.act, world, to.path());
        let ran = world.run_until(Arc::new(failing.clone()), &arguments, failing.ended(), step.stop).await;
        struck += failing.struck();
        check_exit(step, &ran, promised.is_empty(), what);
        if matches!(step.act, Act::Tree(_) | Act::Command) {
            promised.extend(acknowledged(&ran).into_iter().map(|id| (id, seen.last().unwrap().clone())));
        }
        if step.act == Act::Restore && ran.exit == Some(Exit::Done) {
            let restored = judge.below(to.path());
            assert!(judge.is_one_of(&restored, &seen), "{what}: something else was restored: {ran:?}");
        }
        if step.is(|manner| manner == Manner::CutShort) {
            broken.extend(failing.struck_at());
        }
        let deleted = deleted(&recording, &before, &keys_of(&*store.sink).await);
        assert!(step.act == Act::Repair || deleted.is_empty(), "{what}: {step:?} has deleted {deleted:?}");
        // Of what was read or listed in part, or was refused, a repair takes less into the index.
        let in_part = step.is(|manner| matches!(manner, Manner::CutShort | Manner::Stale { .. }));
        if step.act == Act::Repair && (in_part || ran.exit == Some(Exit::Partial)) {
            broken.push(INDEX.to_owned());
        }
        failing.set_faults([]);
        sinks.push(failing);
    }
    for sink in &sinks {
        sink.settle().await;
    }
    let copy = copy_of(&objects(&*store.sink).await).await;
    judge.restores(&copy, &promised).await;
    judge.is_whole(&copy, &broken).await;
    let list = world.ok(&copy, &["list"]).await;
    let mut listed = BTreeMap::new();
    for info in list["snapshots"].as_array().unwrap() {
        let id = text(&info["id"]);
        if !promised.contains_key(&id) {
            let (ran, restored) = judge.restore(&copy, &id).await;
            assert_eq!(ran.exit, Some(Exit::Done), "{what}: {id}: {ran:?}");
            assert!(judge.is_one_of(&restored, &seen), "{what}: {id} is nothing that was backed up");
        }
        listed.insert(id, ());
    }
    for id in promised.keys() {
        assert!(listed.contains_key(id), "{what}: {id} was acknowledged and is gone");
    }
    // And it goes on, on the store as it was left.
    let tree = world.turn_tree(99);
    let to = world.scratch();
    let ran = world.run(store.sink.clone(), &arguments(Act::Tree(99), world, to.path())).await;
    assert_eq!(ran.exit, Some(Exit::Done), "{what}: the next backup: {ran:?}");
    let copy = copy_of(&objects(&*store.sink).await).await;
    let [id] = &acknowledged(&ran)[..] else { panic!("{what}: {ran:?}") };
    judge.restores(&copy, &BTreeMap::from([(id.clone(), tree)])).await;
    judge.is_whole(&copy, &broken).await;
    struck
}

fn arguments(act: Act, world: &World, to: &std::path::Path) -> Vec<String> {
    let tree = world.path("tree").display().to_string();
    let to = to.display().to_string();
    let other = format!("key-file:{}", world.path("other").display());
    let arguments: &[&str] = match act {
        Act::Tree(_) => &["--json", "create", "files", &tree],
        Act::Command => &["--json", "create", "command", "--name", "said", "--", "echo", "said"],
        Act::Repair => &["repair", "index"],
        Act::AddKey => &["key", "add", &other],
        Act::Restore => &["restore", "latest", "--to", &to],
        Act::Verify => &["verify", "--level", "content"],
        Act::List => &["list"],
    };
    arguments.iter().map(|text| (*text).to_owned()).collect()
}

fn check_exit(step: &Step, ran: &Ran, empty: bool, what: &str) {
    let ended = step.is(|manner| matches!(manner, Manner::Last { .. }));
    match ran.exit {
        None => assert!(ended && step.stop == Stop::Drop, "{what}: {ran:?}"),
        Some(Exit::Usage) => panic!("{what}: a fault of the store is taken for wrong usage: {ran:?}"),
        Some(Exit::Nothing) => {
            assert!(step.act == Act::Restore && (empty || step.hides()), "{what}: {ran:?}");
        }
        Some(Exit::NotFetched) => panic!("{what}: nothing of a log was asked for: {ran:?}"),
        Some(Exit::Done | Exit::Partial | Exit::Failed) => {}
    }
    let out = String::from_utf8_lossy(&ran.out);
    assert!(!ran.err.contains("panicked") && !out.contains("panicked"), "{what}: {ran:?}");
}
