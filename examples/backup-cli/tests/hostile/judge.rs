//! What the process of a case does: it restores, verifies and reads, and compares with what the case says.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::report::RestoreReport;
use backup_core::{
    EntryName, JobContext, Repository, Resources, RestoreOptions, Result, Sink, Snapshot, TransformSet,
    VerifyLevel, VerifyOptions,
};
use backup_crypto::{Keyring, Recipient};
use backup_sinks::LocalSink;
use backup_sources::DirectoryTarget;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt;

use crate::case::{CAP_MIB, Case, Verdict, Verify};
use crate::forge::{FORGED, HONEST_CONTENT};
use crate::scene::{KEY, Scene, is_root};

/// Nobody.
const USER: u32 = 65_534;
/// Bytes that are read of one entry; what claims to have more is not read to its end.
const READ_BYTES_MAX: u64 = 64 << 20;

/// Plays the case.
pub fn judge(case: &Case) {
    let scene = Scene { top: PathBuf::from(std::env::var_os("HOSTILE_TOP").unwrap()) };
    if case.as_user && is_root() {
        nix::unistd::setgroups(&[]).unwrap();
        nix::unistd::setgid(USER.into()).unwrap();
        nix::unistd::setuid(USER.into()).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .unwrap();
    cap_memory();
    let stop = AtomicBool::new(false);
    let (stop, surroundings) = (&stop, &scene);
    std::thread::scope(|threads| {
        if let Some(during) = case.during {
            threads.spawn(move || during(surroundings, &|| stop.load(Ordering::Relaxed)));
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(all(case, &scene));
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    runtime.shutdown_background();
}

/// Caps the address space at what is taken now and [`CAP_MIB`] more.
pub fn cap_memory() {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().next().unwrap().parse().unwrap();
    let bytes = pages * rustix::param::page_size() as u64 + (CAP_MIB << 20);
    let limit = Rlimit { current: Some(bytes), maximum: getrlimit(Resource::As).maximum };
    setrlimit(Resource::As, limit).unwrap();
}

async fn all(case: &Case, scene: &Scene) {
    let job = JobContext::new().with_resources(Resources::new().with_workers(2));
    let repository = match open(case, scene, &job).await {
        Ok(repository) => repository,
        Err(error) => return refused(case, &error),
    };
    match restore(case, scene, &repository, &job).await {
        Ok(report) => restored(case, &report),
        Err(error) => refused(case, &error),
    }
    if case.verify != Verify::TooLong {
        let options = VerifyOptions { level: VerifyLevel::Content, ..VerifyOptions::default() };
        let said = match repository.verify(&options, &job).await {
            Ok(report) if report.is_clean() => Verify::Clean,
            Ok(report) => {
                assert!(report.damaged_entries.len() < 100, "{} are named", report.damaged_entries.len());
                Verify::Damaged
            }
            Err(error) => {
                eprintln!("verify: {error}");
                Verify::Refused
            }
        };
        assert_eq!(said, case.verify, "what a verification says");
    }
    if case.verify != Verify::TooLong
        && let Ok(snapshot) = repository.snapshot(FORGED, &job).await
    {
        read_all(&snapshot, &job).await;
    }
    let honest = read_honest(&repository, &job).await;
    match honest {
        Ok(Some(content)) => assert!(content == *HONEST_CONTENT, "wrong bytes of the honest snapshot"),
        other => assert!(!case.honest, "the honest snapshot cannot be read: {other:?}"),
    }
}

async fn open(case: &Case, scene: &Scene, job: &JobContext) -> Result<Repository> {
    let local: Arc<dyn Sink> = Arc::new(LocalSink::open(scene.repository())?);
    let sink = match case.store {
        Some(lie) => lie(local),
        None => local,
    };
    let recipient = match case.passphrase {
        Some(passphrase) => Recipient::passphrase(passphrase.to_owned())?,
        None => Recipient::key_file(KEY.as_bytes())?,
    };
    let protection = Keyring::unlock(&sink, &[recipient], job).await?;
    Repository::open(sink, protection, TransformSet::builtin(), job).await
}

async fn restore(
    case: &Case,
    scene: &Scene,
    repository: &Repository,
    job: &JobContext,
) -> Result<RestoreReport> {
    let snapshot = repository.snapshot(FORGED, job).await?;
    let mut rounds = if case.during.is_some() { 6 } else { 1 };
    loop {
        let target = (case.options)(DirectoryTarget::builder(scene.target())).build();
        let report = repository.restore(&snapshot, &target, &RestoreOptions::default(), job).await?;
        rounds -= 1;
        if rounds == 0 {
            return Ok(report);
        }
        restored(case, &report);
    }
}

fn refused(case: &Case, error: &backup_core::Error) {
    match case.verdict {
        Verdict::Refused(kind, text) => {
            assert!(error.kind() == kind && error.to_string().contains(text), "{error:?}");
        }
        _ => panic!("refused: {error:?}"),
    }
}

fn restored(case: &Case, report: &RestoreReport) {
    let failed = report.failed.named();
    let (expected, all): (&[(&str, &str)], bool) = match case.verdict {
        Verdict::Refused(..) => panic!("not refused: {failed:?}"),
        Verdict::Named(expected) => (expected, true),
        Verdict::Within(expected) => (expected, false),
        Verdict::Restored => (&[], true),
    };
    let is = |item: &backup_core::Skipped, (name, reason): &(&str, &str)| {
        (item.name == *name || *name == "*") && item.reason.contains(reason)
    };
    for item in failed {
        assert!(expected.iter().any(|expected| is(item, expected)), "not expected: {item:?}");
    }
    for expected in expected.iter().filter(|_| all) {
        assert!(failed.iter().any(|item| is(item, expected)), "not named: {expected:?}, but {failed:?}");
    }
}

/// Reads every entry; that it ends without a panic is what matters.
async fn read_all(snapshot: &Snapshot, job: &JobContext) {
    let Ok(mut entries) = snapshot.entries(None, job).await else { return };
    for _ in 0..1000 {
        match entries.next().await {
            Ok(None) => return,
            Ok(Some(stored)) => {
                let Ok(file) = snapshot.open(&stored, job).await else { continue };
                let _ = tokio::io::copy(&mut file.take(READ_BYTES_MAX), &mut tokio::io::sink()).await;
            }
            Err(_) => {}
        }
    }
}

async fn read_honest(repository: &Repository, job: &JobContext) -> Result<Option<Vec<u8>>> {
    let (snapshots, _) = repository.snapshots_and_damage(job).await?;
    let Some(info) = snapshots.iter().find(|info| info.id != FORGED && info.source == "memory") else {
        return Ok(None);
    };
    let snapshot = repository.snapshot(info.id, job).await?;
    let Some(stored) = snapshot.entry(&EntryName::new("honest/file")?, job).await? else { return Ok(None) };
    let mut content = Vec::new();
    snapshot.open(&stored, job).await?.read_to_end(&mut content).await?;
    Ok(Some(content))
}
