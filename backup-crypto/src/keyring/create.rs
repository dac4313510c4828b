//! New keys for a new repository.

use std::sync::Arc;

use backup_core::{Error, ErrorKind, JobContext, ObjectKey, RepositoryId, Result, Sink, SinkExt};

use super::Keyring;
use crate::identity::ChunkIdFunction;
use crate::limits::RECIPIENTS_AT_CREATION_MAX;
use crate::recipient::Recipient;
use crate::secret::Secret;
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
    /// [`ErrorKind::AlreadyExists`] if there are slots already, also if another creation is under way at the same time.
    /// An error or a cancelled job may leave slots behind, which the message of the next try names; no data depends on
    /// them as long as there is no `config`.
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
        refuse_others(sink.as_ref(), &[]).await?;
        let random = job.random().as_ref();
        let secrets = Secrets {
            repository: RepositoryId::random(random)?,
            epoch: 1,
            chunk_ids: options.chunk_ids,
            identity: Secret::random(random)?,
            chunker: Secret::random(random)?,
            epoch_secret: Secret::random(random)?,
        };
        let mut written = Vec::new();
        let done = write_all(sink.as_ref(), recipients, &secrets, &mut written, job).await;
        if let Err(error) = done {
            // As far as possible; what stays is named by the next try.
            for name in &written {
                let _ = sink.delete(&name.key()?).await;
            }
            return Err(error);
        }
        tracing::debug!(repository = %secrets.repository, recipients = recipients.len(), "key slots created");
        Self::assemble(vec![secrets], 1).map(Arc::new)
    }
}

async fn write_all(
    sink: &dyn Sink,
    recipients: &[Recipient],
    secrets: &Secrets,
    written: &mut Vec<SlotName>,
    job: &JobContext,
) -> Result<()> {
    for recipient in recipients {
        let name = SlotName { epoch: secrets.epoch, recipient: RecipientId::random(job.random().as_ref())? };
        written.push(name);
        write_slot(sink, secrets, name, recipient, job).await?;
    }
    // Of two creations at once, each lists after its own puts: at least one sees the other and gives up.
    refuse_others(sink, written).await
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
    let Some(other) = other else { return Ok(()) };
    let key: ObjectKey = other.key()?;
    let message = "there are key slots already: the store holds a repository, or what is left of creating one; if it has \
                   no `config`, delete everything under `keys/` and create it again";
    Err(Error::new(ErrorKind::AlreadyExists, message).with_object(key))
}
