//! The store: files that are created if absent, and puts that take effect when they please.

use std::fmt;
use std::hash::{Hash, Hasher};

/// A set of small numbers: sessions (and the segment that each may write), or collections.
pub type Ids = u8;
/// A set of names of packs and of log segments.
pub type Names = u16;

pub const SESSIONS: usize = 8;
pub const COLLECTIONS: usize = 4;

/// The session of the snapshot that is there from the beginning.
pub const OLD: u8 = 0;

/// The packs of the old snapshot: both hold the one chunk that everybody needs.
pub const OLD_PACKS: [u8; 2] = [0, 1];
/// Names of packs, each of which holds the chunk: the old ones, and one for each session of a writer.
pub const PACKS: Names = 0b0000_0011_1111;
/// `logs/.../0`, `/1`, `/2`: the one log segment that a snapshot may need, as archived anew.
pub const LOG: Names = 0b0001_1100_0000;
pub const FIRST_LOG: u8 = 6;

pub fn members(set: impl Into<u16>) -> impl Iterator<Item = u8> {
    let set = set.into();
    (0..16).filter(move |bit| set & (1 << bit) != 0)
}

pub fn bit(id: u8) -> Ids {
    1 << id
}

pub fn name(id: u8) -> Names {
    1 << id
}

/// A create: what stands in the file follows from the tables of [`Store`], as its author never puts another content
/// under the same key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Put {
    #[default]
    Nothing,
    Number(u8),
    Open(u8),
    /// A pack, or a log segment.
    Pack(u8),
    Segment(u8),
    /// A session's outcome: its snapshot, or the decision of one that makes none.
    Commit(u8),
    Fence(u8),
    Condemned(u8),
    Sweep(u8),
    Abandoned(u8),
    Tombstone(u8),
    Expired(u8),
    Kept(u8),
    /// A hold of the old snapshot.
    Hold,
}

/// What digests name: final, whatever else appears. They are never deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// Names that were swept.
    pub swept: Names,
    /// Collections that were abandoned, and those that swept and have retired.
    pub finished: Ids,
    /// The old snapshot has expired; its session had committed.
    pub expired: bool,
}

/// In one piece, as hashing is what a search spends its time with.
impl Hash for Digests {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [low, high] = self.swept.to_le_bytes();
        state.write_u32(u32::from_le_bytes([low, high, self.finished, u8::from(self.expired)]));
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    pub packs: Names,
    pub opens: Ids,
    pub commits: Ids,
    pub fences: Ids,
    pub segments: Ids,
    /// What each session's segment names, and which segments it supersedes.
    pub names: [Names; SESSIONS],
    pub supersedes: [Ids; SESSIONS],
    pub numbers: Ids,
    pub condemned: Ids,
    pub sweeps: Ids,
    pub abandoned: Ids,
    /// What each collection condemns, and what it sweeps.
    pub condemns: [Names; COLLECTIONS],
    pub swept: [Names; COLLECTIONS],
    /// Tombstones of the old snapshot, and the fates of each.
    pub tombstones: Ids,
    pub expired: Ids,
    pub kept: Ids,
    pub hold: bool,
    pub digests: Digests,
    /// How often all digests were merged into one, and those that were merged deleted. Whoever listed in between saw both, and lost
    /// nothing: so that it is one step.
    pub merges: u8,
    /// Puts under way, in order; they take effect at any moment, or never.
    pub late: [Put; 2],
}

impl Store {
    /// Whether the file now holds what was put: a create repeated after a lost answer finds its own bytes.
    pub fn create(&mut self, put: Put) -> bool {
        let (here, instead, id) = match put {
            Put::Nothing => return true,
            Put::Pack(id) => {
                self.packs |= name(id);
                return true;
            }
            Put::Hold => {
                self.hold = true;
                return true;
            }
            Put::Number(id) => (&mut self.numbers, 0, id),
            Put::Open(id) => (&mut self.opens, 0, id),
            Put::Segment(id) => (&mut self.segments, 0, id),
            Put::Commit(id) => (&mut self.commits, self.fences, id),
            Put::Fence(id) => (&mut self.fences, self.commits, id),
            Put::Condemned(id) => (&mut self.condemned, 0, id),
            Put::Sweep(id) => (&mut self.sweeps, self.abandoned, id),
            Put::Abandoned(id) => (&mut self.abandoned, self.sweeps, id),
            Put::Tombstone(id) => (&mut self.tombstones, 0, id),
            Put::Expired(id) => (&mut self.expired, self.kept, id),
            Put::Kept(id) => (&mut self.kept, self.expired, id),
        };
        let free = instead & bit(id) == 0;
        if free {
            *here |= bit(id);
        }
        free
    }

    pub fn send(&mut self, put: Put) {
        self.late[0] = put;
        self.late.sort_unstable();
    }

    /// Deletes all files of collections that a digest names: `condemned` first, the decision last.
    pub fn forget_collections(&mut self, collections: Ids) {
        for files in [&mut self.condemned, &mut self.numbers, &mut self.sweeps, &mut self.abandoned] {
            *files &= !collections;
        }
    }

    /// Sessions without outcome; that of an expired snapshot is known by a digest.
    pub fn undecided(&self) -> Ids {
        let expired = if self.digests.expired { bit(OLD) } else { 0 };
        self.opens & !(self.commits | self.fences | expired)
    }

    pub fn is_under_way(&self, put: Put) -> bool {
        self.late.contains(&put)
    }

    /// Takes a put that was under way and lets it take effect.
    pub fn arrive(&mut self, index: usize) {
        let put = std::mem::take(&mut self.late[index]);
        self.late.sort_unstable();
        self.create(put);
    }
}

impl fmt::Display for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Nothing => write!(f, "nothing"),
            Self::Number(id) => write!(f, "the number of collection {id}"),
            Self::Open(id) => write!(f, "`open` of session {id}"),
            Self::Pack(id) => write!(f, "{}", Thing(id)),
            Self::Segment(id) => write!(f, "segment {id}"),
            Self::Commit(id) => write!(f, "the outcome of session {id}"),
            Self::Fence(id) => write!(f, "a fence for session {id}"),
            Self::Condemned(id) => write!(f, "`condemned` of collection {id}"),
            Self::Sweep(id) => write!(f, "the decision `sweep` of collection {id}"),
            Self::Abandoned(id) => write!(f, "the decision `abandoned` of collection {id}"),
            Self::Tombstone(id) => write!(f, "tombstone {id} of the old snapshot"),
            Self::Expired(id) => write!(f, "the fate `expired` of tombstone {id}"),
            Self::Hold => write!(f, "a hold of the old snapshot"),
            Self::Kept(id) => write!(f, "the fate `kept` of tombstone {id}"),
        }
    }
}

/// A pack or a log segment, for people.
#[derive(Clone, Copy)]
pub struct Thing(pub u8);

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            id if id >= FIRST_LOG => write!(f, "log segment /{}", id - FIRST_LOG),
            id => write!(f, "pack {id}"),
        }
    }
}

/// Several of them.
#[derive(Clone, Copy)]
pub struct Things(pub Names);

impl fmt::Display for Things {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return write!(f, "nothing");
        }
        for (index, id) in members(self.0).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", Thing(id))?;
        }
        Ok(())
    }
}
