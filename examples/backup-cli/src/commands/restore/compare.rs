//! Reading back what was restored.

use std::collections::BTreeSet;
use std::path::Path;

use backup_core::report::SkippedItems;
use backup_core::repository::{Selection, Snapshot, StoredEntry};
use backup_core::{EntryKind, EntryName, JobContext, Skipped};
use rustix::fs::FileType;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::below::Below;

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
    let is_failed = |name: &EntryName| failed.contains(name.to_string().as_str());
    let mut below = match Below::new(to) {
        Ok(below) => below,
        Err(error) => {
            let message = format!("{} cannot be read back", to.display());
            return Err(backup_core::Error::io(message, error.into()));
        }
    };
    let mut differing = Vec::new();
    let mut entries = snapshot.entries(None, job).await?;
    while let Some(mut stored) = entries.next().await? {
        job.check()?;
        let name = stored.entry.name.clone();
        if !select.selects(&stored.entry) || is_failed(&name) {
            continue;
        }
        if let EntryKind::HardLink { to } = &stored.entry.kind {
            if is_failed(to) {
                continue;
            }
            let beyond = match select {
                Selection::All => None,
                _ => snapshot.entry(to, job).await?.filter(|file| !select.selects(&file.entry)),
            };
            match beyond {
                // The link stands for the file.
                Some(file) => stored = file,
                None => {
                    if let Some(what) = unlinked(&mut below, &name, to) {
                        differing.push(Skipped::new(&name, format!("was read back: {what}")));
                    }
                    continue;
                }
            }
        }
        if let Some(what) = differs(snapshot, &stored, &name, &mut below, job).await? {
            differing.push(Skipped::new(&name, format!("was read back: {what}")));
        }
    }
    Ok(differing)
}

/// What is wrong with a link that is to be another name of `to`.
fn unlinked(below: &mut Below, name: &EntryName, to: &EntryName) -> Option<String> {
    let found = below.look(name.as_bytes()).and_then(|link| Ok((link, below.look(to.as_bytes())?)));
    match found {
        Ok((link, file)) if (link.st_dev, link.st_ino) == (file.st_dev, file.st_ino) => None,
        Ok(_) => Some(format!("it is not another name of `{to}`")),
        Err(error) => Some(error.to_string()),
    }
}

/// What is wrong with what stands at `name`.
async fn differs(
    snapshot: &Snapshot,
    stored: &StoredEntry,
    name: &EntryName,
    below: &mut Below,
    job: &JobContext,
) -> backup_core::Result<Option<String>> {
    let kind = &stored.entry.kind;
    let there = match below.look(name.as_bytes()) {
        Ok(there) => FileType::from_raw_mode(there.st_mode),
        Err(error) => return Ok(Some(error.to_string())),
    };
    let wrong_kind = match kind {
        EntryKind::File => there != FileType::RegularFile,
        EntryKind::Directory => there != FileType::Directory,
        EntryKind::Symlink { .. } => there != FileType::Symlink,
        _ => matches!(there, FileType::Directory | FileType::RegularFile | FileType::Symlink),
    };
    if wrong_kind {
        return Ok(Some(format!("it is not a {}", kind.as_str())));
    }
    if let EntryKind::Symlink { target } = kind {
        let points = below.link_target(name.as_bytes()).is_ok_and(|points| *points == **target);
        return Ok((!points).then(|| "it points elsewhere".into()));
    }
    if !matches!(kind, EntryKind::File) {
        return Ok(None);
    }
    let found = match below.file(name.as_bytes()) {
        Ok(file) => tokio::fs::File::from_std(file),
        Err(error) => return Ok(Some(error.to_string())),
    };
    content_differs(snapshot, stored, found, job).await
}

async fn content_differs(
    snapshot: &Snapshot,
    stored: &StoredEntry,
    mut found: tokio::fs::File,
    job: &JobContext,
) -> backup_core::Result<Option<String>> {
    let mut wanted = snapshot.open(stored, job).await?;
    let (mut a, mut b) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    loop {
        job.check()?;
        let count = fill(&mut wanted, &mut a)
            .await
            .map_err(|e| backup_core::Error::from(e).with_entry(&stored.entry.name))?;
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
