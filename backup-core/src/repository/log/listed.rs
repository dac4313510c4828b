//! What of a log is there, by names alone.

use std::collections::BTreeMap;

use crate::format::log::LogKey;
use crate::repository::listing::Listing;
use crate::repository::{Repository, guard, keys};
use crate::{
    Error, JobContext, ListedLog, LogName, ObjectKey, ObjectMeta, Result, Sink, SinkExt, Timestamp, limits,
};

/// Names that are listed in one go differ at most in so many bytes at their end.
const RUN_SUFFIX_BYTES: usize = 2;

/// Objects of logs: all that stand under the name of a whole segment, or of a piece that starts at an offset.
#[derive(Debug, Default)]
pub(super) struct Listed(BTreeMap<(LogName, Option<u64>), BTreeMap<u32, ObjectMeta>>);

impl Listed {
    fn add(&mut self, meta: ObjectMeta) {
        match LogKey::parse(&meta.key) {
            Some(LogKey { name, offset, n }) => {
                drop(self.0.entry((name, offset)).or_default().insert(n, meta))
            }
            None => tracing::debug!(key = %meta.key, "is no object of a log"),
        }
    }

    /// The object that counts of a whole segment, or of the piece at an offset, of those that are not `barred`.
    pub(super) fn counting(
        &self,
        name: &LogName,
        offset: Option<u64>,
        barred: impl Fn(&ObjectKey) -> bool,
    ) -> Option<&ObjectMeta> {
        let objects = self.0.get(&(name.clone(), offset))?;
        objects.values().rev().find(|meta| !barred(&meta.key))
    }

    /// The pieces of a segment that are not `barred`, in their order.
    pub(super) fn pieces(&self, name: &LogName, barred: impl Fn(&ObjectKey) -> bool) -> Vec<&ObjectMeta> {
        let all = (name.clone(), Some(0))..=(name.clone(), Some(u64::MAX));
        let objects = self.0.range(all).map(|(_, objects)| objects);
        objects.filter_map(|objects| objects.values().rev().find(|meta| !barred(&meta.key))).collect()
    }

    /// The first number after all those that are taken.
    pub(super) fn after_all(&self, name: &LogName, offset: Option<u64>) -> u32 {
        let taken = self.0.get(&(name.clone(), offset)).and_then(|objects| objects.keys().next_back());
        taken.map_or(0, |n| n.saturating_add(1))
    }

    /// The objects that count, in the order of names.
    pub(super) fn counting_all(&self) -> impl Iterator<Item = (&LogName, Option<u64>, &ObjectMeta)> {
        self.0.iter().filter_map(|((name, offset), objects)| {
            objects.values().next_back().map(|meta| (name, *offset, meta))
        })
    }

    /// What a reader is shown, in the order of names.
    fn shown(self) -> Vec<ListedLog> {
        let mut shown: Vec<ListedLog> = Vec::new();
        for ((name, offset), objects) in self.0 {
            let newest = objects.into_values().next_back();
            let (len, created) = newest.map_or((0, None), |meta| (meta.len, meta.created));
            let segment = match shown.last_mut() {
                Some(last) if last.name == name => last,
                _ => {
                    let (is_whole, pieces) = (offset.is_none(), Vec::new());
                    shown.push(ListedLog { name, is_whole, pieces, bytes_stored: 0, stored: None });
                    let Some(last) = shown.last_mut() else { continue };
                    last
                }
            };
            segment.bytes_stored = segment.bytes_stored.saturating_add(len);
            // The whole comes first; what its pieces say does not count then.
            if offset.is_none() || !segment.is_whole {
                segment.stored = latest(segment.stored, created);
            }
            segment.pieces.extend(offset);
        }
        shown
    }
}

fn latest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.max(other)
}

impl Repository {
    /// The lineages of which anything is archived.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn log_lineages(&self, job: &JobContext) -> Result<Vec<String>> {
        guard::run(job, async move {
            let sink = &self.store().sink;
            let mut lineages: Vec<String> = Vec::new();
            let mut after = None;
            loop {
                job.check()?;
                let page = sink.list(keys::LOGS, after.as_ref(), 1).await?;
                let Some(meta) = page.into_iter().next() else { return Ok(lineages) };
                let Some(LogKey { name, .. }) = LogKey::parse(&meta.key) else {
                    after = Some(meta.key);
                    continue;
                };
                // `0` follows the `/` that ends the lineage's name.
                after = Some(ObjectKey::new(format!("{}{}0", keys::LOGS, name.lineage))?);
                if lineages.last() != Some(&name.lineage) {
                    lineages.push(name.lineage);
                }
            }
        })
        .await
    }

    /// What is archived of a lineage, in the order of names, which of one timeline is that of the log.
    ///
    /// # Errors
    /// Those of the store, and a lineage that cannot be one's name.
    pub async fn list_log(&self, lineage: &str, job: &JobContext) -> Result<Vec<ListedLog>> {
        guard::run(job, async move { Ok(self.list_lineage(lineage, job).await?.shown()) }).await
    }

    /// All objects of a lineage.
    pub(super) async fn list_lineage(&self, lineage: &str, job: &JobContext) -> Result<Listed> {
        let prefix = format!("{}/", checked(&[lineage])?);
        let mut listed = Listed::default();
        let mut listing = Listing::new(&*self.store().sink, &prefix);
        while let Some(page) = listing.next().await? {
            job.check()?;
            page.into_iter().for_each(|meta| listed.add(meta));
        }
        Ok(listed)
    }

    /// The objects of these segments, and perhaps of others between them.
    pub(super) async fn list_segments(&self, names: &[&LogName]) -> Result<Listed> {
        let mut sorted: Vec<&LogName> = names.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut listed = Listed::default();
        let sink = &*self.store().sink;
        for run in sorted.chunk_by(|one, other| are_neighbours(one, other)) {
            match run {
                [] => {}
                [only] => {
                    let prefix = checked(&[&only.lineage, &only.timeline, &only.segment])?;
                    sink.list_all(&prefix).await?.into_iter().for_each(|meta| listed.add(meta));
                }
                [first, .., last] => list_between(sink, first, last, &mut listed).await?,
            }
        }
        Ok(listed)
    }
}

/// Lists from one segment to another of the same timeline.
async fn list_between(sink: &dyn Sink, first: &LogName, last: &LogName, listed: &mut Listed) -> Result<()> {
    let prefix = format!("{}/", checked(&[&first.lineage, &first.timeline])?);
    // It is before all objects of the segment, and no object itself.
    let mut after = ObjectKey::new(checked(&[&first.lineage, &first.timeline, &first.segment])?)?;
    let end = checked(&[&last.lineage, &last.timeline, &last.segment])?;
    loop {
        let page = sink.list(&prefix, Some(&after), limits::LIST_PAGE_OBJECTS_MAX).await?;
        crate::sink::check_page(&page, &prefix, Some(&after))?;
        let is_last = page.len() < limits::LIST_PAGE_OBJECTS_MAX;
        let Some(newest) = page.last().map(|meta| meta.key.clone()) else { return Ok(()) };
        page.into_iter().for_each(|meta| listed.add(meta));
        if is_last || (newest.as_str() > end.as_str() && !newest.as_str().starts_with(&end)) {
            return Ok(());
        }
        after = newest;
    }
}

fn are_neighbours(one: &LogName, other: &LogName) -> bool {
    let (a, b) = (one.segment.as_bytes(), other.segment.as_bytes());
    let same = a.len().saturating_sub(RUN_SUFFIX_BYTES);
    (&one.lineage, &one.timeline) == (&other.lineage, &other.timeline)
        && a.len() == b.len()
        && a.get(..same) == b.get(..same)
}

/// The start of a key below `logs/`; an error for what is no component of one.
fn checked(components: &[&str]) -> Result<String> {
    for component in components {
        if component.contains('/') || ObjectKey::new(component).is_err() {
            let name = component.escape_debug();
            return Err(Error::invalid_input(format!("`{name}` cannot name a log, or a part of one")));
        }
    }
    Ok(format!("{}{}", keys::LOGS, components.join("/")))
}
