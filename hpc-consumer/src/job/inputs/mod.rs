//! What jobs need before they can begin: had from the store of files, kept, and placed where the claim finds it.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`cache`] | contents on the cluster, shared by the daemons of one `RESULTS_DIR` |
//! | [`tree`] | the files of one job, before and in its directory |
//! | [`bound`] | read-only files, which containers see as the cache keeps them |
//! | [`input`] | `input.json` of a job whose input is a file |
//!
//! Out of scope: requests and their repetition (`transfer`), when it is tried again, and for how many jobs at a time
//! (`lifecycle`).

mod bound;
mod cache;
mod input;
mod tree;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use lifecycle::{Problem, Staged};
use protocol::{Content, Digest, JobId, JobMessage, RuntimeKind};
use tokio::sync::{Semaphore, watch};
use transfer::{Class, News, Store};

pub(super) use self::bound::has_read_only;
use self::cache::Cache;
use self::tree::NoTree;
pub(super) use self::tree::{Trees, move_into};
use super::JobFiles;
use super::outputs::Tell;
use super::results_dir::ResultsDir;
use super::size::of_in_words;
use crate::{blocking, lock};

/// How many contents of one job are had at a time.
const CONTENTS_AT_ONCE: usize = 8;

/// So much of all that is had may be in memory, in units: a content takes one for each [`UNIT_BYTES`], up to
/// [`UNITS_MAX`].
const UNITS: usize = 32;
const UNIT_BYTES: u64 = 1 << 20;
const UNITS_MAX: u32 = 16;

/// How often a tree is made anew because another daemon has taken a content away meanwhile.
const TRIES: u32 = 3;

/// What is had for jobs.
#[derive(Debug)]
pub(super) struct Incoming {
    cache: Cache,
    pub(super) trees: Trees,
    /// Contents that are being had, each by one task.
    turns: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    memory: Semaphore,
}

/// Why the files of a job are not here.
enum Trouble {
    Away(Problem),
    /// Of RESULTS_DIR, for this that could not be done.
    Disk(&'static str, io::Error),
    Refused(String),
    Stopped,
}

/// How much of what a job needs is here.
struct Progress {
    tell: Tell,
    total: u64,
    done: AtomicU64,
}

impl Progress {
    /// Of one content it was known that so much is here, and now it is this.
    fn moved(&self, from: u64, to: u64) {
        // What was had may turn out to be wrong; the sum is right again after that.
        let done = self.done.fetch_add(to.wrapping_sub(from), Ordering::Relaxed).wrapping_add(to.wrapping_sub(from));
        (self.tell)(format!("fetching its files, {}", of_in_words(done, self.total)));
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Disk("the files of the job cannot be had", error)
    }
}

impl Incoming {
    pub(super) fn new(results: &ResultsDir, owner: &str, cache_bytes: u64) -> Self {
        Self {
            cache: Cache::new(results.path(), cache_bytes),
            trees: Trees::new(results.path(), owner),
            turns: Mutex::default(),
            memory: Semaphore::new(UNITS),
        }
    }

    /// One task at a time has a content.
    fn turn(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = lock(&self.turns);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(digest).or_default().clone()
    }
}

impl JobFiles {
    /// Has the files of a job ready for its claim; nothing is told once `stop` has become true.
    pub(crate) async fn stage(
        self: &Arc<Self>,
        job: &Arc<JobMessage>,
        mut stop: watch::Receiver<bool>,
        tell: &Tell,
    ) -> Option<Staged> {
        let store = match self.store() {
            Ok(store) => store,
            Err(missing) => return Some(Staged::Away(missing)),
        };
        let contents = contents(job);
        let _hold = self.incoming.cache.hold(contents.iter().map(|content| content.sha256));
        for _ in 0..TRIES {
            let fetched = tokio::select! {
                biased;
                // An error is the end of the daemon.
                _ = stop.wait_for(|stop| *stop) => return None,
                fetched = self.fetch(&contents, store, tell) => fetched,
            };
            let staged = match fetched {
                // Not given up in the middle: a thread that nobody waits for would go on.
                Ok(()) => self.make_tree(job, &stop, tell).await,
                Err(trouble) => Err(trouble),
            };
            match staged {
                Ok(true) => return Some(Staged::Ready),
                Ok(false) => {}
                Err(Trouble::Away(problem)) => return Some(Staged::Away(problem)),
                Err(Trouble::Disk(what, error)) => {
                    return Some(Staged::Away(self.claims.results().in_numbers(what, &error)));
                }
                Err(Trouble::Refused(why)) => return Some(Staged::Refused(why)),
                Err(Trouble::Stopped) => return None,
            }
        }
        let problem = "the cache in RESULTS_DIR is too small for the files that jobs need at the same time: raise FILES_CACHE_BYTES of all daemons there";
        Some(Staged::Away(problem.into()))
    }

    /// Places the files of a job, whose contents are here; `false` if one is not here any more.
    async fn make_tree(
        self: &Arc<Self>,
        job: &Arc<JobMessage>,
        stop: &watch::Receiver<bool>,
        tell: &Tell,
    ) -> Result<bool, Trouble> {
        tell("its files are here, and are being placed".to_owned());
        let has_container = self.pools.kind_of(&job.spec) == Some(RuntimeKind::Apptainer);
        if has_read_only(&job.spec) && !has_container {
            let job_id = &job.job_id;
            tracing::info!(%job_id, "it has no container, so its read-only files are cloned or copied for it");
        }
        let (files, job, stop) = (self.clone(), job.clone(), stop.clone());
        blocking(move || {
            let Incoming { cache, trees, .. } = &files.incoming;
            files.claims.results().must_be_it()?;
            let mut made = trees.make(&job, cache, has_container, &stop);
            if matches!(&made, Err(NoTree::Io(error)) if files::is_no_room(error)) && cache.give_way()? > 0 {
                made = trees.make(&job, cache, has_container, &stop);
            }
            match made {
                Ok(()) => Ok(true),
                Err(NoTree::Missing(_)) => Ok(false),
                Err(NoTree::Refused(why)) => Err(Trouble::Refused(why)),
                Err(NoTree::Stopped) => Err(Trouble::Stopped),
                Err(NoTree::Io(error)) => Err(Trouble::Disk("the files of the job cannot be placed", error)),
            }
        })
        .await
    }

    /// Has all these contents in the cache.
    async fn fetch(self: &Arc<Self>, contents: &BTreeSet<Content>, store: &Store, tell: &Tell) -> Result<(), Trouble> {
        let (files, wanted) = (self.clone(), contents.clone());
        let missing: Vec<Content> = blocking(move || {
            files.claims.results().must_be_it()?;
            let cache = &files.incoming.cache;
            cache.prepare()?;
            let mut missing = Vec::new();
            for content in wanted {
                if cache.open(&content)?.is_none() {
                    missing.push(content);
                }
            }
            io::Result::Ok(missing)
        })
        .await?;
        let total = missing.iter().map(|content| content.size).sum();
        let progress = Arc::new(Progress { tell: tell.clone(), total, done: AtomicU64::new(0) });
        stream::iter(missing)
            .map(|content| self.fetch_one(content, store, progress.clone()))
            .buffer_unordered(CONTENTS_AT_ONCE)
            .try_collect::<()>()
            .await
    }

    async fn fetch_one(
        self: &Arc<Self>,
        content: Content,
        store: &Store,
        progress: Arc<Progress>,
    ) -> Result<(), Trouble> {
        let turn = self.incoming.turn(content.sha256);
        let _alone = turn.lock().await;
        let units = u32::try_from(content.size / UNIT_BYTES).unwrap_or(UNITS_MAX).clamp(1, UNITS_MAX);
        let _memory = self.incoming.memory.acquire_many(units).await;
        let files = self.clone();
        if blocking(move || files.incoming.cache.open(&content)).await?.is_some() {
            return Ok(());
        }
        let partial = self.incoming.cache.partial(&content.sha256);
        let known = AtomicU64::new(0);
        let listener = move |news: News| match news {
            News::Progress { done, .. } => progress.moved(known.swap(done, Ordering::Relaxed), done),
            News::Note(what) => tracing::info!("{what}"),
        };
        let mut had = store.get(&content, &partial, &listener).await;
        if had.as_ref().is_err_and(transfer::Error::is_no_room) {
            let files = self.clone();
            if blocking(move || files.incoming.cache.give_way()).await? > 0 {
                had = store.get(&content, &partial, &listener).await;
            }
        }
        match had {
            Ok(()) => {}
            Err(error) if matches!(error.class(), Class::Gone | Class::Wrong) => {
                let files = self.clone();
                blocking(move || files.incoming.cache.forget(&content.sha256)).await?;
                let which = content.sha256;
                return Err(Trouble::Refused(format!("a file of the job ({which}) cannot be had: {error}")));
            }
            Err(error) if error.class() == Class::Local => return Err(io::Error::from(error).into()),
            Err(error) => return Err(Trouble::Away(away(&error))),
        }
        let files = self.clone();
        blocking(move || {
            files.incoming.cache.keep(&content.sha256)?;
            files.incoming.cache.shrink().map(drop)
        })
        .await?;
        Ok(())
    }

    /// Removes what is there of the files of a job, but for what is kept for others.
    pub(crate) async fn unstage(self: &Arc<Self>, job_id: &JobId) {
        let (files, job_id) = (self.clone(), job_id.clone());
        blocking(move || {
            if let Err(error) = files.incoming.trees.remove(&job_id) {
                tracing::warn!(%job_id, "what was fetched for a job that is not here any more cannot be removed: {error}");
            }
        })
        .await;
    }
}

impl Incoming {
    /// Removes what an earlier process of this daemon has left of trees.
    pub(super) fn clean_own(&self) -> io::Result<()> {
        self.trees.clean_own()
    }

    /// Takes away all that is kept and not in use; returns how many bytes that was.
    pub(super) fn give_way(&self) -> io::Result<u64> {
        self.cache.give_way()
    }

    /// Removes what nobody goes on with: trees of daemons that are no more, old partial files.
    pub(super) fn clean(&self, is_owner: impl Fn(&str) -> bool) -> io::Result<()> {
        self.trees.clean_others(is_owner)?;
        self.cache.clean(SystemTime::now())?;
        self.cache.shrink().map(drop)
    }
}

/// The store cannot be used now.
pub(super) fn away(error: &transfer::Error) -> Problem {
    format!("the store of files is away: {error}").into()
}

/// All that a job needs, each once.
fn contents(job: &JobMessage) -> BTreeSet<Content> {
    job.spec.files.iter().map(protocol::JobFile::content).chain(job.spec.input_file).collect()
}
