//! The one connection that a backup is started and stopped on, and what the server says of itself.

use backup_core::{Error, ErrorKind, Result, Timestamp};
use tokio_postgres::Client;

use crate::postgres::connect::explain;
use crate::postgres::{Connect, Lsn};

/// Versions that can be backed up, as `server_version_num` counts them.
const VERSIONS: std::ops::Range<i32> = 130_000..190_000;
/// Since then the functions are called `pg_backup_start` and `pg_backup_stop`.
const RENAMED: i32 = 150_000;

/// What a server says of itself.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// As `server_version_num`.
    pub(super) version: i32,
    pub(super) system_identifier: u64,
    pub(super) is_standby: bool,
    /// Whether the group may read the data directory.
    pub(super) group_access: bool,
    /// Where versions before 15 keep statistics, relative to the data directory.
    pub(super) statistics: Option<String>,
    pub(super) port: u16,
    /// When it started, in seconds since 1970.
    pub(super) started: i64,
}

impl Server {
    /// The major version: 13 to 18.
    pub(super) fn major(&self) -> i32 {
        self.version.checked_div(10_000).unwrap_or_default()
    }
}

/// What tells a running server from every other, its own standbys included: its cluster, and when it started, to the microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    system: i64,
    started_micros: i64,
}

impl Identity {
    #[cfg(test)]
    pub(super) fn new(system: i64, started_micros: i64) -> Self {
        Self { system, started_micros }
    }

    /// When the server started, in microseconds since 1970, as snapshots say it.
    pub(super) fn started(self) -> String {
        self.started_micros.to_string()
    }

    async fn of(client: &Client) -> Result<Self> {
        const ASK: &str = "SELECT s.system_identifier, \
             (extract(epoch from pg_catalog.pg_postmaster_start_time()) * 1000000)::int8 FROM pg_catalog.pg_control_system() AS s";
        let failed = |error: tokio_postgres::Error| explain(&error);
        let row = client.query_one(ASK, &[]).await.map_err(failed)?;
        Ok(Self { system: row.try_get(0).map_err(failed)?, started_micros: row.try_get(1).map_err(failed)? })
    }

    /// Makes sure that a connection leads to this server. An address may stand for several of them, or for another one by now: files of
    /// which some are of one and some of another make no cluster, whatever each of them says of itself.
    pub(super) async fn check(self, client: &Client) -> Result<()> {
        if Self::of(client).await? == self {
            return Ok(());
        }
        let message = "the connections lead to several servers, or to another one than at the beginning, and a backup is of one: \
             name the server itself, not an address that several share, or repeat the backup after a failover";
        Err(Error::new(ErrorKind::Transient, message))
    }
}

/// What the server gives when a backup ends.
#[derive(Debug, Clone)]
pub(super) struct Stopped {
    pub(super) lsn: Lsn,
    pub(super) label: String,
    pub(super) tablespace_map: String,
    pub(super) time: Timestamp,
}

/// A connection that must live from the start of a backup to its end: when it breaks, the server ends the backup.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    pub(super) server: Server,
    pub(super) identity: Identity,
}

/// Makes a connection one that nobody's defaults end.
pub(super) async fn settle(client: &Client) -> Result<()> {
    // A setting that the server's version does not know is passed over.
    const SETTLE: &str = "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name IN \
         ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout')";
    client.query(SETTLE, &[]).await.map_err(|error| explain(&error))?;
    Ok(())
}

impl Session {
    /// Logs in and asks what there is to know.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] for other versions.
    pub(super) async fn open(connect: &Connect) -> Result<Self> {
        const ASK: &str = "SELECT current_setting('server_version_num')::int4, s.system_identifier, \
             pg_catalog.pg_is_in_recovery(), coalesce(current_setting('data_directory_mode', true), '0700'), \
             current_setting('stats_temp_directory', true), current_setting('port')::int4, \
             extract(epoch from pg_catalog.pg_postmaster_start_time())::int8 \
             FROM pg_catalog.pg_control_system() AS s";
        let client = connect.connect_to_ask().await?;
        settle(&client).await?;
        let failed = |error: tokio_postgres::Error| explain(&error);
        let row = client.query_one(ASK, &[]).await.map_err(failed)?;
        let (identifier, port): (i64, i32) =
            (row.try_get(1).map_err(failed)?, row.try_get(5).map_err(failed)?);
        let mode: String = row.try_get(3).map_err(failed)?;
        let statistics: Option<String> = row.try_get(4).map_err(failed)?;
        let server = Server {
            version: row.try_get(0).map_err(failed)?,
            system_identifier: identifier.cast_unsigned(),
            is_standby: row.try_get(2).map_err(failed)?,
            group_access: mode.trim_start_matches('0') == "750",
            statistics: statistics.filter(|path| !path.starts_with('/')),
            port: u16::try_from(port).unwrap_or_default(),
            started: row.try_get(6).map_err(failed)?,
        };
        if !VERSIONS.contains(&server.version) {
            let message = format!(
                "{} is PostgreSQL {}; 13 to 18 can be backed up by their files",
                connect.address(),
                server.major()
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let identity = Identity::of(&client).await?;
        Ok(Self { client, server, identity })
    }

    /// For further questions.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the connection broke.
    pub(super) fn is_broken(&self) -> bool {
        self.client.is_closed()
    }

    /// Starts a backup: the server makes a checkpoint, at once or in its own time, and says where replay begins.
    pub(super) async fn start(&self, label: &str, fast: bool) -> Result<(Lsn, Timestamp)> {
        let start = if self.server.version >= RENAMED {
            "SELECT pg_catalog.pg_backup_start($1, $2)::text"
        } else {
            "SELECT pg_catalog.pg_start_backup($1, $2, false)::text"
        };
        let row =
            self.client.query_one(start, &[&label, &fast]).await.and_then(|row| row.try_get::<_, String>(0));
        let lsn = row.map_err(|error| wrap(&error, "the server does not start a backup"))?;
        Ok((lsn.parse()?, self.time().await?))
    }

    /// Ends the backup. `wait` makes the server wait until its archiver has the log that it needs.
    pub(super) async fn stop(&self, wait: bool) -> Result<Stopped> {
        let stop = if self.server.version >= RENAMED {
            "SELECT lsn::text, labelfile, spcmapfile FROM pg_catalog.pg_backup_stop($1)"
        } else {
            "SELECT lsn::text, labelfile, spcmapfile FROM pg_catalog.pg_stop_backup(false, $1)"
        };
        self.check_role().await?;
        let failed = |error: tokio_postgres::Error| {
            wrap(&error, "the server does not end the backup, so that nobody could start from it")
        };
        let row = self.client.query_one(stop, &[&wait]).await.map_err(failed)?;
        let lsn: String = row.try_get(0).map_err(failed)?;
        let map: Option<String> = row.try_get(2).map_err(failed)?;
        Ok(Stopped {
            lsn: lsn.parse()?,
            label: row.try_get(1).map_err(failed)?,
            tablespace_map: map.unwrap_or_default(),
            time: self.time().await?,
        })
    }

    /// Makes sure that the server is still what it was when the backup was started: a primary, or a standby.
    pub(super) async fn check_role(&self) -> Result<()> {
        const LOST: &str = "the connection that the backup was started on is lost: repeat the backup";
        let row = self.client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await;
        let is_standby: bool = row.and_then(|row| row.try_get(0)).map_err(|error| wrap(&error, LOST))?;
        if is_standby != self.server.is_standby {
            let message = "the standby was promoted while it was backed up: what was copied is of no use; repeat the backup";
            return Err(Error::new(ErrorKind::Transient, message));
        }
        Ok(())
    }

    /// The time by the server's clock.
    async fn time(&self) -> Result<Timestamp> {
        const NOW: &str = "SELECT (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::int8";
        let row = self.client.query_one(NOW, &[]).await.and_then(|row| row.try_get::<_, i64>(0));
        let micros = row.map_err(|error| explain(&error))?;
        let nanos = u32::try_from(micros.rem_euclid(1_000_000)).unwrap_or_default().saturating_mul(1000);
        Ok(Timestamp::new(micros.div_euclid(1_000_000), nanos))
    }
}

fn wrap(error: &tokio_postgres::Error, what: &str) -> Error {
    let error = explain(error);
    Error::new(error.kind(), what).with_source(error)
}
