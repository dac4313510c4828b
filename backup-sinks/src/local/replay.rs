//! Power loss, replayed through the engine: init, two backups and a new recipient are recorded call by call, and for
//! every point of the recording a directory is made of only what was synced by then. What was acknowledged must be
//! there, everything must verify, and the next backup must succeed. Each sync left out of the recording must be noticed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::chunker::ChunkerParameters;
use backup_core::repository::{
    BackupOptions, CreateOptions, Repository, RestoreOptions, VerifyLevel, VerifyOptions,
};
use backup_core::{
    Error, ErrorKind, Fetched, GetRange, JobContext, ObjectKey, ObjectMeta, PutOutcome, Resources, Result,
    Sink, SnapshotId, TransformSet,
};
use backup_crypto::{Keyring, PassphraseCost, Recipient};
use backup_sources::{MemorySource, WriterTarget};
use bytes::Bytes;

use super::LocalSink;
use super::disk::{Directory, Disk, SystemDisk};

/// What happened, in order. Paths are below the root.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    CreateFile(String),
    Write(String, Bytes),
    SyncFile(String),
    SyncDirectory(String),
    MakeDirectory(String),
    Publish(String, String),
    RemoveFile(String),
    RemoveDirectory(String),
    /// The sink said that this object is stored.
    Stored(String),
    /// The sink said that this object is deleted.
    Deleted(String),
    /// A command acknowledged what it did.
    Acknowledged(Deed),
}

#[derive(Debug, Clone, PartialEq, Hash)]
enum Deed {
    Created,
    BackedUp(SnapshotId, u64),
    RecipientAdded,
}

type Log = Arc<Mutex<Vec<Step>>>;

/// The system's calls, written down.
#[derive(Debug)]
struct Recording(Log);

impl Recording {
    /// Calls and writes down as one step, so that the order is that of the effects.
    fn done<T>(&self, step: Step, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut log = self.0.lock().unwrap();
        let done = call()?;
        log.push(step);
        Ok(done)
    }
}

impl Disk for Recording {
    fn create_file(&self, directory: &Directory, name: &str) -> io::Result<File> {
        let step = Step::CreateFile(directory.path_of(name));
        self.done(step, || SystemDisk.create_file(directory, name))
    }
    fn write(&self, directory: &Directory, name: &str, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let step = Step::Write(directory.path_of(name), Bytes::copy_from_slice(bytes));
        self.done(step, || SystemDisk.write(directory, name, file, bytes))
    }
    fn sync_file(&self, directory: &Directory, name: &str, _: &File) -> io::Result<()> {
        self.done(Step::SyncFile(directory.path_of(name)), || Ok(()))
    }
    fn sync_directory(&self, directory: &Directory) -> io::Result<()> {
        self.done(Step::SyncDirectory(directory.path().to_owned()), || Ok(()))
    }
    fn make_directory(&self, parent: &Directory, name: &str) -> io::Result<()> {
        let step = Step::MakeDirectory(parent.path_of(name));
        self.done(step, || SystemDisk.make_directory(parent, name))
    }
    fn publish(&self, from: &Directory, temporary: &str, to: &Directory, name: &str) -> io::Result<()> {
        let step = Step::Publish(from.path_of(temporary), to.path_of(name));
        self.done(step, || SystemDisk.publish(from, temporary, to, name))
    }
    fn remove_file(&self, directory: &Directory, name: &str) -> io::Result<()> {
        let step = Step::RemoveFile(directory.path_of(name));
        self.done(step, || SystemDisk.remove_file(directory, name))
    }
    fn remove_directory(&self, parent: &Directory, name: &str) -> io::Result<()> {
        let step = Step::RemoveDirectory(parent.path_of(name));
        self.done(step, || SystemDisk.remove_directory(parent, name))
    }
}

/// Writes down what the sink acknowledges. One change at a time: two at once sync each other's directories, and then
/// which sync is needed is a matter of luck.
#[derive(Debug)]
struct Noting {
    sink: LocalSink,
    log: Log,
    one: tokio::sync::Mutex<()>,
}

#[async_trait]
impl Sink for Noting {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<PutOutcome> {
        let _one = self.one.lock().await;
        let outcome = self.sink.put(key, bytes).await?;
        self.log.lock().unwrap().push(Step::Stored(key.to_string()));
        Ok(outcome)
    }
    async fn get(&self, key: &ObjectKey, range: GetRange) -> Result<Fetched> {
        self.sink.get(key, range).await
    }
    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Vec<ObjectMeta>> {
        self.sink.list(prefix, after, limit).await
    }
    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        let _one = self.one.lock().await;
        self.sink.delete(key).await?;
        self.log.lock().unwrap().push(Step::Deleted(key.to_string()));
        Ok(())
    }
}

/// A disk that knows what survives.
#[derive(Debug, Clone)]
struct Replayed {
    nodes: Vec<Node>,
    stored: BTreeMap<String, Vec<u8>>,
    deleted: BTreeSet<String>,
    /// Files that somebody has set out to delete.
    removed: BTreeSet<String>,
    deeds: Vec<Deed>,
}

#[derive(Debug, Clone)]
enum Node {
    Directory { now: BTreeMap<String, usize>, durable: BTreeMap<String, usize> },
    File { now: Vec<u8>, durable: Option<Vec<u8>> },
}

/// Files by path, none for a directory.
type Survivors = BTreeMap<String, Option<Vec<u8>>>;

impl Replayed {
    fn new() -> Self {
        let root = Node::Directory { now: BTreeMap::new(), durable: BTreeMap::new() };
        Self {
            nodes: vec![root],
            stored: BTreeMap::new(),
            deleted: BTreeSet::new(),
            removed: BTreeSet::new(),
            deeds: Vec::new(),
        }
    }

    fn node(&self, path: &str) -> usize {
        path.split('/').filter(|name| !name.is_empty()).fold(0, |node, name| match &self.nodes[node] {
            Node::Directory { now, .. } => now[name],
            Node::File { .. } => panic!("{path}: a file is no directory"),
        })
    }

    /// The names in the directory of `path`, and the last part of it.
    fn place<'a>(&mut self, path: &'a str) -> (&mut BTreeMap<String, usize>, &'a str) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.node(parent);
        match &mut self.nodes[parent] {
            Node::Directory { now, .. } => (now, name),
            Node::File { .. } => panic!("{path}: a file is no directory"),
        }
    }

    fn add(&mut self, path: &str, node: Node) {
        self.nodes.push(node);
        let number = self.nodes.len() - 1;
        let (names, name) = self.place(path);
        names.insert(name.to_owned(), number);
    }

    fn remove(&mut self, path: &str) -> usize {
        let (names, name) = self.place(path);
        names.remove(name).unwrap()
    }

    /// Whether a sync changed anything.
    fn sync(&mut self, path: &str) -> bool {
        let node = self.node(path);
        match &mut self.nodes[node] {
            Node::Directory { now, durable } => std::mem::replace(durable, now.clone()) != *now,
            Node::File { now, durable } => durable.replace(now.clone()).as_ref() != Some(now),
        }
    }

    /// Whether the step changed anything that a power loss leaves.
    fn apply(&mut self, step: &Step) -> bool {
        match step {
            Step::CreateFile(path) => self.add(path, Node::File { now: Vec::new(), durable: None }),
            Step::MakeDirectory(path) => {
                self.add(path, Node::Directory { now: BTreeMap::new(), durable: BTreeMap::new() });
            }
            Step::Write(path, bytes) => {
                let node = self.node(path);
                if let Node::File { now, .. } = &mut self.nodes[node] {
                    now.extend_from_slice(bytes);
                }
            }
            Step::SyncFile(path) | Step::SyncDirectory(path) => return self.sync(path),
            Step::Publish(from, to) => {
                let node = self.remove(from);
                let (names, name) = self.place(to);
                names.insert(name.to_owned(), node);
            }
            Step::RemoveFile(path) | Step::RemoveDirectory(path) => {
                self.removed.insert(path.clone());
                self.remove(path);
            }
            Step::Stored(key) => {
                let node = self.node(key);
                if let Node::File { now, .. } = &self.nodes[node] {
                    self.stored.insert(key.clone(), now.clone());
                }
                self.deleted.remove(key);
                self.removed.remove(key);
            }
            Step::Deleted(key) => {
                self.stored.remove(key);
                self.deleted.insert(key.clone());
            }
            Step::Acknowledged(deed) => self.deeds.push(deed.clone()),
        }
        true
    }

    /// What a power loss now leaves: names as synced, or as they were in memory, as a file system may write names before
    /// the content behind them; content as synced.
    fn survivors(&self, all_names: bool) -> Survivors {
        let mut found = Survivors::new();
        let mut open = vec![(String::new(), 0)];
        while let Some((path, node)) = open.pop() {
            match &self.nodes[node] {
                Node::Directory { now, durable } => {
                    for (name, node) in if all_names { now } else { durable } {
                        let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                        open.push((path, *node));
                    }
                    found.insert(path, None);
                }
                Node::File { durable, .. } => {
                    found.insert(path, Some(durable.clone().unwrap_or_default()));
                }
            }
        }
        found
    }

    /// What of the sink's own promise is broken.
    fn broken_promise(&self) -> Option<String> {
        for all_names in [false, true] {
            let found = self.survivors(all_names);
            for (key, bytes) in &self.stored {
                match found.get(key) {
                    Some(Some(there)) if there == bytes => {}
                    Some(_) => return Some(format!("{key} is not whole")),
                    // Somebody is deleting it.
                    None if self.removed.contains(key) => {}
                    None => return Some(format!("{key} is gone")),
                }
            }
            if let Some(key) = self.deleted.iter().find(|key| found.contains_key(*key)) {
                return Some(format!("{key} is back"));
            }
        }
        None
    }
}

fn job() -> JobContext {
    JobContext::new().with_resources(Resources::new().with_workers(2))
}

fn recipient(passphrase: &str) -> Recipient {
    let cost = PassphraseCost::new(8, 1, 1).unwrap();
    Recipient::passphrase(passphrase.to_owned()).unwrap().with_cost(cost)
}

/// Some files, of which each generation has new ones, and the content of all.
fn source(generation: u64) -> (MemorySource, Vec<u8>) {
    let mut source = MemorySource::new("things");
    let mut content = Vec::new();
    for number in 0..12_u64 {
        let seed = if number % 3 == 0 { generation } else { 0 };
        let len = [5, 300, 9000, 20_000][(number % 4) as usize];
        let bytes: Vec<u8> = (0..len)
            .map(|at: u64| ((at ^ seed << 7 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8)
            .collect();
        content.extend_from_slice(&bytes);
        source = source.with_file(format!("file-{number:02}"), bytes).unwrap();
    }
    (source, content)
}

async fn init(sink: &Arc<dyn Sink>) -> Result<Repository> {
    let job = job();
    let keyring = Keyring::create(sink, &[recipient("one")], &job).await?;
    let chunker = ChunkerParameters { min_bytes: 1024, avg_bytes: 4096, max_bytes: 16384 };
    let options = CreateOptions { chunker, ..CreateOptions::default() };
    Repository::create(sink.clone(), keyring, options, &job).await
}

async fn open(sink: &Arc<dyn Sink>, passphrase: &str) -> Result<Repository> {
    let keyring = Keyring::unlock(sink, &[recipient(passphrase)], &job()).await?;
    Repository::open(sink.clone(), keyring, TransformSet::builtin(), &job()).await
}

async fn back_up(repository: &Repository, generation: u64) -> Result<SnapshotId> {
    let report = repository.backup(&source(generation).0, &BackupOptions::default(), &job()).await?;
    report.snapshot.ok_or_else(|| Error::internal("no snapshot"))
}

async fn restore(repository: &Repository, id: SnapshotId) -> Result<Vec<u8>> {
    let snapshot = repository.snapshot(id, &job()).await?;
    let target = WriterTarget::all(Vec::new());
    let report = repository.restore(&snapshot, &target, &RestoreOptions::default(), &job()).await?;
    match report.failed.named().first() {
        Some(failed) => Err(Error::corruption(format!("{}: {}", failed.name, failed.reason))),
        None => target.into_inner(),
    }
}

/// Init, two backups and a new recipient, each by a process of its own.
async fn record() -> Vec<Step> {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::default();
    let fresh = || -> Arc<dyn Sink> {
        let disk = Arc::new(Recording(log.clone()));
        let sink = LocalSink::open_with(directory.path(), disk).unwrap();
        Arc::new(Noting { sink, log: log.clone(), one: tokio::sync::Mutex::default() })
    };
    let acknowledge = |deed| log.lock().unwrap().push(Step::Acknowledged(deed));
    init(&fresh()).await.unwrap();
    acknowledge(Deed::Created);
    for generation in [1, 2] {
        let id = back_up(&open(&fresh(), "one").await.unwrap(), generation).await.unwrap();
        acknowledge(Deed::BackedUp(id, generation));
    }
    let sink = fresh();
    let keyring = Keyring::unlock(&sink, &[recipient("one")], &job()).await.unwrap();
    keyring.add_recipient(&sink, &recipient("two"), &job()).await.unwrap();
    acknowledge(Deed::RecipientAdded);
    log.lock().unwrap().clone()
}

fn build(directory: &Path, survivors: &Survivors) {
    for (path, content) in survivors {
        match content {
            // A directory stands before what is in it.
            None => std::fs::create_dir_all(directory.join(path)).unwrap(),
            Some(bytes) => std::fs::write(directory.join(path), bytes).unwrap(),
        }
    }
}

/// Whether what survived is a repository with everything that was acknowledged, and one to go on with.
async fn judge(survivors: &Survivors, deeds: &[Deed]) -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    build(directory.path(), survivors);
    let sink: Arc<dyn Sink> = Arc::new(LocalSink::open(directory.path())?);
    let broken = |what: String| Err(Error::corruption(what));
    let repository = match init(&sink).await {
        Ok(repository) if deeds.is_empty() => repository,
        Ok(_) => return broken("the repository is gone".into()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => open(&sink, "one").await?,
        Err(error) => return Err(error),
    };
    let there: HashSet<_> = repository.snapshots(&job()).await?.into_iter().map(|info| info.id).collect();
    for deed in deeds {
        match deed {
            Deed::Created => {}
            Deed::RecipientAdded => drop(open(&sink, "two").await?),
            Deed::BackedUp(id, _) if !there.contains(id) => return broken(format!("snapshot {id} is gone")),
            Deed::BackedUp(id, generation) => {
                if restore(&repository, *id).await? != source(*generation).1 {
                    return broken(format!("snapshot {id} has other content"));
                }
            }
        }
    }
    let id = back_up(&repository, 3).await?;
    if restore(&repository, id).await? != source(3).1 {
        return broken("the next backup has other content".into());
    }
    let options = VerifyOptions { level: VerifyLevel::Content, ..VerifyOptions::default() };
    let report = repository.verify(&options, &job()).await?;
    if !report.is_clean() {
        return broken(format!("{:?} {:?}", report.damaged_objects, report.damaged_entries));
    }
    Ok(())
}

fn digest(survivors: &Survivors, deeds: &[Deed]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (survivors, deeds).hash(&mut hasher);
    hasher.finish()
}

#[tokio::test]
async fn what_was_acknowledged_is_restored_from_what_was_synced_at_every_point_and_every_sync_is_needed() {
    let steps = record().await;
    // Every point of the run as it was.
    let mut seen = HashSet::new();
    let mut replayed = Replayed::new();
    let mut needed = Vec::new();
    let mut idle = 0;
    for (at, step) in steps.iter().enumerate() {
        let changed = replayed.apply(step);
        match step {
            Step::SyncFile(_) | Step::SyncDirectory(_) if changed => needed.push(at),
            // A new process, and a put that finds its object there, sync anew what another may have left unsynced. Here
            // the other had not; `crash` has the case in which it had.
            Step::SyncFile(_) | Step::SyncDirectory(_) => idle += 1,
            _ => {}
        }
        assert_eq!(replayed.broken_promise(), None, "after step {at}, {step:?}");
        for all_names in [false, true] {
            let survivors = replayed.survivors(all_names);
            if seen.insert(digest(&survivors, &replayed.deeds)) {
                let judged = judge(&survivors, &replayed.deeds).await;
                assert!(judged.is_ok(), "after step {at}, {step:?}, all names {all_names}: {judged:?}");
            }
        }
    }
    assert_eq!(replayed.deeds.len(), 4);
    println!(
        "{} steps, cut off after each: {} different states, all whole; {} syncs, {idle} more had nothing to do",
        steps.len(),
        seen.len(),
        needed.len()
    );
    assert!(steps.len() > 100 && seen.len() > 50 && needed.len() > 30);

    // The same run without one of its syncs.
    let (mut by_engine, mut by_sink) = (0, 0);
    for &left_out in &needed {
        let mut replayed = Replayed::new();
        let mut noticed = (None, None);
        for (at, step) in steps.iter().enumerate() {
            if at == left_out {
                continue;
            }
            replayed.apply(step);
            if at > left_out && noticed.0.is_none() {
                noticed.0 = replayed.broken_promise();
            }
            if at > left_out && matches!(step, Step::Acknowledged(_)) {
                for all_names in [false, true] {
                    if noticed.1.is_none() {
                        let judged = judge(&replayed.survivors(all_names), &replayed.deeds).await;
                        noticed.1 = judged.err().map(|error| error.to_string());
                    }
                }
            }
        }
        let (sink, engine) = noticed;
        by_sink += usize::from(sink.is_some());
        by_engine += usize::from(engine.is_some());
        let (sink, engine) = (sink.unwrap_or_default(), engine.unwrap_or_default());
        println!("without {:?}: {sink}; {engine}", steps[left_out]);
        assert!(
            !sink.is_empty() || !engine.is_empty(),
            "nobody needs step {left_out}, {:?}",
            steps[left_out]
        );
    }
    println!("{} syncs left out: {by_sink} break the sink's promise, {by_engine} a backup", needed.len());
    assert!(by_engine * 3 > needed.len(), "{by_engine}");
}
