//! What a restore would replace or delete below a directory, as a source: for a snapshot that makes the restore undoable.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::repository::{EntryStream, Selection, Snapshot, StoredEntry};
use backup_core::source::ReadAt;
use backup_core::{
    Content, Entry, EntryKind, EntryName, Error, ErrorKind, Finished, Item, JobContext, Result, Source,
    SourceInfo, SourceRun,
};

use super::directory::{Beneath, Comparing, Restoring, is_reserved};
use crate::files::{self, FilesRun, Guide};

/// The kind of source of safety snapshots, as they record it.
pub const SAFETY: &str = "safety";

/// Names of the snapshot on their way to the walk.
const NAMES_WAITING: usize = 1024;
/// Names of saved files that are remembered for links to them; links to further ones are saved as files of their own.
const FILES_MAX: usize = 1_000_000;

/// What stands below a directory and a restore into it would replace or delete: made by
/// [`DirectoryTarget::replaced`](super::DirectoryTarget::replaced).
///
/// Names are those that entries have in the directory, so that a restore of the snapshot into the same directory brings
/// back what was there. The directories above what is replaced are in it, too, since their times change. What the
/// restore adds is not: it stays. Only directories are walked that the snapshot has as well, or that are to be deleted.
#[derive(Debug, Clone)]
pub struct ReplacedSource {
    root: PathBuf,
    restoring: Restoring,
    snapshot: Snapshot,
    select: Selection,
    deleted: Arc<[EntryName]>,
}

impl ReplacedSource {
    pub(super) fn new(
        root: PathBuf,
        restoring: Restoring,
        snapshot: &Snapshot,
        select: &Selection,
        mut deleted: Vec<EntryName>,
    ) -> Self {
        deleted.sort();
        // One that is deleted stands for all that is in it.
        deleted.dedup_by(|below, above| below.is_within(above));
        let (snapshot, select) = (snapshot.clone(), select.clone());
        Self { root, restoring, snapshot, select, deleted: deleted.into() }
    }

    /// Whether there is nothing that would be replaced or deleted.
    ///
    /// # Errors
    ///
    /// The directory or the snapshot cannot be read.
    pub async fn is_empty(&self, job: &JobContext) -> Result<bool> {
        if !tokio::task::spawn_blocking({
            let root = self.root.clone();
            move || root.is_dir()
        })
        .await
        .unwrap_or(true)
        {
            return Ok(true);
        }
        Ok(self.begin(job).await?.next(1).await?.is_empty())
    }

    /// Lets the walk see only what the snapshot has, what is to be deleted, and the directories above.
    async fn guide(&self, job: &JobContext) -> Result<(Guide, Feeder)> {
        let (send, names) = async_channel::bounded(NAMES_WAITING);
        let mut entries = self.snapshot.entries(None, job).await?;
        let select = self.select.clone();
        let feeder = tokio::spawn(async move {
            loop {
                let stored = match entries.next().await {
                    Ok(Some(stored)) => stored,
                    Ok(None) => return Ok(()),
                    // What nobody can read is not restored either.
                    Err(error) if error.is_corruption() => continue,
                    Err(error) => return Err(error),
                };
                if select.selects(&stored.entry) && send.send(stored.entry.name).await.is_err() {
                    return Ok(());
                }
            }
        });
        let deleted = self.deleted.clone();
        let mut wanted: Option<EntryName> = None;
        let guide = move |name: &[u8]| {
            let Ok(name) = EntryName::new(name) else { return false };
            if is_reserved(&name) {
                return false;
            }
            while wanted.as_ref().is_none_or(|wanted| *wanted < name) {
                match names.recv_blocking() {
                    Ok(next) => wanted = Some(next),
                    Err(_) => break,
                }
            }
            let of_snapshot = wanted.as_ref().is_some_and(|wanted| wanted.is_within(&name));
            of_snapshot || is_deleted(&deleted, &name) || is_above_deleted(&deleted, &name)
        };
        Ok((Guide::new(guide), Feeder(feeder)))
    }
}

/// Ends the task when the run does.
struct Feeder(tokio::task::JoinHandle<Result<()>>);

impl Drop for Feeder {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[async_trait]
impl Source for ReplacedSource {
    fn info(&self) -> SourceInfo {
        SourceInfo::new(SAFETY, [self.root.to_string_lossy()])
    }

    async fn begin(&self, job: &JobContext) -> Result<Box<dyn SourceRun>> {
        let (guide, feeder) = self.guide(job).await?;
        let (root, restoring) = (self.root.clone(), self.restoring);
        let opened = tokio::task::spawn_blocking(move || {
            let beneath = Beneath::open(&root)
                .map_err(|error| Error::io(format!("`{}` cannot be opened", root.display()), error))?;
            Ok::<_, Error>((files::walk_guided(&root, guide)?, beneath))
        });
        let (walk, beneath) = opened
            .await
            .map_err(|error| Error::internal("the look at the target broke off").with_source(error))??;
        let restoring = restoring.for_names(self.snapshot.owner_names());
        Ok(Box::new(ReplacedRun {
            walk,
            feeder: Some(feeder),
            beneath: Arc::new(beneath),
            restoring,
            entries: self.snapshot.entries(None, job).await?,
            source: self.clone(),
            wanted: None,
            ended: false,
            above: Vec::new(),
            files: HashSet::new(),
            ready: VecDeque::new(),
            job: job.clone(),
        }))
    }
}

struct ReplacedRun {
    walk: FilesRun,
    /// None once it has ended.
    feeder: Option<Feeder>,
    beneath: Arc<Beneath>,
    restoring: Comparing,
    entries: EntryStream,
    source: ReplacedSource,
    /// The first selected entry of the snapshot that is not before what the walk is at.
    wanted: Option<StoredEntry>,
    ended: bool,
    /// Directories that hold nothing so far that is replaced.
    above: Vec<Entry>,
    /// Files with content that are saved: links to them are links in the snapshot, too.
    files: HashSet<EntryName>,
    ready: VecDeque<Item>,
    job: JobContext,
}

#[async_trait]
impl SourceRun for ReplacedRun {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        while self.ready.len() < max {
            let items = self.walk.next(max.max(64)).await?;
            if items.is_empty() {
                self.end().await?;
                break;
            }
            for item in items {
                match item {
                    Item::Entry(entry) => self.look(entry).await?,
                    skipped => self.ready.push_back(skipped),
                }
            }
        }
        let len = self.ready.len().min(max);
        Ok(self.ready.drain(..len).collect())
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        self.walk.open(entry).await
    }

    async fn finish(&mut self) -> Result<Finished> {
        self.walk.finish().await
    }
}

impl ReplacedRun {
    /// Decides about something that stands there.
    async fn look(&mut self, mut there: Entry) -> Result<()> {
        self.above.retain(|directory| there.name.is_within(&directory.name));
        let deleted = is_deleted(&self.source.deleted, &there.name);
        let linked = matches!(&there.kind, EntryKind::HardLink { to } if self.files.contains(to));
        if !deleted && !self.changes(&there, linked).await? {
            if there.kind == EntryKind::Directory {
                self.above.push(there);
            }
            return Ok(());
        }
        if matches!(there.kind, EntryKind::HardLink { .. }) && !linked {
            // What it is a link to is not in this snapshot.
            there.kind = EntryKind::File;
        }
        if there.kind == EntryKind::File && self.files.len() < FILES_MAX {
            self.files.insert(there.name.clone());
        }
        self.ready.extend(self.above.drain(..).map(Item::from));
        self.ready.push_back(there.into());
        Ok(())
    }

    /// Whether the restore would change what stands there.
    async fn changes(&mut self, there: &Entry, linked: bool) -> Result<bool> {
        self.advance(&there.name).await?;
        let Some(wanted) = self.wanted.as_ref().filter(|wanted| wanted.entry.name.is_within(&there.name))
        else {
            return Ok(false);
        };
        if wanted.entry.name != there.name {
            // The snapshot has something below it.
            return Ok(there.kind != EntryKind::Directory && self.restoring.makes_room());
        }
        if linked || self.restoring.keeps(there, &wanted.entry) {
            return Ok(linked);
        }
        if there.kind != wanted.entry.kind || self.restoring.metadata_differs(there, &wanted.entry) {
            return Ok(true);
        }
        if there.kind != EntryKind::File || self.restoring.counts_as_unchanged(there, &wanted.entry) {
            return Ok(false);
        }
        let (beneath, name) = (self.beneath.clone(), there.name.clone());
        let opened = tokio::task::spawn_blocking(move || beneath.read(&name))
            .await
            .map_err(|error| Error::internal("the look at a file broke off").with_source(error))?;
        match opened {
            Ok(file) => {
                let file: Arc<dyn ReadAt> = Arc::new(file);
                Ok(!self.source.snapshot.has_content(wanted, file, &self.job).await?)
            }
            Err(_) => Ok(true),
        }
    }

    /// The walk has ended: makes sure that it was told all names, and that none came out of order.
    async fn end(&mut self) -> Result<()> {
        if let Some(mut feeder) = self.feeder.take() {
            while !self.ended {
                self.step().await?;
            }
            // Nobody takes further names from it now.
            match (&mut feeder.0).await {
                Ok(fed) => fed?,
                Err(error) => {
                    return Err(Error::internal("the look at the snapshot broke off").with_source(error));
                }
            }
        }
        Ok(())
    }

    /// Goes on to the next selected entry of the snapshot, if the one that comes is selected.
    async fn step(&mut self) -> Result<()> {
        let next = match self.entries.next().await {
            Err(error) if error.is_corruption() => return Ok(()),
            next => next?,
        };
        self.ended = next.is_none();
        let Some(next) = next.filter(|next| self.source.select.selects(&next.entry)) else { return Ok(()) };
        if self.wanted.as_ref().is_some_and(|last| last.entry.name > next.entry.name) {
            let message = "a safety snapshot needs entries in order, and this snapshot has some at its end";
            return Err(Error::new(ErrorKind::Unsupported, message).with_entry(&next.entry.name));
        }
        self.wanted = Some(next);
        Ok(())
    }

    async fn advance(&mut self, name: &EntryName) -> Result<()> {
        while !self.ended && self.wanted.as_ref().is_none_or(|wanted| wanted.entry.name < *name) {
            self.step().await?;
        }
        if self.ended && self.wanted.as_ref().is_some_and(|wanted| wanted.entry.name < *name) {
            self.wanted = None;
        }
        Ok(())
    }
}

/// Whether one of the sorted names is `name` or above it.
fn is_deleted(deleted: &[EntryName], name: &EntryName) -> bool {
    // Nothing that is not above it stands between a name and what is below it.
    let before = deleted.partition_point(|deleted| deleted <= name);
    before.checked_sub(1).and_then(|last| deleted.get(last)).is_some_and(|last| name.is_within(last))
}

/// Whether one of the sorted names is below `name`.
fn is_above_deleted(deleted: &[EntryName], name: &EntryName) -> bool {
    let first = deleted.partition_point(|deleted| deleted < name);
    deleted.get(first).is_some_and(|first| first.is_within(name))
}
