//! Listing in order of key: a depth-first walk of sorted directories that keeps out of those that cannot matter.

use backup_core::{Error, ObjectKey, ObjectMeta, Result, Timestamp};
use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::disk::Directory;
use super::tree::{Tree, open_directory};

/// Which keys are wanted.
struct Wanted<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    limit: usize,
}

/// At most `limit` objects whose keys start with `prefix` and are greater than `after`, in order of key.
pub(super) fn list(
    tree: &Tree,
    prefix: &str,
    after: Option<&ObjectKey>,
    limit: usize,
) -> Result<Vec<ObjectMeta>> {
    let wanted = Wanted { prefix, after: after.map(ObjectKey::as_str), limit };
    let mut found = Vec::new();
    walk(tree.root(), &wanted, &mut found)?;
    Ok(found)
}

/// Appends what is wanted of `directory` and below. The depth is bounded by the length of a key.
fn walk(directory: &Directory, wanted: &Wanted<'_>, found: &mut Vec<ObjectMeta>) -> Result<()> {
    for name in sorted_names(directory, wanted)? {
        if found.len() >= wanted.limit {
            break;
        }
        match name.strip_suffix('/') {
            Some(name) => match open_directory(directory, name) {
                Ok(below) => walk(&below, wanted, found)?,
                // Removed meanwhile, or a link, which is no part of the store.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => {}
                Err(errno) => return Err(failed(&directory.path_of(name), errno)),
            },
            None => found.extend(describe(directory, &name)?),
        }
    }
    Ok(())
}

/// The names in `directory` that may matter, in the order of the keys they lead to; directories end in `/`.
fn sorted_names(directory: &Directory, wanted: &Wanted<'_>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match Dir::read_from(directory.file()) {
        Ok(entries) => entries,
        Err(Errno::NOENT) => return Ok(names),
        Err(errno) => return Err(failed(directory.path(), errno)),
    };
    for entry in entries {
        let entry = entry.map_err(|errno| failed(directory.path(), errno))?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let path = directory.path_of(name);
        // What no key can name (`.`, `..`, `.tmp`, `lost+found`) is no part of the store.
        if ObjectKey::new(&path).is_err() {
            continue;
        }
        match kind_of(directory, name, entry.file_type()) {
            FileType::Directory if wanted.may_be_below(&path) => names.push(format!("{name}/")),
            FileType::RegularFile if wanted.is_wanted(&path) => names.push(name.to_owned()),
            _ => {}
        }
    }
    names.sort_unstable();
    Ok(names)
}

impl Wanted<'_> {
    fn is_wanted(&self, key: &str) -> bool {
        key.starts_with(self.prefix) && self.after.is_none_or(|after| key > after)
    }

    /// Whether keys that start with `path` and a slash can be wanted.
    fn may_be_below(&self, path: &str) -> bool {
        let below = format!("{path}/");
        let fits = below.starts_with(self.prefix) || self.prefix.starts_with(&below);
        fits && self.after.is_none_or(|after| below.as_str() > after || after.starts_with(&below))
    }
}

fn kind_of(directory: &Directory, name: &str, listed: FileType) -> FileType {
    if listed != FileType::Unknown {
        return listed;
    }
    let stat = rustix::fs::statat(directory.file(), name, AtFlags::SYMLINK_NOFOLLOW);
    stat.map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
}

/// The object `name`; none if it has been deleted meanwhile.
fn describe(directory: &Directory, name: &str) -> Result<Option<ObjectMeta>> {
    let path = directory.path_of(name);
    let stat = match rustix::fs::statat(directory.file(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => stat,
        Ok(_) | Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed(&path, errno)),
    };
    let key = ObjectKey::new(&path)?;
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
    let created = Some(Timestamp::new(stat.st_mtime, nanoseconds));
    Ok(Some(ObjectMeta { key, len: u64::try_from(stat.st_size).unwrap_or_default(), created }))
}

fn failed(path: &str, errno: Errno) -> Error {
    let place = if path.is_empty() { "the store's root" } else { path };
    Error::io(format!("`{place}` could not be listed"), errno.into())
}
