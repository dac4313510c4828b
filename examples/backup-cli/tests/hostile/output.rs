//! What a hostile repository says, on the terminal of whoever looks at it.

use backup_core::ErrorKind;
use backup_core::format::chunks::{ChunkRef, StoredContent};
use backup_core::{ChunkId, EntryKind};
use serde_json::json;

use crate::case::Verdict::{Named, Refused, Restored};
use crate::case::{Case, case};
use crate::forge::{file, stored, symlink};

/// Colours, a line of one's own, a title for the window, and letters in another order.
const DRIVES: &str = "\u{1b}[31mred\nroot-owned line\r\u{7}\u{1b}]0;title\u{7}\u{9b}2J\u{202e}txt.exe";

const LS: &[&str] = &["ls", "eeee"];
const LIST: &[&str] = &["list"];
const SHOW: &[&str] = &["show", "eeee"];
const FIND: &[&str] = &["find", "*"];
const RESTORE: &[&str] = &["restore", "eeee", "--dry-run", "--to", "/nonexistent"];
const VERIFY: &[&str] = &["verify", "--level", "content"];

pub fn cases() -> Vec<Case> {
    vec![
        case("names", "names of entries that drive a terminal", |f| f.entries(vec![file(DRIVES)]), Restored)
            .shows(&[LS, FIND, RESTORE]),
        case(
            "targets of links",
            "targets of links that drive a terminal",
            |f| f.entries(vec![symlink("link", DRIVES)]),
            Restored,
        )
        .shows(&[LS, FIND]),
        case(
            "damaged names",
            "names of entries that drive a terminal, in what a verification names",
            |f| {
                let content = StoredContent::Chunks(vec![ChunkRef { id: ChunkId([7; 32]), len: 77 }]);
                f.entries(vec![stored(DRIVES, EntryKind::File, content)]);
            },
            Named(&[("*", "is in no pack")]),
        )
        .damaged()
        .shows(&[VERIFY]),
        case(
            "labels and tags",
            "a label, tags, a host, a source and a description that drive a terminal",
            |f| {
                f.edit = Some(|document| {
                    for member in ["label", "host", "source", "description", "tenant"] {
                        document[member] = DRIVES.into();
                    }
                    document["identity"] = json!([DRIVES]);
                    document["tags"] = json!({ DRIVES: DRIVES });
                    document["position"] = json!({ DRIVES: DRIVES });
                });
                f.entries(vec![file("file")]);
            },
            Restored,
        )
        .shows(&[LIST, SHOW]),
        case(
            "reasons",
            "skipped items whose names and reasons drive a terminal",
            |f| {
                f.edit = Some(|document| {
                    document["skipped"] = json!([{ "name": DRIVES, "reason": DRIVES }]);
                    document["skipped_count"] = 1.into();
                    document["outcome"] = "partial".into();
                });
                f.entries(vec![file("file")]);
            },
            Restored,
        )
        .shows(&[LIST, SHOW]),
        case(
            "errors",
            "a snapshot that cannot be read for a reason that it chooses itself",
            |f| {
                f.edit = Some(|document| document["outcome"] = DRIVES.into());
                f.entries(vec![file("file")]);
            },
            Refused(ErrorKind::Corruption, "unknown variant"),
        )
        .damaged()
        .shows(&[LIST, SHOW, VERIFY]),
        case(
            "names that are no text",
            "names that are not UTF-8 and drive a terminal of eight bits",
            |f| {
                let mut entry = file("x");
                entry.entry.name = backup_core::EntryName::new(b"\xff\x9b2J\x1b[31m").unwrap();
                f.entries(vec![entry]);
            },
            Restored,
        )
        .shows(&[LS, FIND]),
    ]
}
