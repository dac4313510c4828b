//! What the commands about PostgreSQL share: archives of logs in the places of a repository.

mod servers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::repository::Repository;
use backup_core::{Error, ErrorKind, JobContext, Result, SnapshotInfo};
use backup_sources::postgres::Lsn;
use backup_sources::postgres::archive::{LogLook, WalArchive};
use backup_sources::postgres::physical::ArchivedSegments;
use backup_sources::postgres::recovery::{
    BaseBackup, LogInventory, RecoveryTarget, StopAt, TargetTimeline, parse_time,
};
use backup_sources::postgres::wal::SegmentName;

pub use self::servers::ServerArgs;
use crate::context::{Context, Location};
use crate::exit::{Failure, Outcome};

/// An archive of a log, and what of it does not answer.
#[derive(Debug)]
pub struct Opened {
    /// The log in the places that answer.
    pub archive: WalArchive,
    /// Why each of the other places does not; nothing is proven to be nowhere then.
    pub silent: Vec<Failure>,
}

/// Which places a log is opened in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// Those that must have what is acknowledged; each of them must answer.
    Required,
    /// All that answer.
    Answering,
}

impl Context {
    /// The log in the places of `--repo`, of the cluster `system` if that is given.
    pub async fn wal_archive(&self, which: Places, system: Option<u64>) -> Outcome<Opened> {
        self.wal_archive_at(&self.location()?, which, system).await
    }

    /// The same, at a location.
    pub async fn wal_archive_at(
        &self,
        location: &Location,
        which: Places,
        system: Option<u64>,
    ) -> Outcome<Opened> {
        let mut repositories: Vec<Repository> = Vec::new();
        let mut silent = Vec::new();
        if location.others.is_empty() {
            repositories.push(self.open_directly(location).await?);
        } else {
            // What is brought to an archive of snapshots later is no copy of the log; and what need not have what is acknowledged is not
            // asked for it, wherever its secrets are.
            let is_wanted = |place: &Location| {
                place.purpose.older_than.is_none() && (which == Places::Answering || place.purpose.required)
            };
            for (place, opened) in self.open_each(location, is_wanted).await {
                let failure = match opened {
                    Ok(repository) => {
                        repositories.push(repository);
                        continue;
                    }
                    Err(failure) if failure.kind == "cancelled" => return Err(failure),
                    Err(failure) => failure,
                };
                let message = format!("the place {} does not answer: {}", place.shown, failure.message);
                let failure = Failure { message, ..failure };
                if which == Places::Required {
                    return Err(failure);
                }
                silent.push(failure);
            }
        }
        if repositories.is_empty()
            && let Some(failure) = silent.pop()
        {
            return Err(failure);
        }
        let mut archive = WalArchive::new(repositories)?;
        if let Some(failure) = silent.first() {
            archive = archive.lacking(&failure.message);
        }
        if let Some(system) = system {
            archive = archive.of_system(system);
        }
        Ok(Opened { archive, silent })
    }
}

/// Tells a backup whether the log that it needs is in an archive.
#[derive(Debug)]
pub struct InArchive {
    archive: WalArchive,
    job: JobContext,
}

impl InArchive {
    /// How long a backup waits for the last segment, where nobody says.
    pub const PATIENCE: Duration = Duration::from_secs(300);

    /// Asks this archive.
    pub fn new(archive: WalArchive, job: JobContext) -> Arc<Self> {
        Arc::new(Self { archive, job })
    }
}

#[async_trait]
impl ArchivedSegments for InArchive {
    async fn missing(&self, system_identifier: u64, segments: &[SegmentName]) -> Result<Option<SegmentName>> {
        let archive = self.archive.clone().of_system(system_identifier);
        archive.first_missing(segments, &self.job).await
    }
}

/// An error of what a command was given, about the cluster or its log.
pub fn refused(message: impl Into<String>) -> Failure {
    Error::new(ErrorKind::InvalidInput, message).into()
}

/// The moment that a cluster is recovered to; none given: the end of what is archived.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Target")]
#[group(multiple = false)]
pub struct Moment {
    /// A time with its zone: 2026-11-20T08:00:00Z, '2026-11-20 08:00:00+01'
    #[arg(long, value_name = "TIME")]
    target_time: Option<String>,
    /// A position in the log, like 0/3000060
    #[arg(long, value_name = "LSN")]
    target_lsn: Option<Lsn>,
    /// A transaction, by its number
    #[arg(long, value_name = "NUMBER")]
    target_xid: Option<u64>,
    /// A restore point, by its name
    #[arg(long, value_name = "NAME")]
    target_name: Option<String>,
    /// The end of the backup, as soon as the files are consistent
    #[arg(long)]
    target_immediate: bool,
}

/// The target of a recovery.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    #[command(flatten)]
    moment: Moment,
    /// Stop just before the target, not just after it
    #[arg(long, help_heading = "Target")]
    target_exclusive: bool,
    /// The timeline: latest, current (that of the backup) or a number
    #[arg(long, value_name = "TIMELINE", default_value = "latest", help_heading = "Target")]
    timeline: TargetTimeline,
}

impl Target {
    /// The target.
    pub fn target(&self) -> Outcome<RecoveryTarget> {
        let Moment { target_time, target_lsn, target_xid, target_name, target_immediate } = &self.moment;
        let mut target = match (target_time, target_lsn, target_xid, target_name) {
            (Some(time), ..) => RecoveryTarget::time(parse_time(time).map_err(Failure::input)?),
            (_, Some(lsn), ..) => RecoveryTarget::lsn(*lsn),
            (_, _, Some(xid), _) => RecoveryTarget::xid(*xid),
            (.., Some(name)) => RecoveryTarget::name(name.clone()),
            _ if *target_immediate => RecoveryTarget::immediate(),
            _ => RecoveryTarget::latest(),
        };
        if self.target_exclusive {
            target = target.exclusive();
        }
        target.check().map_err(Failure::input)?;
        Ok(target.on(self.timeline))
    }
}

/// How thoroughly the log is looked at before a recovery.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Log")]
pub struct Looking {
    /// Do not read the log before it is needed: what it has of segments is believed, their bytes are only checked when the server asks
    /// for them
    #[arg(long)]
    unread_log: bool,
    /// Take a target on trust that nothing in the archive proves to be there; the server still refuses to come up without it
    #[arg(long)]
    allow_unproven: bool,
}

impl Looking {
    /// Whether targets are taken on trust.
    pub fn is_trusting(&self) -> bool {
        self.allow_unproven
    }

    /// What the archive has for these base backups, of one cluster.
    pub async fn inventory(
        &self,
        bases: &[(BaseBackup, SnapshotInfo)],
        target: &RecoveryTarget,
        context: &Context,
    ) -> Outcome<LogInventory> {
        let Some((newest, _)) = bases.last() else { return Ok(LogInventory::default()) };
        let opened = context.wal_archive(Places::Answering, Some(newest.system_identifier)).await?;
        // From which of them the recovery begins only the plan says: the log is read from the newest on that can be it.
        let from = match target.stop {
            // It may lie anywhere.
            StopAt::Xid(_) | StopAt::Name(_) => bases.iter().map(|(base, _)| base.start_lsn).min(),
            _ => bases.iter().rev().find(|(base, _)| can_lead(base, target)).map(|(base, _)| base.start_lsn),
        };
        let look = if self.unread_log { LogLook::Outlines } else { LogLook::Contents };
        // A transaction may end in a base backup's last segment, before or after the backup does.
        let closely: Vec<SegmentName> = match target.stop {
            StopAt::Xid(_) => bases.iter().map(|(base, _)| base.last_segment()).collect(),
            _ => Vec::new(),
        };
        let (from, job) = (from.unwrap_or(newest.start_lsn), context.job());
        Ok(opened.archive.inventory_with_ends(from, look, &closely, &job).await?)
    }
}

impl Context {
    /// What a recovering server runs to get the log of its cluster from this repository: this program with the options that lead there.
    /// Secrets are not among them: the server needs the files that have them, or the same variables.
    pub fn restore_command(&self, system: u64) -> Outcome<String> {
        let program = std::env::current_exe().map_err(|e| {
            refused(format!("this program does not know where it is, and no server could call it: {e}"))
        })?;
        let mut words = vec![program.into_os_string()];
        let path =
            |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
        let global = &self.global;
        if let Some(config) = &global.config {
            words.extend(["--config".into(), path(config)]);
        }
        if let Some(repo) = global.repo.as_deref().filter(|repo| !repo.is_empty()) {
            let is_configured = self.config.as_ref().is_some_and(|config| {
                config.repositories.contains_key(repo.split('@').next().unwrap_or(repo))
            });
            let is_url = repo.contains("://") || is_configured;
            words.extend(["--repo".into(), if is_url { repo.into() } else { path(Path::new(repo)) }]);
        }
        for place in &global.places {
            let is_url = place.contains("://");
            words.extend(["--place".into(), if is_url { place.into() } else { path(Path::new(place)) }]);
        }
        let files = [
            ("--password-file", &global.password_file),
            ("--key-file", &global.key_file),
            ("--cache-dir", &global.cache_dir),
        ];
        for (option, file) in files {
            if let Some(file) = file {
                words.extend([option.into(), path(file)]);
            }
        }
        let mut command = String::new();
        for word in words {
            let word = word.to_str().map(str::to_owned);
            let word =
                word.ok_or_else(|| refused("a path that is not text cannot stand in restore_command"))?;
            command.push_str(&quoted(&word));
            command.push(' ');
        }
        // The repository may have logs of several clusters, and the log of another one is never right.
        command.push_str(&format!("log fetch --system {system} %f %p"));
        Ok(command)
    }
}

/// Whether a base backup can lead to a target, as far as it can be said without the log.
pub fn can_lead(base: &BaseBackup, target: &RecoveryTarget) -> bool {
    match target.stop {
        StopAt::Time(time) => base.stop_time <= time,
        StopAt::Lsn(lsn) => base.stop_lsn <= lsn,
        _ => true,
    }
}

/// A word as a shell reads it, in which `%` means nothing to the server.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@=+,".contains(c);
    let shell = match word.chars().all(is_plain) && !word.is_empty() {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    shell.replace('%', "%%")
}

/// A user's number, and that of the user's group, by name.
pub fn user(name: &str) -> Outcome<(u32, u32)> {
    let found = backup_sources::postgres::recovery::user_of(name)?;
    found.ok_or_else(|| Failure::usage(format!("there is no user `{name}` here")))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_reach_the_shell_as_they_are() {
        assert_eq!(quoted("/usr/bin/backup"), "/usr/bin/backup");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("100%f"), "'100%%f'");
        assert_eq!(quoted(""), "''");
    }
}
