//! Where a drill has a cluster's files and its log from.

use std::fmt;

use async_trait::async_trait;
use backup_core::{JobContext, Repository, RestoreOptions, RestoreReport, Result, Snapshot, Target};

use crate::postgres::recovery::{BaseBackup, LogInventory};

/// What a drill recovers from: base backups, an archive of their log, and how to get at both.
#[async_trait]
pub trait DrillSource: fmt::Debug + Send + Sync + 'static {
    /// The base backups to choose from.
    async fn bases(&self, job: &JobContext) -> Result<Vec<BaseBackup>>;

    /// What the archive has.
    async fn inventory(&self, job: &JobContext) -> Result<LogInventory>;

    /// Restores the files of a base backup.
    async fn restore(
        &self,
        base: &BaseBackup,
        target: &dyn Target,
        job: &JobContext,
    ) -> Result<RestoreReport>;

    /// What the recovering server runs to get a file of its log, as in
    /// [`RecoverySettings::restore_command`](crate::postgres::recovery::RecoverySettings::restore_command).
    fn restore_command(&self) -> String;
}

/// A snapshot in a repository, with the inventory of the log that goes with it.
#[derive(Debug, Clone)]
pub struct StoredCluster {
    repository: Repository,
    snapshot: Snapshot,
    base: BaseBackup,
    inventory: LogInventory,
    restore_command: String,
}

impl StoredCluster {
    /// A snapshot that says by its positions what base backup it is.
    ///
    /// # Errors
    ///
    /// It is no complete base backup of PostgreSQL.
    pub fn new(
        repository: Repository,
        snapshot: Snapshot,
        inventory: LogInventory,
        restore_command: impl Into<String>,
    ) -> Result<Self> {
        let base = BaseBackup::of(snapshot.info())?;
        Ok(Self::with_base(repository, snapshot, base, inventory, restore_command))
    }

    /// A snapshot of which somebody else knows what base backup it is.
    pub fn with_base(
        repository: Repository,
        snapshot: Snapshot,
        base: BaseBackup,
        inventory: LogInventory,
        restore_command: impl Into<String>,
    ) -> Self {
        Self { repository, snapshot, base, inventory, restore_command: restore_command.into() }
    }
}

#[async_trait]
impl DrillSource for StoredCluster {
    async fn bases(&self, _: &JobContext) -> Result<Vec<BaseBackup>> {
        Ok(vec![self.base.clone()])
    }

    async fn inventory(&self, _: &JobContext) -> Result<LogInventory> {
        Ok(self.inventory.clone())
    }

    async fn restore(&self, _: &BaseBackup, target: &dyn Target, job: &JobContext) -> Result<RestoreReport> {
        self.repository.restore(&self.snapshot, target, &RestoreOptions::default(), job).await
    }

    fn restore_command(&self) -> String {
        self.restore_command.clone()
    }
}
