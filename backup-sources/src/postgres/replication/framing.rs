//! Messages to and from a server.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use bytes::{Buf, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::postgres::connect::{Wire, of_state};

/// Longest message that a server may send. Its parts of the log have 128 KiB.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a message's type and length.
const HEAD_BYTES: usize = 5;
/// What is read at once.
const READ_BYTES: usize = 256 * 1024;
/// How long an answer may take at least.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Parameters that a server may report.
const PARAMETERS_MAX: usize = 200;

/// The type of the message with which copying in both directions begins; `postgres_protocol` does not know it.
const COPY_BOTH_TAG: u8 = b'W';

/// A message of a server.
pub(super) enum Received {
    /// Copying in both directions begins.
    CopyBoth,
    Message(backend::Message),
}

/// A connection over which messages go.
#[derive(Debug)]
pub(super) struct Framed {
    wire: Wire,
    read: BytesMut,
    write: BytesMut,
    patience: Duration,
    pub(super) parameters: BTreeMap<String, String>,
    /// Whether logging in was bound to the server's certificate.
    pub(super) is_bound: bool,
}

impl Framed {
    pub(super) fn new(wire: Wire, patience: Duration) -> Self {
        let (read, write) = (BytesMut::new(), BytesMut::new());
        let patience = patience.max(ANSWER_TIMEOUT);
        Self { wire, read, write, patience, parameters: BTreeMap::new(), is_bound: false }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.wire.is_tls()
    }

    pub(super) fn binding(&self) -> Option<Vec<u8>> {
        self.wire.binding().map(<[u8]>::to_vec)
    }

    /// Sends what `put` writes.
    pub(super) async fn send(&mut self, put: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<()> {
        self.write.clear();
        put(&mut self.write).map_err(|e| Error::invalid_input(format!("a message cannot be sent: {e}")))?;
        let sending = async {
            self.wire.write_all(&self.write).await?;
            self.wire.flush().await
        };
        match tokio::time::timeout(self.patience, sending).await {
            Ok(sent) => sent.map_err(lost),
            Err(_) => Err(Error::new(ErrorKind::Transient, "PostgreSQL takes nothing that is sent")),
        }
    }

    /// The next message that is an answer, within the time that one may take.
    pub(super) async fn answer(&mut self) -> Result<Received> {
        match tokio::time::timeout(self.patience, self.next()).await {
            Ok(received) => received,
            Err(_) => {
                let message = format!("PostgreSQL did not answer within {} s", self.patience.as_secs());
                Err(Error::new(ErrorKind::Transient, message))
            }
        }
    }

    /// The next message but notices and parameters. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Received> {
        loop {
            while let Some(received) = self.parse()? {
                match received {
                    Received::Message(backend::Message::ParameterStatus(body)) => {
                        if let (Ok(name), Ok(value)) = (body.name(), body.value())
                            && self.parameters.len() < PARAMETERS_MAX
                        {
                            self.parameters.insert(name.to_owned(), value.to_owned());
                        }
                    }
                    Received::Message(backend::Message::NoticeResponse(body)) => {
                        if let Ok(notice) = of_fields(body.fields()) {
                            tracing::debug!(notice = notice.message(), "a server has something to say");
                        }
                    }
                    Received::Message(backend::Message::NotificationResponse(_)) => {}
                    other => return Ok(other),
                }
            }
            self.read.reserve(READ_BYTES);
            let read = self.wire.read_buf(&mut self.read).await.map_err(lost)?;
            if read == 0 {
                return Err(Error::new(ErrorKind::Transient, "PostgreSQL closed the connection"));
            }
        }
    }

    /// A message, if all of it is there. Lengths are looked at before anything is made room for.
    fn parse(&mut self) -> Result<Option<Received>> {
        let Some(head) = self.read.get(..HEAD_BYTES) else { return Ok(None) };
        let (tag, mut len) = head.split_at(1);
        let len = usize::try_from(len.get_u32()).unwrap_or(usize::MAX);
        if !(4..=MESSAGE_BYTES_MAX).contains(&len) {
            return Err(broken("sends a message of a length that none has"));
        }
        let total = len.saturating_add(1);
        if self.read.len() < total {
            return Ok(None);
        }
        if tag == [COPY_BOTH_TAG] {
            self.read.advance(total);
            return Ok(Some(Received::CopyBoth));
        }
        match backend::Message::parse(&mut self.read) {
            Ok(Some(message)) => Ok(Some(Received::Message(message))),
            Ok(None) | Err(_) => Err(broken("sends a message that is none")),
        }
    }
}

/// What the server says, as an error.
pub(super) fn of_response(body: &backend::ErrorResponseBody) -> Result<Error> {
    of_fields(body.fields())
}

fn of_fields(mut fields: backend::ErrorFields<'_>) -> Result<Error> {
    let (mut code, mut message, mut detail, mut hint) = (String::new(), String::new(), None, None);
    while let Some(field) = fields.next().map_err(|_| broken("sends an error that is none"))? {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => code = value,
            b'M' => message = value,
            b'D' => detail = Some(value),
            b'H' => hint = Some(value),
            _ => {}
        }
    }
    Ok(of_state(&code, &message, detail.as_deref(), hint.as_deref()))
}

pub(super) fn broken(what: &str) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("the server {what}: it is none of PostgreSQL, or something between alters what it sends"),
    )
}

fn lost(error: io::Error) -> Error {
    Error::new(ErrorKind::Transient, format!("the connection to PostgreSQL failed: {error}"))
}
