//! `health`: exit codes for those who watch.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::time::{Duration, SystemTime};

use common::{Scratch, largest};

/// Makes the store have had every snapshot so much earlier.
fn age(scratch: &Scratch, hours: u64) {
    for entry in fs::read_dir(scratch.path("repository/snapshots")).unwrap() {
        let path = entry.unwrap().path();
        let file = fs::File::open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600 * hours)).unwrap();
    }
}

fn status(scratch: &Scratch, code: i32, arguments: &[&str]) -> String {
    let report = scratch.json(code, ["health"].iter().chain(arguments).copied());
    assert!(report["checks"].as_array().is_some_and(|checks| !checks.is_empty()), "{report:#}");
    report["status"].as_str().unwrap().to_owned()
}

#[test]
fn the_age_of_the_newest_complete_snapshot_of_each_series_counts() {
    let scratch = Scratch::with_repository();
    assert_eq!(status(&scratch, 2, &[]), "critical", "that there is nothing is what nobody notices");
    scratch.ok(["create", "files", "tree", "--host", "one"]);
    assert_eq!(status(&scratch, 0, &[]), "ok");
    let said = scratch.ok(["health"]);
    assert!(said.out.starts_with("OK "), "{said:?}");
    assert_eq!(status(&scratch, 2, &["--host", "two"]), "critical");

    // Its own time is an hour's difference from the store's at most, or it proves nothing.
    age(&scratch, 1);
    scratch.ok(["create", "files", "tree", "--host", "two"]);
    assert_eq!(status(&scratch, 1, &["--warn-age", "30m"]), "warning");
    assert_eq!(status(&scratch, 2, &["--max-age", "30m"]), "critical");
    assert_eq!(status(&scratch, 0, &["--max-age", "30m", "--host", "two"]), "ok");
    assert_eq!(status(&scratch, 1, &["--max-age", "65m"]), "warning", "five sixths of it are over");
    let said = scratch.run(["health", "--max-age", "30m"]).expect(2);
    assert!(
        said.out.starts_with("CRITICAL files") && said.out.contains("on one") && !said.out.contains("on two"),
        "{said:?}"
    );
    assert_eq!(said.out.lines().count(), 1);
}

#[test]
fn damage_and_what_was_never_verified_are_said() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    assert_eq!(status(&scratch, 1, &["--max-unverified", "30d"]), "warning");
    scratch.json(0, ["verify", "--record"]);
    assert_eq!(status(&scratch, 0, &["--max-unverified", "30d"]), "ok");
    let pack = largest(&scratch.path("repository/data"));
    let mut bytes = fs::read(&pack).unwrap();
    bytes[1000] ^= 1;
    fs::write(&pack, &bytes).unwrap();
    scratch.json(3, ["verify", "--record"]);
    assert_eq!(status(&scratch, 2, &[]), "critical");
    bytes[1000] ^= 1;
    fs::write(&pack, &bytes).unwrap();
    scratch.json(0, ["verify", "--record"]);
    assert_eq!(status(&scratch, 0, &[]), "ok");
    let mut snapshots = fs::read_dir(scratch.path("repository/snapshots")).unwrap();
    fs::write(snapshots.next().unwrap().unwrap().path(), b"no snapshot").unwrap();
    assert_eq!(status(&scratch, 2, &[]), "critical");
}

#[test]
fn a_repository_that_cannot_be_reached_is_critical() {
    let scratch = Scratch::new();
    assert_eq!(status(&scratch, 2, &[]), "critical");
    assert_eq!(scratch.json(2, ["health", "--max-age", "soon"])["error"]["kind"], "usage");
}
