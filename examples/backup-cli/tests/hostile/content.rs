//! Content whose references lie.

use std::path::Path;

use backup_core::format::chunks::{ChunkRef, StoredContent};
use backup_core::format::codec::{put_bytes, put_varint};
use backup_core::format::directory::ChunkRecord;
use backup_core::format::page::{ChunkBranchRow, PageKind, PageRef, TreeRoot, finish_page};
use backup_core::{ChunkId, EntryKind, ObjectType};

use crate::case::Verdict::{Named, Restored, Within};
use crate::case::{Case, Verify, case};
use crate::forge::{Forge, row, stored};

/// The text of every error about a list that does not fit.
const SUM: &str = "does not add up";

fn list(forge: &mut Forge, chunks: &[ChunkRef]) -> PageRef {
    let mut rows = Vec::new();
    chunks.iter().for_each(|chunk| chunk.encode(&mut rows));
    forge.page(finish_page(PageKind::Chunks, chunks.len(), &rows))
}

fn branch(forge: &mut Forge, rows: &[(PageRef, u64)]) -> PageRef {
    let mut bytes = Vec::new();
    rows.iter().for_each(|(page, size)| {
        ChunkBranchRow { page: *page, rows: 2, bytes: *size }.encode(&mut bytes);
    });
    forge.page(finish_page(PageKind::ChunkBranch, rows.len(), &bytes))
}

/// Seven more levels of which each names the one below `width` times.
fn nested(forge: &mut Forge, mut page: PageRef, mut bytes: u64, width: u64, levels: u8) -> (PageRef, u64) {
    for _ in 0..levels {
        page = branch(forge, &vec![(page, bytes); width as usize]);
        bytes = bytes.saturating_mul(width);
    }
    (page, bytes)
}

fn paged(forge: &mut Forge, page: PageRef, levels: u8, bytes: u64) {
    forge.file(StoredContent::Paged { root: TreeRoot { page, levels, rows: 2 }, bytes });
}

fn text() -> Vec<u8> {
    b"some content that is not the wanted one\n".repeat(100)
}

/// Content in this form, byte for byte.
fn form(forge: &mut Forge, content: &[u8]) {
    forge.rows(&[row(0, b"file", 0, content)]);
}

fn absent(target: &Path) {
    assert!(!target.join("file").exists(), "what is not whole stands there");
}

pub fn cases() -> Vec<Case> {
    let sum = Named(&[("file", SUM)]);
    vec![
        case(
            "longer than its chunks",
            "a list of chunks that claims more bytes than they have",
            |f| {
                let chunk = f.chunk(&text());
                let page = list(f, &[chunk]);
                paged(f, page, 0, 20_000);
            },
            sum,
        )
        .damaged()
        .after(absent),
        case(
            "shorter than its chunks",
            "a list of chunks that claims fewer bytes than they have, so that they are written behind its end",
            |f| {
                let chunk = f.chunk(&text());
                let page = list(f, &[chunk, chunk]);
                paged(f, page, 0, 4000);
            },
            sum,
        )
        .damaged()
        .after(absent),
        case(
            "levels of a list",
            "a list of chunks that claims levels which it does not have",
            |f| {
                let chunk = f.chunk(&text());
                let page = list(f, &[chunk]);
                paged(f, page, 3, 4000);
            },
            Named(&[("file", "a page of kind 3 stands where")]),
        )
        .damaged(),
        case(
            "too many levels",
            "a list of chunks that claims 255 levels",
            |f| {
                let chunk = f.chunk(&text());
                let page = list(f, &[chunk]);
                paged(f, page, 255, 4000);
            },
            Named(&[("", "deeper than the format allows")]),
        )
        .damaged(),
        case(
            "empty chunks without end",
            "300^8 pages of chunks without a byte",
            |f| {
                let chunk = f.chunk(&[]);
                let page = list(f, &[chunk, chunk]);
                let (page, _) = nested(f, page, 0, 300, 8);
                paged(f, page, 8, 0);
            },
            sum,
        )
        .damaged(),
        case(
            "empty pages without end",
            "300^8 pages without a chunk",
            |f| {
                let page = list(f, &[]);
                let (page, _) = nested(f, page, 0, 300, 8);
                paged(f, page, 8, 1000);
            },
            sum,
        )
        .damaged(),
        case(
            "sums beyond 64 bits",
            "lengths of a branch that add up to the right sum only because they overflow",
            |f| {
                let chunk = f.chunk(&text());
                let page = list(f, &[chunk]);
                let page = branch(f, &[(page, u64::MAX), (page, 4001)]);
                paged(f, page, 1, 4000);
            },
            sum,
        )
        .damaged(),
        case(
            "branch that lies",
            "a branch whose parts add up, though not each of them is as long as it says",
            |f| {
                let chunk = f.chunk(&text());
                let page = list(f, &[chunk]);
                let page = branch(f, &[(page, 1000), (page, 7000)]);
                paged(f, page, 1, 8000);
            },
            sum,
        )
        .damaged(),
        case(
            "endless file",
            "a file of 2^60 bytes that are there: one chunk, named over and over by pages that are named over and over",
            |f| {
                let chunk = f.chunk(&vec![0; 1 << 20]);
                let page = list(f, &[chunk; 1024]);
                let (page, bytes) = nested(f, page, 1 << 30, 1024, 3);
                paged(f, page, 3, bytes);
            },
            Within(&[("file", "")]),
        )
        .verify(Verify::TooLong)
        .after(absent),
        case(
            "endless file with holes",
            "a file of 12 * 2^60 bytes with holes, of which nothing would take any room",
            |f| {
                let chunk = f.chunk(&vec![0; 1 << 20]);
                let page = list(f, &[chunk; 1024]);
                let (page, bytes) = nested(f, page, 1 << 30, 1024, 3);
                let (page, bytes) = nested(f, page, bytes, 12, 1);
                let root = TreeRoot { page, levels: 4, rows: 2 };
                let mut entry = stored("file", EntryKind::File, StoredContent::Paged { root, bytes });
                entry.entry.sparse = true;
                f.entries(vec![entry]);
            },
            Within(&[("file", "")]),
        )
        .verify(Verify::TooLong)
        .after(absent),
        case(
            "chunks of one byte",
            "a file of two million chunks of one byte, in a few pages that are named over and over: each costs a hundred \
             bytes while it is planned",
            |f| {
                let chunk = f.chunk(b"x");
                let page = list(f, &vec![chunk; 60_000]);
                let (page, bytes) = nested(f, page, 60_000, 36, 1);
                paged(f, page, 1, bytes);
            },
            Restored,
        )
        .verify(Verify::TooLong)
        .library_only()
        .after(|target| assert_eq!(target.join("file").metadata().unwrap().len(), 2_160_000)),
        case(
            "equal short ids",
            "a reference to a chunk that has the first half of its id with another, and its length",
            |f| {
                let mut chunk = f.chunk(&text());
                chunk.id.0[20] ^= 1;
                f.file(StoredContent::Chunks(vec![chunk]));
            },
            Named(&[("file", "not what its identity says")]),
        )
        .after(absent)
        .verify(Verify::Clean),
        case(
            "another length",
            "a reference to a chunk with another length than it has",
            |f| {
                let mut chunk = f.chunk(&text());
                chunk.len -= 1;
                f.file(StoredContent::Chunks(vec![chunk]));
            },
            Named(&[("file", "is in no pack")]),
        )
        .damaged()
        .after(absent),
        case(
            "missing chunk",
            "a reference to a chunk that is nowhere",
            |f| f.file(StoredContent::Chunks(vec![ChunkRef { id: ChunkId([7; 32]), len: 77 }])),
            Named(&[("file", "is in no pack")]),
        )
        .damaged()
        .after(absent),
        case(
            "poisoned chunk",
            "a pack whose directory gives other content the id of a chunk",
            |f| {
                let wanted = f.protection.chunk_id(&b"what was backed up".repeat(50));
                let other = b"WHAT WAS BACKED UP".repeat(50);
                let mut writer = f.writer(ObjectType::Data, Vec::new());
                writer.push_frame(&other, &[ChunkRecord { id: wanted.short(), len: 900 }]).unwrap();
                f.finish(ObjectType::Data, writer);
                f.file(StoredContent::Chunks(vec![ChunkRef { id: wanted, len: 900 }]));
            },
            Named(&[("file", "not what its identity says")]),
        )
        .damaged()
        .after(absent),
        case(
            "poisoned and whole",
            "the same beside a pack that has the real content",
            |f| {
                let real = b"what was backed up".repeat(50);
                let wanted = f.chunk(&real);
                for letter in *b"abcdefgh" {
                    let mut writer = f.writer(ObjectType::Data, Vec::new());
                    writer.push_frame(&[letter; 900], &[ChunkRecord { id: wanted.id.short(), len: 900 }]).unwrap();
                    f.finish(ObjectType::Data, writer);
                }
                f.file(StoredContent::Chunks(vec![wanted]));
            },
            Restored,
        )
        .damaged()
        .after(|target| {
            assert!(std::fs::read(target.join("file")).unwrap() == b"what was backed up".repeat(50));
        }),
        case(
            "chunks exchanged",
            "a pack whose directory exchanges the ids of two chunks of one length",
            |f| {
                let (one, two) = (vec![1; 500], vec![2; 500]);
                let ids = [f.protection.chunk_id(&two), f.protection.chunk_id(&one)];
                let records = ids.map(|id| ChunkRecord { id: id.short(), len: 500 });
                let mut writer = f.writer(ObjectType::Data, Vec::new());
                writer.push_frame(&[one, two].concat(), &records).unwrap();
                f.finish(ObjectType::Data, writer);
                f.file(StoredContent::Chunks(ids.map(|id| ChunkRef { id, len: 500 }).to_vec()));
            },
            Named(&[("file", "not what its identity says")]),
        )
        .damaged()
        .after(absent),
        case(
            "empty chunk in a file",
            "chunks without a byte among the few of an entry",
            |f| {
                let (none, some) = (f.chunk(&[]), f.chunk(&text()));
                f.file(StoredContent::Chunks(vec![none, some, none]));
            },
            Restored,
        )
        .after(|target| assert!(std::fs::read(target.join("file")).unwrap() == text())),
        case(
            "too much inline",
            "inline content of 2^40 bytes",
            |f| {
                let mut content = vec![1];
                put_varint(&mut content, 1 << 40);
                form(f, &content);
            },
            Named(&[("", "bytes of inline content")]),
        )
        .damaged(),
        case(
            "inline content cut short",
            "inline content that is longer than the page that holds it",
            |f| {
                let mut content = vec![1];
                put_bytes(&mut content, &[1; 90]);
                content.truncate(20);
                form(f, &content);
            },
            Named(&[("", "cut short")]),
        )
        .damaged(),
        case("form of content", "content in a form that does not exist", |f| form(f, &[9]), Named(&[("", "unknown form")]))
            .damaged(),
        case(
            "too many chunks in an entry",
            "an entry that claims to list 2^32 chunks itself",
            |f| {
                let mut content = vec![2];
                put_varint(&mut content, 1 << 32);
                form(f, &content);
            },
            Named(&[("", "chunks in an entry")]),
        )
        .damaged(),
        case(
            "chunk too long",
            "a reference to a chunk of 4 GiB",
            |f| {
                let mut content = vec![2, 1];
                content.extend_from_slice(&[7; 32]);
                put_varint(&mut content, u64::from(u32::MAX));
                form(f, &content);
            },
            Named(&[("", "bytes of a chunk")]),
        )
        .damaged(),
        case(
            "sparse and full",
            "a file that claims to have holes and has content in all of its blocks but one",
            |f| {
                let mut content = vec![7; 100_000];
                content[40_960..45_056].fill(0);
                let chunk = f.chunk(&content);
                let mut entry = stored("file", EntryKind::File, StoredContent::Chunks(vec![chunk]));
                entry.entry.sparse = true;
                f.entries(vec![entry]);
            },
            Restored,
        )
        .after(|target| {
            let content = std::fs::read(target.join("file")).unwrap();
            assert!(content.len() == 100_000 && content.iter().filter(|byte| **byte == 7).count() == 95_904);
        }),
        case(
            "sparse directory",
            "holes in a directory, a pipe and a link",
            |f| {
                let mut entries =
                    vec![crate::forge::directory("a"), stored("b", EntryKind::Fifo, StoredContent::None)];
                entries.push(crate::forge::symlink("c", "a"));
                entries.iter_mut().for_each(|entry| entry.entry.sparse = true);
                f.entries(entries);
            },
            Restored,
        ),
    ]
}
