//! Verification: is everything that the snapshots need there, and is it what was stored?

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use sha2::{Digest, Sha256};

use super::index::{Bits, Index, Pack};
use super::listing::Listing;
use super::reader::Reader;
use super::store::Store;
use super::{Repository, guard, keys};
use crate::format::document::{SessionDocument, SnapshotSet};
use crate::format::object::Scratch;
use crate::format::segment::IndexRow;
use crate::limits;
use crate::observer::Event;
use crate::report::{DamagedObject, VerifyReport};
use crate::transform::ObjectType;
use crate::{Error, ErrorKind, JobContext, ObjectKey, Progress, Result, Sink, SinkExt, SnapshotId};

mod entries;

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum VerifyLevel {
    /// Documents open, pages are whole, every chunk that an entry needs has a place in a pack that exists.
    Structure,
    /// Also, every pack and index segment has the bytes it is named by.
    Checksum,
    /// Also, every frame opens, and every chunk is what its identity says.
    #[default]
    Content,
}

/// What to verify.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct VerifyOptions {
    /// How thoroughly.
    pub level: VerifyLevel,
    /// Look at about this share of the packs only, in percent, chosen anew each time.
    pub sample_percent: Option<f64>,
}

impl VerifyOptions {
    fn check(&self) -> Result<()> {
        match self.sample_percent {
            Some(percent) if !(percent > 0.0 && percent <= 100.0) => Err(Error::invalid_input(format!(
                "a sample of {percent}% makes no sense; choose more than 0 and at most 100"
            ))),
            _ => Ok(()),
        }
    }
}

/// Verifies without any key what can be verified without: that packs and index segments have the bytes they are named by.
pub async fn verify_keyless(
    sink: &dyn Sink,
    options: &VerifyOptions,
    job: &JobContext,
) -> Result<VerifyReport> {
    guard::run(job, async move {
        options.check()?;
        let started = Instant::now();
        let mut report = VerifyReport::default();
        let mut dice = Dice::new(options, job)?;
        for prefix in [keys::META, keys::DATA, keys::INDEX] {
            let mut listing = Listing::new(sink, prefix);
            while let Some(page) = listing.next().await? {
                let chosen: Vec<_> = page.into_iter().filter(|_| dice.roll()).collect();
                let mut reads = stream::iter(chosen.into_iter().map(|meta| async move {
                    let read = sink.get_whole(&meta.key, limits::OBJECT_BYTES_MAX).await;
                    (meta.key, read)
                }))
                .buffer_unordered(READS_MAX);
                while let Some((key, read)) = reads.next().await {
                    job.check()?;
                    let checked = match read {
                        Ok(bytes) => {
                            report.checked.bytes = report.checked.bytes.saturating_add(bytes.len() as u64);
                            let name = key.clone();
                            guard::blocking(move || Ok(check_digest(&name, &bytes))).await?
                        }
                        Err(error) => Err(error),
                    };
                    report.checked.objects = report.checked.objects.saturating_add(1);
                    note(&mut report, &key, checked, job)?;
                }
            }
        }
        report.duration_seconds = started.elapsed().as_secs_f64();
        Ok(report)
    })
    .await
}

/// Whole objects held at once.
const READS_MAX: usize = 2;

impl Repository {
    /// Verifies the repository. Damage is what the report is for: only what keeps from looking is an error.
    pub async fn verify(&self, options: &VerifyOptions, job: &JobContext) -> Result<VerifyReport> {
        guard::run(job, async move {
            options.check()?;
            let started = Instant::now();
            let lease = job.resources().lease(job).await?;
            job.emit(&Event::Phase { name: "verify" });
            let mut verification = Verification {
                repository: self,
                options: *options,
                job,
                workers: lease.workers(),
                report: VerifyReport::default(),
                bad_frames: HashSet::new(),
                bad_packs: HashMap::new(),
            };
            verification.check_documents().await?;
            // Listed before the index: what is committed later may need packs that were not there yet.
            let snapshots: Vec<_> = self.list_snapshot_ids(job).await?.into_keys().collect();
            let reader = verification.check_packs().await?;
            verification.check_snapshots(snapshots, &reader).await?;
            let mut report = verification.report;
            report.damaged_objects.sort_by(|a, b| a.object.cmp(&b.object));
            report.damaged_objects.dedup();
            report.duration_seconds = started.elapsed().as_secs_f64();
            Ok(report)
        })
        .await
    }
}

struct Verification<'a> {
    repository: &'a Repository,
    options: VerifyOptions,
    job: &'a JobContext,
    workers: usize,
    report: VerifyReport,
    /// Frames that do not open or hold wrong chunks: pack and ordinal.
    bad_frames: HashSet<(u32, u32)>,
    /// Packs of which nothing can be read, and why.
    bad_packs: HashMap<u32, String>,
}

impl Verification<'_> {
    fn store(&self) -> &Store {
        self.repository.store()
    }

    // Config, key slots, sessions, sets: each is opened, and each says where it belongs.
    async fn check_documents(&mut self) -> Result<()> {
        let store = self.repository.store().clone();
        let job = self.job;
        let key = keys::config()?;
        // Read again: the one in memory was read when the repository was opened.
        let config = store
            .get_document::<crate::format::document::RepositoryParameters>(
                &key,
                ObjectType::Config,
                limits::CONTROL_BYTES_MAX,
                job,
            )
            .await;
        let config = config.and_then(|parameters| {
            if parameters == *self.repository.parameters() {
                Ok(())
            } else {
                Err(Error::corruption("is not what was opened"))
            }
        });
        self.count(&key, config)?;
        for meta in store.sink.list_all(keys::KEYS).await? {
            let slot = store.get_whole(&meta.key, limits::CONTROL_BYTES_MAX, job).await;
            let checked = slot.and_then(|bytes| store.protection.check_slot(&meta.key, &bytes));
            match checked {
                // Another epoch's slot cannot be judged with the keys at hand.
                Err(error) if error.kind() == ErrorKind::Denied => {}
                checked => self.count(&meta.key, checked)?,
            }
        }
        for meta in store.sink.list_all(keys::SESSIONS).await? {
            let read = store
                .get_document::<SessionDocument>(
                    &meta.key,
                    ObjectType::Session,
                    limits::CONTROL_BYTES_MAX,
                    job,
                )
                .await;
            let checked = read.and_then(|session| {
                let prefix = format!("{}{}/", keys::SESSIONS, session.session);
                if meta.key.as_str().starts_with(&prefix) {
                    Ok(())
                } else {
                    Err(Error::corruption("is another session's"))
                }
            });
            self.count(&meta.key, checked)?;
        }
        // The sets first: what they name was there before them.
        let sets = store.sink.list_all(keys::SETS).await?;
        let snapshots: HashSet<SnapshotId> =
            self.repository.list_snapshot_ids(job).await?.into_keys().collect();
        for meta in sets {
            let read = store
                .get_document::<SnapshotSet>(&meta.key, ObjectType::Set, limits::SNAPSHOT_BYTES_MAX, job)
                .await;
            let checked = read.and_then(|set| {
                if keys::id_of(&meta.key)? != set.id {
                    return Err(Error::corruption("holds another set than its name says"));
                }
                let missing =
                    set.components.iter().filter_map(|c| c.snapshot).find(|id| !snapshots.contains(id));
                missing.map_or(Ok(()), |id| {
                    Err(Error::corruption(format!("names the snapshot {id}, which is gone")))
                })
            });
            self.count(&meta.key, checked)?;
        }
        Ok(())
    }

    // Index segments and packs. Returns the view to walk snapshots with.
    async fn check_packs(&mut self) -> Result<Reader> {
        let job = self.job;
        let store = self.repository.store().clone();
        let committed = self.repository.committed_sessions(job).await?;
        self.repository.release_large_index().await;
        let index = Index::load(&store, &committed, job).await?;
        for key in &index.segments {
            self.count(key, Ok(()))?;
        }
        for (key, reason) in &index.unreadable {
            self.count(key, Err(Error::corruption(reason.clone())))?;
        }
        let (index, lost) = Index::scan(Arc::new(index), &store, job).await?;
        for (key, reason) in lost {
            self.count(&key, Err(Error::corruption(reason)))?;
        }
        // With a cache of its own: pages read before the damage would hide it.
        let reader = Reader { cache: Default::default(), ..self.repository.reader(index) };
        let chosen = self.choose_packs(&reader.index).await?;
        self.read_packs(&reader, chosen).await?;
        Ok(reader)
    }

    // Compares the packs with the listing. Returns those to be read.
    async fn choose_packs(&mut self, index: &Index) -> Result<Bits> {
        let mut listed = Bits::default();
        let mut lens: HashMap<u32, u64> = HashMap::new();
        for prefix in [keys::META, keys::DATA] {
            let sink = self.store().sink.clone();
            let mut listing = Listing::new(&*sink, prefix);
            while let Some(page) = listing.next().await? {
                for meta in page {
                    let Ok(digest) = keys::digest_of(&meta.key) else { continue };
                    let Some(number) = index.number_of(&digest)? else { continue };
                    let pack = index.pack(number)?;
                    // The same name at the other place is not this pack.
                    if pack.key == meta.key {
                        listed.insert(number);
                        if pack.record.object_len != meta.len {
                            lens.insert(number, meta.len);
                        }
                    }
                }
            }
        }
        let mut dice = Dice::new(&self.options, self.job)?;
        let mut chosen = Bits::default();
        for number in 0..index.pack_count() {
            let pack = index.pack(number)?;
            if !listed.contains(number) {
                let reason = "is missing".to_owned();
                self.bad_packs.insert(number, reason.clone());
                self.count(&pack.key, Err(Error::corruption(reason)))?;
            } else if let Some(len) = lens.get(&number) {
                let reason = format!("has {len} bytes instead of {}", pack.record.object_len);
                chosen.insert(number);
                self.count(&pack.key, Err(Error::corruption(reason)))?;
            } else if self.options.level > VerifyLevel::Structure && dice.roll() {
                chosen.insert(number);
            } else {
                self.count(&pack.key, Ok(()))?;
            }
            if number % 1024 == 0 {
                self.job.check()?;
                tokio::task::yield_now().await;
            }
        }
        Ok(chosen)
    }

    async fn read_packs(&mut self, reader: &Reader, chosen: Bits) -> Result<()> {
        let level = self.options.level;
        let job = self.job;
        let (index, resources, wanted) = (reader.index.clone(), job.resources().clone(), chosen.clone());
        let by_pack = move || index.rows_by_pack(|pack| wanted.contains(pack), &resources);
        let mut rows = guard::blocking(by_pack).await?;
        let numbers = 0..reader.index.pack_count();
        let total = numbers.clone().filter(|number| chosen.contains(*number)).count() as u64;
        let mut reads = stream::iter(numbers.filter(|number| chosen.contains(*number)).map(|number| {
            let reader = reader.clone();
            // In the order of packs, before anything waits.
            let rows = rows.of(number);
            async move {
                let rows = rows?;
                let pack = reader.index.pack(number)?;
                match reader.store.get_whole(&pack.key, limits::OBJECT_BYTES_MAX, job).await {
                    Ok(bytes) => {
                        let resources = job.resources().clone();
                        guard::blocking(move || {
                            let _processor = resources.processor();
                            Ok(check_pack(&reader, number, &pack, &rows, &bytes, level))
                        })
                        .await
                    }
                    Err(error) if error.is_corruption() || error.kind() == ErrorKind::NotFound => {
                        Ok(PackCheck {
                            number,
                            unreadable: true,
                            problem: Some(error.message().to_owned()),
                            ..PackCheck::default()
                        })
                    }
                    Err(error) => Err(error),
                }
            }
        }))
        .buffer_unordered(READS_MAX.max(self.workers));
        let mut done = 0_u64;
        while let Some(check) = reads.next().await {
            job.check()?;
            let check = check?;
            done = done.saturating_add(1);
            let pack = reader.index.pack(check.number)?;
            self.report.checked.bytes = self.report.checked.bytes.saturating_add(check.bytes);
            self.report.checked.chunks = self.report.checked.chunks.saturating_add(check.chunks);
            self.bad_frames.extend(check.bad_frames.iter().map(|frame| (check.number, *frame)));
            if check.unreadable {
                self.bad_packs.insert(check.number, check.problem.clone().unwrap_or_default());
            }
            let result = check.problem.map_or(Ok(()), |problem| Err(Error::corruption(problem)));
            self.count(&pack.key, result)?;
            job.emit(&Event::Progress(Progress {
                entries_done: done,
                entries_total: Some(total),
                bytes_done: self.report.checked.bytes,
                current: Some(pack.key.to_string()),
                ..Progress::default()
            }));
        }
        Ok(())
    }

    fn count(&mut self, key: &ObjectKey, result: Result<()>) -> Result<()> {
        self.report.checked.objects = self.report.checked.objects.saturating_add(1);
        note(&mut self.report, key, result, self.job)
    }
}

// Damage goes to the report, everything else up.
fn note(report: &mut VerifyReport, key: &ObjectKey, result: Result<()>, job: &JobContext) -> Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error)
            if error.is_corruption()
                || matches!(
                    error.kind(),
                    ErrorKind::NotFound
                        // A changed epoch in a header looks like a key that is not at hand.
                        | ErrorKind::Denied
                        | ErrorKind::Unsupported
                        | ErrorKind::LimitExceeded
                        | ErrorKind::InvalidInput
                ) =>
        {
            let mut reason = error.message().to_owned();
            if let Some(source) = std::error::Error::source(&error) {
                reason = format!("{reason}: {source}");
            }
            job.emit(&Event::ObjectDamaged { key: key.to_string(), reason: reason.clone() });
            report.damaged_objects.push(DamagedObject { object: key.to_string(), reason });
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn check_digest(key: &ObjectKey, bytes: &Bytes) -> Result<()> {
    if <[u8; 32]>::from(Sha256::digest(bytes)) == keys::digest_of(key)? {
        Ok(())
    } else {
        Err(Error::corruption("its bytes are not those that it is named by"))
    }
}

#[derive(Debug, Default)]
struct PackCheck {
    number: u32,
    bytes: u64,
    chunks: u64,
    bad_frames: Vec<u32>,
    /// Nothing of it can be read.
    unreadable: bool,
    problem: Option<String>,
}

fn check_pack(
    reader: &Reader,
    number: u32,
    pack: &Pack,
    rows: &[IndexRow],
    bytes: &Bytes,
    level: VerifyLevel,
) -> PackCheck {
    let mut check = PackCheck { number, bytes: bytes.len() as u64, ..PackCheck::default() };
    let mut problems = Vec::new();
    if let Err(error) = check_digest(&pack.key, bytes) {
        problems.push(error.message().to_owned());
    }
    // Without the right bytes the frames are looked at on every level: they tell which entries are harmed.
    if level == VerifyLevel::Content || !problems.is_empty() {
        check_frames(reader, pack, rows, bytes, &mut check, &mut problems);
        if let Err(error) = check_whole(reader, pack, bytes) {
            problems.push(error.message().to_owned());
        }
    }
    check.problem = (!problems.is_empty()).then(|| problems.join("; "));
    check
}

fn check_frames(
    reader: &Reader,
    pack: &Pack,
    rows: &[IndexRow],
    bytes: &Bytes,
    check: &mut PackCheck,
    problems: &mut Vec<String>,
) {
    let mut scratch = Scratch::default();
    let mut plain = Vec::new();
    let mut opened: Option<u32> = None;
    let mut good = false;
    for row in rows {
        if opened != Some(row.frame) {
            opened = Some(row.frame);
            plain.clear();
            let stored = pack.frame_range(row.frame).ok().and_then(|range| {
                bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
            });
            let result = match stored {
                Some(stored) => pack.open_frame(&reader.store, row.frame, stored, &mut scratch, &mut plain),
                None => Err(Error::corruption("is cut short")),
            };
            good = result.is_ok();
            if let Err(error) = result {
                check.bad_frames.push(row.frame);
                problems.push(format!("frame {}: {}", row.frame, error.message()));
            }
        }
        if !good {
            continue;
        }
        match super::frames::slice_of(&plain, row) {
            Ok(bytes) if reader.store.protection.chunk_id(bytes).short() == row.id => {
                check.chunks = check.chunks.saturating_add(1)
            }
            _ => {
                check.bad_frames.push(row.frame);
                problems.push(format!("frame {}: a chunk is not what its identity says", row.frame));
                good = false;
            }
        }
    }
}

// The header and the directory, which reading by the index does not need.
fn check_whole(reader: &Reader, pack: &Pack, bytes: &Bytes) -> Result<()> {
    let store = &reader.store;
    let opener = crate::format::object::ObjectOpener::new(
        &*store.protection,
        &store.transforms,
        pack.record.object_type,
        bytes,
    )?;
    if bytes.get(..pack.record.header.len()) != Some(&pack.record.header[..]) {
        return Err(Error::corruption("its header is not the one that the index knows"));
    }
    let directory = opener.open_directory(bytes, bytes.len() as u64)?;
    if directory.frames == pack.record.frames {
        Ok(())
    } else {
        Err(Error::corruption("its directory is not what the index knows"))
    }
}

/// Chooses a sample.
struct Dice {
    threshold: Option<u64>,
    stream: blake3::OutputReader,
}

impl Dice {
    fn new(options: &VerifyOptions, job: &JobContext) -> Result<Self> {
        let mut seed = [0; 32];
        job.random().fill(&mut seed)?;
        let threshold = options
            .sample_percent
            .filter(|percent| *percent < 100.0)
            .map(|p| (p / 100.0 * u64::MAX as f64) as u64);
        Ok(Self { threshold, stream: blake3::Hasher::new_keyed(&seed).finalize_xof() })
    }

    fn roll(&mut self) -> bool {
        let Some(threshold) = self.threshold else { return true };
        let mut bytes = [0; 8];
        self.stream.fill(&mut bytes);
        u64::from_le_bytes(bytes) < threshold
    }
}
