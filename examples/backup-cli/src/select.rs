//! Which snapshot is meant: an id, a unique prefix, or `latest` among those that pass filters.

use backup_core::repository::Repository;
use backup_core::{Error, ObjectKey, SnapshotInfo};
use backup_sources::SAFETY;
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::{Exit, Failure, Outcome, kind_name};
use crate::human;
use crate::parse::{Tag, When};

/// Filters of snapshots; all given must hold.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct Filter {
    /// Only snapshots with this tag; repeat for more
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    pub tags: Vec<Tag>,
    /// Only snapshots of this kind of source
    #[arg(long, value_name = "KIND")]
    pub source: Option<String>,
    /// Only snapshots taken on this host
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Only snapshots with this label
    #[arg(long, value_name = "LABEL")]
    pub label: Option<String>,
    /// Only snapshots taken before: 2026-11-20T08:00:00Z, 2026-11-20, or 3d (ago)
    #[arg(long, value_name = "TIME")]
    pub before: Option<When>,
}

impl Filter {
    /// Whether any filter is given.
    pub fn is_empty(&self) -> bool {
        let none = self.source.is_none() && self.host.is_none() && self.label.is_none();
        none && self.tags.is_empty() && self.before.is_none()
    }

    /// Whether a snapshot passes.
    pub fn passes(&self, snapshot: &SnapshotInfo) -> bool {
        let is =
            |wanted: &Option<String>, there: Option<&String>| wanted.is_none() || wanted.as_ref() == there;
        is(&self.source, Some(&snapshot.source))
            && is(&self.host, Some(&snapshot.host))
            && is(&self.label, snapshot.label.as_ref())
            && self.before.is_none_or(|before| snapshot.time < before.0)
            && self.tags.iter().all(|tag| snapshot.tags.get(&tag.key) == Some(&tag.value))
    }
}

/// The snapshots of a repository. One that cannot be read keeps nobody from the others.
#[derive(Debug)]
pub struct Snapshots {
    readable: Vec<SnapshotInfo>,
    damaged: Vec<(ObjectKey, Error)>,
}

impl Snapshots {
    /// Reads them.
    pub async fn load(repository: &Repository, context: &Context) -> Outcome<Self> {
        let (readable, damaged) = repository.snapshots_and_damage(&context.job()).await?;
        Ok(Self { readable, damaged })
    }

    /// Those that can be read, the oldest first. The others are named, and the command does not end as if all was well.
    pub fn all(&self, context: &mut Context) -> &[SnapshotInfo] {
        for (_, error) in &self.damaged {
            context.console.say(format_args!("damaged {}", human::name(&error.to_string())));
        }
        context.incomplete |= !self.damaged.is_empty();
        &self.readable
    }

    /// The damaged ones, for `--json`.
    pub fn damage(&self) -> Value {
        let item = |(key, error): &(ObjectKey, Error)| json!({ "object": key, "reason": error.to_string() });
        self.damaged.iter().map(item).collect()
    }

    /// The snapshot that `text` means. What `latest` means is less than certain where one cannot be read.
    pub fn find(&self, text: &str, filter: &Filter, context: &mut Context) -> Outcome<&SnapshotInfo> {
        if text == "latest" {
            let found = find(self.all(context), text, filter)?;
            if !self.damaged.is_empty() {
                context.console.say(format_args!("the latest that can be read is {}", found.id));
            }
            return Ok(found);
        }
        let start = text.to_ascii_lowercase();
        let is_meant = |key: &ObjectKey| {
            !start.is_empty() && key.as_str().rsplit('/').next().is_some_and(|id| id.starts_with(&start))
        };
        match self.damaged.iter().find(|(key, _)| is_meant(key)) {
            Some((_, error)) => {
                let message = error.to_string();
                Err(Failure { exit: Exit::Failed, kind: kind_name(error.kind()), message })
            }
            None => find(&self.readable, text, filter),
        }
    }
}

/// The snapshot that `text` means among `snapshots`, which are sorted by time.
fn find<'a>(snapshots: &'a [SnapshotInfo], text: &str, filter: &Filter) -> Outcome<&'a SnapshotInfo> {
    if snapshots.is_empty() {
        return Err(Failure::nothing("the repository has no snapshots yet"));
    }
    let mut passing = snapshots.iter().filter(|snapshot| filter.passes(snapshot));
    if text == "latest" {
        // What a restore replaced is no later state of anything, unless it is asked for.
        let asked = filter.source.is_some();
        return passing
            .rfind(|snapshot| asked || snapshot.source != SAFETY)
            .ok_or_else(|| Failure::nothing("no snapshot passes the filters"));
    }
    if text.is_empty() || text.len() > 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let shown = human::name(text);
        return Err(Failure::usage(format!(
            "`{shown}` is not a snapshot; give an id, the start of one, or `latest`"
        )));
    }
    let text = text.to_ascii_lowercase();
    let matching: Vec<_> = passing.filter(|snapshot| snapshot.id.to_string().starts_with(&text)).collect();
    match matching.as_slice() {
        [one] => Ok(one),
        [] => copy_of(snapshots, &text, filter)
            .ok_or_else(|| Failure::nothing(format!("no snapshot has an id that starts with `{text}`"))),
        several => {
            let ids: Vec<String> = several.iter().take(5).map(|snapshot| snapshot.id.to_string()).collect();
            let count = several.len();
            Err(Failure::usage(format!(
                "{count} snapshots have ids that start with `{text}`: {} …",
                ids.join(", ")
            )))
        }
    }
}

/// The only snapshot that says that it is a copy of the one that is meant.
fn copy_of<'a>(snapshots: &'a [SnapshotInfo], text: &str, filter: &Filter) -> Option<&'a SnapshotInfo> {
    let is_meant = |info: &&SnapshotInfo| {
        filter.passes(info) && info.origin.is_some_and(|origin| origin.snapshot.to_string().starts_with(text))
    };
    let mut copies = snapshots.iter().filter(is_meant);
    copies.next().filter(|_| copies.next().is_none())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use backup_core::report::Outcome as Whole;
    use backup_core::{SnapshotId, Timestamp};

    use super::*;

    fn snapshot(first: u8, second: u8, time: i64, host: &str) -> SnapshotInfo {
        let mut id = [0; 16];
        (id[0], id[1]) = (first, second);
        SnapshotInfo {
            id: SnapshotId::from_bytes(id),
            time: Timestamp::new(time, 0),
            stored: None,
            source: "files".into(),
            identity: vec!["/etc".into()],
            host: host.into(),
            label: None,
            tenant: None,
            description: None,
            tags: BTreeMap::from([("env".into(), host.to_uppercase())]),
            position: BTreeMap::new(),
            parent: None,
            outcome: Whole::Complete,
            entries: 0,
            bytes_logical: 0,
            bytes_added: 0,
            skipped: Vec::new(),
            skipped_count: 0,
            origin: None,
            change: None,
            anomaly: None,
            workload: None,
        }
    }

    #[test]
    fn snapshots_are_found_by_id_prefix_and_latest() {
        let all = [snapshot(0xab, 1, 10, "a"), snapshot(0xab, 2, 20, "b"), snapshot(0xcd, 3, 30, "a")];
        let time = |text: &str, filter: &Filter| {
            find(&all, text, filter).map(|found| found.time.seconds()).map_err(|f| f.exit)
        };
        let none = Filter::default();
        assert_eq!(time("latest", &none), Ok(30));
        assert_eq!(time("cd", &none), Ok(30));
        assert_eq!(time("AB01", &none), Ok(10));
        assert_eq!(time("ab", &none), Err(Exit::Usage));
        assert_eq!(time("ef", &none), Err(Exit::Nothing));
        assert_eq!(time("last", &none), Err(Exit::Usage));
        assert_eq!(time("", &none), Err(Exit::Usage));
        let host = Filter { host: Some("b".into()), ..Filter::default() };
        assert_eq!(time("latest", &host), Ok(20));
        assert_eq!(time("cd", &host), Err(Exit::Nothing));
        let tag = Filter { tags: vec!["env=B".parse().unwrap()], ..Filter::default() };
        assert_eq!(time("latest", &tag), Ok(20));
        let before = Filter { before: Some("@30".parse().unwrap()), ..Filter::default() };
        assert_eq!(time("latest", &before), Ok(20));
        let mut saved = snapshot(0xef, 1, 40, "a");
        saved.source = SAFETY.into();
        let with_saved = [all[0].clone(), saved];
        let time = |filter: &Filter| find(&with_saved, "latest", filter).unwrap().time.seconds();
        let safety = Filter { source: Some(SAFETY.into()), ..Filter::default() };
        assert_eq!((time(&none), time(&safety)), (10, 40));
        assert_eq!(find(&[], "latest", &none).unwrap_err().exit, Exit::Nothing);
    }
}
