//! Something of your own as a source: here the notes that a program holds, one entry each.
//!
//! ```text
//! cargo run -p library-examples --example custom_source
//! ```
//!
//! A source says what it is, and starts a run. A run yields entries in batches and opens the content of those that the
//! engine asks for. That is all; names in ascending order save the engine a sort.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::report::BackupReport;
use backup_core::repository::{BackupOptions, CreateOptions, Repository};
use backup_core::{
    Content, Entry, EntryName, Error, Item, JobContext, RepositoryId, Result, Source, SourceInfo, SourceRun,
    SystemRandom, Unprotected,
};
use backup_sinks::MemorySink;
use tokio::io::AsyncReadExt;

/// What your program has already: a handle on its data.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(pub(crate) Arc<BTreeMap<String, String>>);

impl Notes {
    pub(crate) fn titles(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    pub(crate) fn text(&self, title: &EntryName) -> Option<String> {
        self.0.get(&title.to_string()).cloned()
    }
}

// source: begin
#[derive(Debug)]
struct NotesRun(Notes, std::vec::IntoIter<String>);
#[async_trait]
impl Source for Notes {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("notes", ["mine"])
    }
    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        Ok(Box::new(NotesRun(self.clone(), self.titles().into_iter())))
    }
}
#[async_trait]
impl SourceRun for NotesRun {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        self.1.by_ref().take(max).map(|title| Ok(Entry::file(title)?.into())).collect()
    }
    async fn open(&self, entry: &Entry) -> Result<Content> {
        Ok(Content::from_bytes(self.0.text(&entry.name).unwrap_or_default()))
    }
}
// source: end

/// Backs up the notes and reads them all back.
pub(crate) async fn run(notes: &Notes) -> Result<(BackupReport, BTreeMap<String, String>)> {
    let job = JobContext::new();
    let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom)?));
    let sink = Arc::new(MemorySink::new());
    let repository = Repository::create(sink, protection, CreateOptions::default(), &job).await?;
    let report = repository.backup(notes, &BackupOptions::default(), &job).await?;

    let id = report.snapshot.ok_or_else(|| Error::internal("no snapshot was made"))?;
    let snapshot = repository.snapshot(id, &job).await?;
    let mut back = BTreeMap::new();
    let mut entries = snapshot.entries(None, &job).await?;
    while let Some(stored) = entries.next().await? {
        let mut text = String::new();
        let mut file = snapshot.open(&stored, &job).await?;
        file.read_to_string(&mut text).await.map_err(|e| Error::io("a note could not be read", e))?;
        back.insert(stored.entry.name.to_string(), text);
    }
    Ok((report, back))
}

#[tokio::main]
async fn main() -> Result<()> {
    let notes = [("groceries", "bread, salt"), ("todo/today", "back up"), ("todo/tomorrow", "restore")];
    let notes = Notes(Arc::new(notes.map(|(title, text)| (title.into(), text.into())).into()));
    let (report, back) = run(&notes).await?;
    println!("backed up {} notes, {} bytes", report.entries, report.bytes_logical);
    for (title, text) in back {
        println!("  {title}: {text}");
    }
    Ok(())
}
