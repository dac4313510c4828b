//! Health: is there a young snapshot of everything, and was what is stored looked at lately?

use std::collections::BTreeMap;
use std::time::Duration;

use super::verify::VerifyLevel;
use super::{Repository, guard};
use crate::report::{HealthCheck, HealthReport, HealthStatus};
use crate::{JobContext, Result, SnapshotInfo, Timestamp};

/// What is expected of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthOptions {
    /// The newest complete snapshot of each series may be so old before that is critical.
    pub max_age: Option<Duration>,
    /// It may be so old before that is worth a warning.
    pub warn_age: Option<Duration>,
    /// Everything should have been verified within this time.
    pub max_unverified: Option<Duration>,
}

/// What tells series apart.
type Series = (String, Vec<String>, String, Option<String>, Option<String>);

impl Repository {
    /// Judges the snapshots that `select` chooses: for each series of them (source with its identity, host, label, tenant) the
    /// age of the newest COMPLETE one, by the store's clock. Partial snapshots, and such whose own time cannot be right, prove
    /// nothing. That there is nothing to judge is critical: absence is what nobody notices.
    ///
    /// # Errors
    /// Those of the store; whoever asks for health takes them for a critical state.
    pub async fn health(
        &self,
        options: &HealthOptions,
        select: &(dyn Fn(&SnapshotInfo) -> bool + Send + Sync),
        job: &JobContext,
    ) -> Result<HealthReport> {
        guard::run(job, async move {
            let mut report = HealthReport::default();
            let (mut snapshots, damaged) = self.load_snapshots(job).await?;
            for (key, error) in damaged {
                report.add(key.to_string(), HealthStatus::Critical, format!("cannot be read: {error}"));
            }
            snapshots.retain(|info| select(info));
            if snapshots.is_empty() {
                report.add("snapshots".into(), HealthStatus::Critical, "there is no snapshot".into());
            }
            self.judge_ages(&snapshots, options, &mut report, job).await?;
            self.judge_verification(options, &mut report, job).await?;
            Ok(report)
        })
        .await
    }

    async fn judge_ages(
        &self,
        snapshots: &[SnapshotInfo],
        options: &HealthOptions,
        report: &mut HealthReport,
        job: &JobContext,
    ) -> Result<()> {
        let facts = self.facts(snapshots, job).await?;
        let mut series: BTreeMap<Series, Option<Timestamp>> = BTreeMap::new();
        // Copies say when their originals were made, which is what counts for those who would restore them.
        for (info, facts) in snapshots.iter().zip(&facts) {
            let SnapshotInfo { source, identity, host, label, tenant, .. } = info.clone();
            let newest = series.entry((source, identity, host, label, tenant)).or_default();
            if facts.complete && !facts.quarantined {
                *newest = (*newest).max(Some(facts.time));
            }
        }
        let now = job.now();
        for ((source, identity, host, label, _), newest) in series {
            let mut name = format!("{source} {} on {host}", identity.join(" "));
            if let Some(label) = label {
                name.push_str(&format!(" [{label}]"));
            }
            let Some(newest) = newest else {
                report.add(name, HealthStatus::Critical, "there is no complete snapshot".into());
                continue;
            };
            let age = now.seconds().saturating_sub(newest.seconds());
            let is_beyond = |limit: Option<Duration>| {
                limit.is_some_and(|limit| i64::try_from(limit.as_secs()).is_ok_and(|limit| age > limit))
            };
            let status = match (is_beyond(options.max_age), is_beyond(options.warn_age)) {
                (true, _) => HealthStatus::Critical,
                (false, true) => HealthStatus::Warning,
                (false, false) => HealthStatus::Ok,
            };
            report.add(name, status, format!("the newest complete snapshot is of {newest}"));
        }
        Ok(())
    }

    async fn judge_verification(
        &self,
        options: &HealthOptions,
        report: &mut HealthReport,
        job: &JobContext,
    ) -> Result<()> {
        let name = || "verification".to_owned();
        if let Some(when) = self.damage_found(job).await? {
            let message = format!(
                "one of {when} found damage, and none since that was as thorough says that it is gone"
            );
            report.add(name(), HealthStatus::Critical, message);
        }
        let Some(within) = options.max_unverified else { return Ok(()) };
        let seconds = i64::try_from(within.as_secs()).unwrap_or(i64::MAX);
        let since = job.now().saturating_add_seconds(seconds.saturating_neg());
        match self.ledger(VerifyLevel::Checksum, job).await?.everything_since() {
            Some(all) if all >= since => {
                report.add(name(), HealthStatus::Ok, format!("everything was verified since {all}"));
            }
            Some(all) => {
                report.add(name(), HealthStatus::Warning, format!("something was not verified since {all}"));
            }
            None => report.add(name(), HealthStatus::Warning, "something was never verified".into()),
        }
        Ok(())
    }
}

impl HealthReport {
    /// Adds a check.
    pub fn add(&mut self, name: String, status: HealthStatus, message: String) {
        self.status = self.status.max(status);
        self.checks.push(HealthCheck { name, status, message });
    }
}
