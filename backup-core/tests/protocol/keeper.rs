//! What anybody may do at any time: delete what a decision permits to delete, fold what is final into a digest, delete
//! what a digest names.

use super::config::Config;
use super::model::State;
use super::mutants::Mutant;
use super::rules::View;
use super::store::{Digests, Ids, OLD, Put, bit, members, name};
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
    let fenced = if config.digests > 0 { view.fenced() } else { 0 };
    let deletable = state.doomed_segments | store.digests.superseded | fenced;
    for segment in members(deletable & store.segments) {
        let mut next = *state;
        next.store.segments &= !bit(segment);
        steps.push(Who::Anybody, Did::Deletes(Put::Segment(segment)), next);
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
    let final_outcomes = store.digests.committed | store.digests.fenced;
    if (store.commits | store.fences) & final_outcomes != 0 {
        let mut next = *state;
        next.store.commits &= !final_outcomes;
        next.store.fences &= !final_outcomes;
        steps.push(Who::Anybody, Did::Does("deletes outcomes that a digest names"), next);
    }
    let final_fates = match (store.digests.expired, store.digests.kept) {
        (true, _) => Ids::MAX,
        (false, true) => bit(0),
        (false, false) => 0,
    };
    if (store.tombstones | store.expired | store.kept) & final_fates != 0 {
        let mut next = *state;
        for files in [&mut next.store.tombstones, &mut next.store.expired, &mut next.store.kept] {
            *files &= !final_fates;
        }
        steps.push(Who::Anybody, Did::Does("deletes tombstones and fates that a digest names"), next);
    }
    let gone = store.digests.abandoned | store.digests.retired;
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
    let snapshots = config.snapshots();
    digests.fenced |= view.fenced();
    // A snapshot's file is its content: it stays until the snapshot has expired.
    digests.committed |= view.committed() & !snapshots;
    // Nor is one that is held folded: its fate is listed, then holds.
    if view.old_has_expired() && config.old && !view.hold {
        digests.expired = true;
        digests.committed |= bit(OLD);
    }
    digests.kept |= view.kept & bit(0) != 0 && !digests.expired;
    if !config.is(Mutant::SupersededForgotten) {
        digests.superseded |= view.superseded(&state.store, config.mutant) & view.segments;
    }
    digests.abandoned |= state.store.abandoned & !digests.retired;
    digests
}
