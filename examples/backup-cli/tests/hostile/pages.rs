//! Trees of pages that end nowhere, cost much or are none.

use backup_core::format::codec::{put_bytes, put_varint};
use backup_core::format::directory::ChunkRecord;
use backup_core::format::page::{PageKind, PageRef, TreeRoot, finish_page};
use backup_core::{ChunkId, ObjectType};

use crate::case::Verdict::{Named, Restored};
use crate::case::{Case, case};
use crate::forge::{Forge, file, row};

fn commit(forge: &mut Forge, page: PageRef, levels: u8) {
    forge.commit(TreeRoot { page, levels, rows: u64::MAX });
}

/// A page of these bytes as the whole tree.
fn page(forge: &mut Forge, bytes: Vec<u8>) {
    let page = forge.page(bytes);
    commit(forge, page, 0);
}

fn repeating(forge: &mut Forge, mut page: PageRef) {
    let names: Vec<_> = (0..300).map(|n| format!("n{n:03}")).collect();
    for _ in 0..8 {
        let rows: Vec<_> = names.iter().map(|name| (name.as_str(), page)).collect();
        page = forge.branch(&rows);
    }
    commit(forge, page, 8);
}

pub fn cases() -> Vec<Case> {
    let lost = |why: &'static [(&'static str, &'static str)]| Named(why);
    vec![
        case(
            "leaf for a branch",
            "a leaf where its level says that a branch belongs",
            |f| {
                let page = f.leaf(vec![file("a")]);
                commit(f, page, 1);
            },
            lost(&[("", "a page of kind 1 stands where kind 2")]),
        )
        .damaged(),
        case(
            "branch for a leaf",
            "a branch where its level says that a leaf belongs",
            |f| {
                let page = f.leaf(vec![file("a")]);
                let page = f.branch(&[("a", page)]);
                commit(f, page, 0);
            },
            lost(&[("", "a page of kind 2 stands where kind 1")]),
        )
        .damaged(),
        case(
            "255 levels",
            "a tree that claims 255 levels",
            |f| {
                let page = f.leaf(vec![file("a")]);
                commit(f, page, 255);
            },
            lost(&[("", "deeper than the format allows")]),
        )
        .damaged(),
        case(
            "root that is nowhere",
            "a root that no pack has",
            |f| commit(f, PageRef { id: ChunkId([7; 32]), len: 77 }, 0),
            lost(&[("", "is in no pack")]),
        )
        .damaged(),
        case(
            "leaves out of order",
            "leaves whose names go back, so that a directory is left and entered again",
            |f| {
                let (one, two) = (f.leaf(vec![file("b"), file("c")]), f.leaf(vec![file("a")]));
                let page = f.branch(&[("b", one), ("c", two)]);
                commit(f, page, 1);
            },
            lost(&[("", "out of place")]),
        )
        .damaged(),
        case(
            "branches out of order",
            "rows of a branch that descend",
            |f| {
                let (one, two) = (f.leaf(vec![file("b")]), f.leaf(vec![file("a")]));
                let page = f.branch(&[("b", one), ("a", two)]);
                commit(f, page, 1);
            },
            lost(&[("", "out of order")]),
        )
        .damaged(),
        case(
            "empty leaf",
            "a page without a row",
            |f| page(f, finish_page(PageKind::Entries, 0, &[])),
            lost(&[("", "a page is empty")]),
        )
        .damaged(),
        case(
            "tree of one leaf",
            "300^8 leaves, all of them the same page",
            |f| {
                let page = f.leaf(vec![file("n000")]);
                repeating(f, page);
            },
            lost(&[("", "out of place")]),
        )
        .damaged(),
        case(
            "tree of nothing",
            "300^8 leaves without a row",
            |f| {
                let page = f.page(finish_page(PageKind::Entries, 0, &[]));
                repeating(f, page);
            },
            lost(&[("", "a page")]),
        )
        .damaged(),
        case(
            "chain of branches",
            "eight branches of one row each, which is allowed",
            |f| {
                let mut page = f.leaf(vec![file("file")]);
                for _ in 0..8 {
                    page = f.branch(&[("file", page)]);
                }
                commit(f, page, 8);
            },
            Restored,
        ),
        case(
            "rows that are not there",
            "a page that claims 2^62 rows",
            |f| {
                let mut bytes = vec![1];
                put_varint(&mut bytes, 1 << 62);
                page(f, bytes);
            },
            lost(&[("", "rows of a page")]),
        )
        .damaged(),
        case(
            "more rows than a page may have",
            "a page of 70,000 rows that are all there",
            |f| {
                let rows: Vec<_> =
                    (0..70_000).flat_map(|n| row(0, format!("{n:05}").as_bytes(), 0, &[0])).collect();
                page(f, finish_page(PageKind::Entries, 70_000, &rows));
            },
            lost(&[("", "rows of a page")]),
        )
        .damaged(),
        case(
            "page cut short",
            "a page that ends in the middle of a row",
            |f| {
                let rows = [row(0, b"a", 0, &[0]), row(0, b"b", 0, &[])].concat();
                page(f, finish_page(PageKind::Entries, 2, &rows));
            },
            lost(&[("", "cut short")]),
        )
        .damaged(),
        case(
            "more than a page",
            "bytes behind the last row of a page",
            |f| page(f, finish_page(PageKind::Entries, 1, &[row(0, b"a", 0, &[0]), vec![0; 9]].concat())),
            lost(&[("", "follow the end")]),
        )
        .damaged(),
        case(
            "number in a long form",
            "a number that is not in its shortest form: two pages of one meaning",
            |f| page(f, vec![1, 0x81, 0x00, 0, 1, b'a', 0, 0]),
            lost(&[("", "shortest form")]),
        )
        .damaged(),
        case(
            "number beyond 64 bits",
            "a number of eleven bytes",
            |f| page(f, [vec![1], vec![0xff; 11]].concat()),
            lost(&[("", "64 bits")]),
        )
        .damaged(),
        case(
            "page of no kind",
            "a page of the kind 0, and no more",
            |f| page(f, vec![0]),
            lost(&[("", "kind 0")]),
        )
        .damaged(),
        case(
            "page longer than a chunk",
            "a reference in a branch to a page of 4 GiB",
            |f| {
                let mut rows = Vec::new();
                put_bytes(&mut rows, b"a");
                rows.extend_from_slice(&[7; 32]);
                put_varint(&mut rows, u64::from(u32::MAX));
                put_varint(&mut rows, 1);
                page(f, finish_page(PageKind::EntryBranch, 1, &rows));
                let root = f.page(Vec::new());
                assert_eq!(root.len, 0);
            },
            lost(&[("", "a page of kind 2 stands where kind 1")]),
        )
        .damaged(),
        case(
            "root longer than a chunk",
            "a document that claims a root of 4 GiB",
            |f| commit(f, PageRef { id: ChunkId([7; 32]), len: u32::MAX }, 0),
            lost(&[("", "is in no pack")]),
        )
        .damaged(),
        case(
            "attributes by the million",
            "a page of 8 MiB with two million attributes of two bytes, each of which takes far more when it is read",
            |f| {
                let mut rows = Vec::new();
                let mut count = 0;
                while rows.len() < (8 << 20) - 20_000 {
                    let mut rest = Vec::new();
                    put_varint(&mut rest, 4096);
                    for attribute in 0..4096_u16 {
                        put_bytes(&mut rest, &attribute.to_be_bytes());
                        put_bytes(&mut rest, b"");
                    }
                    rest.push(0);
                    rows.extend(row(0, format!("{count:06}").as_bytes(), 0x20, &rest));
                    count += 1;
                }
                page(f, finish_page(PageKind::Entries, count, &rows));
            },
            Restored,
        ),
        case(
            "page under another's id",
            "a pack whose directory gives one page the id of another",
            |f| {
                let real = finish_page(PageKind::Entries, 1, &row(0, b"real", 0, &[0]));
                let other = finish_page(PageKind::Entries, 1, &row(0, b"fake", 0, &[0]));
                let id = f.protection.chunk_id(&real);
                let len = real.len() as u32;
                let mut writer = f.writer(ObjectType::Meta, Vec::new());
                writer.push_frame(&other, &[ChunkRecord { id: id.short(), len }]).unwrap();
                f.finish(ObjectType::Meta, writer);
                commit(f, PageRef { id, len }, 0);
            },
            lost(&[("", "not what its identity says")]),
        )
        .damaged(),
        case(
            "page in a pack of content",
            "a page that stands in a pack of content only",
            |f| {
                let bytes = finish_page(PageKind::Entries, 1, &row(0, b"file", 0, &[0]));
                let chunk = f.chunk(&bytes);
                commit(f, PageRef { id: chunk.id, len: chunk.len }, 0);
            },
            Restored,
        ),
    ]
}
