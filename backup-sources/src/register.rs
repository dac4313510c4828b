//! The kinds of this crate, for configurations.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use backup_core::config::{BuildContext, ByteSize, Registry, SecretRef, Settings, Span};
use backup_core::{Error, Result, Source};
use serde::Deserialize;

use crate::view::{BtrfsView, LvmView, ReflinkView, ZfsView};
use crate::{CommandSource, FilesSource, FilesSourceBuilder};

/// Adds the kinds `files`, `command` and, with that feature, `postgres` ([`PostgresSettings`](crate::postgres::PostgresSettings)). A program that knows a store
/// for buckets adds the kind `bucket` itself, as `backup` does.
///
/// ```
/// use backup_core::config::{BuildContext, Component, Registry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> backup_core::Result<()> {
/// let mut registry = Registry::new();
/// backup_sources::register(&mut registry);
/// let etc = Component::new("files").with("paths", vec!["/etc"]).with("exclude", vec!["*.tmp"]);
/// let source = registry.make_source(&etc, "an example", "sources.etc", &BuildContext::default()).await?;
/// assert_eq!(source.info().identity, ["/etc"]);
/// # Ok(())
/// # }
/// ```
pub fn register(registry: &mut Registry) {
    registry.source("files", files);
    registry.source("command", command);
    #[cfg(feature = "postgres")]
    registry.source("postgres", crate::postgres::postgres);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    paths: Vec<PathBuf>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    exclude_file: Vec<PathBuf>,
    #[serde(default)]
    exclude_caches: bool,
    #[serde(default)]
    exclude_if_present: Vec<String>,
    exclude_larger_than: Option<ByteSize>,
    #[serde(default)]
    one_file_system: bool,
    view: Option<FilesView>,
}

/// A consistent view from which files are read.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum FilesView {
    Btrfs { subvolume: PathBuf, views: Option<PathBuf> },
    Lvm { group: String, volume: String, directory: PathBuf, space: Option<String>, options: Option<String> },
    Reflink { directory: PathBuf, views: PathBuf },
    Zfs { dataset: String, directory: PathBuf },
}

impl FilesView {
    fn add_to(self, builder: FilesSourceBuilder, context: &BuildContext) -> FilesSourceBuilder {
        match self {
            Self::Btrfs { subvolume, views } => {
                let view = BtrfsView::new(context.path(&subvolume));
                builder.view(match views {
                    Some(views) => view.views_in(context.path(&views)),
                    None => view,
                })
            }
            Self::Lvm { group, volume, directory, space, options } => {
                let mut view = LvmView::new(group, volume, context.path(&directory));
                if let Some(space) = space {
                    view = view.space(space);
                }
                if let Some(options) = options {
                    view = view.mount_options(&options);
                }
                builder.view(view)
            }
            Self::Reflink { directory, views } => {
                builder.view(ReflinkView::new(context.path(&directory), context.path(&views)))
            }
            Self::Zfs { dataset, directory } => builder.view(ZfsView::new(dataset, context.path(&directory))),
        }
    }
}

async fn files(settings: Settings, context: BuildContext) -> Result<Arc<dyn Source>> {
    let files: Files = settings.parse()?;
    let mut builder = FilesSource::builder()
        .paths(files.paths.iter().map(|path| context.path(path)))
        .exclude_caches(files.exclude_caches)
        .one_file_system(files.one_file_system);
    for file in &files.exclude_file {
        builder = builder.exclude_file(context.path(file));
    }
    for pattern in files.exclude {
        builder = builder.exclude(pattern);
    }
    for name in files.exclude_if_present {
        builder = builder.exclude_if_present(name);
    }
    if let Some(size) = files.exclude_larger_than {
        builder = builder.exclude_larger_than(size.bytes());
    }
    if let Some(view) = files.view {
        builder = view.add_to(builder, &context);
    }
    // Reads exclude files.
    let built = tokio::task::spawn_blocking(move || builder.build()).await;
    let built = built.map_err(|e| Error::internal("the task that makes a source failed").with_source(e))?;
    Ok(Arc::new(built.map_err(|error| settings.error(error))?))
}

/// What a program prints, as one entry.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    name: String,
    command: Vec<String>,
    timeout: Option<Span>,
    /// Variables with values that anyone may know.
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// Variables with values that are found elsewhere, and only the program gets to know.
    #[serde(default)]
    secrets: BTreeMap<String, SecretRef>,
}

async fn command(settings: Settings, context: BuildContext) -> Result<Arc<dyn Source>> {
    let command: Command = settings.parse()?;
    let made = CommandSource::new(command.name, command.command);
    let mut source = made.map_err(|error| settings.error(error))?;
    if let Some(timeout) = command.timeout {
        source = source.timeout(timeout.duration());
    }
    for (name, value) in command.environment {
        source = source.env(name, value);
    }
    for (name, reference) in command.secrets {
        let secret = context.secret(&reference).await?;
        source = source.env(name, OsStr::from_bytes(secret.expose()));
    }
    Ok(Arc::new(source))
}

#[cfg(test)]
mod tests {
    use backup_core::config::Component;

    use super::*;

    #[tokio::test]
    async fn settings_that_make_no_sense_are_refused_by_name() {
        let mut registry = Registry::new();
        register(&mut registry);
        let context = BuildContext::default();
        for (component, expected) in [
            (Component::new("files"), "missing field `paths`"),
            (Component::new("files").with("paths", "/etc"), "sources.x.paths: invalid type"),
            (Component::new("files").with("path", vec!["/etc"]), "sources.x.path: unknown field"),
            (Component::new("files").with("paths", Vec::<String>::new()), "no path to back up"),
            (Component::new("files").with("paths", vec!["/etc"]).with("exclude", vec!["["]), "sources.x: "),
            (
                Component::new("files").with("paths", vec!["/etc"]).with("exclude_larger_than", "big"),
                "`big` is not a size",
            ),
        ] {
            let error = registry
                .make_source(&component, "b.toml", "sources.x", &context)
                .await
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("b.toml: sources.x") && error.contains(expected), "{error}");
        }
    }
}
