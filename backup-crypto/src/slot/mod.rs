//! Key slots: a repository's secrets, wrapped once per epoch and recipient, at `keys/<epoch>/<recipient id>`.
//!
//! The form of a slot is in [`document`], how it wraps the secrets in [`wrap`].

use std::fmt;
use std::str::FromStr;

use backup_core::limits::LIST_PAGE_OBJECTS_MAX;
use backup_core::{Error, ErrorKind, JobContext, ObjectKey, Random, Result, Sink, SinkExt};
use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::limits::{SLOT_BYTES_MAX, SLOTS_MAX};

pub(crate) mod document;
pub(crate) mod wrap;

/// Where all slots stand.
pub(crate) const PREFIX: &str = "keys/";

/// The identity of a recipient: 16 random bytes, the same in every epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecipientId(pub(crate) [u8; 16]);

impl RecipientId {
    pub(crate) fn random(random: &dyn Random) -> Result<Self> {
        let mut id = [0; 16];
        random.fill(&mut id)?;
        Ok(Self(id))
    }
}

impl fmt::Display for RecipientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RecipientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RecipientId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).map_err(|_| {
            Error::invalid_input(format!(
                "`{}` is not a recipient id (32 hexadecimal digits)",
                text.escape_debug()
            ))
        })?;
        Ok(Self(id))
    }
}

impl From<RecipientId> for String {
    fn from(id: RecipientId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for RecipientId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// Where a slot stands: its epoch (from 1) and recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotName {
    pub(crate) epoch: u32,
    pub(crate) recipient: RecipientId,
}

impl SlotName {
    /// The name in `key`, if that is exactly how a slot's key is written.
    pub(crate) fn parse(key: &ObjectKey) -> Option<Self> {
        let (epoch, recipient) = key.as_str().strip_prefix(PREFIX)?.split_once('/')?;
        let name = Self { epoch: epoch.parse().ok()?, recipient: recipient.parse().ok()? };
        (name.epoch > 0 && name.text() == key.as_str()).then_some(name)
    }

    pub(crate) fn key(&self) -> Result<ObjectKey> {
        ObjectKey::new(self.text())
    }

    fn text(&self) -> String {
        format!("{PREFIX}{}/{}", self.epoch, self.recipient)
    }
}

/// The names of all slots, sorted; what stands under `keys/` by other names is no slot.
pub(crate) async fn list(sink: &dyn Sink) -> Result<Vec<SlotName>> {
    let mut names = Vec::new();
    let mut objects = 0_usize;
    let mut after: Option<ObjectKey> = None;
    loop {
        let page = sink.list(PREFIX, after.as_ref(), LIST_PAGE_OBJECTS_MAX).await?;
        names.extend(page.iter().filter_map(|object| SlotName::parse(&object.key)));
        objects = objects.saturating_add(page.len());
        if objects > SLOTS_MAX {
            let message =
                format!("there are more than {SLOTS_MAX} objects under `{PREFIX}`; remove those not in use");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        let last = page.len() < LIST_PAGE_OBJECTS_MAX;
        after = page.into_iter().next_back().map(|object| object.key);
        if last || after.is_none() {
            names.sort_unstable();
            return Ok(names);
        }
    }
}

/// The bytes of these slots, in this order; `None` for one that is gone by now, or longer than any slot.
pub(crate) async fn read(
    sink: &dyn Sink,
    names: &[SlotName],
    job: &JobContext,
) -> Result<Vec<Option<Bytes>>> {
    let mut slots = Vec::with_capacity(names.len());
    for batch in names.chunks(job.resources().requests().max(1)) {
        job.check()?;
        for slot in join_all(batch.iter().map(|name| read_one(sink, *name))).await {
            slots.push(slot?);
        }
    }
    Ok(slots)
}

async fn read_one(sink: &dyn Sink, name: SlotName) -> Result<Option<Bytes>> {
    match sink.get_whole(&name.key()?, SLOT_BYTES_MAX).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::LimitExceeded) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_only_as_they_are_written() {
        let id = "0123456789abcdef0123456789abcdef";
        let name = SlotName::parse(&ObjectKey::new(format!("keys/7/{id}")).unwrap()).unwrap();
        assert_eq!((name.epoch, name.recipient.to_string().as_str()), (7, id));
        let upper = id.to_uppercase();
        let wrong = [
            "keys/7",
            "keys/7/x",
            &format!("keys/07/{id}"),
            &format!("keys/0/{id}"),
            &format!("keys/7/{upper}"),
        ];
        for wrong in wrong.into_iter().chain([
            format!("keys/4294967296/{id}").as_str(),
            &format!("keys/+7/{id}"),
            &format!("keys/7/{id}/x"),
            &format!("key/7/{id}"),
        ]) {
            // Some of these are not even keys.
            assert!(ObjectKey::new(wrong).ok().and_then(|key| SlotName::parse(&key)).is_none(), "{wrong}");
        }
    }
}
