//! The last steps of a recovery's files: what does not belong there goes, the server is told what to do, and `pg_control` gets its name.

use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, RestoreReport, Result};
use serde::{Deserialize, Serialize};

use super::files::Seen;
use super::log_directory::LogDirectory;
use super::place::MARKER;
use super::prepare::{EMPTIED, Spaces, blocking};
use super::{ClusterTarget, RecoveryPlan, RecoverySettings, control, tree};
use crate::system;

/// What a cluster that was put in place is like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// The data directory.
    pub data: PathBuf,
    /// Whom its files belong to: user and group. A server runs as this user.
    pub owner: (u32, u32),
    /// Things that stood there and belonged to something else.
    pub removed: u64,
}

/// Puts a restored cluster in place: after this, and not before, a server can start there, and recovers to the plan's target.
///
/// In this order, and durably: what the base backup does not have is removed; directories that hold nothing in a backup, and links to
/// tablespaces, are made; the settings, and the file that makes the server recover, are written; owners are set; and `global/pg_control`,
/// which had been restored under another name, gets its own. Killed anywhere, it leaves nothing that starts, or all; it may be called
/// again with a target into which the snapshot was restored again.
///
/// # Errors
///
/// `report` names files that could not be restored; the snapshot has no `backup_label` of the base backup, or its `pg_control` is
/// damaged or another cluster's: a server would start, and be corrupt. Or the directories cannot be changed.
///
/// Cancellation: what was begun is done on another thread, also if the future is dropped.
pub async fn finish(
    plan: &RecoveryPlan,
    target: &ClusterTarget,
    report: &RestoreReport,
    settings: &RecoverySettings,
) -> Result<Recovered> {
    if !report.failed.is_empty() {
        let named = report.failed.named().first().map(|first| format!("{}: {}", first.name, first.reason));
        let message = format!(
            "{} files could not be restored, and no server may start from the others: {}",
            report.failed.count(),
            named.unwrap_or_default()
        );
        return Err(Error::corruption(message));
    }
    let (plan, settings) = (plan.clone(), settings.clone());
    let (data, spaces, seen) = (target.data().to_owned(), target.spaces(), target.seen());
    blocking(move || put_in_place(&plan, &settings, &data, &spaces, seen)).await?
}

fn put_in_place(
    plan: &RecoveryPlan,
    settings: &RecoverySettings,
    data: &Path,
    spaces: &Spaces,
    mut seen: Seen,
) -> Result<Recovered> {
    if !seen.main.contains(control::WAITING.as_bytes()) {
        return Err(Error::invalid_input("no snapshot of a cluster was restored into this target"));
    }
    let waiting = data.join(control::WAITING);
    let found = control::read(&waiting)?;
    if found.system_identifier != plan.base.system_identifier {
        let message = format!(
            "the restored `pg_control` is of the cluster {} and the base backup of {}",
            found.system_identifier, plan.base.system_identifier
        );
        return Err(Error::corruption(message));
    }
    let version = format!("PG_{}_{}", plan.base.major_version(), found.catalog_version);
    let label = read(&data.join("backup_label"))?.ok_or_else(|| {
        Error::new(
            ErrorKind::Corruption,
            "the snapshot has no `backup_label`; a server started without it would come up silently corrupt",
        )
    })?;
    control::check_label(&label, plan.base.start_lsn)?;
    let owner = match settings.owner {
        Some(owner) => owner,
        None => tree::owner_of(data)?,
    };
    if owner.0 == 0 {
        let message = format!(
            "`{}` belongs to root, as whom no server runs; say whom the files are to belong to",
            data.display()
        );
        return Err(Error::invalid_input(message));
    }

    for name in [MARKER, control::WAITING, control::FORMER] {
        seen.main.insert(name.as_bytes());
    }
    for name in EMPTIED {
        let path = data.join(name);
        if !path.is_dir() {
            tree::make_directory(&path)?;
        }
        seen.main.insert(name.as_bytes());
    }
    let log = LogDirectory::open(data)?.ok_or_else(|| Error::internal("`pg_wal` was just made"))?;
    log.make_status()?;
    seen.main.insert(b"pg_wal/archive_status");
    let mut removed = tree::sweep(data, &seen.main)?;
    for (oid, directory) in spaces {
        let names = seen.spaces.remove(oid).unwrap_or_default();
        // A cluster of another version may have its tablespace in the same directory, beside this one's: after an upgrade it has.
        removed = removed.saturating_add(tree::sweep_one(directory, &version, &names)?);
        tree::close_to_others(directory)?;
    }
    link_tablespaces(data, spaces)?;

    let automatic = data.join("postgresql.auto.conf");
    let former = read(&automatic)?.unwrap_or_default();
    tree::write(&automatic, settings.file(plan, &former)?.as_bytes())?;
    let signal = if plan.standby { "standby.signal" } else { "recovery.signal" };
    tree::write(&data.join(signal), b"")?;
    tree::close_to_others(data)?;
    if system::is_root() {
        for directory in spaces.values().map(PathBuf::as_path).chain([data]) {
            tree::own(directory, owner.0, owner.1)?;
        }
        log.own(owner.0, owner.1)?;
    }
    for directory in spaces.values().map(PathBuf::as_path).chain([data, data.join("pg_wal").as_path()]) {
        tree::sync_all(directory)?;
    }
    // Now a server may start.
    tree::rename(&waiting, &data.join(control::PATH))?;
    tree::remove(&data.join(control::FORMER))?;
    tree::remove(&data.join(MARKER))?;
    tree::sync(&data.join("global"))?;
    tree::sync(data)?;
    Ok(Recovered { data: data.to_owned(), owner, removed })
}

/// Links to where the tablespaces are now. A map, which the server would believe more, says the same.
fn link_tablespaces(data: &Path, spaces: &Spaces) -> Result<()> {
    for (oid, directory) in spaces {
        let link = data.join("pg_tblspc").join(oid.to_string());
        tree::remove(&link)?;
        std::os::unix::fs::symlink(directory, &link)
            .map_err(|error| Error::io(format!("the link `{}` cannot be made", link.display()), error))?;
    }
    let path = data.join("tablespace_map");
    let Some(map) = read(&path)? else { return Ok(()) };
    let moved = spaces.iter().map(|(oid, directory)| Ok((*oid, map_line(*oid, directory)?)));
    let moved: std::collections::BTreeMap<u32, String> = moved.collect::<Result<_>>()?;
    let mut text = String::new();
    for line in map.lines() {
        let oid = line.split(' ').next().and_then(|oid| oid.parse().ok());
        // A path may hold line breaks, each behind a backslash: lines that begin with no number are the rest of one.
        match oid.and_then(|oid: u32| moved.get(&oid)) {
            Some(line) => text.push_str(line),
            None if oid.is_some() => {
                text.push_str(line);
                text.push('\n');
            }
            None => {}
        }
    }
    if text == map { Ok(()) } else { tree::write(&path, text.as_bytes()) }
}

fn map_line(oid: u32, directory: &Path) -> Result<String> {
    let text = directory.to_str().filter(|text| !text.contains(['\n', '\r', '\\']));
    let text = text.ok_or_else(|| {
        let message = format!("`{}` is a name that the map of tablespaces cannot hold", directory.display());
        Error::invalid_input(message)
    })?;
    Ok(format!("{oid} {text}\n"))
}

fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("`{}` cannot be read", path.display()), error)),
    }
}
