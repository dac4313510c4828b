//! The bounds: who takes part in which search.

use super::model::{Config, NOBODY};
use super::mutants::Mutant;

const BASIC: Config = Config { name: "a writer, a collector", writers: 1, collectors: 1, forgetter: true, ..NOBODY };
const RETIRED: Config =
    Config { name: "retired", mergers: 1, retiring: true, ..BASIC };
const ANEW: Config = Config { name: "begun anew", attempts: 2, ..BASIC };

pub const PASSING: [Config; 6] = [
    BASIC,
    ANEW,
    Config { name: "two places", twice: true, ..ANEW },
    Config { name: "undeleted", undeleter: true, ..BASIC },
    RETIRED,
    Config { name: "late", late: 1, ..ANEW },
];

pub const LONG: [Config; 0] = [];

pub const MUTANTS: [Config; 4] = [
    Config { mutant: Some(Mutant::RootsNotRelisted), ..BASIC },
    Config { mutant: Some(Mutant::CondemnedReused), ..BASIC },
    Config { mutant: Some(Mutant::ListedBeforeOpen), ..BASIC },
    Config { mutant: Some(Mutant::SessionsListedFirst), ..BASIC },
];
