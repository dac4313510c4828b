//! `restore --tar`: what the tar that everybody has makes of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::odd::{differences, is_root, make_tree};
use common::{Scratch, largest};

/// Extracts below `to`, which it makes.
fn extract(scratch: &Scratch, archive: Stdio, to: &str) {
    fs::create_dir(scratch.path(to)).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--acls", "--xattrs", "--xattrs-include=*", "-xpf", "-", "-C"])
        .arg(scratch.path(to))
        .stdin(archive);
    let done = tar.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn an_archive_holds_all_that_a_tree_has() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("odd");
    make_tree(&tree);
    // It cannot stand in an archive.
    fs::remove_file(tree.join("socket")).unwrap();
    scratch.ok(["create", "files", "odd"]);

    let mut restore =
        scratch.command(["restore", "latest", "--tar", "-"]).stdout(Stdio::piped()).spawn().unwrap();
    extract(&scratch, restore.stdout.take().unwrap().into(), "piped");
    assert!(restore.wait().unwrap().success());
    let report = scratch.json(0, ["restore", "latest", "--tar", "archive.tar"]);
    assert!(report["entries_written"].as_u64().unwrap() > 20, "{report:#}");
    extract(&scratch, fs::File::open(scratch.path("archive.tar")).unwrap().into(), "file");
    if is_root() {
        for extracted in ["piped", "file"] {
            assert_eq!(differences(&tree, &scratch.path(extracted).join("odd")), "", "{extracted}");
        }
    }

    // A part, and nothing; and what stands there is not overwritten.
    scratch.ok(["restore", "latest", "--path", "odd/plain", "--tar", "part.tar"]);
    extract(&scratch, fs::File::open(scratch.path("part.tar")).unwrap().into(), "part");
    assert_eq!(fs::read_dir(scratch.path("part/odd")).unwrap().count(), 1);
    scratch.run(["restore", "latest", "--path", "nothing", "--tar", "none.tar"]).expect(4);
    assert!(!scratch.path("none.tar").exists());
    let ran = scratch.run(["restore", "latest", "--tar", "part.tar"]).expect(1);
    assert!(ran.err.contains("part.tar") && ran.err.contains("exists"), "{ran:?}");
}

#[test]
fn options_of_a_directory_and_json_do_not_go_with_an_archive() {
    let scratch = Scratch::with_repository();
    fs::create_dir_all(scratch.path("tree")).unwrap();
    scratch.ok(["create", "files", "tree"]);
    for more in
        [&["--to", "there"][..], &["--delete"], &["--overwrite", "never"], &["--verify"], &["--dry-run"]]
    {
        scratch.run([&["restore", "latest", "--tar", "-"], more].concat()).expect(2);
    }
    scratch.run(["--json", "restore", "latest", "--tar", "-"]).expect(2);
    scratch.run(["restore", "latest"]).expect(2);
}

#[test]
fn what_is_damaged_is_left_out_of_an_archive_and_named() {
    let scratch = Scratch::with_repository();
    fs::create_dir_all(scratch.path("tree")).unwrap();
    for number in 0..3 {
        fs::write(scratch.path(&format!("tree/{number}")), common::pseudo_random(30_000_000, number))
            .unwrap();
    }
    scratch.ok(["create", "files", "tree"]);
    let pack = largest(&scratch.path("repository/data"));
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let report = scratch.json(3, ["restore", "latest", "--tar", "archive.tar"]);
    extract(&scratch, fs::File::open(scratch.path("archive.tar")).unwrap().into(), "out");
    let failed = report["failed"].to_string();
    let mut whole = 0;
    for number in 0..3 {
        let content = fs::read(scratch.path(&format!("out/tree/{number}"))).ok();
        assert_ne!(content.is_some(), failed.contains(&format!("tree/{number}")), "{number}: {report:#}");
        let Some(content) = content else { continue };
        assert!(content == common::pseudo_random(30_000_000, number), "{number} is not what it was");
        whole += 1;
    }
    // Two files are read at once, so that the frame that is damaged may hold chunks of both.
    assert!((1..=2).contains(&whole), "{report:#}");
}
