//! Snapshots whose links lead out of the target, into each other, or nowhere.

use std::os::unix::fs::MetadataExt;

use backup_core::format::codec::put_bytes;
use backup_core::format::entries::StoredEntry;

use crate::case::Verdict::{Named, Restored, Within};
use crate::case::{Case, case};
use crate::forge::{Forge, directory, file, hard_link, posix, row, symlink, with_attribute};

/// A hard link to a name, byte for byte.
fn link_row(forge: &mut Forge, to: &[u8]) {
    let mut rest = Vec::new();
    put_bytes(&mut rest, to);
    forge.rows(&[row(0, b"link", 3, &rest)]);
}

/// Through a link that stands before: either it is refused, or the link finds a directory in its place.
const THROUGH: crate::case::Verdict = Within(&[
    ("a", "directory with content"),
    ("a/victim", "symbolic link"),
    ("a/deep/new", "symbolic link"),
]);

fn outward(forge: &Forge) -> StoredEntry {
    symlink("a", forge.outside.display().to_string())
}

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "file below a link",
            "a link to the outside, and a file below its name",
            |f| f.entries(vec![outward(f), file("a/victim")]),
            THROUGH,
        ),
        case(
            "directories below a link",
            "a link to the outside, and directories to be made below its name",
            |f| f.entries(vec![outward(f), file("a/deep/new")]),
            THROUGH,
        ),
        case(
            "below a link that stays inside",
            "a link to a directory of the snapshot, and a file below its name",
            |f| f.entries(vec![symlink("a", "d"), file("a/victim"), directory("d")]),
            THROUGH,
        ),
        case(
            "below a magic link",
            "a link to the root of the process in /proc, and a file below its name",
            |f| f.entries(vec![symlink("a", "/proc/self/root"), file("a/victim")]),
            THROUGH,
        ),
        case(
            "directory at a link's name",
            "in the trailing entries a directory at a link's name, whose owner and mode are set last",
            |f| f.both(vec![outward(f)], vec![posix(directory("a"), 0o777, 1000)]),
            Within(&[("a", "")]),
        ),
        case(
            "file at a link's name",
            "in the trailing entries a file at a link's name, to be written through it",
            |f| {
                let link = symlink("a", f.outside.join("victim").display().to_string());
                f.both(vec![link], vec![posix(file("a"), 0o777, 1000)]);
            },
            Within(&[("a", "")]),
        ),
        case(
            "hard link through a link",
            "a hard link to a file below a link to the outside",
            |f| f.entries(vec![outward(f), hard_link("h", "a/victim")]),
            Named(&[("h", "")]),
        )
        .after(|target| assert!(!target.join("h").exists())),
        case(
            "hard link below a link",
            "a hard link whose own name stands below a link to the outside",
            |f| f.entries(vec![outward(f), hard_link("a/new", "f"), file("f")]),
            Named(&[("a/new", "symbolic link")]),
        ),
        case(
            "hard link to a link",
            "a hard link to a link to the outside, and its mode",
            |f| {
                let link = symlink("a", f.outside.join("victim").display().to_string());
                f.entries(vec![link, posix(hard_link("h", "a"), 0o777, 1000)]);
            },
            Restored,
        )
        .after(|target| assert!(target.join("h").is_symlink())),
        case(
            "hard link to an absolute name",
            "a hard link to an absolute path",
            |f| {
                let to = f.outside.join("victim").display().to_string();
                link_row(f, to.as_bytes());
            },
            Named(&[("", "empty component")]),
        )
        .damaged(),
        case(
            "hard link upwards",
            "a hard link to a name with `..`",
            |f| link_row(f, b"../outside/victim"),
            Named(&[("", "relative component")]),
        )
        .damaged(),
        case(
            "hard link to itself",
            "a hard link to its own name",
            |f| f.entries(vec![hard_link("h", "h")]),
            Named(&[("h", "not there")]),
        ),
        case(
            "hard links in a circle",
            "two hard links, each to the other",
            |f| f.entries(vec![hard_link("a", "b"), hard_link("b", "a")]),
            Named(&[("a", "not there"), ("b", "not there")]),
        ),
        case(
            "chain of hard links",
            "a hard link to a hard link, which no writer makes",
            |f| f.entries(vec![file("a"), hard_link("b", "a"), hard_link("c", "b")]),
            Restored,
        )
        .after(|target| assert_eq!(target.join("c").metadata().unwrap().nlink(), 3)),
        case(
            "hard link to what comes later",
            "a hard link that stands before its file",
            |f| f.entries(vec![hard_link("a", "b"), file("b")]),
            Restored,
        ),
        case(
            "hard link to a directory",
            "a hard link to a directory, a circle in the tree if it were made",
            |f| f.entries(vec![directory("a"), hard_link("a/up", "a")]),
            Named(&[("a/up", "directory")]),
        ),
        case(
            "hard link to nothing",
            "a hard link to a name that is nowhere",
            |f| f.entries(vec![hard_link("h", "missing")]),
            Named(&[("h", "not there")]),
        ),
        case(
            "target too long",
            "a link whose target is longer than a path may be",
            |f| f.entries(vec![symlink("a", "t/".repeat(30_000)), file("b")]),
            Named(&[("a", "too long")]),
        ),
        case(
            "empty target",
            "a link to nothing at all",
            |f| f.entries(vec![symlink("a", "")]),
            Named(&[("a", "")]),
        ),
        case(
            "nul in a target",
            "a link whose target a system call would cut short",
            |f| f.entries(vec![symlink("a", b"../outside/victim\0safe")]),
            Named(&[("a", "")]),
        )
        .after(|target| assert!(target.join("a").symlink_metadata().is_err())),
        case(
            "mode of a link",
            "a link to the outside with a mode, which the system would set through it",
            |f| {
                f.entries(vec![posix(
                    symlink("a", f.outside.join("victim").display().to_string()),
                    0o4777,
                    0,
                )])
            },
            Restored,
        ),
        case(
            "owner and time of a link",
            "a link to the outside with an owner and a time",
            |f| {
                let link = symlink("a", f.outside.join("directory").display().to_string());
                f.entries(vec![posix(link, 0o777, 4242)]);
            },
            Restored,
        ),
        case(
            "attributes of a link",
            "a link to the outside with an extended attribute that only its target could have",
            |f| {
                let link = symlink("a", f.outside.join("victim").display().to_string());
                f.entries(vec![with_attribute(link, "user.evil", b"1")]);
            },
            Named(&[("a", "user.evil")]),
        ),
    ]
}
