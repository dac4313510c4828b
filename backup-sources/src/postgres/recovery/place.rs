//! Where a cluster is to be recovered to, and whether that place can take it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::living::{others, running_server, why_log_not_taken, why_not_taken};
use super::{BaseBackup, Refusal, control};

/// The file by which a directory is known to be one that a recovery has begun to write.
pub(super) const MARKER: &str = "recovery-in-progress.json";

/// Where a cluster is to be recovered to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The data directory.
    pub data: PathBuf,
    /// Other directories for tablespaces, by object identifier. The rest go where they were.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// Whether a cluster that stands there is replaced. What it has and the base backup has not is then removed.
    pub replace: bool,
}

impl Place {
    /// A data directory that is empty or does not exist, and tablespaces where they were.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), tablespaces: BTreeMap::new(), replace: false }
    }

    /// The same with another directory for a tablespace.
    #[must_use]
    pub fn tablespace(mut self, oid: u32, directory: impl Into<PathBuf>) -> Self {
        self.tablespaces.insert(oid, directory.into());
        self
    }

    /// The same, replacing a cluster that stands there.
    #[must_use]
    pub fn replacing(mut self) -> Self {
        self.replace = true;
        self
    }

    /// Where each tablespace of `base` goes. Those that stand in the data directory itself are not among them.
    pub fn tablespaces_of(&self, base: &BaseBackup) -> BTreeMap<u32, PathBuf> {
        let inside = |place: &Path| place.is_relative();
        let own = base.tablespaces.iter().filter(|(_, place)| !inside(place));
        own.map(|(oid, place)| (*oid, self.tablespaces.get(oid).unwrap_or(place).clone())).collect()
    }

    /// Looks at the place, and, where something is to be replaced, at what the clusters use in whose data directories other processes
    /// of this machine stand. Blocks.
    ///
    /// # Errors
    ///
    /// It cannot be looked at.
    pub fn survey(&self, bases: &[BaseBackup]) -> Result<PlaceSurvey> {
        let mut directory = look_at(&self.data)?;
        let mut tablespaces = BTreeMap::new();
        let old = linked(&self.data);
        let interrupted = matches!(directory, DirectoryState::Interrupted);
        let replaced = interrupted || (self.replace && matches!(directory, DirectoryState::Cluster { .. }));
        // A copy of a cluster has its links, too: what they lead to is what the original has its log and its tablespaces in.
        let others = if replaced { others(&self.data) } else { Vec::new() };
        for place in bases.iter().flat_map(|base| self.tablespaces_of(base).into_values()) {
            let mut state = look_at(&place)?;
            let own = old.contains(&place) || (interrupted && names_tablespace(&self.data, &place));
            if replaced && own && matches!(state, DirectoryState::Other { .. }) {
                state = DirectoryState::Interrupted;
            }
            if !matches!(state, DirectoryState::Other { .. } | DirectoryState::Cluster { .. })
                && let Some(why) = why_not_taken(&others, &place)
            {
                state = DirectoryState::Unusable { why };
            }
            tablespaces.insert(place, state);
        }
        let mut spaces: Vec<Space> = Vec::new();
        for place in std::iter::once(&self.data).chain(tablespaces.keys()) {
            let freed = if replaced { bytes_below(place) } else { 0 };
            let (device, free) = free_bytes(place)?;
            match spaces.iter_mut().find(|space| space.device == device) {
                Some(space) => space.free = space.free.saturating_add(freed),
                None => {
                    spaces.push(Space { device, directory: place.clone(), free: free.saturating_add(freed) })
                }
            }
        }
        if let Some(why) = why_log_not_taken(&others, &self.data) {
            directory = DirectoryState::Unusable { why };
        }
        let oids = bases.iter().flat_map(|base| base.tablespaces.keys().copied()).collect();
        Ok(PlaceSurvey { place: self.clone(), directory, tablespaces, oids, spaces })
    }
}

/// How a place looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceSurvey {
    /// The place.
    pub place: Place,
    /// The data directory.
    pub directory: DirectoryState,
    /// The directories of tablespaces.
    pub tablespaces: BTreeMap<PathBuf, DirectoryState>,
    /// The tablespaces that the base backups have for which it was looked at.
    pub oids: BTreeSet<u32>,
    /// The file systems.
    pub spaces: Vec<Space>,
}

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectoryState {
    /// It does not exist.
    Missing,
    /// Nothing.
    Empty,
    /// What a recovery left that did not come to its end, and in which no server has run, or, of a tablespace, what is to be replaced with its cluster.
    Interrupted,
    /// A cluster.
    Cluster {
        /// Its system identifier, where it can be read.
        system_identifier: Option<u64>,
        /// The process of the server that runs in it.
        server: Option<u32>,
    },
    /// Something else.
    Other {
        /// Something in it.
        example: String,
    },
    /// It cannot be a directory, and why.
    Unusable {
        /// Why.
        why: String,
    },
}

/// Free space on a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// What tells it from others.
    pub device: u64,
    /// A directory on it.
    pub directory: PathBuf,
    /// Bytes that are free, with those that are freed by replacing what is there.
    pub free: u64,
}

impl PlaceSurvey {
    /// Why `base` cannot be recovered here with so many bytes altogether.
    pub(super) fn refusals(&self, base: &BaseBackup, bytes: u64) -> Vec<Refusal> {
        let mut found = Vec::new();
        let data = &self.place.data;
        let bad = |directory: &Path, why: &str| Refusal::BadDirectory {
            directory: directory.to_owned(),
            why: why.to_owned(),
        };
        if data.is_relative() {
            found.push(bad(data, "is relative; give the whole path"));
        }
        found.extend(self.directory.refusal(data, self.place.replace));
        let tablespaces = self.place.tablespaces_of(base);
        for (oid, directory) in &tablespaces {
            let twice = tablespaces.iter().any(|(other, place)| other < oid && place == directory);
            if directory.is_relative() {
                found.push(bad(directory, "is relative; give the whole path"));
            } else if directory.starts_with(data) || data.starts_with(directory) {
                found.push(bad(directory, "stands in the data directory or holds it; no tablespace may"));
            } else if twice {
                found.push(bad(directory, "is given for two tablespaces"));
            }
            match self.tablespaces.get(directory) {
                Some(DirectoryState::Missing | DirectoryState::Empty | DirectoryState::Interrupted) => {}
                Some(DirectoryState::Unusable { why }) => found.push(bad(directory, why)),
                Some(_) => {
                    found.push(Refusal::TablespaceNotEmpty { oid: *oid, directory: directory.clone() });
                }
                None => {
                    found.push(bad(directory, "was not looked at; survey the place with this base backup"))
                }
            }
        }
        for oid in self.place.tablespaces.keys().filter(|oid| !self.oids.contains(oid)) {
            let why = format!("is given for the tablespace {oid}, which no base backup has");
            found.push(bad(self.place.tablespaces.get(oid).unwrap_or(data), &why));
        }
        // How the bytes are divided among tablespaces is not known: several file systems are taken together.
        let free = self.spaces.iter().fold(0_u64, |sum, space| sum.saturating_add(space.free));
        if free < bytes {
            found.push(Refusal::NoSpace { directory: data.clone(), needed: bytes, free });
        }
        found
    }
}

impl DirectoryState {
    fn refusal(&self, directory: &Path, replace: bool) -> Option<Refusal> {
        let directory = directory.to_owned();
        match self {
            Self::Missing | Self::Empty | Self::Interrupted => None,
            Self::Cluster { server: Some(pid), .. } => Some(Refusal::ServerRuns { directory, pid: *pid }),
            Self::Cluster { .. } if replace => None,
            Self::Cluster { system_identifier, .. } => {
                Some(Refusal::ClusterThere { directory, system_identifier: *system_identifier })
            }
            Self::Other { example } => Some(Refusal::NotACluster { directory, example: example.clone() }),
            Self::Unusable { why } => Some(Refusal::BadDirectory { directory, why: why.clone() }),
        }
    }
}

fn look_at(path: &Path) -> Result<DirectoryState> {
    let cannot = |error| Error::io(format!("`{}` cannot be looked at", path.display()), error);
    let mut entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(DirectoryState::Missing),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Ok(DirectoryState::Unusable { why: "is no directory".to_owned() });
        }
        Err(error) => return Err(cannot(error)),
    };
    let Some(first) =
        entries.find(|entry| !entry.as_ref().is_ok_and(|entry| entry.file_name() == "lost+found"))
    else {
        return Ok(DirectoryState::Empty);
    };
    let example = first.map_err(cannot)?.file_name().to_string_lossy().into_owned();
    // Whatever else is there: a server that runs must be stopped.
    let server = running_server(path)?;
    // With a `pg_control` in its place it is a cluster that starts: one that the recovery had not begun to change, or, once a server has
    // taken its label, one that has run since. Only one that was put in place, and never started, is still the recovery's.
    let may_have_run = path.join(control::PATH).exists() && !path.join("backup_label").exists();
    if server.is_none() && path.join(MARKER).exists() && !may_have_run {
        return Ok(DirectoryState::Interrupted);
    }
    let is_cluster = path.join("PG_VERSION").exists() || path.join("global").exists();
    if server.is_none() && !is_cluster {
        return Ok(DirectoryState::Other { example });
    }
    let system_identifier =
        control::read(&path.join(control::PATH)).ok().map(|control| control.system_identifier);
    Ok(DirectoryState::Cluster { system_identifier, server })
}

/// Why no server may make a tablespace in this directory by replaying that one was made there; none if it may. Replay asks for nothing: what
/// it finds there it takes for its own, and on the machine of the cluster that wrote the log that is the cluster's.
pub(super) fn why_not_made(directory: &Path) -> Option<&'static str> {
    match look_at(directory) {
        Ok(DirectoryState::Empty) => None,
        Ok(DirectoryState::Missing) => {
            Some("it is not there, and would have to be, empty and of the server's user")
        }
        Ok(_) => Some("it is not empty, and what is there would be overwritten"),
        Err(_) => Some("it cannot be looked at"),
    }
}

/// Where the links in `pg_tblspc` of the cluster that is there lead to.
fn linked(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("pg_tblspc")).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
}

/// Whether an interrupted recovery has noted that it writes a tablespace there.
fn names_tablespace(data: &Path, place: &Path) -> bool {
    let noted =
        fs::read(data.join(MARKER)).ok().and_then(|bytes| serde_json::from_slice::<Marker>(&bytes).ok());
    noted.is_some_and(|marker| marker.tablespaces.values().any(|noted| noted == place))
}

/// What stands in [`MARKER`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// The base backup that is being restored.
    pub(super) base: String,
    /// Its cluster.
    pub(super) system_identifier: u64,
    /// Where its tablespaces go.
    pub(super) tablespaces: BTreeMap<u32, PathBuf>,
}

/// Bytes of the files below a directory; what cannot be looked at counts nothing.
fn bytes_below(path: &Path) -> u64 {
    let mut open = vec![path.to_owned()];
    let mut bytes = 0_u64;
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            } else {
                use std::os::unix::fs::MetadataExt;
                bytes = bytes.saturating_add(metadata.blocks().saturating_mul(512));
            }
        }
    }
    bytes
}

/// The file system on which a directory stands or would be made, and its free bytes.
fn free_bytes(path: &Path) -> Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let cannot = |error: io::Error| {
        Error::io(format!("the free space at `{}` cannot be asked for", existing.display()), error)
    };
    let device = fs::metadata(existing).map_err(cannot)?.dev();
    let found = rustix::fs::statvfs(existing).map_err(|errno| cannot(errno.into()))?;
    Ok((device, found.f_bavail.saturating_mul(found.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_says_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        assert_eq!(look_at(&data).unwrap(), DirectoryState::Missing);
        fs::create_dir_all(data.join("lost+found")).unwrap();
        assert_eq!(look_at(&data).unwrap(), DirectoryState::Empty);
        fs::write(data.join("notes"), "").unwrap();
        assert_eq!(look_at(&data).unwrap(), DirectoryState::Other { example: "notes".into() });
        fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        assert!(matches!(look_at(&data).unwrap(), DirectoryState::Cluster { server: None, .. }));
        fs::write(data.join(MARKER), "{}").unwrap();
        assert_eq!(look_at(&data).unwrap(), DirectoryState::Interrupted);
        // Killed before it changed anything, or after it was done: a cluster that starts is replaced only if that is asked for.
        fs::create_dir(data.join("global")).unwrap();
        fs::write(data.join(control::PATH), "").unwrap();
        assert!(matches!(look_at(&data).unwrap(), DirectoryState::Cluster { server: None, .. }));
        fs::write(data.join("backup_label"), "").unwrap();
        assert_eq!(look_at(&data).unwrap(), DirectoryState::Interrupted);
        assert!(matches!(look_at(&data.join("notes")).unwrap(), DirectoryState::Unusable { .. }));
        let mut child = std::process::Command::new("sleep").arg("60").current_dir(&data).spawn().unwrap();
        fs::write(data.join("postmaster.pid"), format!("{}\n", child.id())).unwrap();
        assert!(matches!(look_at(&data).unwrap(), DirectoryState::Cluster { server: Some(_), .. }));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
