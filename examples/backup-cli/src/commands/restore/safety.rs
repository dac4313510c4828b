//! The snapshot of what a restore would replace or delete, made before it does.

use std::collections::BTreeMap;

use backup_core::report::Outcome as Whole;
use backup_core::repository::{BackupOptions, Repository, Selection, Snapshot};
use backup_core::{EntryName, SnapshotId};
use backup_sources::{DirectoryTarget, SAFETY};

use super::super::snapshot::name_skipped;
use crate::context::{Context, host};
use crate::exit::{Exit, Failure, Outcome};

/// Makes it; none if nothing would be replaced or deleted. Where it cannot hold everything, the restore does not begin.
pub(super) async fn make(
    context: &mut Context,
    repository: &Repository,
    target: &DirectoryTarget,
    snapshot: &Snapshot,
    select: &Selection,
    deleted: &[Vec<u8>],
) -> Outcome<Option<SnapshotId>> {
    let job = context.job();
    let deleted = deleted.iter().map(EntryName::new).collect::<backup_core::Result<Vec<_>>>()?;
    let replaced = target.replaced(snapshot, select, deleted);
    if replaced.is_empty(&job).await? {
        return Ok(None);
    }
    let id = snapshot.info().id;
    let options = BackupOptions {
        host: host(),
        label: Some(SAFETY.to_owned()),
        description: Some(format!(
            "what a restore of {id} into {} replaces or deletes",
            target.root().display()
        )),
        tags: BTreeMap::from([("restored".to_owned(), id.to_string())]),
        transforms: context.writing(&context.location()?)?,
        ..BackupOptions::default()
    };
    let report = repository.backup(&replaced, &options, &job).await?;
    if report.outcome == Whole::Partial {
        name_skipped(context, &report);
        let skipped = report.skipped.count();
        let message =
            format!("nothing was restored: {skipped} items that would be lost cannot be saved before");
        return Err(Failure { exit: Exit::Failed, kind: "safety", message });
    }
    Ok(report.snapshot)
}
