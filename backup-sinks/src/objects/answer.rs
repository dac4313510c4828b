//! The HTTP layer below a cloud's store: keeps what the server answered, waits when it asks for that, and lets others read
//! listings first.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::ErrorKind;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use tokio::time::Instant;

use super::error::brief;
use crate::clouds::ReadListing;

/// The longest that a server may tell its clients to stay away.
const STAY_AWAY_MAX: Duration = Duration::from_secs(60);

/// A refusal of a server.
#[derive(Debug)]
pub(crate) struct Answer {
    status: u16,
    /// The `Code` of the XML that S3, Google and Azure send.
    code: String,
    message: String,
}

impl Answer {
    fn new(status: u16, body: &str) -> Self {
        Self { status, code: element(body, "Code"), message: element(body, "Message") }
    }

    /// The answer that a failure is of, if it is of one.
    #[cfg(feature = "s3")]
    pub(crate) fn within<'a>(failure: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut at = Some(failure);
        while let Some(error) = at {
            if let Some(answer) = error.downcast_ref::<Self>() {
                return Some(answer);
            }
            at = error.source();
        }
        None
    }

    /// What it means. The store's own code says more than the status where both are there.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self.code.as_str() {
            "NoSuchBucket" | "ContainerNotFound" | "InvalidBucketName" => return ErrorKind::InvalidInput,
            // S3 answers 400 where it waited too long for a body.
            "RequestTimeout" | "InternalError" | "SlowDown" | "ServerBusy" | "OperationTimedOut" => {
                return ErrorKind::Transient;
            }
            // <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html>: it is in a class for archives.
            "InvalidObjectState" => return ErrorKind::Cold,
            "QuotaExceeded"
            | "QuotaExceededException"
            | "XMinioStorageFull"
            | "InsufficientStorage"
            | "StorageFull" => return ErrorKind::NoSpace,
            _ => {}
        }
        match self.status {
            401 | 403 | 407 => ErrorKind::Denied,
            404 => ErrorKind::NotFound,
            408 | 409 | 425 | 429 => ErrorKind::Transient,
            501 | 505 => ErrorKind::Unsupported,
            507 => ErrorKind::NoSpace,
            500..600 => ErrorKind::Transient,
            _ => ErrorKind::Io,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store answered {}", self.status)?;
        match (self.code.as_str(), self.message.as_str()) {
            ("", "") => Ok(()),
            (code, "") => write!(f, " ({code})"),
            ("", message) => write!(f, " ({message})"),
            (code, message) => write!(f, " ({code}: {message})"),
        }
    }
}

impl std::error::Error for Answer {}

/// Makes clients whose refusals are [`Answer`]s, apart from those that `object_store` tells apart itself.
#[derive(Debug)]
pub(crate) struct Connector {
    gate: Arc<Gate>,
    listings: Option<ReadListing>,
    as_stored: bool,
}

impl Connector {
    pub(crate) fn new(listings: Option<ReadListing>) -> Self {
        Self { gate: Arc::default(), listings, as_stored: false }
    }

    /// Asks for content as it is stored. Google unpacks what was stored with `Content-Encoding: gzip` for clients that do
    /// not accept that: <https://cloud.google.com/storage/docs/transcoding>.
    #[cfg(feature = "gcs")]
    pub(crate) fn without_transcoding(mut self) -> Self {
        self.as_stored = true;
        self
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        let (gate, listings, as_stored) = (Arc::clone(&self.gate), self.listings, self.as_stored);
        Ok(HttpClient::new(Service { inner, gate, listings, as_stored }))
    }
}

#[derive(Debug)]
struct Service {
    inner: HttpClient,
    gate: Arc<Gate>,
    listings: Option<ReadListing>,
    as_stored: bool,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.gate.pass().await;
        if self.as_stored
            && let Ok(gzip) = "gzip".parse()
        {
            request.headers_mut().insert("accept-encoding", gzip);
        }
        let listings = self.listings.filter(|_| lists(&request));
        let response = self.inner.execute(request).await?;
        let status = response.status().as_u16();
        if matches!(status, 429 | 503) {
            let header = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
            if let Some(seconds) = header.and_then(|value| value.trim().parse().ok()) {
                self.gate.close(Duration::from_secs(seconds));
            }
        }
        // Conditions that do not hold are answers, too, and `object_store` knows them.
        if status < 400 || matches!(status, 409 | 412) {
            return match listings {
                Some(read) if status == 200 => rewritten(response, read).await,
                _ => Ok(response),
            };
        }
        let (parts, body) = response.into_parts();
        let body = body.bytes().await?;
        let answer = Answer::new(status, &String::from_utf8_lossy(&body));
        if status == 404 && answer.kind() == ErrorKind::NotFound {
            return Ok(HttpResponse::from_parts(parts, body.into()));
        }
        Err(HttpError::new(HttpErrorKind::Unknown, answer))
    }
}

/// Whether a request is for a listing: of S3 and Google, which speak the same there, or of Azure.
fn lists(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.method().as_str() == "GET"
        && query.split('&').any(|part| matches!(part, "list-type=2" | "comp=list"))
}

/// A listing as somebody else reads it. It is in memory as a whole, as it will be for `object_store`, too.
async fn rewritten(response: HttpResponse, read: ReadListing) -> Result<HttpResponse, HttpError> {
    let (mut parts, body) = response.into_parts();
    let body = body.bytes().await?;
    parts.headers.remove("content-length");
    let body = match String::from_utf8(body.to_vec()) {
        Ok(xml) => read(xml).into(),
        Err(_) => body,
    };
    Ok(HttpResponse::from_parts(parts, body.into()))
}

/// Closed while the server wants no requests.
#[derive(Debug, Default)]
struct Gate(Mutex<Option<Instant>>);

impl Gate {
    fn close(&self, time: Duration) {
        let until = Instant::now().checked_add(time.min(STAY_AWAY_MAX));
        let mut closed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *closed = (*closed).max(until);
    }

    async fn pass(&self) {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }
}

/// The text of the first element of this name.
fn element(xml: &str, name: &str) -> String {
    let text = xml.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once("</"));
    text.map(|(text, _)| brief(text.trim())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_mean_what_stores_mean_by_them() {
        for (status, code, kind) in [
            (500, "", ErrorKind::Transient),
            (503, "SlowDown", ErrorKind::Transient),
            (429, "", ErrorKind::Transient),
            (400, "RequestTimeout", ErrorKind::Transient),
            (400, "MalformedXML", ErrorKind::Io),
            (403, "SignatureDoesNotMatch", ErrorKind::Denied),
            (404, "NoSuchKey", ErrorKind::NotFound),
            (404, "NoSuchBucket", ErrorKind::InvalidInput),
            (501, "NotImplemented", ErrorKind::Unsupported),
            (507, "", ErrorKind::NoSpace),
            (403, "QuotaExceeded", ErrorKind::NoSpace),
            (403, "InvalidObjectState", ErrorKind::Cold),
        ] {
            let body =
                format!("<Error><Code>{code}</Code><Message>why</Message><Secret>s3cret</Secret></Error>");
            let answer = Answer::new(status, &body);
            assert_eq!(answer.kind(), kind, "{status} {code}");
            assert!(answer.to_string().contains("why") && !answer.to_string().contains("s3cret"));
        }
    }
}
