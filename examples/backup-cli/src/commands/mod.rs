//! The commands, one file each.

pub mod anomaly;
pub mod cat;
pub mod check;
pub mod copy;
#[cfg(any(feature = "azure", feature = "gcs", feature = "s3"))]
pub mod create_bucket;
pub mod create_command;
pub mod create_files;
#[cfg(feature = "postgres")]
pub mod create_postgres;
pub mod demo;
pub mod diff;
#[cfg(feature = "postgres")]
pub mod drill;
pub mod evidence;
pub mod find;
pub mod forget;
pub mod health;
pub mod hold;
pub mod init;
pub mod key;
pub mod list;
#[cfg(feature = "postgres")]
pub mod log;
pub mod ls;
#[cfg(all(feature = "mount", target_os = "linux"))]
pub mod mount;
pub mod places;
pub mod prune;
pub mod repair;
pub mod restore;
#[cfg(feature = "postgres")]
pub mod restore_postgres;
pub mod run;
pub mod schema;
pub mod show;
pub mod stats;
pub mod undelete;
pub mod verify;

mod snapshot;

use crate::args::{Command, Create, Repair};
use crate::context::Context;
use crate::exit::Outcome;

/// Runs a command.
pub async fn run(command: Command, context: &mut Context) -> Outcome {
    match command {
        Command::Init(args) => init::run(args, context).await,
        Command::Create(Create::Files(args)) => create_files::run(args, context).await,
        Command::Create(Create::Command(args)) => create_command::run(args, context).await,
        #[cfg(any(feature = "azure", feature = "gcs", feature = "s3"))]
        Command::Create(Create::Bucket(args)) => create_bucket::run(args, context).await,
        #[cfg(feature = "postgres")]
        Command::Create(Create::Postgres(args)) => create_postgres::run(args, context).await,
        Command::List(args) => list::run(args, context).await,
        Command::Show(args) => show::run(args, context).await,
        Command::Ls(args) => ls::run(args, context).await,
        Command::Find(args) => find::run(args, context).await,
        Command::Cat(args) => cat::run(args, context).await,
        Command::Diff(args) => diff::run(args, context).await,
        #[cfg(all(feature = "mount", target_os = "linux"))]
        Command::Mount(args) => self::mount::run(args, context).await,
        Command::Restore(args) => restore::run(args, context).await,
        #[cfg(feature = "postgres")]
        Command::RestorePostgres(args) => restore_postgres::run(args, context).await,
        #[cfg(feature = "postgres")]
        Command::Log(command) => self::log::run(command, context).await,
        #[cfg(feature = "postgres")]
        Command::Drill(args) => drill::run(args, context).await,
        Command::Verify(args) => verify::run(args, context).await,
        Command::Repair(Repair::Index(args)) => repair::index(args, context).await,
        Command::Repair(Repair::Packs(args)) => repair::packs(args, context).await,
        Command::Repair(Repair::Snapshots(args)) => repair::snapshots(args, context).await,
        Command::Forget(args) => forget::run(args, context).await,
        Command::Undelete(args) => undelete::run(args, context).await,
        Command::Hold(args) => hold::run(args, context).await,
        Command::Prune(args) => prune::run(args, context).await,
        Command::Anomaly(command) => anomaly::run(command, context).await,
        Command::Health(args) => health::run(args, context).await,
        Command::Evidence(command) => evidence::run(command, context).await,
        Command::Copy(args) => copy::run(args, context).await,
        Command::Places(command) => places::run(command, context).await,
        Command::Stats(args) => stats::run(args, context).await,
        Command::Key(command) => key::run(command, context).await,
        Command::Run(args) => self::run::run(args, context).await,
        Command::Check(args) => check::run(args, context).await,
        Command::Demo(args) => demo::run(args, context).await,
        Command::Schema(args) => schema::run(args, context),
    }
}
