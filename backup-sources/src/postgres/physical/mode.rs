//! What a backup is called.

use std::fmt;
use std::str::FromStr;

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// What a backup is called, and how thoroughly it looks.
///
/// These are names for habits. There is one kind of snapshot here: each has the whole cluster, none needs another for a
/// restore, and any may be deleted at any time. What a backup stores is what the repository does not have, in each of these modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupMode {
    /// Every file is read, also where [times are trusted](super::PostgresSourceBuilder::trust_times) or
    /// [summaries of the log](super::PostgresSourceBuilder::wal_summaries) are.
    Full,
    /// What other tools store relative to the last full backup.
    Differential,
    /// What other tools store relative to the last backup of any kind.
    #[default]
    Incremental,
}

impl BackupMode {
    /// Its name: `full`, `differential`, `incremental`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Differential => "differential",
            Self::Incremental => "incremental",
        }
    }

    /// What a report says of it, for who expects it to be a chain.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Full => "full: every file was read; stored is what the repository did not have",
            Self::Differential | Self::Incremental => {
                "complete by itself, needs no other backup for a restore; stored is what the repository did not have"
            }
        }
    }
}

impl fmt::Display for BackupMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BackupMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Full, Self::Differential, Self::Incremental]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| {
                let message =
                    format!("`{}` is no mode; full, differential and incremental are", text.escape_debug());
                Error::invalid_input(message)
            })
    }
}
