//! The bounds: who takes part in which search.

use super::config::{COLLECTOR, Config, EVERYBODY, MERGER, NOBODY, OTHER, WRITER};
use super::mutants::Mutant;

const BASIC: Config =
    Config { name: "a writer, a collector", writers: 1, collectors: 1, forgetter: true, ..NOBODY };
const ANEW: Config = Config { name: "begun anew", attempts: 2, ..BASIC };
const RETIRED: Config = Config { name: "retired", mergers: 1, retiring: true, ..BASIC };
const FOLDED: Config = Config { name: "folded", digests: 1, ..ANEW };
const LOG: Config = Config { name: "log", log: true, archiver: true, ..BASIC };
const TWO_COLLECTORS: Config = Config { name: "two collectors", collectors: 2, twice: true, ..BASIC };
const MERGED_TWICE: Config = Config { name: "merged twice, torn", mergers: 2, ..RETIRED };
const COPIED: Config = Config { name: "copied", copier: true, ..RETIRED };
const REPACKED: Config = Config { name: "repacked", repacker: true, forgetter: false, ..BASIC };

pub const PASSING: &[Config] = &[
    BASIC,
    Config { name: "begun anew", late: 2, ..ANEW },
    Config { name: "two places", twice: true, late: 1, ..ANEW },
    Config { name: "undeleted", undeleter: true, late: 1, digests: 1, ..BASIC },
    Config { name: "held", holder: true, undeleter: true, ..BASIC },
    Config { name: "folded", late: 1, ..FOLDED },
    TWO_COLLECTORS,
    Config { name: "two collectors, folded", digests: 1, twice: false, ..TWO_COLLECTORS },
    Config { name: "two writers", writers: 2, ..BASIC },
    Config {
        name: "two writers, two collectors",
        writers: 2,
        twice: false,
        coarse: WRITER,
        ..TWO_COLLECTORS
    },
    Config { name: "retired", attempts: 2, ..RETIRED },
    Config { name: "retired, late", late: 1, coarse: EVERYBODY, ..RETIRED },
    Config { name: "retired, folded", digests: 1, coarse: EVERYBODY, ..RETIRED },
    Config { name: "merged twice", coarse: EVERYBODY, late_old_segment: true, ..MERGED_TWICE },
    Config { name: "merged twice, torn writer", coarse: EVERYBODY - WRITER, ..MERGED_TWICE },
    Config { name: "merged twice, torn mergers", coarse: EVERYBODY - MERGER, ..MERGED_TWICE },
    Config { name: "merged twice, torn collector", coarse: EVERYBODY - COLLECTOR, ..MERGED_TWICE },
    Config { name: "paged writer", coarse: EVERYBODY - WRITER, page: 0b0101, ..RETIRED },
    Config { name: "paged collector", coarse: EVERYBODY - COLLECTOR, page: 0b0101, ..RETIRED },
    Config { name: "paged collector, other pages", coarse: EVERYBODY - COLLECTOR, page: 0b1010, ..RETIRED },
    LOG,
    Config { name: "log, retired", retiring: true, mergers: 1, coarse: EVERYBODY - OTHER, ..LOG },
    COPIED,
    Config { name: "copied, late", late: 1, coarse: EVERYBODY, ..COPIED },
    Config { name: "repacked", writers: 2, forgetter: true, ..REPACKED },
    Config {
        name: "repacked, retired",
        retiring: true,
        mergers: 1,
        forgetter: true,
        coarse: EVERYBODY,
        late: 1,
        ..REPACKED
    },
    Config { name: "repacked, two collectors", collectors: 2, ..REPACKED },
    Config { name: "reader", reader: true, ..BASIC },
    Config { name: "reader, repacked", reader: true, forgetter: true, ..REPACKED },
    Config { name: "reader, retired", reader: true, coarse: EVERYBODY - OTHER, ..RETIRED },
    Config { name: "quiet", quiet: true, late: 1, ..ANEW },
    Config { name: "quiet, undeleted, folded", quiet: true, undeleter: true, digests: 1, ..BASIC },
    Config { name: "quiet, retired", quiet: true, twice: true, ..RETIRED },
    Config { name: "quiet, merged twice", quiet: true, coarse: EVERYBODY, ..MERGED_TWICE },
    Config {
        name: "two collectors, retired",
        retiring: true,
        mergers: 1,
        coarse: EVERYBODY,
        ..TWO_COLLECTORS
    },
    Config {
        name: "two collectors, retired, folded, late",
        retiring: true,
        digests: 1,
        late: 1,
        twice: false,
        coarse: EVERYBODY,
        ..TWO_COLLECTORS
    },
    Config {
        name: "two collectors, retired, folded, torn",
        retiring: true,
        digests: 1,
        twice: false,
        coarse: EVERYBODY - WRITER,
        ..TWO_COLLECTORS
    },
    Config { name: "merged twice, paged writer", coarse: EVERYBODY - WRITER, page: 0b0101, ..MERGED_TWICE },
    Config {
        name: "merged twice, paged collector",
        coarse: EVERYBODY - COLLECTOR,
        page: 0b0101,
        ..MERGED_TWICE
    },
    Config { name: "retired, folded, late", digests: 1, late: 1, coarse: EVERYBODY, ..RETIRED },
    Config { name: "log, retired, torn", retiring: true, mergers: 1, ..LOG },
    Config { name: "copied, folded", digests: 1, ..COPIED },
    Config { name: "reader, folded", reader: true, coarse: EVERYBODY - OTHER, digests: 1, ..RETIRED },
    Config { name: "quiet, two collectors", quiet: true, ..TWO_COLLECTORS },
    Config {
        name: "two collectors, folded, late",
        digests: 1,
        late: 1,
        twice: false,
        coarse: COLLECTOR,
        ..TWO_COLLECTORS
    },
    Config { name: "undeleted, folded twice, late", digests: 2, late: 1, undeleter: true, ..BASIC },
    Config { name: "digests merged, writer", merged_digests: 1, coarse: EVERYBODY - WRITER, ..RETIRED },
    Config { name: "digests merged twice, writer", merged_digests: 2, coarse: EVERYBODY - WRITER, ..RETIRED },
    Config { name: "digests merged, collector", merged_digests: 1, coarse: EVERYBODY - COLLECTOR, ..RETIRED },
    Config { name: "digests merged, merger", merged_digests: 1, coarse: EVERYBODY - MERGER, ..RETIRED },
    Config { name: "digests merged, torn", merged_digests: 1, ..RETIRED },
    Config { name: "digests merged, folded", merged_digests: 1, digests: 1, ..BASIC },
    Config { name: "swept read apart", retiring: true, parts: true, coarse: EVERYBODY, ..TWO_COLLECTORS },
    Config {
        name: "swept read apart, torn collectors",
        retiring: true,
        parts: true,
        coarse: EVERYBODY - COLLECTOR,
        ..TWO_COLLECTORS
    },
    Config {
        name: "digests merged, reader",
        merged_digests: 1,
        reader: true,
        digests: 1,
        coarse: EVERYBODY - OTHER,
        ..RETIRED
    },
    Config {
        name: "digests merged, log",
        merged_digests: 1,
        retiring: true,
        coarse: EVERYBODY - OTHER,
        ..LOG
    },
    Config {
        name: "begun anew, retired, folded, late",
        digests: 1,
        late: 1,
        attempts: 2,
        coarse: EVERYBODY,
        ..RETIRED
    },
];

pub const LONG: &[Config] = &[
    Config {
        name: "swept read apart, merged, folded",
        retiring: true,
        parts: true,
        mergers: 1,
        digests: 1,
        coarse: EVERYBODY,
        ..TWO_COLLECTORS
    },
    Config { name: "two writers, two collectors, torn", writers: 2, twice: false, ..TWO_COLLECTORS },
    Config { name: "two writers, two collectors, two places", writers: 2, coarse: WRITER, ..TWO_COLLECTORS },
    Config { name: "merged twice, torn", coarse: COLLECTOR, ..MERGED_TWICE },
    Config { name: "merged twice, folded", digests: 1, coarse: EVERYBODY, ..MERGED_TWICE },
    Config { name: "merged twice, two collectors", collectors: 2, coarse: EVERYBODY, ..MERGED_TWICE },
    Config {
        name: "repacked, two writers, two collectors",
        writers: 2,
        collectors: 2,
        forgetter: true,
        ..REPACKED
    },
];

pub const MUTANTS: &[Config] = &[
    Config { mutant: Some(Mutant::RootsNotRelisted), ..BASIC },
    Config { mutant: Some(Mutant::FoldedOutcomeAcknowledged), attempts: 1, ..FOLDED },
    Config { mutant: Some(Mutant::FencedSegmentResolves), writers: 2, old: false, digests: 1, ..BASIC },
    Config { mutant: Some(Mutant::FencedSegmentSupersedes), ..RETIRED },
    Config { mutant: Some(Mutant::NoDecision), ..TWO_COLLECTORS },
    Config { mutant: Some(Mutant::CondemnedReused), ..BASIC },
    Config { mutant: Some(Mutant::UnchangedNotLookedUp), ..FOLDED },
    Config { mutant: Some(Mutant::ExpiredParent), ..RETIRED },
    Config { mutant: Some(Mutant::UndeleteWithoutFate), undeleter: true, ..BASIC },
    Config { mutant: Some(Mutant::RetiredTooSoon), ..RETIRED },
    Config { mutant: Some(Mutant::LogNameReused), retiring: true, ..LOG },
    Config { mutant: Some(Mutant::ListedBeforeOpen), ..BASIC },
    Config { mutant: Some(Mutant::SessionsListedFirst), ..BASIC },
    Config { mutant: Some(Mutant::RetiredWithoutDigest), ..RETIRED },
    Config { mutant: Some(Mutant::SweptPackReused), ..RETIRED },
    Config {
        mutant: Some(Mutant::MergedDigestsMissed),
        merged_digests: 1,
        coarse: EVERYBODY - WRITER,
        ..RETIRED
    },
    Config {
        mutant: Some(Mutant::SweptPackAdopted),
        attempts: 2,
        late: 1,
        old: false,
        retiring: true,
        ..BASIC
    },
    Config { mutant: Some(Mutant::SweptPackCopied), ..COPIED },
    Config {
        mutant: Some(Mutant::GonePartsMissed),
        retiring: true,
        parts: true,
        coarse: EVERYBODY,
        ..TWO_COLLECTORS
    },
    Config { mutant: Some(Mutant::NumberedAfterMarking), ..TWO_COLLECTORS },
    Config { mutant: Some(Mutant::FoldedDecisionObeyed), digests: 1, twice: false, ..TWO_COLLECTORS },
    Config { mutant: Some(Mutant::CondemnedLeftOutOfMerge), ..RETIRED },
    Config { mutant: Some(Mutant::FencedMergeDeletes), ..RETIRED },
    Config { mutant: Some(Mutant::EarlierNotSettled), ..TWO_COLLECTORS },
    Config { mutant: Some(Mutant::OthersNotRetired), quiet: true, ..RETIRED },
    Config { mutant: Some(Mutant::GraceIgnored), reader: true, ..REPACKED },
];

/// What the design forbids, and is found to do no harm within these bounds.
pub const HARMLESS: &[Config] = &[
    Config { mutant: Some(Mutant::CachedSegmentsKept), late: 1, ..RETIRED },
    Config { mutant: Some(Mutant::IndexNotListed), ..RETIRED },
    Config { mutant: Some(Mutant::DigestsListedFirst), ..RETIRED },
    Config { mutant: Some(Mutant::DigestsListedFirst), late: 1, ..FOLDED },
    Config { mutant: Some(Mutant::OutcomesListedFirst), ..RETIRED },
    Config {
        mutant: Some(Mutant::CachedSegmentsKept),
        coarse: EVERYBODY,
        late_old_segment: true,
        ..MERGED_TWICE
    },
    Config { mutant: Some(Mutant::OutcomesBeforeSegments), twice: true, ..RETIRED },
    Config { mutant: Some(Mutant::OutcomesBeforeSegments), late: 1, ..FOLDED },
    Config { mutant: Some(Mutant::OutcomesBeforeSegments), coarse: EVERYBODY - WRITER, ..MERGED_TWICE },
    Config { mutant: Some(Mutant::OutcomesBeforeSegments), coarse: EVERYBODY - COLLECTOR, ..MERGED_TWICE },
    Config { mutant: Some(Mutant::OutcomesBeforeSegments), coarse: EVERYBODY - MERGER, ..MERGED_TWICE },
    Config {
        mutant: Some(Mutant::OutcomesBeforeSegments),
        reader: true,
        coarse: EVERYBODY - OTHER,
        ..RETIRED
    },
    Config { mutant: Some(Mutant::HoldsListedFirst), holder: true, undeleter: true, digests: 1, ..BASIC },
    Config { mutant: Some(Mutant::FatesListedFirst), twice: true, ..RETIRED },
    Config { mutant: Some(Mutant::FatesListedFirst), late: 1, ..FOLDED },
    Config { mutant: Some(Mutant::FatesListedFirst), undeleter: true, digests: 1, ..BASIC },
];
