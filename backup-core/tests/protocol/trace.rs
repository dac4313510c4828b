//! Steps: who did what, and what came of it; in words, for the traces of those that end badly.

use std::fmt;

use super::config::Config;
use super::model::State;
use super::rules::Prefix;
use super::store::{Ids, Names, Put, Things, members};

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
            Self::Lists(Prefix::DigestContents) => write!(f, "reads the digests"),
            Self::Lists(prefix) => write!(f, "lists {}", prefix),
            Self::ListsAll => write!(f, "lists all it needs"),
            Self::ListsSessions => write!(f, "lists sessions"),
            Self::Puts(put) => write!(f, "puts {put}"),
            Self::Refused(put) => write!(f, "would put {put}, but another stands there"),
            Self::Sends(put) => write!(f, "sends {put}, which stays under way"),
            Self::Arrives(put) => write!(f, "only now gets {put}"),
            Self::Deletes(put) => write!(f, "deletes {put}"),
            Self::DeletesCollections(ids) => {
                let ids: Vec<_> = members(ids).map(|id| id.to_string()).collect();
                write!(f, "deletes the files of collection {}", ids.join(", "))
            }
            Self::Condemns(names) => write!(f, "means to condemn {}", Things(names)),
            Self::SettlesOn(names) => write!(f, "lists digests and settles on sweeping {}", Things(names)),
            Self::Does(what) => write!(f, "{what}"),
        }
    }
}
