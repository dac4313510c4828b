//! The log as it comes.

use std::time::SystemTime;

use backup_core::{Error, ErrorKind, Result};
use bytes::{Buf, BufMut, Bytes};
use postgres_protocol::message::{backend, frontend};

use super::framing::{Received, broken, of_response};
use super::{ReplicationClient, text};
use crate::postgres::{Lsn, Timeline};

/// Microseconds from 1970 to 2000, from where servers count.
const YEAR_2000_MICROS: i64 = 946_684_800_000_000;

/// A part of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// Bytes of the log.
    Data {
        /// Where they begin.
        start: Lsn,
        /// At most what a message may have.
        bytes: Bytes,
        /// Up to where the server's log goes.
        server_end: Lsn,
    },
    /// A sign of life.
    Keepalive {
        /// Up to where the server's log goes.
        server_end: Lsn,
        /// Whether the server wants a [status](ReplicationStream::status) at once.
        wants_status: bool,
    },
    /// The timeline ends: what follows is [`ReplicationStream::finish`].
    EndOfTimeline,
}

/// Where a timeline ended, and how the history goes on.
#[derive(Debug)]
pub struct EndOfTimeline {
    /// The connection, over which another replication can begin.
    pub client: ReplicationClient,
    /// The next timeline of the server's history. Its number is not always one more.
    pub next: Timeline,
    /// Where that begins.
    pub switched_at: Lsn,
}

/// The log of one timeline, as the server writes it.
#[derive(Debug)]
pub struct ReplicationStream {
    client: ReplicationClient,
    timeline: Timeline,
    copying: bool,
    /// The server said that it is done, and waits for the same.
    must_answer: bool,
}

impl ReplicationStream {
    pub(super) fn new(client: ReplicationClient, timeline: Timeline, copying: bool) -> Self {
        Self { client, timeline, copying, must_answer: false }
    }

    /// The timeline.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// The next part. It waits as long as the server says nothing: every caller has a patience of his own.
    ///
    /// Cancellation: nothing is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// Those of the server and the connection. Nothing comes after one.
    pub async fn next(&mut self) -> Result<StreamEvent> {
        if !self.copying {
            return Ok(StreamEvent::EndOfTimeline);
        }
        match self.client.framed.next().await? {
            Received::Message(backend::Message::CopyData(body)) => parse(body.into_bytes()),
            Received::Message(backend::Message::CopyDone) => {
                self.copying = false;
                self.must_answer = true;
                Ok(StreamEvent::EndOfTimeline)
            }
            Received::Message(backend::Message::ErrorResponse(body)) => Err(of_response(&body)?),
            // A server that goes down says so.
            Received::Message(backend::Message::CommandComplete(_)) => Err(goes_down()),
            _ => Err(broken("interrupts the log with something else")),
        }
    }

    /// Says how far the log was received, and how far it is durable. With a slot, the server needs nothing before `flushed` any more; with
    /// `synchronous_commit`, transactions before it return. So it is only said of what is durable.
    ///
    /// # Errors
    ///
    /// Those of the connection. Cancellation: drop the stream, too.
    pub async fn status(&mut self, received: Lsn, flushed: Lsn, wants_answer: bool) -> Result<()> {
        let micros = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
        let micros = i64::try_from(micros).unwrap_or(i64::MAX).saturating_sub(YEAR_2000_MICROS);
        let mut status = Vec::with_capacity(34);
        status.put_u8(b'r');
        status.put_u64(received.get().max(flushed.get()));
        status.put_u64(flushed.get());
        // Nothing is applied here.
        status.put_u64(0);
        status.put_i64(micros);
        status.put_u8(u8::from(wants_answer));
        let message = frontend::CopyData::new(&status[..])
            .map_err(|e| Error::internal("a status cannot be sent").with_source(e))?;
        self.client
            .framed
            .send(|out| {
                message.write(out);
                Ok(())
            })
            .await
    }

    /// Ends the replication of a timeline that has [ended](StreamEvent::EndOfTimeline), and asks how the history goes on.
    ///
    /// # Errors
    ///
    /// The timeline has not ended; those of the server and the connection.
    pub async fn finish(mut self) -> Result<EndOfTimeline> {
        if self.copying {
            return Err(Error::invalid_input("the timeline has not ended yet"));
        }
        if self.must_answer {
            let done = |out: &mut bytes::BytesMut| {
                frontend::copy_done(out);
                Ok(())
            };
            self.client.framed.send(done).await?;
        }
        let rows = self.client.rows().await?;
        let row = rows.first().ok_or_else(goes_down)?;
        let next = text(row, 0)?.parse::<u32>().map_err(|_| broken("names no next timeline"))?;
        let (next, switched_at) = (Timeline::new(next), text(row, 1)?.parse()?);
        if next <= self.timeline {
            return Err(broken("names a next timeline that is older"));
        }
        Ok(EndOfTimeline { client: self.client, next, switched_at })
    }
}

fn goes_down() -> Error {
    Error::new(ErrorKind::Transient, "the server ended the replication: it goes down")
}

fn parse(mut message: Bytes) -> Result<StreamEvent> {
    let cut = || broken("cuts a part of the log short");
    let mut take = |len: usize| {
        if message.len() < len { Err(cut()) } else { Ok(message.split_to(len)) }
    };
    match take(1)?.get_u8() {
        b'w' => {
            let mut head = take(24)?;
            let (start, server_end) = (Lsn::new(head.get_u64()), Lsn::new(head.get_u64()));
            Ok(StreamEvent::Data { start, bytes: message, server_end })
        }
        b'k' => {
            let mut body = take(17)?;
            let server_end = Lsn::new(body.get_u64());
            body.advance(8);
            Ok(StreamEvent::Keepalive { server_end, wants_status: body.get_u8() != 0 })
        }
        _ => Err(broken("sends an unknown part of a stream")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_stream_are_read_and_nothing_else() {
        let mut data = vec![b'w'];
        data.extend([0, 0, 0, 0, 0, 0, 1, 0]);
        data.extend([0, 0, 0, 0, 0, 0, 2, 0]);
        data.extend([0; 8]);
        data.extend(b"bytes");
        let (start, server_end) = (Lsn::new(256), Lsn::new(512));
        let expected = StreamEvent::Data { start, bytes: Bytes::from_static(b"bytes"), server_end };
        assert_eq!(parse(data.clone().into()).unwrap(), expected);
        for len in 0..25 {
            assert!(parse(Bytes::copy_from_slice(&data[..len])).is_err(), "{len}");
        }
        let mut alive = vec![b'k'];
        alive.extend([0, 0, 0, 0, 0, 0, 2, 0]);
        alive.extend([0; 8]);
        alive.push(1);
        assert_eq!(parse(alive.into()).unwrap(), StreamEvent::Keepalive { server_end, wants_status: true });
        assert!(parse(Bytes::from_static(b"x")).is_err());
    }
}
