//! A merger: a session that makes no snapshot. It writes the valid segments anew as one, without what was swept, decides,
//! and deletes what it superseded.

use super::config::MERGER;
use super::model::State;
use super::mutants::Mutant;
use super::rules::{Prefix, View, names_in};
use super::store::Put;
use super::trace::{Did, Steps, Who};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum At {
    #[default]
    Idle,
    Listing(u8),
    PuttingSegment,
    Deciding,
    Ended,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Merger {
    pub at: At,
    pub view: View,
}

/// In any order, or at once.
const LISTS: [Prefix; 4] = [Prefix::Collections, Prefix::Segments, Prefix::Outcomes, Prefix::Digests];

pub fn steps(index: u8, state: &State, steps: &mut Steps<'_>) {
    let config = steps.config;
    let who = Who::Merger(index);
    let me = usize::from(index);
    let session = config.session_of_merger(index);
    let mut next = *state;
    match state.mergers[me].at {
        At::Idle => {
            // Mergers are alike: the one that begins first is the first.
            if index == 0 || state.mergers[me - 1].at != At::Idle {
                next.store.create(Put::Open(session));
                next.mergers[me].at = At::Listing(0);
                steps.push(who, Did::Puts(Put::Open(session)), next);
            }
        }
        At::Listing(done) => {
            let view = state.mergers[me].view;
            for listed in config.list_in_any_order(MERGER, &LISTS, done, &view, &state.store) {
                let mut next = *state;
                next.mergers[me].view = listed.view;
                next.mergers[me].at = At::Listing(listed.done);
                if listed.finished {
                    merge(index, session, &mut next, steps);
                }
                steps.push(who, listed.did, next);
            }
        }
        At::PuttingSegment => steps.put(who, state, Put::Segment(session), |next, _| {
            next.mergers[me].at = At::Deciding;
        }),
        At::Deciding => steps.put(who, state, Put::Commit(session), |next, done| {
            next.mergers[me].at = At::Ended;
            if done || config.is(Mutant::FencedMergeDeletes) {
                next.doomed_segments |= state.store.supersedes[usize::from(session)];
            }
        }),
        At::Ended => {}
    }
}

/// What the merged segment names and supersedes.
fn merge(index: u8, session: u8, next: &mut State, steps: &Steps<'_>) {
    let config = steps.config;
    let contents = next.store;
    let merger = &mut next.mergers[usize::from(index)];
    let view = std::mem::take(&mut merger.view);
    let merged = view.valid(&contents, config.mutant);
    let all = names_in(merged, &contents);
    // Every place that was not swept is kept: what is only condemned may be rescued.
    let mut names = all & !(view.swept() | view.digests.swept);
    if config.is(Mutant::CondemnedLeftOutOfMerge) {
        names &= !view.condemned;
    }
    merger.at = At::PuttingSegment;
    next.store.names[usize::from(session)] = names;
    next.store.supersedes[usize::from(session)] = merged;
}
