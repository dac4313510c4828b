//! Making durable what is restored.
//!
//! All of it is made durable at the end, in one call for the whole file system: one call for each file would cost many
//! times as much. What waits for that call would fill the memory of a large machine, and the disk would stand idle until
//! then. So the same call is made beside the restore whenever enough has come together.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::beneath::Beneath;

/// Bytes written after which the next pass begins, unless one is under way. A pass has a price of its own (a commit of
/// the file system's journal), and what comes after the last one is what the end waits for.
const PASS_BYTES: u64 = 96 * 1024 * 1024;
/// What a file counts for beside its content: half a page that it does not fill, its inode, its name.
const FILE_BYTES: u64 = 4 * 1024;

/// Makes a file system durable, beside the work and at its end.
pub(super) struct Durable {
    /// One for all passes: an error of writing back is told once to each open file description that was there before it.
    root: Arc<OwnedFd>,
    waiting: AtomicU64,
    passes: Mutex<Passes>,
}

#[derive(Default)]
struct Passes {
    under_way: Option<JoinHandle<io::Result<()>>>,
    failed: Option<io::Error>,
}

impl Durable {
    pub(super) fn new(beneath: &Beneath) -> io::Result<Self> {
        let root = Arc::new(beneath.open_root()?);
        Ok(Self { root, waiting: AtomicU64::new(0), passes: Mutex::default() })
    }

    /// So many bytes were written to a file.
    pub(super) fn wrote(&self, bytes: u64) {
        self.count(bytes);
    }

    /// A file has all that it is to have.
    pub(super) fn finished_file(&self) {
        self.count(FILE_BYTES);
    }

    fn count(&self, bytes: u64) {
        if self.waiting.fetch_add(bytes, Ordering::Relaxed) >= PASS_BYTES {
            self.begin_pass();
        }
    }

    /// Begins a pass unless one is under way. Where no thread can be had, the end does it all.
    fn begin_pass(&self) {
        // Whoever holds it begins a pass, or waits for the last one.
        let Ok(mut passes) = self.passes.try_lock() else { return };
        if passes.under_way.as_ref().is_some_and(|pass| !pass.is_finished()) {
            return;
        }
        passes.join();
        self.waiting.store(0, Ordering::Relaxed);
        let root = Arc::clone(&self.root);
        let pass = move || Ok(rustix::fs::syncfs(&*root)?);
        passes.under_way = std::thread::Builder::new().name("backup-durable".into()).spawn(pass).ok();
    }

    /// Makes everything durable that was written so far; fails if any of it was lost on the way.
    pub(super) fn finish(&self) -> io::Result<()> {
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        passes.join();
        rustix::fs::syncfs(&*self.root)?;
        passes.failed.take().map_or(Ok(()), Err)
    }
}

impl Passes {
    fn join(&mut self) {
        let Some(pass) = self.under_way.take() else { return };
        let ended = pass.join().unwrap_or_else(|_| Err(io::Error::other("a thread broke off")));
        if let Err(error) = ended {
            self.failed.get_or_insert(error);
        }
    }
}

impl fmt::Debug for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durable").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_pass_begins_when_enough_waits_and_none_is_left_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let durable = Durable::new(&Beneath::open(directory.path()).unwrap()).unwrap();
        let passes = || durable.passes.lock().unwrap().under_way.is_some();
        durable.wrote(PASS_BYTES);
        assert!(!passes(), "as much may wait");
        durable.finished_file();
        assert!(passes());
        durable.finish().unwrap();
        assert!(!passes());
    }

    #[test]
    fn what_a_pass_lost_fails_the_end_and_only_once() {
        let directory = tempfile::tempdir().unwrap();
        let durable = Durable::new(&Beneath::open(directory.path()).unwrap()).unwrap();
        let lost = std::thread::spawn(|| Err(io::Error::from_raw_os_error(5)));
        durable.passes.lock().unwrap().under_way = Some(lost);
        assert_eq!(durable.finish().unwrap_err().raw_os_error(), Some(5));
        durable.finish().unwrap();
    }
}
