//! Who forgets the old snapshot, who wants it back, and who holds it.

use super::model::State;
use super::mutants::Mutant;
use super::rules::{Prefix, View};
use super::store::{Put, bit};
use super::trace::{Did, Steps, Who};

/// Creates a tombstone, and its fate `expired` whenever the clock says so; if that was kept, a second one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Forgetter {
    #[default]
    Idle,
    Expiring(u8),
    Again,
    Ended,
}

/// Sees a tombstone, creates its fate `kept`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Undeleter {
    #[default]
    Idle,
    Keeping,
    LookingAtDigests,
    Ended,
}

/// Creates a hold, then looks whether the snapshot had expired before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Holder {
    #[default]
    Idle,
    LookingAtFates,
    LookingAtDigests,
    Ended,
}

pub fn steps(state: &State, steps: &mut Steps<'_>) {
    let undeletes = steps.config.undeleter;
    match state.forgetter {
        Forgetter::Idle => steps.put(Who::Forgetter, state, Put::Tombstone(0), |next, _| {
            next.forgetter = Forgetter::Expiring(0);
        }),
        Forgetter::Expiring(tombstone) => {
            steps.put(Who::Forgetter, state, Put::Expired(tombstone), |next, done| {
                let again = !done && tombstone == 0 && undeletes;
                next.forgetter = if again { Forgetter::Again } else { Forgetter::Ended };
            });
        }
        // The last fate is `kept`, so a further tombstone may follow; with it the promise ends.
        Forgetter::Again => steps.put(Who::Forgetter, state, Put::Tombstone(1), |next, _| {
            next.promised = false;
            next.forgetter = Forgetter::Expiring(1);
        }),
        Forgetter::Ended => {}
    }
}

pub fn undeleter_steps(state: &State, steps: &mut Steps<'_>) {
    let config = steps.config;
    let mut next = *state;
    match state.undeleter {
        Undeleter::Idle => {
            let view = View::whole(&state.store);
            if state.store.tombstones & bit(0) != 0 && !view.old_has_expired() {
                next.undeleter = Undeleter::Keeping;
                if config.is(Mutant::UndeleteWithoutFate) {
                    next.undeleter = Undeleter::Ended;
                    next.promised = true;
                    steps.push(
                        Who::Undeleter,
                        Did::Does("sees no fate, and says that the snapshot is kept"),
                        next,
                    );
                } else {
                    steps.push(Who::Undeleter, Did::Does("sees the tombstone and no fate"), next);
                }
            }
        }
        Undeleter::Keeping => steps.put(Who::Undeleter, state, Put::Kept(0), |next, done| {
            next.undeleter = if done { Undeleter::LookingAtDigests } else { Undeleter::Ended };
        }),
        Undeleter::LookingAtDigests => {
            next.undeleter = Undeleter::Ended;
            // Whoever is told of the old fate after a further tombstone was promised nothing.
            next.promised = !state.store.digests.expired && state.store.tombstones & bit(1) == 0;
            steps.push(
                Who::Undeleter,
                Did::Does("looks at the digests and tells that the snapshot is kept"),
                next,
            );
        }
        Undeleter::Ended => {}
    }
}

pub fn holder_steps(state: &State, steps: &mut Steps<'_>) {
    let mut next = *state;
    match state.holder {
        Holder::Idle => {
            steps.put(Who::Holder, state, Put::Hold, |next, _| next.holder = Holder::LookingAtFates)
        }
        Holder::LookingAtFates => {
            let expired = View::whole(&state.store).old_has_expired();
            next.holder = if expired { Holder::Ended } else { Holder::LookingAtDigests };
            steps.push(Who::Holder, Did::Lists(Prefix::Fates), next);
        }
        Holder::LookingAtDigests => {
            next.holder = Holder::Ended;
            next.held = !state.store.digests.expired;
            steps.push(Who::Holder, Did::Does("lists digests, and tells whether the snapshot is held"), next);
        }
        Holder::Ended => {}
    }
}
