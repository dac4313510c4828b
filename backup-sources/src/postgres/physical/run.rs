//! One run: between the start and the stop of a backup.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::log::position;
use backup_core::source::Gone;
use backup_core::{
    Content, Entry, EntryName, Error, ErrorKind, Finished, Item, JobContext, Result, SnapshotInfo, SourceRun,
    Timestamp,
};
use bytes::Bytes;

use super::content::{Pace, Pages, PgContent};
use super::control::ControlFile;
use super::digest::{Checksum, ManifestChecksum};
use super::label::BackupLabel;
use super::listing::{Lister, Owner, Plan};
use super::manifest::Manifest;
use super::reader::PgFileReader;
use super::relation::{RelationFile, is_database};
use super::session::{Session, Stopped};
use super::summaries::{Between, ChangedBlocks};
use super::{PostgresSource, archived};
use crate::postgres::Lsn;
use crate::postgres::wal::SegmentName;

/// How often `global/pg_control` is read until it is whole, and how long before that.
const CONTROL_ATTEMPTS: u32 = 20;
const CONTROL_PAUSE: Duration = Duration::from_millis(50);
/// The state of a server that replays the log, `DB_IN_ARCHIVE_RECOVERY`.
const IN_RECOVERY: u32 = 5;
/// How long a standby is waited for that has not replayed as far as the backup's start.
const REPLAY_PATIENCE: Duration = Duration::from_secs(300);

/// What becomes known of files while they are copied.
#[derive(Debug)]
pub(super) struct Notes {
    pub(super) checksum: ManifestChecksum,
    manifest: Mutex<Manifest>,
    /// Files that vanished, which replay removes, too.
    gone: AtomicU64,
    /// Pages that are damaged.
    damaged: AtomicU64,
    /// Whether something was taken over whose pages nobody has verified.
    unverified: AtomicBool,
}

impl Notes {
    pub(super) fn new(checksum: ManifestChecksum) -> Self {
        Self {
            checksum,
            manifest: Mutex::default(),
            gone: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            unverified: AtomicBool::new(false),
        }
    }

    /// Counts a failure that says that the file is not there any more.
    pub(super) fn note_failure(&self, error: io::Error) -> io::Error {
        if Gone::is(&error) {
            self.gone.fetch_add(1, Ordering::Relaxed);
        }
        error
    }

    pub(super) fn add_damaged(&self, pages: u64) {
        self.damaged.fetch_add(pages, Ordering::Relaxed);
    }

    pub(super) fn add_file(
        &self,
        name: EntryName,
        bytes: u64,
        modified: Timestamp,
        checksum: Option<Checksum>,
    ) {
        self.manifest().add(name, bytes, modified, checksum);
    }

    fn manifest(&self) -> std::sync::MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A run of a [`PostgresSource`].
pub(super) struct PhysicalRun {
    source: PostgresSource,
    job: JobContext,
    session: Session,
    reader: Arc<dyn PgFileReader>,
    control: ControlFile,
    start: Lsn,
    started: Timestamp,
    version_directory: String,
    plan: Option<Plan>,
    items: std::vec::IntoIter<Item>,
    notes: Arc<Notes>,
    /// What changed since the snapshot before, where that is known.
    changed: Option<ChangedBlocks>,
    /// Whether the pages of the snapshot before were verified.
    parent_verified: bool,
}

impl PhysicalRun {
    /// Starts the backup on `session`, the files of which `reader` reads.
    pub(super) async fn start(
        source: PostgresSource,
        session: Session,
        reader: Arc<dyn PgFileReader>,
        job: &JobContext,
    ) -> Result<Self> {
        let (start, started) = session.start(&source.label, source.fast_checkpoint).await?;
        let control = read_control(&*reader).await?.1;
        if control.system_identifier != session.server.system_identifier {
            let message = format!(
                "the files belong to the cluster {}, the server to {}: give the data directory of this server",
                control.system_identifier, session.server.system_identifier
            );
            return Err(Error::invalid_input(message));
        }
        check_files(&control, start, session.server.is_standby)?;
        let version_directory = format!("PG_{}_{}", session.server.major(), control.catalog_version);
        let notes = Arc::new(Notes::new(source.manifest_checksum));
        Ok(Self {
            source,
            job: job.clone(),
            session,
            reader,
            control,
            start,
            started,
            version_directory,
            plan: None,
            items: Vec::new().into_iter(),
            notes,
            changed: None,
            parent_verified: false,
        })
    }

    /// What changed since a snapshot, as the server has summarized its log.
    async fn changed_since(&self, parent: &SnapshotInfo) -> Result<ChangedBlocks> {
        let major = self.session.server.major();
        let server = self.session.identity;
        let between = Between::new(parent, major, server, &self.control, self.start, self.verifies());
        let between = between.map_err(Error::invalid_input)?;
        ChangedBlocks::ask(self.session.client(), between, &self.job).await
    }

    async fn list(&mut self) -> Result<()> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let lister = Lister {
            reader: &*self.reader,
            server: &self.session.server,
            control: &self.control,
            started: self.started,
            trust_times: self.source.trust_times,
            owner: Owner { uid, gid, group_access: self.session.server.group_access },
        };
        let mut plan = lister.list().await?;
        self.items = std::mem::take(&mut plan.items).into_iter();
        self.plan = Some(plan);
        Ok(())
    }

    /// `global/pg_control`, after everything else: where a standby was copied, it says how far the log must be replayed.
    async fn last_control(&self) -> Result<(Bytes, ControlFile)> {
        let mut waited = Duration::ZERO;
        loop {
            // Promoted, it has no such place any more.
            self.session.check_role().await?;
            let (bytes, control) = read_control(&*self.reader).await?;
            let is_behind = self.session.server.is_standby && control.min_recovery_point < self.start;
            if !is_behind {
                return Ok((bytes, control));
            }
            if waited >= REPLAY_PATIENCE {
                let message = format!(
                    "the standby has replayed up to {} and the backup began at {}: look at whether replay is paused, and \
                     repeat the backup",
                    control.min_recovery_point, self.start
                );
                return Err(Error::new(ErrorKind::Transient, message));
            }
            let pause = Duration::from_millis(500);
            tokio::time::sleep(pause).await;
            waited = waited.saturating_add(pause);
        }
    }

    /// Whether the pages that are read are verified.
    fn verifies(&self) -> bool {
        self.source.verify_checksums && self.control.data_checksums
    }

    fn check_session(&self) -> Result<()> {
        if self.session.is_broken() {
            let message =
                "the connection that the backup was started on is lost, and with it the backup: repeat it";
            return Err(Error::new(ErrorKind::Transient, message));
        }
        Ok(())
    }

    /// The label, once more than the server does: who starts from it must get what was copied.
    fn check_label(&self, stopped: &Stopped, control: &ControlFile) -> Result<BackupLabel> {
        let label = BackupLabel::parse(&stopped.label)?;
        let is_standby = self.session.server.is_standby;
        if label.start != self.start || label.from_standby != is_standby || stopped.lsn < self.start {
            let message = format!(
                "the server gives the label of another backup: it began at {}, and this one at {}",
                label.start, self.start
            );
            return Err(Error::internal(message));
        }
        let ended_on = if is_standby { control.min_recovery_timeline } else { label.timeline.get() };
        if ended_on != label.timeline.get() {
            let message = format!(
                "the server went over from timeline {} to {ended_on} while it was backed up: repeat the backup",
                label.timeline.get()
            );
            return Err(Error::new(ErrorKind::Transient, message));
        }
        Ok(label)
    }

    /// A tablespace that the server had when the backup was started, and of which nothing was found, must have been dropped since, or the
    /// backup lacks it without a word: as when the disk is not mounted that it is on.
    async fn check_tablespaces(&self, plan: &Plan, map: &str) -> Result<()> {
        // A number and a path. What of a path stands in lines of its own is no number of a tablespace.
        let known = map.lines().filter_map(|line| line.split_once(' ')?.0.parse::<u32>().ok());
        for oid in known.filter(|oid| !plan.found.contains(oid)) {
            match self.reader.tablespace(oid).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(location) => {
                    let message = format!(
                        "the tablespace {oid} is to be in `{}`, and what the server has there was not found: bring back the disk that it \
                         is on, or drop the tablespace",
                        location.escape_debug()
                    );
                    return Err(Error::new(ErrorKind::Io, message));
                }
            }
        }
        Ok(())
    }

    fn trailing(&self, name: &str, bytes: Bytes, owner: Owner, time: Timestamp) -> Result<(Entry, Content)> {
        let entry = Entry::file(name)?.with_size(bytes.len() as u64).with_posix(owner.file(time));
        Ok((entry, Content::from_bytes(bytes)))
    }
}

/// Makes sure that the files whose `global/pg_control` says this are those of the server that began a backup at `start`. Another node of the same
/// cluster, on the same machine, with the same port and started at the same time, has nearly everything in common with it.
fn check_files(control: &ControlFile, start: Lsn, is_standby: bool) -> Result<()> {
    // The server answers that the backup has begun when its own file says so, and never goes back behind it.
    let is_behind = control.checkpoint_redo < start;
    if !is_behind && (control.state == IN_RECOVERY) == is_standby {
        return Ok(());
    }
    let message = format!(
        "the files are not those of the server that the backup was started on: their last checkpoint is at {}{}, the backup began at {start} on a {}.          Give the data directory of this server; or, if it was promoted just now, repeat the backup",
        control.checkpoint_redo,
        if control.state == IN_RECOVERY { ", of a standby" } else { "" },
        if is_standby { "standby" } else { "primary" }
    );
    Err(Error::new(ErrorKind::Transient, message))
}

/// Reads `global/pg_control` until it is whole: the server may be writing it.
async fn read_control(reader: &dyn PgFileReader) -> Result<(Bytes, ControlFile)> {
    const PATH: &str = "global/pg_control";
    let mut attempt = 1_u32;
    loop {
        let bytes = reader.read_all(PATH).await?;
        let bytes =
            bytes.ok_or_else(|| Error::new(ErrorKind::NotFound, "it is not there").with_entry(PATH))?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok((bytes, control)),
            Err(error) if error.is_corruption() && attempt < CONTROL_ATTEMPTS => {
                tracing::debug!(%error, attempt, "global/pg_control is read again");
                tokio::time::sleep(CONTROL_PAUSE).await;
                attempt = attempt.saturating_add(1);
            }
            Err(error) => return Err(error),
        }
    }
}

#[async_trait]
impl SourceRun for PhysicalRun {
    async fn since(&mut self, parent: &SnapshotInfo) -> Result<()> {
        self.parent_verified =
            parent.position.get("pages_verified").is_some_and(|verified| verified == "true");
        if !self.source.wal_summaries {
            return Ok(());
        }
        match self.changed_since(parent).await {
            Ok(changed) => self.changed = Some(changed),
            Err(error) if error.is_cancelled() => return Err(error),
            Err(error) => tracing::warn!(%error, "all is read: what changed cannot be told"),
        }
        Ok(())
    }

    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        self.check_session()?;
        if self.plan.is_none() {
            self.list().await?;
        }
        Ok(self.items.by_ref().take(max).collect())
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        let foreign = || Error::invalid_input("this entry is not of this run").with_entry(&entry.name);
        let path = std::str::from_utf8(entry.name.as_bytes()).map_err(|_| foreign())?;
        let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
        let relation = RelationFile::parse(file).filter(|_| is_database(directory, &self.version_directory));
        let size = entry.size.unwrap_or_default();
        let changed = self.changed.as_ref().zip(relation);
        let changed = changed.and_then(|(changed, file)| changed.of(directory, file, &self.control));
        // What a relation has grown by since the backup was started, replay adds.
        let opener = self.reader.open(path, relation.map(|_| size), size, changed.as_deref());
        let control = &self.control;
        let pages = relation
            .filter(|_| self.verifies())
            .and_then(|relation| Pages::new(relation, control.block_bytes, control.segment_blocks));
        let modified = entry.posix.map(|posix| posix.modified).unwrap_or_default();
        let (name, notes) = (entry.name.clone(), Arc::clone(&self.notes));
        let pace =
            Pace { limit: self.source.read_limit.clone(), cancellation: self.job.cancellation().clone() };
        let content = Content::blocking(move || {
            let file = opener().map_err(|error| notes.note_failure(error))?;
            Ok(PgContent::new(file, name, modified, pages, notes, pace))
        });
        let content = if relation.is_some() { content.fixed(control.block_bytes) } else { content };
        Ok(match changed {
            Some(changed) => content.changed_in(changed),
            None => content,
        })
    }

    fn unchanged(&self, entry: &Entry) {
        if !self.parent_verified {
            self.notes.unverified.store(true, Ordering::Relaxed);
        }
        let modified = entry.posix.map(|posix| posix.modified).unwrap_or_default();
        let checksum = Checksum::from_attributes(&entry.attributes);
        self.notes.add_file(entry.name.clone(), entry.size.unwrap_or_default(), modified, checksum);
    }

    fn bytes_total(&self) -> Option<u64> {
        self.plan.as_ref().map(|plan| plan.bytes)
    }

    async fn finish(&mut self) -> Result<Finished> {
        self.check_session()?;
        let plan = self.plan.as_ref().ok_or_else(|| Error::internal("nothing was listed"))?;
        let (control_bytes, control) = self.last_control().await?;
        let stopped = self.session.stop(self.source.server_waits).await?;
        let label = self.check_label(&stopped, &control)?;
        self.check_tablespaces(plan, &stopped.tablespace_map).await?;
        let size = control.wal_segment_size;
        let stop_segment = SegmentName::before(label.timeline, stopped.lsn, size).max(label.start_segment);
        if let Some((archive, patience)) = &self.source.archive {
            let range = (label.start_segment, stop_segment);
            archived::wait(&**archive, control.system_identifier, range, size, *patience, &self.job).await?;
        }

        // What was listed, and is neither in the manifest nor gone, was skipped: the snapshot is partial, and lacks a file.
        let noted = self.notes.manifest().len().saturating_add(self.notes.gone.load(Ordering::Relaxed));
        let missing = plan.files.saturating_sub(noted);
        let damaged = self.notes.damaged.load(Ordering::Relaxed);
        let verified = self.verifies() && !self.notes.unverified.load(Ordering::Relaxed);

        let (owner, time) = (plan.owner, stopped.time);
        let mut trailing = Vec::new();
        let mut files = vec![("backup_label", Bytes::from(stopped.label.clone()))];
        if !stopped.tablespace_map.is_empty() {
            files.push(("tablespace_map", Bytes::from(stopped.tablespace_map.clone())));
        }
        files.push(("global/pg_control", control_bytes));
        for (name, bytes) in files {
            let checksum = Checksum::of(self.notes.checksum, &bytes);
            self.notes.add_file(EntryName::new(name)?, bytes.len() as u64, time, Some(checksum));
            trailing.push(self.trailing(name, bytes, owner, time)?);
        }
        let manifest = self.notes.manifest().write(label.timeline, label.start, stopped.lsn);
        trailing.push(self.trailing("backup_manifest", manifest.into(), owner, time)?);

        let server = &self.session.server;
        let system = control.system_identifier.to_string();
        let tablespaces = serde_json::to_string(&plan.tablespaces).map_err(|error| {
            Error::internal("the tablespaces cannot be written as JSON").with_source(error)
        })?;
        let timeline = label.timeline.to_string();
        let position = [
            ("mode", self.source.mode.to_string()),
            ("start_lsn", label.start.to_string()),
            ("stop_lsn", stopped.lsn.to_string()),
            ("start_segment", label.start_segment.to_string()),
            ("stop_segment", stop_segment.to_string()),
            ("timeline", label.timeline.get().to_string()),
            ("system_identifier", system.clone()),
            ("start_time", self.started.to_string()),
            ("stop_time", stopped.time.to_string()),
            ("server_version", server.version.to_string()),
            ("server_started", self.session.identity.started()),
            ("block_bytes", control.block_bytes.to_string()),
            ("wal_segment_bytes", size.bytes().to_string()),
            ("data_checksums", control.data_checksums.to_string()),
            ("pages_verified", verified.to_string()),
            ("from", if server.is_standby { "standby" } else { "primary" }.to_owned()),
            ("tablespaces", tablespaces),
            ("damaged_pages", damaged.to_string()),
            ("missing_files", missing.to_string()),
            (position::LINEAGE, system),
            (position::TIMELINE, timeline),
            (position::FIRST, label.start_segment.to_string()),
            (position::LAST, stop_segment.to_string()),
        ];
        let position = position.map(|(name, value)| (name.to_owned(), value)).into();
        Ok(Finished { trailing, position, ..Finished::default() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::postgres::physical::reader::{Listing, Opener};

    /// A `global/pg_control` that is being written for so many looks.
    #[derive(Debug)]
    struct Torn(AtomicU32);

    #[async_trait]
    impl PgFileReader for Torn {
        async fn list(&self, _: &str) -> Result<Option<Listing>> {
            Ok(None)
        }

        async fn tablespace(&self, _: u32) -> Result<String> {
            Ok(String::new())
        }

        async fn read_all(&self, path: &str) -> Result<Option<Bytes>> {
            assert_eq!(path, "global/pg_control");
            let mut bytes = super::super::control::tests::written(1300);
            if self.0.load(Ordering::Relaxed) > 0 {
                self.0.fetch_sub(1, Ordering::Relaxed);
                bytes[40..200].fill(0xEE);
            }
            Ok(Some(bytes.into()))
        }

        fn open(&self, _: &str, _: Option<u64>, _: u64, _: Option<&[std::ops::Range<u64>]>) -> Opener {
            Box::new(|| Err(std::io::ErrorKind::Unsupported.into()))
        }
    }

    #[tokio::test]
    async fn trap_33_pg_control_is_read_again_until_it_is_whole_and_a_damaged_one_fails() {
        let torn = Torn(AtomicU32::new(3));
        let (bytes, control) = read_control(&torn).await.unwrap();
        assert_eq!(torn.0.load(Ordering::Relaxed), 0);
        assert_eq!(ControlFile::parse(&bytes).unwrap(), control);
        let error = read_control(&Torn(AtomicU32::new(u32::MAX))).await.unwrap_err();
        assert!(error.is_corruption(), "{error}");
    }

    #[test]
    fn files_of_another_node_are_not_taken_for_the_servers() {
        let written = ControlFile::parse(&super::super::control::tests::written(1300)).unwrap();
        let control = |state, redo| ControlFile { state, checkpoint_redo: Lsn::new(redo), ..written.clone() };
        let fits =
            |state, redo, is_standby| check_files(&control(state, redo), Lsn::new(0x300_0028), is_standby);
        // At its start or later, as a checkpoint may have come since; 3 is shutting down.
        for redo in [0x300_0028, 0x400_0028] {
            fits(6, redo, false).unwrap();
            fits(3, redo, false).unwrap();
            fits(IN_RECOVERY, redo, true).unwrap();
        }
        for (state, redo, is_standby) in [
            (6, 0x300_0027, false),
            (IN_RECOVERY, 0x300_0027, true),
            (IN_RECOVERY, 0x400_0028, false),
            (6, 0x400_0028, true),
            (1, 0x400_0028, true),
        ] {
            let error = fits(state, redo, is_standby).unwrap_err();
            assert!(error.is_retryable(), "{error}");
            assert!(error.message().contains("not those of the server"), "{error}");
            assert!(error.message().contains("0/3000028"), "{error}");
        }
    }
}
