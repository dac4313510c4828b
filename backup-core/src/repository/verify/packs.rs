//! Index segments and packs: is each there, and is it what it is named by?

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use sha2::{Digest, Sha256};

use super::sample::Dice;
use super::{Bad, READS_MAX, Verification, VerifyLevel};
use crate::format::object::Scratch;
use crate::format::segment::IndexRow;
use crate::limits;
use crate::observer::Event;
use crate::repository::index::{Bits, Index, Pack};
use crate::repository::listing::Listing;
use crate::repository::reader::Reader;
use crate::repository::{frames, guard, keys};
use crate::{Error, ErrorKind, ObjectKey, Progress, Result};

impl Verification<'_> {
    /// Checks the segments. Returns the view to walk snapshots with.
    pub(super) async fn check_index(&mut self) -> Result<Reader> {
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
        Ok(Reader { cache: Default::default(), ..self.repository.reader(index) })
    }

    /// Compares the packs with the listing. Returns those to be read, and those that are missing.
    pub(super) async fn choose_packs(&mut self, index: &Index) -> Result<(Bits, Bad)> {
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
        // Read after the packs were listed: what is not there and was swept is as it should be.
        let control = self.collected().await?.sweeping();
        let swept = self.repository.bars(&control, self.job).await?.packs(index)?;
        let mut dice = Dice::new(&self.options, self.job)?;
        let mut chosen = Bits::default();
        let mut bad = Bad::default();
        for number in 0..index.pack_count() {
            let pack = index.pack(number)?;
            if swept.contains(number) {
                bad.packs.insert(number, "was swept".to_owned());
            } else if !listed.contains(number) {
                let reason = "is missing".to_owned();
                bad.packs.insert(number, reason.clone());
                self.count(&pack.key, Err(Error::corruption(reason)))?;
            } else if let Some(len) = lens.get(&number) {
                let reason = format!("has {len} bytes instead of {}", pack.record.object_len);
                chosen.insert(number);
                self.count(&pack.key, Err(Error::corruption(reason)))?;
            } else if self.options.level > VerifyLevel::Structure && dice.chooses(&pack.record.digest) {
                chosen.insert(number);
            } else {
                self.count(&pack.key, Ok(()))?;
            }
            if number % 1024 == 0 {
                self.job.check()?;
                tokio::task::yield_now().await;
            }
        }
        Ok((chosen, bad))
    }

    /// Reads them. Returns what is not what it should be.
    pub(super) async fn read_packs(&mut self, reader: &Reader, chosen: Bits) -> Result<Bad> {
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
        let mut bad = Bad::default();
        let mut done = 0_u64;
        while let Some(check) = reads.next().await {
            job.check()?;
            let check = check?;
            done = done.saturating_add(1);
            let pack = reader.index.pack(check.number)?;
            self.report.checked.bytes = self.report.checked.bytes.saturating_add(check.bytes);
            self.report.checked.chunks = self.report.checked.chunks.saturating_add(check.chunks);
            bad.frames.extend(check.bad_frames.iter().map(|frame| (check.number, *frame)));
            if check.unreadable {
                bad.packs.insert(check.number, check.problem.clone().unwrap_or_default());
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
        Ok(bad)
    }
}

/// Whether bytes are those that an object is named by.
pub(super) fn check_digest(key: &ObjectKey, bytes: &Bytes) -> Result<()> {
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
        match frames::slice_of(&plain, row) {
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
