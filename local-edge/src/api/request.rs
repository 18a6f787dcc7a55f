//! What operations take from a request: the token, the ids in the path, the JSON in the body.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, OriginalUri, Path, Request};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ApiError;
use crate::http::{header_text, read_body};
use crate::server::App;
use crate::store::QueueRef;

/// The largest request body that is read: a batch of 256 KB, with all of its characters escaped, and then some.
pub(super) const BYTES_MAX: usize = 4_000_000;

/// The account in the path is the one of this server.
pub(super) struct InAccount;

/// The queue that the path names.
pub(super) struct InQueue(pub(super) QueueRef);

/// The consumer that the path names, and its queue.
pub(super) struct InConsumer(pub(super) QueueRef, pub(super) String);

/// A JSON body; `SCHEMA` is the code for JSON that is not what the operation takes.
pub(super) struct JsonBody<T, const SCHEMA: u32>(pub(super) T);

/// The parameters of all paths.
#[derive(Deserialize)]
struct Ids {
    account_id: String,
    queue_id: Option<String>,
    consumer_id: Option<String>,
}

impl Ids {
    /// Those in a path, with the account looked at.
    async fn of(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        // A path whose ids are no text is no path of ours.
        let ids = Path::<Self>::from_request_parts(parts, app).await.map(|Path(ids)| ids).ok();
        let Some(ids) = ids.filter(|ids| is_id(&ids.account_id)) else {
            let Ok(OriginalUri(uri)) = OriginalUri::from_request_parts(parts, app).await;
            return Err(ApiError::no_route(uri.path()));
        };
        if ids.account_id == app.account_id { Ok(ids) } else { Err(ApiError::wrong_account()) }
    }

    fn queue(&self) -> Result<QueueRef, ApiError> {
        let id = self.queue_id.as_ref().filter(|id| is_id(id)).ok_or_else(ApiError::malformed_queue_id)?;
        Ok(QueueRef::Id(id.clone()))
    }
}

impl FromRequestParts<Arc<App>> for InAccount {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        Ids::of(parts, app).await.map(|_| Self)
    }
}

impl FromRequestParts<Arc<App>> for InQueue {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        Ids::of(parts, app).await?.queue().map(Self)
    }
}

impl FromRequestParts<Arc<App>> for InConsumer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let ids = Ids::of(parts, app).await?;
        Ok(Self(ids.queue()?, ids.consumer_id.unwrap_or_default()))
    }
}

impl<T: DeserializeOwned, const SCHEMA: u32> FromRequest<Arc<App>> for JsonBody<T, SCHEMA> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Arc<App>) -> Result<Self, ApiError> {
        read_json(request.into_body(), SCHEMA).await.map(Self)
    }
}

/// Lets in who has the token. Compared in constant time.
pub(crate) fn authorize(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let given = header_text(headers, "authorization");
    let token = given.as_deref().and_then(|text| text.split_once(' ')).filter(|(scheme, _)| {
        // The scheme has no case (RFC 9110).
        scheme.eq_ignore_ascii_case("bearer")
    });
    match token {
        Some((_, token)) if app.token.matches(token.trim()) => Ok(()),
        Some(_) => Err(ApiError::wrong_token()),
        None => Err(ApiError::no_token()),
    }
}

/// Reads a JSON body; `schema` is the code for JSON that is not what the operation takes.
pub(crate) async fn read_json<T: DeserializeOwned>(body: Body, schema: u32) -> Result<T, ApiError> {
    let bytes = read_body(body, BYTES_MAX).await.map_err(ApiError::broken_body)?;
    if bytes.len() > BYTES_MAX {
        return Err(ApiError::request_too_large());
    }
    serde_json::from_slice(&bytes).map_err(|error| ApiError::json(&error, schema))
}

/// Ids of accounts, queues and consumers are 32 hexadecimal digits.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
