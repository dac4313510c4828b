//! Doing what a plan says.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use backup_core::{EntryName, Error, ErrorKind, JobContext, Result, Snapshot};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::feed::{feed, run};
use super::{DatabasePlan, Found, LogicalPlan, LogicalRestore};
use crate::postgres::Connect;
use crate::postgres::connect::{database_argument, explain};
use crate::postgres::logical::DumpFormat;
use crate::postgres::logical::programs::Tool;
use crate::postgres::logical::run::blocking;
use crate::postgres::logical::scratch;

/// Longer than any server's names: no schema has it.
const NO_SCHEMA: &str = "no schema has a name of more than 63 bytes, and so nothing in a schema is restored";

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogicalReport {
    /// The databases that were restored, in this order.
    pub databases: Vec<RestoredDatabase>,
}

/// A database that was restored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoredDatabase {
    /// The database in the backup.
    pub name: String,
    /// The one that it was restored into.
    pub into: String,
    /// Whether it was made.
    pub created: bool,
    /// Bytes of its dump.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Where a dump is read from.
enum Dump<'a> {
    /// The repository.
    Stored(EntryName, &'a Snapshot),
    /// A file or directory.
    Laid(PathBuf),
}

impl LogicalRestore {
    /// Does what `plan`, which was made for `snapshot`, says: one database after the other. See the [module](super) for what an error leaves.
    ///
    /// # Errors
    ///
    /// The plan is of another snapshot; what is stored cannot be read; `pg_restore` failed, with the end of what it complained of. The message names the database, and
    /// those that were restored before it. Cancellation: dropping the future kills `pg_restore`, and the server undoes the
    /// transaction; a database that was made for it stays, with nothing in it.
    pub async fn apply(
        &self,
        plan: &LogicalPlan,
        snapshot: &Snapshot,
        job: &JobContext,
    ) -> Result<LogicalReport> {
        if plan.backup.id != snapshot.info().id.to_string() {
            let message =
                format!("the plan is of the snapshot {}, not of {}", plan.backup.id, snapshot.info().id);
            return Err(Error::invalid_input(message));
        }
        let connect = self.connect.resolve().await?;
        let mut report = LogicalReport { databases: Vec::new() };
        for database in &plan.databases {
            let started = Instant::now();
            let restoring = self.restore_one(plan, database, &connect, snapshot, job);
            if let Err(error) = job.until_cancelled(restoring).await {
                let before: Vec<_> =
                    report.databases.iter().map(|done| format!("`{}`", done.into.escape_debug())).collect();
                let before = if before.is_empty() {
                    "nothing else was".to_owned()
                } else {
                    format!("{} were", before.join(", "))
                };
                let message =
                    format!("the database `{}` was not restored ({before})", database.into.escape_debug());
                return Err(Error::new(error.kind(), message).with_source(error));
            }
            report.databases.push(RestoredDatabase {
                name: database.name.clone(),
                into: database.into.clone(),
                created: database.found == Found::Nothing,
                bytes: database.bytes,
                seconds: started.elapsed().as_secs_f64(),
            });
        }
        Ok(report)
    }

    async fn restore_one(
        &self,
        plan: &LogicalPlan,
        database: &DatabasePlan,
        connect: &Connect,
        snapshot: &Snapshot,
        job: &JobContext,
    ) -> Result<()> {
        let entry = plan.backup.format.entry(&database.name)?;
        let scratch = match self.scratch.clone() {
            Some(parent) => Some(blocking(move || scratch::new(&parent)).await?),
            None => None,
        };
        let dump = match &scratch {
            Some(scratch) => {
                Dump::Laid(lay(plan.backup.format, &entry, scratch.path(), snapshot, job).await?)
            }
            None => Dump::Stored(entry, snapshot),
        };
        let is_made = database.found == Found::Nothing;
        if is_made {
            let arguments =
                ["--create".into(), "--schema-only".into(), format!("--schema={NO_SCHEMA}").into()];
            self.run(plan, connect, arguments.into(), &dump, job).await?;
        }
        let mut arguments: Vec<OsString> = vec!["--no-subscriptions".into()];
        if self.jobs > 1 {
            arguments.push(format!("--jobs={}", self.jobs).into());
        } else if !self.in_steps {
            arguments.push("--single-transaction".into());
        }
        if self.clean && database.found == Found::Full {
            arguments.extend(["--clean".into(), "--if-exists".into()]);
        }
        if !self.tables.is_empty() {
            arguments.push("--strict-names".into());
            arguments.extend(self.tables.iter().map(|table| format!("--table={table}").into()));
        }
        let into = connect.clone().with_database(&database.into);
        let restored = self.run(plan, &into, arguments, &dump, job).await;
        if let (Err(error), true) = (&restored, is_made) {
            unmake(connect, &database.into, error).await?;
        }
        if let Some(scratch) = scratch {
            scratch::remove(scratch).await;
        }
        restored
    }

    /// Runs `pg_restore` on a dump.
    async fn run(
        &self,
        plan: &LogicalPlan,
        connect: &Connect,
        arguments: Vec<OsString>,
        dump: &Dump<'_>,
        job: &JobContext,
    ) -> Result<()> {
        let tool = Tool { path: plan.program.clone(), version: plan.backup.dumped_by() };
        let mut all: Vec<OsString> = vec![
            // It would take a script for what it is otherwise, or say what to run it with.
            format!("--format={}", plan.backup.format).into(),
            "--exit-on-error".into(),
            format!("--dbname={}", database_argument(connect.database())).into(),
        ];
        if !self.owners {
            all.extend(["--no-owner".into(), "--no-privileges".into(), "--no-tablespaces".into()]);
        }
        all.extend(self.role.iter().map(|role| format!("--role={role}").into()));
        all.extend(arguments);
        match dump {
            Dump::Laid(path) => {
                all.push(path.clone().into());
                run(tool.call(connect, all, self.timeout).await?).await
            }
            Dump::Stored(entry, snapshot) => {
                let missing =
                    || Error::new(ErrorKind::NotFound, "it is not in the snapshot").with_entry(entry);
                let stored = snapshot.entry(entry, job).await?.ok_or_else(missing)?;
                let content = snapshot.open(&stored, job).await?;
                feed(tool.call(connect, all, self.timeout).await?, content).await
            }
        }
    }
}

/// Removes a database that was made for a restore that failed.
async fn unmake(connect: &Connect, database: &str, why: &Error) -> Result<()> {
    let dropping = async {
        let client = connect.connect_to_ask().await?;
        let statement = format!("DROP DATABASE \"{}\"", database.replace('"', "\"\""));
        client.batch_execute(&statement).await.map_err(|error| explain(&error))
    };
    dropping.await.map_err(|error| {
        let message =
            format!("{why}; and the database that was made for it is still there, not whole: {error}");
        Error::new(why.kind(), message)
    })
}

/// Puts a dump into the scratch directory.
async fn lay(
    format: DumpFormat,
    dump: &EntryName,
    scratch: &Path,
    snapshot: &Snapshot,
    job: &JobContext,
) -> Result<PathBuf> {
    let place = scratch.join("dump");
    let failed = |error| Error::io(format!("the dump cannot be put into {}", scratch.display()), error);
    if format == DumpFormat::Directory {
        tokio::fs::create_dir(&place).await.map_err(failed)?;
    }
    let mut entries = snapshot.entries(Some(dump), job).await?;
    while let Some(stored) = entries.next().await? {
        let name = &stored.entry.name;
        let file = match (format, name.components().nth(2), name.components().count()) {
            (DumpFormat::Custom, None, _) => place.clone(),
            (DumpFormat::Directory, Some(file), 3) => {
                use std::os::unix::ffi::OsStrExt;
                place.join(std::ffi::OsStr::from_bytes(file))
            }
            _ => return Err(Error::invalid_input("this is no file of a dump").with_entry(name)),
        };
        let mut content = snapshot.open(&stored, job).await?;
        let mut options = tokio::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).open(&file).await.map_err(failed)?;
        tokio::io::copy(&mut content, &mut file)
            .await
            .map_err(|error| Error::from(error).with_entry(name))?;
        file.flush().await.map_err(failed)?;
    }
    Ok(place)
}
