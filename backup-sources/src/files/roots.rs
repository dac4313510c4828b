//! From the paths that a caller gives to names within the snapshot.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use backup_core::{EntryName, Error, Result};

/// One path to walk, and the name that it has in the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    /// The name; none where the content of the path stands at the top of the snapshot.
    pub(super) name: Option<EntryName>,
    /// The path, absolute: where the files are read.
    pub(super) path: Vec<u8>,
    /// The path that was given, absolute: the same, unless files are read from a view of them.
    pub(super) given: Vec<u8>,
    /// Whether a symbolic link at the path is to be followed: it was given with a trailing slash.
    pub(super) follow: bool,
}

impl Root {
    /// What entries' paths begin with, and how many bytes of their names that stands for.
    pub(super) fn base(&self) -> (Vec<u8>, usize) {
        match &self.name {
            Some(name) => (self.path.clone(), name.as_bytes().len()),
            None => ([self.path.strip_suffix(b"/").unwrap_or(&self.path), b"/"].concat(), 0),
        }
    }

    /// The same root where the files of `from` stand at `to`: it keeps its name. None if it is not in `from`.
    pub(super) fn moved(mut self, from: &[u8], to: &[u8]) -> Option<Self> {
        let from = from.strip_suffix(b"/").unwrap_or(from);
        let rest = self.path.strip_prefix(from)?;
        if !matches!(rest, [] | [b'/', ..]) {
            return None;
        }
        // Also the root itself is to be opened in the view, and not as what stands at its end.
        self.path = [to, rest.strip_suffix(b"/").unwrap_or(rest)].concat();
        Some(self)
    }

    /// The absolute path of the ancestor of this root that has the name `ancestor`, one of this root's own parents.
    pub(super) fn ancestor_path(&self, ancestor: &EntryName) -> Vec<u8> {
        let depth = self.name.as_ref().map_or(0, |name| name.components().count());
        let above = depth.saturating_sub(ancestor.components().count());
        let mut path: &[u8] = &self.given;
        for _ in 0..above {
            let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            path = path.get(..end).unwrap_or_default();
        }
        if path.is_empty() { b"/".to_vec() } else { path.to_vec() }
    }
}

/// The roots of `paths`, sorted by name, none within another. Relative paths start at `current`.
pub(super) fn resolve(paths: &[PathBuf], current: &Path) -> Result<Vec<Root>> {
    if paths.is_empty() {
        return Err(Error::invalid_input("no path to back up was given; give at least one"));
    }
    let mut roots = paths.iter().map(|path| root(path, current)).collect::<Result<Vec<_>>>()?;
    roots.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.path.cmp(&b.path)));
    let mut kept: Vec<Root> = Vec::with_capacity(roots.len());
    for root in roots {
        match kept.iter().rev().find(|outer| contains(outer.name.as_ref(), root.name.as_ref())) {
            None => kept.push(root),
            Some(outer) if expected_path(outer, &root) == root.path => {}
            Some(outer) => {
                return Err(Error::invalid_input(format!(
                    "`{}` and `{}` would have the same names in the snapshot; back them up separately",
                    String::from_utf8_lossy(&outer.path),
                    String::from_utf8_lossy(&root.path),
                )));
            }
        }
    }
    Ok(kept)
}

/// The name that `path` is known by, also when it does not exist: for a source's identity.
pub(super) fn identity(path: &Path) -> String {
    let cleaned = clean(path.as_os_str().as_bytes());
    String::from_utf8_lossy(&cleaned).into_owned()
}

fn root(path: &Path, current: &Path) -> Result<Root> {
    let given = path.as_os_str().as_bytes();
    if given.is_empty() {
        return Err(Error::invalid_input("an empty path was given; write `.` for the current directory"));
    }
    if given.contains(&0) {
        return Err(Error::invalid_input(format!("the path `{}` contains a NUL byte", path.display())));
    }
    let cleaned = clean(given);
    let relative = cleaned.strip_prefix(b"/").unwrap_or(&cleaned);
    let mut name = relative;
    while let Some(rest) = name.strip_prefix(b"../") {
        name = rest;
    }
    let name = if matches!(name, b"" | b"." | b"..") { None } else { Some(EntryName::new(name)?) };
    let mut absolute = current.as_os_str().as_bytes().to_vec();
    absolute.push(b'/');
    absolute.extend_from_slice(&cleaned);
    let path = if cleaned.first() == Some(&b'/') { cleaned } else { clean(&absolute) };
    // `link/` and `link/.` mean what the link points to, as everywhere else.
    let follow = given.ends_with(b"/") || given.ends_with(b"/.") || name.is_none();
    Ok(Root { name, given: path.clone(), path, follow })
}

/// `path` without empty and `.` components, with `..` taking back what stands before it; `.` if nothing is left.
fn clean(path: &[u8]) -> Vec<u8> {
    let absolute = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(&last) if last != b".." => {
                    parts.pop();
                }
                _ if absolute => {}
                _ => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (absolute, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

fn contains(outer: Option<&EntryName>, inner: Option<&EntryName>) -> bool {
    match (outer, inner) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(outer), Some(inner)) => inner.is_within(outer),
    }
}

/// Where `inner` would be found if it belongs to `outer`.
fn expected_path(outer: &Root, inner: &Root) -> Vec<u8> {
    let inner_name = inner.name.as_ref().map_or(&b""[..], EntryName::as_bytes);
    let outer_name = outer.name.as_ref().map_or(&b""[..], EntryName::as_bytes);
    let rest = inner_name.get(outer_name.len()..).unwrap_or_default();
    let rest = rest.strip_prefix(b"/").unwrap_or(rest);
    if rest.is_empty() {
        return outer.path.clone();
    }
    let base = outer.path.strip_suffix(b"/").unwrap_or(&outer.path);
    [base, b"/", rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[&str]) -> Vec<(String, String)> {
        let paths: Vec<_> = paths.iter().map(PathBuf::from).collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let roots = resolve(&paths, Path::new("/home/here")).unwrap();
        roots
            .iter()
            .map(|root| (root.name.as_ref().map_or(String::new(), |n| n.to_string()), text(&root.path)))
            .collect()
    }

    fn pair(name: &str, path: &str) -> (String, String) {
        (name.into(), path.into())
    }

    #[test]
    fn absolute_paths_lose_their_leading_slash_and_relative_ones_are_normalised() {
        assert_eq!(names(&["/etc/ssl/"]), [pair("etc/ssl", "/etc/ssl")]);
        assert_eq!(names(&["./src//a/../b/"]), [pair("src/b", "/home/here/src/b")]);
        assert_eq!(names(&["../../x/y"]), [pair("x/y", "/x/y")]);
        assert_eq!(names(&["."]), [pair("", "/home/here")]);
        assert_eq!(names(&["/"]), [pair("", "/")]);
        assert_eq!(names(&[".."]), [pair("", "/home")]);
    }

    #[test]
    fn overlapping_paths_are_walked_once() {
        assert_eq!(names(&["/etc/ssl", "/etc", "/etc/"]), [pair("etc", "/etc")]);
        assert_eq!(names(&["src", ".", "src/lib"]), [pair("", "/home/here")]);
        assert_eq!(names(&["b-c", "b/c", "b"]), [pair("b", "/home/here/b"), pair("b-c", "/home/here/b-c")]);
    }

    #[test]
    fn different_paths_of_the_same_name_are_refused() {
        for paths in [["/src", "src"], ["/src", "src/lib"], [".", "/etc"]] {
            let paths = paths.map(PathBuf::from);
            let error = resolve(&paths, Path::new("/home/here")).unwrap_err();
            assert_eq!(error.kind(), backup_core::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn paths_are_a_base_and_the_rest_of_a_name() {
        for (path, base, skip) in [
            ("/etc/ssl", "/etc/ssl", 7),
            ("a/b", "/home/a/b", 3),
            ("../x", "/x", 1),
            (".", "/home/", 0),
            ("/", "/", 0),
        ] {
            let (found, skipped) = root(Path::new(path), Path::new("/home")).unwrap().base();
            assert_eq!((found.as_slice(), skipped), (base.as_bytes(), skip), "{path}");
        }
    }

    #[test]
    fn a_root_in_a_view_keeps_its_name_and_its_ancestors() {
        let root = |path: &str| root(Path::new(path), Path::new("/")).unwrap();
        let moved = root("/data/www/x").moved(b"/data/", b"/snap").unwrap();
        assert_eq!(
            (moved.path.as_slice(), moved.name.unwrap().to_string()),
            (&b"/snap/www/x"[..], "data/www/x".into())
        );
        assert_eq!(root("/data").moved(b"/data", b"/snap").unwrap().path, b"/snap");
        assert_eq!(root("/data/x").moved(b"/", b"/snap").unwrap().path, b"/snap/data/x");
        assert_eq!(root("/").moved(b"/", b"/snap").unwrap().path, b"/snap");
        assert_eq!(root("/database").moved(b"/data", b"/snap"), None);
        let moved = root("/data/www/x").moved(b"/data", b"/snap").unwrap();
        assert_eq!(moved.ancestor_path(&EntryName::new("data").unwrap()), b"/data");
    }

    #[test]
    fn ancestors_of_a_root_are_found_in_the_file_system() {
        let root = root(Path::new("a/b/c"), Path::new("/home")).unwrap();
        assert_eq!(root.ancestor_path(&EntryName::new("a").unwrap()), b"/home/a");
        assert_eq!(root.ancestor_path(&EntryName::new("a/b").unwrap()), b"/home/a/b");
    }
}
