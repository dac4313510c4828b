//! What of the parent is replaced, counted while it is walked anyway.

use crate::Result;
use crate::format::chunks::StoredContent;
use crate::repository::reader::Reader;

/// Contents of which one in so many is looked up, once there are many.
const SAMPLED_FIRST: u64 = 1024;

/// Counts what the parent has and the new snapshot has not.
#[derive(Debug, Default)]
pub(crate) struct Churn {
    pub(super) entries_new: u64,
    pub(super) entries_changed: u64,
    pub(super) entries_deleted: u64,
    pub(super) bytes_replaced: u64,
    contents: u64,
    stride: u64,
    plain: u64,
    stored: u64,
}

impl Churn {
    /// Content of the parent's that is replaced, or gone. How it compressed is asked of the index, of a sample.
    pub(super) fn replaced(&mut self, content: &StoredContent, parent: &Reader) -> Result<()> {
        self.bytes_replaced = self.bytes_replaced.saturating_add(content.len());
        // Of long contents the index would be asked too often; few of them say much of many files.
        let StoredContent::Chunks(chunks) = content else { return Ok(()) };
        self.contents = self.contents.saturating_add(1);
        if self.contents.is_multiple_of(SAMPLED_FIRST) {
            self.stride = self.stride.saturating_add(1);
        }
        if !self.contents.is_multiple_of(self.stride.max(1)) {
            return Ok(());
        }
        for chunk in chunks {
            let Some(row) = parent.index.find(chunk.id.short(), chunk.len)?.first().copied() else {
                continue;
            };
            let pack = parent.index.pack(row.pack)?;
            let Some(frame) = pack.record.frames.get(row.frame as usize) else { continue };
            // Its share of the frame that it is in.
            let len = u64::from(chunk.len);
            let stored = u128::from(frame.stored_len).saturating_mul(u128::from(len));
            let stored = stored.checked_div(u128::from(frame.plain_len)).unwrap_or(0);
            self.plain = self.plain.saturating_add(len);
            self.stored = self.stored.saturating_add(u64::try_from(stored).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// How many hundredths of its bytes it took.
    pub(super) fn stored_percent(&self) -> Option<u8> {
        percent(self.stored, self.plain)
    }
}

/// How many hundredths of `plain` are stored; none of nothing.
pub(super) fn percent(stored: u64, plain: u64) -> Option<u8> {
    let percent = u128::from(stored).saturating_mul(100).checked_div(u128::from(plain))?;
    Some(u8::try_from(percent).unwrap_or(u8::MAX))
}
