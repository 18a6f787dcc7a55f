//! One thread that owns all queues, in memory and on disk.
//!
//! Work comes to it as closures over a bounded channel. It takes what waits, runs all of it within one transaction,
//! commits, and only then answers: the more clients there are, the more of them share one write to the disk.
//!
//! Invariant: the models in memory and the tables on disk tell the same. When anything within a transaction fails, all
//! of it is rolled back, all of its clients are told so, and the models are read from the disk again.

mod database;
mod message;
mod refusal;
mod registry;

#[cfg(test)]
mod tests;

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use leased_queue::Millis;
use tokio::sync::oneshot;

pub(crate) use message::{Arrival, ContentType, Payload, Pulled, PulledMessage, Source};
pub(crate) use refusal::{Failure, Refusal};
pub(crate) use registry::{ConsumerView, QueueRef, QueueView, Registry, SettingsPatch, Update};

/// How many requests wait for the thread at most; more are refused.
const WAITING_MAX: usize = 1_024;

/// How many requests share one transaction at most.
const TRANSACTION_MAX: usize = 256;

/// How often the thread looks for leases and messages that have expired while nobody asks.
const TICK: Duration = Duration::from_secs(5);

/// The time of this machine.
pub(crate) fn now() -> Millis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since_epoch.as_millis()).unwrap_or(Millis::MAX)
}

/// A way to have work done by the thread.
#[derive(Clone)]
pub(crate) struct Store(SyncSender<Box<dyn Job>>);

/// The thread. It ends when every [`Store`] is gone and all work is done.
pub(crate) struct Owner {
    thread: JoinHandle<()>,
}

/// Work that waits for the thread, or for its answer.
trait Job: Send {
    /// Does the work, within a transaction.
    fn run(&mut self, registry: &mut Registry) -> Result<(), rusqlite::Error>;
    /// Tells the client: what came of the work, or that nothing did.
    fn answer(self: Box<Self>, committed: bool);
}

struct Call<F, T> {
    work: Option<F>,
    outcome: Option<Result<T, Refusal>>,
    client: oneshot::Sender<Result<T, Refusal>>,
}

impl<F, T> Call<F, T>
where
    F: FnOnce(&mut Registry) -> Result<T, Failure>,
{
    fn perform(&mut self, registry: &mut Registry) -> Result<(), rusqlite::Error> {
        let Some(work) = self.work.take() else { return Ok(()) };
        self.outcome = Some(match work(registry) {
            Ok(value) => Ok(value),
            Err(Failure::Refused(refusal)) => Err(refusal),
            Err(Failure::Disk(error)) => return Err(error),
        });
        Ok(())
    }

    fn take_outcome(&mut self, committed: bool) -> Result<T, Refusal> {
        self.outcome.take().filter(|_| committed).unwrap_or(Err(Refusal::Unavailable))
    }
}

impl<F, T> Job for Call<F, T>
where
    F: FnOnce(&mut Registry) -> Result<T, Failure> + Send,
    T: Send,
{
    fn run(&mut self, registry: &mut Registry) -> Result<(), rusqlite::Error> {
        self.perform(registry)
    }

    fn answer(mut self: Box<Self>, committed: bool) {
        let outcome = self.take_outcome(committed);
        // The client may have gone away; what is done is done.
        let _ = self.client.send(outcome);
    }
}

impl Store {
    /// Starts the thread. `gone` resolves, with an error, should the thread end before its time.
    pub(crate) fn start(registry: Registry) -> anyhow::Result<(Self, Owner, oneshot::Receiver<()>)> {
        let (sender, jobs) = sync_channel(WAITING_MAX);
        let (alive, gone) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let _alive = alive;
                own(registry, &jobs);
            })
            .context("cannot start the thread of the store")?;
        Ok((Self(sender), Owner { thread }, gone))
    }

    /// Has `work` done; its changes are on disk when this returns. A full queue of work refuses at once.
    pub(crate) async fn call<T, F>(&self, work: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&mut Registry) -> Result<T, Failure> + Send + 'static,
    {
        let (client, outcome) = oneshot::channel();
        let job = Box::new(Call { work: Some(work), outcome: None, client });
        match self.0.try_send(job) {
            Ok(()) => outcome.await.unwrap_or(Err(Refusal::Unavailable)),
            Err(TrySendError::Full(_)) => Err(Refusal::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(Refusal::Unavailable),
        }
    }
}

impl Owner {
    /// Waits until the thread has ended.
    pub(crate) fn join(self) -> anyhow::Result<()> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the thread of the store has panicked; see the log above"))
    }
}

/// The thread's loop.
fn own(mut registry: Registry, jobs: &Receiver<Box<dyn Job>>) {
    loop {
        let mut batch = Vec::new();
        match jobs.recv_timeout(TICK) {
            Ok(job) => batch.push(job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        batch.extend(jobs.try_iter().take(TRANSACTION_MAX - batch.len()));
        let outcome = registry.transaction(now(), |registry| batch.iter_mut().try_for_each(|job| job.run(registry)));
        if let Err(error) = &outcome {
            tracing::error!(requests = batch.len(), "the disk refused a transaction, nothing of it was done: {error}");
        }
        for job in batch {
            job.answer(outcome.is_ok());
        }
    }
}
