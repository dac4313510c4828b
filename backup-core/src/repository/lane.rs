//! A thread of its own for heavy steps that come one after the other.
//!
//! The runtime's threads for blocking work take turns, and each keeps memory of what it did last: the allocator's, and the
//! tables of a compressor. Of steps that take megabytes each, such as opening index segments, all of them together would
//! keep more than the index itself needs.

use std::thread;

use super::guard;
use crate::{Error, Result};

type Step = Box<dyn FnOnce() + Send>;

/// The thread. It ends when this is dropped, after the step that it is at.
#[derive(Debug)]
pub(crate) struct Lane(async_channel::Sender<Step>);

impl Lane {
    /// Starts the thread.
    pub(crate) fn start() -> Result<Self> {
        let (sender, steps) = async_channel::bounded::<Step>(1);
        let work = move || {
            while let Ok(step) = steps.recv_blocking() {
                step();
            }
        };
        thread::Builder::new()
            .name("backup-index".into())
            .spawn(work)
            .map_err(|e| Error::io("no thread can be started for the index", e))?;
        Ok(Self(sender))
    }

    /// Does a step after those before it. Dropping the future does not stop it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (done, waiting) = tokio::sync::oneshot::channel();
        let step = Box::new(move || {
            // Nobody waits where the future was dropped.
            let _ = done.send(guard::caught(step));
        });
        let ended = || Error::internal("the thread for the index ended without a word");
        self.0.send(step).await.map_err(|_| ended())?;
        waiting.await.map_err(|_| ended())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn steps_are_done_in_order_on_one_thread_and_a_panic_fails_its_own_alone() {
        let lane = Lane::start().unwrap();
        let here = || Ok(thread::current().id());
        let first = lane.run(here).await.unwrap();
        let failed = lane.run(|| -> Result<()> { panic!("on purpose") }).await.unwrap_err();
        assert!(failed.to_string().contains("on purpose"), "{failed}");
        assert_eq!(lane.run(here).await.unwrap(), first);
        assert_ne!(first, thread::current().id());
    }
}
