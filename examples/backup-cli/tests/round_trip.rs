//! Every command once, on real data, with the keys that `--json` promises.

mod common;

use common::{Scratch, largest, listing, pseudo_random};
use serde_json::Value;

fn has(document: &Value, keys: &[&str]) {
    for key in keys {
        assert!(document.get(key).is_some(), "`{key}` is missing in {document:#}");
    }
}

const CREATED: [&str; 8] = [
    "snapshot",
    "outcome",
    "entries",
    "bytes_read",
    "bytes_added",
    "bytes_stored",
    "duration_seconds",
    "skipped",
];

#[test]
fn what_was_backed_up_is_restored_as_it_was() {
    let scratch = Scratch::new();
    let created = scratch.json(0, ["init"]);
    has(&created, &["repository"]);
    let report = scratch
        .json(0, ["create", "files", "tree", "--tag", "env=test", "--label", "trees", "--host", "here"]);
    has(&report, &CREATED);
    assert_eq!(report["outcome"], "complete");
    assert!(report["entries"].as_u64().unwrap() >= 7, "{report:#}");
    assert_eq!(report["skipped"], serde_json::json!([]));

    let restored = scratch.json(0, ["restore", "latest", "--to", "restored", "--verify"]);
    has(&restored, &["entries_written", "bytes_written", "bytes_unchanged", "failed"]);
    assert_eq!(listing(&scratch.path("restored/tree")), listing(&scratch.path("tree")));

    // A second restore in place finds everything there.
    let again = scratch.json(0, ["restore", "latest", "--to", "restored"]);
    assert_eq!(again["bytes_written"], 0, "{again:#}");
    assert_eq!(again["bytes_unchanged"], report["bytes_logical"], "{again:#}");
}

#[test]
fn an_unchanged_tree_is_not_read_again() {
    let scratch = Scratch::with_repository();
    let first = scratch.json(0, ["create", "files", "tree"]);
    let second = scratch.json(0, ["create", "files", "tree"]);
    assert_eq!(second["parent"], first["snapshot"]);
    assert_eq!(second["bytes_read"], 0, "{second:#}");
    assert!(second["bytes_stored"].as_u64().unwrap() < 64 * 1024, "{second:#}");
}

#[test]
fn snapshots_are_listed_shown_and_looked_into() {
    let scratch = Scratch::with_repository();
    let id = scratch.json(0, ["create", "files", "tree", "--tag", "env=test"])["snapshot"]
        .as_str()
        .unwrap()
        .to_owned();
    let list = scratch.json(0, ["list"]);
    assert_eq!(list["snapshots"][0]["id"], id.as_str());
    assert_eq!(list["snapshots"][0]["tags"]["env"], "test");
    for snap in [id.as_str(), &id[..6], "latest"] {
        assert_eq!(scratch.json(0, ["show", snap])["snapshots"][0]["id"], id.as_str());
    }
    let entries = |document: &Value| -> Vec<String> {
        document["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let names = [
        "tree",
        "tree/a.txt",
        "tree/deep",
        "tree/deep/b.bin",
        "tree/deep/deeper",
        "tree/deep/deeper/c.txt",
        "tree/link",
    ];
    assert_eq!(entries(&scratch.json(0, ["ls", "latest"])), names);
    assert_eq!(entries(&scratch.json(0, ["ls", "latest", "tree/deep/deeper/"])), names[4..6]);
    let link = scratch.json(0, ["ls", "latest", "/tree/link"]);
    assert_eq!(
        (&link["entries"][0]["kind"], &link["entries"][0]["target"]),
        (&"symlink".into(), &"a.txt".into())
    );
    let found = scratch.json(0, ["find", "*.txt"]);
    assert_eq!(entries(&found), ["tree/a.txt", "tree/deep/deeper/c.txt"]);
    assert_eq!(found["entries"][0]["snapshot"], id.as_str());
    assert_eq!(entries(&scratch.json(0, ["find", "tree/*.txt", "--snapshot", "latest"])), ["tree/a.txt"]);
    let human = scratch.ok(["ls", "latest"]).out;
    assert!(human.contains("tree/link -> a.txt"), "{human}");
}

#[test]
fn cat_writes_exactly_the_content() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    let raw = scratch.ok(["cat", "latest", "tree/deep/b.bin"]).raw;
    assert!(raw == pseudo_random(300_000, 1));
    let document = scratch.json(0, ["cat", "latest", "tree/deep/b.bin", "--output", "copy"]);
    assert_eq!(document["bytes_written"], 300_000);
    assert!(std::fs::read(scratch.path("copy")).unwrap() == raw);
    // With --json, the content has no place on standard output.
    assert_eq!(scratch.json(2, ["cat", "latest", "tree/a.txt"])["error"]["kind"], "usage");
    scratch.run(["cat", "latest", "tree/none"]).expect(4);
    scratch.run(["cat", "latest", "tree/deep"]).expect(2);
}

#[test]
fn diff_names_every_change() {
    let scratch = Scratch::with_repository();
    let first = scratch.snapshot();
    std::fs::write(scratch.path("tree/a.txt"), "ALPHA, changed\n").unwrap();
    std::fs::write(scratch.path("tree/new"), "new").unwrap();
    std::fs::remove_file(scratch.path("tree/deep/b.bin")).unwrap();
    let second = scratch.snapshot();
    let diff = scratch.json(0, ["diff", &first, &second]);
    let changes: Vec<String> = diff["changes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|change| change["kind"] != "metadata")
        .map(|change| format!("{} {}", change["kind"].as_str().unwrap(), change["name"].as_str().unwrap()))
        .collect();
    assert_eq!(changes, ["modified tree/a.txt", "removed tree/deep/b.bin", "added tree/new"]);
    let human = scratch.ok(["diff", &first, &second]).out;
    assert!(
        human.contains("M tree/a.txt\n")
            && human.contains("- tree/deep/b.bin\n")
            && human.contains("+ tree/new\n")
    );
    assert_eq!(scratch.json(0, ["diff", &first, &first])["changes"], serde_json::json!([]));
}

#[test]
fn a_part_is_restored_alone() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    scratch.ok(["restore", "latest", "--to", "part", "--path", "tree/deep/deeper"]);
    let names: Vec<_> = listing(&scratch.path("part"))
        .iter()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["", "tree", "tree/deep", "tree/deep/deeper", "tree/deep/deeper/c.txt"]);
    scratch.ok(["restore", "latest", "--to", "globbed", "--path", "tree/**/*.bin", "--path", "/tree/link"]);
    assert!(
        scratch.path("globbed/tree/deep/b.bin").is_file() && scratch.path("globbed/tree/link").is_symlink()
    );
    assert!(!scratch.path("globbed/tree/a.txt").exists());
    scratch.run(["restore", "latest", "--to", "none", "--path", "nowhere"]).expect(4);
    assert!(!scratch.path("none").exists());
}

#[test]
fn existing_files_are_treated_as_asked() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    scratch.ok(["restore", "latest", "--to", "r"]);
    let file = scratch.path("r/tree/a.txt");
    std::fs::write(&file, "newer than the snapshot").unwrap();
    for kept in ["never", "if-newer"] {
        scratch.ok(["restore", "latest", "--to", "r", "--overwrite", kept]);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "newer than the snapshot", "{kept}");
    }
    for written in ["if-changed", "always"] {
        std::fs::write(&file, "newer than the snapshot").unwrap();
        scratch.ok(["restore", "latest", "--to", "r", "--overwrite", written]);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "alpha\n", "{written}");
    }
}

#[test]
fn delete_removes_what_is_not_in_restored_directories_and_nothing_else() {
    let scratch = Scratch::with_repository();
    scratch.ok(["create", "files", &scratch.text("tree/deep")]);
    let deep = format!("r/{}", scratch.name("tree/deep"));
    let above = format!("r/{}", scratch.name("tree"));
    scratch.ok(["restore", "latest", "--to", "r"]);
    std::fs::write(scratch.path(&format!("{deep}/extra")), "x").unwrap();
    std::fs::create_dir_all(scratch.path(&format!("{deep}/deeper/extra/tree"))).unwrap();
    // Beside what was backed up: the directories above it are in the snapshot, but not what else is in them.
    std::fs::write(scratch.path(&format!("{above}/beside")), "x").unwrap();
    std::fs::write(scratch.path("r/top"), "x").unwrap();

    let plan = scratch.json(0, ["restore", "latest", "--to", "r", "--delete", "--dry-run"]);
    let name = |text: &str| Value::from(format!("{}/{text}", scratch.name("tree/deep")));
    assert_eq!(plan["deleted"], Value::from(vec![name("deeper/extra"), name("extra")]));
    assert_eq!((&plan["entries_written"], &plan["bytes_written"]), (&0.into(), &0.into()), "{plan:#}");
    assert!(scratch.path(&format!("{deep}/extra")).exists());

    let done = scratch.json(0, ["restore", "latest", "--to", "r", "--delete"]);
    assert_eq!(done["deleted"], plan["deleted"]);
    assert!(scratch.path(&format!("{above}/beside")).exists() && scratch.path("r/top").exists());
    assert_eq!(listing(&scratch.path(&deep)), listing(&scratch.path("tree/deep")));
}

#[test]
fn a_dry_run_writes_nothing() {
    let scratch = Scratch::with_repository();
    let before = listing(&scratch.path("repository"));
    let report = scratch.json(0, ["create", "files", "tree", "--dry-run"]);
    assert_eq!(report["snapshot"], Value::Null);
    assert_eq!(listing(&scratch.path("repository")), before);
    scratch.snapshot();
    let plan = scratch.json(0, ["restore", "latest", "--to", "r", "--dry-run"]);
    assert_eq!(plan["entries_written"], 7, "{plan:#}");
    assert!(!scratch.path("r").exists());
}

#[test]
fn verify_finds_and_names_damage_at_every_level() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    for level in ["structure", "checksum", "content"] {
        let report = scratch.json(0, ["verify", "--level", level]);
        has(&report, &["damaged_objects", "damaged_entries", "checked"]);
        assert!(report["checked"]["objects"].as_u64().unwrap() > 0, "{report:#}");
    }
    scratch.ok(["verify", "--sample", "50%"]);
    // Without any key.
    let keyless =
        scratch.command(["verify", "--keyless", "--json"]).env_remove("BACKUP_KEY_FILE").output().unwrap();
    assert!(keyless.status.success());

    let pack = largest(&scratch.path("repository/data"));
    let mut bytes = std::fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    let key = pack.strip_prefix(scratch.path("repository")).unwrap().display().to_string();
    for arguments in
        [&["verify", "--level", "checksum"][..], &["verify", "--level", "content"], &["verify", "--keyless"]]
    {
        let report = scratch.json(3, arguments);
        let named = report["damaged_objects"]
            .as_array()
            .unwrap()
            .iter()
            .any(|object| object["object"] == key.as_str());
        assert!(named, "{arguments:?}: {report:#}");
    }
    let report = scratch.json(3, ["verify", "--level", "content"]);
    assert_eq!(report["damaged_entries"][0]["name"], "tree/deep/b.bin", "{report:#}");
    // Damage harms only the entry that needs it, which is named.
    let restored = scratch.json(3, ["restore", "latest", "--to", "r"]);
    assert_eq!(restored["failed"][0]["name"], "tree/deep/b.bin", "{restored:#}");
    assert_eq!(std::fs::read(scratch.path("r/tree/a.txt")).unwrap(), b"alpha\n");
}

#[test]
fn a_lost_index_is_rebuilt_from_the_packs() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    std::fs::remove_dir_all(scratch.path("repository/index")).unwrap();
    let plan = scratch.json(0, ["repair", "index", "--dry-run"]);
    has(&plan, &["rebuilt", "lost"]);
    assert!(plan["rebuilt"].as_u64().unwrap() > 0);
    scratch.ok(["restore", "latest", "--to", "without"]);
    scratch.ok(["repair", "index"]);
    assert_eq!(scratch.json(0, ["repair", "index", "--dry-run"])["rebuilt"], 0);
    scratch.ok(["verify", "--level", "content"]);
    scratch.ok(["restore", "latest", "--to", "with"]);
    for restored in ["without/tree", "with/tree"] {
        assert_eq!(listing(&scratch.path(restored)), listing(&scratch.path("tree")));
    }
}

#[test]
fn stats_count_what_is_there() {
    let scratch = Scratch::with_repository();
    let report = scratch.json(0, ["create", "files", "tree"]);
    let stats = scratch.json(0, ["stats"]);
    has(&stats, &["bytes_logical", "bytes_stored", "ratio"]);
    assert_eq!(stats["snapshots"], 1);
    assert_eq!(stats["bytes_logical"], report["bytes_logical"]);
    let on_disk = std::process::Command::new("find")
        .arg(scratch.path("repository"))
        .args(["-type", "f", "-printf", "%s\n"])
        .output()
        .unwrap();
    let sum: u64 =
        String::from_utf8(on_disk.stdout).unwrap().lines().map(|line| line.parse::<u64>().unwrap()).sum();
    assert_eq!(stats["bytes_stored"], sum);
    scratch.ok(["stats"]);
}

#[test]
fn what_cannot_be_read_is_named_and_makes_the_snapshot_partial() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let secret = scratch.path("tree/secret");
    std::fs::write(&secret, "x").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o000)).unwrap();
    common::run(&mut scratch.command_of_nobody(["init"])).expect(0);
    let ran = common::run(&mut scratch.command_of_nobody(["--json", "create", "files", "tree"])).expect(3);
    let report = ran.json();
    assert_eq!((&report["outcome"], &report["skipped_count"]), (&"partial".into(), &1.into()));
    assert_eq!(report["skipped"][0]["name"], "tree/secret");
    // Without --json it is named to whoever reads.
    let ran = common::run(&mut scratch.command_of_nobody(["create", "files", "tree"])).expect(3);
    assert!(ran.err.contains("skipped tree/secret: ") && ran.out.contains("PARTIAL: 1 item"), "{ran:?}");
    let restored = ["restore", "latest", "--to", "restored"];
    common::run(&mut scratch.command_of_nobody(restored)).expect(0);
    assert!(scratch.path("restored/tree/a.txt").exists() && !scratch.path("restored/tree/secret").exists());
}

#[test]
fn excludes_work_together() {
    let scratch = Scratch::with_repository();
    for (name, content) in [
        ("x.tmp", "x"),
        ("cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n"),
        ("cache/big", "x"),
        ("no/.nobackup", ""),
        ("no/file", "x"),
    ] {
        let path = scratch.path("tree").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::fs::write(scratch.path("excludes"), "# comment\ndeeper\n").unwrap();
    let arguments = [
        "create",
        "files",
        "tree",
        "--exclude",
        "*.tmp",
        "--exclude-file",
        "excludes",
        "--exclude-caches",
        "--exclude-if-present",
        ".nobackup",
        "--exclude-larger-than",
        "100KiB",
        "--one-file-system",
    ];
    scratch.ok(arguments);
    let names: Vec<String> = scratch.json(0, ["ls", "latest"])["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["name"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        "tree",
        "tree/a.txt",
        "tree/cache",
        "tree/cache/CACHEDIR.TAG",
        "tree/deep",
        "tree/link",
        "tree/no",
        "tree/no/.nobackup",
    ];
    assert_eq!(names, expected);
}

#[test]
fn passphrases_unlock_and_wrong_ones_do_not() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("password"), "correct horse\n").unwrap();
    std::fs::write(scratch.path("wrong"), "correct horse\n\n").unwrap();
    let with = |arguments: &[&str], set: &[(&str, &str)]| {
        let mut command = scratch.command(arguments);
        command.env_remove("BACKUP_KEY_FILE").envs(set.iter().copied());
        common::run(&mut command)
    };
    let file = scratch.text("password");
    with(
        &["init", "--recipient", &format!("key-file:{}", scratch.text("key"))],
        &[("BACKUP_PASSWORD_FILE", &file)],
    )
    .expect(0);
    // The one line ending of a file does not belong to the passphrase.
    with(&["list"], &[("BACKUP_PASSWORD", "correct horse")]).expect(0);
    with(&["list", "--password-file", "password"], &[]).expect(0);
    scratch.ok(["list"]);
    for wrong in [&[("BACKUP_PASSWORD", "wrong")][..], &[("BACKUP_PASSWORD_FILE", &*scratch.text("wrong"))]] {
        let ran = with(&["list"], wrong).expect(1);
        assert!(!ran.err.contains("correct horse"));
    }
    let none = with(&["list", "--json"], &[]).expect(1);
    assert_eq!(none.json()["error"]["kind"], "denied");
    assert!(none.err.contains("--password-file"), "{none:?}");
}

#[test]
fn recipients_are_listed_added_and_removed() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    std::fs::write(scratch.path("password"), "correct horse\n").unwrap();
    let before = scratch.json(0, ["key", "list"]);
    has(&before, &["recipients", "epoch"]);
    let first = before["recipients"][0]["id"].as_str().unwrap().to_owned();
    scratch.run(["key", "remove", &first[..8]]).expect(1);

    let added = scratch.json(0, ["key", "add", "passphrase:file:password", "--label", "on call"]);
    assert_eq!(added["recipients"].as_array().unwrap().len(), 2, "{added:#}");
    let second = |document: &Value| {
        let all = document["recipients"].as_array().unwrap();
        all.iter().find(|info| info["label"] == "on call").unwrap()["id"].as_str().unwrap().to_owned()
    };
    let second = second(&added);
    let by_password = |arguments: &[&str]| {
        let mut command = scratch.command(arguments);
        common::run(
            command.env_remove("BACKUP_KEY_FILE").env("BACKUP_PASSWORD_FILE", scratch.text("password")),
        )
    };
    by_password(&["verify"]).expect(0);

    // Whoever can open the repository can shut others out, and then is the last.
    by_password(&["key", "remove", &first]).expect(0);
    scratch.run(["list"]).expect(1);
    by_password(&["list"]).expect(0);
    assert!(by_password(&["key", "remove", &second]).expect(1).err.contains("add another"));
    by_password(&["key", "remove", "ffff"]).expect(4);
}

#[test]
fn a_repository_without_encryption_must_be_asked_for() {
    let scratch = Scratch::new();
    let run = |arguments: &[&str]| common::run(scratch.command(arguments).env_remove("BACKUP_KEY_FILE"));
    let refused = run(&["init"]).expect(2);
    assert!(refused.err.contains("--unencrypted") && refused.err.contains("--password-file"), "{refused:?}");
    assert!(!scratch.path("repository").exists());
    run(&["init", "--unencrypted"]).expect(0);
    run(&["create", "files", "tree"]).expect(0);
    run(&["restore", "latest", "--to", "r"]).expect(0);
    assert_eq!(listing(&scratch.path("r/tree")), listing(&scratch.path("tree")));
    assert_eq!(run(&["init", "--unencrypted", "--json"]).expect(1).json()["error"]["kind"], "already_exists");
    scratch.run(["init", "--unencrypted"]).expect(2);
}

#[test]
fn an_unencrypted_repository_in_the_place_of_an_encrypted_one_is_given_nothing() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    std::fs::remove_dir_all(scratch.path("repository")).unwrap();
    common::run(scratch.command(["init", "--unencrypted"]).env_remove("BACKUP_KEY_FILE")).expect(0);
    let before = listing(&scratch.path("repository"));
    for arguments in [&["create", "files", "tree"][..], &["list"], &["verify"]] {
        let refused = scratch.run(arguments).expect(1);
        assert!(refused.err.contains("not encrypted"), "{refused:?}");
    }
    assert_eq!(listing(&scratch.path("repository")), before);
}

#[test]
fn progress_is_shown_on_standard_error_only() {
    let scratch = Scratch::with_repository();
    let quiet = scratch.ok(["create", "files", "tree"]);
    assert_eq!(quiet.err, "");
    let plain = scratch.ok(["verify", "--level", "content", "--progress", "plain"]);
    assert!(!plain.err.is_empty());
    std::fs::write(scratch.path("tree/more"), pseudo_random(20_000_000, 7)).unwrap();
    let mut command = scratch.command(["create", "files", "tree", "--progress", "json", "--json"]);
    let ran = common::run(&mut command).expect(0);
    ran.json();
    let events: Vec<Value> = ran.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let progress = events.iter().rfind(|event| event["event"] == "progress").unwrap();
    has(progress, &["percent", "bytes_done", "bytes_per_second", "eta_seconds", "current"]);
}

#[test]
fn trap_17_a_damaged_snapshot_keeps_nobody_from_the_others() {
    let scratch = Scratch::with_repository();
    let (good, bad) = (scratch.snapshot(), scratch.snapshot());
    let object = scratch.path("repository").join("snapshots").join(&bad);
    let mut bytes = std::fs::read(&object).unwrap();
    std::fs::remove_file(&object).unwrap();
    bytes.pop();
    std::fs::write(&object, bytes).unwrap();

    // Whoever names an intact one is not concerned.
    for arguments in [
        vec!["restore", &good, "--to", "by id", "--verify"],
        vec!["ls", &good],
        vec!["show", &good],
        vec!["diff", &good, &good],
        vec!["find", "a.txt", "--snapshot", &good],
        vec!["cat", &good, "tree/a.txt"],
    ] {
        assert!(!scratch.ok(arguments).err.contains(&bad));
    }
    // Whoever asks for all, or for the latest, is told.
    let named = |report: Value| {
        assert!(report["damaged_objects"][0]["object"].as_str().unwrap().ends_with(&bad));
    };
    let listed = scratch.json(3, ["list"]);
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 1);
    named(listed);
    named(scratch.json(3, ["find", "a.txt"]));
    let restored = scratch.run(["restore", "latest", "--to", "latest"]);
    assert!(
        restored.code == 3 && restored.err.contains(&bad) && restored.err.contains(&good),
        "{restored:?}"
    );
    assert!(scratch.path("latest/tree/a.txt").exists());
    let shown = scratch.run(["show", &bad[..9]]);
    assert!(shown.code == 1 && shown.err.contains(&bad), "{shown:?}");
}

#[test]
fn verifying_a_restore_knows_every_kind_of_hard_link_and_names_of_any_length() {
    let scratch = Scratch::with_repository();
    let script = r#"
        ln -P link deep/again; mkfifo pipe; ln pipe deep/pipe; ln a.txt deep/text
        part=$(printf '%0200d' 0); for i in $(seq 30); do mkdir $part; cd $part; done
        echo content > file; ln file other; ln -s file link"#;
    let made =
        std::process::Command::new("bash").args(["-euc", script]).current_dir(scratch.path("tree")).status();
    assert!(made.unwrap().success());
    scratch.snapshot();
    for _ in 0..2 {
        scratch.ok(["restore", "latest", "--to", "out", "--verify"]);
    }
    let planned = scratch.json(0, ["restore", "latest", "--to", "out", "--dry-run"]);
    assert_eq!((&planned["entries_new"], &planned["entries_overwritten"]), (&0.into(), &0.into()));
    for name in ["again", "pipe", "text"] {
        let name = format!("tree/deep/{name}");
        scratch.ok(["restore", "latest", "--to", "alone", "--path", &name, "--verify"]);
    }
}

#[test]
fn a_view_that_cannot_be_taken_makes_no_snapshot_and_says_what_it_needs() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree").display().to_string();
    // No subvolume: nothing is read from the living files instead.
    let ran = scratch.run(["create", "files", &tree, "--view", &format!("btrfs:{tree}")]).expect(1);
    assert!(ran.err.contains("btrfs"), "{ran:?}");
    let ran = scratch.run(["create", "files", &tree, "--view", "ext4:/srv"]).expect(2);
    assert!(ran.err.contains("btrfs:DIRECTORY"), "{ran:?}");
    assert_eq!(scratch.json(0, ["list"])["snapshots"].as_array().unwrap().len(), 0);
}
