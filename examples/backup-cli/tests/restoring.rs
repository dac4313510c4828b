//! Restores over what stands there: what is damaged, what is killed, what goes on. A name means the old content or the new.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
#[path = "common/dump.rs"]
mod dump;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Scratch, largest, pseudo_random};
use serde_json::Value;

const PARTIAL: &str = ".backup-partial";

/// Every file and link below a directory, with the hash of its content.
fn digest(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if meta.is_symlink() {
            all.insert(name, format!("-> {}", path.read_link().unwrap().display()));
        } else {
            all.insert(name, blake3::hash(&fs::read(&path).unwrap()).to_hex().to_string());
        }
    }
    all
}

fn damage(pack: &Path) {
    let mut bytes = fs::read(pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(pack).unwrap();
    fs::write(pack, bytes).unwrap();
}

fn failed(report: &Value) -> Vec<&str> {
    let failed = report["failed"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    failed.iter().map(|item| item["name"].as_str().unwrap()).collect()
}

fn bytes(report: &Value, of: &str) -> u64 {
    report[of].as_u64().unwrap_or_else(|| panic!("{report:#}"))
}

/// A tree of files of every length, and where it stands.
fn make_tree(scratch: &Scratch, seed: u64) -> PathBuf {
    let tree = scratch.path("tree");
    for number in 0..300_u64 {
        let directory = tree.join(format!("small/{}", number % 11));
        fs::create_dir_all(&directory).unwrap();
        let len = usize::try_from(number * 37 % 6_000 + 1).unwrap();
        fs::write(directory.join(format!("file-{number}")), pseudo_random(len, seed + number)).unwrap();
    }
    for number in 0..3 {
        fs::write(tree.join(format!("long-{number}")), pseudo_random(14_000_000, seed + 1000 + number))
            .unwrap();
    }
    // Zeros at both ends and between, as holes.
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(40_000_000).unwrap();
    for at in [9_000_000, 20_000_001] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &pseudo_random(3_000_000, seed + at), at).unwrap();
    }
    tree
}

/// Puts something where a file is to be restored.
type Former<'a> = &'a dyn Fn(&Path);

#[test]
fn what_cannot_be_read_leaves_what_stood_there() {
    let scratch = Scratch::with_repository();
    // Long enough that much of it is written before the damage shows.
    fs::write(scratch.path("tree/long"), pseudo_random(30_000_000, 7)).unwrap();
    scratch.ok(["create", "files", "tree"]);
    damage(&largest(&scratch.path("repository/data")));
    let formers: [(&str, Former<'_>); 6] = [
        ("nothing", &|path| fs::remove_file(path).unwrap()),
        ("other bytes of the same length", &|path| {
            let mut content = pseudo_random(30_000_000, 7);
            content.iter_mut().step_by(1_000_000).for_each(|byte| *byte ^= 0xff);
            fs::write(path, content).unwrap();
        }),
        ("something short", &|path| fs::write(path, "short").unwrap()),
        ("something longer", &|path| fs::write(path, pseudo_random(31_000_000, 8)).unwrap()),
        ("a link", &|path| {
            fs::remove_file(path).unwrap();
            symlink("elsewhere", path).unwrap();
        }),
        ("another name of a file", &|path| {
            fs::remove_file(path).unwrap();
            fs::write(path.with_extension("other"), "two names").unwrap();
            fs::hard_link(path.with_extension("other"), path).unwrap();
        }),
    ];
    for (number, (what, former)) in formers.into_iter().enumerate() {
        for overwrite in ["always", "if-changed"] {
            let target = format!("out-{number}-{overwrite}");
            let path = scratch.path(&target).join("tree/long");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            former(&path);
            let before = digest(&scratch.path(&target));
            let report = scratch.json(3, ["restore", "latest", "--to", &target, "--overwrite", overwrite]);
            assert_eq!(failed(&report), ["tree/long"], "{what}: {report:#}");
            let mut after = digest(&scratch.path(&target));
            let others = ["tree/a.txt", "tree/deep/b.bin", "tree/deep/deeper/c.txt", "tree/link"];
            for name in others {
                assert!(after.remove(Path::new(name)).is_some(), "{what}: {name} is missing");
            }
            assert_eq!(after, before, "{what} {overwrite}");
            assert!(!scratch.path(&target).join(PARTIAL).exists(), "{what} {overwrite}");
        }
    }
}

#[test]
fn what_stands_there_already_is_not_fetched() {
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("tree/long"), pseudo_random(10_000_000, 7)).unwrap();
    scratch.ok(["create", "files", "tree"]);
    scratch.ok(["restore", "latest", "--to", "out"]);
    damage(&largest(&scratch.path("repository/data")));
    for overwrite in ["always", "if-changed"] {
        let report = scratch.json(0, ["restore", "latest", "--to", "out", "--overwrite", overwrite]);
        assert_eq!(bytes(&report, "bytes_written"), 0, "{report:#}");
        assert!(bytes(&report, "bytes_unchanged") > 10_000_000, "{report:#}");
    }
    // Where it is not there it is fetched after all.
    fs::write(scratch.path("out/tree/long"), pseudo_random(10_000_000, 8)).unwrap();
    let report = scratch.json(3, ["restore", "latest", "--to", "out"]);
    assert_eq!(failed(&report), ["tree/long"]);
}

#[test]
fn a_file_that_differs_in_part_is_made_anew_from_what_it_has() {
    let scratch = Scratch::with_repository();
    let tree = make_tree(&scratch, 1);
    scratch.ok(["create", "files", "tree"]);
    scratch.ok(["restore", "latest", "--to", "out"]);
    let before = digest(&tree);
    let long = scratch.path("out/tree/long-1");
    let inode = fs::metadata(&long).unwrap().ino();
    let file = fs::OpenOptions::new().write(true).open(&long).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"changed", 7_000_000).unwrap();
    // One that grew, one that was cut, and content where there was a hole.
    let append = |name: &str, more: &[u8]| {
        let path = scratch.path("out/tree").join(name);
        std::io::Write::write_all(&mut fs::OpenOptions::new().append(true).open(path).unwrap(), more)
            .unwrap();
    };
    append("long-0", b"and more");
    fs::OpenOptions::new()
        .write(true)
        .open(scratch.path("out/tree/long-2"))
        .unwrap()
        .set_len(5_000_000)
        .unwrap();
    let sparse = fs::OpenOptions::new().write(true).open(scratch.path("out/tree/sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"no hole", 30_000_000).unwrap();
    let report = scratch.json(0, ["restore", "latest", "--to", "out", "--verify"]);
    assert_eq!(digest(&scratch.path("out/tree")), before);
    assert!(bytes(&report, "bytes_written") < 25_000_000, "{report:#}");
    assert!(bytes(&report, "bytes_unchanged") > 50_000_000, "{report:#}");
    assert_ne!(fs::metadata(&long).unwrap().ino(), inode, "it was not written into");
    let blocks = |path: PathBuf| fs::metadata(path).unwrap().blocks();
    assert!(blocks(scratch.path("out/tree/sparse")) < blocks(tree.join("sparse")) + 100, "holes stay holes");
    assert!(!scratch.path("out").join(PARTIAL).exists());
}

fn start(scratch: &Scratch) -> Child {
    let command = scratch.command(["--json", "--jobs", "1", "restore", "latest", "--to", "out"]);
    let mut command = common::heeding_signals(&command);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The bytes that a file holds; what is allocated or left out holds nothing.
fn written(file: &Path) -> u64 {
    const STEP: u64 = 65_536;
    let Ok(file) = fs::File::open(file) else { return 0 };
    let len = file.metadata().map_or(0, |meta| meta.len());
    let is_written = |step: &u64| {
        let mut some = [0; 16];
        let read = std::os::unix::fs::FileExt::read_at(&file, &mut some, step * STEP);
        read.is_ok() && some != [0; 16]
    };
    (0..len / STEP).filter(is_written).count() as u64 * STEP
}

/// Starts a restore and waits until files that are under way hold some megabytes.
fn under_way(scratch: &Scratch) -> Child {
    let mut child = start(scratch);
    let began = Instant::now();
    loop {
        let held = fs::read_dir(scratch.path("out").join(PARTIAL))
            .map_or(0, |entries| entries.flatten().map(|entry| written(&entry.path())).max().unwrap_or(0));
        if held >= 24_000_000 {
            return child;
        }
        assert!(child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60), "{held}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn a_long_file_that_was_under_way_is_continued() {
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("tree/long"), pseudo_random(200_000_000, 3)).unwrap();
    scratch.ok(["create", "files", "tree"]);
    let before = digest(&scratch.path("tree"));
    for signal in [nix::sys::signal::Signal::SIGKILL, nix::sys::signal::Signal::SIGINT] {
        for former in [None, Some(pseudo_random(150_000_000, 4))] {
            let _ = fs::remove_dir_all(scratch.path("out"));
            if let Some(former) = &former {
                fs::create_dir_all(scratch.path("out/tree")).unwrap();
                fs::write(scratch.path("out/tree/long"), former).unwrap();
            }
            let mut child = under_way(&scratch);
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()), signal)
                .unwrap();
            assert!(!child.wait().unwrap().success());
            match &former {
                None => assert!(!scratch.path("out/tree/long").exists(), "{signal}: it is not whole"),
                Some(former) => {
                    assert!(fs::read(scratch.path("out/tree/long")).unwrap() == *former, "{signal}")
                }
            }
            let report = scratch.json(0, ["restore", "latest", "--to", "out", "--verify"]);
            let reused = bytes(&report, "bytes_unchanged");
            assert!(reused > 12_000_000, "{signal}, {}: {report:#}", former.is_some());
            assert_eq!(digest(&scratch.path("out/tree")), before);
            assert!(!scratch.path("out").join(PARTIAL).exists(), "{signal}");
        }
    }
}

#[test]
fn a_restore_killed_at_random_shows_the_old_or_the_new_and_its_work_is_reused() {
    let scratch = Scratch::with_repository();
    let tree = make_tree(&scratch, 5);
    scratch.ok(["create", "files", "tree"]);
    let new = digest(&tree);
    let began = Instant::now();
    scratch.ok(["--jobs", "1", "restore", "latest", "--to", "out"]);
    let mut usual = began.elapsed();
    let older = Scratch::new();
    make_tree(&older, 50_000);
    let old = digest(&older.path("tree"));
    let mut struck = 0;
    for round in 0..if std::env::var_os("BACKUP_LONG").is_some() { 60 } else { 6_u32 } {
        let _ = fs::remove_dir_all(scratch.path("out"));
        let in_place = round % 2 == 1;
        if in_place {
            fs::create_dir(scratch.path("out")).unwrap();
            common::odd::sh(&format!("cp -a {} out/", older.text("tree")), &scratch.path(""));
        }
        let mut reused = 0;
        let mut short = HashSet::new();
        for kill in 1..=4 {
            // An early kill may have left nothing at all.
            let was_empty =
                fs::read_dir(scratch.path("out")).map_or(true, |mut there| there.next().is_none());
            let mut child = start(&scratch);
            let began = Instant::now();
            std::thread::sleep(usual * ((round * 5 + kill * 7) % 19 + 1) / 24);
            child.kill().unwrap();
            if child.wait().unwrap().success() {
                // It took less than that: what the kills before left was enough, or the machine is faster now.
                usual = usual.min(began.elapsed()) * 2 / 3;
            } else {
                struck += 1;
            }
            if was_empty && !scratch.path("out").exists() {
                continue;
            }
            let whole = |name: &Path, hash: &String| new.get(name) == Some(hash);
            let mut bytes_whole = 0;
            for (name, hash) in digest(&scratch.path("out")) {
                let Ok(name) = name.strip_prefix("tree") else {
                    assert!(name.starts_with(PARTIAL), "{}", name.display());
                    continue;
                };
                let meta = fs::symlink_metadata(scratch.path("out/tree").join(name)).unwrap();
                if whole(name, &hash) {
                    bytes_whole += if meta.is_file() { meta.len() } else { 0 };
                } else if in_place {
                    assert_eq!(old.get(name), Some(&hash), "{} is a mix", name.display());
                } else {
                    // Only short ones in a target that was empty, and nobody takes them for whole; the next attempt may not
                    // have come to them.
                    if was_empty {
                        short.insert(name.to_path_buf());
                    }
                    let private = meta.len() < 8 << 20 && meta.mode() & 0o777 == 0o600;
                    assert!(private && short.contains(name), "kill {kill}: {}, {meta:?}", name.display());
                }
            }
            reused = bytes_whole;
        }
        let report = scratch.json(0, ["restore", "latest", "--to", "out", "--verify"]);
        assert_eq!(digest(&scratch.path("out/tree")), new, "round {round}");
        assert!(bytes(&report, "bytes_unchanged") >= reused, "{reused} bytes were there: {report:#}");
        assert!(!scratch.path("out").join(PARTIAL).exists());
    }
    assert!(struck >= 3, "most kills came too late: {struck}");
}

fn names(scratch: &Scratch, id: &str) -> Vec<String> {
    let listed = scratch.json(0, ["ls", id]);
    let entries = listed["entries"].as_array().unwrap_or_else(|| panic!("{listed:#}"));
    entries.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_restore_that_was_a_mistake_is_undone_by_its_safety_snapshot() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    fs::create_dir_all(tree.join("same/deep")).unwrap();
    fs::write(tree.join("same/deep/file"), "the same in both").unwrap();
    fs::write(tree.join("long"), pseudo_random(9_000_000, 1)).unwrap();
    for name in ["linked", "mode", "sneaky"] {
        fs::write(tree.join(name), name).unwrap();
    }
    fs::hard_link(tree.join("linked"), tree.join("linked again")).unwrap();
    symlink("a.txt", tree.join("pointer")).unwrap();
    let id = scratch.json(0, ["create", "files", "tree"])["snapshot"].as_str().unwrap().to_owned();
    common::odd::sh("cp -a tree original", &scratch.path(""));

    // A day's work, which a restore of the older state destroys.
    let script = "echo more >> deep/deeper/c.txt; chmod 640 mode; rm link; ln -s elsewhere link; \
                  echo other > linked; rm a.txt; mkdir a.txt; rm pointer; echo 'a file now' > pointer; \
                  mkdir -p added/with; echo x > added/with/file; ln added/with/file added/again; echo x > deep/added; \
                  touch -r sneaky stamp; printf SNEAKY > sneaky; touch -r stamp sneaky; rm stamp; rmdir a.txt; \
                  echo alpha2 > a.txt; setfattr -n user.note -v x deep/b.bin; touch -d 2001-01-01 deep/deeper .";
    common::odd::sh(script, &tree);
    let file = fs::OpenOptions::new().write(true).open(tree.join("long")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"changed", 5_000_000).unwrap();
    let before = dump::dump(&tree);

    let restored = scratch.json(0, ["restore", "latest", "--to", ".", "--delete", "--safety-snapshot"]);
    let safety = restored["safety_snapshot"].as_str().unwrap_or_else(|| panic!("{restored:#}")).to_owned();
    assert_eq!(dump::dump(&tree), dump::dump(&scratch.path("original")), "it is the older state");
    let expected = [
        "tree",
        "tree/a.txt",
        "tree/added",
        "tree/added/again",
        "tree/added/with",
        "tree/added/with/file",
        "tree/deep",
        "tree/deep/added",
        "tree/deep/b.bin",
        "tree/deep/deeper",
        "tree/deep/deeper/c.txt",
        "tree/link",
        "tree/linked",
        "tree/linked again",
        "tree/long",
        "tree/mode",
        "tree/pointer",
        "tree/sneaky",
    ];
    assert_eq!(
        names(&scratch, &safety),
        expected,
        "exactly what was replaced or deleted, and the directories above"
    );
    let shown = scratch.json(0, ["show", &safety]);
    assert!(shown.to_string().contains("\"safety\"") && shown.to_string().contains(&id), "{shown:#}");

    // What was saved is no later state: the latest is still what was backed up.
    let again = scratch.json(0, ["restore", "latest", "--to", ".", "--delete", "--safety-snapshot"]);
    assert_eq!(again["safety_snapshot"], Value::Null, "{again:#}");
    assert_eq!(scratch.json(0, ["list"])["snapshots"].as_array().unwrap().len(), 2);

    // Also with --delete the way back deletes nothing: it has only a part.
    let back = scratch.json(0, ["restore", &safety, "--to", ".", "--delete"]);
    assert_eq!((&back["failed"], &back["deleted"]), (&serde_json::json!([]), &serde_json::json!([])));
    assert_eq!(dump::dump(&tree), before);
}

#[test]
fn a_restore_whose_safety_snapshot_cannot_hold_everything_does_not_begin() {
    let scratch = Scratch::with_repository();
    scratch.ok(["create", "files", "tree"]);
    fs::write(scratch.path("tree/a.txt"), "mine").unwrap();
    common::odd::sh(
        "chmod -R a+rwX . && chmod 0 tree/a.txt && chown -R nobody tree 2>/dev/null || true",
        &scratch.path(""),
    );
    let arguments = ["restore", "latest", "--to", ".", "--safety-snapshot", "--no-cache"];
    let ran = common::run(&mut scratch.command_of_nobody(arguments));
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.err.contains("nothing was restored") && ran.err.contains("a.txt"), "{ran:#?}");
    common::odd::sh("chmod 600 tree/a.txt", &scratch.path(""));
    assert_eq!(fs::read_to_string(scratch.path("tree/a.txt")).unwrap(), "mine");
}
