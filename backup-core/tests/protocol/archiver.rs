//! Who archives a log segment, as often as it is asked to, without a session.

use super::config::OTHER;
use super::model::State;
use super::mutants::Mutant;
use super::rules::{Prefix, View};
use super::store::{FIRST_LOG, LOG, Put, name};
use super::trace::{Steps, Who};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum At {
    #[default]
    Listing,
    Putting(u8),
    Ended,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Archiver {
    pub at: At,
    pub listed: u8,
    pub view: View,
}

const LISTS: [Prefix; 3] = [Prefix::Data, Prefix::Collections, Prefix::Digests];

pub fn steps(state: &State, steps: &mut Steps<'_>) {
    let config = steps.config;
    match state.archiver.at {
        At::Listing => {
            let mut next = *state;
            let archiver = &mut next.archiver;
            let (did, finished) =
                config.list(OTHER, &LISTS, &mut archiver.listed, &mut archiver.view, &state.store);
            if finished {
                let view = archiver.view;
                *archiver = Archiver { at: choose(&view, config.mutant), ..Archiver::default() };
            }
            steps.push(Who::Archiver, did, next);
        }
        At::Putting(id) => steps.put(Who::Archiver, state, Put::Pack(id), |next, _| {
            // Its name may have been condemned or swept before it woke: it has archived what a new list shows.
            next.archiver.at = At::Listing;
        }),
        At::Ended => {}
    }
}

/// Nothing is to be done where a segment stands that is neither condemned nor swept; else the next name that never was.
fn choose(view: &View, mutant: Option<Mutant>) -> At {
    let barred = view.condemned | view.swept();
    if view.log(mutant) & !barred != 0 {
        return At::Ended;
    }
    let known = match mutant {
        Some(Mutant::LogNameReused) => view.data,
        _ => view.data | barred | view.digests.swept,
    };
    let free = (FIRST_LOG..16).find(|id| known & name(*id) == 0 && LOG & name(*id) != 0);
    free.map_or(At::Ended, At::Putting)
}
