//! Single faults of a store of which commands keep copies on a local disk, as `--cache-dir` does.

use crate::stores::in_memory;
use crate::verbs::Base;
use crate::world::World;
use crate::{long, try_all};

/// Without `BACKUP_LONG=1`, one in so many points of each manner is tried; a prime, so that it goes through all calls.
const ONE_IN: usize = 29;

/// Nobody has read anything here before: what a fault spoils must not be kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_of_a_store_leaves_copies_that_harm() {
    let world = World::with_copies(in_memory);
    let base = Base::make(&world).await;
    let tried = try_all(&world, &base, &base.verbs, if long() { 1 } else { ONE_IN }).await;
    assert!(tried.points > 100);
}

/// Copies of everything that the store held before the command, also of what it has lost since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_make_no_single_fault_of_a_store_harmful() {
    let world = World::with_copies(in_memory);
    let base = Base::make(&world).await;
    world.read_all(&base).await;
    let tried = try_all(&world, &base, &base.verbs, if long() { 1 } else { ONE_IN }).await;
    assert!(tried.points > 100);
}
