//! `demo`: the whole story on a scratch repository, with nothing but this program.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use backup_core::report::Outcome as Whole;
use backup_core::repository::{
    BackupOptions, CreateOptions, Repository, RestoreOptions, Snapshot, VerifyLevel, VerifyOptions,
};
use backup_core::{Error, ErrorKind, JobContext, Sink, Source, TransformSet};
use backup_crypto::{Keyring, Recipient, generate_key_file};
use backup_sinks::LocalSink;
use backup_sources::{DirectoryTarget, FilesSource};
use serde::Serialize;
use serde_json::json;

use crate::context::{Context, host};
use crate::estimate;
use crate::exit::{Exit, Failure, Outcome};
use crate::human;

mod compare;

/// Directories that most systems have, most suitable first.
const USUAL: [&str; 5] = ["/usr/share/doc", "/usr/share", "/usr/include", "/usr/lib", "/etc"];
/// Entries from which a directory makes a good story.
const ENTRIES_ENOUGH: u64 = 1000;

/// Options of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to back up; it is only read [default: a system directory]
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Step {
    name: &'static str,
    passed: bool,
    detail: String,
    seconds: f64,
}

/// The story so far.
struct Story<'a> {
    context: &'a mut Context,
    steps: Vec<Step>,
}

impl Story<'_> {
    async fn step<T>(
        &mut self,
        name: &'static str,
        doing: impl Future<Output = Outcome<(bool, String, T)>>,
    ) -> Outcome<T> {
        let started = Instant::now();
        let (passed, detail, result) = doing.await?;
        let seconds = started.elapsed().as_secs_f64();
        self.context.progress.clear();
        if !self.context.output.is_json() {
            let sign = if passed { "ok    " } else { "FAILED" };
            let line = format!("{sign} {name} ({}): {}", human::seconds(seconds), human::name(&detail));
            writeln!(self.context.output.raw(), "{line}").map_err(Failure::output)?;
            self.context.output.raw().flush().map_err(Failure::output)?;
        }
        self.steps.push(Step { name, passed, detail, seconds });
        Ok(result)
    }
}

/// Tells it.
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let job = context.job();
    let path = match args.path {
        Some(path) => std::path::absolute(&path).map_err(Error::from)?,
        None => usual(&job).await.ok_or_else(|| Failure::usage("name a directory with files to back up"))?,
    };
    if path.symlink_metadata().is_err() {
        return Err(Failure::nothing(format!("{} does not exist", path.display())));
    }
    let scratch = tempfile::Builder::new().prefix("backup-demo-").tempdir().map_err(Error::from)?;
    let mut story = Story { context, steps: Vec::new() };
    let told = tell(&mut story, &path, scratch.path(), &job).await;
    let steps = std::mem::take(&mut story.steps);
    told?;
    let passed = steps.iter().all(|step| step.passed);
    let document = json!({ "passed": passed, "path": path.display().to_string(), "steps": steps });
    context
        .output
        .document(&document, |out| writeln!(out, "{}", if passed { "passed" } else { "FAILED" }))?;
    Ok(if passed { Exit::Done } else { Exit::Failed })
}

async fn tell(story: &mut Story<'_>, path: &Path, scratch: &Path, job: &JobContext) -> Outcome<()> {
    let place = scratch.join("repository");
    let notes = scratch.join("notes");
    std::fs::create_dir(&notes).map_err(Error::from)?;
    std::fs::write(notes.join("first.txt"), "the first version\n").map_err(Error::from)?;
    std::fs::write(notes.join("gone.txt"), "deleted before the second snapshot\n").map_err(Error::from)?;

    let repository = story.step("create an encrypted repository", create(&place, job)).await?;
    let source: Arc<dyn Source> =
        Arc::new(FilesSource::builder().path(path).path(&notes).build().map_err(Failure::input)?);
    let first = story.step("back up", backup(&repository, &source, job)).await?;

    std::fs::write(notes.join("first.txt"), "the second version\n").map_err(Error::from)?;
    std::fs::write(notes.join("new.txt"), "only in the second snapshot\n").map_err(Error::from)?;
    std::fs::remove_file(notes.join("gone.txt")).map_err(Error::from)?;
    let second = story.step("change three files and back up again", again(&repository, &source, job)).await?;
    story.step("compare the snapshots", differences(&repository, &first, &second, job)).await?;
    story.step("verify every byte", verify(&repository, true, job)).await?;

    let (pack, byte) = damage(&place, 1)?;
    let shown = pack.strip_prefix(&place).unwrap_or(&pack).display().to_string();
    story.step("flip one bit of a pack and find it", detect(&place, &repository, shown, job)).await?;
    restore_byte(&pack, byte)?;

    let target = scratch.join("restored");
    let skipped = story.step("restore", restore(&second, &target, job)).await?;
    story
        .step("compare with the original, content and metadata", compare(path, &notes, &target, skipped))
        .await
}

type Told<T> = Outcome<(bool, String, T)>;

async fn create(place: &Path, job: &JobContext) -> Told<Repository> {
    let sink: Arc<dyn Sink> = Arc::new(LocalSink::create(place)?);
    let key = Recipient::key_file(generate_key_file(&**job.random())?.as_bytes())?;
    let keyring = Keyring::create(&sink, &[key], job).await?;
    let repository = Repository::create(sink, keyring, CreateOptions::default(), job).await?;
    Ok((true, format!("{} in a scratch directory, with a key file", repository.id()), repository))
}

async fn backup(repository: &Repository, source: &Arc<dyn Source>, job: &JobContext) -> Told<Snapshot> {
    let report = repository.backup(&**source, &options(), job).await?;
    let id = report.snapshot.ok_or_else(|| Error::internal("a backup without a snapshot"))?;
    let stored = human::bytes(report.bytes_stored);
    let mut detail = format!(
        "{} with {} became {stored} in {}",
        human::count(report.entries, "entry", "entries"),
        human::bytes(report.bytes_logical),
        human::count(report.objects_stored, "object", "objects"),
    );
    if report.outcome == Whole::Partial {
        detail.push_str(&format!(
            "; {} could not be read",
            human::count(report.skipped.count(), "item", "items")
        ));
    }
    Ok((report.entries > 0, detail, repository.snapshot(id, job).await?))
}

async fn again(repository: &Repository, source: &Arc<dyn Source>, job: &JobContext) -> Told<Snapshot> {
    let report = repository.backup(&**source, &options(), job).await?;
    let id = report.snapshot.ok_or_else(|| Error::internal("a backup without a snapshot"))?;
    let detail = format!(
        "{} of {} unchanged, not opened; read {}, stored {}",
        report.entries_unchanged,
        human::count(report.entries, "entry", "entries"),
        human::bytes(report.bytes_read),
        human::bytes(report.bytes_stored)
    );
    Ok((report.parent.is_some() && report.entries_unchanged > 0, detail, repository.snapshot(id, job).await?))
}

async fn differences(
    repository: &Repository,
    first: &Snapshot,
    second: &Snapshot,
    job: &JobContext,
) -> Told<()> {
    let mut changes = repository.diff(first, second, job).await?;
    let mut found = Vec::new();
    while let Some(change) = changes.next().await? {
        let name = change.name.to_string();
        if let Some((_, name)) = name.split_once("/notes/") {
            found.push(format!("{} {name}", format!("{:?}", change.kind).to_lowercase()));
        }
    }
    found.sort();
    let expected = ["added new.txt", "modified first.txt", "removed gone.txt"];
    Ok((found == expected, found.join(", "), ()))
}

async fn verify(repository: &Repository, clean: bool, job: &JobContext) -> Told<()> {
    let options = VerifyOptions { level: VerifyLevel::Content, ..VerifyOptions::default() };
    let report = repository.verify(&options, job).await?;
    let detail = format!(
        "{} ({}) and {}: {}",
        human::count(report.checked.objects, "object", "objects"),
        human::bytes(report.checked.bytes),
        human::count(report.checked.chunks, "chunk", "chunks"),
        if report.is_clean() { "everything is as it should be" } else { "DAMAGED" }
    );
    Ok((report.is_clean() == clean, detail, ()))
}

async fn detect(place: &Path, repository: &Repository, pack: String, job: &JobContext) -> Told<()> {
    // A new look at the store: nothing that is in memory already may hide the damage.
    let sink: Arc<dyn Sink> = Arc::new(LocalSink::open(place)?);
    let fresh = Repository::open(sink, repository.protection().clone(), TransformSet::builtin(), job).await?;
    let options = VerifyOptions { level: VerifyLevel::Content, ..VerifyOptions::default() };
    let report = fresh.verify(&options, job).await?;
    let named = report.damaged_objects.iter().any(|object| object.object == pack);
    let detail = format!(
        "found in {pack}; {} that {} it",
        human::count(report.damaged_entries.len() as u64, "entry", "entries"),
        if report.damaged_entries.len() == 1 { "needs" } else { "need" }
    );
    Ok((named && !report.is_clean(), if named { detail } else { format!("NOT found in {pack}") }, ()))
}

async fn restore(snapshot: &Snapshot, target: &Path, job: &JobContext) -> Told<Vec<String>> {
    let target = DirectoryTarget::new(target);
    let report = snapshot.repository().restore(snapshot, &target, &RestoreOptions::default(), job).await?;
    // Device nodes are made only when asked for; the comparison leaves out what is named here.
    let left: Vec<String> = report.failed.named().iter().map(|item| item.name.clone()).collect();
    let mut detail = format!(
        "{} with {}",
        human::count(report.entries_written, "entry", "entries"),
        human::bytes(report.bytes_written)
    );
    if let Some(first) = report.failed.named().first() {
        detail.push_str(&format!(
            "; {} failed, the first: {}: {}",
            report.failed.count(),
            first.name,
            first.reason
        ));
    }
    let skipped = snapshot.info().skipped.iter().map(|item| item.name.clone());
    Ok((left.is_empty(), detail, skipped.collect()))
}

async fn compare(path: &Path, notes: &Path, target: &Path, skipped: Vec<String>) -> Told<()> {
    let pairs = [path, notes].map(|path| {
        let below = path.strip_prefix("/").unwrap_or(path);
        (path.to_path_buf(), target.join(below))
    });
    let compared = tokio::task::spawn_blocking(move || {
        let mut compared = compare::Compared::new(skipped);
        for (original, restored) in &pairs {
            compared.trees(original, restored);
        }
        compared
    });
    let compared = compared.await.map_err(|_| Error::internal("the comparison failed"))?;
    let detail = match compared.differences.first() {
        None => format!(
            "{}, {}: no difference",
            human::count(compared.entries, "entry", "entries"),
            human::bytes(compared.bytes)
        ),
        Some(first) => format!("{} differences, the first: {first}", compared.differences.len()),
    };
    Ok((compared.differences.is_empty() && compared.entries > 0, detail, ()))
}

fn options() -> BackupOptions {
    BackupOptions { host: host(), ..BackupOptions::default() }
}

/// The first of the usual directories that has enough in it.
async fn usual(job: &JobContext) -> Option<PathBuf> {
    let mut best = None;
    for path in USUAL.map(PathBuf::from) {
        let Ok(source) = FilesSource::new(&path) else { continue };
        let Ok(found) = estimate::estimate(&source, std::time::Duration::from_secs(10), job).await else {
            continue;
        };
        if found.whole && found.skipped == 0 && found.bytes < 2 << 30 {
            if found.entries >= ENTRIES_ENOUGH {
                return Some(path);
            }
            best = best.or(Some(path));
        }
    }
    best
}

/// Flips a bit in the middle of the largest pack of content. Returns the pack and its former byte.
fn damage(place: &Path, bit: u8) -> Outcome<(PathBuf, u8)> {
    let mut packs = Vec::new();
    for directory in std::fs::read_dir(place.join("data")).map_err(Error::from)? {
        for pack in std::fs::read_dir(directory.map_err(Error::from)?.path()).map_err(Error::from)? {
            let pack = pack.map_err(Error::from)?;
            packs.push((pack.metadata().map_err(Error::from)?.len(), pack.path()));
        }
    }
    let (_, pack) = packs
        .into_iter()
        .max()
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "no pack of content was stored"))?;
    let byte = exchange(&pack, |byte| byte ^ bit)?;
    Ok((pack, byte))
}

fn restore_byte(pack: &Path, byte: u8) -> Outcome<()> {
    exchange(pack, |_| byte).map(|_| ())
}

/// Changes the byte in the middle of a file, and returns what it was.
fn exchange(path: &Path, change: impl Fn(u8) -> u8) -> Outcome<u8> {
    use std::os::unix::fs::PermissionsExt;
    let changed = || -> std::io::Result<u8> {
        let mut bytes = std::fs::read(path)?;
        let middle = bytes.len() / 2;
        let byte = bytes.get_mut(middle).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let before = *byte;
        *byte = change(before);
        let permissions = std::fs::metadata(path)?.permissions();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        std::fs::write(path, bytes)?;
        std::fs::set_permissions(path, permissions)?;
        Ok(before)
    };
    changed().map_err(|e| Error::io(format!("{} cannot be changed", path.display()), e).into())
}
