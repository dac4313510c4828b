//! Sinks in the clouds, from settings and URLs.
//!
//! What is not in the settings comes from the cloud's usual environment variables. A configuration refers to secrets
//! (`env:NAME`, `file:PATH`, `command:PROGRAM…`); it does not contain them.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use backup_core::config::{BuildContext, SecretRef, Settings};
use backup_core::{Error, ErrorKind, ObjectKey, Result, Sink};
use object_store::{ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

use crate::{ObjectStoreSink, Retry};

#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "gcs")]
mod gcs;
#[cfg(feature = "s3")]
mod s3;

#[cfg(feature = "azure")]
pub(crate) use azure::azure;
#[cfg(feature = "gcs")]
pub(crate) use gcs::gcs;
#[cfg(feature = "s3")]
pub(crate) use s3::s3;

/// How long connecting may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// A bucket (or container), and what comes before each key in it.
#[derive(Debug, PartialEq)]
struct Place {
    scheme: &'static str,
    bucket: String,
    prefix: String,
}

impl Place {
    /// The place that the settings name, by a URL or in parts.
    fn of(
        settings: &Settings,
        scheme: &'static str,
        url: Option<&str>,
        bucket: Option<String>,
        prefix: Option<String>,
    ) -> Result<Self> {
        let (bucket, prefix) = match (url, bucket, prefix) {
            (Some(url), None, None) => {
                let rest = url.split_once("://").map(|(_, rest)| rest).unwrap_or_default();
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                (bucket.to_owned(), prefix.to_owned())
            }
            (None, Some(bucket), prefix) => (bucket, prefix.unwrap_or_default()),
            _ => {
                return Err(
                    settings.error(format!("give `url`, like {scheme}://bucket/prefix, or its parts"))
                );
            }
        };
        let prefix = prefix.trim_matches('/').to_owned();
        let named = !bucket.is_empty() && !bucket.starts_with('.');
        // Neither user names nor queries: credentials do not belong into a URL.
        if !named || !bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-$".contains(&byte)) {
            return Err(settings.error(format!(
                "a place of this kind is {scheme}://bucket or {scheme}://bucket/prefix; credentials and options do not belong there"
            )));
        }
        if !prefix.is_empty() && ObjectKey::new(&prefix).is_err() {
            return Err(settings.error(
                "the prefix consists of letters, digits and `._-`, in components with `/` between them that do not start with a dot",
            ));
        }
        Ok(Self { scheme, bucket, prefix })
    }

    /// What errors call it.
    fn shown(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{}://{}{slash}{}", self.scheme, self.bucket, self.prefix)
    }

    fn sink(
        &self,
        store: Arc<dyn ObjectStore>,
        ordered: bool,
        patience: Option<NonZeroU16>,
    ) -> Result<Arc<dyn Sink>> {
        let mut sink =
            ObjectStoreSink::new(store, &self.prefix)?.named(self.shown()).with_ordered_listing(ordered);
        if let Some(seconds) = patience {
            sink = sink.with_patience(Duration::from_secs(seconds.get().into()));
        }
        Ok(Arc::new(Retry::new(sink)))
    }

    /// A failure to make the client. Its message is the crate's own and names settings; no request was sent yet.
    fn unusable(&self, settings: &Settings, error: &object_store::Error) -> Error {
        settings.error(format!("{} cannot be used: {error}", self.shown())).with_kind(ErrorKind::InvalidInput)
    }
}

/// What all clouds' HTTP clients have in common.
fn client(options: ClientOptions, allow_http: Option<bool>) -> ClientOptions {
    // Times are kept by the sink, which knows how much there is to transfer.
    let options = options.with_timeout_disabled().with_connect_timeout(CONNECT_TIME_MAX);
    match allow_http {
        Some(allow) => options.with_allow_http(allow),
        None => options,
    }
}

/// The options of HTTP clients that an environment has, under the names of `object_store`: `AWS_ALLOW_HTTP`,
/// `AWS_PROXY_URL` and the like.
fn client_from(prefix: &str) -> ClientOptions {
    let mut options = ClientOptions::new();
    for (name, value) in std::env::vars_os() {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        let Some(rest) = name.strip_prefix(prefix) else { continue };
        if let Ok(key) = rest.to_ascii_lowercase().parse::<ClientConfigKey>() {
            options = options.with_config(key, value);
        }
    }
    options
}

/// `object_store` repeats nothing: it would take its own object for someone else's.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// A secret as text.
async fn secret(
    settings: &Settings,
    context: &BuildContext,
    name: &str,
    reference: Option<&SecretRef>,
) -> Result<Option<String>> {
    let Some(reference) = reference else { return Ok(None) };
    let secret = context.secret(reference).await?;
    match std::str::from_utf8(secret.expose()) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(settings.error(format!("the secret that `{name}` refers to is not text"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Option<(String, String)> {
        let settings = Settings::new("b.toml", "places.x", serde_json::Map::new());
        Place::of(&settings, "s3", Some(url), None, None).ok().map(|place| (place.bucket, place.prefix))
    }

    #[test]
    fn urls_name_a_bucket_and_a_prefix_and_nothing_else() {
        let found = |bucket: &str, prefix: &str| Some((bucket.to_owned(), prefix.to_owned()));
        assert_eq!(place("s3://bucket"), found("bucket", ""));
        assert_eq!(place("s3://bucket/"), found("bucket", ""));
        assert_eq!(place("s3://bucket/a/b/"), found("bucket", "a/b"));
        for url in [
            "s3://",
            "s3:///prefix",
            "s3://key:secret@bucket/prefix",
            "s3://bucket/prefix?versionId=1",
            "s3://bucket/a//b",
            "s3://bucket/../b",
            "s3://bucket/.hidden",
            "s3://bucket:80/a",
        ] {
            assert_eq!(place(url), None, "{url}");
        }
    }
}
