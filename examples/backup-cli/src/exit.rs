//! How commands end: exit codes, and failures that carry one.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::{Error, ErrorKind};

/// The exit codes of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Everything was done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// What was asked for makes no sense.
    Usage = 2,
    /// It was done, but items were skipped or are damaged; all are named.
    Partial = 3,
    /// Nothing matches what was asked for.
    Nothing = 4,
    /// `log fetch` failed: PostgreSQL takes a code up to 125 for the end of its log, and may promote.
    NotFetched = 126,
}

impl Exit {
    /// The number for the operating system.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// [`Exit::Done`], or [`Exit::Partial`] where something is missing.
    pub fn complete_if(complete: bool) -> Self {
        if complete { Self::Done } else { Self::Partial }
    }
}

/// Whether this process is `log fetch`, of which only 1 says that there is nothing to be fetched.
static FETCHES: AtomicBool = AtomicBool::new(false);

/// From here on every failure of this process, its panics and second signals included, ends with [`Exit::NotFetched`].
pub fn fail_closed() {
    FETCHES.store(true, Ordering::Relaxed);
}

/// How a process ends that failed.
pub fn failed() -> Exit {
    if FETCHES.load(Ordering::Relaxed) { Exit::NotFetched } else { Exit::Failed }
}

/// How `log fetch` ends: only that a file is there, or provably was never archived, is told from failures.
pub fn seen_by_server(exit: Exit) -> Exit {
    match exit {
        Exit::Done => Exit::Done,
        Exit::Nothing => Exit::Failed,
        _ => Exit::NotFetched,
    }
}

/// Whether arguments that may make no sense are meant for `log fetch`.
pub fn is_fetch(arguments: &[OsString]) -> bool {
    let mut words = arguments.iter().skip(1);
    words.any(|word| word == "log") && words.any(|word| word == "fetch")
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// A word for the kind, in `--json`.
    pub kind: &'static str,
    /// What happened, to be read by a person.
    pub message: String,
}

/// The result of a command.
pub type Outcome<T = Exit> = Result<T, Failure>;

impl Failure {
    /// The command line or configuration makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, kind: "usage", message: message.into() }
    }

    /// Nothing matches.
    pub fn nothing(message: impl Into<String>) -> Self {
        Self { exit: Exit::Nothing, kind: "nothing_matches", message: message.into() }
    }

    /// An error about what the caller gave: where it makes no sense, that is wrong usage.
    pub fn input(error: Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidInput => Self::usage(error.to_string()),
            _ => error.into(),
        }
    }

    /// Standard output takes no more.
    pub fn output(error: std::io::Error) -> Self {
        let kind = if error.kind() == std::io::ErrorKind::BrokenPipe { "broken_pipe" } else { "io" };
        Self { exit: Exit::Failed, kind, message: format!("standard output could not be written: {error}") }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let hint = match error.kind() {
            ErrorKind::Cold => "; it cannot be read at once: `backup restore --thaw DAYS` asks for it",
            _ => "",
        };
        Self { exit: Exit::Failed, kind: kind_name(error.kind()), message: format!("{error}{hint}") }
    }
}

/// The word for an error's kind in `--json`.
pub fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "not_found",
        ErrorKind::AlreadyExists => "already_exists",
        ErrorKind::InvalidInput => "invalid_input",
        ErrorKind::Corruption => "corruption",
        ErrorKind::Denied => "denied",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::NoSpace => "no_space",
        ErrorKind::Cold => "cold",
        ErrorKind::LimitExceeded => "limit_exceeded",
        ErrorKind::Cancelled => "cancelled",
        ErrorKind::Transient => "transient",
        ErrorKind::Io => "io",
        _ => "internal",
    }
}
