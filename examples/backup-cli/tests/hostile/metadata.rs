//! Metadata that gives rights away, or that no system takes.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use backup_core::EntryKind;
use backup_core::Timestamp;
use backup_core::format::chunks::StoredContent;
use backup_core::format::codec::{put_bytes, put_signed, put_varint};
use backup_sources::Owner;

use crate::case::Verdict::{Named, Restored, Within};
use crate::case::{Case, case};
use crate::forge::{Forge, directory, file, posix, row, stored, with_attribute};

/// cap_setuid in the effective and permitted sets (capabilities(7), struct vfs_cap_data of revision 2).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn devices(forge: &mut Forge) {
    let device = |name, kind| posix(stored(name, kind, StoredContent::None), 0o666, 0);
    forge.entries(vec![
        device("block", EntryKind::BlockDevice { device: (8, 0) }),
        device("char", EntryKind::CharDevice { device: (1, 1) }),
    ]);
}

fn set_id(forge: &mut Forge) {
    forge.entries(vec![posix(file("file"), 0o6755, 4242)]);
}

fn no_set_id(target: &Path) {
    let mode = target.join("file").symlink_metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o6000, 0, "{mode:o}");
}

/// A file with POSIX metadata, byte for byte.
fn metadata_row(forge: &mut Forge, mode: u64, owner: u64, nanoseconds: u32) {
    let mut rest = Vec::new();
    put_varint(&mut rest, mode);
    put_varint(&mut rest, owner);
    put_varint(&mut rest, 0);
    put_signed(&mut rest, 1_000_000_000);
    rest.extend_from_slice(&nanoseconds.to_le_bytes());
    rest.push(0);
    forge.rows(&[row(0, b"file", 0x10, &rest)]);
}

/// A file with these attributes, byte for byte.
fn attribute_row(forge: &mut Forge, names: &[&[u8]], claimed: u64) {
    let mut rest = Vec::new();
    put_varint(&mut rest, claimed);
    for name in names {
        put_bytes(&mut rest, name);
        put_bytes(&mut rest, b"");
    }
    rest.push(0);
    forge.rows(&[row(0, b"file", 0x20, &rest)]);
}

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "devices",
            "devices, which nobody asked for: a disk and the memory, for everybody",
            devices,
            Named(&[("block", "only when asked for"), ("char", "only when asked for")]),
        )
        .after(|target| assert_eq!(std::fs::read_dir(target).unwrap().count(), 0)),
        case(
            "devices of a user",
            "devices that were asked for by somebody without privileges",
            devices,
            Named(&[("block", "not permitted"), ("char", "not permitted")]),
        )
        .options(|target| target.devices(true), &[])
        .by_user(),
        case(
            "set-id bits of a user",
            "set-user-id and set-group-id bits, restored by somebody to whom everything then belongs",
            set_id,
            Named(&[("file", "set-user-id bit is not restored"), ("file", "set-group-id bit is not restored")]),
        )
        .by_user()
        .after(no_set_id),
        case(
            "set-id bits without owners",
            "set-user-id and set-group-id bits, restored by root who wants no owners",
            set_id,
            Restored,
        )
        .options(|target| target.owner(Owner::Ignore), &["--no-owner"])
        .after(no_set_id),
        case(
            "set-id bits whose owner cannot be set",
            "set-id bits of another owner whom the restorer asks for and may not set: they would be the restorer's own",
            set_id,
            Within(&[("file", "")]),
        )
        .options(|target| target.owner(Owner::Restore), &[])
        .by_user()
        .after(no_set_id),
        case(
            "set-id bits without an owner",
            "set-id bits of the owner 4294967295, which means `leave it` to the system: they would be root's",
            |f| f.entries(vec![posix(file("file"), 0o6755, u32::MAX)]),
            Named(&[("file", "set-user-id bit is not restored"), ("file", "set-group-id bit is not restored")]),
        )
        .after(no_set_id),
        case(
            "set-group-id directory without owners",
            "a directory that passes its group on, restored by somebody to whom everything then belongs",
            |f| f.entries(vec![posix(directory("file"), 0o3777, 4242), file("file/x")]),
            Named(&[("file", "set-group-id bit is not restored")]),
        )
        .by_user()
        .after(no_set_id),
        case(
            "capability without owners",
            "a file capability, as good as a set-user-id bit, restored by root who wants no owners",
            |f| f.entries(vec![posix(with_attribute(file("file"), "security.capability", &CAPABILITY), 0o755, 0)]),
            Restored,
        )
        .options(|target| target.owner(Owner::Ignore), &["--no-owner"])
        .after(|target| assert_eq!(xattr::get(target.join("file"), "security.capability").unwrap(), None)),
        case(
            "attributes of the trusted",
            "an attribute that only root may set, restored by somebody else",
            |f| f.entries(vec![with_attribute(file("file"), "trusted.evil", b"1")]),
            Named(&[("file", "trusted.evil")]),
        )
        .by_user(),
        case(
            "attribute's name too long",
            "an attribute whose name is longer than the system allows",
            |f| f.entries(vec![with_attribute(file("file"), &format!("user.{}", "n".repeat(5000)), b"1")]),
            Named(&[("file", "cannot be set")]),
        ),
        case(
            "attribute too long",
            "an attribute whose value is longer than the system allows",
            |f| f.entries(vec![with_attribute(file("file"), "user.long", &[1; 128 * 1024])]),
            Named(&[("file", "cannot be set")]),
        ),
        case(
            "attribute longer than the format's",
            "an attribute whose value is longer than the format allows",
            |f| f.entries(vec![with_attribute(file("file"), "user.long", &[1; 128 * 1024 + 1])]),
            Named(&[("", "exceeds the limit")]),
        )
        .damaged(),
        case(
            "nul in an attribute's name",
            "an attribute whose name a system call would cut short to another one",
            |f| f.entries(vec![with_attribute(file("file"), "user.a\0b", b"1")]),
            Named(&[("file", "cannot be set")]),
        )
        .after(|target| assert_eq!(xattr::list(target.join("file")).unwrap().count(), 0)),
        case(
            "attribute without a name",
            "an attribute of no name",
            |f| f.entries(vec![with_attribute(file("file"), "", b"1")]),
            Named(&[("file", "cannot be set")]),
        ),
        case(
            "access list that is none",
            "a POSIX access list of bytes that are none",
            |f| f.entries(vec![with_attribute(file("file"), "system.posix_acl_access", b"\xff\xff\xff\xffnone")]),
            Named(&[("file", "posix_acl_access")]),
        ),
        case(
            "attributes out of order",
            "attributes that descend, of which the last would win",
            |f| attribute_row(f, &[b"xattr:user.b", b"xattr:user.a"], 2),
            Named(&[("", "out of order")]),
        )
        .damaged(),
        case(
            "attribute twice",
            "the same attribute twice",
            |f| attribute_row(f, &[b"xattr:user.a", b"xattr:user.a"], 2),
            Named(&[("", "out of order")]),
        )
        .damaged(),
        case(
            "count of attributes",
            "a claim to have 2^60 attributes",
            |f| attribute_row(f, &[], 1 << 60),
            Named(&[("", "attributes of an entry")]),
        )
        .damaged(),
        case(
            "time out of range",
            "times of modification that no file system and no calendar has",
            |f| {
                let mut entries = vec![posix(file("file"), 0o644, 0), posix(directory("x"), 0o755, 0)];
                for (entry, seconds) in entries.iter_mut().zip([i64::MAX, i64::MIN]) {
                    entry.entry.posix.as_mut().unwrap().modified = Timestamp::new(seconds, 999_999_999);
                }
                f.entries(entries);
            },
            Within(&[("file", "time"), ("x", "time")]),
        ),
        case(
            "nanoseconds",
            "a time with more than a second of nanoseconds: two of its values mean `now` and `leave it`",
            |f| metadata_row(f, 0o644, 0, 0x3fff_ffff),
            Named(&[("", "out of range")]),
        )
        .damaged(),
        case(
            "mode with a type",
            "a mode whose upper bits say that the file is a device",
            |f| metadata_row(f, 0o060_666, 0, 0),
            Named(&[("", "out of range")]),
        )
        .damaged(),
        case(
            "owner of 33 bits",
            "an owner of more than 32 bits, which cut down is root",
            |f| metadata_row(f, 0o4755, 1 << 32, 0),
            Named(&[("", "exceeds 32 bits")]),
        )
        .damaged(),
        case(
            "forbidding directory",
            "a directory that forbids its owner to enter it, before what is below it is written",
            |f| f.entries(vec![posix(directory("a"), 0o000, 0), file("a/file")]),
            Restored,
        )
        .by_user()
        .after(|target| assert_eq!(target.join("a").metadata().unwrap().mode() & 0o7777, 0)),
        case(
            "kind that is none",
            "an entry of a kind that does not exist",
            |f| f.rows(&[row(0, b"file", 9, &[])]),
            Named(&[("", "unknown kind")]),
        )
        .damaged(),
        case(
            "device number of 33 bits",
            "a device whose number, cut down to 32 bits, is that of another",
            |f| {
                let mut rest = Vec::new();
                put_varint(&mut rest, (1 << 32) + 1);
                put_varint(&mut rest, 1);
                f.rows(&[row(0, b"file", 6, &rest)]);
            },
            Named(&[("", "exceeds 32 bits")]),
        )
        .damaged(),
    ]
}
