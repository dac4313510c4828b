//! All places of one repository together: what each lacks, how far it lags, and catching up.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::replicate::Holdings;
use super::{ReplicateOptions, Repository, guard};
use crate::report::{PlaceReport, PlacesReport, ReplicateReport};
use crate::retention::{RetentionPolicy, SnapshotFacts};
use crate::{Error, JobContext, Result, SnapshotId, SnapshotInfo, Timestamp};

/// What a place is for.
#[derive(Debug, Clone, Default)]
pub struct PlaceOptions {
    /// What it is called.
    pub name: String,
    /// A snapshot is acknowledged only when this place has it, too.
    pub required: bool,
    /// What it is on: two places of one medium may fail together.
    pub medium: Option<String>,
    /// Whether it is somewhere else than what is backed up.
    pub off_site: bool,
    /// It holds only snapshots that are older than this: an archive.
    pub older_than: Option<Duration>,
    /// It holds only what this policy keeps; none: everything.
    pub policy: Option<Arc<dyn RetentionPolicy>>,
}

/// A place, or why it does not answer.
#[derive(Debug)]
pub struct Place {
    /// What it is for.
    pub options: PlaceOptions,
    /// The repository there.
    pub repository: Result<Repository>,
}

/// The places of one repository.
///
/// ```no_run
/// # use backup_core::repository::{Place, PlaceOptions, Places, Repository};
/// # use backup_core::{JobContext, Result};
/// # async fn example(here: Repository, elsewhere: Result<Repository>) -> Result<()> {
/// let place = |name: &str, repository| {
///     let options = PlaceOptions { name: name.into(), required: true, ..PlaceOptions::default() };
///     Place { options, repository }
/// };
/// let places = Places::new(vec![place("here", Ok(here)), place("elsewhere", elsewhere)])?;
/// let job = JobContext::new();
/// for caught_up in places.catch_up(&Default::default(), &job).await? {
///     println!("{}: {:?}", caught_up.name, caught_up.result);
/// }
/// println!("{:?}", places.report(&job).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Places(Vec<Place>);

/// How catching up went in one place.
#[derive(Debug)]
pub struct CaughtUp {
    /// The place.
    pub name: String,
    /// Whether it [must have](PlaceOptions::required) what is acknowledged.
    pub required: bool,
    /// What was brought there, or why nothing could be.
    pub result: std::result::Result<ReplicateReport, String>,
}

/// What was found in a place.
#[derive(Debug)]
struct Looked {
    holdings: Holdings,
    shown: Vec<(SnapshotInfo, SnapshotFacts)>,
}

/// A snapshot that some place shows, and the first one that does.
#[derive(Debug)]
struct Known {
    info: SnapshotInfo,
    facts: SnapshotFacts,
    place: usize,
}

impl Places {
    /// These places, in the order in which they are read from.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where one of them holds another repository.
    pub fn new(places: Vec<Place>) -> Result<Self> {
        let mut answering = places.iter().filter_map(|place| place.repository.as_ref().ok());
        if let Some(first) = answering.next() {
            answering.try_for_each(|place| first.check_place(place))?;
        }
        Ok(Self(places))
    }

    /// The places.
    pub fn all(&self) -> &[Place] {
        &self.0
    }

    /// The first place that answers, which reads from all others what is damaged or missing there; an error of one that does
    /// not answer where none does.
    pub fn first(&self) -> Result<Repository> {
        let at = self.0.iter().position(|place| place.repository.is_ok());
        match at.and_then(|at| self.answering(at).map(|place| (at, place))) {
            Some((at, place)) => place.with_others(self.except(&[at])),
            None => {
                let failure = self.0.iter().find_map(|place| place.repository.as_ref().err());
                let reason = failure.map_or_else(|| "there is none".to_owned(), Error::to_string);
                let kind = failure.map_or(crate::ErrorKind::InvalidInput, Error::kind);
                Err(Error::new(kind, format!("no place of the repository answers: {reason}")))
            }
        }
    }

    fn answering(&self, at: usize) -> Option<&Repository> {
        self.0.get(at).and_then(|place| place.repository.as_ref().ok())
    }

    fn except(&self, without: &[usize]) -> Vec<Repository> {
        let others = (0..self.0.len()).filter(|at| !without.contains(at));
        others.filter_map(|at| self.answering(at).cloned()).collect()
    }

    /// What each place has and lacks, and whether that is three copies on two media, one of them elsewhere.
    ///
    /// A place that cannot be read is reported as one. Fails only when the job is cancelled.
    pub async fn report(&self, job: &JobContext) -> Result<PlacesReport> {
        guard::run(job, async move {
            let looked = self.look(job).await?;
            let known = union(&looked);
            let now = now(&looked, job);
            let mut report = PlacesReport { snapshots: known.len() as u64, ..PlacesReport::default() };
            let mut media = BTreeSet::new();
            for (place, looked) in self.0.iter().zip(&looked) {
                let of_place = match looked {
                    Ok(looked) => {
                        let missing = missing(&place.options, looked, &known, now);
                        let lag = missing
                            .iter()
                            .map(|known| now.seconds().saturating_sub(known.facts.time.seconds()));
                        PlaceReport {
                            snapshots: looked.shown.len() as u64,
                            newest: looked.shown.iter().map(|(_, facts)| facts.time).max(),
                            missing: missing.len() as u64,
                            missing_bytes: missing.iter().map(|known| known.info.bytes_added).sum(),
                            lag_seconds: Some(lag.max().map_or(0, |lag| u64::try_from(lag).unwrap_or(0))),
                            ..about(&place.options)
                        }
                    }
                    Err(error) => PlaceReport { error: Some(error.clone()), ..about(&place.options) },
                };
                let is_whole = of_place.error.is_none() && of_place.missing == 0;
                if is_whole && place.options.older_than.is_none() {
                    report.copies = report.copies.saturating_add(1);
                    report.off_site = report.off_site.saturating_add(u32::from(place.options.off_site));
                    media.insert(&place.options.medium);
                }
                report.places.push(of_place);
            }
            report.media = u32::try_from(media.len()).unwrap_or(u32::MAX);
            report.is_3_2_1 = report.copies >= 3 && report.media >= 2 && report.off_site >= 1;
            Ok(report)
        })
        .await
    }

    /// Brings to each place what it should have and lacks, from whichever of the others has it. What is missing is found by
    /// comparing listings, so that nothing needs to be remembered of a place that was down.
    ///
    /// One result a place, in their order. Fails only when the job is cancelled; what was brought by then stays.
    pub async fn catch_up(&self, options: &ReplicateOptions, job: &JobContext) -> Result<Vec<CaughtUp>> {
        guard::run(job, async move {
            let looked = self.look(job).await?;
            let known = union(&looked);
            let now = now(&looked, job);
            let mut all = Vec::new();
            for (at, (place, looked)) in self.0.iter().zip(&looked).enumerate() {
                let result = match (looked, self.answering(at)) {
                    (Ok(looked), Some(repository)) => {
                        let missing = missing(&place.options, looked, &known, now);
                        let mut brought = self.bring(&missing, at, repository, options, job).await;
                        // An archive is to have only what is old.
                        if let Ok(report) = &mut brought
                            && place.options.older_than.is_none()
                            && let Err(error) = self.bring_all_else(at, repository, report, job).await
                        {
                            brought = Err(error.to_string());
                        }
                        brought
                    }
                    (Err(error), _) => Err(error.clone()),
                    (Ok(_), None) => Err("does not answer".to_owned()),
                };
                job.check()?;
                all.push(CaughtUp {
                    name: place.options.name.clone(),
                    required: place.options.required,
                    result,
                });
            }
            Ok(all)
        })
        .await
    }

    /// Brings these to a place, the oldest first of each that has them.
    async fn bring(
        &self,
        missing: &[&Known],
        at: usize,
        to: &Repository,
        options: &ReplicateOptions,
        job: &JobContext,
    ) -> std::result::Result<ReplicateReport, String> {
        let mut all = ReplicateReport::default();
        let mut by_place: BTreeMap<usize, Vec<SnapshotInfo>> = BTreeMap::new();
        for known in missing {
            by_place.entry(known.place).or_default().push(known.info.clone());
        }
        for (source, mut snapshots) in by_place {
            snapshots.sort_by_key(|info| (info.time, info.id));
            let Some(from) = self.answering(source) else { continue };
            let brought = async {
                let from = from.with_others(self.except(&[source, at]))?;
                from.replicate_to(to, &snapshots, options, job).await
            };
            all.add(brought.await.map_err(|error| error.to_string())?);
        }
        Ok(all)
    }

    /// Brings the sets that the others have to each place, also where no snapshot is missing: a set is stored when all of its
    /// snapshots are. It comes where those are or were. [`catch_up`](Self::catch_up) does so, too, but in archives, which get them with the
    /// snapshots.
    ///
    /// One result a place, in their order. Fails only when the job is cancelled; what was brought by then stays.
    pub async fn carry_sets(&self, job: &JobContext) -> Result<Vec<CaughtUp>> {
        guard::run(job, async move {
            let mut all = Vec::new();
            for (at, place) in self.0.iter().enumerate() {
                let result = match &place.repository {
                    Ok(repository) => {
                        repository.take_sets(&self.except(&[at]), job).await.map_err(|e| e.to_string())
                    }
                    Err(error) => Err(error.to_string()),
                };
                job.check()?;
                all.push(CaughtUp {
                    name: place.options.name.clone(),
                    required: place.options.required,
                    result: result.map(|()| ReplicateReport::default()),
                });
            }
            Ok(all)
        })
        .await
    }

    /// Brings what a place lacks of the sets and of the logs of the others.
    async fn bring_all_else(
        &self,
        at: usize,
        to: &Repository,
        report: &mut ReplicateReport,
        job: &JobContext,
    ) -> Result<()> {
        to.take_sets(&self.except(&[at]), job).await?;
        for from in self.except(&[at]) {
            report.add(from.replicate_log_to(to, job).await?);
        }
        Ok(())
    }

    async fn look(&self, job: &JobContext) -> Result<Vec<std::result::Result<Looked, String>>> {
        let looks: Vec<_> = self.0.iter().map(|place| look_at(place, job).boxed()).collect();
        futures_util::future::try_join_all(looks).await
    }
}

async fn look_at(place: &Place, job: &JobContext) -> Result<std::result::Result<Looked, String>> {
    let looked: Result<Looked> = async {
        let repository =
            place.repository.as_ref().map_err(|error| Error::new(error.kind(), error.to_string()))?;
        let (holdings, shown) =
            tokio::try_join!(repository.holdings(job), repository.readable_snapshots(job))?;
        let facts = match repository.facts(&shown, job).await {
            // Times that cannot be read are no reason to bring nothing: without them every policy keeps everything.
            Err(error) if error.is_unreadable() => {
                tracing::warn!(place = place.options.name, %error, "when a place had its snapshots cannot be read");
                let doubtful =
                    |info: &SnapshotInfo| SnapshotFacts { quarantined: true, ..SnapshotFacts::from(info) };
                shown.iter().map(doubtful).collect()
            }
            facts => facts?,
        };
        Ok(Looked { holdings, shown: shown.into_iter().zip(facts).collect() })
    }
    .await;
    match looked {
        Err(error) if error.is_cancelled() => Err(error),
        looked => Ok(looked.map_err(|error| error.to_string())),
    }
}

/// The time that policies of places count back from, as [`Repository::now`]: by whichever place says the earliest, as the clock of one
/// that is a directory is this machine's.
fn now(looked: &[std::result::Result<Looked, String>], job: &JobContext) -> Timestamp {
    let newest = |looked: &Looked| looked.shown.iter().filter_map(|(info, _)| info.stored).max();
    looked.iter().flatten().filter_map(newest).fold(job.now(), Timestamp::min)
}

/// What is known of a place before it is looked at.
fn about(options: &PlaceOptions) -> PlaceReport {
    let PlaceOptions { name, required, medium, off_site, .. } = options.clone();
    PlaceReport { name, required, medium, off_site, ..PlaceReport::default() }
}

/// Every snapshot once, as the first place that shows it has it; the earliest time that any store first had it.
fn union(looked: &[std::result::Result<Looked, String>]) -> BTreeMap<SnapshotId, Known> {
    let mut known: BTreeMap<SnapshotId, Known> = BTreeMap::new();
    for (place, looked) in looked.iter().enumerate() {
        for (info, facts) in looked.iter().flat_map(|looked| &looked.shown) {
            if let Some(there) = known.get_mut(&info.id) {
                there.facts.time = there.facts.time.min(facts.time);
                continue;
            }
            known.insert(info.id, Known { info: info.clone(), facts: facts.clone(), place });
        }
    }
    // What stands for another one under a name of its own is no other snapshot.
    let stand_ins: Vec<SnapshotId> = known
        .values()
        .filter(|known| {
            let original =
                known.info.origin.map(|origin| origin.snapshot).and_then(|id| known_as(looked, id));
            original.is_some_and(|original| original.tags == known.info.tags)
        })
        .map(|known| known.info.id)
        .collect();
    known.retain(|id, _| !stand_ins.contains(id));
    known
}

fn known_as(looked: &[std::result::Result<Looked, String>], id: SnapshotId) -> Option<&SnapshotInfo> {
    looked.iter().flatten().flat_map(|looked| &looked.shown).map(|(info, _)| info).find(|info| info.id == id)
}

/// What a place should have and does not, by age.
fn missing<'a>(
    options: &PlaceOptions,
    looked: &Looked,
    known: &'a BTreeMap<SnapshotId, Known>,
    now: Timestamp,
) -> Vec<&'a Known> {
    let is_old = |known: &&Known| {
        options.older_than.is_none_or(|least| {
            let least = i64::try_from(least.as_secs()).unwrap_or(i64::MAX);
            now.seconds().saturating_sub(known.facts.time.seconds()) >= least
        })
    };
    let kept: Option<HashSet<SnapshotId>> = options.policy.as_ref().map(|policy| {
        let facts: Vec<SnapshotFacts> = known.values().map(|known| known.facts.clone()).collect();
        policy
            .decide(&facts, now)
            .into_iter()
            .filter(|decision| decision.keep())
            .map(|decision| decision.id)
            .collect()
    });
    let is_kept = |known: &&Known| kept.as_ref().is_none_or(|kept| kept.contains(&known.info.id));
    let mut missing: Vec<&Known> = known
        .values()
        .filter(is_old)
        .filter(is_kept)
        .filter(|known| !looked.holdings.has(&known.info))
        .collect();
    missing.sort_by_key(|known| (known.facts.time, known.info.id));
    missing
}
