//! `STATE_DIR`: what the daemon must not forget, whose it is, and what a person can see of it.
//!
//! ```text
//! STATE_DIR/
//!   lock         one owner (`lock`)
//!   state.db     jobs that are held, results that are owed, ids of jobs that have ended (`database`, `opening`)
//!   view.json    what the daemon is doing, for `hpc-consumer jobs` and `status` (`view`, `show`)
//!   results-dir  not of this module: the RESULTS_DIR that has the mark of this state (`job`)
//!   keeper/      not of this module: what the keeper of the runs writes down
//! ```
//!
//! One thread owns the database. It takes what waits, does all of it in its order within one transaction, commits, and
//! only then answers: the more waits, the more of it shares one write to the disk.
//!
//! Invariant: who is answered `Ok` can rely on it, and on all that was asked before. After the first failure it is not
//! known any more what is on the disk: everything else fails as well, and the daemon has to be started again.

mod database;
mod lock;
mod opening;
mod show;
pub(crate) mod view;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use lifecycle::{Entry, Fact};
use protocol::JobId;
use tokio::sync::oneshot;

use database::Database;
pub(crate) use lock::StateLock;
pub(crate) use show::{Format, show_jobs, show_status};

const DATABASE: &str = "state.db";

/// How many requests share one transaction at most.
const TRANSACTION_MAX: usize = 256;

/// Why the store does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem(String);

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

impl Problem {
    fn new(path: &Path, error: rusqlite::Error) -> Self {
        Self(format!("{}: {}", opening::cannot_use(path), opening::explain(error, path)))
    }

    fn gone() -> Self {
        Self("the thread of the store has ended; the log above says why".to_owned())
    }
}

/// A way to ask the thread. Requests are done in the order of the calls, whether or not their futures are polled.
#[derive(Clone)]
pub(crate) struct Store(Sender<Request>);

/// A state that was just opened.
pub(crate) struct Opened {
    pub(crate) store: Store,
    /// The jobs that are held, in the order of their acceptance.
    pub(crate) entries: Vec<Entry>,
    /// The random id of this state: 16 lower-case letters and digits. It never changes.
    pub(crate) owner: String,
    /// Was the machine started anew, or is it another one, since [`Store::settled_in`] was last called?
    pub(crate) rebooted: bool,
}

enum Request {
    Do(Box<dyn Job>),
    Close(oneshot::Sender<Result<(), Problem>>),
}

/// Work that waits for the thread, or for its answer.
trait Job: Send {
    /// Does the work, within a transaction.
    fn run(&mut self, database: &mut Database) -> rusqlite::Result<()>;
    /// Tells the client what came of it, or what the problem is.
    fn answer(self: Box<Self>, problem: Option<&Problem>);
}

struct Call<F, T> {
    work: Option<F>,
    value: Option<T>,
    client: oneshot::Sender<Result<T, Problem>>,
}

impl<F, T> Job for Call<F, T>
where
    F: FnOnce(&mut Database) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, database: &mut Database) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.value = Some(work(database)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, problem: Option<&Problem>) {
        let outcome = match (problem, self.value) {
            (Some(problem), _) => Err(problem.clone()),
            (None, Some(value)) => Ok(value),
            (None, None) => Err(Problem::gone()),
        };
        // The client may have gone away; what is done is done.
        let _ = self.client.send(outcome);
    }
}

impl Store {
    /// Opens the state, or makes it. The caller has the [`StateLock`].
    ///
    /// After a reboot the caller makes the files of [`Self::recent_records`] again, and then calls
    /// [`Self::settled_in`].
    pub(crate) fn open(state_dir: &Path) -> anyhow::Result<Opened> {
        Self::open_after_boot(state_dir, crate::boot_id())
    }

    fn open_after_boot(state_dir: &Path, boot_id: Option<String>) -> anyhow::Result<Opened> {
        let path = state_dir.join(DATABASE);
        let boot = boot_id.clone().unwrap_or_default();
        let database = opening::open(&path, &new_owner(), &boot)?;
        // A boot that cannot be told from others may be another one.
        let read = || -> rusqlite::Result<_> {
            let rebooted = boot_id.is_none() || database.boot_id()? != boot;
            Ok((database.entries()?, database.owner()?, rebooted))
        };
        let (entries, owner, rebooted) =
            read().map_err(|error| opening::explain(error, &path)).with_context(|| opening::cannot_use(&path))?;
        let store = Self::start(database, path)?;
        Ok(Opened { store, entries, owner, rebooted })
    }

    fn start(database: Database, path: PathBuf) -> anyhow::Result<Self> {
        let (sender, requests) = channel();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || own(database, &requests, &path))
            .context("cannot start the thread of the store")?;
        Ok(Self(sender))
    }

    /// Stores facts, all or none; they are on the disk when this resolves. `now` is the time since the Unix epoch.
    pub(crate) fn commit(
        &self,
        facts: Vec<Fact>,
        now: Duration,
    ) -> impl Future<Output = Result<(), Problem>> + Send + use<> {
        answered(self.call(move |database| {
            facts.iter().try_for_each(|fact| database.apply(fact, now))?;
            database.purge(now)
        }))
    }

    /// Which of these jobs have ended before, as far as is remembered: for 30 days.
    pub(crate) fn recall(
        &self,
        jobs: Vec<JobId>,
    ) -> impl Future<Output = Result<Vec<(JobId, bool)>, Problem>> + Send + use<> {
        answered(self.call(move |database| database.are_finished(&jobs)))
    }

    /// The messages of those of these jobs that are held, in the same order.
    pub(crate) fn messages(
        &self,
        jobs: Vec<JobId>,
    ) -> impl Future<Output = Result<Vec<(JobId, String)>, Problem>> + Send + use<> {
        answered(self.call(move |database| database.messages(&jobs)))
    }

    /// The final records of those of these jobs that are held and have one, in the same order.
    pub(crate) fn records(
        &self,
        jobs: Vec<JobId>,
    ) -> impl Future<Output = Result<Vec<(JobId, String)>, Problem>> + Send + use<> {
        answered(self.call(move |database| database.records(&jobs)))
    }

    /// Final records that are owed, or were published in the last minutes before the last daemon ended. The files in
    /// `RESULTS_DIR` may not have reached the disk when the machine went down, and can be made again from these. They
    /// come in the order of the numbers that are with them; this returns some after the given one, and none at the end.
    pub(crate) fn recent_records(
        &self,
        after: i64,
    ) -> impl Future<Output = Result<Vec<(i64, JobId, String)>, Problem>> + Send + use<> {
        answered(self.call(move |database| database.recent_records(after)))
    }

    /// From now on [`Opened::rebooted`] is true only after another reboot: what had to be made again is there.
    pub(crate) fn settled_in(&self) -> impl Future<Output = Result<(), Problem>> + Send + use<> {
        self.settled_in_after_boot(crate::boot_id())
    }

    fn settled_in_after_boot(
        &self,
        boot_id: Option<String>,
    ) -> impl Future<Output = Result<(), Problem>> + Send + use<> {
        answered(self.call(move |database| database.set_boot_id(&boot_id.unwrap_or_default())))
    }

    /// Does what was asked before, and closes the file. Without it nothing is lost: the next start reads the log.
    pub(crate) fn close(&self) -> impl Future<Output = Result<(), Problem>> + Send + use<> {
        let (client, outcome) = oneshot::channel();
        self.send(Request::Close(client));
        answered(outcome)
    }

    fn call<T, F>(&self, work: F) -> oneshot::Receiver<Result<T, Problem>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Database) -> rusqlite::Result<T> + Send + 'static,
    {
        let (client, outcome) = oneshot::channel();
        self.send(Request::Do(Box::new(Call { work: Some(work), value: None, client })));
        outcome
    }

    fn send(&self, request: Request) {
        // If the thread is gone, the request is dropped, and the client hears of that.
        let _ = self.0.send(request);
    }
}

async fn answered<T>(outcome: oneshot::Receiver<Result<T, Problem>>) -> Result<T, Problem> {
    outcome.await.unwrap_or_else(|_| Err(Problem::gone()))
}

/// The thread's loop. It ends when told to, or when every [`Store`] is gone and all work is done.
fn own(mut database: Database, requests: &Receiver<Request>, path: &Path) {
    let mut problem: Option<Problem> = None;
    while let Ok(first) = requests.recv() {
        let mut jobs = Vec::new();
        let mut close = None;
        for request in std::iter::once(first).chain(requests.try_iter()).take(TRANSACTION_MAX) {
            match request {
                Request::Do(job) => jobs.push(job),
                Request::Close(client) => {
                    close = Some(client);
                    break;
                }
            }
        }
        if problem.is_none() && !jobs.is_empty() {
            problem = transaction(&mut database, &mut jobs).err().map(|error| Problem::new(path, error));
        }
        for job in jobs {
            job.answer(problem.as_ref());
        }
        if let Some(client) = close {
            let closed = database.close().map_err(|error| Problem::new(path, error));
            let _ = client.send(problem.map_or(closed, Err));
            return;
        }
    }
}

fn transaction(database: &mut Database, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    database.begin()?;
    let outcome = jobs.iter_mut().try_for_each(|job| job.run(database)).and_then(|()| database.commit());
    if outcome.is_err() {
        // The first error is the one to tell.
        let _ = database.roll_back();
    }
    outcome
}

/// A new id for a state: 80 random bits.
fn new_owner() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes at any time after it has booted");
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}
