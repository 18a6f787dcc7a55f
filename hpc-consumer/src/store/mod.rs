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
//! Out of scope: how a SQLite file is opened and owned (crate `store`).
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
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lifecycle::{Entry, Fact};
use protocol::JobId;

use database::Database;
pub(crate) use lock::{Held, StateLock, can_be_held, make_private};
pub(crate) use show::{Holding, holding, show_jobs, show_pools, show_services, show_status};

const DATABASE: &str = "state.db";

/// Why the store does not answer.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    path: Arc<Path>,
    error: store::Error,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cannot = opening::cannot_use(&self.path);
        match &self.error {
            store::Error::Failed(error) => {
                write!(f, "{cannot}: {}", opening::advise(&store::Problem::from(&**error), &self.path))
            }
            other => write!(f, "{cannot}: {other}"),
        }
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// A single job has a handful of transactions, which do not wait. Where thousands of short ones run, each transaction
/// holds what a few of them ask for, which is not what a slot waits for.
const PACE: store::Pace = store::Pace { interval: Duration::from_millis(2), burst: 8 };

/// A way to ask the thread that owns the file. Requests are done in the order of the calls, whether or not their
/// futures are polled.
#[derive(Clone)]
pub(crate) struct Store {
    path: Arc<Path>,
    owner: store::Store<Database>,
}

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
        let (entries, owner, rebooted) = read().map_err(|error| opening::refused(error.into(), &path))?;
        let store = Self::start(database, path.into())?;
        Ok(Opened { store, entries, owner, rebooted })
    }

    fn start(database: Database, path: Arc<Path>) -> anyhow::Result<Self> {
        let started = store::Store::start(database, store::Options { pace: Some(PACE), ..store::Options::default() });
        let (owner, _) = started.context("cannot start the thread of the store")?;
        Ok(Self { path, owner })
    }

    /// Stores facts, all or none; they are on the disk when this resolves. `now` is the time since the Unix epoch.
    pub(crate) fn commit(
        &self,
        facts: Vec<Fact>,
        now: Duration,
    ) -> impl Future<Output = Result<(), Problem>> + Send + use<> {
        self.call(move |database| {
            facts.iter().try_for_each(|fact| database.apply(fact, now))?;
            database.purge(now)
        })
    }

    /// Which of these jobs have ended before, as far as is remembered: for 30 days.
    pub(crate) fn recall(
        &self,
        jobs: Vec<JobId>,
    ) -> impl Future<Output = Result<Vec<(JobId, bool)>, Problem>> + Send + use<> {
        self.call(move |database| database.are_finished(&jobs))
    }

    /// The messages of those of these jobs that are held, in the same order.
    pub(crate) fn messages(
        &self,
        jobs: Vec<JobId>,
    ) -> impl Future<Output = Result<Vec<(JobId, String)>, Problem>> + Send + use<> {
        self.call(move |database| database.messages(&jobs))
    }

    /// The final records of those of these jobs that are held and have one, in the same order.
    pub(crate) fn records(
        &self,
        jobs: Vec<JobId>,
    ) -> impl Future<Output = Result<Vec<(JobId, String)>, Problem>> + Send + use<> {
        self.call(move |database| database.records(&jobs))
    }

    /// Final records that are owed, or were published in the last minutes before the last daemon ended. The files in
    /// `RESULTS_DIR` may not have reached the disk when the machine went down, and can be made again from these. They
    /// come in the order of the numbers that are with them; this returns some after the given one, and none at the end.
    pub(crate) fn recent_records(
        &self,
        after: i64,
    ) -> impl Future<Output = Result<Vec<(i64, JobId, String)>, Problem>> + Send + use<> {
        self.call(move |database| database.recent_records(after))
    }

    /// From now on [`Opened::rebooted`] is true only after another reboot: what had to be made again is there.
    pub(crate) fn settled_in(&self) -> impl Future<Output = Result<(), Problem>> + Send + use<> {
        self.settled_in_after_boot(crate::boot_id())
    }

    fn settled_in_after_boot(
        &self,
        boot_id: Option<String>,
    ) -> impl Future<Output = Result<(), Problem>> + Send + use<> {
        self.call(move |database| database.set_boot_id(&boot_id.unwrap_or_default()))
    }

    /// Does what was asked before, and closes the file. Without it nothing is lost: the next start reads the log.
    pub(crate) fn close(&self) -> impl Future<Output = Result<(), Problem>> + Send + use<> {
        self.answered(self.owner.close())
    }

    fn call<T, F>(&self, work: F) -> impl Future<Output = Result<T, Problem>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut Database) -> rusqlite::Result<T> + Send + 'static,
    {
        self.answered(self.owner.call(work))
    }

    fn answered<T: Send>(&self, answer: store::Answer<T>) -> impl Future<Output = Result<T, Problem>> + Send + use<T> {
        let path = self.path.clone();
        async move { answer.await.map_err(|error| Problem { path, error }) }
    }
}

/// A new id for a state: 80 random bits.
fn new_owner() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes at any time after it has booted");
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}
