//! What a recovering server is told, in `postgresql.auto.conf`.

use std::collections::BTreeSet;

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::{RecoveryPlan, StopAt, TargetTimeline};

/// The line with which what a recovery has written begins.
const BEGIN: &str = "# Written by a recovery; remove what is not wanted any more.";

/// What the server does at its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetAction {
    /// It stays as it is and answers questions: whoever asked for the moment looks whether it is the right one, and then promotes, or
    /// recovers to another.
    #[default]
    Pause,
    /// It becomes a primary, on a timeline of its own.
    Promote,
    /// It stops.
    Shutdown,
}

/// How a recovered server is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverySettings {
    /// What the server runs to get a segment or a history: `%f` is its name, `%p` where it is wanted. It must exit with 1 to 125 only
    /// when the file was never archived, and above when anything else went wrong: else the server would promote too early.
    pub restore_command: String,
    /// What it does at the target. Without a target (`latest`) a server that is no standby always becomes a primary.
    pub action: TargetAction,
    /// Further settings, by name.
    pub extra: Vec<(String, String)>,
    /// Whom the files belong to, where this process may say so: user and group. Without, whom the data directory belongs to.
    pub owner: Option<(u32, u32)>,
}

impl RecoverySettings {
    /// Pausing at the target.
    pub fn new(restore_command: impl Into<String>) -> Self {
        Self {
            restore_command: restore_command.into(),
            action: TargetAction::default(),
            extra: Vec::new(),
            owner: None,
        }
    }

    /// The same with what is done at the target.
    #[must_use]
    pub fn action(mut self, action: TargetAction) -> Self {
        self.action = action;
        self
    }

    /// The same with a further setting.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    /// The same with whom the files are to belong to.
    #[must_use]
    pub fn owned_by(mut self, user: u32, group: u32) -> Self {
        self.owner = Some((user, group));
        self
    }

    /// All settings that `plan` asks for, in the order in which they are written.
    pub(super) fn all(&self, plan: &RecoveryPlan) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = Vec::new();
        let mut add = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
        add("restore_command", &self.restore_command);
        for (name, value) in plan.target.settings() {
            add(name, &value);
        }
        // By its number: the server itself would take the last that it can count up to, and stop at one whose history is missing.
        let follows = plan.standby
            && plan.target.timeline == TargetTimeline::Latest
            && plan.target.stop == StopAt::Latest;
        let timeline = if follows { "latest".to_owned() } else { plan.timeline.get().to_string() };
        add("recovery_target_timeline", &timeline);
        add(
            "recovery_target_action",
            match self.action {
                TargetAction::Pause => "pause",
                TargetAction::Promote => "promote",
                TargetAction::Shutdown => "shutdown",
            },
        );
        // What is recovered must not archive into the log that it comes from.
        add("archive_mode", "off");
        add("archive_command", "");
        if plan.base.major_version() >= 15 {
            add("archive_library", "");
        }
        add("archive_cleanup_command", "");
        add("recovery_end_command", "");
        // Pausing, and looking on, needs it.
        add("hot_standby", "on");
        if !plan.standby {
            add("primary_conninfo", "");
            add("primary_slot_name", "");
        }
        add("recovery_min_apply_delay", "0");
        all.extend(self.extra.iter().cloned());
        all
    }

    /// `postgresql.auto.conf` as it is to be: what was there, without what is set now, and then that.
    pub(super) fn file(&self, plan: &RecoveryPlan, former: &str) -> Result<String> {
        let all = self.all(plan);
        let names: BTreeSet<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        let sets = |line: &str| {
            let name = line.trim_start().split(|c: char| c == '=' || c.is_whitespace()).next();
            name.is_some_and(|name| names.contains(name.to_ascii_lowercase().as_str()))
        };
        let mut text = String::new();
        for line in former.lines().filter(|line| *line != BEGIN && !sets(line)) {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(BEGIN);
        text.push('\n');
        for (name, value) in &all {
            text.push_str(&line(name, value)?);
        }
        Ok(text)
    }
}

/// A line that sets `name`. In quotes the server takes backslashes as C does.
fn line(name: &str, value: &str) -> Result<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(Error::invalid_input(format!("`{}` is no name of a setting", name.escape_debug())));
    }
    if value.chars().any(|c| c == '\n' || c == '\r' || c == '\0') {
        return Err(Error::invalid_input(format!("the value of `{name}` has more than one line")));
    }
    Ok(format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_and_what_cannot_be_is_refused() {
        assert_eq!(line("a.b_c", r"it's \ so").unwrap(), "a.b_c = 'it''s \\\\ so'\n");
        for (name, value) in [("a b", ""), ("", ""), ("a", "b\nc"), ("a", "b\0")] {
            assert!(line(name, value).is_err(), "{name:?} {value:?}");
        }
    }
}
