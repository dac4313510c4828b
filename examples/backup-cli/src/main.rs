//! The program `backup`: the kinds that come with this workspace, and nothing else.
//!
//! A program with kinds of its own is this file with a registry that knows them.

use std::process::ExitCode;

fn main() -> ExitCode {
    backup_cli::main(backup_cli::registry())
}
