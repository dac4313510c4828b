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

#[path = "../common/mod.rs"]
mod common;
mod judge;
mod pairs;
mod point;
mod random;
mod schedule;
mod stores;
mod verbs;
mod world;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

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

/// Runs a command without a fault; what it did, and how many calls of each kind it made.
async fn reference(world: &World, verb: &Verb, objects: &Objects) -> (Ran, BTreeMap<&'static str, u64>) {
    let store = world.store_of(objects).await;
    let recording = RecordingSink::over(store.sink.clone());
    let to = world.scratch();
    let ran = world.run(Arc::new(recording.clone()), &verb.arguments(Some(&to))).await;
    assert_eq!(ran.exit, Some(backup_cli::exit::Exit::Done), "{}: {ran:?}", verb.name);
    let counts = OPERATIONS.map(|operation| (name_of(operation), recording.count(operation) as u64));
    (ran, counts.into())
}

fn name_of(operation: Operation) -> &'static str {
    match operation {
        Operation::Put => "put",
        Operation::Get => "get",
        Operation::List => "list",
        Operation::Delete => "delete",
    }
}

/// Tries one in so many points of these commands; how many that are, and of how many the fault came about.
async fn try_all(world: &World, base: &Base, verbs: &[Verb], one_in: usize) -> (usize, usize) {
    let (mut total, mut total_struck) = (0, 0);
    for verb in verbs {
        let started = std::time::Instant::now();
        let (reference, counts) = reference(world, verb, base.start(verb)).await;
        let points =
            OPERATIONS.into_iter().flat_map(|operation| points_of(operation, counts[name_of(operation)]));
        let points: Vec<Point> = points.step_by(one_in).collect();
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
        total += count;
        total_struck += struck;
    }
    println!("{total} points, {total_struck} faults came about");
    (total, total_struck)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_of_a_command_that_writes_harms_what_was_acknowledged() {
    let world = World::new(in_memory);
    let base = Base::make(&world).await;
    let verbs: Vec<Verb> = base.verbs.iter().filter(|verb| !verb.reads()).cloned().collect();
    let (points, _) = try_all(&world, &base, &verbs, 1).await;
    assert!(points > 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_makes_a_command_that_reads_say_what_is_not_so() {
    let world = World::new(in_memory);
    let base = Base::make(&world).await;
    let verbs: Vec<Verb> = base.verbs.iter().filter(|verb| verb.reads()).cloned().collect();
    let (points, _) = try_all(&world, &base, &verbs, 1).await;
    assert!(points > 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_of_init_leaves_what_the_next_one_cannot_finish() {
    let world = World::new(in_memory);
    let mut base = Base::make(&world).await;
    base.snapshots.clear();
    let other = format!("key-file:{}", world.path("other").display());
    let init = Verb::new("init", Does::Init, &["init", "--chunk", CHUNKS, "--recipient", &other]);
    let (points, _) = try_all(&world, &base, &[init], 1).await;
    assert!(points > 50);
}

/// Every point with `BACKUP_LONG=1`, else one in seven of each command: calls of a kind have 6, 9 or 15 manners or fewer, so that
/// each manner and each call is met.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_of_a_local_store_harms_what_was_acknowledged() {
    let world = World::new(in_a_directory);
    let base = Base::make(&world).await;
    let (points, _) = try_all(&world, &base, &base.verbs, if long() { 1 } else { 7 }).await;
    assert!(points > 300);
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
