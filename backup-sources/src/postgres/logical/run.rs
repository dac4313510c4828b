//! One run: one database after the other, then roles and tablespaces.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{
    Content, Entry, EntryName, Error, ErrorKind, Finished, Item, JobContext, Result, SourceRun, Timestamp,
};
use tokio::io::AsyncReadExt;

use super::dump::{Dump, DumpFile, Origin, State, Turns};
use super::format::{DumpFormat, GLOBALS};
use super::programs::Tool;
use super::scratch::{self, check_bound};
use super::server::Server;
use super::{Globals, LogicalSource};
use crate::command::process::Output;
use crate::postgres::Connect;
use crate::postgres::connect::database_argument;
use crate::postgres::guarded::GuardedDirectory;
use crate::reader::lock;

/// How often the scratch directory's size is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Most files of one dump.
const FILES_MAX: usize = 10_000_000;

/// A run of a [`LogicalSource`].
pub(super) struct LogicalRun {
    source: LogicalSource,
    connect: Connect,
    job: JobContext,
    server: Server,
    dump: Tool,
    started: Timestamp,
    /// Databases whose dumps are not yielded yet, the next one last.
    left: Vec<(EntryName, String)>,
    dumped: usize,
    globals: Option<Tool>,
    items: std::vec::IntoIter<(Entry, Origin)>,
    /// What was yielded, and how far it was read.
    yielded: Mutex<BTreeMap<EntryName, (Option<Origin>, State)>>,
    turns: Turns,
    scratch: Option<GuardedDirectory>,
}

impl LogicalRun {
    pub(super) async fn start(source: LogicalSource, connect: Connect, job: &JobContext) -> Result<Self> {
        let server = Server::ask(&connect).await?;
        let (directory, major) = (source.programs.as_deref(), server.version.major());
        let dump = Tool::find(directory, "pg_dump", major).await?;
        let what = format!("the server at {} is", connect.address());
        dump.check_at_least(server.version, &what)?;
        let globals = match source.globals {
            Globals::None => None,
            _ => {
                let tool = Tool::find(directory, "pg_dumpall", major).await?;
                tool.check_at_least(server.version, &what)?;
                Some(tool)
            }
        };
        let mut left = Vec::new();
        for database in chosen(&source, &server)? {
            left.push((source.format.entry(&database)?, database));
        }
        left.sort_by(|a, b| b.0.cmp(&a.0));
        let scratch = match source.scratch.clone() {
            Some(parent) => Some(blocking(move || scratch::new(&parent)).await?),
            None => None,
        };
        let turns = match source.format {
            DumpFormat::Custom => Turns::new(source.jobs),
            DumpFormat::Directory => Turns::new(1),
        };
        Ok(Self {
            dumped: left.len(),
            source,
            connect,
            job: job.clone(),
            server,
            dump,
            started: job.now(),
            left,
            globals,
            items: Vec::new().into_iter(),
            yielded: Mutex::default(),
            turns,
            scratch,
        })
    }

    /// What comes next: the dump of a database, or at the end roles and tablespaces; none when all is there.
    async fn advance(&mut self) -> Result<bool> {
        let items = match (self.left.pop(), self.globals.take()) {
            (Some((name, database)), globals) => {
                self.globals = globals;
                self.database(name, &database).await?
            }
            (None, Some(tool)) => {
                let mut arguments: Vec<OsString> = vec!["--globals-only".into()];
                arguments.push(format!("--database={}", database_argument(self.connect.database())).into());
                if self.source.globals == Globals::WithoutPasswords {
                    arguments.push("--no-role-passwords".into());
                }
                arguments.push(self.lock_timeout());
                let call = tool.call(&self.connect, arguments, self.source.timeout).await?;
                vec![(Entry::file(GLOBALS)?, Origin::Program(call))]
            }
            (None, None) => return Ok(false),
        };
        self.items = items.into_iter();
        Ok(true)
    }

    async fn database(&self, name: EntryName, database: &str) -> Result<Vec<(Entry, Origin)>> {
        let connect = self.connect.clone().with_database(database);
        let mut arguments: Vec<OsString> = vec!["--compress=0".into(), self.lock_timeout()];
        let Some(scratch) = &self.scratch else {
            arguments.push("--format=custom".into());
            let call = self.dump.call(&connect, arguments, self.source.timeout).await?;
            return Ok(vec![(Entry::file(name.as_bytes())?, Origin::Program(call))]);
        };
        // What the database is called does not matter to the disk.
        let directory = scratch.path().join(self.left.len().to_string());
        arguments.extend(["--format=directory".into(), "--no-sync".into()]);
        arguments.push(format!("--jobs={}", self.source.jobs).into());
        let mut file = OsString::from("--file=");
        file.push(&directory);
        arguments.push(file);
        let call = self.dump.call(&connect, arguments, self.source.timeout).await?;
        let mut output = Output::of(call);
        let dumping = run_to_end(&mut output, scratch.path(), self.source.scratch_bytes_max);
        if let Err(error) = self.job.until_cancelled(dumping).await {
            output.stop().await;
            return Err(Error::new(
                error.kind(),
                format!("the database `{}` was not dumped", database.escape_debug()),
            )
            .with_source(error));
        }
        let files = blocking(move || files(&directory)).await?;
        let mut items = Vec::with_capacity(files.len());
        for (file, path, bytes) in files {
            items.push((
                Entry::file(name.join(file)?.as_bytes())?.with_size(bytes),
                Origin::File(path, bytes),
            ));
        }
        items.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        Ok(items)
    }

    fn lock_timeout(&self) -> OsString {
        format!("--lock-wait-timeout={}", self.source.lock_timeout.as_millis()).into()
    }
}

/// The databases that are to be dumped.
fn chosen(source: &LogicalSource, server: &Server) -> Result<Vec<String>> {
    if source.databases.is_empty() {
        let all = server.databases.iter().filter(|(_, is_template)| !**is_template);
        return Ok(all.map(|(name, _)| name.clone()).collect());
    }
    let missing: Vec<String> = source
        .databases
        .iter()
        .filter(|name| !server.databases.contains_key(*name))
        .map(|name| format!("`{}`", name.escape_debug()))
        .collect();
    if !missing.is_empty() {
        let message = format!("the server has no database {} that takes connections", missing.join(", "));
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    Ok(source.databases.iter().cloned().collect())
}

/// Waits for the end of a program that writes into the scratch directory, which must not grow without a bound.
async fn run_to_end(output: &mut Output, scratch: &Path, bytes_max: u64) -> Result<()> {
    let mut said = [0; 4096];
    let mut look = tokio::time::interval(LOOK);
    let check = || {
        let scratch = scratch.to_owned();
        blocking(move || if bytes_max == u64::MAX { Ok(()) } else { check_bound(&scratch, bytes_max) })
    };
    loop {
        tokio::select! {
            read = output.read(&mut said) => {
                if read.map_err(|error| Error::new(ErrorKind::Io, error.to_string()))? == 0 {
                    // It may have ended between two looks.
                    return check().await;
                }
            }
            _ = look.tick() => check().await?,
        }
    }
}

/// The files of a dump, with their lengths. Blocks.
fn files(directory: &Path) -> Result<Vec<(String, PathBuf, u64)>> {
    let failed = |error| Error::io(format!("the dump in {} cannot be listed", directory.display()), error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        let name = entry.file_name().into_string().ok().filter(|_| metadata.is_file());
        let name = name.ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("{} is no file of a dump", entry.path().display()))
        })?;
        if files.len() >= FILES_MAX {
            let message = format!(
                "the dump in {} has more than {FILES_MAX} files; use the custom format",
                directory.display()
            );
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        files.push((name, entry.path(), metadata.len()));
    }
    Ok(files)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("work on the scratch directory broke off").with_source(error))?
}

#[async_trait]
impl SourceRun for LogicalRun {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        while self.items.as_slice().is_empty() {
            if !self.advance().await? {
                return Ok(Vec::new());
            }
        }
        let mut yielded = lock(&self.yielded);
        let mut items = Vec::new();
        for (entry, origin) in self.items.by_ref().take(max) {
            yielded.insert(entry.name.clone(), (Some(origin), State::default()));
            items.push(Item::Entry(entry));
        }
        Ok(items)
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        let mut yielded = lock(&self.yielded);
        let found =
            yielded.get_mut(&entry.name).and_then(|(origin, state)| Some((origin.take()?, state.clone())));
        let (origin, state) = found.ok_or_else(|| {
            Error::invalid_input("this content is not of this run, or was read already")
                .with_entry(&entry.name)
        })?;
        Ok(match origin {
            Origin::Program(call) => Content::from_async(Dump::new(call, &self.turns, state)),
            Origin::File(path, bytes) => Content::blocking(move || DumpFile::open(&path, bytes, state)),
        })
    }

    async fn finish(&mut self) -> Result<Finished> {
        // A snapshot with a part of a dump would only look like one.
        for (name, (_, state)) in lock(&self.yielded).iter() {
            if let Some(why) = state.problem() {
                return Err(Error::new(ErrorKind::Io, why).with_entry(name));
            }
        }
        if let Some(scratch) = self.scratch.take() {
            scratch::remove(scratch).await;
        }
        let globals = match self.source.globals {
            Globals::WithPasswords => "with_passwords",
            Globals::WithoutPasswords => "without_passwords",
            Globals::None => "none",
        };
        let server = &self.server;
        let mut position = vec![
            ("mode", "logical".to_owned()),
            ("format", self.source.format.to_string()),
            ("server_version", server.version.0.to_string()),
            ("dump_version", self.dump.version.0.to_string()),
            ("from", if server.is_standby { "standby" } else { "primary" }.to_owned()),
            ("databases", self.dumped.to_string()),
            ("globals", globals.to_owned()),
            ("start_time", self.started.to_string()),
            ("stop_time", self.job.now().to_string()),
        ];
        position.extend(server.system_identifier.map(|system| ("system_identifier", system.to_string())));
        let position = position.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Finished { position, ..Finished::default() })
    }
}
