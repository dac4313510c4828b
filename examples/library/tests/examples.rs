//! Runs every example for real and looks at what it did.

// The `main` of each example is not called here; helpers of tests may panic.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use backup_core::report::Outcome;
use backup_core::testing::{Operation, RecordingSink};
use backup_core::{
    Encoded, Event, FrameContext, JobContext, ObjectType, Observer, RetentionPolicy, Sink, Transform,
};
use backup_sinks::MemorySink;

#[path = "../examples/copy_snapshot.rs"]
mod copy_snapshot;
#[path = "../examples/custom_policy.rs"]
mod custom_policy;
#[path = "../examples/custom_sink.rs"]
mod custom_sink;
#[path = "../examples/custom_source.rs"]
mod custom_source;
#[path = "../examples/custom_target.rs"]
mod custom_target;
#[path = "../examples/custom_transform.rs"]
mod custom_transform;
#[path = "../examples/embedded_service.rs"]
mod embedded_service;
#[path = "../examples/progress.rs"]
mod progress;
#[path = "../examples/quickstart.rs"]
mod quickstart;
#[path = "../examples/random_access.rs"]
mod random_access;
#[path = "../examples/shared_resources.rs"]
mod shared_resources;

/// A tree that was not made for the tests: the engine's own source code.
fn real_tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../backup-core/src").canonicalize().unwrap()
}

/// Every file below `root` and its content.
fn files_below(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Lines of code between the marks `NAME: begin` and `NAME: end`; empty lines do not count.
fn lines_between_marks(file: &str, name: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(&format!("// {name}: begin\n")).unwrap();
    let (part, _) = rest.split_once(&format!("// {name}: end\n")).unwrap();
    part.lines().filter(|line| !line.trim().is_empty()).count()
}

#[tokio::test]
async fn quickstart_restores_an_equal_tree_from_an_encrypted_repository() {
    let work = tempfile::tempdir().unwrap();
    let source = real_tree();
    let done = quickstart::run(&source, work.path()).await.unwrap();
    let restored = work.path().join("restored").join(source.strip_prefix("/").unwrap());
    let expected = files_below(&source);
    assert!(expected.len() > 50);
    assert_eq!(files_below(&restored), expected);
    assert_eq!(done.backup.outcome, Outcome::Complete);
    assert_eq!(done.backup.bytes_logical, expected.values().map(|bytes| bytes.len() as u64).sum::<u64>());
    assert_eq!(done.snapshots.len(), 1);
    assert_eq!(Some(done.snapshots[0].id), done.backup.snapshot);
    assert!(done.restore.failed.is_empty());
    assert!(done.verify.is_clean() && done.verify.checked.chunks > 0);
    // Nothing of the content can be read in the store.
    let stored = files_below(&work.path().join("repository")).into_values().flatten().collect::<Vec<_>>();
    assert!(!stored.windows(16).any(|window| window == b"pub async fn put"));
}

#[tokio::test]
async fn custom_source_is_at_most_20_lines_and_reads_back() {
    assert!(lines_between_marks("custom_source.rs", "source") <= 20);
    let notes: BTreeMap<String, String> =
        (0..2000).map(|n| (format!("notes/{n:04}"), format!("note number {n}").repeat(n % 50))).collect();
    let source = custom_source::Notes(Arc::new(notes.clone()));
    let (report, back) = custom_source::run(&source).await.unwrap();
    assert_eq!(back, notes);
    assert_eq!((report.entries, report.outcome), (2000, Outcome::Complete));
}

#[tokio::test]
async fn custom_source_keeps_the_contract() {
    let notes = (0..100).map(|n| (format!("{n:03}"), n.to_string())).collect();
    let source = custom_source::Notes(Arc::new(notes));
    backup_core::testing::source::conformance(&source).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_sink_is_at_most_20_lines_and_keeps_the_contract() {
    assert!(lines_between_marks("custom_sink.rs", "sink") <= 20);
    backup_core::testing::sink::conformance(Arc::new(custom_sink::Shelf::default())).await.unwrap();
    let shelf = Arc::new(custom_sink::Shelf::default());
    let report = custom_sink::run(&real_tree(), shelf.clone()).await.unwrap();
    assert!(report.is_clean() && report.checked.entries > 50);
    assert!(shelf.list("data/", None, 10).await.unwrap().iter().any(|meta| meta.len > 0));
}

#[tokio::test]
async fn custom_transform_pays_and_reads_back() {
    let readings = custom_transform::readings(500_000);
    let (plain, shuffled, back) = custom_transform::run(readings.clone()).await.unwrap();
    assert!(back == readings);
    assert!(shuffled * 4 < plain * 3, "{shuffled} is not clearly less than {plain}");
}

#[test]
fn custom_transform_undoes_what_it_did_and_refuses_the_rest() {
    let transform = custom_transform::Shuffle4;
    backup_core::testing::transform::conformance(&transform, &Default::default()).unwrap();
    let frame = FrameContext {
        chunks: 1,
        repository: &[0; 16],
        object_type: ObjectType::Data,
        salt: &[0; 32],
        ordinal: 0,
        plain_len: 0,
        associated_data: &[],
    };
    for len in 0..200_usize {
        let input: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let (mut encoded, mut decoded) = (Vec::new(), Vec::new());
        let applied = transform.encode(&frame, &input, &mut encoded).unwrap() == Encoded::Applied;
        assert_eq!(applied, len >= 8);
        if applied {
            transform.decode(&frame, &encoded, &mut decoded, len).unwrap();
            assert_eq!(decoded, input);
            assert!(
                transform.decode(&frame, &encoded, &mut Vec::new(), len - 1).unwrap_err().is_corruption()
            );
        }
    }
    assert!(transform.decode(&frame, &[1, 2, 3], &mut Vec::new(), 100).unwrap_err().is_corruption());
}

#[tokio::test]
async fn custom_target_lists_what_sha256sum_lists() {
    let source = real_tree();
    let lines = custom_target::run(&source).await.unwrap();
    let names = files_below(&source).into_keys().map(|name| source.join(name));
    let output = std::process::Command::new("sha256sum").args(names).output().unwrap();
    let mut expected: Vec<_> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.replacen("  /", "  ", 1)).collect();
    let mut lines = lines;
    lines.sort();
    expected.sort();
    assert!(!expected.is_empty());
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn custom_policy_keeps_the_contract_and_gives_reasons() {
    let policy = custom_policy::ReleasesAndNewest { newest: 3 };
    backup_core::testing::retention::conformance(&policy as &dyn RetentionPolicy).unwrap();
    let plan = custom_policy::run(&policy).await.unwrap();
    let reasons: Vec<_> = plan.iter().map(|(_, decision)| decision.reasons.join(", ")).collect();
    let newest = |n| format!("{n} of the newest 3 of web");
    assert_eq!(reasons, ["", "release 1.0", "", "", &newest(3), &newest(2), &newest(1)]);
    assert_eq!(plan[1].0.time.to_string(), "2026-11-15T02:00:00Z");
}

#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Observer for Recorder {
    fn on_event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// Records what the bar was shown.
#[derive(Debug)]
struct Both(progress::Bar, Recorder);

impl Observer for Both {
    fn on_event(&self, event: &Event) {
        self.0.on_event(event);
        self.1.on_event(event);
    }
}

#[tokio::test]
async fn progress_is_drawn_while_the_job_runs_and_ends_where_the_report_does() {
    let terminal = indicatif::InMemoryTerm::new(10, 120);
    let target = indicatif::ProgressDrawTarget::term_like(Box::new(terminal.clone()));
    let both = Arc::new(Both(progress::Bar::new(target), Recorder::default()));
    let (backup, verify) = progress::run(&real_tree(), both.clone()).await.unwrap();
    assert!(backup.entries > 50 && verify.is_clean());
    let events = both.1.0.lock().unwrap();
    let phases: Vec<_> = events
        .iter()
        .filter_map(|e| if let Event::Phase { name } = e { Some(*name) } else { None })
        .collect();
    assert!(phases.starts_with(&["open", "read", "commit"]), "{phases:?}");
    let before_verify = events.iter().take_while(|e| !matches!(e, Event::Phase { name: "verify" }));
    let last = before_verify.filter_map(|e| if let Event::Progress(p) = e { Some(p) } else { None }).last();
    let last = last.unwrap();
    assert_eq!((last.entries_done, last.bytes_done), (backup.entries, backup.bytes_logical));
    assert!(!terminal.contents().is_empty(), "nothing was drawn");
}

async fn converse_with_the_service() {
    let work = tempfile::tempdir().unwrap();
    let source = tempfile::tempdir().unwrap();
    // More than the pipeline holds, so that under a limit of a byte a second the first backup cannot end.
    for n in 0..4_u8 {
        let bytes: Vec<u8> =
            (0..1_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ n).collect();
        std::fs::write(source.path().join(format!("file-{n}")), bytes).unwrap();
    }
    let (heard, repository) = embedded_service::run(source.path(), work.path()).await.unwrap();
    let expected = [
        "backup etc: error: nothing called `etc` is configured",
        "limit 1: ok",
        "backup home: started",
        "backup home: error: a backup is running",
        "status: running",
        "cancel: cancelling",
        "status: cancelled",
        "limit 0: ok",
        "backup home: started",
        "status: ended Complete",
        "quit: stopping",
    ];
    assert_eq!(heard.len(), expected.len());
    for (heard, expected) in heard.iter().zip(expected) {
        assert!(heard.starts_with(expected), "{heard:?} instead of {expected:?}");
    }
    let job = JobContext::new();
    let snapshots = repository.snapshots(&job).await.unwrap();
    assert_eq!(snapshots.len(), 1, "the cancelled backup is not visible");
    assert!(repository.verify(&Default::default(), &job).await.unwrap().is_clean());
}

#[tokio::test(flavor = "current_thread")]
async fn embedded_service_runs_on_a_single_threaded_runtime() {
    converse_with_the_service().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_service_runs_on_a_multi_threaded_runtime() {
    converse_with_the_service().await;
}

#[tokio::test]
async fn embedded_service_that_is_stopped_in_the_middle_of_a_backup_leaves_a_valid_repository() {
    let work = tempfile::tempdir().unwrap();
    let service = embedded_service::service(&real_tree(), work.path()).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn({
        let service = service.clone();
        async move { service.serve(listener).await }
    });
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut client, b"limit 1\nbackup home\n").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    service.stop();
    // It returns although a client is still connected and a backup under way.
    tokio::time::timeout(std::time::Duration::from_secs(60), serving).await.unwrap().unwrap().unwrap();
    let sink: Arc<dyn Sink> =
        Arc::new(backup_sinks::LocalSink::open(work.path().join("repository")).unwrap());
    let header = backup_core::repository::peek_config(&*sink).await.unwrap();
    let protection = Arc::new(backup_core::Unprotected::new(header.repository));
    let job = JobContext::new();
    let repository =
        backup_core::repository::Repository::open(sink, protection, Default::default(), &job).await.unwrap();
    assert!(repository.snapshots(&job).await.unwrap().is_empty());
    assert!(repository.verify(&Default::default(), &job).await.unwrap().is_clean());
}

#[tokio::test]
async fn shared_resources_bound_two_jobs_together() {
    let (reports, took) = shared_resources::run(1 << 20, 2 << 20).await.unwrap();
    let stored: u64 = reports.iter().map(|report| report.bytes_stored).sum();
    assert!(stored > 2 << 20);
    // The last put of each may start when its line is free: a little less than the sum over the rate.
    let rate = stored as f64 / took.as_secs_f64();
    assert!(rate < 4.2 * (1 << 20) as f64, "{rate} bytes a second under a limit of {}", 2 << 20);
}

#[tokio::test]
async fn random_access_reads_the_right_bytes_and_few_others() {
    let content: bytes::Bytes =
        (0..4_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let sink = Arc::new(RecordingSink::new(MemorySink::new()));
    let offsets =
        [SeekFrom::Start(9_999_999), SeekFrom::End(-100), SeekFrom::Current(-200), SeekFrom::Start(0)];
    let parts = random_access::run(sink.clone(), content.clone(), &offsets, 100).await.unwrap();
    let at = |start: usize| content.slice(start..start + 100).to_vec();
    let end = content.len();
    assert_eq!(parts, [at(9_999_999), at(end - 100), at(end - 200), at(0)]);
    let read: u64 = sink
        .calls()
        .iter()
        .filter(|call| call.operation == Operation::Get && call.key.starts_with("data/"))
        .map(|call| call.amount)
        .sum();
    assert!(read > 0 && read < content.len() as u64 / 2, "{read} of {} bytes were read", content.len());
}

#[tokio::test]
async fn copy_has_equal_entries_under_other_keys_and_costs_nothing_twice() {
    let work = tempfile::tempdir().unwrap();
    let (original, copy, again) = copy_snapshot::run(&real_tree(), work.path()).await.unwrap();
    let job = JobContext::new();
    let (a, b) = (original.info(), copy.info());
    assert_ne!(a.id, b.id);
    assert_eq!((a.entries, a.bytes_logical, &a.host), (b.entries, b.bytes_logical, &b.host));
    assert_eq!((&a.label, &a.tags, &a.identity), (&b.label, &b.tags, &b.identity));
    let (mut ours, mut theirs) =
        (original.entries(None, &job).await.unwrap(), copy.entries(None, &job).await.unwrap());
    while let Some(stored) = ours.next().await.unwrap() {
        assert_eq!(stored.entry, theirs.next().await.unwrap().unwrap().entry);
    }
    assert!(theirs.next().await.unwrap().is_none());
    assert!(copy.repository().verify(&Default::default(), &job).await.unwrap().is_clean());
    assert_eq!(again.bytes_added, 0);
    // The same content has other chunks' names under other keys: no pack is the same.
    let packs =
        |place: &str| files_below(&work.path().join(place).join("data")).into_keys().collect::<Vec<_>>();
    assert!(packs("first").iter().all(|pack| !packs("second").contains(pack)));
}
