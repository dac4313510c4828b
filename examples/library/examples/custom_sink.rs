//! A store of your own: here a shelf in memory, where your client of a database or a service would stand.
//!
//! ```text
//! cargo run -p library-examples --example custom_sink
//! ```
//!
//! A sink has four calls. What counts is that `put` creates and never replaces, that of several racing puts one wins,
//! and that an object is durable when `put` returns. `backup_core::testing::sink::conformance` (feature `testing`)
//! checks a sink of yours against all of it but durability; the test of this example runs it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use backup_core::report::VerifyReport;
use backup_core::repository::{BackupOptions, CreateOptions, Repository, VerifyOptions};
use backup_core::{
    Error, ErrorKind, Fetched, GetRange, JobContext, ObjectKey, ObjectMeta, PutOutcome, RepositoryId, Result,
    Sink, SystemRandom, Unprotected,
};
use backup_sources::FilesSource;
use bytes::Bytes;

/// What your program has already: a client of some store.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Mutex<BTreeMap<String, Bytes>>);

impl Shelf {
    /// Whether it was new. Nothing is replaced.
    fn add(&self, name: &str, bytes: Bytes) -> bool {
        match self.lock().entry(name.to_owned()) {
            Entry::Vacant(place) => {
                place.insert(bytes);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    fn read(&self, name: &str) -> Option<Bytes> {
        self.lock().get(name).cloned()
    }

    fn names(&self, prefix: &str, after: &str, limit: usize) -> Vec<(String, u64)> {
        let shelf = self.lock();
        let from = shelf.range(prefix.max(after).to_owned()..).filter(|(name, _)| name.as_str() != after);
        let below = from.take_while(|(name, _)| name.starts_with(prefix)).take(limit);
        below.map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect()
    }

    fn remove(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

// sink: begin
#[async_trait]
impl Sink for Shelf {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        let new = self.add(key.as_str(), bytes);
        Ok(if new { PutOutcome::Created } else { PutOutcome::AlreadyExists })
    }
    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        let missing = || Error::new(ErrorKind::NotFound, "is not on the shelf").with_object(key);
        range.cut(&self.read(key.as_str()).ok_or_else(missing)?)
    }
    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let found = self.names(prefix, after.map_or("", ObjectKey::as_str), limit).into_iter();
        found.map(|(name, len)| Ok(ObjectMeta { key: name.parse()?, len, created: None })).collect()
    }
    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.remove(key.as_str());
        Ok(())
    }
}
// sink: end

/// Backs up `source` onto a shelf and verifies what stands there.
pub(crate) async fn run(source: &Path, shelf: Arc<Shelf>) -> Result<VerifyReport> {
    let job = JobContext::new();
    let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom)?));
    let repository = Repository::create(shelf, protection, CreateOptions::default(), &job).await?;
    repository.backup(&FilesSource::new(source)?, &BackupOptions::default(), &job).await?;
    repository.verify(&VerifyOptions::default(), &job).await
}

#[tokio::main]
async fn main() -> Result<()> {
    let shelf = Arc::new(Shelf::default());
    let report = run(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")), shelf.clone()).await?;
    for (name, bytes) in shelf.names("", "", usize::MAX) {
        println!("{bytes:>8} {name}");
    }
    println!("{} entries verified, clean: {}", report.checked.entries, report.is_clean());
    Ok(())
}
