//! `create files`: a snapshot of files and directories.

use std::path::PathBuf;
use std::sync::Arc;

use backup_core::config::ByteSize;
use backup_sources::FilesSource;

use super::snapshot::Making;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::parse::ViewOf;

/// Options of `create files`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to back up
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Leave out what matches, as .gitignore has it: *.tmp, /home/*/.cache, build/, !keep.tmp; repeat for more
    #[arg(long = "exclude", value_name = "GLOB")]
    excludes: Vec<String>,
    /// Leave out what matches the globs in a file, one a line
    #[arg(long = "exclude-file", value_name = "FILE")]
    exclude_files: Vec<PathBuf>,
    /// Leave out what is in directories marked as caches by a CACHEDIR.TAG
    #[arg(long)]
    exclude_caches: bool,
    /// Leave out what is in directories that have a file of this name
    #[arg(long = "exclude-if-present", value_name = "NAME")]
    exclude_if_present: Vec<String>,
    /// Leave out files larger than this, like 1GiB
    #[arg(long, value_name = "SIZE")]
    exclude_larger_than: Option<ByteSize>,
    /// Do not cross into other file systems
    #[arg(long)]
    one_file_system: bool,
    /// Read from a view that is frozen for as long: btrfs:DIR, lvm:GROUP/VOLUME:DIR, zfs:DATASET:DIR, reflink:DIR:VIEWS
    #[arg(long, value_name = "VIEW")]
    view: Option<ViewOf>,
    #[command(flatten)]
    making: Making,
}

/// Makes the snapshot.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    if let Some(missing) = args
        .paths
        .iter()
        .find(|path| path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound))
    {
        return Err(Failure::nothing(format!("{} does not exist", missing.display())));
    }
    let mut builder = FilesSource::builder()
        .paths(args.paths)
        .exclude_caches(args.exclude_caches)
        .one_file_system(args.one_file_system);
    for file in args.exclude_files {
        builder = builder.exclude_file(file);
    }
    for glob in args.excludes {
        builder = builder.exclude(glob);
    }
    for name in args.exclude_if_present {
        builder = builder.exclude_if_present(name);
    }
    if let Some(size) = args.exclude_larger_than {
        builder = builder.exclude_larger_than(size.bytes());
    }
    if let Some(view) = args.view {
        builder = view.add_to(builder);
    }
    let source = Arc::new(builder.build().map_err(Failure::input)?);
    args.making.of(source, true, context).await
}
