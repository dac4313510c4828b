//! Everything at once on one S3 server: eight writers, two collectors, somebody who forgets and undeletes, readers, a verifier.
//! Their processes are killed and stopped, their clocks are off by up to a day, answers of the store are lost, late or
//! stalled. Nothing that was acknowledged may be lost, and when all is quiet nothing unreachable is left.
//!
//! Five minutes; an hour with `BACKUP_LONG=1`; other times with `BACKUP_CHAOS_SECONDS`. The store's clock runs twenty times as
//! fast as the writers', so that a process that is stopped for two minutes is taken for dead, and finds that out when it
//! goes on. `BACKUP_CHAOS_SEED` repeats the choices of a run, though not their order in time.
#![cfg(feature = "s3")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod book;
#[path = "../common/mod.rs"]
mod common;
mod people;
mod quiet;
#[path = "../../../../backup-sinks/tests/common/mod.rs"]
mod stores;
mod world;

use std::thread;
use std::time::Duration;

use people::{collect, forget, read, verify, write};
use stores::proxy::{Plan, Proxy};
use stores::server::Server;
use world::{World, faketime};

const WRITERS: u64 = 8;
const COLLECTORS: u64 = 2;
const READERS: u64 = 2;
/// How much faster the store's clock runs.
const STORE_SPEED: u32 = 20;
/// One in so many requests goes wrong.
const FAULT_EVERY: usize = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_at_once_nothing_acknowledged_is_lost_and_nothing_unreachable_stays() {
    let clock = [("LD_PRELOAD", faketime()), ("FAKETIME", format!("+0 x{STORE_SPEED}"))];
    let server = Server::moto_with(&clock).await;
    let proxy = Proxy::start(server.address, Plan::InTurn(FAULT_EVERY)).await;
    let world = World::new(proxy.address);
    println!("seed {}, {:?}", world.seed, world.time);
    world.run_well(&["init"]).await;

    let run = {
        let world = world.clone();
        tokio::task::spawn_blocking(move || {
            thread::scope(|scope| {
                for number in 0..WRITERS {
                    scope.spawn({
                        let world = &world;
                        move || write(world, number)
                    });
                }
                for number in 0..COLLECTORS {
                    scope.spawn({
                        let world = &world;
                        move || collect(world, number)
                    });
                }
                for number in 0..READERS {
                    scope.spawn({
                        let world = &world;
                        move || read(world, number)
                    });
                }
                scope.spawn(|| forget(&world));
                scope.spawn(|| verify(&world));
            });
        })
    };
    run.await.unwrap();
    println!("{}\nfaults of the store: {:?}", world.book.summary(), proxy.struck());
    world.assert_no_failures();
    world.book.assert_something_happened(world.time >= Duration::from_secs(300));

    quiet::assert_all_is_well(&world, server.address).await;
}
