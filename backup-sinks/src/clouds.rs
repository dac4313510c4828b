//! Buckets in the clouds, from settings and URLs: what the sinks of this crate keep objects in, and what a program that
//! knows a source for buckets gives to it.
//!
//! What is not in the settings comes from the cloud's usual environment variables. A configuration refers to secrets
//! (`env:NAME`, `file:PATH`, `command:PROGRAM…`); it does not contain them.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use backup_core::config::{BuildContext, SecretRef, Settings};
use backup_core::{Error, ErrorKind, ObjectKey, Result, Sink};
use object_store::{ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

use crate::objects::error;
use crate::{ObjectStoreSink, Retry, StorageClasses};

#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "gcs")]
mod gcs;
#[cfg(feature = "s3")]
mod s3;

/// How long connecting may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// What [`open`] makes of settings: a bucket (or container), and what sends requests to it.
///
/// Its store repeats no requests. Refusals of the server are understood by [`explain`].
#[derive(Clone)]
#[non_exhaustive]
pub struct Bucket {
    /// Sends the requests; it holds the credentials.
    pub store: Arc<dyn ObjectStore>,
    /// What keys begin with, without slashes at its ends; empty for all.
    pub prefix: String,
    /// Its URL, for errors and snapshots; without secrets.
    pub place: String,
    /// Whether it lists in ascending order of the bytes of keys.
    pub ordered: bool,
    /// How long a request may stand still, if the settings say so.
    pub patience: Option<Duration>,
    /// In which classes objects are created.
    pub classes: StorageClasses,
}

/// What is made of a listing, the XML that a server answers with, before it is understood.
pub type ReadListing = fn(String) -> String;

/// Makes a client of the bucket that the setting `url` names: `s3://bucket/prefix`, `gs://bucket/prefix` or
/// `az://container/prefix`, as far as the features `s3`, `gcs` and `azure` are there. The other settings are those of a sink
/// of that kind. `listings` is for those who need keys that `object_store` refuses. No request is sent.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] names the setting that is missing, unknown or makes no sense, and
/// what else is wrong with the secrets that settings refer to.
pub async fn open(
    settings: &Settings,
    context: &BuildContext,
    listings: Option<ReadListing>,
) -> Result<Bucket> {
    let url = settings.values().get("url").and_then(|url| url.as_str()).unwrap_or_default();
    match url.split_once("://").map(|(scheme, _)| scheme) {
        #[cfg(feature = "s3")]
        Some("s3") => s3::open(settings, context, listings).await,
        #[cfg(feature = "gcs")]
        Some("gs") => gcs::open(settings, context, listings).await,
        #[cfg(feature = "azure")]
        Some("az") => azure::open(settings, context, listings).await,
        _ => {
            let mut known = Vec::new();
            known.extend(cfg!(feature = "s3").then_some("s3://bucket/prefix"));
            known.extend(cfg!(feature = "gcs").then_some("gs://bucket/prefix"));
            known.extend(cfg!(feature = "azure").then_some("az://container/prefix"));
            Err(settings.error(format!("give the bucket as `url`: {}", known.join(", "))))
        }
    }
}

/// What a failure of such a bucket to do something (`list`, `read`) means: the kind, and what the server answered. What was
/// sent is left out: requests can hold signatures.
pub fn explain(failure: &object_store::Error, place: &str, doing: &str) -> Error {
    error::of(failure, place, doing)
}

#[cfg(feature = "s3")]
pub(crate) async fn s3(settings: Settings, context: BuildContext) -> Result<Arc<dyn Sink>> {
    s3::open(&settings, &context, None).await?.sink(&settings)
}

#[cfg(feature = "s3")]
pub(crate) use s3::thaw::thaw as s3_thaw;

#[cfg(feature = "gcs")]
pub(crate) async fn gcs(settings: Settings, context: BuildContext) -> Result<Arc<dyn Sink>> {
    gcs::open(&settings, &context, None).await?.sink(&settings)
}

#[cfg(feature = "azure")]
pub(crate) async fn azure(settings: Settings, context: BuildContext) -> Result<Arc<dyn Sink>> {
    azure::open(&settings, &context, None).await?.sink(&settings)
}

impl Bucket {
    fn with_classes(self, classes: StorageClasses) -> Self {
        Self { classes, ..self }
    }

    fn sink(self, settings: &Settings) -> Result<Arc<dyn Sink>> {
        if !self.prefix.is_empty() && ObjectKey::new(&self.prefix).is_err() {
            return Err(settings.error(
                "the prefix consists of letters, digits and `._-`, in components with `/` between them that do not start with a dot",
            ));
        }
        let mut sink = ObjectStoreSink::new(self.store, &self.prefix)?
            .named(self.place)
            .with_ordered_listing(self.ordered)
            .with_storage_classes(self.classes);
        if let Some(patience) = self.patience {
            sink = sink.with_patience(patience);
        }
        Ok(Arc::new(Retry::new(sink)))
    }
}

impl fmt::Debug for Bucket {
    /// Leaves the store itself out: it holds credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("place", &self.place).finish_non_exhaustive()
    }
}

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
        Ok(Self { scheme, bucket, prefix })
    }

    /// What errors call it.
    fn shown(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{}://{}{slash}{}", self.scheme, self.bucket, self.prefix)
    }

    fn bucket(self, store: Arc<dyn ObjectStore>, ordered: bool, patience: Option<NonZeroU16>) -> Bucket {
        let patience = patience.map(|seconds| Duration::from_secs(seconds.get().into()));
        let classes = StorageClasses::default();
        Bucket { store, place: self.shown(), prefix: self.prefix, ordered, patience, classes }
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
        let place = Place::of(&settings, "s3", Some(url), None, None).ok()?;
        let bucket = place.bucket.clone();
        let made = place.bucket(Arc::new(object_store::memory::InMemory::new()), true, None);
        made.clone().sink(&settings).ok().map(|_| (bucket, made.prefix))
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
