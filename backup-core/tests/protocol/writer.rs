//! A writer: opens a session, lists, uses what it may, puts what is missing, decides by one create. Also the keyless
//! copier, whose pack has the name that it has elsewhere, and the repacker, who decides without a snapshot.

use super::config::{Config, WRITER};
use super::model::State;
use super::mutants::Mutant;
use super::rules::{Prefix, View};
use super::store::{LOG, Names, OLD, OLD_PACKS, Put, bit, name};
use super::trace::{Did, Steps, Who};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum At {
    #[default]
    Idle,
    Listing(u8),
    /// Only a mutant opens after it has listed.
    OpensLate,
    Adopting,
    PuttingPack,
    PuttingSegment,
    LookingAtLog,
    Committing,
    Ended,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    pub at: At,
    pub attempt: u8,
    pub view: View,
    /// Names that must not be relied upon: condemned or swept.
    pub barred: Names,
    /// The pack that its segment names.
    pub pack: u8,
}

/// In any order, or at once.
const LISTS: [Prefix; 5] =
    [Prefix::Collections, Prefix::Segments, Prefix::Outcomes, Prefix::Fates, Prefix::Digests];

pub fn steps(index: u8, state: &State, steps: &mut Steps<'_>) {
    let config = steps.config;
    let who = Who::Writer(index);
    let me = usize::from(index);
    let writer = state.writers[me];
    let session = config.session_of_writer(index, writer.attempt);
    // What happens to the writer in the next state.
    let set = |next: &mut State, change: &dyn Fn(&mut Writer)| change(&mut next.writers[me]);
    match writer.at {
        At::Idle => {
            // Writers are alike: the one that begins first is the first.
            let alike = index > 0 && !((config.copier || config.repacker) && index == 1);
            if alike && state.writers[me - 1].at == At::Idle && state.writers[me - 1].attempt == 0 {
                return;
            }
            if config.is(Mutant::ListedBeforeOpen) {
                list(index, state, steps);
            } else {
                let mut next = *state;
                next.store.create(Put::Open(session));
                set(&mut next, &|writer| writer.at = At::Listing(0));
                steps.push(who, Did::Puts(Put::Open(session)), next);
            }
        }
        At::Listing(_) => list(index, state, steps),
        At::OpensLate => {
            let mut next = *state;
            next.store.create(Put::Open(session));
            plan(index, &mut next, steps);
            steps.push(who, Did::Puts(Put::Open(session)), next);
        }
        At::Adopting => {
            let earlier = own_pack(index, writer.attempt - 1, steps);
            let mut next = *state;
            let there = state.store.packs & name(earlier) & !writer.barred != 0;
            let pack = if there { earlier } else { own_pack(index, writer.attempt, steps) };
            set(&mut next, &|writer| {
                writer.pack = pack;
                writer.barred &= LOG;
                writer.at = if there { At::PuttingSegment } else { At::PuttingPack };
            });
            let did =
                if there { "finds the pack it put before, and adopts it" } else { "finds no pack to adopt" };
            steps.push(who, Did::Does(did), next);
        }
        At::PuttingPack if repacks(index, config) && state.store.packs & writer.barred == 0 => {
            let mut next = *state;
            end(index, &mut next);
            steps.push(who, Did::Does("cannot read what it would repack"), next);
        }
        At::PuttingPack => steps.put(who, state, Put::Pack(writer.pack), |next, _| {
            set(next, &|writer| writer.at = At::PuttingSegment);
        }),
        At::PuttingSegment => {
            let mut written = *state;
            written.store.names[usize::from(session)] = name(writer.pack);
            steps.put(who, &written, Put::Segment(session), |next, _| {
                set(next, &|writer| go_on(writer, config.log));
            });
        }
        At::LookingAtLog => {
            // Without a log segment that it may rely upon it waits for the archiver.
            if state.store.packs & LOG & !writer.barred != 0 {
                let mut next = *state;
                set(&mut next, &|writer| go_on(writer, false));
                steps.push(who, Did::Does("finds the log segment"), next);
            }
        }
        At::Committing => steps.put(who, state, Put::Commit(session), |next, done| {
            if done {
                next.acknowledged |= bit(session) & config.snapshots();
                end(index, next);
            } else {
                begin_anew(index, next, config.attempts);
            }
        }),
        At::Ended => {}
    }
}

fn repacks(index: u8, config: &Config) -> bool {
    config.repacker && index == 0
}

/// To the outcome, by way of the log if the snapshot needs it; what it knew is needed no more.
fn go_on(writer: &mut Writer, log: bool) {
    writer.pack = 0;
    if log {
        writer.at = At::LookingAtLog;
    } else {
        writer.at = At::Committing;
        writer.barred = 0;
    }
}

fn end(index: u8, next: &mut State) {
    next.writers[usize::from(index)] = Writer { at: At::Ended, attempt: 1, ..Writer::default() };
}

/// A writer that was fenced opens a new session and looks at everything again.
fn begin_anew(index: u8, next: &mut State, attempts: u8) {
    let attempt = next.writers[usize::from(index)].attempt + 1;
    if attempt < attempts {
        next.writers[usize::from(index)] = Writer { attempt, ..Writer::default() };
    } else {
        end(index, next);
    }
}

fn list(index: u8, state: &State, steps: &mut Steps<'_>) {
    let config = steps.config;
    let writer = state.writers[usize::from(index)];
    let done = if let At::Listing(done) = writer.at { done } else { 0 };
    for listed in config.list_in_any_order(WRITER, &LISTS, done, &writer.view, &state.store) {
        let mut next = *state;
        let writer = &mut next.writers[usize::from(index)];
        writer.view = listed.view;
        writer.at = At::Listing(listed.done);
        if listed.finished && config.is(Mutant::ListedBeforeOpen) {
            writer.at = At::OpensLate;
        } else if listed.finished {
            plan(index, &mut next, steps);
        }
        steps.push(Who::Writer(index), listed.did, next);
    }
}

/// What it relies upon, and what it uploads.
fn plan(index: u8, next: &mut State, steps: &Steps<'_>) {
    let config = steps.config;
    let contents = next.store;
    let writer = &mut next.writers[usize::from(index)];
    let mut view = std::mem::take(&mut writer.view);
    if config.is(Mutant::CachedSegmentsKept) {
        view.segments |= bit(OLD);
    }
    if config.is(Mutant::IndexNotListed) {
        view.segments = bit(OLD);
    }
    let forgets =
        [Mutant::SweptPackReused, Mutant::SweptPackAdopted, Mutant::SweptPackCopied, Mutant::LogNameReused];
    if forgets.into_iter().any(|mutant| config.is(mutant)) {
        view.digests.swept = 0;
    }
    let condemned = if config.is(Mutant::CondemnedReused) { 0 } else { view.condemned };
    writer.barred = condemned | view.swept() | view.digests.swept;
    let usable = view.places(&contents, config.mutant) & !writer.barred;
    // What the parent has is looked up like everything else.
    let parent = view.committed() & bit(OLD) != 0;
    let taken_over = match config.mutant {
        Some(Mutant::UnchangedNotLookedUp) => parent && !view.old_has_expired(),
        Some(Mutant::ExpiredParent) => parent,
        _ => false,
    };
    if repacks(index, config) {
        // Where it reads the chunk is kept in place of what it must not use.
        *writer = Writer {
            at: At::PuttingPack,
            attempt: writer.attempt,
            view: View::default(),
            barred: usable,
            pack: own_pack(index, writer.attempt, steps),
        };
        if usable == 0 {
            end(index, next);
        }
        return;
    }
    if usable != 0 || taken_over {
        go_on(writer, config.log);
        return;
    }
    let copies = config.copier && index == 0;
    if copies && writer.barred & name(OLD_PACKS[0]) != 0 {
        // The name was condemned or swept here: whoever has the keys must seal the bytes anew.
        end(index, next);
        return;
    }
    writer.pack = if copies { OLD_PACKS[0] } else { own_pack(index, writer.attempt, steps) };
    writer.at = if writer.attempt > 0 && !copies { At::Adopting } else { At::PuttingPack };
    if !config.log && writer.at == At::PuttingPack {
        writer.barred = 0;
    }
}

/// A session's packs have names of their own, as the bytes are sealed with a salt.
fn own_pack(index: u8, attempt: u8, steps: &Steps<'_>) -> u8 {
    2 + index * steps.config.attempts + attempt
}
