//! Where it happens: a repository in a server, processes with clocks of their own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::book::Book;
use crate::common::{Ran, Scratch};
use crate::stores;

/// A process that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) struct World {
    pub(crate) scratch: Scratch,
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) book: Book,
    environment: Vec<(&'static str, String)>,
    store: Mutex<SocketAddr>,
    ends: Instant,
    failures: Mutex<Vec<String>>,
    over: AtomicBool,
}

/// What is done to a process while it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Blow {
    None,
    /// Killed after so long.
    Kill(Duration),
    /// Stopped after so long, for so long.
    Stop(Duration, Duration),
}

impl World {
    pub(crate) fn new(store: SocketAddr) -> Arc<Self> {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        let minutes = if std::env::var_os("BACKUP_LONG").is_some() { 60 } else { 5 };
        let time = Duration::from_secs(number("BACKUP_CHAOS_SECONDS").unwrap_or(minutes * 60));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let environment = vec![
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_ACCESS_KEY_ID", "test".into()),
            ("AWS_SECRET_ACCESS_KEY", "test".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("BACKUP_REPO", format!("s3://{}/chaos", stores::BUCKET)),
        ];
        Arc::new(Self {
            scratch: Scratch::new(),
            seed: number("BACKUP_CHAOS_SEED").unwrap_or(now.as_secs()),
            time,
            book: Book::default(),
            environment,
            store: Mutex::new(store),
            ends: Instant::now() + time,
            failures: Mutex::default(),
            over: AtomicBool::new(false),
        })
    }

    /// Whether there is time for more.
    pub(crate) fn goes_on(&self) -> bool {
        Instant::now() < self.ends && !self.over.load(Ordering::Relaxed)
    }

    /// From now on commands talk to this store, in which nothing goes wrong.
    pub(crate) fn calm(&self, store: SocketAddr) {
        *self.store.lock().unwrap() = store;
    }

    /// Waits a while, or until the end.
    pub(crate) fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while self.goes_on() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Something that must not be: everybody stops.
    pub(crate) fn fail(&self, what: String) {
        eprintln!("{what}");
        self.failures.lock().unwrap().push(what);
        self.over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn assert_no_failures(&self) {
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "seed {}: {failures:#?}", self.seed);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    fn command(&self, arguments: &[&str], clock: i64) -> Command {
        let mut command = self.scratch.command(["--json", "--no-cache"]);
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("AWS_ENDPOINT_URL", format!("http://{}", self.store.lock().unwrap()));
        // Only the time of day is off: no clock of the system's runs backwards or jumps under a program.
        command.env("LD_PRELOAD", faketime()).env("FAKETIME", format!("{clock:+}"));
        // Whether a writer was shut out is said there.
        command.env("BACKUP_LOG", "warn");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        command
    }

    /// Runs a command whose clock is off by so many seconds; none if it was killed before it had ended.
    pub(crate) fn run(&self, arguments: &[&str], clock: i64, blow: Blow) -> Option<Ran> {
        let mut command = self.command(arguments, clock);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (drain(child.stdout.take().unwrap()), drain(child.stderr.take().unwrap()));
        let killed = self.strike(&mut child, blow);
        let status = child.wait().unwrap();
        let (out, err) = (out.join().unwrap(), err.join().unwrap());
        let Some(code) = status.code() else {
            if !killed {
                self.fail(format!("{arguments:?} ended by {status:?}: {err}"));
            }
            return None;
        };
        if err.contains("panicked") || ![0, 1, 3, 4].contains(&code) {
            self.fail(format!("{arguments:?}: {code}\n{out}\n{err}"));
        }
        Some(Ran { code, raw: out.clone().into_bytes(), out, err })
    }

    /// Does to a process what is to be done, and waits until it ends. Returns whether it was killed.
    fn strike(&self, child: &mut Child, blow: Blow) -> bool {
        let begun = Instant::now();
        let mut killed = false;
        let mut blow = Some(blow);
        while child.try_wait().unwrap().is_none() {
            match blow {
                Some(Blow::Kill(after)) if begun.elapsed() >= after => {
                    child.kill().unwrap();
                    self.book.count("killed");
                    (killed, blow) = (true, None);
                }
                Some(Blow::Stop(after, time)) if begun.elapsed() >= after => {
                    signal(child, rustix::process::Signal::STOP);
                    self.book.count("stopped");
                    self.pause(time);
                    signal(child, rustix::process::Signal::CONT);
                    blow = None;
                }
                _ => {}
            }
            if begun.elapsed() > PATIENCE {
                self.fail("a process hangs".into());
                child.kill().unwrap();
                killed = true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        killed
    }

    /// Runs a command that must succeed, after as many tries as the faults of the store take.
    pub(crate) async fn run_well(self: &Arc<Self>, arguments: &[&str]) -> Ran {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let world = self.clone();
        let run = move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            for _ in 0..5 {
                let ran = world.run(&arguments, 0, Blow::None).unwrap();
                if ran.code == 0 || !is_passing(&ran) {
                    return ran.expect(0);
                }
            }
            panic!("{arguments:?} does not succeed");
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }
}

/// Whether a command failed in a way that another try may mend: the store or the network did something.
pub(crate) fn is_passing(ran: &Ran) -> bool {
    // The last is the server's: it looks whether an object is there and stores it in two steps, which on a busy machine two
    // requests go through at once.
    let passing = ["\"transient\"", "\"io\"", "callers at once that they created the same object"];
    ran.code == 1 && passing.iter().any(|said| ran.out.contains(said))
}

/// What a command said.
pub(crate) fn said(ran: &Ran) -> String {
    format!("{}\n{}", ran.out, ran.err)
}

fn drain(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        from.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    })
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    // It may have ended a moment ago.
    rustix::process::kill_process(pid, signal).ok();
}

/// The library that changes what programs take for the time.
pub(crate) fn faketime() -> String {
    let directories = ["/usr/lib", "/usr/local/lib", "/usr/lib64"];
    let of_machine = format!("{}-linux-gnu/faketime", std::env::consts::ARCH);
    let all = directories.iter().flat_map(|lib| [format!("{lib}/{of_machine}"), format!("{lib}/faketime")]);
    let found =
        all.map(|directory| format!("{directory}/libfaketime.so.1")).find(|path| Path::new(path).exists());
    found.unwrap_or_else(|| panic!("libfaketime must be installed (apt-get install libfaketime)"))
}
