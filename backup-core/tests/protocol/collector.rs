//! A collector: takes a number, settles earlier collections, marks, condemns, waits, lists the roots again, decides,
//! and retires what it swept. The deletes are anybody's.

use super::config::{COLLECTOR, Config};
use super::model::State;
use super::mutants::Mutant;
use super::rules::{Prefix, View};
use super::store::{Ids, LOG, Names, PACKS, Put, Store, bit, members, name};
use super::trace::{Did, Steps, Who};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum At {
    #[default]
    Idle,
    Settling,
    /// Lists digests: what they call finished is no longer as its files say.
    SettlingDigests,
    Marking(u8),
    /// Reads what collections sweep, long after it listed them.
    ReadingParts,
    /// Only a mutant takes its number after marking.
    Numbering,
    Condemning,
    ListingSessions,
    Waiting,
    Relisting(u8),
    Deciding,
    Abandoning,
    /// Waits until the packs are deleted.
    Retiring,
    Folding,
    /// Waits once more: then everybody knows the digest.
    RetireListing,
    RetireWaiting,
    Tidying,
    Ended,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Collector {
    pub at: At,
    pub view: View,
    /// Names in sweeps before its own.
    pub swept: Names,
    /// Collections that it will retire, and those whose files it will delete.
    pub retires: Ids,
    pub tidies: Ids,
    /// The sessions of the roots that it marked for.
    pub marked: Ids,
    /// Sessions whose outcome it waits for.
    pub waits: Ids,
}

impl Collector {
    /// Whether it will not put `condemned` any more.
    pub fn has_condemned(&self) -> bool {
        !matches!(
            self.at,
            At::Idle
                | At::Settling
                | At::SettlingDigests
                | At::Marking(_)
                | At::ReadingParts
                | At::Numbering
                | At::Condemning
                | At::ListingSessions
                | At::Waiting
                | At::Relisting(_)
        )
    }

    pub fn has_ended(&self) -> bool {
        self.at == At::Ended
    }
}

const MARKS: [Prefix; 5] = [Prefix::Data, Prefix::Segments, Prefix::Outcomes, Prefix::Fates, Prefix::Digests];
const HOLDS: [Prefix; 6] =
    [Prefix::Data, Prefix::Segments, Prefix::Outcomes, Prefix::Fates, Prefix::Holds, Prefix::Digests];
const HOLDS_FIRST: [Prefix; 6] =
    [Prefix::Data, Prefix::Segments, Prefix::Outcomes, Prefix::Holds, Prefix::Fates, Prefix::Digests];

/// What is listed for marking and, once more, before the decision.
fn marks(config: &Config) -> &'static [Prefix] {
    match config.holder {
        false => &MARKS,
        true if config.is(Mutant::HoldsListedFirst) => &HOLDS_FIRST,
        true => &HOLDS,
    }
}

pub fn steps(number: u8, state: &State, steps: &mut Steps<'_>) {
    let config = steps.config;
    let who = Who::Collector(number);
    let me = usize::from(number);
    let collector = state.collectors[me];
    match collector.at {
        At::Idle => {
            let mut next = *state;
            if config.is(Mutant::NumberedAfterMarking) {
                next.collectors[me].at = At::Settling;
                settle(number, &next, steps);
            } else if is_next(number, &state.store) {
                next.store.create(Put::Number(number));
                next.collectors[me].at = At::Settling;
                steps.push(who, Did::Puts(Put::Number(number)), next);
            }
        }
        At::Settling => settle(number, state, steps),
        At::SettlingDigests => {
            let mut next = *state;
            let finished = match config.is(Mutant::FoldedDecisionObeyed) {
                true => 0,
                false => state.store.digests.finished,
            };
            let collector = &mut next.collectors[me];
            if !config.is(Mutant::OthersNotRetired) {
                collector.tidies = collector.retires;
            }
            collector.retires &= !finished;
            if !config.parts {
                collector.swept = swept_by(collector.retires, &state.store);
            }
            if config.is(Mutant::OthersNotRetired) {
                collector.retires = 0;
            }
            collector.at = At::Marking(0);
            steps.push(who, Did::Lists(Prefix::Digests), next);
        }
        At::Marking(done) => {
            let mut next = *state;
            let mut done = done;
            let view = &mut next.collectors[me].view;
            let (did, finished) = config.list(COLLECTOR, marks(config), &mut done, view, &state.store);
            next.collectors[me].at = At::Marking(done);
            if finished && config.parts {
                next.collectors[me].at = At::ReadingParts;
                steps.push(who, did, next);
            } else if finished {
                mark(number, did, &next, steps);
            } else {
                steps.push(who, did, next);
            }
        }
        At::ReadingParts => {
            let mut next = *state;
            let collector = &mut next.collectors[me];
            let there = collector.retires & state.store.sweeps;
            collector.swept = swept_by(there, &state.store);
            // Those that are gone are finished: digests, listed once more, name what they swept.
            if there != collector.retires && !config.is(Mutant::GonePartsMissed) {
                collector.view.list(Prefix::Digests, &state.store);
            }
            mark(number, Did::Does("reads what was swept"), &next, steps);
        }
        At::Numbering => {
            if is_next(number, &state.store) {
                let mut next = *state;
                next.store.create(Put::Number(number));
                next.collectors[me].at = At::Condemning;
                steps.push(who, Did::Puts(Put::Number(number)), next);
            }
        }
        At::Condemning => steps.put(who, state, Put::Condemned(number), |next, _| {
            let collector = &mut next.collectors[me];
            if config.is(Mutant::SessionsListedFirst) {
                collector.at = if collector.waits == 0 { At::Relisting(0) } else { At::Waiting };
            } else {
                collector.at = At::ListingSessions;
            }
        }),
        At::ListingSessions => {
            let mut next = *state;
            let waits = state.store.undecided();
            next.collectors[me].waits = waits;
            next.collectors[me].at = match waits {
                _ if config.is(Mutant::SessionsListedFirst) => At::Condemning,
                0 => relists(number, &mut next, config),
                _ => At::Waiting,
            };
            steps.push(who, Did::ListsSessions, next);
        }
        At::Waiting => {
            wait(number, state, steps, |next| next.collectors[me].at = relists(number, next, config))
        }
        At::Relisting(done) => {
            let mut next = *state;
            let mut done = done;
            let view = &mut next.collectors[me].view;
            let (did, finished) = config.list(COLLECTOR, marks(config), &mut done, view, &state.store);
            next.collectors[me].at = At::Relisting(done);
            if finished {
                let last = relisted(number, &mut next, config);
                steps.push(who, Did::SettlesOn(last), next);
            } else {
                steps.push(who, did, next);
            }
        }
        At::Deciding => {
            if config.is(Mutant::NoDecision) {
                let mut next = *state;
                next.doomed |= state.store.swept[me];
                next.collectors[me] = ended();
                steps.push(who, Did::Does("begins to delete without a decision"), next);
                return;
            }
            steps.put(who, state, Put::Sweep(number), |next, done| {
                next.collectors[me].view = View::default();
                if done && swept_counts(number, next, config) && config.retiring {
                    next.collectors[me].retires |= bit(number);
                    next.collectors[me].tidies |= bit(number);
                    next.collectors[me].at = At::Retiring;
                } else {
                    next.collectors[me] = ended();
                }
            });
        }
        At::Abandoning => steps.put(who, state, Put::Abandoned(number), |next, _| {
            retire_earlier_or_end(number, next, config);
        }),
        At::Retiring => {
            let swept = swept_by(collector.retires, &state.store);
            if swept & state.store.packs == 0 {
                let mut next = *state;
                let folds = !config.is(Mutant::RetiredWithoutDigest);
                next.collectors[me].at = if folds { At::Folding } else { At::Tidying };
                steps.push(who, Did::Does("finds that all it swept is deleted"), next);
            }
        }
        At::Folding => {
            let mut next = *state;
            next.store.digests.swept |= swept_by(collector.retires, &state.store);
            next.store.digests.finished |= collector.retires;
            next.collectors[me].at = At::RetireListing;
            steps.push(who, Did::Does("puts a digest of what it swept"), next);
        }
        At::RetireListing => {
            let mut next = *state;
            let waits = if config.is(Mutant::RetiredTooSoon) { 0 } else { state.store.undecided() };
            next.collectors[me].waits = waits;
            next.collectors[me].at = if waits == 0 { At::Tidying } else { At::RetireWaiting };
            steps.push(who, Did::ListsSessions, next);
        }
        At::RetireWaiting => wait(number, state, steps, |next| next.collectors[me].at = At::Tidying),
        At::Tidying => {
            let mut next = *state;
            next.store.forget_collections(collector.tidies);
            next.collectors[me] = ended();
            steps.push(who, Did::DeletesCollections(collector.tidies), next);
        }
        At::Ended => {}
    }
}

fn ended() -> Collector {
    Collector { at: At::Ended, ..Collector::default() }
}

/// Collectors are alike: whoever takes a number is the collector of that number.
fn is_next(number: u8, store: &Store) -> bool {
    let taken = store.numbers | store.digests.finished;
    taken & (bit(number) - 1) == bit(number) - 1
}

fn swept_by(collections: Ids, store: &Store) -> Names {
    members(collections).fold(0, |all, number| all | store.swept[usize::from(number)])
}

/// Decides earlier collections that are undecided, then lists collections.
fn settle(number: u8, state: &State, steps: &mut Steps<'_>) {
    let config = steps.config;
    let me = usize::from(number);
    let store = &state.store;
    let decided = store.sweeps | store.abandoned | store.digests.finished;
    let earlier = store.numbers & (bit(number) - 1) & !decided;
    let open = if config.is(Mutant::EarlierNotSettled) { None } else { members(earlier).next() };
    if let Some(earlier) = open {
        steps.put(Who::Collector(number), state, Put::Abandoned(earlier), |_, _| {});
        return;
    }
    let mut next = *state;
    let collector = &mut next.collectors[me];
    let mut view = View::default();
    view.list(Prefix::Collections, store);
    collector.retires = view.sweeps;
    collector.at = At::SettlingDigests;
    steps.push(Who::Collector(number), Did::Lists(Prefix::Collections), next);
}

/// What it condemns. Of several places of a chunk it may keep any.
fn mark(number: u8, did: Did, state: &State, steps: &mut Steps<'_>) {
    let config = steps.config;
    let who = Who::Collector(number);
    let me = usize::from(number);
    let collector = state.collectors[me];
    let view = collector.view;
    let mut choices: Vec<Names> = Vec::new();
    if view.roots(config.snapshots()) == 0 {
        choices.push(0);
    } else {
        let log = if config.log { view.log(config.mutant) & !collector.swept } else { 0 };
        let places = view.places(&state.store, config.mutant) & !collector.swept;
        // A root that cannot be read: nothing is condemned.
        if places != 0 && (log != 0 || !config.log) {
            choices.push(places | log);
            if places.count_ones() > 1 {
                choices.extend(members(places).map(|place| name(place) | log));
            }
        }
    }
    let mut condemns: Vec<Names> = choices
        .into_iter()
        .map(|kept| view.data & !kept & !(collector.swept | view.digests.swept))
        .filter(|list| *list != 0)
        .collect();
    condemns.dedup();
    if condemns.is_empty() {
        let mut next = *state;
        next.collectors[me].view = View::default();
        next.collectors[me].at = At::Abandoning;
        steps.push(who, did, next);
    }
    for list in condemns {
        let mut next = *state;
        next.store.condemns[me] = list;
        let collector = &mut next.collectors[me];
        collector.marked = view.roots(config.snapshots());
        collector.view = View::default();
        collector.at = if config.is(Mutant::NumberedAfterMarking) {
            At::Numbering
        } else if config.is(Mutant::SessionsListedFirst) {
            At::ListingSessions
        } else {
            At::Condemning
        };
        steps.push(who, Did::Condemns(list), next);
    }
}

/// Waits for each outcome, or fences: clocks that lie may say at any moment that a heartbeat has stopped.
fn wait(number: u8, state: &State, steps: &mut Steps<'_>, finished: impl Fn(&mut State)) {
    let me = usize::from(number);
    let store = &state.store;
    for session in members(state.collectors[me].waits) {
        let then = |next: &mut State, _| {
            next.collectors[me].waits &= !bit(session);
            if next.collectors[me].waits == 0 {
                finished(next);
            }
        };
        let decided = store.undecided() & bit(session) == 0;
        if decided {
            let mut next = *state;
            then(&mut next, true);
            steps.push(
                Who::Collector(number),
                Did::Does("sees the outcome of a session it waited for"),
                next,
            );
        } else {
            steps.put(Who::Collector(number), state, Put::Fence(session), then);
        }
    }
}

fn relists(number: u8, next: &mut State, config: &Config) -> At {
    if !config.is(Mutant::RootsNotRelisted) {
        return At::Relisting(0);
    }
    next.store.swept[usize::from(number)] = next.store.condemns[usize::from(number)];
    At::Deciding
}

/// Rescues what roots use: a chunk that has another place needs none of those that were condemned.
fn relisted(number: u8, next: &mut State, config: &Config) -> Names {
    let me = usize::from(number);
    let store = next.store;
    let collector = &mut next.collectors[me];
    let view = std::mem::take(&mut collector.view);
    let condemned = store.condemns[me];
    let mut last = condemned;
    // For those that it marked for it has kept enough.
    if view.roots(config.snapshots()) & !std::mem::take(&mut collector.marked) != 0 {
        let places = view.places(&store, config.mutant) & PACKS & !collector.swept;
        let log = view.log(config.mutant) & !collector.swept;
        if places == 0 || (config.log && log == 0) {
            last = 0;
        }
        if places & !condemned == 0 {
            last &= !places;
        }
        if config.log && log & !condemned == 0 {
            last &= !(log & LOG);
        }
    }
    next.store.swept[me] = last;
    collector.at = if last == 0 { At::Abandoning } else { At::Deciding };
    last
}

/// Whether a decision that now stands in the store permits to delete: a digest may say that another was taken.
fn swept_counts(number: u8, next: &mut State, config: &Config) -> bool {
    let folded = next.store.digests.finished & bit(number) != 0 && !config.is(Mutant::FoldedDecisionObeyed);
    if !folded {
        next.doomed |= next.store.swept[usize::from(number)];
    }
    !folded
}

fn retire_earlier_or_end(number: u8, next: &mut State, config: &Config) {
    let collector = &mut next.collectors[usize::from(number)];
    if config.retiring && collector.tidies != 0 {
        collector.at = At::Retiring;
    } else {
        *collector = ended();
    }
}

/// A late `sweep` that takes effect permits what any other permits.
pub fn arrived(number: u8, next: &mut State, config: &Config) {
    if next.store.sweeps & bit(number) != 0 {
        swept_counts(number, next, config);
    }
}
