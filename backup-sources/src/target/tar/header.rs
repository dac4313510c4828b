//! Headers of the ustar and pax interchange formats (IEEE Std 1003.1-2017, pax).

use backup_core::entry::XATTR_PREFIX;
use backup_core::{Entry, EntryKind, OwnerNames, PosixMetadata, Timestamp};

use crate::acl::{self, Who};

/// Largest number in an octal field of 11 digits, and of 7.
const OCTAL_11_MAX: u64 = 0o77_777_777_777;
const OCTAL_7_MAX: u64 = 0o7_777_777;

/// What stands before the content of `entry`, whose length is `len`: a pax header where something does not fit into the
/// old one, and the old one.
pub(super) fn header(entry: &Entry, len: u64, names: &OwnerNames) -> Vec<u8> {
    let posix = entry.posix.unwrap_or(PosixMetadata {
        mode: if entry.kind == EntryKind::Directory { 0o755 } else { 0o644 },
        ..PosixMetadata::default()
    });
    let mut name = entry.name.as_bytes().to_vec();
    let (kind, link, device): (u8, &[u8], (u32, u32)) = match &entry.kind {
        EntryKind::HardLink { to } => (b'1', to.as_bytes(), (0, 0)),
        EntryKind::Symlink { target } => (b'2', target, (0, 0)),
        EntryKind::CharDevice { device } => (b'3', b"", *device),
        EntryKind::BlockDevice { device } => (b'4', b"", *device),
        EntryKind::Directory => (b'5', b"", (0, 0)),
        EntryKind::Fifo => (b'6', b"", (0, 0)),
        _ => (b'0', b"", (0, 0)),
    };
    if kind == b'5' {
        name.push(b'/');
    }
    let owner = Owner {
        user: names.users.get(&posix.uid).map(String::as_str).unwrap_or_default(),
        group: names.groups.get(&posix.gid).map(String::as_str).unwrap_or_default(),
    };
    let records = records(entry, &posix, &owner, names, &name, link, len);
    let mut out = Vec::new();
    if !records.is_empty() {
        let about = b"././@PaxHeader";
        let records_len = u64::try_from(records.len()).unwrap_or_default();
        let nobody = Owner::default();
        out.extend_from_slice(&block(
            about,
            b"",
            b'x',
            records_len,
            &PosixMetadata::default(),
            &nobody,
            (0, 0),
        ));
        out.extend_from_slice(&records);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.extend_from_slice(&block(&name, link, kind, len, &posix, &owner, device));
    out
}

/// Names of a user and a group; empty where they are not known.
#[derive(Debug, Clone, Copy, Default)]
struct Owner<'a> {
    user: &'a str,
    group: &'a str,
}

/// Bytes of a name in the old header, which ends with a zero.
const OWNER_BYTES: usize = 31;

fn records(
    entry: &Entry,
    posix: &PosixMetadata,
    owner: &Owner<'_>,
    names: &OwnerNames,
    name: &[u8],
    link: &[u8],
    len: u64,
) -> Vec<u8> {
    let mut records = Vec::new();
    let long_name = name.len() > 100;
    let long_link = link.len() > 100;
    if (long_name && std::str::from_utf8(name).is_err()) || (long_link && std::str::from_utf8(link).is_err())
    {
        record(&mut records, b"hdrcharset", b"BINARY");
    }
    if long_name {
        record(&mut records, b"path", name);
    }
    if long_link {
        record(&mut records, b"linkpath", link);
    }
    if len > OCTAL_11_MAX {
        record(&mut records, b"size", len.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], posix.uid), (b"gid", posix.gid)] {
        if u64::from(id) > OCTAL_7_MAX {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    for (key, name) in [(&b"uname"[..], owner.user), (b"gname", owner.group)] {
        if name.len() > OWNER_BYTES {
            record(&mut records, key, name.as_bytes());
        }
    }
    let time = posix.modified;
    let fits = u64::try_from(time.seconds()).is_ok_and(|seconds| seconds <= OCTAL_11_MAX);
    if time.nanoseconds() != 0 || !fits {
        record(&mut records, b"mtime", decimal(time).as_bytes());
    }
    // Another name of a file has no attributes of its own.
    if !matches!(entry.kind, EntryKind::HardLink { .. }) {
        for attribute in &entry.attributes {
            let Some(xattr) = attribute.name.strip_prefix(XATTR_PREFIX) else { continue };
            let list = ACCESS_LISTS.iter().find(|(name, _)| *name == xattr);
            if let Some((_, key)) = list
                && let Some(text) = acl::text(&attribute.value, |who| name_of(names, who))
            {
                record(&mut records, key, text.as_bytes());
            } else if !xattr.contains(&b'=') {
                record(&mut records, &[b"SCHILY.xattr.", xattr].concat(), &attribute.value);
            }
        }
    }
    records
}

/// Access control lists have keys of their own, first used by star, and stand there as text.
const ACCESS_LISTS: [(&[u8], &[u8]); 2] =
    [(acl::NAMES[0], b"SCHILY.acl.access"), (acl::NAMES[1], b"SCHILY.acl.default")];

fn name_of(names: &OwnerNames, who: Who) -> Option<String> {
    match who {
        Who::User(id) => names.users.get(&id),
        Who::Group(id) => names.groups.get(&id),
    }
    .cloned()
}

/// `length key=value\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // A space, an equals sign and a newline.
    let rest = key.len().saturating_add(value.len()).saturating_add(3);
    let mut len = rest;
    loop {
        let whole = rest.saturating_add(len.to_string().len());
        if whole == len {
            break;
        }
        len = whole;
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Seconds with a fraction. Before 1970 the fraction counts backwards, as the whole number does.
fn decimal(time: Timestamp) -> String {
    let (seconds, nanoseconds) = (time.seconds(), time.nanoseconds());
    match (seconds < 0, nanoseconds) {
        (_, 0) => seconds.to_string(),
        (false, _) => format!("{seconds}.{nanoseconds:09}"),
        (true, _) => {
            let whole = seconds.saturating_add(1).unsigned_abs();
            format!("-{whole}.{:09}", 1_000_000_000_u32.saturating_sub(nanoseconds))
        }
    }
}

fn block(
    name: &[u8],
    link: &[u8],
    kind: u8,
    len: u64,
    posix: &PosixMetadata,
    owner: &Owner<'_>,
    device: (u32, u32),
) -> [u8; 512] {
    let mut block = [0; 512];
    put(&mut block, 0, name, 100);
    octal(&mut block, 100, 8, u64::from(posix.mode & 0o7777));
    octal(&mut block, 108, 8, u64::from(posix.uid));
    octal(&mut block, 116, 8, u64::from(posix.gid));
    octal(&mut block, 124, 12, len);
    octal(&mut block, 136, 12, u64::try_from(posix.modified.seconds()).unwrap_or_default());
    put(&mut block, 148, b"        ", 8);
    put(&mut block, 156, &[kind], 1);
    put(&mut block, 157, link, 100);
    put(&mut block, 257, b"ustar\x0000", 8);
    put(&mut block, 265, owner.user.as_bytes(), OWNER_BYTES);
    put(&mut block, 297, owner.group.as_bytes(), OWNER_BYTES);
    octal(&mut block, 329, 8, u64::from(device.0));
    octal(&mut block, 337, 8, u64::from(device.1));
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes(), 8);
    block
}

fn put(block: &mut [u8; 512], at: usize, bytes: &[u8], max: usize) {
    let room = block.iter_mut().skip(at).take(max);
    room.zip(bytes).for_each(|(to, from)| *to = *from);
}

/// A number in a field of `width` bytes; what does not fit stands in the pax header, and here the largest that does.
fn octal(block: &mut [u8; 512], at: usize, width: usize, value: u64) {
    let digits = width.saturating_sub(1);
    let max = if width == 8 { OCTAL_7_MAX } else { OCTAL_11_MAX };
    put(block, at, format!("{:0digits$o}\0", value.min(max)).as_bytes(), width);
}
