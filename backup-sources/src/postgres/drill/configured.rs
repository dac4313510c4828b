//! Drills in configurations: what is rehearsed again and again.

use std::path::PathBuf;

use backup_core::config::{BuildContext, Settings, Span};
use backup_core::{Result, SnapshotInfo};
use serde::Deserialize;

use super::{Check, Drill, Expect};
use crate::postgres::recovery::{RecoveryTarget, user_of};

/// What a configuration says of a drill: the settings of the kind `postgres` in `drills`.
///
/// ```toml
/// [drills.weekly]
/// kind = "postgres"
/// repository = "main"
/// scratch = "/var/lib/drills"
/// owner = "postgres"                     # as whom the server runs, where root rehearses
/// report = "/var/lib/drills/weekly.json"
/// clusters = [
///     { label = "warehouse", checks = [
///         { name = "orders", database = "shop", query = "select count(*) > 0 from public.orders", value = "t" },
///     ] },
/// ]
/// ```
///
/// Several clusters are recovered to one common moment, the latest that the logs of all of them reach. Further: `programs`, `role`, `preload`,
/// `verify_backup`, `amcheck` (both true unless told otherwise), `limit` (how long each server may take to recover), `recorded` (a single cluster is
/// recovered to the newest [`RecordedMoment`](super::RecordedMoment), and its tables must be found as they were recorded).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillSettings {
    repository: String,
    scratch: PathBuf,
    clusters: Vec<ClusterSettings>,
    programs: Option<PathBuf>,
    owner: Option<String>,
    role: Option<String>,
    preload: Option<String>,
    #[serde(default = "yes")]
    verify_backup: bool,
    #[serde(default = "yes")]
    amcheck: bool,
    limit: Option<Span>,
    report: Option<PathBuf>,
    #[serde(default)]
    recorded: bool,
}

/// One cluster of a drill: the newest backup of these snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSettings {
    label: Option<String>,
    host: Option<String>,
    cluster: Option<String>,
    checks: Vec<CheckSettings>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckSettings {
    name: Option<String>,
    database: String,
    query: String,
    /// One row of one column.
    value: Option<String>,
    rows: Option<Vec<Vec<Option<String>>>>,
}

fn yes() -> bool {
    true
}

impl DrillSettings {
    /// What these settings of a drill say.
    ///
    /// # Errors
    ///
    /// Settings that no drill has, or that contradict each other, by name.
    pub fn of(settings: &Settings) -> Result<Self> {
        let parsed: Self = settings.parse()?;
        if parsed.clusters.is_empty() {
            return Err(settings
                .error("`clusters` is empty: say what is rehearsed, as in [{ label = \"warehouse\" }]"));
        }
        if parsed.recorded && parsed.clusters.len() > 1 {
            return Err(settings.error(
                "what was recorded is a moment of one cluster: leave `recorded` out, or name one cluster",
            ));
        }
        let checks = parsed.clusters.iter().flat_map(|cluster| &cluster.checks);
        if let Some(check) = checks.into_iter().find(|check| check.value.is_some() && check.rows.is_some()) {
            return Err(
                settings.error(format!("`{}` expects `value` and `rows`: leave one out", check.query))
            );
        }
        Ok(parsed)
    }

    /// The repository, by its name in the configuration.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The clusters that are recovered, to one common moment if there are several.
    pub fn clusters(&self) -> &[ClusterSettings] {
        &self.clusters
    }

    /// Whether the target is the newest recorded moment.
    pub fn is_to_recorded_moment(&self) -> bool {
        self.recorded
    }

    /// The file that the report is written into, too.
    pub fn report(&self, context: &BuildContext) -> Option<PathBuf> {
        self.report.as_ref().map(|path| context.path(path))
    }

    /// The drill of one of the clusters, to a moment.
    ///
    /// # Errors
    ///
    /// There is no user of the owner's name.
    pub fn drill(
        &self,
        cluster: &ClusterSettings,
        target: RecoveryTarget,
        settings: &Settings,
        context: &BuildContext,
    ) -> Result<Drill> {
        let mut drill = Drill::new(context.path(&self.scratch), target);
        if let Some(programs) = &self.programs {
            drill = drill.programs(context.path(programs));
        }
        if let Some(owner) = &self.owner {
            let found = user_of(owner)?;
            let unknown = || settings.error(format!("there is no user `{}` here", owner.escape_debug()));
            let (user, group) = found.ok_or_else(unknown)?;
            drill = drill.run_as(user, group);
        }
        if let Some(role) = &self.role {
            drill = drill.role(role);
        }
        if let Some(preload) = &self.preload {
            drill = drill.preload(preload);
        }
        if !self.verify_backup {
            drill = drill.without_verifying();
        }
        if !self.amcheck {
            drill = drill.without_amcheck();
        }
        if let Some(limit) = self.limit {
            drill = drill.recovery_limit(limit.duration());
        }
        Ok(cluster.checks.iter().map(CheckSettings::check).fold(drill, Drill::check))
    }
}

impl ClusterSettings {
    /// Whether a snapshot is one of this cluster's.
    pub fn has(&self, info: &SnapshotInfo) -> bool {
        let fits =
            |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
        info.source == "postgres"
            && fits(&self.label, info.label.as_deref())
            && fits(&self.host, Some(&info.host))
            && fits(&self.cluster, info.identity.first().map(String::as_str))
    }
}

impl CheckSettings {
    fn check(&self) -> Check {
        let expect = match (&self.value, &self.rows) {
            (Some(value), _) => Expect::value(value),
            (None, Some(rows)) => Expect::Rows(rows.clone()),
            (None, None) => Expect::Anything,
        };
        let name = self.name.as_deref().unwrap_or(&self.query);
        Check::new(name, &self.database, &self.query, expect)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn settings(value: Value) -> Settings {
        let Value::Object(values) = value else { unreachable!() };
        Settings::new("b.toml", "drills.x", values)
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let base = json!({ "repository": "main", "scratch": "/tmp", "clusters": [{ "label": "a" }] });
        assert!(DrillSettings::of(&settings(base.clone())).is_ok());
        for (key, value, expected) in [
            ("clusters", json!([]), "`clusters` is empty"),
            ("clusters", json!([{ "lable": "a" }]), "drills.x.clusters[0].lable: unknown field"),
            ("clusters", json!([{ "checks": [{ "database": "d" }] }]), "missing field `query`"),
            (
                "clusters",
                json!([{ "checks": [{ "database": "d", "query": "q", "value": "1", "rows": [] }] }]),
                "leave one out",
            ),
            ("scratch", Value::Null, "drills.x.scratch"),
            ("target", json!("latest"), "unknown field"),
        ] {
            let mut value_of = base.clone();
            value_of[key] = value;
            let error = DrillSettings::of(&settings(value_of)).unwrap_err().to_string();
            assert!(error.starts_with("b.toml: drills.x") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_user_that_is_not_there_is_named() {
        let given = settings(
            json!({ "repository": "main", "scratch": "/tmp", "owner": "nobody-of-that-name", "clusters": [{}] }),
        );
        let parsed = DrillSettings::of(&given).unwrap();
        let cluster = parsed.clusters().first().unwrap();
        let error =
            parsed.drill(cluster, RecoveryTarget::latest(), &given, &BuildContext::default()).unwrap_err();
        assert!(error.to_string().contains("nobody-of-that-name"), "{error}");
    }
}
