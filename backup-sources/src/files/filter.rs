//! What of the walked files is left out.

use backup_core::{Error, Result};
use regex::bytes::{RegexSet, RegexSetBuilder};

use super::pattern::{self, Pattern};

/// Bytes of memory that the patterns may take when compiled: many thousands of them.
const COMPILED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Compiled patterns of names; the last one that matches decides.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    /// Those that last components are matched against.
    names: Rules,
    /// Those that whole paths are matched against.
    paths: Rules,
}

#[derive(Debug, Clone)]
struct Rules {
    patterns: RegexSet,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy)]
struct Rule {
    /// Its place among all: the last that matches decides.
    place: usize,
    includes: bool,
    directories_only: bool,
}

impl Filter {
    /// Compiles `patterns`; see [`exclude`](super::FilesSourceBuilder::exclude) for what they mean.
    pub(super) fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut names = (Vec::new(), Vec::new());
        let mut paths = (Vec::new(), Vec::new());
        for (place, text) in patterns.into_iter().enumerate() {
            let pattern = Pattern::new(text)
                .map_err(|why| Error::invalid_input(format!("the exclude pattern `{text}` {why}")))?;
            let Pattern { includes, directories_only, whole_path, regex } = pattern;
            let (regexes, rules) = if whole_path { &mut paths } else { &mut names };
            regexes.push(regex);
            rules.push(Rule { place, includes, directories_only });
        }
        Ok(Self { names: Rules::new(names)?, paths: Rules::new(paths)? })
    }

    /// Whether the entry named `name` is left out. The name without its first `base` bytes starts at a path to back up.
    pub(super) fn excludes(&self, name: &[u8], base: usize, is_directory: bool) -> bool {
        let from_base = name.get(base..).unwrap_or_default();
        let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let mut deciding = self.names.deciding(last, is_directory);
        for path in [from_base, name].into_iter().take(if base == 0 { 1 } else { 2 }) {
            let further = self.paths.deciding(path, is_directory);
            deciding = [deciding, further].into_iter().flatten().max_by_key(|rule| rule.place);
        }
        deciding.is_some_and(|rule| !rule.includes)
    }
}

impl Rules {
    fn new((regexes, rules): (Vec<String>, Vec<Rule>)) -> Result<Self> {
        let patterns = RegexSetBuilder::new(regexes).unicode(false).size_limit(COMPILED_BYTES_MAX).build();
        let patterns = patterns
            .map_err(|error| Error::invalid_input(format!("the exclude patterns are too many: {error}")))?;
        Ok(Self { patterns, rules })
    }

    fn deciding(&self, text: &[u8], is_directory: bool) -> Option<Rule> {
        if self.rules.is_empty() || !self.patterns.is_match(text) {
            return None;
        }
        self.patterns
            .matches(text)
            .iter()
            .filter_map(|index| self.rules.get(index).copied())
            .filter(|rule| is_directory || !rule.directories_only)
            .max_by_key(|rule| rule.place)
    }
}

/// The patterns in the text of an exclude file: one a line; empty lines and those that start with `#` say nothing.
pub(super) fn patterns_of_file(text: &str) -> impl Iterator<Item = &str> {
    text.strip_prefix('\u{feff}').unwrap_or(text).split('\n').filter_map(pattern::of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_without_a_slash_match_at_any_depth_and_others_from_a_path_or_the_top() {
        let filter = Filter::new(["*.tmp", "/var/cache", "node_modules/", "a/b", "!keep.tmp"]).unwrap();
        let excluded = |name: &str| filter.excludes(name.as_bytes(), 0, false);
        assert!(excluded("x.tmp") && excluded("deep/er/x.tmp"));
        assert!(!excluded("x.tmpl") && !excluded("deep/keep.tmp"));
        assert!(excluded("var/cache") && !excluded("home/var/cache"));
        assert!(excluded("a/b") && !excluded("x/a/b"));
        assert!(!excluded("x/node_modules") && filter.excludes(b"x/node_modules", 0, true));
        assert!(filter.excludes(b"\xff\xfe/x.tmp", 0, false), "names that are not UTF-8");
        let base = "home/user/".len();
        assert!(filter.excludes(b"home/user/a/b", base, false), "from the path that was given");
        assert!(!filter.excludes(b"home/user/x/a/b", base, false));
        assert!(filter.excludes(b"var/cache", "var/".len(), false), "from the top of the snapshot");
    }

    #[test]
    fn the_last_pattern_that_matches_decides_whatever_it_is_matched_against() {
        let filter = Filter::new(["*.log", "!/top/*.log", "debug.log"]).unwrap();
        let excluded = |name: &str| filter.excludes(name.as_bytes(), 0, false);
        assert!(excluded("a.log") && !excluded("top/a.log") && excluded("top/debug.log"));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for pattern in ["[", "", "!", "/", "a\\"] {
            let error = Filter::new([pattern]).unwrap_err();
            assert!(error.to_string().contains(pattern), "{error}");
        }
    }

    #[test]
    fn exclude_files_have_comments() {
        assert_eq!(patterns_of_file("\u{feff}# x\n\n a \n*.o\r\n").collect::<Vec<_>>(), [" a", "*.o"]);
    }
}
