//! The backups that are rehearsed, and the moment that they have in common.

use std::collections::BTreeSet;

use backup_core::repository::Repository;
use backup_core::{Snapshot, SnapshotInfo, Timestamp};
use backup_sources::postgres::drill::{StoredCluster, common_moment};
use backup_sources::postgres::recovery::{BaseBackup, LogInventory, RecoveryTarget, StopAt};

use crate::commands::restore_postgres::{bases, bases_of};
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::postgres::{Looking, can_lead};
use crate::select::{Filter, Snapshots};

/// A backup with the log that follows it.
#[derive(Debug)]
pub(super) struct Chosen {
    base: BaseBackup,
    repository: Repository,
    snapshot: Snapshot,
    inventory: LogInventory,
}

impl Chosen {
    /// The backup that is named, or the newest that leads to the target.
    pub(super) async fn named(
        name: &str,
        filter: &Filter,
        repository: &Repository,
        target: &RecoveryTarget,
        looking: &Looking,
        context: &mut Context,
    ) -> Outcome<Self> {
        let found = bases(name, filter, repository, context).await?;
        Self::of(found, repository, target, looking, context).await
    }

    /// The newest of those that are meant.
    pub(super) async fn newest(
        is_meant: impl Fn(&SnapshotInfo) -> bool,
        repository: &Repository,
        target: &RecoveryTarget,
        looking: &Looking,
        context: &mut Context,
    ) -> Outcome<Self> {
        let snapshots = Snapshots::load(repository, context).await?;
        let found = bases_of(snapshots.all(context).iter().filter(|info| is_meant(info)))?;
        Self::of(found, repository, target, looking, context).await
    }

    async fn of(
        mut found: Vec<(BaseBackup, SnapshotInfo)>,
        repository: &Repository,
        target: &RecoveryTarget,
        looking: &Looking,
        context: &Context,
    ) -> Outcome<Self> {
        let at = found.iter().rposition(|(base, _)| can_lead(base, target)).unwrap_or(0);
        let chosen = found.swap_remove(at);
        let inventory = looking.inventory(std::slice::from_ref(&chosen), target, context).await?;
        let (base, info) = chosen;
        let snapshot = repository.snapshot(info.id, &context.job()).await?;
        Ok(Self { base, repository: repository.clone(), snapshot, inventory })
    }

    /// The backup.
    pub(super) fn base(&self) -> &BaseBackup {
        &self.base
    }

    /// What a drill recovers from.
    pub(super) fn source(self, restore_command: String) -> Outcome<StoredCluster> {
        Ok(StoredCluster::new(self.repository, self.snapshot, self.inventory, restore_command)?)
    }
}

/// The target for all of them: that which was given for one; for several a moment that means the same to each.
pub(super) fn common_target(clusters: &[Chosen], given: RecoveryTarget) -> Outcome<RecoveryTarget> {
    let systems: BTreeSet<u64> = clusters.iter().map(|chosen| chosen.base.system_identifier).collect();
    match (clusters, &given.stop) {
        ([_], _) => Ok(given),
        _ if systems.len() < clusters.len() => Err(Failure::usage(
            "several backups of one cluster have no moment in common that is worth a drill: name one",
        )),
        (_, StopAt::Time(_) | StopAt::Name(_)) => Ok(given),
        (_, StopAt::Latest) => {
            let all: Vec<_> = clusters.iter().map(|chosen| (&chosen.base, &chosen.inventory)).collect();
            Ok(RecoveryTarget::time(common_moment(&all)?).on(given.timeline))
        }
        _ => Err(Failure::usage(
            "positions and transactions mean something else in each cluster: give a time or the name of a restore point, or nothing",
        )),
    }
}

/// The time of a target, if it is one.
pub(super) fn time_of(target: &RecoveryTarget) -> Option<Timestamp> {
    match target.stop {
        StopAt::Time(time) => Some(time),
        _ => None,
    }
}
