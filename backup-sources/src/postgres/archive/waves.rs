//! What a push archives: in waves, so that few files are in memory while many are archived.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use backup_core::{Archived, Error, ErrorKind, JobContext, Result};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};

use super::push::{NotPushed, blocking};
use super::{AT_ONCE_MAX, WalArchive};
use crate::postgres::wal::WalFile;

/// So many files in a wave, unless they are long: while some are made durable, the next are read.
const WAVE_FILES_MAX: usize = 2;
const WAVE_BYTES_MAX: u64 = 32 << 20;
/// Waves under way at once.
const WAVES_AT_ONCE: usize = 2;
/// Longest file of a server's log: a segment of the largest size.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Whoever archives waves of files of a server's log.
pub(super) struct Waves<'a> {
    pub(super) archive: &'a WalArchive,
    pub(super) pg_wal: &'a Path,
    /// The file that was asked for.
    pub(super) asked: WalFile,
    pub(super) system: Option<u64>,
    pub(super) buffers: Buffers,
    pub(super) job: &'a JobContext,
}

/// What became of a wave.
#[derive(Debug, Default)]
pub(super) struct Wave {
    /// Of the file that was asked for, once it is archived.
    pub(super) outcome: Option<Archived>,
    /// Others that are durable.
    pub(super) done: Vec<WalFile>,
    pub(super) failed: Vec<NotPushed>,
}

impl Waves<'_> {
    /// Archives the file that was asked for, of so many bytes, and others, and says of each wave what became of it, in their order: the
    /// first has the file that was asked for. Only that one is begun with later than `begun_within`. An error is that of the file that was
    /// asked for, or a cancellation.
    pub(super) async fn archive(
        &self,
        asked_bytes: u64,
        others: &[(WalFile, u64)],
        begun_within: Duration,
        mut ended: impl FnMut(Wave),
    ) -> Result<()> {
        let waves = cut((self.asked, asked_bytes), others);
        // Boxed: what borrows from a stream of futures is not `Send` otherwise.
        let mut left = waves.iter().map(|wave| self.wave(wave).boxed()).collect::<Vec<_>>().into_iter();
        let (started, mut is_first) = (Instant::now(), true);
        let in_time = std::iter::from_fn(move || {
            let goes_on = std::mem::take(&mut is_first) || started.elapsed() < begun_within;
            if goes_on { left.next() } else { None }
        });
        let mut runs = stream::iter(in_time).buffered(WAVES_AT_ONCE);
        while let Some(wave) = runs.next().await {
            ended(wave?);
        }
        Ok(())
    }

    async fn wave(&self, files: &[(WalFile, u64)]) -> Result<Wave> {
        let (mut wave, mut all) = (Wave::default(), Vec::new());
        for (file, content) in self.read(files).await {
            let checked = content.and_then(|content| self.archive.check(file, &content).map(|_| content));
            match checked {
                Ok(content) => all.push((file, content)),
                Err(error) if file == self.asked => return Err(error),
                Err(error) => wave.failed.push(not_pushed(file, &error)),
            }
        }
        if all.is_empty() {
            return Ok(wave);
        }
        match self.archive.put_all(&all, self.system, self.job).await {
            Ok(outcomes) => {
                for ((file, _), outcome) in all.iter().zip(outcomes) {
                    self.note(*file, outcome, &mut wave);
                }
            }
            Err(error) if error.is_cancelled() => return Err(error),
            Err(_) => self.one_by_one(&all, &mut wave).await?,
        }
        Ok(wave)
    }

    fn note(&self, file: WalFile, outcome: Archived, wave: &mut Wave) {
        if file == self.asked { wave.outcome = Some(outcome) } else { wave.done.push(file) }
    }

    /// Archives each of these files by itself, that which was asked for first if it is among them.
    async fn one_by_one(&self, all: &[(WalFile, Bytes)], wave: &mut Wave) -> Result<()> {
        let mut broken: Option<String> = None;
        for (file, content) in all {
            let put = match &broken {
                None => self.archive.put(*file, content.clone(), self.system, self.job).await,
                Some(message) => Err(Error::new(ErrorKind::Transient, message.clone())),
            };
            match put {
                Ok(outcome) => self.note(*file, outcome, wave),
                Err(error) if *file == self.asked || error.is_cancelled() => return Err(error),
                Err(error) => {
                    // It is not about this file: the next would not fare better, and the server waits.
                    if !is_of_the_file(&error) {
                        broken.get_or_insert_with(|| error.to_string());
                    }
                    wave.failed.push(not_pushed(*file, &error));
                }
            }
        }
        Ok(())
    }

    /// Reads files side by side. That which was asked for may have any length, the others not more than was found.
    async fn read(&self, files: &[(WalFile, u64)]) -> Vec<(WalFile, Result<Bytes>)> {
        let read = |(file, bytes): &(WalFile, u64)| {
            let (pg_wal, file, buffers) = (self.pg_wal.to_owned(), *file, self.buffers.clone());
            let bytes_max = if file == self.asked { FILE_BYTES_MAX } else { *bytes };
            async move { (file, blocking(move || read_up_to(&pg_wal, file, bytes_max, buffers)).await) }
        };
        let reads: Vec<_> = files.iter().map(read).collect();
        stream::iter(reads).buffered(AT_ONCE_MAX).collect().await
    }
}

/// Cuts what is archived into waves, the file that was asked for in the first.
fn cut(asked: (WalFile, u64), others: &[(WalFile, u64)]) -> Vec<Vec<(WalFile, u64)>> {
    let mut waves = vec![vec![asked]];
    let mut bytes = asked.1;
    for (file, len) in others {
        bytes = bytes.saturating_add(*len);
        match waves.last_mut() {
            Some(wave) if wave.len() < WAVE_FILES_MAX && bytes <= WAVE_BYTES_MAX => wave.push((*file, *len)),
            _ => {
                waves.push(vec![(*file, *len)]);
                bytes = *len;
            }
        }
    }
    waves
}

fn is_of_the_file(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Corruption | ErrorKind::InvalidInput)
}

fn not_pushed(file: WalFile, error: &Error) -> NotPushed {
    tracing::warn!(%file, %error, "is ready and cannot be archived");
    NotPushed { file: file.to_string(), why: error.to_string() }
}

/// Memory that files are read into, one after the other: memory that was never touched costs more than reading does.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Memory that is free again once nobody has a use for what was read.
struct Lent {
    bytes: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.free().push(std::mem::take(&mut self.bytes));
    }
}

fn read_up_to(pg_wal: &Path, file: WalFile, bytes_max: u64, home: Buffers) -> Result<Bytes> {
    let path = pg_wal.join(file.to_string());
    let unreadable = |e| Error::io(format!("{} cannot be read", path.display()), e);
    let opened = fs::File::open(&path).map_err(unreadable)?;
    let len = opened.metadata().map_err(unreadable)?.len();
    if len > bytes_max {
        let message = format!("{} has {len} bytes, more than are read at once", path.display());
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    let mut bytes = home.free().pop().unwrap_or_default();
    bytes.clear();
    bytes.reserve_exact(usize::try_from(len).unwrap_or_default());
    let mut lent = Lent { bytes, home };
    opened.take(len).read_to_end(&mut lent.bytes).map_err(unreadable)?;
    if lent.bytes.len() as u64 != len {
        return Err(Error::new(ErrorKind::Io, format!("{} was cut short while it was read", path.display())));
    }
    Ok(Bytes::from_owner(lent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_are_short_and_hold_every_file_in_order() {
        let file = |number: u64| {
            WalFile::History(crate::postgres::Timeline::new(u32::try_from(number).unwrap() + 2))
        };
        let others: Vec<_> = [16, 16, 16, 40, 1, 1, 1]
            .iter()
            .zip(1..)
            .map(|(mib, number)| (file(number), *mib << 20))
            .collect();
        let waves = cut((file(0), 16 << 20), &others);
        let lens: Vec<usize> = waves.iter().map(Vec::len).collect();
        assert_eq!(lens, [2, 2, 1, 2, 1]);
        let flat: Vec<WalFile> = waves.iter().flatten().map(|(file, _)| *file).collect();
        assert_eq!(flat, (0..8).map(file).collect::<Vec<_>>());
        assert_eq!(cut((file(0), 1 << 30), &[]).len(), 1);
    }

    #[test]
    fn memory_that_nobody_uses_any_more_is_lent_again() {
        let directory = tempfile::tempdir().unwrap();
        let (buffers, file) = (Buffers::default(), "00000002.history".parse::<WalFile>().unwrap());
        fs::write(directory.path().join(file.to_string()), [7; 1000]).unwrap();
        let read = || read_up_to(directory.path(), file, 1000, buffers.clone()).unwrap();
        let (one, other) = (read(), read());
        let (place, part) = (one.as_ptr(), one.slice(10..20));
        drop(one);
        assert!(buffers.free().is_empty(), "a part is still in use");
        drop(part);
        fs::write(directory.path().join(file.to_string()), [8; 900]).unwrap();
        let again = read();
        assert_eq!((again.as_ptr(), &again[..], &other[..]), (place, &[8; 900][..], &[7; 1000][..]));
        assert!(read_up_to(directory.path(), file, 899, buffers).is_err());
    }
}
