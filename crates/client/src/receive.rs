//! One look at the queue: pull, store, acknowledge, report.
//!
//! Out of scope: when to look again (`poll`), what is printed (the programs).
//!
//! Invariant: a message is acknowledged only when it, or an earlier result of its job, is on disk and synced. What
//! cannot be stored is not acknowledged, and comes again when its lease lapses.

use std::time::Duration;

use protocol::{FailureClass, ResultMessage, body, limits};
use queues::{Backoff, Client, Delivery};

use crate::error::Remedy;
use crate::inbox::{self, Arrived, Inbox, Kept};
use crate::text;

/// How often an acknowledgement is tried. Late ones count as well, so there is no hurry and no harm.
const ACK_TRIES: u32 = 4;

/// The longest pause between two tries, whatever the service asks for: the results are waiting to be shown.
const ACK_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Where results come from.
#[derive(Debug, Clone)]
pub struct ResultsQueue {
    /// The API and who asks.
    pub endpoint: queues::Endpoint,
    /// Which queue.
    pub queue_id: String,
    /// How many messages one look brings at the most.
    pub batch_size: usize,
    /// How long they are leased.
    pub visibility_timeout: Duration,
}

/// Why what came could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A result could not be kept.
    #[error(transparent)]
    Keep(#[from] inbox::Error),
    /// A message that is no result could not be kept.
    #[error("a message that is no result could not be kept")]
    Reject(#[source] inbox::Error),
    /// All is written, and may not last.
    #[error("nothing of this batch was acknowledged; it comes again when its lease lapses")]
    Sync(#[source] inbox::Error),
}

impl Error {
    /// What can be done about it.
    pub fn remedy(&self) -> Remedy {
        Remedy::Unexpected
    }
}

/// From the queue into the inbox.
#[derive(Debug)]
pub struct Receiver {
    client: Client,
    queue_id: String,
    batch_size: usize,
    visibility_timeout: Duration,
    inbox: Inbox,
}

/// What one look brought.
#[derive(Debug)]
pub struct Received {
    /// The results that were not here before, in the order in which they came.
    pub new: Vec<Arrived>,
    /// How many messages came, whatever they were.
    pub messages: usize,
    /// Does the queue seem to have more to give at once?
    pub more: bool,
    /// Why something could not be stored. There is no use in going on.
    pub failure: Option<Error>,
}

impl Receiver {
    /// A receiver that stores into `inbox`, which must be prepared.
    pub fn new(http: reqwest::Client, queue: ResultsQueue, inbox: Inbox) -> Result<Self, queues::UnusableUrl> {
        let client = Client::new(http, &queue.endpoint)?;
        let ResultsQueue { queue_id, batch_size, visibility_timeout, .. } = queue;
        Ok(Self { client, queue_id, batch_size, visibility_timeout, inbox })
    }

    /// Where results are stored.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// How long a message stays leased that somebody has pulled and not settled, with the settings of this program.
    pub fn visibility_timeout(&self) -> Duration {
        self.visibility_timeout
    }

    /// How many messages the queue holds, leased and delayed ones included, as well as it knows.
    pub async fn backlog(&self) -> Result<Option<u64>, queues::Error> {
        self.client.backlog(&self.queue_id).await
    }

    /// Looks once. The future must not be dropped before its end: leased messages would be lost from sight until their
    /// lease lapses.
    pub async fn look(&self) -> Result<Received, queues::Error> {
        let pulled = self.client.pull(&self.queue_id, self.batch_size, self.visibility_timeout).await?;
        let messages = pulled.deliveries.len();
        let backlog = pulled.backlog.unwrap_or(0);
        let more = messages == self.batch_size || (messages > 0 && backlog > messages as u64);
        let mut received = Received { new: Vec::new(), messages, more, failure: None };
        let mut leases = Vec::new();
        for delivery in pulled.deliveries {
            match self.store(&delivery) {
                Ok(new) => {
                    received.new.extend(new);
                    leases.push(delivery.lease_id);
                }
                Err(error) => {
                    received.failure = Some(error);
                    break;
                }
            }
        }
        if leases.is_empty() {
            return Ok(received);
        }
        match self.inbox.sync() {
            Ok(()) => self.acknowledge(&leases).await,
            Err(error) => received.failure = Some(Error::Sync(error)),
        }
        Ok(received)
    }

    /// Stores one message and returns its result when that is new.
    fn store(&self, delivery: &Delivery) -> Result<Option<Arrived>, Error> {
        let json = body::json_text(&delivery.body);
        let (problem, content, is_json) = match json {
            None => ("it is not JSON".to_owned(), delivery.body.clone(), false),
            Some(json) => match ResultMessage::parse(&json) {
                Ok(ResultMessage::Result(result)) => {
                    let arrived = Arrived { text: json.into_owned(), result: *result };
                    let job_id = &arrived.result.job_id;
                    return Ok(match self.inbox.keep(&arrived)? {
                        Kept::New => {
                            tracing::info!(%job_id, "stored");
                            Some(arrived)
                        }
                        Kept::Duplicate => {
                            tracing::info!(%job_id, deliveries = delivery.deliveries, "dropped a duplicate");
                            None
                        }
                    });
                }
                Ok(ResultMessage::Event(event)) => {
                    tracing::debug!("stored an event: {}", text::escaped(&event));
                    self.inbox.keep_event(&json)?;
                    return Ok(None);
                }
                Err(error) => (error.to_string(), json.into_owned(), true),
            },
        };
        let path = self.inbox.reject(&content, is_json).map_err(Error::Reject)?;
        tracing::warn!(
            "a message in the results queue is no result ({}); it is kept in {} and acknowledged",
            text::escaped(&problem),
            path.display()
        );
        Ok(None)
    }

    /// Acknowledges what is stored. A failure loses nothing: the messages come again and are dropped as duplicates.
    async fn acknowledge(&self, leases: &[String]) {
        for batch in leases.chunks(limits::BATCH_COUNT_MAX) {
            if let Err(error) = self.acknowledge_batch(batch).await {
                tracing::warn!(
                    "{} messages are stored but could not be acknowledged; they come again and are dropped then: {}",
                    batch.len(),
                    text::escaped(&error.to_string())
                );
            }
        }
    }

    async fn acknowledge_batch(&self, leases: &[String]) -> Result<(), queues::Error> {
        let mut backoff = Backoff::new(Duration::from_millis(500), ACK_PAUSE_MAX);
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.client.settle(&self.queue_id, leases, &[]).await {
                Ok(settled) => {
                    if settled.acks.is_some_and(|acks| acks < leases.len() as u64) || !settled.warnings.is_empty() {
                        tracing::info!(
                            "of {} acknowledgements {:?} counted; what did not comes again and is dropped then: {}",
                            leases.len(),
                            settled.acks,
                            text::escaped(&settled.warnings.join("; "))
                        );
                    }
                    return Ok(());
                }
                Err(error) => error,
            };
            let pause = match error.class {
                _ if tries == ACK_TRIES => return Err(error),
                FailureClass::Fatal | FailureClass::Refused | FailureClass::QuotaExhausted => return Err(error),
                FailureClass::Throttled(Some(pause)) => pause.min(ACK_PAUSE_MAX),
                _ => backoff.pause(),
            };
            tokio::time::sleep(pause).await;
        }
    }
}
