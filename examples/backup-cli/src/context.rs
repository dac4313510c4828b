//! What every command works with: options, configuration, streams, the job, and the repository they lead to.

use std::sync::Arc;
use std::time::Duration;

use backup_core::Transform;
use backup_core::config::{
    Access, BuildContext, Component, Config, Place, Registry, ReplicaConfig, RepositoryConfig,
};
use backup_core::repository::{ConfigHeader, Repository, peek_config};
use backup_core::{
    CancellationToken, Error, ErrorKind, JobContext, Protection, Resources, Sink, Thaw, TransformSet,
    Unprotected,
};
use backup_crypto::{Keyring, Recipient};

use crate::args::Global;
use crate::cache::{self, CacheDirectory};
use crate::console::Console;
use crate::exit::{Failure, Outcome};
use crate::keys;
use crate::output::Output;
use crate::progress::Shown;
use crate::recording::Recording;

/// The surroundings of a command.
#[derive(Debug)]
pub struct Context {
    /// Kinds that may be named.
    pub registry: Registry,
    /// Options of every command.
    pub global: Global,
    /// The configuration, if one was given.
    pub config: Option<Arc<Config>>,
    /// Results.
    pub output: Output,
    /// Everything else.
    pub console: Console,
    /// How progress is shown.
    pub progress: Shown,
    /// Something that was asked for cannot be read, and was named: the command does not end as done.
    pub incomplete: bool,
    /// What is to be recorded at the end.
    pub recording: Recording,
    job: JobContext,
}

/// A repository as it was asked for, before it is opened.
#[derive(Debug, Clone)]
pub struct Location {
    /// How the user calls it.
    pub shown: String,
    /// Where it is.
    pub place: Place,
    /// What the configuration says of it.
    pub configured: Option<RepositoryConfig>,
    /// What this place is for.
    pub purpose: Purpose,
    /// The other places of the same repository.
    pub others: Vec<Location>,
    file: String,
    at: String,
    /// What unlocks it, where that is not what the options of every command say.
    unlocked_by: Option<Box<Global>>,
}

/// What a place of a repository is for.
#[derive(Debug, Clone, Default)]
pub struct Purpose {
    /// What is acknowledged must be there.
    pub required: bool,
    /// What it is on.
    pub medium: Option<String>,
    /// Whether it is somewhere else than what is backed up.
    pub off_site: bool,
    /// It holds only what is older.
    pub older_than: Option<Duration>,
    /// The name of the policy that says what is kept there.
    pub policy: Option<String>,
    /// How many hundredths of a series a plan may forget there unconfirmed.
    pub max_share: Option<u8>,
}

impl Location {
    /// This place and the others.
    pub fn all(&self) -> Vec<&Self> {
        std::iter::once(self).chain(&self.others).collect()
    }

    /// The same places, beginning with one of the others.
    #[must_use]
    pub fn beginning_with(&self, other: usize) -> Self {
        let mut others = self.others.clone();
        if other >= others.len() {
            return self.clone();
        }
        let chosen = others.remove(other);
        others.insert(0, Self { others: Vec::new(), ..self.clone() });
        Self { others, ..chosen }
    }

    /// The same, unlocked by what these options say.
    #[must_use]
    pub fn unlocked_by(mut self, options: Global) -> Self {
        self.unlocked_by = Some(Box::new(options));
        self
    }
}

impl Context {
    /// The surroundings for these options; `out` of the console becomes the output.
    pub fn new(
        registry: Registry,
        global: Global,
        mut console: Console,
        cancellation: CancellationToken,
    ) -> Self {
        let out = std::mem::replace(&mut console.out, Box::new(std::io::sink()));
        let output = Output::new(out, global.json);
        let progress = Shown::new(global.progress, console.draws);
        let mut resources = Resources::new();
        if let Some(workers) = global.jobs {
            resources = resources.with_workers(workers.into());
        }
        if let Some(mib) = global.memory_mib {
            let bytes = usize::try_from(mib).unwrap_or(usize::MAX).saturating_mul(backup_core::limits::MIB);
            resources = resources.with_memory_bytes(bytes);
        }
        resources.upload().set_bytes_per_second(global.limit_upload.map(|limit| limit.bytes()));
        resources.download().set_bytes_per_second(global.limit_download.map(|limit| limit.bytes()));
        let job = JobContext::new()
            .with_cancellation(cancellation)
            .with_resources(resources)
            .with_observer(progress.observer.clone());
        let recording = Recording::new(job.now());
        Self { registry, global, config: None, output, console, progress, incomplete: false, recording, job }
    }

    /// The job.
    pub fn job(&self) -> JobContext {
        self.job.clone()
    }

    /// Reads the configuration, if one was given.
    pub async fn load_config(&mut self) -> Outcome<()> {
        if let Some(path) = self.global.config.clone() {
            let config = tokio::task::spawn_blocking(move || Config::load(path)).await;
            let config = config.map_err(|_| Failure::usage("the configuration could not be read"))?;
            self.config =
                Some(Arc::new(config.map_err(|e| Failure { exit: crate::exit::Exit::Usage, ..e.into() })?));
        }
        Ok(())
    }

    /// The configuration, which the command needs.
    pub fn need_config(&self) -> Outcome<Arc<Config>> {
        self.config.clone().ok_or_else(|| {
            Failure::usage("this needs a configuration: give --config FILE or set BACKUP_CONFIG")
        })
    }

    /// Where the repository of `--repo` is.
    pub fn location(&self) -> Outcome<Location> {
        let location = match self.global.repo.as_deref().filter(|repo| !repo.is_empty()) {
            Some(repo) => self.named(repo, "--repo")?,
            None => {
                match self.config.as_ref().map(|c| c.repositories.keys().collect::<Vec<_>>()).as_deref() {
                    Some([name]) => self.configured(name)?,
                    _ => {
                        return Err(Failure::usage(
                            "no repository was given: give --repo URL or set BACKUP_REPO",
                        ));
                    }
                }
            }
        };
        match (&location.configured, self.global.places.is_empty()) {
            (_, true) => Ok(location),
            (Some(_), false) => {
                Err(Failure::usage("--place is for a repository that no configuration names; write it there"))
            }
            (None, false) => {
                let others = self.global.places.iter().map(|url| Location {
                    purpose: Purpose { required: true, ..Purpose::default() },
                    ..self.at_url(url, "--place")
                });
                Ok(Location { others: others.collect(), ..location })
            }
        }
    }

    /// Where the repository of this URL, path or configured name is; `option` is what gave it. `NAME@PLACE` is the place of a
    /// configured repository.
    pub fn named(&self, repo: &str, option: &str) -> Outcome<Location> {
        let is_configured =
            |name: &str| self.config.as_ref().is_some_and(|config| config.repositories.contains_key(name));
        match repo.split_once('@') {
            _ if is_configured(repo) => self.configured(repo),
            Some((name, place)) if is_configured(name) => self.configured_at(name, place),
            _ => Ok(self.at_url(repo, option)),
        }
    }

    fn at_url(&self, url: &str, option: &str) -> Location {
        Location {
            shown: url.to_owned(),
            place: Place::Url(url.to_owned()),
            configured: None,
            purpose: Purpose { required: true, ..Purpose::default() },
            others: Vec::new(),
            file: option.to_owned(),
            at: String::new(),
            unlocked_by: None,
        }
    }

    /// Where the configured repository `name` is, and its other places.
    pub fn configured(&self, name: &str) -> Outcome<Location> {
        let config = self.need_config()?;
        let missing = || Failure::usage(format!("the configuration has no repository `{name}`"));
        let repository = config.repositories.get(name).ok_or_else(missing)?;
        let at = |shown: String, place: &str, purpose: Purpose| {
            Ok(Location {
                shown,
                place: config.places.get(place).ok_or_else(missing)?.clone(),
                configured: Some(repository.clone()),
                purpose,
                others: Vec::new(),
                file: self.file(),
                at: format!("places.{place}"),
                unlocked_by: None,
            })
        };
        let RepositoryConfig { place, medium, off_site, policy, max_share_percent: max_share, .. } =
            repository.clone();
        let purpose = Purpose { required: true, medium, off_site, older_than: None, policy, max_share };
        let others = repository.replicas.iter().cloned().map(|replica| {
            let required = replica.is_required();
            let ReplicaConfig { place, medium, off_site, older_than, policy, max_share_percent, .. } =
                replica;
            let older_than = older_than.map(|span| span.duration());
            let max_share = max_share_percent;
            let purpose = Purpose { required, medium, off_site, older_than, policy, max_share };
            at(format!("{name}@{place}"), &place, purpose)
        });
        let others = others.collect::<Outcome<_>>()?;
        Ok(Location { others, ..at(name.to_owned(), &place, purpose)? })
    }

    /// Where one place of a configured repository is; the repository's other places are its others.
    fn configured_at(&self, name: &str, place: &str) -> Outcome<Location> {
        let first = self.configured(name)?;
        if first.configured.as_ref().is_some_and(|repository| repository.place == place) {
            return Ok(first);
        }
        let wanted = format!("{name}@{place}");
        let Some(at) = first.others.iter().position(|other| other.shown == wanted) else {
            let message = format!("the repository `{name}` has no place `{place}` in the configuration");
            return Err(Failure::usage(message));
        };
        Ok(first.beginning_with(at))
    }

    /// What errors call the configuration.
    pub fn file(&self) -> String {
        let file = self.config.as_ref().and_then(|config| config.file());
        file.map_or_else(|| "the configuration".into(), |file| file.display().to_string())
    }

    /// What things are made with.
    pub fn build(&self) -> BuildContext {
        BuildContext::new(self.job()).with_base(self.config.as_ref().and_then(|config| config.base()))
    }

    /// The sink at a location.
    pub async fn sink(&self, location: &Location, access: Access) -> Outcome<Arc<dyn Sink>> {
        // A path on the command line is meant from the working directory, one in a configuration from there.
        let base = location.configured.as_ref().and(self.config.as_ref()).and_then(|config| config.base());
        let build = BuildContext::new(self.job()).with_base(base).with_access(access);
        self.registry
            .make_sink(&location.place, &location.file, &location.at, &build)
            .await
            .map_err(Failure::input)
    }

    /// What asks for cold objects at a location; none where there are no such objects.
    pub async fn thaw(&self, location: &Location) -> Outcome<Option<Arc<dyn Thaw>>> {
        let base = location.configured.as_ref().and(self.config.as_ref()).and_then(|config| config.base());
        let build = BuildContext::new(self.job()).with_base(base);
        let made = self.registry.make_thaw(&location.place, &location.file, &location.at, &build).await;
        made.map_err(Failure::input)
    }

    /// Tries whether a store can hold a repository: whether it creates objects once, also for many callers at once.
    pub async fn probe(&self, sink: &Arc<dyn Sink>) -> Outcome<()> {
        Ok(self.job.until_cancelled(backup_sinks::probe(sink)).await?)
    }

    /// What unlocks the repository at a location.
    pub async fn recipients(&self, location: &Location) -> Outcome<Vec<Recipient>> {
        let named = location.configured.as_ref().map(|repository| repository.keys.as_slice());
        let options = location.unlocked_by.as_deref().unwrap_or(&self.global);
        keys::recipients(options, self.config.as_deref().zip(named)).await
    }

    /// The protection of the repository in `sink`: its keys unlocked, or none where it is not encrypted.
    pub async fn unlock(&self, location: &Location, sink: &Arc<dyn Sink>) -> Outcome<Arc<dyn Protection>> {
        let header = self.header(location, sink).await?;
        if header.encrypted {
            return Ok(self.keyring(location, sink).await?);
        }
        // Whoever can write to the store could put such a repository in the place of an encrypted one, and would be
        // given everything from then on.
        if !self.recipients(location).await?.is_empty() {
            let message = format!(
                "the repository {} is not encrypted, but a passphrase or key was given: if it should be encrypted, somebody \
                 has replaced it; if not, leave the passphrase or key out",
                location.shown
            );
            return Err(Error::new(ErrorKind::Denied, message).into());
        }
        Ok(Arc::new(Unprotected::new(header.repository)))
    }

    /// The configuration of a repository, as far as it can be read without a key.
    async fn header(&self, location: &Location, sink: &Arc<dyn Sink>) -> Outcome<ConfigHeader> {
        self.job.until_cancelled(peek_config(&**sink)).await.map_err(|e| match e.kind() {
            ErrorKind::NotFound => no_repository(&location.shown),
            _ => e.into(),
        })
    }

    /// The unlocked keys of the encrypted repository in `sink`.
    pub async fn keyring(&self, location: &Location, sink: &Arc<dyn Sink>) -> Outcome<Arc<Keyring>> {
        let shown = &location.shown;
        if !self.header(location, sink).await?.encrypted {
            let message = format!("the repository {shown} is not encrypted: it has no keys");
            return Err(Error::new(ErrorKind::Unsupported, message).into());
        }
        let recipients = self.recipients(location).await?;
        if recipients.is_empty() {
            let message = format!("the repository {shown} is encrypted: {}", keys::HOW);
            return Err(Failure { exit: crate::exit::Exit::Failed, kind: "denied", message });
        }
        Ok(Keyring::unlock(sink, &recipients, &self.job()).await?)
    }

    /// Opens the repository at a location. What is read often of a remote one is kept in the cache directory. What is damaged or
    /// missing there is read from its other places, which are asked when that happens.
    pub async fn open(&self, location: &Location) -> Outcome<Repository> {
        let repository = self.open_with(location, cache::directory(&self.global, &location.place)).await?;
        self.with_others(repository, location).await
    }

    /// The same without reading any copies.
    pub async fn open_directly_with_others(&self, location: &Location) -> Outcome<Repository> {
        self.with_others(self.open_directly(location).await?, location).await
    }

    async fn with_others(&self, repository: Repository, location: &Location) -> Outcome<Repository> {
        let mut others = Vec::new();
        for other in &location.others {
            match self.sink(other, Access::Open).await {
                Ok(sink) => others.push(repository.at(sink)),
                Err(failure) if failure.exit == crate::exit::Exit::Usage => return Err(failure),
                Err(failure) => {
                    tracing::warn!(place = other.shown, error = failure.message, "a place does not answer");
                }
            }
        }
        Ok(repository.with_others(others)?)
    }

    /// Opens it without reading any copies: for what must see the store itself.
    pub async fn open_directly(&self, location: &Location) -> Outcome<Repository> {
        self.open_with(location, None).await
    }

    async fn open_with(&self, location: &Location, cache: Option<CacheDirectory>) -> Outcome<Repository> {
        let sink = self.sink(location, Access::Open).await.map_err(|failure| match failure.kind {
            "not_found" => no_repository(&location.shown),
            _ => failure,
        })?;
        let transforms = self.transform_set()?;
        let expected = match &cache {
            Some(cache) => cache.expected_slots(&location.shown).await,
            None => Vec::new(),
        };
        // Far away each question that waits for the answer to another costs.
        let opening = Arc::new(backup_sinks::Opening::over(sink, expected));
        let mut sink: Arc<dyn Sink> = opening.clone();
        let protection = self.unlock(location, &sink).await?;
        if let Some(cache) = &cache {
            sink = cache.over(sink, protection.repository()).await?;
        }
        let repository = Repository::open(sink, protection, transforms, &self.job()).await?;
        if let Some(cache) = &cache {
            cache.expect_slots(&location.shown, opening.slots()).await;
        }
        Ok(repository)
    }

    /// Opens the repository of `--repo`.
    pub async fn repository(&self) -> Outcome<Repository> {
        self.open(&self.location()?).await
    }

    /// Opens the repository of `--repo` without reading any copies.
    pub async fn repository_directly(&self) -> Outcome<Repository> {
        self.open_directly(&self.location()?).await
    }

    /// What can be undone: the built-in transforms, and those of the configuration.
    fn transform_set(&self) -> Outcome<TransformSet> {
        let mut set = TransformSet::builtin();
        for (name, component) in self.config.iter().flat_map(|config| &config.transforms) {
            set = set.with(self.transform(name, component)?);
        }
        Ok(set)
    }

    /// What is applied to what is written to a location; none means the default.
    pub fn writing(&self, location: &Location) -> Outcome<Option<Vec<Arc<dyn Transform>>>> {
        let names = location.configured.as_ref().and_then(|repository| repository.transforms.as_ref());
        let (Some(names), Some(config)) = (names, &self.config) else { return Ok(None) };
        let component = |name: &String| {
            let missing = || Failure::usage(format!("the configuration has no transform `{name}`"));
            self.transform(name, config.transforms.get(name).ok_or_else(missing)?)
        };
        names.iter().map(component).collect::<Outcome<_>>().map(Some)
    }

    fn transform(&self, name: &str, component: &Component) -> Outcome<Arc<dyn Transform>> {
        let made = self.registry.make_transform(component, &self.file(), &format!("transforms.{name}"));
        made.map_err(Failure::input)
    }
}

/// The name of this host.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn no_repository(shown: &str) -> Failure {
    let message = format!("there is no repository at {shown}; `backup init` creates one");
    Failure { exit: crate::exit::Exit::Failed, kind: "not_found", message }
}
