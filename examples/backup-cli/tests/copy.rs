//! `copy`: into another repository, under other keys.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;

use common::{Scratch, largest, listing, pseudo_random, run};
use serde_json::Value;

/// A repository with three snapshots, and one beside it that has a passphrase and other chunks.
fn two() -> (Scratch, Vec<String>) {
    let scratch = Scratch::with_repository();
    let mut ids = Vec::new();
    for seed in 0..3 {
        fs::write(scratch.path("tree/changes"), pseudo_random(2_000_000, seed)).unwrap();
        ids.push(scratch.snapshot());
    }
    fs::write(scratch.path("passphrase"), "another one\n").unwrap();
    let mut init = scratch.command(["init", "--repo", "second", "--password-file", "passphrase"]);
    run(init.arg("--chunk").arg("64KiB,256KiB,1MiB").env_remove("BACKUP_KEY_FILE")).expect(0);
    (scratch, ids)
}

fn second(scratch: &Scratch, code: i32, arguments: &[&str]) -> Value {
    let mut command = scratch.command(["--json", "--repo", "second", "--password-file", "passphrase"]);
    run(command.args(arguments).env_remove("BACKUP_KEY_FILE")).expect(code).json()
}

fn copy(scratch: &Scratch, code: i32, more: &[&str]) -> Value {
    let to = ["copy", "--to", "second", "--to-password-file", "passphrase"];
    scratch.json(code, to.iter().chain(more).copied())
}

#[test]
fn snapshots_are_copied_once_and_say_where_they_come_from() {
    let (scratch, all) = two();
    let planned = copy(&scratch, 0, &["--dry-run", &all[1], "latest"]);
    assert_eq!(planned["would_copy"], serde_json::json!([all[1], all[2]]));
    let first = copy(&scratch, 0, &[&all[0]]);
    assert_eq!(first["copied"][0]["snapshot"], all[0].as_str());
    let rest = copy(&scratch, 0, &[]);
    assert_eq!((rest["copied"].as_array().unwrap().len(), rest["already_there"].as_u64()), (2, Some(1)));
    let bytes = rest["bytes_copied"].as_u64().unwrap();
    assert!((3_500_000..4_200_000).contains(&bytes), "what changed is copied, the rest is there: {bytes}");
    assert_eq!(copy(&scratch, 0, &[])["copied"], serde_json::json!([]));

    let copies = second(&scratch, 0, &["list"]);
    let copies = copies["snapshots"].as_array().unwrap();
    let originals = scratch.json(0, ["list"]);
    assert_eq!(copies.len(), 3);
    for (copy, original) in copies.iter().zip(originals["snapshots"].as_array().unwrap()) {
        assert_eq!(copy["origin"]["snapshot"], original["id"]);
        assert_eq!(copy["origin"]["repository"], originals["repository"]);
        assert_eq!((&copy["time"], &copy["host"]), (&original["time"], &original["host"]));
        assert_ne!(copy["id"], original["id"]);
    }
    second(&scratch, 0, &["verify", "--level", "content"]);
    second(&scratch, 0, &["restore", "latest", "--to", "restored", "--verify"]);
    let tree = listing(&scratch.path("tree"));
    assert_eq!(listing(&scratch.path("restored/tree")), tree);
    // The rules of each place are its own.
    second(&scratch, 0, &["forget", "--keep-last", "1"]);
    second(&scratch, 0, &["prune"]);
    assert_eq!(scratch.json(0, ["list"])["snapshots"].as_array().unwrap().len(), 3);
}

#[test]
fn what_is_damaged_is_named_and_the_rest_is_copied() {
    let (scratch, all) = two();
    let pack = largest(&scratch.path("repository/data"));
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let report = copy(&scratch, 3, &[]);
    let copied = report["copied"].as_array().unwrap();
    assert_eq!(copied.len(), all.len());
    // Whose bytes lie in the frame that was hit, one snapshot's or all snapshots', depends on which worker packed
    // what: at least one is partial, and what it lacks is a file in that pack.
    let partial: Vec<&Value> = copied.iter().filter(|copied| copied["outcome"] == "partial").collect();
    assert!(!partial.is_empty(), "{report:#}");
    let name = pack.file_name().unwrap().to_str().unwrap();
    for skipped in partial.iter().flat_map(|partial| partial["skipped"].as_array().unwrap()) {
        assert!(skipped["name"].as_str().unwrap().starts_with("tree/"), "{report:#}");
        assert!(skipped["reason"].as_str().unwrap().contains(name), "{report:#}");
    }
    assert!(
        copied
            .iter()
            .all(|copied| copied["outcome"] == "partial" || copied["skipped"] == serde_json::json!([]))
    );
    second(&scratch, 0, &["verify", "--level", "content"]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (scratch, _) = two();
    scratch.json(2, ["copy"]);
    scratch.json(2, ["copy", "--to", "repository"]);
    scratch.json(1, ["copy", "--to", "nowhere"]);
    // The first one's key does not open the second.
    scratch.json(1, ["copy", "--to", "second"]);
    copy(&scratch, 4, &["0123456789"]);
    assert_eq!(second(&scratch, 0, &["list"])["snapshots"], serde_json::json!([]));
}
