//! A disk that is full, at every write in turn, and a `RESULTS_DIR` that goes away: nothing is lost once there is room,
//! or the directory, again. Every job has one result, ran to a good end once, and never twice at a time.
//!
//! A full disk is a small real file system with a filler in it that leaves so many pages, or so many files, free. Each
//! sweep is over that number, so that each write in turn is the one that finds no room; that the writes were met is
//! checked as well. Runs are counted by what the jobs themselves note on another disk.
//!
//! A disk that becomes read-only is met like a full one: a program may write nothing and not notice.
//!
//! Out of scope: a disk that is full from the start and for all, which is in `bad_input`.

mod disk;
#[expect(clippy::unwrap_used, reason = "all of it is test")]
mod files;
mod filled;
mod jobs;
mod read_only;
mod results;
mod state;
mod vanished;

use std::fmt::Debug;
use std::thread;
use std::time::Duration;

/// How long a daemon may take that looks at its trouble again only now and then.
const LONG_PATIENCE: Duration = Duration::from_secs(90);

/// How many cases are tried at the same time. Most of each is waiting, but each also starts several programs.
const AT_ONCE: usize = 8;

/// Tries all cases, several at the same time.
fn at_once<Case: Debug + Sync>(cases: &[Case], try_one: impl Fn(&Case) + Sync) {
    let try_one = &try_one;
    let mut failed: Vec<&Case> = Vec::new();
    for some in cases.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|case| (case, scope.spawn(move || try_one(case)))).collect();
            failed.extend(threads.into_iter().filter_map(|(case, thread)| thread.join().is_err().then_some(case)));
        });
    }
    assert!(failed.is_empty(), "{} of {} cases failed: {failed:?}", failed.len(), cases.len());
}
