//! The directory of copies: one file an object, the digest before the content.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use backup_core::{Error, Fetched, GetRange, ObjectKey, Random, Result, SystemRandom, limits};
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Bytes of a copy before the object's content: its SHA-256.
const HEADER_BYTES: u64 = 32;
/// Copies that this process remembers to have checked; beyond it they are checked again.
const CHECKED_MAX: usize = 100_000;
/// Part of the bytes allowed that is left when there were too many, in percent.
const LEFT_PERCENT: u64 = 80;
/// Age of a file that was being written when its writer died.
const ABANDONED_AGE: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    bytes_max: u64,
    /// What is there, as far as this process knows.
    bytes: AtomicU64,
    /// Files whose content was checked: by inode, as another process may put another file in the place.
    checked: Mutex<HashMap<ObjectKey, u64>>,
}

/// Which of some slots a key falls into.
pub(super) fn slot(key: &ObjectKey, slots: usize) -> usize {
    let digest = Sha256::digest(key.as_str());
    let first = digest.first().copied().map_or(0, usize::from);
    first.checked_rem(slots).unwrap_or(0)
}

impl Store {
    pub(super) fn open(directory: &Path, bytes_max: u64) -> Result<Self> {
        let failed =
            |e| Error::io(format!("{}: the directory for copies cannot be made", directory.display()), e);
        // Nothing there is readable without the keys, but what a repository consists of is nobody else's affair.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let store = Self {
            directory: directory.to_path_buf(),
            bytes_max,
            bytes: AtomicU64::new(0),
            checked: Mutex::default(),
        };
        store.make_room().map_err(failed)?;
        Ok(store)
    }

    /// A part of an object, if there is a good copy.
    pub(super) fn read(&self, key: &ObjectKey, range: &GetRange) -> Option<Result<Fetched>> {
        let path = self.path(key);
        let file = File::open(&path).ok()?;
        match self.read_file(&file, key, range) {
            Ok(found) => {
                // Marks it as used; if that fails, it is evicted early.
                let _ = file.set_modified(SystemTime::now());
                Some(found)
            }
            Err(error) => {
                tracing::warn!(%error, %key, "a damaged copy is removed and read again");
                self.remove(key);
                None
            }
        }
    }

    fn read_file(&self, mut file: &File, key: &ObjectKey, range: &GetRange) -> io::Result<Result<Fetched>> {
        let meta = file.metadata()?;
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let len = meta.len().checked_sub(HEADER_BYTES).ok_or_else(|| damaged("it is too short"))?;
        let checked = self.checked().get(key) == Some(&meta.ino());
        if !checked {
            let limit = u64::try_from(limits::OBJECT_BYTES_MAX).unwrap_or(u64::MAX);
            if len > limit {
                return Err(damaged("it is too long"));
            }
            let mut whole = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
            file.read_to_end(&mut whole)?;
            let (digest, content) =
                whole.split_at_checked(HEADER_BYTES as usize).ok_or_else(|| damaged("it is too short"))?;
            let found = Sha256::digest(content);
            if digest != &found[..] || named_otherwise(key, &found) {
                return Err(damaged("its content is not what was kept"));
            }
            let mut checked = self.checked();
            if checked.len() >= CHECKED_MAX {
                checked.clear();
            }
            checked.insert(key.clone(), meta.ino());
            drop(checked);
            let whole = Bytes::from(whole);
            return Ok(range.cut(&whole.slice(HEADER_BYTES as usize..)).map_err(|e| e.with_object(key)));
        }
        let resolved = match range.resolve(len) {
            Ok(resolved) => resolved,
            Err(e) => return Ok(Err(e.with_object(key))),
        };
        let count = resolved.end.saturating_sub(resolved.start);
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
        file.read_exact_at(&mut bytes, resolved.start.saturating_add(HEADER_BYTES))?;
        Ok(Ok(Fetched { bytes: bytes.into(), object_len: len }))
    }

    /// Keeps a copy.
    pub(super) fn write(&self, key: &ObjectKey, content: &[u8]) -> io::Result<()> {
        let digest = Sha256::digest(content);
        // What is not what its name says must reach those who check it, not other processes.
        if named_otherwise(key, &digest) || self.bytes_max == 0 {
            return Ok(());
        }
        let mut random = [0; 8];
        SystemRandom.fill(&mut random)?;
        let path = self.path(key);
        let temporary = self.directory.join(format!("{}.part", hex::encode(random)));
        let written = (|| {
            let file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all_at(&digest, 0)?;
            file.write_all_at(content, HEADER_BYTES)?;
            fs::rename(&temporary, &path)
        })();
        if written.is_err() {
            // Usually for want of space: the part that was written must not take up more.
            let _ = fs::remove_file(&temporary);
            return written;
        }
        let added = u64::try_from(content.len()).unwrap_or(u64::MAX).saturating_add(HEADER_BYTES);
        let bytes = self.bytes.fetch_add(added, Ordering::Relaxed).saturating_add(added);
        if bytes > self.bytes_max { self.make_room() } else { Ok(()) }
    }

    /// Removes a copy. Where that fails, a wrong one is found out again when it is read.
    pub(super) fn remove(&self, key: &ObjectKey) {
        self.checked().remove(key);
        let _ = fs::remove_file(self.path(key));
    }

    /// Counts what is there, other processes' copies too, and removes the longest unused if that is too much.
    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        let mut total = 0_u64;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // Another process may remove it at any time.
            let Ok(meta) = entry.metadata() else { continue };
            let Ok(used) = meta.modified() else { continue };
            let part = entry.path().extension().is_some_and(|extension| extension == "part");
            if part && used.elapsed().is_ok_and(|age| age > ABANDONED_AGE) {
                let _ = fs::remove_file(entry.path());
            } else if !part && meta.is_file() {
                total = total.saturating_add(meta.len());
                files.push((used, meta.len(), entry.path()));
            }
        }
        if total > self.bytes_max {
            let enough = self.bytes_max / 100 * LEFT_PERCENT;
            files.sort();
            for (_, len, path) in files {
                if total <= enough {
                    break;
                }
                if fs::remove_file(&path).is_ok() {
                    total = total.saturating_sub(len);
                }
            }
        }
        self.bytes.store(total, Ordering::Relaxed);
        Ok(())
    }

    /// Keys may be longer than names of files: those are digests of keys.
    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.directory.join(hex::encode(Sha256::digest(key.as_str())))
    }

    fn checked(&self) -> MutexGuard<'_, HashMap<ObjectKey, u64>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a key ends in a SHA-256 that is not this one.
fn named_otherwise(key: &ObjectKey, digest: &[u8]) -> bool {
    let mut named = [0; 32];
    hex::decode_to_slice(key.name(), &mut named).is_ok() && named != digest
}
