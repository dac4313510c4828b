//! What all parts of one running backup share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::attributes::add_content_attributes;
use super::links::{Cause, LeftOut};
use crate::chunker::Chunker;
use crate::limits;
use crate::observer::Event;
use crate::report::SkippedItems;
use crate::repository::BackupOptions;
use crate::repository::known::KnownChunks;
use crate::repository::store::{PutCounters, Store};
use crate::resources::Lease;
use crate::transform::Transform;
use crate::{Attribute, DataKind, Entry, EntryKind, Error, JobContext, KindLoad, Progress, Result, Skipped};

/// Shared by feeder, workers, assembler and uploader.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) known: KnownChunks,
    pub(crate) chunker: Chunker,
    pub(crate) transforms: Vec<Arc<dyn Transform>>,
    pub(crate) job: JobContext,
    /// Given back when the last thread is gone.
    pub(crate) lease: Lease,
    /// Nothing is put; new content is read, cut, identified and counted only.
    pub(crate) dry_run: bool,
    /// Every frame is decoded and compared before its pack is put.
    pub(crate) verify_encoding: bool,
    /// Whether extended attributes of files come with their content.
    pub(crate) xattrs_with_content: bool,
    pub(crate) put: Arc<PutCounters>,
    pub(crate) counters: Counters,
    pub(crate) left_out: LeftOut,
    pub(crate) buffers: Buffers,
    stopped: AtomicBool,
    failure: Mutex<Option<Error>>,
    skipped: Mutex<SkippedItems>,
    current: Mutex<Option<String>>,
    /// What the source expects to yield; 0 where it does not say.
    bytes_total: AtomicU64,
}

/// Running totals.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) entries: AtomicU64,
    pub(crate) unchanged: AtomicU64,
    pub(crate) bytes_logical: AtomicU64,
    pub(crate) bytes_read: AtomicU64,
    pub(crate) bytes_added: AtomicU64,
    /// Contents that were read, of which nothing was new.
    pub(crate) entries_known: AtomicU64,
    /// New content in frames, and what it takes there.
    pub(crate) frames_plain: AtomicU64,
    pub(crate) frames_stored: AtomicU64,
    /// By kinds of data, in the order of [`DataKind::ALL`].
    pub(crate) kinds: [KindCounters; DataKind::ALL.len()],
}

/// Running totals of one kind of data.
#[derive(Debug, Default)]
pub(crate) struct KindCounters {
    pub(crate) files: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) bytes_new: AtomicU64,
    pub(crate) bytes_stored: AtomicU64,
}

impl Counters {
    /// Those of a kind.
    pub(crate) fn kind(&self, kind: DataKind) -> &KindCounters {
        // Each kind has its place, the last one without doubt.
        let [.., other] = &self.kinds;
        self.kinds.get(kind.place()).unwrap_or(other)
    }

    /// The totals of the kinds that there are any of.
    pub(crate) fn kind_loads(&self) -> BTreeMap<String, KindLoad> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let kinds = DataKind::ALL.into_iter().map(|kind| {
            let KindCounters { files, bytes, bytes_new, bytes_stored } = self.kind(kind);
            let loads = KindLoad {
                files: load(files),
                bytes: load(bytes),
                bytes_new: load(bytes_new),
                bytes_stored: load(bytes_stored),
            };
            (kind.name().to_owned(), loads)
        });
        kinds.filter(|(_, load)| *load != KindLoad::default()).collect()
    }
}

impl Shared {
    pub(crate) fn new(
        store: Store,
        known: KnownChunks,
        chunker: Chunker,
        transforms: Vec<Arc<dyn Transform>>,
        job: JobContext,
        lease: Lease,
        options: &BackupOptions,
    ) -> Self {
        Self {
            store,
            known,
            chunker,
            transforms,
            job,
            lease,
            dry_run: options.dry_run,
            verify_encoding: options.verify_encoding || cfg!(debug_assertions),
            xattrs_with_content: false,
            put: Arc::default(),
            counters: Counters::default(),
            left_out: LeftOut::default(),
            buffers: Buffers::default(),
            stopped: AtomicBool::new(false),
            failure: Mutex::new(None),
            skipped: Mutex::default(),
            current: Mutex::default(),
            bytes_total: AtomicU64::new(0),
        }
    }

    /// Adds to an entry what its content, or the parent's, came with, and names it in the report if not all found room.
    pub(crate) fn add_content_attributes(&self, entry: &mut Entry, attributes: Vec<Attribute>) {
        let left_out = add_content_attributes(entry, attributes, self.xattrs_with_content);
        if left_out > 0 {
            let notice =
                format!("{left_out} of its attributes are more than an entry can have, and are left out");
            self.skip(Skipped::new(&entry.name, notice));
        }
    }

    /// Stops everything; the first failure is the job's.
    pub(crate) fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(error);
        self.stop();
    }

    /// Makes workers end at their next look.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// An error if the job was stopped.
    pub(crate) fn check(&self) -> Result<()> {
        if self.stopped.load(Ordering::Relaxed) || self.job.cancellation().is_cancelled() {
            Err(Error::cancelled())
        } else {
            Ok(())
        }
    }

    /// The cause of `error`: of several failures it is the one that is no mere cancellation, and a thread that fails
    /// cancels the others.
    pub(crate) fn cause_of(&self, error: Error) -> Error {
        if !error.is_cancelled() {
            return error;
        }
        self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take().unwrap_or(error)
    }

    pub(crate) fn skip(&self, item: Skipped) {
        self.job.emit(&Event::Skipped(item.clone()));
        self.skipped.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(item);
    }

    /// Skips an entry that could not be read; its further names are tried later.
    pub(crate) fn skip_unread(&self, entry: Entry, reason: impl std::fmt::Display) {
        self.skip(Skipped::new(&entry.name, reason));
        if entry.kind == EntryKind::File {
            self.left_out.file(entry.name.clone(), Cause::Unread(Box::new(entry)));
        }
    }

    /// Leaves out an entry that the source removed meanwhile, and that nobody misses. A link to it would lead nowhere: it is
    /// tried as an entry of its own.
    pub(crate) fn leave_out(&self, entry: Entry) {
        tracing::debug!(entry = %entry.name, "it was removed before it was read; the snapshot is complete without it");
        if entry.kind == EntryKind::File {
            self.left_out.file(entry.name.clone(), Cause::Unread(Box::new(entry)));
        }
    }

    /// Skips an entry that the format cannot hold; so are its further names.
    pub(crate) fn skip_unfit(&self, entry: Entry, reason: &str) {
        self.skip(Skipped::new(&entry.name, reason));
        if entry.kind == EntryKind::File {
            self.left_out.file(entry.name, Cause::Unfit(reason.to_owned()));
        }
    }

    pub(crate) fn take_skipped(&self) -> SkippedItems {
        std::mem::take(&mut *self.skipped.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    pub(crate) fn set_current(&self, name: String) {
        *self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(name);
    }

    /// Notes how much the source expects to yield.
    pub(crate) fn set_bytes_total(&self, bytes: Option<u64>) {
        self.bytes_total.store(bytes.unwrap_or_default(), Ordering::Relaxed);
    }

    pub(crate) fn emit_progress(&self) {
        let current = self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        self.job.emit(&Event::Progress(Progress {
            entries_done: self.counters.entries.load(Ordering::Relaxed),
            entries_total: None,
            bytes_done: self.counters.bytes_logical.load(Ordering::Relaxed),
            bytes_total: Some(self.bytes_total.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0),
            bytes_stored: self.put.bytes(),
            current,
        }));
    }
}

/// Memory of packs that were put, for the next ones: fresh memory costs as much as sealing what goes into it.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

/// Buffers kept at most.
const BUFFERS_MAX: usize = 4;

impl Buffers {
    /// A buffer for a pack. Memory that nothing is ever written to costs none.
    pub(crate) fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
        kept.unwrap_or_else(|| {
            Vec::with_capacity(
                limits::PACK_TARGET_BYTES
                    .saturating_add(limits::SMALL_FILES_FRAME_TARGET_BYTES + limits::MIB),
            )
        })
    }

    /// Takes back the memory of a pack if nobody else holds it.
    pub(crate) fn give_back(&self, bytes: Bytes) {
        if let Ok(buffer) = bytes.try_into_mut() {
            let mut kept = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if kept.len() < BUFFERS_MAX {
                kept.push(buffer.into());
            }
        }
    }
}
