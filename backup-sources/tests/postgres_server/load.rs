//! pgbench: what keeps a server busy.

use std::process::{Child, Stdio};
use std::time::Duration;

use super::{Cluster, run};

impl Cluster {
    /// Makes pgbench's tables in `postgres`: 100,000 accounts for each of `scale`.
    pub fn bench_init(&self, scale: u32) {
        self.bench_init_with(scale, &[]);
    }

    /// The same with further arguments, as `--tablespace=NAME`.
    pub fn bench_init_with(&self, scale: u32, arguments: &[&str]) {
        let mut init = self.program("pgbench");
        run(init.args(["-i", "-q", "-s", &scale.to_string()]).args(arguments).args(self.bench_place()));
    }

    /// Runs so many transactions for each of so many clients.
    pub fn bench(&self, clients: u32, transactions: u32) {
        let mut bench = self.program("pgbench");
        bench.args(["-n", "-c", &clients.to_string(), "-t", &transactions.to_string()]);
        run(bench.args(self.bench_place()));
    }

    /// Keeps so many clients busy until the load is dropped.
    pub fn load(&self, clients: u32) -> Load {
        self.load_with(&["-c", &clients.to_string()])
    }

    /// pgbench with arguments of one's own, until the load is dropped.
    pub fn load_with(&self, arguments: &[&str]) -> Load {
        let mut bench = self.program("pgbench");
        bench.args(["-n", "-T", "3600"]).args(arguments).args(self.bench_place());
        bench.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Load { child: bench.spawn().unwrap() }
    }

    fn bench_place(&self) -> [String; 7] {
        let (host, port) = (self.socket().display().to_string(), self.port().to_string());
        ["-h".into(), host, "-p".into(), port, "-U".into(), "postgres".into(), "postgres".into()]
    }
}

/// Clients at work. They end with the load, and when the server goes.
#[derive(Debug)]
pub struct Load {
    child: Child,
}

impl Load {
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Lets it work for a while.
    pub fn work(&mut self, time: Duration) {
        std::thread::sleep(time);
        assert!(self.is_running(), "pgbench has ended by itself");
    }

    /// Stops it.
    pub fn stop(self) {}
}

impl Drop for Load {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
