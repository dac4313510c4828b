//! What changed since an earlier backup, as a server's summaries of its log have it: PostgreSQL 17 and later, with `summarize_wal`.
//!
//! See the section "WAL Summarization Information Functions" of the PostgreSQL manual. What the server's own incremental backups do not
//! believe of them is not believed here either: maps of free space are not in the log, and a database whose files were copied is new as a whole.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::pin::pin;
use std::time::Duration;

use backup_core::{Error, JobContext, Result, SnapshotInfo};
use futures_util::TryStreamExt;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::control::ControlFile;
use super::relation::{Fork, RelationFile};
use super::session::Identity;
use crate::postgres::connect::explain;
use crate::postgres::{Lsn, Timeline};

/// The first version that summarizes its log.
const SINCE_MAJOR: i32 = 17;
/// Blocks that are remembered at most, four bytes each. Where more changed, reading all costs little more.
const BLOCKS_MAX: usize = 16 << 20;
/// Relations and databases that are remembered at most: one that was made and dropped again is in the log, too.
const RELATIONS_MAX: usize = 1 << 20;
/// How long a server is waited for that has not summarized its log up to the backup's start yet, and how often one looks.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(250);
/// Unchanged bytes between changed ones that are read all the same: asking once more would take longer.
const GAP_BYTES: u64 = 32 * 1024;

/// The tablespaces that have no directory in `pg_tblspc`.
const DEFAULT_TABLESPACE: u32 = 1663;
const GLOBAL_TABLESPACE: u32 = 1664;

/// A relation: tablespace, database, number of its files.
type Relation = (u32, u32, u32);

/// The blocks of main forks that can differ from an earlier backup's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ChangedBlocks {
    relations: HashMap<Relation, Changed>,
    /// Tablespaces and databases of which everything can differ.
    databases: HashSet<(u32, u32)>,
    blocks: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Changed {
    /// From this block on all can differ: the relation was made anew, or cut off there.
    limit: Option<u32>,
    /// Ascending.
    blocks: Vec<u32>,
}

/// Between which backups is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Between {
    timeline: Timeline,
    from: Lsn,
    to: Lsn,
}

impl Between {
    /// From the start of `parent` to that of a backup of `server`, whose cluster is that of `control`, at `start`; otherwise why nothing can be
    /// told. `verifies` is whether the pages that this backup reads are verified: those that it does not read must have been then.
    pub(super) fn new(
        parent: &SnapshotInfo,
        major: i32,
        server: Identity,
        control: &ControlFile,
        start: Lsn,
        verifies: bool,
    ) -> Result<Self, String> {
        if major < SINCE_MAJOR {
            return Err(format!("PostgreSQL {major} does not summarize its log; {SINCE_MAJOR} does"));
        }
        let position = |name: &str| parent.position.get(name).map(String::as_str).unwrap_or_default();
        let same = [
            ("system_identifier", control.system_identifier.to_string(), "is of another cluster"),
            ("timeline", control.checkpoint_timeline.get().to_string(), "is of another timeline"),
            // Whoever puts a server back to an earlier state stops it for that. Its log goes on from there with the same positions, and often on a timeline of
            // the same number: nothing in it tells that the parent's pages are of a history that it does not have.
            ("server_started", server.started(), "is from before the server was started"),
            ("block_bytes", control.block_bytes.to_string(), "has pages of another size"),
            // They are switched on and off while the server is down, which is in no log.
            ("data_checksums", control.data_checksums.to_string(), "differs in having checksums of pages"),
            // A page that was damaged would be taken over, and nobody told.
            ("damaged_pages", "0".to_owned(), "has damaged pages"),
        ];
        for (name, wanted, what) in same {
            if position(name) != wanted {
                return Err(format!("the snapshot before, {}, {what}", parent.id));
            }
        }
        if verifies && position("pages_verified") != "true" {
            return Err(format!("the snapshot before, {}, has pages that nobody has verified", parent.id));
        }
        let from: Lsn = position("start_lsn").parse().map_err(|error: Error| error.to_string())?;
        if from > start {
            return Err(format!("the snapshot before, {}, began later, at {from}", parent.id));
        }
        Ok(Self { timeline: control.checkpoint_timeline, from, to: start })
    }
}

impl ChangedBlocks {
    /// Asks the server. Waits until it has summarized what lies between, for a minute at most.
    ///
    /// # Errors
    ///
    /// The server does not answer, or has no summaries of a part.
    pub(super) async fn ask(client: &Client, between: Between, job: &JobContext) -> Result<Self> {
        let mut waited = Duration::ZERO;
        let summaries = loop {
            let summaries = available(client, between).await?;
            let end = covered(&summaries, between.from);
            if end >= between.to {
                break summaries;
            }
            if waited >= PATIENCE || !is_on(client).await? {
                let message =
                    format!("the log is summarized up to {end}, and the backup began at {}", between.to);
                return Err(Error::invalid_input(message));
            }
            job.until_cancelled(async {
                tokio::time::sleep(LOOK).await;
                Ok(())
            })
            .await?;
            waited = waited.saturating_add(LOOK);
        };
        let mut changed = Self::default();
        for (start, end) in summaries {
            changed.read(client, between.timeline, start, end).await?;
        }
        changed.settle();
        Ok(changed)
    }

    async fn read(&mut self, client: &Client, timeline: Timeline, start: Lsn, end: Lsn) -> Result<()> {
        const CONTENTS: &str = "SELECT reltablespace, reldatabase, relfilenode, relblocknumber, is_limit_block \
             FROM pg_catalog.pg_wal_summary_contents($1, $2::text::pg_catalog.pg_lsn, $3::text::pg_catalog.pg_lsn) \
             WHERE relforknumber = 0";
        let (timeline, start, end) = (i64::from(timeline.get()), start.to_string(), end.to_string());
        let parameters: [&(dyn ToSql + Sync); 3] = [&timeline, &start, &end];
        let failed = |error: tokio_postgres::Error| explain(&error);
        let rows = client.query_raw(CONTENTS, parameters).await.map_err(failed)?;
        let mut rows = pin!(rows);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            let oid = |at: usize| row.try_get::<_, u32>(at).map_err(failed);
            let relation = (oid(0)?, oid(1)?, oid(2)?);
            let block: i64 = row.try_get(3).map_err(failed)?;
            let is_limit: bool = row.try_get(4).map_err(failed)?;
            let block = u32::try_from(block).map_err(|_| Error::internal("a block exceeds 32 bits"))?;
            self.add(relation, block, is_limit)?;
        }
        Ok(())
    }

    fn add(&mut self, relation: Relation, block: u32, is_limit: bool) -> Result<()> {
        let (tablespace, database, number) = relation;
        if self.relations.len().saturating_add(self.databases.len()) > RELATIONS_MAX {
            return Err(Error::invalid_input(format!("more than {RELATIONS_MAX} relations changed")));
        }
        if number == 0 {
            self.databases.insert((tablespace, database));
            return Ok(());
        }
        let changed = self.relations.entry(relation).or_default();
        if is_limit {
            changed.limit = Some(changed.limit.map_or(block, |limit| limit.min(block)));
            return Ok(());
        }
        self.blocks = self.blocks.saturating_add(1);
        if self.blocks > BLOCKS_MAX {
            return Err(Error::invalid_input(format!("more than {BLOCKS_MAX} blocks changed")));
        }
        changed.blocks.push(block);
        Ok(())
    }

    fn settle(&mut self) {
        for changed in self.relations.values_mut() {
            changed.blocks.sort_unstable();
            changed.blocks.dedup();
        }
    }

    /// The bytes of a file in `directory` that can differ; none if all can.
    pub(super) fn of(
        &self,
        directory: &str,
        file: RelationFile,
        control: &ControlFile,
    ) -> Option<Vec<Range<u64>>> {
        let (tablespace, database) = place(directory)?;
        if file.fork != Fork::Main || self.databases.contains(&(tablespace, database)) {
            return None;
        }
        let Some(changed) = self.relations.get(&(tablespace, database, file.number)) else {
            return Some(Vec::new());
        };
        let first = file.segment.checked_mul(control.segment_blocks)?;
        let after = first.saturating_add(control.segment_blocks);
        let offset = |block: u32| {
            u64::from(block.saturating_sub(first)).saturating_mul(u64::from(control.block_bytes))
        };
        let limit = changed.limit.filter(|limit| *limit < after);
        let from = changed.blocks.partition_point(|block| *block < first);
        let to = changed.blocks.partition_point(|block| *block < limit.unwrap_or(after));
        let blocks = changed.blocks.get(from..to).unwrap_or_default();
        let blocks = blocks.iter().map(|block| offset(*block)..offset(block.saturating_add(1)));
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for range in blocks.chain(limit.map(|limit| offset(limit)..u64::MAX)) {
            match ranges.last_mut() {
                Some(last) if range.start <= last.end.saturating_add(GAP_BYTES) => last.end = range.end,
                _ => ranges.push(range),
            }
        }
        Some(ranges)
    }
}

/// The tablespace and the database whose files are in a directory.
fn place(directory: &str) -> Option<(u32, u32)> {
    let parts: Vec<&str> = directory.split('/').collect();
    match *parts.as_slice() {
        ["global"] => Some((GLOBAL_TABLESPACE, 0)),
        ["base", database] => Some((DEFAULT_TABLESPACE, database.parse().ok()?)),
        ["pg_tblspc", tablespace, _, database] => Some((tablespace.parse().ok()?, database.parse().ok()?)),
        _ => None,
    }
}

/// The summaries of what lies between, by where they begin.
async fn available(client: &Client, between: Between) -> Result<Vec<(Lsn, Lsn)>> {
    const AVAILABLE: &str = "SELECT start_lsn::text, end_lsn::text FROM pg_catalog.pg_available_wal_summaries() \
         WHERE tli = $1 AND end_lsn > $2::text::pg_catalog.pg_lsn AND start_lsn < $3::text::pg_catalog.pg_lsn ORDER BY start_lsn";
    let (timeline, from, to) =
        (i64::from(between.timeline.get()), between.from.to_string(), between.to.to_string());
    let failed = |error: tokio_postgres::Error| explain(&error);
    let rows = client.query(AVAILABLE, &[&timeline, &from, &to]).await.map_err(failed)?;
    let lsn = |row: &tokio_postgres::Row, at: usize| -> Result<Lsn> {
        row.try_get::<_, String>(at).map_err(failed)?.parse()
    };
    rows.iter().map(|row| Ok((lsn(row, 0)?, lsn(row, 1)?))).collect()
}

/// Up to where summaries follow each other without a gap.
fn covered(summaries: &[(Lsn, Lsn)], from: Lsn) -> Lsn {
    let mut end = from;
    for (start, next) in summaries {
        if *start <= end {
            end = end.max(*next);
        }
    }
    end
}

/// Whether the server summarizes its log.
async fn is_on(client: &Client) -> Result<bool> {
    const ON: &str = "SELECT current_setting('summarize_wal', true) = 'on'";
    let row = client.query_one(ON, &[]).await.map_err(|error| explain(&error))?;
    let is_on: Option<bool> = row.try_get(0).map_err(|error| explain(&error))?;
    Ok(is_on == Some(true))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use backup_core::report::Outcome;
    use backup_core::{SnapshotId, Timestamp};

    use super::*;
    use crate::postgres::physical::control::tests::written;

    const PAGE: u64 = 8192;

    fn file(number: u32, segment: u32) -> RelationFile {
        RelationFile { number, fork: Fork::Main, segment }
    }

    fn control() -> ControlFile {
        ControlFile { segment_blocks: 1000, ..ControlFile::parse(&written(1800)).unwrap() }
    }

    #[test]
    fn blocks_are_told_for_each_file_of_a_relation() {
        let mut changed = ChangedBlocks::default();
        let relation = (DEFAULT_TABLESPACE, 5, 16384);
        for block in [999, 1000, 3, 500, 1500, 3, 1502] {
            changed.add(relation, block, false).unwrap();
        }
        changed.add((DEFAULT_TABLESPACE, 5, 16390), 20, true).unwrap();
        changed.add((DEFAULT_TABLESPACE, 5, 16390), 1200, true).unwrap();
        changed.add((DEFAULT_TABLESPACE, 5, 16390), 2, false).unwrap();
        changed.add((DEFAULT_TABLESPACE, 5, 16390), 40, false).unwrap();
        changed.add((16400, 6, 0), 0, true).unwrap();
        changed.settle();
        let ranges = |directory, number, segment| changed.of(directory, file(number, segment), &control());
        assert_eq!(
            ranges("base/5", 16384, 0).unwrap(),
            [3 * PAGE..4 * PAGE, 500 * PAGE..501 * PAGE, 999 * PAGE..1000 * PAGE]
        );
        // A page between two is read with them.
        assert_eq!(ranges("base/5", 16384, 1).unwrap(), [0..PAGE, 500 * PAGE..503 * PAGE]);
        assert_eq!(ranges("base/5", 16384, 2).unwrap(), []);
        assert_eq!(ranges("base/6", 16384, 0).unwrap(), [], "of another database");
        // What was cut off, or made anew, is new from there on.
        assert_eq!(ranges("base/5", 16390, 0).unwrap(), [2 * PAGE..3 * PAGE, 20 * PAGE..u64::MAX]);
        assert_eq!(ranges("base/5", 16390, 3).unwrap(), std::slice::from_ref(&(0..u64::MAX)));
        // Of what is not in the log nothing is told, nor of a database whose files were copied.
        let map = RelationFile { fork: Fork::Fsm, ..file(16384, 0) };
        assert_eq!(changed.of("base/5", map, &control()), None);
        assert_eq!(ranges("pg_tblspc/16400/PG_18_1/6", 20000, 0), None);
        assert_eq!(ranges("pg_tblspc/16401/PG_18_1/6", 20000, 0).unwrap(), []);
        assert_eq!(ranges("global", 1262, 0).unwrap(), []);
        assert_eq!(ranges("pg_xact", 1, 0), None);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut changed = ChangedBlocks::default();
        for number in 1..=RELATIONS_MAX as u32 {
            changed.add((DEFAULT_TABLESPACE, 5, number), 0, true).unwrap();
        }
        changed.add((DEFAULT_TABLESPACE, 5, 1), 7, false).unwrap();
        changed.add((DEFAULT_TABLESPACE, 6, 0), 0, true).unwrap();
        assert!(changed.add((DEFAULT_TABLESPACE, 5, u32::MAX), 0, true).is_err());
        assert!(changed.add((DEFAULT_TABLESPACE, 7, 0), 0, true).is_err());
    }

    #[test]
    fn summaries_must_follow_each_other() {
        let lsn = Lsn::new;
        let all = [(lsn(5), lsn(10)), (lsn(10), lsn(20)), (lsn(21), lsn(30))];
        assert_eq!(covered(&all, lsn(7)), lsn(20));
        assert_eq!(covered(&all, lsn(3)), lsn(3));
        assert_eq!(covered(&[], lsn(3)), lsn(3));
        assert_eq!(covered(&all, lsn(21)), lsn(30));
    }

    fn parent(positions: &[(&str, &str)]) -> SnapshotInfo {
        SnapshotInfo {
            id: SnapshotId::from_bytes([7; 16]),
            time: Timestamp::default(),
            stored: None,
            source: "postgres".into(),
            identity: Vec::new(),
            host: "db".into(),
            label: None,
            tenant: None,
            description: None,
            tags: BTreeMap::new(),
            position: positions.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            parent: None,
            outcome: Outcome::Complete,
            entries: 0,
            bytes_logical: 0,
            bytes_added: 0,
            skipped: Vec::new(),
            skipped_count: 0,
            origin: None,
            change: None,
            anomaly: None,
            workload: None,
        }
    }

    #[test]
    fn what_nobody_has_verified_is_read_by_whoever_verifies() {
        let known = [
            ("system_identifier", "7412"),
            ("timeline", "3"),
            ("server_started", "1795161600000000"),
            ("block_bytes", "8192"),
            ("data_checksums", "true"),
            ("damaged_pages", "0"),
            ("start_lsn", "0/2000028"),
        ];
        let between = |further: &[(&str, &str)], verifies| {
            let parent = parent(&[&known[..], further].concat());
            let server = Identity::new(7412, 1_795_161_600_000_000);
            Between::new(&parent, 18, server, &control(), Lsn::new(0x300_0028), verifies)
        };
        assert_eq!(between(&[("pages_verified", "true")], true).unwrap().from, Lsn::new(0x200_0028));
        // Also where a snapshot was made before it was said.
        for further in [&[][..], &[("pages_verified", "false")]] {
            let why = between(further, true).unwrap_err();
            assert!(why.contains("nobody has verified"), "{why}");
            assert!(between(further, false).is_ok());
        }
        assert!(between(&[("pages_verified", "true"), ("damaged_pages", "1")], true).is_err());
        assert!(between(&[("pages_verified", "true"), ("start_lsn", "0/4000028")], true).is_err());
    }
}
