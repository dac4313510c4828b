//! What anybody may do at any time: delete what a decision permits to delete, fold what is final into a digest, merge
//! digests, delete what a digest names.

use super::config::Config;
use super::model::State;
use super::mutants::Mutant;
use super::rules::View;
use super::store::{Digests, OLD, Put, bit, members, name};
use super::trace::{Did, Steps, Who};

pub fn steps(state: &State, steps: &mut Steps<'_>) {
    let config = steps.config;
    let store = &state.store;
    // Whoever read a decision `sweep` may have slept since.
    let grace = if config.is(Mutant::GraceIgnored) { 0 } else { state.reader.within_grace() };
    for pack in members(state.doomed & store.packs & !grace) {
        let mut next = *state;
        next.store.packs &= !name(pack);
        steps.push(Who::Anybody, Did::Deletes(Put::Pack(pack)), next);
    }
    let view = View::whole(store);
    for pack in members(store.digests.swept & store.packs & !grace & !state.doomed) {
        let mut next = *state;
        next.store.packs &= !name(pack);
        steps.push(Who::Anybody, Did::Deletes(Put::Pack(pack)), next);
    }
    let fenced = if config.digests > 0 { view.fenced() } else { 0 };
    let superseded = if config.mergers > 0 { view.superseded(store, config.mutant) } else { 0 };
    let deletable = state.doomed_segments | superseded | fenced;
    for segment in members(deletable & store.segments) {
        let mut next = *state;
        next.store.segments &= !bit(segment);
        steps.push(Who::Anybody, Did::Deletes(Put::Segment(segment)), next);
    }
    if state.merges_left > 0 && store.digests != Digests::default() {
        let mut next = *state;
        next.merges_left -= 1;
        next.store.merges += 1;
        steps.push(Who::Anybody, Did::Does("merges the digests into one"), next);
    }
    if config.digests == 0 {
        return;
    }
    let digests = folded(config, state, &view);
    if digests != store.digests && state.digests_left > 0 {
        let mut next = *state;
        next.digests_left -= 1;
        next.store.digests = digests;
        steps.push(Who::Anybody, Did::Does("folds what is final into a digest"), next);
    }
    if store.digests.expired && (store.commits | store.fences) & bit(OLD) != 0 {
        let mut next = *state;
        next.store.commits &= !bit(OLD);
        next.store.fences &= !bit(OLD);
        steps.push(Who::Anybody, Did::Does("deletes the expired snapshot"), next);
    }
    if store.digests.expired && store.tombstones | store.expired | store.kept != 0 {
        let mut next = *state;
        for files in [&mut next.store.tombstones, &mut next.store.expired, &mut next.store.kept] {
            *files = 0;
        }
        steps.push(Who::Anybody, Did::Does("deletes tombstones and fates of the expired snapshot"), next);
    }
    // Decisions of sessions that make no snapshot, once none of their segments is left.
    let decisions = store.commits & !config.snapshots() & !store.segments;
    if decisions != 0 {
        let mut next = *state;
        next.store.commits &= !decisions;
        next.store.opens &= !decisions;
        steps.push(Who::Anybody, Did::Does("deletes decisions of sessions that have no segments"), next);
    }
    if config.is(Mutant::FoldedOutcomeAcknowledged) && store.fences != 0 {
        let mut next = *state;
        next.store.opens &= !store.fences;
        next.store.fences = 0;
        steps.push(Who::Anybody, Did::Does("deletes fences"), next);
    }
    // Those that swept are deleted by whoever has waited.
    let gone = store.digests.finished & !store.sweeps;
    let collections = (store.numbers | store.condemned | store.abandoned | store.sweeps) & gone;
    if collections != 0 {
        let mut next = *state;
        next.store.forget_collections(collections);
        steps.push(Who::Anybody, Did::DeletesCollections(collections), next);
    }
}

/// The digests with all that is final now.
fn folded(config: &Config, state: &State, view: &View) -> Digests {
    let mut digests = state.store.digests;
    // One that is held is not folded: its fate is listed, then holds.
    digests.expired |= view.old_has_expired() && config.old && !view.hold;
    digests.finished |= state.store.abandoned;
    digests
}
