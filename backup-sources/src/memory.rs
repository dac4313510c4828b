//! Entries in memory as a source.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    Content, Entry, EntryName, Error, Item, JobContext, Result, Source, SourceInfo, SourceRun,
};
use bytes::Bytes;

/// Entries that are in memory, yielded in order.
///
/// ```
/// use backup_core::Entry;
/// use backup_sources::MemorySource;
///
/// let source = MemorySource::new("settings")
///     .with_file("app/settings.json", "{}")?
///     .with_entry(Entry::directory("app")?, "");
/// assert_eq!(source.len(), 2);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MemorySource {
    identity: String,
    entries: BTreeMap<EntryName, (Entry, Bytes)>,
}

impl MemorySource {
    /// A source without entries. `identity` distinguishes it from others of its kind.
    pub fn new(identity: impl Into<String>) -> Self {
        Self { identity: identity.into(), entries: BTreeMap::new() }
    }

    /// The same source with a file `name`. An entry of the same name is replaced.
    ///
    /// # Errors
    ///
    /// `name` is not the name of an entry.
    pub fn with_file(self, name: impl AsRef<[u8]>, content: impl Into<Bytes>) -> Result<Self> {
        Ok(self.with_entry(Entry::file(name)?, content))
    }

    /// The same source with `entry`; `content` counts only for files. An entry of the same name is replaced.
    #[must_use]
    pub fn with_entry(mut self, mut entry: Entry, content: impl Into<Bytes>) -> Self {
        let content = content.into();
        if entry.kind.has_content() {
            entry.size = u64::try_from(content.len()).ok();
        }
        self.entries.insert(entry.name.clone(), (entry, content));
        self
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[async_trait]
impl Source for MemorySource {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("memory", [self.identity.as_str()])
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        let entries = Arc::new(self.entries.clone());
        Ok(Box::new(MemoryRun { entries, after: None }))
    }
}

struct MemoryRun {
    entries: Arc<BTreeMap<EntryName, (Entry, Bytes)>>,
    after: Option<EntryName>,
}

#[async_trait]
impl SourceRun for MemoryRun {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = self.after.as_ref().map_or(Unbounded, Excluded);
        let range = self.entries.range((start, Unbounded));
        let items: Vec<_> = range.take(max).map(|(_, (entry, _))| Item::Entry(entry.clone())).collect();
        if let Some(Item::Entry(last)) = items.last() {
            self.after = Some(last.name.clone());
        }
        Ok(items)
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        let found = self.entries.get(&entry.name);
        let found = found
            .ok_or_else(|| Error::invalid_input("this entry is not of this run").with_entry(&entry.name));
        Ok(Content::from_bytes(found?.1.clone()))
    }
}
