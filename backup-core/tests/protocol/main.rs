//! The protocol of many writers and many collectors, model-checked: exhaustively within stated bounds, with mutants
//! that must fail. `docs/decisions/0022-the-protocol-as-modelled.md` says what is modelled, and gives the rules that
//! the code must follow.
//!
//! Larger bounds are searched when `BACKUP_LONG` is set. `BACKUP_MODEL=words` searches only what has these words in
//! its name.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod archiver;
mod collector;
mod config;
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
mod trace;
mod writer;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use config::Config;
use configurations::{HARMLESS, LONG, MUTANTS, PASSING};
use stateright::{Checker, Model};
use trace::Step;

const THREADS: usize = 2;

/// A search takes all processors and much memory: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a search came to.
struct Found {
    trace: Option<Vec<Step>>,
    states: usize,
    depth: usize,
    took: Duration,
}

fn search(config: Config) -> Found {
    let begun = Instant::now();
    let checker = config.checker().threads(THREADS).spawn_bfs().join();
    // There is no bound of states, depth or time; so without a trace every state was visited.
    assert!(checker.is_done(), "{}: the search was cut off", config.name);
    let trace = checker.discovery("it holds").map(|path| path.into_actions());
    Found { trace, states: checker.unique_state_count(), depth: checker.max_depth(), took: begun.elapsed() }
}

fn passes(config: &Config) {
    let found = search(*config);
    let (states, depth, seconds) = (found.states, found.depth, found.took.as_secs_f64());
    println!("{}: {states} states, depth {depth}, {seconds:.1} s", config.title());
    println!("    {}", config.bound());
    if let Some(trace) = found.trace {
        print(config, &trace);
        panic!("{}: does not hold", config.title());
    }
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
    let last = trace.last().unwrap().next;
    let left = if config.quiet { quiet::leaves(config, &last) } else { None };
    match left {
        _ if last.reader.has_failed() => println!("    what was acknowledged could not be read"),
        Some(left) => println!("    two quiet collections leave {left}"),
        None => println!("    what was acknowledged does not restore"),
    }
}

fn wanted<'a>(configs: &[&'a [Config]]) -> Vec<&'a Config> {
    let words = std::env::var("BACKUP_MODEL").unwrap_or_default();
    let all = configs.iter().copied().flatten();
    all.filter(|config| config.title().contains(&words)).collect()
}

#[test]
fn the_protocol_holds_within_these_bounds() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let long = std::env::var_os("BACKUP_LONG").is_some();
    wanted(&[PASSING, if long { LONG } else { &[] }]).into_iter().for_each(passes);
}

#[test]
fn every_mutant_is_found_out() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for config in wanted(&[MUTANTS]) {
        let found = search(*config);
        let seconds = found.took.as_secs_f64();
        let Some(trace) = found.trace else {
            panic!("{} does no harm within {} states: {}", config.title(), found.states, config.bound());
        };
        println!("{}: {} steps, {} states, {seconds:.1} s", config.title(), trace.len(), found.states);
        println!("    {}", config.bound());
        print(config, &trace);
    }
}

/// Rules that can be broken without harm, within these bounds: a surprise here means that they matter.
#[test]
fn what_was_feared_does_no_harm() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    wanted(&[HARMLESS]).into_iter().for_each(passes);
}
