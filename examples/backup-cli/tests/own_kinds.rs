//! A program with kinds of its own is a registry and a `main`: here the `main` is a test.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::ffi::OsString;
use std::io::Write;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_cli::console::Console;
use backup_cli::exit::Exit;
use backup_core::{
    CancellationToken, Content, Entry, Item, JobContext, Result, Source, SourceInfo, SourceRun,
};
use common::Scratch;
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Greetings {
    words: Vec<String>,
}

#[async_trait]
impl Source for Greetings {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("greetings", self.words.iter())
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        let mut left = self.words.clone();
        left.sort();
        left.reverse();
        Ok(Box::new(Run(left)))
    }
}

struct Run(Vec<String>);

#[async_trait]
impl SourceRun for Run {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        let from = self.0.len().saturating_sub(max);
        self.0.drain(from..).rev().map(|word| Ok(Entry::file(word)?.into())).collect()
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        Ok(Content::from_bytes(format!("hello {}\n", entry.name)))
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn main_of_mine(arguments: &[&str], token: CancellationToken) -> (Exit, String, String) {
    let mut registry = backup_cli::registry();
    registry.source("greetings", |settings, _| async move {
        let greetings: Greetings = settings.parse()?;
        Ok(Arc::new(greetings) as Arc<dyn Source>)
    });
    let (out, err) = (Shared::default(), Shared::default());
    let console =
        Console { out: Box::new(out.clone()), err: Box::new(err.clone()), interactive: false, draws: false };
    let arguments = std::iter::once("mine").chain(arguments.iter().copied()).map(OsString::from);
    let exit = backup_cli::main_with(registry, arguments, console, token).await;
    let text = |shared: &Shared| String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
    (exit, text(&out), text(&err))
}

fn configuration(scratch: &Scratch) -> String {
    let text = "[places.p]\nurl = 'repository'\n[keys.k]\nkind = 'key-file'\nsecret = 'file:key'\n\
        [repositories.r]\nplace = 'p'\nkeys = ['k']\n[sources.s]\nkind = 'greetings'\nwords = ['world', 'everybody']\n\
        [jobs.j]\nsource = 's'\nrepository = 'r'\n";
    std::fs::write(scratch.path("mine.toml"), text).unwrap();
    scratch.text("mine.toml")
}

#[tokio::test]
async fn a_kind_of_ones_own_is_configured_checked_run_and_read() {
    let scratch = Scratch::new();
    let config = configuration(&scratch);
    let mine = async |arguments: &[&str]| {
        let arguments: Vec<&str> =
            ["--config", &config].into_iter().chain(arguments.iter().copied()).collect();
        let (exit, out, err) = main_of_mine(&arguments, CancellationToken::new()).await;
        assert_eq!(exit, Exit::Done, "{arguments:?}: {out}{err}");
        out
    };
    mine(&["init"]).await;
    assert!(mine(&["check"]).await.contains("source s: 2 entries"));
    mine(&["run"]).await;
    assert_eq!(mine(&["cat", "latest", "world"]).await, "hello world\n");
    assert!(mine(&["list"]).await.contains("greetings"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_can_be_spawned_and_cancelled() {
    let scratch = Scratch::new();
    let config = configuration(&scratch);
    let token = CancellationToken::new();
    token.cancel();
    // Spawning it shows that the future is Send.
    let spawned =
        tokio::spawn(async move { main_of_mine(&["--config", &config, "init", "--json"], token).await });
    let (exit, out, _) = spawned.await.unwrap();
    assert!(matches!(exit, Exit::Done | Exit::Failed), "{out}");
    serde_json::from_str::<serde_json::Value>(&out).unwrap();
}

#[tokio::test]
async fn an_unknown_kind_is_refused_with_the_known_ones() {
    let scratch = Scratch::new();
    let text = std::fs::read_to_string(configuration(&scratch)).unwrap().replace("greetings", "mailboxes");
    std::fs::write(scratch.path("mine.toml"), text).unwrap();
    let config = scratch.text("mine.toml");
    main_of_mine(&["--config", &config, "init"], CancellationToken::new()).await;
    let (exit, out, _) =
        main_of_mine(&["--config", &config, "run", "--json"], CancellationToken::new()).await;
    assert_eq!(exit, Exit::Failed);
    assert!(
        out.contains("`mailboxes` is not a kind of sources; known are") && out.contains("`greetings`"),
        "{out}"
    );
}
