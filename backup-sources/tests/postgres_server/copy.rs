//! Copies of a running cluster, and standbys made of them.

use std::fs;
use std::path::Path;

use super::build::root;
use super::{Account, Cluster, eventually, run};

impl Cluster {
    /// Copies the cluster into `into` by `pg_basebackup`, with the log that the copy needs only if `arguments` say so
    /// (`-X stream`); they are `-X none` otherwise.
    pub fn base_backup(&self, into: &Path, arguments: &[&str]) {
        let mut copy = self.program("pg_basebackup");
        copy.args(["--checkpoint=fast", "--no-sync", "-d", &self.conninfo("postgres"), "-D"]).arg(into);
        if !arguments.contains(&"-X") {
            copy.args(["-X", "none"]);
        }
        run(copy.args(arguments));
    }

    /// A standby that streams from this cluster, started. Tablespaces, if there are any, stand beside it.
    pub fn standby(&self) -> Self {
        let standby = self.make_standby();
        standby.start();
        eventually("the standby's connection", || {
            (standby.sql("select count(*) from pg_stat_wal_receiver where status = 'streaming'") == "1")
                .then_some(())
        });
        standby
    }

    /// A standby, not started.
    pub fn make_standby(&self) -> Self {
        let root = root();
        Account::unprivileged().own(root.path());
        let data = root.path().join("data");
        let mut mappings = Vec::new();
        for place in
            self.sql("select pg_tablespace_location(oid) from pg_tablespace where oid > 16383").lines()
        {
            let name = Path::new(place).file_name().unwrap().to_string_lossy();
            mappings.push(format!("--tablespace-mapping={place}={}", root.path().join(&*name).display()));
        }
        let mut arguments = vec!["-X", "stream", "--write-recovery-conf"];
        arguments.extend(mappings.iter().map(String::as_str));
        self.base_backup(&data, &arguments);
        Self::adopt_in(self.version(), root, data)
    }

    /// Waits until this standby has replayed all that `primary` has written.
    pub fn catch_up(&self, primary: &Self) {
        let end = primary.lsn();
        eventually("the standby's replay", || {
            (self.sql(&format!("select pg_last_wal_replay_lsn() >= '{end}'")) == "t").then_some(())
        });
    }

    /// Files below the data directory with their contents' lengths, for a look at what is there.
    pub fn files(&self) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        let mut open = vec![self.data().to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    open.push(entry.path());
                } else {
                    let name = entry.path().strip_prefix(self.data()).unwrap().to_string_lossy().into_owned();
                    found.push((name, metadata.len()));
                }
            }
        }
        found.sort();
        found
    }
}
