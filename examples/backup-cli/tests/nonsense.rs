//! Every option and file given nonsense: a clear message, the right exit code, no panic.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use common::{Ran, Scratch, bare, run};
use rustix::process::Signal;

/// Runs and checks what holds for every failure: the code, a message on standard error, no panic; the same with
/// `--json`, where standard output is one document with the error.
#[track_caller]
fn refused(scratch: &Scratch, code: i32, arguments: &[&str], message: &str) {
    let ran = scratch.run(arguments).expect(code);
    assert!(!ran.err.trim().is_empty(), "{arguments:?} says nothing");
    assert!(ran.err.contains(message), "{arguments:?} does not say `{message}`: {}", ran.err);
    // Options after `--` would belong to a command that is run.
    let json: Vec<&str> = ["--json"].into_iter().chain(arguments.iter().copied()).collect();
    let ran = scratch.run(&json).expect(code);
    let document = ran.json();
    assert!(!document["error"]["kind"].as_str().unwrap().is_empty(), "{ran:?}");
    assert!(!document["error"]["message"].as_str().unwrap().is_empty(), "{ran:?}");
}

#[test]
fn options_with_values_that_make_no_sense_are_wrong_usage() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    let files: &[&str] = &["create", "files", "tree"];
    let restore: &[&str] = &["restore", "latest", "--to", "r"];
    for (command, options, message) in [
        (&["list"][..], &["--progress", "loud"][..], "possible values: auto, plain, json, none"),
        (&["list"], &["--jobs", "0"], "1..=256"),
        (&["list"], &["--jobs", "many"], "invalid digit"),
        (&["list"], &["--jobs", "-1"], ""),
        (&["list"], &["--memory-mib", "1"], "48..="),
        (&["list"], &["--memory-mib", "99999999999999999999"], ""),
        (&["list"], &["--limit-upload", "fast"], "`fast` is not a size"),
        (&["list"], &["--limit-upload", "0"], "a rate of 0"),
        (&["list"], &["--limit-download", "-5"], ""),
        (&["list"], &["--cache-dir", "x", "--no-cache"], "cannot be used with"),
        (&["list"], &["--tag", "env"], "write it as key=value"),
        (&["list"], &["--tag", "=x"], "write it as key=value"),
        (&["list"], &["--before", "yesterday"], "`yesterday` is not a time"),
        (&["list"], &["--policy", "p"], "--config"),
        (&["list"], &["--unknown"], "unexpected argument"),
        (&["list"], &["--repo"], "a value is required"),
        (files, &["--exclude", "["], "`[`"),
        (files, &["--exclude-file", "no/such/file"], "no/such/file"),
        (files, &["--exclude-file", "tree"], "tree"),
        (files, &["--exclude-if-present", "a/b"], "a/b"),
        (files, &["--exclude-if-present", ""], ""),
        (files, &["--exclude-larger-than", "huge"], "`huge` is not a size"),
        (files, &["--tag", "x"], "key=value"),
        (&["create", "files"], &[], "PATH"),
        (&["create", "tables"], &[], "unrecognized subcommand"),
        (&["key"], &[], "list"),
        (&["key", "add"], &[], "RECIPIENT"),
        (&["key", "remove"], &[], "ID"),
        (restore, &["--overwrite", "sometimes"], "if-changed"),
        (restore, &["--path", "["], "is not a glob"),
        (restore, &["--path", ""], "is not a glob"),
        (restore, &["--verify", "--overwrite", "never"], "--verify"),
        (&["restore", "latest"], &[], "--to"),
        (&["restore", "latest", "--to", "key"], &[], "is not a directory"),
        (&["restore", "nonsense", "--to", "r"], &[], "is not a snapshot"),
        (&["ls", "latest", "a/../b"], &[], "relative component"),
        (&["ls", "no-hex"], &[], "is not a snapshot"),
        (&["show", "\u{1b}[31m"], &[], "is not a snapshot"),
        (&["cat", "latest", "tree"], &["--output", "new"], "has no content"),
        (&["find", "{"], &[], "is not a glob"),
        (&["diff", "latest"], &[], "<B>"),
        (&["verify"], &["--level", "deep"], "structure, checksum, content"),
        (&["verify"], &["--sample", "0%"], "part of a hundred"),
        (&["verify"], &["--sample", "1000%"], "part of a hundred"),
        (&["verify"], &["--keyless", "--level", "content"], "without a key"),
        (&["repair", "everything"], &[], "unrecognized subcommand"),
        (&["run"], &[], "--config"),
        (&["check", "job"], &[], "--config"),
        (&["dance"], &[], "unrecognized subcommand"),
        (&[], &[], ""),
    ] {
        let arguments: Vec<&str> = command.iter().chain(options).copied().collect();
        refused(&scratch, 2, &arguments, message);
    }
}

#[test]
fn init_refuses_what_it_cannot_make() {
    let scratch = Scratch::new();
    for (options, message) in [
        (&["--chunk", "1,2"][..], "three"),
        (&["--chunk", "big"], "`big` is not a size"),
        (&["--chunk", "1,512KiB,2MiB"], "minimum"),
        (&["--chunk", "128KiB,500KiB,2MiB"], "power of two"),
        (&["--chunk", "128KiB,512KiB,1GiB"], "maximum"),
        (&["--recipient", "hunter2"], "passphrase:env:NAME"),
        (&["--recipient", "passphrase:hunter2"], "env:NAME"),
        (&["--recipient", "key-file:key", "--unencrypted"], "cannot be used with"),
        (&["--unencrypted"], "--unencrypted"),
    ] {
        let arguments: Vec<&str> = ["init"].iter().chain(options).copied().collect();
        refused(&scratch, 2, &arguments, message);
        assert!(!scratch.run(&arguments).err.contains("hunter2"));
    }
    refused(&scratch, 1, &["init", "--recipient", "key-file:none"], "none");
    refused(&scratch, 1, &["init", "--recipient", "passphrase:env:NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE");
    refused(&scratch, 1, &["init", "--recipient", "passphrase:command:false"], "failed");
    assert!(!scratch.path("repository/config").exists());
    scratch.ok(["init"]);
    let before = common::listing(&scratch.path("repository"));
    refused(&scratch, 1, &["init"], "already");
    assert_eq!(common::listing(&scratch.path("repository")), before);
}

#[test]
fn keys_that_are_none_are_refused_by_name_and_not_repeated() {
    let scratch = Scratch::with_repository();
    std::fs::write(scratch.path("empty"), "").unwrap();
    std::fs::write(scratch.path("newline"), "\n").unwrap();
    std::fs::write(scratch.path("short"), "aHVudGVyMg==\n").unwrap();
    std::fs::write(scratch.path("text"), "hunter2 is no key\n").unwrap();
    std::fs::write(scratch.path("other"), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    std::fs::write(scratch.path("binary"), [0xff; 5000]).unwrap();
    let expect = |option: &str, file: &str, code: i32| -> Ran {
        let mut command = scratch.command(["list", option, file]);
        if option == "--password-file" {
            command.env_remove("BACKUP_KEY_FILE");
        }
        let ran = run(&mut command).expect(code);
        assert!(
            !ran.err.trim().is_empty() && !ran.err.contains("hunter2") && !ran.err.contains("aHVud"),
            "{ran:?}"
        );
        ran
    };
    for file in ["empty", "newline", "short", "text", "binary"] {
        assert!(expect("--key-file", file, 2).err.contains(file));
    }
    assert!(expect("--key-file", "none", 1).err.contains("none"));
    assert!(expect("--key-file", "tree", 1).err.contains("tree"));
    expect("--key-file", "/dev/zero", 1);
    expect("--key-file", "other", 1);
    for file in ["empty", "newline"] {
        assert!(expect("--password-file", file, 2).err.contains(file));
    }
    expect("--password-file", "none", 1);
    expect("--password-file", "tree", 1);
    expect("--password-file", "/dev/zero", 1);
    expect("--password-file", "text", 1);
    let empty =
        run(scratch.command(["list"]).env_remove("BACKUP_KEY_FILE").env("BACKUP_PASSWORD", "")).expect(2);
    assert!(empty.err.contains("BACKUP_PASSWORD"));
}

#[test]
fn places_that_hold_no_repository_are_refused() {
    let scratch = Scratch::with_repository();
    for (repo, code, message) in [
        ("none", 1, "backup init"),
        ("tree", 1, "backup init"),
        ("key", 2, "key"),
        ("", 2, "BACKUP_REPO"),
        ("ftp://host/path", 2, "`file`"),
        ("s3://", 2, "s3://bucket/prefix"),
        ("s3://key:secret@bucket/prefix", 2, "credentials and options do not belong there"),
        ("gs://bucket/../prefix", 2, "components"),
        ("az:///prefix", 2, "az://bucket"),
        ("file://relative", 2, "three slashes"),
        ("file:///%zz", 2, "three slashes"),
    ] {
        refused(&scratch, code, &["--repo", repo, "list"], message);
    }
    // Without any.
    let ran = run(&mut bare(["list"])).expect(2);
    assert!(ran.err.contains("--repo"), "{ran:?}");
    // What is not UTF-8 cannot be a URL.
    let bytes = std::os::unix::ffi::OsStringExt::from_vec(b"/tmp/\xff".to_vec());
    let ran = run(bare(["list", "--repo"]).arg(std::ffi::OsString::clone(&bytes))).expect(2);
    assert!(!ran.err.is_empty());
}

#[test]
fn damaged_objects_are_named_and_never_a_panic() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    let config = scratch.path("repository/config");
    let good = std::fs::read(&config).unwrap();
    for bad in
        [&b""[..], b"nonsense", &good[..good.len() / 2], &[good.as_slice(), b"x"].concat(), &flipped(&good)]
    {
        std::fs::remove_file(&config).unwrap();
        std::fs::write(&config, bad).unwrap();
        let ran = scratch.run(["list"]).expect(1);
        assert!(ran.err.contains("config"), "{ran:?}");
    }
    std::fs::remove_file(&config).unwrap();
    std::fs::create_dir(&config).unwrap();
    let ran = scratch.run(["list"]);
    assert!(ran.code == 1 && !ran.err.contains("panicked"), "{ran:?}");
    std::fs::remove_dir(&config).unwrap();
    std::fs::write(&config, &good).unwrap();
    scratch.ok(["list"]);

    let snapshot =
        std::fs::read_dir(scratch.path("repository/snapshots")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&snapshot).unwrap();
    std::fs::write(&snapshot, "nonsense").unwrap();
    let name = snapshot.file_name().unwrap().to_str().unwrap();
    let ran = scratch.run(["list"]).expect(3);
    assert!(ran.err.contains(name), "{ran:?}");
    let report = scratch.json(3, ["verify"]);
    assert!(report["damaged_objects"].to_string().contains(name), "{report:#}");
}

#[test]
fn nothing_that_matches_is_its_own_exit_code() {
    let scratch = Scratch::with_repository();
    refused(&scratch, 4, &["show", "latest"], "no snapshots yet");
    assert_eq!(scratch.json(0, ["list"])["snapshots"], serde_json::json!([]));
    refused(&scratch, 4, &["create", "files", "no/such/path"], "does not exist");
    scratch.snapshot();
    refused(&scratch, 4, &["ls", "latest", "tree/none"], "not in snapshot");
    refused(&scratch, 4, &["cat", "latest", "tree/none", "--output", "new"], "not in the snapshot");
    refused(&scratch, 4, &["show", "0123456789abcdef"], "no snapshot");
    refused(&scratch, 4, &["show", "latest", "--host", "elsewhere"], "filters");
    assert_eq!(scratch.json(4, ["list", "--host", "elsewhere"])["snapshots"], serde_json::json!([]));
    assert_eq!(scratch.json(4, ["find", "nothing*"])["entries"], serde_json::json!([]));
    scratch.run(["find", "nothing*"]).expect(4);
    refused(&scratch, 4, &["demo", "no/such/path"], "does not exist");
}

#[test]
fn configurations_with_faults_are_wrong_usage_and_say_where() {
    let scratch = Scratch::new();
    let good = "[places.p]\nurl='repository'\n[repositories.r]\nplace='p'\n[sources.s]\nkind='files'\npaths=['tree']\n\
        [jobs.j]\nsource='s'\nrepository='r'\n";
    let parts = |text: &str| format!("{good}{text}");
    for (text, message) in [
        ("nonsense".to_owned(), "faulty.toml:1:"),
        ("[jobs".to_owned(), "faulty.toml:1:"),
        ("[job.x]\nsource='s'".to_owned(), "`jobs`"),
        (parts("[jobs.x]\nsource='s'\nrepository='r'\nretention='p'"), "jobs.x.retention: unknown field"),
        (parts("[jobs.x]\nsource='s'"), "jobs.x: missing field `repository`"),
        (parts("[jobs.x]\nsource='none'\nrepository='r'"), "`none` is not in `sources`"),
        (parts("[jobs.x]\nsource='s'\nrepository='r'\nbefore=['systemctl stop x']"), "jobs.x.before[0]"),
        (parts("[jobs.x]\nsource='s'\nrepository='r'\nhook_timeout='soon'"), "jobs.x.hook_timeout"),
        (parts("[keys.k]\nkind='passphrase'\nsecret='hunter2'"), "keys.k.secret"),
        (parts("[sets.all]\ncomponents=[{job='none'}]"), "`none` is not in `jobs`"),
        (parts("[sets.j]\ncomponents=[{job='j'}]"), "ambiguous"),
        (parts("[places.q]\npath='/x'"), "places.q"),
    ] {
        std::fs::write(scratch.path("faulty.toml"), &text).unwrap();
        refused(&scratch, 2, &["--config", "faulty.toml", "list"], message);
        assert!(!scratch.run(["--config", "faulty.toml", "list"]).err.contains("hunter2"));
    }
    std::fs::write(scratch.path("faulty.toml"), [0xff, 0x00]).unwrap();
    refused(&scratch, 2, &["--config", "faulty.toml", "list"], "not UTF-8");
    refused(&scratch, 2, &["--config", "none.toml", "list"], "none.toml");
    refused(&scratch, 2, &["--config", "tree", "list"], "tree");
    refused(&scratch, 2, &["--config", "/dev/zero", "list"], "longer than");

    // Kinds are known only when something is made of them.
    for (text, code, message) in [
        (good.replace("kind='files'", "kind='tables'"), 1, "known are"),
        (good.replace("paths=['tree']", "path=['tree']"), 1, "unknown field `path`"),
        (good.replace("paths=['tree']", "paths=['none']"), 1, "none"),
        (good.replace("url='repository'", "kind='cloud'"), 1, "known are `azure`, `gcs`, `local`, `s3`"),
        (good.replace("url='repository'", "kind='local'"), 1, "`path`"),
    ] {
        std::fs::write(scratch.path("faulty.toml"), &text).unwrap();
        let ran = run(bare(["--config", "faulty.toml", "check"]).current_dir(scratch.path(""))).expect(code);
        assert!(ran.out.contains(message), "{text}: {ran:?}");
    }
    std::fs::write(scratch.path("faulty.toml"), good).unwrap();
    refused(&scratch, 2, &["--config", "faulty.toml", "run", "x"], "no job or set `x`");
    refused(&scratch, 2, &["--config", "faulty.toml", "run", "j", "--skip", "j"], "no set");
    refused(&scratch, 2, &["--config", "faulty.toml", "check", "x"], "no job or set `x`");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    for arguments in [
        &["ls", "latest"][..],
        &["ls", "latest", "--json"],
        &["cat", "latest", "tree/deep/b.bin"],
        &["--help"],
    ] {
        let mut child = scratch
            .command(arguments)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code().is_some_and(|code| code < 5) && !err.contains("panicked"),
            "{arguments:?}: {err}"
        );
    }
    let full = scratch
        .command(["ls", "latest"])
        .stdout(std::fs::File::create("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(full.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&full.stderr).contains("standard output"));
}

#[test]
fn ctrl_c_sigterm_and_sighup_end_a_job_in_good_order() {
    let scratch = Scratch::with_repository();
    std::fs::write(scratch.path("tree/big"), common::pseudo_random(64 << 20, 3)).unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let model = scratch.command(["create", "files", "tree", "--limit-upload", "1MiB", "--json"]);
        let child = common::heeding_signals(&model)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        wait_for_handlers(&child, &[Signal::INT, Signal::TERM, Signal::HUP]);
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        let started = std::time::Instant::now();
        let output = child.wait_with_output().unwrap();
        // Without the signal it takes a minute.
        assert!(started.elapsed() < std::time::Duration::from_secs(30), "{:?}", started.elapsed());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["error"]["kind"], "cancelled", "{document:#}");
        assert_eq!(scratch.json(0, ["list"])["snapshots"], serde_json::json!([]));
    }
    scratch.ok(["create", "files", "tree"]);
    scratch.ok(["verify", "--level", "content"]);
}

#[test]
fn damaged_snapshots_are_stored_again_without_what_is_lost() {
    let scratch = Scratch::with_repository();
    std::fs::write(scratch.path("tree/big"), common::pseudo_random(300_000, 4)).unwrap();
    let original = scratch.snapshot();
    assert_eq!(scratch.json(0, ["repair", "snapshots"])["rebuilt"], 0);
    let below = |path: &std::path::Path| std::fs::read_dir(path).unwrap().next().unwrap().unwrap().path();
    let pack = below(&below(&scratch.path("repository/data")));
    let damaged = flipped(&std::fs::read(&pack).unwrap());
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, damaged).unwrap();
    let planned = scratch.json(3, ["repair", "snapshots", "--dry-run"]);
    assert_eq!(scratch.json(0, ["list"])["snapshots"].as_array().unwrap().len(), 1);
    let done = scratch.json(3, ["repair", "snapshots"]);
    assert_eq!((&done["rebuilt"], &done["lost"]), (&planned["rebuilt"], &planned["lost"]));
    let lost = done["lost"].to_string();
    assert!(done["rebuilt"] == 1 && lost.contains("tree/big") && lost.contains(&original), "{done:#}");
    let repaired = &done["snapshots"][0];
    assert_eq!(repaired["original"], *original);
    scratch.ok(["restore", repaired["repaired"].as_str().unwrap(), "--to", "target"]);
    assert_eq!(std::fs::read_to_string(scratch.path("target/tree/a.txt")).unwrap(), "alpha\n");
    assert!(!scratch.path("target/tree/big").exists());
    // What was stored again is not stored a third time.
    assert!(scratch.ok(["repair", "snapshots"]).out.contains("0 snapshots"));
}

/// Waits until the program heeds these signals itself: proc_pid_status(5), `SigCgt`.
fn wait_for_handlers(child: &std::process::Child, signals: &[Signal]) {
    let wanted = signals.iter().fold(0_u64, |bits, signal| bits | (1 << (signal.as_raw() - 1)));
    for _ in 0..6000 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        if u64::from_str_radix(caught.trim(), 16).unwrap() & wanted == wanted {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the program installs no handlers for signals");
}

#[test]
fn a_hangup_that_was_to_be_ignored_is() {
    let scratch = Scratch::with_repository();
    let program = scratch.command([""]).get_program().to_owned();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(program);
    command.args(["create", "command", "--name", "x", "--", "sh", "-c", "sleep 2; echo done"]);
    command.current_dir(scratch.path("")).env("BACKUP_REPO", scratch.path("repository"));
    let child = command.env("BACKUP_KEY_FILE", scratch.path("key")).spawn().unwrap();
    // Not SIGINT: who runs these tests in the background may have it ignored.
    wait_for_handlers(&child, &[Signal::TERM]);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}
