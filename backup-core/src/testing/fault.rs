//! What goes wrong with a store's calls, and at which of them.

use super::Operation;
use crate::ErrorKind;

/// How a call that is struck goes wrong.
///
/// The first group are failures that the contract of [`Sink`](crate::Sink) allows, and that every store has. The second
/// group breaks the contract: a store that does so is to be noticed, or to do no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Manner {
    /// It fails and has no effect.
    Before,
    /// It has its effect, and the caller is told that it failed: an answer that was lost.
    AfterEffect,
    /// It fails, and has its effect so many calls later: a request that was held up on its way.
    Late {
        /// Calls that come first.
        calls: u64,
    },
    /// It is the process's last call: it is never answered, and no later one has any effect or answer. See
    /// [`FailingSink::ended`](super::FailingSink::ended).
    Last {
        /// Whether it still has its effect.
        after_effect: bool,
    },
    /// It happens twice, and the caller hears the second answer: a network that repeats requests. Of a put that
    /// [`Created`](crate::PutOutcome::Created), that is [`AlreadyExists`](crate::PutOutcome::AlreadyExists).
    Repeated,
    /// It is never answered and has no effect; later calls are none the worse. A test can drop it there.
    Hangs,

    /// It is cut short. A put stores a part of its bytes and fails; a get returns a part of what was asked for, a
    /// listing a part of its page, and both claim success. A delete fails without effect.
    CutShort,
    /// A listing lacks what was created by the last so many calls. Other calls are as they should be.
    Stale {
        /// Calls whose creations are not listed.
        calls: u64,
    },
}

impl Manner {
    /// Whether this manner does to a call of this kind what no other manner does, for tests that go through all of them.
    ///
    /// ```
    /// use backup_core::testing::{Manner, Operation};
    ///
    /// assert!(Manner::CutShort.applies_to(Operation::Get));
    /// // What only reads has no effect that could come late.
    /// assert!(!Manner::AfterEffect.applies_to(Operation::Get));
    /// ```
    pub fn applies_to(self, operation: Operation) -> bool {
        let changes = matches!(operation, Operation::Put | Operation::Delete);
        match self {
            Self::Before | Self::Hangs | Self::Last { after_effect: false } => true,
            Self::AfterEffect | Self::Late { .. } | Self::Last { after_effect: true } | Self::Repeated => {
                changes
            }
            Self::CutShort => operation != Operation::Delete,
            Self::Stale { .. } => operation == Operation::List,
        }
    }
}

/// Which calls go wrong, and how.
///
/// ```
/// use backup_core::testing::{Fault, Manner, Operation};
/// use backup_core::ErrorKind;
///
/// // From its third put on, the store is full.
/// let full = Fault::at(3).of(Operation::Put).with_kind(ErrorKind::NoSpace).from_then_on();
/// // The answer to the first put below `snapshots/` is lost.
/// let lost = Fault::at(1).of(Operation::Put).below("snapshots/").after_effect();
/// // The second get returns fewer bytes than were asked for.
/// let short = Fault::at(2).of(Operation::Get).in_manner(Manner::CutShort);
/// # let _ = (full, lost, short);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub(super) nth: u64,
    pub(super) operation: Option<Operation>,
    pub(super) prefix: String,
    pub(super) manner: Manner,
    pub(super) from_then_on: bool,
    pub(super) kind: ErrorKind,
}

impl Fault {
    /// The `nth` call fails, counting from 1, with [`ErrorKind::Transient`] and without effect.
    pub fn at(nth: u64) -> Self {
        Self {
            nth,
            operation: None,
            prefix: String::new(),
            manner: Manner::Before,
            from_then_on: false,
            kind: ErrorKind::Transient,
        }
    }

    /// Counts and strikes only these calls.
    #[must_use]
    pub fn of(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Counts and strikes only calls whose key (for a listing: whose prefix) starts so.
    #[must_use]
    pub fn below(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What happens to the call.
    #[must_use]
    pub fn in_manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    /// The call has its effect, but the caller is told that it failed: an answer that was lost.
    #[must_use]
    pub fn after_effect(self) -> Self {
        self.in_manner(Manner::AfterEffect)
    }

    /// The call does not fail: it never ends, so that a test can drop it there.
    #[must_use]
    pub fn hanging(self) -> Self {
        self.in_manner(Manner::Hangs)
    }

    /// All later ones go wrong in the same way.
    #[must_use]
    pub fn from_then_on(mut self) -> Self {
        self.from_then_on = true;
        self
    }

    /// Calls that fail do so with an error of this kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// Which calls it strikes; all if that is not said.
    pub fn operation(&self) -> Option<Operation> {
        self.operation
    }

    /// What happens to them.
    pub fn manner(&self) -> Manner {
        self.manner
    }

    pub(super) fn counts(&self, operation: Operation, key: &str) -> bool {
        self.operation.is_none_or(|wanted| wanted == operation) && key.starts_with(&self.prefix)
    }

    /// Whether the call strikes that is the `seen`th of those that count.
    pub(super) fn strikes(&self, seen: u64) -> bool {
        seen == self.nth || (self.from_then_on && seen > self.nth)
    }
}
