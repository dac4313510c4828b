//! Entry pages: sorted entries, each named by its difference from the one before.

use super::chunks::StoredContent;
use super::codec::{Cursor, put_bytes, put_signed, put_varint};
use super::page::{PageKind, begin_page, finish_page};
use crate::entry::{Attribute, Entry, EntryKind, EntryName, PosixMetadata};
use crate::limits;
use crate::{Error, Result, Timestamp};

/// An entry of a snapshot, with the place of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// The entry; its size is that of the stored content.
    pub entry: Entry,
    /// Its content.
    pub content: StoredContent,
}

const HAS_POSIX: u8 = 0x10;
const HAS_ATTRIBUTES: u8 = 0x20;
const HAS_STAMP: u8 = 0x40;
const IS_SPARSE: u8 = 0x80;
const KIND: u8 = 0x0f;

/// Collects entries in ascending order until they are cut into a page.
#[derive(Debug, Default)]
pub struct EntryPageWriter {
    rows: Vec<u8>,
    count: usize,
    last: Vec<u8>,
    first: Option<EntryName>,
    /// Bytes of all names written out.
    names: usize,
    seconds: i64,
}

impl EntryPageWriter {
    /// Adds an entry.
    pub fn push(&mut self, stored: &StoredEntry) {
        let entry = &stored.entry;
        let name = entry.name.as_bytes();
        let shared = name.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        put_varint(&mut self.rows, shared as u64);
        put_bytes(&mut self.rows, name.get(shared..).unwrap_or_default());
        self.last.clear();
        self.last.extend_from_slice(name);
        if self.first.is_none() {
            self.first = Some(entry.name.clone());
        }
        self.count += 1;
        self.names = self.names.saturating_add(name.len());

        let mut flags = kind_number(&entry.kind);
        flags |= if entry.posix.is_some() { HAS_POSIX } else { 0 };
        flags |= if entry.attributes.is_empty() { 0 } else { HAS_ATTRIBUTES };
        flags |= if entry.stamp.is_some() { HAS_STAMP } else { 0 };
        flags |= if entry.sparse { IS_SPARSE } else { 0 };
        self.rows.push(flags);
        if let Some(posix) = &entry.posix {
            put_varint(&mut self.rows, u64::from(posix.mode));
            put_varint(&mut self.rows, u64::from(posix.uid));
            put_varint(&mut self.rows, u64::from(posix.gid));
            put_signed(&mut self.rows, posix.modified.seconds().wrapping_sub(self.seconds));
            self.rows.extend_from_slice(&posix.modified.nanoseconds().to_le_bytes());
            self.seconds = posix.modified.seconds();
        }
        if !entry.attributes.is_empty() {
            put_varint(&mut self.rows, entry.attributes.len() as u64);
            for attribute in &entry.attributes {
                put_bytes(&mut self.rows, &attribute.name);
                put_bytes(&mut self.rows, &attribute.value);
            }
        }
        if let Some(stamp) = &entry.stamp {
            put_bytes(&mut self.rows, stamp);
        }
        match &entry.kind {
            EntryKind::File => stored.content.encode(&mut self.rows),
            EntryKind::Symlink { target } => put_bytes(&mut self.rows, target),
            EntryKind::HardLink { to } => put_bytes(&mut self.rows, to.as_bytes()),
            EntryKind::CharDevice { device } | EntryKind::BlockDevice { device } => {
                put_varint(&mut self.rows, u64::from(device.0));
                put_varint(&mut self.rows, u64::from(device.1));
            }
            EntryKind::Directory | EntryKind::Fifo | EntryKind::Socket => {}
        }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the page must be cut before another entry is added.
    pub fn is_full(&self) -> bool {
        // The next name still fits.
        let names = self.names.saturating_add(limits::NAME_BYTES_MAX);
        self.rows.len() >= limits::PAGE_BYTES_MAX
            || self.count >= limits::PAGE_ROWS_MAX
            || names > limits::PAGE_NAMES_BYTES_MAX
    }

    /// Whether no entry was added.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Entries so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The finished page and the first name in it; the writer starts anew. None if it is empty.
    pub fn cut(&mut self) -> Option<(EntryName, Vec<u8>)> {
        let first = self.first.take()?;
        let page = finish_page(PageKind::Entries, self.count, &self.rows);
        self.rows.clear();
        self.last.clear();
        self.count = 0;
        self.names = 0;
        self.seconds = 0;
        Some((first, page))
    }
}

impl StoredEntry {
    /// All entries of a page; their names ascend.
    pub fn decode_page(page: &[u8]) -> Result<Vec<Self>> {
        let mut cursor = Cursor::new(page);
        let count = begin_page(&mut cursor, PageKind::Entries)?;
        // An entry takes at least five bytes; what is claimed beyond that is not believed.
        let mut entries: Vec<Self> = Vec::with_capacity(count.min(page.len() / 5));
        let mut name = Vec::new();
        let mut seconds = 0_i64;
        let mut names = 0_usize;
        for _ in 0..count {
            let shared = cursor.count(name.len(), "bytes shared with the name before")?;
            name.truncate(shared);
            name.extend_from_slice(cursor.bytes(limits::NAME_BYTES_MAX, "bytes of a name")?);
            // A few bytes can claim a long name again and again.
            names = names.saturating_add(name.len());
            if names > limits::PAGE_NAMES_BYTES_MAX {
                return Err(Error::corruption("the names of a page are longer than the format allows"));
            }
            let entry_name = EntryName::new(&name).map_err(|e| Error::corruption(e.message()))?;
            if entries.last().is_some_and(|last| last.entry.name >= entry_name) {
                return Err(Error::corruption("the entries of a page are out of order"));
            }
            entries.push(decode_entry(&mut cursor, entry_name, &mut seconds)?);
        }
        cursor.finish()?;
        Ok(entries)
    }
}

fn decode_entry(cursor: &mut Cursor<'_>, name: EntryName, seconds: &mut i64) -> Result<StoredEntry> {
    let flags = cursor.byte()?;
    let posix = if flags & HAS_POSIX == 0 {
        None
    } else {
        let mode = cursor.varint_u32("a mode")?;
        let uid = cursor.varint_u32("an owner")?;
        let gid = cursor.varint_u32("a group")?;
        *seconds = seconds.wrapping_add(cursor.signed()?);
        let nanoseconds = cursor.u32()?;
        if nanoseconds > 999_999_999 || mode > 0o7777 {
            return Err(Error::corruption("a mode or time is out of range"));
        }
        Some(PosixMetadata { mode, uid, gid, modified: Timestamp::new(*seconds, nanoseconds) })
    };
    let mut attributes: Vec<Attribute> = Vec::new();
    if flags & HAS_ATTRIBUTES != 0 {
        for _ in 0..cursor.count(limits::ENTRY_ATTRIBUTES_MAX, "attributes of an entry")? {
            let name = cursor.bytes(limits::NAME_BYTES_MAX, "bytes of an attribute's name")?.into();
            let value = cursor.bytes(limits::ATTRIBUTE_BYTES_MAX, "bytes of an attribute")?.into();
            if attributes.last().is_some_and(|last| last.name >= name) {
                return Err(Error::corruption("the attributes of an entry are out of order"));
            }
            attributes.push(Attribute { name, value });
        }
    }
    let stamp = match flags & HAS_STAMP {
        0 => None,
        _ => Some(cursor.bytes(limits::ATTRIBUTE_BYTES_MAX, "bytes of a stamp")?.into()),
    };
    let mut content = StoredContent::None;
    let device = |cursor: &mut Cursor<'_>| -> Result<(u32, u32)> {
        Ok((cursor.varint_u32("a device number")?, cursor.varint_u32("a device number")?))
    };
    let kind = match flags & KIND {
        0 => {
            content = StoredContent::decode(cursor)?;
            EntryKind::File
        }
        1 => EntryKind::Directory,
        2 => EntryKind::Symlink {
            target: cursor.bytes(limits::NAME_BYTES_MAX, "bytes of a link's target")?.into(),
        },
        3 => {
            let to = cursor.bytes(limits::NAME_BYTES_MAX, "bytes of a name")?;
            EntryKind::HardLink { to: EntryName::new(to).map_err(|e| Error::corruption(e.message()))? }
        }
        4 => EntryKind::Fifo,
        5 => EntryKind::Socket,
        6 => EntryKind::CharDevice { device: device(cursor)? },
        7 => EntryKind::BlockDevice { device: device(cursor)? },
        kind => return Err(Error::corruption(format!("an entry has the unknown kind {kind}"))),
    };
    let size = kind.has_content().then(|| content.len());
    let entry = Entry { name, kind, posix, attributes, size, stamp, sparse: flags & IS_SPARSE != 0 };
    Ok(StoredEntry { entry, content })
}

fn kind_number(kind: &EntryKind) -> u8 {
    match kind {
        EntryKind::File => 0,
        EntryKind::Directory => 1,
        EntryKind::Symlink { .. } => 2,
        EntryKind::HardLink { .. } => 3,
        EntryKind::Fifo => 4,
        EntryKind::Socket => 5,
        EntryKind::CharDevice { .. } => 6,
        EntryKind::BlockDevice { .. } => 7,
    }
}

/// Whether an entry keeps to the limits of the format, or what is wrong with it.
pub fn check_entry(entry: &Entry) -> Result<()> {
    let wrong = |what: &str| Err(Error::invalid_input(what).with_entry(&entry.name));
    if entry.attributes.len() > limits::ENTRY_ATTRIBUTES_MAX {
        return wrong("has more attributes than the format allows");
    }
    if entry
        .attributes
        .iter()
        .any(|a| a.name.len() > limits::NAME_BYTES_MAX || a.value.len() > limits::ATTRIBUTE_BYTES_MAX)
    {
        return wrong("has an attribute longer than the format allows");
    }
    if entry.attributes.iter().zip(entry.attributes.iter().skip(1)).any(|(a, b)| a.name >= b.name) {
        return wrong("has attributes out of order");
    }
    let target = match &entry.kind {
        EntryKind::Symlink { target } => target.len(),
        _ => 0,
    };
    let attributes = entry.attributes.iter().map(|a| a.name.len().saturating_add(a.value.len()));
    let bytes = attributes.chain([target, entry.stamp.as_ref().map_or(0, |stamp| stamp.len())]);
    if bytes.fold(0, usize::saturating_add) > limits::ENTRY_BYTES_MAX {
        return wrong("has more bytes of attributes than the format allows");
    }
    if entry.posix.is_some_and(|posix| posix.mode > 0o7777) {
        return wrong("has a mode beyond twelve bits");
    }
    if matches!(&entry.kind, EntryKind::Symlink { target } if target.len() > limits::NAME_BYTES_MAX) {
        return wrong("is a link with a target longer than the format allows");
    }
    if entry.stamp.as_ref().is_some_and(|stamp| stamp.len() > limits::ATTRIBUTE_BYTES_MAX) {
        return wrong("has a stamp longer than the format allows");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChunkId;
    use crate::format::chunks::ChunkRef;
    use crate::format::page::{PageRef, TreeRoot};
    use proptest::prelude::*;

    fn content() -> impl Strategy<Value = StoredContent> {
        let chunk =
            (any::<[u8; 32]>(), 0_u32..100_000).prop_map(|(id, len)| ChunkRef { id: ChunkId(id), len });
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..limits::INLINE_BYTES_MAX)
                .prop_map(|b| StoredContent::Inline(b.into())),
            prop::collection::vec(chunk.clone(), 0..limits::INLINE_CHUNKS_MAX)
                .prop_map(StoredContent::Chunks),
            (chunk, any::<u64>(), 0..=limits::PAGE_LEVELS_MAX, any::<u64>()).prop_map(
                |(chunk, rows, levels, bytes)| {
                    let page = PageRef { id: chunk.id, len: chunk.len };
                    StoredContent::Paged { root: TreeRoot { page, levels, rows }, bytes }
                }
            ),
        ]
    }

    fn stored() -> impl Strategy<Value = StoredEntry> {
        let kind = prop_oneof![
            4 => Just(EntryKind::File),
            1 => Just(EntryKind::Directory),
            1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|t| EntryKind::Symlink { target: t.into() }),
            1 => Just(EntryKind::HardLink { to: EntryName::new("first/name").unwrap() }),
            1 => Just(EntryKind::Fifo),
            1 => Just(EntryKind::Socket),
            1 => any::<(u32, u32)>().prop_map(|device| EntryKind::CharDevice { device }),
            1 => any::<(u32, u32)>().prop_map(|device| EntryKind::BlockDevice { device }),
        ];
        let posix =
            (0_u32..=0o7777, any::<u32>(), any::<u32>(), any::<i64>(), 0_u32..1_000_000_000).prop_map(
                |(mode, uid, gid, s, n)| PosixMetadata { mode, uid, gid, modified: Timestamp::new(s, n) },
            );
        let attributes = prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 1..9),
            prop::collection::vec(any::<u8>(), 0..9),
            0..4,
        );
        let stamp = prop::option::of(prop::collection::vec(any::<u8>(), 0..30));
        (
            "[a-c/]{0,6}[^/\0.]{1,3}",
            kind,
            prop::option::of(posix),
            attributes,
            stamp,
            any::<bool>(),
            content(),
        )
            .prop_filter_map(
                "not a name",
                |(name, kind, posix, attributes, stamp, sparse, content)| {
                    let mut entry = Entry::new(name, kind).ok()?;
                    entry.posix = posix;
                    entry.attributes = attributes
                        .into_iter()
                        .map(|(n, v)| Attribute { name: n.into(), value: v.into() })
                        .collect();
                    entry.stamp = stamp.map(Into::into);
                    entry.sparse = sparse;
                    let content = if entry.kind.has_content() { content } else { StoredContent::None };
                    let size = match &content {
                        StoredContent::None => None,
                        content => Some(content.len()),
                    };
                    entry.size = size;
                    Some(StoredEntry { entry, content })
                },
            )
    }

    proptest! {
        #[test]
        fn a_page_of_entries_survives(mut entries in prop::collection::vec(stored(), 0..20)) {
            entries.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
            entries.dedup_by(|a, b| a.entry.name == b.entry.name);
            let mut writer = EntryPageWriter::default();
            entries.iter().for_each(|entry| writer.push(entry));
            match writer.cut() {
                None => prop_assert!(entries.is_empty()),
                Some((first, page)) => {
                    prop_assert_eq!(&first, &entries[0].entry.name);
                    prop_assert_eq!(StoredEntry::decode_page(&page).unwrap(), entries);
                    for len in 0..page.len() {
                        prop_assert!(StoredEntry::decode_page(&page[..len]).is_err());
                    }
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = StoredEntry::decode_page(&bytes);
            bytes.insert(0, PageKind::Entries as u8);
            let _ = StoredEntry::decode_page(&bytes);
        }
    }
}
