//! One repository in three places: a place that is down, one that is destroyed, one that is damaged.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Ran, Scratch, listing, pseudo_random, run};
use serde_json::Value;

const CONFIGURATION: &str = r#"
[places.here]
kind = "local"
path = "here"

[places.there]
kind = "local"
path = "there"

[places.far]
kind = "local"
path = "far"

[keys.file]
kind = "key-file"
secret = "file:key"

[repositories.main]
place = "here"
medium = "disk"
keys = ["file"]
replicas = [
    { place = "there", medium = "disk" },
    { place = "far", medium = "tape", off_site = true, required = false },
]

[sources.tree]
kind = "files"
paths = ["tree"]

[jobs.tree]
source = "tree"
repository = "main"
"#;

fn with(scratch: &Scratch, code: i32, arguments: &[&str]) -> Ran {
    let mut command = scratch.command(["--config", "backup.toml"]);
    command.args(arguments).env_remove("BACKUP_REPO").env_remove("BACKUP_KEY_FILE");
    run(&mut command).expect(code)
}

fn json(scratch: &Scratch, code: i32, arguments: &[&str]) -> Value {
    let mut all = vec!["--json"];
    all.extend(arguments);
    with(scratch, code, &all).json()
}

/// A repository in three places, each of which has these many snapshots.
fn three(snapshots: u64) -> (Scratch, Vec<String>) {
    let scratch = Scratch::new();
    fs::write(scratch.path("backup.toml"), CONFIGURATION).unwrap();
    with(&scratch, 0, &["init"]);
    let ids = (0..snapshots).map(|seed| snapshot(&scratch, seed, 0)["snapshot"].as_str().unwrap().to_owned());
    let ids = ids.collect();
    (scratch, ids)
}

/// One more snapshot, of a tree in which something has changed.
fn snapshot(scratch: &Scratch, seed: u64, code: i32) -> Value {
    let tree = scratch.path("tree");
    fs::write(tree.join("changes"), pseudo_random(2_000_000, seed)).unwrap();
    for number in 0..20 {
        fs::write(tree.join(format!("small-{number}")), pseudo_random(3_000, seed * 100 + number)).unwrap();
    }
    json(scratch, code, &["run"])["components"][0].clone()
}

fn missing(report: &Value) -> Vec<u64> {
    report["places"].as_array().unwrap().iter().map(|place| place["missing"].as_u64().unwrap()).collect()
}

fn packs(place: &Path) -> Vec<PathBuf> {
    let mut packs = Vec::new();
    for kind in ["data", "meta"] {
        for directory in fs::read_dir(place.join(kind)).unwrap() {
            packs.extend(fs::read_dir(directory.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
        }
    }
    packs.sort();
    packs
}

fn restores(scratch: &Scratch, repo: &str, ids: &[String]) {
    for (seed, id) in (0..).zip(ids) {
        let to = format!("restored-{repo}-{seed}");
        json(scratch, 0, &["--repo", repo, "restore", id, "--to", &to, "--verify"]);
        let restored = fs::read(scratch.path(&to).join("tree/changes")).unwrap();
        assert!(restored == pseudo_random(2_000_000, seed), "{repo} {seed}");
    }
    let newest = format!("restored-{repo}-{}", ids.len() - 1);
    assert_eq!(listing(&scratch.path(&newest).join("tree")), listing(&scratch.path("tree")));
}

#[test]
fn one_of_three_destroyed_and_one_with_every_fifth_pack_damaged_and_all_become_whole() {
    let (scratch, ids) = three(5);
    let report = json(&scratch, 0, &["places", "report"]);
    assert_eq!((missing(&report), &report["is_3_2_1"]), (vec![0, 0, 0], &Value::Bool(true)), "{report:#}");

    fs::remove_dir_all(scratch.path("there")).unwrap();
    let mut struck = 0;
    for pack in packs(&scratch.path("here")).iter().step_by(5) {
        let mut bytes = fs::read(pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        fs::write(pack, bytes).unwrap();
        struck += 1;
    }
    assert!(struck >= 2, "{struck}");
    json(&scratch, 3, &["verify", "--level", "checksum"]);
    // Everything restores all the same, and from whichever place is named.
    restores(&scratch, "main", &ids);
    restores(&scratch, "main@far", &ids);
    let report = json(&scratch, 3, &["places", "report"]);
    assert!(report["places"][1]["error"].is_string() && report["is_3_2_1"] == false, "{report:#}");
    let health = json(&scratch, 2, &["health"]);
    assert!(health["checks"].to_string().contains("place main@there"), "{health:#}");

    // What is damaged is named, and comes back.
    let planned = json(&scratch, 3, &["repair", "packs", "--dry-run"]);
    assert_eq!(planned["lost"].as_array().unwrap().len(), struck, "{planned:#}");
    let healed = json(&scratch, 0, &["repair", "packs"]);
    assert_eq!(healed["healed"].as_array().unwrap().len(), struck, "{healed:#}");
    json(&scratch, 0, &["verify", "--level", "content"]);

    // An empty directory may be one that is not mounted: only who says so gets a new place.
    fs::create_dir(scratch.path("there")).unwrap();
    json(&scratch, 1, &["places", "sync"]);
    let synced = json(&scratch, 0, &["places", "sync", "--create"]);
    let brought = synced["places"][1]["report"]["snapshots"].as_array().unwrap();
    assert_eq!(brought.len(), ids.len(), "{synced:#}");
    let report = json(&scratch, 0, &["places", "report"]);
    assert!(report["places"].as_array().unwrap().iter().all(|place| place["lag_seconds"] == 0), "{report:#}");
    assert_eq!((report["is_3_2_1"].as_bool(), report["copies"].as_u64()), (Some(true), Some(3)));
    json(&scratch, 0, &["--repo", "main@there", "verify", "--level", "content"]);
    restores(&scratch, "main@there", &ids);
    json(&scratch, 0, &["health"]);
}

#[test]
fn a_place_that_is_down_is_caught_up_later_and_what_is_acknowledged_is_where_it_must_be() {
    let (scratch, mut ids) = three(1);
    let away = |place: &str| fs::rename(scratch.path(place), scratch.path("unplugged")).unwrap();
    let back = |place: &str| fs::rename(scratch.path("unplugged"), scratch.path(place)).unwrap();

    // Best effort: acknowledged, and named.
    away("far");
    let report = snapshot(&scratch, 1, 0);
    ids.push(report["snapshot"].as_str().unwrap().to_owned());
    assert_eq!(report["acknowledged"], true, "{report:#}");
    assert!(
        report["places"][2]["stored"] == false && report["warnings"][0].as_str().unwrap().contains("far")
    );
    back("far");
    let behind = json(&scratch, 3, &["places", "report"]);
    assert_eq!((missing(&behind), behind["copies"].as_u64()), (vec![0, 0, 1], Some(2)), "{behind:#}");

    // Required: the snapshot is stored, and is not acknowledged.
    away("there");
    let report = snapshot(&scratch, 2, 1);
    ids.push(report["snapshot"].as_str().unwrap().to_owned());
    assert!(report["acknowledged"] == false && report["places"][1]["error"].is_string(), "{report:#}");
    // The other one was caught up on the way.
    assert_eq!(report["places"][2]["stored"], true, "{report:#}");
    back("there");

    // The first is down: the next one takes what comes, and the first is caught up from it.
    away("here");
    let ran = with(&scratch, 1, &["--json", "run"]);
    let report = ran.json()["components"][0].clone();
    ids.push(report["snapshot"].as_str().unwrap().to_owned());
    assert!(report["warnings"].to_string().contains("main@there is used"), "{report:#}");
    let listed = with(&scratch, 0, &["list", "--json"]);
    assert_eq!(listed.json()["snapshots"].as_array().unwrap().len(), 4);
    assert!(listed.err.contains("main@there is used"), "{listed:?}");
    back("here");
    let behind = json(&scratch, 3, &["places", "report"]);
    assert_eq!(missing(&behind), [1, 0, 0], "{behind:#}");
    json(&scratch, 0, &["places", "sync"]);
    assert_eq!(missing(&json(&scratch, 0, &["places", "report"])), [0, 0, 0]);
    for place in ["main@here", "main@there", "main@far"] {
        let listed = json(&scratch, 0, &["--repo", place, "list"]);
        let listed = listed["snapshots"].as_array().unwrap().iter();
        assert_eq!(listed.map(|s| s["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>(), ids, "{place}");
        json(&scratch, 0, &["--repo", place, "verify", "--level", "content"]);
    }
}

#[test]
fn a_set_is_in_every_place_as_soon_as_its_snapshots_are() {
    let scratch = Scratch::new();
    let set = "[sets.all]\ncomponents = [{ job = \"tree\" }]\n";
    fs::write(scratch.path("backup.toml"), format!("{CONFIGURATION}{set}")).unwrap();
    with(&scratch, 0, &["init"]);
    let sets = |place: &str| {
        let listed = fs::read_dir(scratch.path(place).join("sets")).into_iter().flatten();
        let mut names: Vec<_> = listed.map(|file| file.unwrap().file_name()).collect();
        names.sort();
        names
    };
    json(&scratch, 0, &["run"]);
    let first = sets("here");
    assert_eq!(first.len(), 1);
    assert_eq!((&sets("there"), &sets("far")), (&first, &first));

    // One that may lack it is named, and gets it later.
    fs::rename(scratch.path("far"), scratch.path("unplugged")).unwrap();
    let report = json(&scratch, 0, &["run"]);
    let told = &report["sets"][0];
    assert_eq!((&told["outcome"], &told["acknowledged"]), (&"complete".into(), &true.into()), "{report:#}");
    assert!(told["warnings"].to_string().contains("does not have the set"), "{report:#}");
    fs::rename(scratch.path("unplugged"), scratch.path("far")).unwrap();
    assert_eq!((sets("there").len(), sets("far").len()), (2, 1));
    json(&scratch, 0, &["places", "sync"]);
    assert_eq!(sets("far"), sets("here"));
}

#[test]
fn without_a_configuration_places_are_named() {
    let scratch = Scratch::new();
    let place = scratch.text("second");
    scratch.json(0, ["init", "--place", &place]);
    let report = scratch.json(0, ["--place", &place, "create", "files", "tree"]);
    assert_eq!(
        (&report["acknowledged"], &report["places"][1]["stored"]),
        (&Value::Bool(true), &Value::Bool(true))
    );
    scratch.json(0, ["--repo", &place, "restore", "latest", "--to", "restored", "--verify"]);
    assert_eq!(listing(&scratch.path("restored/tree")), listing(&scratch.path("tree")));
    // Alone it is one place.
    scratch.json(2, ["places", "report"]);
    scratch.json(2, ["repair", "packs"]);
    fs::remove_dir_all(scratch.path("repository")).unwrap();
    let mut command = scratch.command(["--json", "restore", "latest", "--to", "again"]);
    run(command.env("BACKUP_PLACES", &place)).expect(0);
    assert_eq!(listing(&scratch.path("again/tree")), listing(&scratch.path("tree")));
}

#[test]
fn recipients_are_the_same_in_all_places() {
    let (scratch, _) = three(1);
    fs::write(scratch.path("words"), "correct horse battery staple\n").unwrap();
    let listed = |place: &str| json(&scratch, 0, &["--repo", place, "key", "list"])["recipients"].clone();
    let added = json(&scratch, 0, &["key", "add", "passphrase:file:words"]);
    assert_eq!(added["recipients"].as_array().unwrap().len(), 2);
    for place in ["main@there", "main@far"] {
        assert_eq!(listed(place), added["recipients"], "{place}");
    }
    let mut open = scratch.command(["--repo", "far", "--password-file", "words", "list"]);
    run(open.env_remove("BACKUP_KEY_FILE")).expect(0);
    let is_new = |info: &&Value| info["kind"] == "passphrase";
    let id = added["recipients"].as_array().unwrap().iter().find(is_new).unwrap()["id"].clone();
    // Where one does not answer nothing is begun.
    fs::rename(scratch.path("far"), scratch.path("unplugged")).unwrap();
    json(&scratch, 1, &["key", "remove", id.as_str().unwrap()]);
    fs::rename(scratch.path("unplugged"), scratch.path("far")).unwrap();
    json(&scratch, 0, &["key", "remove", id.as_str().unwrap()]);
    for place in ["main", "main@there", "main@far"] {
        assert_eq!(listed(place).as_array().unwrap().len(), 1, "{place}");
    }
    let mut open = scratch.command(["--repo", "far", "--password-file", "words", "list"]);
    run(open.env_remove("BACKUP_KEY_FILE")).expect(1);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (scratch, _) = three(0);
    let unknown = with(&scratch, 2, &["--repo", "main@nowhere", "list"]);
    assert!(unknown.err.contains("no place `nowhere`"), "{unknown:?}");
    let both = with(&scratch, 2, &["--place", "elsewhere", "list"]);
    assert!(both.err.contains("--place"), "{both:?}");
    let config = |replicas: &str| {
        let changed = CONFIGURATION.replace("place = \"there\", medium = \"disk\"", replicas);
        fs::write(scratch.path("backup.toml"), changed).unwrap();
        with(&scratch, 2, &["list"]).err
    };
    assert!(config("place = \"here\"").contains("is in `here` already"));
    assert!(config("place = \"nowhere\"").contains("not in `places`"));
    assert!(config("place = \"there\", policy = \"none\"").contains("not in `policies`"));
    assert!(
        config("place = \"there\", required = true, older_than = \"90d\"").contains("cannot be required")
    );
    // Another repository stands there.
    fs::write(scratch.path("backup.toml"), CONFIGURATION).unwrap();
    fs::remove_dir_all(scratch.path("there")).unwrap();
    let mut other = scratch.command(["init", "--repo", "there"]);
    run(&mut other).expect(0);
    let report = json(&scratch, 3, &["places", "report"]);
    assert!(report["places"][1]["error"].as_str().unwrap().contains("another repository"), "{report:#}");
    json(&scratch, 1, &["places", "sync"]);
    json(&scratch, 1, &["places", "sync", "--create"]);
}
