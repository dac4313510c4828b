//! A tree that somebody encrypts is an anomaly, an upgrade of the same tree is none.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Scratch, listing, pseudo_random};
use serde_json::Value;

/// Files below a directory, sorted.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    all.sort();
    all
}

/// Words, which compress like a program's text.
fn words(len: usize, seed: u64) -> Vec<u8> {
    let vocabulary =
        ["return", "match", "self", "value", "error", "let", "=", "{", "}", "index", "bytes", "snapshot"];
    let chosen = pseudo_random(len, seed).into_iter();
    let mut text: Vec<u8> = chosen
        .flat_map(|byte| format!("{} ", vocabulary[usize::from(byte) % vocabulary.len()]).into_bytes())
        .take(len)
        .collect();
    text.truncate(len);
    text
}

fn tree(scratch: &Scratch) -> PathBuf {
    let directory = scratch.path("program");
    fs::create_dir(&directory).unwrap();
    for number in 0..150 {
        fs::write(directory.join(format!("{number:03}.rs")), words(20_000 + 100 * number, number as u64))
            .unwrap();
    }
    for number in 0..20 {
        // Pictures.
        fs::write(directory.join(format!("{number:03}.png")), pseudo_random(30_000, 1000 + number)).unwrap();
    }
    directory
}

fn create(scratch: &Scratch) -> Value {
    scratch.json(0, ["create", "files", "program"])
}

/// What a new release does: most is edited, some files come, go, and get other names.
fn upgrade(directory: &Path, release: u64) {
    for (number, file) in (0..).zip(files(directory)) {
        match number % 10 {
            0..7 if file.extension().unwrap() == "rs" => {
                let mut content = fs::read(&file).unwrap();
                content.splice(..5_000, words(6_000, release * 1000 + number));
                fs::write(&file, content).unwrap();
            }
            7 => fs::remove_file(&file).unwrap(),
            8 => fs::rename(&file, file.with_extension(format!("{release}.rs"))).unwrap(),
            _ => {}
        }
    }
    for number in 0..25 {
        fs::write(directory.join(format!("new-{release}-{number}.rs")), words(25_000, release * 77 + number))
            .unwrap();
    }
}

/// What somebody does who wants money for it: each file becomes another one, of its length, that nobody can read.
fn encrypt(directory: &Path, every: usize) {
    for (number, file) in files(directory).into_iter().enumerate() {
        if number % every == 0 {
            let len = fs::metadata(&file).unwrap().len() as usize;
            fs::write(file.with_extension("locked"), pseudo_random(len, 9000 + number as u64)).unwrap();
            fs::remove_file(&file).unwrap();
        }
    }
}

#[test]
fn a_tree_that_somebody_encrypts_is_an_anomaly_and_nothing_is_freed_until_somebody_has_looked() {
    let scratch = Scratch::with_repository();
    let directory = tree(&scratch);
    let before = listing(&directory);
    assert_eq!(create(&scratch)["change"], Value::Null, "there is nothing to compare the first with");
    let good = create(&scratch);
    assert_eq!((&good["change"]["entries_changed"], &good["anomaly"]), (&0.into(), &Value::Null), "{good:#}");
    encrypt(&directory, 1);
    let ran = scratch.run(["create", "files", "program"]).expect(0);
    assert!(ran.err.contains("ANOMALY: ") && ran.err.contains("% of the content was replaced"), "{ran:?}");
    let listed = scratch.json(0, ["anomaly", "list"]);
    let anomalous = listed["anomalies"].as_array().unwrap();
    assert_eq!(anomalous.len(), 1, "{listed:#}");
    assert!(anomalous[0]["anomaly"]["score"].as_u64().unwrap() >= 80, "{listed:#}");
    let bad = anomalous[0]["id"].as_str().unwrap().to_owned();

    // Rules would drop what was before: not unconfirmed, and what was forgotten does not go.
    let refused = scratch.json(1, ["forget", "--keep-last", "1"]);
    assert_eq!(refused["error"]["kind"], "needs_confirmation");
    scratch.json(0, ["forget", good["snapshot"].as_str().unwrap()]);
    let paused = scratch.json(3, ["prune"]);
    assert_eq!(
        (&paused["outcome"], &paused["anomalies"][0]),
        (&"paused".into(), &bad.clone().into()),
        "{paused:#}"
    );
    assert_eq!(scratch.json(3, ["prune", "--dry-run"])["outcome"], "paused");
    scratch.json(0, ["undelete", good["snapshot"].as_str().unwrap()]);
    scratch.json(0, ["restore", good["snapshot"].as_str().unwrap(), "--to", "restored", "--verify"]);
    assert_eq!(listing(&scratch.path("restored/program")), before);

    scratch.json(0, ["anomaly", "confirm", &bad, "--reason", "it was an exercise"]);
    assert_eq!(scratch.json(0, ["anomaly", "list"])["anomalies"], serde_json::json!([]));
    scratch.json(0, ["prune"]);
    scratch.json(0, ["verify", "--level", "content"]);
}

#[test]
fn upgrades_are_no_anomaly_and_an_attack_that_has_begun_is_told_from_them() {
    let scratch = Scratch::with_repository();
    let directory = tree(&scratch);
    create(&scratch);
    for release in 1..4 {
        upgrade(&directory, release);
        let report = create(&scratch);
        let score = report["anomaly"]["score"].as_u64().unwrap_or(0);
        println!("release {release}: {score}, {}", report["change"]);
        assert!(score < 20, "{report:#}");
        assert!(report["change"]["bytes_replaced"].as_u64().unwrap() > 500_000, "{report:#}");
    }
    // One file in six.
    encrypt(&directory, 6);
    let report = create(&scratch);
    println!("an attack that has begun: {}, {}", report["anomaly"], report["change"]);
    assert!(report["anomaly"]["score"].as_u64().unwrap() >= 50, "{report:#}");
}

#[test]
fn a_tree_of_which_most_is_gone_is_an_anomaly() {
    let scratch = Scratch::with_repository();
    let directory = tree(&scratch);
    create(&scratch);
    for file in files(&directory).into_iter().take(150) {
        fs::remove_file(file).unwrap();
    }
    let report = create(&scratch);
    assert!(report["anomaly"]["score"].as_u64().unwrap() >= 80, "{report:#}");
    assert!(report["anomaly"]["reasons"][0].as_str().unwrap().contains("are gone"), "{report:#}");
}
