//! What every [`Source`] must do, as a suite that anyone can run over their own.

use std::collections::BTreeMap;
use std::fmt::Display;

use tokio::io::AsyncReadExt;

use super::broken;
use crate::source::{BlockingContent, Content, ContentReader, ReadAt};
use crate::{
    Entry, EntryKind, EntryName, EntryOrder, ErrorKind, Item, JobContext, Result, Skipped, Source, limits,
};

/// Checks the contract of [`Source`] and returns an error that names the law that is broken.
///
/// The source is run twice, its content read once in each, so nothing should change it meanwhile. One that can be run
/// once only says so with [`ErrorKind::InvalidInput`] when it is begun again. It should have at least one entry; a run is
/// also dropped after its first entries.
pub async fn conformance(source: &dyn Source) -> Result<()> {
    let job = JobContext::new();
    let info = source.info();
    law("what a source is stays the same", source.info() == info, "another description")?;
    law("a source has a kind", !info.kind.is_empty(), "none")?;
    let first = whole_run(source, &job).await?;
    match source.begin(&job).await {
        Err(error) if error.kind() == ErrorKind::InvalidInput => return Ok(()),
        Err(error) => return Err(broken("a source can be run again, or says InvalidInput", error)),
        Ok(mut abandoned) => {
            let items = abandoned.next(1).await.map_err(|error| broken("entries are yielded", error))?;
            law("no more entries are yielded than were asked for", items.len() <= 1, items.len())?;
        }
    }
    let second = whole_run(source, &job).await?;
    for (name, seen) in &first.entries {
        let again = second.entries.get(name);
        let again = again.ok_or_else(|| broken("a source at rest yields the same entries again", name))?;
        law("an entry keeps its kind", seen.entry.kind == again.entry.kind, name)?;
        let stamped = seen.entry.stamp.is_some() && seen.entry.stamp == again.entry.stamp;
        law("content with an equal stamp is equal", !stamped || seen.content == again.content, name)?;
    }
    law("a source at rest yields the same entries again", first.entries.len() == second.entries.len(), "more")
}

#[derive(Debug)]
struct Seen {
    entry: Entry,
    /// A hash and the length.
    content: Option<(blake3::Hash, u64)>,
}

#[derive(Debug, Default)]
struct Run {
    entries: BTreeMap<EntryName, Seen>,
    last: Option<EntryName>,
    skipped: Vec<Skipped>,
}

async fn whole_run(source: &dyn Source, job: &JobContext) -> Result<Run> {
    let mut run = source.begin(job).await.map_err(|error| broken("a run begins", error))?;
    let order = source.info().order;
    let mut seen = Run::default();
    // Some ask for few, some for many.
    for max in [1, 2, 1000].into_iter().chain(std::iter::repeat(300)) {
        let items = run.next(max).await.map_err(|error| broken("entries are yielded", error))?;
        law("no more entries are yielded than were asked for", items.len() <= max, items.len())?;
        if items.is_empty() {
            break;
        }
        for item in items {
            match item {
                Item::Skipped(skipped) => seen.skipped.push(skipped),
                Item::Entry(entry) => {
                    check_entry(&seen, &entry, order)?;
                    let content = if entry.kind.has_content() {
                        let content =
                            run.open(&entry).await.map_err(|error| broken("content can be opened", error))?;
                        Some(read(&entry, content).await?)
                    } else {
                        None
                    };
                    seen.last = Some(entry.name.clone());
                    seen.entries.insert(entry.name.clone(), Seen { entry, content });
                }
            }
        }
    }
    let after =
        run.next(10).await.map_err(|error| broken("the end of the entries can be asked for again", error))?;
    law("the end of the entries stays the end", after.is_empty(), after.len())?;
    let finished =
        run.finish().await.map_err(|error| broken("a run whose content was read finishes", error))?;
    for (entry, content) in finished.trailing {
        law("a trailing entry has a name of its own", !seen.entries.contains_key(&entry.name), &entry.name)?;
        let content = if entry.kind.has_content() { Some(read(&entry, content).await?) } else { None };
        seen.entries.insert(entry.name.clone(), Seen { entry, content });
    }
    Ok(seen)
}

fn check_entry(seen: &Run, entry: &Entry, order: EntryOrder) -> Result<()> {
    let name = &entry.name;
    match order {
        EntryOrder::Sorted => {
            let ascending = seen.last.as_ref().is_none_or(|last| last < name);
            law("sorted entries ascend", ascending, format_args!("{name} after {:?}", seen.last))?;
        }
        EntryOrder::Unsorted => law("a name is yielded once", !seen.entries.contains_key(name), name)?,
    }
    if let EntryKind::HardLink { to } = &entry.kind {
        let target = seen.entries.get(to).map(|seen| &seen.entry.kind);
        let linkable = !matches!(target, None | Some(EntryKind::Directory | EntryKind::HardLink { .. }));
        law("a hard link names an earlier entry, which is no directory and no link itself", linkable, name)?;
    }
    let sorted = entry.attributes.windows(2).all(|pair| matches!(pair, [a, b] if a.name < b.name));
    law("attributes are sorted and unique", sorted, name)?;
    let small = entry.attributes.len() <= limits::ENTRY_ATTRIBUTES_MAX
        && entry.attributes.iter().all(|attribute| attribute.value.len() <= limits::ATTRIBUTE_BYTES_MAX);
    law("attributes are within the limits", small, name)
}

/// Reads content in full by the way that it offers.
async fn read(entry: &Entry, content: Content) -> Result<(blake3::Hash, u64)> {
    let failed = |error| broken(format_args!("the content of `{}` can be read", entry.name), error);
    let (hash, len, changed) = match content.reader {
        ContentReader::Blocking(open) => {
            let read = move || open().and_then(|mut content| read_blocking(&mut *content));
            let joined = tokio::task::spawn_blocking(read).await;
            joined.map_err(|error| broken("reading content does not panic", error))?.map_err(failed)?
        }
        ContentReader::Async(mut reader) => {
            let (mut hasher, mut len, mut buffer) = (blake3::Hasher::new(), 0_u64, vec![0; 10_007]);
            loop {
                match reader.read(&mut buffer).await.map_err(failed)? {
                    0 => break,
                    read => {
                        hasher.update(buffer.get(..read).unwrap_or_default());
                        len = len.saturating_add(u64::try_from(read).unwrap_or_default());
                    }
                }
            }
            (hasher.finalize(), len, false)
        }
        ContentReader::Random(content) => {
            let joined = tokio::task::spawn_blocking(move || read_random(&*content)).await;
            joined.map_err(|error| broken("reading content does not panic", error))?.map_err(failed)?
        }
    };
    let announced = entry.size.is_none_or(|size| size == len);
    law("content has the announced length, or says that it changed", announced || changed, &entry.name)?;
    Ok((hash, len))
}

fn read_blocking(content: &mut dyn BlockingContent) -> std::io::Result<(blake3::Hash, u64, bool)> {
    let (mut hasher, mut len, mut buffer) = (blake3::Hasher::new(), 0_u64, vec![0; 65_536]);
    // Short reads first, then long ones.
    for wanted in [1, 10, 4096].into_iter().chain(std::iter::repeat(buffer.len())) {
        let read = content.read(buffer.get_mut(..wanted).unwrap_or_default())?;
        if read == 0 {
            break;
        }
        if read > wanted {
            return Err(std::io::Error::other("more was read than the buffer holds"));
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
        len = len.saturating_add(u64::try_from(read).unwrap_or_default());
    }
    if content.read(&mut buffer)? != 0 {
        return Err(std::io::Error::other("the end of the content does not stay the end"));
    }
    Ok((hasher.finalize(), len, content.finish().is_some()))
}

fn read_random(content: &dyn ReadAt) -> std::io::Result<(blake3::Hash, u64, bool)> {
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < content.len() {
        let len = content.len().saturating_sub(at).min(65_521);
        let mut piece = vec![0; usize::try_from(len).unwrap_or_default()];
        content.read_exact_at(&mut piece, at)?;
        let mut again = vec![0; piece.len()];
        content.read_exact_at(&mut again, at)?;
        if piece != again {
            return Err(std::io::Error::other("the same position does not give the same bytes"));
        }
        hasher.update(&piece);
        at = at.saturating_add(len);
    }
    if content.read_exact_at(&mut [0], content.len()).is_ok() {
        return Err(std::io::Error::other("there is something beyond the end of the content"));
    }
    Ok((hasher.finalize(), at, false))
}

fn law(law: &str, holds: bool, found: impl Display) -> Result<()> {
    if holds { Ok(()) } else { Err(broken(law, found)) }
}
