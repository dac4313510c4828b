//! Reading back what was restored.

use std::collections::BTreeSet;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use backup_core::report::SkippedItems;
use backup_core::repository::{Selection, Snapshot, StoredEntry};
use backup_core::{Entry, EntryKind, JobContext, Skipped};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::plan::path_below;

/// Bytes compared at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Reads the selected entries below `to` and compares them with the snapshot: kinds, links, contents. What is among
/// `failed` already is left out.
pub(super) async fn contents(
    snapshot: &Snapshot,
    to: &Path,
    select: &Selection,
    failed: &SkippedItems,
    job: &JobContext,
) -> backup_core::Result<Vec<Skipped>> {
    let failed: BTreeSet<&str> = failed.named().iter().map(|item| item.name.as_str()).collect();
    let mut differing = Vec::new();
    let mut entries = snapshot.entries(None, job).await?;
    while let Some(stored) = entries.next().await? {
        job.check()?;
        let entry = &stored.entry;
        if !select.selects(entry) || failed.contains(entry.name.to_string().as_str()) {
            continue;
        }
        let path = path_below(to, entry.name.as_bytes());
        if let Some(what) = differs(snapshot, &stored, &path, job).await? {
            differing.push(Skipped::new(&entry.name, format!("was read back: {what}")));
        }
    }
    Ok(differing)
}

async fn differs(
    snapshot: &Snapshot,
    stored: &StoredEntry,
    path: &Path,
    job: &JobContext,
) -> backup_core::Result<Option<String>> {
    let entry = &stored.entry;
    let there = match tokio::fs::symlink_metadata(path).await {
        Ok(there) => there,
        Err(error) => return Ok(Some(error.to_string())),
    };
    let wrong_kind = match &entry.kind {
        EntryKind::File | EntryKind::HardLink { .. } => !there.is_file(),
        EntryKind::Directory => !there.is_dir(),
        EntryKind::Symlink { .. } => !there.is_symlink(),
        _ => there.is_dir() || there.is_file() || there.is_symlink(),
    };
    if wrong_kind {
        return Ok(Some(format!("it is not a {}", entry.kind.as_str())));
    }
    if let EntryKind::Symlink { target } = &entry.kind {
        let points =
            std::fs::read_link(path).is_ok_and(|points| points.as_os_str().as_encoded_bytes() == &**target);
        return Ok((!points).then(|| "it points elsewhere".into()));
    }
    if !matches!(entry.kind, EntryKind::File) {
        return Ok(None);
    }
    content_differs(snapshot, stored, entry, path, job).await
}

async fn content_differs(
    snapshot: &Snapshot,
    stored: &StoredEntry,
    entry: &Entry,
    path: &Path,
    job: &JobContext,
) -> backup_core::Result<Option<String>> {
    let mut wanted = snapshot.open(stored, job).await?;
    let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(nofollow).open(path);
    let mut found = match opened {
        Ok(file) => tokio::fs::File::from_std(file),
        Err(error) => return Ok(Some(error.to_string())),
    };
    let (mut a, mut b) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    loop {
        job.check()?;
        let count = fill(&mut wanted, &mut a)
            .await
            .map_err(|e| backup_core::Error::from(e).with_entry(&entry.name))?;
        let same = match fill(&mut found, &mut b).await {
            Ok(there) => there == count && a.get(..count) == b.get(..count),
            Err(error) => return Ok(Some(error.to_string())),
        };
        if !same {
            return Ok(Some("it has other content".into()));
        }
        if count == 0 {
            return Ok(None);
        }
    }
}

async fn fill(reader: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0_usize;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest).await? {
            0 => break,
            count => filled = filled.saturating_add(count),
        }
    }
    Ok(filled)
}
