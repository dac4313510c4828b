//! What segments say of themselves, without reading them.

use std::collections::BTreeMap;

use super::read::Best;
use crate::format::log::{self, LogHead, LogKey};
use crate::repository::{Repository, guard};
use crate::sink::GetRange;
use crate::{Error, ErrorKind, JobContext, LogName, LogOutline, ObjectMeta, Result, limits};

/// Bytes of each end of an object that are read: heads have a few hundred, and a directory of a segment's frames about as many.
const END_BYTES: u64 = 16 * 1024;

impl Repository {
    /// What the objects of a segment say of it: how much of it is archived, and its named positions. The ends of the objects are
    /// read, and its bytes stay where they are: whether these are undamaged only [`read_log`](Self::read_log) tells. None if nothing of
    /// it is archived in any place.
    ///
    /// # Errors
    /// Those of the stores, and damage, where no place has the segment as a whole.
    pub async fn outline_log(&self, name: &LogName, job: &JobContext) -> Result<Option<LogOutline>> {
        guard::run(job, async move {
            let mut best = Best::new(LogOutline::is_whole, |outline| outline.bytes);
            for place in std::iter::once(self).chain(self.others.iter()) {
                if let Some(whole) = best.add(place.outline_log_here(name, job).await)? {
                    return Ok(Some(whole));
                }
            }
            best.end()
        })
        .await
    }

    async fn outline_log_here(&self, name: &LogName, job: &JobContext) -> Result<Option<LogOutline>> {
        let listed = self.list_segments(&[name]).await?;
        if let Some(whole) = listed.counting(name, None, |_| false)
            && let Some(head) = self.log_head(whole, job).await?
        {
            let LogHead { bytes, segment_bytes, position, .. } = head;
            return Ok(Some(LogOutline { bytes, segment_bytes, position }));
        }
        let mut joined: Option<LogOutline> = None;
        for meta in listed.pieces(name, |_| false) {
            let Some(head) = self.log_head(meta, job).await? else { continue };
            let empty = LogOutline { bytes: 0, segment_bytes: None, position: BTreeMap::new() };
            let outline = joined.get_or_insert(empty);
            if head.offset > outline.bytes {
                break;
            }
            outline.bytes = outline.bytes.max(head.offset.saturating_add(head.bytes));
            outline.segment_bytes = outline.segment_bytes.or(head.segment_bytes);
            outline.position.extend(head.position);
        }
        Ok(joined)
    }

    /// The head of an object of a log; none if the object is gone.
    async fn log_head(&self, meta: &ObjectMeta, job: &JobContext) -> Result<Option<LogHead>> {
        let ends = async {
            if meta.len <= END_BYTES.saturating_mul(2) {
                return Ok(None);
            }
            let front = self.store().get(&meta.key, GetRange::Bounded(0..END_BYTES), job).await?;
            let tail = self.store().get(&meta.key, GetRange::Suffix(END_BYTES), job).await?;
            let store = self.store();
            log::open_head_of(
                &*store.protection,
                &store.transforms,
                &front.bytes,
                &tail.bytes,
                tail.object_len,
            )
            .map_err(|e| e.with_object(&meta.key))
        };
        let head = match ends.await {
            Ok(Some(head)) => head,
            // Short, or with more of a head than was read.
            Ok(None) => {
                let Some((head, _)) = self.log_object(&meta.key, job).await? else { return Ok(None) };
                head
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let offset = (!head.is_whole()).then_some(head.offset);
        let is_named =
            LogKey::parse(&meta.key).is_some_and(|key| key.name == head.name() && key.offset == offset);
        if !is_named || head.bytes > limits::LOG_PIECE_BYTES_MAX as u64 {
            let message = "is another log segment than its name says";
            return Err(Error::corruption(message).with_object(&meta.key));
        }
        Ok(Some(head))
    }
}
