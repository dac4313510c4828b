//! Several places of one repository: the first that answers, all together, and bringing to each what it lacks.

use std::sync::Arc;

use backup_core::config::{Access, Place as Where};
use backup_core::report::ReplicateReport;
use backup_core::repository::{CaughtUp, Place, PlaceOptions, Places, ReplicateOptions, Repository};
use backup_core::{Error, ErrorKind, RetentionPolicy, SnapshotId};
use serde::Serialize;

use crate::context::{self, Context, Location};
use crate::exit::{Exit, Failure, Outcome};

/// Where a snapshot is, once it was brought to all places that answer.
#[derive(Debug, Clone, Serialize)]
pub struct Settled {
    /// Whether every required place has it.
    pub acknowledged: bool,
    /// Each place.
    pub places: Vec<SettledPlace>,
}

/// One place of them.
#[derive(Debug, Clone, Serialize)]
pub struct SettledPlace {
    /// The place.
    pub name: String,
    /// Whether it must have what is acknowledged.
    pub required: bool,
    /// Whether it has it, or need not have it yet.
    pub stored: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Settled {
    /// What is wrong, a line a place.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.places.iter().filter(|place| !place.stored).map(|place| {
            let required = if place.required { "the required place" } else { "the place" };
            let why = place.error.as_deref().unwrap_or("it is behind");
            let SettledPlace { name, .. } = place;
            format!(
                "{required} {name} does not have the snapshot: {why}; `backup places sync` brings it there"
            )
        })
    }
}

impl Context {
    /// Opens the repository of `--repo` at the first of its places that answers, and says which that is where it is another
    /// one than the first.
    pub async fn repository_anywhere(&mut self) -> Outcome<Repository> {
        let location = self.location()?;
        let (repository, at) = self.open_anywhere(&location).await?;
        if let Some(why) = at {
            self.console.say(why);
        }
        Ok(repository)
    }

    /// Opens the repository at the first of its places that answers. Returns why the first of all did not, and which did.
    pub async fn open_anywhere(&self, location: &Location) -> Outcome<(Repository, Option<String>)> {
        let failure = match self.open(location).await {
            Ok(repository) => return Ok((repository, None)),
            // The same elsewhere.
            Err(failure) if matches!(failure.kind, "usage" | "denied" | "cancelled") => return Err(failure),
            Err(failure) => failure,
        };
        for (at, other) in location.others.iter().enumerate() {
            let Ok(repository) = self.open(&location.beginning_with(at)).await else { continue };
            let why = format!("{} ({}): {} is used", location.shown, failure.message, other.shown);
            return Ok((repository, Some(why)));
        }
        Err(failure)
    }

    /// All places of the repository at a location.
    pub async fn places(&self, location: &Location) -> Outcome<Places> {
        let mut places = Vec::new();
        for (place, opened) in self.open_each(location, |_| true).await {
            let repository = match opened {
                Ok(repository) => Ok(repository),
                Err(failure) if matches!(failure.kind, "usage" | "denied" | "cancelled") => {
                    return Err(failure);
                }
                Err(failure) => Err(Error::new(kind(&failure), failure.message)),
            };
            places.push(Place { options: self.place_options(place)?, repository });
        }
        Places::new(places).map_err(Failure::input)
    }

    /// Opens the repository in those of its places that are wanted; the others are left alone. The keys are unlocked once.
    pub async fn open_each<'a>(
        &self,
        location: &'a Location,
        is_wanted: impl Fn(&Location) -> bool,
    ) -> Vec<(&'a Location, Outcome<Repository>)> {
        let mut known: Option<Repository> = None;
        let mut places = Vec::new();
        for place in location.all().into_iter().filter(|place| is_wanted(place)) {
            let opened = match &known {
                None => self.open_directly(place).await,
                Some(known) => match self.sink(place, Access::Open).await {
                    Ok(sink) => known.open_place(sink, &self.job()).await.map_err(Failure::from),
                    Err(failure) => Err(failure),
                },
            };
            if let Ok(repository) = &opened {
                known.get_or_insert_with(|| repository.clone());
            }
            places.push((place, opened));
        }
        places
    }

    fn place_options(&self, location: &Location) -> Outcome<PlaceOptions> {
        let purpose = &location.purpose;
        Ok(PlaceOptions {
            name: location.shown.clone(),
            required: purpose.required,
            medium: Some(purpose.medium.clone().unwrap_or_else(|| medium(&location.place))),
            off_site: purpose.off_site,
            older_than: purpose.older_than,
            policy: purpose.policy.as_ref().map(|name| self.policy(name)).transpose()?,
        })
    }

    /// The policy that the configuration calls `name`.
    pub fn policy(&self, name: &str) -> Outcome<Arc<dyn RetentionPolicy>> {
        let config = self.need_config()?;
        let missing = || Failure::usage(format!("the configuration has no policy `{name}`"));
        let component = config.policies.get(name).ok_or_else(missing)?;
        let policy = self.registry.make_policy(component, &self.file(), &format!("policies.{name}"));
        policy.map_err(Failure::input)
    }

    async fn settled(&self, place: &Place, caught_up: CaughtUp, snapshot: SnapshotId) -> SettledPlace {
        let CaughtUp { name, required, result } = caught_up;
        let mut error = match &result {
            Ok(report) => why_not(report, snapshot),
            Err(error) => Some(error.clone()),
        };
        // What is acknowledged is looked at: that nothing is known to be missing is not enough, since the place that has the
        // snapshot may have stopped answering.
        if let (true, None, Ok(report), Ok(repository)) = (required, &error, &result, &place.repository) {
            let brought = report.snapshots.iter().find(|brought| brought.snapshot == snapshot);
            let id = brought.map_or(snapshot, |brought| brought.replica);
            error = repository.snapshot(id, &self.job()).await.err().map(|error| error.to_string());
        }
        SettledPlace { name, required, stored: error.is_none(), error }
    }

    /// Brings a new snapshot, and whatever else is missing, to all places of its repository that answer; none where there is
    /// only one place.
    pub async fn settle(
        &self,
        location: &Location,
        snapshot: Option<SnapshotId>,
    ) -> Outcome<Option<Settled>> {
        let Some(snapshot) = snapshot.filter(|_| !location.others.is_empty()) else { return Ok(None) };
        let places = self.places(location).await?;
        let caught_up = places.catch_up(&options(), &self.job()).await?;
        let mut settled_places = Vec::new();
        for (place, caught_up) in places.all().iter().zip(caught_up) {
            settled_places.push(self.settled(place, caught_up, snapshot).await);
        }
        let places = settled_places;
        let acknowledged = places.iter().all(|place| place.stored || !place.required);
        Ok(Some(Settled { acknowledged, places }))
    }
}

impl Context {
    /// Brings the sets of a repository to all of its places that answer. Says what is wrong, a line a place, and whether that place
    /// is a required one.
    pub async fn settle_sets(&self, location: &Location) -> Outcome<Vec<(bool, String)>> {
        if location.others.is_empty() {
            return Ok(Vec::new());
        }
        let carried = self.places(location).await?.carry_sets(&self.job()).await?;
        let problems = carried.into_iter().filter_map(|CaughtUp { name, required, result }| {
            let place = if required { "the required place" } else { "the place" };
            let why = result.err()?;
            let line =
                format!("{place} {name} does not have the set: {why}; `backup places sync` brings it there");
            Some((required, line))
        });
        Ok(problems.collect())
    }
}

fn why_not(report: &ReplicateReport, snapshot: SnapshotId) -> Option<String> {
    let object = format!("snapshots/{snapshot}");
    if report.busy.contains(&snapshot) {
        return Some("another process is bringing it there".to_owned());
    }
    let damaged = report.damaged_objects.iter().find(|damaged| damaged.object == object);
    damaged.map(|damaged| damaged.reason.clone())
}

/// How this program replicates.
pub fn options() -> ReplicateOptions {
    ReplicateOptions { host: context::host() }
}

/// What a place is on, where nobody says: what its kind or its URL's scheme is.
fn medium(place: &Where) -> String {
    match place {
        Where::Url(url) => Where::scheme(url).unwrap_or("file").to_owned(),
        Where::Kind(component) if component.kind == "local" => "file".to_owned(),
        Where::Kind(component) => component.kind.clone(),
    }
}

fn kind(failure: &Failure) -> ErrorKind {
    match failure.kind {
        "not_found" => ErrorKind::NotFound,
        "corruption" => ErrorKind::Corruption,
        "transient" => ErrorKind::Transient,
        _ => ErrorKind::Io,
    }
}

/// How a command ends whose snapshot is in these places.
pub fn exit(exit: Exit, settled: Option<&Settled>) -> Exit {
    if settled.is_some_and(|settled| !settled.acknowledged) { Exit::Failed } else { exit }
}
