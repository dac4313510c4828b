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
