//! A service with the engine inside: it starts backups on request, says how far they are, cancels them, and when it is
//! told to stop it cancels what runs, waits for it, and leaves a valid repository.
//!
//! ```text
//! cargo run -p library-examples --example embedded_service              # a client asks, the service answers, both end
//! cargo run -p library-examples --example embedded_service ADDRESS      # listens until Ctrl-C; talk to it with nc
//! ```
//!
//! The protocol is lines: `backup NAME`, `status`, `cancel`, `limit BYTES_PER_SECOND`, `quit`. A client names things that
//! were configured, never paths, addresses or commands: whoever may choose those can read and run anything here.
//!
//! The engine runs on the service's own runtime, single-threaded or not: its futures never block, and what must block or
//! compute runs on threads of the job. A job ends when its token is cancelled or its future dropped; until the last put
//! nothing of it is visible, and what it stored by then serves the next one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use backup_core::report::BackupReport;
use backup_core::repository::{BackupOptions, CreateOptions, Repository};
use backup_core::{
    CancellationToken, Error, Event, JobContext, Observer, Progress, RepositoryId, Resources, Result, Sink,
    Source, SystemRandom, Unprotected,
};
use backup_sinks::LocalSink;
use backup_sources::FilesSource;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// Longest line that a client may send.
const LINE_BYTES_MAX: u64 = 1024;

/// The part of a service that has to do with backups.
#[derive(Debug)]
pub(crate) struct Service {
    repository: Repository,
    /// What can be backed up, by the names that clients use.
    sources: BTreeMap<String, Arc<dyn Source>>,
    /// Shared by all jobs.
    resources: Resources,
    stopping: CancellationToken,
    tasks: TaskTracker,
    job: Mutex<Job>,
}

#[derive(Debug)]
enum Job {
    None,
    Running { stop: CancellationToken, progress: Progress },
    Ended(Result<BackupReport>),
}

impl Service {
    pub(crate) fn new(repository: Repository, sources: BTreeMap<String, Arc<dyn Source>>) -> Arc<Self> {
        Arc::new(Self {
            repository,
            sources,
            resources: Resources::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            job: Mutex::new(Job::None),
        })
    }

    /// Answers clients until it is told to stop; returns when nothing of it runs any more.
    pub(crate) async fn serve(self: &Arc<Self>, listener: TcpListener) -> Result<()> {
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.map_err(|e| Error::io("no client could be accepted", e))?.0,
                () = self.stopping.cancelled() => break,
            };
            let service = self.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    // A client that goes away in the middle is no fault of the service.
                    _ = service.talk(stream) => {}
                    () = service.stopping.cancelled() => {}
                }
            });
        }
        self.tasks.close();
        self.tasks.wait().await;
        Ok(())
    }

    /// Makes `serve` return, soon.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    async fn talk(self: &Arc<Self>, mut stream: TcpStream) -> std::io::Result<()> {
        let (read, mut write) = stream.split();
        let mut read = BufReader::new(read);
        loop {
            let mut line = String::new();
            if (&mut read).take(LINE_BYTES_MAX).read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let answer = self.answer(line.trim());
            write.write_all(format!("{answer}\n").as_bytes()).await?;
        }
    }

    fn answer(self: &Arc<Self>, line: &str) -> String {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("backup", name) => self.start(name),
            ("status", "") => self.status(),
            ("cancel", "") => self.cancel(),
            ("limit", rate) => match rate.parse() {
                Ok(rate) => {
                    self.resources.upload().set_bytes_per_second(Some(rate).filter(|rate| *rate > 0));
                    "ok".to_owned()
                }
                Err(_) => "error: a limit is a number of bytes per second; 0 lifts it".to_owned(),
            },
            ("quit", "") => {
                self.stop();
                "stopping".to_owned()
            }
            _ => "error: say backup NAME, status, cancel, limit BYTES_PER_SECOND or quit".to_owned(),
        }
    }

    fn start(self: &Arc<Self>, name: &str) -> String {
        let Some(source) = self.sources.get(name).cloned() else {
            return format!("error: nothing called `{}` is configured", name.escape_debug());
        };
        let mut job = self.lock();
        if matches!(*job, Job::Running { .. }) {
            return "error: a backup is running".to_owned();
        }
        // Stopped by itself, and with everything else when the service stops.
        let stop = self.stopping.child_token();
        *job = Job::Running { stop: stop.clone(), progress: Progress::default() };
        let service = self.clone();
        let label = name.to_owned();
        self.tasks.spawn(async move {
            let observer = Arc::new(Watcher(service.clone()));
            let context = JobContext::new()
                .with_cancellation(stop)
                .with_resources(service.resources.clone())
                .with_observer(observer);
            let options = BackupOptions { label: Some(label), ..BackupOptions::default() };
            let ended = service.repository.backup(&*source, &options, &context).await;
            *service.lock() = Job::Ended(ended);
        });
        "started".to_owned()
    }

    fn status(&self) -> String {
        match &*self.lock() {
            Job::None => "idle".to_owned(),
            Job::Running { progress, .. } => {
                format!("running {} entries {} bytes", progress.entries_done, progress.bytes_done)
            }
            Job::Ended(Ok(report)) => format!("ended {:?} {} entries", report.outcome, report.entries),
            Job::Ended(Err(error)) if error.is_cancelled() => "cancelled".to_owned(),
            Job::Ended(Err(error)) => format!("failed {error}"),
        }
    }

    fn cancel(&self) -> String {
        match &*self.lock() {
            Job::Running { stop, .. } => {
                stop.cancel();
                "cancelling".to_owned()
            }
            _ => "error: no backup is running".to_owned(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Job> {
        self.job.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Notes how far the running job is.
#[derive(Debug)]
struct Watcher(Arc<Service>);

impl Observer for Watcher {
    fn on_event(&self, event: &Event) {
        if let (Event::Progress(now), Job::Running { progress, .. }) = (event, &mut *self.0.lock()) {
            *progress = now.clone();
        }
    }
}

/// A new repository below `work`, and a service that knows `source` as `home`.
pub(crate) async fn service(source: &Path, work: &Path) -> Result<Arc<Service>> {
    let job = JobContext::new();
    let sink: Arc<dyn Sink> = Arc::new(LocalSink::create(work.join("repository"))?);
    let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom)?));
    let repository = Repository::create(sink, protection, CreateOptions::default(), &job).await?;
    let home: Arc<dyn Source> = Arc::new(FilesSource::new(source)?);
    Ok(Service::new(repository, [("home".to_owned(), home)].into()))
}

/// What a client does: asks for a backup under a tight limit, looks, cancels it, asks again without, and says good-bye.
/// Returns the answers.
pub(crate) async fn client(address: std::net::SocketAddr) -> Result<Vec<String>> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        let (read, mut write) = stream.split();
        let mut answers = BufReader::new(read).lines();
        let mut heard = Vec::new();
        let script = [
            ("backup etc", "error"),
            ("limit 1", "ok"),
            ("backup home", "started"),
            ("backup home", "error"),
            ("status", "running"),
            ("cancel", "cancelling"),
            ("status", "cancelled"),
            ("limit 0", "ok"),
            ("backup home", "started"),
            ("status", "ended"),
            ("quit", "stopping"),
        ];
        for (line, expected) in script {
            loop {
                write.write_all(format!("{line}\n").as_bytes()).await?;
                let answer = answers.next_line().await?.unwrap_or_default();
                // A state that is waited for is asked for again, gently.
                if line == "status" && !answer.starts_with(expected) {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                }
                heard.push(format!("{line}: {answer}"));
                break;
            }
        }
        Ok(heard)
    };
    talk.await.map_err(|e| Error::io("the service went away", e))
}

/// The service and a client of it, until both have ended. Returns what the client heard, and the repository.
pub(crate) async fn run(source: &Path, work: &Path) -> Result<(Vec<String>, Repository)> {
    let service = service(source, work).await?;
    let (listener, address) = listen("127.0.0.1:0").await?;
    let (served, heard) = tokio::join!(service.serve(listener), client(address));
    served?;
    Ok((heard?, service.repository.clone()))
}

async fn listen(address: &str) -> Result<(TcpListener, std::net::SocketAddr)> {
    let listen = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listen.await.map_err(|e| Error::io(format!("{address} cannot be listened on"), e))
}

#[tokio::main]
async fn main() -> Result<()> {
    let scratch = tempfile::tempdir().map_err(|e| Error::io("no temporary directory", e))?;
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"));
    let Some(address) = std::env::args().nth(1) else {
        let (heard, repository) = run(source, scratch.path()).await?;
        heard.iter().for_each(|line| println!("{line}"));
        println!("{} snapshot in the repository", repository.snapshots(&JobContext::new()).await?.len());
        return Ok(());
    };
    let service = service(source, scratch.path()).await?;
    let (listener, address) = listen(&address).await?;
    println!("listening on {address}");
    let serving = service.serve(listener);
    let asked_to_stop = async {
        let _ = tokio::signal::ctrl_c().await;
        service.stop();
        std::future::pending::<()>().await
    };
    tokio::select! {
        served = serving => served,
        () = asked_to_stop => Ok(()),
    }
}
