//! Moments of a busy database, recorded so that a recovery to each can be compared with what was there.

use std::thread::sleep;
use std::time::Duration;

use backup_sources::postgres::recovery::{RecoveryTarget, parse_time};

use super::on;
use crate::postgres_server::Cluster;

/// A moment, and what the tables had then.
#[derive(Debug, Clone)]
pub struct Moment {
    pub target: RecoveryTarget,
    pub state: String,
    pub timeline: u32,
}

/// What is recorded.
const TABLES: [&str; 4] = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"];

/// Rows and checksums of all of pgbench's tables.
pub fn state_query() -> String {
    let of = |table: &str| {
        format!(
            "(select count(*) || ':' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) from {table} t)"
        )
    };
    format!("select {}", TABLES.map(of).join(" || ' ' || "))
}

/// Records moments: writers are held while the moment and what is there are taken down.
#[derive(Debug, Default)]
pub struct Recorder {
    pub moments: Vec<Moment>,
}

impl Recorder {
    /// Records the next moment, of the kind whose turn it is: a time, a position, a transaction, a name.
    pub fn record(&mut self, cluster: &Cluster, timeline: u32) {
        let number = self.moments.len();
        let hold = "begin; lock table pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history in share mode;";
        // Everything under one lock: nobody can commit a change to these tables between the state and the moment.
        let state = state_query();
        let script = match number % 4 {
            0 => format!(
                "{hold}\n{state};\nselect pg_sleep(0.02);\nselect clock_timestamp() at time zone 'UTC';\nselect pg_sleep(0.02);\ncommit;"
            ),
            1 => format!("{hold}\n{state};\nselect pg_current_wal_insert_lsn();\ncommit;"),
            // What commits is a transaction that has a number; it changes nothing that is compared.
            2 => format!(
                "{hold}\n{state};\nselect pg_current_xact_id();\ninsert into moments values ({number});\ncommit;"
            ),
            _ => format!("{hold}\n{state};\nselect pg_create_restore_point('moment {number}');\ncommit;"),
        };
        let answer = cluster.script("postgres", &script);
        let lines: Vec<&str> = answer.lines().filter(|line| !line.is_empty()).collect();
        let target = match number % 4 {
            0 => RecoveryTarget::time(parse_time(&format!("{}Z", lines.last().unwrap())).unwrap()),
            1 => RecoveryTarget::lsn(lines[1].parse().unwrap()),
            2 => RecoveryTarget::xid(lines[1].parse().unwrap()),
            _ => RecoveryTarget::name(format!("moment {number}")),
        };
        self.moments.push(Moment { target: target.on(on(timeline)), state: lines[0].to_owned(), timeline });
    }

    /// Records so many moments with load between them.
    pub fn record_many(&mut self, cluster: &Cluster, timeline: u32, count: usize) {
        for _ in 0..count {
            sleep(Duration::from_millis(150));
            self.record(cluster, timeline);
        }
    }
}
