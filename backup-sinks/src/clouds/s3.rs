//! Amazon S3, and stores that speak its protocol.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use backup_core::Result;
use backup_core::config::{BuildContext, SecretRef, Settings};
use object_store::ClientOptions;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use serde::Deserialize;

use super::{Bucket, Place, ReadListing, client, client_from, no_retries, secret};
use crate::StorageClasses;
use crate::objects::answer::Connector;

pub(crate) mod thaw;

/// Settings of the kind `s3`. What is left out comes from `AWS_*`: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
/// `AWS_SESSION_TOKEN`, `AWS_REGION` or `AWS_DEFAULT_REGION`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`,
/// `AWS_VIRTUAL_HOSTED_STYLE_REQUEST`, roles by `AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_CONTAINER_CREDENTIALS_*`, or the
/// machine's own. Shared credential files and profiles are not read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct S3 {
    url: Option<String>,
    bucket: Option<String>,
    prefix: Option<String>,
    /// Another server than Amazon's, like `https://minio.example.org:9000`.
    endpoint: Option<String>,
    region: Option<String>,
    /// Whether the endpoint may be without TLS.
    allow_http: Option<bool>,
    /// How long a request may stand still; a minute if not given.
    timeout_seconds: Option<NonZeroU16>,
    /// Whether the bucket is part of the host's name and not of the path.
    virtual_hosted_style: Option<bool>,
    access_key_id: Option<SecretRef>,
    secret_access_key: Option<SecretRef>,
    session_token: Option<SecretRef>,
    /// The key of Amazon's KMS with which the server encrypts on top.
    sse_kms_key_id: Option<String>,
    /// In which class objects are created, by kind: `{ data = "STANDARD_IA" }`.
    #[serde(default)]
    storage_classes: BTreeMap<String, String>,
}

/// What clients of a bucket are made from.
struct Parts {
    place: Place,
    builder: AmazonS3Builder,
    options: ClientOptions,
    patience: Option<NonZeroU16>,
    classes: StorageClasses,
}

pub(super) async fn open(
    settings: &Settings,
    context: &BuildContext,
    listings: Option<ReadListing>,
) -> Result<Bucket> {
    let Parts { place, builder, patience, classes, .. } = parts(settings, context, listings).await?;
    let store = builder.build().map_err(|e| place.unusable(settings, &e))?;
    // Directory buckets, whose names end so, list in no order.
    let ordered = !place.bucket.ends_with("--x-s3");
    Ok(place.bucket(Arc::new(store), ordered, patience).with_classes(classes))
}

async fn parts(settings: &Settings, context: &BuildContext, listings: Option<ReadListing>) -> Result<Parts> {
    let given: S3 = settings.parse()?;
    let place = Place::of(settings, "s3", given.url.as_deref(), given.bucket, given.prefix)?;
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&place.bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // Several stores lack the request that deletes many.
        .with_disable_bulk_delete(true)
        .with_retry(no_retries())
        .with_http_connector(Connector::new(listings));
    if let Some(endpoint) = given.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = given.region {
        builder = builder.with_region(region);
    }
    if let Some(virtual_hosted) = given.virtual_hosted_style {
        builder = builder.with_virtual_hosted_style_request(virtual_hosted);
    }
    if let Some(key) = given.sse_kms_key_id {
        builder = builder.with_sse_kms_encryption(key);
    }
    for (name, reference, key) in [
        ("access_key_id", &given.access_key_id, AmazonS3ConfigKey::AccessKeyId),
        ("secret_access_key", &given.secret_access_key, AmazonS3ConfigKey::SecretAccessKey),
        ("session_token", &given.session_token, AmazonS3ConfigKey::Token),
    ] {
        if let Some(secret) = secret(settings, context, name, reference.as_ref()).await? {
            builder = builder.with_config(key, secret);
        }
    }
    let options = client(client_from("AWS_"), given.allow_http);
    let classes = StorageClasses::new(given.storage_classes).map_err(|e| settings.error(e.message()))?;
    let builder = builder.with_client_options(options.clone());
    Ok(Parts { place, builder, options, patience: given.timeout_seconds, classes })
}
