//! Single faults of the commands that bring something from one store to another, in either of them. Whatever happens, both
//! keep what they held, what was reported is there byte for byte, the next run brings the rest, and two collections leave
//! nothing that nobody needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::discriminant;
use std::sync::Arc;
use std::time::Instant;

use backup_cli::exit::Exit;
use backup_core::testing::{FailingSink, Manner, Operation, RecordingSink};
use backup_core::{ObjectKey, Sink};
use backup_sinks::MemorySink;
use futures_util::{StreamExt, stream};
use serde_json::Value;

use crate::judge::{INDEX, Judge, deleted, keys_of};
use crate::point::{Point, Settling, Trying, points_of};
use crate::repaired::{names, with_links};
use crate::stores::{Store, in_memory};
use crate::verbs::{Base, Does, Verb, text};
use crate::world::{CHUNKS, Objects, Ran, Restored, Stop, World, copy_of, objects, tree_of};
use crate::{AT_ONCE, OPERATIONS, long};

/// Without `BACKUP_LONG=1`, one in so many points of each manner is tried; a prime, so that it goes through all calls.
const ONE_IN: usize = 7;

const SYNC: [&str; 4] = ["--repo", "main", "places", "sync"];

/// How often a command may have to be run until it has nothing left to do.
const RUNS_MAX: usize = 3;

/// What one of the two stores is to a command.
#[derive(Debug, Clone, Default)]
struct Side {
    before: Objects,
    /// The snapshots that it can restore alone before, by the name of the first of which each is a copy.
    held: BTreeSet<String>,
    /// The same when the command is done.
    brought: BTreeSet<String>,
    /// What is damaged there before, as `verify` calls it.
    ails: Vec<String>,
    /// Whether the command only reads it.
    is_read: bool,
}

/// A command on two stores.
#[derive(Debug, Clone)]
struct Between {
    verb: Verb,
    sides: [Side; 2],
    /// What each snapshot must restore to.
    contents: BTreeMap<String, Restored>,
}

impl Between {
    /// Into another repository, which has a copy of the first snapshot and one of its own.
    async fn copy(world: &World) -> Self {
        let (here, there) = (MemorySink::new(), MemorySink::new());
        let mut contents = BTreeMap::new();
        let tree = world.path("tree").display().to_string();
        world.ok(&here, &["init", "--chunk", CHUNKS]).await;
        world.ok(&there, &["init", "--chunk", "1KiB,2KiB,8KiB"]).await;
        create(world, &there, &["files", &tree], &mut contents).await;
        create(world, &here, &["command", "--name", "said", "--", "echo", "said"], &mut contents).await;
        let copy = ["--repo", "alone", "copy", "--to", "second"];
        ok(world, [&here, &there], &copy).await;
        for version in [1, 2] {
            world.grow_tree(version);
            create(world, &here, &["files", &tree], &mut contents).await;
        }
        let [mut here, mut there] = [side(world, &here).await, side(world, &there).await];
        here.brought.clone_from(&here.held);
        here.is_read = true;
        there.brought = contents.keys().cloned().collect();
        Self { verb: Verb::new("copy", Does::Writes, &copy), sides: [here, there], contents }
    }

    /// Between two places, each of which has what the other lacks: some of it in packs of their own, some nowhere else.
    async fn sync(world: &World) -> Self {
        let (here, there) = (MemorySink::new(), MemorySink::new());
        let mut contents = BTreeMap::new();
        let tree = world.path("tree").display().to_string();
        world.grow_tree(1);
        world.ok(&here, &["init", "--chunk", CHUNKS]).await;
        ok(world, [&here, &there], &[&SYNC[..], &["--create"]].concat()).await;
        for sink in [&here, &there] {
            create(world, sink, &["files", &tree], &mut contents).await;
        }
        create(world, &there, &["command", "--name", "said", "--", "echo", "said"], &mut contents).await;
        world.grow_tree(2);
        create(world, &here, &["files", &tree], &mut contents).await;
        let mut sides = [side(world, &here).await, side(world, &there).await];
        for side in &mut sides {
            side.brought = contents.keys().cloned().collect();
        }
        Self { verb: Verb::new("places sync", Does::Writes, &SYNC), sides, contents }
    }

    /// Into a place that the command makes.
    async fn new_place(world: &World) -> Self {
        let here = MemorySink::new();
        let mut contents = BTreeMap::new();
        let tree = world.path("tree").display().to_string();
        world.ok(&here, &["init", "--chunk", CHUNKS]).await;
        create(world, &here, &["command", "--name", "said", "--", "echo", "said"], &mut contents).await;
        for version in [1, 2] {
            world.grow_tree(version);
            create(world, &here, &["files", &tree], &mut contents).await;
        }
        let here = side(world, &here).await;
        let all: BTreeSet<String> = contents.keys().cloned().collect();
        let here = Side { brought: all.clone(), ..here };
        let there = Side { brought: all, ..Side::default() };
        let verb = Verb::new("places sync --create", Does::Writes, &[&SYNC[..], &["--create"]].concat());
        Self { verb, sides: [here, there], contents }
    }

    /// Two places with the same snapshots. In the first one, packs are damaged which the other has, and some which it has not, but
    /// what is in them; one is gone, and a snapshot and a part of the index are damaged.
    async fn heal(world: &World) -> Self {
        let Self { verb, sides: [here, there], contents } = Self::sync(world).await;
        let (here, there) = (copy_of(&here.before).await, copy_of(&there.before).await);
        ok(world, [&here, &there], &verb.arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let [here, there] = [objects(&here).await, objects(&there).await];
        let mut before = here.clone();
        let mut hurt = |key: &ObjectKey| {
            let mut bytes = here[key].to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            before.insert(key.clone(), bytes.into());
        };
        let below = |prefix: &str, in_both: bool| {
            let in_prefix = here.keys().filter(|key| key.as_str().starts_with(prefix));
            in_prefix.filter(|key| there.contains_key(key) == in_both).cloned().collect::<Vec<_>>()
        };
        let [in_both, only_here] = [true, false].map(|in_both| below("data/", in_both));
        assert!(!in_both.is_empty() && !only_here.is_empty(), "{in_both:?} {only_here:?}");
        hurt(&in_both[0]);
        hurt(&only_here[0]);
        hurt(&below("snapshots/", true)[0]);
        hurt(&below("index/", false)[0]);
        before.remove(&below("meta/", true)[0]);
        let [mut here, mut there] =
            [side(world, &copy_of(&before).await).await, side(world, &copy_of(&there).await).await];
        assert!(here.ails.len() > 3 && there.ails.is_empty(), "{here:?}");
        here.brought = contents.keys().cloned().collect();
        there.brought.clone_from(&there.held);
        there.is_read = true;
        let verb = Verb::new("repair packs", Does::Writes, &["--repo", "main", "repair", "packs"]);
        Self { verb, sides: [here, there], contents }
    }

    /// Runs the command without a fault; the calls that it makes of each store.
    async fn calls(&self, world: &World) -> [Vec<(Operation, u64)>; 2] {
        let stores = self.stores(world).await;
        let recording = [0, 1].map(|side: usize| Arc::new(RecordingSink::over(stores[side].sink.clone())));
        let sinks = recording.iter().map(|sink| sink.clone() as Arc<dyn Sink>).collect();
        let ran = run(world, sinks, &self.verb.arguments).await;
        assert_eq!(ran.exit, Some(Exit::Done), "{}: {ran:?}", self.verb.name);
        let trying = Trial { between: self, world, what: self.verb.name.to_owned(), in_part: false };
        let held = held(&stores).await;
        trying.holds(&held, &ran, [&[], &[]], true).await;
        trying.is_collected(&held).await;
        recording.map(|sink| OPERATIONS.map(|operation| (operation, sink.count(operation) as u64)).to_vec())
    }

    async fn stores(&self, world: &World) -> [Store; 2] {
        [world.store_of(&self.sides[0].before).await, world.store_of(&self.sides[1].before).await]
    }

    /// Whether it deletes what relies upon listings being whole, of which nothing can be said in a store that hides objects.
    fn deletes_in(&self, side: usize) -> bool {
        self.verb.name == "repair packs" && side == 0
    }
}

/// A try of a command, and what must be so afterwards.
struct Trial<'a> {
    between: &'a Between,
    world: &'a World,
    what: String,
    /// Whether something was read or listed in part, which a copy then lacks, as it says.
    in_part: bool,
}

impl<'a> Trial<'a> {
    /// Runs the command with a fault in one of the stores; whether it came about.
    async fn of(between: &'a Between, world: &'a World, at: usize, point: &Point) -> bool {
        let verb = &between.verb;
        let store = ["the first", "the second"][at];
        let what = format!("{}: in {store}: {:?}, stopped by {:?}", verb.name, point.fault, point.stop);
        let _trying = Trying(what.clone());
        let trial = Self { between, world, what, in_part: point.in_part() };
        let what = &trial.what;
        let stores = between.stores(world).await;
        let recording = [0, 1].map(|side: usize| RecordingSink::over(stores[side].sink.clone()));
        let mut sinks = recording.clone().map(|sink| Arc::new(sink) as Arc<dyn Sink>);
        let failing = FailingSink::over(sinks[at].clone(), [point.fault.clone()]);
        sinks[at] = Arc::new(failing.clone());
        let arguments = [&["--json".to_owned()], &*verb.arguments].concat();
        let ran = world.run_on(sinks.to_vec(), &arguments, failing.ended(), point.stop).await;
        let struck = failing.struck() > 0;
        let half = point.operation == Operation::Put && point.manner() == Manner::CutShort;
        let mut broken = [Vec::new(), Vec::new()];
        broken[at] = if half { failing.struck_at() } else { Vec::new() };
        let probed = failing.struck_at().iter().any(|key| key.starts_with("control/probe"));
        failing.set_faults([]);
        point.check_exit(verb, &ran, struck, probed, what);
        if point.settling == Settling::Before {
            failing.settle().await;
        }
        let held_now = held(&stores).await;
        for (side, recording) in recording.iter().enumerate() {
            let of = &between.sides[side];
            assert!(!of.is_read || held_now[side] == of.before, "{what}: the store that is read has changed");
            let before: BTreeSet<String> = of.before.keys().map(ToString::to_string).collect();
            let deleted = deleted(recording, &before, &keys_of(&*stores[side].sink).await);
            // Segments that name what was damaged are merged without it. What is read in part is taken for damaged, and put again.
            let healed = |key: &String| {
                let heals = between.deletes_in(side) && (key.starts_with("index/") || point.in_part());
                // A new place is tried out before anything stands there.
                let probes = between.verb.name.ends_with("--create") && key.starts_with("control/probe-");
                of.ails.contains(key) || heals || probes
            };
            assert!(deleted.iter().all(healed), "{what}: {deleted:?} were deleted");
        }
        let done = ran.exit == Some(Exit::Done) && !point.in_part();
        trial.holds(&held_now, &ran, [&broken[0], &broken[1]], done).await;
        // What is half there the owner removes, after a run that finds it there.
        let mut runs = 0;
        loop {
            let next =
                run(world, stores.each_ref().map(|store| store.sink.clone()).to_vec(), &verb.arguments).await;
            runs += 1;
            if runs == 1 && point.settling == Settling::AfterTheNextRun {
                failing.settle().await;
            }
            let is_broken = broken.iter().any(|broken| !broken.is_empty());
            let may_fail = is_broken && runs < RUNS_MAX;
            assert!(next.exit == Some(Exit::Done) || may_fail, "{what}: run {runs} after it: {next:?}");
            if verb.name == "repair packs" {
                // A snapshot's object is deleted before the right one is put. In between nobody knows of it here, but elsewhere.
                // And what an interrupted healing left in the index may take another one.
                for again in [&SYNC[..], &["--repo", "main", "repair", "packs"]] {
                    let sinks = stores.each_ref().map(|store| store.sink.clone()).to_vec();
                    let again: Vec<String> = again.iter().map(|text| (*text).to_owned()).collect();
                    let ran = run(world, sinks, &again).await;
                    assert!(ran.exit == Some(Exit::Done) || may_fail, "{what}: {again:?} after it: {ran:?}");
                }
            }
            let held = held(&stores).await;
            trial.holds(&held, &next, [&broken[0], &broken[1]], !is_broken).await;
            if !is_broken {
                trial.is_collected(&held).await;
                break;
            }
            for (store, broken) in stores.iter().zip(&mut broken) {
                for key in std::mem::take(broken) {
                    store.sink.delete(&ObjectKey::new(&key).unwrap()).await.unwrap();
                }
            }
        }
        for store in stores {
            store.remove().await;
        }
        struck
    }

    /// Each store restores what it held, all that it shows, and what the run reported; if it is `done`, everything.
    async fn holds(&self, held: &[Objects; 2], ran: &Ran, broken: [&[String]; 2], done: bool) {
        for (side, (held, broken)) in held.iter().zip(broken).enumerate() {
            let of = &self.between.sides[side];
            if *held == of.before && !done {
                continue;
            }
            // A place is none before its parameters are there, whole, and its keys.
            let is_made = broken.is_empty() && held.keys().any(|key| key.as_str() == "config");
            if of.before.is_empty() && !is_made && !done {
                continue;
            }
            let sink = copy_of(held).await;
            if !broken.is_empty() {
                self.shows(side, &sink, &of.held).await;
            }
            if of.ails.is_empty() || done {
                self.judge().is_whole(&sink, broken).await;
            } else {
                self.ails_no_more(side, &sink, broken).await;
            }
            let wanted = if done { &of.brought } else { &of.held };
            let ids = self.shows(side, &sink, wanted).await;
            for id in reported(ran, side) {
                assert!(ids.contains(&id), "{}: {id} was reported and is not there", self.what);
            }
        }
    }

    /// Restores every snapshot that a store shows, among which these must be, as far as it is not damaged before. Their identities.
    async fn shows(&self, side: usize, sink: &MemorySink, wanted: &BTreeSet<String>) -> BTreeSet<String> {
        let (what, of) = (&self.what, &self.between.sides[side]);
        let (judge, list) = (self.judge(), self.world.ok_or_partial(sink, &["list"]).await);
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for info in list["snapshots"].as_array().unwrap() {
            let (id, name) = (text(&info["id"]), name_of(info));
            let (mut ran, mut restored) = judge.restore(sink, &id).await;
            // Of a damaged pack some can be read until it is deleted, for the right one to be put: it is elsewhere then.
            if ran.exit != Some(Exit::Done) && wanted.contains(&name) && !of.ails.is_empty() {
                (ran, restored) = self.restore_from_both(sink, &id).await;
            }
            let whole = ran.exit == Some(Exit::Done);
            assert!(whole || (!wanted.contains(&name) && !of.ails.is_empty()), "{what}: {id}: {ran:?}");
            if whole {
                self.is_right(info, &restored, &self.between.contents[&name]);
                names.insert(name);
            }
            ids.insert(id);
        }
        assert!(
            wanted.is_subset(&names),
            "{what}: in store {side}: {wanted:?} must be there, and {names:?} are"
        );
        ids
    }

    async fn restore_from_both(&self, sink: &MemorySink, id: &str) -> (Ran, Restored) {
        let other = copy_of(&self.between.sides[1].before).await;
        let to = self.world.scratch();
        let to_text = to.path().display().to_string();
        let arguments = ["--repo", "main", "restore", id, "--to", &to_text].map(str::to_owned);
        let ran = run(self.world, vec![Arc::new(sink.clone()), Arc::new(other)], &arguments).await;
        (ran, self.judge().below(to.path()))
    }

    /// What a snapshot restores to is what was backed up, but for what it says that it lacks.
    fn is_right(&self, info: &Value, restored: &Restored, whole: &Restored) {
        let (what, id) = (&self.what, text(&info["id"]));
        let skipped = with_links(&names(self.world, info["skipped"].as_array().map_or(&[], Vec::as_slice)));
        assert!(skipped.is_empty() || self.in_part, "{what}: {id} lacks {skipped:?}");
        // Of a page of entries that could not be read nobody knows the names.
        if skipped.contains("") {
            return;
        }
        let mut left = whole.clone();
        left.retain(|name, _| !skipped.contains(name));
        self.judge().assert_same(&id, restored, &left);
    }

    /// Nothing is damaged that was not so before.
    async fn ails_no_more(&self, side: usize, sink: &MemorySink, broken: &[String]) {
        let damaged = damaged(self.world, sink).await;
        let ails = &self.between.sides[side].ails;
        // What a damaged part of the index named may come to be needed.
        let lacks = |key: &str| key == INDEX && ails.iter().any(|key| key.starts_with("index/"));
        let known = |key: &String| ails.contains(key) || broken.contains(key) || lacks(key);
        assert!(damaged.iter().all(known), "{}: {damaged:?} are damaged", self.what);
    }

    /// Two collections leave nothing that nobody needs, and what is needed.
    async fn is_collected(&self, held: &[Objects; 2]) {
        for (side, held) in held.iter().enumerate() {
            let (sink, what) = (copy_of(held).await, &self.what);
            for _ in 0..2 {
                let report = self.world.ok(&sink, &["prune", "--wait", "0s", "--max-unused", "0%"]).await;
                assert_ne!(report["outcome"], "waiting", "{what}: {report:#}");
            }
            let planned = self.world.ok(&sink, &["prune", "--dry-run", "--max-unused", "0%"]).await;
            assert_eq!(planned["packs_unneeded"], 0, "{what}: {planned:#}");
            let left = keys_of(&sink).await;
            let packs =
                left.iter().filter(|key| key.starts_with("data/") || key.starts_with("meta/")).count();
            assert_eq!(planned["packs_kept"].as_u64(), Some(packs as u64), "{what}: {planned:#}: {left:?}");
            self.judge().is_whole(&sink, &[]).await;
            self.shows(side, &sink, &self.between.sides[side].brought).await;
        }
    }

    fn judge(&self) -> Judge<'_> {
        static NOTHING: std::sync::LazyLock<Base> = std::sync::LazyLock::new(Base::default);
        Judge { world: self.world, base: &NOTHING, what: self.what.clone() }
    }
}

/// The name by which a snapshot goes in both stores.
fn name_of(info: &Value) -> String {
    text(info["origin"].get("snapshot").unwrap_or(&info["id"]))
}

/// The snapshots that a run says it has brought to a store.
fn reported(ran: &Ran, side: usize) -> Vec<String> {
    let Ok(report) = serde_json::from_slice::<Value>(&ran.out) else { return Vec::new() };
    let (all, member) = match side {
        1 if report["copied"].is_array() => (&report["copied"], "copy"),
        _ => (&report["places"][side]["report"]["snapshots"], "replica"),
    };
    all.as_array().into_iter().flatten().map(|brought| text(&brought[member])).collect()
}

/// What a store holds, and what of it restores.
async fn side(world: &World, sink: &MemorySink) -> Side {
    let judge = Judge { world, base: &Base::default(), what: "before".to_owned() };
    let mut held = BTreeSet::new();
    for info in world.ok_or_partial(sink, &["list"]).await["snapshots"].as_array().unwrap() {
        let (ran, _) = judge.restore(sink, &text(&info["id"])).await;
        if ran.exit == Some(Exit::Done) {
            held.insert(name_of(info));
        }
    }
    Side { before: objects(sink).await, held, ails: damaged(world, sink).await, ..Side::default() }
}

/// What `verify` calls damaged.
async fn damaged(world: &World, sink: &MemorySink) -> Vec<String> {
    let report = world.ok_or_partial(sink, &["verify", "--level", "content"]).await;
    let objects = report["damaged_objects"].as_array().unwrap();
    objects.iter().map(|object| text(&object["object"])).collect()
}

/// Backs something up in one store, and remembers what it must restore to.
async fn create(world: &World, sink: &MemorySink, what: &[&str], contents: &mut BTreeMap<String, Restored>) {
    let report = world.ok(sink, &[&["create"], what].concat()).await;
    let tree = tree_of(&world.path("tree"));
    let content = if what[0] == "files" { tree } else { Base::default().expected("command") };
    contents.insert(text(&report["snapshot"]), content);
}

async fn held(stores: &[Store; 2]) -> [Objects; 2] {
    [objects(&*stores[0].sink).await, objects(&*stores[1].sink).await]
}

async fn run(world: &World, stores: Vec<Arc<dyn Sink>>, arguments: &[String]) -> Ran {
    let arguments = [&["--json".to_owned()], arguments].concat();
    world.run_on(stores, &arguments, std::future::pending(), Stop::Drop).await
}

async fn ok(world: &World, stores: [&MemorySink; 2], arguments: &[&str]) {
    let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    let ran =
        run(world, stores.map(|sink| Arc::new(sink.clone()) as Arc<dyn Sink>).to_vec(), &arguments).await;
    assert_eq!(ran.exit, Some(Exit::Done), "{arguments:?}: {ran:?}");
}

/// Whether a store gives only a part of all that is read: who replaces what is damaged takes everything there for it.
fn lies(point: &Point) -> bool {
    let for_ever = point.fault == point.fault.clone().from_then_on();
    for_ever && point.operation == Operation::Get && point.manner() == Manner::CutShort
}

/// Tries one in so many points of each manner in both stores.
async fn try_all(world: &World, between: &Between, one_in: usize) {
    let started = Instant::now();
    let calls = between.calls(world).await;
    let mut seen = HashMap::<_, usize>::new();
    let mut points = Vec::new();
    for (side, calls) in calls.iter().enumerate() {
        let all = calls.iter().flat_map(|(operation, count)| points_of(*operation, *count));
        let all = all.filter(|point| !(between.deletes_in(side) && (point.breaks_listings() || lies(point))));
        points.extend(all.map(|point| (side, point)).filter(|(_, point)| {
            let seen = seen.entry(discriminant(&point.manner())).or_default();
            *seen += 1;
            (*seen - 1).is_multiple_of(one_in)
        }));
    }
    let count = points.len();
    let tries =
        points.into_iter().map(|(side, point)| async move { Trial::of(between, world, side, &point).await });
    let struck = stream::iter(tries).buffer_unordered(AT_ONCE).filter(|struck| std::future::ready(*struck));
    let struck = struck.count().await;
    println!(
        "{:16} {calls:?}: {count} points, {struck} struck, {:.1?}",
        between.verb.name,
        started.elapsed()
    );
    assert!(struck * 10 >= count * 9, "{}: only {struck} of {count} faults came about", between.verb.name);
    assert!(count > 20, "{count}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_of_a_copy_harms_either_repository() {
    let world = World::new(in_memory);
    try_all(&world, &Between::copy(&world).await, if long() { 1 } else { ONE_IN }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_of_catching_up_harms_either_place() {
    let world = World::new(in_memory);
    try_all(&world, &Between::sync(&world).await, if long() { 1 } else { ONE_IN }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_of_making_a_place_harms_it_or_the_first() {
    let world = World::new(in_memory);
    try_all(&world, &Between::new_place(&world).await, if long() { 1 } else { ONE_IN }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_of_healing_harms_either_place() {
    let world = World::new(in_memory);
    try_all(&world, &Between::heal(&world).await, if long() { 1 } else { ONE_IN }).await;
}
