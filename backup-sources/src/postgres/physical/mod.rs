//! Physical backups: the files of a running cluster, page by page, from which a server starts with the log that was written
//! meanwhile.
//!
//! A [`PostgresSource`] starts a backup on one connection, reads every file that the server does not make anew, and ends the
//! backup on the same connection. See the chapter "Continuous Archiving and Point-in-Time Recovery" of the PostgreSQL manual,
//! "Making a Base Backup Using the Low Level API". What is not in the snapshot is the write-ahead log: the snapshot's positions
//! say which segments it needs, under the names of [`backup_core::log::position`] too, so that an archive keeps them.
//!
//! # Two ways to read
//!
//! | | reads | needs |
//! |---|---|---|
//! | [`data_directory`](PostgresSourceBuilder::data_directory) | the files, on the server's machine | the rights of the server's user |
//! | otherwise | over SQL, on [several connections](PostgresSourceBuilder::connections) | nothing but a role; no agent |
//!
//! Over SQL a role without further rights does, with these grants, in the database that it connects to:
//!
//! ```sql
//! CREATE ROLE backup LOGIN PASSWORD '...';
//! GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean) TO backup;
//! GRANT EXECUTE ON FUNCTION pg_stat_file(text, boolean) TO backup;
//! GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean) TO backup;
//! GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean) TO backup;
//! GRANT EXECUTE ON FUNCTION pg_backup_stop(boolean) TO backup;
//! -- PostgreSQL 13 and 14 instead of the last two:
//! -- GRANT EXECUTE ON FUNCTION pg_start_backup(text, boolean, boolean) TO backup;
//! -- GRANT EXECUTE ON FUNCTION pg_stop_backup(boolean, boolean) TO backup;
//! ```
//!
//! With a local data directory the last two do. Such a role can read the whole cluster, as every backup can: guard its
//! password like the data. Two things the server does not tell over SQL: the owner and mode of files, for which the user
//! who runs the backup and the mode of the data directory stand, and symbolic links apart from tablespaces, which are followed.
//!
//! # What is stored
//!
//! Files below the data directory under their names in it; tablespaces as links `pg_tblspc/OID` with their content below;
//! at the end `backup_label`, `tablespace_map`, `global/pg_control` and a `backup_manifest`, by which `pg_verifybackup` judges what
//! was restored. Files of relations are cut into pages, so that a page that changed costs a page. Not stored is what the
//! server leaves out of its own base backups: unlogged and temporary relations, the log, slots, statistics under way, locks.
//! Configuration that lives elsewhere (`/etc/postgresql`) is not below the data directory: back it up beside.
//!
//! # What must not go wrong
//!
//! - **Damaged pages** are found by their checksums where the cluster has them. A page that looks damaged is read again: what
//!   changes is being written, and replay of the log makes it whole; what does not is named with its relation and block, stored as
//!   it is, and the snapshot is partial.
//! - **Times** of modification are not trusted unless [told so](PostgresSourceBuilder::trust_times): all files are read, and what
//!   is known costs nothing more. A backup that broke off is begun anew and finds what the first one stored.
//! - **What vanishes** while it is copied was dropped, which replay does as well: the snapshot is complete without it.
//! - **An address that several servers share** (a balancer of standbys, one that moves in a failover) mixes their files: every connection must lead
//!   to the server that the backup was started on, also one that is made again.
//! - **A standby** that is promoted meanwhile, or changes its timeline, fails the backup.
//! - **The log**: with [`wait_for_archive`](PostgresSourceBuilder::wait_for_archive) there is no snapshot before every segment that it
//!   needs is archived.
//!
//! The server writes whole pages to its log while a backup runs, and ends the backup when the connection breaks. 14's and 13's
//! functions are called as their manuals say; they are not exercised by the tests here.

mod archived;
mod content;
mod control;
mod digest;
mod fetch;
mod label;
mod listing;
mod local;
mod manifest;
mod mode;
mod page;
mod reader;
mod relation;
mod run;
mod session;
mod sql;
mod summaries;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::resources::RateLimit;
use backup_core::{Error, JobContext, Result, Source, SourceInfo, SourceRun};

use super::Connect;
pub use archived::ArchivedSegments;
pub use control::ControlFile;
pub use digest::ManifestChecksum;
use fetch::Fetcher;
pub use label::BackupLabel;
use local::LocalFiles;
pub use mode::BackupMode;
use reader::PgFileReader;
use run::PhysicalRun;
use session::Session;
use sql::SqlFiles;

/// Connections that read, unless told otherwise, and at most.
const CONNECTIONS: usize = 2;
const CONNECTIONS_MAX: usize = 64;
/// The longest label that a server takes.
const LABEL_BYTES_MAX: usize = 1024;
/// By how many seconds a server's start and its note of it differ at most: it notes when its process began, and calls its start what comes after
/// libraries were loaded, addresses looked up and all of its memory was laid out.
const STARTS_DIFFER_MAX: u64 = 120;

/// The files of a PostgreSQL cluster, 13 to 18, primary or standby. See the [module](self) for what it reads and needs.
///
/// Every snapshot has the whole cluster and is restored by itself. What it costs is what changed: pages that the repository
/// has are not stored again, whichever backup brought them. [`BackupMode`] is a name for how thoroughly it looks.
///
/// Positions of its snapshots: `mode`, `start_lsn`, `stop_lsn`, `start_segment`, `stop_segment`, `timeline` (a decimal number),
/// `system_identifier`, `start_time`, `stop_time` (RFC 3339, by the server's clock), `server_version` (as `server_version_num`), `server_started` (microseconds since 1970), `block_bytes`,
/// `wal_segment_bytes`, `data_checksums` (`true` or `false`), `pages_verified` (`true` if the checksums of all pages were verified, by this backup or by the one
/// that they were taken over from), `from` (`primary` or `standby`), `tablespaces` (a JSON object of locations by
/// number), `damaged_pages` and `missing_files` (numbers: why a snapshot is partial; without missing files a server starts from it), and those of [`backup_core::log::position`]: the system identifier, the timeline in eight hexadecimal digits, the first and
/// the last segment that are needed.
///
/// ```
/// use backup_core::Source;
/// use backup_sources::postgres::{Connect, PostgresSource};
///
/// let connect = Connect::parse("postgres://backup@db.example/postgres")?;
/// let source = PostgresSource::builder(connect).connections(4).fast_checkpoint(true).named("orders").build()?;
/// assert_eq!(source.info().identity, ["orders"]);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PostgresSource {
    connect: Connect,
    data_directory: Option<PathBuf>,
    connections: usize,
    fast_checkpoint: bool,
    label: String,
    verify_checksums: bool,
    trust_times: bool,
    wal_summaries: bool,
    server_waits: bool,
    archive: Option<(Arc<dyn ArchivedSegments>, Duration)>,
    name: Option<String>,
    mode: BackupMode,
    manifest_checksum: ManifestChecksum,
    read_limit: RateLimit,
}

/// Puts a [`PostgresSource`] together.
#[derive(Debug, Clone)]
pub struct PostgresSourceBuilder(PostgresSource);

impl PostgresSource {
    /// A source over SQL, of the server that `connect` leads to.
    pub fn builder(connect: Connect) -> PostgresSourceBuilder {
        PostgresSourceBuilder(Self {
            connect,
            data_directory: None,
            connections: CONNECTIONS,
            fast_checkpoint: false,
            label: "backup".into(),
            verify_checksums: true,
            trust_times: false,
            wal_summaries: false,
            server_waits: false,
            archive: None,
            name: None,
            mode: BackupMode::default(),
            manifest_checksum: ManifestChecksum::default(),
            read_limit: RateLimit::default(),
        })
    }

    /// Whoever reads the files of this server.
    async fn reader(&self, connect: &Connect, session: &Session) -> Result<Arc<dyn PgFileReader>> {
        let Some(directory) = &self.data_directory else {
            let fetcher = Fetcher::start(connect, session.identity, self.connections).await?;
            let client = connect.connect_to_ask().await?;
            session.identity.check(&client).await?;
            session::settle(&client).await?;
            return Ok(Arc::new(SqlFiles::new(client, fetcher)));
        };
        let root = directory.clone();
        let opened = tokio::task::spawn_blocking(move || LocalFiles::open(&root)).await;
        let files = opened
            .map_err(|error| Error::internal("opening the data directory broke off").with_source(error))??;
        let shown = directory.display();
        let control = files.control().await;
        // Its checksum is looked at later, where it is read until it is whole.
        if let Err(error) = control
            && !error.is_corruption()
        {
            return Err(error);
        }
        // A copy of the data directory, or a standby's, has the same identifier. The server notes in its own who it is.
        let server = &session.server;
        let is_its_own = files.postmaster().await?.is_some_and(|(port, started)| {
            port == server.port && started.abs_diff(server.started) <= STARTS_DIFFER_MAX
        });
        if !is_its_own {
            let message = format!(
                "{shown} is not the data directory of the server at {}: its postmaster.pid names another one, or is not \
                 there. Give the directory that `SHOW data_directory` names, on the server's machine",
                connect.address()
            );
            return Err(Error::invalid_input(message));
        }
        Ok(Arc::new(files))
    }
}

impl PostgresSourceBuilder {
    /// Reads the files in this directory, on the server's machine, instead of over SQL. It must be that of the server that the
    /// connection leads to.
    #[must_use]
    pub fn data_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.data_directory = Some(path.into());
        self
    }

    /// Over SQL: connections that read, 1 to 64; 2 unless told otherwise. Two more are for the backup itself and for listings.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.0.connections = connections;
        self
    }

    /// Whether the server makes the checkpoint that a backup begins with at once, which takes what its disks can do, or spreads
    /// it out, which takes minutes. Spread out unless told otherwise.
    #[must_use]
    pub fn fast_checkpoint(mut self, fast: bool) -> Self {
        self.0.fast_checkpoint = fast;
        self
    }

    /// What the server's `backup_label` calls the backup.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.0.label = label.into();
        self
    }

    /// Whether the checksums of pages are verified, where the cluster has them. They are unless told otherwise.
    #[must_use]
    pub fn verify_checksums(mut self, verify: bool) -> Self {
        self.0.verify_checksums = verify;
        self
    }

    /// Whether a file whose length and time of modification (locally also inode and time of change) are as before counts as
    /// unchanged and is not read again. It is not unless told so: clocks go back, and over SQL times have whole seconds. Where it is
    /// trusted, files that were written in the last seconds before the backup are read all the same.
    #[must_use]
    pub fn trust_times(mut self, trust: bool) -> Self {
        self.0.trust_times = trust;
        self
    }

    /// Whether only those pages are read that changed since the snapshot before, as the server has summarized its log: PostgreSQL 17 and later
    /// with `summarize_wal = on`. Not unless told so: damage that creeps into a page that nobody writes to is noticed only by who reads
    /// it, so that a [full](BackupMode::Full) backup now and then, which reads everything, belongs to it.
    ///
    /// Where the server cannot tell (it kept no summaries of a part, or was promoted since; pages of the snapshot before were damaged, or were not verified
    /// and now are to be), all is read. The manifest has no checksum of a file of which a part was not read.
    ///
    /// All is read, too, where the server was started again since: it may have been put back to an earlier state meanwhile, and its log says nothing of
    /// that. A machine that was put back while the server ran, with its memory, cannot be told from one that was not: make a full backup then.
    #[must_use]
    pub fn wal_summaries(mut self, believe: bool) -> Self {
        self.0.wal_summaries = believe;
        self
    }

    /// No snapshot before `archive` has every segment of the log that it needs. After `patience` without them the backup
    /// fails with an error that may pass.
    #[must_use]
    pub fn wait_for_archive(mut self, archive: Arc<dyn ArchivedSegments>, patience: Duration) -> Self {
        self.0.archive = Some((archive, patience));
        self
    }

    /// Whether the server, when the backup ends, waits until its own `archive_command` has had every segment. It waits for ever if
    /// that fails. Not unless told so; a standby waits only with `archive_mode = always`.
    #[must_use]
    pub fn server_waits(mut self, waits: bool) -> Self {
        self.0.server_waits = waits;
        self
    }

    /// What snapshots call the cluster: this is how the next backup finds the one before. Otherwise the server's address,
    /// which is another after a failover. No secrets belong here.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.0.name = Some(name.into());
        self
    }

    /// What the backup is called; see [`BackupMode`].
    #[must_use]
    pub fn mode(mut self, mode: BackupMode) -> Self {
        self.0.mode = mode;
        self
    }

    /// Which checksum of each file the manifest has.
    #[must_use]
    pub fn manifest_checksum(mut self, checksum: ManifestChecksum) -> Self {
        self.0.manifest_checksum = checksum;
        self
    }

    /// How fast files are read, so that the server's users keep their disks; clones of `limit` change it while the backup runs.
    /// What is sent to the store has a [limit of its own](backup_core::Resources::upload).
    #[must_use]
    pub fn read_limit(mut self, limit: RateLimit) -> Self {
        self.0.read_limit = limit;
        self
    }

    /// The source.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput): a number of connections, or a label, that cannot be.
    pub fn build(self) -> Result<PostgresSource> {
        let mut source = self.0;
        let reads_all = source.mode == BackupMode::Full;
        source.trust_times &= !reads_all;
        source.wal_summaries &= !reads_all;
        if !(1..=CONNECTIONS_MAX).contains(&source.connections) {
            let message =
                format!("{} connections cannot be; give 1 to {CONNECTIONS_MAX}", source.connections);
            return Err(Error::invalid_input(message));
        }
        let label = &source.label;
        if label.len() > LABEL_BYTES_MAX || label.chars().any(char::is_control) {
            let message = format!(
                "the label of a backup is one line of at most {LABEL_BYTES_MAX} bytes; give a shorter one"
            );
            return Err(Error::invalid_input(message));
        }
        Ok(source)
    }
}

#[async_trait]
impl Source for PostgresSource {
    fn info(&self) -> SourceInfo {
        let name = self.name.clone().unwrap_or_else(|| format!("postgres://{}", self.connect.address()));
        SourceInfo::new("postgres", [name])
    }

    async fn begin(&self, job: &JobContext) -> Result<Box<dyn SourceRun>> {
        // Of several hosts, all connections must lead to the same.
        let connect = self.connect.resolve().await?;
        let session = Session::open(&connect).await?;
        let reader = self.reader(&connect, &session).await?;
        Ok(Box::new(PhysicalRun::start(self.clone(), session, reader, job).await?))
    }
}
