//! How mounts end, and how they fail to begin.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::common::{Scratch, run};
use crate::mounted::{Mounted, fusermount, is_mounted};

#[test]
fn signals_unmount_and_end_with_success() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut mounted = Mounted::start(&scratch, &[]);
        assert!(is_mounted(&scratch.path("mnt")));
        mounted.signal(signal);
        assert_eq!(mounted.ended().code(), Some(0), "{}", mounted.errors());
        assert!(!is_mounted(&scratch.path("mnt")), "{signal:?}");
    }
}

#[test]
fn a_mount_in_use_ends_with_a_signal_all_the_same() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    let mut mounted = Mounted::start(&scratch, &[]);
    let inside = mounted.path("latest").join("tree");
    let mut user = Command::new("sleep").arg("600").current_dir(&inside).spawn().unwrap();
    let file = fs::File::open(inside.join("a.txt")).unwrap();
    mounted.signal(Signal::TERM);
    assert_eq!(mounted.ended().code(), Some(0), "{}", mounted.errors());
    assert!(!is_mounted(&scratch.path("mnt")));
    drop(file);
    user.kill().unwrap();
    user.wait().unwrap();
}

#[test]
fn a_killed_process_leaves_a_dead_mount_that_says_what_to_do() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    let mut mounted = Mounted::start(&scratch, &[]);
    mounted.signal(Signal::KILL);
    mounted.ended();
    let directory = scratch.path("mnt");
    assert!(is_mounted(&directory));
    let ran = run(scratch.command(["mount"]).arg(&directory)).expect(2);
    assert!(ran.err.contains("fusermount3 -u"), "{ran:?}");
    assert!(fusermount(&directory, &["-u"]));
    assert!(!is_mounted(&directory));
    Mounted::start(&scratch, &[]).unmount(0);
}

#[test]
fn what_cannot_be_mounted_says_why_and_leaves_nothing() {
    let scratch = Scratch::with_repository();
    scratch.ok(["mount", "--help"]);
    run(&mut scratch.command(["mount"])).expect(2);
    let ran = run(scratch.command(["mount"]).arg(scratch.path("nowhere"))).expect(2);
    assert!(ran.err.contains("nowhere"), "{ran:?}");
    let ran = run(scratch.command(["mount"]).arg(scratch.path("key"))).expect(2);
    assert!(ran.err.contains("no directory"), "{ran:?}");
    fs::create_dir(scratch.path("mnt")).unwrap();
    let mut command = scratch.command(["mount"]);
    run(command.arg(scratch.path("mnt")).env("BACKUP_REPO", scratch.path("none"))).expect(1);
    assert!(!is_mounted(&scratch.path("mnt")));
    // An empty repository can be looked at, too.
    let mounted = Mounted::start(&scratch, &[]);
    assert_eq!(fs::read_dir(mounted.path("snapshots")).unwrap().count(), 0);
    mounted.unmount(0);
}
