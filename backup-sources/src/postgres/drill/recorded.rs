//! What tables have at a moment, recorded so that a drill can find the same.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use backup_core::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::{Check, RecordedTable};
use crate::postgres::connect::explain;
use crate::postgres::recovery::RecoveryTarget;
use crate::postgres::{Connect, Lsn};

/// A table of a database, as `shop: public.orders`.
///
/// ```
/// use backup_sources::postgres::drill::TableName;
///
/// let table: TableName = "shop: public.orders".parse()?;
/// assert_eq!((table.database.as_str(), table.schema.as_str(), table.table.as_str()), ("shop", "public", "orders"));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    /// The database.
    pub database: String,
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
}

impl FromStr for TableName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once(':').and_then(|(database, rest)| Some((database, rest.split_once('.')?)));
        let (database, schema, table) = match parts {
            Some((database, (schema, table))) => (database.trim(), schema.trim(), table.trim()),
            None => ("", "", ""),
        };
        if [database, schema, table].contains(&"") {
            let text = text.escape_debug();
            return Err(Error::invalid_input(format!(
                "`{text}` is no table; write it as shop: public.orders"
            )));
        }
        Ok(Self { database: database.into(), schema: schema.into(), table: table.into() })
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}.{}", self.database, self.schema, self.table)
    }
}

impl TryFrom<String> for TableName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> Self {
        name.to_string()
    }
}

/// A moment of a cluster, and what tables had then: what a drill that recovers to it must find.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedMoment {
    /// The cluster.
    pub system_identifier: u64,
    /// The moment, in the log.
    pub lsn: Lsn,
    /// When that was, by the server's clock.
    pub time: Timestamp,
    /// The tables.
    pub tables: Vec<RecordedTable>,
}

impl RecordedMoment {
    /// Records what `tables` have. Whoever would write to one of them waits until it is counted (`LOCK TABLE … IN SHARE MODE`, for which the role
    /// needs the right to update, delete or truncate, or to maintain it since 17); reading goes on. Locks that are not to be had within `patience`
    /// are given up, all of them.
    ///
    /// # Errors
    ///
    /// A table is not there, may not be locked or is not free in time; the server is a standby, on which nothing can be locked.
    ///
    /// Cancellation: dropping the future ends the connections, and with them the locks.
    pub async fn take(connect: &Connect, tables: &[TableName], patience: Duration) -> Result<Self> {
        let mut databases: BTreeMap<&str, Vec<&TableName>> = BTreeMap::new();
        for table in tables {
            databases.entry(&table.database).or_default().push(table);
        }
        if databases.is_empty() {
            return Err(Error::invalid_input("no table is named that is to be recorded"));
        }
        // Of several hosts, all connections must lead to the same.
        let connect = connect.resolve().await?;
        let mut sessions = Vec::with_capacity(databases.len());
        for (database, tables) in databases {
            let client = connect.clone().with_database(database).connect_to_ask().await?;
            lock(&client, &tables, patience).await?;
            sessions.push((client, tables));
        }
        let Some((first, _)) = sessions.first() else { return Err(Error::internal("no session was opened")) };
        let (system_identifier, lsn, time) = moment(first).await?;
        let mut recorded = Vec::with_capacity(tables.len());
        for (client, tables) in &sessions {
            for table in tables {
                recorded.push(count(client, table).await?);
            }
            client.batch_execute("commit").await.map_err(|e| explain(&e))?;
        }
        Ok(Self { system_identifier, lsn, time, tables: recorded })
    }

    /// The moment as a recovery's target.
    pub fn target(&self) -> RecoveryTarget {
        RecoveryTarget::lsn(self.lsn)
    }

    /// What a drill to that moment asks.
    pub fn checks(&self) -> impl Iterator<Item = Check> {
        self.tables.iter().map(Check::table)
    }
}

async fn lock(client: &Client, tables: &[&TableName], patience: Duration) -> Result<()> {
    let mut setup = RecordedTable::session();
    setup.push(format!("set lock_timeout = {}", patience.as_millis().clamp(1, i32::MAX as u128)));
    setup.extend(["set statement_timeout = 0".to_owned(), "begin".to_owned()]);
    setup.extend(tables.iter().map(|name| {
        format!("lock table {} in share mode", RecordedTable::qualified(&name.schema, &name.table))
    }));
    client.batch_execute(&setup.join("; ")).await.map_err(|e| explain(&e))
}

async fn moment(client: &Client) -> Result<(u64, Lsn, Timestamp)> {
    const ASK: &str = "select s.system_identifier, pg_catalog.pg_current_wal_insert_lsn()::text, \
         (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::int8 from pg_catalog.pg_control_system() as s";
    let failed = |error: tokio_postgres::Error| explain(&error);
    let row = client.query_one(ASK, &[]).await.map_err(failed)?;
    let (system, lsn): (i64, String) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    let micros: i64 = row.try_get(2).map_err(failed)?;
    let nanos = u32::try_from(micros.rem_euclid(1_000_000)).unwrap_or_default().saturating_mul(1000);
    Ok((system.cast_unsigned(), lsn.parse()?, Timestamp::new(micros.div_euclid(1_000_000), nanos)))
}

async fn count(client: &Client, name: &TableName) -> Result<RecordedTable> {
    let failed = |error: tokio_postgres::Error| explain(&error);
    let row =
        client.query_one(&RecordedTable::query(&name.schema, &name.table), &[]).await.map_err(failed)?;
    let (rows, checksum): (String, String) =
        (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    let rows = rows.parse().map_err(|_| Error::internal("a count of rows is no number"))?;
    let TableName { database, schema, table } = name.clone();
    Ok(RecordedTable { database, schema, table, rows, checksum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_table_is_named() {
        for text in ["orders", "shop: orders", "public.orders", ": a.b", "a: .b", "a: b."] {
            let error = text.parse::<TableName>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("shop: public.orders"), "{error}");
        }
        let name: TableName = serde_json::from_str("\"a b: c.d.e\"").unwrap();
        assert_eq!((name.schema.as_str(), name.table.as_str()), ("c", "d.e"));
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"a b: c.d.e\"");
    }
}
