//! Putting segments and pieces of them, as often as anybody asks.

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::listed::Listed;
use crate::format::control::SweptName;
use crate::format::log::{self, LogHead, LogKey};
use crate::repository::control::Bars;
use crate::repository::store::{PutCounters, Store};
use crate::repository::{Repository, guard};
use crate::{
    Archived, Error, ErrorKind, JobContext, LogName, LogPiece, ObjectKey, Result, Transform, Zstd, limits,
};

/// What is there of some segments, and what of it nobody may rely upon.
#[derive(Debug)]
struct View {
    listed: Listed,
    bars: Bars,
}

/// A piece on its way.
#[derive(Debug)]
struct Archiving {
    /// What of it nobody has stored yet.
    left: LogPiece,
    /// Where it was put.
    put: Option<ObjectKey>,
    /// Whether anything was put for it.
    stored: bool,
    is_done: bool,
}

/// An object that is listed.
#[derive(Debug)]
enum There {
    Whole(Box<LogHead>, Bytes),
    Gone,
    Damaged,
}

/// What one look at a piece led to.
#[derive(Debug)]
enum Step {
    /// It is there; by this call if it had been put before.
    There,
    /// What is left of it after so many bytes that are there was put, and is to be looked at once more.
    Put { key: ObjectKey, passed: usize },
    /// So many bytes of it are there, from its start.
    ThereFrom(usize),
    /// Others were at work at the same moment.
    Again,
}

impl Repository {
    /// Archives segments of logs, or pieces of segments that are still growing. When this returns, all of them are durable and
    /// will stay until a collection finds that no snapshot and no [retention](crate::LogRetention) needs them.
    ///
    /// Archiving the same bytes again is a success, from wherever, also at the same time. A piece of a whole segment that is there is
    /// there, too. Each piece holds at most [`LOG_PIECE_BYTES_MAX`](limits::LOG_PIECE_BYTES_MAX) bytes.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where other bytes are archived under the name of one: the others may be stored then, or not.
    /// Cancellation: the same; archive them again.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use backup_core::{Archived, JobContext, LogName, LogPiece, Repository, Result};
    /// # async fn example(repository: Repository) -> Result<()> {
    /// let name = LogName::new("7412", "00000001", "000000010000000000000002");
    /// let segment = LogPiece::whole("postgres", name.clone(), "the segment".into());
    /// let job = JobContext::new();
    /// assert_eq!(repository.archive(&[segment], &job).await?, [Archived::Stored]);
    /// let read = repository.read_log(&name, &job).await?.ok_or_else(|| backup_core::Error::invalid_input("gone"))?;
    /// assert_eq!(read.content, "the segment");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn archive(&self, pieces: &[LogPiece], job: &JobContext) -> Result<Vec<Archived>> {
        guard::run(job, async move {
            if let Some(piece) = pieces.iter().find(|piece| piece.content.is_empty() && !piece.is_whole()) {
                return Err(Error::invalid_input(format!("a piece of {} has no bytes", piece.name)));
            }
            let mut all: Vec<Archiving> = pieces.iter().map(Archiving::new).collect();
            for _ in 0..limits::LOG_LOOKS_MAX {
                let names: Vec<&LogName> = all.iter().filter(|a| !a.is_done).map(|a| &a.left.name).collect();
                if names.is_empty() {
                    return Ok(all.iter().map(Archiving::outcome).collect());
                }
                let view = self.view_of_log(&names, job).await?;
                let looks = all.iter().filter(|archiving| !archiving.is_done);
                let looks: Vec<_> = looks.map(|archiving| self.look(archiving, &view, job)).collect();
                let steps: Vec<Result<Step>> =
                    stream::iter(looks).buffered(limits::LOG_AT_ONCE_MAX).collect().await;
                for (archiving, step) in all.iter_mut().filter(|archiving| !archiving.is_done).zip(steps) {
                    archiving.take(step?);
                }
            }
            let message = "what is archived is condemned again and again: look for a retention of logs that keeps nothing";
            Err(Error::new(ErrorKind::Transient, message))
        })
        .await
    }

    /// What is there is listed first, then what is condemned, then what ever was swept: what is seen there and barred by neither
    /// was archived in between.
    async fn view_of_log(&self, names: &[&LogName], job: &JobContext) -> Result<View> {
        job.check()?;
        let listed = self.list_segments(names).await?;
        Ok(View { listed, bars: self.bars_of_log(job).await? })
    }

    async fn look(&self, archiving: &Archiving, view: &View, job: &JobContext) -> Result<Step> {
        let Archiving { left: piece, put, .. } = archiving;
        let barred = |key: &ObjectKey| view.bars.contains(SweptName::of_log(key));
        if let Some(whole) = view.listed.counting(&piece.name, None, barred) {
            if put.as_ref() == Some(&whole.key) {
                return Ok(Step::There);
            }
            match self.read_or_damaged(&whole.key, job).await? {
                There::Whole(_, content) => return compare(piece, 0, &content, true),
                There::Gone => return Ok(Step::Again),
                // It serves nobody: what is archived now stands beside it, and counts.
                There::Damaged => {}
            }
        }
        if !piece.is_whole() {
            return self.look_along(piece, put.as_ref(), view, job).await;
        }
        for meta in view.listed.pieces(&piece.name, barred) {
            let There::Whole(head, content) = self.read_or_damaged(&meta.key, job).await? else {
                continue;
            };
            let start = usize::try_from(head.offset).unwrap_or(usize::MAX);
            let same = piece.content.get(start..start.saturating_add(content.len()));
            if same != Some(&content[..]) {
                return Err(differs(&piece.name));
            }
        }
        self.put_piece(piece, None, 0, view, job).await
    }

    /// Looks at a piece of a segment that is not there as a whole. Any number of shorter pieces may stand where it begins, one after the
    /// other, as somebody has brought them who follows the log: all of them are passed in one look.
    async fn look_along(
        &self,
        piece: &LogPiece,
        put: Option<&ObjectKey>,
        view: &View,
        job: &JobContext,
    ) -> Result<Step> {
        let barred = |key: &ObjectKey| view.bars.contains(SweptName::of_log(key));
        let mut rest = piece.clone();
        let mut passed = 0_usize;
        while let Some(there) = view.listed.counting(&rest.name, Some(rest.offset), barred) {
            if put == Some(&there.key) {
                return Ok(Step::There);
            }
            match self.read_or_damaged(&there.key, job).await? {
                There::Whole(head, content) => match compare(&rest, head.offset, &content, false)? {
                    Step::ThereFrom(bytes) if bytes > 0 => {
                        rest.advance(bytes);
                        passed = passed.saturating_add(bytes);
                    }
                    Step::ThereFrom(_) => break,
                    step => return Ok(step),
                },
                There::Gone if passed > 0 => return Ok(Step::ThereFrom(passed)),
                There::Gone => return Ok(Step::Again),
                There::Damaged => break,
            }
        }
        self.put_piece(&rest, Some(rest.offset), passed, view, job).await
    }

    async fn read_or_damaged(&self, key: &ObjectKey, job: &JobContext) -> Result<There> {
        let mut read = self.log_object(key, job).await;
        if read.as_ref().is_err_and(Error::is_corruption) {
            // It may have been misread.
            read = self.log_object(key, job).await;
        }
        match read {
            Ok(Some((head, content))) => Ok(There::Whole(Box::new(head), content)),
            Ok(None) => Ok(There::Gone),
            Err(error) if error.is_corruption() => {
                tracing::warn!(%error, "a log segment is archived once more, because it is damaged");
                Ok(There::Damaged)
            }
            Err(error) => Err(error),
        }
    }

    async fn put_piece(
        &self,
        piece: &LogPiece,
        offset: Option<u64>,
        passed: usize,
        view: &View,
        job: &JobContext,
    ) -> Result<Step> {
        let mut free = None;
        let first = view.listed.after_all(&piece.name, offset);
        for n in first..first.saturating_add(limits::LOG_NAMES_MAX) {
            let key = LogKey { name: piece.name.clone(), offset, n };
            let object = key.key()?;
            if !view.bars.contains(SweptName::of_log(&object)) {
                free = Some(object);
                break;
            }
        }
        let Some(key) = free else {
            let message = format!("{} was condemned under every name that it may have", piece.name);
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        };
        let store = self.store().clone();
        let (salt, sealing, time) = (Store::salt(job)?, piece.clone(), job.now());
        let sealed = guard::blocking(move || {
            let LogPiece { source, name, offset, segment_bytes, position, content } = sealing;
            let mut head = LogHead::new(source, name.lineage, name.timeline, name.segment, time);
            (head.offset, head.segment_bytes, head.position) = (offset, segment_bytes, position);
            let transforms = [std::sync::Arc::new(Zstd::default()) as std::sync::Arc<dyn Transform>];
            log::seal(&*store.protection, &transforms, salt, head, &content)
        });
        let (_, sealed) = sealed.await?;
        match self.store().put(&key, sealed.bytes, &PutCounters::default(), job).await {
            Ok(()) => Ok(Step::Put { key, passed }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Step::Again),
            Err(error) => Err(error),
        }
    }
}

impl Archiving {
    fn new(piece: &LogPiece) -> Self {
        Self { left: piece.clone(), put: None, stored: false, is_done: false }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::There => self.is_done = true,
            Step::Put { key, passed } => {
                self.left.advance(passed);
                (self.put, self.stored) = (Some(key), true);
            }
            Step::Again => {}
            Step::ThereFrom(bytes) => self.left.advance(bytes),
        }
    }

    fn outcome(&self) -> Archived {
        if self.stored { Archived::Stored } else { Archived::AlreadyThere }
    }
}

/// Compares a piece with what is there from `start` on. What is there of a whole segment is all there is.
fn compare(piece: &LogPiece, start: u64, there: &[u8], whole: bool) -> Result<Step> {
    let skip = usize::try_from(piece.offset.saturating_sub(start)).unwrap_or(usize::MAX);
    let there = there.get(skip..).unwrap_or_default();
    let same = there.len().min(piece.content.len());
    let too_long = whole && piece.content.len() > there.len();
    let other_length = whole && piece.is_whole() && piece.content.len() != there.len();
    if too_long || other_length || there.get(..same) != piece.content.get(..same) {
        return Err(differs(&piece.name));
    }
    Ok(if same == piece.content.len() { Step::There } else { Step::ThereFrom(same) })
}

fn differs(name: &LogName) -> Error {
    let message = format!(
        "{name} is archived with other content: two servers may be archiving into one lineage, or the segment is damaged"
    );
    Error::new(ErrorKind::AlreadyExists, message)
}
