//! What a server says of a replication slot.

use backup_core::{Error, Result};
use serde::Serialize;
use tokio_postgres::Client;

use crate::postgres::Lsn;
use crate::postgres::connect::explain;

/// Whether the server keeps what a slot needs; see `wal_status` of the view `pg_replication_slots`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WalStatus {
    /// It does, within `max_wal_size`.
    Reserved,
    /// It does, beyond that.
    Extended,
    /// It is about to remove it at the next checkpoint.
    Unreserved,
    /// It has removed some of it.
    Lost,
    /// Something that was not known when this was written, or nothing.
    Unknown,
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SlotState {
    /// Whether the server keeps what it needs.
    pub wal_status: WalStatus,
    /// From where on the server keeps its log for it.
    pub restart_lsn: Option<Lsn>,
    /// Whether somebody uses it.
    pub active: bool,
    /// Bytes that can be written before it is lost, where there is a limit.
    pub safe_wal_size: Option<i64>,
}

impl SlotState {
    /// What the server says of a slot; none if there is none of this name. Every user may ask.
    ///
    /// # Errors
    ///
    /// Those of the server; a slot of this name that is for logical replication.
    pub async fn of(client: &Client, slot: &str) -> Result<Option<Self>> {
        const QUERY: &str = "SELECT slot_type::text, active, restart_lsn::text, wal_status::text, safe_wal_size \
                             FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
        let row = client.query_opt(QUERY, &[&slot]).await.map_err(|error| explain(&error))?;
        let Some(row) = row else { return Ok(None) };
        let wrong = |error: tokio_postgres::Error| explain(&error);
        let kind: String = row.try_get(0).map_err(wrong)?;
        if kind != "physical" {
            let message = format!("the replication slot `{slot}` is for {kind} replication: name another");
            return Err(Error::invalid_input(message));
        }
        let restart: Option<String> = row.try_get(2).map_err(wrong)?;
        let status: Option<String> = row.try_get(3).map_err(wrong)?;
        Ok(Some(Self {
            wal_status: match status.as_deref() {
                Some("reserved") => WalStatus::Reserved,
                Some("extended") => WalStatus::Extended,
                Some("unreserved") => WalStatus::Unreserved,
                Some("lost") => WalStatus::Lost,
                _ => WalStatus::Unknown,
            },
            restart_lsn: restart.map(|lsn| lsn.parse()).transpose()?,
            active: row.try_get(1).map_err(wrong)?,
            safe_wal_size: row.try_get(4).map_err(wrong)?,
        }))
    }
}
