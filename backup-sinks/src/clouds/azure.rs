//! Azure Blob Storage.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use backup_core::Result;
use backup_core::config::{BuildContext, SecretRef, Settings};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use serde::Deserialize;

use super::{Bucket, Place, ReadListing, client, client_from, no_retries, secret};
use crate::StorageClasses;
use crate::objects::answer::Connector;

/// Settings of the kind `azure`. What is left out comes from `AZURE_*`: `AZURE_STORAGE_CONNECTION_STRING`, or
/// `AZURE_STORAGE_ACCOUNT_NAME` (or `AZURE_STORAGE_ACCOUNT`), `AZURE_STORAGE_ACCOUNT_KEY` (or `AZURE_STORAGE_KEY`),
/// `AZURE_STORAGE_SAS_TOKEN`, `AZURE_STORAGE_ENDPOINT`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET`, `AZURE_TENANT_ID`,
/// `AZURE_FEDERATED_TOKEN_FILE`; or from the machine's own identity. `AZURE_STORAGE_USE_EMULATOR=true` means Azurite, at
/// `AZURITE_BLOB_STORAGE_URL`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Azure {
    url: Option<String>,
    container: Option<String>,
    prefix: Option<String>,
    account: Option<String>,
    /// Another server than `https://<account>.blob.core.windows.net`.
    endpoint: Option<String>,
    /// Whether the endpoint may be without TLS.
    allow_http: Option<bool>,
    /// How long a request may stand still; a minute if not given.
    timeout_seconds: Option<NonZeroU16>,
    account_key: Option<SecretRef>,
    sas_token: Option<SecretRef>,
    connection_string: Option<SecretRef>,
    /// In which access tier objects are created, by kind: `{ data = "Cool" }`. `Archive` is refused: nothing here asks for its return.
    #[serde(default)]
    storage_classes: BTreeMap<String, String>,
}

pub(super) async fn open(
    settings: &Settings,
    context: &BuildContext,
    listings: Option<ReadListing>,
) -> Result<Bucket> {
    let given: Azure = settings.parse()?;
    let place = Place::of(settings, "az", given.url.as_deref(), given.container, given.prefix)?;
    let mut builder = MicrosoftAzureBuilder::from_env();
    // Names that Azure's own tools use and `object_store` does not.
    for (name, key) in [
        ("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName),
        ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey),
    ] {
        if let Ok(value) = std::env::var(name) {
            builder = builder.with_config(key, value);
        }
    }
    let reference = given.connection_string.as_ref();
    let connection = match secret(settings, context, "connection_string", reference).await? {
        Some(text) => Some(text),
        None => std::env::var("AZURE_STORAGE_CONNECTION_STRING").ok(),
    };
    let mut allow_http = given.allow_http;
    if let Some(text) = connection {
        let found = Connection::parse(&text).ok_or_else(|| {
            settings.error("the connection string is not of the form NAME=VALUE;NAME=VALUE")
        })?;
        // Whoever writes such an address into it means it.
        if found.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")) {
            allow_http = allow_http.or(Some(true));
        }
        for (key, value) in [
            (AzureConfigKey::AccountName, found.account),
            (AzureConfigKey::AccessKey, found.key),
            (AzureConfigKey::SasKey, found.sas),
            (AzureConfigKey::Endpoint, found.endpoint),
        ] {
            if let Some(value) = value {
                builder = builder.with_config(key, value);
            }
        }
    }
    for (key, value) in
        [(AzureConfigKey::AccountName, given.account), (AzureConfigKey::Endpoint, given.endpoint)]
    {
        if let Some(value) = value {
            builder = builder.with_config(key, value);
        }
    }
    for (name, reference, key) in [
        ("account_key", &given.account_key, AzureConfigKey::AccessKey),
        ("sas_token", &given.sas_token, AzureConfigKey::SasKey),
    ] {
        if let Some(secret) = secret(settings, context, name, reference.as_ref()).await? {
            builder = builder.with_config(key, secret);
        }
    }
    let builder = builder
        .with_container_name(&place.bucket)
        .with_retry(no_retries())
        .with_http_connector(Connector::new(listings))
        .with_client_options(client(client_from("AZURE_"), allow_http));
    let store = builder.build().map_err(|e| place.unusable(settings, &e))?;
    if given.storage_classes.values().any(|class| class.eq_ignore_ascii_case("archive")) {
        return Err(settings.error("storage_classes: what is in Archive cannot be read at once, and nothing here asks for its return; Cold can"));
    }
    let classes = StorageClasses::new(given.storage_classes).map_err(|e| settings.error(e.message()))?;
    Ok(place.bucket(Arc::new(store), true, given.timeout_seconds).with_classes(classes))
}

/// What a connection string of Azure's tools says.
#[derive(Debug, Default, PartialEq)]
struct Connection {
    account: Option<String>,
    key: Option<String>,
    sas: Option<String>,
    endpoint: Option<String>,
}

impl Connection {
    fn parse(text: &str) -> Option<Self> {
        let mut found = Self::default();
        let (mut scheme, mut suffix) = ("https", None);
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=')?;
            match name.to_ascii_lowercase().as_str() {
                "accountname" => found.account = Some(value.to_owned()),
                "accountkey" => found.key = Some(value.to_owned()),
                "sharedaccesssignature" => found.sas = Some(value.trim_start_matches('?').to_owned()),
                "blobendpoint" => found.endpoint = Some(value.trim_end_matches('/').to_owned()),
                "defaultendpointsprotocol" => scheme = value,
                "endpointsuffix" => suffix = Some(value),
                _ => {}
            }
        }
        if let (None, Some(account), Some(suffix)) = (&found.endpoint, &found.account, suffix) {
            found.endpoint = Some(format!("{scheme}://{account}.blob.{suffix}"));
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_name_account_key_and_endpoint() {
        let text = |text: &str| Some(text.to_owned());
        let azurite = "DefaultEndpointsProtocol=http;AccountName=dev;AccountKey=a==;BlobEndpoint=http://127.0.0.1:1/dev;";
        let expected = Connection {
            account: text("dev"),
            key: text("a=="),
            sas: None,
            endpoint: text("http://127.0.0.1:1/dev"),
        };
        assert_eq!(Connection::parse(azurite), Some(expected));
        let cloud = Connection::parse("AccountName=a;AccountKey=b;EndpointSuffix=core.windows.net").unwrap();
        assert_eq!(cloud.endpoint, text("https://a.blob.core.windows.net"));
        assert_eq!(Connection::parse("nonsense"), None);
    }
}
