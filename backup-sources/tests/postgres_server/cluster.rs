//! A cluster: its directory, its server, what it is asked.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::build::root;
use super::{Account, Builder, Guard, Version, free_port, run, try_run};

/// The password of `postgres` and of every role that tests make; asked for over TCP, not over the socket.
pub const PASSWORD: &str = "a password' with \\ and \u{e4}";

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// With a checkpoint.
    Fast,
    /// Without; the next start recovers.
    Immediate,
}

/// A cluster of this test; dropping it stops its server and removes everything. So does the end of the test, however it ends.
#[derive(Debug)]
pub struct Cluster {
    version: Version,
    account: Account,
    data: PathBuf,
    port: Mutex<u16>,
    // Before the directory that it removes.
    _guard: Guard,
    root: tempfile::TempDir,
}

impl Cluster {
    /// A new cluster with checksums of pages, started.
    pub fn new() -> Self {
        Self::builder().start()
    }

    /// Describes one.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A cluster of `version` whose directory stands somewhere already, not started. It gets a socket and a port of its own
    /// when it is started, and its directory stays when this is dropped.
    pub fn adopt(version: Version, data: &Path) -> Self {
        let root = root();
        let account = Account::unprivileged();
        account.own(root.path());
        account.own(data);
        Self::adopt_in(version, root, data.to_owned())
    }

    pub(super) fn adopt_in(version: Version, root: tempfile::TempDir, data: PathBuf) -> Self {
        let account = Account::unprivileged();
        let guard = Guard::new(&data, Some(root.path()));
        Self { version, account, data, port: Mutex::new(free_port()), _guard: guard, root }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn account(&self) -> Account {
        self.account
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A directory of the test's own, where the server may write: what stands there goes with the cluster.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.root.path().join(name);
        fs::create_dir_all(&path).unwrap();
        self.account.own(&path);
        path
    }

    /// The directory of the socket.
    pub fn socket(&self) -> &Path {
        self.root.path()
    }

    pub fn port(&self) -> u16 {
        *self.port.lock().unwrap()
    }

    /// Has the server listen on its socket alone, under the number of another one's, from its next start on.
    pub fn share_port(&self, port: u16) {
        self.append_config("listen_addresses = ''");
        *self.port.lock().unwrap() = port;
    }

    /// How to connect over the socket, where no password is asked for.
    pub fn conninfo(&self, database: &str) -> String {
        let database = database.replace('\\', r"\\").replace('\'', r"\'");
        format!("host={} port={} user=postgres dbname='{database}'", self.socket().display(), self.port())
    }

    /// A program of the server's version, run as the server's user.
    pub fn program(&self, name: &str) -> Command {
        self.version.program(name, &self.account)
    }

    /// Adds lines to `postgresql.conf`; a later line wins.
    pub fn append_config(&self, lines: &str) {
        let mut file = fs::File::options().append(true).open(self.data.join("postgresql.conf")).unwrap();
        file.write_all(lines.as_bytes()).unwrap();
        file.write_all(b"\n").unwrap();
    }

    /// Adds lines and has the running server read them.
    pub fn configure(&self, lines: &str) {
        self.append_config(lines);
        self.sql("select pg_reload_conf()");
    }

    /// Starts the server and waits until it takes connections.
    pub fn start(&self) {
        self.try_start().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts the server; otherwise its log.
    pub fn try_start(&self) -> Result<(), String> {
        for _ in 0..3 {
            let before = self.log().len();
            match self.start_once() {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let log = self.log().split_off(before);
                    if !log.contains("Address already in use") {
                        return Err(format!("{error}\n{log}"));
                    }
                    *self.port.lock().unwrap() = free_port();
                }
            }
        }
        Err("no port is free".to_owned())
    }

    fn start_once(&self) -> Result<(), String> {
        let options =
            format!("-c port={} -c unix_socket_directories={}", self.port(), self.socket().display());
        let mut start = self.version.program_alone("pg_ctl", &self.account);
        start.args(["start", "--wait", "--timeout=120", "--silent", "-o", &options, "-D"]).arg(&self.data);
        // What the server inherits must not be a pipe that somebody waits for.
        start.arg("-l").arg(self.log_path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = start.status().unwrap();
        if status.success() { Ok(()) } else { Err(format!("pg_ctl start: {status}")) }
    }

    pub fn stop(&self, how: Stop) {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        run(self.program("pg_ctl").args(["stop", "--wait", "--silent", "-m", mode, "-D"]).arg(&self.data));
    }

    pub fn restart(&self) {
        self.stop(Stop::Fast);
        self.start();
    }

    /// Kills every process of the server at once, as a power cut would, but for what the kernel has in memory.
    pub fn kill(&self) {
        let pid = self.pid().expect("the server does not run");
        let children = try_run(Command::new("ps").args(["-o", "pid=", "--ppid", &pid.to_string()]));
        let children = children.unwrap_or_default();
        // The server first, or it would clean up after the others.
        Command::new("kill")
            .arg("-9")
            .arg(pid.to_string())
            .args(children.split_whitespace())
            .output()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while Path::new("/proc").join(pid.to_string()).exists() {
            if is_zombie(pid) && Instant::now() + Duration::from_secs(19) > until {
                // Nobody here collects what has ended; a new server would take it for a running one.
                fs::remove_file(self.data.join("postmaster.pid")).ok();
                fs::remove_file(self.socket().join(format!(".s.PGSQL.{}.lock", self.port()))).ok();
                break;
            }
            assert!(Instant::now() < until, "the server survives kill -9");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The server's process, if one runs.
    pub fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.parse().ok()?;
        (Path::new("/proc").join(u32::to_string(&pid)).exists() && !is_zombie(pid)).then_some(pid)
    }

    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    fn log_path(&self) -> PathBuf {
        self.root.path().join("log")
    }

    /// What the server has written to its log, since ever.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// The answer to a statement in the database `postgres`: rows by lines, columns by `|`.
    pub fn sql(&self, statement: &str) -> String {
        self.sql_in("postgres", statement)
    }

    pub fn sql_in(&self, database: &str, statement: &str) -> String {
        self.try_sql_in(database, statement).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn try_sql(&self, statement: &str) -> Result<String, String> {
        self.try_sql_in("postgres", statement)
    }

    /// Several statements, divided by semicolons, are one transaction.
    pub fn try_sql_in(&self, database: &str, statement: &str) -> Result<String, String> {
        let mut psql = self.program("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.conninfo(database), "-c", statement]);
        try_run(&mut psql)
    }

    /// A script for psql, each statement by itself.
    pub fn script(&self, database: &str, script: &str) -> String {
        let path = self.root.path().join("script.sql");
        fs::write(&path, script).unwrap();
        let mut psql = self.program("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.conninfo(database), "-f"]).arg(path);
        run(&mut psql)
    }

    /// Where the log of a primary ends.
    pub fn lsn(&self) -> String {
        self.sql("select pg_current_wal_lsn()")
    }

    pub fn system_identifier(&self) -> u64 {
        self.sql("select system_identifier from pg_control_system()").parse().unwrap()
    }

    /// The timeline as of the last checkpoint.
    pub fn timeline(&self) -> u32 {
        self.sql("select timeline_id from pg_control_checkpoint()").parse().unwrap()
    }

    pub fn checkpoint(&self) {
        self.sql("checkpoint");
    }

    /// Ends the segment that is being written, and returns its name.
    pub fn switch_wal(&self) -> String {
        self.sql("select pg_walfile_name(pg_switch_wal())")
    }

    /// Makes a standby, or a server that is paused at its target, a primary, and waits until it is one.
    pub fn promote(&self) {
        run(self.program("pg_ctl").args(["promote", "--wait", "--silent", "-D"]).arg(&self.data));
    }

    /// Makes a tablespace, and returns where it is.
    pub fn tablespace(&self, name: &str) -> PathBuf {
        let path = self.directory(&format!("tablespace-{name}"));
        self.sql(&format!("create tablespace {name} location '{}'", path.display()));
        path
    }

    /// Rows and a checksum over all of them, whatever their order.
    pub fn checksum(&self, database: &str, table: &str) -> String {
        let rows = "count(*) || ':' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)";
        self.sql_in(database, &format!("select {rows} from {table} t"))
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(3000);
            let from = (from..log.len()).find(|&at| log.is_char_boundary(at)).unwrap_or_default();
            eprintln!("the log of the server in {} ends with:\n{}", self.data.display(), &log[from..]);
        }
    }
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}
