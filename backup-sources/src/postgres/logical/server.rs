//! What a server says of itself before it is dumped.

use std::collections::BTreeMap;

use backup_core::{Error, ErrorKind, Result};

use super::programs::Version;
use crate::postgres::Connect;
use crate::postgres::connect::explain;

/// Most databases that one backup dumps.
const DATABASES_MAX: usize = 100_000;

/// A server and its databases.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) version: Version,
    /// None where the role may not ask.
    pub(super) system_identifier: Option<u64>,
    pub(super) is_standby: bool,
    /// Those that take connections, by name, and whether they are templates.
    pub(super) databases: BTreeMap<String, bool>,
}

impl Server {
    pub(super) async fn ask(connect: &Connect) -> Result<Self> {
        const ASK: &str = "SELECT current_setting('server_version_num')::int4, pg_catalog.pg_is_in_recovery(), \
             pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')";
        const SYSTEM: &str = "SELECT system_identifier FROM pg_catalog.pg_control_system()";
        // A limit of -2 is the mark of a database whose dropping was interrupted.
        const DATABASES: &str = "SELECT datname::text, datistemplate FROM pg_catalog.pg_database \
             WHERE datallowconn AND datconnlimit <> -2";
        let client = connect.connect_to_ask().await?;
        let failed = |error: tokio_postgres::Error| explain(&error);
        let row = client.query_one(ASK, &[]).await.map_err(failed)?;
        let version: i32 = row.try_get(0).map_err(failed)?;
        let system_identifier = match row.try_get(2).map_err(failed)? {
            true => {
                let row = client.query_one(SYSTEM, &[]).await.map_err(failed)?;
                Some(row.try_get::<_, i64>(0).map_err(failed)?.cast_unsigned())
            }
            false => None,
        };
        let rows = client.query(DATABASES, &[]).await.map_err(failed)?;
        if rows.len() > DATABASES_MAX {
            let message =
                format!("a backup dumps at most {DATABASES_MAX} databases, and there are {}", rows.len());
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        let databases: std::result::Result<_, _> =
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect();
        Ok(Self {
            version: Version(version.unsigned_abs()),
            system_identifier,
            is_standby: row.try_get(1).map_err(failed)?,
            databases: databases.map_err(failed)?,
        })
    }
}
