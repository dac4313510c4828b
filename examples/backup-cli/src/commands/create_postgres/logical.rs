//! `create postgres --mode logical`: dumps of databases.

use std::path::PathBuf;
use std::sync::Arc;

use backup_core::config::{ByteSize, Span};
use backup_sources::postgres::logical::{DumpFormat, Globals};
use backup_sources::postgres::{Connect, LogicalSource};

use super::super::snapshot::Making;
use crate::context::Context;
use crate::exit::{Failure, Outcome};

/// Options of `create postgres --mode logical`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Dumps (--mode logical)")]
pub(super) struct Dumps {
    /// Dump this database only; repeat for more [default: all that take connections and are no templates]
    #[arg(long = "database", value_name = "NAME")]
    databases: Vec<String>,
    /// One stream for each database, or a directory with a file for each table, which needs --scratch: custom or directory
    #[arg(long, value_name = "FORMAT")]
    dump_format: Option<DumpFormat>,
    /// The directory below which dumps in the directory format stand until they are read
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// How many bytes may stand there
    #[arg(long, value_name = "SIZE", requires = "scratch")]
    scratch_limit: Option<ByteSize>,
    /// Store no roles and tablespaces
    #[arg(long)]
    no_globals: bool,
    /// Store roles without the hashes of their passwords, which only a superuser may read
    #[arg(long, conflicts_with = "no_globals")]
    no_role_passwords: bool,
    /// How long a dump waits for the lock of a table [default: 10m]
    #[arg(long, value_name = "SPAN")]
    lock_timeout: Option<Span>,
    /// How long the dump of one database may take; then there is no snapshot [default: no limit]
    #[arg(long, value_name = "SPAN")]
    dump_timeout: Option<Span>,
    /// The directory that has pg_dump and pg_dumpall [default: where packages put them, then PATH]
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

impl Dumps {
    /// Whether any of these options is given.
    pub(super) fn are_given(&self) -> bool {
        !self.databases.is_empty()
            || self.dump_format.is_some()
            || self.scratch.is_some()
            || self.no_globals
            || self.no_role_passwords
            || self.lock_timeout.is_some()
            || self.dump_timeout.is_some()
            || self.programs.is_some()
    }
}

/// Makes the snapshot.
pub(super) async fn run(
    connect: Connect,
    cluster: Option<String>,
    connections: Option<u8>,
    dumps: Dumps,
    making: Making,
    context: &mut Context,
) -> Outcome {
    let mut builder = LogicalSource::builder(connect)
        .databases(dumps.databases)
        .format(dumps.dump_format.unwrap_or_default())
        .globals(match (dumps.no_globals, dumps.no_role_passwords) {
            (true, _) => Globals::None,
            (_, true) => Globals::WithoutPasswords,
            _ => Globals::WithPasswords,
        })
        .jobs(connections.map_or(1, usize::from));
    if let Some(scratch) = dumps.scratch {
        let scratch = std::path::absolute(&scratch)
            .map_err(|e| Failure::usage(format!("{} is no directory: {e}", scratch.display())))?;
        builder = builder.scratch(scratch);
    }
    if let Some(limit) = dumps.scratch_limit {
        builder = builder.scratch_bytes_max(limit.bytes());
    }
    if let Some(limit) = dumps.lock_timeout {
        builder = builder.lock_timeout(limit.duration());
    }
    if let Some(limit) = dumps.dump_timeout {
        builder = builder.timeout(limit.duration());
    }
    if let Some(directory) = dumps.programs {
        builder = builder.programs(directory);
    }
    if let Some(name) = cluster {
        builder = builder.named(name);
    }
    let source = builder.build().map_err(Failure::input)?;
    making.of(Arc::new(source), false, context).await
}
