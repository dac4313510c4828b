//! A reader with a stale index: it lists, and reads within the grace period what was acknowledged before.

use super::config::OTHER;
use super::model::State;
use super::rules::{Prefix, View, names_in};
use super::store::{Ids, Names, OLD, PACKS, bit};
use super::trace::{Did, Steps, Who};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum At {
    #[default]
    Idle,
    Listing(u8),
    Reading,
    Ended,
    Failed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reader {
    pub at: At,
    pub view: View,
    /// What had been acknowledged when it began, and what could be deleted already.
    pub acknowledged: Ids,
    pub doomed: Names,
}

const LISTS: [Prefix; 4] = [Prefix::Segments, Prefix::Outcomes, Prefix::Fates, Prefix::Digests];

impl Reader {
    pub fn has_failed(&self) -> bool {
        self.at == At::Failed
    }

    /// What must not be deleted yet: the grace period is longer than a reader takes.
    pub fn within_grace(&self) -> Names {
        match self.at {
            At::Listing(_) | At::Reading => !self.doomed,
            _ => 0,
        }
    }
}

pub fn steps(state: &State, steps: &mut Steps<'_>) {
    let config = steps.config;
    let mut next = *state;
    match state.reader.at {
        At::Idle => {
            let reader = &mut next.reader;
            reader.at = At::Listing(0);
            reader.acknowledged = state.acknowledged;
            reader.doomed = state.doomed;
            steps.push(Who::Reader, Did::Does("begins"), next);
        }
        At::Listing(mut done) => {
            let (did, finished) = config.list(OTHER, &LISTS, &mut done, &mut next.reader.view, &state.store);
            next.reader.at = if finished { At::Reading } else { At::Listing(done) };
            steps.push(Who::Reader, did, next);
        }
        At::Reading => {
            let view = state.reader.view;
            let roots = view.roots(config.snapshots()) & state.reader.acknowledged;
            // One that was acknowledged and is not listed must have expired.
            let expired = if View::whole(&state.store).old_has_expired() { bit(OLD) } else { 0 };
            let missing = state.reader.acknowledged & !roots & !expired;
            // It tries every place, valid segments first, then any that it has listed.
            let named = names_in(view.segments, &state.store) & PACKS;
            let reads = roots & !expired == 0 || named & state.store.packs != 0;
            next.reader = super::reader::Reader {
                at: if reads && missing == 0 { At::Ended } else { At::Failed },
                ..Reader::default()
            };
            let did = if next.reader.has_failed() { "does not find what it needs" } else { "reads" };
            steps.push(Who::Reader, Did::Does(did), next);
        }
        At::Ended | At::Failed => {}
    }
}
