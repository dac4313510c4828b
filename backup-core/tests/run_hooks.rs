//! What a run of a source is told beside being asked for entries, and what it may say: that content was taken over unread,
//! how much there will be, that something vanished and is not missed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::report::Outcome;
use backup_core::repository::BackupOptions;
use backup_core::source::{BlockingContent, Gone};
use backup_core::{
    Attribute, Content, Entry, EntryKind, EntryName, Event, Item, JobContext, Observer, Result, Source,
    SourceInfo, SourceRun,
};
use common::{CollectingTarget, Protect, SMALL, in_memory};

const LONG: u64 = 5 << 20;

/// Entries of which some vanish when they are opened, or in the middle.
#[derive(Debug, Clone, Default)]
struct Vanishing {
    /// Names that are gone at once, and those that are gone after their first bytes.
    gone: Vec<&'static str>,
    broken_off: Vec<&'static str>,
    told: Arc<Mutex<Vec<Entry>>>,
}

struct Run {
    source: Vanishing,
    items: Vec<Item>,
}

struct Bytes {
    left: u64,
    gone_at: Option<u64>,
}

impl BlockingContent for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.gone_at.is_some_and(|at| self.left <= at) {
            return Err(Gone.into_error());
        }
        let count = (self.left as usize).min(buffer.len()).min(100_000);
        buffer[..count].fill(self.left as u8);
        self.left -= count as u64;
        Ok(count)
    }

    fn attributes(&mut self) -> Vec<Attribute> {
        vec![Attribute { name: (*b"file:sum").into(), value: (*b"17").into() }]
    }
}

const NAMES: [(&str, u64); 5] =
    [("long", LONG), ("long-gone", LONG), ("short", 5000), ("short-gone", 5000), ("z", 10)];

#[async_trait]
impl Source for Vanishing {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("vanishing", ["memory"])
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        let mut items = Vec::new();
        for (name, size) in NAMES {
            items.push(Entry::file(name)?.with_size(size).with_stamp("same").into());
        }
        // A link to what is gone becomes the file, as it does where a file cannot be read.
        items.push(
            Entry::new("zz", EntryKind::HardLink { to: EntryName::new("short-gone").unwrap() })?.into(),
        );
        Ok(Box::new(Run { source: self.clone(), items }))
    }
}

#[async_trait]
impl SourceRun for Run {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        let count = max.min(self.items.len());
        Ok(self.items.drain(..count).collect())
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        let name = entry.name.to_string();
        let gone = self.source.gone.iter().any(|gone| *gone == name);
        let broken = self.source.broken_off.iter().any(|gone| *gone == name);
        let left = entry.size.unwrap();
        Ok(Content::blocking(move || {
            if gone {
                return Err(Gone.into_error());
            }
            Ok(Bytes { left, gone_at: broken.then_some(left / 2) })
        }))
    }

    fn unchanged(&self, entry: &Entry) {
        self.source.told.lock().unwrap().push(entry.clone());
    }

    fn bytes_total(&self) -> Option<u64> {
        Some(NAMES.iter().map(|(_, size)| size).sum())
    }
}

#[derive(Debug, Default)]
struct Heard(Mutex<Vec<Option<u64>>>);

impl Observer for Heard {
    fn on_event(&self, event: &Event) {
        if let Event::Progress(progress) = event {
            self.0.lock().unwrap().push(progress.bytes_total);
        }
    }
}

#[tokio::test]
async fn what_vanished_and_is_not_missed_leaves_the_snapshot_complete() {
    for (gone, broken_off) in
        [(vec!["long-gone", "short-gone"], vec![]), (vec![], vec!["long-gone", "short-gone"])]
    {
        let (setup, _) = in_memory(Protect::Plain, SMALL).await;
        let source = Vanishing { gone, broken_off, ..Vanishing::default() };
        let report = setup.repository.backup(&source, &BackupOptions::default(), &setup.job).await.unwrap();
        assert_eq!(report.outcome, Outcome::Complete, "{:?}", report.skipped);
        assert_eq!((report.entries, report.bytes_logical), (4, LONG + 5000 + 10 + 5000));
        let snapshot = setup.repository.snapshot(report.snapshot.unwrap(), &setup.job).await.unwrap();
        let target = CollectingTarget::default();
        setup.repository.restore(&snapshot, &target, &Default::default(), &setup.job).await.unwrap();
        let found = target.take();
        let names: Vec<_> = found.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["long", "short", "z", "zz"]);
        setup.assert_clean().await;
    }
}

#[tokio::test]
async fn a_run_is_told_what_was_taken_over_with_what_was_noted_of_it() {
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    let source = Vanishing { gone: vec!["long-gone"], ..Vanishing::default() };
    let options = BackupOptions::default();
    setup.repository.backup(&source, &options, &setup.job).await.unwrap();
    assert!(source.told.lock().unwrap().is_empty());
    let source = Vanishing::default();
    let heard = Arc::new(Heard::default());
    let job = setup.job.clone().with_observer(heard.clone());
    let report = setup.repository.backup(&source, &options, &job).await.unwrap();
    assert_eq!(report.entries_unchanged, 4);
    let told = source.told.lock().unwrap();
    let names: Vec<_> = told.iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(names, ["long", "short", "short-gone", "z"]);
    assert!(told.iter().all(|entry| entry.attribute(b"file:sum") == Some(b"17")));
}

#[tokio::test]
async fn progress_has_the_total_that_the_source_expects() {
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    let heard = Arc::new(Heard::default());
    let job = setup.job.clone().with_observer(heard.clone());
    // So slow that somebody looks while it runs.
    job.resources().upload().set_bytes_per_second(Some(2_000));
    let source = Vanishing::default();
    setup.repository.backup(&source, &BackupOptions::default(), &job).await.unwrap();
    let heard = heard.0.lock().unwrap();
    let total = NAMES.iter().map(|(_, size)| size).sum();
    assert!(heard.contains(&Some(total)), "{heard:?}");
}
