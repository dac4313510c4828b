//! Lists a bucket and makes entries of what is there.

use std::collections::HashSet;
use std::time::Duration;

use backup_core::{Attribute, Entry, Error, ErrorKind, Item, PosixMetadata, Result, Skipped, Timestamp};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;

use super::BucketSource;
use super::keys::Key;

/// Keys after the last one that has a path; of more, a listing that broke off does not go on.
const BETWEEN_MAX: usize = 1000;
/// How often a listing that broke off goes on without having come further.
const TRIES: u32 = 5;
/// The wait before the first repetition; it doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// A listing under way. It holds a page of the store's, and keys that the next ones start with.
pub(super) struct Listing {
    source: BucketSource,
    stream: Option<BoxStream<'static, object_store::Result<ObjectMeta>>>,
    /// The last key, as the store has it.
    last: Option<String>,
    /// The last key that has a path: the store can list from there on.
    offset: Option<Path>,
    /// The keys after that one, which come again then.
    between: HashSet<String>,
    /// Those names of entries that the next key may repeat or stand below: each starts with the one before.
    names: Vec<String>,
    failures: u32,
    found: bool,
}

impl Listing {
    pub(super) fn new(source: BucketSource) -> Self {
        Self {
            source,
            stream: None,
            last: None,
            offset: None,
            between: HashSet::new(),
            names: Vec::new(),
            failures: 0,
            found: false,
        }
    }

    /// The next items, at most `max`: as many as are there without waiting, but one. None at the end.
    pub(super) async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        while items.len() < max {
            let next = if items.is_empty() {
                Some(self.listed().await?)
            } else {
                self.stream.as_mut().and_then(|stream| stream.next().now_or_never())
            };
            match next {
                Some(Some(Ok(meta))) => items.extend(self.take(meta)),
                // What is there comes first. A stream that failed or ended is not asked again.
                Some(Some(Err(failure))) if items.is_empty() => return Err(self.failed(&failure)),
                Some(Some(Err(failure))) => {
                    self.recover(&failure).await?;
                    break;
                }
                Some(None) => {
                    self.stream = Some(futures_util::stream::empty().boxed());
                    break;
                }
                None => break,
            }
        }
        if items.is_empty() && max > 0 && !self.found {
            let message = format!("{}: there is no object to back up", self.source.place);
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        Ok(items)
    }

    /// What the store lists next, after repetitions.
    async fn listed(&mut self) -> Result<Option<object_store::Result<ObjectMeta>>> {
        loop {
            let Some(stream) = &mut self.stream else {
                let prefix = self.source.prefix.as_ref();
                self.stream = Some(match &self.offset {
                    Some(offset) => self.source.store.list_with_offset(prefix, offset),
                    None => self.source.store.list(prefix),
                });
                continue;
            };
            match tokio::time::timeout(self.source.patience, stream.next()).await {
                Ok(Some(Err(failure))) => self.recover(&failure).await?,
                Ok(listed) => return Ok(listed),
                Err(_) => {
                    let failure = object_store::Error::Generic { store: "list", source: "no answer".into() };
                    self.recover(&failure).await?;
                }
            }
        }
    }

    /// Waits and prepares to go on after the last key, or gives up.
    async fn recover(&mut self, failure: &object_store::Error) -> Result<()> {
        let failed = self.failed(failure);
        let resumable = self.last.is_none() || self.source.ordered && self.between.len() < BETWEEN_MAX;
        if !failed.is_retryable() || self.failures >= TRIES || !resumable {
            return Err(failed);
        }
        tokio::time::sleep(PAUSE.saturating_mul(1 << self.failures.min(TRIES))).await;
        self.failures = self.failures.saturating_add(1);
        self.stream = None;
        Ok(())
    }

    fn failed(&self, failure: &object_store::Error) -> Error {
        let place = &self.source.place;
        match failure {
            object_store::Error::InvalidPath { source } => {
                Error::invalid_input(format!("{place}: cannot list: a key has no path: {source}"))
            }
            other => (self.source.explain)(other, place, "list"),
        }
    }

    /// What an object of the listing becomes.
    fn take(&mut self, meta: ObjectMeta) -> Option<Item> {
        let key = Key::of(&meta.location);
        let raw = key.raw();
        let again = self.offset.as_ref().is_some_and(|offset| offset.as_ref() == raw);
        if self.source.ordered && (again || self.between.contains(&raw)) {
            // Listed again after the listing broke off.
            return None;
        }
        // Whoever said so was wrong, and nothing may be concluded from the order.
        let ordered = self.last.as_ref().is_none_or(|last| *last < raw);
        self.source.ordered &= ordered;
        self.failures = 0;
        self.found = true;
        if matches!(key, Key::Plain(_)) {
            self.offset = Some(meta.location.clone());
            self.between.clear();
        } else if self.between.len() < BETWEEN_MAX {
            self.between.insert(raw.clone());
        }
        self.last = Some(raw.clone());
        let below = |key: &str| match &self.source.prefix {
            Some(prefix) => key.strip_prefix(prefix.as_ref())?.strip_prefix('/').map(str::to_owned),
            None => Some(key.to_owned()),
        };
        let name = below(&raw).unwrap_or_else(|| raw.clone());
        let skipped = |reason: &str| Some(Item::Skipped(Skipped::new(&name, reason)));
        match &key {
            Key::Plain(key) => {
                let Some(name) = below(key).filter(|name| !name.is_empty()) else {
                    return skipped("its key is the prefix itself");
                };
                if self.repeats(&name) {
                    return skipped("another object has this name, but for a slash at the end");
                }
                Some(
                    entry(&name, &meta)
                        .map_or_else(|e| Item::Skipped(Skipped::new(&name, e.message())), Item::Entry),
                )
            }
            Key::Marker(_) if meta.size > 0 => skipped(
                "a key that ends in a slash cannot be asked for; it has content, which is not backed up",
            ),
            Key::Marker(key) => {
                let name = below(key)?;
                // In no order, an object of this name may still come.
                if !self.source.ordered || self.repeats(&name) {
                    return None;
                }
                let directory = Entry::directory(&name).map(|entry| entry.with_posix(metadata(&meta, 0o700)));
                Some(directory.map_or_else(|e| Item::Skipped(Skipped::new(&name, e.message())), Item::Entry))
            }
            Key::Unreachable(_) => skipped(
                "such a key cannot be asked for: it has an empty part, a part `.` or `..`, a control character, or spaces only",
            ),
        }
    }

    /// Whether an entry of this name was there before. In the order of bytes, keys between two of one name, `a` and `a/`,
    /// all start with it.
    fn repeats(&mut self, name: &str) -> bool {
        if !self.source.ordered {
            return false;
        }
        while self.names.last().is_some_and(|top| !name.starts_with(top.as_str())) {
            self.names.pop();
        }
        if self.names.last().is_some_and(|top| top == name) {
            return true;
        }
        self.names.push(name.to_owned());
        false
    }
}

fn entry(name: &str, meta: &ObjectMeta) -> Result<Entry> {
    let mut entry = Entry::file(name)?.with_size(meta.size).with_posix(metadata(meta, 0o600));
    for (name, value) in [("object:etag", &meta.e_tag), ("object:version", &meta.version)] {
        if let Some(value) = value {
            entry.attributes.push(Attribute { name: name.as_bytes().into(), value: value.as_bytes().into() });
        }
    }
    if meta.e_tag.is_some() || meta.version.is_some() {
        let part = |value: &Option<String>| value.clone().unwrap_or_default();
        entry.stamp = Some(format!("{}\0{}", part(&meta.e_tag), part(&meta.version)).into_bytes().into());
    }
    Ok(entry)
}

fn metadata(meta: &ObjectMeta, mode: u32) -> PosixMetadata {
    let modified = meta.last_modified;
    PosixMetadata {
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        modified: Timestamp::new(modified.timestamp(), modified.timestamp_subsec_nanos()),
    }
}
