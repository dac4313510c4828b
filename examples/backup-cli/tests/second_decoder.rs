//! What this program stores, read by another one: a decoder in Python, written from FORMAT.md alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::Scratch;
use common::odd::{differences, make_tree};
use serde_json::Value;

const DECODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../backup-core/tests/decoder/decode.py");

/// Runs the decoder on the repository of a scratch, with its key file unless it is unencrypted.
fn decoder<S: AsRef<OsStr>>(
    scratch: &Scratch,
    key: &[&str],
    arguments: impl IntoIterator<Item = S>,
) -> Output {
    let python = std::env::var_os("BACKUP_TEST_PYTHON").expect(
        "BACKUP_TEST_PYTHON must name a Python with the packages of backup-core/tests/decoder/requirements.txt; \
         .ci/test makes one",
    );
    let mut command = Command::new(python);
    command.arg(DECODER).arg(scratch.path("repository"));
    for part in key {
        if part.starts_with("--") {
            command.arg(part)
        } else {
            command.arg(scratch.path(part))
        };
    }
    command.args(arguments).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Opens everything; every seal has a key and nonce of its own.
fn check(scratch: &Scratch, key: &[&str]) -> Value {
    let checked = json(&decoder(scratch, key, ["check"]));
    assert_eq!(checked["problems"], serde_json::json!([]));
    assert_eq!(checked["repeated_nonces"], 0);
    println!("{checked}");
    checked
}

fn listed(scratch: &Scratch, key: &[&str]) -> Vec<String> {
    let list = json(&decoder(scratch, key, ["list"]));
    let ids = list["snapshots"].as_array().unwrap().iter();
    ids.map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_snapshot_is_extracted_byte_for_byte() {
    let scratch = Scratch::new();
    let tree = scratch.path("odd");
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    fs::write(scratch.path("password"), "correct horse\n").unwrap();
    // Small chunks, so that files have lists of chunks in pages.
    let recipient = format!("passphrase:file:{}", scratch.text("password"));
    scratch.ok(["init", "--chunk", "4KiB,16KiB,64KiB", "--recipient", &recipient]);
    let odd = scratch.text("odd");
    let first = scratch.json(0, ["create", "files", &odd, "--label", "odd", "--tag", "k=v"]);
    fs::write(scratch.path("odd/plain/new"), "new\n").unwrap();
    let second = scratch.json(0, ["create", "files", &odd]);
    let stream = scratch.json(
        0,
        [
            "create",
            "command",
            "--name",
            "stream",
            "--",
            "sh",
            "-c",
            "cat odd/plain/deep/deeper/big; seq 1 200000",
        ],
    );
    for key in [&["--key-file", "key"], &["--password-file", "password"]] {
        let counts = check(&scratch, key);
        assert!(
            counts["chunks"].as_u64().unwrap() > 300 && counts["seals"].as_u64().unwrap() > 20,
            "{counts}"
        );
        let mut ids = listed(&scratch, key);
        ids.sort();
        let mut stored: Vec<_> =
            [&first, &second, &stream].map(|report| report["snapshot"].as_str().unwrap()).into();
        stored.sort_unstable();
        assert_eq!(ids, stored);
    }
    let key = &["--key-file", "key"];
    let extract = |report: &Value, name: &str| {
        let done =
            decoder(&scratch, key, ["extract", report["snapshot"].as_str().unwrap(), &scratch.text(name)]);
        assert!(done.status.success(), "{done:?}");
    };
    extract(&second, "second");
    let copy = scratch.path("second").join(scratch.name("odd"));
    assert_eq!(differences(&tree, &copy), "");
    extract(&first, "first");
    let copy = scratch.path("first").join(scratch.name("odd"));
    let lines = differences(&tree, &copy);
    assert_eq!(
        lines.lines().filter(|line| !line.starts_with(".d")).collect::<Vec<_>>(),
        [">f+++++++++ plain/new"]
    );
    extract(&stream, "stream");
    let again = scratch.run(["cat", stream["snapshot"].as_str().unwrap(), "stream"]).expect(0);
    assert!(fs::read(scratch.path("stream/stream")).unwrap() == again.raw);
}

#[test]
fn an_unencrypted_repository_is_read_without_a_key() {
    let scratch = Scratch::new();
    let run =
        |arguments: &[&str]| common::run(scratch.command(arguments).env_remove("BACKUP_KEY_FILE")).expect(0);
    run(&["init", "--unencrypted"]);
    run(&["create", "files", "tree"]);
    check(&scratch, &[]);
    let ids = listed(&scratch, &[]);
    let done = decoder(&scratch, &[], ["extract", &ids[0], &scratch.text("out")]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(differences(&scratch.path("tree"), &scratch.path("out/tree")), "");
}

#[test]
fn damage_and_wrong_keys_are_noticed() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    fs::write(scratch.path("wrong"), "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
    let refused = decoder(&scratch, &["--key-file", "wrong"], ["list"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let mut flipped = 0;
    for prefix in ["config", "keys", "data", "meta", "index", "snapshots", "control/sessions"] {
        let file = first_file(&scratch.path("repository").join(prefix));
        let whole = fs::read(&file).unwrap();
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::remove_file(&file).unwrap();
        fs::write(&file, &bytes).unwrap();
        let found = decoder(&scratch, &["--key-file", "key"], ["check"]);
        assert_eq!(found.status.code(), Some(1), "{prefix}: {found:?}");
        assert!(!String::from_utf8_lossy(&found.stderr).contains("Traceback"), "{found:?}");
        fs::write(&file, &whole).unwrap();
        flipped += 1;
    }
    check(&scratch, &["--key-file", "key"]);
    println!("{flipped} objects damaged, all noticed");
}

/// The first file at or below a path.
fn first_file(path: &Path) -> std::path::PathBuf {
    if path.is_file() {
        return path.to_owned();
    }
    let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    first_file(names.first().unwrap())
}
