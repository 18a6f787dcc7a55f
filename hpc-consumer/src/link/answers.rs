//! What a server says that does not link: short, and in words.

use queues::Address;
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use super::Target;

/// How much of an answer is read.
const ANSWER_BYTES_MAX: usize = 8_000;

/// How much of what others say is told to a person, in characters.
const TEXT_MAX: usize = 300;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It will stay so until a person does something: the text says what. It is tried again seldom.
    ForAPerson(String),
    /// No WebSocket comes about, and an ordinary request may.
    NoWebSocket(String),
    /// It may pass.
    Passing(String),
}

impl Trouble {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::ForAPerson(text) | Self::NoWebSocket(text) | Self::Passing(text) => text,
        }
    }
}

/// The fields of `application/problem+json` that say something here.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
}

/// What others say, as much of it as a person reads.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

impl Target {
    /// What follows from an answer that is not the one that was hoped for. `websocket` tells whether one was asked for.
    pub(super) async fn trouble(&self, response: Response, websocket: bool) -> Trouble {
        let status = response.status();
        let problem = problem(response).await;
        let said = if problem.detail.is_empty() { String::new() } else { format!(": {}", shortened(&problem.detail)) };
        let what = format!("{} answered with HTTP status {}{said}", self.edge, status.as_u16());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Trouble::ForAPerson(format!(
                "{what}; check {}: it must be the SITE_KEY of the edge at {}",
                self.key_origin, self.url_origin
            )),
            StatusCode::CONFLICT => self.refused(&problem.code, &problem.detail),
            StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED => Trouble::ForAPerson(format!(
                "{what}; the edge has no hub: check {}, or update the edge, or unset {}",
                self.url_origin, self.key_origin
            )),
            status if status.is_redirection() => {
                Trouble::ForAPerson(format!("{what}, a redirect, which is not followed; check {}", self.url_origin))
            }
            _ if websocket && !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                Trouble::NoWebSocket(what)
            }
            // A proxy that cannot pass a WebSocket on says so in many ways.
            StatusCode::BAD_GATEWAY | StatusCode::HTTP_VERSION_NOT_SUPPORTED if websocket => Trouble::NoWebSocket(what),
            _ => Trouble::Passing(what),
        }
    }

    /// The hub does not take us.
    pub(super) fn refused(&self, code: &str, detail: &str) -> Trouble {
        let what = format!("the hub at {} refuses this site ({}): {}", self.edge, shortened(code), shortened(detail));
        Trouble::ForAPerson(match code {
            "name_taken" => format!("{what}; SITE_NAME is {} here", self.site),
            _ => what,
        })
    }

    /// Nothing was answered.
    pub(super) fn unanswered(&self, error: &reqwest::Error) -> Trouble {
        Trouble::Passing(queues::transport_text(&self.edge, error))
    }

    /// The address of what lies below that of the edge, if anything may be sent there now.
    pub(super) fn at(&self, name: &str) -> Result<Address, Trouble> {
        self.edge.check().map_err(|unsent| Trouble::Passing(unsent.to_string()))?;
        Ok(self.edge.clone().below([name]))
    }
}

async fn problem(response: Response) -> Problem {
    let bytes = body(response, ANSWER_BYTES_MAX).await.unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// The body of an answer; nothing if it is longer than this, or breaks off.
pub(super) async fn body(mut response: Response, bytes_max: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if bytes.len() + chunk.len() > bytes_max {
            return None;
        }
        bytes.extend_from_slice(&chunk);
    }
    Some(bytes)
}
