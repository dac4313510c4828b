//! Opening the slots of a repository.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::repository::peek_config;
use backup_core::{Error, ErrorKind, JobContext, RepositoryId, Result, Sink};

use super::Keyring;
use super::create::blocking;
use crate::limits::TRIES_MAX;
use crate::recipient::Recipient;
use crate::slot::document::Slot;
use crate::slot::wrap::{self, Secrets};
use crate::slot::{self, RecipientId, SlotName};

impl Keyring {
    /// Opens every epoch that any of `recipients` has a slot of.
    ///
    /// Each passphrase slot that is tried costs an Argon2id, on a thread for blocking work, one at a time and at most
    /// [`TRIES_MAX`] of them. Slots of kinds that this version does not know are passed over, and those of another repository
    /// than `config` says, which a creation leaves that was abandoned and whose put came late.
    ///
    /// [`ErrorKind::NotFound`] if there are no slots, [`ErrorKind::Denied`] if none fits, [`ErrorKind::Corruption`] if
    /// those that fit are damaged. Cancelling the job stops it; nothing is changed.
    pub async fn unlock(
        sink: &Arc<dyn Sink>,
        recipients: &[Recipient],
        job: &JobContext,
    ) -> Result<Arc<Self>> {
        job.until_cancelled(Self::unlock_slots(sink, recipients, job)).await
    }

    async fn unlock_slots(
        sink: &Arc<dyn Sink>,
        recipients: &[Recipient],
        job: &JobContext,
    ) -> Result<Arc<Self>> {
        let names = slot::list(sink.as_ref()).await?;
        let Some(newest) = names.last().map(|name| name.epoch) else {
            let message = "there are no key slots under `keys/`: the repository is not encrypted, or there is none here";
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        if recipients.is_empty() {
            let message =
                "the repository is encrypted, and no key was given; give a passphrase or a key file";
            return Err(Error::new(ErrorKind::Denied, message));
        }
        let mut search = Search::default();
        for (epoch, slots) in search.read(sink.as_ref(), &names, job).await? {
            search.open_epoch(epoch, slots, recipients, job).await?;
        }
        search.finish(newest).map(Arc::new)
    }
}

/// What the unlocking has found so far.
#[derive(Default)]
struct Search {
    opened: Vec<Secrets>,
    // Recipients whose slots were opened: the same people are likely to fit in other epochs.
    fitting: BTreeSet<RecipientId>,
    tries: usize,
    unreadable: usize,
    unknown: usize,
    // The first slot that fits but is damaged.
    damage: Option<Error>,
}

impl Search {
    /// The slots that can be read, by epoch, newest first.
    async fn read(
        &mut self,
        sink: &dyn Sink,
        names: &[SlotName],
        job: &JobContext,
    ) -> Result<Vec<(u32, Vec<(SlotName, Slot)>)>> {
        let mut epochs: BTreeMap<u32, Vec<(SlotName, Slot)>> = BTreeMap::new();
        for (name, bytes) in names.iter().zip(slot::read(sink, names, job).await?) {
            match bytes.map(|bytes| Slot::parse(*name, &bytes)) {
                Some(Ok(slot)) if slot.document.is_none() => self.unknown = self.unknown.saturating_add(1),
                Some(Ok(slot)) => epochs.entry(name.epoch).or_default().push((*name, slot)),
                Some(Err(error)) => {
                    tracing::warn!(epoch = name.epoch, recipient = %name.recipient, %error, "key slot passed over");
                    self.unreadable = self.unreadable.saturating_add(1);
                }
                None => self.unreadable = self.unreadable.saturating_add(1),
            }
        }
        let mut repositories = epochs.values().flatten().map(|(_, slot)| slot.repository);
        let first = repositories.next();
        if repositories.any(|other| Some(other) != first)
            && let Some(own) = own_repository(sink).await?
        {
            for slots in epochs.values_mut() {
                slots.retain(|(_, slot)| slot.repository == own);
            }
        }
        Ok(epochs.into_iter().rev().collect())
    }

    /// Tries the slots of one epoch until one opens.
    async fn open_epoch(
        &mut self,
        epoch: u32,
        mut slots: Vec<(SlotName, Slot)>,
        recipients: &[Recipient],
        job: &JobContext,
    ) -> Result<()> {
        slots.sort_by_key(|(name, _)| !self.fitting.contains(&name.recipient));
        // Cheap tries first: a key file that fits saves the passphrases' cost.
        for costly in [false, true] {
            for (name, slot) in &slots {
                for recipient in
                    recipients.iter().filter(|recipient| wrap::is_costly(slot, recipient) == costly)
                {
                    if let Some(secrets) = self.try_slot(*name, slot, recipient, costly, job).await? {
                        tracing::debug!(epoch, recipient = %name.recipient, "key slot opened");
                        self.opened.push(secrets);
                        self.fitting.insert(name.recipient);
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    async fn try_slot(
        &mut self,
        name: SlotName,
        slot: &Slot,
        recipient: &Recipient,
        costly: bool,
        job: &JobContext,
    ) -> Result<Option<Secrets>> {
        let tried = if costly {
            if self.tries >= TRIES_MAX {
                return Ok(None);
            }
            self.tries = self.tries.saturating_add(1);
            let (slot, recipient) = (slot.clone(), recipient.clone());
            blocking(job, move || wrap::open(&slot, name, &recipient)).await
        } else {
            wrap::open(slot, name, recipient)
        };
        match tried {
            Err(error) if error.is_corruption() => {
                let error = error.with_object(name.key()?);
                tracing::warn!(%error, "key slot passed over");
                self.damage.get_or_insert(error);
                Ok(None)
            }
            tried => tried,
        }
    }

    fn finish(self, newest: u32) -> Result<Keyring> {
        if !self.opened.is_empty() {
            return Keyring::assemble(self.opened, newest);
        }
        if let Some(damage) = self.damage {
            return Err(damage);
        }
        let mut message =
            "the given passphrase or key file opens no key slot of this repository; check that it is the \
                           right one for this repository"
                .to_owned();
        for (count, what) in [
            (self.unreadable, "key slots are damaged"),
            (self.unknown, "key slots are of kinds that this version does not know"),
        ] {
            if count > 0 {
                message.push_str(&format!("; {count} {what}"));
            }
        }
        if self.tries >= TRIES_MAX {
            message.push_str(&format!(
                "; only {TRIES_MAX} passphrase slots were tried: give fewer passphrases, or a key file"
            ));
        }
        Err(Error::new(ErrorKind::Denied, message))
    }
}

/// Which repository the store holds, if that can be told.
async fn own_repository(sink: &dyn Sink) -> Result<Option<RepositoryId>> {
    match peek_config(sink).await {
        Ok(header) => Ok(Some(header.repository)),
        Err(error) if error.is_retryable() => Err(error),
        Err(_) => Ok(None),
    }
}
