//! Snapshots that no rule keeps are forgotten, can be taken back, and free what only they need.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::process::Command;

use common::{Ran, Scratch, listing, pseudo_random, run};
use serde_json::Value;

/// Five snapshots of a tree in which one file changes.
fn five() -> (Scratch, Vec<String>) {
    let scratch = Scratch::with_repository();
    let mut ids = Vec::new();
    for seed in 0..5 {
        fs::write(scratch.path("tree/changes"), pseudo_random(3_000_000, seed)).unwrap();
        ids.push(scratch.snapshot());
    }
    (scratch, ids)
}

fn ids(document: &Value, list: &str, member: Option<&str>) -> Vec<String> {
    let items = document[list].as_array().unwrap_or_else(|| panic!("no {list} in {document:#}"));
    let id = |item: &Value| member.map_or(item, |member| &item[member]).as_str().unwrap().to_owned();
    items.iter().map(id).collect()
}

fn bytes(scratch: &Scratch) -> u64 {
    scratch.json(0, ["stats"])["bytes_stored"].as_u64().unwrap()
}

#[test]
fn what_no_rule_keeps_is_forgotten_and_freed() {
    let (scratch, all) = five();
    let before = bytes(&scratch);
    let planned = scratch.json(0, ["forget", "--keep-last", "2", "--dry-run"]);
    assert_eq!(ids(&planned, "remove", None), all[..3]);
    assert_eq!(ids(&planned, "keep", Some("snapshot")), all[3..]);
    assert_eq!(planned["keep"][1]["reasons"][0], "last 1 of 2");
    assert_eq!(planned["forgotten"], serde_json::json!([]));
    assert_eq!(scratch.json(0, ["list"])["snapshots"].as_array().unwrap().len(), 5);

    let done = scratch.json(0, ["forget", "--keep-last", "2", "--undelete-for", "0s", "--reason", "old"]);
    assert_eq!(ids(&done, "forgotten", None), all[..3]);
    assert_eq!(ids(&scratch.json(0, ["list"]), "snapshots", Some("id")), all[3..]);
    let waiting = scratch.json(0, ["undelete"]);
    assert_eq!(waiting["forgotten"].as_array().unwrap().len(), 3);
    assert_eq!(waiting["forgotten"][0]["reason"], "old");

    let undeleted = scratch.json(0, ["undelete", &all[1][..12]]);
    assert_eq!(undeleted["snapshot"], all[1].as_str());
    let planned = scratch.json(0, ["prune", "--dry-run"]);
    assert_eq!(planned["expired"].as_array().unwrap().len(), 2);
    // Tombstones and a fate have come.
    assert!((before..before + 20_000).contains(&bytes(&scratch)), "a dry run frees nothing");
    let pruned = scratch.json(0, ["prune"]);
    let freed = pruned["bytes_freed"].as_u64().unwrap();
    assert_eq!(pruned["bytes_unneeded"], planned["bytes_unneeded"]);
    assert!(freed > 2_900_000, "{pruned:#}");
    assert!(bytes(&scratch) < before - freed + 20_000);

    for id in [&all[1], &all[3], &all[4]] {
        scratch.json(0, ["restore", id, "--to", &format!("restored-{id}"), "--verify"]);
    }
    assert_eq!(listing(&scratch.path(&format!("restored-{}/tree", all[4]))), listing(&scratch.path("tree")));
    scratch.json(0, ["verify", "--level", "content"]);
    scratch.json(4, ["restore", &all[0], "--to", "gone"]);
    scratch.json(4, ["undelete", &all[0]]);
    let again = scratch.json(0, ["prune"]);
    assert_eq!((again["bytes_freed"].as_u64(), again["packs_unneeded"].as_u64()), (Some(0), Some(0)));
}

/// The program with a clock that is two years ahead.
fn two_years_ahead(scratch: &Scratch, arguments: &[&str]) -> Ran {
    let made = scratch.command(std::iter::once(&"--json").chain(arguments));
    let mut command = Command::new("faketime");
    command.args(["-f", "+730d"]).arg(made.get_program()).args(made.get_args());
    command.current_dir(made.get_current_dir().unwrap());
    command.envs(made.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run(&mut command)
}

#[test]
fn a_clock_two_years_ahead_forgets_nothing_that_is_new() {
    let (scratch, all) = five();
    let done = two_years_ahead(&scratch, &["forget", "--keep-within", "30d"]).expect(0).json();
    assert_eq!(ids(&done, "keep", Some("snapshot")), all);
    assert_eq!(done["forgotten"], serde_json::json!([]));
    assert_eq!(ids(&scratch.json(0, ["list"]), "snapshots", Some("id")), all);
}

#[test]
fn snapshots_are_forgotten_by_name_and_held() {
    let (scratch, all) = five();
    let held = scratch.json(0, ["hold", &all[0], "--until", "90d", "--reason", "a lawsuit"]);
    assert_eq!(
        (held["snapshot"].as_str(), held["reason"].as_str()),
        (Some(all[0].as_str()), Some("a lawsuit"))
    );
    let refused = scratch.json(1, ["forget", &all[0], &all[1]]);
    assert_eq!(refused["error"]["kind"], "denied", "{refused:#}");
    assert_eq!(scratch.json(0, ["list"])["snapshots"].as_array().unwrap().len(), 5);
    let holds = scratch.json(0, ["hold"]);
    assert_eq!(holds["holds"][0]["hold"], held["hold"]);
    scratch.json(0, ["hold", &all[0], "--release", held["hold"].as_str().unwrap()]);
    let forgotten = scratch.json(0, ["forget", &all[0][..10], &all[1]]);
    assert_eq!(ids(&forgotten, "remove", None), all[..2]);
    scratch.json(0, ["prune"]);
    assert_eq!(ids(&scratch.json(0, ["list"]), "snapshots", Some("id")), all[2..]);
    scratch.json(0, ["verify"]);
}

#[test]
fn rules_leave_alone_what_is_held_whatever_the_clock_says() {
    let (scratch, all) = five();
    scratch.json(0, ["hold", &all[0], "--until", "90d", "--reason", "a lawsuit"]);
    let kept = [&all[..1], &all[4..]].concat();
    let done = two_years_ahead(&scratch, &["forget", "--keep-last", "1"]).expect(0).json();
    assert_eq!(ids(&done, "forgotten", None), all[1..4]);
    assert_eq!(done["keep"][0]["reasons"], serde_json::json!(["held"]), "{done:#}");
    assert_eq!(ids(&scratch.json(0, ["list"]), "snapshots", Some("id")), kept);
    let refused = two_years_ahead(&scratch, &["forget", &all[0]]).expect(1).json();
    assert_eq!(refused["error"]["kind"], "denied", "{refused:#}");
    scratch.json(0, ["forget", "--keep-last", "1"]);
    assert_eq!(ids(&scratch.json(0, ["list"]), "snapshots", Some("id")), kept);
}

#[test]
fn of_packs_of_which_little_is_needed_the_rest_is_freed() {
    let scratch = Scratch::with_repository();
    // In one pack: they are read one after the other by one worker.
    for number in 0..8 {
        fs::write(scratch.path(&format!("tree/{number}")), pseudo_random(1_500_000, number)).unwrap();
    }
    scratch.ok(["create", "files", "tree", "--jobs", "1"]);
    for number in 1..8 {
        fs::remove_file(scratch.path(&format!("tree/{number}"))).unwrap();
    }
    let kept = scratch.snapshot();
    scratch.json(0, ["forget", "--keep-last", "1"]);
    let never = scratch.json(0, ["prune", "--no-repack"]);
    assert_eq!(never["packs_repacked"].as_u64(), Some(0));
    assert!(never["bytes_unused"].as_u64().unwrap() > 10_000_000, "{never:#}");
    let little = scratch.json(0, ["prune", "--max-repack-size", "1MiB"]);
    assert_eq!(
        (little["packs_repacked"].as_u64(), little["more_to_repack"].as_bool()),
        (Some(0), Some(true))
    );
    assert_eq!(scratch.json(0, ["prune", "--max-unused", "95%"])["packs_repacked"].as_u64(), Some(0));
    assert!(scratch.json(0, ["prune", "--dry-run"])["packs_repacked"].as_u64().unwrap() > 0);
    let done = scratch.json(0, ["prune"]);
    assert!(done["bytes_freed"].as_u64().unwrap() > 10_000_000, "{done:#}");
    assert!(bytes(&scratch) < 2_800_000, "{}", bytes(&scratch));
    scratch.json(0, ["verify", "--level", "content"]);
    scratch.json(0, ["restore", &kept, "--to", "restored", "--verify"]);
    assert_eq!(listing(&scratch.path("restored/tree")), listing(&scratch.path("tree")));
}

#[test]
fn a_plan_that_forgets_much_waits_until_it_is_confirmed() {
    let (scratch, all) = five();
    let rules = ["forget", "--keep-last", "1", "--max-share", "50%"];
    let stopped = scratch.json(1, rules);
    assert_eq!(stopped["error"]["kind"], "needs_confirmation", "{stopped:#}");
    assert_eq!(scratch.json(0, ["list"])["snapshots"].as_array().unwrap().len(), 5);
    let planned = scratch.json(0, rules.iter().copied().chain(["--dry-run"]));
    let code = planned["confirmation"].as_str().unwrap().to_owned();
    assert!(stopped["error"]["message"].as_str().unwrap().contains(&code), "{stopped:#}");
    // Another plan is not confirmed by it.
    let others = ["forget", "--keep-last", "2", "--max-share", "50%", "--confirm", &code];
    scratch.json(1, others);
    let done = scratch.json(0, rules.iter().copied().chain(["--confirm", &code]));
    assert_eq!(ids(&done, "forgotten", None), all[..4]);
    // What forgets little needs no confirmation.
    for seed in 10..14 {
        fs::write(scratch.path("tree/changes"), pseudo_random(3_000, seed)).unwrap();
        scratch.snapshot();
    }
    scratch.json(0, ["forget", "--keep-last", "4", "--max-share", "50%"]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    for (code, arguments) in [
        (2, &["forget"][..]),
        (2, &["forget", "latest", "--keep-last", "1"]),
        (2, &["forget", "--keep-last", "0"]),
        (2, &["forget", "--keep-daily", "7", "--time-zone", "Atlantis/Capital"]),
        (2, &["forget", "--keep-within", "soon"]),
        (2, &["forget", "--keep-last", "1", "--group-by", "weather"]),
        (2, &["hold", "latest", "--until", "someday"]),
        (4, &["forget", "0123456789"]),
        (4, &["undelete", "0123456789"]),
        (2, &["prune", "--wait", "long"]),
        (2, &["prune", "--max-unused", "101%"]),
        (2, &["prune", "--max-unused", "-1"]),
        (2, &["prune", "--no-repack", "--max-unused", "1%"]),
        (2, &["forget", "--keep-last", "1", "--max-share", "all"]),
        (2, &["forget", "--keep-last", "1", "--confirm", "0123456789abcdef"]),
    ] {
        scratch.json(code, arguments.iter().copied());
    }
    assert_eq!(scratch.json(0, ["list"])["snapshots"].as_array().unwrap().len(), 1);
}
