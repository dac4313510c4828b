//! Entries as `--json` and people see them.

use backup_core::{Entry, EntryKind, SnapshotId};
use serde::Serialize;

use crate::human;

/// An entry in `--json`.
#[derive(Debug, Clone, Serialize)]
pub struct ShownEntry {
    /// The snapshot, where entries of several are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// The name; what is not UTF-8 in it is replaced.
    pub name: String,
    /// The name's bytes in hexadecimal, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_hex: Option<String>,
    /// What it is.
    pub kind: &'static str,
    /// Bytes of content.
    pub size: Option<u64>,
    /// Permission bits, in octal.
    pub mode: Option<String>,
    /// Numeric owner.
    pub uid: Option<u32>,
    /// Numeric group.
    pub gid: Option<u32>,
    /// Last change of content.
    pub modified: Option<String>,
    /// Where a symbolic link points, or which entry a hard link names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The names of further attributes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<String>,
}

impl ShownEntry {
    /// How `entry` is shown.
    pub fn new(entry: &Entry, snapshot: Option<SnapshotId>) -> Self {
        let bytes = entry.name.as_bytes();
        let posix = entry.posix.as_ref();
        Self {
            snapshot,
            name: entry.name.to_string(),
            name_hex: std::str::from_utf8(bytes).is_err().then(|| hex::encode(bytes)),
            kind: entry.kind.as_str(),
            size: entry.size.filter(|_| entry.kind.has_content()),
            mode: posix.map(|posix| format!("{:04o}", posix.mode)),
            uid: posix.map(|posix| posix.uid),
            gid: posix.map(|posix| posix.gid),
            modified: posix.map(|posix| posix.modified.to_string()),
            target: target(&entry.kind),
            attributes: entry
                .attributes
                .iter()
                .map(|a| String::from_utf8_lossy(&a.name).into_owned())
                .collect(),
        }
    }
}

/// One line about an entry, like `ls -l`.
pub fn line(entry: &Entry) -> String {
    let letter = match entry.kind {
        EntryKind::Directory => 'd',
        EntryKind::Symlink { .. } => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
        EntryKind::CharDevice { .. } => 'c',
        EntryKind::BlockDevice { .. } => 'b',
        _ => '-',
    };
    let (mode, owner, time) =
        entry.posix.as_ref().map_or(("?".into(), String::new(), String::new()), |posix| {
            (permissions(posix.mode), format!("{}:{}", posix.uid, posix.gid), human::time(posix.modified))
        });
    let size =
        entry.size.filter(|_| entry.kind.has_content()).map(|size| size.to_string()).unwrap_or_default();
    let arrow = match (&entry.kind, target(&entry.kind)) {
        (EntryKind::HardLink { .. }, Some(target)) => format!(" = {}", human::name(&target)),
        (_, Some(target)) => format!(" -> {}", human::name(&target)),
        (_, None) => String::new(),
    };
    format!("{letter}{mode} {owner:>11} {size:>12} {time:19} {}{arrow}", human::name(&entry.name.to_string()))
}

fn target(kind: &EntryKind) -> Option<String> {
    match kind {
        EntryKind::Symlink { target } => Some(String::from_utf8_lossy(target).into_owned()),
        EntryKind::HardLink { to } => Some(to.to_string()),
        _ => None,
    }
}

fn permissions(mode: u32) -> String {
    let bit = |bit: u32, letter: char| if mode & bit != 0 { letter } else { '-' };
    // The place of the execute bit also shows the set-id or sticky bit: small with, capital without execute.
    let last = |execute: u32, special: u32, letter: char| match (mode & special != 0, mode & execute != 0) {
        (true, true) => letter,
        (true, false) => letter.to_ascii_uppercase(),
        (false, true) => 'x',
        (false, false) => '-',
    };
    [
        bit(0o400, 'r'),
        bit(0o200, 'w'),
        last(0o100, 0o4000, 's'),
        bit(0o040, 'r'),
        bit(0o020, 'w'),
        last(0o010, 0o2000, 's'),
        bit(0o004, 'r'),
        bit(0o002, 'w'),
        last(0o001, 0o1000, 't'),
    ]
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_read_like_ls() {
        for (mode, text) in
            [(0o755, "rwxr-xr-x"), (0o4755, "rwsr-xr-x"), (0o1777, "rwxrwxrwt"), (0o2640, "rw-r-S---")]
        {
            assert_eq!(permissions(mode), text);
        }
    }

    #[test]
    fn names_that_are_not_text_are_shown_with_their_bytes() {
        let entry = Entry::file(b"a\xff").unwrap().with_size(3);
        let shown = ShownEntry::new(&entry, None);
        assert_eq!(shown.name_hex.as_deref(), Some("61ff"));
        assert_eq!(ShownEntry::new(&Entry::file("a").unwrap(), None).name_hex, None);
    }
}
