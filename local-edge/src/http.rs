//! Reading request bodies and writing answers.

use std::borrow::Cow;
use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use futures_util::{Stream, StreamExt as _};

/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of a refused body is read.
const DISCARD_BYTES_MAX: usize = 8_000_000;

/// The same of a file: a part of one.
const DISCARD_FILE_BYTES_MAX: usize = 80_000_000;

/// How long a refused body is read.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of a request did not come in full.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenBody {
    /// The connection broke.
    #[error("the request body ended early: {0}")]
    Connection(#[from] axum::Error),
    /// It took too long.
    #[error("the request body did not come within {} s", BODY_TIMEOUT.as_secs())]
    Timeout,
}

/// Reads a body. Of one that is longer than `max` only `max + 1` bytes are returned, and no more are read.
pub(crate) async fn read_body(body: Body, max: usize) -> Result<Vec<u8>, BrokenBody> {
    let whole = async {
        let mut body = body.into_data_stream();
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece?);
            if bytes.len() > max {
                bytes.truncate(max + 1);
                break;
            }
        }
        Ok::<_, BrokenBody>(bytes)
    };
    tokio::time::timeout(BODY_TIMEOUT, whole).await.map_err(|_| BrokenBody::Timeout)?
}

/// The body of a request, which its handler reads, and may refuse to: then somebody else sees to its end.
#[derive(Clone)]
pub(crate) struct SharedBody(Arc<Mutex<BodyDataStream>>);

impl SharedBody {
    pub(crate) fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(body.into_data_stream())))
    }
}

impl Stream for SharedBody {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // A reader that panicked has left the body between two pieces.
        Pin::new(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).poll_next(context)
    }
}

/// Reads on to the end of a body that was refused before it was read, and keeps nothing of it: a client that is still
/// sending when the connection closes may lose the answer. Bounded in size and time.
pub(crate) async fn discard_rest(mut body: SharedBody) {
    let rest = async {
        let mut size = 0;
        while size < DISCARD_BYTES_MAX
            && let Some(Ok(piece)) = body.next().await
        {
            size += piece.len();
        }
    };
    // Whether it came to its end or not, the answer goes out.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, rest).await;
}

/// The same of a file, which may be large: a client that sends it may look for an answer only after that.
pub(crate) async fn discard_rest_of_file(mut body: SharedBody) {
    let rest = async {
        let mut size = 0;
        while size < DISCARD_FILE_BYTES_MAX
            && let Some(Ok(piece)) = body.next().await
        {
            size += piece.len();
        }
    };
    let _ = tokio::time::timeout(BODY_TIMEOUT, rest).await;
}

/// A header as text. What is not UTF-8 becomes a text that is surely no valid value.
pub(crate) fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
}

/// An answer with a JSON body.
pub(crate) fn json_response(status: u16, body: String) -> Response {
    response(status, [("content-type", "application/json")], body)
}

/// An answer. A header value that HTTP cannot carry is left out.
pub(crate) fn response<'a>(
    status: u16,
    headers: impl IntoIterator<Item = (&'static str, &'a str)>,
    body: String,
) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status.try_into().expect("every status of this program is one of HTTP");
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// A client of others, also where the system has no certificates of authorities, as in a bare container: there nobody
/// is believed who is asked over TLS, and all else works.
pub(crate) fn client(builder: impl Fn() -> reqwest::ClientBuilder) -> reqwest::Result<reqwest::Client> {
    static TOLD: Once = Once::new();
    // Whoever was first has chosen the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    builder().build().or_else(|_| {
        let client = builder().tls_certs_only([]).build()?;
        TOLD.call_once(|| {
            tracing::warn!(
                "this system has no certificates of authorities (the package ca-certificates, or SSL_CERT_FILE): nobody \
                 can be asked over https, as for a callback"
            );
        });
        Ok(client)
    })
}

/// Why another server could not be asked, without its address: that may be signed, or hold what others need not know.
pub(crate) fn without_address(error: &reqwest::Error, patience: Duration) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", patience.as_secs());
    }
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
