//! The log of a cluster in a repository: archived once, under its files' names, in every place that is required.

mod audit;
mod fetch;
mod inventory;
mod push;
mod received;
mod spool;
mod view;
mod waves;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use backup_core::limits::LOG_PIECE_BYTES_MAX;
use backup_core::{Archived, Error, ErrorKind, JobContext, LogName, LogPiece, Repository, Result};
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::Timeline;
use super::wal::{self, LongHeader, SegmentSize, Summary, WalFile, check_partial, check_segment};

pub use audit::{Gap, TimelineAudit, WalAudit, server_end};
pub use fetch::Fetched;
pub use inventory::LogLook;
pub use push::{NotPushed, PushOptions, PushReport, push, queue_length};
pub use spool::Spool;

/// What the objects of a log say of their source.
pub const SOURCE: &str = "postgres";

/// Longest file but a segment: histories and labels have a few hundred bytes.
const SMALL_BYTES_MAX: usize = 1024 * 1024;

/// Files that are read through at once, each on a thread of its own.
const AT_ONCE_MAX: usize = 4;

/// Ends the name of what says that a segment is there to its end, where a segment is longer than an object may be.
const COMPLETE: &str = ".complete";

/// The log of one cluster in one or several repositories, or places of one.
///
/// It has one idempotent way in, [`put`](Self::put), whoever brings a file: `archive_command`, a [receiver](crate::postgres::receive), both at once.
/// The same name with the same content is a success, with another content an error, also when two come at the same moment. A segment must be what its
/// name says, and of the archive's cluster: what belongs to another system identifier is refused.
///
/// What comes out is checked in the same way, and that a file was never archived is only said where that is proven.
///
/// ```
/// # use backup_core::{JobContext, Repository, Result};
/// use backup_sources::postgres::archive::{Fetched, WalArchive};
///
/// # async fn example(here: Repository, far_away: Repository) -> Result<()> {
/// let archive = WalArchive::new(vec![here, far_away])?.of_system(7_412_345_678_901_234_567);
/// match archive.get("00000002.history".parse()?, &JobContext::new()).await? {
///     Fetched::Found(_) => println!("there is a second timeline"),
///     Fetched::NeverArchived => println!("there is none, for certain"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct WalArchive {
    places: Vec<Repository>,
    expected: Option<u64>,
    admits_new: bool,
    /// Why there may be more than these places have.
    lacks: Option<Arc<str>>,
    settled: Arc<OnceLock<u64>>,
    size: Arc<OnceLock<SegmentSize>>,
}

impl WalArchive {
    /// The log in these places: what is archived must be durable in all of them, what is read may come from any.
    ///
    /// Unless [`of_system`](Self::of_system) says which cluster it is of, it is that of the only one whose log is there. In an empty archive it is whichever
    /// comes first.
    ///
    /// # Errors
    ///
    /// No place.
    pub fn new(places: Vec<Repository>) -> Result<Self> {
        if places.is_empty() {
            return Err(Error::invalid_input("an archive of a log needs a place"));
        }
        let (settled, size) = (Arc::default(), Arc::default());
        Ok(Self { places, expected: None, admits_new: false, lacks: None, settled, size })
    }

    /// Says which cluster it is, by `system_identifier` of `pg_control_system()`.
    #[must_use]
    pub fn of_system(mut self, system_identifier: u64) -> Self {
        self.expected = Some(system_identifier);
        self.settled = Arc::default();
        self
    }

    /// Says that logs of further clusters may come: each is a lineage of its own. Then it is only known to which cluster a file belongs that
    /// is no segment if whoever brings it says so.
    #[must_use]
    pub fn admitting_new_systems(mut self) -> Self {
        self.admits_new = true;
        self
    }

    /// Says that there are places which do not answer, and why: they may have what these lack. Then it is proven of nothing that it was never
    /// archived, nor that the beginning of a segment is all that there is of it.
    #[must_use]
    pub fn lacking(mut self, why: impl Into<String>) -> Self {
        let why: String = why.into();
        self.lacks = Some(why.into());
        self
    }

    /// An error if some place does not answer.
    fn all_answer(&self) -> Result<()> {
        let Some(why) = &self.lacks else { return Ok(()) };
        let message = format!("whether that is all there is of the log cannot be said: {why}");
        Err(Error::new(ErrorKind::Transient, message))
    }

    /// How long the cluster's segments are, once one was seen.
    pub fn known_segment_size(&self) -> Option<SegmentSize> {
        self.size.get().copied()
    }

    /// The places.
    pub fn places(&self) -> &[Repository] {
        &self.places
    }

    /// The cluster whose log this is: that which was said, or the only one that is there. None if nothing is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if there are several; those of the places.
    pub async fn system_identifier(&self, job: &JobContext) -> Result<Option<u64>> {
        if let Some(known) = self.expected.or(self.settled.get().copied()) {
            return Ok(Some(known));
        }
        match self.systems(job).await?[..] {
            [] => Ok(None),
            [only] => Ok(Some(*self.settled.get_or_init(|| only))),
            ref several => {
                let several: Vec<String> = several.iter().map(u64::to_string).collect();
                let several = several.join(", ");
                let message =
                    format!("logs of several clusters are archived ({several}): say which one is meant");
                Err(Error::invalid_input(message))
            }
        }
    }

    /// Archives a file. When this returns it is durable in every place.
    ///
    /// `system` is the cluster's system identifier, where whoever brings the file knows it; segments say themselves.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyExists`]: the file is there with other content. [`ErrorKind::Corruption`]: the file is not what its name says.
    /// [`ErrorKind::InvalidInput`]: it is of another cluster than the archive. Those of the places: some may have it then; bring it again. The
    /// same after a cancellation.
    pub async fn put(
        &self,
        file: WalFile,
        content: Bytes,
        system: Option<u64>,
        job: &JobContext,
    ) -> Result<Archived> {
        let all = self.put_all(&[(file, content)], system, job).await?;
        all.first().copied().ok_or_else(|| Error::internal("a file was archived without an outcome"))
    }

    /// Archives several files at once: all of them are durable in every place when this returns.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), of the first that has one. Others may be archived then, or not.
    pub async fn put_all(
        &self,
        files: &[(WalFile, Bytes)],
        system: Option<u64>,
        job: &JobContext,
    ) -> Result<Vec<Archived>> {
        let mut found = system;
        for (file, content) in files {
            let header = self.check(*file, content)?;
            let other = header.map(|header| header.system_identifier);
            if let (Some(one), Some(other)) = (found, other)
                && one != other
            {
                return Err(another_system(*file, one, other));
            }
            found = found.or(other);
        }
        let lineage = self.settle(found, job).await?;
        let summaries: Vec<_> = files.iter().map(|(file, content)| self.positions(*file, content)).collect();
        let summaries: Vec<Positions> = stream::iter(summaries).buffered(AT_ONCE_MAX).try_collect().await?;
        let (mut pieces, mut ends, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for ((file, content), positions) in files.iter().zip(summaries) {
            let before = pieces.len();
            cut(lineage, *file, content, positions, &mut pieces, &mut ends);
            counts.push(pieces.len().saturating_sub(before));
        }
        let mut outcomes = self.archive(&pieces, job).await?.into_iter();
        // That they are whole is only said once they are.
        self.archive(&ends, job).await?;
        let outcome = |count| {
            let stored = outcomes.by_ref().take(count).any(|outcome| outcome == Archived::Stored);
            if stored { Archived::Stored } else { Archived::AlreadyThere }
        };
        Ok(counts.into_iter().map(outcome).collect())
    }

    /// Archives pieces in every place, and says what was not there already in all of them.
    async fn archive(&self, pieces: &[LogPiece], job: &JobContext) -> Result<Vec<Archived>> {
        if pieces.is_empty() {
            return Ok(Vec::new());
        }
        let mut all = try_join_all(self.places.iter().map(|place| place.archive(pieces, job))).await?;
        let mut outcomes = all.pop().unwrap_or_default();
        for place in all {
            for (outcome, there) in outcomes.iter_mut().zip(place) {
                if there == Archived::Stored {
                    *outcome = there;
                }
            }
        }
        Ok(outcomes)
    }

    /// Whether a file is what its name says.
    fn check(&self, file: WalFile, content: &[u8]) -> Result<Option<LongHeader>> {
        let size = self.size.get().copied();
        let header = match file {
            WalFile::Segment(name) => Some(check_segment(content, name, size)?),
            WalFile::Partial(name) => Some(check_partial(content, name, size)?),
            WalFile::History(timeline) => {
                wal::TimelineHistory::parse(timeline, content)?;
                None
            }
            WalFile::BackupLabel(..) if content.len() > SMALL_BYTES_MAX => {
                return Err(Error::corruption(format!("{file} is too long to be a backup's label")));
            }
            WalFile::BackupLabel(..) => None,
        };
        Ok(header)
    }

    /// The lineage that files of this cluster belong to.
    async fn settle(&self, system: Option<u64>, job: &JobContext) -> Result<u64> {
        if let Some(known) = self.expected.or(self.settled.get().copied()) {
            return match system {
                Some(other) if other != known => {
                    if self.expected.is_none() && self.admits_new {
                        Ok(other)
                    } else {
                        Err(refused(&[known], other))
                    }
                }
                _ => Ok(known),
            };
        }
        let known = self.systems(job).await?;
        let settled = match (&known[..], system) {
            (_, Some(system)) if self.admits_new || known.is_empty() || known.contains(&system) => system,
            ([only], None) => *only,
            (_, Some(system)) => return Err(refused(&known, system)),
            ([], None) => {
                let message = "nothing is archived yet, and nothing says of which cluster this file is: archive a segment \
                               first, or say the system identifier";
                return Err(Error::invalid_input(message));
            }
            (_, None) => {
                let message = "logs of several clusters are archived, and nothing says of which this file is: say the \
                               system identifier";
                return Err(Error::invalid_input(message));
            }
        };
        Ok(*self.settled.get_or_init(|| settled))
    }

    /// The system identifiers of all clusters whose logs are in any place, ascending.
    ///
    /// # Errors
    ///
    /// Those of the places.
    pub async fn systems(&self, job: &JobContext) -> Result<Vec<u64>> {
        let all = try_join_all(self.places.iter().map(|place| place.log_lineages(job))).await?;
        // Other logs have names of their own.
        let mut systems: Vec<u64> =
            all.into_iter().flatten().filter_map(|lineage| lineage.parse().ok()).collect();
        systems.sort_unstable();
        systems.dedup();
        Ok(systems)
    }

    /// What is remembered beside a file: which moments lie in it.
    async fn positions(&self, file: WalFile, content: &Bytes) -> Result<Positions> {
        let WalFile::Segment(segment) = file else { return Ok(Positions::new()) };
        let size = SegmentSize::new(content.len() as u64)?;
        let _ = self.size.set(size);
        let bytes = content.clone();
        let reading = tokio::task::spawn_blocking(move || Summary::of_segment(&bytes, segment, size));
        let summary =
            reading.await.map_err(|e| Error::internal("a segment could not be read").with_source(e))?;
        let mut positions = summary.to_positions();
        positions.insert(wal::position::SEGMENT_SIZE.to_owned(), size.bytes().to_string());
        Ok(positions)
    }
}

/// Named positions of a file.
type Positions = BTreeMap<String, String>;

/// The pieces that a file is archived in, and what says that it is whole where it has several.
fn cut(
    lineage: u64,
    file: WalFile,
    content: &Bytes,
    positions: Positions,
    pieces: &mut Vec<LogPiece>,
    ends: &mut Vec<LogPiece>,
) {
    let name = log_name(lineage, file);
    if content.len() <= LOG_PIECE_BYTES_MAX {
        let mut piece = LogPiece::whole(SOURCE, name, content.clone());
        piece.position = positions;
        pieces.push(piece);
        return;
    }
    let total = content.len() as u64;
    let mut offset = 0;
    while offset < content.len() {
        let end = offset.saturating_add(LOG_PIECE_BYTES_MAX).min(content.len());
        let part = content.slice(offset..end);
        let mut piece = LogPiece::part(SOURCE, name.clone(), offset as u64, Some(total), part);
        piece.position = positions.clone();
        pieces.push(piece);
        offset = end;
    }
    let mut end = name;
    end.segment.push_str(COMPLETE);
    ends.push(LogPiece::whole(SOURCE, end, Bytes::from(total.to_string())));
}

/// Under which name a file is archived: its own, of its timeline.
fn log_name(lineage: u64, file: WalFile) -> LogName {
    LogName::new(lineage.to_string(), file.timeline().to_string(), file.to_string())
}

fn timeline_name(lineage: u64, timeline: Timeline, segment: String) -> LogName {
    LogName::new(lineage.to_string(), timeline.to_string(), segment)
}

fn another_system(file: WalFile, one: u64, other: u64) -> Error {
    Error::invalid_input(format!(
        "{file} is of the cluster {other}, and what comes with it is of {one}: archive each by itself"
    ))
}

fn refused(known: &[u64], other: u64) -> Error {
    let known: Vec<String> = known.iter().map(u64::to_string).collect();
    let message = format!(
        "this archive is that of the cluster {}, and this is the log of the cluster {other}: give every cluster an archive of its own, \
         or say that this is a new lineage",
        known.join(", ")
    );
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests;
