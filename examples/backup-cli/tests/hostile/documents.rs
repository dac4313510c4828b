//! Documents and key slots that cost much, or say that they are others.

use backup_core::format::codec::put_varint;
use backup_core::format::document;
use backup_core::format::page::TreeRoot;
use backup_core::{ErrorKind, ObjectType, Unprotected};
use serde_json::{Value, json};

use crate::case::Verdict::{Refused, Restored};
use crate::case::{Case, Verify, case};
use crate::forge::{FORGED, Forge, file, lying_document, salt};

/// A snapshot of one file whose document is changed.
fn edited(f: &mut Forge, edit: fn(&mut Value)) {
    f.edit = Some(edit);
    f.entries(vec![file("file")]);
}

/// A snapshot of one file whose document is these bytes in place of `"HERE"`.
fn spliced(f: &mut Forge, splice: &str) {
    let page = f.leaf(vec![file("file")]);
    let root = TreeRoot { page, levels: 0, rows: 1 };
    let mut document = serde_json::to_value(f.document(root, None)).unwrap();
    f.commit(root);
    document["host"] = "HERE".into();
    let text = document.to_string().replace("\"HERE\"", splice);
    lying_document(f, &format!("snapshots/{FORGED}"), ObjectType::Snapshot, text.into_bytes());
}

fn slot(f: &mut Forge, change: impl FnOnce(&str) -> String) {
    let key = f.key("keys/");
    let text = String::from_utf8(f.objects[&key].clone()).unwrap();
    f.objects.insert(key, change(&text).into_bytes());
    f.entries(vec![file("file")]);
}

pub fn cases() -> Vec<Case> {
    let damage = |text| Refused(ErrorKind::Corruption, text);
    vec![
        case(
            "unknown member of millions",
            "a snapshot of two kilobytes whose unknown member has five million items: kept, they take 180 MiB",
            |f| spliced(f, &format!("\"\",\"unknown\":[{}0]", "[],".repeat(5_000_000))),
            Restored,
        ),
        case(
            "identity of millions",
            "a snapshot of two kilobytes whose source is distinguished by five million empty texts",
            |f| spliced(f, &format!("\"\",\"identity\":[{}\"\"]", "\"\",".repeat(5_000_000))),
            damage(""),
        )
        .damaged(),
        case(
            "skipped by the million",
            "a snapshot of two kilobytes that names half a million skipped items",
            |f| {
                edited(f, |document| {
                    document["skipped"] = vec![json!({ "name": "", "reason": "" }); 500_000].into();
                });
            },
            damage("at most"),
        )
        .damaged(),
        case(
            "depth of a document",
            "a snapshot with a million lists, one in the other, in a member that is passed over",
            |f| spliced(f, &format!("\"\",\"unknown\":{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000))),
            Restored,
        ),
        case(
            "number of a million digits",
            "a snapshot that counts its entries with a million digits",
            |f| spliced(f, &format!("\"\",\"unknown\":{}", "9".repeat(1_000_000))),
            Restored,
        ),
        case(
            "counts at their end",
            "a snapshot that claims 2^64 - 1 entries and bytes, of which sums are made",
            |f| {
                edited(f, |document| {
                    for count in ["entries", "bytes_logical", "bytes_added", "skipped_count"] {
                        document[count] = u64::MAX.into();
                    }
                });
            },
            Restored,
        ),
        case(
            "member twice",
            "a snapshot that says twice what it is, for readers that take the first or the last",
            |f| spliced(f, &format!("\"\",\"id\":\"{}\"", "0".repeat(32))),
            damage("duplicate field"),
        )
        .damaged(),
        case(
            "another identity",
            "a snapshot that says that it is another than its key does",
            |f| edited(f, |document| document["id"] = "0".repeat(32).into()),
            damage("another session"),
        )
        .damaged(),
        case(
            "document of another repository",
            "a snapshot sealed here that says that it is of another repository",
            |f| edited(f, |document| document["repository"] = "0".repeat(32).into()),
            damage("another session"),
        )
        .damaged(),
        case(
            "parent of itself",
            "a snapshot that is its own parent",
            |f| edited(f, |document| document["parent"] = FORGED.to_string().into()),
            Restored,
        ),
        case(
            "time at its end",
            "a snapshot of a time that no calendar has",
            |f| edited(f, |document| document["time"] = "@9223372036854775807.999999999".into()),
            Restored,
        ),
        case(
            "fence",
            "a fence in the place of a snapshot",
            |f| {
                edited(f, |document| {
                    document["fence"] = true.into();
                    document["session"] = FORGED.to_string().into();
                });
            },
            Refused(ErrorKind::NotFound, "is no snapshot"),
        )
        .library_only(),
        case(
            "document of two frames",
            "a snapshot of two frames, of which only the first is looked at",
            |f| {
                f.entries(vec![file("file")]);
                let mut writer = f.writer(ObjectType::Snapshot, Vec::new());
                writer.push_frame(b"{}", &[]).unwrap();
                writer.push_frame(b"{}", &[]).unwrap();
                f.objects.insert(format!("snapshots/{FORGED}"), writer.finish().unwrap().bytes.to_vec());
            },
            damage("exactly one frame"),
        )
        .damaged(),
        case(
            "chunker of nothing",
            "a configuration that cuts content every 0 bytes",
            |f| {
                f.entries(vec![file("file")]);
                let parameters = json!({
                    "repository": f.protection.repository(), "created": "2026-11-20T08:00:00Z", "required_features": [],
                    "chunker": { "min_bytes": 0, "avg_bytes": 0, "max_bytes": 0 },
                });
                f.seal("config", ObjectType::Config, &parameters);
            },
            damage(""),
        )
        .verify(Verify::Refused),
        case(
            "feature of tomorrow",
            "a configuration that requires a feature whose name drives a terminal",
            |f| {
                f.entries(vec![file("file")]);
                let parameters = json!({ "required_features": ["\u{1b}[2J\u{1b}[1;1H"] });
                f.seal("config", ObjectType::Config, &parameters);
            },
            Refused(ErrorKind::Unsupported, "needs the feature"),
        )
        .verify(Verify::Refused),
        case(
            "no encryption any more",
            "a configuration without encryption in the place of one with, so that everything new is written in clear",
            |f| {
                f.entries(vec![file("file")]);
                let plain = Unprotected::new(f.protection.repository());
                let parameters = json!({
                    "repository": f.protection.repository(), "created": "2026-11-20T08:00:00Z", "required_features": [],
                    "chunker": { "min_bytes": 131_072, "avg_bytes": 524_288, "max_bytes": 2_097_152 },
                });
                let bytes = document::seal(&plain, ObjectType::Config, salt(), &parameters).unwrap();
                f.objects.insert("config".into(), bytes.to_vec());
            },
            damage(""),
        )
        .verify(Verify::Refused),
        case(
            "slots by the thousand",
            "two thousand key slots",
            |f| {
                f.entries(vec![file("file")]);
                let bytes = f.objects[&f.key("keys/")].clone();
                f.objects.extend((0..2000).map(|n| (format!("keys/1/{n:032x}"), bytes.clone())));
            },
            Refused(ErrorKind::LimitExceeded, "more than 1024 objects"),
        )
        .verify(Verify::Refused),
        case(
            "slot of depth",
            "a key slot of sixteen thousand lists, one in the other",
            |f| slot(f, |_| format!("{}\nmac {}\n", "[".repeat(16_000), "0".repeat(64))),
            Refused(ErrorKind::Denied, ""),
        )
        .verify(Verify::Refused),
        case(
            "slot without end",
            "a key slot of a megabyte",
            |f| slot(f, |text| text.to_owned() + &" ".repeat(1 << 20)),
            Refused(ErrorKind::Denied, ""),
        )
        .verify(Verify::Refused),
        case(
            "slot that says it twice",
            "a key slot with a member that stands twice",
            |f| slot(f, |text| text.replacen("\"format\":1", "\"format\":1,\"format\":1", 1)),
            Refused(ErrorKind::Denied, ""),
        )
        .verify(Verify::Refused),
        case(
            "slot that somebody changed",
            "a key slot whose label somebody changed who has no key",
            |f| slot(f, |text| text.replacen("\"created\":\"2", "\"created\":\"1", 1)),
            Refused(ErrorKind::Corruption, ""),
        )
        .verify(Verify::Refused),
        case(
            "slot of tomorrow's epoch",
            "a key slot moved to the last epoch there can be, so that the real one looks old",
            |f| {
                f.entries(vec![file("file")]);
                let (key, bytes) = (f.key("keys/"), f.objects[&f.key("keys/")].clone());
                f.objects.insert(key.replacen("keys/1/", "keys/4294967295/", 1), bytes);
            },
            Restored,
        ),
        case(
            "passphrase that costs too much",
            "a key slot whose passphrase costs 4 TiB of memory",
            |f| slot(f, |text| argon2(text, u32::MAX, 1)),
            Refused(ErrorKind::Denied, ""),
        )
        .passphrase("a passphrase"),
        case(
            "passphrase that costs for ever",
            "a key slot whose passphrase costs 2^32 passes",
            |f| slot(f, |text| argon2(text, 1024, u32::MAX)),
            Refused(ErrorKind::Denied, ""),
        )
        .passphrase("a passphrase"),
        case(
            "passphrases by the hundred",
            "a thousand key slots, each of which a passphrase must be tried on",
            |f| {
                f.entries(vec![file("file")]);
                let text = String::from_utf8(f.objects[&f.key("keys/")].clone()).unwrap();
                let id = f.key("keys/").rsplit('/').next().unwrap().to_owned();
                f.objects.extend((0..1000).map(|n| {
                    let name = format!("{n:032x}");
                    (format!("keys/1/{name}"), argon2(&text, 1024, 1).replace(&id, &name).into_bytes())
                }));
            },
            Refused(ErrorKind::Denied, "only 64 passphrase slots"),
        )
        .passphrase("a passphrase"),
        case(
            "claims of a session",
            "objects under the names of sessions that are none",
            |f| {
                f.entries(vec![file("file")]);
                let mut claims = Vec::new();
                put_varint(&mut claims, u64::MAX);
                f.objects.insert("control/sessions/nobody/open".into(), claims.clone());
                f.objects.insert(format!("control/sessions/{FORGED}/decision"), claims);
            },
            Restored,
        )
        .damaged(),
    ]
}

/// A slot of a key file as one of a passphrase of this cost.
fn argon2(text: &str, memory_kib: u32, passes: u32) -> String {
    let kdf = format!(
        "\"name\":\"argon2id\",\"cost\":{{\"memory_kib\":{memory_kib},\"passes\":{passes},\"lanes\":1}}"
    );
    text.replacen("\"kind\":\"key-file\"", "\"kind\":\"passphrase\"", 1).replacen(
        "\"name\":\"hkdf-sha256\"",
        &kdf,
        1,
    )
}
