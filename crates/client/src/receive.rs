//! One look at the queue: pull, store, acknowledge, report.
//!
//! Out of scope: when to look again (`poll`), what is printed (the programs).
//!
//! Invariant: a message is acknowledged only when it, or the same result before it, is on disk and synced. What cannot
//! be stored is not acknowledged, and comes again when its lease lapses; what is plainly not ours (a job) is
//! given back.

use std::time::Duration;

use allowance::{OF_A_DELETION, State, operations};
use protocol::{FailureClass, ResultMessage, body, hold, limits};
use queues::{Backoff, Client, Delivery, Pulled};

use crate::error::Remedy;
use crate::inbox::{self, Arrived, Inbox, Kept};
use crate::spent::Spent;

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
    /// How many operations may be spent on it a day, or as many as one likes.
    pub operations_per_day: Option<u64>,
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
    /// A message is plainly a job.
    #[error(
        "the queue {queue_id} holds jobs and not results: CF_RESULTS_QUEUE_ID is the id of the queue of jobs. Swap \
         CF_RESULTS_QUEUE_ID and CF_JOBS_QUEUE_ID, here and wherever else they are set this way; `wrangler queues info \
         hpc-results` shows the right one. The jobs were given back to their queue, and none is lost"
    )]
    Swapped {
        /// Which queue.
        queue_id: String,
    },
}

impl Error {
    /// What can be done about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Keep(_) | Self::Reject(_) | Self::Sync(_) => Remedy::Unexpected,
            Self::Swapped { .. } => Remedy::Settings,
        }
    }
}

/// From the queue into the inbox.
#[derive(Debug)]
pub struct Receiver {
    client: Client,
    queue: ResultsQueue,
    inbox: Inbox,
    spent: Spent,
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
    /// Did the server hold the look open until it had something, or for long enough?
    pub held: bool,
    /// Why something could not be stored. There is no use in going on.
    pub failure: Option<Error>,
}

impl Receiver {
    /// A receiver that stores into `inbox`, which must be prepared.
    pub fn new(http: reqwest::Client, queue: ResultsQueue, inbox: Inbox) -> Result<Self, queues::UnusableUrl> {
        let client = Client::new(http, &queue.endpoint)?;
        let spent = Spent::new(inbox.polling(), queue.operations_per_day);
        Ok(Self { client, queue, inbox, spent })
    }

    /// Where results come from.
    pub fn queue(&self) -> &ResultsQueue {
        &self.queue
    }

    /// Where results are stored.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// How many messages the queue holds, leased and delayed ones included, as well as it knows.
    pub async fn backlog(&self) -> Result<Option<u64>, queues::Error> {
        self.client.backlog(&self.queue.queue_id).await
    }

    /// Looks once. The future must not be dropped before its end: leased messages would be lost from sight until their
    /// lease lapses.
    pub async fn look(&self) -> Result<Received, queues::Error> {
        let (queue, count) = (&self.queue, self.may_pull()?);
        self.take(self.client.pull(&queue.queue_id, count, queue.visibility_timeout).await?).await
    }

    /// Looks once; a server that can holds the look open for a while until something comes, or until `given_up`
    /// resolves. As with [`Receiver::look`], the future must not be dropped before its end.
    pub async fn look_held(&self, given_up: impl Future<Output = ()>) -> Result<Received, queues::Error> {
        let ResultsQueue { queue_id, visibility_timeout, .. } = &self.queue;
        let count = self.may_pull()?;
        let pulled = self.client.pull_held(queue_id, count, *visibility_timeout, hold::MAX, given_up);
        self.take(pulled.await?).await
    }

    /// How many messages one look may bring today; an error if none may.
    fn may_pull(&self) -> Result<usize, queues::Error> {
        let count = self.spent.messages(self.queue.batch_size);
        match (count, self.spent.state()) {
            (0, Some(State { limit, spent, .. })) => {
                let operation = format!("pull from queue {}", self.queue.queue_id);
                let what = format!("of {limit} operations that may be spent here a day {spent} are (OPS_PER_DAY)");
                Err(queues::Error::used_up(operation, what))
            }
            _ => Ok(count),
        }
    }

    /// The pause before the next look, where `usual` is that of who need not be careful with the day's operations.
    pub(crate) fn pause(&self, usual: Duration) -> Duration {
        self.spent.pause(usual)
    }

    async fn take(&self, pulled: Pulled) -> Result<Received, queues::Error> {
        let cost: u64 =
            pulled.deliveries.iter().map(|delivery| 2 * operations(delivery.body.len()) - OF_A_DELETION).sum();
        self.spent.spend(cost.max(1));
        let messages = pulled.deliveries.len();
        let backlog = pulled.backlog.unwrap_or(0);
        let more = messages == self.queue.batch_size || (messages > 0 && backlog > messages as u64);
        let held = pulled.held.is_some();
        let mut received = Received { new: Vec::new(), messages, more, held, failure: None };
        self.store_all(pulled.deliveries, &mut received).await;
        Ok(received)
    }

    /// Stores and acknowledges deliveries, as far as it can.
    async fn store_all(&self, deliveries: Vec<Delivery>, received: &mut Received) {
        let (mut leases, mut all_new) = (Vec::new(), true);
        let mut deliveries = deliveries.into_iter();
        while let Some(delivery) = deliveries.next() {
            match self.store(&delivery) {
                Ok(new) => {
                    all_new &= new.is_some();
                    received.new.extend(new);
                    leases.push(delivery.lease_id);
                }
                Err(error) => {
                    if matches!(error, Error::Swapped { .. }) {
                        self.give_back(std::iter::once(delivery).chain(deliveries)).await;
                    }
                    received.failure = Some(error);
                    break;
                }
            }
        }
        if leases.is_empty() {
            return;
        }
        match self.inbox.sync() {
            Ok(()) => self.acknowledge(&leases).await,
            Err(error) => received.failure = Some(Error::Sync(error)),
        }
        if !all_new {
            self.inbox.bound();
        }
    }

    /// Gives back what is somebody else's. Should that fail, it comes back when its lease lapses.
    async fn give_back(&self, deliveries: impl Iterator<Item = Delivery>) {
        let retries: Vec<_> = deliveries.map(|delivery| (delivery.lease_id, Duration::ZERO)).collect();
        if let Err(error) = self.client.settle(&self.queue.queue_id, &[], &retries).await {
            tracing::debug!("{error}");
        }
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
                        Kept::Aside { is_new: false, .. } => None,
                        Kept::Aside { path, .. } => {
                            tracing::warn!(
                                "another result of the job {job_id} has come, which differs from the one that came \
                                 first; the first one stays, and this one is kept in {}. A job has one result: the \
                                 same id was used for two, or somebody else can write to the queue of results; the \
                                 final record on the cluster tells which of them is right",
                                path.display()
                            );
                            None
                        }
                    });
                }
                Ok(ResultMessage::Event(event)) => {
                    tracing::debug!("stored an event: {event}");
                    self.inbox.keep_event(&json)?;
                    return Ok(None);
                }
                Err(error) if error.is_job => return Err(Error::Swapped { queue_id: self.queue.queue_id.clone() }),
                Err(error) => (error.to_string(), json.into_owned(), true),
            },
        };
        let path = self.inbox.reject(&content, is_json).map_err(Error::Reject)?;
        tracing::warn!(
            "a message in the results queue is no result ({problem}); it is kept in {} and acknowledged",
            path.display()
        );
        Ok(None)
    }

    /// Acknowledges what is stored. A failure loses nothing: the messages come again and are dropped as duplicates.
    async fn acknowledge(&self, leases: &[String]) {
        for batch in leases.chunks(limits::BATCH_COUNT_MAX) {
            if let Err(error) = self.acknowledge_batch(batch).await {
                tracing::warn!(
                    "{} messages are stored but could not be acknowledged; they come again and are dropped then: {error}",
                    batch.len()
                );
            }
        }
    }

    async fn acknowledge_batch(&self, leases: &[String]) -> Result<(), queues::Error> {
        let mut backoff = Backoff::new(Duration::from_millis(500), ACK_PAUSE_MAX);
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.client.settle(&self.queue.queue_id, leases, &[]).await {
                Ok(settled) => {
                    self.spent.spend(leases.len() as u64 * OF_A_DELETION);
                    if settled.acks.is_some_and(|acks| acks < leases.len() as u64) || !settled.warnings.is_empty() {
                        tracing::info!(
                            "of {} acknowledgements {:?} counted; what did not comes again and is dropped then: {}",
                            leases.len(),
                            settled.acks,
                            settled.warnings.join("; ")
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
