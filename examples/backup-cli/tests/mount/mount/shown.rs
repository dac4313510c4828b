//! What is shown: every oddity of a tree, all snapshots by every name, directories from any offset on.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, RawDir, SeekFrom};

use crate::common::Scratch;
use crate::common::odd::{add_oddities, differences, is_root, make_tree, sh};
use crate::dump::{Unlocked, dump};
use crate::mounted::{Mounted, names};

#[test]
fn a_tree_of_every_oddity_is_shown_as_it_is() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("odd");
    let _unlocked = Unlocked(scratch.path(""));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    add_oddities(&tree);
    scratch.ok(["create", "files", "odd"]);
    let mounted = Mounted::start(&scratch, &[]);
    let copy = mounted.path("latest").join("odd");
    assert_eq!(differences(&tree, &copy), "");
    let (mut before, mut after) = (dump(&tree), dump(&copy));
    for dumped in before.values_mut().chain(after.values_mut()) {
        // What FUSE cannot show: inode flags, and where holes are.
        dumped.remove("flags");
        dumped.remove("data");
    }
    for (name, dumped) in &before {
        assert_eq!(after.get(name), Some(dumped), "{}", name.display());
    }
    assert_eq!(after.len(), before.len());
    mounted.unmount(0);
}

#[test]
fn snapshots_are_found_by_time_identity_host_label_and_tag_and_new_ones_appear() {
    let scratch = Scratch::with_repository();
    let create = |more: &[&str]| {
        let arguments = ["create", "files", "tree"].iter().chain(more);
        scratch.json(0, arguments)["snapshot"].as_str().unwrap().to_owned()
    };
    let first = create(&["--host", "web/1", "--label", "daily", "--tag", "env=prod"]);
    let mounted = Mounted::start(&scratch, &[]);
    assert_eq!(names(&mounted.path("")), ["hosts", "ids", "labels", "latest", "snapshots", "tags"]);
    assert_eq!(names(&mounted.path("ids")), [first.as_str()]);
    let file = |place: &str| fs::read(mounted.path(place).join("tree/a.txt"));
    let by_time = names(&mounted.path("snapshots"));
    assert_eq!((by_time.len(), by_time[1].as_str()), (2, "latest"));
    for place in [
        "latest",
        "snapshots/latest",
        &format!("snapshots/{}", by_time[0]),
        &format!("ids/{first}"),
        "hosts/web_1/latest",
        &format!("hosts/web_1/{}", by_time[0]),
        "labels/daily/latest",
        "tags/env=prod/latest",
    ] {
        assert_eq!(file(place).unwrap(), b"alpha\n", "{place}");
    }
    for missing in ["ids/0", "snapshots/1999", "hosts/other", "nothing"] {
        assert_eq!(file(missing).unwrap_err().kind(), ErrorKind::NotFound);
    }
    fs::write(scratch.path("tree/a.txt"), "changed\n").unwrap();
    let second = create(&["--host", "db"]);
    let begun = Instant::now();
    while file("latest").unwrap() != b"changed\n" {
        assert!(begun.elapsed() < Duration::from_secs(30), "the new snapshot does not appear");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(names(&mounted.path("ids")).len(), 2);
    assert_eq!(file(&format!("ids/{second}")).unwrap(), b"changed\n");
    assert_eq!(file(&format!("ids/{first}")).unwrap(), b"alpha\n");
    assert_eq!(names(&mounted.path("hosts")), ["db", "web_1"]);
    let filtered = Mounted::start_at(&scratch, "filtered", &["--host", "db"]);
    assert_eq!(names(&filtered.path("ids")), [second]);
    filtered.unmount(0);
    mounted.unmount(0);
}

#[test]
fn a_huge_directory_is_listed_whole_from_any_offset_on() {
    const COUNT: usize = 20_000;
    let scratch = Scratch::with_repository();
    fs::create_dir(scratch.path("huge")).unwrap();
    (0..COUNT).for_each(|number| fs::write(scratch.path(&format!("huge/file {number}")), "").unwrap());
    scratch.ok(["create", "files", "huge"]);
    let mounted = Mounted::start(&scratch, &[]);
    let huge = mounted.path("latest").join("huge");
    let directory = || rustix::fs::open(&huge, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let read = |from: Option<u64>, most: usize| {
        let directory = directory();
        if let Some(from) = from {
            rustix::fs::seek(&directory, SeekFrom::Start(from)).unwrap();
        }
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut listing = RawDir::new(&directory, &mut buffer);
        let mut found = Vec::new();
        while let Some(entry) = listing.next() {
            let entry = entry.unwrap();
            found.push((
                entry.file_name().to_str().unwrap().to_owned(),
                entry.next_entry_cookie(),
                entry.ino(),
            ));
            if found.len() == most {
                break;
            }
        }
        found
    };
    let all = read(None, usize::MAX);
    let expected: BTreeSet<_> = (0..COUNT).map(|number| format!("file {number}")).collect();
    let found: BTreeSet<_> =
        all.iter().map(|(name, ..)| name.clone()).filter(|name| !name.starts_with('.')).collect();
    assert_eq!(all.len(), COUNT + 2);
    assert_eq!(found, expected);
    // Begun again in the middle, before, and behind; in a directory opened anew.
    for place in [12_345, 3, 0, COUNT / 2, COUNT - 1, COUNT, COUNT + 1] {
        let rest = read(Some(all[place].1), 50);
        let until = (place + 51).min(all.len());
        assert_eq!(rest, all[place + 1..until], "behind {place}");
    }
    // Names come with the inodes that they have.
    for (name, _, inode) in all.iter().filter(|(name, ..)| name.ends_with("77")) {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::symlink_metadata(huge.join(name)).unwrap().ino(), *inode, "{name}");
    }
    assert_eq!(fs::read_dir(&huge).unwrap().count(), COUNT);
    mounted.unmount(0);
}

#[test]
fn nothing_can_be_written() {
    let scratch = Scratch::with_repository();
    scratch.snapshot();
    let mounted = Mounted::start(&scratch, &[]);
    let tree = mounted.path("latest").join("tree");
    let file = tree.join("a.txt");
    let attempts = || -> Vec<(&str, std::io::Result<()>)> {
        vec![
            ("open", fs::OpenOptions::new().write(true).open(&file).map(drop)),
            ("create", fs::write(tree.join("new"), "x")),
            ("create at the top", fs::write(mounted.path("new"), "x")),
            ("directory", fs::create_dir(mounted.path("snapshots/new"))),
            ("delete", fs::remove_file(&file)),
            ("delete a directory", fs::remove_dir(tree.join("deep"))),
            ("rename", fs::rename(&file, tree.join("b.txt"))),
            ("link", fs::hard_link(&file, tree.join("b.txt"))),
            ("symlink", std::os::unix::fs::symlink("x", tree.join("s"))),
            ("mode", fs::set_permissions(&file, fs::metadata(scratch.path("key")).unwrap().permissions())),
            ("attribute", xattr::set(&file, "user.new", b"x")),
            (
                "pipe",
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    tree.join("p"),
                    rustix::fs::FileType::Fifo,
                    Mode::RWXU,
                    0,
                )
                .map_err(Into::into),
            ),
        ]
    };
    let refused = |result: std::io::Result<()>| result.unwrap_err().kind() == ErrorKind::ReadOnlyFilesystem;
    for (what, result) in attempts() {
        assert!(refused(result), "{what}");
    }
    if is_root() {
        // Also where root has told the kernel otherwise.
        sh("mount -i -o remount,rw mnt", &scratch.path(""));
        for (what, result) in attempts() {
            assert!(refused(result), "{what}, writable for the kernel");
        }
    }
    assert_eq!(fs::read(&file).unwrap(), b"alpha\n");
    mounted.unmount(0);
}

#[test]
fn others_get_in_only_if_they_may_and_only_where_modes_let_them() {
    if !is_root() {
        println!("not tested: that needs root, to be somebody else");
        return;
    }
    let scratch = Scratch::with_repository();
    sh(
        "chmod 755 . tree tree/deep; chmod 644 tree/a.txt; chmod 600 tree/deep/b.bin; echo g > tree/acl; \
         setfacl -m u:65534:r,g::-,o::- tree/acl; chmod 700 tree/deep/deeper",
        &scratch.path(""),
    );
    scratch.snapshot();
    let as_nobody = |mount: &PathBuf, name: &str| {
        let file = mount.join("latest").join("tree").join(name);
        let done = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"])
            .arg(file)
            .output()
            .unwrap();
        done.status.success()
    };
    let closed = Mounted::start_at(&scratch, "closed", &[]);
    assert!(!as_nobody(&closed.path(""), "a.txt"));
    closed.unmount(0);
    let open = Mounted::start_at(&scratch, "open", &["--allow-other"]);
    assert!(as_nobody(&open.path(""), "a.txt"));
    assert!(as_nobody(&open.path(""), "acl"), "an access list lets this user in");
    assert!(!as_nobody(&open.path(""), "deep/b.bin"));
    assert!(!as_nobody(&open.path(""), "deep/deeper/c.txt"));
    assert_eq!(fs::read(open.path("latest").join("tree/deep/b.bin")).unwrap().len(), 300_000);
    open.unmount(0);
}
