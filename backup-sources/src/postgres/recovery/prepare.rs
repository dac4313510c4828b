//! Making ready a place for a cluster's files, so that no server can start there before all of them are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};

use super::place::{MARKER, Marker, running_server};
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
    tree::make_directory(data)?;
    let spaces = place.tablespaces_of(&plan.base);
    for directory in spaces.values() {
        tree::make_directory(directory)?;
    }
    refuse_links(data)?;
    let marker = Marker {
        base: plan.base.id.clone(),
        system_identifier: plan.base.system_identifier,
        tablespaces: spaces.clone(),
    };
    let text = serde_json::to_vec_pretty(&marker).map_err(|error| {
        Error::internal("the note about the recovery cannot be written").with_source(error)
    })?;
    tree::write(&data.join(MARKER), &text)?;
    // From here on nothing starts.
    tree::rename(&data.join(control::PATH), &data.join(control::FORMER))?;
    if let Some(pid) = running_server(data)? {
        // Somebody was quicker. Nothing else has been touched, and nothing of the recovery may stay that would give the cluster away later.
        tree::rename(&data.join(control::FORMER), &data.join(control::PATH))?;
        tree::remove(&data.join(MARKER))?;
        tree::sync(data)?;
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
    for name in EMPTIED {
        let path = resolved(&data.join(name));
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

/// Where a directory really is: `pg_wal` may be a link to another disk.
pub(super) fn resolved(path: &Path) -> PathBuf {
    match path.file_name().is_some_and(|name| name == "pg_wal") {
        true => std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
        false => path.to_owned(),
    }
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

    #[test]
    fn a_server_that_starts_while_its_place_is_prepared_keeps_its_cluster() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        fs::create_dir_all(data.join("global")).unwrap();
        fs::write(data.join(control::PATH), "of the cluster").unwrap();
        fs::write(data.join("PG_VERSION"), "15").unwrap();
        let plan = plan_of(&[base(1, 3)], &log(&[(1, 3..=9, "")]), "latest").unwrap();
        let place = Place::new(&data).replacing();
        let survey = place.survey(std::slice::from_ref(&plan.base)).unwrap();
        assert_eq!(survey.refusals(&plan.base, 0), []);

        // Nobody ran there when it was looked at.
        let mut server = std::process::Command::new("sleep").arg("600").current_dir(&data).spawn().unwrap();
        fs::write(data.join("postmaster.pid"), format!("{}\n{}\n", server.id(), data.display())).unwrap();
        let error = clear(&plan, &place, &survey).unwrap_err();
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(error.to_string().contains(&server.id().to_string()), "{error}");
        assert_eq!(fs::read(data.join(control::PATH)).unwrap(), b"of the cluster");
        let mut left: Vec<_> = fs::read_dir(&data)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["PG_VERSION", "global", "postmaster.pid"], "a mark gives the cluster away later");
    }
}
