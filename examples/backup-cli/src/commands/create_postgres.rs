//! `create postgres`: a snapshot of a PostgreSQL cluster, or of what is in its databases.

mod logical;

use std::path::PathBuf;
use std::sync::Arc;

use backup_core::config::Span;
use backup_sources::postgres::physical::BackupMode;
use backup_sources::postgres::{Connect, PostgresSource};
use clap::ValueEnum;

use super::snapshot::Making;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::postgres::{InArchive, Places};

/// Options of `create postgres`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The server: a URL or words as libpq has them; a password belongs into PGPASSWORD, PGPASSFILE or ~/.pgpass
    #[arg(long, value_name = "CONNECTION")]
    connection: String,
    /// What is read: the files on the server's machine, the same over SQL, or dumps of databases
    #[arg(long, value_enum, value_name = "MODE")]
    mode: Option<Mode>,
    /// The data directory, for --mode physical
    #[arg(long, value_name = "DIR")]
    pgdata: Option<PathBuf>,
    /// What the backup is recorded as: every snapshot is complete, and costs what changed [default: full, or
    /// incremental with --trust-times or --wal-summaries]
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<Type>,
    /// What snapshots call the cluster, so that they belong together after a failover, too [default: the server's address]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Connections that read [default: 2 for --mode physical-sql, 1 for --mode logical]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    connections: Option<u8>,
    /// Have the server make its checkpoint at once, with all that its disks can do
    #[arg(long)]
    fast_checkpoint: bool,
    /// Take files whose length and times are as before for unchanged, but for those of the last seconds
    #[arg(long)]
    trust_times: bool,
    /// Read only pages that changed, as the server's summaries of its log have it: PostgreSQL 17 and later with summarize_wal; not with --type full
    #[arg(long)]
    wal_summaries: bool,
    /// Do not verify the checksums of pages
    #[arg(long)]
    no_page_checksums: bool,
    /// How long to wait until the log that the backup needs is archived in this repository
    #[arg(long, value_name = "SPAN")]
    log_wait: Option<Span>,
    /// Do not wait for the log: it is archived elsewhere
    #[arg(long, conflicts_with = "log_wait")]
    no_log_wait: bool,
    #[command(flatten)]
    dumps: logical::Dumps,
    #[command(flatten)]
    making: Making,
}

impl Args {
    /// Whether an option is given that is about files.
    fn is_about_files(&self) -> bool {
        self.pgdata.is_some()
            || self.kind.is_some()
            || self.fast_checkpoint
            || self.trust_times
            || self.wal_summaries
            || self.no_page_checksums
            || self.log_wait.is_some()
            || self.no_log_wait
    }
}

/// How a cluster is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The files of the data directory
    Physical,
    /// The same files, over SQL
    PhysicalSql,
    /// What is in the databases, by pg_dump
    Logical,
}

/// What a backup is recorded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Type {
    /// One to begin with
    Full,
    /// One after a full one
    Differential,
    /// One after any other
    Incremental,
}

/// Makes the snapshot.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let connect = Connect::parse(&args.connection).map_err(Failure::input)?;
    match args.mode {
        Some(Mode::Logical) if args.is_about_files() => {
            let message = "--mode logical reads no files: leave out what is about the data directory, its pages and its log";
            return Err(Failure::usage(message));
        }
        Some(Mode::Logical) => {
            let Args { cluster, connections, dumps, making, .. } = args;
            return logical::run(connect, cluster, connections, dumps, making, context).await;
        }
        _ if args.dumps.are_given() => {
            return Err(Failure::usage(
                "databases and dumps are for --mode logical: give it, or leave them out",
            ));
        }
        _ => {}
    }
    let passes_over = args.trust_times || args.wal_summaries;
    let mode = match args.kind {
        Some(Type::Full) if passes_over => {
            let message = "--type full reads everything: leave out --trust-times and --wal-summaries, or give another type";
            return Err(Failure::usage(message));
        }
        None if !passes_over => BackupMode::Full,
        Some(Type::Full) => BackupMode::Full,
        Some(Type::Differential) => BackupMode::Differential,
        Some(Type::Incremental) | None => BackupMode::Incremental,
    };
    let mut builder = PostgresSource::builder(connect)
        .connections(args.connections.map_or(2, usize::from))
        .fast_checkpoint(args.fast_checkpoint)
        .trust_times(args.trust_times)
        .wal_summaries(args.wal_summaries)
        .verify_checksums(!args.no_page_checksums)
        .mode(mode);
    builder = match (args.mode, args.pgdata) {
        (Some(Mode::Physical), None) => {
            return Err(Failure::usage("--mode physical reads the data directory: give --pgdata DIR"));
        }
        (Some(Mode::PhysicalSql), Some(_)) => {
            return Err(Failure::usage("--mode physical-sql reads no directory: leave --pgdata out"));
        }
        (_, Some(directory)) => builder.data_directory(directory),
        (_, None) => builder,
    };
    if let Some(name) = args.cluster {
        builder = builder.named(name);
    }
    if !args.no_log_wait {
        let archive = context.wal_archive(Places::Required, None).await?.archive;
        let patience = args.log_wait.map_or(InArchive::PATIENCE, Span::duration);
        builder = builder.wait_for_archive(InArchive::new(archive, context.job()), patience);
    }
    let source = builder.build().map_err(Failure::input)?;
    args.making.of_noting(Some(mode.explain()), Arc::new(source), false, context).await
}
