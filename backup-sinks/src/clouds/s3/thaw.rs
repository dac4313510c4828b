//! Asking S3 for objects in its classes for archives.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::config::{BuildContext, Settings};
use backup_core::{Error, ErrorKind, ObjectKey, Readiness, Result, Thaw, ThawSpeed};
use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpConnector, HttpRequest};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};

use super::Parts;
use crate::objects::answer::{Answer, Connector};
use crate::objects::error;

/// How long a signature is good for, and a request may take.
const TIME_MAX: Duration = Duration::from_secs(60);

/// `RestoreObject`: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_RestoreObject.html>.
struct RestoreObject {
    store: AmazonS3,
    client: HttpClient,
    prefix: String,
    place: String,
}

pub(crate) async fn thaw(settings: Settings, context: BuildContext) -> Result<Arc<dyn Thaw>> {
    let Parts { place, builder, options, .. } = super::parts(&settings, &context, None).await?;
    let unusable = |e: object_store::Error| place.unusable(&settings, &e);
    let store = builder.build().map_err(unusable)?;
    let client = Connector::new(None).connect(&options).map_err(unusable)?;
    Ok(Arc::new(RestoreObject { store, client, prefix: place.prefix.clone(), place: place.shown() }))
}

#[async_trait]
impl Thaw for RestoreObject {
    async fn thaw(&self, key: &ObjectKey, days: u32, speed: ThawSpeed) -> Result<Readiness> {
        let answer = tokio::time::timeout(TIME_MAX, self.ask(key, days, speed)).await;
        let silent =
            || Error::new(ErrorKind::Transient, format!("{}: no answer within {TIME_MAX:?}", self.place));
        answer.unwrap_or_else(|_| Err(silent())).map_err(|error| error.with_object(key))
    }
}

impl RestoreObject {
    async fn ask(&self, key: &ObjectKey, days: u32, speed: ThawSpeed) -> Result<Readiness> {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        let path = Path::parse(format!("{}{slash}{key}", self.prefix))
            .map_err(|_| Error::invalid_input("cannot be a key in this store"))?;
        let post = "POST".parse().map_err(|_| Error::internal("POST is not a method"))?;
        // The signature is in the URL: the body needs none.
        let query = SignedUrlOptions::new().with_query([("restore", "")]);
        let url = self.store.signed_url_opts(post, &path, TIME_MAX, &query).await;
        let url = url.map_err(|e| error::of(&e, &self.place, "sign a request"))?;
        let mut request = HttpRequest::new(body(days, speed).into());
        *request.method_mut() = "POST".parse().map_err(|_| Error::internal("POST is not a method"))?;
        let uri = url.as_str().parse();
        *request.uri_mut() = uri.map_err(|_| Error::internal("a signed URL is no URI"))?;
        match self.client.execute(request).await {
            // It was asked for before and is there; or it is asked for now, or was and is under way.
            Ok(answer) if answer.status().as_u16() == 200 => Ok(Readiness::Ready),
            Ok(answer) if matches!(answer.status().as_u16(), 202 | 409) => Ok(Readiness::UnderWay),
            Ok(answer) if answer.status().as_u16() == 404 => {
                Err(Error::new(ErrorKind::NotFound, format!("{}: there is no such object", self.place)))
            }
            Ok(answer) => {
                let message = format!("{}: the store answered {}", self.place, answer.status().as_u16());
                Err(Error::new(ErrorKind::Unsupported, message))
            }
            Err(failure) => match Answer::within(&failure).map(Answer::kind) {
                // Its class is none for archives: there is nothing to ask for.
                Some(ErrorKind::Cold) => Ok(Readiness::Ready),
                kind => {
                    let said = Answer::within(&failure).map(ToString::to_string);
                    let cause = said.unwrap_or_else(|| "the connection failed".to_owned());
                    let message = format!("{}: cannot ask for an object: {cause}", self.place);
                    Err(Error::new(kind.unwrap_or(ErrorKind::Transient), message))
                }
            },
        }
    }
}

fn body(days: u32, speed: ThawSpeed) -> String {
    let tier = match speed {
        ThawSpeed::Bulk => "Bulk",
        ThawSpeed::Standard => "Standard",
        ThawSpeed::Expedited => "Expedited",
    };
    format!(
        r#"<RestoreRequest xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Days>{days}</Days><GlacierJobParameters><Tier>{tier}</Tier></GlacierJobParameters></RestoreRequest>"#
    )
}

impl fmt::Debug for RestoreObject {
    /// Leaves the store itself out: it holds credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestoreObject").field("place", &self.place).finish_non_exhaustive()
    }
}
