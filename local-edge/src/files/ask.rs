//! Questions of the hub to the store of files: over the network to one of somebody else, or straight to our own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use edge::files::{StoreAnswer, StoreCall};
use reqwest::{Client, Method, redirect};

use super::Own;
use crate::http::{client, read_body, without_address};
use crate::store::now;

/// How long the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who asks the store.
#[derive(Clone)]
pub(crate) struct Store {
    client: Client,
    own: Option<Arc<Own>>,
}

impl Store {
    pub(crate) fn new(own: Option<Arc<Own>>) -> anyhow::Result<Self> {
        let client = client(|| Client::builder().redirect(redirect::Policy::none()).timeout(PATIENCE));
        Ok(Self { client: client.context("cannot make the client for the store of files")?, own })
    }

    /// Asks, and returns what the store has answered, or why it has not.
    pub(crate) async fn ask(&self, call: &StoreCall) -> Result<StoreAnswer, String> {
        match &self.own {
            Some(own) => Self::here(own, call).await,
            None => self.over_the_network(call).await.map_err(|error| without_address(&error, PATIENCE)),
        }
    }

    /// Asks our own store, as if over the network.
    async fn here(own: &Own, call: &StoreCall) -> Result<StoreAnswer, String> {
        let asked = axum::http::Request::builder().method(call.method).uri(&call.url).header("host", "localhost");
        let asked = call.headers.iter().fold(asked, |asked, (name, value)| asked.header(*name, value));
        let asked = asked.body(()).map_err(|error| error.to_string())?;
        let answered = own.answer(&asked.into_parts().0, Body::from(call.body.clone()), None, now()).await;
        let answer = answered.unwrap_or_else(|refusal| refusal.response());
        let length = answer.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        let status = answer.status().as_u16();
        let body = read_body(answer.into_body(), StoreAnswer::BYTES_MAX).await.map_err(|error| error.to_string())?;
        Ok(StoreAnswer { status, length, date: None, body: String::from_utf8_lossy(&body).into_owned() })
    }

    async fn over_the_network(&self, call: &StoreCall) -> reqwest::Result<StoreAnswer> {
        let method = Method::from_bytes(call.method.as_bytes()).unwrap_or_default();
        // Without a length some stores wait for a body.
        let asked = self.client.request(method, &call.url).body(call.body.clone());
        let asked = call.headers.iter().fold(asked, |asked, (name, value)| asked.header(*name, value));
        let mut answer = asked.send().await?;
        let status = answer.status().as_u16();
        let length = answer.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        let date = answer.headers().get("date").and_then(|date| Some(date.to_str().ok()?.to_owned()));
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            body.extend_from_slice(&piece);
            if body.len() >= StoreAnswer::BYTES_MAX {
                body.truncate(StoreAnswer::BYTES_MAX);
                break;
            }
        }
        Ok(StoreAnswer { status, length, date, body: String::from_utf8_lossy(&body).into_owned() })
    }
}
