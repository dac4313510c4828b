//! A tree of every oddity that a file system holds, restored as root and as a user: compared by `rsync`, and attribute
//! by attribute with a dump of this test's own. What a user may not restore is named, and nothing else differs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
#[path = "common/dump.rs"]
mod dump;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use common::Scratch;
use common::odd::{add_oddities, differences, is_root, make_tree, sh};
use dump::{Dumped, Unlocked, dump, reported};
use serde_json::Value;

/// A repository with a snapshot of the tree `odd`, and what it looked like.
fn backed_up() -> (Scratch, Unlocked, BTreeMap<PathBuf, Dumped>) {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("odd");
    let unlocked = Unlocked(scratch.path(""));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    add_oddities(&tree);
    let before = dump(&tree);
    let report = scratch.json(0, ["create", "files", &scratch.text("odd")]);
    assert_eq!(report["outcome"], "complete");
    assert_eq!(dump(&tree), before, "a backup changes nothing");
    (scratch, unlocked, before)
}

fn compare(before: &BTreeMap<PathBuf, Dumped>, after: &BTreeMap<PathBuf, Dumped>) {
    for (name, dumped) in before {
        assert_eq!(after.get(name), Some(dumped), "{}", name.display());
    }
    assert_eq!(before.len(), after.len());
}

#[test]
fn a_tree_of_every_oddity_comes_back_as_it_was() {
    let (scratch, _unlocked, before) = backed_up();
    let copy = scratch.path("out").join(scratch.name("odd"));
    for overwrite in ["always", "if-changed", "always"] {
        scratch.ok([
            "restore",
            "latest",
            "--to",
            &scratch.text("out"),
            "--devices",
            "--overwrite",
            overwrite,
        ]);
        assert_eq!(differences(&scratch.path("odd"), &copy), "", "{overwrite}");
        compare(&before, &dump(&copy));
    }
    // The dump does see what it is for.
    sh("chattr -d plain/text 2>/dev/null || chmod 600 plain/text; touch -d @1.5 empty", &copy);
    let after = dump(&copy);
    let differing: Vec<_> = before.iter().filter(|(name, dumped)| after.get(*name) != Some(dumped)).collect();
    assert!(differing.len() >= 3, "two names of one file, three of another: {differing:?}");
}

#[test]
fn an_unchanged_tree_keeps_what_was_read_with_its_content() {
    let (scratch, _unlocked, before) = backed_up();
    let again = scratch.json(0, ["create", "files", &scratch.text("odd")]);
    let unchanged = again["entries_unchanged"].as_u64().unwrap();
    assert!(unchanged > 2_000, "{again:#}");
    scratch.ok(["restore", "latest", "--to", &scratch.text("out"), "--devices"]);
    compare(&before, &dump(&scratch.path("out").join(scratch.name("odd"))));
}

#[test]
fn what_a_user_may_not_restore_is_named_and_nothing_else_differs() {
    let (scratch, _unlocked, before) = backed_up();
    sh("mkdir out; chmod 777 out; chmod -R a+rX repository key", &scratch.path(""));
    let out = scratch.text("out");
    let mut command =
        scratch.command_of_nobody(["--json", "--no-cache", "restore", "latest", "--to", &out, "--devices"]);
    let ran = common::run(&mut command);
    let report: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:#?}"));
    let prefix = format!("{}/", scratch.name("odd"));
    let named: BTreeSet<String> = report["failed"]
        .as_array()
        .unwrap_or_else(|| panic!("{report:#}"))
        .iter()
        .filter_map(|item| Some(item["name"].as_str()?.strip_prefix(&prefix)?.to_owned()))
        .collect();
    assert_eq!(ran.code, if named.is_empty() { 0 } else { 3 }, "{ran:#?}");
    let copy = scratch.path("out").join(scratch.name("odd"));
    let user =
        fs::metadata(&copy).map(|meta| std::os::unix::fs::MetadataExt::uid(&meta)).unwrap().to_string();
    let after = dump(&copy);
    for (name, dumped) in &before {
        // What is named by one of its names is named.
        let inode = dumped.get("inode of").is_some_and(|first| named.contains(first));
        let is_named = inode || named.contains(&reported(name));
        let Some(found) = after.get(name) else {
            let kind = dumped["kind"].as_str();
            assert!(
                is_named && matches!(kind, "20000" | "60000"),
                "{} is missing: {report:#}",
                name.display()
            );
            continue;
        };
        let mut expected = dumped.clone();
        // What lends rights comes with its owner only, who is now somebody else.
        expected.insert("uid".into(), user.clone());
        expected.insert("gid".into(), user.clone());
        let mode = u32::from_str_radix(&dumped["mode"], 8).unwrap();
        if dumped["kind"] != "120000" && is_root() {
            expected.insert("mode".into(), format!("{:o}", mode & 0o1777));
            expected.remove("security.capability");
        }
        if is_named {
            // Only what needs privileges may differ.
            expected.retain(|key, _| !key.starts_with("trusted."));
            if let (Some(flags), Some(kept)) = (dumped.get("flags"), found.get("flags")) {
                let locks = u32::from_str_radix(flags, 16).unwrap() & !0x30;
                assert_eq!(format!("{locks:x}"), *kept, "{}", name.display());
                expected.insert("flags".into(), kept.clone());
            }
        }
        assert_eq!(found, &expected, "{}, named: {is_named}", name.display());
    }
    assert!(after.keys().all(|name| before.contains_key(name)));
    if is_root() {
        let lending = ["setuid", "setgid", "capable"];
        for name in
            ["char", "block", "char again", "dangling", "plain/deep/deeper"].into_iter().chain(lending)
        {
            assert!(named.contains(name), "{name} is not named: {named:?}");
        }
        for (name, what) in
            lending.into_iter().zip(["the set-user-id bit", "the set-group-id bit", "capabilities"])
        {
            let of_name = |item: &&Value| item["name"] == format!("{prefix}{name}");
            let mut reasons = report["failed"].as_array().unwrap().iter().filter(of_name);
            assert!(reasons.any(|item| item["reason"].as_str().unwrap().starts_with(what)), "{report:#}");
        }
        // Owners are no failure: one note counts them.
        let notes = report["notes"].as_array().unwrap();
        let belonging = before.values().filter(|dumped| dumped["uid"] != user || dumped["gid"] != user);
        let inodes: BTreeSet<_> = belonging.filter_map(|dumped| dumped.get("inode of")).collect();
        let count: u64 = notes[0].as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(notes.len() == 1 && count >= inodes.len() as u64 && !named.contains("many/7"), "{notes:?}");
    }
    // Who asks for no owners is not told what goes with them.
    let mut command =
        scratch.command_of_nobody(["--json", "--no-cache", "restore", "latest", "--to", &out, "--no-owner"]);
    let ran = common::run(&mut command);
    let report: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:#?}"));
    assert_eq!(report["notes"], serde_json::json!([]));
    assert!(!ran.out.contains("without the owner"), "{report:#}");
    assert!(fs::metadata(&copy).unwrap().permissions().mode() & 0o700 == 0o700);
}
