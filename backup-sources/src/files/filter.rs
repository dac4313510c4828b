//! What of the walked files is left out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use backup_core::{Error, Result};
use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

/// Compiled patterns of names; the last one that matches decides.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    globs: GlobSet,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy)]
struct Rule {
    includes: bool,
    directories_only: bool,
}

impl Filter {
    /// Compiles `patterns`; see [`exclude`](super::FilesSourceBuilder::exclude) for what they mean.
    pub(super) fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut globs = GlobSetBuilder::new();
        let mut rules = Vec::new();
        for pattern in patterns {
            let (includes, rest) = match pattern.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, pattern),
            };
            let (directories_only, rest) = match rest.strip_suffix('/') {
                Some(rest) => (true, rest),
                None => (false, rest),
            };
            let wrong = |why: &str| Error::invalid_input(format!("the exclude pattern `{pattern}` {why}"));
            if rest.is_empty() {
                return Err(wrong("is empty"));
            }
            let glob = match rest.strip_prefix('/') {
                Some(anchored) => anchored.to_owned(),
                None => format!("**/{rest}"),
            };
            let glob = GlobBuilder::new(&glob)
                .literal_separator(true)
                .build()
                .map_err(|error| wrong(&format!("is not a pattern of names: {}", error.kind())))?;
            globs.add(glob);
            rules.push(Rule { includes, directories_only });
        }
        let globs = globs.build().map_err(|error| {
            Error::invalid_input(format!("the exclude patterns are too large: {}", error.kind()))
        })?;
        Ok(Self { globs, rules })
    }

    /// Whether the entry named `name` is left out.
    pub(super) fn excludes(&self, name: &[u8], is_directory: bool) -> bool {
        if self.rules.is_empty() {
            return false;
        }
        let candidate = Candidate::new(Path::new(OsStr::from_bytes(name)));
        let deciding = self
            .globs
            .matches_candidate(&candidate)
            .into_iter()
            .filter_map(|index| self.rules.get(index).map(|rule| (index, rule)))
            .filter(|(_, rule)| is_directory || !rule.directories_only)
            .max_by_key(|(index, _)| *index);
        deciding.is_some_and(|(_, rule)| !rule.includes)
    }
}

/// The patterns in the text of an exclude file: one a line; empty lines and those that start with `#` say nothing.
pub(super) fn patterns_of_file(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_components_at_any_depth_unless_anchored() {
        let filter = Filter::new(["*.tmp", "/var/cache", "node_modules/", "a/b", "!keep.tmp"]).unwrap();
        let excluded = |name: &str| filter.excludes(name.as_bytes(), false);
        assert!(excluded("x.tmp") && excluded("deep/er/x.tmp"));
        assert!(!excluded("x.tmpl") && !excluded("deep/keep.tmp"));
        assert!(excluded("var/cache") && !excluded("home/var/cache"));
        assert!(excluded("a/b") && excluded("x/a/b") && !excluded("xa/b"));
        assert!(!excluded("x/node_modules") && filter.excludes(b"x/node_modules", true));
        assert!(filter.excludes(b"\xff\xfe/x.tmp", false), "names that are not UTF-8");
        let star = Filter::new(["/home/*/x", "**/deep/**/y"]).unwrap();
        assert!(star.excludes(b"home/u/x", false) && !star.excludes(b"home/u/v/x", false));
        assert!(star.excludes(b"q/deep/1/2/y", false));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for pattern in ["[", "", "!", "/", "{a"] {
            let error = Filter::new([pattern]).unwrap_err();
            assert!(error.to_string().contains(pattern), "{error}");
        }
    }

    #[test]
    fn exclude_files_have_comments() {
        assert_eq!(patterns_of_file("# x\n\n a \n*.o\n").collect::<Vec<_>>(), ["a", "*.o"]);
    }
}
