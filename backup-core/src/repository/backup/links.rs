//! Hard links to files that were left out: the next name of such a file that can be read becomes the file.
//!
//! A source yields an inode's content with its first name, and links to that name. When the content cannot be stored
//! under the first name (it was renamed or deleted a moment ago), the links would lead nowhere. So the assembler holds
//! them back, and when all else was read the feeder tries them in turn; what comes of it stands among the trailing entries.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::{Entry, EntryKind, EntryName};

/// Bytes of files and of links that are remembered, about. Links to what is forgotten are named when they are restored.
const REMEMBERED_BYTES_MAX: usize = 16 * crate::limits::MIB;

/// Files that were left out, and the links to them.
#[derive(Debug, Default)]
pub(crate) struct LeftOut(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    files: HashMap<EntryName, Cause>,
    orphans: Vec<Entry>,
    bytes: usize,
}

/// Why a file was left out, and what that means for its other names.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    /// It could not be read by this name. The entry holds all that is known of it; a link says less.
    Unread(Box<Entry>),
    /// The format cannot hold it, whatever its name.
    Unfit(String),
}

impl LeftOut {
    /// Notes that a file was left out.
    pub(crate) fn file(&self, name: EntryName, cause: Cause) {
        let bytes = match &cause {
            Cause::Unread(entry) => weight(entry),
            Cause::Unfit(reason) => reason.len(),
        };
        let mut inner = self.lock();
        if inner.make_room(bytes.saturating_add(name.as_bytes().len())) {
            inner.files.insert(name, cause);
        }
    }

    /// Whether the file of this name was left out, and why.
    pub(crate) fn cause(&self, name: &EntryName) -> Option<Cause> {
        self.lock().files.get(name).cloned()
    }

    /// Holds a link back; false if there is no room for it.
    pub(crate) fn hold_back(&self, link: &Entry) -> bool {
        let mut inner = self.lock();
        let room = inner.make_room(weight(link));
        if room {
            inner.orphans.push(link.clone());
        }
        room
    }

    /// Whether an entry links to what was left out.
    pub(crate) fn is_orphan(&self, entry: &Entry) -> bool {
        match &entry.kind {
            EntryKind::HardLink { to } => self.lock().files.contains_key(to),
            _ => false,
        }
    }

    /// The links held back, in the order in which they came.
    pub(crate) fn take_orphans(&self) -> Vec<Entry> {
        std::mem::take(&mut self.lock().orphans)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Inner {
    fn make_room(&mut self, bytes: usize) -> bool {
        let total = self.bytes.saturating_add(bytes);
        let fits = total <= REMEMBERED_BYTES_MAX;
        if fits {
            self.bytes = total;
        }
        fits
    }
}

fn weight(entry: &Entry) -> usize {
    let attributes =
        entry.attributes.iter().map(|attribute| attribute.name.len() + attribute.value.len() + 32);
    let target = match &entry.kind {
        EntryKind::HardLink { to } => to.as_bytes().len(),
        _ => 0,
    };
    let parts = attributes.chain([entry.name.as_bytes().len(), target, size_of::<Entry>(), 64]);
    parts.fold(0, usize::saturating_add)
}
