//! Restoring dumps: planned first, then given to `pg_restore`, all of a database or nothing.
//!
//! # What is run, and where
//!
//! Dumps are given to `pg_restore`, and never to `psql`: what is in a dump reaches the server as SQL, and nothing of it is a command to a program on
//! this machine. The SQL itself was written by whoever may make things in the database that was dumped, and runs with the rights of the role that
//! restores, at once (defaults, checks, functions in indexes) or later. So let that role have the least that it needs:
//!
//! - the owner of the database that is restored into, or `CREATEDB` to [make](LogicalRestore::create) it; not a superuser;
//! - owners and privileges are those that the restoring role gives, unless [asked for](LogicalRestore::owners); subscriptions to other servers are left out.
//!
//! # All or nothing
//!
//! The first error ends a restore. With one connection it is one transaction, so that the database is then as it was before; one that was made for it is
//! removed again. With [several](LogicalRestore::jobs), or in [steps](LogicalRestore::in_steps), what was restored until then stays.

mod apply;
mod feed;
mod globals;
mod plan;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::postgres::Connect;
pub use apply::{LogicalReport, RestoredDatabase};
pub use globals::{GlobalsReport, Statement, statements, without_token};
pub use plan::{DatabasePlan, Found, LogicalPlan};

/// What of a logical backup is restored, where, and how. See the [module](self).
///
/// ```
/// use backup_sources::postgres::Connect;
/// use backup_sources::postgres::logical::restore::LogicalRestore;
///
/// let connect = Connect::parse("postgres://restore@db.example/postgres")?;
/// let restore = LogicalRestore::new(connect).database("shop").into_database("shop_of_yesterday");
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LogicalRestore {
    connect: Connect,
    databases: BTreeSet<String>,
    into: Option<String>,
    tables: BTreeSet<String>,
    create: bool,
    clean: bool,
    owners: bool,
    role: Option<String>,
    jobs: usize,
    scratch: Option<PathBuf>,
    in_steps: bool,
    programs: Option<PathBuf>,
    timeout: Option<Duration>,
}

impl LogicalRestore {
    /// A restore of all databases into those of the same names on the server that `connect` leads to; its database is where the server is asked which there are.
    pub fn new(connect: Connect) -> Self {
        Self {
            connect,
            databases: BTreeSet::new(),
            into: None,
            tables: BTreeSet::new(),
            create: false,
            clean: false,
            owners: false,
            role: None,
            jobs: 1,
            scratch: None,
            in_steps: false,
            programs: None,
            timeout: None,
        }
    }

    /// Restores this database, and no others but those that are named as well.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.databases.insert(name.into());
        self
    }

    /// The same for several.
    #[must_use]
    pub fn databases(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.databases.extend(names.into_iter().map(Into::into));
        self
    }

    /// Restores the one database that was named into another one, which must be there already.
    #[must_use]
    pub fn into_database(mut self, name: impl Into<String>) -> Self {
        self.into = Some(name.into());
        self
    }

    /// Restores this table only, and further ones that are named (`pg_restore --table`): its columns and rows, in whatever schema it is, and nothing that depends on
    /// it or that it depends on: no indexes, constraints, sequences, types or schemas. A table that is not in the dump is an error.
    #[must_use]
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.tables.insert(name.into());
        self
    }

    /// Whether databases that are not there are made, with the encoding, locale and settings that they had.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether what a database has already may be replaced: what is in the dump is dropped there before it is restored, and what is not stays.
    /// Otherwise a database that is not empty is refused.
    #[must_use]
    pub fn clean(mut self, clean: bool) -> Self {
        self.clean = clean;
        self
    }

    /// Whether owners, privileges and tablespaces are restored, too. The roles must be there (see [`apply_globals`](Self::apply_globals)), and the restoring role must be a
    /// member of each. Otherwise all belongs to the restoring role.
    #[must_use]
    pub fn owners(mut self, owners: bool) -> Self {
        self.owners = owners;
        self
    }

    /// Has `pg_restore` become this role after it logged in, so that all is done with its rights and belongs to it.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.role = Some(role.into());
        self
    }

    /// Connections that restore at once, 1 to 64. More than one need a [scratch directory](Self::scratch), and do not restore in one transaction.
    #[must_use]
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs;
        self
    }

    /// The directory below which a dump is put for `pg_restore`, in a directory with the mode 0700, which is removed at the end, whatever happens: for several connections, and
    /// for the directory format. It must hold the largest of the dumps, which are not compressed.
    #[must_use]
    pub fn scratch(mut self, directory: impl Into<PathBuf>) -> Self {
        self.scratch = Some(directory.into());
        self
    }

    /// Whether each statement is a transaction of its own. What was restored before an error stays then; very many large objects may need it, as a
    /// transaction takes a lock for each.
    #[must_use]
    pub fn in_steps(mut self, in_steps: bool) -> Self {
        self.in_steps = in_steps;
        self
    }

    /// The directory that has `pg_restore`; otherwise where packages put that of the server's version, or of a later one, and then `PATH`.
    #[must_use]
    pub fn programs(mut self, directory: impl Into<PathBuf>) -> Self {
        self.programs = Some(directory.into());
        self
    }

    /// How long the restore of one database may take; then it is stopped, and fails. No limit unless told so.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }
}
