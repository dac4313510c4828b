//! Jobs and sets from a configuration, and a program with kinds of its own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use common::{Ran, Scratch, bare, listing, run};
use serde_json::Value;

const CONFIGURATION: &str = r#"
[places.disk]
kind = "local"
path = "repository"

[keys.file]
kind = "key-file"
secret = "file:key"

[transforms.small]
kind = "zstd"
level = 9

[repositories.main]
place = "disk"
keys = ["file"]
transforms = ["small"]

[sources.tree]
kind = "files"
paths = ["tree"]
exclude = ["*.bin"]

[sources.missing]
kind = "files"
paths = ["no/such/directory"]

[policies.two]
kind = "keep"
keep_last = 1

[jobs.tree]
source = "tree"
repository = "main"
tags = { env = "test" }
before = [["sh", "-c", "echo before >> hooks"]]
after = [["sh", "-c", "echo after >> hooks"]]

[jobs.again]
source = "tree"
repository = "main"
verify_encoding = true
label = "trees"
host = "elsewhere"

[jobs.broken]
source = "tree"
repository = "main"
before = [["false"]]
after = [["sh", "-c", "echo repaired >> hooks"]]

[sets.good]
components = [
    { job = "tree", restore_order = 2 },
    { job = "again", name = "copy", restore_order = 1 },
]

[sets.lenient]
components = [{ job = "tree" }, { job = "broken", required = false }]

[sets.strict]
components = [{ job = "broken" }, { job = "tree" }]
"#;

fn configured() -> Scratch {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("backup.toml"), CONFIGURATION).unwrap();
    with(&scratch, &["init"]).expect(0);
    scratch
}

/// The program with the configuration alone: no repository, no key, another working directory.
fn with(scratch: &Scratch, arguments: &[&str]) -> Ran {
    let mut command = bare(arguments);
    // Commands of jobs run in the working directory of the program.
    run(command.current_dir(scratch.path("")).env("BACKUP_CONFIG", scratch.path("backup.toml")))
}

fn json(scratch: &Scratch, code: i32, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    with(scratch, &arguments).expect(code).json()
}

#[test]
fn a_job_runs_between_its_commands() {
    let scratch = configured();
    let report = json(&scratch, 0, &["run", "tree"]);
    assert_eq!((&report["set"], &report["outcome"]), (&Value::Null, &"complete".into()));
    let component = &report["components"][0];
    for key in [
        "snapshot",
        "outcome",
        "entries",
        "bytes_read",
        "bytes_added",
        "bytes_stored",
        "duration_seconds",
        "skipped",
    ] {
        assert!(component.get(key).is_some(), "{key}: {component:#}");
    }
    assert_eq!(std::fs::read_to_string(scratch.path("hooks")).unwrap(), "before\nafter\n");
    let list = json(&scratch, 0, &["list", "--label", "tree", "--tag", "env=test"]);
    assert_eq!(list["snapshots"][0]["id"], component["snapshot"]);
    with(&scratch, &["restore", "latest", "--to", "r"]).expect(0);
    // Paths of the configuration are meant from its directory, and stored as they are.
    let restored = scratch.path("r").join(scratch.name("tree"));
    let without_binary: Vec<String> =
        listing(&scratch.path("tree")).into_iter().filter(|line| !line.contains("b.bin")).collect();
    assert_eq!(listing(&restored), without_binary);
}

#[test]
fn a_run_is_recorded_and_says_how_long_the_next_one_takes() {
    let scratch = configured();
    let checks = |scratch: &Scratch| json(scratch, 0, &["check", "tree"])["checks"].clone();
    let estimates = |checks: &Value| {
        let names = checks.as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap().to_owned());
        names.filter(|name| name.starts_with("estimate of")).collect::<Vec<_>>()
    };
    assert_eq!(estimates(&checks(&scratch)), [""; 0], "nobody knows before the first run");
    json(&scratch, 0, &["run", "tree"]);
    json(&scratch, 1, &["run", "strict"]);
    assert_eq!(estimates(&checks(&scratch)), ["estimate of tree"]);
    let listed = json(&scratch, 0, &["evidence", "list", "--kind", "run"]);
    let mut passed: Vec<bool> = listed["evidence"]
        .as_array()
        .unwrap()
        .iter()
        .map(|evidence| evidence["passed"].as_bool().unwrap())
        .collect();
    passed.sort_unstable();
    assert_eq!(passed, [false, true], "{listed:#}");
    assert!(!listed["evidence"][0]["report"]["components"].as_array().unwrap().is_empty());
}

#[test]
fn a_place_says_how_much_may_be_forgotten_unconfirmed() {
    let scratch = configured();
    let with_share = |share: &str| {
        let policy = format!("[repositories.main]\npolicy = \"two\"\nmax_share_percent = {share}\n");
        let text = CONFIGURATION.replacen("[repositories.main]\n", &policy, 1);
        std::fs::write(scratch.path("backup.toml"), text).unwrap();
    };
    for _ in 0..4 {
        json(&scratch, 0, &["run", "tree"]);
    }
    with_share("101");
    let refused = json(&scratch, 2, &["forget"])["error"]["message"].as_str().unwrap().to_owned();
    assert!(refused.contains("repositories.main.max_share_percent: 101 is more than all"), "{refused}");
    with_share("50");
    let stopped = json(&scratch, 1, &["forget"]);
    assert_eq!(stopped["error"]["kind"], "needs_confirmation", "{stopped:#}");
    // What is said on the command line counts more.
    json(&scratch, 1, &["forget", "--max-share", "70%"]);
    let code = json(&scratch, 0, &["forget", "--dry-run"])["confirmation"].as_str().unwrap().to_owned();
    let done = json(&scratch, 0, &["forget", "--confirm", &code]);
    assert_eq!(done["forgotten"].as_array().unwrap().len(), 3);
}

#[test]
fn a_set_holds_its_snapshots_together() {
    let scratch = configured();
    let report = json(&scratch, 0, &["run", "good"]);
    assert_eq!(report["set"].as_str().unwrap().len(), 32, "{report:#}");
    let names: Vec<&str> = report["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|component| component["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["tree", "copy"]);
    assert_eq!(json(&scratch, 0, &["list"])["snapshots"].as_array().unwrap().len(), 2);
    assert_eq!(json(&scratch, 0, &["list", "--host", "elsewhere"])["snapshots"].as_array().unwrap().len(), 1);
}

#[test]
fn components_are_left_out_on_request() {
    let scratch = configured();
    let report = json(&scratch, 0, &["run", "good", "--skip", "copy"]);
    assert_eq!(report["components"][1]["outcome"], "skipped");
    assert_eq!(report["sets"][0]["outcome"], "partial");
    let unknown = json(&scratch, 2, &["run", "good", "--skip", "again"]);
    assert!(unknown["error"]["message"].as_str().unwrap().contains("copy, tree"), "{unknown:#}");
}

#[test]
fn a_failing_command_fails_its_job_and_what_requires_it() {
    let scratch = configured();
    let report = json(&scratch, 1, &["run", "broken"]);
    assert_eq!(report["components"][0]["outcome"], "failed");
    assert!(report["components"][0]["error"]["message"].as_str().unwrap().contains("`false`"));
    // What was stopped is started again.
    assert_eq!(std::fs::read_to_string(scratch.path("hooks")).unwrap(), "repaired\n");
    let lenient = json(&scratch, 3, &["run", "lenient"]);
    assert_eq!((&lenient["sets"][0]["outcome"], &lenient["outcome"]), (&"partial".into(), &"partial".into()));
    // The other components are still backed up.
    let strict = json(&scratch, 1, &["run", "strict"]);
    assert_eq!(strict["sets"][0]["outcome"], "failed");
    assert_eq!(strict["components"][1]["outcome"], "complete");
}

#[test]
fn everything_is_run_when_nothing_is_named() {
    let scratch = configured();
    let report = json(&scratch, 1, &["run"]);
    assert_eq!(report["sets"].as_array().unwrap().len(), 3, "{report:#}");
    // Every job is in a set, so none runs alone.
    assert!(report["components"].as_array().unwrap().iter().all(|component| component["in_set"].is_string()));
}

#[test]
fn a_policy_says_what_it_would_keep_and_why() {
    let scratch = configured();
    with(&scratch, &["run", "tree"]).expect(0);
    with(&scratch, &["run", "tree"]).expect(0);
    let list = json(&scratch, 0, &["list", "--policy", "two"]);
    assert_eq!(list["snapshots"][0]["keep"], serde_json::json!([]), "{list:#}");
    assert_eq!(list["snapshots"][1]["keep"][0], "last 1 of 1", "{list:#}");
    json(&scratch, 2, &["list", "--policy", "none"]);
}

#[test]
fn check_looks_at_places_keys_sources_and_names_what_is_wrong() {
    let scratch = configured();
    let good = json(&scratch, 0, &["check", "good"]);
    let checks = good["checks"].as_array().unwrap();
    for name in [
        "keys of main",
        "place of main",
        "space of main",
        "protection of main",
        "repository main",
        "source tree",
    ] {
        let check =
            checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {good:#}"));
        assert_ne!(check["status"], "failed", "{check:#}");
    }
    // The probe is gone.
    assert!(
        !scratch.path("repository/control").exists()
            || listing(&scratch.path("repository/control")).iter().all(|line| !line.contains("probe"))
    );

    let everything = json(&scratch, 1, &["check"]);
    let failed: Vec<&str> = everything["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["status"] == "failed")
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["source missing"], "{everything:#}");

    std::fs::remove_file(scratch.path("key")).unwrap();
    let keyless = json(&scratch, 1, &["check", "tree"]);
    assert_eq!(keyless["checks"][0]["status"], "failed", "{keyless:#}");
}

#[test]
fn check_before_init_says_what_to_do() {
    let scratch = Scratch::new();
    let before = scratch.json(0, ["check"]);
    assert!(before.to_string().contains("backup init"), "{before:#}");
    scratch.ok(["init"]);
    let after = scratch.json(0, ["check"]);
    assert!(!after.to_string().contains("backup init"), "{after:#}");
}

#[test]
fn the_examples_for_the_deployments_are_configurations() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configurations");
    let mut count = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let config = backup_core::config::Config::load(&path).unwrap();
        assert!(!config.jobs.is_empty(), "{}", path.display());
        let registry = backup_cli::registry();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (name, component) in &config.sources {
            // A server's source waits for an archive, which only a running job has; see `deployment_e`.
            if component.kind == "postgres" {
                continue;
            }
            let context = backup_core::config::BuildContext::default();
            runtime.block_on(registry.make_source(component, "example", name, &context)).unwrap();
        }
        for (name, component) in &config.policies {
            registry.make_policy(component, "example", name).unwrap();
        }
        count += 1;
    }
    assert_eq!(count, 5);
}

#[test]
fn commands_that_fail_only_warn_where_the_job_says_so() {
    let scratch = configured();
    let more = r#"
[jobs.warned]
source = "tree"
repository = "main"
before = [["false"], ["sh", "-c", "echo before >> hooks"]]
after = [["sleep", "60"], ["sh", "-c", "echo after >> hooks"]]
hook_timeout = "1s"
hook_failure = "warn"
"#;
    std::fs::write(scratch.path("backup.toml"), format!("{CONFIGURATION}{more}")).unwrap();
    let report = json(&scratch, 0, &["run", "warned"]);
    let component = &report["components"][0];
    assert_eq!(component["outcome"], "complete", "{report:#}");
    let warnings = component["warnings"].as_array().unwrap();
    assert!(warnings[0].as_str().unwrap().contains("`false` failed"), "{warnings:?}");
    assert!(warnings[1].as_str().unwrap().contains("did not end within 1 s"), "{warnings:?}");
    assert_eq!(std::fs::read_to_string(scratch.path("hooks")).unwrap(), "before\nafter\n");
    let told = with(&scratch, &["run", "warned"]).expect(0);
    assert!(told.err.contains("`false` failed"), "{told:#?}");
}
