//! The kinds of this crate, for configurations.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use backup_core::config::{Access, BuildContext, Registry, Settings};
use backup_core::{Error, Result, Sink};
use serde::Deserialize;

use crate::LocalSink;

/// Adds the kind `local`, which plain paths and `file:///…` mean, too; and with the features of these names `s3`
/// (`s3://bucket/prefix`), `gcs` (`gs://bucket/prefix`) and `azure` (`az://container/prefix`), which try again what may
/// succeed later (see [`Retry`](crate::Retry)).
///
/// What the settings of those three leave out, credentials above all, comes from the environment variables of each cloud's
/// own tools: `AWS_*`, `GOOGLE_*`, `AZURE_*`.
///
/// ```
/// use backup_core::config::{Access, BuildContext, Place, Registry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> backup_core::Result<()> {
/// # let directory = tempfile::tempdir()?;
/// let mut registry = Registry::new();
/// backup_sinks::register(&mut registry);
/// let place = Place::Url(directory.path().join("new").display().to_string());
/// let context = BuildContext::default().with_access(Access::Create);
/// let sink = registry.make_sink(&place, "an example", "", &context).await?;
/// assert!(sink.list("", None, 1).await?.is_empty());
/// # Ok(())
/// # }
/// ```
pub fn register(registry: &mut Registry) {
    registry.sink("local", &["file"], local);
    #[cfg(feature = "s3")]
    registry.sink("s3", &["s3"], crate::clouds::s3);
    #[cfg(feature = "s3")]
    registry.thaw("s3", crate::clouds::s3_thaw);
    #[cfg(feature = "gcs")]
    registry.sink("gcs", &["gs"], crate::clouds::gcs);
    #[cfg(feature = "azure")]
    registry.sink("azure", &["az"], crate::clouds::azure);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Local {
    path: Option<PathBuf>,
    url: Option<String>,
}

async fn local(settings: Settings, context: BuildContext) -> Result<Arc<dyn Sink>> {
    let path = match settings.parse()? {
        Local { path: Some(path), url: None } if !path.as_os_str().is_empty() => path,
        Local { path: None, url: Some(url) } => path_of(&url).ok_or_else(|| {
            settings.error("a file URL has three slashes and an absolute path: file:///srv/backup")
        })?,
        _ => return Err(settings.error("give the directory as `path`")),
    };
    let path = context.path(path);
    let access = context.access();
    let open = move || match access {
        Access::Open => LocalSink::open(&path),
        Access::Create => LocalSink::create(&path),
    };
    let sink = tokio::task::spawn_blocking(open)
        .await
        .map_err(|e| Error::internal("the task that opens a directory failed").with_source(e))??;
    Ok(Arc::new(sink))
}

/// The path of a file URL (RFC 8089) of this host, with `%20` and the like decoded.
fn path_of(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("file://")?;
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.strip_prefix('/').map(|_| path.as_bytes())?;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let mut byte = [0];
            hex::decode_to_slice(digits, &mut byte).ok()?;
            bytes.extend_from_slice(&byte);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    if bytes.contains(&0) {
        return None;
    }
    Some(OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_urls_are_paths_of_this_host() {
        for (url, path) in [
            ("file:///srv/a%20b", Some("/srv/a b")),
            ("file://localhost/srv", Some("/srv")),
            ("file://elsewhere/srv", None),
            ("file://srv", None),
            ("file:///srv/%2", None),
            ("file:///srv/%zz", None),
            ("file:///srv/%00", None),
            ("file://", None),
        ] {
            assert_eq!(path_of(url), path.map(PathBuf::from), "{url}");
        }
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_made_only_when_asked() {
        let directory = tempfile::tempdir().unwrap();
        let mut registry = Registry::new();
        register(&mut registry);
        let place = backup_core::config::Place::Url("new".into());
        let open = BuildContext::default().with_base(Some(directory.path()));
        let missing = registry.make_sink(&place, "b.toml", "places.x", &open).await.unwrap_err();
        assert_eq!(missing.kind(), backup_core::ErrorKind::NotFound);
        let create = open.clone().with_access(Access::Create);
        registry.make_sink(&place, "b.toml", "places.x", &create).await.unwrap();
        registry.make_sink(&place, "b.toml", "places.x", &open).await.unwrap();
        assert!(directory.path().join("new").is_dir());
    }
}
