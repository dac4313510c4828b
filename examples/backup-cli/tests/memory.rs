//! Peak memory: at most 256 MiB to create, restore and verify, to copy, to catch up and to heal, however much there is.
//!
//! With BACKUP_LONG the sizes are those that are promised, a stream of 20 GiB and a million files; without it the same
//! code runs over less.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Scratch, largest};

const PEAK_KIB_MAX: u64 = 256 * 1024;

fn long() -> bool {
    std::env::var_os("BACKUP_LONG").is_some()
}

/// Runs the program to its end and returns the most memory it ever had resident, in KiB. The system keeps that figure
/// itself; it is read until the process is gone.
fn peak_of(command: &mut Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Ok(text) = fs::read_to_string(&status)
            && let Some(line) = text.lines().find(|line| line.starts_with("VmHWM:"))
        {
            let figure = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok());
            peak = peak.max(figure.unwrap_or(0));
        }
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{command:?}: {status}");
            assert!(peak > 1000, "no figure was read for {command:?}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn check(what: &str, kib: u64) {
    println!("{what}: peak {} MiB", kib / 1024);
    assert!(kib <= PEAK_KIB_MAX, "{what} needed {} MiB", kib / 1024);
}

fn round(scratch: &Scratch, name: &str, create: &[&str]) {
    check(&format!("{name}: create"), peak_of(&mut scratch.command(create)));
    check(&format!("{name}: verify"), peak_of(&mut scratch.command(["verify", "--level", "content"])));
    check(
        &format!("{name}: restore"),
        peak_of(&mut scratch.command(["restore", "latest", "--to", &scratch.text("out")])),
    );
}

/// The same of what brings it to another repository, to another place, and back.
fn round_between(scratch: &Scratch, name: &str) {
    scratch.ok(["init", "--repo", "second"]);
    check(&format!("{name}: copy"), peak_of(&mut scratch.command(["copy", "--to", "second"])));
    fs::remove_dir_all(scratch.path("second")).unwrap();
    let sync = ["--place", "third", "places", "sync", "--create"];
    check(&format!("{name}: catching up"), peak_of(&mut scratch.command(sync)));
    for prefix in ["data", "meta"] {
        fs::remove_file(largest(&scratch.path("repository").join(prefix))).unwrap();
    }
    let heal = ["--place", "third", "repair", "packs", "--level", "structure"];
    check(&format!("{name}: healing"), peak_of(&mut scratch.command(heal)));
    scratch.ok(["verify"]);
}

/// What the machine has, as one archive; the second time with every byte shifted by one, so that it is new again.
#[test]
fn a_long_stream_needs_little_memory() {
    let scratch = Scratch::with_repository();
    let (bytes, trees) =
        if long() { (20_u64 << 30, "/usr /root /opt /var/lib") } else { (300 << 20, "/usr/lib") };
    let archive = format!("tar --one-file-system --sort=name -cf - {trees} 2>/dev/null");
    let script = format!(
        "{{ {archive}; for n in 1 2 3 4 5 6 7 8; do {archive} | tr \"\\000-\\377\" \"\\00$((n % 7 + 1))-\\377\\000-\\00$((n % 7))\"; done; }} \
         2>/dev/null | head -c {bytes}"
    );
    round(
        &scratch,
        &format!("{} MiB stream", bytes >> 20),
        &["create", "command", "--name", "stream", "--", "sh", "-c", &script],
    );
    let restored = fs::metadata(scratch.path("out/stream")).unwrap().len();
    assert_eq!(restored, bytes);
    round_between(&scratch, &format!("{} MiB stream", bytes >> 20));
}

#[test]
fn a_million_files_need_little_memory() {
    let scratch = Scratch::with_repository();
    let count = if long() { 1_000_000 } else { 30_000 };
    let tree = scratch.path("many");
    let text = fs::read(env!("CARGO_BIN_EXE_backup")).unwrap();
    make_files(&tree, count, &text);
    let many = scratch.text("many");
    round(&scratch, &format!("{count} files"), &["create", "files", &many]);
    // For as many files as here the stream says enough.
    if long() {
        round_between(&scratch, &format!("{count} files"));
    }
}

#[test]
fn a_directory_of_a_million_entries_needs_little_memory() {
    let scratch = Scratch::with_repository();
    let count = if long() { 1_000_000 } else { 30_000 };
    let tree = scratch.path("flat");
    fs::create_dir(&tree).unwrap();
    // Most of them empty: what counts are the names.
    for number in 0..count {
        let content = if number % 100 == 0 { number.to_string() } else { String::new() };
        fs::write(tree.join(format!("an entry with a name of some length {number:07}")), content).unwrap();
    }
    let flat = scratch.text("flat");
    round(&scratch, &format!("{count} entries of one directory"), &["create", "files", &flat]);
}

fn make_files(tree: &Path, count: usize, content: &[u8]) {
    for number in 0..count {
        let directory = tree.join(format!("{:03}/{:02}", number / 10_000, number / 100 % 100));
        if number % 100 == 0 {
            fs::create_dir_all(&directory).unwrap();
        }
        // Different lengths and places of real bytes: nearly every file is new content.
        let len = number * 7919 % 2048;
        let start = number * 104_729 % (content.len() - len);
        fs::write(directory.join(format!("file-{number:07}")), &content[start..start + len]).unwrap();
    }
}
