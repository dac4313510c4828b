//! The protocol's own schedules, on the code: two writers, two collectors, one who forgets and undeletes, and one who reads with an old index
//! share a store that lets one call through at a time. Which one, and whether its answer is lost, it is refused, comes late, its caller
//! dies or the store's clock leaps, proptest chooses, and makes smaller what fails.
//!
//! `BACKUP_LONG=1` tries many more.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod actors;
#[path = "../common/mod.rs"]
mod common;
mod gate;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::repository::CollectOptions;
use backup_core::time::ManualClock;
use backup_core::{Clock, ErrorKind, JobContext, Resources, SinkExt, Timestamp, VerifyLevel};
use backup_sinks::MemorySink;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use actors::{Book, CONTENTS, ROLES, Shared, act, at_once, content};
use common::{Protect, SMALL, Setup, assert_same, create};
use gate::{Gate, Verdict};

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A call of an actor comes through.
    Call { actor: usize, choice: usize, verdict: Verdict },
    /// A put that is late arrives.
    Arrives(usize),
    /// An actor dies, and begins anew.
    Dies(usize),
    /// The store's clock leaps.
    Leaps(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let actor = 0..ROLES.len();
    let verdict = prop_oneof![
        40 => Just(Verdict::Done),
        1 => Just(Verdict::AnswerLost),
        1 => Just(Verdict::Refused),
        1 => Just(Verdict::Late),
    ];
    prop_oneof![
        60 => (actor.clone(), 0..8_usize, verdict).prop_map(|(actor, choice, verdict)| Step::Call { actor, choice, verdict }),
        1 => (0..8_usize).prop_map(Step::Arrives),
        1 => actor.prop_map(Step::Dies),
        1 => prop_oneof![Just(60), Just(1_800), Just(86_400), Just(40 * 86_400)].prop_map(Step::Leaps),
    ]
}

/// Steps come in runs of one actor's, as they do: each step several times.
fn schedule() -> impl Strategy<Value = Vec<(Step, usize)>> {
    proptest::collection::vec((step(), prop_oneof![3 => 1..4_usize, 1 => 4..40_usize]), 20..120)
}

struct World {
    store: MemorySink,
    clock: Arc<ManualClock>,
    gate: Arc<Gate>,
    setup: Setup,
    book: Shared,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::new(1_800_000_000, 0)));
        let store = MemorySink::with_clock(clock.clone());
        let setup = create(Arc::new(store.clone()), Protect::Plain, SMALL).await;
        let book = Shared::new(Mutex::new(Book::default()));
        for what in 0..CONTENTS {
            let id = setup.store(&content(what)).await;
            book.lock().unwrap().promised.insert(id, what);
            clock.set(clock.now().saturating_add_seconds(3600));
        }
        let gate = Gate::new(store.clone());
        let mut world = Self { store, clock, gate, setup, book, tasks: Vec::new() };
        for actor in 0..ROLES.len() {
            let task = world.begin(actor);
            world.tasks.push(task);
        }
        world
    }

    /// An actor with a handle and a clock of its own, which is wrong.
    fn begin(&self, actor: usize) -> tokio::task::JoinHandle<()> {
        let (setup, sink, book) = (self.setup.clone(), self.gate.of(actor), self.book.clone());
        let wrong = [0, 86_400, -86_400, 3, -7_200, 0][actor % 6];
        let clock = Arc::new(ManualClock::new(self.clock.now().saturating_add_seconds(wrong)));
        let job = JobContext::new().with_resources(Resources::new().with_workers(1)).with_clock(clock);
        tokio::spawn(async move {
            let setup = Setup { job, ..setup };
            let setup = loop {
                match setup.reopen(sink.clone()).await {
                    Ok(setup) => break setup,
                    // A store that refuses may refuse this, too.
                    Err(error) => assert!(error.kind() == ErrorKind::Transient, "{error}"),
                }
            };
            act(ROLES[actor], actor, setup, book).await;
        })
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Call { actor, choice, verdict } => {
                if !self.tasks[actor].is_finished() {
                    self.gate.pass(actor, choice, verdict).await;
                }
            }
            Step::Arrives(choice) => self.gate.arrive(choice).await,
            Step::Dies(actor) => {
                self.tasks[actor].abort();
                let _ = (&mut self.tasks[actor]).await;
                self.tasks[actor] = self.begin(actor);
            }
            Step::Leaps(seconds) => self.clock.set(self.clock.now().saturating_add_seconds(seconds)),
        }
    }

    /// Everybody ends, then two quiet collections; what is promised is there, and nothing else.
    async fn end(self) -> Result<BTreeMap<&'static str, u64>, String> {
        self.gate.open().await;
        for task in self.tasks {
            match tokio::time::timeout(Duration::from_secs(60), task).await {
                Ok(ended) => ended.map_err(|error| format!("an actor failed: {error}"))?,
                Err(_) => return Err("an actor does not end".into()),
            }
        }
        let setup = self.setup.reopen(Arc::new(self.store.clone())).await.unwrap();
        for _ in 0..2 {
            // Whoever died is taken for stopped.
            self.clock.set(self.clock.now().saturating_add_seconds(90 * 86_400));
            let report = setup.repository.collect(&at_once(), &setup.job).await.map_err(|e| e.to_string())?;
            if !report.damaged_objects.is_empty() {
                return Err(format!("a quiet collection calls damaged: {:?}", report.damaged_objects));
            }
        }
        let book = std::mem::take(&mut *self.book.lock().unwrap());
        if let Some(first) = book.wrong.first() {
            return Err(format!("{first} (and {} more)", book.wrong.len() - 1));
        }
        let listed = setup.repository.snapshots(&setup.job).await.map_err(|e| e.to_string())?;
        for (id, what) in &book.promised {
            if !listed.iter().any(|info| info.id == *id) {
                return Err(format!("{id} was acknowledged and is not listed"));
            }
            let (found, report) = setup.restore(*id).await.map_err(|e| format!("{id}: {e}"))?;
            if !report.failed.is_empty() {
                return Err(format!("{id} lacks {:?}", report.failed));
            }
            assert_same(&found, &content(*what).expected());
        }
        let verified = setup.verify(VerifyLevel::Content).await.map_err(|e| e.to_string())?;
        if !verified.is_clean() {
            return Err(format!("{:?} {:?}", verified.damaged_objects, verified.damaged_entries));
        }
        let plan = setup
            .repository
            .collect(&CollectOptions { dry_run: true, ..at_once() }, &setup.job)
            .await
            .map_err(|e| e.to_string())?;
        let mut packs = 0;
        for prefix in ["data/", "meta/"] {
            packs += self.store.list_all(prefix).await.unwrap().len() as u64;
        }
        if plan.packs_unneeded > 0 || packs != plan.packs_kept {
            return Err(format!("{packs} packs are there, {} are needed", plan.packs_kept));
        }
        Ok(book.done)
    }
}

#[test]
fn whatever_the_schedule_what_is_acknowledged_is_restored_and_nothing_else_stays() {
    let cases = if common::long() { 3000 } else { 60 };
    let mut runner = TestRunner::new(Config {
        cases,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let totals = Mutex::new(BTreeMap::<&'static str, u64>::new());
    let result = runner.run(&schedule(), |schedule| {
        let ended = runtime.block_on(async {
            let mut world = World::new().await;
            for (step, times) in schedule {
                let times = if matches!(step, Step::Call { .. }) { times } else { 1 };
                for _ in 0..times {
                    world.take(step).await;
                }
            }
            world.end().await
        });
        let done = ended.map_err(TestCaseError::fail)?;
        let mut totals = totals.lock().unwrap();
        for (what, count) in done {
            *totals.entry(what).or_default() += count;
        }
        Ok(())
    });
    let totals = totals.into_inner().unwrap();
    println!("{cases} schedules: {totals:?}");
    if let Err(failure) = result {
        panic!("{failure}");
    }
    for what in ["backups", "collections", "objects deleted", "forgotten", "undeleted", "restores"] {
        assert!(
            totals.get(what).is_some_and(|count| *count > 0),
            "nothing of this happened: {what}: {totals:?}"
        );
    }
}
