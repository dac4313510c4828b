//! The content of a file while it is copied: its pages are judged, and its checksum is taken for the manifest.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use backup_core::resources::RateLimit;
use backup_core::source::BlockingContent;
use backup_core::{Attribute, CancellationToken, EntryName, Error, Timestamp};

use super::digest::{Checksum, Digest};
use super::page::{Verdict, judge};
use super::reader::PgFile;
use super::relation::RelationFile;
use super::run::Notes;

/// How long a page that looks damaged is waited for before each further look: a write takes microseconds, unless its process
/// is suspended in the middle.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
];
/// How often a thread that waits looks whether it is still to wait.
const TICK: Duration = Duration::from_millis(100);
/// Damaged pages of one file that are named, and that are waited for so long: damage comes in runs.
const NAMED_MAX: usize = 16;
/// Chunks of a relation are single pages; what is read at once has to hold one.
const PAGE_BYTES_MAX: usize = 32 * 1024;

/// How the pages of a file are judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pages {
    pub(super) bytes: usize,
    /// The number of the file's first block in its fork.
    pub(super) first_block: u32,
    pub(super) relation: RelationFile,
}

impl Pages {
    /// The pages of a file of a relation whose segments have `segment_blocks` pages of `bytes`.
    pub(super) fn new(relation: RelationFile, bytes: u32, segment_blocks: u32) -> Option<Self> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| (1..=PAGE_BYTES_MAX).contains(bytes))?;
        Some(Self { bytes, first_block: relation.segment.wrapping_mul(segment_blocks), relation })
    }
}

/// Below this nothing is read at once, however low the limit.
const PACED_BYTES_MIN: usize = 64 * 1024;

/// How fast files are read.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    pub(super) limit: RateLimit,
    pub(super) cancellation: CancellationToken,
}

impl Pace {
    /// How much to read at once: a tenth of a second's worth, so that a change of the limit is noticed soon.
    fn portion(&self, wanted: usize) -> usize {
        let Some(limit) = self.limit.bytes_per_second() else { return wanted };
        let tenth = usize::try_from(limit / 10).unwrap_or(usize::MAX);
        wanted.min(tenth.max(PACED_BYTES_MIN))
    }

    /// Waits until so much may be read.
    fn wait(&self, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let mut left = self.limit.reserve(bytes as u64);
        while !left.is_zero() {
            if self.cancellation.is_cancelled() {
                return Err(Error::cancelled().into());
            }
            let step = left.min(TICK);
            std::thread::sleep(step);
            left = left.saturating_sub(step);
            if self.limit.bytes_per_second().is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// A file that is copied.
pub(super) struct PgContent {
    file: Box<dyn PgFile>,
    name: EntryName,
    modified: Timestamp,
    notes: Arc<Notes>,
    pages: Option<Pages>,
    /// Bytes handed over so far.
    at: u64,
    /// A page of which a part was handed over: who asks for less than a page gets it in parts.
    rest: VecDeque<u8>,
    /// None once a part was passed over: nobody knows then what the whole has.
    digest: Option<Digest>,
    pace: Pace,
    damaged: Vec<u32>,
    damaged_count: u64,
}

impl PgContent {
    pub(super) fn new(
        file: Box<dyn PgFile>,
        name: EntryName,
        modified: Timestamp,
        pages: Option<Pages>,
        notes: Arc<Notes>,
        pace: Pace,
    ) -> Self {
        let digest = Some(notes.checksum.begin());
        let rest = VecDeque::new();
        Self {
            file,
            name,
            modified,
            notes,
            pages,
            at: 0,
            rest,
            digest,
            pace,
            damaged: Vec::new(),
            damaged_count: 0,
        }
    }

    fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(pages) = self.pages else {
            let len = self.file.read(buffer)?;
            self.note(buffer.get(..len).unwrap_or_default());
            return Ok(len);
        };
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.rest.is_empty() {
            if buffer.len() >= pages.bytes {
                let len = self.read_pages(buffer, pages)?;
                self.note(buffer.get(..len).unwrap_or_default());
                return Ok(len);
            }
            let mut page = vec![0; pages.bytes];
            let len = self.read_pages(&mut page, pages)?;
            page.truncate(len);
            self.note(&page);
            self.rest = page.into();
        }
        let len = buffer.len().min(self.rest.len());
        for (to, from) in buffer.iter_mut().zip(self.rest.drain(..len)) {
            *to = from;
        }
        Ok(len)
    }

    /// Notes what is handed over.
    fn note(&mut self, bytes: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        self.at = self.at.saturating_add(bytes.len() as u64);
    }

    /// Reads whole pages, and judges them; less than a page at the end of the file only.
    fn read_pages(&mut self, buffer: &mut [u8], pages: Pages) -> io::Result<usize> {
        let whole = buffer.len().checked_div(pages.bytes).unwrap_or_default().saturating_mul(pages.bytes);
        let buffer = buffer.get_mut(..whole).unwrap_or_default();
        let mut filled = 0_usize;
        while let Some(free) = buffer.get_mut(filled..).filter(|free| !free.is_empty()) {
            match self.file.read(free) {
                Ok(0) => break,
                Ok(len) => filled = filled.saturating_add(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if filled.checked_rem(pages.bytes) == Some(0) {
                break;
            }
        }
        let read = buffer.get_mut(..filled).unwrap_or_default();
        // Half a page at the end belongs to a page that is being added just now, which replay writes.
        for (number, page) in read.chunks_exact_mut(pages.bytes).enumerate() {
            let offset = self.at.saturating_add((number as u64).saturating_mul(pages.bytes as u64));
            let block = u32::try_from(offset.checked_div(pages.bytes as u64).unwrap_or_default());
            let block = pages.first_block.wrapping_add(block.unwrap_or(u32::MAX));
            if judge(page, block) == Verdict::Invalid && self.is_damaged(page, offset, block)? {
                self.damaged_count = self.damaged_count.saturating_add(1);
                if self.damaged.len() < NAMED_MAX {
                    self.damaged.push(block);
                }
            }
        }
        Ok(filled)
    }

    /// Looks again at a page that looks damaged. What changes is being written just now: the log has the whole page, and the
    /// newest bytes are as good as any. What stays as it is, is damaged.
    fn is_damaged(&mut self, page: &mut [u8], offset: u64, block: u32) -> io::Result<bool> {
        let mut again = vec![0; page.len()];
        let mut is_written = false;
        let looks = if self.damaged.len() < NAMED_MAX { PAUSES.len() } else { 1 };
        for pause in PAUSES.iter().take(looks) {
            std::thread::sleep(*pause);
            if self.file.read_again(&mut again, offset)? < again.len() {
                // The relation was truncated: replay does it, too.
                return Ok(false);
            }
            if *page != again {
                is_written = true;
                page.copy_from_slice(&again);
            }
            if judge(page, block) == Verdict::Valid {
                return Ok(false);
            }
        }
        Ok(!is_written)
    }
}

impl BlockingContent for PgContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let portion = self.pace.portion(buffer.len());
        let read = self.read_now(buffer.get_mut(..portion).unwrap_or_default());
        let len = read.map_err(|error| self.notes.note_failure(error))?;
        self.pace.wait(len)?;
        Ok(len)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        if !self.rest.is_empty() {
            return Err(Error::internal("pages are passed over in the middle of one").into());
        }
        self.digest = None;
        self.at = self.at.saturating_add(bytes);
        self.file.skip(bytes).map_err(|error| self.notes.note_failure(error))
    }

    fn attributes(&mut self) -> Vec<Attribute> {
        let checksum = self.digest.take().map(Digest::finish);
        let attribute = checksum.as_ref().map(Checksum::to_attribute);
        self.notes.add_file(self.name.clone(), self.at, self.modified, checksum);
        attribute.into_iter().collect()
    }

    fn finish(&mut self) -> Option<String> {
        let pages = self.pages.filter(|_| self.damaged_count > 0)?;
        self.notes.add_damaged(self.damaged_count);
        let mut blocks: Vec<String> = self.damaged.iter().map(u32::to_string).collect();
        let more = self.damaged_count.saturating_sub(self.damaged.len() as u64);
        if more > 0 {
            blocks.push(format!("and {more} more"));
        }
        let (fork, relation) = (pages.relation.fork.name(), pages.relation.number);
        Some(format!(
            "the checksums of pages of relation {relation} are wrong and stay so: block {} of its {fork} fork; they are stored \
             as they are. The server refuses to read them: look for the relation with pg_filenode_relation()",
            blocks.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::postgres::physical::ManifestChecksum;
    use crate::postgres::physical::page::checksum;

    const PAGE: usize = 8192;

    /// A file that has other bytes each time it is looked at, as far as there are others.
    struct Changing {
        first: Vec<u8>,
        looks: Vec<Vec<u8>>,
        at: usize,
        /// Bytes that a read gives at most.
        piece: usize,
        again: Arc<Mutex<usize>>,
    }

    impl PgFile for Changing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let bytes = &self.first[self.at..];
            let len = bytes.len().min(buffer.len()).min(self.piece);
            buffer[..len].copy_from_slice(&bytes[..len]);
            self.at += len;
            Ok(len)
        }

        fn skip(&mut self, bytes: u64) -> io::Result<()> {
            self.at = usize::try_from(bytes).unwrap().saturating_add(self.at).min(self.first.len());
            Ok(())
        }

        fn read_again(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            *self.again.lock().unwrap() += 1;
            if self.looks.len() > 1 {
                self.looks.remove(0);
            }
            let bytes = self.looks[0].get(offset as usize..).unwrap_or_default();
            let len = bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            Ok(len)
        }
    }

    /// Pages that are valid from block `first` on.
    fn pages(count: u32, first: u32, seed: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        for block in first..first + count {
            let mut page: Vec<u8> =
                (0..PAGE).map(|at| (at as u8).wrapping_mul(seed).wrapping_add(block as u8)).collect();
            page[12..16].copy_from_slice(&[40, 0, 100, 0]);
            let sum = checksum(&page, block);
            page[8..10].copy_from_slice(&sum.to_ne_bytes());
            bytes.extend(page);
        }
        bytes
    }

    /// Half the old page, half the new one.
    fn torn(old: &[u8], new: &[u8], page: usize) -> Vec<u8> {
        let mut torn = old.to_vec();
        let middle = page * PAGE + PAGE / 2;
        torn[middle..(page + 1) * PAGE].copy_from_slice(&new[middle..(page + 1) * PAGE]);
        torn
    }

    struct Read {
        bytes: Vec<u8>,
        notice: Option<String>,
        again: usize,
    }

    fn read_all(looks: Vec<Vec<u8>>, segment: u32, piece: usize, ask: usize) -> Read {
        let again = Arc::new(Mutex::new(0));
        let notes = Arc::new(Notes::new(ManifestChecksum::Crc32c));
        let relation = RelationFile { number: 16384, fork: super::super::relation::Fork::Main, segment };
        let file = Changing { first: looks[0].clone(), looks, at: 0, piece, again: again.clone() };
        let name = EntryName::new("base/5/16384").unwrap();
        let pages = Pages::new(relation, PAGE as u32, 100);
        let mut content =
            PgContent::new(Box::new(file), name, Timestamp::default(), pages, notes, Pace::default());
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; ask]);
        loop {
            match content.read(&mut buffer).unwrap() {
                0 => break,
                len => bytes.extend_from_slice(&buffer[..len]),
            }
        }
        let attributes = content.attributes();
        let expected = Checksum::of(ManifestChecksum::Crc32c, &bytes).to_attribute();
        assert_eq!(attributes, [expected], "the checksum is not that of what was handed over");
        let notice = content.finish();
        Read { bytes, notice, again: *again.lock().unwrap() }
    }

    #[test]
    fn trap_30_a_torn_page_is_read_again_and_stored_whole() {
        let (old, new) = (pages(10, 0, 3), pages(10, 0, 7));
        for (piece, ask) in [(usize::MAX, 1 << 20), (3000, 1 << 20), (usize::MAX, PAGE + 1), (3000, 700)] {
            // The second look finds the write still under way.
            let looks = vec![torn(&old, &new, 4), torn(&old, &new, 4), new.clone()];
            let read = read_all(looks, 0, piece, ask);
            assert_eq!(read.notice, None);
            assert_eq!(read.again, 2);
            assert!(read.bytes[4 * PAGE..5 * PAGE] == new[4 * PAGE..5 * PAGE], "the torn page is stored");
            let mut rest = read.bytes;
            rest[4 * PAGE..5 * PAGE].copy_from_slice(&old[4 * PAGE..5 * PAGE]);
            assert!(rest == old);
        }
    }

    #[test]
    fn trap_30_a_page_that_keeps_changing_is_no_damage_and_one_that_stays_is() {
        let (old, new) = (pages(3, 0, 3), pages(3, 0, 7));
        // Torn each time in another way.
        let looks: Vec<_> = (0..6_u8)
            .map(|number| {
                let mut torn = torn(&old, &new, 1);
                torn[PAGE + 100] = number;
                torn
            })
            .collect();
        assert_eq!(read_all(looks, 0, usize::MAX, 1 << 20).notice, None);
        let damaged = torn(&old, &new, 1);
        let read = read_all(vec![damaged.clone()], 0, usize::MAX, 1 << 20);
        assert!(read.bytes == damaged);
        assert_eq!(read.again, PAUSES.len());
        assert!(read.notice.unwrap().contains("block 1 of its main fork"));
        // A page behind which the file was cut off meanwhile.
        let read = read_all(vec![damaged.clone(), damaged[..PAGE].to_vec()], 0, usize::MAX, 1 << 20);
        assert_eq!(read.notice, None);
    }

    #[test]
    fn trap_30_blocks_count_through_the_files_of_a_relation_and_empty_pages_are_valid() {
        // The third file of a relation whose files have 100 pages.
        let mut bytes = pages(5, 200, 3);
        bytes.extend(vec![0; 2 * PAGE]);
        // And half a page that is being added.
        bytes.extend(vec![9; PAGE / 2]);
        let read = read_all(vec![bytes.clone()], 2, usize::MAX, 1 << 20);
        assert_eq!(read.notice, None);
        assert!(read.bytes == bytes);
        let read = read_all(vec![bytes], 1, usize::MAX, 1 << 20);
        assert!(read.notice.unwrap().contains("block 100, 101, 102, 103, 104 of"));
    }

    #[test]
    fn of_many_damaged_pages_the_first_are_named() {
        let read = read_all(vec![pages(NAMED_MAX as u32 + 30, 7, 3)], 0, usize::MAX, 1 << 20);
        let notice = read.notice.unwrap();
        assert!(notice.contains("block 0, 1, 2,") && notice.contains("and 30 more"), "{notice}");
    }
}
