//! Every single fault: each command that touches a repository is run once for each of its calls to the store and each
//! manner in which that call can go wrong, once or from then on. Whatever happens, the command ends in a way that is
//! documented, what was acknowledged restores byte for byte, the repository verifies clean at the level of contents, and the
//! same command succeeds afterwards.

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
mod point;
mod verbs;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::testing::{Operation, RecordingSink};
use futures_util::StreamExt;
use futures_util::stream;

use crate::point::{Point, points_of};
use crate::verbs::{Base, Does, Verb};
use crate::world::{CHUNKS, Objects, Ran, World, store_of};

/// Points tried at once.
const AT_ONCE: usize = 3;

const OPERATIONS: [Operation; 4] = [Operation::Put, Operation::Get, Operation::List, Operation::Delete];

/// Runs a command without a fault; what it did, and how many calls of each kind it made.
async fn reference(world: &World, verb: &Verb, objects: &Objects) -> (Ran, BTreeMap<&'static str, u64>) {
    let recording = RecordingSink::new(store_of(objects).await);
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

/// Tries every point of these commands; how many there were, and of how many the fault came about.
async fn try_all(world: &World, base: &Base, verbs: &[Verb]) -> (usize, usize) {
    let (mut total, mut total_struck) = (0, 0);
    for verb in verbs {
        let started = std::time::Instant::now();
        let (reference, counts) = reference(world, verb, base.start(verb)).await;
        let points: Vec<Point> = OPERATIONS
            .into_iter()
            .flat_map(|operation| points_of(operation, counts[name_of(operation)]))
            .collect();
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
    let world = World::new();
    let base = Base::make(&world).await;
    let verbs: Vec<Verb> = base.verbs.iter().filter(|verb| !verb.reads()).cloned().collect();
    let (points, _) = try_all(&world, &base, &verbs).await;
    assert!(points > 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_makes_a_command_that_reads_say_what_is_not_so() {
    let world = World::new();
    let base = Base::make(&world).await;
    let verbs: Vec<Verb> = base.verbs.iter().filter(|verb| verb.reads()).cloned().collect();
    let (points, _) = try_all(&world, &base, &verbs).await;
    assert!(points > 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_of_init_leaves_what_the_next_one_cannot_finish() {
    let world = World::new();
    let mut base = Base::make(&world).await;
    base.snapshots.clear();
    let other = format!("key-file:{}", world.path("other").display());
    let init = Verb::new("init", Does::Init, &["init", "--chunk", CHUNKS, "--recipient", &other]);
    let (points, _) = try_all(&world, &base, &[init]).await;
    assert!(points > 50);
}
