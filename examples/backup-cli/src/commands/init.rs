//! `init`: a new repository.

use std::str::FromStr;
use std::sync::Arc;

use backup_core::chunker::ChunkerParameters;
use backup_core::config::{Access, ByteSize};
use backup_core::repository::{CreateOptions, Repository, peek_config};
use backup_core::{Error, ErrorKind, Protection, RepositoryId, Result, Unprotected};
use backup_crypto::Keyring;
use serde_json::json;

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::keys::{self, RecipientArg};

/// Options of `init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whom to make it for, beside the passphrase and key file of the global options: passphrase:env:NAME,
    /// passphrase:file:PATH, passphrase:command:PROGRAM… or key-file:PATH; repeat for more
    #[arg(long = "recipient", value_name = "RECIPIENT")]
    recipients: Vec<String>,
    /// Sizes of the pieces that content is cut into: smallest, average, largest, like 128KiB,512KiB,2MiB; or the average, a power of two
    #[arg(long, value_name = "SIZES")]
    chunk: Option<ChunkSizes>,
    /// Make it without encryption: whoever can read the store can read everything
    #[arg(long, conflicts_with = "recipients")]
    unencrypted: bool,
}

/// Chunk sizes on the command line.
#[derive(Debug, Clone, Copy)]
struct ChunkSizes {
    min: u64,
    average: u64,
    max: u64,
}

impl FromStr for ChunkSizes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let sizes =
            text.split(',').map(|size| size.parse().map(ByteSize::bytes)).collect::<Result<Vec<_>>>()?;
        match *sizes.as_slice() {
            [average] => Ok(Self { min: average / 4, average, max: average.saturating_mul(4) }),
            [min, average, max] => Ok(Self { min, average, max }),
            _ => Err(Error::invalid_input("give one size, or three: smallest, average, largest")),
        }
    }
}

/// Creates the repository.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let location = context.location()?;
    let mut options = CreateOptions::default();
    if let Some(sizes) = args.chunk {
        let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let (min_bytes, avg_bytes, max_bytes) = (size(sizes.min), size(sizes.average), size(sizes.max));
        options.chunker = ChunkerParameters { min_bytes, avg_bytes, max_bytes };
        options.chunker.validate().map_err(Failure::input)?;
    }
    // Read here and not by the parser of the command line, which repeats in its errors what it was given.
    let named = args.recipients.iter().map(|text| text.parse::<RecipientArg>()).collect::<Result<Vec<_>>>();
    let named = named.map_err(Failure::input)?;
    let mut recipients = context.recipients(&location).await?;
    for recipient in &named {
        recipients.push(recipient.resolve().await?);
    }
    match (recipients.is_empty(), args.unencrypted) {
        (true, false) => {
            let how = keys::HOW;
            return Err(Failure::usage(format!(
                "who shall be able to open it? {how}, or name --recipient; or say --unencrypted"
            )));
        }
        (false, true) => {
            return Err(Failure::usage(
                "--unencrypted was given together with a passphrase or key; leave one of them out",
            ));
        }
        _ => {}
    }
    let sink = context.sink(&location, Access::Create).await?;
    let job = context.job();
    // Key slots come before the configuration: they must not land in a repository that exists.
    match job.until_cancelled(peek_config(&*sink)).await {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e.into()),
        Ok(_) => {
            let message = format!("there is a repository at {} already", location.shown);
            return Err(Error::new(ErrorKind::AlreadyExists, message).into());
        }
    }
    context.probe(&sink).await.map_err(|failure| {
        let message = format!("no repository was made at {}: {}", location.shown, failure.message);
        Failure { message, ..failure }
    })?;
    let protection: Arc<dyn Protection> = if recipients.is_empty() {
        Arc::new(Unprotected::new(RepositoryId::random(&**job.random())?))
    } else {
        Keyring::create(&sink, &recipients, &job).await?
    };
    let repository = Repository::create(sink, protection, options, &job).await?;
    let document = json!({ "repository": repository.id(), "encrypted": !recipients.is_empty(), "recipients": recipients.len() });
    super::places::create_in(&repository, &location.others.iter().collect::<Vec<_>>(), context).await?;
    let (id, shown) = (repository.id(), &location.shown);
    let whom = match recipients.len() {
        0 => "not encrypted".to_owned(),
        count => format!("encrypted for {}", crate::human::count(count as u64, "recipient", "recipients")),
    };
    context.output.document(&document, |out| writeln!(out, "created repository {id} at {shown}, {whom}"))?;
    Ok(Exit::Done)
}
