//! What follows from what was listed: pure functions, the same for everybody.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::mutants::Mutant;
use super::store::{COLLECTIONS, Digests, Ids, LOG, Names, OLD, PACKS, SESSIONS, Store, bit, members};

/// One prefix. A list of it is one step; lists of several are several steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// Packs and log segments.
    Data,
    Collections,
    Segments,
    Outcomes,
    Fates,
    Holds,
    /// Which digests there are, and what they say.
    Digests,
    /// Only which there are, and, as a step of its own, what those say that were listed.
    DigestNames,
    DigestContents,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "data",
            Self::Collections => "collections",
            Self::Segments => "segments",
            Self::Outcomes => "outcomes",
            Self::Fates => "fates",
            Self::Holds => "holds",
            Self::Digests => "digests",
            Self::DigestNames => "which digests there are",
            Self::DigestContents => "the digests",
        })
    }
}

/// What somebody has listed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub data: Names,
    /// What a collection without decision condemns.
    pub condemned: Names,
    /// What each collection that has not retired sweeps: see [`swept`](Self::swept).
    pub sweeping: [Names; COLLECTIONS],
    /// Collections that have not retired: with `condemned`, and with the decision `sweep`.
    pub unretired: Ids,
    pub sweeps: Ids,
    pub segments: Ids,
    pub commits: Ids,
    pub fences: Ids,
    pub expired: Ids,
    pub kept: Ids,
    pub hold: bool,
    pub digests: Digests,
    /// Digests that were listed and not read yet, and how often digests had been merged by then.
    pub named: Option<(Digests, u8)>,
}

/// Short when nothing was listed, and else in few pieces: see [`Digests`].
impl Hash for View {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if *self == Self::default() {
            state.write_u8(0);
            return;
        }
        let mut bytes = [0; 16];
        for (index, names) in [self.data, self.condemned].into_iter().enumerate() {
            bytes[2 * index..][..2].copy_from_slice(&names.to_le_bytes());
        }
        let ids =
            [self.unretired, self.sweeps, self.segments, self.commits, self.fences, self.expired, self.kept];
        bytes[4..11].copy_from_slice(&ids);
        bytes[11] = 1;
        bytes[12] = u8::from(self.hold);
        state.write_u128(u128::from_le_bytes(bytes));
        if self.sweeping != [0; COLLECTIONS] {
            self.sweeping.hash(state);
        }
        self.digests.hash(state);
        if let Some(named) = self.named {
            named.hash(state);
        }
    }
}

impl View {
    pub fn list(&mut self, prefix: Prefix, store: &Store) {
        self.list_page(prefix, Ids::MAX, store);
    }

    /// Lists those files that stand on one page.
    pub fn list_page(&mut self, prefix: Prefix, page: Ids, store: &Store) {
        match prefix {
            Prefix::Data => self.data = store.packs,
            Prefix::Collections => {
                for number in members(store.condemned & !store.abandoned) {
                    self.unretired |= bit(number);
                    if store.sweeps & bit(number) == 0 {
                        self.condemned |= store.condemns[usize::from(number)];
                    }
                }
                self.sweeps = store.sweeps;
                // What a decision sweeps is what `condemned` names, without what was rescued.
                for number in members(store.sweeps & store.condemned) {
                    self.sweeping[usize::from(number)] = store.swept[usize::from(number)];
                }
            }
            Prefix::Segments => self.segments |= store.segments & page,
            Prefix::Outcomes => {
                self.commits |= store.commits & page;
                self.fences |= store.fences & page;
            }
            Prefix::Fates => (self.expired, self.kept) = (store.expired, store.kept),
            Prefix::Holds => self.hold = store.hold,
            Prefix::Digests => self.digests = store.digests,
            Prefix::DigestNames => self.named = Some((store.digests, store.merges)),
            // Those that are gone were merged: they are listed once more. A mutant does without what they said.
            Prefix::DigestContents => match self.named.take() {
                Some((digests, merges)) if merges == store.merges => self.digests = digests,
                _ => self.list(Prefix::DigestNames, store),
            },
        }
    }

    /// All there is, as only a bystander sees it: in one moment.
    pub fn whole(store: &Store) -> Self {
        let mut view = Self::default();
        let all = [
            Prefix::Data,
            Prefix::Collections,
            Prefix::Segments,
            Prefix::Outcomes,
            Prefix::Fates,
            Prefix::Holds,
            Prefix::Digests,
        ];
        all.into_iter().for_each(|prefix| view.list(prefix, store));
        view
    }

    /// Sessions whose outcome counts as committed. What a digest names is final.
    pub fn committed(&self) -> Ids {
        self.commits | if self.digests.expired { bit(OLD) } else { 0 }
    }

    pub fn fenced(&self) -> Ids {
        self.fences & !self.committed()
    }

    /// Whether the old snapshot has expired.
    pub fn old_has_expired(&self) -> bool {
        self.digests.expired || self.expired != 0
    }

    /// The sessions whose snapshots are roots; `snapshots` are those that make any. A hold counts whatever the fate.
    pub fn roots(&self, snapshots: Ids) -> Ids {
        let expired = if self.old_has_expired() && !self.hold { bit(OLD) } else { 0 };
        self.committed() & snapshots & !expired
    }

    /// Segments that are superseded by a committed one.
    pub fn superseded(&self, contents: &Store, mutant: Option<Mutant>) -> Ids {
        let mut superseding = self.segments & self.committed();
        if mutant == Some(Mutant::FencedSegmentSupersedes) {
            superseding |= self.segments & self.fenced();
        }
        members(superseding).fold(0, |all, segment| all | contents.supersedes[usize::from(segment)])
    }

    /// Segments through which references are resolved.
    pub fn valid(&self, contents: &Store, mutant: Option<Mutant>) -> Ids {
        let mut committed = self.segments & self.committed();
        if mutant == Some(Mutant::FencedSegmentResolves) {
            committed |= self.segments & self.fenced();
        }
        committed & !self.superseded(contents, mutant)
    }

    /// The packs that valid segments name and no digest calls swept.
    pub fn places(&self, contents: &Store, mutant: Option<Mutant>) -> Names {
        names_in(self.valid(contents, mutant), contents) & PACKS & !self.digests.swept
    }

    /// What collections sweep that are not finished: of those that a digest calls so the files mean nothing.
    pub fn swept(&self) -> Names {
        let unfinished =
            (0_u8..).zip(self.sweeping).filter(|(number, _)| self.digests.finished & bit(*number) == 0);
        unfinished.fold(0, |all, (_, names)| all | names)
    }

    /// Log segments that may be relied upon: listed, and never swept.
    pub fn log(&self, mutant: Option<Mutant>) -> Names {
        let swept = self.swept() | if mutant == Some(Mutant::LogNameReused) { 0 } else { self.digests.swept };
        self.data & LOG & !swept
    }
}

/// What these segments name.
pub fn names_in(segments: Ids, contents: &Store) -> Names {
    members(segments).fold(0, |all, segment| all | contents.names[usize::from(segment)])
}

const _: () = assert!(SESSIONS <= Ids::BITS as usize);
