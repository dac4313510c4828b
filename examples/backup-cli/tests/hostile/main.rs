//! Hostile repositories, stores and neighbours: each case is one mechanism by which somebody tries to lead a restore out
//! of its directory, to exhaust the reader, or to pass wrong bytes for good ones.
//!
//! A case is run by a process of its own, whose memory is capped and whose time is limited: it restores into a real
//! directory, verifies, and reads every entry. Then the built program does the same under a cap of its own. What both
//! must say is part of the case. Everything around the target is digested before and after: names, types, modes, owners,
//! times, contents, link targets, attributes. As root, some cases give their privileges away first.
//!
//! Not covered here: file systems that fold case or normal forms, which need a kernel that can make one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "the modules of one programme")]
#![cfg(target_os = "linux")]

mod case;
mod forge;
mod judge;
mod scene;

mod content;
mod documents;
mod links;
mod metadata;
mod names;
mod objects;
mod output;
mod pages;
mod store;
mod target;

use std::collections::BTreeSet;

use case::{Case, run_group};

type Group = (&'static str, fn() -> Vec<Case>);

const GROUPS: [Group; 10] = [
    ("names", names::cases),
    ("links", links::cases),
    ("target", target::cases),
    ("metadata", metadata::cases),
    ("content", content::cases),
    ("pages", pages::cases),
    ("objects", objects::cases),
    ("documents", documents::cases),
    ("store", store::cases),
    ("output", output::cases),
];

/// What a case's own process runs: nothing, unless the case is named.
#[test]
fn a_case_in_a_process_of_its_own() {
    let Some((group, name)) = case::named_by_environment() else { return };
    let (_, cases) = GROUPS.iter().find(|(known, _)| *known == group).unwrap();
    let case = cases().into_iter().find(|case| case.name == name).unwrap();
    judge::judge(&case);
}

/// Many spellings of one mechanism are one case.
#[test]
fn there_are_at_least_a_hundred_mechanisms() {
    let mut names = BTreeSet::new();
    let mut mechanisms = BTreeSet::new();
    for (group, cases) in GROUPS {
        let cases = cases();
        println!("{group}: {} cases", cases.len());
        for case in cases {
            assert!(names.insert((group, case.name)), "{group}: `{}` stands twice", case.name);
            assert!(mechanisms.insert(case.mechanism), "`{}` is another case's mechanism", case.name);
        }
    }
    println!("{} hostile cases", names.len());
    assert!(names.len() >= 100);
}

/// The cap holds: a process that asks for more memory than it is allowed is ended.
#[test]
fn a_process_that_needs_more_memory_than_it_may_is_ended() {
    case::assert_cap_holds();
}

macro_rules! group {
    ($($test:ident: $number:literal),* $(,)?) => {$(
        #[test]
        fn $test() {
            let (group, cases) = GROUPS[$number];
            run_group(group, cases());
        }
    )*};
}

group! {
    names_lead_nowhere: 0,
    links_lead_nowhere: 1,
    what_stands_in_the_target_leads_nowhere: 2,
    metadata_gives_no_rights: 3,
    content_is_what_was_stored_or_an_error: 4,
    pages_cost_little_and_end: 5,
    objects_are_what_they_say_or_an_error: 6,
    documents_cost_little_and_say_who_they_are: 7,
    a_store_that_lies_is_found_out: 8,
    what_is_shown_drives_no_terminal: 9,
}
