//! Quiescence: whatever has happened, after two collections that nobody disturbs nothing is left that is not needed.

use super::config::{Config, EVERYBODY};
use super::model::{MERGERS, State};
use super::rules::{View, names_in};
use super::store::{COLLECTIONS, LOG, OLD, PACKS, Put, bit, members};
use super::trace::{Step, Steps};
use super::{collector, keeper, merger};

/// More steps than anybody takes who is not disturbed.
const STEPS_MAX: usize = 64;

/// What is left of it. Supposes that all others have ended or died, and that puts under way have been lost.
pub fn leaves(config: &Config, state: &State) -> Option<&'static str> {
    let config = Config {
        retiring: true,
        late: 0,
        coarse: EVERYBODY,
        digests: u8::MAX,
        mergers: MERGERS as u8,
        ..*config
    };
    let mut state = State { late_left: 0, digests_left: u8::MAX, ..*state };
    state.store.late = Default::default();
    state.reader = Default::default();
    (0..2).for_each(|_| collect(&config, &mut state));
    left(&config, &state)
}

fn collect(config: &Config, state: &mut State) {
    // Their heartbeats have stopped.
    for session in members(state.store.undecided()) {
        state.store.create(Put::Fence(session));
    }
    let store = &state.store;
    let taken = store.numbers | store.digests.finished;
    let number = taken.trailing_ones() as u8;
    assert!(usize::from(number) < COLLECTIONS, "no number is left for a quiet collection");
    let idle = state.mergers.iter().position(|merger| *merger == Default::default());
    let merger = idle.filter(|index| *index < MERGERS).unwrap_or_else(|| panic!("no merger is left")) as u8;
    exhaust(state, |state, list| collector::steps(number, state, &mut Steps { config, list }));
    exhaust(state, |state, list| keeper::steps(state, &mut Steps { config, list }));
    exhaust(state, |state, list| collector::steps(number, state, &mut Steps { config, list }));
    exhaust(state, |state, list| keeper::steps(state, &mut Steps { config, list }));
    // What swept packs are named by is written anew.
    let valid = View::whole(&state.store).valid(&state.store, config.mutant);
    if names_in(valid, &state.store) & state.store.digests.swept != 0 {
        exhaust(state, |state, list| merger::steps(merger, state, &mut Steps { config, list }));
        exhaust(state, |state, list| keeper::steps(state, &mut Steps { config, list }));
    }
}

/// Takes steps as long as there are any.
fn exhaust(state: &mut State, steps: impl Fn(&State, &mut Vec<Step>)) {
    let mut list = Vec::new();
    for _ in 0..STEPS_MAX {
        list.clear();
        steps(state, &mut list);
        let Some(step) = list.first() else { return };
        *state = step.next;
    }
}

/// What is there and not needed.
fn left(config: &Config, state: &State) -> Option<&'static str> {
    let store = &state.store;
    let view = View::whole(store);
    let roots = view.roots(config.snapshots()) != 0;
    let needed = if roots { view.places(store, config.mutant) } else { 0 };
    let log = if roots && config.log { view.log(config.mutant) } else { 0 };
    let old = if view.old_has_expired() && !view.hold { bit(OLD) } else { 0 };
    let found = [
        ("packs", store.packs & PACKS & !needed != 0),
        ("log segments", store.packs & LOG & !log != 0),
        ("segments", store.segments & !view.valid(store, config.mutant) != 0),
        ("swept packs in segments", names_in(store.segments, store) & store.digests.swept != 0),
        ("sessions", store.undecided() != 0),
        ("an expired snapshot", store.commits & old != 0),
        ("fates of an expired snapshot", old != 0 && (store.tombstones | store.expired | store.kept) != 0),
        ("collections", (store.numbers | store.condemned | store.sweeps | store.abandoned) != 0),
    ];
    found.into_iter().find(|(_, left)| *left).map(|(what, _)| what)
}
