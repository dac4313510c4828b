//! A merger: a session that makes no snapshot. It writes the valid segments anew as one, without what was swept, decides,
//! and deletes what it superseded.

use super::config::MERGER;
use super::model::State;
use super::mutants::Mutant;
use super::rules::{Prefix, View, names_in, superseded_by};
use super::store::{Put, bit};
use super::trace::{Did, Steps, Who};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum At {
    #[default]
    Idle,
    Listing(u8),
    PuttingSegment,
    Deciding,
    LookingAtDigests,
    Digesting,
    Ended,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Merger {
    pub at: At,
    pub view: View,
}

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
        At::Listing(mut done) => {
            let view = &mut next.mergers[me].view;
            let (did, finished) = config.list(MERGER, &LISTS, &mut done, view, &state.store);
            next.mergers[me].at = At::Listing(done);
            if finished {
                merge(index, session, &mut next, steps);
            }
            steps.push(who, did, next);
        }
        At::PuttingSegment => steps.put(who, state, Put::Segment(session), |next, _| {
            next.mergers[me].at = At::Deciding;
        }),
        At::Deciding => steps.put(who, state, Put::Commit(session), |next, done| {
            next.mergers[me].at = if done { At::LookingAtDigests } else { At::Ended };
        }),
        At::LookingAtDigests => {
            let fenced = state.store.digests.fenced & bit(session) != 0;
            next.mergers[me].at = if fenced { At::Ended } else { At::Digesting };
            steps.push(who, Did::Does("looks for itself in the digests"), next);
        }
        At::Digesting => {
            let superseded = state.store.supersedes[usize::from(session)];
            next.mergers[me].at = At::Ended;
            let did = if config.is(Mutant::SupersededForgotten) {
                next.doomed_segments |= superseded;
                "begins to delete what it superseded, without a digest"
            } else {
                next.store.digests.superseded |= superseded;
                "puts a digest of what it superseded"
            };
            steps.push(who, Did::Does(did), next);
        }
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
    let mut names = all & !view.swept;
    if config.is(Mutant::CondemnedLeftOutOfMerge) {
        names &= !view.condemned;
    }
    let mut supersedes = merged;
    if !config.is(Mutant::SupersedesOnlyValid) {
        supersedes |= superseded_by(merged, &contents);
    }
    supersedes &=
        if config.is(Mutant::SupersededForgotten) { view.segments } else { !view.digests.superseded };
    merger.at = At::PuttingSegment;
    next.store.names[usize::from(session)] = names;
    next.store.supersedes[usize::from(session)] = supersedes;
}
