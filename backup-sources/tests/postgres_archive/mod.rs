//! What tests of recoveries recover from: an archive of a log that is a directory, and base backups that are others.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod base;
mod moments;
mod recover;

pub use base::{Base, restore_tree};
pub use moments::{Moment, Recorder, state_query};
pub use recover::{Running, Site, put, starts};

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::Timestamp;
use backup_sources::postgres::Lsn;
use backup_sources::postgres::recovery::{
    LogInventory, LogSegment, RestorePoint, SegmentFacts, TargetTimeline, parse_time,
};
use backup_sources::postgres::wal::{MadeTablespace, SegmentSize, WalFile};

use crate::postgres_server::{Account, Cluster, Version, eventually};

/// An archive of a log: a file for each file of it, written once.
#[derive(Debug)]
pub struct Archive {
    root: tempfile::TempDir,
    version: Version,
}

/// Same content succeeds, other content fails; what is there is there as a whole.
const PUSH: &str = r#"#!/bin/sh
# DIRECTORY PATH NAME
if [ -e "$1/files/$3" ]; then
    cmp -s "$2" "$1/files/$3" && exit 0
    exit 1
fi
cp "$2" "$1/$3.$$" && mv -n "$1/$3.$$" "$1/files/$3" && [ ! -e "$1/$3.$$" ]
"#;

/// 1 only if the archive can be looked into and has no such file; whatever else goes wrong stops the server.
const FETCH: &str = r#"#!/bin/sh
# DIRECTORY NAME PATH
[ -d "$1/files" ] || exit 126
[ -e "$1/broken" ] && exit 126
echo "$2" >>"$1/fetched"
[ -e "$1/files/$2" ] || { [ -d "$1/files" ] && exit 1; exit 126; }
cp "$1/files/$2" "$3" || exit 126
"#;

impl Archive {
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("wal").tempdir_in(std::env::temp_dir()).unwrap();
        fs::create_dir(root.path().join("files")).unwrap();
        fs::write(root.path().join("push"), PUSH).unwrap();
        fs::write(root.path().join("fetch"), FETCH).unwrap();
        Account::unprivileged().own(root.path());
        Self { root, version: Version::wanted() }
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// The settings of a server that archives here.
    pub fn settings(&self) -> String {
        let root = self.path().display();
        format!("archive_mode = on\narchive_command = 'sh {root}/push {root} %p %f'\n")
    }

    pub fn restore_command(&self) -> String {
        let root = self.path().display();
        format!("sh {root}/fetch {root} %f %p")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join("files").join(name)
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }

    /// From now on the archive cannot be read.
    pub fn break_down(&self) {
        fs::write(self.path().join("broken"), "").unwrap();
    }

    /// The names of files, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path().join("files")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Has the cluster end its segment, and waits until all up to it is here.
    pub fn flush(&self, cluster: &Cluster) {
        // A switch right after another one switches nothing.
        cluster.sql("select pg_create_restore_point('flushed')");
        let segment = cluster.switch_wal();
        eventually("the archived segment", || self.file(&segment).exists().then_some(()));
    }

    /// What is here, as found by looking into each file.
    pub fn inventory(&self, cluster: &Cluster) -> LogInventory {
        let size = cluster.sql("select setting::bigint from pg_settings where name = 'wal_segment_size'");
        self.inventory_of(cluster.system_identifier(), SegmentSize::new(size.parse().unwrap()).unwrap())
    }

    pub fn inventory_of(&self, lineage: u64, size: SegmentSize) -> LogInventory {
        let mut inventory = LogInventory::default();
        inventory.lineage(lineage, size);
        for name in self.names() {
            match name.parse() {
                Ok(WalFile::Segment(segment)) => {
                    let facts = self.facts(&name);
                    inventory.add_segment(lineage, size, segment, LogSegment::whole().with_facts(facts));
                }
                Ok(WalFile::History(timeline)) => {
                    let text = fs::read_to_string(self.file(&name)).unwrap();
                    inventory.add_history(lineage, size, timeline, &text);
                }
                _ => {}
            }
        }
        inventory
    }

    /// What happens in a segment, by `pg_waldump`.
    fn facts(&self, name: &str) -> SegmentFacts {
        let mut dump = self.version.program("pg_waldump", &Account::unprivileged());
        let output = dump.env("TZ", "UTC").arg(self.file(name)).output().unwrap();
        // The last record may end in the next segment, which makes it complain.
        let mut facts = SegmentFacts::default();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Some((_, lsn)) = line.split_once("lsn: ") else { continue };
            let lsn: Lsn = lsn.split(',').next().unwrap().parse().unwrap();
            let len = line.split_once("len (rec/tot):").unwrap().1.split('/').nth(1).unwrap();
            let len: u64 = len.trim_start().split(',').next().unwrap().parse().unwrap();
            // Without the headers of pages in it.
            facts.valid_to = facts.valid_to.max(Some(lsn.saturating_add(len)));
            let Some((_, description)) = line.split_once("desc: ") else { continue };
            if line.starts_with("rmgr: Transaction") {
                let Some(rest) = description.strip_prefix("COMMIT ").or(description.strip_prefix("ABORT "))
                else {
                    continue;
                };
                let time = time_of(rest);
                facts.last_time = facts.last_time.max(Some(time));
                facts.first_time = Some(facts.first_time.map_or(time, |first| first.min(time)));
                let (_, xid) = line.split_once("tx:").unwrap();
                facts.ended.insert(xid.split(',').next().unwrap().trim().parse().unwrap());
            } else if let Some(point) = description.strip_prefix("RESTORE_POINT ") {
                facts.restore_points.push(RestorePoint { name: point.to_owned(), lsn, time: None });
            } else if line.starts_with("rmgr: Tablespace")
                && let Some((oid, directory)) =
                    description.strip_prefix("CREATE ").and_then(|rest| rest.split_once(' '))
            {
                let (oid, directory) = (oid.parse().unwrap(), directory.trim_matches('"').to_owned());
                facts.tablespaces.push(MadeTablespace { oid, directory, lsn });
            }
        }
        facts
    }
}

/// `2026-11-23 00:17:20.123456 UTC; ...`
fn time_of(text: &str) -> Timestamp {
    let words: Vec<&str> = text.split([' ', ';']).collect();
    parse_time(&format!("{} {}Z", words[0], words[1])).unwrap()
}

/// A timeline by its number.
pub fn on(number: u32) -> TargetTimeline {
    TargetTimeline::Number(backup_sources::postgres::Timeline::new(number))
}

/// `sh -c`, which must succeed.
pub fn sh(script: &str) {
    let done = Command::new("sh").args(["-euc", script]).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}
