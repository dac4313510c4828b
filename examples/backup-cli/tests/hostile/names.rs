//! Names that lead elsewhere, that a system cannot hold, or that mean two things.

use std::path::Path;

use backup_core::format::codec::{put_bytes, put_varint};
use backup_core::format::page::TreeRoot;

use crate::case::Verdict::{Named, Restored, Within};
use crate::case::{Case, case};
use crate::forge::{Forge, directory, file, row};

/// A file without content.
const EMPTY_FILE: &[u8] = &[0];

fn one(forge: &mut Forge, name: &[u8]) {
    forge.rows(&[row(0, name, 0, EMPTY_FILE)]);
}

pub fn cases() -> Vec<Case> {
    let relative = Named(&[("", "relative component")]);
    let empty = Named(&[("", "empty component")]);
    vec![
        case("upwards", "a name that begins with `..`", |f| one(f, b"../outside/victim"), relative).damaged(),
        case("upwards later", "a name that goes down and then further up", |f| one(f, b"a/../../outside/victim"), relative)
            .damaged(),
        case(
            "absolute",
            "a name that is an absolute path",
            |f| {
                let name = f.outside.join("victim").display().to_string();
                one(f, name.as_bytes());
            },
            empty,
        )
        .damaged(),
        case("dot", "a name of the one component `.`, the target itself", |f| one(f, b"."), relative).damaged(),
        case("nothing", "an empty name", |f| one(f, b""), empty).damaged(),
        case("slash at the end", "a name that only a directory may have, of a file", |f| one(f, b"file/"), empty)
            .damaged(),
        case("nul", "a name that a system call would cut short", |f| one(f, b"file\0.txt"), Named(&[("", "NUL")]))
            .damaged(),
        case(
            "longer than names are",
            "a name of more than 65,536 bytes",
            |f| one(f, &b"n".repeat(65_537)),
            Named(&[("", "exceeds the limit")]),
        )
        .damaged(),
        case(
            "longer by sharing",
            "a name that exceeds the limit only together with what it shares with the name before",
            |f| {
                let first = row(0, &b"n".repeat(60_000), 0, EMPTY_FILE);
                f.rows(&[first, row(60_000, &b"n".repeat(60_000), 0, EMPTY_FILE)]);
            },
            Named(&[("", "longer than the format allows")]),
        )
        .damaged(),
        case(
            "shares too much",
            "a name that shares more bytes with the one before than that has",
            |f| f.rows(&[row(0, b"ab", 0, EMPTY_FILE), row(1 << 40, b"x", 0, EMPTY_FILE)]),
            Named(&[("", "shared with the name before")]),
        )
        .damaged(),
        case(
            "many long names",
            "a few bytes each that name 60,000 bytes by sharing them: 3 GiB of names in a page",
            |f| {
                let mut rows = Vec::new();
                put_varint(&mut rows, 0);
                put_bytes(&mut rows, &b"n".repeat(60_000));
                rows.extend_from_slice(&[0, 0]);
                for number in 1..50_000 {
                    rows.extend(row(60_000, format!("{number:06}").as_bytes(), 0, EMPTY_FILE));
                }
                let page = backup_core::format::page::finish_page(
                    backup_core::format::page::PageKind::Entries,
                    50_000,
                    &rows,
                );
                let page = f.page(page);
                f.commit(TreeRoot { page, levels: 0, rows: 50_000 });
            },
            Named(&[("", "names of a page")]),
        )
        .damaged(),
        case(
            "component too long",
            "a component longer than the file system allows",
            |f| {
                let long = "n".repeat(300);
                f.entries(vec![file("a"), file(&long), file("z")]);
            },
            Named(&[("*", "too long")]),
        )
        .after(|target| assert!(target.join("a").exists() && target.join("z").exists())),
        case(
            "path too long",
            "a path longer than the kernel takes at once, of components that it takes",
            |f| f.entries(vec![file(&vec!["d".repeat(200); 60].join("/"))]),
            Restored,
        ),
        case(
            "very deep",
            "4,000 directories, one in the other: deeper than any recursion, any path and any number of open files",
            |f| f.entries(vec![file(&vec!["d"; 4000].join("/"))]),
            Restored,
        ),
        case(
            "out of order",
            "names that descend, so that what was left is entered again",
            |f| f.rows(&[row(0, b"b", 0, EMPTY_FILE), row(0, b"a", 0, EMPTY_FILE)]),
            Named(&[("", "out of order")]),
        )
        .damaged(),
        case(
            "twice",
            "one name twice in a page, first as a link to the outside, then as a file that is to be written through it",
            |f| {
                let mut link = Vec::new();
                put_bytes(&mut link, b"../outside/victim");
                f.rows(&[row(0, b"file", 2, &link), row(0, b"file", 0, EMPTY_FILE)]);
            },
            Named(&[("", "out of order")]),
        )
        .damaged(),
        case(
            "bounds of a branch",
            "a page whose last name stands behind the bound that its branch says",
            |f| {
                let (one, two) = (f.leaf(vec![file("a"), file("x")]), f.leaf(vec![file("m")]));
                let page = f.branch(&[("a", one), ("m", two)]);
                f.commit(TreeRoot { page, levels: 1, rows: 3 });
            },
            Named(&[("", "out of place")]),
        )
        .damaged(),
        case(
            "another first name",
            "a page that does not begin with the name that its branch says",
            |f| {
                let page = f.leaf(vec![file("b")]);
                let page = f.branch(&[("a", page)]);
                f.commit(TreeRoot { page, levels: 1, rows: 1 });
            },
            Named(&[("", "out of place")]),
        )
        .damaged(),
        case(
            "below a file",
            "an entry below one that is a file",
            |f| f.entries(vec![file("a"), file("a/b")]),
            Within(&[("a", ""), ("a/b", "")]),
        ),
        case(
            "directory below a file",
            "a directory, to be completed last, below one that is a file",
            |f| f.both(vec![directory("a/b")], vec![file("a")]),
            Within(&[("a", ""), ("a/b", "")]),
        ),
        case(
            "backslashes",
            "a name that leads upwards where backslashes separate",
            |f| f.entries(vec![file("..\\..\\outside\\victim")]),
            Restored,
        )
        .after(|target| assert!(target.join("..\\..\\outside\\victim").is_file())),
        case(
            "normal forms",
            "two names of one text in different Unicode normal forms: where both can stand, both do",
            |f| f.entries(vec![file("e\u{301}"), file("\u{e9}")]),
            Restored,
        )
        .after(|target| both(target, "e\u{301}", "\u{e9}")),
        case(
            "letter case",
            "a link to the outside and a directory whose names differ in case only, and a file below",
            |f| f.entries(vec![crate::forge::symlink("A", "../outside"), file("a/victim")]),
            Restored,
        )
        .after(|target| both(target, "A", "a")),
    ]
}

fn both(target: &Path, one: &str, two: &str) {
    assert!(target.join(one).symlink_metadata().is_ok() && target.join(two).symlink_metadata().is_ok());
}
