//! Deleting what a snapshot does not have.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use backup_core::EntryName;
use backup_sources::{DeletePlan, DeletePlanner};

async fn plan(root: &Path, keep: &[&str]) -> DeletePlan {
    let mut keep: Vec<_> = keep.iter().map(|name| EntryName::new(name).unwrap()).collect();
    keep.sort();
    let mut planner = DeletePlanner::new(root).await.unwrap();
    for name in &keep {
        planner.keep(name).await.unwrap();
    }
    planner.finish().await.unwrap()
}

fn names(plan: &DeletePlan) -> Vec<String> {
    plan.names.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_plan_names_what_is_extraneous_and_deletes_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let (root, outside) = (scratch.path().join("root"), scratch.path().join("outside"));
    for directory in ["root/a/b", "root/old/deep/er", "root/kept", "outside"] {
        fs::create_dir_all(scratch.path().join(directory)).unwrap();
    }
    for file in
        ["root/a/keep", "root/a/drop", "root/a/b/keep", "root/a-b", "root/old/deep/file", "outside/victim"]
    {
        fs::write(scratch.path().join(file), file).unwrap();
    }
    symlink(&outside, root.join("old/link")).unwrap();
    symlink(&outside, root.join("link")).unwrap();
    // `a` itself is not among the names, but something in it is.
    let plan = plan(&root, &["a/keep", "a/b", "a/b/keep", "kept", "missing", "zzz"]).await;
    assert_eq!(names(&plan), ["a/drop", "a-b", "link", "old"]);
    assert!(root.join("old/deep/file").exists(), "a plan deletes nothing");
    assert_eq!(plan.apply().await.unwrap(), []);
    let left: Vec<_> =
        common::picture(&root).into_keys().map(|name| String::from_utf8(name).unwrap()).collect();
    assert_eq!(left, ["", "a", "a/b", "a/b/keep", "a/keep", "kept"]);
    assert!(outside.join("victim").exists());
    // What went by itself is no failure, a plan that is done twice neither.
    let again = plan.apply().await.unwrap();
    assert_eq!(again, []);
}

#[tokio::test]
async fn a_parent_swapped_for_a_link_after_planning_leads_nowhere() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    fs::create_dir_all(root.join("a")).unwrap();
    fs::create_dir(scratch.path().join("outside")).unwrap();
    fs::write(root.join("a/victim"), "").unwrap();
    fs::write(scratch.path().join("outside/victim"), "").unwrap();
    let plan = plan(&root, &["a", "a/kept"]).await;
    assert_eq!(names(&plan), ["a/victim"]);
    fs::rename(root.join("a"), root.join("b")).unwrap();
    symlink("../outside", root.join("a")).unwrap();
    assert_eq!(plan.apply().await.unwrap().len(), 1);
    assert!(scratch.path().join("outside/victim").exists());
}

#[tokio::test]
async fn a_root_that_does_not_exist_is_an_error() {
    assert!(DeletePlanner::new("/no/such/directory").await.is_err());
}
