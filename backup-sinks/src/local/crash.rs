//! Power loss, simulated: every call that the sink makes goes to a real directory and to a model of a disk that keeps
//! only what was synced. At every point the model is cut off and looked at; and each sync is left out in turn, which
//! must be noticed, so that none of them is there for nothing and none is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use backup_core::{ErrorKind, ObjectKey, PutOutcome, Sink};

use super::LocalSink;
use super::disk::{Directory, Disk, SystemDisk};

type Node = usize;

/// What a disk knows: nodes, and of each what is in memory and what survives.
#[derive(Debug, Default)]
struct Model {
    nodes: Vec<State>,
    /// What is being done, and what is synced for it.
    doing: String,
    syncs: Vec<String>,
    /// The sync that is left out.
    skip: Option<usize>,
    acknowledged: BTreeMap<String, Vec<u8>>,
    deleted: BTreeSet<String>,
    /// Made by something that syncs nothing, so that nothing is promised of them until a sink acknowledges them.
    unsynced: BTreeSet<String>,
    failures: Vec<String>,
}

#[derive(Debug, Clone)]
enum State {
    Directory { now: BTreeMap<String, Node>, durable: BTreeMap<String, Node> },
    File { now: Vec<u8>, durable: Option<Vec<u8>> },
}

impl Model {
    fn new() -> Self {
        Self { nodes: vec![State::directory()], ..Self::default() }
    }

    fn directory(&mut self, path: &str) -> &mut BTreeMap<String, Node> {
        let mut node = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let State::Directory { now, .. } = &self.nodes[node] else { panic!("{path} is no directory") };
            node = now[name];
        }
        match &mut self.nodes[node] {
            State::Directory { now, .. } => now,
            State::File { .. } => panic!("{path} is no directory"),
        }
    }

    fn node(&mut self, directory: &Directory, name: &str) -> Node {
        self.directory(directory.path())[name]
    }

    fn add(&mut self, directory: &Directory, name: &str, state: State) {
        self.nodes.push(state);
        let node = self.nodes.len() - 1;
        self.directory(directory.path()).insert(name.to_owned(), node);
    }

    /// Whether this sync is to happen.
    fn sync(&mut self, path: &str) -> bool {
        self.syncs.push(format!("{}: sync `{path}`", self.doing));
        self.skip != Some(self.syncs.len() - 1)
    }

    fn sync_node(&mut self, node: Node, path: &str) {
        if !self.sync(path) {
            return;
        }
        match &mut self.nodes[node] {
            State::Directory { now, durable } => *durable = now.clone(),
            State::File { now, durable } => *durable = Some(now.clone()),
        }
    }

    /// The objects after a power loss: names as synced, or as they were in memory (a file system may write names before
    /// the content behind them); content as synced.
    fn after_power_loss(&self, all_names: bool) -> BTreeMap<String, Option<Vec<u8>>> {
        let mut objects = BTreeMap::new();
        let mut open = vec![(String::new(), 0)];
        while let Some((path, node)) = open.pop() {
            match &self.nodes[node] {
                State::Directory { now, durable } => {
                    for (name, node) in if all_names { now } else { durable } {
                        let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                        open.push((path, *node));
                    }
                }
                State::File { durable, .. } => {
                    objects.insert(path, durable.clone());
                }
            }
        }
        objects.retain(|path, _| !path.starts_with('.'));
        objects
    }

    /// Holds what a power loss now would leave against what was promised.
    fn check(&mut self) {
        for all_names in [false, true] {
            let objects = self.after_power_loss(all_names);
            for (key, found) in &objects {
                let promised = self.acknowledged.contains_key(key) || !self.unsynced.contains(key);
                if promised && found.as_deref() != Some(&*content(key)) {
                    self.failures.push(format!("{key} is not whole"));
                }
            }
            for (key, bytes) in &self.acknowledged {
                if objects.get(key).and_then(Option::as_ref) != Some(bytes) {
                    self.failures.push(format!("{key} was acknowledged and is gone"));
                }
            }
            for key in self.deleted.iter().filter(|key| objects.contains_key(*key)) {
                self.failures.push(format!("{key} was deleted and is back"));
            }
        }
    }
}

impl State {
    fn directory() -> Self {
        Self::Directory { now: BTreeMap::new(), durable: BTreeMap::new() }
    }
}

/// Calls the system and tells the model.
#[derive(Debug, Clone)]
struct ModelDisk(Arc<Mutex<Model>>);

impl ModelDisk {
    fn tell<T>(&self, happened: io::Result<T>, tell: impl FnOnce(&mut Model)) -> io::Result<T> {
        let mut model = self.0.lock().unwrap();
        if happened.is_ok() {
            tell(&mut model);
        }
        model.check();
        happened
    }
}

impl Disk for ModelDisk {
    fn create_file(&self, directory: &Directory, name: &str) -> io::Result<File> {
        let state = State::File { now: Vec::new(), durable: None };
        self.tell(SystemDisk.create_file(directory, name), |model| model.add(directory, name, state))
    }

    fn write(&self, directory: &Directory, name: &str, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.tell(SystemDisk.write(directory, name, file, bytes), |model| {
            let node = model.node(directory, name);
            if let State::File { now, .. } = &mut model.nodes[node] {
                now.extend_from_slice(bytes);
            }
        })
    }

    fn sync_file(&self, directory: &Directory, name: &str, _: &File) -> io::Result<()> {
        self.tell(Ok(()), |model| {
            let node = model.node(directory, name);
            let path =
                if directory.path() == ".tmp" { "the file".to_owned() } else { directory.path_of(name) };
            model.sync_node(node, &path);
        })
    }

    fn sync_directory(&self, directory: &Directory) -> io::Result<()> {
        self.tell(Ok(()), |model| {
            let node = match directory.path().rsplit_once('/') {
                _ if directory.path().is_empty() => 0,
                Some((parent, name)) => model.directory(parent)[name],
                None => model.directory("")[directory.path()],
            };
            model.sync_node(node, directory.path());
        })
    }

    fn make_directory(&self, parent: &Directory, name: &str) -> io::Result<()> {
        self.tell(SystemDisk.make_directory(parent, name), |model| {
            model.add(parent, name, State::directory())
        })
    }

    fn publish(&self, from: &Directory, temporary: &str, to: &Directory, name: &str) -> io::Result<()> {
        self.tell(SystemDisk.publish(from, temporary, to, name), |model| {
            let node = model.directory(from.path()).remove(temporary).unwrap();
            model.directory(to.path()).insert(name.to_owned(), node);
        })
    }

    fn remove_file(&self, directory: &Directory, name: &str) -> io::Result<()> {
        self.tell(SystemDisk.remove_file(directory, name), |model| {
            model.directory(directory.path()).remove(name);
        })
    }

    fn remove_directory(&self, parent: &Directory, name: &str) -> io::Result<()> {
        self.tell(SystemDisk.remove_directory(parent, name), |model| {
            model.directory(parent.path()).remove(name);
        })
    }
}

/// A disk whose syncs do nothing, as those of a creator that was killed before them.
#[derive(Debug)]
struct NeverSynced(ModelDisk);

impl Disk for NeverSynced {
    fn create_file(&self, directory: &Directory, name: &str) -> io::Result<File> {
        self.0.create_file(directory, name)
    }
    fn write(&self, directory: &Directory, name: &str, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.0.write(directory, name, file, bytes)
    }
    fn sync_file(&self, _: &Directory, _: &str, _: &File) -> io::Result<()> {
        Ok(())
    }
    fn sync_directory(&self, _: &Directory) -> io::Result<()> {
        Ok(())
    }
    fn make_directory(&self, parent: &Directory, name: &str) -> io::Result<()> {
        self.0.make_directory(parent, name)
    }
    fn publish(&self, from: &Directory, temporary: &str, to: &Directory, name: &str) -> io::Result<()> {
        self.0.publish(from, temporary, to, name)
    }
    fn remove_file(&self, directory: &Directory, name: &str) -> io::Result<()> {
        self.0.remove_file(directory, name)
    }
    fn remove_directory(&self, parent: &Directory, name: &str) -> io::Result<()> {
        self.0.remove_directory(parent, name)
    }
}

/// Fails from one call on, as a disk that is full or broken.
#[derive(Debug)]
struct FailingDisk {
    left: Mutex<usize>,
    error: io::ErrorKind,
    /// Whether everything fails from then on, or one call only.
    for_good: bool,
}

impl FailingDisk {
    fn next(&self) -> io::Result<()> {
        let mut left = self.left.lock().unwrap();
        match *left {
            0 => {
                if !self.for_good {
                    *left = usize::MAX;
                }
                Err(self.error.into())
            }
            _ => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl Disk for FailingDisk {
    fn create_file(&self, directory: &Directory, name: &str) -> io::Result<File> {
        self.next().and_then(|()| SystemDisk.create_file(directory, name))
    }
    fn write(&self, directory: &Directory, name: &str, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        // Half of it, as a full disk takes.
        SystemDisk.write(directory, name, file, &bytes[..bytes.len() / 2])?;
        self.next().and_then(|()| SystemDisk.write(directory, name, file, &bytes[bytes.len() / 2..]))
    }
    fn sync_file(&self, _: &Directory, _: &str, _: &File) -> io::Result<()> {
        self.next()
    }
    fn sync_directory(&self, _: &Directory) -> io::Result<()> {
        self.next()
    }
    fn make_directory(&self, parent: &Directory, name: &str) -> io::Result<()> {
        self.next().and_then(|()| SystemDisk.make_directory(parent, name))
    }
    fn publish(&self, from: &Directory, temporary: &str, to: &Directory, name: &str) -> io::Result<()> {
        self.next().and_then(|()| SystemDisk.publish(from, temporary, to, name))
    }
    fn remove_file(&self, directory: &Directory, name: &str) -> io::Result<()> {
        // Removing works on a full disk.
        SystemDisk.remove_file(directory, name)
    }
    fn remove_directory(&self, parent: &Directory, name: &str) -> io::Result<()> {
        SystemDisk.remove_directory(parent, name)
    }
}

fn content(key: &str) -> Vec<u8> {
    key.as_bytes().repeat(3)
}

async fn put(sink: &LocalSink, model: &Mutex<Model>, key: &str) -> PutOutcome {
    {
        let mut model = model.lock().unwrap();
        model.deleted.remove(key);
        model.doing = format!("put {key}");
    }
    let outcome = sink.put(&ObjectKey::new(key).unwrap(), content(key).into()).await.unwrap();
    let mut model = model.lock().unwrap();
    model.acknowledged.insert(key.to_owned(), content(key));
    model.check();
    outcome
}

async fn delete(sink: &LocalSink, model: &Mutex<Model>, key: &str) {
    {
        let mut model = model.lock().unwrap();
        model.acknowledged.remove(key);
        model.doing = format!("delete {key}");
    }
    sink.delete(&ObjectKey::new(key).unwrap()).await.unwrap();
    let mut model = model.lock().unwrap();
    model.deleted.insert(key.to_owned());
    model.check();
}

/// One story in which every sync is needed: new directories, old ones, short-lived ones, a creator that was killed.
async fn story(path: &Path, skip: Option<usize>) -> Model {
    let model = Arc::new(Mutex::new(Model { skip, ..Model::new() }));
    let disk = Arc::new(ModelDisk(Arc::clone(&model)));
    let open = || LocalSink::open_with(path, Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
    {
        let sink = open();
        put(&sink, &model, "config").await;
        put(&sink, &model, "data/ab/one").await;
        put(&sink, &model, "data/ab/two").await;
        put(&sink, &model, "data/cd/three").await;
        put(&sink, &model, "control/sessions/1/open").await;
        put(&sink, &model, "control/sessions/1/decision").await;
        delete(&sink, &model, "control/sessions/1/open").await;
        delete(&sink, &model, "control/sessions/1/decision").await;
        put(&sink, &model, "control/sessions/1/open").await;
        delete(&sink, &model, "data/ab/one").await;
        put(&sink, &model, "data/ab/one").await;
    }
    let killed = LocalSink::open_with(path, Arc::new(NeverSynced(disk.as_ref().clone()))).unwrap();
    for key in ["meta/ab/four", "control/sessions/2/open"] {
        model.lock().unwrap().unsynced.insert(key.to_owned());
        killed.put(&ObjectKey::new(key).unwrap(), content(key).into()).await.unwrap();
        assert_eq!(put(&open(), &model, key).await, PutOutcome::AlreadyExists);
    }
    drop(killed);
    drop(disk);
    Arc::into_inner(model).unwrap().into_inner().unwrap()
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_loss_at_any_point() {
    let directory = tempfile::tempdir().unwrap();
    let model = story(directory.path(), None).await;
    assert_eq!(model.failures, Vec::<String>::new());
    assert!(model.syncs.len() > 20, "only {:?}", model.syncs);
}

#[tokio::test]
async fn leaving_out_any_one_sync_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let syncs = story(directory.path(), None).await.syncs;
    let mut unnoticed = Vec::new();
    for (skip, sync) in syncs.into_iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        if story(directory.path(), Some(skip)).await.failures.is_empty() {
            unnoticed.push(sync);
        }
    }
    // Directories that may come and go are never trusted from memory, and a sink that was just opened trusts none at
    // all: their parents are synced once more than this story needs.
    let redundant = [
        "put control/sessions/1/decision: sync `control/sessions`",
        "put control/sessions/2/open: sync `control`",
        "put control/sessions/2/open: sync ``",
    ];
    assert_eq!(unnoticed, redundant);
}

#[tokio::test]
async fn a_failing_disk_fails_the_put_and_leaves_nothing_behind() {
    let key = ObjectKey::new("control/sessions/1/open").unwrap();
    for (error, kind) in [
        (io::ErrorKind::StorageFull, ErrorKind::NoSpace),
        (io::ErrorKind::QuotaExceeded, ErrorKind::NoSpace),
        (io::ErrorKind::Other, ErrorKind::Io),
    ] {
        for for_good in [true, false] {
            for calls in 0.. {
                let directory = tempfile::tempdir().unwrap();
                let disk = Arc::new(FailingDisk { left: Mutex::new(calls), error, for_good });
                let sink = LocalSink::open_with(directory.path(), disk).unwrap();
                let failed = match sink.put(&key, content(key.as_str()).into()).await {
                    Ok(_) => {
                        assert!(calls > 8, "only {calls} calls");
                        break;
                    }
                    Err(failed) => failed,
                };
                assert_eq!(failed.kind(), kind, "{failed}");
                assert_eq!(failed.object(), Some(key.as_str()));
                let temporaries = std::fs::read_dir(directory.path().join(".tmp")).map_or(0, Iterator::count);
                assert_eq!(temporaries, 0, "after {calls} calls a temporary file stays");
                let healthy = LocalSink::open(directory.path()).unwrap();
                healthy.put(&key, content(key.as_str()).into()).await.unwrap();
                let there = healthy.get(&key, backup_core::GetRange::Full).await.unwrap();
                assert_eq!(there.bytes, content(key.as_str()));
            }
        }
    }
}
