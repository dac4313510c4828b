//! The command-line program `backup`, as a library: a program with sources, sinks, transforms or policies of its own is
//! a [`Registry`] and a `main`.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     let mut registry = backup_cli::registry();
//!     // registry.source("mailboxes", |settings, context| async move { … });
//!     backup_cli::main(registry)
//! }
//! ```
//!
//! Every command is a thin call of the library; one file each in [`commands`]. [`main_with`] runs one on streams of the
//! caller's, which is how to embed or test it.

pub mod args;
pub mod cache;
pub mod commands;
pub mod console;
pub mod context;
pub mod estimate;
pub mod exit;
pub mod hooks;
pub mod human;
pub mod keys;
pub mod output;
pub mod parse;
pub mod places;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod progress;
pub mod recording;
pub mod registry;
pub mod select;
pub mod shown;
mod signal;
mod space;

use std::ffi::OsString;
use std::process::ExitCode;

use backup_core::CancellationToken;
use backup_core::config::Registry;
use clap::Parser;

use crate::args::Cli;
use crate::console::Console;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::Output;
pub use crate::registry::registry;

/// The whole program: arguments, streams and signals of this process, a runtime of its own.
///
/// Diagnostics of the engine go to standard error where the environment variable `BACKUP_LOG` asks for them
/// (`BACKUP_LOG=debug`).
pub fn main(registry: Registry) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if exit::is_fetch(&arguments) {
        exit::fail_closed();
    }
    // A panic must not end with a code that means something else to whoever called.
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(registry, arguments)));
    ExitCode::from(ended.unwrap_or_else(|_| exit::failed()).code())
}

fn run(registry: Registry, arguments: Vec<OsString>) -> Exit {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("BACKUP_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    // Two threads: one may be busy with a listing while the other answers signals. Heavy work runs on the job's own.
    // Few blocking threads: an allocator keeps what each of them freed, and a store's reads hand out megabytes.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            Console::process().say(format_args!("backup: the runtime cannot be started: {error}"));
            return exit::failed();
        }
    };
    let cancellation = CancellationToken::new();
    let exit = runtime.block_on(async {
        tokio::spawn(signal::watch(cancellation.clone()));
        main_with(registry, arguments, Console::process(), cancellation).await
    });
    // A blocking read of standard input must not keep the process.
    runtime.shutdown_background();
    exit
}

/// Runs one command on streams of the caller's. `arguments` start with the program's name. Cancelling the token stops the
/// command in good order; dropping the future stops it, too.
pub async fn main_with(
    registry: Registry,
    arguments: impl IntoIterator<Item = OsString>,
    mut console: Console,
    cancellation: CancellationToken,
) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error, &arguments, console),
    };
    let Cli { global, command } = cli;
    let fetches = command.fetches_log();
    console.draws &= !global.json || global.progress != args::ProgressMode::Auto;
    let mut context = Context::new(registry, global, console, cancellation);
    let result = match context.load_config().await {
        Ok(()) => commands::run(command, &mut context).await,
        Err(failure) => Err(failure),
    };
    context.progress.clear();
    context.record_done(&result).await;
    let exit = match result {
        // Where something cannot be read, nobody knows that nothing matches.
        Ok(Exit::Done | Exit::Nothing) if context.incomplete => Exit::Partial,
        Ok(exit) => exit,
        Err(failure) => {
            context.output.fail(&failure);
            if failure.kind != "broken_pipe" {
                context.console.say(format_args!("backup: {}", human::name(&failure.message)));
            }
            if failure.exit == Exit::Nothing && context.incomplete { Exit::Failed } else { failure.exit }
        }
    };
    if fetches { exit::seen_by_server(exit) } else { exit }
}

/// Help, the version, or wrong usage.
fn not_parsed(error: &clap::Error, arguments: &[OsString], mut console: Console) -> Exit {
    if !error.use_stderr() {
        let written = write!(console.out, "{}", error.render()).and_then(|()| console.out.flush());
        return if written.is_ok() { Exit::Done } else { Exit::Failed };
    }
    let text = error.render().to_string();
    console.say(text.trim_end());
    let json = arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    let message = text.trim_start_matches("error: ").lines().next().unwrap_or_default();
    Output::new(console.out, json).fail(&Failure::usage(message));
    if exit::is_fetch(arguments) { Exit::NotFetched } else { Exit::Usage }
}
