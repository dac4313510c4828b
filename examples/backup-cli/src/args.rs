//! The command line.

use std::path::PathBuf;

use backup_core::config::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands;

/// Back up files and the output of programs into a deduplicated, encrypted repository, and get them back.
#[derive(Debug, Parser)]
#[command(
    name = "backup",
    version,
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but items were skipped or are damaged; 4 nothing matches.",
    max_term_width = 110
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The repository: a path, a URL, or a name in the configuration
    #[arg(long, global = true, env = "BACKUP_REPO", value_name = "URL")]
    pub repo: Option<String>,
    /// A further place of the same repository, where no configuration names them; repeat for more
    #[arg(long = "place", global = true, env = "BACKUP_PLACES", value_name = "URL", value_delimiter = ',')]
    pub places: Vec<String>,
    /// A file whose content, but for one line ending, is the passphrase (or set BACKUP_PASSWORD)
    #[arg(long, global = true, env = "BACKUP_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// A file with 32 random bytes in base64: `head -c 32 /dev/urandom | base64 > FILE`
    #[arg(long, global = true, env = "BACKUP_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The configuration, in TOML, or in JSON where the name ends in .json
    #[arg(long, global = true, env = "BACKUP_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print exactly one JSON document on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// How to show progress on standard error; `auto` draws on a terminal and is silent elsewhere
    #[arg(long, global = true, value_enum, default_value_t = ProgressMode::Auto, value_name = "HOW")]
    pub progress: ProgressMode,
    /// Where to keep copies of what a remote repository is asked for often; local repositories need none [default:
    /// $XDG_CACHE_HOME/backup or ~/.cache/backup]
    #[arg(long, global = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Keep no such copies
    #[arg(long, global = true, conflicts_with = "cache_dir")]
    pub no_cache: bool,
    /// Worker threads [default: one a processor]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Memory for buffers in MiB
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(48..=1_048_576))]
    pub memory_mib: Option<u32>,
    /// Send at most so much a second to the repository, like 10MiB
    #[arg(long, global = true, value_name = "SIZE", value_parser = rate)]
    pub limit_upload: Option<ByteSize>,
    /// Read at most so much a second from the repository, like 10MiB
    #[arg(long, global = true, value_name = "SIZE", value_parser = rate)]
    pub limit_download: Option<ByteSize>,
    /// Do not ask before overwriting or deleting
    #[arg(long, global = true, visible_alias = "no-confirm")]
    pub yes: bool,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// A bar on a terminal, nothing elsewhere.
    Auto,
    /// A line every few seconds.
    Plain,
    /// A JSON object a line, several times a second.
    Json,
    /// Nothing.
    None,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a repository
    Init(commands::init::Args),
    /// Make a snapshot
    #[command(subcommand)]
    Create(Create),
    /// List snapshots
    List(commands::list::Args),
    /// Show everything that is known about a snapshot
    Show(commands::show::Args),
    /// List the entries of a snapshot
    Ls(commands::ls::Args),
    /// Find entries by name in all snapshots
    Find(commands::find::Args),
    /// Write the content of an entry to standard output
    Cat(commands::cat::Args),
    /// Compare two snapshots
    Diff(commands::diff::Args),
    /// Show all snapshots as a file system, read-only, until it is unmounted
    #[cfg(all(feature = "mount", target_os = "linux"))]
    Mount(commands::mount::Args),
    /// Write a snapshot, or a part of it, below a directory
    Restore(commands::restore::Args),
    /// Recover a PostgreSQL cluster to a moment
    #[cfg(feature = "postgres")]
    RestorePostgres(commands::restore_postgres::Args),
    /// The write-ahead log of PostgreSQL: into the repository, out of it, and what is missing
    #[cfg(feature = "postgres")]
    #[command(subcommand)]
    Log(commands::log::Log),
    /// Rehearse the recovery of a PostgreSQL cluster, and store the evidence
    #[cfg(feature = "postgres")]
    Drill(commands::drill::Args),
    /// Check that what is stored is what was stored
    Verify(commands::verify::Args),
    /// Repair a repository
    #[command(subcommand)]
    Repair(Repair),
    /// Forget snapshots: by rules, or by name
    Forget(commands::forget::Args),
    /// Take back that a snapshot was forgotten
    Undelete(commands::undelete::Args),
    /// Hold a snapshot, so that it is not forgotten
    Hold(commands::hold::Args),
    /// Free what no snapshot needs
    Prune(commands::prune::Args),
    /// See snapshots that are not how things change, and say that they are as they should be
    #[command(subcommand)]
    Anomaly(commands::anomaly::Anomaly),
    /// Judge whether all is well: exit 0 ok, 1 warning, 2 critical
    Health(commands::health::Args),
    /// See what was done, and what came of it
    #[command(subcommand)]
    Evidence(commands::evidence::Evidence),
    /// Copy snapshots into another repository
    Copy(commands::copy::Args),
    /// See what each place of the repository lacks, and bring it there
    #[command(subcommand)]
    Places(commands::places::Places),
    /// Show sizes and ratios
    Stats(commands::stats::Args),
    /// See and change who can open the repository
    #[command(subcommand)]
    Key(commands::key::Key),
    /// Run configured jobs and sets
    Run(commands::run::Args),
    /// Check places, keys and sources before anything depends on them
    Check(commands::check::Args),
    /// Show the whole story on a scratch repository: back up, change, verify, damage and detect, restore, compare
    Demo(commands::demo::Args),
    /// Print the JSON Schema of the configuration
    Schema(commands::schema::Args),
}

impl Command {
    /// Whether this is `log fetch`, whose exit codes a server reads.
    pub(crate) fn fetches_log(&self) -> bool {
        #[cfg(feature = "postgres")]
        return matches!(self, Self::Log(commands::log::Log::Fetch(_)));
        #[cfg(not(feature = "postgres"))]
        false
    }
}

/// Kinds of snapshots.
#[derive(Debug, Subcommand)]
pub enum Create {
    /// Back up files and directories
    Files(commands::create_files::Args),
    /// Back up what a program writes to standard output; if it fails, no snapshot is made
    Command(commands::create_command::Args),
    /// Back up a PostgreSQL cluster
    #[cfg(feature = "postgres")]
    Postgres(commands::create_postgres::Args),
    /// Back up the objects of a bucket
    #[cfg(any(feature = "azure", feature = "gcs", feature = "s3"))]
    Bucket(commands::create_bucket::Args),
}

/// Kinds of repairs.
#[derive(Debug, Subcommand)]
pub enum Repair {
    /// Rebuild the index from the packs
    Index(commands::repair::Args),
    /// Bring back what is damaged or missing from the repository's other places
    Packs(commands::repair::PacksArgs),
    /// Store damaged snapshots again without the entries that cannot be read, and name those; originals stay
    Snapshots(commands::repair::Args),
}

fn rate(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|e: backup_core::Error| e.to_string())?;
    if size.bytes() == 0 {
        Err("a rate of 0 transfers nothing; leave the option out for no limit".into())
    } else {
        Ok(size)
    }
}
