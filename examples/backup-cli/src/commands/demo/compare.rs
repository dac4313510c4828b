//! A comparison of two trees that shares nothing with the engine: plain calls of the system.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Differences named at most.
const DIFFERENCES_MAX: usize = 100;
/// Bytes compared at once.
const BUFFER_BYTES: usize = 1 << 20;

/// What a comparison found.
#[derive(Debug)]
pub(super) struct Compared {
    /// Entries compared.
    pub(super) entries: u64,
    /// Bytes of content compared.
    pub(super) bytes: u64,
    /// What differs.
    pub(super) differences: Vec<String>,
    /// Names, without a leading slash, that are not in the snapshot.
    skipped: BTreeSet<PathBuf>,
    owners: bool,
    // Which restored inode each original inode with several names became.
    links: HashMap<(u64, u64), (u64, u64)>,
}

impl Compared {
    pub(super) fn new(skipped: Vec<String>) -> Self {
        Self {
            entries: 0,
            bytes: 0,
            differences: Vec::new(),
            skipped: skipped.into_iter().map(PathBuf::from).collect(),
            owners: rustix::process::geteuid().is_root(),
            links: HashMap::new(),
        }
    }

    /// Compares everything at and below two paths.
    pub(super) fn trees(&mut self, original: &Path, restored: &Path) {
        let mut left = vec![(original.to_path_buf(), restored.to_path_buf())];
        while let Some((original, restored)) = left.pop() {
            if self.skipped.contains(original.strip_prefix("/").unwrap_or(&original)) {
                continue;
            }
            match self.pair(&original, &restored) {
                Ok(None) => {}
                Ok(Some(what)) => self.differs(&original, &what),
                Err(error) => self.differs(&original, &error.to_string()),
            }
            if self.differences.len() >= DIFFERENCES_MAX {
                return;
            }
            if original.is_dir() && !original.is_symlink() {
                match (names(&original), names(&restored)) {
                    (Ok(originals), Ok(restoreds)) => {
                        for name in restoreds.difference(&originals) {
                            self.differs(&original.join(name), "was restored and is not in the original");
                        }
                        left.extend(
                            originals.into_iter().map(|name| (original.join(&name), restored.join(&name))),
                        );
                    }
                    (Err(error), _) | (_, Err(error)) => self.differs(&original, &error.to_string()),
                }
            }
        }
    }

    fn differs(&mut self, path: &Path, what: &str) {
        self.differences.push(format!("{}: {what}", path.display()));
    }

    fn pair(&mut self, original: &Path, restored: &Path) -> std::io::Result<Option<String>> {
        self.entries = self.entries.saturating_add(1);
        let (a, b) = (original.symlink_metadata()?, restored.symlink_metadata()?);
        if a.file_type() != b.file_type() {
            return Ok(Some("is of another kind".into()));
        }
        if a.mode() != b.mode() && !a.is_symlink() {
            return Ok(Some(format!("mode {:o}, restored {:o}", a.mode(), b.mode())));
        }
        if self.owners && (a.uid(), a.gid()) != (b.uid(), b.gid()) {
            return Ok(Some(format!("owner {}:{}, restored {}:{}", a.uid(), a.gid(), b.uid(), b.gid())));
        }
        if (a.mtime(), a.mtime_nsec()) != (b.mtime(), b.mtime_nsec()) {
            return Ok(Some("has another modification time".into()));
        }
        if attributes(original)? != attributes(restored)? {
            return Ok(Some("has other extended attributes".into()));
        }
        if a.is_symlink() && original.read_link()? != restored.read_link()? {
            return Ok(Some("points elsewhere".into()));
        }
        if (a.file_type().is_block_device() || a.file_type().is_char_device()) && a.rdev() != b.rdev() {
            return Ok(Some("is another device".into()));
        }
        if a.is_file() {
            return self.files((original, &a), (restored, &b));
        }
        Ok(None)
    }

    fn files(
        &mut self,
        (original, a): (&Path, &Metadata),
        (restored, b): (&Path, &Metadata),
    ) -> std::io::Result<Option<String>> {
        if a.len() != b.len() {
            return Ok(Some(format!("{} bytes, restored {}", a.len(), b.len())));
        }
        if a.nlink() > 1 {
            let restored = (b.dev(), b.ino());
            if *self.links.entry((a.dev(), a.ino())).or_insert(restored) != restored {
                return Ok(Some("is no longer the same file as its other names".into()));
            }
        }
        let (mut x, mut y) = (File::open(original)?, File::open(restored)?);
        let (mut from, mut to) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
        loop {
            let count = fill(&mut x, &mut from)?;
            if count != fill(&mut y, &mut to)? || from.get(..count) != to.get(..count) {
                return Ok(Some("has other content".into()));
            }
            self.bytes = self.bytes.saturating_add(count as u64);
            if count == 0 {
                return Ok(None);
            }
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0_usize;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            count => filled = filled.saturating_add(count),
        }
    }
    Ok(filled)
}

fn names(directory: &Path) -> std::io::Result<BTreeSet<OsString>> {
    std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

fn attributes(path: &Path) -> std::io::Result<Vec<(OsString, Option<Vec<u8>>)>> {
    let mut all = Vec::new();
    match xattr::list(path) {
        Ok(names) => {
            for name in names {
                let value = xattr::get(path, &name)?;
                all.push((name, value));
            }
        }
        // A file system without them has none.
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
        Err(error) => return Err(error),
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(change: impl Fn(&Path)) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        for root in [&a, &b] {
            std::fs::create_dir_all(root.join("deep")).unwrap();
            std::fs::write(root.join("deep/file"), "content").unwrap();
            std::os::unix::fs::symlink("deep", root.join("link")).unwrap();
        }
        change(&b);
        // The same times everywhere but where the change is about times.
        for path in ["deep/file", "deep", "link", ""] {
            let time = a.join(path).symlink_metadata().unwrap().modified().unwrap();
            if let Ok(file) = File::open(b.join(path))
                && path != "link"
                && !b.join("touched").exists()
            {
                let _ = file.set_modified(time);
            }
        }
        let mut compared =
            Compared::new(vec![a.join("link").strip_prefix("/").unwrap().display().to_string()]);
        compared.trees(&a, &b);
        compared.differences
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        assert_eq!(differences(|_| {}), Vec::<String>::new());
        assert!(!differences(|b| std::fs::write(b.join("deep/file"), "CONTENT").unwrap()).is_empty());
        assert!(!differences(|b| std::fs::write(b.join("deep/file"), "longer content").unwrap()).is_empty());
        assert!(!differences(|b| std::fs::write(b.join("touched"), "").unwrap()).is_empty());
        assert!(!differences(|b| std::fs::remove_file(b.join("deep/file")).unwrap()).is_empty());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        assert!(
            !differences(|b| std::fs::set_permissions(
                b.join("deep/file"),
                std::fs::Permissions::clone(&mode)
            )
            .unwrap())
            .is_empty()
        );
    }
}
