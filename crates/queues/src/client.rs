//! The requests.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use protocol::{hold, limits};
use reqwest::header::{DATE, HeaderMap};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;

use crate::address::{Address, UnusableUrl};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::wire;

/// The longest pause after a 429 that is taken from its `Retry-After`. The service blocks for five minutes at most;
/// what stands between may say anything.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);

/// No pull is held for less than this unless something comes.
const HELD_MIN: Duration = Duration::from_secs(1);

/// The largest answer that is read: 100 messages of 128 KB, each doubled by the quotes that JSON escapes, and then
/// some.
const ANSWER_BYTES_MAX: usize = 32_000_000;

/// A client for the queues of one account.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    queues: Address,
    api_token: String,
    api_token_origin: String,
    /// For how many seconds the server holds a pull, as it announced last; 0: not at all, as far as is known.
    holds: Arc<AtomicU64>,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulled {
    /// The messages, none when the queue had none to give.
    pub deliveries: Vec<Delivery>,
    /// How many messages the queue says that it holds; a hint.
    pub backlog: Option<u64>,
    /// How long the server held the pull before it leased what it brings, by its own clock; `None` where it was
    /// answered at once. After one that was held there is no need to pause before the next.
    pub held: Option<Duration>,
}

/// A queue as the service knows it. What it does not tell is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its id.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// How long it keeps a message.
    pub retention: Option<Duration>,
    /// Has somebody stopped its delivery?
    pub paused: Option<bool>,
    /// Who reads it.
    pub consumers: Option<Vec<Consumer>>,
    /// The time of the answer by the clock of the service, as HTTP writes it.
    pub answered: Option<String>,
}

/// Who reads a queue, and what becomes of messages that are delivered in vain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consumer {
    /// Its id.
    pub id: Option<String>,
    /// Does it pull over HTTP? If not, it is a Worker that the service calls.
    pub pulls: bool,
    /// How often a message is delivered again.
    pub max_retries: Option<u64>,
    /// Where messages go after that, instead of being deleted.
    pub dead_letter_queue: Option<String>,
    /// Its other settings, as the service names them.
    pub others: serde_json::Map<String, serde_json::Value>,
}

/// An answer of the service that says that all went well.
pub(crate) struct Answer<T> {
    pub(crate) result: Option<T>,
    headers: HeaderMap,
}

impl<T> Answer<T> {
    /// A whole number in a header.
    fn number(&self, header: &str) -> Option<u64> {
        self.headers.get(header)?.to_str().ok()?.trim().parse().ok()
    }
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
        let queues = endpoint.address()?.below(["accounts", &endpoint.account_id, "queues"]);
        let api_token = endpoint.api_token.trim().to_owned();
        let api_token_origin = endpoint.api_token_origin.clone();
        Ok(Self { http, queues, api_token, api_token_origin, holds: Arc::default() })
    }

    /// Pulls up to `batch_size` messages, each leased for `visibility_timeout`: what is there now.
    ///
    /// Do not drop the future once it was polled: messages that are on their way would stay leased, and unseen, until
    /// the lease lapses.
    pub async fn pull(&self, queue_id: &str, batch_size: usize, visibility_timeout: Duration) -> Result<Pulled, Error> {
        self.pull_once(queue_id, batch_size, visibility_timeout, None).await
    }

    /// As [`Self::pull`], but where the queue has nothing and the server holds pulls, which Cloudflare does not, the
    /// answer comes when there is something, or after `longest`.
    ///
    /// When `given_up` resolves, a pull that is held comes to its end, with nothing: its connection is closed, and the
    /// server leases nothing to it. Only what it leases in that very moment is lost from sight until the lease lapses.
    /// A pull that is not held is answered at once, and its answer is waited for all the same.
    pub async fn pull_held(
        &self,
        queue_id: &str,
        batch_size: usize,
        visibility_timeout: Duration,
        longest: Duration,
        given_up: impl Future<Output = ()>,
    ) -> Result<Pulled, Error> {
        if self.preference(longest).is_none() {
            // The first answer of a server is the one that tells that it holds pulls.
            let pulled = self.pull(queue_id, batch_size, visibility_timeout).await?;
            if !pulled.deliveries.is_empty() || self.preference(longest).is_none() {
                return Ok(pulled);
            }
        }
        let preference = self.preference(longest);
        let held = pin!(self.pull_once(queue_id, batch_size, visibility_timeout, preference.as_deref()));
        match select(pin!(given_up), held).await {
            Either::Left(((), _)) => Ok(Pulled::default()),
            Either::Right((pulled, _)) => pulled,
        }
    }

    /// What to ask for to be held for `longest`, or as long as the server does.
    fn preference(&self, longest: Duration) -> Option<String> {
        let offered = Duration::from_secs(self.holds.load(Ordering::Relaxed));
        hold::preference(longest.min(offered).min(hold::MAX))
    }

    async fn pull_once(
        &self,
        queue_id: &str,
        batch_size: usize,
        visibility_timeout: Duration,
        preference: Option<&str>,
    ) -> Result<Pulled, Error> {
        let body = wire::PullRequest {
            batch_size: batch_size.clamp(1, limits::BATCH_COUNT_MAX),
            visibility_timeout_ms: millis(visibility_timeout.min(limits::VISIBILITY_TIMEOUT_MAX)),
        };
        let mut request = self.request(Method::POST, &[queue_id, "messages", "pull"]).json(&body);
        if let Some(preference) = preference {
            request = request.header(hold::PREFER_HEADER, preference);
        }
        let asked = Instant::now();
        let answer = self.send::<wire::PullResult>(format!("pull from queue {queue_id}"), request).await;
        let took = asked.elapsed();
        // What stands between may not bear a connection that is silent for so long: after a failure the next pull is a
        // plain one, and its answer tells anew what the server does.
        let holds = answer.as_ref().ok().and_then(|answer| answer.number(hold::MAX_HEADER)).unwrap_or_default();
        self.holds.store(holds, Ordering::Relaxed);
        let answer = answer?;
        // Only who has asked is held: the number counts against the lease.
        let held = answer.number(hold::HELD_HEADER).filter(|_| preference.is_some()).map(Duration::from_millis);
        let pulled = answer.result.map(pulled).unwrap_or_default();
        // A server that says it has waited, and has not, must not be asked again and again without a pause.
        let waited = !pulled.deliveries.is_empty() || took >= HELD_MIN;
        Ok(Pulled { held: held.filter(|_| waited), ..pulled })
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
        let http = self.request(Method::POST, &[queue_id, "messages", "ack"]).json(&request);
        Ok(match self.send::<wire::SettleResult>(operation, http).await?.result {
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
        let request = match bodies {
            [] => return Ok(()),
            [body] => self.request(Method::POST, &[queue_id, "messages"]).json(&message(body)),
            bodies => {
                let batch = wire::PushBatch { messages: bodies.iter().map(|body| message(body)).collect() };
                self.request(Method::POST, &[queue_id, "messages", "batch"]).json(&batch)
            }
        };
        self.send::<serde_json::Value>(operation, request).await.map(drop)
    }

    /// How many messages the queue holds, as well as it knows.
    pub async fn backlog(&self, queue_id: &str) -> Result<Option<u64>, Error> {
        let operation = format!("read the metrics of queue {queue_id}");
        let metrics = self.send::<wire::Metrics>(operation, self.request(Method::GET, &[queue_id, "metrics"])).await?;
        Ok(metrics.result.and_then(|metrics| metrics.backlog_count).map(count))
    }

    /// What the service tells of a queue and of who pulls from it.
    pub async fn queue(&self, queue_id: &str) -> Result<QueueInfo, Error> {
        let operation = format!("read the settings of queue {queue_id}");
        let answer = self.send::<wire::Queue>(operation, self.request(Method::GET, &[queue_id])).await?;
        let answered = answer.headers.get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
        Ok(QueueInfo { answered, ..answer.result.map(wire::Queue::info).unwrap_or_default() })
    }

    pub(crate) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let address = self.queues.clone().below(path.iter().copied());
        self.http.request(method, address.url().clone()).bearer_auth(&self.api_token)
    }

    /// For a page of all queues.
    pub(crate) fn page(&self, page: u32) -> RequestBuilder {
        let mut url = self.queues.url().clone();
        url.query_pairs_mut().append_pair("page", &page.to_string());
        self.http.get(url).bearer_auth(&self.api_token)
    }

    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        operation: String,
        request: RequestBuilder,
    ) -> Result<Answer<T>, Error> {
        if let Err(error) = self.queues.check() {
            return Err(Error::unsent(operation, &error));
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(Error::transport(operation, &self.queues, &error)),
        };
        let status = response.status();
        let retry_after = retry_after(&response);
        let headers = std::mem::take(response.headers_mut());
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
                Ok(wire::Envelope { success: Some(true), result, .. }) => Ok(Answer { result, headers }),
                Ok(envelope) if envelope.success == Some(false) => {
                    // Never seen with a 2xx status, but the envelope has the last word.
                    Err(self.answered(operation, status, retry_after, envelope.errors))
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
            Some(envelope) => Err(self.answered(operation, status, retry_after, envelope.errors)),
            None => Err(Error::answered_by_another(operation, status.as_u16(), retry_after)),
        }
    }

    fn answered(
        &self,
        operation: String,
        status: StatusCode,
        retry_after: Option<Duration>,
        told: Option<Vec<wire::ApiError>>,
    ) -> Error {
        Error::answered(operation, status.as_u16(), retry_after, &errors(told), &self.api_token_origin)
    }
}

pub(crate) fn pulled(result: wire::PullResult) -> Pulled {
    let deliveries = result.messages.unwrap_or_default().into_iter().filter_map(|message| {
        Some(Delivery {
            message_id: message.id.unwrap_or_default(),
            // A message that cannot be settled is not ours to touch.
            lease_id: message.lease_id?,
            body: message.body.map(|body| wire::text(&body)).unwrap_or_default(),
            deliveries: message.attempts.map(count).unwrap_or_default(),
        })
    });
    Pulled { deliveries: deliveries.collect(), backlog: result.message_backlog_count.map(count), held: None }
}

fn errors(errors: Option<Vec<wire::ApiError>>) -> Vec<(i64, String)> {
    errors.unwrap_or_default().into_iter().map(|error| (error.code, error.message)).collect()
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let seconds = response.headers().get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The specification has all numbers as floating point. Saturates; no count is negative.
pub(crate) fn count(number: f64) -> u64 {
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
        assert_eq!(pulled(envelope.result.unwrap()), Pulled { deliveries: readable, ..Pulled::default() });
    }
}
