//! Google Cloud Storage.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;

use backup_core::Result;
use backup_core::config::{BuildContext, SecretRef, Settings};
use object_store::StaticCredentialProvider;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use serde::Deserialize;

use super::{Bucket, Place, ReadListing, client, client_from, no_retries, secret};
use crate::StorageClasses;
use crate::objects::answer::Connector;

/// Settings of the kind `gcs`. What is left out comes from `GOOGLE_*`: `GOOGLE_APPLICATION_CREDENTIALS`,
/// `GOOGLE_SERVICE_ACCOUNT` (a path), `GOOGLE_SERVICE_ACCOUNT_KEY`, `GOOGLE_BASE_URL`, `GOOGLE_ALLOW_HTTP`; or from the
/// application default credentials of `gcloud`, or the machine's own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gcs {
    url: Option<String>,
    bucket: Option<String>,
    prefix: Option<String>,
    /// Another server than Google's.
    endpoint: Option<String>,
    /// Whether the endpoint may be without TLS.
    allow_http: Option<bool>,
    /// How long a request may stand still; a minute if not given.
    timeout_seconds: Option<NonZeroU16>,
    /// The file of a service account.
    service_account_file: Option<PathBuf>,
    /// The JSON of a service account.
    service_account_key: Option<SecretRef>,
    /// Sends requests without credentials, as for public buckets.
    anonymous: Option<bool>,
    /// In which class objects are created, by kind: `{ data = "NEARLINE" }`.
    #[serde(default)]
    storage_classes: BTreeMap<String, String>,
}

pub(super) async fn open(
    settings: &Settings,
    context: &BuildContext,
    listings: Option<ReadListing>,
) -> Result<Bucket> {
    let given: Gcs = settings.parse()?;
    let place = Place::of(settings, "gs", given.url.as_deref(), given.bucket, given.prefix)?;
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&place.bucket)
        .with_retry(no_retries())
        .with_http_connector(Connector::new(listings).without_transcoding());
    if let Some(endpoint) = given.endpoint {
        builder = builder.with_config(GoogleConfigKey::BaseUrl, endpoint);
    }
    if let Some(path) = given.service_account_file {
        builder = builder.with_service_account_path(context.path(path).to_string_lossy());
    }
    let key = given.service_account_key.as_ref();
    if let Some(key) = secret(settings, context, "service_account_key", key).await? {
        builder = builder.with_service_account_key(key);
    }
    if given.anonymous == Some(true) {
        // Puts do not heed `skip_signature`: without credentials at hand they would ask Google's own machines for some.
        let none = StaticCredentialProvider::new(GcpCredential { bearer: String::new() });
        builder = builder.with_skip_signature(true).with_credentials(Arc::new(none));
    }
    let builder = builder.with_client_options(client(client_from("GOOGLE_"), given.allow_http));
    let store = builder.build().map_err(|e| place.unusable(settings, &e))?;
    let classes = StorageClasses::new(given.storage_classes).map_err(|e| settings.error(e.message()))?;
    Ok(place.bucket(Arc::new(store), true, given.timeout_seconds).with_classes(classes))
}
