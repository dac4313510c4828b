//! Somebody who may write into the target, before the restore or while it runs.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink as make_link};
use std::path::Path;

use backup_core::EntryKind;
use backup_core::format::chunks::StoredContent;
use backup_sources::Overwrite;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

use crate::case::Verdict::{Named, Restored, Within};
use crate::case::{Case, case};
use crate::forge::{Forge, directory, file, hard_link, posix, stored};
use crate::scene::{Scene, set_time};

fn below(forge: &mut Forge) {
    forge.entries(vec![file("a/b/new"), file("a/b/victim")]);
}

fn one(forge: &mut Forge) {
    forge.entries(vec![posix(file("file"), 0o777, 4242)]);
}

/// Many entries in one directory, so that somebody has the time to change it.
fn many(forge: &mut Forge) {
    let mut entries = vec![posix(directory("d"), 0o755, 4242)];
    for number in 0..400 {
        entries.push(posix(file(&format!("d/{number:03}/file")), 0o666, 4242));
        entries.push(hard_link(&format!("d/{number:03}/link"), &format!("d/{number:03}/file")));
    }
    entries.push(posix(directory("d/victim-directory"), 0o777, 4242));
    forge.entries(entries);
}

/// Nothing but whatever stood in the way may be named.
const RACED: crate::case::Verdict = Within(&[("*", "")]);

fn is_a_new_file(target: &Path) {
    let file = target.join("file").symlink_metadata().unwrap();
    assert!(file.is_file() && file.nlink() == 1);
    assert_eq!(fs::read(target.join("file")).unwrap(), b"forged");
}

fn node(target: &Path, kind: FileType) {
    mknodat(CWD, target.join("file"), kind, Mode::RUSR, rustix::fs::makedev(1, 3)).unwrap();
}

pub fn cases() -> Vec<Case> {
    let refused = Named(&[("a/b/new", "symbolic link"), ("a/b/victim", "symbolic link")]);
    vec![
        case("parent is a link", "a parent that is a link to the outside", below, refused).before(|target, outside| {
            fs::create_dir(target.join("a")).unwrap();
            make_link(outside, target.join("a/b")).unwrap();
        }),
        case(
            "grandparent is a link",
            "a link above the parent, which itself is a real directory outside",
            |f| f.entries(vec![file("a/directory/new"), file("a/directory/victim")]),
            Named(&[("a/directory/new", "symbolic link"), ("a/directory/victim", "symbolic link")]),
        )
        .before(|target, outside| make_link(outside, target.join("a")).unwrap()),
        case(
            "parent is a dangling link",
            "a link to a directory that does not exist outside, and would be made",
            below,
            refused,
        )
        .before(|target, outside| {
            fs::create_dir(target.join("a")).unwrap();
            make_link(outside.join("not-there"), target.join("a/b")).unwrap();
        }),
        case("link at the name", "a link to a file outside at the name of a file", one, Restored)
            .before(|target, outside| make_link(outside.join("victim"), target.join("file")).unwrap())
            .after(is_a_new_file),
        case(
            "dangling link at the name",
            "a link to a name outside where nothing is, and a create would follow it",
            one,
            Restored,
        )
        .before(|target, outside| make_link(outside.join("new"), target.join("file")).unwrap())
        .after(is_a_new_file),
        case("hard link at the name", "a second name of a file outside at the name of a file", one, Restored)
            .before(|target, outside| fs::hard_link(outside.join("victim"), target.join("file")).unwrap())
            .after(is_a_new_file)
            .linked()
            .library_only(),
        case(
            "unchanged hard link at the name",
            "a second name of a file outside that has the size and time of the snapshot's, so that it counts as unchanged \
             and only its mode and owner are set",
            |f| {
                let content = StoredContent::Inline((*b"untouched").into());
                f.entries(vec![posix(stored("file", EntryKind::File, content), 0o4777, 4242)]);
            },
            Restored,
        )
        .options(|target| target.overwrite(Overwrite::IfChanged), &["--overwrite", "if-changed"])
        .before(|target, outside| fs::hard_link(outside.join("victim"), target.join("file")).unwrap())
        .linked()
            .library_only(),
        case(
            "unchanged link at the name",
            "a link to a file outside of the snapshot's size and time",
            |f| {
                let content = StoredContent::Inline((*b"untouched").into());
                f.entries(vec![posix(stored("file", EntryKind::File, content), 0o777, 4242)]);
            },
            Restored,
        )
        .options(|target| target.overwrite(Overwrite::IfChanged), &["--overwrite", "if-changed"])
        .before(|target, outside| make_link(outside.join("victim"), target.join("file")).unwrap()),
        case(
            "kept link at the name",
            "a link to the outside where nothing is to be overwritten",
            one,
            Restored,
        )
        .options(|target| target.overwrite(Overwrite::Never), &["--overwrite", "never"])
        .before(|target, outside| make_link(outside.join("victim"), target.join("file")).unwrap())
        .after(|target| assert!(target.join("file").is_symlink())),
        case("pipe at the name", "a named pipe that nobody reads: opening it would wait for ever", one, Restored)
            .before(|target, _| node(target, FileType::Fifo))
            .after(is_a_new_file),
        case("socket at the name", "a socket at the name of a file", one, Restored)
            .before(|target, _| node(target, FileType::Socket))
            .after(is_a_new_file),
        case("device at the name", "a device at the name of a file, which would be written to", one, Restored)
            .before(|target, _| node(target, FileType::CharacterDevice))
            .after(is_a_new_file)
            .needs_root(),
        case(
            "directory at the name",
            "a directory with content at the name of a file, which would have to be emptied",
            one,
            Named(&[("file", "directory with content")]),
        )
        .before(|target, _| {
            fs::create_dir(target.join("file")).unwrap();
            fs::write(target.join("file/kept"), "kept").unwrap();
        })
        .after(|target| assert!(target.join("file/kept").exists())),
        case(
            "link at a directory's name",
            "a link to a directory outside at the name of a directory, whose owner and mode are set last",
            |f| f.entries(vec![posix(directory("a"), 0o777, 4242)]),
            Named(&[("a", "symbolic link"), ("a", "ot a directory")]),
        )
        .before(|target, outside| make_link(outside.join("directory"), target.join("a")).unwrap()),
        case(
            "link at a pipe's name",
            "a link to a pipe outside at the name of a pipe, whose owner and mode are set by name",
            |f| f.entries(vec![posix(stored("pipe", EntryKind::Fifo, StoredContent::None), 0o777, 4242)]),
            Restored,
        )
        .before(|target, outside| make_link(outside.join("fifo"), target.join("pipe")).unwrap())
        .after(|target| assert!(target.join("pipe").symlink_metadata().unwrap().file_type().is_fifo())),
        case(
            "hard link at a pipe's name",
            "a second name of a pipe outside at the name of a pipe: it is one already, and only its owner is set",
            |f| f.entries(vec![posix(stored("pipe", EntryKind::Fifo, StoredContent::None), 0o777, 4242)]),
            Restored,
        )
        .before(|target, outside| fs::hard_link(outside.join("fifo"), target.join("pipe")).unwrap())
        .linked()
            .library_only(),
        case(
            "hard link at a link's name",
            "a second name of a link outside at the name of a link with the same target, whose owner is set",
            |f| f.entries(vec![posix(crate::forge::symlink("link", "victim"), 0o777, 4242)]),
            Restored,
        )
        .before(|target, outside| {
            rustix::fs::linkat(CWD, outside.join("link"), CWD, target.join("link"), rustix::fs::AtFlags::empty())
                .unwrap();
        })
        .linked()
            .library_only(),
        case(
            "hard link through a link in the target",
            "a hard link of the snapshot to a file below a link that stands in the target",
            |f| f.entries(vec![hard_link("h", "a/victim")]),
            Named(&[("h", "not there")]),
        )
        .before(|target, outside| make_link(outside, target.join("a")).unwrap())
        .after(|target| assert!(!target.join("h").exists())),
        case(
            "old file of the same size",
            "a file of the same size and time with other content, where everything is to be overwritten",
            |f| {
                let mut entry = posix(file("file"), 0o644, 0);
                entry.entry.posix.as_mut().unwrap().uid = u32::MAX;
                f.entries(vec![entry]);
            },
            Restored,
        )
        .before(|target, _| {
            fs::write(target.join("file"), "FORGED").unwrap();
            set_time(&target.join("file"), 1_000_000_000);
        })
        .after(|target| assert_eq!(fs::read(target.join("file")).unwrap(), b"forged")),
        case(
            "parent swapped",
            "a thread that swaps the directory of what is being restored for a link to the outside, over and over",
            many,
            RACED,
        )
        .during(swap_directory)
        .library_only(),
        case(
            "file swapped",
            "a thread that swaps files for links to a file outside while they are written and completed",
            |f| {
                let entries = (0..400).map(|n| posix(file(&format!("d-{n:03}")), 0o666, 4242));
                f.entries(entries.collect());
            },
            RACED,
        )
        .during(|scene, stop| put_over(scene, stop, |outside, link| make_link(outside.join("victim"), link).unwrap()))
        .library_only(),
        case(
            "pipe swapped",
            "a thread that puts second names of a file outside over pipes between their making and the setting of owner, \
             mode and time",
            |f| {
                let pipe = |n| stored(&format!("d-{n:03}"), EntryKind::Fifo, StoredContent::None);
                let entries = (0..400).map(|n| posix(pipe(n), 0o666, 4242));
                f.entries(entries.collect());
            },
            RACED,
        )
        .during(|scene, stop| {
            put_over(scene, stop, |outside, link| fs::hard_link(outside.join("victim"), link).unwrap());
        })
        .library_only(),
        case(
            "file swapped for a pipe",
            "a thread that puts pipes over files, at which an open would wait",
            |f| {
                let entries = (0..400).map(|n| posix(file(&format!("d-{n:03}")), 0o666, 4242));
                f.entries(entries.collect());
            },
            RACED,
        )
        .during(|scene, stop| {
            put_over(scene, stop, |_, name| mknodat(CWD, name, FileType::Fifo, Mode::RUSR, 0).unwrap());
        })
        .library_only(),
        case(
            "removed meanwhile",
            "a thread that removes directories as soon as they are made",
            many,
            RACED,
        )
        .during(|scene, stop| {
            let until = std::time::Instant::now() + std::time::Duration::from_millis(700);
            while !stop() && std::time::Instant::now() < until {
                let _ = fs::remove_dir_all(scene.target().join("d"));
            }
        })
        .library_only(),
        case(
            "unreadable directory",
            "a directory of one's own without any right to enter it, below which files are to stand",
            |f| f.entries(vec![posix(directory("a"), 0o755, 0), file("a/b")]),
            Restored,
        )
        .by_user()
        .before(|target, _| {
            fs::create_dir(target.join("a")).unwrap();
            if crate::scene::is_root() {
                std::os::unix::fs::chown(target.join("a"), Some(65_534), Some(65_534)).unwrap();
            }
            fs::set_permissions(target.join("a"), fs::Permissions::from_mode(0o000)).unwrap();
        })
        .after(|target| assert!(target.join("a/b").exists())),
    ]
}

/// Swaps `d` with a link to the directory outside, both ways.
fn swap_directory(scene: &Scene, stop: &dyn Fn() -> bool) {
    let (directory, link) = (scene.target().join("d"), scene.target().join("swapped"));
    make_link(scene.outside().join("directory"), &link).unwrap();
    while !stop() {
        let _ = renameat_with(CWD, &directory, CWD, &link, RenameFlags::EXCHANGE);
    }
}

/// Puts what `make` makes over the names of the snapshot, one after the other.
fn put_over(scene: &Scene, stop: &dyn Fn() -> bool, make: fn(&Path, &Path)) {
    let spare = scene.target().join("spare");
    let mut number = 0;
    while !stop() {
        let name = scene.target().join(format!("d-{number:03}"));
        number = (number + 7) % 400;
        if name.symlink_metadata().is_ok() {
            make(&scene.outside(), &spare);
            let _ = fs::rename(&spare, name);
            let _ = fs::remove_file(&spare);
        }
    }
}
