//! All queues, in memory and on disk, owned by one thread (crate `store`). Work comes to it as closures; what waits
//! shares one transaction, and is answered after the commit.
//!
//! Invariant: the models in memory and the tables on disk tell the same. When anything within a transaction fails, all
//! of it is rolled back, all of its clients are told so, and the models are read from the disk again.

mod database;
mod message;
mod refusal;
mod registry;

#[cfg(test)]
mod tests;

use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use leased_queue::Millis;
use store::{Options, Owned, Thread};
use tokio::sync::oneshot;

pub(crate) use message::{Arrival, ContentType, Payload, Pulled, PulledMessage, Source};
pub(crate) use refusal::{Failure, StoreRefusal};
pub(crate) use registry::{ConsumerView, QueueRef, QueueView, Registry, SettingsPatch, Update};

/// How many requests wait for the thread at most; more are refused.
const WAITING_MAX: usize = 1_024;

/// How often the thread looks for leases and messages that have expired while nobody asks.
const TICK: Duration = Duration::from_secs(5);

/// The time of this machine.
pub(crate) fn now() -> Millis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since_epoch.as_millis()).unwrap_or(Millis::MAX)
}

/// A way to have work done by the thread.
#[derive(Clone)]
pub(crate) struct Store(store::Store<Registry>);

/// The thread. It ends when every [`Store`] is gone and all work is done.
pub(crate) struct Owner(JoinHandle<()>);

impl Store {
    /// Starts the thread. The third value resolves, with an error, should the thread end before its time.
    pub(crate) fn start(registry: Registry) -> anyhow::Result<(Self, Owner, oneshot::Receiver<()>)> {
        let options = Options { waiting_max: Some(WAITING_MAX), tick: Some(TICK), pace: None };
        let started = store::Store::start(registry, options).context("cannot start the thread of the store")?;
        let (store, Thread { handle, ended }) = started;
        Ok((Self(store), Owner(handle), ended))
    }

    /// Has `work` done; its changes are on disk when this returns. A full queue of work refuses at once.
    pub(crate) async fn call<T, F>(&self, work: F) -> Result<T, StoreRefusal>
    where
        T: Send + 'static,
        F: FnOnce(&mut Registry) -> Result<T, Failure> + Send + 'static,
    {
        match self.0.call(|registry| apart(work(registry))).await {
            Ok(outcome) => outcome,
            Err(store::Error::Overloaded) => Err(StoreRefusal::Overloaded),
            Err(store::Error::Failed(_) | store::Error::Gone) => Err(StoreRefusal::Unavailable),
        }
    }
}

impl Owner {
    /// Waits until the thread has ended.
    pub(crate) fn join(self) -> anyhow::Result<()> {
        self.0.join().map_err(|_| anyhow::anyhow!("the thread of the store has panicked; see the log above"))
    }
}

/// A refusal concerns one request, a failure of the disk the whole transaction.
fn apart<T>(outcome: Result<T, Failure>) -> rusqlite::Result<Result<T, StoreRefusal>> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(Failure::Refused(refusal)) => Ok(Err(refusal)),
        Err(Failure::Disk(error)) => Err(error),
    }
}

impl Owned for Registry {
    // It is read from the disk again.
    const SURVIVES_FAILURE: bool = true;

    fn transaction(&mut self, work: impl FnOnce(&mut Self) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        self.transaction_at(now(), work)
    }

    fn close(self) -> rusqlite::Result<()> {
        self.database.close()
    }
}
