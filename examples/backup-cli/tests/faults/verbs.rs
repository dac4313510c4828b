//! Every command that touches a repository, with what it starts from and what is expected of it.

use std::collections::BTreeMap;

use backup_cli::exit::Exit;
use backup_sinks::MemorySink;
use serde_json::Value;

use crate::judge::INDEX;
use crate::repaired::Hurt;
use crate::world::{CHUNKS, Objects, Restored, World, copy_of, objects, tree_of};

/// What a command does to the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    /// Makes it.
    Init,
    /// Adds to it, or changes who can open it.
    Writes,
    /// Stores snapshots again of which something is lost.
    Mends,
    /// Creates something and deletes it again.
    Probes,
    /// Nothing; what it prints is the same each time.
    Prints,
    /// Nothing; what it prints tells how long it took.
    Measures,
    /// Nothing; it writes below a directory.
    Restores,
}

/// What an empty store holds.
static NOTHING: Objects = Objects::new();

/// What a command starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Sound,
    /// The index lacks parts.
    Ailing,
    /// Content is lost.
    Hurt,
}

/// A command.
#[derive(Debug, Clone)]
pub(crate) struct Verb {
    pub name: &'static str,
    pub arguments: Vec<String>,
    pub does: Does,
    pub on: State,
}

impl Verb {
    pub(crate) fn new(name: &'static str, does: Does, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        Self { name, does, arguments, on: State::Sound }
    }

    fn on(self, on: State) -> Self {
        Self { on, ..self }
    }

    /// How it ends if nothing goes wrong.
    pub(crate) fn ends(&self) -> Exit {
        if self.on == State::Hurt { Exit::Partial } else { Exit::Done }
    }

    pub(crate) fn reads(&self) -> bool {
        matches!(self.does, Does::Prints | Does::Measures | Does::Restores)
    }

    /// The arguments of one run; a restore goes to a directory of its own.
    pub(crate) fn arguments(&self, to: Option<&tempfile::TempDir>) -> Vec<String> {
        let mut arguments = self.arguments.clone();
        if let (Does::Restores, Some(to)) = (self.does, to) {
            arguments.extend(["--to".to_owned(), to.path().display().to_string()]);
        }
        arguments
    }
}

#[derive(Default)]
/// A repository with a history, and what its snapshots must restore to.
pub(crate) struct Base {
    pub objects: Objects,
    /// The same objects, but of the index one is lost and one is damaged.
    pub ailing: Objects,
    /// What is wrong with them, as `verify` calls it.
    pub ails: Vec<String>,
    pub hurt: Hurt,
    pub snapshots: BTreeMap<String, Restored>,
    /// Snapshots that may be gone, or forgotten; where they are listed they must restore to this.
    pub doubtful: BTreeMap<String, Restored>,
    /// What a snapshot of the tree, as it stands now, must restore to.
    pub tree: Restored,
    pub verbs: Vec<Verb>,
}

impl Base {
    /// An empty repository.
    pub(crate) async fn fresh(world: &World) -> Self {
        let sink = MemorySink::new();
        world.ok(&sink, &["init", "--chunk", CHUNKS]).await;
        Self { objects: objects(&sink).await, ..Self::default() }
    }

    /// Two versions of a tree, a set of two sources, and two recipients. The tree goes on to a third version.
    pub(crate) async fn make(world: &World) -> Self {
        let sink = MemorySink::new();
        world.ok(&sink, &["init", "--chunk", CHUNKS]).await;
        let tree = world.path("tree").display().to_string();
        let mut snapshots = BTreeMap::new();
        let mut ids = Vec::new();
        for version in [1, 2] {
            world.grow_tree(version);
            let report = world.ok(&sink, &["create", "files", &tree]).await;
            ids.push(text(&report["snapshot"]));
            snapshots.insert(text(&report["snapshot"]), tree_of(&world.path("tree")));
        }
        let run = world.ok(&sink, &["run", "both"]).await;
        for component in run["components"].as_array().unwrap() {
            let is_tree = component["name"] == "tree";
            let expected = if is_tree { tree_of(&world.path("tree")) } else { ending() };
            snapshots.insert(text(&component["snapshot"]), expected);
        }
        let other = format!("key-file:{}", world.path("other").display());
        let before = recipients(&world.ok(&sink, &["key", "list"]).await);
        let after = recipients(&world.ok(&sink, &["key", "add", &other]).await);
        let added = after.into_iter().find(|id| !before.contains(id)).unwrap();
        world.grow_tree(3);
        let long = world.name("tree/long");
        let verbs = vec![
            Verb::new("create files", Does::Writes, &["create", "files", &tree]),
            Verb::new(
                "create command",
                Does::Writes,
                &["create", "command", "--name", "said", "--", "echo", "said"],
            ),
            Verb::new("run", Does::Writes, &["run", "both"]),
            Verb::new("repair index", Does::Writes, &["repair", "index"]),
            Verb::new("repair bad index", Does::Writes, &["repair", "index"]).on(State::Ailing),
            Verb::new("repair snapshots", Does::Mends, &["repair", "snapshots"]).on(State::Hurt),
            Verb::new("key add", Does::Writes, &["key", "add", &other]),
            Verb::new("key remove", Does::Writes, &["key", "remove", &added]),
            Verb::new("check", Does::Probes, &["check"]),
            Verb::new("list", Does::Prints, &["list"]),
            Verb::new("show", Does::Prints, &["show", &ids[0]]),
            Verb::new("ls", Does::Prints, &["ls", &ids[1]]),
            Verb::new("find", Does::Prints, &["find", "new-*"]),
            Verb::new("cat", Does::Prints, &["cat", &ids[0], &long]),
            Verb::new("diff", Does::Prints, &["diff", &ids[0], &ids[1]]),
            Verb::new("restore", Does::Restores, &["restore", &ids[1]]),
            Verb::new("verify", Does::Measures, &["verify", "--level", "content"]),
            Verb::new("verify keyless", Does::Measures, &["verify", "--keyless"]),
            Verb::new("stats", Does::Prints, &["stats"]),
            Verb::new("key list", Does::Prints, &["key", "list"]),
        ];
        let objects = objects(&sink).await;
        let mut ailing = objects.clone();
        let segments: Vec<_> = objects.keys().filter(|key| key.as_str().starts_with("index/")).collect();
        ailing.remove(segments[0]);
        ailing.insert(segments[1].clone(), objects[segments[1]].slice(..100));
        let ails = vec![INDEX.to_owned(), segments[1].to_string()];
        let hurt = Hurt::make(world, &objects).await;
        let (doubtful, tree) = (BTreeMap::new(), tree_of(&world.path("tree")));
        Self { objects, ailing, ails, hurt, snapshots, doubtful, tree, verbs }
    }

    /// A repository whose first snapshot somebody forgets, or has forgotten, and what then is done to it.
    pub(crate) async fn lives(world: &World) -> Vec<Self> {
        let Self { objects, snapshots, tree, verbs, .. } = Self::make(world).await;
        let show = verbs.iter().find(|verb| verb.name == "show").unwrap();
        let first = show.arguments[1].clone();
        let mut certain = snapshots.clone();
        let doubtful = BTreeMap::from([(first.clone(), certain.remove(&first).unwrap())]);
        let kept = certain.keys().next().unwrap().clone();
        let young = Self {
            objects,
            verbs: vec![
                Verb::new("forget", Does::Writes, &["forget", &first]),
                Verb::new("hold", Does::Writes, &["hold", &kept, "--until", "90d", "--reason", "a test"]),
            ],
            snapshots: certain.clone(),
            doubtful: doubtful.clone(),
            tree: tree.clone(),
            ..Self::default()
        };
        let sink = copy_of(&young.objects).await;
        world.ok(&sink, &["forget", &first]).await;
        let aged = Self {
            objects: crate::world::objects(&sink).await,
            verbs: vec![
                Verb::new("undelete", Does::Writes, &["undelete", &first]),
                Verb::new("prune", Does::Writes, &["prune", "--wait", "0s", "--max-unused", "0%"]),
                Verb::new("prune dry", Does::Measures, &["prune", "--dry-run"]),
            ],
            snapshots: certain,
            doubtful,
            tree,
            ..Self::default()
        };
        vec![young, aged]
    }

    /// What a command starts from.
    pub(crate) fn start(&self, verb: &Verb) -> &Objects {
        match (verb.does, verb.on) {
            (Does::Init, _) => &NOTHING,
            (_, State::Sound) => &self.objects,
            (_, State::Ailing) => &self.ailing,
            (_, State::Hurt) => &self.hurt.objects,
        }
    }

    /// What a new snapshot must restore to, which one of the verbs made.
    pub(crate) fn expected(&self, source: &str) -> Restored {
        match source {
            "files" => self.tree.clone(),
            "ending" => ending(),
            _ => BTreeMap::from([("said".to_owned(), (String::new(), b"said\n".to_vec()))]),
        }
    }
}

/// What the snapshot of the source `ending` must restore to; it says nothing of modes and times.
fn ending() -> Restored {
    let contents = crate::world::ENDING.iter();
    contents
        .map(|(name, content)| ((*name).to_owned(), (String::new(), content.as_bytes().to_vec())))
        .collect()
}

fn recipients(list: &Value) -> Vec<String> {
    list["recipients"].as_array().unwrap().iter().map(|info| text(&info["id"])).collect()
}

/// A member of a document that is a text.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
