//! Mounting, waiting for the end, unmounting.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Error, ErrorKind, JobContext, Repository, Result};
use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use rustix::mount::UnmountFlags;
use tokio::sync::oneshot;

use super::MountOptions;
use super::attributes::Owner;
use super::filesystem::Requests;
use super::state::State;

/// Threads that take the kernel's requests; tasks of the runtime answer them.
const THREADS: usize = 2;
/// How long somebody who still uses an unmounted file system is waited for.
const PARTING_TIME_MAX: Duration = Duration::from_secs(2);

/// A repository that is mounted. Dropping it unmounts it.
#[derive(Debug)]
pub struct Mounted {
    directory: PathBuf,
    state: Arc<State>,
    unmounter: Option<SessionUnmounter>,
    ended: oneshot::Receiver<io::Result<()>>,
}

/// What came of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountReport {
    /// Files, directories and snapshots of which something could not be read. Each was told to the job's observer.
    pub unreadable: u64,
}

/// Mounts the snapshots of `repository` at `directory`, which must exist.
///
/// As root this takes nothing but `/dev/fuse`; other users need the program `fusermount3` (of the package `fuse3`). The
/// kernel's requests are answered by tasks of the runtime that this is called on, which must have its timers enabled, and
/// keep to the job's resources: a quarter of its memory, at most 64 MiB, holds what was read lately. Cancelling the job
/// makes every read fail, and ends [`Mounted::finished`]. A process that is killed leaves a dead mount behind, which
/// `fusermount3 -u` removes.
///
/// Fails where the list of snapshots cannot be read, with [`ErrorKind::Unsupported`] where there is no FUSE, and with
/// [`ErrorKind::InvalidInput`] where `directory` is none.
pub async fn mount(
    repository: &Repository,
    directory: impl AsRef<Path>,
    options: &MountOptions,
    job: &JobContext,
) -> Result<Mounted> {
    let directory = directory.as_ref().to_owned();
    let owner = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let state = State::new(repository.clone(), options.clone(), job.clone(), owner).await?;
    let state = Arc::new(state);
    let requests = Requests::new(state.clone(), tokio::runtime::Handle::current(), options.allow_other);
    let (place, allow_other) = (directory.clone(), options.allow_other);
    let started = tokio::task::spawn_blocking(move || start(&place, requests, allow_other)).await;
    let (unmounter, ended) =
        started.map_err(|e| Error::internal("mounting ended without a word").with_source(e))??;
    Ok(Mounted { directory, state, unmounter: Some(unmounter), ended })
}

impl Mounted {
    /// Waits until somebody unmounts it, or until the job is cancelled: then it is unmounted.
    pub async fn finished(mut self) -> Result<MountReport> {
        let job = self.state.job().clone();
        let ended = tokio::select! {
            ended = &mut self.ended => Some(ended),
            () = job.cancellation().cancelled() => None,
        };
        match ended {
            Some(ended) => self.report(ended),
            None => self.unmount().await,
        }
    }

    /// Unmounts it. Whoever still uses it finds it gone.
    pub async fn unmount(mut self) -> Result<MountReport> {
        let unmounter = self.unmounter.take();
        let directory = self.directory.clone();
        let done = tokio::task::spawn_blocking(move || unmount(unmounter, &directory)).await;
        done.map_err(|e| Error::internal("unmounting ended without a word").with_source(e))??;
        match tokio::time::timeout(PARTING_TIME_MAX, &mut self.ended).await {
            Ok(ended) => self.report(ended),
            // Somebody still has files open; they fail once this process ends.
            Err(_) => self.report(Ok(Ok(()))),
        }
    }

    fn report(&mut self, ended: Result<io::Result<()>, oneshot::error::RecvError>) -> Result<MountReport> {
        self.unmounter = None;
        match ended {
            Ok(Ok(())) => Ok(MountReport { unreadable: self.state.unreadable() }),
            Ok(Err(error)) => Err(Error::io("the connection to FUSE failed", error)),
            Err(_) => Err(Error::internal("the thread that answers FUSE ended without a word")),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.unmounter.is_some() {
            let _ = unmount(self.unmounter.take(), &self.directory);
        }
    }
}

type Started = (SessionUnmounter, oneshot::Receiver<io::Result<()>>);

fn start(directory: &Path, requests: Requests, allow_other: bool) -> Result<Started> {
    check(directory)?;
    let mut config = Config::default();
    config.mount_options = vec![MountOption::RO, MountOption::FSName("backup".into())];
    config.n_threads = Some(THREADS);
    if allow_other {
        config.acl = SessionACL::All;
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    let mut session =
        Session::new(requests, directory, &config).map_err(|error| not_mounted(directory, error))?;
    let unmounter = session.unmount_callable();
    let (sender, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("backup-mount".into())
        .spawn(move || sender.send(session.run()))
        .map_err(|error| Error::io("a thread for FUSE cannot be started", error))?;
    Ok((unmounter, ended))
}

fn check(directory: &Path) -> Result<()> {
    let shown = directory.display();
    let wrong = |what: String| Err(Error::new(ErrorKind::InvalidInput, what));
    match std::fs::metadata(directory) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return wrong(format!("{shown} is no directory to mount on")),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOTCONN.raw_os_error()) => {
            return wrong(format!(
                "{shown} is a mount whose process has ended; `fusermount3 -u {shown}` removes it"
            ));
        }
        Err(error) => {
            let message = format!("{shown} is to be mounted on and cannot be looked at");
            return Err(Error::io(message, error).with_kind(ErrorKind::InvalidInput));
        }
    }
    if !Path::new("/dev/fuse").exists() {
        let message = "there is no /dev/fuse: load the kernel's module (`modprobe fuse`), or give the container the device \
                       (`--device /dev/fuse --cap-add SYS_ADMIN`)";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(())
}

fn not_mounted(directory: &Path, error: io::Error) -> Error {
    let shown = directory.display();
    let message = match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{shown} cannot be mounted on: users need the program fusermount3, of the package fuse3")
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "{shown} cannot be mounted on: /dev/fuse is not for this user, or other users may not be let in"
            )
        }
        _ => format!("{shown} cannot be mounted on"),
    };
    Error::io(message, error)
}

fn unmount(unmounter: Option<SessionUnmounter>, directory: &Path) -> Result<()> {
    let Some(Err(error)) = unmounter.map(|mut unmounter| unmounter.unmount()) else { return Ok(()) };
    // It is in use: it goes from sight now, and away with its last user.
    rustix::mount::unmount(directory, UnmountFlags::DETACH).map_err(|_| {
        Error::io(
            format!("{} cannot be unmounted; `fusermount3 -u` does it by hand", directory.display()),
            error,
        )
    })
}
