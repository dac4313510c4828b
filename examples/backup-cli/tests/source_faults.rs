//! Sources that fail: at every system call that looks at a tree, the call fails with an input/output error or is
//! refused, or the file shrinks, grows or vanishes at that very moment. What cannot be read is named and makes the
//! snapshot partial (exit code 3); everything else is restored byte for byte; nothing is ever silently incomplete.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
// System calls are told apart by their registers.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;
#[path = "common/trace.rs"]
mod trace;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use common::{Scratch, pseudo_random};
use nix::libc;
use serde_json::Value;
use trace::{Call, Then, Traced};

/// What is at each name: kind and mode, attributes, and of what is no directory time and content or target.
type State = BTreeMap<PathBuf, One>;
type One = (u32, Vec<u8>, Option<(i64, i64, Vec<u8>)>);

/// A disturbance of a file.
type Disturb = fn(&Path);

#[derive(Debug, Default)]
struct Count {
    points: usize,
    partial: usize,
    harmless: usize,
    refused: usize,
    by_call: BTreeMap<&'static str, (usize, usize)>,
}

struct Faults {
    scratch: Scratch,
    pristine: State,
    runs: usize,
}

impl Faults {
    fn new() -> Self {
        let scratch = Scratch::with_repository();
        let at = |name: &str| scratch.path("tree").join(name);
        fs::write(at("m-long"), pseudo_random(2_500_000, 7)).unwrap();
        fs::write(at("deep/tiny"), "tiny").unwrap();
        fs::write(at("empty"), "").unwrap();
        fs::create_dir(at("deep/empty directory")).unwrap();
        fs::hard_link(at("a.txt"), at("z-again")).unwrap();
        symlink("b.bin", at("deep/link")).unwrap();
        let sparse = fs::File::create(at("sparse")).unwrap();
        sparse.set_len(400_000).unwrap();
        sparse.write_all_at(b"an island", 200_000).unwrap();
        xattr::set(at("deep/b.bin"), "user.comment", b"an attribute").unwrap();
        xattr::set(at("deep"), "user.of-directory", b"another").unwrap();
        // What was written a moment ago would be looked at twice.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let pristine = state(&scratch.path("tree"));
        fs::create_dir(scratch.path("pristine")).unwrap();
        common::odd::sh("cp -a tree pristine/", &scratch.path(""));
        Self { scratch, pristine, runs: 0 }
    }

    /// One backup of `path`, of a series of its own so that everything is read, with `decide` asked at each call that
    /// concerns the tree.
    fn create(&mut self, path: &str, mut decide: impl FnMut(&Call) -> Then) -> Traced {
        self.runs += 1;
        let label = format!("run-{}", self.runs);
        let tree = self.scratch.path("tree");
        let command = self.scratch.command(["--json", "create", "files", path, "--label", &label]);
        trace::run(&command, &self.scratch.path(""), |call| {
            if call.path.starts_with(&tree) { decide(call) } else { Then::Go }
        })
    }

    /// Every call of a backup of `path`: its name, its file, and how many such calls there were before it. Threads take
    /// turns as they like, so that the mere number of a call would not say which it is.
    fn points(&mut self, path: &str) -> Vec<(&'static str, PathBuf, usize)> {
        let mut points = Vec::new();
        let traced = self.create(path, |call| {
            let same = |point: &&(&str, PathBuf, usize)| point.0 == call.name && point.1 == call.path;
            let before = points.iter().filter(same).count();
            points.push((call.name, call.path.clone(), before));
            Then::Go
        });
        assert_eq!(traced.code, Some(0), "{traced:#?}");
        points
    }

    /// Runs one backup with `strike` at a call; the call, if it happened.
    fn strike(
        &mut self,
        path: &str,
        point: &(&'static str, PathBuf, usize),
        mut strike: impl FnMut(&Call) -> Then,
    ) -> (Traced, Option<Call>) {
        let mut before = 0;
        let mut struck = None;
        let traced = self.create(path, |call| {
            if struck.is_some() || call.name != point.0 || call.path != point.1 {
                return Then::Go;
            }
            before += 1;
            if before <= point.2 {
                return Then::Go;
            }
            struck = Some(call.clone());
            strike(call)
        });
        (traced, struck)
    }

    /// Holds what was stored against the tree before and after the fault. Returns whether something is named.
    fn judge(&self, what: &str, traced: &Traced, call: &Call, count: &mut Count) {
        let after = state(&self.scratch.path("tree"));
        count.points += 1;
        let by_call = count.by_call.entry(call.name).or_default();
        assert!(!traced.err.contains("panicked"), "{what}: {traced:#?}");
        let report: Value = serde_json::from_str(&traced.out).unwrap_or_else(|e| panic!("{what}: {e}"));
        if traced.code == Some(1) || traced.code == Some(2) {
            // The path that was asked for is not to be had at all: that is an error and no snapshot.
            assert_eq!(call.path, self.scratch.path("tree"), "{what}: {traced:#?}");
            assert!(report["error"]["message"].as_str().unwrap().contains("tree"), "{what}: {report:#}");
            count.refused += 1;
            return;
        }
        let skipped = report["skipped"].as_array().unwrap();
        let named: Vec<&str> = skipped.iter().map(|item| item["name"].as_str().unwrap()).collect();
        if named.is_empty() {
            assert_eq!(traced.code, Some(0), "{what}: {traced:#?}");
            assert_eq!(report["outcome"], "complete", "{what}");
            count.harmless += 1;
            by_call.1 += 1;
        } else {
            assert_eq!(traced.code, Some(3), "{what}: {traced:#?}");
            assert_eq!(report["outcome"], "partial", "{what}");
            count.partial += 1;
            by_call.0 += 1;
        }
        // Only what the call concerned is named: the file itself, or the directory whose content is missing.
        let concerned = call.path.strip_prefix(self.scratch.path("")).unwrap();
        for name in &named {
            assert_eq!(Path::new(name), concerned, "{what}: {report:#}");
        }
        let id = report["snapshot"].as_str().unwrap();
        let to = self.scratch.path("restored");
        self.scratch.json(0, ["restore", id, "--to", to.to_str().unwrap()]);
        let found = state(&to.join("tree"));
        fs::remove_dir_all(&to).unwrap();
        for (name, before) in &self.pristine {
            let full = Path::new("tree").join(name);
            let is_named = named.iter().any(|named| full.starts_with(named));
            match found.get(name) {
                // What is named may be missing, or lack attributes that could not be read; it never has other content.
                None => assert!(
                    is_named || (full == concerned && !after.contains_key(name)),
                    "{what}: {} is missing and not named",
                    name.display()
                ),
                Some(found) if is_named => assert!(
                    // But what changed while it was read is stored as it was read.
                    contents(found) == contents(before) || after.get(name) != Some(before),
                    "{what}: {} is wrong",
                    name.display()
                ),
                // What changed before it was opened is whole as it is now, under the time that was seen first.
                Some(found) => assert!(
                    found == before
                        || (full == concerned
                            && after.get(name).is_some_and(|now| contents(now) == contents(found))),
                    "{what}: {} differs and is not named",
                    name.display()
                ),
            }
        }
        assert!(found.keys().all(|name| self.pristine.contains_key(name)), "{what}: {:?}", found.keys());
    }

    /// Puts the file back as it was.
    fn heal(&self, path: &Path) {
        let name = path.strip_prefix(self.scratch.path("")).unwrap().to_str().unwrap().to_owned();
        common::odd::sh(&format!("rm -f '{name}'; cp -a 'pristine/{name}' '{name}'"), &self.scratch.path(""));
    }
}

/// Strikes every call in turn by failing it.
fn every_call_fails(error: i32) -> Count {
    let mut faults = Faults::new();
    let mut count = Count::default();
    for point in faults.points("tree") {
        let (traced, call) = faults.strike("tree", &point, |_| Then::Fail(error));
        let call = call.unwrap_or_else(|| panic!("{point:?} did not happen again: {traced:#?}"));
        let what = format!("error {error} at {point:?}");
        faults.judge(&what, &traced, &call, &mut count);
    }
    assert!(count.partial > 20, "{count:?}");
    for needed in
        ["openat2", "pread64", "newfstatat", "getdents64", "readlinkat", "llistxattr", "statx", "ioctl"]
    {
        assert!(count.by_call.contains_key(needed), "no {needed} in {count:?}: is the tracing blind?");
    }
    count
}

/// Disturbs the file of every call in turn, at that call.
fn every_file_is(disturb: Disturb) -> Count {
    let mut faults = Faults::new();
    let mut count = Count::default();
    for point in faults.points("tree") {
        // Not what has two names: the other name would change, too.
        if !point.1.symlink_metadata().is_ok_and(|there| there.is_file() && there.nlink() == 1) {
            continue;
        }
        let (traced, call) = faults.strike("tree", &point, |call| {
            disturb(&call.path);
            Then::Go
        });
        let call = call.unwrap_or_else(|| panic!("{point:?} did not happen again: {traced:#?}"));
        faults.judge(&format!("disturbed at {point:?}"), &traced, &call, &mut count);
        faults.heal(&call.path);
    }
    assert!(count.points > 20 && count.partial > 0, "{count:?}");
    count
}

#[test]
fn what_stands_above_a_path_fails_and_is_named_as_well() {
    let mut faults = Faults::new();
    let tree = faults.scratch.path("tree");
    xattr::set(&tree, "user.above", b"an attribute").unwrap();
    let (mut named, mut harmless) = (0, 0);
    for point in faults.points("tree/deep/deeper") {
        if point.1 != tree && point.1 != tree.join("deep") {
            continue;
        }
        let (traced, _) = faults.strike("tree/deep/deeper", &point, |_| Then::Fail(libc::EIO));
        let report: Value = serde_json::from_str(&traced.out).unwrap();
        match traced.code {
            Some(3) => {
                let name = point.1.strip_prefix(faults.scratch.path("")).unwrap().to_str().unwrap();
                let skipped = report["skipped"][0]["name"].as_str().unwrap();
                assert!(Path::new(skipped).starts_with(name), "{point:?}: {report:#}");
                named += 1;
            }
            Some(0) => {
                let to = faults.scratch.path("restored");
                let id = report["snapshot"].as_str().unwrap();
                faults.scratch.json(0, ["restore", id, "--to", to.to_str().unwrap()]);
                let attribute = xattr::get(to.join("tree"), "user.above").unwrap();
                assert_eq!(attribute.as_deref(), Some(&b"an attribute"[..]), "{point:?}: silently lost");
                assert!(
                    xattr::get(to.join("tree/deep"), "user.of-directory").unwrap().is_some(),
                    "{point:?}"
                );
                fs::remove_dir_all(&to).unwrap();
                harmless += 1;
            }
            // The path itself cannot be reached.
            _ => assert!(traced.code == Some(1) || traced.code == Some(2), "{point:?}: {traced:#?}"),
        }
    }
    println!("{named} named, {harmless} harmless");
    assert!(named > 2, "{named}");
}

#[test]
fn an_input_output_error_at_any_call_is_named() {
    println!("{:?}", every_call_fails(libc::EIO));
}

#[test]
fn a_refusal_at_any_call_is_named() {
    println!("{:?}", every_call_fails(libc::EACCES));
}

#[test]
fn a_file_that_shrinks_at_any_call_is_never_stored_cut_short() {
    println!(
        "{:?}",
        every_file_is(|path| {
            let len = path.metadata().unwrap().len();
            fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len / 2).unwrap();
        })
    );
}

#[test]
fn a_file_that_grows_at_any_call_is_whole_or_named() {
    println!(
        "{:?}",
        every_file_is(|path| {
            let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(&[b'x'; 5000]).unwrap();
        })
    );
}

#[test]
fn a_file_that_vanishes_at_any_call_is_whole_or_named() {
    println!("{:?}", every_file_is(|path| fs::remove_file(path).unwrap()));
}

fn contents(state: &One) -> Option<&[u8]> {
    state.2.as_ref().map(|(_, _, content)| content.as_slice())
}

fn state(root: &Path) -> State {
    let mut all = State::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(path) = open.pop() {
        let Ok(there) = path.symlink_metadata() else { continue };
        let name = path.strip_prefix(root).unwrap().to_path_buf();
        let mut attributes = Vec::new();
        for attribute in xattr::list(&path).unwrap() {
            attributes.extend_from_slice(attribute.as_encoded_bytes());
            attributes.extend(xattr::get(&path, &attribute).unwrap().unwrap_or_default());
        }
        if there.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            all.insert(name, (there.mode(), attributes, None));
            continue;
        }
        let content = if there.is_symlink() {
            path.read_link().unwrap().into_os_string().into_encoded_bytes()
        } else {
            blake3::hash(&fs::read(&path).unwrap()).as_bytes().to_vec()
        };
        all.insert(name, (there.mode(), attributes, Some((there.mtime(), there.mtime_nsec(), content))));
    }
    all
}
