//! The streaming replication protocol: a client of the server's WAL sender.
//!
//! See the chapters "Streaming Replication Protocol" and "Message Formats" of the PostgreSQL manual.

mod framing;
mod login;
mod stream;

use backup_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::{backend, frontend};

use crate::postgres::wal::SegmentSize;
use crate::postgres::{Connect, Lsn, Timeline};
use framing::{Framed, Received, broken, of_response};
pub use stream::{EndOfTimeline, ReplicationStream, StreamEvent};

/// Rows and columns that an answer to a command may have; the longest has one row of six.
const ROWS_MAX: usize = 16;

/// A connection to a server's WAL sender: for physical replication, over which no SQL goes.
///
/// The user needs the attribute `REPLICATION`, and `pg_hba.conf` a line for the database `replication`. Every answer must come within
/// half a minute or the timeout for connecting, whichever is longer, and no message may be longer than 4 MiB. Cancellation: a call
/// that is dropped leaves the connection in the middle of an exchange; drop the client, too.
#[derive(Debug)]
pub struct ReplicationClient {
    framed: Framed,
    server_version: u32,
}

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemIdentity {
    /// What tells its cluster from every other.
    pub system_identifier: u64,
    /// The timeline that it is on.
    pub timeline: Timeline,
    /// Up to where its log is flushed.
    pub flushed: Lsn,
}

impl ReplicationClient {
    /// Connects to the server and logs in.
    ///
    /// # Errors
    ///
    /// As [`Connect::connect_sql`]; [`ErrorKind::Denied`] also where the user may not replicate.
    pub async fn connect(connect: &Connect) -> Result<Self> {
        let connect = connect.resolve().await?;
        let timeout = connect.timeout();
        let logging_in = async {
            let dialled = connect.dial().await?;
            login::log_in(dialled, &connect).await
        };
        let framed = tokio::time::timeout(timeout, logging_in).await.unwrap_or_else(|_| {
            let message =
                format!("{} did not let anybody in within {} s", connect.address(), timeout.as_secs_f32());
            Err(Error::new(ErrorKind::Transient, message))
        })?;
        let version = framed.parameters.get("server_version").map(String::as_str).unwrap_or_default();
        let major: String = version.chars().take_while(char::is_ascii_digit).collect();
        let server_version = major.parse().unwrap_or_default();
        Ok(Self { framed, server_version })
    }

    /// The server's major version; 0 if it does not say.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.framed.is_tls()
    }

    /// Whether logging in was bound to the server's certificate.
    pub fn is_bound(&self) -> bool {
        self.framed.is_bound
    }

    /// `IDENTIFY_SYSTEM`.
    ///
    /// # Errors
    ///
    /// Those of the server and the connection.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity> {
        let row = self.one_row("IDENTIFY_SYSTEM").await?;
        let system_identifier = text(&row, 0)?.parse().map_err(|_| strange("no system identifier"))?;
        let timeline = text(&row, 1)?.parse::<u32>().map_err(|_| strange("no timeline"))?;
        Ok(SystemIdentity {
            system_identifier,
            timeline: Timeline::new(timeline),
            flushed: text(&row, 2)?.parse()?,
        })
    }

    /// `SHOW`: the value of a parameter of the server's configuration.
    ///
    /// # Errors
    ///
    /// Those of the server and the connection, and a name that is none of a parameter.
    pub async fn show(&mut self, parameter: &str) -> Result<String> {
        if parameter.is_empty() || !parameter.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b))
        {
            return Err(Error::invalid_input("a parameter's name has letters, digits, `_` and `.`"));
        }
        let row = self.one_row(&format!("SHOW {parameter}")).await?;
        Ok(text(&row, 0)?.to_owned())
    }

    /// The size of the cluster's segments.
    ///
    /// # Errors
    ///
    /// Those of the server and the connection.
    pub async fn segment_size(&mut self) -> Result<SegmentSize> {
        let shown = self.show("wal_segment_size").await?;
        let digits = shown.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match shown.get(digits.len()..).unwrap_or_default() {
            "" | "B" => 1,
            "kB" => 1 << 10,
            "MB" => 1 << 20,
            "GB" => 1 << 30,
            _ => 0,
        };
        let number: u64 = digits.trim().parse().map_err(|_| strange("a segment size that is no number"))?;
        SegmentSize::new(number.saturating_mul(unit))
    }

    /// `TIMELINE_HISTORY`: the bytes of a timeline's `.history` file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if the server does not have it; those of the server and the connection.
    pub async fn timeline_history(&mut self, timeline: Timeline) -> Result<Bytes> {
        let row = self.one_row(&format!("TIMELINE_HISTORY {}", timeline.get())).await?;
        row.get(1).cloned().flatten().ok_or_else(|| strange("no timeline history"))
    }

    /// `CREATE_REPLICATION_SLOT ... PHYSICAL RESERVE_WAL`: from now on the server keeps its log for this slot. Mind that it does so however long
    /// nobody comes, unless `max_slot_wal_keep_size` is set.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyExists`]; [`ErrorKind::InvalidInput`] for what cannot be a slot's name; those of the server and the connection.
    pub async fn create_slot(&mut self, slot: &str) -> Result<()> {
        let options = if self.server_version >= 15 { "(RESERVE_WAL)" } else { "RESERVE_WAL" };
        let command = format!("CREATE_REPLICATION_SLOT {} PHYSICAL {options}", slot_name(slot)?);
        self.one_row(&command).await.map(drop)
    }

    /// `DROP_REPLICATION_SLOT`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Transient`] while somebody uses it; those of the server and the connection.
    pub async fn drop_slot(&mut self, slot: &str) -> Result<()> {
        let command = format!("DROP_REPLICATION_SLOT {}", slot_name(slot)?);
        self.query(&command).await.map(drop)
    }

    /// `READ_REPLICATION_SLOT`: from where the server keeps its log for a slot, and on which timeline; nothing if there is no
    /// such slot, or it keeps nothing yet. Servers before 15 do not know the command: `pg_replication_slots` says the same.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] before 15; those of the server and the connection.
    pub async fn read_slot(&mut self, slot: &str) -> Result<Option<(Lsn, Timeline)>> {
        if self.server_version < 15 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "servers before 15 cannot be asked for a slot here",
            ));
        }
        let row = self.one_row(&format!("READ_REPLICATION_SLOT {}", slot_name(slot)?)).await?;
        if row.get(1).is_none_or(Option::is_none) {
            return Ok(None);
        }
        let timeline = text(&row, 2)?.parse::<u32>().map_err(|_| strange("no timeline"))?;
        Ok(Some((text(&row, 1)?.parse()?, Timeline::new(timeline))))
    }

    /// `START_REPLICATION ... PHYSICAL`: the log of `timeline` from `from` on. With a slot, the server keeps what has not been
    /// [acknowledged](ReplicationStream::status) as flushed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if the server does not have this part of its log any more; [`ErrorKind::Transient`] while somebody else
    /// uses the slot; [`ErrorKind::InvalidInput`] for a position that is not of the server's history; those of the server and the connection.
    pub async fn start(
        mut self,
        slot: Option<&str>,
        timeline: Timeline,
        from: Lsn,
    ) -> Result<ReplicationStream> {
        let slot = slot.map(|slot| slot_name(slot).map(|slot| format!("SLOT {slot} "))).transpose()?;
        let slot = slot.unwrap_or_default();
        let command = format!("START_REPLICATION {slot}PHYSICAL {from} TIMELINE {}", timeline.get());
        self.framed.send(|out| frontend::query(&command, out)).await?;
        match self.framed.answer().await? {
            Received::CopyBoth => Ok(ReplicationStream::new(self, timeline, true)),
            // All that the timeline has is before that position.
            Received::Message(backend::Message::RowDescription(_)) => {
                Ok(ReplicationStream::new(self, timeline, false))
            }
            Received::Message(backend::Message::ErrorResponse(body)) => Err(of_response(&body)?),
            Received::Message(_) => Err(broken("does not begin to replicate")),
        }
    }

    async fn one_row(&mut self, command: &str) -> Result<Vec<Option<Bytes>>> {
        let rows = self.query(command).await?;
        rows.into_iter().next().ok_or_else(|| strange("no row"))
    }

    /// Sends a command and reads its answer to the end.
    async fn query(&mut self, command: &str) -> Result<Vec<Vec<Option<Bytes>>>> {
        self.framed.send(|out| frontend::query(command, out)).await?;
        self.rows().await
    }

    /// Reads rows until the server is ready for another command.
    async fn rows(&mut self) -> Result<Vec<Vec<Option<Bytes>>>> {
        let (mut rows, mut failure) = (Vec::new(), None);
        loop {
            match self.framed.answer().await? {
                Received::Message(backend::Message::ReadyForQuery(_)) => {
                    return failure.map_or(Ok(rows), Err);
                }
                Received::Message(backend::Message::DataRow(row)) if rows.len() < ROWS_MAX => {
                    rows.push(columns(&row)?);
                }
                Received::Message(backend::Message::ErrorResponse(body)) => {
                    failure = Some(of_response(&body)?);
                }
                Received::Message(
                    backend::Message::RowDescription(_)
                    | backend::Message::CommandComplete(_)
                    | backend::Message::EmptyQueryResponse,
                ) => {}
                _ => return Err(broken("answers a command in an unknown manner")),
            }
        }
    }
}

fn columns(row: &backend::DataRowBody) -> Result<Vec<Option<Bytes>>> {
    let buffer = row.buffer_bytes();
    let mut columns = Vec::new();
    let mut ranges = row.ranges();
    while let Some(range) = ranges.next().map_err(|_| broken("sends a row that is none"))? {
        if columns.len() >= ROWS_MAX {
            return Err(broken("sends a row of too many columns"));
        }
        columns.push(range.map(|range| buffer.slice(range)));
    }
    Ok(columns)
}

fn text(row: &[Option<Bytes>], column: usize) -> Result<&str> {
    let value = row.get(column).and_then(Option::as_ref);
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    text.ok_or_else(|| strange("a row without what belongs there"))
}

fn strange(what: &str) -> Error {
    Error::new(ErrorKind::Io, format!("the server answers a replication command with {what}"))
}

/// A slot's name: lower-case letters, digits and underscores, which need no quoting.
pub(in crate::postgres) fn slot_name(slot: &str) -> Result<&str> {
    let fits = (1..=63).contains(&slot.len())
        && slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if fits {
        return Ok(slot);
    }
    let shown: String = slot.chars().take(80).collect();
    Err(Error::invalid_input(format!(
        "`{}` cannot name a replication slot: lower-case letters, digits and underscores can, 63 at most",
        shown.escape_debug()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_slots_cannot_say_more_than_a_name() {
        for name in ["backup", "a_1", &"x".repeat(63)] {
            assert_eq!(slot_name(name).unwrap(), name);
        }
        for name in ["", "A", "a b", "a;b", "a\"", "\u{e9}", &"x".repeat(64)] {
            assert_eq!(slot_name(name).unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
        }
    }
}
