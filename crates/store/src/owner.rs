//! The thread that owns a file, and work for it from anywhere.
//!
//! It takes what waits, does all of it in its order within one transaction, commits, and only then answers: the more
//! waits, the more of it shares one write to the disk.
//!
//! Invariant: who is answered `Ok` can rely on it, and on all that was asked before. When anything within a transaction
//! fails, nothing of it was done, and all who had a part in it are told so.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How many requests share one transaction at most.
const TRANSACTION_MAX: usize = 256;

/// What a thread owns: tables, and what its program keeps of them in memory.
pub trait Owned: Send + Sized + 'static {
    /// May it be used after a transaction that failed? Otherwise nothing is done any more, and whoever asks hears of
    /// that failure.
    const SURVIVES_FAILURE: bool;

    /// Does all of `work` and commits it, or nothing of it ([`crate::Sqlite::transaction`]).
    fn transaction(&mut self, work: impl FnOnce(&mut Self) -> rusqlite::Result<()>) -> rusqlite::Result<()>;

    /// Closes the file.
    fn close(self) -> rusqlite::Result<()>;
}

/// Why something was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// SQLite could not do it, or what came before it.
    #[error(transparent)]
    Failed(Arc<rusqlite::Error>),
    /// Too much waits already.
    #[error("too many requests wait for the store")]
    Overloaded,
    /// There is no thread any more.
    #[error("the thread of the store has ended; the log above says why")]
    Gone,
}

/// How the thread works.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How many requests wait at most; more are refused. `None`: there is no limit.
    pub waiting_max: Option<usize>,
    /// How often there is a transaction when nobody asks.
    pub tick: Option<Duration>,
    /// How transactions are kept apart under load, so that more work shares each.
    pub pace: Option<Pace>,
}

/// So many transactions in a row go ahead at once; from then on there is one each `interval`, until there was a time
/// with fewer. Who asks now and then never waits, and a flood of requests does not become a flood of writes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two transactions, in the mean.
    pub interval: Duration,
    /// How many may come before that.
    pub burst: u32,
}

/// A way to have work done by the thread. Work is done in the order of the calls, whether or not their answers are
/// waited for.
pub struct Store<D> {
    requests: Sender<Request<D>>,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
}

/// The thread. It ends when told to ([`Store::close`]), or when every [`Store`] is gone and all work is done.
pub struct Thread {
    /// For who waits for its end.
    pub handle: JoinHandle<()>,
    /// Resolves, with an error, when the thread has ended.
    pub ended: oneshot::Receiver<()>,
}

/// What came of some work, as soon as it is on the disk.
#[must_use = "who does not wait does not know whether it is done"]
pub struct Answer<T>(oneshot::Receiver<Result<T, Error>>);

impl<T> Future for Answer<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(Error::Gone)))
    }
}

enum Request<D> {
    Do(Box<dyn Job<D>>),
    Close(oneshot::Sender<Result<(), Error>>),
}

/// Work that waits for the thread, or for its answer.
trait Job<D>: Send {
    fn run(&mut self, data: &mut D) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, failure: Option<&Error>);
}

struct Call<F, T> {
    work: Option<F>,
    value: Option<T>,
    client: oneshot::Sender<Result<T, Error>>,
}

impl<D, F, T> Job<D> for Call<F, T>
where
    F: FnOnce(&mut D) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, data: &mut D) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.value = Some(work(data)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, failure: Option<&Error>) {
        let outcome = match (failure, self.value) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(value)) => Ok(value),
            (None, None) => Err(Error::Gone),
        };
        // The client may have gone away; what is done is done.
        let _ = self.client.send(outcome);
    }
}

impl<D> Clone for Store<D> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone(), waiting: self.waiting.clone(), waiting_max: self.waiting_max }
    }
}

impl<D: Owned> Store<D> {
    /// Starts the thread.
    pub fn start(data: D, options: Options) -> io::Result<(Self, Thread)> {
        let (sender, requests) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let (alive, ended) = oneshot::channel();
        let counter = waiting.clone();
        let handle = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            let _alive = alive;
            own(data, &requests, &counter, options);
        })?;
        let waiting_max = options.waiting_max.unwrap_or(usize::MAX);
        Ok((Self { requests: sender, waiting, waiting_max }, Thread { handle, ended }))
    }

    /// Has `work` done, within a transaction that may hold other work, too. If it fails, all of that fails with it:
    /// what is no failure of the file is part of `T`.
    pub fn call<T, F>(&self, work: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut D) -> rusqlite::Result<T> + Send + 'static,
    {
        let (client, outcome) = oneshot::channel();
        if self.waiting.load(Ordering::Relaxed) < self.waiting_max {
            self.send(Request::Do(Box::new(Call { work: Some(work), value: None, client })));
        } else {
            // The other end is here.
            let _ = client.send(Err(Error::Overloaded));
        }
        Answer(outcome)
    }

    /// Does what was asked before, and closes the file.
    pub fn close(&self) -> Answer<()> {
        let (client, outcome) = oneshot::channel();
        self.send(Request::Close(client));
        Answer(outcome)
    }

    fn send(&self, request: Request<D>) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // If the thread is gone, the request is dropped, and the client hears of that.
        let _ = self.requests.send(request);
    }
}

/// A pace that is kept.
struct Paced {
    pace: Pace,
    /// When the last transaction would have been, had each come at its time.
    due: Option<Instant>,
}

impl Paced {
    fn new(pace: Pace) -> Self {
        Self { pace, due: None }
    }

    /// How long the next transaction, which is there now, waits.
    fn wait(&mut self, now: Instant) -> Duration {
        let due = self.due.map_or(now, |last| (last + self.pace.interval).max(now));
        self.due = Some(due);
        let ahead = due.saturating_duration_since(now);
        ahead.saturating_sub(self.pace.interval.saturating_mul(self.pace.burst))
    }
}

/// The thread's loop.
fn own<D: Owned>(mut data: D, requests: &Receiver<Request<D>>, waiting: &AtomicUsize, options: Options) {
    let mut failure: Option<Error> = None;
    let mut paced = options.pace.map(Paced::new);
    loop {
        let first = match options.tick {
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(tick) => requests.recv_timeout(tick),
        };
        let first = match first {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let Some(paced) = &mut paced {
            std::thread::sleep(paced.wait(Instant::now()));
        }
        let (mut jobs, mut close, mut taken) = (Vec::new(), None, 0);
        for request in first.into_iter().chain(requests.try_iter()).take(TRANSACTION_MAX) {
            taken += 1;
            match request {
                Request::Do(job) => jobs.push(job),
                Request::Close(client) => {
                    close = Some(client);
                    break;
                }
            }
        }
        waiting.fetch_sub(taken, Ordering::Relaxed);
        let ticks = taken == 0;
        let mut failed = failure.clone();
        if failed.is_none() && (ticks || !jobs.is_empty()) {
            let done = data.transaction(|data| jobs.iter_mut().try_for_each(|job| job.run(data)));
            failed = done.err().map(|error| Error::Failed(Arc::new(error)));
        }
        for job in jobs {
            job.answer(failed.as_ref());
        }
        if !D::SURVIVES_FAILURE {
            failure = failed;
        }
        if let Some(client) = close {
            let closed = data.close().map_err(|error| Error::Failed(Arc::new(error)));
            let _ = client.send(failure.map_or(closed, Err));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_flood_is_kept_to_its_pace() {
        let millisecond = Duration::from_millis(1);
        let mut paced = Paced::new(Pace { interval: 2 * millisecond, burst: 3 });
        let mut now = Instant::now();
        let mut waits = |passed: Duration| {
            now += passed;
            let wait = paced.wait(now);
            now += wait;
            wait
        };
        for _ in 0..4 {
            assert_eq!(waits(Duration::ZERO), Duration::ZERO, "a few in a row do not wait");
        }
        for _ in 0..9 {
            assert_eq!(waits(Duration::ZERO), 2 * millisecond);
        }
        assert_eq!(waits(millisecond), millisecond);
        for _ in 0..9 {
            assert_eq!(waits(2 * millisecond), Duration::ZERO, "who comes at the pace does not wait");
        }
        assert_eq!(waits(Duration::from_secs(9)), Duration::ZERO);
        assert_eq!(
            [(); 4].map(|()| waits(Duration::ZERO)),
            [Duration::ZERO, Duration::ZERO, Duration::ZERO, 2 * millisecond]
        );
    }
}
