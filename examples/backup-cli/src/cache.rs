//! Where copies are kept of what remote repositories are asked for often.

use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use backup_core::config::Place;
use backup_core::{Error, ObjectKey, RepositoryId, Result, Sink};
use backup_sinks::Cached;
use sha2::{Digest, Sha256};

use crate::args::Global;

/// Bytes of copies of one repository; those unused for longest go first.
const CACHE_BYTES_MAX: u64 = 2 << 30;
/// Key slots of one repository that are remembered.
const SLOTS_EXPECTED_MAX: usize = 16;

/// A directory with a directory of copies for each repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheDirectory {
    path: PathBuf,
    /// Whether the user named it, and so wants to hear where it cannot be used.
    named: bool,
}

/// The directory for a repository at `place`: the one that was named, or the user's own; none where nothing is to be kept.
pub fn directory(global: &Global, place: &Place) -> Option<CacheDirectory> {
    if global.no_cache || !is_remote(place) {
        return None;
    }
    if let Some(path) = &global.cache_dir {
        return Some(CacheDirectory { path: path.clone(), named: true });
    }
    // The XDG base directories: a relative path in the variable is not to be used.
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let path = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(CacheDirectory { path: path.join("backup"), named: false })
}

/// Whether reading from it is slower than from a local directory.
fn is_remote(place: &Place) -> bool {
    match place {
        Place::Url(url) => Place::scheme(url).is_some_and(|scheme| scheme != "file"),
        Place::Kind(component) => component.kind != "local",
    }
}

impl CacheDirectory {
    /// The sink of a repository with copies here. Where the user's own cache directory cannot be used, there are none.
    pub async fn over(&self, sink: Arc<dyn Sink>, repository: RepositoryId) -> Result<Arc<dyn Sink>> {
        let (path, inner) = (self.path.join(repository.to_string()), Arc::clone(&sink));
        let opened = tokio::task::spawn_blocking(move || Cached::open(inner, path, CACHE_BYTES_MAX)).await;
        let opened =
            opened.map_err(|e| Error::internal("the task that opens the cache failed").with_source(e))?;
        match opened {
            Ok(cached) => Ok(Arc::new(cached)),
            Err(error) if self.named => Err(error),
            Err(_) => Ok(sink),
        }
    }

    /// The key slots that the repository of this name had when it was opened last; none where that is not known.
    pub async fn expected_slots(&self, name: &str) -> Vec<ObjectKey> {
        let text = tokio::fs::read_to_string(self.slots_file(name)).await.unwrap_or_default();
        text.lines().take(SLOTS_EXPECTED_MAX).filter_map(|line| ObjectKey::new(line).ok()).collect()
    }

    /// Remembers them for the next time. What goes wrong makes that slower and no more.
    pub async fn expect_slots(&self, name: &str, slots: Vec<ObjectKey>) {
        if slots == self.expected_slots(name).await {
            return;
        }
        let (file, lines) = (self.slots_file(name), slots);
        let write = tokio::task::spawn_blocking(move || {
            let directory = file.parent().unwrap_or(&file);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            let mut aside = tempfile::NamedTempFile::new_in(directory)?;
            for key in lines.iter().take(SLOTS_EXPECTED_MAX) {
                writeln!(aside, "{key}")?;
            }
            aside.persist(file).map_err(|error| error.error)?;
            std::io::Result::Ok(())
        });
        let _ = write.await;
    }

    fn slots_file(&self, name: &str) -> PathBuf {
        self.path.join("slots").join(hex::encode(Sha256::digest(name)))
    }
}

#[cfg(test)]
mod tests {
    use backup_core::config::Component;

    use super::*;

    #[test]
    fn what_is_far_away_is_remote() {
        let url = |text: &str| is_remote(&Place::Url(text.into()));
        assert!(url("s3://bucket/prefix") && url("gs://bucket") && url("az://container"));
        assert!(!url("/srv/backup") && !url("relative") && !url("file:///srv/backup"));
        assert!(
            is_remote(&Place::Kind(Component::new("s3")))
                && !is_remote(&Place::Kind(Component::new("local")))
        );
    }
}
