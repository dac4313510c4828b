//! Random histories with random faults, each from a seed.

use backup_core::ErrorKind;
use backup_core::testing::{Fault, Manner, Operation};

use crate::schedule::{Act, Step, try_schedule};
use crate::stores::in_memory;
use crate::verbs::Base;
use crate::world::{Stop, World};
use crate::{long, on_threads};

const SEEDS: u64 = 200;
const SEEDS_LONG: u64 = 10_000;

/// SplitMix64 (Steele, Lea and Flood 2014): short, and any seed will do.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// A history of three to six commands with up to three faults each.
fn schedule(seed: u64) -> Vec<Step> {
    let mut dice = Dice(seed);
    let steps = 3 + dice.below(4);
    (0..steps).map(|_| step(&mut dice)).collect()
}

fn step(dice: &mut Dice) -> Step {
    let version = 1 + dice.below(3);
    let tree = Act::Tree(version);
    let acts = [
        tree,
        tree,
        tree,
        tree,
        Act::Command,
        Act::Repair,
        Act::AddKey,
        Act::Restore,
        Act::Verify,
        Act::List,
    ];
    let mut step = Step::new(dice.one_of(&acts));
    for _ in 0..dice.below(4) {
        // A command makes few puts and fewer deletes.
        let (operation, calls_about) = dice.one_of(&[
            (Operation::Put, 6),
            (Operation::Put, 6),
            (Operation::Get, 16),
            (Operation::List, 10),
            (Operation::Delete, 2),
        ]);
        let calls = dice.one_of(&[0, 1, 2, 5, 1000, u64::MAX]);
        let after_effect = dice.below(2) == 0;
        let manner = dice.one_of(&[
            Manner::Before,
            Manner::AfterEffect,
            Manner::Late { calls },
            Manner::Repeated,
            Manner::CutShort,
            Manner::Stale { calls },
            Manner::Last { after_effect },
        ]);
        let kind = dice.one_of(&[ErrorKind::Transient, ErrorKind::NoSpace, ErrorKind::Denied, ErrorKind::Io]);
        let fault = Fault::at(1 + dice.below(calls_about)).of(operation).in_manner(manner).with_kind(kind);
        step.faults.push(if dice.below(4) == 0 { fault.from_then_on() } else { fault });
    }
    if dice.below(2) == 0 {
        step.stop = Stop::Cancel;
    }
    step
}

/// `BACKUP_SEED=n` runs that one alone, `BACKUP_LONG=1` ten thousand.
#[test]
fn no_random_schedule_of_faults_harms_what_was_acknowledged() {
    let only: Option<u64> = std::env::var("BACKUP_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = match only {
        Some(seed) => seed..seed + 1,
        None => 0..if long() { SEEDS_LONG } else { SEEDS },
    };
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let started = std::time::Instant::now();
    let all = seeds.clone();
    let struck: Vec<usize> = on_threads(workers, |worker| {
        let seeds = all.clone();
        Box::pin(async move {
            let world = World::new(in_memory);
            let (fresh, grown) = (Base::fresh(&world).await, Base::make(&world).await);
            let mut struck = 0;
            for seed in seeds.skip(worker).step_by(workers) {
                let base = if seed % 2 == 0 { &fresh } else { &grown };
                let what = format!("BACKUP_SEED={seed}");
                struck += try_schedule(&world, base, &what, &schedule(seed)).await;
            }
            struck
        })
    });
    let struck: usize = struck.into_iter().sum();
    println!("seeds {seeds:?}: {struck} faults came about, {:.1?}", started.elapsed());
    assert!(only.is_some() || struck as u64 > seeds.end, "{struck}");
}
