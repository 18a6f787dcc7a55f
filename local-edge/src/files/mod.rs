//! A store of files of its own, as S3 has it, below `/s3`; and asking the store that the hub works with.
//!
//! The protocol is written here, on what the server is made of already. The crate `s3s`, which is made for it, cannot
//! stand below a path: what is signed is the whole path, and it takes the first part for the bucket. It brings a
//! hundred other crates, and asks for a newer compiler than this project does.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `ask` | questions of the hub to the store |
//! | `auth` | who may ask |
//! | `body`, `chunked` | bodies on their way to the disk |
//! | `pieces` | contents on the disk |
//! | `index` | what is in the store |
//! | `objects`, `multipart`, `lists` | the requests |
//! | `xml`, `refusal` | answers, and refusals |
//!
//! Invariant: an object is there as a whole or not at all, whatever dies when; what was answered is on the disk.

mod ask;
mod auth;
mod body;
mod chunked;
mod index;
mod lists;
mod multipart;
mod objects;
mod pieces;
mod refusal;
mod xml;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::any;
use edge::files::Keys;
use protocol::timestamp_from_millis;

pub(crate) use self::ask::Store;
use self::auth::{Asked, Payload};
use self::index::Index;
use self::pieces::Pieces;
use self::refusal::{Refusal, refusal};
use crate::connections::Place;
use crate::data_dir::DataDir;
use crate::http::{SharedBody, discard_rest_of_file, header_text, response};
use crate::server::App;

/// The path that it is below.
pub(crate) const BASE: &str = "/s3";

/// Its one bucket.
pub(crate) const BUCKET: &str = "files";

/// Its region; others are taken as well.
pub(crate) const REGION: &str = "auto";

/// An upload of which nothing was heard for so long is forgotten. The hub forgets its own after a day.
const SILENT_AFTER: Duration = Duration::from_hours(7 * 24);

/// The largest body that is no file.
const BODY_BYTES_MAX: usize = 2_000_000;

/// The store.
pub(crate) struct Own {
    keys: Keys,
    pieces: Pieces,
    index: store::Store<Index>,
}

/// The store before its thread is started.
pub(crate) struct Opened {
    keys: Keys,
    pieces: Pieces,
    index: Index,
}

impl Opened {
    /// Opens what is in the data directory, and removes what was never finished.
    pub(crate) fn open(data_dir: &DataDir, keys: Keys, now: i64) -> anyhow::Result<Self> {
        let path = data_dir.path().join("files");
        let pieces = Pieces::open(path.clone()).with_context(|| format!("cannot use {}", path.display()))?;
        let index = Index::open(&data_dir.path().join("files.sqlite"))?;
        let silent = now - i64::try_from(SILENT_AFTER.as_millis()).unwrap_or(i64::MAX);
        index.abort_silent(silent)?;
        let gone = pieces.keep_only(&index.known()?).with_context(|| format!("cannot look at {}", path.display()))?;
        if gone > 0 {
            tracing::debug!("removed {gone} files that belonged to nothing");
        }
        Ok(Self { keys, pieces, index })
    }

    /// Starts the thread of the index.
    pub(crate) fn start(self) -> anyhow::Result<(Own, store::Thread)> {
        let started = store::Store::start(self.index, store::Options::default());
        let (index, thread) = started.context("cannot start the thread of the index of files")?;
        Ok((Own { keys: self.keys, pieces: self.pieces, index }, thread))
    }
}

/// The paths of the store. What goes through them may take long, and is bounded by its own rules.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new().route("/s3", any(handle)).route("/s3/", any(handle)).route("/s3/{*path}", any(handle))
}

async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Some(own) = &app.files else {
        return refusal(404, "NoSuchBucket", "this server holds no files: they are at FILES_ENDPOINT").response();
    };
    let place = head.extensions.get::<Place>().cloned();
    let body = SharedBody::new(body);
    let is_head = head.method == "HEAD";
    let answered = own.answer(&head, Body::from_stream(body.clone()), place, app.now()).await;
    match answered {
        Ok(answer) => answer,
        Err(refusal) => {
            discard_rest_of_file(body).await;
            let mut answer = refusal.response();
            if is_head {
                *answer.body_mut() = Body::empty();
            }
            answer
        }
    }
}

impl Own {
    pub(crate) async fn answer(
        &self,
        head: &Parts,
        body: Body,
        place: Option<Place>,
        now: i64,
    ) -> Result<Response, Refusal> {
        let mut asked = auth::check(head, &self.keys, timestamp_from_millis(now))?;
        // From here on it is somebody who may.
        let working = place.map(Working::new);
        let payload = std::mem::replace(&mut asked.payload, Payload::Unsigned);
        let path = asked.path.strip_prefix(BASE).unwrap_or_default().trim_start_matches('/').to_owned();
        let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
        let method = head.method.as_str();
        if bucket.is_empty() {
            return if method == "GET" { Ok(lists::buckets(now)) } else { Err(not_implemented()) };
        }
        if bucket != BUCKET {
            return Err(refusal(404, "NoSuchBucket", format!("the only bucket here is `{BUCKET}`")));
        }
        if key.is_empty() {
            return self.of_bucket(method, &asked, payload, &head.headers, body).await;
        }
        if key.len() > 1_024 {
            return Err(refusal(400, "KeyTooLongError", "the name of an object may have 1,024 bytes"));
        }
        let upload = asked.field("uploadId");
        let received = (payload, &head.headers, body);
        match (method, upload) {
            ("POST", None) if asked.field("uploads").is_some() => self.begin(key, &head.headers, now).await,
            ("PUT", Some(upload)) => self.put_part(key, upload, &asked, received, now).await,
            ("GET", Some(upload)) => self.parts(key, upload, &asked).await,
            ("POST", Some(upload)) => self.complete(key, upload, received, now).await,
            ("DELETE", Some(upload)) => self.abort(key, upload).await,
            ("PUT", None) if head.headers.contains_key("x-amz-copy-source") => Err(not_implemented()),
            ("PUT", None) if is_plain(&asked) => self.put(key, received, now).await,
            ("GET" | "HEAD", None) if is_plain(&asked) => self.get(key, method, &asked, &head.headers, working).await,
            ("DELETE", None) if is_plain(&asked) => self.delete(key).await,
            _ => Err(not_implemented()),
        }
    }

    async fn of_bucket(
        &self,
        method: &str,
        asked: &Asked,
        payload: Payload,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Refusal> {
        match method {
            "HEAD" => Ok(response(200, [("x-amz-bucket-region", REGION)], String::new())),
            "GET" if asked.field("location").is_some() => Ok(lists::location()),
            "GET" if asked.field("uploads").is_some() => self.uploads(asked).await,
            "GET" if asked.field("versioning").is_some() => Ok(lists::versioning()),
            "GET" => self.list(asked).await,
            "PUT" => Err(refusal(409, "BucketAlreadyOwnedByYou", "the bucket is there")),
            "POST" if asked.field("delete").is_some() => self.delete_many(payload, headers, body).await,
            _ => Err(not_implemented()),
        }
    }

    /// Has the index do something; what comes of it is on the disk.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Index) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.index.call(work).await.map_err(|error| Refusal::of_index(&error))
    }

    /// A body that is no file.
    async fn text(&self, payload: Payload, headers: &HeaderMap, body: Body) -> Result<String, Refusal> {
        let written = body::receive_small(payload, headers, body, BODY_BYTES_MAX).await?;
        String::from_utf8(written).map_err(|_| refusal(400, "MalformedXML", "the body is not UTF-8"))
    }
}

/// Is nothing asked for but the object itself? What is not known here must not be done as if it were.
fn is_plain(asked: &Asked) -> bool {
    const OTHERS: [&str; 9] =
        ["acl", "tagging", "attributes", "torrent", "retention", "legal-hold", "restore", "select", "partNumber"];
    !OTHERS.iter().any(|name| asked.field(name).is_some())
}

fn not_implemented() -> Refusal {
    refusal(501, "NotImplemented", "this store does not do that")
}

/// Goes on to its end whoever stops waiting for it: what is on the disk must come into the index, or go.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(refusal(500, "InternalError", "it ended by itself; see the log")))
}

/// A connection that is at work, until this is dropped.
struct Working(Place);

impl Working {
    fn new(place: Place) -> Self {
        place.is_at_work();
        Self(place)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.is_idle();
    }
}

/// The headers that are kept with an object, as JSON.
fn kept(headers: &HeaderMap) -> Result<String, Refusal> {
    const KEPT: [&str; 5] =
        ["content-type", "content-disposition", "content-encoding", "content-language", "cache-control"];
    let names = headers.keys().map(|name| name.as_str());
    let kept: std::collections::BTreeMap<&str, String> = names
        .filter(|name| KEPT.contains(name) || name.starts_with("x-amz-meta-"))
        .filter_map(|name| Some((name, header_text(headers, name)?.into_owned())))
        .map(|(name, value)| {
            // The coding is that of the way here, and not of what is kept.
            let value = if name == "content-encoding" { value.replace("aws-chunked", "") } else { value };
            (name, value.trim_matches([',', ' ']).to_owned())
        })
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let text = serde_json::to_string(&kept).unwrap_or_default();
    if text.len() > 8_192 {
        return Err(refusal(400, "MetadataTooLarge", "the headers that are kept with an object may have 8 KiB"));
    }
    Ok(text)
}
