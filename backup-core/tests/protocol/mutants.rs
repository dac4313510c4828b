//! Ways to get the protocol wrong. Each must be found out.

/// One rule broken or left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    // Those that the design names.
    /// A collector sweeps what it condemned without listing the roots again.
    RootsNotRelisted,
    /// A writer whose create succeeded acknowledges without a look at the digests.
    FoldedOutcomeAcknowledged,
    /// The segment of a fenced session counts as valid.
    FencedSegmentResolves,
    /// The segment of a fenced session supersedes.
    FencedSegmentSupersedes,
    /// A collector sweeps without having created a decision.
    NoDecision,
    /// A writer takes an expired snapshot as parent.
    ExpiredParent,
    /// A snapshot is undeleted by a look at its fates, not by creating one.
    UndeleteWithoutFate,
    /// A collection lists segments before it waits for sessions, and retires.
    RetiredTooSoon,
    /// A log segment is archived under a name that was swept.
    LogNameReused,

    // Our own.
    /// A writer reuses what an undecided collection condemns.
    CondemnedReused,
    /// A writer lists, then opens its session.
    ListedBeforeOpen,
    /// A collector lists sessions, then creates `condemned`.
    SessionsListedFirst,
    /// Digests are listed before what they are about.
    DigestsListedFirst,
    /// A merge supersedes what it merges, not what that superseded.
    SupersedesOnlyValid,
    /// Superseded segments are deleted without a digest, and merges forget what is no longer listed.
    SupersededForgotten,
    /// A writer adopts a pack of its earlier session that was swept.
    SweptPackAdopted,
    /// A pack is copied to a name that was swept, once that collection has retired.
    SweptPackCopied,
    /// A collector marks, then takes its number.
    NumberedAfterMarking,
    /// A collection that was abandoned, and folded away, sweeps all the same.
    FoldedDecisionObeyed,
    /// A merge leaves out what is condemned but not swept.
    CondemnedLeftOutOfMerge,
    /// A collector lists holds, then fates.
    HoldsListedFirst,
    /// What was swept is deleted at once, whoever may be reading.
    GraceIgnored,
    /// A writer trusts its cached index, and does not list which segments there are.
    IndexNotListed,
    /// Outcomes are listed before everything else.
    OutcomesListedFirst,
    /// Outcomes are listed before segments.
    OutcomesBeforeSegments,
    /// Fates are listed before everything else.
    FatesListedFirst,
    /// A writer keeps cached segments that are no longer listed.
    CachedSegmentsKept,
    /// A collector does not settle the collections before its own.
    EarlierNotSettled,
    /// A collection retires only what it swept itself, not what others swept and left.
    OthersNotRetired,
    /// Unchanged content of a parent that has not expired is taken over although collections are unretired.
    UnchangedNotLookedUp,
}
