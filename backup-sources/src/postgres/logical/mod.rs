//! Logical backups: what is in databases, dumped by `pg_dump`, with the roles and tablespaces of their cluster.
//!
//! A [`LogicalSource`] runs the programs of PostgreSQL's clients, and a [`LogicalRestore`](restore::LogicalRestore) gives what they wrote to `pg_restore`. A
//! dump can be restored into another version, another cluster, one database or table at a time; it has no log, and leads to no moment but its own. For
//! whole clusters and recovery to any moment there is [`physical`](super::physical).
//!
//! ```no_run
//! use backup_core::{JobContext, Repository};
//! use backup_core::repository::BackupOptions;
//! use backup_sources::postgres::Connect;
//! use backup_sources::postgres::logical::LogicalSource;
//! use backup_sources::postgres::logical::restore::LogicalRestore;
//!
//! # async fn example(repository: Repository) -> backup_core::Result<()> {
//! let job = JobContext::new();
//! let source = LogicalSource::builder(Connect::parse("postgres://backup@db.example/postgres")?).build()?;
//! let report = repository.backup(&source, &BackupOptions::default(), &job).await?;
//!
//! let Some(id) = report.snapshot else { return Ok(()) };
//! let snapshot = repository.snapshot(id, &job).await?;
//! let restore = LogicalRestore::new(Connect::parse("postgres://restore@other.example/postgres")?).database("shop").create(true);
//! let plan = restore.plan(&snapshot, &job).await?;
//! restore.apply(&plan, &snapshot, &job).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is stored
//!
//! | Entry | is |
//! |---|---|
//! | `databases/NAME.dump` | a dump in the custom format, as `pg_dump` wrote it into a pipe; nothing lies on a disk |
//! | `databases/NAME/…` | the same in the directory format, which several connections dump; needs a [scratch directory](LogicalSourceBuilder::scratch) |
//! | `globals.sql` | roles, their memberships and settings, tablespaces: by `pg_dumpall --globals-only` |
//!
//! In names of entries, what has a meaning in paths or to shells is written as `%` and two hexadecimal digits. Dumps are not compressed by
//! `pg_dump`: the repository compresses, and finds again what an earlier dump had. `globals.sql` has the **hashes of passwords**
//! unless [told otherwise](LogicalSourceBuilder::globals): keep the repository encrypted, as for every backup of a database.
//!
//! # What belongs together
//!
//! Each database is one snapshot of its own, taken by `pg_dump` when it begins: all tables of a database are of one moment. Different databases are of
//! different moments, and so are the roles; that is how the server has it, which knows no transaction over several databases. Positions say
//! from when to when the backup took.
//!
//! # What must not go wrong
//!
//! - **A dump that broke off** looks like a short one. The exit status of every program counts: if one fails, is killed, or cannot be read to its end,
//!   there is no snapshot at all, and the error has the end of what the program complained of.
//! - **Versions**: `pg_dump` must be at least as new as the server, and is asked before.
//! - **Waiting**: a dump waits for locks as long as [told](LogicalSourceBuilder::lock_timeout), 10 minutes otherwise, so that a table that somebody alters
//!   does not hold it, and everybody who comes after it, for ever.
//! - **Secrets** reach the programs by their environment (`PGPASSWORD`), which only the same user and root can see, and never by arguments or files.
//!
//! # Rights
//!
//! A role with `pg_read_all_data` dumps databases; large objects and row-level security need more (`BYPASSRLS`), and the hashes of passwords a superuser: without one leave
//! them out by [`Globals::WithoutPasswords`].

mod backup;
mod dump;
mod format;
mod programs;
pub mod restore;
mod run;
mod scratch;
mod server;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{Error, JobContext, Result, Source, SourceInfo, SourceRun};
use serde::{Deserialize, Serialize};

use super::Connect;
pub use backup::{LogicalBackup, StoredDatabase};
pub use format::DumpFormat;
use programs::Version;
use run::LogicalRun;

/// Connections at once, at most.
const JOBS_MAX: usize = 64;
/// How long a dump waits for a lock unless told otherwise.
const LOCK_TIMEOUT: Duration = Duration::from_secs(600);

/// What is stored of a cluster's roles and tablespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Globals {
    /// All, with the hashes of passwords: only a superuser may read them.
    #[default]
    WithPasswords,
    /// All but the hashes of passwords.
    WithoutPasswords,
    /// Nothing.
    None,
}

/// The databases of a PostgreSQL server, dumped. See the [module](self) for what is stored and needed.
///
/// Positions of its snapshots: `mode` (`logical`), `format` (`custom` or `directory`), `server_version` and `dump_version` (as `server_version_num`),
/// `system_identifier` (where the role may ask), `from` (`primary` or `standby`), `databases` (how many), `globals` (`with_passwords`, `without_passwords` or
/// `none`), `start_time` and `stop_time` (RFC 3339, by the clock of this machine). [`LogicalBackup::of`] reads them.
///
/// ```
/// use backup_core::Source;
/// use backup_sources::postgres::Connect;
/// use backup_sources::postgres::logical::{Globals, LogicalSource};
///
/// let connect = Connect::parse("postgres://backup@db.example/postgres")?;
/// let source = LogicalSource::builder(connect)
///     .database("shop")
///     .globals(Globals::WithoutPasswords)
///     .named("orders")
///     .build()?;
/// assert_eq!(source.info().identity, ["orders", "logical", "database shop"]);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LogicalSource {
    connect: Connect,
    databases: BTreeSet<String>,
    format: DumpFormat,
    globals: Globals,
    jobs: usize,
    scratch: Option<PathBuf>,
    scratch_bytes_max: u64,
    programs: Option<PathBuf>,
    lock_timeout: Duration,
    timeout: Option<Duration>,
    name: Option<String>,
}

/// Puts a [`LogicalSource`] together.
#[derive(Debug, Clone)]
pub struct LogicalSourceBuilder(LogicalSource);

impl LogicalSource {
    /// A source of all databases of the server that `connect` leads to; its database is where the server is asked which there are.
    pub fn builder(connect: Connect) -> LogicalSourceBuilder {
        LogicalSourceBuilder(Self {
            connect,
            databases: BTreeSet::new(),
            format: DumpFormat::default(),
            globals: Globals::default(),
            jobs: 1,
            scratch: None,
            scratch_bytes_max: u64::MAX,
            programs: None,
            lock_timeout: LOCK_TIMEOUT,
            timeout: None,
            name: None,
        })
    }
}

impl LogicalSourceBuilder {
    /// Dumps this database, and no others but those that are named as well. Without any, all that take connections and are no templates.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.0.databases.insert(name.into());
        self
    }

    /// The same for several.
    #[must_use]
    pub fn databases(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.databases.extend(names.into_iter().map(Into::into));
        self
    }

    /// The format of the dumps; [`DumpFormat::Custom`] unless told otherwise.
    #[must_use]
    pub fn format(mut self, format: DumpFormat) -> Self {
        self.0.format = format;
        self
    }

    /// What is stored of roles and tablespaces.
    #[must_use]
    pub fn globals(mut self, globals: Globals) -> Self {
        self.0.globals = globals;
        self
    }

    /// Connections that dump at once, 1 to 64; 1 unless told otherwise. In the custom format each dumps a database, in the directory format a table.
    #[must_use]
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.0.jobs = jobs;
        self
    }

    /// The directory below which dumps in the directory format stand until they are read, in a directory with the mode 0700, which is removed at the end, whatever
    /// happens, `kill -9` included. It must hold the dumps of all databases, which are not compressed, but for what is read already.
    #[must_use]
    pub fn scratch(mut self, directory: impl Into<PathBuf>) -> Self {
        self.0.scratch = Some(directory.into());
        self
    }

    /// How many bytes the scratch directory may hold: a dump that takes more is stopped, and the backup fails. Looked at once a second. What the file
    /// system has unless told otherwise.
    #[must_use]
    pub fn scratch_bytes_max(mut self, bytes: u64) -> Self {
        self.0.scratch_bytes_max = bytes;
        self
    }

    /// The directory that has `pg_dump` and `pg_dumpall`; otherwise where packages put those of the server's version, or of a later one, and then `PATH`.
    #[must_use]
    pub fn programs(mut self, directory: impl Into<PathBuf>) -> Self {
        self.0.programs = Some(directory.into());
        self
    }

    /// How long a dump waits for the lock of a table (`--lock-wait-timeout`); then the backup fails. 10 minutes unless told otherwise.
    #[must_use]
    pub fn lock_timeout(mut self, limit: Duration) -> Self {
        self.0.lock_timeout = limit;
        self
    }

    /// How long the dump of one database may take, the time for which the repository keeps it waiting included; then it is killed, and the backup
    /// fails. No limit unless told so. (`pg_dump` takes away limits on statements that a role has.)
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.0.timeout = Some(limit);
        self
    }

    /// What snapshots call the cluster: this is how the next backup finds the one before. Otherwise the server's address, which is another after a
    /// failover. No secrets belong here.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.0.name = Some(name.into());
        self
    }

    /// The source.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput): a number of connections, a time or a name of a database that cannot be; the directory format without a scratch
    /// directory, or the other way round.
    pub fn build(self) -> Result<LogicalSource> {
        let source = self.0;
        if !(1..=JOBS_MAX).contains(&source.jobs) {
            let message = format!("{} connections cannot be; give 1 to {JOBS_MAX}", source.jobs);
            return Err(Error::invalid_input(message));
        }
        check_names(&source.databases)?;
        if source.lock_timeout.as_millis() == 0
            || source.lock_timeout.as_millis() > i32::MAX.unsigned_abs().into()
        {
            return Err(Error::invalid_input("the time for locks must be from 1 ms to 24 days"));
        }
        match (source.format, &source.scratch) {
            (DumpFormat::Directory, None) => Err(Error::invalid_input(
                "the directory format needs a scratch directory, in which the dumps stand until they are read",
            )),
            (DumpFormat::Custom, Some(_)) => Err(Error::invalid_input(
                "the custom format needs no scratch directory: leave it out, or ask for the directory format",
            )),
            _ => Ok(source),
        }
    }
}

/// Refuses what cannot be the name of a database.
fn check_names<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<()> {
    for name in names {
        if name.is_empty() || name.contains('\0') {
            return Err(Error::invalid_input(format!("`{}` is no name of a database", name.escape_debug())));
        }
    }
    Ok(())
}

#[async_trait]
impl Source for LogicalSource {
    fn info(&self) -> SourceInfo {
        let name = self.name.clone().unwrap_or_else(|| format!("postgres://{}", self.connect.address()));
        let databases = self.databases.iter().map(|database| format!("database {database}"));
        SourceInfo::new("postgres", [name, "logical".to_owned()].into_iter().chain(databases))
    }

    async fn begin(&self, job: &JobContext) -> Result<Box<dyn SourceRun>> {
        // Of several hosts, all connections must lead to the same.
        let connect = self.connect.resolve().await?;
        Ok(Box::new(LogicalRun::start(self.clone(), connect, job).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused() {
        let builder = || LogicalSource::builder(Connect::parse_with("host=h user=u", |_| None).unwrap());
        assert!(builder().build().is_ok());
        assert!(builder().format(DumpFormat::Directory).scratch("/scratch").jobs(8).build().is_ok());
        let wrong = [
            builder().jobs(0),
            builder().jobs(65),
            builder().database(""),
            builder().database("a\0b"),
            builder().format(DumpFormat::Directory),
            builder().scratch("/scratch"),
            builder().lock_timeout(Duration::ZERO),
        ];
        for builder in wrong {
            assert_eq!(builder.build().unwrap_err().kind(), backup_core::ErrorKind::InvalidInput);
        }
    }
}
