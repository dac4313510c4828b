//! A running process: its output through a bounded channel, its end, its killing.

use std::collections::VecDeque;
use std::io::{self, Read};
#[cfg(feature = "postgres")]
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::pin::Pin;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc::{self, Receiver, Sender};
#[cfg(feature = "postgres")]
use tokio::sync::oneshot;

use super::Call;
use crate::reader::{Failure, lock};

/// Bytes read from the process at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that may wait to be fetched.
const PIECES_WAITING: usize = 4;
/// How much of the end of its standard error an error tells.
const COMPLAINT_BYTES: usize = 2048;
/// How soon the process is killed after nobody wants its output any more.
const TICK: Duration = Duration::from_millis(50);
/// How long the rest of the standard error is waited for after the process has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The output of a process, which is started by the first read.
///
/// A thread reads the pipe, not the runtime, so that it works in every runtime, also one without drivers.
pub(crate) struct Output {
    call: Option<(Call, Stdio)>,
    pieces: Option<Receiver<Bytes>>,
    piece: Bytes,
    end: Arc<Mutex<Option<Result<(), String>>>>,
    /// Breaks off when the process has ended, by itself or killed.
    #[cfg(feature = "postgres")]
    gone: Option<oneshot::Receiver<()>>,
    failure: Failure,
}

impl Output {
    /// Of a process without input.
    pub(crate) fn of(call: Call) -> Self {
        Self::with(call, Stdio::null())
    }

    /// Of a process that reads from here.
    #[cfg(feature = "postgres")]
    pub(crate) fn fed(call: Call, input: OwnedFd) -> Self {
        Self::with(call, input.into())
    }

    fn with(call: Call, input: Stdio) -> Self {
        Self {
            call: Some((call, input)),
            pieces: None,
            piece: Bytes::new(),
            end: Arc::default(),
            #[cfg(feature = "postgres")]
            gone: None,
            failure: Arc::default(),
        }
    }

    /// Where it will stand why the process failed.
    pub(crate) fn failure(&self) -> Failure {
        Arc::clone(&self.failure)
    }

    /// Kills the process if it still runs, and returns when it has ended.
    #[cfg(feature = "postgres")]
    pub(crate) async fn stop(mut self) {
        self.call = None;
        // Once nobody wants its output the process is killed. The closed channel itself is empty before that.
        self.pieces = None;
        if let Some(gone) = self.gone.take() {
            let _ = gone.await;
        }
    }

    fn fail(&self, why: String) -> io::Error {
        *lock(&self.failure) = Some(why.clone());
        io::Error::other(why)
    }

    fn start(&mut self, call: Call, input: Stdio) -> io::Result<()> {
        let (sender, pieces) = mpsc::channel(PIECES_WAITING);
        let end = Arc::clone(&self.end);
        #[cfg(feature = "postgres")]
        let until_gone = {
            let (until_gone, gone) = oneshot::channel::<()>();
            self.gone = Some(gone);
            until_gone
        };
        let work = move || {
            let ended = run(&call, input, &sender);
            #[cfg(feature = "postgres")]
            drop(until_gone);
            // First the end, then the closing of the channel, which makes the reader look for it.
            *lock(&end) = Some(ended);
            drop(sender);
        };
        std::thread::Builder::new().name("backup-command".into()).spawn(work)?;
        self.pieces = Some(pieces);
        Ok(())
    }
}

impl AsyncRead for Output {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some((call, input)) = this.call.take()
            && let Err(error) = this.start(call, input)
        {
            return Poll::Ready(Err(
                this.fail(format!("a thread for the command cannot be started: {error}"))
            ));
        }
        while this.piece.is_empty() {
            let Some(pieces) = &mut this.pieces else { return Poll::Ready(Ok(())) };
            match ready!(pieces.poll_recv(context)) {
                Some(piece) => this.piece = piece,
                None => {
                    this.pieces = None;
                    let ended = lock(&this.end).take();
                    let ended = ended.unwrap_or_else(|| Err("the reading of its output broke off".into()));
                    return Poll::Ready(ended.map_err(|why| this.fail(why)));
                }
            }
        }
        let len = this.piece.len().min(buffer.remaining());
        buffer.put_slice(this.piece.get(..len).unwrap_or_default());
        this.piece.advance(len);
        Poll::Ready(Ok(()))
    }
}

/// Runs the process to its end, passing on its output.
fn run(call: &Call, input: Stdio, sender: &Sender<Bytes>) -> Result<(), String> {
    let program = call.program.to_string_lossy();
    let deadline = call.timeout.and_then(|limit| Instant::now().checked_add(limit));
    let mut command = Command::new(&call.program);
    for (variable, _) in std::env::vars_os().filter(|(variable, _)| call.forgets(variable)) {
        command.env_remove(variable);
    }
    command
        .args(&call.arguments)
        .envs(call.environment.iter().map(|(name, value)| (name, value)))
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let spawned = command.spawn();
    // It has its own copy of where its input comes from: whoever writes there is to learn of its end.
    drop(command);
    let child = spawned.map_err(|error| format!("the command `{program}` cannot be started: {error}"))?;
    let mut process = Process { child, ended: false };
    let complaint = Complaint::collect(process.child.stderr.take());
    let stdout = process.child.stdout.take();
    let passed = stdout.map_or(Ok(()), |stdout| pass_on(stdout, sender, deadline));
    let ended = passed.and_then(|()| process.wait(sender, deadline));
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let how = match (status.code(), status.signal()) {
                (Some(code), _) => format!("failed with exit status {code}"),
                (None, Some(signal)) => format!("was killed by signal {signal}"),
                (None, None) => "failed".to_owned(),
            };
            Err(format!("the command `{program}` {how}{}", complaint.tell()))
        }
        Err(Stop::Late) => {
            process.kill();
            let limit = call.timeout.unwrap_or_default();
            Err(format!(
                "the command `{program}` did not end within {limit:?} and was killed{}",
                complaint.tell()
            ))
        }
        Err(Stop::Unwanted) => {
            process.kill();
            Err(format!("the command `{program}` was stopped because its output was not wanted any more"))
        }
        Err(Stop::Failed(error)) => {
            process.kill();
            Err(format!("the output of the command `{program}` cannot be read: {error}"))
        }
    }
}

/// Why a process is not waited for any longer.
enum Stop {
    Late,
    Unwanted,
    Failed(io::Error),
}

/// Passes on what comes from `stdout` until it is closed.
fn pass_on(mut stdout: ChildStdout, sender: &Sender<Bytes>, deadline: Option<Instant>) -> Result<(), Stop> {
    // Fewer changes between the two processes; the usual 64 KiB do if that is not permitted.
    let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIECE_BYTES);
    let mut buffer = BytesMut::new();
    loop {
        while !is_readable(&stdout).map_err(Stop::Failed)? {
            check(sender, deadline)?;
        }
        check(sender, deadline)?;
        buffer.resize(PIECE_BYTES, 0);
        match stdout.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                let piece = buffer.split_to(len).freeze();
                sender.blocking_send(piece).map_err(|_| Stop::Unwanted)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Stop::Failed(error)),
        }
    }
}

fn check(sender: &Sender<Bytes>, deadline: Option<Instant>) -> Result<(), Stop> {
    if sender.is_closed() {
        return Err(Stop::Unwanted);
    }
    if deadline.is_some_and(|deadline| Instant::now() >= deadline) { Err(Stop::Late) } else { Ok(()) }
}

fn is_readable(stdout: &ChildStdout) -> io::Result<bool> {
    let tick = Timespec::try_from(TICK).map_err(io::Error::other)?;
    match rustix::event::poll(&mut [PollFd::new(stdout, PollFlags::IN)], Some(&tick)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A process that does not outlive its owner, nor do those that it started.
struct Process {
    child: Child,
    ended: bool,
}

impl Process {
    fn wait(&mut self, sender: &Sender<Bytes>, deadline: Option<Instant>) -> Result<ExitStatus, Stop> {
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) = self.child.try_wait().map_err(Stop::Failed)? {
                self.ended = true;
                return Ok(status);
            }
            check(sender, deadline)?;
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2).min(TICK);
        }
    }

    fn kill(&mut self) {
        if self.ended {
            return;
        }
        self.ended = true;
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The end of what the process writes to its standard error.
struct Complaint {
    tail: Arc<Mutex<VecDeque<u8>>>,
    ended: std::sync::mpsc::Receiver<()>,
}

impl Complaint {
    fn collect(stderr: Option<ChildStderr>) -> Self {
        let tail = Arc::new(Mutex::new(VecDeque::with_capacity(COMPLAINT_BYTES)));
        let (sender, ended) = std::sync::mpsc::channel();
        let into = Arc::clone(&tail);
        let work = move || {
            let mut buffer = [0; COMPLAINT_BYTES];
            // The thread ends when the last process that holds the pipe has.
            if let Some(mut stderr) = stderr {
                while let Ok(len @ 1..) = stderr.read(&mut buffer) {
                    let mut tail = lock(&into);
                    tail.extend(buffer.get(..len).unwrap_or_default());
                    let over = tail.len().saturating_sub(COMPLAINT_BYTES);
                    tail.drain(..over);
                }
            }
            let _ = sender.send(());
        };
        // Without the thread the pipe is closed, and the process complains to nobody.
        let _ = std::thread::Builder::new().name("backup-stderr".into()).spawn(work);
        Self { tail, ended }
    }

    /// What is to be added to an error.
    fn tell(&self) -> String {
        let _ = self.ended.recv_timeout(LAST_WORDS);
        let tail: Vec<u8> = lock(&self.tail).iter().copied().collect();
        let tail = String::from_utf8_lossy(&tail);
        let tail = tail.trim();
        if tail.is_empty() { String::new() } else { format!("; it wrote: {tail}") }
    }
}
