//! Pairs of faults in the history: backup, backup, restore.

use std::sync::atomic::{AtomicUsize, Ordering};

use backup_core::testing::{Fault, Manner, Operation};

use crate::long;
use crate::schedule::{Act, Step, calls, try_schedule};
use crate::stores::in_memory;
use crate::verbs::Base;
use crate::world::World;

const ACTS: [Act; 3] = [Act::Tree(1), Act::Tree(2), Act::Restore];

/// Without `BACKUP_LONG=1`, one in so many pairs is tried; a prime, so that it goes through all calls and manners.
const ONE_IN: usize = 149;

/// Each happens once, in the manners below: those that go on for ever are left to the single faults and the random schedules.
const MANNERS: [Manner; 8] = [
    Manner::Before,
    Manner::AfterEffect,
    Manner::Late { calls: 2 },
    Manner::Late { calls: u64::MAX },
    Manner::Repeated,
    Manner::CutShort,
    Manner::Last { after_effect: false },
    Manner::Last { after_effect: true },
];

/// Where one fault can be: at which step, and what. Two at the same call are none.
fn points(calls: &[Vec<(Operation, u64)>]) -> Vec<(usize, Operation, u64, Manner)> {
    let mut points = Vec::new();
    for (step, calls) in calls.iter().enumerate() {
        for (operation, count) in calls {
            for nth in 1..=*count {
                let manners = MANNERS.into_iter().filter(|manner| manner.applies_to(*operation));
                points.extend(manners.map(|manner| (step, *operation, nth, manner)));
            }
        }
    }
    points
}

#[test]
fn no_pair_of_faults_harms_what_was_acknowledged() {
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let (tried, struck, both) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let one_in = if long() { 1 } else { ONE_IN };
    let started = std::time::Instant::now();
    let work = |worker: usize| async move {
        let world = World::new(in_memory);
        let base = Base::fresh(&world).await;
        let points = points(&calls(&world, &base, &ACTS).await);
        let pairs =
            (0..points.len()).flat_map(|first| (first + 1..points.len()).map(move |second| (first, second)));
        let pairs = pairs.map(|(first, second)| (points[first], points[second]));
        let pairs = pairs.filter(|(a, b)| (a.0, a.1, a.2) != (b.0, b.1, b.2));
        let (mut tried, mut struck, mut both) = (0, 0, 0);
        for (a, b) in pairs.step_by(one_in).skip(worker).step_by(workers) {
            let mut steps = ACTS.map(Step::new);
            for (step, operation, nth, manner) in [a, b] {
                steps[step].faults.push(Fault::at(nth).of(operation).in_manner(manner));
            }
            let came_about = try_schedule(&world, &base, "a pair", &steps).await;
            tried += 1;
            struck += came_about;
            both += usize::from(came_about == 2);
        }
        (points.len(), tried, struck, both)
    };
    let points = crate::on_threads(workers, |worker| Box::pin(async move { work(worker).await }));
    for (_, a, b, c) in &points {
        tried.fetch_add(*a, Ordering::Relaxed);
        struck.fetch_add(*b, Ordering::Relaxed);
        both.fetch_add(*c, Ordering::Relaxed);
    }
    let (tried, struck, both) = (tried.into_inner(), struck.into_inner(), both.into_inner());
    println!(
        "{} points; {tried} pairs (one in {one_in}): {struck} faults came about, in {both} pairs both, {:.1?}",
        points[0].0,
        started.elapsed()
    );
    assert!(tried > 100 && both * 3 > tried, "{tried} {both}");
}
