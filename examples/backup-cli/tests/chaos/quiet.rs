//! When nobody does anything any more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use backup_core::SinkExt;

use crate::book::compare;
use crate::people::CUT_OFF;
use crate::stores::{make, s3_settings};
use crate::world::World;

/// After two collections nothing is left that nothing needs; all is clean, and everything restores.
pub(crate) async fn assert_all_is_well(world: &Arc<World>, server: SocketAddr) {
    world.calm(server);
    let sink = make(s3_settings(server, "chaos")).await.unwrap();
    let count = async || {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for meta in sink.list_all("").await.unwrap() {
            let key = meta.key.to_string();
            let depth = if key.starts_with("control/") { 2 } else { 1 };
            *counts.entry(key.split('/').take(depth).collect::<Vec<_>>().join("/")).or_default() += 1;
        }
        counts
    };
    println!("before: {:?}", count().await);
    for _ in 0..2 {
        let report = world.run_well(&["prune", "--wait", "120s", "--max-unused", "0%"]).await.json();
        assert_ne!(report["outcome"], "waiting", "{report:#}");
    }
    let left = count().await;
    println!("after: {left:?}");
    let planned = world.run_well(&["prune", "--dry-run", "--max-unused", "0%"]).await.json();
    assert_eq!(planned["packs_unneeded"], 0, "{planned:#}");
    assert_eq!(planned["packs_kept"].as_u64().unwrap(), left["data"] + left["meta"], "{planned:#}");
    assert_eq!(left.get("control/collections"), None, "{left:?}");
    // Decisions stay as long as segments of their sessions do, and fences for ever: without it a merge that was stopped
    // long ago could still commit. Those of backups stand among the snapshots.
    let sessions = sink.list_all("control/sessions/").await.unwrap();
    let most = left["index"] + 2 * world.book.counted(CUT_OFF);
    let ids: BTreeSet<&str> =
        sessions.iter().filter_map(|meta| meta.key.as_str().split('/').nth(2)).collect();
    assert!(ids.len() as u64 <= most, "{sessions:#?}: {left:?}");
    world.run_well(&["verify", "--level", "content"]).await;

    let owed = world.book.owed();
    assert!(!owed.is_empty());
    let listed = world.run_well(&["list"]).await.json();
    let listed: Vec<&str> =
        listed["snapshots"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    for owed in &owed {
        assert!(listed.contains(&owed.id.as_str()), "{} was acknowledged and is gone", owed.id);
        let to = format!("at-last-{}", owed.id);
        world.run_well(&["restore", &owed.id, "--to", &to]).await;
        let directory = std::fs::read_dir(world.path(&to)).unwrap().next().unwrap().unwrap().path();
        compare(&directory, &owed.tree).unwrap();
        std::fs::remove_dir_all(world.path(&to)).unwrap();
    }
    println!("{} snapshots must be there and are", owed.len());
}
