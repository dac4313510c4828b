//! How mounts end, and how they fail to begin.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Signal;

use crate::common::{Scratch, run};
use crate::mounted::{Mounted, NOBODY, fusermount, is_mounted};

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

#[test]
fn a_user_mounts_without_privileges_and_nobody_else_gets_in() {
    let scratch = Scratch::new();
    for arguments in [&["init"][..], &["create", "files", "tree"]] {
        run(&mut scratch.command_of_nobody(arguments)).expect(0);
    }
    let mut mounted = Mounted::start_as_nobody(&scratch, "theirs");
    let file = mounted.path("latest").join("tree/a.txt");
    let root = rustix::process::geteuid().is_root();
    let mut cat = Command::new("cat");
    cat.arg(&file);
    if root {
        cat.uid(NOBODY).gid(NOBODY);
        // Without `--allow-other` the kernel lets in who mounted and nobody else, root neither.
        assert_eq!(fs::read(&file).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    }
    let read = cat.output().unwrap();
    assert_eq!((read.status.success(), &read.stdout[..]), (true, &b"alpha\n"[..]), "{read:?}");
    mounted.signal(Signal::TERM);
    assert_eq!(mounted.ended().code(), Some(0), "{}", mounted.errors());
    assert!(!is_mounted(&scratch.path("theirs")), "{}", mounted.errors());
}

#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_does_not_keep_the_mount_from_ending() {
    use crate::common::{heeding_signals, pseudo_random};
    use crate::stores::{BUCKET, server::Server};

    let server = Server::moto().await;
    let scratch = Scratch::new();
    fs::write(scratch.path("tree/big"), pseudo_random(8_000_000, 4)).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = scratch.command(arguments);
        command.env("BACKUP_REPO", format!("s3://{BUCKET}/far")).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_ENDPOINT_URL", format!("http://{}", server.address)).env("AWS_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        command
    };
    for arguments in [&["init"][..], &["create", "files", "tree"]] {
        run(&mut command(arguments)).expect(0);
    }
    let mut mount = command(&["--json", "mount"]);
    mount.arg(scratch.path("mnt"));
    let mut mounted = Mounted::start_by(heeding_signals(&mount), &scratch, "mnt");
    let big = mounted.path("latest").join("tree/big");
    let size = fs::metadata(&big).unwrap().len();
    assert_eq!(size, 8_000_000);
    server.pause();
    let reader = std::thread::spawn(move || fs::read(big));
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(!reader.is_finished(), "the server is not paused");
    mounted.signal(Signal::TERM);
    assert_eq!(mounted.ended().code(), Some(0), "{}", mounted.errors());
    assert!(!is_mounted(&scratch.path("mnt")));
    let error = reader.join().unwrap().unwrap_err();
    println!("the read that hung: {error}");
    server.resume();
}
