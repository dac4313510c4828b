//! What commands did is recorded where they did it: as evidence, in the repository.
//!
//! Commands that change a repository are recorded always, those that only read when that is asked for: who may only read
//! can store no evidence, and a restore must not depend on it. A backup's own record is its snapshot.

use std::time::{Duration, Instant};

use backup_core::repository::{Done, Repository};
use backup_core::{CancellationToken, Timestamp};
use serde_json::json;

use crate::context::{Context, host};
use crate::exit::{Exit, Outcome};
use crate::human;
use crate::output::PROGRAM;

/// A store that does not answer for so long gets no evidence.
const TIME_MAX: Duration = Duration::from_secs(10);

/// What is to be recorded at the end of a command.
#[derive(Debug)]
pub struct Recording {
    began: Timestamp,
    started: Instant,
    /// What is done, and where.
    works: Vec<(&'static str, Repository)>,
}

impl Recording {
    /// Nothing yet, of a command that begins now.
    pub fn new(began: Timestamp) -> Self {
        Self { began, started: Instant::now(), works: Vec::new() }
    }
}

impl Context {
    /// From here on the command does something in `repository` that is to be recorded there, whatever comes of it.
    pub fn record(&mut self, kind: &'static str, repository: &Repository) {
        self.output.keep();
        self.recording.works.push((kind, repository.clone()));
    }

    /// Records what the command did. That this fails is said, and changes nothing about what was done.
    pub async fn record_done(&mut self, result: &Outcome) {
        let works = std::mem::take(&mut self.recording.works);
        let kept = self.output.take_kept();
        if works.is_empty() || result.as_ref().is_err_and(|failure| is_out_of_reach(failure.kind)) {
            return;
        }
        let report = match result {
            Ok(_) => kept.unwrap_or_else(|| json!({})),
            Err(failure) => json!({ "error": { "kind": failure.kind, "message": failure.message } }),
        };
        // What was cancelled is over, and this is quick.
        let job = self.job().with_cancellation(CancellationToken::new());
        for (kind, repository) in works {
            let done = Done {
                kind,
                time: self.recording.began,
                seconds: self.recording.started.elapsed().as_secs_f64(),
                host: &host(),
                program: PROGRAM,
                passed: matches!(result, Ok(Exit::Done)),
                verified: None,
                report: &report,
            };
            let why = match tokio::time::timeout(TIME_MAX, repository.record(&done, &job)).await {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the store does not answer".to_owned(),
            };
            tracing::warn!(error = why, "evidence could not be stored");
            if !self.output.is_json() {
                self.console.say(format_args!("not recorded as evidence: {}", human::name(&why)));
            }
        }
    }
}

/// Where the store itself failed there is nobody to tell.
fn is_out_of_reach(kind: &str) -> bool {
    matches!(kind, "transient" | "io" | "no_space" | "cancelled" | "broken_pipe")
}
