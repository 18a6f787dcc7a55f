//! The WebSocket of a site.
//!
//! A site that says nothing for long, not even that it is there, is gone; one that does not read is closed.

use std::time::Duration;

use axum::extract::FromRequestParts as _;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use edge::Problem;
use edge::hub::{Event, Socket};
use protocol::link::{MESSAGE_BYTES_MAX, PING, PONG};
use tokio::sync::mpsc;

use super::{Hub, Input, MESSAGES_MAX, ToSite};
use crate::connections::Place;
use crate::jobs::to_response;
use crate::random;

/// A site sends something every 30 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// How long a message to a site may take on its way out.
const SEND_PATIENCE: Duration = Duration::from_secs(30);

/// Makes a WebSocket of a request whose key was looked at.
pub(crate) async fn link(hub: &Hub, mut head: Parts, place: Option<Place>) -> Response {
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut head, &()).await {
        Ok(upgrade) => upgrade,
        Err(_) => return to_response(Problem::UpgradeRequired.response()),
    };
    let hub = hub.clone();
    // One byte more, so that the hub can say what is wrong.
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX + 1).max_frame_size(MESSAGE_BYTES_MAX + 1);
    upgrade.on_upgrade(move |socket| converse(hub, socket, place)).into_response()
}

async fn converse(hub: Hub, mut socket: WebSocket, place: Option<Place>) {
    place.iter().for_each(Place::is_at_work);
    let name: Socket = random::hex();
    let (way, mut out) = mpsc::channel(MESSAGES_MAX);
    if hub.inputs.send(Input::Linked(name.clone(), way)).await.is_err() {
        return;
    }
    let ended = exchange(&hub, &mut socket, &name, &mut out).await;
    if let Some((code, reason)) = ended {
        let frame = CloseFrame { code, reason: reason.into() };
        let _ = tokio::time::timeout(SEND_PATIENCE, socket.send(Message::Close(Some(frame)))).await;
    }
    // The end of the task is the end of the links as well.
    let _ = hub.inputs.send(Input::Event(Event::LinkClosed(name))).await;
}

/// Returns with what to close, if the other end has not gone.
async fn exchange(
    hub: &Hub,
    socket: &mut WebSocket,
    name: &Socket,
    out: &mut mpsc::Receiver<ToSite>,
) -> Option<(u16, &'static str)> {
    let mut heard = tokio::time::Instant::now();
    loop {
        let message = tokio::select! {
            to_site = out.recv() => match to_site {
                Some(ToSite::Message(text)) => text,
                Some(ToSite::Close(code, reason)) => return Some((code, reason)),
                None => return Some((1012, "restart")),
            },
            said = socket.recv() => {
                heard = tokio::time::Instant::now();
                match said {
                    Some(Ok(Message::Text(text))) if text == PING => PONG.to_owned(),
                    Some(Ok(Message::Text(text))) => {
                        let event = Event::LinkMessage(name.clone(), text.as_str().to_owned());
                        if hub.inputs.send(Input::Event(event)).await.is_err() {
                            return Some((1012, "restart"));
                        }
                        continue;
                    }
                    Some(Ok(Message::Binary(_))) => return Some((1003, "text_only")),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_))) | None => return None,
                    Some(Err(error)) => {
                        tracing::debug!("a link has ended: {error}");
                        return Some((1009, "bad_frame"));
                    }
                }
            }
            () = tokio::time::sleep_until(heard + SILENCE_MAX) => return Some((4408, "silent")),
        };
        match tokio::time::timeout(SEND_PATIENCE, socket.send(Message::text(message))).await {
            Ok(Ok(())) => {}
            _ => return None,
        }
    }
}
