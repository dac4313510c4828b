//! Making ready a place for a cluster's files, so that no server can start there before all of them are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};

use super::living::running_server;
use super::log_directory::LogDirectory;
use super::place::{MARKER, Marker};
use super::{ClusterTarget, Place, PlaceSurvey, RecoveryPlan, Refused, control, tree};
use crate::target::PARTIAL;

/// What a server writes for itself alone, or what tells it how to begin: never of use to a restored cluster.
pub(super) const REMOVED: [&str; 12] = [
    "backup_label",
    "backup_label.old",
    "tablespace_map",
    "tablespace_map.old",
    "backup_manifest",
    "recovery.signal",
    "standby.signal",
    "recovery.conf",
    "recovery.done",
    "postmaster.pid",
    "postmaster.opts",
    "current_logfiles",
];

/// Directories whose contents belong to the server that ran there.
pub(super) const EMPTIED: [&str; 13] = [
    "pg_wal",
    "pg_replslot",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_twophase",
    "pg_logical/snapshots",
    "pg_logical/mappings",
    "pg_tblspc",
];

/// Makes the place of a plan ready for its files, and returns where they are to be restored to.
///
/// First of all, before anything else is changed, an old `pg_control` is moved away, durably: from then on until
/// [`finish`](super::finish) is done no server starts there, so that there never is a mixture of two clusters that does. Then what must
/// not be left of an old cluster is removed: its log above all. Its other files stay until then, so that only what differs is fetched.
///
/// It may be called again after it, or what came after it, was broken off.
///
/// # Errors
///
/// The plan has no place; the place is not any more as it was when the plan was made: a server runs there, or something stands there
/// that is not to be replaced. Or the directories cannot be changed.
///
/// Cancellation: what was begun is done on another thread, also if the future is dropped.
pub async fn prepare(plan: &RecoveryPlan) -> Result<ClusterTarget> {
    let plan = plan.clone();
    blocking(move || {
        let place = plan.place.as_ref();
        let place = place.ok_or_else(|| Error::invalid_input("the plan says no place to recover to"))?;
        let survey = place.survey(std::slice::from_ref(&plan.base))?;
        // Space was looked at by the plan; what there is now may be what an earlier attempt has written.
        let reasons = survey.refusals(&plan.base, 0);
        if !reasons.is_empty() {
            return Err(Refused { base: Some(plan.base.id.clone()), reasons }.into());
        }
        clear(&plan, place, &survey)?;
        let spaces = place.tablespaces_of(&plan.base);
        Ok(ClusterTarget::new(&place.data, spaces))
    })
    .await?
}

fn clear(plan: &RecoveryPlan, place: &Place, survey: &PlaceSurvey) -> Result<()> {
    let data = &place.data;
    refuse_links(data)?;
    let log = LogDirectory::open(data)?;
    tree::make_directory(data)?;
    let spaces = place.tablespaces_of(&plan.base);
    for directory in spaces.values() {
        tree::make_directory(directory)?;
    }
    let marker = Marker {
        base: plan.base.id.clone(),
        system_identifier: plan.base.system_identifier,
        tablespaces: spaces.clone(),
    };
    let text = serde_json::to_vec_pretty(&marker).map_err(|error| {
        Error::internal("the note about the recovery cannot be written").with_source(error)
    })?;
    let was_begun = data.join(MARKER).exists();
    tree::write(&data.join(MARKER), &text)?;
    let would_start = data.join(control::PATH).exists();
    // From here on nothing starts.
    tree::rename(&data.join(control::PATH), &data.join(control::FORMER))?;
    let server = running_server(data);
    if !matches!(server, Ok(None)) {
        // Somebody was quicker, or may have been. Nothing else has been touched, and nothing of this attempt may stay that would give the cluster
        // away later. What an earlier one has begun starts no more, and must not.
        if would_start {
            tree::rename(&data.join(control::FORMER), &data.join(control::PATH))?;
        }
        if would_start || !was_begun {
            tree::remove(&data.join(MARKER))?;
        }
        tree::sync(data)?;
    }
    if let Some(pid) = server? {
        let reasons = vec![super::Refusal::ServerRuns { directory: data.clone(), pid }];
        return Err(Refused { base: Some(plan.base.id.clone()), reasons }.into());
    }
    tree::remove(&data.join(control::WAITING))?;
    for name in REMOVED {
        tree::remove(&data.join(name))?;
    }
    // What a restore that was killed had begun. Where owners were set since, no other restore would take it for its own.
    for directory in std::iter::once(data).chain(spaces.values()) {
        let partial = directory.join(PARTIAL);
        if partial.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            tree::empty(&partial)?;
            std::fs::remove_dir(&partial).map_err(|e| Error::io(partial.display().to_string(), e))?;
        }
    }
    if let Some(log) = log {
        log.empty()?;
    }
    for name in EMPTIED.into_iter().filter(|name| *name != "pg_wal") {
        let path = data.join(name);
        if path.is_dir() {
            tree::empty(&path)?;
        }
    }
    tree::sync(data)?;
    tracing::info!(
        directory = %data.display(),
        state = ?survey.directory,
        tablespaces = spaces.len(),
        "the place is ready for the files of a cluster"
    );
    Ok(())
}

/// A directory on the way to what is moved and written by its path must be one: through a link a recovery would change what
/// stands elsewhere.
fn refuse_links(data: &Path) -> Result<()> {
    for name in ["global", "pg_tblspc", "base", "pg_logical"] {
        let path = data.join(name);
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            let message = format!("`{}` is a link; a recovery replaces only directories", path.display());
            return Err(Error::invalid_input(message));
        }
    }
    Ok(())
}

/// The tablespaces' directories, by object identifier.
pub(super) type Spaces = BTreeMap<u32, PathBuf>;

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("work on the recovery broke off").with_source(error))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{base, log, plan_of};
    use super::*;

    /// A cluster that is to be replaced, and what is to stand there instead.
    struct Scene {
        scratch: tempfile::TempDir,
        plan: RecoveryPlan,
        place: Place,
    }

    impl Scene {
        fn new() -> Self {
            let scratch = tempfile::tempdir().unwrap();
            let data = scratch.path().join("data");
            fs::create_dir_all(data.join("global")).unwrap();
            fs::write(data.join(control::PATH), "of the cluster").unwrap();
            fs::write(data.join("PG_VERSION"), "15").unwrap();
            let mut plan = plan_of(&[base(1, 3)], &log(&[(1, 3..=9, "")]), "latest").unwrap();
            let place = Place::new(&data).replacing();
            plan.place = Some(place.clone());
            Self { scratch, plan, place }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.scratch.path().join(path)
        }

        fn survey(&self) -> PlaceSurvey {
            self.place.survey(std::slice::from_ref(&self.plan.base)).unwrap()
        }

        /// What stands in the data directory.
        fn left(&self) -> Vec<String> {
            let entries = fs::read_dir(self.at("data")).unwrap();
            let mut left: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            left.sort();
            left
        }
    }

    fn stand_in(data: &Path) -> std::process::Child {
        std::process::Command::new("sleep").arg("600").current_dir(data).spawn().unwrap()
    }

    #[test]
    fn a_server_that_starts_while_its_place_is_prepared_keeps_its_cluster() {
        let scene = Scene::new();
        let (data, survey) = (scene.at("data"), scene.survey());
        assert_eq!(survey.refusals(&scene.plan.base, 0), []);

        // Nobody ran there when it was looked at. The server has written its file, or is about to.
        let mut server = stand_in(&data);
        for text in [format!("{}\n{}\n", server.id(), data.display()), String::new()] {
            fs::write(data.join("postmaster.pid"), &text).unwrap();
            let error = clear(&scene.plan, &scene.place, &survey).unwrap_err().to_string();
            let said = if text.is_empty() { "names no process".to_owned() } else { server.id().to_string() };
            assert!(error.contains(&said), "{error}");
            assert_eq!(fs::read(data.join(control::PATH)).unwrap(), b"of the cluster");
            let left = scene.left();
            assert_eq!(
                left,
                ["PG_VERSION", "global", "postmaster.pid"],
                "a mark gives the cluster away later"
            );
        }
        server.kill().unwrap();
        server.wait().unwrap();

        // What an earlier attempt has left is a mixture, and stays one that does not start and that is known for what it is.
        fs::rename(data.join(control::PATH), data.join(control::FORMER)).unwrap();
        fs::write(data.join(MARKER), "{}").unwrap();
        clear(&scene.plan, &scene.place, &survey).unwrap_err();
        assert!(!data.join(control::PATH).exists() && data.join(control::FORMER).exists());
        assert!(data.join(MARKER).exists());
    }

    #[tokio::test]
    async fn what_a_living_cluster_shares_with_the_place_is_not_touched() {
        let mut scene = Scene::new();
        for path in
            ["original/global", "original/pg_tblspc", "data/pg_tblspc", "log", "space/PG_15_202209061/5"]
        {
            fs::create_dir_all(scene.at(path)).unwrap();
        }
        fs::write(scene.at("original/PG_VERSION"), "15").unwrap();
        let link = |to: &str, from: &str| std::os::unix::fs::symlink(scene.at(to), scene.at(from)).unwrap();
        let kept = [scene.at("log/000000010000000000000007"), scene.at("space/PG_15_202209061/5/16384")];
        for file in &kept {
            fs::write(file, "of the original").unwrap();
        }
        // A copy has the links of its original.
        for cluster in ["original", "data"] {
            link("log", &format!("{cluster}/pg_wal"));
            link("space", &format!("{cluster}/pg_tblspc/16400"));
        }
        let mut server = stand_in(&scene.at("original"));
        for own_log in [false, true] {
            let shared = if own_log { scene.at("space") } else { scene.at("log") };
            if own_log {
                fs::remove_file(scene.at("data/pg_wal")).unwrap();
                fs::create_dir(scene.at("data/pg_wal")).unwrap();
                scene.plan.base.tablespaces.insert(16400, scene.at("space"));
            }
            let refusals = scene.survey().refusals(&scene.plan.base, 0);
            assert!(matches!(refusals[..], [super::super::Refusal::BadDirectory { .. }]), "{refusals:?}");
            let error = prepare(&scene.plan).await.unwrap_err().to_string();
            let said =
                [shared, scene.at("original")].map(|path| path.canonicalize().unwrap().display().to_string());
            for said in said.into_iter().chain([format!("process {}", server.id())]) {
                assert!(error.contains(&said), "{said} in {error}");
            }
            for file in &kept {
                assert_eq!(fs::read_to_string(file).unwrap(), "of the original");
            }
            assert_eq!(fs::read(scene.at("data").join(control::PATH)).unwrap(), b"of the cluster");
        }
        server.kill().unwrap();
        server.wait().unwrap();
        // It is the copy's alone then.
        assert_eq!(scene.survey().refusals(&scene.plan.base, 0), []);
        prepare(&scene.plan).await.unwrap();
    }

    #[test]
    fn root_does_not_empty_what_a_servers_user_has_put_a_link_to() {
        let scene = Scene::new();
        fs::create_dir(scene.at("roots")).unwrap();
        fs::write(scene.at("roots/file"), "of root").unwrap();
        std::os::unix::fs::symlink(scene.at("roots"), scene.at("data/pg_wal")).unwrap();
        if !crate::system::is_root() {
            return;
        }
        for path in [scene.at("data"), scene.at("data/pg_wal")] {
            std::os::unix::fs::lchown(path, Some(65_534), Some(65_534)).unwrap();
        }
        let before = scene.left();
        let error = clear(&scene.plan, &scene.place, &scene.survey()).unwrap_err().to_string();
        assert!(error.contains("/data/pg_wal") && error.contains("/roots"), "{error}");
        assert_eq!(fs::read_to_string(scene.at("roots/file")).unwrap(), "of root");
        assert_eq!(scene.left(), before, "something was changed");
        assert!(scene.at("data").join(control::PATH).exists());
    }
}
