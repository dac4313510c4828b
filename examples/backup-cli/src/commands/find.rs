//! `find`: entries by name, in all snapshots that pass the filters.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use backup_core::EntryName;
use globset::{GlobBuilder, GlobMatcher};
use serde_json::Map;

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;
use crate::select::{Filter, Snapshots};
use crate::shown::{self, ShownEntry};

/// Options of `find`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name or a glob: without a slash it is compared with the last part of names, otherwise with all of it
    #[arg(value_name = "GLOB")]
    glob: String,
    /// Only in this snapshot: an id, the start of one, or `latest`
    #[arg(long, value_name = "SNAP")]
    snapshot: Option<String>,
    #[command(flatten)]
    filter: Filter,
}

/// Finds them.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let pattern = Pattern::new(&args.glob)?;
    let repository = context.repository_anywhere().await?;
    let job = context.job();
    let listed = Snapshots::load(&repository, context).await?;
    let snapshots: Vec<_> = match &args.snapshot {
        Some(text) => vec![listed.find(text, &args.filter, context)?],
        None => listed.all(context).iter().filter(|snapshot| args.filter.passes(snapshot)).collect(),
    };
    context.output.begin_list("entries")?;
    let mut found = 0_u64;
    for info in &snapshots {
        let snapshot = repository.snapshot(info.id, &job).await?;
        let mut entries = snapshot.entries(None, &job).await?;
        while let Some(stored) = entries.next().await? {
            if pattern.matches(&stored.entry.name) {
                found = found.saturating_add(1);
                let line = format!("{:.8}  {}", info.id.to_string(), shown::line(&stored.entry));
                context.output.item(&ShownEntry::new(&stored.entry, Some(info.id)), line)?;
            }
        }
    }
    context.output.end_list(Map::from_iter([("damaged_objects".to_owned(), listed.damage())]))?;
    if found == 0 {
        context.console.say(format_args!("backup: nothing matches {}", human::name(&args.glob)));
        return Ok(Exit::Nothing);
    }
    Ok(Exit::Done)
}

/// A glob on names of entries.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    glob: GlobMatcher,
    whole: bool,
}

impl Pattern {
    /// `*` stops at a slash, `**` does not.
    pub(super) fn new(glob: &str) -> Outcome<Self> {
        let trimmed = glob.trim_start_matches("./").trim_matches('/');
        let whole = glob.trim_end_matches('/').contains('/');
        let wrong = |why: String| Failure::usage(format!("`{}` is not a glob: {why}", human::name(glob)));
        if trimmed.is_empty() {
            return Err(wrong("it is empty".into()));
        }
        let built = GlobBuilder::new(trimmed).literal_separator(true).backslash_escape(true).build();
        Ok(Self { glob: built.map_err(|e| wrong(e.kind().to_string()))?.compile_matcher(), whole })
    }

    /// Whether it matches a name.
    pub(super) fn matches(&self, name: &EntryName) -> bool {
        let bytes = if self.whole { name.as_bytes() } else { name.file_name() };
        self.glob.is_match(path_of(bytes))
    }

    /// Whether it matches all of a name, or all of a name above it.
    pub(super) fn matches_tree(&self, name: &EntryName) -> bool {
        let mut above = Some(name.clone());
        while let Some(name) = above {
            if self.glob.is_match(path_of(name.as_bytes())) {
                return true;
            }
            above = name.parent();
        }
        false
    }
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_the_last_part_or_all_of_a_name() {
        let matches =
            |glob: &str, name: &str| Pattern::new(glob).unwrap().matches(&EntryName::new(name).unwrap());
        assert!(matches("*.conf", "etc/a.conf"));
        assert!(matches("/etc/*.conf", "etc/a.conf"));
        assert!(!matches("etc/*.conf", "etc/deep/a.conf"));
        assert!(matches("etc/**/*.conf", "etc/deep/a.conf"));
        assert!(!matches("etc", "etc/a.conf"));
        for glob in ["", "/", "[", "{a"] {
            assert_eq!(Pattern::new(glob).unwrap_err().exit, Exit::Usage, "{glob}");
        }
    }

    #[test]
    fn a_tree_is_what_matches_and_everything_below() {
        let tree =
            |glob: &str, name: &str| Pattern::new(glob).unwrap().matches_tree(&EntryName::new(name).unwrap());
        assert!(tree("etc/ssl", "etc/ssl/certs/a.pem"));
        assert!(tree("/etc/ssl/", "etc/ssl"));
        assert!(tree("etc/s*", "etc/ssl/a"));
        assert!(!tree("etc/ssl", "etc/ssl-old/a"));
        assert!(!tree("etc/ssl", "etc"));
        assert!(!tree("a.pem", "etc/ssl/a.pem"));
    }
}
