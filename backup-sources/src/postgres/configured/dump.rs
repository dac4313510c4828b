//! What a configuration says of dumps.

use std::path::PathBuf;

use backup_core::config::{BuildContext, ByteSize, Span};
use serde::Deserialize;

use crate::postgres::logical::{DumpFormat, Globals};
use crate::postgres::{Connect, LogicalSource, LogicalSourceBuilder};

/// The table `dump` of a source with `mode = "logical"`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DumpSettings {
    /// Those that are dumped; all that take connections and are no templates where none is named.
    databases: Vec<String>,
    format: DumpFormat,
    globals: Globals,
    jobs: Option<usize>,
    scratch: Option<PathBuf>,
    scratch_limit: Option<ByteSize>,
    programs: Option<PathBuf>,
    lock_timeout: Option<Span>,
    timeout: Option<Span>,
}

impl DumpSettings {
    pub(super) fn builder(&self, connect: Connect, context: &BuildContext) -> LogicalSourceBuilder {
        let mut builder = LogicalSource::builder(connect)
            .databases(self.databases.iter().cloned())
            .format(self.format)
            .globals(self.globals);
        if let Some(jobs) = self.jobs {
            builder = builder.jobs(jobs);
        }
        if let Some(directory) = &self.scratch {
            builder = builder.scratch(context.path(directory));
        }
        if let Some(limit) = self.scratch_limit {
            builder = builder.scratch_bytes_max(limit.bytes());
        }
        if let Some(directory) = &self.programs {
            builder = builder.programs(context.path(directory));
        }
        if let Some(limit) = self.lock_timeout {
            builder = builder.lock_timeout(limit.duration());
        }
        if let Some(limit) = self.timeout {
            builder = builder.timeout(limit.duration());
        }
        builder
    }
}
