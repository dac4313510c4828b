//! The whole: who takes part, what they may do next, and what must always hold.

use std::hash::{Hash, Hasher};

use stateright::{Model, Property};

use super::archiver::Archiver;
use super::collector::Collector;
use super::config::Config;
use super::forgetter::{Forgetter, Holder, Undeleter};
use super::merger::Merger;
use super::quiet;
use super::reader::Reader;
use super::rules::View;
use super::store::{COLLECTIONS, FIRST_LOG, Ids, LOG, Names, OLD, OLD_PACKS, Put, Store, bit, name};
use super::trace::{Did, Step, Steps, Who};
use super::writer::Writer;
use super::{archiver, collector, forgetter, keeper, merger, reader, writer};

pub const WRITERS: usize = 2;
/// Two of them are for quiet collections.
pub const MERGERS: usize = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub store: Store,
    pub writers: [Writer; WRITERS],
    pub collectors: [Collector; COLLECTIONS],
    pub mergers: [Merger; MERGERS],
    pub forgetter: Forgetter,
    pub undeleter: Undeleter,
    pub holder: Holder,
    pub archiver: Archiver,
    pub reader: Reader,
    /// Sessions whose snapshots were acknowledged.
    pub acknowledged: Ids,
    /// Somebody was told that the old snapshot is kept.
    pub promised: bool,
    /// Somebody was told that it is held.
    pub held: bool,
    /// Names that a decision `sweep` permits anybody to delete, now or in a year.
    pub doomed: Names,
    /// Segments that a merger set out to delete.
    pub doomed_segments: Ids,
    pub late_left: u8,
    pub digests_left: u8,
    pub merges_left: u8,
}

impl State {
    /// Makes one state of several that differ only in what nobody will ever look at.
    fn drop_what_is_past(&mut self, config: &Config) {
        let store = &mut self.store;
        // A session that has an outcome is waited for by nobody.
        store.opens &= store.undecided();
        for number in 0..config.collectors {
            let collector = &self.collectors[usize::from(number)];
            let here = bit(number);
            let decided = (store.sweeps | store.abandoned) & here != 0 || store.condemned & here == 0;
            if decided && collector.has_condemned() && !store.is_under_way(Put::Condemned(number)) {
                store.condemns[usize::from(number)] = 0;
            }
            let sweeps = store.sweeps & here != 0 || store.is_under_way(Put::Sweep(number));
            if collector.has_ended() && !sweeps {
                store.swept[usize::from(number)] = 0;
            }
        }
        // A repeated put of what is there for ever does nothing.
        for put in &mut store.late {
            let stays = match *put {
                Put::Nothing | Put::Pack(_) => false,
                Put::Segment(id) => {
                    store.segments & bit(id) != 0 && config.mergers == 0 && config.digests == 0
                }
                Put::Commit(id) | Put::Fence(id) => {
                    (store.commits | store.fences) & bit(id) != 0 && config.digests == 0
                }
                Put::Condemned(id) => {
                    store.condemned & bit(id) != 0 && !config.retiring && config.digests == 0
                }
                Put::Sweep(id) | Put::Abandoned(id) => {
                    (store.sweeps | store.abandoned) & bit(id) != 0 && !config.retiring && config.digests == 0
                }
                Put::Tombstone(id) => store.tombstones & bit(id) != 0 && config.digests == 0,
                Put::Expired(id) | Put::Kept(id) => {
                    (store.expired | store.kept) & bit(id) != 0 && config.digests == 0
                }
                Put::Number(_) | Put::Open(_) => true,
                Put::Hold => store.hold,
            };
            if stays {
                *put = Put::Nothing;
            }
        }
        store.late.sort_unstable();
    }
}

/// Those who have not begun are passed over: that is most of the time that a search takes.
impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        fn each<T: Default + PartialEq + Hash, H: Hasher>(kind: u8, actors: &[T], state: &mut H) {
            for (index, actor) in actors.iter().enumerate() {
                if *actor != T::default() {
                    (kind, index as u8).hash(state);
                    actor.hash(state);
                }
            }
        }
        self.store.hash(state);
        each(0, &self.writers, state);
        each(1, &self.collectors, state);
        each(2, &self.mergers, state);
        each(3, std::slice::from_ref(&self.archiver), state);
        each(4, std::slice::from_ref(&self.reader), state);
        (self.forgetter, self.undeleter, self.holder, self.promised, self.held).hash(state);
        (self.acknowledged, self.doomed, self.doomed_segments).hash(state);
        (self.late_left, self.digests_left, self.merges_left).hash(state);
    }
}

impl Config {
    pub fn first(&self) -> State {
        let mut state = State {
            late_left: self.late,
            digests_left: self.digests,
            merges_left: self.merged_digests,
            ..State::default()
        };
        if self.old {
            let store = &mut state.store;
            store.packs = name(OLD_PACKS[0]) | if self.twice { name(OLD_PACKS[1]) } else { 0 };
            store.names[usize::from(OLD)] = store.packs;
            store.opens = bit(OLD);
            store.segments = bit(OLD);
            store.commits = bit(OLD);
            state.acknowledged = bit(OLD);
            if self.log {
                store.packs |= name(FIRST_LOG);
            }
            if self.late_old_segment {
                store.send(Put::Segment(OLD));
            }
        }
        state
    }

    /// Everything that may happen next.
    pub fn steps(&self, state: &State, list: &mut Vec<Step>) {
        let mut steps = Steps { config: self, list };
        (0..self.writers).for_each(|writer| writer::steps(writer, state, &mut steps));
        (0..self.collectors).for_each(|collector| collector::steps(collector, state, &mut steps));
        (0..self.mergers).for_each(|merger| merger::steps(merger, state, &mut steps));
        if self.forgetter {
            forgetter::steps(state, &mut steps);
        }
        if self.undeleter {
            forgetter::undeleter_steps(state, &mut steps);
        }
        if self.holder {
            forgetter::holder_steps(state, &mut steps);
        }
        if self.archiver {
            archiver::steps(state, &mut steps);
        }
        if self.reader {
            reader::steps(state, &mut steps);
        }
        keeper::steps(state, &mut steps);
        for (index, put) in state.store.late.into_iter().enumerate() {
            if put != Put::Nothing {
                let mut next = *state;
                next.store.arrive(index);
                if let Put::Sweep(number) = put {
                    collector::arrived(number, &mut next, self);
                }
                steps.push(Who::Store, Did::Arrives(put), next);
            }
        }
    }

    /// Whether every snapshot that was acknowledged, and has not expired, restores.
    pub fn restores(&self, state: &State) -> bool {
        let view = View::whole(&state.store);
        let mut needed = state.acknowledged;
        if view.old_has_expired() && !state.promised && !state.held {
            needed &= !bit(OLD);
        }
        let stored = state.store.packs;
        let chunk = view.places(&state.store, self.mutant) & stored != 0;
        let log = !self.log || stored & LOG != 0;
        needed == 0 || (chunk && log)
    }
}

impl Model for Config {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        self.steps(state, actions);
        actions.iter_mut().for_each(|step| step.next.drop_what_is_past(self));
    }

    fn next_state(&self, _: &State, step: Step) -> Option<State> {
        Some(step.next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("it holds", |config: &Self, state: &State| {
            config.restores(state)
                && !state.reader.has_failed()
                && (!config.quiet || quiet::leaves(config, state).is_none())
        })]
    }
}
