//! Ways to get the protocol wrong. Each must be found out.

/// One rule broken or left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    // Those that the design names.
    /// A collector sweeps what it condemned without listing the roots again.
    RootsNotRelisted,
    /// A fence is deleted, so that its session's late create succeeds and is acknowledged.
    FoldedOutcomeAcknowledged,
    /// The segment of a fenced session counts as valid.
    FencedSegmentResolves,
    /// The segment of a fenced session supersedes.
    FencedSegmentSupersedes,
    /// A collector sweeps without having created a decision.
    NoDecision,
    /// Unchanged content of a parent that has not expired is taken over without a look.
    UnchangedNotLookedUp,
    /// Unchanged content of an expired parent is taken over without a look.
    ExpiredParent,
    /// A snapshot is undeleted by a look at its fates, not by creating one.
    UndeleteWithoutFate,
    /// A collection puts a digest, and deletes its files without waiting for the sessions that there are.
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
    /// A collection's files are deleted although no digest names what it swept.
    RetiredWithoutDigest,
    /// Digests are listed before what they are about.
    DigestsListedFirst,
    /// A writer reuses a pack that was swept, once that collection has retired.
    SweptPackReused,
    /// A merger that was fenced deletes what it would have superseded.
    FencedMergeDeletes,
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
    /// Digests that are gone when they are read, because they were merged, are done without.
    MergedDigestsMissed,
    /// What another collection sweeps, and is gone when it is read as that has retired, is done without.
    GonePartsMissed,
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
}
