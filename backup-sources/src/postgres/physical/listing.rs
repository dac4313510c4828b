//! What a backup consists of: the data directory as it is after the backup was started, without what is made anew.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Entry, EntryKind, Error, ErrorKind, Item, PosixMetadata, Result, Skipped, Timestamp};

use super::control::ControlFile;
use super::reader::{Listed, ListedKind, PgFileReader};
use super::relation::{Fork, RelationFile, is_database, is_emptied, is_excluded, unlogged};
use super::session::Server;

/// Seconds before the start of a backup within which a file's time of modification says nothing: it could be written
/// again in the same second, or a clock be a little behind.
const RACE_SECONDS: i64 = 3;

/// Owner and mode where a reader does not see them, and for what is made here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) group_access: bool,
}

impl Owner {
    pub(super) fn file(self, modified: Timestamp) -> PosixMetadata {
        let mode = if self.group_access { 0o640 } else { 0o600 };
        PosixMetadata { mode, uid: self.uid, gid: self.gid, modified }
    }

    fn directory(self, modified: Timestamp) -> PosixMetadata {
        let mode = if self.group_access { 0o750 } else { 0o700 };
        PosixMetadata { mode, uid: self.uid, gid: self.gid, modified }
    }
}

/// All that is to be copied.
#[derive(Debug)]
pub(super) struct Plan {
    /// In the order of their names.
    pub(super) items: Vec<Item>,
    /// How many files, with those that cannot be named.
    pub(super) files: u64,
    /// Bytes of all files.
    pub(super) bytes: u64,
    /// Where tablespaces are.
    pub(super) tablespaces: BTreeMap<u32, String>,
    /// Those of which what this version of the server has there was found.
    pub(super) found: BTreeSet<u32>,
    /// Who owns the files of the cluster.
    pub(super) owner: Owner,
}

/// How to list.
#[derive(Debug)]
pub(super) struct Lister<'a> {
    pub(super) reader: &'a dyn PgFileReader,
    pub(super) server: &'a Server,
    pub(super) control: &'a ControlFile,
    /// When the backup was started, by the server's clock.
    pub(super) started: Timestamp,
    /// Whether times of modification may tell that a file is unchanged.
    pub(super) trust_times: bool,
    pub(super) owner: Owner,
}

impl Lister<'_> {
    /// Lists the whole cluster.
    pub(super) async fn list(mut self) -> Result<Plan> {
        let version_directory = format!("PG_{}_{}", self.server.major(), self.control.catalog_version);
        let mut plan = Plan {
            items: Vec::new(),
            files: 0,
            bytes: 0,
            tablespaces: BTreeMap::new(),
            found: BTreeSet::new(),
            owner: self.owner,
        };
        let mut directories = vec![String::new()];
        while let Some(directory) = directories.pop() {
            let Some(listing) = self.reader.list(&directory).await? else { continue };
            if let Some(oid) = tablespace_of(&directory, &version_directory) {
                plan.found.insert(oid);
            }
            let in_database = is_database(&directory, &version_directory);
            let names = listing.entries.iter().map(|listed| listed.name.as_str());
            let unlogged = if in_database { unlogged(names) } else { Default::default() };
            for name in listing.unnamed {
                let path = join(&directory, &name);
                plan.files = plan.files.saturating_add(1);
                plan.items.push(Item::Skipped(Skipped::new(path, "its name is not in UTF-8")));
            }
            for listed in listing.entries {
                let path = join(&directory, &listed.name);
                if path == "PG_VERSION" {
                    self.note_owner(&listed, &mut plan);
                }
                let relation = RelationFile::parse(&listed.name).filter(|_| in_database);
                let is_unlogged =
                    relation.is_some_and(|file| file.fork != Fork::Init && unlogged.contains(&file.number));
                if is_excluded(&path, in_database) || is_unlogged {
                    continue;
                }
                if directory == "pg_tblspc" {
                    let below = self.tablespace(&path, &listed, &version_directory, &mut plan).await?;
                    directories.extend(below);
                } else if is_emptied(&path, self.server.statistics.as_deref()) {
                    // Also where a link leads to it: what is restored has a directory of its own.
                    self.push_directory(&path, &listed, &mut plan)?;
                    if path == "pg_wal" {
                        let with_summaries = self.server.major() >= 17;
                        for below in
                            ["archive_status", "summaries"].into_iter().take(1 + usize::from(with_summaries))
                        {
                            self.push_directory(&join(&path, below), &listed, &mut plan)?;
                        }
                    }
                } else {
                    self.push(&path, listed, &mut plan, &mut directories)?;
                }
            }
        }
        plan.items.sort_by(|a, b| match (a, b) {
            (Item::Entry(a), Item::Entry(b)) => a.name.cmp(&b.name),
            (Item::Skipped(_), Item::Entry(_)) => std::cmp::Ordering::Less,
            (Item::Entry(_), Item::Skipped(_)) => std::cmp::Ordering::Greater,
            (Item::Skipped(a), Item::Skipped(b)) => a.name.cmp(&b.name),
        });
        if !plan
            .items
            .iter()
            .any(|item| matches!(item, Item::Entry(entry) if entry.name.as_bytes() == b"PG_VERSION"))
        {
            let message = "the directory has no PG_VERSION: it is no data directory of PostgreSQL";
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        Ok(plan)
    }

    fn note_owner(&mut self, listed: &Listed, plan: &mut Plan) {
        if let Some((_, uid, gid)) = listed.owner {
            self.owner = Owner { uid, gid, ..self.owner };
            plan.owner = self.owner;
        }
    }

    /// A tablespace: a link, and below it what this version of the server has there.
    async fn tablespace(
        &self,
        path: &str,
        listed: &Listed,
        version_directory: &str,
        plan: &mut Plan,
    ) -> Result<Option<String>> {
        let Ok(oid) = listed.name.parse::<u32>() else { return Ok(None) };
        let location = match self.reader.tablespace(oid).await {
            Ok(location) => location,
            // It was dropped since the directory was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.with_entry(path)),
        };
        if location.is_empty() || location == path {
            // In place: a directory like any other.
            self.push_directory(path, listed, plan)?;
        } else {
            let target = location.clone().into_bytes().into();
            let posix = PosixMetadata { mode: 0o777, ..self.owner.file(listed.modified) };
            plan.items.push(Entry::new(path, EntryKind::Symlink { target })?.with_posix(posix).into());
            plan.tablespaces.insert(oid, location);
        }
        // Other versions may share the tablespace: after an upgrade with links, they do.
        let below = join(path, version_directory);
        let modified = listed.modified;
        plan.items.push(Entry::directory(&below)?.with_posix(self.owner.directory(modified)).into());
        Ok(Some(below))
    }

    fn push_directory(&self, path: &str, listed: &Listed, plan: &mut Plan) -> Result<()> {
        let posix = self.owner.directory(listed.modified);
        plan.items.push(Entry::directory(path)?.with_posix(posix).into());
        Ok(())
    }

    fn push(&self, path: &str, listed: Listed, plan: &mut Plan, directories: &mut Vec<String>) -> Result<()> {
        let posix = |default: PosixMetadata| match listed.owner {
            Some((mode, uid, gid)) => PosixMetadata { mode, uid, gid, modified: listed.modified },
            None => default,
        };
        let entry = match listed.kind {
            ListedKind::Directory => {
                directories.push(path.to_owned());
                Entry::directory(path)?.with_posix(posix(self.owner.directory(listed.modified)))
            }
            ListedKind::Symlink(target) => {
                let posix = posix(self.owner.file(listed.modified));
                Entry::new(path, EntryKind::Symlink { target: target.into() })?.with_posix(posix)
            }
            // The server's socket, if it is here: nobody misses it.
            ListedKind::Special => return Ok(()),
            ListedKind::File => {
                plan.files = plan.files.saturating_add(1);
                plan.bytes = plan.bytes.saturating_add(listed.bytes);
                let entry = Entry::file(path)?
                    .with_size(listed.bytes)
                    .with_posix(posix(self.owner.file(listed.modified)));
                let settled = listed.modified < self.started.saturating_add_seconds(-RACE_SECONDS);
                if self.trust_times && settled {
                    // A cluster that was made anew in the same place has other content.
                    let mut stamp = self.server.system_identifier.to_le_bytes().to_vec();
                    stamp.extend(listed.stamp);
                    entry.with_stamp(stamp)
                } else {
                    entry
                }
            }
        };
        plan.items.push(entry.into());
        Ok(())
    }
}

/// The tablespace, if the directory is that of this version of the server in one.
fn tablespace_of(directory: &str, version_directory: &str) -> Option<u32> {
    let (oid, version) = directory.strip_prefix("pg_tblspc/")?.split_once('/')?;
    oid.parse().ok().filter(|_| version == version_directory)
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}
