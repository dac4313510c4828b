//! Where a command reads and writes: the process's own streams, or a caller's.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::exit::{Failure, Outcome};

/// The streams of a run.
pub struct Console {
    /// Results.
    pub out: Box<dyn Write + Send + Sync>,
    /// Everything else.
    pub err: Box<dyn Write + Send + Sync>,
    /// Whether a person sits there: both questions and answers go through a terminal.
    pub interactive: bool,
    /// Whether progress may be drawn on standard error.
    pub draws: bool,
}

impl Console {
    /// The streams of this process.
    pub fn process() -> Self {
        let draws = io::stderr().is_terminal();
        Self {
            out: Box::new(io::BufWriter::new(io::stdout())),
            err: Box::new(io::stderr()),
            interactive: draws && io::stdin().is_terminal(),
            draws,
        }
    }

    /// Says something on standard error. That it cannot be said stops nothing.
    pub fn say(&mut self, line: impl std::fmt::Display) {
        let _ = writeln!(self.err, "{line}");
    }

    /// Asks a question; anything but `y` or `yes` is a no.
    pub async fn confirm(&mut self, question: &str) -> Outcome<()> {
        let _ = write!(self.err, "{question} [y/N] ");
        let _ = self.err.flush();
        let answer = tokio::task::spawn_blocking(|| {
            let mut answer = String::new();
            io::stdin().lock().read_line(&mut answer).map(|_| answer)
        });
        let answer = answer.await.ok().and_then(Result::ok).unwrap_or_default();
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            return Ok(());
        }
        Err(Failure { exit: crate::exit::Exit::Failed, kind: "declined", message: "nothing was done".into() })
    }
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("interactive", &self.interactive).finish_non_exhaustive()
    }
}
