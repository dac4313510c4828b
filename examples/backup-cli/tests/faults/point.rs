//! One fault of one command, and what must be so afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_cli::exit::Exit;
use backup_core::testing::{FailingSink, Fault, Manner, Operation, RecordingSink};
use backup_core::{ObjectKey, Sink};

use crate::judge::{INDEX, Judge, acknowledged, deleted, keys_of};
use crate::stores::Store;
use crate::verbs::{Base, Does, State, Verb};
use crate::world::{Objects, Ran, Stop, World, copy_of, objects};

/// When what is late has its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settling {
    Before,
    AfterTheNextRun,
}

/// Where and how something goes wrong.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub operation: Operation,
    manner: Manner,
    pub fault: Fault,

    pub stop: Stop,
    pub settling: Settling,
}

/// Every manner in which each of `count` calls of this kind can go wrong.
pub(crate) fn points_of(operation: Operation, count: u64) -> Vec<Point> {
    let late = |calls| Manner::Late { calls };
    let last = |after_effect| Manner::Last { after_effect };
    let stale = |calls| Manner::Stale { calls };
    let (drop, cancel) = (Stop::Drop, Stop::Cancel);
    // The manner, whether it also goes on for ever, and how the command is stopped if it waits for ever.
    let manners = [
        (Manner::Before, true, drop),
        (Manner::AfterEffect, true, drop),
        (late(2), true, drop),
        // Later than anything that the command does.
        (late(u64::MAX), false, drop),
        (Manner::Repeated, true, drop),
        (Manner::CutShort, true, drop),
        (stale(4), false, drop),
        (stale(1000), true, drop),
        (last(false), false, drop),
        (last(true), false, drop),
        (last(false), false, cancel),
        (last(true), false, cancel),
    ];
    let mut points = Vec::new();
    for nth in 1..=count {
        for (manner, also_for_ever, stop) in manners {
            if !manner.applies_to(operation) {
                continue;
            }
            for for_ever in [false, true] {
                if for_ever && !also_for_ever {
                    continue;
                }
                let mut fault = Fault::at(nth).of(operation).in_manner(manner);
                if for_ever {
                    fault = fault.from_then_on();
                }
                let settling =
                    if manner == late(u64::MAX) { Settling::AfterTheNextRun } else { Settling::Before };
                points.push(Point { operation, manner, fault, stop, settling });
            }
        }
    }
    points
}

impl Point {
    pub(crate) fn manner(&self) -> Manner {
        self.manner
    }

    /// Whether the store hides what is there, upon which the protocol of collections relies.
    pub(crate) fn breaks_listings(&self) -> bool {
        self.hides()
    }

    /// Runs the command with the fault and judges; whether the fault came about.
    pub(crate) async fn try_on(&self, world: &World, base: &Base, verb: &Verb, reference: &Ran) -> bool {
        let what = format!("{}: {:?}, stopped by {:?}", verb.name, self.fault, self.stop);
        let _trying = Trying(what.clone());
        let judge = Judge { world, base, what };
        let objects_before = base.start(verb);
        let made = world.store_of(objects_before).await;
        let store = made.sink.clone();
        let recording = RecordingSink::over(store.clone());
        let below: Arc<dyn Sink> = Arc::new(recording.clone());
        let failing = FailingSink::over(below, [self.fault.clone()]);
        let to = world.scratch();
        let mut arguments = [made.arguments(), verb.arguments(Some(&to))].concat();
        if !verb.reads() && verb.does != Does::Init {
            arguments.insert(0, "--json".to_owned());
        }
        let ran = world.run_until(Arc::new(failing.clone()), &arguments, failing.ended(), self.stop).await;
        let struck = failing.struck() > 0;
        // What is cut short is damaged; and a key slot that comes after the next creation of the repository is none of its own.
        let late = verb.does == Does::Init && self.settling == Settling::AfterTheNextRun;
        let breaks = self.operation == Operation::Put && (self.manner == Manner::CutShort || late);
        let broken = if breaks { failing.struck_at() } else { Vec::new() };
        let probed = failing.struck_at().iter().any(|key| key.starts_with("control/probe"));
        failing.set_faults([]);
        self.check_exit(verb, &ran, struck, probed, &judge.what);
        if self.settling == Settling::Before {
            failing.settle().await;
        }
        let deletes =
            ["init", "repair bad index", "repair index", "key remove", "check", "prune"].contains(&verb.name);
        let before: BTreeSet<String> = objects_before.keys().map(ToString::to_string).collect();
        let deleted = deleted(&recording, &before, &keys_of(&*store).await);
        assert!(deletes || deleted.is_empty(), "{}: {deleted:?} were deleted", judge.what);
        // What was its process's last call ends the sink: the next process has another.
        if verb.reads() {
            self.check_reading(verb, &ran, reference, &judge, to.path());
            assert_eq!(objects(&*store).await, *objects_before, "{}: the store was changed", judge.what);
        } else {
            let held = objects(&*store).await;
            if held != *objects_before {
                self.check_store(verb, &ran, &judge, &store, held, &broken).await;
            }
        }
        self.check_next(verb, &judge, &made, &failing, reference, &broken).await;
        made.remove().await;
        struck
    }

    pub(crate) fn check_exit(&self, verb: &Verb, ran: &Ran, struck: bool, probed: bool, what: &str) {
        let stopped = matches!(self.manner, Manner::Last { .. }) && struck;
        match ran.exit {
            None => assert!(stopped && self.stop == Stop::Drop, "{what}: {ran:?}"),
            // Cancelled, and told so; or it was done in the same moment.
            Some(_) if stopped => {}
            Some(Exit::Usage) => panic!("{what}: a fault of the store is taken for wrong usage: {ran:?}"),
            Some(Exit::Nothing) => {
                let listing = self.operation == Operation::List;
                assert!(listing && self.hides(), "{what}: {ran:?}");
            }
            Some(Exit::NotFetched) => panic!("{what}: nothing of a log was asked for: {ran:?}"),
            Some(Exit::Done | Exit::Partial | Exit::Failed) => {}
        }
        assert!(!ran.err.contains("panicked"), "{what}: {ran:?}");
        let out = String::from_utf8_lossy(&ran.out);
        assert!(!out.contains("panicked") && !out.contains("\"internal\""), "{what}: {ran:?}");
        // A repeated request is everyday life, and no failure. Only a probe asks who created what.
        if self.manner == Manner::Repeated && !probed {
            assert_eq!(ran.exit, Some(verb.ends()), "{what}: {ran:?}");
        }
        // What fails is said.
        if matches!(self.manner, Manner::Before) && struck && ran.exit == Some(Exit::Failed) {
            let said = ran.err.contains("failed on purpose") || out.contains("failed on purpose");
            assert!(said, "{what}: {ran:?}");
        }
    }

    /// Whether the store hides objects that are there, which nobody can notice.
    fn hides(&self) -> bool {
        self.operation == Operation::List && matches!(self.manner, Manner::CutShort | Manner::Stale { .. })
    }

    /// Whether something is read, listed or stored in part.
    pub(crate) fn in_part(&self) -> bool {
        matches!(self.manner, Manner::CutShort | Manner::Stale { .. })
    }

    fn check_reading(
        &self,
        verb: &Verb,
        ran: &Ran,
        reference: &Ran,
        judge: &Judge<'_>,
        to: &std::path::Path,
    ) {
        if ran.exit != Some(Exit::Done) || self.hides() {
            return;
        }
        let what = &judge.what;
        match verb.does {
            Does::Prints => {
                let (out, expected) =
                    (String::from_utf8_lossy(&ran.out), String::from_utf8_lossy(&reference.out));
                assert!(out == expected, "{what}: it says `{out:.500}` instead of `{expected:.500}`");
            }
            Does::Restores => {
                let id = &verb.arguments[1];
                judge.assert_same(id, &judge.below(to), &judge.base.snapshots[id]);
            }
            _ => {}
        }
    }

    async fn check_store(
        &self,
        verb: &Verb,
        ran: &Ran,
        judge: &Judge<'_>,
        store: &Arc<dyn Sink>,
        held: Objects,
        broken: &[String],
    ) {
        let what = &judge.what;
        if verb.does == Does::Init {
            let config = ObjectKey::new("config").unwrap();
            if broken.contains(&config.to_string()) {
                // Half a configuration is no repository, and nobody can tell what it was to become.
                assert_ne!(ran.exit, Some(Exit::Done), "{what}: {ran:?}");
                store.delete(&config).await.unwrap();
                return;
            }
            if !held.contains_key(&config) {
                assert_ne!(ran.exit, Some(Exit::Done), "{what}: {ran:?}");
                return;
            }
        }
        if verb.does == Does::Mends {
            judge.is_repaired(&held, ran, broken, self.in_part(), false).await;
            return;
        }
        // Also before what is damaged is removed, which nobody can do at once; and the next run finds it there.
        judge.restores(&copy_of(&held).await, &judge.base.snapshots).await;
        let mut broken = broken.to_vec();
        // Of what was read or listed in part a repair takes less into the index. It is found nevertheless, but slowly.
        let in_part = self.in_part();
        if verb.on == State::Ailing && (in_part || ran.exit != Some(Exit::Done)) {
            broken.extend_from_slice(&judge.base.ails);
        } else if verb.name == "repair index" && in_part {
            broken.push(INDEX.to_owned());
        }
        let copy = copy_of(&held).await;
        if judge.is_whole(&copy, &broken).await {
            judge.new_restore(&copy, &acknowledged(ran)).await;
        } else {
            judge.all_restore(&copy, &acknowledged(ran)).await;
        }
    }

    /// The same command once more, in another process and without faults.
    async fn check_next(
        &self,
        verb: &Verb,
        judge: &Judge<'_>,
        store: &Store,
        failing: &FailingSink<dyn Sink>,
        reference: &Ran,
        broken: &[String],
    ) {
        let what = &judge.what;
        let to = judge.world.scratch();
        let arguments = [store.arguments(), verb.arguments(Some(&to))].concat();
        let next = judge.world.run(store.sink.clone(), &arguments).await;
        if self.settling == Settling::AfterTheNextRun {
            failing.settle().await;
        }
        let half_there =
            |under: &'static str| broken.iter().map(String::as_str).filter(move |key| key.starts_with(under));
        match (verb.does, next.exit) {
            // It was created, although nobody was told.
            (Does::Init, Some(Exit::Failed)) => {
                assert!(next.err.contains("already"), "{what}: {next:?}");
            }
            // It was removed, although nobody was told.
            (Does::Writes, Some(Exit::Nothing)) => {
                assert!(["key remove", "forget", "undelete"].contains(&verb.name), "{what}: {next:?}");
            }
            // What says what is condemned or forgotten is half there: that is noticed, and nothing is deleted.
            (Does::Writes, Some(Exit::Failed | Exit::Partial)) if half_there("control/").next().is_some() => {
                assert!(["prune", "forget", "undelete", "hold"].contains(&verb.name), "{what}: {next:?}");
            }
            // Or what says where things are: a collection names it and waits until the index is repaired.
            (Does::Writes, Some(Exit::Partial)) if half_there("index/").next().is_some() => {
                assert_eq!(verb.name, "prune", "{what}: {next:?}");
                assert!(
                    half_there("index/").any(|key| String::from_utf8_lossy(&next.out).contains(key)),
                    "{what}: {next:?}"
                );
            }
            // What was stored again before is not reported.
            (Does::Mends, Some(Exit::Partial)) => {}
            _ => assert_eq!(next.exit, Some(Exit::Done), "{what}: {next:?}"),
        }
        match verb.does {
            Does::Prints => assert_eq!(next.out, reference.out, "{what}"),
            Does::Measures | Does::Restores => {}
            Does::Mends => {
                judge.is_repaired(&objects(&*store.sink).await, &next, broken, self.in_part(), true).await;
            }
            _ => {
                let copy = copy_of(&objects(&*store.sink).await).await;
                judge.is_whole(&copy, broken).await;
                judge.all_restore(&copy, &acknowledged(&next)).await;
            }
        }
    }
}

/// Says what was being tried when something panicked that does not know.
pub(crate) struct Trying(pub(crate) String);

impl Drop for Trying {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("while this was tried: {}", self.0);
        }
    }
}
