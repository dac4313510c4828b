//! What a run yields, and that nothing of it counts before all of it came to its end.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use backup_core::source::BlockingContent;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

use crate::command::Call;
use crate::command::process::Output;
use crate::reader::lock;

/// How far the content of an entry was read.
#[derive(Debug, Clone, Default)]
pub(super) struct State(Arc<Mutex<Progress>>);

#[derive(Debug, Default)]
enum Progress {
    #[default]
    Unread,
    Whole,
    Failed(String),
}

impl State {
    fn whole(&self) {
        let mut state = lock(&self.0);
        if !matches!(*state, Progress::Failed(_)) {
            *state = Progress::Whole;
        }
    }

    fn failed(&self, error: &io::Error) {
        *lock(&self.0) = Progress::Failed(error.to_string());
    }

    /// Why the content must not count; none if it was read to its end, and the end is its end.
    pub(super) fn problem(&self) -> Option<String> {
        match &*lock(&self.0) {
            Progress::Whole => None,
            Progress::Unread => Some("it was not read to its end".into()),
            Progress::Failed(why) => Some(why.clone()),
        }
    }
}

/// Who dumps when: in the order in which dumps were opened, so many at once. The engine asks for content ahead of what it stores.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    ended: Arc<watch::Sender<u64>>,
    given: Arc<AtomicU64>,
    at_once: u64,
}

impl Turns {
    pub(super) fn new(at_once: usize) -> Self {
        let at_once = u64::try_from(at_once).unwrap_or(u64::MAX).max(1);
        Self { ended: Arc::new(watch::Sender::new(0)), given: Arc::default(), at_once }
    }

    fn next(&self) -> Turn {
        Turn { number: self.given.fetch_add(1, Ordering::Relaxed), turns: self.clone() }
    }
}

struct Turn {
    number: u64,
    turns: Turns,
}

impl Turn {
    /// Returns when enough of those before have ended.
    fn come(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (mut ended, number, at_once) = (self.turns.ended.subscribe(), self.number, self.turns.at_once);
        Box::pin(async move {
            // The sender lives as long as any turn.
            let _ = ended.wait_for(|ended| number < ended.saturating_add(at_once)).await;
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.ended.send_modify(|ended| *ended = ended.saturating_add(1));
    }
}

/// The output of a program that is started by the first read, when its turn has come.
pub(super) struct Dump {
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    output: Output,
    turn: Option<Turn>,
    state: State,
}

impl Dump {
    pub(super) fn new(call: Call, turns: &Turns, state: State) -> Self {
        let turn = turns.next();
        Self { waiting: Some(turn.come()), output: Output::of(call), turn: Some(turn), state }
    }
}

impl AsyncRead for Dump {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(waiting) = &mut this.waiting {
            ready!(waiting.as_mut().poll(cx));
            this.waiting = None;
        }
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let read = ready!(Pin::new(&mut this.output).poll_read(cx, buffer));
        match &read {
            Ok(()) if room > 0 && buffer.filled().len() == before => {
                this.state.whole();
                this.turn = None;
            }
            Ok(()) => {}
            Err(error) => {
                this.state.failed(error);
                this.turn = None;
            }
        }
        Poll::Ready(read)
    }
}

/// A file of a dump in a scratch directory, which is gone from there as soon as it is open.
pub(super) struct DumpFile {
    file: File,
    left: u64,
    state: State,
}

impl DumpFile {
    /// Opens it. Blocks.
    pub(super) fn open(path: &Path, bytes: u64, state: State) -> io::Result<Self> {
        let open = || {
            let file = File::open(path)?;
            std::fs::remove_file(path)?;
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Self { file, left: bytes, state }),
            Err(error) => {
                state.failed(&error);
                Err(error)
            }
        }
    }
}

impl BlockingContent for DumpFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.file.read(buffer) {
            Ok(0) if self.left > 0 && !buffer.is_empty() => {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof))
            }
            other => other,
        };
        match &read {
            Ok(0) if !buffer.is_empty() => self.state.whole(),
            Ok(len) => self.left = self.left.saturating_sub(u64::try_from(*len).unwrap_or(u64::MAX)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.state.failed(error),
        }
        read
    }
}

/// What an entry's content comes from.
#[derive(Clone)]
pub(super) enum Origin {
    /// The output of a program.
    Program(Call),
    /// A file in the scratch directory, and its length.
    File(PathBuf, u64),
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn call(script: &str) -> Call {
        let arguments = vec!["-c".into(), script.into()];
        Call { program: "sh".into(), arguments, environment: Vec::new(), without: None, timeout: None }
    }

    #[tokio::test]
    async fn dumps_take_turns_whoever_is_asked_first() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("running");
        // Each fails if another one runs.
        let script = format!("mkdir '{0}' && echo x && sleep 0.1 && rmdir '{0}'", mark.display());
        let turns = Turns::new(1);
        let states: Vec<State> = (0..4).map(|_| State::default()).collect();
        let dumps: Vec<_> =
            states.iter().map(|state| Dump::new(call(&script), &turns, state.clone())).collect();
        let mut tasks = tokio::task::JoinSet::new();
        for mut dump in dumps.into_iter().rev() {
            tasks.spawn(async move { dump.read_to_end(&mut Vec::new()).await.map(|_| ()) });
        }
        for ended in tasks.join_all().await {
            ended.unwrap();
        }
        assert!(states.iter().all(|state| state.problem().is_none()));
    }

    #[tokio::test]
    async fn what_fails_or_is_given_up_is_no_dump_and_keeps_nobody_waiting() {
        let turns = Turns::new(1);
        let (given_up, failed, whole) = (State::default(), State::default(), State::default());
        let first = Dump::new(call("echo x; sleep 100"), &turns, given_up.clone());
        let mut second = Dump::new(call("echo x; exit 3"), &turns, failed.clone());
        let mut third = Dump::new(call("echo x"), &turns, whole.clone());
        drop(first);
        second.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert!(failed.problem().unwrap().contains("exit status 3"));
        assert!(given_up.problem().is_some());
        third.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(whole.problem(), None);
    }
}
