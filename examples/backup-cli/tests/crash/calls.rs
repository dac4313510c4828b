//! Every system call of a run that changes the repository, struck in turn.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::libc;

use crate::common::Scratch;
use crate::long;
use crate::story::Story;
use crate::trace::{self, Call, Then, Traced};

/// A repository with a snapshot, and a tree that has changed since; and copies of the repository to strike.
struct Prepared {
    story: Story,
    /// The snapshot that it has.
    first: String,
}

/// What became of the calls that were struck.
#[derive(Debug, Default)]
struct Count {
    struck: BTreeMap<&'static str, usize>,
    committed: usize,
    failed: BTreeMap<String, usize>,
    /// Failures that the program could do without.
    tolerated: BTreeMap<&'static str, usize>,
}

impl Prepared {
    fn new(seed: u64) -> Self {
        let mut story = Story::new(seed);
        story.change(700_000);
        let first = story.create()["snapshot"].as_str().unwrap().to_owned();
        copy(&story.scratch, "repository", "prepared");
        story.change(700_000);
        Self { story, first }
    }

    fn create(&self) -> Command {
        self.story.scratch.command(["--json", "create", "files", "tree"])
    }

    /// The repository as it was prepared.
    fn reset(&mut self) {
        copy(&self.story.scratch, "prepared", "repository");
        self.story.acknowledged.retain(|id, _| *id == self.first);
    }

    /// Runs `command` and does `then` at the `nth` call that changes the repository, counted from 0. The call, if there
    /// was one.
    fn strike(&self, command: &Command, nth: usize, then: Then) -> (Traced, Option<Call>) {
        strike(&self.story.scratch, command, &["repository"], nth, then)
    }

    /// How many calls there are.
    fn calls(&mut self) -> usize {
        self.reset();
        let repository = self.story.scratch.path("repository");
        let mut calls = BTreeMap::new();
        let traced = trace::run(&self.create(), &self.story.scratch.path(""), |call| {
            if call.changes && call.path.starts_with(&repository) {
                *calls.entry(call.name).or_insert(0) += 1;
            }
            Then::Go
        });
        assert_eq!(traced.code, Some(0), "{traced:#?}");
        println!("a create changes the repository by {calls:?}");
        for needed in ["write", "fsync", "renameat2", "mkdirat"] {
            assert!(calls.contains_key(needed), "no {needed}: is the tracing blind?");
        }
        calls.values().sum()
    }

    /// What must hold whatever was struck: nothing acknowledged is lost, the next run succeeds, all is whole.
    fn judge(&mut self, what: &str) {
        self.story.listed();
        let report = self.story.create();
        self.story.assert_swept();
        self.story.verify();
        let ids: Vec<_> = self.story.acknowledged.keys().cloned().collect();
        assert!(ids.len() >= 2, "{what}: {ids:?}");
        self.story.restores_all();
        assert_eq!(report["outcome"], "complete", "{what}");
    }
}

/// Runs `command` and does `then` at the `nth` call that changes one of these repositories, counted from 0. The call, if
/// there was one.
pub(crate) fn strike(
    scratch: &Scratch,
    command: &Command,
    repositories: &[&str],
    nth: usize,
    then: Then,
) -> (Traced, Option<Call>) {
    let mut calls = 0;
    let mut struck = None;
    let traced = trace::run(command, &scratch.path(""), |call| {
        if !call.changes || !repositories.iter().any(|name| call.path.starts_with(scratch.path(name))) {
            return Then::Go;
        }
        calls += 1;
        if calls != nth + 1 {
            return Then::Go;
        }
        struck = Some(call.clone());
        then
    });
    (traced, struck)
}

/// All of `count`, or 20 of them from the first to the last.
fn points(count: usize) -> Vec<usize> {
    if long() || count <= 20 { (0..count).collect() } else { (0..20).map(|n| n * (count - 1) / 19).collect() }
}

#[test]
fn a_backup_killed_at_any_system_call_loses_nothing_and_the_next_succeeds() {
    let began = Instant::now();
    let mut prepared = Prepared::new(1);
    let calls = prepared.calls();
    let points = points(calls);
    let mut count = Count::default();
    for &nth in &points {
        prepared.reset();
        let (traced, struck) = prepared.strike(&prepared.create(), nth, Then::Kill);
        // Which directories are new depends on names that are random: there may be a few calls less.
        let Some(call) = struck else {
            assert!(nth + 8 > calls && traced.code == Some(0), "{nth} of {calls}: {traced:#?}");
            continue;
        };
        assert_eq!(traced.code, None, "{call:?}: {traced:#?}");
        *count.struck.entry(call.name).or_default() += 1;
        let acknowledged = prepared.story.acknowledge(&traced.out).is_some();
        assert!(!acknowledged, "{call:?} came after the report");
        count.committed += prepared.story.listed().len() - 1;
        prepared.judge(&format!("killed at call {nth}, {call:?}"));
    }
    println!("killed at {} of {calls} calls: {count:?} in {:?}", points.len(), began.elapsed());
    assert!(count.struck.values().sum::<usize>() + 8 > points.len());
}

#[test]
fn a_backup_whose_system_calls_fail_says_so_loses_nothing_and_the_next_succeeds() {
    let began = Instant::now();
    let mut prepared = Prepared::new(2);
    let calls = prepared.calls();
    let points = points(calls);
    for (error, kind) in [(libc::EIO, "io"), (libc::ENOSPC, "no_space")] {
        let mut count = Count::default();
        for &nth in &points {
            prepared.reset();
            let (traced, struck) = prepared.strike(&prepared.create(), nth, Then::Fail(error));
            let Some(call) = struck else {
                assert!(nth + 8 > calls && traced.code == Some(0), "{nth} of {calls}: {traced:#?}");
                continue;
            };
            *count.struck.entry(call.name).or_default() += 1;
            let acknowledged = prepared.story.acknowledge(&traced.out).is_some();
            let what = format!("error {error} at call {nth}, {call:?}: {traced:#?}");
            assert!(!traced.err.contains("panicked"), "{what}");
            match traced.code {
                // Removing what is not needed may fail; so may a lock, which only tells sweepers that a file is in use. The
                // registration of the session before is not needed any more, and its directory is synced when it goes.
                Some(0) => {
                    let report: serde_json::Value = serde_json::from_str(&traced.out).unwrap();
                    let own = report["snapshot"].as_str().unwrap();
                    let path = call.path.to_string_lossy();
                    let others = path.contains("/control/sessions/") && !path.contains(own);
                    let removes = call.name.starts_with("unlink") || (call.name == "fsync" && others);
                    assert!(acknowledged && removes, "{what}");
                    *count.tolerated.entry(call.name).or_default() += 1;
                }
                Some(1) => {
                    assert!(!acknowledged, "{what}");
                    let report: serde_json::Value = serde_json::from_str(&traced.out).unwrap();
                    assert_eq!(report["error"]["kind"], kind, "{what}");
                    *count.failed.entry(format!("{} {kind}", call.name)).or_default() += 1;
                }
                _ => panic!("{what}"),
            }
            count.committed += prepared.story.listed().len() - 1;
            prepared.judge(&what);
        }
        println!("failing at {} of {calls} calls: {count:?} in {:?}", points.len(), began.elapsed());
    }
}

#[test]
fn an_init_killed_at_any_system_call_can_be_done_again() {
    let scratch = Scratch::new();
    let repository = scratch.path("repository");
    let mut struck = 0;
    for nth in 0.. {
        let _ = std::fs::remove_dir_all(&repository);
        let mut calls = 0;
        let mut name = "";
        let traced = trace::run(&scratch.command(["--json", "init"]), &scratch.path(""), |call| {
            if !call.changes || !call.path.starts_with(&repository) {
                return Then::Go;
            }
            calls += 1;
            name = call.name;
            if calls == nth + 1 { Then::Kill } else { Then::Go }
        });
        if traced.code.is_some() {
            assert_eq!(traced.code, Some(0), "{traced:#?}");
            break;
        }
        struck += 1;
        let again = scratch.run(["--json", "init"]);
        match again.code {
            0 => {}
            // The killed one had created it, and there is one only.
            1 => assert_eq!(again.json()["error"]["kind"], "already_exists", "{name}: {again:#?}"),
            _ => panic!("killed at {name}: {again:#?}"),
        }
        scratch.snapshot();
        scratch.ok(["verify", "--level", "content"]);
        scratch.ok(["restore", "latest", "--to", "restored", "--verify"]);
        std::fs::remove_dir_all(scratch.path("restored")).unwrap();
    }
    println!("init was killed at {struck} calls");
    assert!(struck > 10, "{struck}");
}

/// Puts a copy of one directory in the place of another.
pub(crate) fn copy(scratch: &Scratch, from: &str, to: &str) {
    let (from, to) = (scratch.path(from), scratch.path(to));
    if to.exists() {
        std::fs::remove_dir_all(&to).unwrap();
    }
    copy_directory(&from, &to);
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
