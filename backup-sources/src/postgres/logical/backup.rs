//! What a snapshot says of the logical backup that it is.

use std::collections::BTreeMap;

use backup_core::{EntryName, Error, JobContext, Outcome, Result, Snapshot, SnapshotInfo, Timestamp};
use serde::{Deserialize, Serialize};

use super::format::{DATABASES, DumpFormat, GLOBALS};
use super::{Globals, Version};

/// A logical backup: from where its dumps are, and how they are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicalBackup {
    /// What the backup is called: the snapshot's identity.
    pub id: String,
    /// How dumps are kept.
    pub format: DumpFormat,
    /// The version of the server as a number: 150018 for 15.18.
    pub server_version: u32,
    /// The version of `pg_dump`; whoever reads its dumps must be as new.
    pub dump_version: u32,
    /// The cluster, where the role was told.
    pub system_identifier: Option<u64>,
    /// Whether it was made from a standby.
    pub from_standby: bool,
    /// What it has of roles and tablespaces.
    pub globals: Globals,
    /// How many databases it has.
    pub databases: u64,
    /// Before the first dump, by the clock of the machine that made it.
    pub start_time: Timestamp,
    /// After the last dump.
    pub stop_time: Timestamp,
}

/// A database in a logical backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDatabase {
    /// Its name.
    pub name: String,
    /// Bytes of its dump.
    pub bytes: u64,
}

impl LogicalBackup {
    /// Whether a snapshot is one.
    pub fn is(snapshot: &SnapshotInfo) -> bool {
        snapshot.source == "postgres" && snapshot.position.get("mode").is_some_and(|mode| mode == "logical")
    }

    /// What `snapshot` says.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput): it is no logical backup of PostgreSQL, lacks something, or says what it cannot.
    pub fn of(snapshot: &SnapshotInfo) -> Result<Self> {
        let wrong = |what: &str| {
            Error::invalid_input(format!(
                "the snapshot {} is no logical backup of PostgreSQL: {what}",
                snapshot.id
            ))
        };
        if !Self::is(snapshot) {
            return Err(wrong("no `pg_dump` made it"));
        }
        if snapshot.outcome != Outcome::Complete {
            return Err(wrong("it is partial"));
        }
        let text = |name: &str| {
            let text = snapshot.position.get(name).map(String::as_str);
            text.ok_or_else(|| wrong(&format!("its `{name}` is missing")))
        };
        let unknown = |name: &str| wrong(&format!("its `{name}` is not known here"));
        let number = |name: &str| text(name)?.parse::<u64>().map_err(|_| unknown(name));
        let version = |name: &str| u32::try_from(number(name)?).map_err(|_| unknown(name));
        let time = |name: &str| text(name)?.parse::<Timestamp>().map_err(|_| unknown(name));
        let has_system = snapshot.position.contains_key("system_identifier");
        Ok(Self {
            id: snapshot.id.to_string(),
            format: text("format")?.parse()?,
            server_version: version("server_version")?,
            dump_version: version("dump_version")?,
            system_identifier: has_system.then(|| number("system_identifier")).transpose()?,
            from_standby: text("from")? == "standby",
            globals: match text("globals")? {
                "with_passwords" => Globals::WithPasswords,
                "without_passwords" => Globals::WithoutPasswords,
                "none" => Globals::None,
                _ => return Err(unknown("globals")),
            },
            databases: number("databases")?,
            start_time: time("start_time")?,
            stop_time: time("stop_time")?,
        })
    }

    /// The databases in `snapshot`, which is this backup, by name.
    ///
    /// # Errors
    ///
    /// Entries that cannot be read, or that are no dump; fewer or more databases than the backup says.
    pub async fn databases(&self, snapshot: &Snapshot, job: &JobContext) -> Result<Vec<StoredDatabase>> {
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        let mut entries = snapshot.entries(Some(&EntryName::new(DATABASES)?), job).await?;
        while let Some(stored) = entries.next().await? {
            let database = self.format.database(&stored.entry.name).ok_or_else(|| {
                Error::invalid_input("this is the dump of no database").with_entry(&stored.entry.name)
            })?;
            let bytes = found.entry(database).or_default();
            *bytes = bytes.saturating_add(stored.content.len());
        }
        if u64::try_from(found.len()).ok() != Some(self.databases) {
            let message = format!(
                "the snapshot {} says that it has {} databases, and has {}",
                self.id,
                self.databases,
                found.len()
            );
            return Err(Error::corruption(message));
        }
        Ok(found.into_iter().map(|(name, bytes)| StoredDatabase { name, bytes }).collect())
    }

    /// The name of the entry with roles and tablespaces; none where there is none.
    pub fn globals_entry(&self) -> Option<&'static str> {
        (self.globals != Globals::None).then_some(GLOBALS)
    }

    pub(super) fn dumped_by(&self) -> Version {
        Version(self.dump_version)
    }
}
