//! Files back out of the archive, or the proof that they never were in it.

use backup_core::{Error, ErrorKind, JobContext, LogContent, LogName, Result};
use bytes::{Bytes, BytesMut};

use super::view::View;
use super::{WalArchive, log_name};
use crate::postgres::Timeline;
use crate::postgres::wal::{
    SegmentName, SegmentSize, Summary, TimelineHistory, WalFile, check_partial, check_segment,
};

/// What came of asking for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// Its bytes. A segment of which only the beginning is archived, as it is the last of its timeline, is filled up with zeros.
    Found(Bytes),
    /// It was never archived, as all places have answered: it lies beyond the end of what is archived. A server that is told so takes this for
    /// the end of the log, and may promote.
    NeverArchived,
}

impl WalArchive {
    /// A file by its name.
    ///
    /// [`Fetched::NeverArchived`] is proven by the listings of all places: for a segment, nothing later of its timeline is archived, and no
    /// timeline that is known left this one later; for a history, nothing that is archived belongs to its timeline or came from it.
    ///
    /// # Errors
    ///
    /// All else, also when the file is missing where it must have been: [`ErrorKind::NotFound`] for a gap or a history that is missing,
    /// [`ErrorKind::Corruption`] for what is not what its name says, or of another cluster, [`ErrorKind::Transient`] where a place is
    /// [lacking](Self::lacking), those of the places. A server must not be told that the log ends then.
    pub async fn get(&self, file: WalFile, job: &JobContext) -> Result<Fetched> {
        let Some(lineage) = self.system_identifier(job).await? else {
            return Err(Error::new(
                ErrorKind::NotFound,
                "no log of PostgreSQL is archived here at all: is this the right repository?",
            ));
        };
        let name = log_name(lineage, file);
        if let Some(content) = self.read(&name, job).await? {
            return self.found(lineage, file, content, job).await.map(Fetched::Found);
        }
        let view = self.view(lineage, job).await?;
        if view.timelines.is_empty() {
            let message =
                format!("no log of the cluster {lineage} is archived here: is this the right repository?");
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        match file {
            WalFile::Segment(segment) => {
                let listed = view.timelines.get(&segment.timeline());
                if listed.is_some_and(|there| there.segments.contains_key(&segment)) {
                    // It was archived between the two looks.
                    let content = self.read(&name, job).await?.ok_or_else(|| vanished(file))?;
                    return self.found(lineage, file, content, job).await.map(Fetched::Found);
                }
                self.prove_segment(lineage, segment, &view, job).await?;
            }
            WalFile::History(timeline) => self.prove_history(lineage, timeline, &view, job).await?,
            // Servers do not ask for these, and nothing depends on them.
            WalFile::Partial(_) | WalFile::BackupLabel(..) => self.all_answer()?,
        }
        Ok(Fetched::NeverArchived)
    }

    /// A segment that is archived to its end, checked; none if it is not.
    pub(super) async fn get_whole(&self, segment: SegmentName, job: &JobContext) -> Result<Option<Bytes>> {
        let Some(lineage) = self.system_identifier(job).await? else { return Ok(None) };
        let file = WalFile::Segment(segment);
        match self.read(&log_name(lineage, file), job).await? {
            Some(content) if content.is_whole() => self.found(lineage, file, content, job).await.map(Some),
            _ => Ok(None),
        }
    }

    /// The history of a timeline; that of the first, which has no file, is known.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`]: it is not archived. Otherwise as [`get`](Self::get).
    pub async fn history(&self, timeline: Timeline, job: &JobContext) -> Result<TimelineHistory> {
        match self.get(WalFile::History(timeline), job).await? {
            Fetched::Found(bytes) => TimelineHistory::parse(timeline, &bytes),
            Fetched::NeverArchived if timeline == Timeline::FIRST => Ok(TimelineHistory::root(timeline)),
            Fetched::NeverArchived => {
                let message =
                    format!("{timeline}.history is not archived: where that timeline came from is not known");
                Err(Error::new(ErrorKind::NotFound, message))
            }
        }
    }

    /// What moments lie in an archived segment; none if it is not archived.
    ///
    /// # Errors
    ///
    /// Those of the places. Cancellation: nothing is changed.
    pub async fn summary(&self, segment: SegmentName, job: &JobContext) -> Result<Option<Summary>> {
        let Some(lineage) = self.system_identifier(job).await? else { return Ok(None) };
        let name = log_name(lineage, WalFile::Segment(segment));
        let Some(content) = self.read(&name, job).await? else { return Ok(None) };
        let summary = Summary::of_positions(&content.position);
        if summary.valid_to.is_valid() {
            return Ok(Some(summary));
        }
        let header = check_partial(&content.content, segment, None)?;
        let bytes = content.content;
        let reading =
            tokio::task::spawn_blocking(move || Summary::of_segment(&bytes, segment, header.segment_size));
        let summary =
            reading.await.map_err(|e| Error::internal("a segment could not be read").with_source(e))?;
        Ok(Some(summary))
    }

    /// What any place has of a file: the whole, or the longest beginning if all places have answered.
    pub(super) async fn read(&self, name: &LogName, job: &JobContext) -> Result<Option<LogContent>> {
        let (mut best, mut failure): (Option<LogContent>, _) = (None, None);
        for place in &self.places {
            match place.read_log(name, job).await {
                Ok(Some(content)) if content.is_whole() => return Ok(Some(content)),
                Ok(Some(content)) => {
                    let longer = best.as_ref().is_none_or(|best| best.content.len() < content.content.len());
                    best = if longer { Some(content) } else { best };
                }
                Ok(None) => {}
                Err(error) if error.is_cancelled() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "a file of the log cannot be read in one place");
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(best), Err)
    }

    /// Checks what was read.
    async fn found(
        &self,
        lineage: u64,
        file: WalFile,
        content: LogContent,
        job: &JobContext,
    ) -> Result<Bytes> {
        let segment = match file {
            WalFile::Segment(segment) => segment,
            WalFile::History(timeline) => {
                TimelineHistory::parse(timeline, &content.content)?;
                return Ok(content.content);
            }
            WalFile::Partial(_) | WalFile::BackupLabel(..) => return Ok(content.content),
        };
        let size = self.checked(lineage, segment, &content)?;
        if content.content.len() as u64 == size.bytes() {
            return Ok(content.content);
        }
        // The beginning of a segment is all that there is of it only if nothing came after it. It is read anew after the look at what is
        // there: what came between the two makes a log that goes on look as if it had lost something.
        let view = self.view(lineage, job).await?;
        let name = log_name(lineage, file);
        let content = self.read(&name, job).await?.ok_or_else(|| vanished(file))?;
        self.checked(lineage, segment, &content)?;
        if content.content.len() as u64 == size.bytes() {
            return Ok(content.content);
        }
        if view.is_whole(segment) {
            return Err(Error::corruption(format!(
                "{segment} is archived to its end, and only its beginning can be read"
            )));
        }
        self.prove_segment(lineage, segment, &view, job).await?;
        let mut padded = BytesMut::from(&content.content[..]);
        padded.resize(usize::try_from(size.bytes()).unwrap_or(usize::MAX), 0);
        Ok(padded.freeze())
    }

    /// Checks that these are the bytes of a segment, or of its beginning, in this lineage; how long the whole is.
    fn checked(&self, lineage: u64, segment: SegmentName, content: &LogContent) -> Result<SegmentSize> {
        let header = check_partial(&content.content, segment, None)?;
        if header.system_identifier != lineage {
            let other = header.system_identifier;
            return Err(Error::corruption(format!("{segment} is of the cluster {other}, not of {lineage}")));
        }
        let size = header.segment_size;
        let _ = self.size.set(size);
        if content.content.len() as u64 == size.bytes() {
            check_segment(&content.content, segment, Some(size))?;
        }
        Ok(size)
    }

    /// An error unless what is archived shows that nothing of the log follows the beginning of this segment: then it may be missing, or
    /// end before its end.
    async fn prove_segment(
        &self,
        lineage: u64,
        segment: SegmentName,
        view: &View,
        job: &JobContext,
    ) -> Result<()> {
        let timeline = segment.timeline();
        let missing = |why: String| {
            Err(Error::new(
                ErrorKind::NotFound,
                format!("{segment} is missing in the archive, and the log does not end there: {why}"),
            ))
        };
        if let Some(last) = view.last(timeline).filter(|last| *last > segment) {
            return match view.first(timeline).filter(|first| *first > segment) {
                Some(first) => self.before_first(lineage, segment, first, view, job).await,
                None => missing(format!("{last} is there")),
            };
        }
        let Some(size) = self.segment_size(lineage, view, job).await? else {
            return missing("no segment is archived at all".to_owned());
        };
        if !segment.fits(size) {
            let bytes = size.bytes();
            return Err(Error::invalid_input(format!(
                "{segment} is none of a cluster whose segments have {bytes} bytes"
            )));
        }
        if let Some(gap) = view.lost_at_the_end(timeline, size).filter(|gap| *gap < segment.end(size)) {
            return missing(format!("what follows {gap} was lost, and recorded so"));
        }
        for (child, history) in self.histories(lineage, view, job).await? {
            let Some(left) = history.end_of(timeline) else { continue };
            // The segment in which a timeline was left is a file of the younger one, too: whoever goes on there needs no other.
            if segment.number(size) < size.number_of(left) {
                return missing(format!("timeline {child} came from there at {left}"));
            }
        }
        let has_segments = view.first(timeline).is_some();
        if !has_segments && timeline != Timeline::FIRST && !view.timelines.contains_key(&timeline) {
            return missing(format!(
                "nothing of timeline {timeline} is archived, not even where it came from"
            ));
        }
        self.all_answer()
    }

    /// What is before the first segment of a timeline: never archived if it is before the timeline's beginning.
    async fn before_first(
        &self,
        lineage: u64,
        segment: SegmentName,
        first: SegmentName,
        view: &View,
        job: &JobContext,
    ) -> Result<()> {
        let timeline = segment.timeline();
        let missing = |why: &str| {
            let message = format!(
                "{segment} is missing in the archive: {first} is the first of its timeline there, {why}"
            );
            Err(Error::new(ErrorKind::NotFound, message))
        };
        let Some(size) = self.segment_size(lineage, view, job).await? else {
            return missing("and unreadable");
        };
        let histories = self.histories(lineage, view, job).await?;
        let begin = histories.get(&timeline).and_then(|history| history.begin_of(timeline));
        match begin {
            Some(begin) if segment.number(size) < size.number_of(begin) => Ok(()),
            Some(_) => missing("and the timeline began before"),
            None => missing("and where the timeline began is not known"),
        }
    }

    /// An error if a history must have been archived that is not there.
    async fn prove_history(
        &self,
        lineage: u64,
        timeline: Timeline,
        view: &View,
        job: &JobContext,
    ) -> Result<()> {
        // The first timeline came from none, and has no such file.
        if timeline == Timeline::FIRST {
            return Ok(());
        }
        let missing = |why: String| {
            let message = format!("{timeline}.history is missing in the archive: {why}");
            Err(Error::new(ErrorKind::NotFound, message))
        };
        if let Some(there) = view.timelines.get(&timeline) {
            if there.has_history {
                return Err(vanished(WalFile::History(timeline)));
            }
            if let Some(segment) = there.segments.keys().next() {
                return missing(format!("{segment} is there"));
            }
        }
        for (child, history) in self.histories(lineage, view, job).await? {
            if child != timeline && history.begin_of(timeline).is_some() {
                return missing(format!("timeline {child} came from there"));
            }
        }
        self.all_answer()
    }
}

fn vanished(file: WalFile) -> Error {
    Error::new(
        ErrorKind::Transient,
        format!("{file} is listed and could not be read: it is being archived, or deleted"),
    )
}
