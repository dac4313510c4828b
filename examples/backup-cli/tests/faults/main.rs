//! Every single fault: each command that touches a repository is run once for each of its calls to the store and each
//! manner in which that call can go wrong, once or from then on. Whatever happens, the command ends in a way that is
//! documented, what was acknowledged restores byte for byte, the repository verifies clean at the level of contents, and the
//! same command succeeds afterwards. [`pairs`] and [`random`] have several faults in a history of several commands.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod cached;
#[path = "../common/mod.rs"]
mod common;
mod judge;
mod pairs;
mod point;
mod random;
#[cfg(feature = "s3")]
mod remote;
mod repaired;
mod schedule;
#[cfg(feature = "s3")]
#[path = "../../../../backup-sinks/tests/common/mod.rs"]
mod servers;
mod stores;
mod two;
mod verbs;
mod world;

use std::collections::{BTreeMap, HashMap};
use std::mem::discriminant;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use backup_core::Sink;
use backup_core::testing::{Operation, RecordingSink};
use futures_util::StreamExt;
use futures_util::stream;

use crate::point::{Point, points_of};
use crate::stores::{in_a_directory, in_memory};
use crate::verbs::{Base, Does, Verb};
use crate::world::{CHUNKS, Objects, Ran, World};

/// Points tried at once.
const AT_ONCE: usize = 3;

const OPERATIONS: [Operation; 4] = [Operation::Put, Operation::Get, Operation::List, Operation::Delete];

/// What was tried.
#[derive(Default)]
struct Tried {
    points: usize,
    /// How many of the faults came about.
    struck: usize,
}

/// Runs a command without a fault; what it did, and how many calls of each kind it made.
async fn reference(world: &World, verb: &Verb, objects: &Objects) -> (Ran, BTreeMap<&'static str, u64>) {
    let store = world.store_of(objects).await;
    let recording = RecordingSink::over(store.sink.clone());
    let to = world.scratch();
    let arguments = [store.arguments(), verb.arguments(Some(&to))].concat();
    let ran = world.run(Arc::new(recording.clone()), &arguments).await;
    assert_eq!(ran.exit, Some(verb.ends()), "{}: {ran:?}", verb.name);
    let counts = OPERATIONS.map(|operation| (name_of(operation), recording.count(operation) as u64));
    if store.copies.is_some() {
        let without = world.store_of(objects).await;
        let direct = RecordingSink::over(without.sink.clone());
        let to = world.scratch();
        let expected = world.run(Arc::new(direct.clone()), &verb.arguments(Some(&to))).await;
        assert_eq!(ran.exit, expected.exit, "{}", verb.name);
        if verb.does == Does::Prints {
            assert_eq!(ran.out, expected.out, "{}: copies make a difference", verb.name);
        }
        // What decides, and may be another next time, is asked of the store itself each time.
        assert_eq!(asked(&recording), asked(&direct), "{}: it trusted copies", verb.name);
    }
    store.remove().await;
    (ran, counts.into())
}

/// The listings, and the reads of what must not come from a copy.
fn asked<S: Sink + ?Sized>(recording: &RecordingSink<S>) -> BTreeMap<String, usize> {
    let mut asked = BTreeMap::new();
    for call in recording.calls() {
        let copied = ["index/", "meta/", "snapshots/"].iter().any(|kept| call.key.starts_with(kept));
        if call.operation == Operation::List || (call.operation == Operation::Get && !copied) {
            // The names of sessions and probes are drawn each time.
            let kind = match call.key.starts_with("control/probe") {
                true => "control/probe".to_owned(),
                false => call.key.split('/').take(2).collect::<Vec<_>>().join("/"),
            };
            let asked: &mut usize = asked.entry(format!("{:?} {kind}", call.operation)).or_default();
            // How many reads a pack takes depends on what is wanted of it at once.
            *asked = if kind.starts_with("data/") { 1 } else { *asked + 1 };
        }
    }
    asked
}

fn name_of(operation: Operation) -> &'static str {
    match operation {
        Operation::Put => "put",
        Operation::Get => "get",
        Operation::List => "list",
        Operation::Delete => "delete",
    }
}

/// Tries one in so many points of these commands, of each manner the first among them.
async fn try_all(world: &World, base: &Base, verbs: &[Verb], one_in: usize) -> Tried {
    let mut tried = Tried::default();
    // The sample goes on from command to command, so that it does not begin with the same points in each.
    let mut seen = HashMap::<_, usize>::new();
    for verb in verbs {
        let started = Instant::now();
        let (reference, counts) = reference(world, verb, base.start(verb)).await;
        let points =
            OPERATIONS.into_iter().flat_map(|operation| points_of(operation, counts[name_of(operation)]));
        // What deletes relies upon listings; of a store that hides objects nothing can be said.
        let deletes = verb.name.starts_with("prune");
        let points = points.filter(|point| !(deletes && point.breaks_listings()));
        let points = points.filter(|point| {
            let seen = seen.entry(discriminant(&point.manner())).or_default();
            *seen += 1;
            (*seen - 1).is_multiple_of(one_in)
        });
        let points: Vec<Point> = points.collect();
        let count = points.len();
        let reference = &reference;
        let tries =
            points.into_iter().map(|point| async move { point.try_on(world, base, verb, reference).await });
        let struck =
            stream::iter(tries).buffer_unordered(AT_ONCE).filter(|struck| std::future::ready(*struck));
        let struck = struck.count().await;
        println!("{:16} {counts:?}: {count} points, {struck} struck, {:.1?}", verb.name, started.elapsed());
        // Calls that were counted without a fault may not all come about once something went wrong before.
        assert!(struck * 10 >= count * 9, "{}: only {struck} of {count} faults came about", verb.name);
        tried.points += count;
        tried.struck += struck;
    }
    println!("{} points, {} faults came about", tried.points, tried.struck);
    tried
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_of_a_command_that_writes_harms_what_was_acknowledged() {
    let world = World::new(in_memory);
    let base = Base::make(&world).await;
    let verbs: Vec<Verb> = base.verbs.iter().filter(|verb| !verb.reads()).cloned().collect();
    let (mending, verbs): (Vec<Verb>, Vec<Verb>) =
        verbs.into_iter().partition(|verb| verb.does == Does::Mends);
    let tried = try_all(&world, &base, &verbs, 1).await;
    assert!(tried.points > 500);
    // It reads everything several times: each of these calls with `BACKUP_LONG=1`, else one in a few.
    let tried = try_all(&world, &base, &mending, if long() { 1 } else { 13 }).await;
    assert!(tried.points > 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_makes_a_command_that_reads_say_what_is_not_so() {
    let world = World::new(in_memory);
    let base = Base::make(&world).await;
    let verbs: Vec<Verb> = base.verbs.iter().filter(|verb| verb.reads()).cloned().collect();
    let tried = try_all(&world, &base, &verbs, 1).await;
    assert!(tried.points > 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_of_init_leaves_what_the_next_one_cannot_finish() {
    let world = World::new(in_memory);
    let (base, verbs) = init(&world, Base::make(&world).await);
    let tried = try_all(&world, &base, &verbs, 1).await;
    assert!(tried.points > 50);
}

/// Every point with `BACKUP_LONG=1`, else one in seven of each manner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_of_a_local_store_harms_what_was_acknowledged() {
    let world = World::new(in_a_directory);
    let base = Base::make(&world).await;
    let tried = try_all(&world, &base, &base.verbs, if long() { 1 } else { 7 }).await;
    assert!(tried.points > 300);
}

/// Forgetting, taking back, holding, collecting. Every point with `BACKUP_LONG=1`, else one in three of each manner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_in_the_life_of_a_repository_harms_what_is_kept() {
    let world = World::new(in_memory);
    let mut points = 0;
    for base in Base::lives(&world).await {
        points += try_all(&world, &base, &base.verbs, if long() { 1 } else { 3 }).await.points;
    }
    assert!(points > 200, "{points}");
}

/// The creation of a repository, which starts from nothing.
fn init(world: &World, mut base: Base) -> (Base, Vec<Verb>) {
    base.snapshots.clear();
    let other = format!("key-file:{}", world.path("other").display());
    (base, vec![Verb::new("init", Does::Init, &["init", "--chunk", CHUNKS, "--recipient", &other])])
}

/// Whether everything is to be tried, however long it takes.
fn long() -> bool {
    std::env::var_os("BACKUP_LONG").is_some_and(|value| value == "1")
}

/// Runs work on threads, each with a runtime of its own, and gives their results.
fn on_threads<'a, T: Send>(
    threads: usize,
    work: impl Fn(usize) -> Pin<Box<dyn Future<Output = T> + 'a>> + Sync,
) -> Vec<T> {
    let run = |thread| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap().block_on(work(thread))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
