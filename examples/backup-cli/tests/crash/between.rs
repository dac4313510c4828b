//! The commands that bring something from one repository to another, killed at the system calls that change either.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::calls::{copy, strike};
use crate::common::largest;
use crate::long;
use crate::story::Story;
use crate::trace::Then;

/// Without BACKUP_LONG so many calls of each command are struck, from the first to the last.
const POINTS: usize = 8;
/// Calls that may be fewer the next time: which directories are new depends on names that are random.
const FEWER: usize = 12;

const SYNC: [&str; 4] = ["--place", "second", "places", "sync"];
const BOTH: [&str; 2] = ["repository", "second"];

/// Two repositories as they are before a command, and what is acknowledged to be in them.
struct Between {
    story: Story,
    command: Vec<&'static str>,
    /// Whether something is damaged in the first one before.
    is_hurt: bool,
}

impl Between {
    fn new(seed: u64, command: &[&'static str]) -> Self {
        let mut story = Story::new(seed);
        story.change(300_000);
        story.create();
        Self { story, command: command.to_vec(), is_hurt: false }
    }

    /// Another repository that lacks one of two snapshots.
    fn copied() -> Self {
        let mut between = Self::new(11, &["copy", "--to", "second"]);
        between.run(&["--repo", "second", "init", "--chunk", "64KiB,256KiB,1MiB"]);
        between.run(&["copy", "--to", "second"]);
        between.story.change(300_000);
        between.story.create();
        between.prepared()
    }

    /// Two places, each of which has a snapshot that the other lacks.
    fn places() -> Self {
        let mut between = Self::new(12, &SYNC);
        between.run(&[&SYNC[..], &["--create"]].concat());
        between.story.change(300_000);
        between.story.create();
        between.story.change(200_000);
        let created = between.run(&["--repo", "second", "create", "files", "tree"]);
        assert!(between.story.acknowledge(&created.to_string()).is_some());
        between.prepared()
    }

    /// Two places, in the first of which packs and a snapshot are damaged, or gone.
    fn damaged() -> Self {
        let mut between = Self::places();
        between.run(&between.command);
        let here = between.story.scratch.path("repository");
        damage(&largest(&here.join("data")));
        fs::remove_file(largest(&here.join("meta"))).unwrap();
        let snapshot = between.story.acknowledged.keys().next().unwrap().clone();
        damage(
            &files_below(&here.join("snapshots")).into_iter().find(|path| path.ends_with(&snapshot)).unwrap(),
        );
        between.command = vec!["--place", "second", "repair", "packs"];
        between.is_hurt = true;
        between.prepared()
    }

    fn prepared(self) -> Self {
        for name in BOTH {
            copy(&self.story.scratch, name, &format!("prepared-{name}"));
        }
        self
    }

    fn reset(&self) {
        for name in BOTH {
            copy(&self.story.scratch, &format!("prepared-{name}"), name);
        }
    }

    /// A run that must succeed; its report.
    fn run(&self, arguments: &[&str]) -> Value {
        self.story.scratch.json(0, arguments)
    }

    /// The snapshots in a repository, by what was acknowledged.
    fn listed(&self, repository: &str) -> BTreeMap<String, String> {
        let ran = self.story.scratch.run(["--json", "--repo", repository, "list"]);
        assert!(ran.code == 0 || (self.is_hurt && repository == BOTH[0]), "{ran:#?}");
        let list = ran.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let name = |info: &Value| text(info["origin"].get("snapshot").unwrap_or(&info["id"]));
        list["snapshots"].as_array().unwrap().iter().map(|info| (name(info), text(&info["id"]))).collect()
    }

    /// What each had is there, and what it shows is whole.
    fn keeps(&self, before: &[BTreeSet<String>; 2], what: &str) {
        for (name, before) in BOTH.iter().zip(before) {
            if self.is_hurt && *name == BOTH[0] {
                continue;
            }
            let listed = self.listed(name);
            assert!(before.iter().all(|id| listed.contains_key(id)), "{what}: {name} has {listed:?}");
            self.run(&["--repo", name, "verify", "--level", "content"]);
        }
    }

    /// All is done, byte for byte.
    fn is_done(&self, what: &str) {
        for name in BOTH {
            let listed = self.listed(name);
            let missing = self.story.acknowledged.keys().filter(|id| !listed.contains_key(*id)).count();
            assert_eq!(missing, 0, "{what}: {name} has {listed:?}");
            self.run(&["--repo", name, "verify", "--level", "content"]);
            for (original, id) in listed {
                self.story.restores_from(name, &id, &original);
            }
            self.story.assert_swept_in(name);
        }
    }

    /// Kills the command at its calls, and judges.
    fn kill_everywhere(&self) {
        let began = Instant::now();
        self.reset();
        let before = BOTH.map(|name| self.listed(name).into_keys().collect::<BTreeSet<_>>());
        let scratch = &self.story.scratch;
        let command = scratch.command([&["--json"], &*self.command].concat());
        let mut calls = 0;
        let traced = crate::trace::run(&command, &scratch.path(""), |call| {
            let in_either = BOTH.iter().any(|name| call.path.starts_with(scratch.path(name)));
            calls += usize::from(call.changes && in_either);
            Then::Go
        });
        assert_eq!(traced.code, Some(0), "{traced:#?}");
        self.is_done("without a kill");
        let points: Vec<usize> = match long() {
            true => (0..calls).collect(),
            false => (0..POINTS).map(|n| n * (calls - 1) / (POINTS - 1)).collect(),
        };
        let mut struck: BTreeMap<&str, usize> = BTreeMap::new();
        for nth in points.iter().copied() {
            self.reset();
            let (traced, call) = strike(scratch, &command, &BOTH, nth, Then::Kill);
            let Some(call) = call else {
                assert!(nth + FEWER > calls && traced.code == Some(0), "{nth} of {calls}: {traced:#?}");
                continue;
            };
            let what = format!("{:?} killed at call {nth}, {call:?}", self.command);
            assert_eq!(traced.code, None, "{what}: {traced:#?}");
            // What is reported is done; what comes after is evidence of it.
            if !traced.out.is_empty() {
                self.is_done(&what);
            }
            *struck.entry(call.name).or_default() += 1;
            self.keeps(&before, &what);
            self.run(&self.command);
            if self.is_hurt {
                // A snapshot's object is deleted before the right one is put. In between nobody knows of it here, but elsewhere.
                self.run(&SYNC);
            }
            self.is_done(&what);
        }
        println!(
            "{:?} was killed at {} of {calls} calls: {struck:?} in {:?}",
            self.command,
            points.len(),
            began.elapsed()
        );
        assert!(struck.values().sum::<usize>() + 2 > points.len());
    }
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![path.to_path_buf()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            files.push(path);
        }
    }
    files
}

#[test]
fn a_copy_killed_at_any_system_call_loses_nothing_and_the_next_completes_it() {
    Between::copied().kill_everywhere();
}

#[test]
fn places_whose_catching_up_is_killed_at_any_system_call_lose_nothing_and_the_next_completes_it() {
    Between::places().kill_everywhere();
}

#[test]
fn a_healing_killed_at_any_system_call_loses_nothing_and_the_next_completes_it() {
    Between::damaged().kill_everywhere();
}
