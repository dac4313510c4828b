//! Making a cluster.

use std::path::PathBuf;

use super::{Account, Cluster, PASSWORD, Version, run};

/// Describes a cluster that is yet to be made.
#[derive(Debug, Clone)]
pub struct Builder {
    version: Version,
    config: String,
    hba: String,
    initdb: Vec<String>,
    checksums: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            version: Version::wanted(),
            config: String::new(),
            hba: String::new(),
            initdb: Vec::new(),
            checksums: true,
        }
    }
}

impl Builder {
    /// Another version than what the environment says.
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// Lines for `postgresql.conf`.
    pub fn config(mut self, lines: &str) -> Self {
        self.config += lines;
        self.config += "\n";
        self
    }

    /// Lines for `pg_hba.conf`, before all others.
    pub fn hba(mut self, lines: &str) -> Self {
        self.hba += lines;
        self.hba += "\n";
        self
    }

    /// A further argument of `initdb`, as `--wal-segsize=1`.
    pub fn initdb(mut self, argument: &str) -> Self {
        self.initdb.push(argument.to_owned());
        self
    }

    /// Without checksums of pages.
    pub fn without_checksums(mut self) -> Self {
        self.checksums = false;
        self
    }

    /// The cluster, not started.
    pub fn make(self) -> Cluster {
        let account = Account::unprivileged();
        let root = root();
        let password = root.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        account.own(root.path());
        let data = root.path().join("data");
        let mut initdb = self.version.program("initdb", &account);
        initdb.args(["--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync"]);
        initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256"]);
        match self.checksums {
            true => initdb.arg("--data-checksums"),
            // Since 18 there are checksums unless one says no.
            false if self.version >= Version(18) => initdb.arg("--no-data-checksums"),
            false => &mut initdb,
        };
        initdb.args(&self.initdb).arg(format!("--pwfile={}", password.display())).arg("-D").arg(&data);
        run(&mut initdb);
        let hba = data.join("pg_hba.conf");
        let rest = std::fs::read_to_string(&hba).unwrap();
        std::fs::write(&hba, self.hba.clone() + &rest).unwrap();
        let cluster = Cluster::adopt_in(self.version, root, data);
        cluster.append_config(SETTINGS);
        cluster.append_config(&self.config);
        cluster
    }

    /// The cluster, started.
    pub fn start(self) -> Cluster {
        let cluster = self.make();
        cluster.start();
        cluster
    }
}

/// What every cluster of tests has: small, quick, with a log that tells what happened.
const SETTINGS: &str = "\
shared_buffers = 32MB
fsync = off
synchronous_commit = on
max_connections = 50
wal_level = replica
max_wal_senders = 10
max_replication_slots = 10
max_wal_size = 256MB
min_wal_size = 32MB
log_min_messages = info
log_line_prefix = '%m [%p] '
log_timezone = 'UTC'
timezone = 'UTC'
listen_addresses = '127.0.0.1'
dynamic_shared_memory_type = mmap
";

/// A directory with a name short enough for the path of a socket.
pub(super) fn root() -> tempfile::TempDir {
    let place = std::env::temp_dir();
    let place = if place.as_os_str().len() > 60 { PathBuf::from("/tmp") } else { place };
    tempfile::Builder::new().prefix("pg").tempdir_in(place).unwrap()
}
