//! Every future of the engine can be spawned on a multi-threaded runtime. This is checked when it compiles.

use std::sync::Arc;

use backup_core::repository::{
    BackupOptions, CreateOptions, Repository, RestoreOptions, Snapshot, SnapshotSet, StoredEntry,
    VerifyOptions, peek_config, verify_keyless,
};
use backup_core::{EntryName, JobContext, Protection, Sink, SnapshotId, Source, Target, TransformSet};

fn is_send<T: Send>(_: T) {}

/// Never called: that it compiles is what counts.
#[expect(clippy::too_many_arguments, reason = "one of each")]
fn all(
    sink: &Arc<dyn Sink>,
    protection: &Arc<dyn Protection>,
    source: &dyn Source,
    target: &dyn Target,
    repository: &Repository,
    snapshot: &Snapshot,
    stored: &StoredEntry,
    set: &SnapshotSet,
    id: SnapshotId,
    name: &EntryName,
    job: &JobContext,
) {
    is_send(Repository::create(sink.clone(), protection.clone(), CreateOptions::default(), job));
    is_send(Repository::open(sink.clone(), protection.clone(), TransformSet::builtin(), job));
    is_send(peek_config(&**sink));
    is_send(verify_keyless(&**sink, &VerifyOptions::default(), job));
    is_send(repository.backup(source, &BackupOptions::default(), job));
    is_send(repository.restore(snapshot, target, &RestoreOptions::default(), job));
    is_send(repository.verify(&VerifyOptions::default(), job));
    is_send(repository.repair_index(false, job));
    is_send(repository.stats(job));
    is_send(repository.diff(snapshot, snapshot, job));
    is_send(repository.snapshots(job));
    is_send(repository.snapshots_and_damage(job));
    is_send(repository.snapshot(id, job));
    is_send(repository.sets(job));
    is_send(repository.create_set(set, job));
    is_send(snapshot.entries(None, job));
    is_send(snapshot.entry(name, job));
    is_send(snapshot.open(stored, job));
    is_send(snapshot.source());
    is_send(snapshot.tree(job));
    is_send(async {
        let tree = snapshot.tree(job).await?;
        tree.children(None, job).next().await?;
        let file = tree.open(stored, job);
        let pieces = file.pieces(0..1).await?;
        file.read(&pieces[0]).await?;
        tree.entry(name, job).await
    });
    is_send(async {
        let mut entries = snapshot.entries(None, job).await?;
        entries.next().await?;
        entries.next_page().await?;
        let mut changes = repository.diff(snapshot, snapshot, job).await?;
        changes.next().await?;
        Ok::<_, backup_core::Error>((entries, changes, snapshot.open(stored, job).await?))
    });
}

#[test]
fn every_future_of_the_engine_can_be_spawned() {
    let _ = all;
}
