//! A tree with every attribute survives backup and restore, as `rsync` sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;

use common::Scratch;
use common::odd::{differences, make_tree};

#[test]
fn every_attribute_survives() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("odd");
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let odd = scratch.text("odd");
    let report = scratch.json(0, ["create", "files", &odd]);
    assert_eq!(report["outcome"], "complete");
    scratch.ok(["restore", "latest", "--to", &scratch.text("out"), "--devices"]);
    let copy = scratch.path("out").join(scratch.name("odd"));
    assert_eq!(differences(&tree, &copy), "");
    // And rsync does see differences where there are some.
    fs::write(copy.join("plain/deep/deeper/big"), "other").unwrap();
    assert!(differences(&tree, &copy).contains("plain/deep/deeper/big"));
}

#[test]
fn holes_stay_holes() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::with_repository();
    let tree = scratch.path("odd");
    fs::create_dir(&tree).unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(50_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &common::pseudo_random(100_000, 9), 30_000_000)
        .unwrap();
    drop(sparse);
    scratch.ok(["create", "files", &scratch.text("odd")]);
    scratch.ok(["restore", "latest", "--to", &scratch.text("out")]);
    let copy = scratch.path("out").join(scratch.name("odd")).join("sparse");
    assert_eq!(fs::read(&copy).unwrap(), fs::read(tree.join("sparse")).unwrap());
    assert!(fs::metadata(&copy).unwrap().blocks() * 512 < 5_000_000, "the holes were filled");
}

/// A real system directory; with BACKUP_LONG all of /usr: more than 100,000 files and 2 GB.
#[test]
fn a_real_tree_survives() {
    let long = std::env::var_os("BACKUP_LONG").is_some();
    let tree = Path::new(if long { "/usr" } else { "/usr/include" });
    let tree = if tree.exists() { tree } else { Path::new("/etc") };
    let scratch = Scratch::with_repository();
    let report = scratch.json(0, ["create", "files", "--one-file-system", &tree.display().to_string()]);
    println!("{}: {} entries, {} bytes", tree.display(), report["entries"], report["bytes_read"]);
    if long {
        assert!(
            report["entries"].as_u64().unwrap() >= 100_000
                && report["bytes_read"].as_u64().unwrap() >= 2_000_000_000
        );
    }
    scratch.ok(["restore", "latest", "--to", &scratch.text("out"), "--devices"]);
    let copy = scratch.path("out").join(tree.strip_prefix("/").unwrap());
    assert_eq!(differences(tree, &copy), "");
}
