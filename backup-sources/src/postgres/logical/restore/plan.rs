//! What a restore will do, found out before it does anything.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Error, JobContext, Result, Snapshot};
use serde::{Deserialize, Serialize};

use super::LogicalRestore;
use crate::postgres::connect::explain;
use crate::postgres::logical::programs::Tool;
use crate::postgres::logical::server::Server;
use crate::postgres::logical::{DumpFormat, JOBS_MAX, LogicalBackup, check_names};

/// What a restore will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicalPlan {
    /// What is restored from.
    pub backup: LogicalBackup,
    /// The server that is restored into, without secrets.
    pub server: String,
    /// Its version, as `server_version_num`.
    pub server_version: u32,
    /// The program that restores.
    pub program: std::path::PathBuf,
    /// Database by database.
    pub databases: Vec<DatabasePlan>,
    /// What whoever restores should know.
    pub notes: Vec<String>,
}

/// What will happen with one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabasePlan {
    /// The database in the backup.
    pub name: String,
    /// The one that it is restored into.
    pub into: String,
    /// Bytes of its dump.
    pub bytes: u64,
    /// What is there.
    pub found: Found,
    /// What of that may be dropped and replaced: names of tables and other relations, the first ones.
    pub replaced: Vec<String>,
}

/// What stands where a database is restored to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// No such database; it is made.
    Nothing,
    /// A database with nothing in it, as far as that matters to the restore.
    Empty,
    /// A database with something in it.
    Full,
}

/// Relations that a plan names.
const NAMED_MAX: i64 = 20;

impl LogicalRestore {
    /// Finds out what the restore of `snapshot` would do. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) with all reasons why it cannot work: databases that the backup does not have, or that are missing on the server or not empty there;
    /// settings that do not go together. `pg_restore` is missing, or too old for the dumps. Nothing was changed.
    pub async fn plan(&self, snapshot: &Snapshot, job: &JobContext) -> Result<LogicalPlan> {
        let backup = LogicalBackup::of(snapshot.info())?;
        self.check(backup.format)?;
        let stored = backup.databases(snapshot, job).await?;
        let connect = self.connect.resolve().await?;
        let server = Server::ask(&connect).await?;
        let major = server.version.major().max(backup.dumped_by().major());
        let tool = Tool::find(self.programs.as_deref(), "pg_restore", major).await?;
        tool.check_at_least(backup.dumped_by(), "the dump is")?;
        let mut refusals = Vec::new();
        let there: BTreeMap<&str, u64> =
            stored.iter().map(|database| (&*database.name, database.bytes)).collect();
        for name in self.databases.iter().filter(|name| !there.contains_key(name.as_str())) {
            refusals.push(format!("the backup has no database `{}`", name.escape_debug()));
        }
        let mut databases = Vec::new();
        for (name, bytes) in there {
            if !self.databases.is_empty() && !self.databases.contains(name) {
                continue;
            }
            let into = self.into.clone().unwrap_or_else(|| name.to_owned());
            let shown = into.escape_debug().to_string();
            if !server.databases.contains_key(&into) {
                match (self.create, &self.into) {
                    (true, None) => {}
                    (_, Some(_)) => refusals.push(format!(
                        "the database `{shown}` is not there: make it (createdb -T template0)"
                    )),
                    (false, None) => refusals
                        .push(format!("the database `{shown}` is not there: have it created, or make it")),
                }
                let found = Found::Nothing;
                databases.push(DatabasePlan {
                    name: name.to_owned(),
                    into,
                    bytes,
                    found,
                    replaced: Vec::new(),
                });
                continue;
            }
            let (found, replaced) = self.look(&into).await?;
            if found == Found::Full && !self.clean {
                let what = if replaced.is_empty() {
                    "functions, schemas or large objects".to_owned()
                } else {
                    replaced.join(", ")
                };
                refusals.push(format!(
                    "the database `{shown}` is not empty: it has {what}; have it cleaned, or restore into another one"
                ));
            }
            databases.push(DatabasePlan { name: name.to_owned(), into, bytes, found, replaced });
        }
        if !refusals.is_empty() {
            return Err(Error::invalid_input(refusals.join("; ")));
        }
        let notes = self.notes(&backup, &server, &tool);
        Ok(LogicalPlan {
            backup,
            server: connect.address(),
            server_version: server.version.0,
            program: tool.path,
            databases,
            notes,
        })
    }

    /// Settings that cannot be, or do not go together.
    fn check(&self, format: DumpFormat) -> Result<()> {
        check_names(self.databases.iter().chain(&self.into))?;
        let wrong = |what: &str| Err(Error::invalid_input(what));
        if !(1..=JOBS_MAX).contains(&self.jobs) {
            return Err(Error::invalid_input(format!(
                "{} connections cannot be; give 1 to {JOBS_MAX}",
                self.jobs
            )));
        }
        if self.into.is_some() && self.databases.len() != 1 {
            return wrong("only one database can be restored into another one: name it");
        }
        if !self.tables.is_empty() && self.databases.len() != 1 {
            return wrong("tables are restored from one database: name it");
        }
        if !self.tables.is_empty() && self.create {
            return wrong(
                "tables are restored into a database that is there: it cannot be created with them alone",
            );
        }
        if self.tables.iter().chain(&self.role).any(|name| name.is_empty() || name.contains('\0')) {
            return wrong("a table or role has an empty name, or one with a zero byte");
        }
        if self.scratch.is_none() && (self.jobs > 1 || format == DumpFormat::Directory) {
            return wrong(
                "several connections, and dumps in the directory format, need a scratch directory for the dump",
            );
        }
        Ok(())
    }

    fn notes(&self, backup: &LogicalBackup, server: &Server, tool: &Tool) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.owners {
            notes.push(
                "all will belong to the restoring role: owners and privileges are not restored".to_owned(),
            );
        }
        if !self.tables.is_empty() {
            notes.push(
                "of tables, columns and rows are restored: no indexes, constraints, sequences or types"
                    .to_owned(),
            );
        }
        if self.jobs > 1 || self.in_steps {
            notes.push(
                "the restore is no single transaction: what was restored before an error stays".to_owned(),
            );
        }
        if server.version.major() < backup.server_version / 10_000 {
            notes.push(format!(
                "the server is of version {} and the dump from {}: what is newer than the server will fail",
                server.version.major(),
                backup.server_version / 10_000
            ));
        }
        if tool.version.major() > server.version.major() {
            notes.push(format!(
                "{} is of version {} and may use settings that the server, of version {}, does not know",
                tool.path.display(),
                tool.version,
                server.version
            ));
        }
        notes
    }

    /// What a database has: relations, and whether anything at all.
    async fn look(&self, database: &str) -> Result<(Found, Vec<String>)> {
        // What belongs to an extension, or to the system, is nobody's.
        const RELATIONS: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relname::text \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)' \
             AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') \
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass \
                 AND d.objid = c.oid AND d.deptype = 'e') \
             AND ($1::text[] IS NULL OR c.relname::text = ANY ($1)) ORDER BY 1 LIMIT $2";
        const OTHERS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata) \
             OR EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname NOT IN ('public', 'information_schema') \
                 AND n.nspname !~ '^pg_' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
                 WHERE d.classid = 'pg_catalog.pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')) \
             OR EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
                 WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')) \
             OR EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
                 WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype IN ('e', 'i')))";
        let client = self.connect.clone().with_database(database).connect_to_ask().await?;
        let failed = |error: tokio_postgres::Error| {
            let error = explain(&error);
            Error::new(
                error.kind(),
                format!("the database `{}` cannot be looked at", database.escape_debug()),
            )
            .with_source(error)
        };
        let tables: Option<Vec<&str>> =
            (!self.tables.is_empty()).then(|| self.tables.iter().map(String::as_str).collect());
        let rows = client.query(RELATIONS, &[&tables, &NAMED_MAX]).await.map_err(failed)?;
        let named: std::result::Result<BTreeSet<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let named: Vec<String> = named.map_err(failed)?.into_iter().collect();
        let has_more = match tables {
            // Whatever else there is stays as it is.
            Some(_) => false,
            None => client.query_one(OTHERS, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?,
        };
        Ok((if named.is_empty() && !has_more { Found::Empty } else { Found::Full }, named))
    }
}
