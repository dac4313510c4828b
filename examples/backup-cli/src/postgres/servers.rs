//! The servers that a configuration names, and how well their logs are archived.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::config::{BuildContext, Component, Settings};
use backup_core::report::{HealthReport, HealthStatus};
use backup_core::repository::{Done, Repository};
use backup_sources::postgres::drill::RecordedMoment;
use backup_sources::postgres::health::{Expected, ServerState, judge_drills, judge_log};
use backup_sources::postgres::physical::ArchivedSegments;
use backup_sources::postgres::recovery::BaseBackup;
use backup_sources::postgres::{Connect, PostgresSettings};

use super::{InArchive, Places};
use crate::context::{Context, Location, host};
use crate::exit::{Failure, Outcome};
use crate::output::PROGRAM;

/// How long a recording waits for those who write.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// Recorded moments that are read to find the newest that fits.
const MOMENTS_READ_MAX: usize = 100;

/// A server, and what is known of it beside.
#[derive(Debug)]
pub struct KnownServer {
    /// How to get there.
    pub connect: Connect,
    /// The slot through which its log is received.
    pub slot: Option<String>,
}

/// A server by its connection, or by the source of the configuration that has it.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(multiple = false)]
pub struct ServerArgs {
    /// The server: a URL or words as libpq has them; a password belongs into PGPASSWORD, PGPASSFILE or ~/.pgpass
    #[arg(long, value_name = "CONNECTION")]
    connection: Option<String>,
    /// The source of the configuration that is the server
    #[arg(long = "server", value_name = "NAME")]
    named: Option<String>,
}

impl ServerArgs {
    /// The server, if one was named.
    pub async fn server(&self, context: &Context) -> Outcome<Option<KnownServer>> {
        if let Some(connection) = &self.connection {
            let connect = Connect::parse(connection).map_err(Failure::input)?;
            return Ok(Some(KnownServer { connect, slot: None }));
        }
        let Some(name) = &self.named else { return Ok(None) };
        let config = context.need_config()?;
        let unknown = || Failure::usage(format!("the configuration has no source `{}`", name.escape_debug()));
        let component = config.sources.get(name).ok_or_else(unknown)?;
        context.configured_server(name, component).await.map(Some)
    }
}

impl Context {
    /// What the configuration says of a server.
    pub fn postgres_settings(
        &self,
        name: &str,
        component: &Component,
    ) -> Outcome<(Settings, PostgresSettings)> {
        let settings = Settings::new(self.file(), format!("sources.{name}"), component.settings.clone());
        let parsed = PostgresSettings::of(&settings).map_err(Failure::input)?;
        Ok((settings, parsed))
    }

    /// The server that a source is.
    pub async fn configured_server(&self, name: &str, component: &Component) -> Outcome<KnownServer> {
        if component.kind != "postgres" {
            let message = format!("the source `{name}` is of the kind `{}`, and no server", component.kind);
            return Err(Failure::usage(message));
        }
        let (settings, parsed) = self.postgres_settings(name, component)?;
        let connect = parsed.connect(&settings, &self.build()).await.map_err(Failure::input)?;
        Ok(KnownServer { connect, slot: parsed.slot().map(str::to_owned) })
    }

    /// What the source of a job is made with: that of a server waits until its log is in the job's repository.
    pub async fn build_source(&self, component: &Component, location: &Location) -> Outcome<BuildContext> {
        let build = self.build();
        let waits = |(_, parsed): (_, PostgresSettings)| parsed.has_archived_log();
        if component.kind != "postgres" || !self.postgres_settings("", component).is_ok_and(waits) {
            return Ok(build);
        }
        let archive = self.wal_archive_at(location, Places::Required, None).await?.archive;
        Ok(build.lending::<Arc<dyn ArchivedSegments>>(InArchive::new(archive, self.job())))
    }

    /// Records what tables have after a backup, where the configuration says so: as evidence of the kind `moment`, for drills.
    pub async fn record_moment(
        &self,
        name: &str,
        component: &Component,
        repository: &Repository,
    ) -> Outcome<()> {
        let (_, parsed) = self.postgres_settings(name, component)?;
        if parsed.recorded_tables().is_empty() {
            return Ok(());
        }
        let (began, started) = (self.job().now(), Instant::now());
        let server = self.configured_server(name, component).await?;
        let moment = RecordedMoment::take(&server.connect, parsed.recorded_tables(), LOCK_PATIENCE).await?;
        let done = Done {
            kind: "moment",
            time: began,
            seconds: started.elapsed().as_secs_f64(),
            host: &host(),
            program: PROGRAM,
            passed: true,
            verified: None,
            report: &moment,
        };
        repository.record(&done, &self.job()).await?;
        Ok(())
    }

    /// The newest recorded moment of a cluster that a base backup leads to.
    pub async fn recorded_moment(
        &self,
        base: &BaseBackup,
        repository: &Repository,
    ) -> Outcome<RecordedMoment> {
        let found = repository.evidence(Some("moment"), MOMENTS_READ_MAX, &self.job()).await?;
        let moments = found
            .into_iter()
            .filter_map(|evidence| serde_json::from_str::<RecordedMoment>(&evidence.document.report).ok());
        let mut fitting = moments.filter(|moment| {
            moment.system_identifier == base.system_identifier && moment.lsn >= base.stop_lsn
        });
        fitting.next().ok_or_else(|| {
            Failure::nothing(format!(
                "nothing was recorded after the backup {}: name tables in `record` of its source, and run its job",
                base.id
            ))
        })
    }

    /// The servers whose backups and log go to the repository of this name.
    async fn servers_of(&self, repository: &str) -> Vec<(String, Outcome<KnownServer>)> {
        let Some(config) = self.config.clone() else { return Vec::new() };
        let mut servers = Vec::new();
        for (name, component) in config.sources.iter().filter(|(_, component)| component.kind == "postgres") {
            let goes_there =
                config.jobs.values().any(|job| job.source == *name && job.repository == repository);
            let server = match self.postgres_settings(name, component) {
                _ if !goes_there => continue,
                Ok((_, parsed)) if !parsed.has_archived_log() => continue,
                Ok(_) => self.configured_server(name, component).await,
                Err(failure) => Err(failure),
            };
            servers.push((name.clone(), server));
        }
        servers
    }

    /// Judges the logs in a repository, those of the servers that are known and all others that are there, and drills.
    pub async fn judge_postgres(
        &self,
        repository: &Repository,
        given: Option<KnownServer>,
        (max_lag, max_drill_age): (Option<Duration>, Option<Duration>),
        report: &mut HealthReport,
    ) -> Outcome<()> {
        let (location, job) = (self.location()?, self.job());
        judge_drills(repository, max_drill_age, report, &job).await?;
        let name = location.shown.split('@').next().unwrap_or(&location.shown).to_owned();
        let mut servers = match given {
            Some(server) => vec![("server".to_owned(), Ok(server))],
            None => self.servers_of(&name).await,
        };
        let archive = self.wal_archive_at(&location, Places::Answering, None).await?.archive;
        let mut unknown = archive.systems(&job).await?;
        if servers.is_empty() && unknown.is_empty() {
            return Ok(());
        }
        let (snapshots, _) = repository.snapshots_and_damage(&job).await?;
        let expected = Expected { max_lag };
        for (name, server) in servers.drain(..) {
            let state = match server {
                Ok(server) => {
                    ServerState::of(&server.connect, server.slot.as_deref()).await.map_err(Failure::from)
                }
                Err(failure) => Err(failure),
            };
            match state {
                Ok(state) => {
                    unknown.retain(|system| *system != state.system_identifier);
                    judge_log(&archive, Some(&state), &snapshots, &expected, report, &job).await?;
                }
                Err(failure) => {
                    let message = format!("does not answer: {}", failure.message);
                    report.add(format!("server {name}"), HealthStatus::Critical, message);
                }
            }
        }
        for system in unknown {
            let archive = archive.clone().of_system(system);
            judge_log(&archive, None, &snapshots, &expected, report, &job).await?;
        }
        Ok(())
    }
}
