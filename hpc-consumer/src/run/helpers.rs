//! The processes that serve the image of a container, where the kernel does not do it itself. Should one end while the
//! job goes on, the job meets errors that are no fault of its own.
//!
//! They are looked for a while after the begin of a run, when they are there and what was only needed for the start is
//! gone; a shorter run has little time to lose them. From then on the kernel tells when one ends, and a look at that
//! moment tells whether the job was still there: at the end of a run they go after it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::ending::Seen;
use super::proc;

/// When they are looked for, after the begin, until the job's own processes are seen.
const LOOKS: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(60)];

/// What the programs are called that serve an image.
const NAMES: [&str; 2] = ["fuse", "gocryptfs"];

/// The helpers of one run.
pub(super) struct Helpers {
    begin: Instant,
    looks: std::slice::Iter<'static, Duration>,
    next_look: Option<Duration>,
    watched: Option<AsyncFd<OwnedFd>>,
    lost: bool,
}

/// What is to be done about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is time to look for them.
    Look,
    /// One has ended.
    Ended,
}

impl Helpers {
    /// Of a run that begins now; a run without a container has none.
    pub(super) fn new(contained: bool) -> Self {
        let mut looks = if contained { LOOKS.iter() } else { [].iter() };
        let next_look = looks.next().copied();
        Self { begin: Instant::now(), looks, next_look, watched: None, lost: false }
    }

    /// Was one lost while the job went on?
    pub(super) fn lost(&self) -> bool {
        self.lost
    }

    /// Resolves when something is to be done, with [`Self::take`].
    pub(super) async fn next(&self) -> Turn {
        if let Some(watched) = &self.watched {
            // What cannot be waited for is not told of.
            return match watched.ready(Interest::READABLE).await {
                Ok(_) => Turn::Ended,
                Err(_) => std::future::pending().await,
            };
        }
        match self.next_look.and_then(|at| self.begin.checked_add(at)) {
            Some(at) => {
                tokio::time::sleep_until(at).await;
                Turn::Look
            }
            None => std::future::pending().await,
        }
    }

    /// Takes what was seen of the run at such a turn.
    pub(super) fn take(&mut self, turn: Turn, seen: &Seen) {
        match turn {
            Turn::Ended => {
                self.lost |= !seen.job.is_empty();
                (self.watched, self.next_look) = (None, None);
            }
            Turn::Look => {
                self.next_look = if seen.job.is_empty() { self.looks.next().copied() } else { None };
                let serves =
                    |pid: &&i32| proc::name(**pid).is_some_and(|name| NAMES.iter().any(|part| name.contains(part)));
                self.watched = seen.helpers.iter().find(serves).and_then(|&pid| watch(pid));
            }
        }
    }
}

/// Readable once the process has ended.
pub(super) fn watch(pid: i32) -> Option<AsyncFd<OwnedFd>> {
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?;
    #[expect(
        deprecated,
        reason = "what came in its place is unsafe, and is needed only for what does not own its descriptor"
    )]
    AsyncFd::with_interest(process, Interest::READABLE).ok()
}
