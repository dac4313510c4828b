//! What a restore would do to what stands in the target.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use backup_core::repository::Snapshot;
use backup_core::{Entry, EntryKind, EntryName, JobContext, Timestamp};
use backup_sources::{PARTIAL, SAFETY};
use rustix::fs::{FileType, Stat};
use serde_json::{Value, json};

use super::super::find::Pattern;
use super::below::Below;
use super::{Existing, extra};
use crate::exit::Outcome;
use crate::human;

/// Counted per kind of effect; only what is to be deleted is listed.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) selected: u64,
    new: u64,
    overwritten: u64,
    kept: u64,
    unchanged: u64,
    bytes_written: u64,
    bytes_unchanged: u64,
    /// Names below the target that are to be deleted, with all below them.
    pub(super) extra: Vec<Vec<u8>>,
}

/// A restored directory whose content is being compared with the target's.
struct Open {
    name: Option<EntryName>,
    children: HashSet<Vec<u8>>,
}

impl Plan {
    pub(super) async fn make(
        snapshot: &Snapshot,
        to: &Path,
        patterns: &[Pattern],
        existing: Existing,
        delete: bool,
        job: &JobContext,
    ) -> Outcome<Self> {
        let mut plan = Self::default();
        // A target that is not there yet holds nothing.
        let mut below = Below::new(to).ok();
        let roots = Roots::of(snapshot);
        let selected = |name: &EntryName| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches_tree(name))
        };
        let mut open: Vec<Open> = Vec::new();
        if delete && patterns.is_empty() && roots.covers(None) {
            open.push(Open { name: None, children: HashSet::new() });
        }
        let mut entries = snapshot.entries(None, job).await?;
        while let Some(stored) = entries.next().await? {
            let entry = stored.entry;
            // Directories are followed by what is in them: one that does not hold this entry is complete.
            while open.last().is_some_and(|last| !last.holds(&entry.name)) {
                plan.close(open.pop(), to);
            }
            if let Some(parent) = open.last_mut().filter(|open| open.name == entry.name.parent()) {
                parent.children.insert(entry.name.file_name().to_vec());
            }
            // What is known only at the end of a source stands at the end of the snapshot, out of order.
            plan.extra.retain(|extra| !holds(extra, &entry.name));
            if !selected(&entry.name) {
                continue;
            }
            plan.count(&entry, below.as_mut(), existing);
            if delete && entry.kind == EntryKind::Directory && roots.covers(Some(&entry.name)) {
                open.push(Open { name: Some(entry.name), children: HashSet::new() });
            }
        }
        while let Some(last) = open.pop() {
            plan.close(Some(last), to);
        }
        Ok(plan)
    }

    /// Whether anything that stands there would be lost.
    pub(super) fn destroys(&self) -> bool {
        self.overwritten > 0 || !self.extra.is_empty()
    }

    pub(super) fn document(&self) -> Value {
        let extra: Vec<_> = self.extra.iter().map(|name| String::from_utf8_lossy(name)).collect();
        json!({
            "dry_run": true,
            "entries_written": self.new.saturating_add(self.overwritten),
            "entries_new": self.new,
            "entries_overwritten": self.overwritten,
            "entries_kept": self.kept,
            "entries_unchanged": self.unchanged,
            "bytes_written": self.bytes_written,
            "bytes_unchanged": self.bytes_unchanged,
            "failed": [],
            "deleted": extra,
        })
    }

    pub(super) fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(
            out,
            "{} new, {} overwritten ({}), {} kept, {} seem unchanged ({}), {} deleted with all below",
            self.new,
            self.overwritten,
            human::bytes(self.bytes_written),
            self.kept,
            self.unchanged,
            human::bytes(self.bytes_unchanged),
            self.extra.len()
        )?;
        for name in &self.extra {
            writeln!(out, "delete {}", human::name(&String::from_utf8_lossy(name)))?;
        }
        Ok(())
    }

    fn count(&mut self, entry: &Entry, below: Option<&mut Below>, existing: Existing) {
        self.selected = self.selected.saturating_add(1);
        let size = entry.size.filter(|_| entry.kind.has_content()).unwrap_or(0);
        let counter = match below.and_then(|below| below.look(entry.name.as_bytes()).ok()) {
            None => {
                self.bytes_written = self.bytes_written.saturating_add(size);
                &mut self.new
            }
            Some(there) => {
                let same = looks_the_same(entry, &there);
                let older = entry.posix.is_some_and(|posix| posix.modified <= modified(&there));
                if existing == Existing::Never || (existing == Existing::IfNewer && older) {
                    &mut self.kept
                } else if same {
                    self.bytes_unchanged = self.bytes_unchanged.saturating_add(size);
                    &mut self.unchanged
                } else {
                    self.bytes_written = self.bytes_written.saturating_add(size);
                    &mut self.overwritten
                }
            }
        };
        *counter = counter.saturating_add(1);
    }

    fn close(&mut self, directory: Option<Open>, to: &Path) {
        let Some(directory) = directory else { return };
        let name = directory.name.as_ref().map(EntryName::as_bytes).unwrap_or_default();
        // A directory that is not there, or is a link, has nothing to delete.
        for child in extra::children(to, name).unwrap_or_default() {
            // Left by a restore that was killed: this one goes on with it, and removes it.
            if name.is_empty() && child == PARTIAL.as_bytes() {
                continue;
            }
            if !directory.children.contains(&child) {
                self.extra.push(if name.is_empty() { child } else { [name, b"/", &child].concat() });
            }
        }
    }
}

impl Open {
    fn holds(&self, name: &EntryName) -> bool {
        self.name.as_ref().is_none_or(|directory| name.is_within(directory))
    }
}

/// The names that were backed up as such. The directories above them are in the snapshot, too, but not all that is in
/// them: there, nothing may be deleted.
struct Roots(Vec<Option<EntryName>>);

impl Roots {
    fn of(snapshot: &Snapshot) -> Self {
        let info = snapshot.info();
        // A part of what stood there, and never all of it.
        if info.source == SAFETY {
            return Self(Vec::new());
        }
        if info.source != "files" {
            return Self(vec![None]);
        }
        let name = |path: &String| {
            let mut name = path.trim_start_matches('/');
            while let Some(rest) = name.strip_prefix("../") {
                name = rest;
            }
            if matches!(name, "" | "." | "..") { Some(None) } else { EntryName::new(name).ok().map(Some) }
        };
        Self(info.identity.iter().filter_map(name).collect())
    }

    fn covers(&self, name: Option<&EntryName>) -> bool {
        self.0.iter().any(|root| match (root, name) {
            (None, _) => true,
            (Some(root), Some(name)) => name.is_within(root),
            (Some(_), None) => false,
        })
    }
}

fn looks_the_same(entry: &Entry, there: &Stat) -> bool {
    let kind = FileType::from_raw_mode(there.st_mode);
    match &entry.kind {
        EntryKind::Directory => kind == FileType::Directory,
        EntryKind::File => {
            kind == FileType::RegularFile
                && entry.size == u64::try_from(there.st_size).ok()
                && entry.posix.map(|posix| posix.modified) == Some(modified(there))
        }
        // Files are not the only ones that have several names.
        EntryKind::HardLink { .. } => kind != FileType::Directory,
        EntryKind::Symlink { .. } => kind == FileType::Symlink,
        _ => !matches!(kind, FileType::Directory | FileType::RegularFile | FileType::Symlink),
    }
}

fn modified(there: &Stat) -> Timestamp {
    Timestamp::new(there.st_mtime, u32::try_from(there.st_mtime_nsec).unwrap_or_default())
}

/// Whether the name `extra` is `name` or above it.
fn holds(extra: &[u8], name: &EntryName) -> bool {
    EntryName::new(extra).is_ok_and(|extra| name.is_within(&extra))
}
