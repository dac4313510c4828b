//! Where a restore writes the files of a cluster: the data directory, its tablespaces elsewhere, and `pg_control` beside its name.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::{
    Entry, EntryKind, EntryName, Error, JobContext, OwnerNames, Result, Skipped, Target, WriteOrder, Writer,
};

use super::control;
use super::place::MARKER;
use super::prepare::{REMOVED, Spaces};
use super::tree::Names;
use crate::{DirectoryTarget, Owner};

/// The files of a cluster, restored so that no server can start from them before [`finish`](super::finish) says so.
///
/// `global/pg_control` is written under another name; what lies in tablespaces goes to their directories; what tells a server how to
/// begin, but for the backup's own label, is left out. It is made by [`prepare`](super::prepare), and a restore may be repeated into it.
#[derive(Debug)]
pub struct ClusterTarget {
    data: PathBuf,
    main: DirectoryTarget,
    spaces: Vec<(u32, PathBuf, DirectoryTarget)>,
    log_is_elsewhere: bool,
    seen: Mutex<Seen>,
}

/// The names of what was restored.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Below the data directory.
    pub(super) main: Names,
    /// Below the tablespaces' directories.
    pub(super) spaces: std::collections::BTreeMap<u32, Names>,
}

/// Where an entry goes.
enum Route<'a> {
    Main(Entry),
    Space(u32, &'a DirectoryTarget, Entry),
    Nowhere,
}

impl ClusterTarget {
    pub(super) fn new(data: &Path, spaces: Spaces) -> Self {
        let target = |path: &Path| DirectoryTarget::builder(path).owner(Owner::Ignore).build();
        let wal = data.join("pg_wal");
        Self {
            data: data.to_owned(),
            main: target(data),
            spaces: spaces.into_iter().map(|(oid, path)| (oid, path.clone(), target(&path))).collect(),
            log_is_elsewhere: wal.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()),
            seen: Mutex::default(),
        }
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The tablespaces' directories, by object identifier.
    pub(super) fn spaces(&self) -> Spaces {
        self.spaces.iter().map(|(oid, path, _)| (*oid, path.clone())).collect()
    }

    /// The names of what was restored since this target was made.
    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn targets(&self) -> impl Iterator<Item = &DirectoryTarget> {
        std::iter::once(&self.main).chain(self.spaces.iter().map(|(_, _, target)| target))
    }

    fn route(&self, entry: &Entry) -> Result<Route<'_>> {
        let name = entry.name.as_bytes();
        if let Some(rest) = name.strip_prefix(b"pg_tblspc/") {
            let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            let (oid, below) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            let oid = std::str::from_utf8(oid).ok().and_then(|oid| oid.parse::<u32>().ok());
            let space = self.spaces.iter().find(|(own, _, _)| Some(*own) == oid);
            return match (space, below.strip_prefix(b"/")) {
                // The link is made in the end, and leads where the plan says.
                (Some(_), None) => Ok(Route::Nowhere),
                (Some((oid, _, target)), Some(below)) => {
                    let entry = Entry { name: EntryName::new(below)?, ..entry.clone() };
                    Ok(Route::Space(*oid, target, entry))
                }
                (None, _) if matches!(entry.kind, EntryKind::Symlink { .. }) => {
                    Err(Error::corruption("it is a tablespace of which the snapshot's positions say nothing")
                        .with_entry(&entry.name))
                }
                (None, _) => Ok(Route::Main(entry.clone())),
            };
        }
        let is = |names: &[&str]| names.iter().any(|own| own.as_bytes() == name);
        if name == control::PATH.as_bytes() {
            return Ok(Route::Main(Entry { name: EntryName::new(control::WAITING)?, ..entry.clone() }));
        }
        let labels = ["backup_label", "tablespace_map", "backup_manifest"];
        if (is(&REMOVED) && !is(&labels)) || is(&[MARKER, control::WAITING, control::FORMER]) {
            return Ok(Route::Nowhere);
        }
        let in_log = name == b"pg_wal" || name.starts_with(b"pg_wal/");
        Ok(if in_log && self.log_is_elsewhere { Route::Nowhere } else { Route::Main(entry.clone()) })
    }
}

#[async_trait]
impl Target for ClusterTarget {
    fn order(&self) -> WriteOrder {
        WriteOrder::Any
    }

    fn owner_names(&self, names: &OwnerNames) {
        self.targets().for_each(|target| target.owner_names(names));
    }

    async fn begin(&self, job: &JobContext) -> Result<()> {
        for target in self.targets() {
            target.begin(job).await?;
        }
        Ok(())
    }

    fn holds_content(&self) -> bool {
        self.targets().any(|target| target.holds_content())
    }

    async fn entry(&self, entry: &Entry) -> Result<Writer> {
        let (target, entry) = match self.route(entry)? {
            Route::Nowhere => return Ok(Writer::Skip),
            Route::Main(entry) => {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.main.insert(entry.name.as_bytes());
                drop(seen);
                (&self.main, entry)
            }
            Route::Space(oid, target, entry) => {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.spaces.entry(oid).or_default().insert(entry.name.as_bytes());
                drop(seen);
                (target, entry)
            }
        };
        target.entry(&entry).await
    }

    async fn complete(&self, entries: Vec<Entry>) -> Result<Vec<Skipped>> {
        let mut failed = Vec::new();
        let mut main = Vec::new();
        for entry in entries {
            match self.route(&entry)? {
                Route::Main(entry) => main.push(entry),
                Route::Space(_, target, entry) => failed.extend(target.complete(vec![entry]).await?),
                Route::Nowhere => {}
            }
        }
        if !main.is_empty() {
            failed.extend(self.main.complete(main).await?);
        }
        Ok(failed)
    }

    async fn finish(&self) -> Result<Vec<Skipped>> {
        let mut failed = Vec::new();
        for target in self.targets() {
            failed.extend(target.finish().await?);
        }
        Ok(failed)
    }

    fn notes(&self) -> Vec<String> {
        self.targets().flat_map(|target| target.notes()).collect()
    }
}
