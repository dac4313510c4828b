//! A million configurations over awkward histories, each decision compared with one made straight from the definitions.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, unreachable_pub)]

mod case;
mod clock;
mod rules;

use std::collections::BTreeMap;
use std::ops::Range;
use std::thread;

use case::Case;

const CASES: u64 = 1_000_000;

#[derive(Default)]
struct Seen {
    cases: u64,
    kept: u64,
    dropped: u64,
    /// Cases by what stands in them.
    of: BTreeMap<String, u64>,
}

#[test]
fn every_decision_of_a_million_is_the_oracles() {
    let threads = thread::available_parallelism().map_or(1, |count| count.get()) as u64;
    let share = CASES.div_ceil(threads);
    let seen = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| scope.spawn(move || compare(worker * share..CASES.min((worker + 1) * share))))
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).fold(Seen::default(), |mut all, one| {
            all.cases += one.cases;
            all.kept += one.kept;
            all.dropped += one.dropped;
            one.of.into_iter().for_each(|(what, count)| *all.of.entry(what).or_default() += count);
            all
        })
    });
    println!(
        "{} cases: {} snapshots kept, {} dropped, as the oracle says",
        seen.cases, seen.kept, seen.dropped
    );
    seen.of.iter().for_each(|(what, count)| println!("  {what}: {count} cases"));
    assert_eq!(seen.cases, CASES);
    // A comparison of nothing with nothing would agree, too.
    assert!(seen.kept > CASES && seen.dropped > CASES);
    assert_eq!(seen.of.len(), 30, "{:?}", seen.of.keys());
    assert!(seen.of.values().all(|count| *count > CASES / 200));
}

fn compare(numbers: Range<u64>) -> Seen {
    let mut seen = Seen::default();
    for number in numbers {
        let case = Case::new(number);
        let policy = case.config().build().unwrap_or_else(|error| panic!("case {number}: {error}: {case:?}"));
        let decisions = policy.decide(&case.facts(), case.now());
        let found: Vec<_> = decisions.iter().map(|decision| decision.keep()).collect();
        let expected = case.expected();
        assert_eq!(found, expected, "case {number}: kept, and what must be: {case:#?}\n{decisions:#?}");
        seen.cases += 1;
        seen.kept += found.iter().filter(|kept| **kept).count() as u64;
        seen.dropped += found.iter().filter(|kept| !**kept).count() as u64;
        case.kinds().into_iter().for_each(|kind| *seen.of.entry(kind).or_default() += 1);
    }
    seen
}
