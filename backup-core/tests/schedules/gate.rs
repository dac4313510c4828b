//! A store that lets one call through at a time, whichever the test chooses, and does to it what the test chooses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{Error, ErrorKind, Fetched, GetRange, ObjectKey, ObjectMeta, PutOutcome, Result, Sink};
use backup_sinks::MemorySink;
use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is done, and answered.
    Done,
    /// It is done, and the answer is lost.
    AnswerLost,
    /// It is not done.
    Refused,
    /// It is not done now. A put is done later, when nobody waits for it any more.
    Late,
}

#[derive(Debug)]
struct Waiting {
    actor: usize,
    go: oneshot::Sender<Verdict>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Waiting>,
    late: Vec<(ObjectKey, Bytes)>,
    /// Every call goes through at once.
    open: bool,
}

/// The gate, in front of one store.
#[derive(Debug)]
pub(crate) struct Gate {
    store: MemorySink,
    state: Mutex<State>,
    changed: Notify,
}

impl Gate {
    pub(crate) fn new(store: MemorySink) -> Arc<Self> {
        Arc::new(Self { store, state: Mutex::default(), changed: Notify::new() })
    }

    /// The store as this actor has it.
    pub(crate) fn of(self: &Arc<Self>, actor: usize) -> Arc<dyn Sink> {
        Arc::new(Gated { actor, gate: self.clone() })
    }

    /// Lets a call of an actor through, the `choice`-th of those that wait. False if there is none, even after a while: it computes, or
    /// waits for something else.
    pub(crate) async fn pass(&self, actor: usize, choice: usize, verdict: Verdict) -> bool {
        let passing = async {
            loop {
                let changed = self.changed.notified();
                if let Some(waiting) = self.take(actor, choice) {
                    let _ = waiting.go.send(verdict);
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_millis(30), passing).await.is_ok()
    }

    fn take(&self, actor: usize, choice: usize) -> Option<Waiting> {
        let mut state = self.state.lock().unwrap();
        let of_actor: Vec<usize> =
            (0..state.waiting.len()).filter(|at| state.waiting[*at].actor == actor).collect();
        let at = *of_actor.get(choice.checked_rem(of_actor.len())?)?;
        Some(state.waiting.remove(at))
    }

    /// A put that is late arrives; the `choice`-th of them.
    pub(crate) async fn arrive(&self, choice: usize) {
        let late = {
            let mut state = self.state.lock().unwrap();
            let count = state.late.len();
            choice.checked_rem(count).map(|at| state.late.remove(at))
        };
        if let Some((key, bytes)) = late {
            self.store.put(&key, bytes).await.unwrap();
        }
    }

    /// Lets everything through from here on; what is late arrives.
    pub(crate) async fn open(&self) {
        let waiting = {
            let mut state = self.state.lock().unwrap();
            state.open = true;
            std::mem::take(&mut state.waiting)
        };
        for waiting in waiting {
            let _ = waiting.go.send(Verdict::Done);
        }
        while !self.state.lock().unwrap().late.is_empty() {
            self.arrive(0).await;
        }
    }

    async fn verdict(&self, actor: usize) -> Verdict {
        let waiting = {
            let mut state = self.state.lock().unwrap();
            if state.open {
                return Verdict::Done;
            }
            let (go, waiting) = oneshot::channel();
            state.waiting.push(Waiting { actor, go });
            waiting
        };
        self.changed.notify_one();
        waiting.await.unwrap_or(Verdict::Refused)
    }
}

/// The store as one actor has it.
#[derive(Debug)]
struct Gated {
    actor: usize,
    gate: Arc<Gate>,
}

impl Gated {
    /// Whether a call is to be done, and then what becomes of its answer.
    async fn call<T>(&self, done: impl Future<Output = Result<T>>) -> Result<T> {
        match self.gate.verdict(self.actor).await {
            Verdict::Done => done.await,
            Verdict::AnswerLost => {
                done.await?;
                Err(lost())
            }
            Verdict::Refused | Verdict::Late => Err(lost()),
        }
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Transient, "the connection is lost, by the schedule")
}

#[async_trait]
impl Sink for Gated {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        match self.gate.verdict(self.actor).await {
            Verdict::Done => self.gate.store.put(key, bytes).await,
            Verdict::AnswerLost => {
                self.gate.store.put(key, bytes).await?;
                Err(lost())
            }
            Verdict::Refused => Err(lost()),
            Verdict::Late => {
                self.gate.state.lock().unwrap().late.push((key.clone(), bytes));
                Err(lost())
            }
        }
    }

    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        self.call(self.gate.store.get(key, range)).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.call(self.gate.store.list(prefix, after, limit)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.call(self.gate.store.delete(key)).await
    }
}
