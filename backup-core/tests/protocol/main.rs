//! The protocol of many writers and many collectors, model-checked: exhaustively within stated bounds, with mutants
//! that must fail. `docs/decisions/0022` says what is modelled and which rules the code must follow.

#![allow(clippy::unwrap_used, clippy::panic)]

mod archiver;
mod collector;
mod configurations;
mod forgetter;
mod keeper;
mod merger;
mod model;
mod mutants;
mod quiet;
mod reader;
mod rules;
mod store;
mod writer;

use std::time::{Duration, Instant};

use configurations::{HARMLESS, LONG, MUTANTS, PASSING};
use model::{Config, Step};
use stateright::{Checker, Model};

/// What a search came to.
struct Found {
    trace: Option<Vec<Step>>,
    states: usize,
    depth: usize,
    took: Duration,
}

fn search(config: Config) -> Found {
    let begun = Instant::now();
    let checker = config.checker().threads(2).spawn_bfs().join();
    assert!(checker.is_done(), "{}: the search was cut off", config.name);
    let trace = checker.discovery("it holds").map(|path| path.into_actions());
    Found { trace, states: checker.unique_state_count(), depth: checker.max_depth(), took: begun.elapsed() }
}

/// One line for what somebody does without another's step between.
fn print(config: &Config, trace: &[Step]) {
    for steps in trace.chunk_by(|one, other| one.who == other.who) {
        let mut line = format!("    {}:", steps[0].who);
        let mut listing = false;
        for (index, step) in steps.iter().enumerate() {
            let did = step.did.to_string();
            let lists = did.strip_prefix("lists ");
            match lists {
                Some(what) if listing => line.push_str(&format!(", {what}")),
                _ => line.push_str(&format!("{} {did}", if index == 0 { "" } else { ";" })),
            }
            listing = lists.is_some();
        }
        println!("{line}");
    }
    let left = trace.last().filter(|_| config.quiet).and_then(|last| quiet::leaves(config, &last.next));
    let read = trace.last().is_some_and(|last| last.next.reader.has_failed());
    match left {
        _ if read => println!("    what was acknowledged could not be read"),
        Some(left) => println!("    two quiet collections leave {left}"),
        None => println!("    what was acknowledged does not restore"),
    }
}

fn passes(config: &Config) {
    let found = search(*config);
    let (states, depth, seconds) = (found.states, found.depth, found.took.as_secs_f64());
    println!("{}: {states} states, depth {depth}, {seconds:.1} s", config.name);
    println!("    {}", config.bound());
    if let Some(trace) = found.trace {
        print(config, &trace);
        panic!("{}: does not hold", config.name);
    }
}

#[test]
fn the_protocol_holds_within_these_bounds() {
    let only = std::env::var("BACKUP_MODEL").ok();
    for config in PASSING.iter().filter(|config| only.as_ref().is_none_or(|only| config.name.contains(only.as_str()))) {
        passes(config);
    }
    if std::env::var_os("BACKUP_LONG").is_some() {
        for config in LONG.iter().filter(|config| only.as_ref().is_none_or(|only| config.name.contains(only.as_str()))) {
            passes(config);
        }
    }
}

#[test]
fn every_mutant_is_found_out() {
    let only = std::env::var("BACKUP_MODEL").ok();
    for config in MUTANTS.iter().filter(|config| only.as_ref().is_none_or(|only| format!("{:?}", config.mutant).contains(only.as_str()))) {
        let mutant = config.mutant.unwrap();
        let found = search(*config);
        let seconds = found.took.as_secs_f64();
        let Some(trace) = found.trace else {
            println!("{mutant:?} SURVIVES {} states, depth {}, {seconds:.1} s", found.states, found.depth);
            if only.is_some() { continue; }
            panic!("{mutant:?} does no harm within {} states of {}", found.states, config.name);
        };
        println!("{mutant:?}: {} steps; {} states in {seconds:.1} s", trace.len(), found.states);
        print(config, &trace);
    }
}

#[test]
fn what_does_no_harm() {
    for config in HARMLESS {
        println!("{:?}", config.mutant);
        passes(config);
    }
}
