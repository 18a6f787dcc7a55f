//! A request that the hub answers, now, later, or with a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use edge::Problem;
use edge::hub::{Opening, Request};
use futures_util::Stream;
use tokio::sync::oneshot;

use super::{Hub, Input, Listening, Reply, stream};
use crate::connections::Place;
use crate::http::{read_body, response};
use crate::jobs::to_response;

/// Has the hub answer a request.
pub(crate) async fn ask(hub: &Hub, opening: Opening, body: Body, place: Option<Place>) -> Response {
    match request(opening, body).await {
        Ok(request) => answer_or_stream(hub, request, place).await,
        Err(problem) => to_response(problem.response()),
    }
}

async fn request(opening: Opening, body: Body) -> Result<Request, Problem> {
    let limit = opening.body_limit();
    let body = match limit {
        // It means nothing.
        0 => Vec::new(),
        _ => read_body(body, limit).await.map_err(|error| Problem::MalformedJson { detail: error.to_string() })?,
    };
    opening.with_body(&body)
}

/// What the hub answers to a request that is no stream.
pub(crate) async fn answer(hub: &Hub, request: Request) -> edge::Response {
    let listening = hub.listening();
    match reply(hub, &listening, request).await {
        Some(Reply::Answer(answer)) => answer,
        Some(Reply::Stream(_)) | None => Problem::HubUnavailable.response(),
    }
}

/// Without a reply the server is about to stop.
async fn reply(hub: &Hub, listening: &Listening, request: Request) -> Option<Reply> {
    let (reply, replied) = oneshot::channel();
    hub.inputs.send(Input::Asked(listening.follower, request, reply)).await.ok()?;
    replied.await.ok()
}

async fn answer_or_stream(hub: &Hub, request: Request, place: Option<Place>) -> Response {
    let listening = hub.listening();
    match reply(hub, &listening, request).await {
        Some(Reply::Answer(answer)) => to_response(answer),
        Some(Reply::Stream(pieces)) => {
            place.iter().for_each(Place::is_at_work);
            let body = Body::from_stream(Pieces { pieces, place, _listening: listening });
            let mut answer = response(200, [("content-type", "text/event-stream")], String::new());
            *answer.body_mut() = body;
            answer
        }
        None => to_response(Problem::HubUnavailable.response()),
    }
}

/// The body of a stream. The connection is at work until it ends, and the hub hears when it does.
struct Pieces {
    pieces: stream::Receiver,
    place: Option<Place>,
    _listening: Listening,
}

impl Stream for Pieces {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_next(context).map(|piece| piece.map(Ok))
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.place.iter().for_each(Place::is_idle);
    }
}
