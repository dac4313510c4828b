//! The output of a process as a source.

pub(crate) mod process;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{Entry, Error, JobContext, Result, Source, SourceInfo, SourceRun};

use crate::reader::OneEntryRun;
use process::Output;

/// What a process writes to its standard output, as one entry: a dump, an export.
///
/// The process is started when the engine reads the entry, without a shell, in a process group of its own that is killed
/// when the run ends early. If it fails (an exit status but 0, a signal, the time limit), the run fails and there is no
/// snapshot; the error has the end of what the process wrote to its standard error.
///
/// Arguments can be seen by everybody on the machine: give secrets through [`env`](Self::env), which only the same user and
/// root can see, or better through a file that the program reads itself. Environment values appear in no log, error or `Debug`.
///
/// ```
/// use std::time::Duration;
///
/// use backup_sources::CommandSource;
///
/// let source = CommandSource::new("dumps/orders.sql", ["pg_dump", "orders"])?
///     .env("PGPASSFILE", "/etc/backup/pgpass")
///     .timeout(Duration::from_secs(3600));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Clone)]
pub struct CommandSource {
    entry: Entry,
    call: Call,
}

/// What is run.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Variables of this process that begin so, the other one does not get.
    pub(crate) without: Option<&'static str>,
    pub(crate) timeout: Option<Duration>,
}

impl Call {
    /// Whether a variable of this process is kept from the other one.
    fn forgets(&self, variable: &OsStr) -> bool {
        self.without.is_some_and(|start| variable.as_encoded_bytes().starts_with(start.as_bytes()))
    }
}

impl CommandSource {
    /// An entry `name` with the output of `argv`: the program, looked for in `PATH`, and its arguments.
    ///
    /// # Errors
    ///
    /// `name` is not the name of an entry, or `argv` is empty.
    pub fn new(name: impl AsRef<[u8]>, argv: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Self> {
        let entry = Entry::file(name)?;
        let mut argv = argv.into_iter().map(Into::into);
        let program = argv.next().filter(|program| !program.is_empty());
        let program =
            program.ok_or_else(|| Error::invalid_input("no command was given; give a program to run"))?;
        let (arguments, environment) = (argv.collect(), Vec::new());
        let call = Call { program, arguments, environment, without: None, timeout: None };
        Ok(Self { entry, call })
    }

    /// The same source with a variable added to the environment of the process.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.call.environment.push((name.into(), value.into()));
        self
    }

    /// The same source with a limit on how long the process may run; then it is killed.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.call.timeout = Some(limit);
        self
    }
}

impl fmt::Debug for CommandSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.call.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("CommandSource")
            .field("name", &self.entry.name)
            .field("program", &self.call.program)
            .field("arguments", &self.call.arguments.len())
            .field("environment", &names)
            .field("timeout", &self.call.timeout)
            .finish()
    }
}

#[async_trait]
impl Source for CommandSource {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("command", [self.entry.name.to_string()])
    }

    async fn begin(&self, _: &JobContext) -> Result<Box<dyn SourceRun>> {
        let output = Output::of(self.call.clone());
        let failure = output.failure();
        Ok(Box::new(OneEntryRun::new(self.entry.clone(), output, failure)))
    }
}
