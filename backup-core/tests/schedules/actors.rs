//! Those who are at work in a repository at the same time, each with a handle and a clock of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use backup_core::repository::{BackupOptions, CollectOptions, ForgetOptions, RepackOptions};
use backup_core::{Error, ErrorKind, Result, SnapshotId};

use crate::common::{Setup, TestEntry, TestSource, assert_same, random};

/// What is promised, and what happened.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Snapshots that were acknowledged and that nobody has asked to forget since, with what they hold.
    pub(crate) promised: BTreeMap<SnapshotId, u64>,
    /// Those that somebody asked to forget, ever.
    asked: BTreeSet<SnapshotId>,
    /// Begins and ends of forgetting.
    forgetting: u64,
    /// What went wrong and must not.
    pub(crate) wrong: Vec<String>,
    /// What was done.
    pub(crate) done: BTreeMap<&'static str, u64>,
}

pub(crate) type Shared = Arc<Mutex<Book>>;

/// Who does what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Writer,
    Collector,
    Forgetter,
    Reader,
}

/// Everybody who takes part, in the order of their numbers.
pub(crate) const ROLES: [Role; 6] =
    [Role::Writer, Role::Writer, Role::Collector, Role::Collector, Role::Forgetter, Role::Reader];

/// A tree that shares most of what it has with the others, and all of it with the next one of its number.
pub(crate) fn content(number: u64) -> TestSource {
    let own = TestEntry::file(&format!("own-{number}"), random(100 + number, 30_000)).stamped();
    let shared = TestEntry::file("shared", random(7, 40_000)).stamped();
    TestSource::new(vec![own, shared])
}

/// Kinds of content. Few, so that what is forgotten is soon needed again.
pub(crate) const CONTENTS: u64 = 3;

fn count(book: &Shared, what: &'static str) {
    *book.lock().unwrap().done.entry(what).or_default() += 1;
}

/// Notes a failure that is not one of the schedule's.
fn note<T>(book: &Shared, doing: &str, result: Result<T>) -> Option<T> {
    let error = match result {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    let expected = matches!(error.kind(), ErrorKind::Transient | ErrorKind::NotFound | ErrorKind::Cancelled);
    if !expected {
        book.lock().unwrap().wrong.push(format!("{doing}: {:?}: {error}", error.kind()));
    }
    None
}

/// Does its part, a few times.
pub(crate) async fn act(role: Role, number: usize, setup: Setup, book: Shared) {
    let rounds = if role == Role::Collector { 6 } else { 3 };
    for round in 0..rounds {
        match role {
            Role::Writer => write(&setup, (number as u64 + round) % CONTENTS, &book).await,
            Role::Collector => collect(&setup, &book).await,
            Role::Forgetter => forget(&setup, round, &book).await,
            Role::Reader => read(&setup, &book).await,
        }
    }
}

async fn write(setup: &Setup, what: u64, book: &Shared) {
    let report = setup.repository.backup(&content(what), &BackupOptions::default(), &setup.job).await;
    let Some(report) = note(book, "backup", report) else { return };
    count(book, "backups");
    let (id, mut book) = (report.snapshot.unwrap(), book.lock().unwrap());
    // It can be seen, and forgotten, before its writer hears of it.
    if !book.asked.contains(&id) {
        book.promised.insert(id, what);
    }
}

pub(crate) fn at_once() -> CollectOptions {
    let repack = RepackOptions { max_unused_percent: 0, ..RepackOptions::default() };
    CollectOptions { repack, ignore_anomalies: true, ..CollectOptions::default() }
}

async fn collect(setup: &Setup, book: &Shared) {
    let report = setup.repository.collect(&at_once(), &setup.job).await;
    let Some(report) = note(book, "collect", report) else { return };
    count(book, "collections");
    let mut book = book.lock().unwrap();
    *book.done.entry("objects deleted").or_default() += report.objects_deleted;
    *book.done.entry("packs rescued").or_default() += report.packs_rescued;
    for damaged in report.damaged_objects {
        book.wrong.push(format!("collect calls {} damaged: {}", damaged.object, damaged.reason));
    }
}

/// All but the newest two.
async fn forget(setup: &Setup, round: u64, book: &Shared) {
    let Some(mut listed) = note(book, "list", setup.repository.snapshots(&setup.job).await) else { return };
    listed.sort_by_key(|info| (info.stored, info.id));
    listed.truncate(listed.len().saturating_sub(2));
    for (at, info) in listed.iter().enumerate() {
        let promise = {
            let mut book = book.lock().unwrap();
            book.forgetting += 1;
            book.asked.insert(info.id);
            book.promised.remove(&info.id)
        };
        forget_one(setup, info.id, promise, round + at as u64, book).await;
        book.lock().unwrap().forgetting += 1;
    }
}

async fn forget_one(setup: &Setup, oldest: SnapshotId, promise: Option<u64>, round: u64, book: &Shared) {
    let forgotten = setup.repository.forget(&[oldest], &ForgetOptions::default(), &setup.job).await;
    if note(book, "forget", forgotten).is_none() {
        return;
    }
    count(book, "forgotten");
    // Every third one was a mistake.
    if round.is_multiple_of(3)
        && let Ok(()) = setup.repository.undelete(oldest, &setup.job).await
    {
        count(book, "undeleted");
        if let Some(what) = promise {
            book.lock().unwrap().promised.insert(oldest, what);
        }
    }
}

/// Restores what it lists, by an index that gets older meanwhile.
async fn read(setup: &Setup, book: &Shared) {
    let Some(listed) = note(book, "list", setup.repository.snapshots(&setup.job).await) else { return };
    for info in listed {
        let promise = |book: &Shared| {
            let book = book.lock().unwrap();
            (book.forgetting, book.promised.get(&info.id).copied())
        };
        let before = promise(book);
        let restored = setup.restore(info.id).await;
        // What somebody wanted to forget meanwhile may be gone.
        let ((_, Some(what)), true) = (before, before == promise(book)) else { continue };
        match restored {
            Ok((found, report)) if report.failed.is_empty() => {
                count(book, "restores");
                assert_same(&found, &content(what).expected());
            }
            Ok((_, report)) => {
                book.lock()
                    .unwrap()
                    .wrong
                    .push(format!("a restore of {} lacks {:?}", info.id, report.failed));
            }
            Err(error) => reading_failed(book, info.id, &error),
        }
    }
}

fn reading_failed(book: &Shared, id: SnapshotId, error: &Error) {
    if error.kind() != ErrorKind::Transient {
        book.lock().unwrap().wrong.push(format!("a restore of {id} fails: {:?}: {error}", error.kind()));
    }
}
