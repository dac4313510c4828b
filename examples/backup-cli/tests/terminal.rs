//! On a terminal: the question before something is destroyed, and the line of progress.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Scratch, pseudo_random};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A person at a pseudo-terminal (pty(7)).
struct Person {
    screen: File,
    seen: std::sync::mpsc::Receiver<Vec<u8>>,
    text: String,
}

/// Starts the program with its input and its errors, and maybe its output, on a terminal.
fn sit_down(mut command: Command, draws: bool) -> (Person, std::process::Child) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    tcsetwinsize(&ours, Winsize { ws_row: 24, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let path = ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
    command.env("TERM", "xterm").stdin(theirs.try_clone().unwrap()).stdout(Stdio::piped());
    command.stderr(if draws { Stdio::from(OwnedFd::from(theirs)) } else { Stdio::piped() });
    let child = command.spawn().unwrap();
    // With the command go its ends of the terminal: what reads ours sees an end when the program has ended.
    drop(command);
    let screen = File::from(ours);
    let (send, seen) = std::sync::mpsc::channel();
    let mut read = screen.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = read.read(&mut buffer) {
            if send.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    (Person { screen, seen, text: String::new() }, child)
}

impl Person {
    /// Looks at the screen until `wanted` stands there.
    fn wait_for(&mut self, wanted: &str) {
        let until = Instant::now() + Duration::from_secs(60);
        while !self.text.contains(wanted) {
            let left = until.saturating_duration_since(Instant::now());
            match self.seen.recv_timeout(left) {
                Ok(bytes) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("`{wanted}` never came; the screen showed {:?}", self.text),
            }
        }
    }

    fn types(&mut self, line: &str) {
        self.screen.write_all(line.as_bytes()).unwrap();
    }

    /// All that the screen showed until the program ended.
    fn rest(mut self) -> String {
        while let Ok(bytes) = self.seen.recv_timeout(Duration::from_secs(60)) {
            self.text.push_str(&String::from_utf8_lossy(&bytes));
        }
        self.text
    }
}

/// A snapshot, and a target in which a file was changed and another added since.
fn changed() -> (Scratch, String) {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    scratch.ok(["restore", "latest", "--to", "target"]);
    let tree = "target/tree".to_owned();
    std::fs::write(scratch.path(&format!("{tree}/a.txt")), "changed").unwrap();
    std::fs::write(scratch.path(&format!("{tree}/extra")), "extra").unwrap();
    (scratch, tree)
}

#[test]
fn a_restore_that_destroys_shows_its_plan_and_asks() {
    let (scratch, tree) = changed();
    let at = |name: &str| scratch.path(&format!("{tree}/{name}"));
    let restore = ["restore", "latest", "--to", "target", "--delete"];
    for (answer, goes_on) in
        [("\n", false), ("n\n", false), ("yesterday\n", false), ("\u{4}", false), ("YES\n", true)]
    {
        let (mut person, mut child) = sit_down(scratch.command(restore), true);
        person.wait_for("Go on? [y/N] ");
        assert!(person.text.contains("1 overwritten") && person.text.contains("delete "), "{}", person.text);
        assert!(person.text.contains("tree/extra"), "{}", person.text);
        assert_eq!(
            std::fs::read_to_string(at("a.txt")).unwrap(),
            "changed",
            "nothing is done before the answer"
        );
        person.types(answer);
        let text = person.rest();
        assert_eq!(child.wait().unwrap().code(), Some(if goes_on { 0 } else { 1 }), "{answer:?}: {text}");
        assert_eq!(text.contains("nothing was done"), !goes_on, "{text}");
        assert_eq!(at("extra").exists(), !goes_on);
        let content = std::fs::read_to_string(at("a.txt")).unwrap();
        assert_eq!(content, if goes_on { "alpha\n" } else { "changed" });
    }
    // Where nothing is destroyed, nobody is asked.
    let (person, mut child) = sit_down(scratch.command(restore), true);
    let text = person.rest();
    assert!(child.wait().unwrap().success() && !text.contains("Go on?"), "{text}");
}

#[test]
fn nobody_is_asked_who_said_yes_or_does_not_see_the_question() {
    for (option, draws) in [("--yes", true), ("--no-confirm", true), ("--json", false)] {
        let (scratch, tree) = changed();
        let command = scratch.command([option, "restore", "latest", "--to", "target", "--delete"]);
        let (person, mut child) = sit_down(command, draws);
        let text = person.rest();
        assert!(child.wait().unwrap().success(), "{option}: {text}");
        assert!(!text.contains("Go on?"), "{text}");
        assert!(!scratch.path(&format!("{tree}/extra")).exists());
    }
}

#[test]
fn a_terminal_shows_progress_and_is_left_clean() {
    let scratch = Scratch::with_repository();
    // However fast they are read, no other name can be shown.
    std::fs::create_dir(scratch.path("films")).unwrap();
    for number in 0..40 {
        std::fs::write(scratch.path(&format!("films/large-{number}")), pseudo_random(1_000_000, number))
            .unwrap();
    }
    // Slow enough to be seen.
    let slow = ["create", "files", "films", "--limit-upload", "20MiB"];
    let (person, mut child) = sit_down(scratch.command(slow), true);
    let text = person.rest();
    assert!(child.wait().unwrap().success(), "{text}");
    // Phase, bytes, entries and what is being read.
    for wanted in ["read  ", "MiB", "entries", "large-", "/s"] {
        assert!(text.contains(wanted), "no `{wanted}` in {text:?}");
    }
    let last = text.rsplit(['\r', '\n']).next().unwrap();
    let drawn: String = last.replace("\u{1b}[2K", "").replace("\u{1b}[K", "");
    assert!(drawn.trim().is_empty(), "the line is taken away at the end: {last:?}");

    for quiet in [["--progress", "none"], ["--progress", "plain"]] {
        let mut command = scratch.command(quiet);
        command.args(["create", "files", "films"]);
        let (person, mut child) = sit_down(command, true);
        let text = person.rest();
        assert!(child.wait().unwrap().success());
        assert!(!text.contains('\u{1b}'), "nothing is drawn: {text:?}");
    }
}
