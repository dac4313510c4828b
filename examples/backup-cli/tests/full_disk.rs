//! A store on a full disk, for every size of the disk in steps of 4 KiB: earlier snapshots stay, the error is clear,
//! failing again and again takes no more room, and once there is room the run succeeds. And a restore onto a full disk, and what
//! brings something from one repository to another.
//!
//! The disk is a small tmpfs in a mount namespace of the test's own, so nothing of it outlives the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::{Ran, Scratch, largest, listing, pseudo_random};

const STEP_KIB: u64 = 4;
/// Every so many steps, what there is is restored and compared as well.
const RESTORE_EVERY: usize = 8;
/// More than anything here needs.
const PLENTY_KIB: u64 = 8 * 1024;

/// Runs this very test again in a namespace in which it may mount; true there.
fn may_mount(test: &str) -> bool {
    const MARK: &str = "BACKUP_TEST_IN_NAMESPACE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut refusals = Vec::new();
    // As root, and as somebody who is root in a user namespace only.
    for flags in [&["--mount"][..], &["--map-root-user", "--mount"]] {
        let tried = Command::new("unshare")
            .args(flags)
            .args(["mount", "-t", "tmpfs", "-o", "size=64k", "none"])
            .arg(scratch.path())
            .output()
            .unwrap_or_else(|e| panic!("unshare must be installed (apt-get install util-linux): {e}"));
        if !tried.status.success() {
            refusals.push(format!("{flags:?}: {}", String::from_utf8_lossy(&tried.stderr).trim()));
            continue;
        }
        let ran = Command::new("unshare")
            .args(flags)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(MARK, "1")
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&ran.stdout);
        println!("{out}");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        assert!(out.contains("1 passed"), "the test did not run in its namespace");
        return false;
    }
    panic!(
        "this test must be allowed to mount a tmpfs, as root or in a user namespace of its own: {refusals:#?}"
    );
}

/// A tmpfs.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn new(at: PathBuf, kib: u64) -> Self {
        fs::create_dir(&at).unwrap();
        let disk = Self { at };
        disk.mount(&format!("size={kib}k,mode=755"));
        disk
    }

    fn resize(&self, kib: u64) {
        self.mount(&format!("remount,size={kib}k"));
    }

    fn used_kib(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.at).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize / 1024
    }

    fn mount(&self, options: &str) {
        let mount = ["-t", "tmpfs", "-o", options, "none"];
        let done = Command::new("mount").args(mount).arg(&self.at).output().unwrap();
        assert!(done.status.success(), "{options}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// The program with its repository on the small disk.
struct Small {
    scratch: Scratch,
    disk: Disk,
}

impl Small {
    fn new() -> Self {
        let scratch = Scratch::new();
        let disk = Disk::new(scratch.path("disk"), STEP_KIB);
        Self { scratch, disk }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.scratch.command(["--json"]);
        common::run(command.args(arguments).env("BACKUP_REPO", self.repository()))
    }

    fn repository(&self) -> PathBuf {
        self.disk.at.join("repository")
    }

    /// Runs what may find the disk full, four times if it does. Whether it succeeded.
    fn fits(&self, arguments: &[&str]) -> bool {
        let (mut left, mut grown): (Option<(u64, usize)>, _) = (None, 0);
        for _ in 0..4 {
            let ran = self.run(arguments);
            if ran.code == 0 {
                return true;
            }
            let report = ran.expect(1).json();
            // What brings something to several places says of each how it went.
            let message = match report["places"].as_array() {
                Some(places) => places.iter().find_map(|place| place["error"].as_str()),
                None => {
                    assert_eq!(report["error"]["kind"], "no_space", "{report:#}");
                    report["error"]["message"].as_str()
                }
            };
            assert!(message.is_some_and(|text| text.contains("No space left on device")), "{report:#}");
            // A put that was under way when the run failed may leave its temporary file to whoever opens the store next.
            self.run(&["list"]);
            // A failure may take room only for what the next run builds upon.
            let now = (self.disk.used_kib(), self.objects_beside_sessions());
            if let Some(before) = left.filter(|before| now.0 > before.0 && now.1 <= before.1) {
                // Once, the registration of a run that found what came too late to count for the one before.
                grown += now.0 - before.0;
                assert!(grown <= STEP_KIB, "{arguments:?}: from {before:?} to {now:?}");
            }
            left = Some(now);
        }
        let temporary = fs::read_dir(self.repository().join(".tmp")).map_or(0, Iterator::count);
        assert_eq!(temporary, 0, "temporary files stay behind");
        false
    }

    fn objects_beside_sessions(&self) -> usize {
        let below = ["config", "keys", "data", "meta", "index", "snapshots"];
        below.iter().map(|name| count_files(&self.repository().join(name))).sum()
    }

    /// For each size of the disk, from what `prepared` takes to what `arguments` need: from the repository as it was
    /// prepared, they fail, `failed` judges, and once there is room they succeed, which `done` judges. How many sizes
    /// were too small.
    fn every_size(
        &self,
        prepared: &Path,
        arguments: &[&str],
        mut failed: impl FnMut(usize),
        mut done: impl FnMut(usize),
    ) -> usize {
        self.reset(prepared);
        let least = self.disk.used_kib().max(STEP_KIB);
        for step in 0.. {
            self.reset(prepared);
            self.disk.resize(least + step as u64 * STEP_KIB);
            if self.fits(arguments) {
                done(step);
                return step;
            }
            failed(step);
            self.disk.resize(PLENTY_KIB);
            assert!(self.fits(arguments), "there is room");
            done(step);
        }
        unreachable!("some size is enough")
    }

    /// Puts the repository back as it was prepared.
    fn reset(&self, prepared: &Path) {
        self.disk.resize(PLENTY_KIB);
        let _ = fs::remove_dir_all(self.repository());
        if prepared.exists() {
            copy(prepared, &self.repository());
        }
    }

    /// A repository beside the disk with two snapshots; their trees.
    fn source(&self) -> [Vec<String>; 2] {
        let tree = self.scratch.path("tree");
        fs::write(tree.join("deep/b.bin"), pseudo_random(20_000, 1)).unwrap();
        self.scratch.ok(["init"]);
        self.scratch.snapshot();
        let earlier = listing(&tree);
        fs::write(tree.join("new"), pseudo_random(40_000, 2)).unwrap();
        fs::create_dir(tree.join("more")).unwrap();
        self.disk.resize(PLENTY_KIB);
        [earlier, listing(&tree)]
    }

    /// Runs `arguments` for each size of the disk, on which the earlier snapshot is and stays.
    fn every_size_from(&self, source: &Source, arguments: &[&str]) {
        let began = Instant::now();
        let [earlier, now] = &source.trees;
        let failed = |step| {
            if !source.is_hurt {
                self.assert_clean();
                assert_eq!(self.snapshots().len(), 1);
                if step % RESTORE_EVERY == 0 {
                    self.assert_restores("latest", earlier);
                }
            }
            // And nothing is taken from where it comes from.
            self.scratch.ok(["verify", "--level", "content"]);
        };
        let done = |step| {
            self.assert_clean();
            let [first, last] = &*self.snapshots() else { panic!("there must be two snapshots") };
            if step % RESTORE_EVERY == 0 {
                self.assert_restores(first, earlier);
                self.assert_restores(last, now);
            }
        };
        let prepared = self.scratch.path("prepared");
        copy(&self.repository(), &prepared);
        let sizes = self.every_size(&prepared, arguments, failed, done);
        println!("{sizes} sizes were too small for {arguments:?}, in {:?}", began.elapsed());
        assert!(sizes > 5, "{sizes}");
    }

    /// The snapshots on the disk, by age.
    fn snapshots(&self) -> Vec<String> {
        let list = self.run(&["list"]).expect(0).json();
        let id = |info: &serde_json::Value| info["id"].as_str().unwrap().to_owned();
        list["snapshots"].as_array().unwrap().iter().map(id).collect()
    }

    fn assert_clean(&self) {
        self.run(&["verify", "--level", "content"]).expect(0);
    }

    fn assert_restores(&self, snapshot: &str, expected: &[String]) {
        let to = self.scratch.path("restored");
        self.run(&["restore", snapshot, "--to", to.to_str().unwrap()]).expect(0);
        assert!(listing(&to.join("tree")) == expected, "{snapshot} is restored differently");
        fs::remove_dir_all(to).unwrap();
    }
}

/// What is brought to the disk.
struct Source {
    /// What its two snapshots must restore to.
    trees: [Vec<String>; 2],
    /// Whether it is on the disk already, and some of it is damaged there.
    is_hurt: bool,
}

#[test]
fn a_store_on_a_full_disk_keeps_what_it_has_says_so_and_goes_on_once_there_is_room() {
    if !may_mount("a_store_on_a_full_disk_keeps_what_it_has_says_so_and_goes_on_once_there_is_room") {
        return;
    }
    let began = Instant::now();
    let small = Small::new();
    let tree = small.scratch.path("tree");
    fs::write(tree.join("deep/b.bin"), pseudo_random(20_000, 1)).unwrap();
    let nothing = small.scratch.path("nothing");
    let init = small.every_size(&nothing, &["init"], |_| {}, |_| {});
    let initialised = small.scratch.path("initialised");
    copy(&small.repository(), &initialised);

    let create = ["create", "files", "tree"];
    let first = small.every_size(&initialised, &create, |_| small.assert_clean(), |_| small.assert_clean());
    let earlier = listing(&tree);
    small.assert_restores("latest", &earlier);
    let id = small.run(&["list"]).expect(0).json()["snapshots"][0]["id"].as_str().unwrap().to_owned();
    let prepared = small.scratch.path("prepared");
    copy(&small.repository(), &prepared);

    fs::write(tree.join("new"), pseudo_random(250_000, 2)).unwrap();
    fs::create_dir(tree.join("more")).unwrap();
    for number in 0..20 {
        fs::write(tree.join(format!("more/{number}")), pseudo_random(2_000, 100 + number)).unwrap();
    }
    let now = listing(&tree);
    let failed = |step| {
        small.assert_clean();
        let listed = small.run(&["list"]).expect(0).json();
        assert_eq!(listed["snapshots"].as_array().unwrap().len(), 1, "{listed:#}");
        assert_eq!(listed["snapshots"][0]["id"], id.as_str());
        if step % RESTORE_EVERY == 0 {
            small.assert_restores(&id, &earlier);
        }
    };
    let done = |step| {
        small.assert_clean();
        if step % RESTORE_EVERY == 0 {
            small.assert_restores(&id, &earlier);
            small.assert_restores("latest", &now);
        }
    };
    let second = small.every_size(&prepared, &create, failed, done);
    println!(
        "{init} sizes were too small for init, {first} for a first snapshot, {second} for a second, in {:?}",
        began.elapsed()
    );
    assert!(init > 0 && first > 5 && second > 60);

    // Without a fresh start: whoever makes room of 64 KiB a time gets there, as failures take none of it.
    small.reset(&prepared);
    let least = small.disk.used_kib();
    let mut kib = least;
    loop {
        small.disk.resize(kib);
        if small.fits(&create) {
            break;
        }
        kib += 64;
    }
    let needed = least + second as u64 * STEP_KIB;
    println!("{needed} KiB are needed, and {kib} where room is made bit by bit");
    assert!(kib <= needed + 2 * 64);
    small.assert_clean();
    small.assert_restores(&id, &earlier);
    small.assert_restores("latest", &now);
}

#[test]
fn a_restore_onto_a_full_disk_names_the_file_and_goes_on_once_there_is_room() {
    if !may_mount("a_restore_onto_a_full_disk_names_the_file_and_goes_on_once_there_is_room") {
        return;
    }
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    let disk = Disk::new(scratch.path("disk"), 120);
    let restore = ["restore", "latest", "--to", "disk"];
    let mut command = scratch.command(["--json"]);
    let ran = common::run(command.args(restore));
    assert!(ran.code == 1 || ran.code == 3, "{ran:#?}");
    assert!(ran.out.contains("tree/deep/b.bin") && ran.out.contains("No space left on device"), "{ran:#?}");
    // For people, too.
    let ran = scratch.run(restore);
    assert!(ran.err.contains("tree/deep/b.bin") && ran.err.contains("No space left on device"), "{ran:#?}");
    disk.resize(PLENTY_KIB);
    scratch.ok(restore);
    assert_eq!(listing(&disk.at.join("tree")), listing(&scratch.path("tree")));
}

#[test]
fn a_copy_onto_a_full_disk_says_so_and_goes_on_once_there_is_room() {
    if !may_mount("a_copy_onto_a_full_disk_says_so_and_goes_on_once_there_is_room") {
        return;
    }
    let small = Small::new();
    let trees = small.source();
    small.run(&["init", "--chunk", "4KiB,16KiB,64KiB"]).expect(0);
    let from = small.scratch.text("repository");
    let to = small.repository().display().to_string();
    let arguments = ["--repo", &from, "copy", "--to", &to];
    small.run(&arguments).expect(0);
    small.scratch.snapshot();
    small.every_size_from(&Source { trees, is_hurt: false }, &arguments);
}

#[test]
fn a_place_on_a_full_disk_says_so_and_is_caught_up_once_there_is_room() {
    if !may_mount("a_place_on_a_full_disk_says_so_and_is_caught_up_once_there_is_room") {
        return;
    }
    let small = Small::new();
    let trees = small.source();
    let from = small.scratch.text("repository");
    let to = small.repository().display().to_string();
    let arguments = ["--repo", &from, "--place", &to, "places", "sync"];
    small.run(&[&arguments[..], &["--create"]].concat()).expect(0);
    small.scratch.snapshot();
    small.every_size_from(&Source { trees, is_hurt: false }, &arguments);
}

#[test]
fn a_place_on_a_full_disk_says_so_and_is_healed_once_there_is_room() {
    if !may_mount("a_place_on_a_full_disk_says_so_and_is_healed_once_there_is_room") {
        return;
    }
    let small = Small::new();
    let trees = small.source();
    small.scratch.snapshot();
    let from = small.scratch.text("repository");
    let to = small.repository().display().to_string();
    small.run(&["--repo", &from, "--place", &to, "places", "sync", "--create"]).expect(0);
    // One pack is gone, and another one is damaged.
    fs::remove_file(largest(&small.repository().join("data"))).unwrap();
    let damaged = largest(&small.repository().join("meta"));
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[0] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    small.every_size_from(&Source { trees, is_hurt: true }, &["--place", &from, "repair", "packs"]);
}

fn count_files(path: &Path) -> usize {
    match fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| count_files(&entry.unwrap().path())).sum(),
        Err(_) => usize::from(path.exists()),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
