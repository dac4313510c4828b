//! What was verified when is recorded, and the next verification goes on with what was not.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;

use common::{Scratch, largest, pseudo_random};

#[test]
fn a_part_a_day_becomes_everything() {
    let scratch = Scratch::with_repository();
    for number in 0..12 {
        fs::write(scratch.path("tree/changes"), pseudo_random(200_000, number)).unwrap();
        scratch.snapshot();
    }
    let packs =
        scratch.json(0, ["verify", "--level", "content", "--record"])["checked"]["bytes"].as_u64().unwrap();
    let listed = scratch.json(0, ["evidence", "list"]);
    let first = &listed["evidence"][0];
    assert_eq!(
        (first["kind"].as_str(), first["passed"].as_bool()),
        (Some("verify"), Some(true)),
        "{listed:#}"
    );
    assert_eq!(first["report"]["checked"]["bytes"].as_u64(), Some(packs));
    assert!(listed["verified"]["content"].is_string() && listed["verified"]["checksum"].is_string());

    // What was hashed only is not what was read.
    scratch.json(0, ["verify", "--level", "checksum", "--oldest", "25%"]);
    let mut read = 0;
    for part in 1..=4 {
        read += scratch.json(0, ["verify", "--level", "content", "--oldest", "25%"])["checked"]["bytes"]
            .as_u64()
            .unwrap();
        assert_eq!(read == packs, part == 4, "{read} of {packs} after {part}");
    }
    // Everything is fresh.
    let none = scratch.json(0, ["verify", "--level", "content", "--within", "1h", "--oldest", "1%"]);
    assert!(none["checked"]["bytes"].as_u64().unwrap() < packs / 4, "{none:#}");
    let all = scratch.json(0, ["verify", "--level", "content", "--within", "0s"]);
    assert_eq!(all["checked"]["bytes"].as_u64(), Some(packs));
    assert_eq!(
        scratch.json(0, ["evidence", "list", "--kind", "verify", "--last", "3"])["evidence"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(scratch.json(0, ["evidence", "list", "--kind", "drill"])["evidence"], serde_json::json!([]));
}

#[test]
fn what_failed_is_recorded_as_failed() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    let listed = scratch.json(0, ["evidence", "list"]);
    assert!(listed["verified"]["content"].is_null(), "{listed:#}");
    let pack = largest(&scratch.path("repository/data"));
    let mut bytes = fs::read(&pack).unwrap();
    bytes[1000] ^= 1;
    fs::write(&pack, bytes).unwrap();
    scratch.json(3, ["verify", "--record"]);
    let listed = scratch.json(0, ["evidence", "list"]);
    assert_eq!(listed["evidence"][0]["passed"].as_bool(), Some(false), "{listed:#}");
    assert_eq!(listed["evidence"][0]["report"]["damaged_objects"].as_array().unwrap().len(), 1);
    scratch.json(2, ["verify", "--oldest", "10%", "--sample", "10%"]);
    scratch.json(2, ["verify", "--record", "--keyless"]);
}

/// Kinds and outcomes of all evidence, the oldest first.
fn recorded(scratch: &Scratch) -> Vec<(String, bool)> {
    let listed = scratch.json(0, ["evidence", "list"]);
    let mut all: Vec<_> = listed["evidence"].as_array().unwrap().clone();
    // The store's clock is coarse; a program's is not.
    all.sort_by_key(|evidence| evidence["time"].as_str().unwrap().to_owned());
    let of = |evidence: &serde_json::Value| {
        (evidence["kind"].as_str().unwrap().to_owned(), evidence["passed"].as_bool().unwrap())
    };
    all.iter().map(of).collect()
}

#[test]
fn what_changes_a_repository_is_recorded_and_what_reads_it_when_asked() {
    let scratch = Scratch::with_repository();
    let first = scratch.snapshot();
    fs::write(scratch.path("tree/changes"), pseudo_random(200_000, 7)).unwrap();
    let second = scratch.snapshot();
    scratch.ok(["prune", "--dry-run"]);
    scratch.ok(["restore", "latest", "--to", "r1"]);
    scratch.ok(["forget", "--keep-last", "2"]);
    assert_eq!(recorded(&scratch), [], "nothing was changed");

    scratch.ok(["restore", "latest", "--to", "r2", "--record"]);
    scratch.ok(["hold", &second, "--reason", "a lawsuit"]);
    scratch.ok(["forget", &first, "--undelete-for", "1d"]);
    scratch.ok(["undelete", &first]);
    scratch.ok(["forget", &first]);
    scratch.ok(["prune"]);
    let kinds: Vec<String> = recorded(&scratch).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["restore", "hold", "forget", "undelete", "forget", "prune"]);
    assert!(recorded(&scratch).iter().all(|(_, passed)| *passed));
    // The report is that of `--json`, though these were written for people.
    let listed = scratch.json(0, ["evidence", "list", "--kind", "prune"]);
    assert_eq!(listed["evidence"][0]["report"]["snapshots"].as_u64(), Some(1), "{listed:#}");

    // What fails is recorded, too.
    scratch.run(["forget", &second]).expect(1);
    let (kind, passed) = recorded(&scratch).pop().unwrap();
    assert_eq!((kind.as_str(), passed), ("forget", false));
    let listed = scratch.json(0, ["evidence", "list", "--kind", "forget", "--last", "1"]);
    assert!(listed["evidence"][0]["report"]["error"]["message"].is_string(), "{listed:#}");
}

#[test]
fn a_store_that_takes_no_evidence_changes_nothing_about_what_was_done() {
    let scratch = Scratch::with_repository();
    let first = scratch.snapshot();
    // Nothing can be created below a file.
    fs::write(scratch.path("repository/evidence"), "").unwrap();
    let ran = scratch.ok(["forget", &first]);
    assert!(ran.err.contains("not recorded as evidence"), "{ran:#?}");
    let report = scratch.json(0, ["hold", "--json"]);
    assert_eq!(report["holds"], serde_json::json!([]));
}

#[test]
fn stats_tell_how_well_each_kind_of_data_is_stored_and_what_the_next_run_needs() {
    let scratch = Scratch::with_repository();
    let dump: String = (0..40_000)
        .map(|row| format!("INSERT INTO t VALUES ({row},'name {}','2026-11-22');\n", row * 7919 % 10_007))
        .collect();
    fs::write(scratch.path("tree/dump.sql"), &dump).unwrap();
    fs::write(scratch.path("tree/noise.jpg"), pseudo_random(900_000, 3)).unwrap();
    scratch.snapshot();
    fs::write(scratch.path("tree/dump.sql"), format!("{dump}-- more\n")).unwrap();
    scratch.snapshot();
    scratch.snapshot();
    let stats = scratch.json(0, ["stats"]);
    let sql = &stats["by_data"]["sql"];
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    assert_eq!(sql["files"].as_u64(), Some(1), "{stats:#}");
    assert_eq!(sql["bytes"].as_u64(), Some(dump.len() as u64 + 8));
    assert_eq!(sql["bytes_logical"].as_u64(), Some(3 * dump.len() as u64 + 16));
    assert!(number(&sql["compression_percent"]) > 60.0, "{stats:#}");
    assert!((1.5..=3.0).contains(&number(&sql["dedup_ratio"])), "{stats:#}");
    let image = &stats["by_data"]["image"];
    assert!(number(&image["compression_percent"]).abs() < 30.0, "shares of a frame are shares: {stats:#}");
    assert_eq!(number(&image["dedup_ratio"]), 3.0);
    let series = &stats["series"][0];
    assert_eq!((series["snapshots"].as_u64(), series["next"]["runs"].as_u64()), (Some(3), Some(2)));
    assert!(number(&series["next"]["seconds"]) > 0.0 && series["bytes_stored_per_day"].is_null());
    assert_eq!(series["runs"], serde_json::json!([]));
    let runs = &scratch.json(0, ["stats", "--runs"])["series"][0]["runs"];
    assert_eq!(runs.as_array().unwrap().len(), 3);
    assert!(runs[0]["bytes_stored"].as_u64() > runs[2]["bytes_stored"].as_u64(), "{runs:#}");
    let text = scratch.ok(["stats", "--runs"]).out;
    assert!(text.contains("sql") && text.contains("next: about"), "{text}");
}
