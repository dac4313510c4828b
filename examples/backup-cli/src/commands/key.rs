//! `key list`, `key add`, `key remove`: who can open the repository.

use std::sync::Arc;

use backup_core::config::Access;
use backup_core::{Result, Sink};
use backup_crypto::{RecipientId, RecipientInfo, list_recipients};
use serde_json::json;

use crate::context::{Context, Location};
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::keys::RecipientArg;

/// What to do with recipients.
#[derive(Debug, clap::Subcommand)]
pub enum Key {
    /// List who can open the repository; needs no key
    List,
    /// Let somebody else open it, too
    Add(AddArgs),
    /// Take the right to open it from somebody
    Remove(RemoveArgs),
}

/// Options of `key add`.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// Whom to add: passphrase:env:NAME, passphrase:file:PATH, passphrase:command:PROGRAM… or key-file:PATH
    #[arg(value_name = "RECIPIENT")]
    recipient: String,
    /// A name for it, which everybody can read who can read the store
    #[arg(long, default_value = "")]
    label: String,
}

/// Options of `key remove`.
#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    /// Whom to remove: an id or a unique beginning of one, as `key list` shows them
    #[arg(value_name = "ID")]
    id: String,
}

/// Does it.
pub async fn run(command: Key, context: &mut Context) -> Outcome {
    let location = context.location()?;
    let sink = context.sink(&location, Access::Open).await?;
    let lists = matches!(command, Key::List);
    match command {
        Key::List => {}
        Key::Add(args) => add(args, &location, &sink, context).await?,
        Key::Remove(args) => remove(args, &location, &sink, context).await?,
    }
    let recipients = list_recipients(&sink, &context.job()).await?;
    show(&recipients, context)?;
    let damaged = recipients.iter().any(|info| info.kind == "damaged");
    Ok(Exit::complete_if(!(lists && damaged)))
}

/// Adds a recipient, under one name in all places of the repository.
async fn add(args: AddArgs, location: &Location, sink: &Arc<dyn Sink>, context: &Context) -> Outcome<()> {
    let recipient: RecipientArg = args.recipient.parse().map_err(Failure::input)?;
    let recipient = recipient.resolve().await?.with_label(args.label).map_err(Failure::input)?;
    let keyring = context.keyring(location, sink).await?;
    let others = others(location, context).await?;
    let id = keyring.add_recipient(sink, &recipient, &context.job()).await?;
    for (place, other) in &others {
        let copied = keyring.copy_recipient(sink, other, id, &context.job()).await;
        copied.map_err(|error| at(place, error.into()))?;
    }
    Ok(())
}

/// The other places of the repository: all must answer, or nothing is begun.
async fn others(location: &Location, context: &Context) -> Outcome<Vec<(String, Arc<dyn Sink>)>> {
    let mut sinks = Vec::new();
    for other in &location.others {
        let sink = context.sink(other, Access::Open).await.map_err(|failure| at(&other.shown, failure))?;
        sinks.push((other.shown.clone(), sink));
    }
    Ok(sinks)
}

fn at(place: &str, failure: Failure) -> Failure {
    let message = format!(
        "{place}: {}; recipients are the same in all places, so run this again once it answers",
        failure.message
    );
    Failure { message, ..failure }
}

/// Removes a recipient from all places of the repository where it is.
async fn remove(
    args: RemoveArgs,
    location: &Location,
    sink: &Arc<dyn Sink>,
    context: &mut Context,
) -> Outcome<()> {
    let job = context.job();
    let keyring = context.keyring(location, sink).await?;
    let mut places = vec![(location.shown.clone(), sink.clone())];
    places.extend(others(location, context).await?);
    let mut known = Vec::new();
    let mut there = Vec::new();
    for (place, sink) in places {
        let listed = list_recipients(&sink, &job).await.map_err(|error| at(&place, error.into()))?;
        known.extend(listed.iter().cloned());
        there.push((place, sink, listed));
    }
    known.sort_by_key(|info: &RecipientInfo| info.id);
    known.dedup_by_key(|info| info.id);
    let id = find(&args.id, &known)?;
    if context.console.interactive && !context.global.yes {
        context.console.say(format_args!("the recipient {id} will not be able to open the repository"));
        context.console.confirm("Go on?").await?;
    }
    for (place, sink, listed) in there {
        if listed.iter().any(|info| info.id == id) {
            let removed = keyring.remove_recipient(&sink, id, &job).await;
            removed.map_err(|error| {
                if location.others.is_empty() { error.into() } else { at(&place, error.into()) }
            })?;
        }
    }
    Ok(())
}

fn find(text: &str, recipients: &[RecipientInfo]) -> Result<RecipientId, Failure> {
    let mut matching = recipients.iter().filter(|info| info.id.to_string().starts_with(text));
    match (text.is_empty(), matching.next(), matching.next()) {
        (false, Some(one), None) => Ok(one.id),
        (false, Some(_), Some(_)) => Err(Failure::usage(format!("several recipients begin with `{text}`"))),
        _ => Err(Failure::nothing(format!("no recipient begins with `{text}`; see `backup key list`"))),
    }
}

fn show(recipients: &[RecipientInfo], context: &mut Context) -> Outcome<()> {
    let epoch = recipients.iter().flat_map(|info| &info.epochs).max();
    let document = json!({ "recipients": recipients, "epoch": epoch });
    context.output.document(&document, |out| {
        for info in recipients {
            let made = info.created.map_or_else(|| "at an unknown time".to_owned(), human::time);
            writeln!(out, "{}  {:<10}  {made}  {}", info.id, info.kind, human::name(&info.label))?;
        }
        Ok(())
    })
}
