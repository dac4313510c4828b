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

async fn add(args: AddArgs, location: &Location, sink: &Arc<dyn Sink>, context: &Context) -> Outcome<()> {
    let recipient: RecipientArg = args.recipient.parse().map_err(Failure::input)?;
    let recipient = recipient.resolve().await?.with_label(args.label).map_err(Failure::input)?;
    let keyring = context.keyring(location, sink).await?;
    keyring.add_recipient(sink, &recipient, &context.job()).await?;
    Ok(())
}

async fn remove(
    args: RemoveArgs,
    location: &Location,
    sink: &Arc<dyn Sink>,
    context: &mut Context,
) -> Outcome<()> {
    let job = context.job();
    let keyring = context.keyring(location, sink).await?;
    let id = find(&args.id, &list_recipients(sink, &job).await?)?;
    if context.console.interactive && !context.global.yes {
        context.console.say(format_args!("the recipient {id} will not be able to open the repository"));
        context.console.confirm("Go on?").await?;
    }
    keyring.remove_recipient(sink, id, &job).await?;
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
