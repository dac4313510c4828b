//! What differs between two snapshots: a merge of their sorted entries.

use std::sync::Arc;

use serde::Serialize;

use super::entries::EntryStream;
use super::snapshot::Snapshot;
use super::{Repository, guard};
use crate::entry::BORN_ATTRIBUTE;
use crate::format::chunks::StoredContent;
use crate::format::entries::StoredEntry;
use crate::{Attribute, Entry, EntryName, JobContext, Protection, Result};

/// How an entry differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Only the second snapshot has it.
    Added,
    /// Only the first snapshot has it.
    Removed,
    /// Its kind or content differs. Content is compared by its chunks: what another source cut otherwise counts as different.
    Modified,
    /// Only its metadata differs.
    Metadata,
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// How the entry differs.
    pub kind: ChangeKind,
    /// The entry.
    pub name: EntryName,
    /// What it was.
    pub before: Option<Entry>,
    /// What it is.
    pub after: Option<Entry>,
}

/// The differences between two snapshots in order, those of trailing entries last.
#[derive(Debug)]
pub struct DiffStream {
    protection: Arc<dyn Protection>,
    parts: Vec<(EntryStream, EntryStream)>,
    heads: (Option<StoredEntry>, Option<StoredEntry>),
}

impl Repository {
    /// The differences that lead from `a` to `b`.
    pub async fn diff(&self, a: &Snapshot, b: &Snapshot, job: &JobContext) -> Result<DiffStream> {
        guard::run(job, async move {
            self.check_own(a)?;
            self.check_own(b)?;
            let (reader_a, reader_b) = (a.reader(job).await?, b.reader(job).await?);
            let part = |root_a, root_b| {
                let before = EntryStream::new(reader_a.clone(), root_a, None, job.clone());
                (before, EntryStream::new(reader_b.clone(), root_b, None, job.clone()))
            };
            // Worked off from the back.
            let parts =
                vec![part(a.trailing_root(), b.trailing_root()), part(a.sorted_root(), b.sorted_root())];
            let protection = self.protection().clone();
            Ok(DiffStream { protection, parts, heads: (None, None) })
        })
        .await
    }
}

impl DiffStream {
    /// The next difference; none at the end.
    pub async fn next(&mut self) -> Result<Option<Change>> {
        loop {
            let Some((before, after)) = self.parts.last_mut() else { return Ok(None) };
            if self.heads.0.is_none() {
                self.heads.0 = before.next().await?;
            }
            if self.heads.1.is_none() {
                self.heads.1 = after.next().await?;
            }
            let order = match &self.heads {
                (None, None) => {
                    self.parts.pop();
                    continue;
                }
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.entry.name.cmp(&b.entry.name),
            };
            let before = if order.is_le() { self.heads.0.take() } else { None };
            let after = if order.is_ge() { self.heads.1.take() } else { None };
            if let Some(change) = compare(before, after, &*self.protection) {
                return Ok(Some(change));
            }
        }
    }
}

fn compare(
    before: Option<StoredEntry>,
    after: Option<StoredEntry>,
    protection: &dyn Protection,
) -> Option<Change> {
    let name = after.as_ref().or(before.as_ref())?.entry.name.clone();
    let kind = match (&before, &after) {
        (None, _) => ChangeKind::Added,
        (_, None) => ChangeKind::Removed,
        (Some(a), Some(b))
            if a.entry.kind != b.entry.kind || !same_content(&a.content, &b.content, protection) =>
        {
            ChangeKind::Modified
        }
        (Some(a), Some(b)) => {
            // A stamp tells of the source's bookkeeping, not of the entry.
            let same = a.entry.posix == b.entry.posix && attributes(&a.entry).eq(attributes(&b.entry));
            return (!same).then(|| Change {
                kind: ChangeKind::Metadata,
                name,
                before: Some(a.entry.clone()),
                after: Some(b.entry.clone()),
            });
        }
    };
    Some(Change {
        kind,
        name,
        before: before.map(|stored| stored.entry),
        after: after.map(|stored| stored.entry),
    })
}

// Short content stands in its entry or in chunks, depending on how it was read.
fn same_content(a: &StoredContent, b: &StoredContent, protection: &dyn Protection) -> bool {
    match (a, b) {
        (StoredContent::Inline(bytes), StoredContent::Chunks(chunks))
        | (StoredContent::Chunks(chunks), StoredContent::Inline(bytes)) => {
            let mut rest = &bytes[..];
            let same = chunks.iter().all(|chunk| {
                let Some((bytes, after)) = rest.split_at_checked(chunk.len as usize) else { return false };
                rest = after;
                protection.chunk_id(bytes) == chunk.id
            });
            same && rest.is_empty()
        }
        _ => a == b,
    }
}

/// What tells one entry's metadata from another's: not when its file was made, which nobody can set again.
fn attributes(entry: &Entry) -> impl Iterator<Item = &Attribute> {
    entry.attributes.iter().filter(|attribute| *attribute.name != *BORN_ATTRIBUTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_file_differs_in_nothing_but_its_birth_and_so_does_not_differ() {
        let with = |born: &[u8], comment: &[u8]| {
            let mut entry = Entry::file("a").unwrap();
            for (name, value) in [(BORN_ATTRIBUTE, born), (b"xattr:user.comment", comment)] {
                entry.attributes.push(Attribute { name: name.into(), value: value.into() });
            }
            entry
        };
        let before = with(b"then", b"x");
        assert!(attributes(&before).eq(attributes(&with(b"now", b"x"))));
        assert!(!attributes(&before).eq(attributes(&with(b"then", b"y"))));
    }
}
