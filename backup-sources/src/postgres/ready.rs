//! What a server lacks before it can be backed up.

use backup_core::Result;
use serde::Serialize;

use super::Connect;
use super::connect::explain;

/// What a backup calls: the first four on its own connection, in each version two of them, the others to read over SQL.
const FUNCTIONS: &str = "'pg_backup_start', 'pg_backup_stop', 'pg_start_backup', 'pg_stop_backup'";
const FUNCTIONS_SQL: &str = "'pg_ls_dir', 'pg_stat_file', 'pg_read_binary_file'";

/// What a server says before anything is begun; see [`readiness`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Readiness {
    /// The version, as the server writes it.
    pub version: String,
    /// Whether it is a standby.
    pub is_standby: bool,
    /// Bytes of all databases, where the role may ask.
    pub bytes: Option<u64>,
    /// Functions that a backup calls and the role may not; their `GRANT`s are in the documentation of [`physical`](super::physical).
    pub lacks: Vec<String>,
    /// `wal_level` is `minimal`: no log can be archived, and no backup be made.
    pub is_minimal: bool,
    /// Where the data directory is, where the role may know.
    pub data_directory: Option<String>,
}

/// Asks a server what a backup would need, and begins nothing.
///
/// # Errors
///
/// It cannot be reached, or does not say.
pub async fn readiness(connect: &Connect, over_sql: bool) -> Result<Readiness> {
    let functions = if over_sql { format!("{FUNCTIONS}, {FUNCTIONS_SQL}") } else { FUNCTIONS.to_owned() };
    let ask = format!(
        "select pg_catalog.version(), pg_catalog.pg_is_in_recovery(), \
         (select sum(pg_catalog.pg_database_size(oid))::int8 from pg_catalog.pg_database \
          where pg_catalog.has_database_privilege(oid, 'connect')), \
         array(select distinct proname::text from pg_catalog.pg_proc \
               where pronamespace = 'pg_catalog'::pg_catalog.regnamespace and proname in ({functions}) \
               group by proname having not bool_or(pg_catalog.has_function_privilege(oid, 'execute')) order by 1), \
         current_setting('wal_level') = 'minimal', \
         case when pg_catalog.pg_has_role('pg_read_all_settings', 'usage') then current_setting('data_directory') end"
    );
    let client = connect.connect_to_ask().await?;
    let failed = |error: tokio_postgres::Error| explain(&error);
    let row = client.query_one(&ask, &[]).await.map_err(failed)?;
    let version: String = row.try_get(0).map_err(failed)?;
    let bytes: Option<i64> = row.try_get(2).map_err(failed)?;
    Ok(Readiness {
        // "PostgreSQL 15.18 (Debian ...) on x86_64 ...": the first two words.
        version: version.split_whitespace().take(2).collect::<Vec<_>>().join(" "),
        is_standby: row.try_get(1).map_err(failed)?,
        bytes: bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        lacks: row.try_get(3).map_err(failed)?,
        is_minimal: row.try_get(4).map_err(failed)?,
        data_directory: row.try_get(5).map_err(failed)?,
    })
}
