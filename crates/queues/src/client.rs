//! The requests.

use std::fmt;
use std::time::Duration;

use protocol::limits;
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::wire;

/// The longest wait for one request, answer included.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest wait for a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer that is read: 100 messages of 128 KB, each doubled by the quotes that JSON escapes, and then
/// some.
const ANSWER_BYTES_MAX: usize = 32_000_000;

/// Where the API is and who asks.
#[derive(Clone)]
pub struct Endpoint {
    /// For example `https://api.cloudflare.com/client/v4`, or `http://127.0.0.1:8787/client/v4` for `local-edge`.
    pub base_url: String,
    /// The id of the account, 32 hexadecimal digits.
    pub account_id: String,
    /// An API token with the permission Queues: Edit.
    pub api_token: String,
}

/// Why a base URL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableUrl {
    /// It has another scheme, or none.
    #[error("CF_API_BASE_URL is no http or https address: {0}")]
    NotHttp(String),
    /// It has a user name or a password in it. The text must not repeat them.
    #[error(
        "CF_API_BASE_URL holds a user name or a password, which would stand in logs; the API asks only for its token"
    )]
    Credentials,
}

impl Endpoint {
    /// The base URL, if it can be used.
    pub fn url(&self) -> Result<Url, UnusableUrl> {
        let not_http = || UnusableUrl::NotHttp(self.base_url.clone());
        let url = Url::parse(&self.base_url).map_err(|_| not_http())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UnusableUrl::Credentials);
        }
        if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err(not_http()) }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("base_url", &self.base_url)
            .field("account_id", &self.account_id)
            .field("api_token", &"…")
            .finish()
    }
}

/// An HTTP client as every program of this project uses it: TLS with the system's roots, bounded waits, proxies from
/// the environment as usual.
pub fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("hpc-queue/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        // A redirect would carry the token to an address that nobody has set.
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

/// A client for the queues of one account.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    queues: Url,
    api_token: String,
}

/// A message, handed over for the time of its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The queue's id of the message; it tells nothing about the job.
    pub message_id: String,
    /// What settles this delivery.
    pub lease_id: String,
    /// The body as it came (see `protocol::body`).
    pub body: String,
    /// How often the message was delivered, this time included.
    pub deliveries: u64,
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The messages, none when the queue had none to give.
    pub deliveries: Vec<Delivery>,
    /// How many messages the queue says that it holds; a hint.
    pub backlog: Option<u64>,
}

/// What became of acknowledgements and retries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// How many acknowledgements counted, where the service says so.
    pub acks: Option<u64>,
    /// How many retries counted, where the service says so.
    pub retries: Option<u64>,
    /// What the service had to say about single leases.
    pub warnings: Vec<String>,
}

impl Client {
    /// A client; an error when the base URL cannot be used.
    pub fn new(http: reqwest::Client, endpoint: &Endpoint) -> Result<Self, UnusableUrl> {
        let mut queues = endpoint.url()?;
        queues.path_segments_mut().expect("an http or https URL has a path").pop_if_empty().extend([
            "accounts",
            &endpoint.account_id,
            "queues",
        ]);
        Ok(Self { http, queues, api_token: endpoint.api_token.clone() })
    }

    /// Pulls up to `batch_size` messages, each leased for `visibility_timeout`.
    ///
    /// Do not drop the future once it was polled: messages that are on their way would stay leased, and unseen, until
    /// the lease lapses.
    pub async fn pull(&self, queue_id: &str, batch_size: usize, visibility_timeout: Duration) -> Result<Pulled, Error> {
        let request = wire::PullRequest {
            batch_size: batch_size.clamp(1, limits::BATCH_COUNT_MAX),
            visibility_timeout_ms: millis(visibility_timeout.min(limits::VISIBILITY_TIMEOUT_MAX)),
        };
        let operation = format!("pull from queue {queue_id}");
        let result: Option<wire::PullResult> =
            self.request(operation, Method::POST, &[queue_id, "messages", "pull"], Some(&request)).await?;
        let Some(result) = result else { return Ok(Pulled { deliveries: Vec::new(), backlog: None }) };
        Ok(pulled(result))
    }

    /// Acknowledges and gives back deliveries, up to [`limits::BATCH_COUNT_MAX`] of both together.
    /// A retry becomes visible again after its delay.
    pub async fn settle(
        &self,
        queue_id: &str,
        acks: &[String],
        retries: &[(String, Duration)],
    ) -> Result<Settled, Error> {
        let request = wire::SettleRequest {
            acks: acks.iter().map(|lease_id| wire::Ack { lease_id }).collect(),
            retries: retries
                .iter()
                .map(|(lease_id, delay)| wire::Retry {
                    lease_id,
                    delay_seconds: delay.min(&limits::DELAY_MAX).as_secs(),
                })
                .collect(),
        };
        let operation = format!("settle {} deliveries of queue {queue_id}", acks.len() + retries.len());
        let result: Option<wire::SettleResult> =
            self.request(operation, Method::POST, &[queue_id, "messages", "ack"], Some(&request)).await?;
        Ok(match result {
            Some(result) => Settled {
                acks: result.ack_count.map(count),
                retries: result.retry_count.map(count),
                warnings: wire::warnings(&result.warnings),
            },
            None => Settled { acks: None, retries: None, warnings: Vec::new() },
        })
    }

    /// Pushes messages, up to [`limits::BATCH_COUNT_MAX`], in one write. Their bodies are JSON and travel as text.
    pub async fn push(&self, queue_id: &str, bodies: &[&str]) -> Result<(), Error> {
        let message = |body| wire::PushMessage { body, content_type: "text" };
        let operation = format!("push {} messages to queue {queue_id}", bodies.len());
        let _: Option<serde_json::Value> = match bodies {
            [] => return Ok(()),
            [body] => self.request(operation, Method::POST, &[queue_id, "messages"], Some(&message(body))).await?,
            bodies => {
                let batch = wire::PushBatch { messages: bodies.iter().map(|body| message(body)).collect() };
                self.request(operation, Method::POST, &[queue_id, "messages", "batch"], Some(&batch)).await?
            }
        };
        Ok(())
    }

    /// How many messages the queue holds, as well as it knows.
    pub async fn backlog(&self, queue_id: &str) -> Result<Option<u64>, Error> {
        let operation = format!("read the metrics of queue {queue_id}");
        let metrics: Option<wire::Metrics> =
            self.request(operation, Method::GET, &[queue_id, "metrics"], None::<&()>).await?;
        Ok(metrics.and_then(|metrics| metrics.backlog_count).map(count))
    }

    async fn request<B: Serialize, T: DeserializeOwned>(
        &self,
        operation: String,
        method: Method,
        path: &[&str],
        body: Option<&B>,
    ) -> Result<Option<T>, Error> {
        let mut url = self.queues.clone();
        url.path_segments_mut().expect("the constructor has seen that the URL has a path").extend(path);
        let mut request = self.http.request(method, url).bearer_auth(&self.api_token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(Error::transport(operation, &self.queues, &error)),
        };
        let status = response.status();
        let retry_after = retry_after(&response);
        let mut answer = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if answer.len() + chunk.len() <= ANSWER_BYTES_MAX => answer.extend_from_slice(&chunk),
                Ok(Some(_)) => {
                    let what = format!("the answer is larger than {ANSWER_BYTES_MAX} bytes");
                    return Err(Error::garbage(operation, what));
                }
                Ok(None) => break,
                Err(error) => return Err(Error::transport(operation, &self.queues, &error)),
            }
        }
        if status.is_success() {
            return match serde_json::from_slice::<wire::Envelope<T>>(&answer) {
                Ok(wire::Envelope { success: Some(true), result, .. }) => Ok(result),
                Ok(envelope) if envelope.success == Some(false) => {
                    // Never seen with a 2xx status, but the envelope has the last word.
                    Err(Error::answered(operation, status.as_u16(), retry_after, &errors(envelope.errors)))
                }
                Ok(_) => Err(Error::garbage(operation, "the answer does not say whether it succeeded".to_owned())),
                Err(error) => Err(Error::garbage(operation, format!("the answer is not of the Queues API: {error}"))),
            };
        }
        if status.is_redirection() {
            return Err(Error::garbage(
                operation,
                format!("the answer is a redirect (HTTP status {})", status.as_u16()),
            ));
        }
        let envelope = serde_json::from_slice::<wire::Envelope<serde_json::Value>>(&answer).ok();
        match envelope.filter(|envelope| envelope.success == Some(false)) {
            Some(envelope) => Err(Error::answered(operation, status.as_u16(), retry_after, &errors(envelope.errors))),
            None => Err(Error::answered_by_another(operation, status.as_u16(), retry_after)),
        }
    }
}

fn pulled(result: wire::PullResult) -> Pulled {
    let deliveries = result.messages.unwrap_or_default().into_iter().filter_map(|message| {
        Some(Delivery {
            message_id: message.id.unwrap_or_default(),
            // A message that cannot be settled is not ours to touch.
            lease_id: message.lease_id?,
            body: message.body.map(|body| wire::text(&body)).unwrap_or_default(),
            deliveries: message.attempts.map(count).unwrap_or_default(),
        })
    });
    Pulled { deliveries: deliveries.collect(), backlog: result.message_backlog_count.map(count) }
}

fn errors(errors: Option<Vec<wire::ApiError>>) -> Vec<(i64, String)> {
    errors.unwrap_or_default().into_iter().map(|error| (error.code, error.message)).collect()
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let seconds = response.headers().get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(limits::DELAY_MAX))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The specification has all numbers as floating point. Saturates; no count is negative.
fn count(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_gaps_leaves_the_others_readable() {
        let answer = r#"{"success":true,"result":{"message_backlog_count":null,"messages":[
            {"id":null,"lease_id":"l1","body":"one","attempts":null},
            {"lease_id":"l2"},
            {"id":"m3","lease_id":null,"body":"three","attempts":1},
            {"id":"m4","lease_id":"l4","body":"four","attempts":2}
        ]}}"#;
        let envelope: wire::Envelope<wire::PullResult> = serde_json::from_str(answer).unwrap();
        let delivery = |message_id: &str, lease_id: &str, body: &str, deliveries| Delivery {
            message_id: message_id.to_owned(),
            lease_id: lease_id.to_owned(),
            body: body.to_owned(),
            deliveries,
        };
        let readable = vec![delivery("", "l1", "one", 0), delivery("", "l2", "", 0), delivery("m4", "l4", "four", 2)];
        assert_eq!(pulled(envelope.result.unwrap()), Pulled { deliveries: readable, backlog: None });
    }

    #[test]
    fn a_base_url_is_refused_without_repeating_a_secret() {
        let endpoint = |base_url: &str| Endpoint {
            base_url: base_url.to_owned(),
            account_id: String::new(),
            api_token: String::new(),
        };
        for usable in ["http://127.0.0.1:8787/client/v4", "https://api.cloudflare.com/client/v4/"] {
            assert!(endpoint(usable).url().is_ok(), "{usable}");
        }
        for unusable in ["", "api.cloudflare.com", "ftp://x"] {
            assert_eq!(endpoint(unusable).url(), Err(UnusableUrl::NotHttp(unusable.to_owned())));
        }
        for secret in ["https://me:secret@api.cloudflare.com", "https://secret@api.cloudflare.com", "ftp://:secret@x"] {
            let error = endpoint(secret).url().unwrap_err();
            assert_eq!(error, UnusableUrl::Credentials);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
