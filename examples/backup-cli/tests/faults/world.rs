//! What the commands run on: keys, a tree, a configuration, a store in memory, and the program within this process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backup_cli::console::Console;
use backup_cli::exit::Exit;
use backup_core::{
    CancellationToken, Content, Entry, Finished, GetRange, Item, JobContext, ObjectKey, Result, Sink,
    SinkExt, Source, SourceInfo, SourceRun,
};
use backup_sinks::MemorySink;
use bytes::Bytes;

use crate::common::pseudo_random;
use crate::stores::{Make, Store};
use crate::verbs::Base;

/// Longer than any command takes, also on a machine that is busy with other things.
const TIME_MAX: Duration = Duration::from_secs(30);

const CONFIGURATION: &str = "
[places.store]
kind = 'store'

[keys.first]
kind = 'key-file'
secret = 'file:key'

[repositories.main]
place = 'store'
keys = ['first']

[sources.tree]
kind = 'files'
paths = ['tree']

[sources.ending]
kind = 'ending'

[jobs.tree]
source = 'tree'
repository = 'main'

[jobs.ending]
source = 'ending'
repository = 'main'

[sets.both]
components = [{ job = 'tree' }, { job = 'ending' }]
";

/// Of commands that work on two stores: a repository in one, another in the other, and one with a place in both.
const CONFIGURATION_OF_TWO: &str = "
[places.store]
kind = 'store'

[places.other]
kind = 'other'

[keys.first]
kind = 'key-file'
secret = 'file:key'

[repositories.alone]
place = 'store'
keys = ['first']

[repositories.second]
place = 'other'
keys = ['first']

[repositories.main]
place = 'store'
keys = ['first']
replicas = [{ place = 'other' }]
";

/// Chunks so small that a file of 60 kB has a list of chunks with pages of its own.
pub(crate) const CHUNKS: &str = "512,1KiB,4KiB";

/// All objects of a store.
pub(crate) type Objects = BTreeMap<ObjectKey, Bytes>;

/// What a restored directory holds: of each path its kind, links, mode, time and content.
pub(crate) type Restored = BTreeMap<String, (String, Vec<u8>)>;

/// A directory with all that commands are given.
pub(crate) struct World {
    directory: tempfile::TempDir,
    make: Make,
    /// Whether commands keep copies of what they read; each store starts with those in the directory `copies`.
    copies: bool,
}

/// What a command did.
#[derive(Debug, Clone)]
pub(crate) struct Ran {
    /// None if it was stopped by dropping it.
    pub exit: Option<Exit>,
    pub out: Vec<u8>,
    pub err: String,
}

/// How a command is stopped whose store answers no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Drop,
    Cancel,
}

impl World {
    /// Whose stores are made in this way.
    pub(crate) fn new(make: impl Fn(&Path) -> Store + Send + Sync + 'static) -> Self {
        // Restores sync their file system, which costs nothing in memory.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let world = Self { directory: directory.unwrap(), make: Box::new(make), copies: false };
        std::fs::write(world.path("key"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
        std::fs::write(world.path("other"), "HxECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
        std::fs::write(world.path("backup.toml"), CONFIGURATION).unwrap();
        std::fs::write(world.path("two.toml"), CONFIGURATION_OF_TWO).unwrap();
        world.grow_tree(1);
        world
    }

    /// Whose commands keep copies of what they read.
    pub(crate) fn with_copies(make: impl Fn(&Path) -> Store + Send + Sync + 'static) -> Self {
        let world = Self { copies: true, ..Self::new(make) };
        std::fs::create_dir(world.path("copies")).unwrap();
        world
    }

    /// Makes copies of all that may be copied, with which stores start from now on.
    pub(crate) async fn read_all(&self, base: &Base) {
        let sink = copy_of(&base.objects).await;
        let copies = self.path("copies").display().to_string();
        for id in base.snapshots.keys() {
            let to = self.scratch().path().display().to_string();
            self.ok(&sink, &["--cache-dir", &copies, "restore", id, "--to", &to]).await;
        }
        let directories = directories_in(&self.path("copies"));
        let (slots, copies): (Vec<_>, Vec<_>) =
            directories.into_iter().partition(|directory| directory.ends_with("slots"));
        assert_eq!((slots.len(), copies.len()), (1, 1));
        let count = std::fs::read_dir(&copies[0]).unwrap().count();
        let kept = |key: &&ObjectKey| {
            ["index/", "meta/", "snapshots/"].iter().any(|kept| key.as_str().starts_with(kept))
        };
        assert_eq!(count, base.objects.keys().filter(kept).count());
    }

    /// A store that holds these objects.
    pub(crate) async fn store_of(&self, objects: &Objects) -> Store {
        let mut store = (self.make)(self.directory.path());
        if self.copies {
            let copies = self.scratch();
            for from in directories_in(&self.path("copies")) {
                let to = copies.path().join(from.file_name().unwrap());
                std::fs::create_dir(&to).unwrap();
                for entry in std::fs::read_dir(&from).unwrap() {
                    let entry = entry.unwrap();
                    std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
                }
            }
            store.copies = Some(copies);
        }
        for (key, bytes) in objects {
            store.sink.put(key, bytes.clone()).await.unwrap();
        }
        store
    }

    /// Makes the tree what it is in its `version`, with nothing of another; what it is then.
    pub(crate) fn turn_tree(&self, version: u64) -> Restored {
        for entry in std::fs::read_dir(self.path("tree/deep")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("new-") && name != format!("new-{version}") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        self.grow_tree(version);
        tree_of(&self.path("tree"))
    }

    /// Makes the tree what it is in its `version`.
    pub(crate) fn grow_tree(&self, version: u64) {
        let tree = self.path("tree");
        std::fs::create_dir_all(tree.join("deep/deeper")).unwrap();
        let write = |name: &str, bytes: Vec<u8>| {
            // What does not change keeps its stamps, so that later backups take it from their parent.
            if std::fs::read(tree.join(name)).ok() != Some(bytes.clone()) {
                std::fs::write(tree.join(name), bytes).unwrap();
            }
        };
        write("inline", format!("version {version}").into_bytes());
        write("empty", Vec::new());
        // Versions share most of it.
        write("long", [pseudo_random(60_000, 7), pseudo_random(3000, version)].concat());
        write(&format!("deep/new-{version}"), pseudo_random(5000, 100 + version));
        for number in 0..24_usize {
            write(&format!("deep/deeper/{number:02}"), pseudo_random(number * number * 9, number as u64));
        }
        if !tree.join("deep/same").exists() {
            std::fs::hard_link(tree.join("long"), tree.join("deep/same")).unwrap();
            std::os::unix::fs::symlink("../inline", tree.join("deep/link")).unwrap();
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The name in snapshots of a path of this world.
    pub(crate) fn name(&self, name: &str) -> String {
        self.path(name).display().to_string().trim_start_matches('/').to_owned()
    }

    /// A directory for a restore.
    pub(crate) fn scratch(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(self.directory.path()).unwrap()
    }

    /// Runs a command on a store, to its end.
    pub(crate) async fn run(&self, sink: Arc<dyn Sink>, arguments: &[String]) -> Ran {
        self.run_until(sink, arguments, std::future::pending(), Stop::Drop).await
    }

    /// A run that must succeed, with `--json`; the document.
    pub(crate) async fn ok(&self, sink: &MemorySink, arguments: &[&str]) -> serde_json::Value {
        let arguments: Vec<String> =
            ["--json"].iter().chain(arguments).map(|text| (*text).to_owned()).collect();
        let ran = self.run(Arc::new(sink.clone()), &arguments).await;
        assert_eq!(ran.exit, Some(Exit::Done), "{arguments:?}: {ran:?}");
        ran.json()
    }

    /// The same of a run that may find something damaged.
    pub(crate) async fn ok_or_partial(&self, sink: &MemorySink, arguments: &[&str]) -> serde_json::Value {
        let arguments: Vec<String> =
            ["--json"].iter().chain(arguments).map(|text| (*text).to_owned()).collect();
        let ran = self.run(Arc::new(sink.clone()), &arguments).await;
        assert!(matches!(ran.exit, Some(Exit::Done | Exit::Partial)), "{arguments:?}: {ran:?}");
        ran.json()
    }

    /// Runs a command on a store, until `stop`.
    pub(crate) async fn run_until(
        &self,
        sink: Arc<dyn Sink>,
        arguments: &[String],
        stop: impl Future<Output = ()>,
        how: Stop,
    ) -> Ran {
        self.run_on(vec![sink], arguments, stop, how).await
    }

    /// Runs a command on a store, or on two, until `stop`.
    pub(crate) async fn run_on(
        &self,
        stores: Vec<Arc<dyn Sink>>,
        arguments: &[String],
        stop: impl Future<Output = ()>,
        how: Stop,
    ) -> Ran {
        let mut registry = backup_cli::registry();
        let config = if stores.len() > 1 { "two.toml" } else { "backup.toml" };
        for (sink, kind) in stores.into_iter().zip(["store", "other"]) {
            registry.sink(kind, &[kind], move |_, _| {
                let sink = sink.clone();
                async move { Ok(sink) }
            });
        }
        registry.source("ending", |_, _| async { Ok(Arc::new(Ending) as Arc<dyn Source>) });
        let (out, err) = (Shared::default(), Shared::default());
        let console = Console {
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
            interactive: false,
            draws: false,
        };
        let mut all: Vec<OsString> =
            ["backup", "--jobs", "1", "--progress", "none", "--config"].map(OsString::from).into();
        all.push(self.path(config).into());
        if !arguments.iter().any(|argument| argument == "--cache-dir") {
            all.push("--no-cache".into());
        }
        all.extend(arguments.iter().map(OsString::from));
        let token = CancellationToken::new();
        let mut job = tokio::spawn(backup_cli::main_with(registry, all, console, token.clone()));
        let ended = tokio::time::timeout(TIME_MAX, async {
            tokio::select! {
                ended = &mut job => return Some(ended),
                () = stop => {}
            }
            match how {
                Stop::Cancel => token.cancel(),
                Stop::Drop => job.abort(),
            }
            match (&mut job).await {
                Err(error) if error.is_cancelled() => None,
                ended => Some(ended),
            }
        });
        let ended = ended.await.unwrap_or_else(|_| panic!("{arguments:?} does not end: {}", err.text()));
        let exit = ended.map(|ended| ended.unwrap_or_else(|e| panic!("{arguments:?} panicked: {e}")));
        Ran { exit, out: out.bytes(), err: err.text() }
    }
}

impl Ran {
    /// The document that a run with `--json` printed.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// The directories that are in this one.
fn directories_in(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// What a store holds.
pub(crate) async fn objects(sink: &dyn Sink) -> Objects {
    let mut all = Objects::new();
    for meta in sink.list_all("").await.unwrap() {
        all.insert(meta.key.clone(), sink.get(&meta.key, GetRange::Full).await.unwrap().bytes);
    }
    all
}

/// A store in memory that holds these objects.
pub(crate) async fn copy_of(objects: &Objects) -> MemorySink {
    let sink = MemorySink::new();
    for (key, bytes) in objects {
        sink.put(key, bytes.clone()).await.unwrap();
    }
    sink
}

/// All below a directory.
pub(crate) fn tree_of(root: &Path) -> Restored {
    use std::os::unix::fs::MetadataExt;
    let mut all = Restored::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(path) = left.pop() {
        let there = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let (kind, content) = if there.is_symlink() {
            ("link".to_owned(), path.read_link().unwrap().into_os_string().into_encoded_bytes())
        } else if there.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            (format!("directory {:o}", there.mode()), Vec::new())
        } else {
            let time = (there.mtime(), there.mtime_nsec());
            (format!("file {:o} {} {time:?}", there.mode(), there.nlink()), std::fs::read(&path).unwrap())
        };
        all.insert(name, (kind, content));
    }
    all
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A source with an entry that it knows at the end only.
#[derive(Debug)]
struct Ending;

/// What [`Ending`] yields, by name.
pub(crate) const ENDING: [(&str, &str); 3] =
    [("ending/first", "known from the start"), ("ending/second", "also"), ("label", "known at the end")];

#[async_trait]
impl Source for Ending {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("ending", ["all"])
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        Ok(Box::new(EndingRun(false)))
    }
}

struct EndingRun(bool);

#[async_trait]
impl SourceRun for EndingRun {
    async fn next(&mut self, _: usize) -> Result<Vec<Item>> {
        if std::mem::replace(&mut self.0, true) {
            return Ok(Vec::new());
        }
        let mut items = vec![Entry::directory("ending")?.into()];
        for (name, _) in &ENDING[..2] {
            items.push(Entry::file(*name)?.into());
        }
        Ok(items)
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        let name = entry.name.to_string();
        let found = ENDING.iter().find(|(known, _)| *known == name);
        Ok(Content::from_bytes(found.unwrap().1))
    }

    async fn finish(&mut self) -> Result<Finished> {
        let (name, content) = ENDING[2];
        let trailing = vec![(Entry::file(name)?, Content::from_bytes(content))];
        Ok(Finished { trailing, ..Finished::default() })
    }
}
