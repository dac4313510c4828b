//! Who can open a repository: listing, adding, removing.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::{Error, ErrorKind, JobContext, Protection, Result, Sink, SinkExt, Timestamp};
use serde::Serialize;

use super::Keyring;
use super::create::write_slot;
use crate::recipient::Recipient;
use crate::slot::document::{RecipientPart, Slot};
use crate::slot::{self, RecipientId, SlotName};

/// A recipient, as its slots say. Without a key nothing of this is known to be true; [`Protection::check_slot`] tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecipientInfo {
    /// Its identity.
    pub id: RecipientId,
    /// `passphrase`, `key-file`, a kind of a later version, or `damaged` if its newest slot cannot be read.
    pub kind: String,
    /// The name given to it.
    pub label: String,
    /// When its newest slot was made, by the clock of whoever made it; none if that cannot be read.
    pub created: Option<Timestamp>,
    /// The epochs that it has slots of, oldest first.
    pub epochs: Vec<u32>,
}

/// Every recipient of the repository, by id. Needs no key, and proves nothing.
pub async fn list_recipients(sink: &Arc<dyn Sink>, job: &JobContext) -> Result<Vec<RecipientInfo>> {
    let (names, slots) = job
        .until_cancelled(async {
            let names = slot::list(sink.as_ref()).await?;
            let slots = slot::read(sink.as_ref(), &names, job).await?;
            Ok((names, slots))
        })
        .await?;
    let mut all: BTreeMap<RecipientId, RecipientInfo> = BTreeMap::new();
    // Oldest epoch first, so that the newest slot has the last word.
    for (name, bytes) in names.iter().zip(slots) {
        let part = bytes.and_then(|bytes| Slot::parse(*name, &bytes).ok()).map(|slot| slot.recipient);
        let (kind, label, created) = match part {
            Some(RecipientPart { kind, label, created, .. }) => (kind, label, Some(created)),
            None => ("damaged".to_owned(), String::new(), None),
        };
        let mut epochs = all.remove(&name.recipient).map(|info| info.epochs).unwrap_or_default();
        epochs.push(name.epoch);
        all.insert(name.recipient, RecipientInfo { id: name.recipient, kind, label, created, epochs });
    }
    Ok(all.into_values().collect())
}

impl Keyring {
    /// Writes slots for `recipient`, one per epoch at hand, newest first. An error or a cancelled job may leave it with
    /// some of them: remove the recipient and add it again.
    pub async fn add_recipient(
        &self,
        sink: &Arc<dyn Sink>,
        recipient: &Recipient,
        job: &JobContext,
    ) -> Result<RecipientId> {
        let id = RecipientId::random(job.random().as_ref())?;
        for epoch in self.epochs.keys().rev() {
            let name = SlotName { epoch: *epoch, recipient: id };
            let secrets = self.secrets(*epoch)?;
            job.until_cancelled(write_slot(sink.as_ref(), &secrets, name, recipient, job)).await?;
        }
        Ok(id)
    }

    /// Copies the slots of a recipient to another place of the repository, so that it has one name everywhere. Damaged ones
    /// are refused. An error leaves it with some of them: call again.
    pub async fn copy_recipient(
        &self,
        from: &Arc<dyn Sink>,
        to: &Arc<dyn Sink>,
        id: RecipientId,
        job: &JobContext,
    ) -> Result<()> {
        job.until_cancelled(async {
            let mut names = slot::list(from.as_ref()).await?;
            names.retain(|name| name.recipient == id);
            for (name, bytes) in names.iter().zip(slot::read(from.as_ref(), &names, job).await?) {
                let key = name.key()?;
                let bytes =
                    bytes.ok_or_else(|| Error::corruption("a key slot cannot be read").with_object(&key))?;
                self.check_slot(&key, &bytes)?;
                to.put_or_same(&key, bytes).await?;
            }
            Ok(())
        })
        .await
    }

    /// Deletes the slots of a recipient in every epoch. Refused if an epoch would be left without an intact slot of someone
    /// else: what was sealed in it could never be opened again. An error leaves it with some of its slots: call again.
    ///
    /// Of removals at once that together would leave nobody, at least one puts its slots back and fails; let none of them be
    /// killed or cancelled meanwhile. Who kept a copy of a slot and still knows its passphrase can go on reading what is stored; new data is
    /// safe from it only in a new epoch.
    pub async fn remove_recipient(
        &self,
        sink: &Arc<dyn Sink>,
        id: RecipientId,
        job: &JobContext,
    ) -> Result<()> {
        job.until_cancelled(self.remove_slots(sink, id, job)).await
    }

    async fn remove_slots(&self, sink: &Arc<dyn Sink>, id: RecipientId, job: &JobContext) -> Result<()> {
        let names = slot::list(sink.as_ref()).await?;
        let (own, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.recipient == id);
        if own.is_empty() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no key slot belongs to the recipient {id}"),
            ));
        }
        let kept = self.epochs_opened_by(sink.as_ref(), &others, job).await?;
        if let Some(last) = own.iter().find(|name| !kept.contains(&name.epoch)) {
            let message = format!(
                "the recipient {id} is the last known to open epoch {}; add another recipient first",
                last.epoch
            );
            return Err(Error::invalid_input(message));
        }
        let slots = slot::read(sink.as_ref(), &own, job).await?;
        for name in &own {
            job.check()?;
            sink.delete(&name.key()?).await?;
        }
        // Two removals at once may each have counted on the other's recipient. Each looks again after its own deletions, so
        // that at least one sees what they have done, and undoes its part.
        let mut others = slot::list(sink.as_ref()).await?;
        others.retain(|name| name.recipient != id);
        let kept = self.epochs_opened_by(sink.as_ref(), &others, job).await?;
        let (mut undone, mut missing) = (false, None);
        for (name, bytes) in own.iter().zip(slots).filter(|(name, _)| !kept.contains(&name.epoch)) {
            let key = name.key()?;
            match bytes.filter(|bytes| self.check_slot(&key, bytes).is_ok()) {
                Some(bytes) => {
                    sink.put_or_same(&key, bytes).await?;
                    undone = true;
                }
                None => missing = Some(name.epoch),
            }
        }
        if let Some(epoch) = missing {
            let message = format!(
                "the recipient {id} was removed, and no intact slot of another one can be seen now that opens epoch {epoch}; \
                 add a recipient while the keys are at hand"
            );
            return Err(Error::corruption(message));
        }
        if undone {
            let message = format!(
                "the recipient {id} stays: while it was removed, all others were removed, too; add another recipient first"
            );
            return Err(Error::invalid_input(message));
        }
        Ok(())
    }

    // Those of which an intact slot is among `names`.
    async fn epochs_opened_by(
        &self,
        sink: &dyn Sink,
        names: &[SlotName],
        job: &JobContext,
    ) -> Result<Vec<u32>> {
        let mut epochs = Vec::new();
        for (name, bytes) in names.iter().zip(slot::read(sink, names, job).await?) {
            let intact =
                bytes.is_some_and(|bytes| name.key().is_ok_and(|key| self.check_slot(&key, &bytes).is_ok()));
            if intact {
                epochs.push(name.epoch);
            }
        }
        Ok(epochs)
    }
}
