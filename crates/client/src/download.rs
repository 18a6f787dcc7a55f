//! Files of jobs on their way to this machine.
//!
//! Out of scope: the store (`transfer`), arguments and what is printed (the programs).
//!
//! Invariants: nothing is written outside of the directory that was named; a file is there as a whole or not at all,
//! and never in the place of another.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use protocol::job_dir::OUTPUT;
use protocol::{Content, JobFile, JobResult, Patterns, WorkPath};
use tokio::task::spawn_blocking;
use transfer::{Bounds, Class, Durability, Error, Kept, Listener, News, Step, Store};

/// Files up to this length are had several at a time; each larger one is had in ranges, several at a time.
const SMALL_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// So many of them.
const PARALLEL: usize = 8;

/// What is wanted of a job.
#[derive(Debug, Clone)]
pub struct Wanted {
    files: Vec<JobFile>,
    patterns: Option<Patterns>,
}

/// A file that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// Where it was in the job's directory.
    pub path: WorkPath,
    /// Where it is.
    pub at: PathBuf,
    /// What became of it; nobody has counted what a pack has brought.
    pub kept: Option<(Kept, Content)>,
}

impl Wanted {
    /// The files of a result that fit one of these patterns; without patterns, all.
    pub fn of(result: &JobResult, patterns: &[WorkPath]) -> Self {
        Self::new(result.files.clone(), result.output_file, patterns)
    }

    /// The same of files that somebody has told of.
    pub fn new(mut files: Vec<JobFile>, output: Option<Content>, patterns: &[WorkPath]) -> Self {
        let patterns = (!patterns.is_empty()).then(|| Patterns::new(patterns));
        let output_path: WorkPath = OUTPUT.parse().expect("it is a plain name");
        if let Some(Content { sha256, size }) = output
            && !files.iter().any(|file| file.path == output_path)
        {
            files.push(JobFile { path: output_path, size, sha256, pack: false, read_only: false });
        }
        // Of a pack it is not known what is in it.
        let fits = |file: &JobFile| file.pack || patterns.as_ref().is_none_or(|some| some.match_path(&file.path));
        files.retain(fits);
        Self { files, patterns }
    }

    /// Is there nothing?
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// How many bytes are to come, at the most.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// What has come of files that were wanted.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Those that are here.
    pub here: Vec<Here>,
    /// What is wrong with single others.
    pub failed: Vec<Error>,
}

impl Fetched {
    /// Takes what has become of some: what is wrong with one file is no reason to leave the others.
    fn take(&mut self, here: Result<Vec<Here>, Error>) -> Result<(), Error> {
        match here {
            Ok(here) => self.here.extend(here),
            Err(error) if matches!(error.class(), Class::Gone | Class::Wrong | Class::Local) => self.failed.push(error),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Has files in a directory, which is made. What is there already is not had again; what was begun is gone on with.
pub async fn fetch(store: &Store, wanted: &Wanted, into: &Path, listener: &Listener<'_>) -> Result<Fetched, Error> {
    let fetching = Fetching { store, into, listener, done: AtomicU64::new(0), total: wanted.bytes() };
    let (small, large): (Vec<&JobFile>, Vec<&JobFile>) =
        wanted.files.iter().partition(|file| file.size <= SMALL_BYTES_MAX && !file.pack);
    let mut fetched = Fetched::default();
    let (mut small, mut several) = (small.into_iter(), FuturesUnordered::new());
    loop {
        while several.len() < PARALLEL
            && let Some(file) = small.next()
        {
            several.push(fetching.one(file));
        }
        let Some(one) = several.next().await else { break };
        fetched.take(one.map(|one| vec![one]))?;
    }
    drop(several);
    for file in large {
        let had = match file.pack {
            true => fetching.pack(file, wanted.patterns.as_ref()).await,
            false => fetching.one(file).await.map(|one| vec![one]),
        };
        fetched.take(had)?;
    }
    fetched.here.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(fetched)
}

struct Fetching<'a> {
    store: &'a Store,
    into: &'a Path,
    listener: &'a Listener<'a>,
    done: AtomicU64,
    total: u64,
}

impl Fetching<'_> {
    async fn one(&self, file: &JobFile) -> Result<Here, Error> {
        let (into, path) = (self.into.to_owned(), file.path.clone());
        let at = blocking(move || place(&into, &path)).await?;
        let counting = Counting::of(self);
        let kept = self.store.get_file(&file.content(), &at, &|news| counting.hear(news)).await?;
        counting.end(file.size);
        Ok(Here { path: file.path.clone(), at, kept: Some((kept, file.content())) })
    }

    async fn pack(&self, file: &JobFile, patterns: Option<&Patterns>) -> Result<Vec<Here>, Error> {
        let (into, name) = (self.into.to_owned(), file.sha256.to_string());
        let archive = self.into.join(format!(".hpc-queue-{}.pack", &name[..32]));
        blocking(move || transfer::make_dir(&into)).await?;
        let counting = Counting::of(self);
        self.store.get(&file.content(), &archive, &|news| counting.hear(news)).await?;
        counting.end(file.size);
        let (into, patterns) = (self.into.to_owned(), patterns.cloned());
        // It is not compressed, so no more comes out of it than went in.
        let bounds = Bounds { count: 2 * transfer::PACK_MEMBERS_MAX, bytes: file.size };
        let members = blocking(move || {
            let fits = |path: &WorkPath| patterns.as_ref().is_none_or(|some| some.match_path(path));
            let members = transfer::unpack(&archive, &into, &bounds, &fits, Durability::Named)?;
            std::fs::remove_file(&archive).map_err(|error| Error::io("remove", &archive, error))?;
            Ok(members)
        });
        let members = members.await?.into_iter();
        Ok(members.map(|path| Here { at: self.into.join(path.as_str()), path, kept: None }).collect())
    }
}

fn place(into: &Path, path: &WorkPath) -> Result<PathBuf, Error> {
    transfer::make_dir(into)?;
    transfer::place(into, path)
}

async fn blocking<T: Send + 'static>(what: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let done = spawn_blocking(what).await;
    done.map_err(|_| Error::new(Class::Local, "a thread that writes files has ended too early"))?
}

/// What one of several has brought so far.
struct Counting<'a> {
    all: &'a Fetching<'a>,
    done: AtomicU64,
}

impl<'a> Counting<'a> {
    fn of(all: &'a Fetching<'a>) -> Self {
        Self { all, done: AtomicU64::new(0) }
    }

    fn hear(&self, news: News) {
        match news {
            News::Progress { done, .. } => self.end(done),
            other => (self.all.listener)(other),
        }
    }

    fn end(&self, done: u64) {
        let before = self.done.swap(done, Ordering::Relaxed);
        let all = if done >= before {
            self.all.done.fetch_add(done - before, Ordering::Relaxed) + (done - before)
        } else {
            self.all.done.fetch_sub(before - done, Ordering::Relaxed) - (before - done)
        };
        let total = self.all.total;
        (self.all.listener)(News::Progress { step: Step::Get, done: all.min(total), total });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(patterns: &[&str]) -> Vec<String> {
        let file = |path: &str, pack| JobFile {
            path: path.parse().unwrap(),
            size: 1,
            sha256: "0".repeat(64).parse().unwrap(),
            pack,
            read_only: false,
        };
        let files = vec![file("plots/a.png", false), file("log.txt", false), file("rest.pack", true)];
        let output = Content { sha256: "1".repeat(64).parse().unwrap(), size: 2 };
        let patterns: Vec<WorkPath> = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        Wanted::new(files, Some(output), &patterns).files.iter().map(|file| file.path.to_string()).collect()
    }

    #[test]
    fn what_is_wanted_are_all_files_or_those_that_fit() {
        assert_eq!(wanted(&[]), ["plots/a.png", "log.txt", "rest.pack", "output.json"]);
        assert_eq!(wanted(&["*.txt"]), ["log.txt", "rest.pack"], "what is in a pack is not known");
        assert_eq!(wanted(&["plots", "output.json"]), ["plots/a.png", "rest.pack", "output.json"]);
    }
}
