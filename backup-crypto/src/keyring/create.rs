//! New keys for a new repository.

use std::sync::Arc;

use backup_core::{Error, ErrorKind, JobContext, ObjectKey, Random, RepositoryId, Result, Sink, SinkExt};

use super::Keyring;
use crate::identity::ChunkIdFunction;
use crate::limits::RECIPIENTS_AT_CREATION_MAX;
use crate::recipient::Recipient;
use crate::secret::Secret;
use crate::slot::document::Slot;
use crate::slot::wrap::{self, Secrets};
use crate::slot::{self, RecipientId, SlotName};

/// What is chosen once, when a repository is created.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct KeyringOptions {
    /// The function that names chunks.
    pub chunk_ids: ChunkIdFunction,
}

impl KeyringOptions {
    /// The same options with another function that names chunks.
    #[must_use]
    pub fn with_chunk_ids(mut self, function: ChunkIdFunction) -> Self {
        self.chunk_ids = function;
        self
    }
}

impl Keyring {
    /// Makes the identity and the secrets of a new repository and writes a key slot for each of `recipients`.
    ///
    /// A creation that was interrupted leaves slots behind, on which nothing depends as long as there is no `config`. If the
    /// store holds nothing but slots, and `recipients` open every one of them, this creation takes over their secrets and
    /// replaces them. Otherwise slots are [`ErrorKind::AlreadyExists`], also those of another creation that is under way at
    /// the same time. Cancelling the job interrupts it.
    pub async fn create(
        sink: &Arc<dyn Sink>,
        recipients: &[Recipient],
        job: &JobContext,
    ) -> Result<Arc<Self>> {
        Self::create_with(sink, recipients, &KeyringOptions::default(), job).await
    }

    /// [`create`](Self::create) with choices other than the default.
    pub async fn create_with(
        sink: &Arc<dyn Sink>,
        recipients: &[Recipient],
        options: &KeyringOptions,
        job: &JobContext,
    ) -> Result<Arc<Self>> {
        if recipients.is_empty() || recipients.len() > RECIPIENTS_AT_CREATION_MAX {
            let message = format!(
                "an encrypted repository is created for 1 to {RECIPIENTS_AT_CREATION_MAX} recipients"
            );
            return Err(Error::invalid_input(message));
        }
        job.until_cancelled(Self::create_slots(sink, recipients, options, job)).await
    }

    async fn create_slots(
        sink: &Arc<dyn Sink>,
        recipients: &[Recipient],
        options: &KeyringOptions,
        job: &JobContext,
    ) -> Result<Arc<Self>> {
        let left = slot::list(sink.as_ref()).await?;
        let secrets = match left.first() {
            None => fresh(options, job.random().as_ref())?,
            Some(first) => match take_over(sink.as_ref(), &left, recipients, job).await? {
                Some(secrets) if secrets.chunk_ids == options.chunk_ids => secrets,
                _ => return Err(refusal(*first)?),
            },
        };
        let mut written = Vec::new();
        let done = write_all(sink.as_ref(), recipients, &secrets, &left, &mut written, job).await;
        if let Err(error) = done {
            // As far as possible; what stays is named by the next try.
            for name in &written {
                let _ = sink.delete(&name.key()?).await;
            }
            return Err(error);
        }
        // Should their creation be under way after all, it has the same secrets, and these recipients have slots now.
        for name in &left {
            if let Err(error) = sink.delete(&name.key()?).await {
                tracing::warn!(recipient = %name.recipient, %error, "a slot of the interrupted creation is left");
            }
        }
        tracing::debug!(repository = %secrets.repository, recipients = recipients.len(), "key slots created");
        Self::assemble(vec![secrets], 1).map(Arc::new)
    }
}

fn fresh(options: &KeyringOptions, random: &dyn Random) -> Result<Secrets> {
    Ok(Secrets {
        repository: RepositoryId::random(random)?,
        epoch: 1,
        chunk_ids: options.chunk_ids,
        identity: Secret::random(random)?,
        chunker: Secret::random(random)?,
        epoch_secret: Secret::random(random)?,
    })
}

/// The secrets in the slots of an interrupted creation; none if they may be something else, or are not all for `recipients`.
async fn take_over(
    sink: &dyn Sink,
    left: &[SlotName],
    recipients: &[Recipient],
    job: &JobContext,
) -> Result<Option<Secrets>> {
    if left.len() > RECIPIENTS_AT_CREATION_MAX || !holds_only_slots(sink).await? {
        return Ok(None);
    }
    let mut secrets: Option<Secrets> = None;
    for (name, bytes) in left.iter().zip(slot::read(sink, left, job).await?) {
        let Some(Ok(slot)) = bytes.map(|bytes| Slot::parse(*name, &bytes)) else { return Ok(None) };
        let Some(opened) = open_with(&slot, *name, recipients, job).await? else { return Ok(None) };
        let same = |before: &Secrets| {
            before.same_repository(&opened) && before.epoch_secret.same_as(&opened.epoch_secret)
        };
        if opened.epoch != 1 || !secrets.as_ref().is_none_or(same) {
            return Ok(None);
        }
        secrets = Some(opened);
    }
    Ok(secrets)
}

async fn open_with(
    slot: &Slot,
    name: SlotName,
    recipients: &[Recipient],
    job: &JobContext,
) -> Result<Option<Secrets>> {
    for recipient in recipients {
        let (slot, recipient) = (slot.clone(), recipient.clone());
        match blocking(job, move || wrap::open(&slot, name, &recipient)).await {
            Ok(None) => {}
            Err(error) if error.is_corruption() => return Ok(None),
            opened => return opened,
        }
    }
    Ok(None)
}

// Nothing sorts between the last of `keys/` and this.
async fn holds_only_slots(sink: &dyn Sink) -> Result<bool> {
    let first = sink.list("", None, 1).await?;
    let beyond = sink.list("", Some(&ObjectKey::new("keys0")?), 1).await?;
    Ok(beyond.is_empty() && first.iter().all(|object| object.key.as_str().starts_with(slot::PREFIX)))
}

async fn write_all(
    sink: &dyn Sink,
    recipients: &[Recipient],
    secrets: &Secrets,
    left: &[SlotName],
    written: &mut Vec<SlotName>,
    job: &JobContext,
) -> Result<()> {
    for recipient in recipients {
        let name = SlotName { epoch: secrets.epoch, recipient: RecipientId::random(job.random().as_ref())? };
        written.push(name);
        write_slot(sink, secrets, name, recipient, job).await?;
    }
    // Of two creations at once, each lists after its own puts: at least one sees the other and gives up.
    refuse_others(sink, &[left, written].concat()).await
}

/// Wraps `secrets` for `recipient` and creates the slot. Off the async threads: a passphrase costs an Argon2id.
pub(super) async fn write_slot(
    sink: &dyn Sink,
    secrets: &Secrets,
    name: SlotName,
    recipient: &Recipient,
    job: &JobContext,
) -> Result<()> {
    let (secrets, recipient) = (secrets.clone(), recipient.clone());
    let (random, created) = (Arc::clone(job.random()), job.now());
    let make = move || wrap::make(&secrets, name.recipient, &recipient, created, random.as_ref());
    let bytes = blocking(job, make).await?;
    sink.put_or_same(&name.key()?, bytes.into()).await
}

/// Runs `work` on a thread for blocking work. A cancelled job stops waiting for it; the work itself ends by itself.
pub(super) async fn blocking<T: Send + 'static>(
    job: &JobContext,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    job.check()?;
    let task = tokio::task::spawn_blocking(work);
    match job.cancellation().run_until_cancelled(task).await {
        None => Err(Error::cancelled()),
        Some(Ok(result)) => result,
        Some(Err(stopped)) => Err(Error::internal("deriving a key was stopped").with_source(stopped)),
    }
}

async fn refuse_others(sink: &dyn Sink, own: &[SlotName]) -> Result<()> {
    let other = slot::list(sink).await?.into_iter().find(|name| !own.contains(name));
    match other {
        None => Ok(()),
        Some(other) => Err(refusal(other)?),
    }
}

fn refusal(other: SlotName) -> Result<Error> {
    let message = "there are key slots already: the store holds a repository, or what is left of creating one with other \
                   recipients; if it has no `config`, create it with the same ones again, or delete everything under \
                   `keys/` first";
    Ok(Error::new(ErrorKind::AlreadyExists, message).with_object(other.key()?))
}
