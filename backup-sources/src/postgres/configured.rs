//! Servers in configurations: the kind `postgres`.

mod dump;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup_core::config::{BuildContext, ByteSize, SecretRef, Settings, Span};
use backup_core::resources::RateLimit;
use backup_core::{Error, Result, Source};
use serde::Deserialize;

use self::dump::DumpSettings;
use super::drill::TableName;
use super::physical::{ArchivedSegments, BackupMode};
use super::{Connect, PostgresSource, PostgresSourceBuilder};

/// How long a backup waits for its log to be archived, where nobody says.
const LOG_WAIT: Duration = Duration::from_secs(300);

/// What a configuration says of a server: the settings of the kind `postgres`.
///
/// ```toml
/// [sources.warehouse]
/// kind = "postgres"
/// connection = "host=/run/postgresql user=backup"
/// pgdata = "/var/lib/postgresql/15/main"     # left out: the files are read over SQL
/// cluster = "warehouse"                      # what snapshots call it, wherever it runs
/// slot = "backup"                            # that of `backup log receive`
/// ```
///
/// Further: `password` (a [`SecretRef`]), `mode` (`physical`, `physical-sql`, `logical`), `type` (`full`, `differential`, `incremental`), `connections`,
/// `fast_checkpoint`, `trust_times`, `wal_summaries`, `page_checksums`, `read_limit` (bytes a second), `log` (`archived`, `elsewhere`), `log_wait`, `record` (tables like
/// `shop: public.orders` that are counted after each backup, for [drills](super::drill::RecordedMoment)).
///
/// With `mode = "logical"` databases are [dumped](super::logical), as the table `dump` says: `databases`, `format`, `globals`, `jobs`, `scratch`, `scratch_limit`,
/// `programs`, `lock_timeout`, `timeout`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSettings {
    connection: String,
    password: Option<SecretRef>,
    mode: Option<Mode>,
    pgdata: Option<PathBuf>,
    cluster: Option<String>,
    slot: Option<String>,
    #[serde(rename = "type", default)]
    kind: BackupMode,
    connections: Option<usize>,
    #[serde(default)]
    fast_checkpoint: bool,
    #[serde(default)]
    trust_times: bool,
    #[serde(default)]
    wal_summaries: bool,
    #[serde(default = "yes")]
    page_checksums: bool,
    read_limit: Option<ByteSize>,
    #[serde(default)]
    log: Log,
    log_wait: Option<Span>,
    #[serde(default)]
    record: Vec<TableName>,
    dump: Option<DumpSettings>,
}

/// How a cluster is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Physical,
    PhysicalSql,
    Logical,
}

/// Where its log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Log {
    /// Into the repository of the backup: there is no snapshot without it.
    #[default]
    Archived,
    /// To somewhere that this program does not know.
    Elsewhere,
}

fn yes() -> bool {
    true
}

impl PostgresSettings {
    /// What these settings of a source say.
    ///
    /// # Errors
    ///
    /// Settings that the kind does not have, or that contradict each other, by name.
    pub fn of(settings: &Settings) -> Result<Self> {
        let parsed: Self = settings.parse()?;
        match (parsed.mode, &parsed.pgdata) {
            (Some(Mode::Physical), None) => {
                Err(settings.error("`physical` reads the data directory: say which in `pgdata`"))
            }
            (Some(Mode::PhysicalSql), Some(_)) => {
                Err(settings.error("`physical-sql` reads no directory: leave `pgdata` out"))
            }
            (Some(Mode::Logical), Some(_)) => {
                Err(settings.error("dumps read no directory: leave `pgdata` out"))
            }
            (Some(Mode::Logical), None) if !parsed.record.is_empty() || parsed.slot.is_some() => {
                Err(settings.error("dumps have no log: leave `record` and `slot` out"))
            }
            (mode, _) if mode != Some(Mode::Logical) && parsed.dump.is_some() => {
                Err(settings.error("`dump` is about mode = \"logical\""))
            }
            _ if parsed.log == Log::Elsewhere && parsed.log_wait.is_some() => {
                Err(settings
                    .error("a log that is archived elsewhere is not waited for: leave `log_wait` out"))
            }
            _ => Ok(parsed),
        }
    }

    /// The server, with its password if the settings say where that is.
    ///
    /// # Errors
    ///
    /// What cannot be parsed; a secret that is not there.
    pub async fn connect(&self, settings: &Settings, context: &BuildContext) -> Result<Connect> {
        let connect = Connect::parse(&self.connection).map_err(|error| settings.error(error))?;
        let Some(reference) = &self.password else { return Ok(connect) };
        let secret = context.secret(reference).await?;
        let text = std::str::from_utf8(secret.expose());
        let text = text.map_err(|_| settings.error("the password is not UTF-8 text"))?;
        Ok(connect.with_password(text))
    }

    /// The replication slot through which its log is received.
    pub fn slot(&self) -> Option<&str> {
        self.slot.as_deref()
    }

    /// Tables that are counted after each backup.
    pub fn recorded_tables(&self) -> &[TableName] {
        &self.record
    }

    /// Whether its files are read over SQL.
    pub fn is_read_over_sql(&self) -> bool {
        self.pgdata.is_none()
    }

    /// Whether its databases are dumped, and not its files read.
    pub fn is_dumped(&self) -> bool {
        self.mode == Some(Mode::Logical)
    }

    /// Whether its log is archived in the repository of its backups.
    pub fn has_archived_log(&self) -> bool {
        self.log == Log::Archived && !self.is_dumped()
    }

    fn builder(
        &self,
        connect: Connect,
        settings: &Settings,
        context: &BuildContext,
    ) -> Result<PostgresSourceBuilder> {
        let mut builder = PostgresSource::builder(connect)
            .mode(self.kind)
            .fast_checkpoint(self.fast_checkpoint)
            .trust_times(self.trust_times)
            .wal_summaries(self.wal_summaries)
            .verify_checksums(self.page_checksums);
        if let Some(connections) = self.connections {
            builder = builder.connections(connections);
        }
        if let Some(directory) = &self.pgdata {
            builder = builder.data_directory(context.path(directory));
        }
        if let Some(name) = &self.cluster {
            builder = builder.named(name);
        }
        if let Some(limit) = self.read_limit {
            let rate = RateLimit::default();
            rate.set_bytes_per_second(Some(limit.bytes()));
            builder = builder.read_limit(rate);
        }
        if self.log == Log::Elsewhere {
            return Ok(builder);
        }
        let archive = context.lent::<Arc<dyn ArchivedSegments>>().ok_or_else(|| {
            settings.error(
                "nobody here can tell whether the log is archived, without which no backup is of use; where it is archived \
                 by other means, say log = \"elsewhere\"",
            )
        })?;
        let patience = self.log_wait.map_or(LOG_WAIT, Span::duration);
        Ok(builder.wait_for_archive(archive.clone(), patience))
    }
}

/// Makes the source. A program that has an archive of the log [lends](BuildContext::lending) it as `Arc<dyn ArchivedSegments>`.
pub(crate) async fn postgres(settings: Settings, context: BuildContext) -> Result<Arc<dyn Source>> {
    let parsed = PostgresSettings::of(&settings)?;
    let connect = parsed.connect(&settings, &context).await?;
    if parsed.is_dumped() {
        let mut builder = parsed.dump.clone().unwrap_or_default().builder(connect, &context);
        if let Some(name) = &parsed.cluster {
            builder = builder.named(name);
        }
        return Ok(Arc::new(builder.build().map_err(|error: Error| settings.error(error))?));
    }
    let built = parsed.builder(connect, &settings, &context)?.build();
    Ok(Arc::new(built.map_err(|error: Error| settings.error(error))?))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use backup_core::config::{Component, Registry};

    use super::*;
    use crate::postgres::wal::SegmentName;

    #[derive(Debug)]
    struct Everything;

    #[async_trait]
    impl ArchivedSegments for Everything {
        async fn missing(&self, _: u64, _: &[SegmentName]) -> Result<Option<SegmentName>> {
            Ok(None)
        }
    }

    fn component() -> Component {
        Component::new("postgres").with("connection", "host=/run/postgresql user=backup")
    }

    async fn made(component: &Component, context: &BuildContext) -> Result<Arc<dyn Source>> {
        let mut registry = Registry::new();
        crate::register(&mut registry);
        registry.make_source(component, "b.toml", "sources.x", context).await
    }

    #[tokio::test]
    async fn a_server_is_configured() {
        let context = BuildContext::default().lending::<Arc<dyn ArchivedSegments>>(Arc::new(Everything));
        let whole = component()
            .with("cluster", "warehouse")
            .with("mode", "physical")
            .with("pgdata", "/srv/pg")
            .with("type", "full")
            .with("connections", 3)
            .with("read_limit", "50M")
            .with("log_wait", "10m");
        let source = made(&whole, &context).await.unwrap();
        assert_eq!(
            (source.info().kind.as_str(), &source.info().identity[..]),
            ("postgres", &["warehouse".to_owned()][..])
        );
        made(&component().with("log", "elsewhere"), &BuildContext::default()).await.unwrap();
        let dump = serde_json::json!({ "databases": ["shop"], "globals": "without_passwords" });
        let dumped = component().with("mode", "logical").with("cluster", "orders").with("dump", dump);
        let source = made(&dumped, &BuildContext::default()).await.unwrap();
        assert_eq!(source.info().identity, ["orders", "logical", "database shop"]);
    }

    #[tokio::test]
    async fn settings_that_make_no_sense_are_refused_by_name() {
        let context = BuildContext::default().lending::<Arc<dyn ArchivedSegments>>(Arc::new(Everything));
        for (component, expected) in [
            (Component::new("postgres"), "missing field `connection`"),
            (component().with("connection", "host"), "key=value"),
            (component().with("mode", "physical"), "say which in `pgdata`"),
            (component().with("mode", "physical-sql").with("pgdata", "/srv"), "leave `pgdata` out"),
            (component().with("mode", "quickly"), "unknown variant"),
            (component().with("mode", "logical").with("pgdata", "/srv"), "leave `pgdata` out"),
            (component().with("mode", "logical").with("slot", "a"), "leave `record` and `slot` out"),
            (component().with("dump", serde_json::json!({})), "mode = \"logical\""),
            (
                component().with("mode", "logical").with("dump", serde_json::json!({ "format": "plain" })),
                "sources.x.dump.format: unknown variant",
            ),
            (
                component()
                    .with("mode", "logical")
                    .with("dump", serde_json::json!({ "format": "directory" })),
                "scratch directory",
            ),
            (component().with("type", "half"), "unknown variant"),
            (component().with("log", "elsewhere").with("log_wait", "1m"), "leave `log_wait` out"),
            (component().with("connections", 1000), "1000 connections"),
            (component().with("password", "hunter2"), "sources.x.password"),
        ] {
            let error = made(&component, &context).await.unwrap_err().to_string();
            assert!(error.starts_with("b.toml: sources.x") && error.contains(expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn without_an_archive_to_wait_for_there_is_no_backup() {
        let error = made(&component(), &BuildContext::default()).await.unwrap_err().to_string();
        assert!(error.contains("log = \"elsewhere\""), "{error}");
    }
}
