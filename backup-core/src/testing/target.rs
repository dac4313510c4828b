//! What every [`Target`] must do, as a suite that anyone can run over their own.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;

use tokio::io::AsyncWriteExt;

use super::broken;
use crate::entry::PosixMetadata;
use crate::target::BlockingWriter;
use crate::{Entry, EntryKind, EntryName, JobContext, Result, Target, Timestamp, WriteOrder, Writer};

/// Bytes that are written at once.
const PIECE_BYTES: usize = 70_001;

/// Restores a small tree into `target`, which must be empty, and returns an error that names the law that is broken.
///
/// `read_back` is called when the target is finished, and gives the content of every file that the target then has. A
/// target that keeps no files (one that only counts, say) cannot be checked by this.
pub async fn conformance<F, R>(target: &dyn Target, read_back: F) -> Result<()>
where
    F: FnOnce() -> R,
    R: Future<Output = Result<BTreeMap<EntryName, Vec<u8>>>>,
{
    let tree = tree()?;
    target.begin(&JobContext::new()).await.map_err(|error| broken("a target begins", error))?;
    match target.order() {
        WriteOrder::Any => any_order(target, &tree).await?,
        WriteOrder::Sequential => sequential(target, &tree).await?,
    }
    let failed = target.finish().await.map_err(|error| broken("a target finishes", error))?;
    law(
        "files, directories and hard links are restored in full",
        failed.is_empty(),
        format_args!("{failed:?}"),
    )?;
    let found = read_back().await?;
    for (name, content) in expected(&tree) {
        match found.get(name) {
            Some(there) if there == content => {}
            Some(there) => {
                let found = format_args!("{} bytes in `{name}`, not the same {}", there.len(), content.len());
                return Err(broken("what was written is there", found));
            }
            None => return Err(broken("what was written is there", format_args!("no `{name}`"))),
        }
    }
    let beyond = found.keys().find(|name| !expected(&tree).any(|(expected, _)| expected == *name));
    law("nothing else is there, and nothing that was given up", beyond.is_none(), format_args!("{beyond:?}"))
}

type Tree = Vec<(Entry, Vec<u8>)>;

fn tree() -> Result<Tree> {
    let posix =
        |mode| PosixMetadata { mode, modified: Timestamp::new(1_000_000_000, 5), ..PosixMetadata::default() };
    let directory =
        |name: &str| Entry::directory(name).map(|entry| (entry.with_posix(posix(0o755)), Vec::new()));
    let file = |name: &str, len: usize| {
        let content: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect();
        let size = u64::try_from(len).unwrap_or_default();
        Entry::file(name).map(|entry| (entry.with_posix(posix(0o644)).with_size(size), content))
    };
    let link = |name: &str, to: &str| {
        let entry = Entry::new(name, EntryKind::HardLink { to: EntryName::new(to)? })?;
        Ok::<_, crate::Error>((entry.with_posix(posix(0o644)), Vec::new()))
    };
    Ok(vec![
        directory("a")?,
        directory("a/b")?,
        file("a/b/empty", 0)?,
        file("a/b/one", 1)?,
        file("a/page", 4096)?,
        file("a/several", 3 * PIECE_BYTES + 17)?,
        file("given-up", PIECE_BYTES)?,
        link("link", "a/page")?,
        // Its directories are announced nowhere.
        file("un/announced/file", 1000)?,
    ])
}

/// Names and content of what must be there in the end.
fn expected(tree: &Tree) -> impl Iterator<Item = (&EntryName, &Vec<u8>)> {
    tree.iter().filter_map(move |(entry, content)| match &entry.kind {
        EntryKind::File if entry.name.as_bytes() == b"given-up" => None,
        EntryKind::File => Some((&entry.name, content)),
        EntryKind::HardLink { to } => {
            tree.iter().find(|(entry, _)| entry.name == *to).map(|(_, content)| (&entry.name, content))
        }
        _ => None,
    })
}

async fn any_order(target: &dyn Target, tree: &Tree) -> Result<()> {
    let mut writing = Vec::new();
    for (entry, content) in tree {
        if matches!(entry.kind, EntryKind::HardLink { .. }) {
            continue;
        }
        match target.entry(entry).await.map_err(|error| broken("an entry is accepted", error))? {
            Writer::Skip => {}
            Writer::Async(_) => {
                return Err(broken("a target for any order writes by blocking calls", &entry.name));
            }
            Writer::Blocking(open) => {
                let (content, given_up) = (content.clone(), entry.name.as_bytes() == b"given-up");
                writing.push((entry.name.clone(), move || write(open, &content, given_up)));
            }
        }
    }
    // The last first, all at once.
    let mut running = Vec::new();
    for (name, work) in writing.into_iter().rev() {
        running.push((name, tokio::task::spawn_blocking(work)));
    }
    for (name, work) in running {
        let written = work.await.map_err(|error| broken("writing does not panic", error))?;
        let notes = written.map_err(|error| broken(format_args!("`{name}` can be written"), error))?;
        law("an entry is restored in full", notes.is_empty(), format_args!("{name}: {notes:?}"))?;
    }
    let of_kind = |wanted: fn(&EntryKind) -> bool| {
        tree.iter().map(|(entry, _)| entry.clone()).filter(|entry| wanted(&entry.kind)).collect::<Vec<_>>()
    };
    let links = of_kind(|kind| matches!(kind, EntryKind::HardLink { .. }));
    let mut directories = of_kind(|kind| matches!(kind, EntryKind::Directory));
    directories.reverse();
    for last in [links, directories] {
        let failed =
            target.complete(last).await.map_err(|error| broken("what comes last is completed", error))?;
        law(
            "directories and hard links are restored in full",
            failed.is_empty(),
            format_args!("{failed:?}"),
        )?;
    }
    Ok(())
}

type Open = Box<dyn FnOnce() -> io::Result<Box<dyn BlockingWriter>> + Send>;

fn write(open: Open, content: &[u8], given_up: bool) -> io::Result<Vec<String>> {
    let writer = open()?;
    let wrong = |law: &str| io::Error::other(law.to_owned());
    if writer.existing_len() != 0 || writer.is_current() {
        return Err(wrong("something is there before anything was written"));
    }
    // From the back, so that positions matter, and at once, as several workers do.
    let mut offset = u64::try_from(content.len()).unwrap_or_default();
    std::thread::scope(|scope| {
        let mut writing = Vec::new();
        for piece in content.rchunks(PIECE_BYTES) {
            offset = offset.saturating_sub(u64::try_from(piece.len()).unwrap_or_default());
            let (writer, offset) = (&*writer, offset);
            writing.push(scope.spawn(move || writer.write_all_at(piece, offset)));
        }
        writing.into_iter().try_for_each(|written| {
            written
                .join()
                .unwrap_or_else(|_| Err(wrong("a writer panics when several threads write at once")))
        })
    })?;
    if given_up {
        writer.abort();
        return Ok(Vec::new());
    }
    writer.finish(u64::try_from(content.len()).unwrap_or_default())
}

async fn sequential(target: &dyn Target, tree: &Tree) -> Result<()> {
    for (entry, content) in tree {
        // What is given up cannot be taken back from a stream.
        if entry.name.as_bytes() == b"given-up" {
            continue;
        }
        match target.entry(entry).await.map_err(|error| broken("an entry is accepted", error))? {
            Writer::Skip => {}
            Writer::Blocking(_) => {
                return Err(broken("a sequential target writes asynchronously", &entry.name));
            }
            Writer::Async(mut writer) => {
                let failed = |error| broken(format_args!("`{}` can be written", entry.name), error);
                for piece in content.chunks(PIECE_BYTES) {
                    writer.write_all(piece).await.map_err(failed)?;
                }
                writer.shutdown().await.map_err(failed)?;
            }
        }
    }
    Ok(())
}

fn law(law: &str, holds: bool, found: impl std::fmt::Display) -> Result<()> {
    if holds { Ok(()) } else { Err(broken(law, found)) }
}
