//! The content of an object, as a worker reads it.

use std::io;

use async_channel::Receiver;
use backup_core::source::BlockingContent;
use backup_core::{Attribute, Result};
use bytes::Bytes;

use super::fetch::Piece;

/// Takes what is fetched.
pub(super) struct ObjectContent {
    pieces: Receiver<Result<Piece>>,
    rest: Bytes,
    ended: bool,
    attributes: Vec<Attribute>,
    newer: bool,
}

impl ObjectContent {
    pub(super) fn new(pieces: Receiver<Result<Piece>>) -> Self {
        Self { pieces, rest: Bytes::new(), ended: false, attributes: Vec::new(), newer: false }
    }
}

impl BlockingContent for ObjectContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.pieces.recv_blocking() {
                Ok(Ok(Piece::Head { attributes, newer })) => {
                    (self.attributes, self.newer) = (attributes, newer);
                }
                Ok(Ok(Piece::Bytes(bytes))) => self.rest = bytes,
                Ok(Ok(Piece::End(_memory))) => self.ended = true,
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(io::Error::other("the reading of the object was stopped")),
            }
        }
        let count = self.rest.len().min(buffer.len());
        if let Some(space) = buffer.get_mut(..count) {
            space.copy_from_slice(&self.rest.split_to(count));
        }
        Ok(count)
    }

    fn attributes(&mut self) -> Vec<Attribute> {
        std::mem::take(&mut self.attributes)
    }

    fn finish(&mut self) -> Option<String> {
        self.newer.then(|| {
            "it changed after it was listed: what is stored is the newer content, with the older time".into()
        })
    }
}
