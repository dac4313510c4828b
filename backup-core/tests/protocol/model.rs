//! The whole: who takes part, what they may do next, and what must always hold.

use std::fmt;
use std::hash::{Hash, Hasher};

use stateright::{Model, Property};

use super::archiver::Archiver;
use super::collector::Collector;
use super::forgetter::{Forgetter, Holder, Undeleter};
use super::merger::Merger;
use super::mutants::Mutant;
use super::quiet;
use super::reader::Reader;
use super::rules::{Prefix, View};
use super::store::{COLLECTIONS, Ids, LOG, Names, OLD, OLD_PACKS, Put, Store, Things, bit, name};
use super::writer::Writer;
use super::{archiver, collector, forgetter, keeper, merger, reader, writer};

/// Who takes part, and how much may happen.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub name: &'static str,
    pub writers: u8,
    /// How often a writer begins anew when it was fenced, the first time included.
    pub attempts: u8,
    /// The first writer copies without a key: it puts the old pack under its old name.
    pub copier: bool,
    pub collectors: u8,
    pub mergers: u8,
    pub forgetter: bool,
    pub undeleter: bool,
    pub holder: bool,
    pub archiver: bool,
    pub reader: bool,
    /// Whether there is an old snapshot, and whether its chunk stands in two packs.
    pub old: bool,
    pub twice: bool,
    /// Whether snapshots need the log segment.
    pub log: bool,
    /// How many digests fold outcomes, fates and decisions, whose files are then deleted.
    pub digests: u8,
    /// Whether collections go on until they retire.
    pub retiring: bool,
    /// How many puts may be sent that take effect later, or never.
    pub late: u8,
    /// Such a put of the old segment is under way from the beginning.
    pub late_old_segment: bool,
    /// Whose lists of one reading are one step.
    pub coarse: u8,
    /// Sessions whose segments and outcomes stand on the first page of a list of two; a list of one page if there are none.
    pub page: Ids,
    /// In every state: two quiet collections leave nothing behind.
    pub quiet: bool,
    pub mutant: Option<Mutant>,
}

/// Roles, for [`Config::coarse`].
pub const WRITER: u8 = 1;
pub const COLLECTOR: u8 = 2;
pub const MERGER: u8 = 4;
pub const OTHER: u8 = 8;
pub const EVERYBODY: u8 = 15;

/// Nobody does anything.
pub const NOBODY: Config = Config {
    name: "",
    writers: 0,
    attempts: 1,
    copier: false,
    collectors: 0,
    mergers: 0,
    forgetter: false,
    undeleter: false,
    holder: false,
    archiver: false,
    reader: false,
    old: true,
    twice: false,
    log: false,
    digests: 0,
    retiring: false,
    late: 0,
    late_old_segment: false,
    coarse: 0,
    page: 0,
    quiet: false,
    mutant: None,
};

pub const WRITERS: usize = 2;
pub const MERGERS: usize = 4;

impl Config {
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub fn session_of_writer(&self, writer: u8, attempt: u8) -> u8 {
        1 + writer * self.attempts + attempt
    }

    pub fn session_of_merger(&self, merger: u8) -> u8 {
        1 + self.writers * self.attempts + merger
    }

    /// The sessions that make snapshots.
    pub fn snapshots(&self) -> Ids {
        bit(self.session_of_merger(0)) - 1
    }

    /// In which order somebody lists, page by page; digests come last, but for a mutant.
    fn pages(&self, prefixes: &'static [Prefix]) -> impl Iterator<Item = (Prefix, Ids)> {
        let early = match self.mutant {
            Some(Mutant::DigestsListedFirst) => Some(Prefix::Digests),
            Some(Mutant::OutcomesListedFirst) => Some(Prefix::Outcomes),
            Some(Mutant::FatesListedFirst) => Some(Prefix::Fates),
            _ => None,
        };
        let first = early.filter(|prefix| prefixes.contains(prefix));
        let others = prefixes.iter().copied().filter(move |prefix| Some(*prefix) != first);
        let page = self.page;
        first.into_iter().chain(others).flat_map(move |prefix| {
            let paged = page != 0 && matches!(prefix, Prefix::Segments | Prefix::Outcomes);
            let pages = if paged { [page, !page] } else { [Ids::MAX, 0] };
            pages.into_iter().filter(|page| *page != 0).map(move |page| (prefix, page))
        })
    }

    /// Takes the next step of a reading, or all that are left; says whether it is finished.
    pub fn list(
        &self,
        role: u8,
        prefixes: &'static [Prefix],
        done: &mut u8,
        view: &mut View,
        store: &Store,
    ) -> (Did, bool) {
        let mut left = self.pages(prefixes).skip(usize::from(*done)).peekable();
        if self.coarse & role != 0 {
            left.for_each(|(prefix, page)| view.list_page(prefix, page, store));
            return (Did::ListsAll, true);
        }
        let Some((prefix, page)) = left.next() else { return (Did::ListsAll, true) };
        view.list_page(prefix, page, store);
        *done += 1;
        (Did::Lists(prefix), left.peek().is_none())
    }

    /// In a few words.
    pub fn bound(&self) -> String {
        let mut words = Vec::new();
        let counts = [
            (self.writers, "writer"),
            (self.collectors, "collector"),
            (self.mergers, "merger"),
            (u8::from(self.forgetter), "forgetter"),
            (u8::from(self.undeleter), "undeleter"),
            (u8::from(self.holder), "holder"),
            (u8::from(self.archiver), "archiver"),
            (u8::from(self.reader), "reader"),
            (self.late + u8::from(self.late_old_segment), "late put"),
            (self.digests, "digest"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            words.push(format!("{count} {what}{}", if count == 1 { "" } else { "s" }));
        }
        let flags = [
            (self.attempts > 1, "fenced writers begin anew"),
            (self.copier, "the first writer copies"),
            (self.twice, "the chunk stands in two packs"),
            (!self.old, "no old snapshot"),
            (self.retiring, "collections retire"),
            (self.page != 0, "lists have pages"),
            (self.coarse & WRITER != 0, "writers list at once"),
            (self.coarse & COLLECTOR != 0, "collectors list at once"),
            (self.coarse & MERGER != 0 && self.mergers > 0, "mergers list at once"),
            (self.quiet, "quiescence"),
        ];
        words.extend(flags.into_iter().filter(|(set, _)| *set).map(|(_, what)| what.to_owned()));
        words.join(", ")
    }
}

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
                Put::Segment(id) => store.segments & bit(id) != 0 && config.mergers == 0 && config.digests == 0,
                Put::Commit(id) | Put::Fence(id) => {
                    (store.commits | store.fences) & bit(id) != 0 && self.digests_left == 0
                        && (store.digests.committed | store.digests.fenced) & bit(id) == 0
                }
                Put::Condemned(id) => store.condemned & bit(id) != 0 && !config.retiring && config.digests == 0,
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
        (self.acknowledged, self.doomed, self.doomed_segments, self.late_left, self.digests_left).hash(state);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Writer(u8),
    Collector(u8),
    Merger(u8),
    Forgetter,
    Undeleter,
    Holder,
    Archiver,
    Reader,
    Store,
    Anybody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    Lists(Prefix),
    ListsAll,
    ListsSessions,
    Puts(Put),
    Refused(Put),
    Sends(Put),
    Arrives(Put),
    Deletes(Put),
    DeletesCollections(Ids),
    Condemns(Names),
    SettlesOn(Names),
    Does(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub who: Who,
    pub did: Did,
    pub next: State,
}

/// What may happen next, as it is collected.
pub struct Steps<'a> {
    pub config: &'a Config,
    pub list: &'a mut Vec<Step>,
}

impl Steps<'_> {
    pub fn push(&mut self, who: Who, did: Did, next: State) {
        self.list.push(Step { who, did, next });
    }

    /// A create by somebody who waits for the answer: done and answered, or sent and still under way. Whether an answer
    /// is lost, or its author dead, makes no difference: it is as if he were slow.
    pub fn put(&mut self, who: Who, state: &State, put: Put, then: impl FnOnce(&mut State, bool)) {
        let mut next = *state;
        let done = next.store.create(put);
        then(&mut next, done);
        self.push(who, if done { Did::Puts(put) } else { Did::Refused(put) }, next);
        if state.late_left > 0 && !state.store.is_under_way(put) {
            let mut next = *state;
            next.store.send(put);
            next.late_left -= 1;
            self.push(who, Did::Sends(put), next);
        }
    }
}

impl Config {
    pub fn first(&self) -> State {
        let mut state = State { late_left: self.late, digests_left: self.digests, ..State::default() };
        if self.old {
            let store = &mut state.store;
            store.packs = name(OLD_PACKS[0]) | if self.twice { name(OLD_PACKS[1]) } else { 0 };
            store.names[usize::from(OLD)] = store.packs;
            store.opens = bit(OLD);
            store.segments = bit(OLD);
            store.commits = bit(OLD);
            state.acknowledged = bit(OLD);
            if self.log {
                store.packs |= name(super::store::FIRST_LOG);
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

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writer(id) => write!(f, "writer {id}"),
            Self::Collector(id) => write!(f, "collector {id}"),
            Self::Merger(id) => write!(f, "merger {id}"),
            Self::Forgetter => write!(f, "forgetter"),
            Self::Undeleter => write!(f, "undeleter"),
            Self::Holder => write!(f, "holder"),
            Self::Archiver => write!(f, "archiver"),
            Self::Reader => write!(f, "reader"),
            Self::Store => write!(f, "store"),
            Self::Anybody => write!(f, "anybody"),
        }
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Lists(prefix) => write!(f, "lists {}", format!("{prefix:?}").to_lowercase()),
            Self::ListsAll => write!(f, "lists all it needs"),
            Self::ListsSessions => write!(f, "lists sessions"),
            Self::Puts(put) => write!(f, "puts {put}"),
            Self::Refused(put) => write!(f, "would put {put}, but another stands there"),
            Self::Sends(put) => write!(f, "sends {put}, which stays under way"),
            Self::Arrives(put) => write!(f, "only now gets {put}"),
            Self::Deletes(put) => write!(f, "deletes {put}"),
            Self::DeletesCollections(ids) => {
                write!(f, "deletes the files of collection {}", super::store::members(ids).map(|id| id.to_string()).collect::<Vec<_>>().join(", "))
            }
            Self::Condemns(names) => write!(f, "means to condemn {}", Things(names)),
            Self::SettlesOn(names) => write!(f, "lists digests and settles on sweeping {}", Things(names)),
            Self::Does(what) => write!(f, "{what}"),
        }
    }
}
