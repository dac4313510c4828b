//! What goes to standard output: text for people, or exactly one JSON document.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::exit::{Failure, Outcome};

/// What evidence calls this program.
pub const PROGRAM: &str = concat!("backup ", env!("CARGO_PKG_VERSION"));

/// Writes results. With `--json` that is one document, whatever happens: also a failure, and also a failure in the middle
/// of a long list, which is written as it comes and never held in memory.
pub struct Output {
    out: Box<dyn Write + Send + Sync>,
    json: bool,
    state: State,
    /// Whether the document is kept, and the document.
    keeps: bool,
    kept: Option<Value>,
}

#[derive(PartialEq)]
enum State {
    /// Nothing is written yet.
    Empty,
    /// A document's list is open; whether it has items.
    List { items: bool },
    /// The document is complete.
    Done,
}

impl Output {
    /// Output to `out`, as JSON or for people.
    pub fn new(out: Box<dyn Write + Send + Sync>, json: bool) -> Self {
        Self { out, json, state: State::Empty, keeps: false, kept: None }
    }

    /// Whether this is JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// From here on the result is kept as JSON, whichever way it is written, for [`take_kept`](Self::take_kept).
    pub fn keep(&mut self) {
        self.keeps = true;
    }

    /// The result, if it was kept.
    pub fn take_kept(&mut self) -> Option<Value> {
        self.kept.take()
    }

    /// Writes the whole result: `document`, or what `human` writes.
    pub fn document(
        &mut self,
        document: &impl Serialize,
        human: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Outcome<()> {
        if self.keeps {
            self.kept = serde_json::to_value(document).ok();
        }
        let written = if !self.json {
            human(&mut *self.out)
        } else if self.state == State::Empty {
            self.state = State::Done;
            serde_json::to_writer(&mut self.out, document)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(self.out))
        } else {
            Ok(())
        };
        written.and_then(|()| self.out.flush()).map_err(Failure::output)
    }

    /// Starts a document that is one list called `key`.
    pub fn begin_list(&mut self, key: &str) -> Outcome<()> {
        self.state = State::List { items: false };
        if self.json { write!(self.out, "{{{}:[", json!(key)).map_err(Failure::output) } else { Ok(()) }
    }

    /// Writes an item of the list.
    pub fn item(&mut self, item: &impl Serialize, human: impl std::fmt::Display) -> Outcome<()> {
        let written = if self.json {
            let comma = if self.state == (State::List { items: true }) { "," } else { "" };
            self.state = State::List { items: true };
            write!(self.out, "{comma}")
                .and_then(|()| serde_json::to_writer(&mut self.out, item).map_err(io::Error::from))
        } else {
            writeln!(self.out, "{human}")
        };
        written.map_err(Failure::output)
    }

    /// Ends the list; `more` are further members of the document.
    pub fn end_list(&mut self, more: Map<String, Value>) -> Outcome<()> {
        self.state = State::Done;
        let written = if self.json {
            let members: String =
                more.iter().map(|(key, value)| format!(",{}:{value}", json!(key))).collect();
            writeln!(self.out, "]{members}}}")
        } else {
            Ok(())
        };
        written.and_then(|()| self.out.flush()).map_err(Failure::output)
    }

    /// Completes the document with an error. For people, the error stands on standard error instead.
    pub fn fail(&mut self, failure: &Failure) {
        if !self.json || self.state == State::Done {
            let _ = self.out.flush();
            return;
        }
        let error = json!({ "kind": failure.kind, "message": failure.message });
        // Nobody is left to be told that this failed, too.
        if let State::List { .. } = self.state {
            let _ = writeln!(self.out, "],\"error\":{error}}}");
        } else {
            let _ = writeln!(self.out, "{}", json!({ "error": error }));
        }
        let _ = self.out.flush();
        self.state = State::Done;
    }

    /// The raw stream, for contents.
    pub fn raw(&mut self) -> &mut dyn Write {
        &mut *self.out
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("json", &self.json).finish_non_exhaustive()
    }
}
