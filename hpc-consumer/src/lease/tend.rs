//! Keeps the broker running for as long as this process lives, and ends jobs there that have ended here.
//!
//! One that dies is started again: at once the first time, then after growing pauses. Until it answers nothing begins
//! in the pools that have the lease; their jobs that run wait for it, or ask again.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::Event;
use protocol::JobId;
use tokio::time::Instant;

use super::broker::{Found, LastWords};
use super::control::NoAnswer;
use super::{Broker, PATIENCE, Shared, Standing};
use crate::events::Events;
use crate::job::JobFiles;
use crate::lock;
use crate::run::Service;

/// Between two looks at one that answers. Much shorter than the time after which it ends without us.
const LOOKS: Duration = Duration::from_secs(2);

/// Between two looks at one that is about to be there.
const STARTS: Duration = Duration::from_millis(50);

/// The longest pause before it is started again.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The longest pause before what could not be started is looked at again.
const MENDED_WITHIN: Duration = Duration::from_secs(10);

/// One that has lived for so long is not taken for one that dies again and again.
const PROVEN: Duration = Duration::from_secs(60);

/// What is known of the process.
#[derive(Default)]
struct Process {
    /// The one that we have started, until its end is seen.
    child: Option<(Service, LastWords)>,
    /// Since when there is one that may answer.
    since: Option<Instant>,
    /// Since when none answers, or since it was started, whatever is later.
    gone: Option<Instant>,
    /// How often in a row it has died soon.
    deaths: u32,
    /// It is not started before.
    not_before: Option<Instant>,
    /// It was asked once which jobs it has. What has begun since we have begun ourselves.
    was_asked: bool,
}

pub(super) async fn tend(shared: Arc<Shared>, events: Events, jobs: Arc<JobFiles>) {
    let mut process = Process::default();
    if let Some(broker) = &shared.broker {
        replace_if_changed(&shared, broker).await;
    }
    loop {
        if *shared.leaves.borrow() {
            return;
        }
        let next = match process.look(&shared).await {
            Ok(()) => {
                process.answers();
                shared.is(Standing::Ready, &events);
                let due = lock(&shared.book).due_looks(Instant::now());
                find_records(&shared, &jobs, due).await;
                shared.end_jobs().await;
                if shared.broker.is_none() && lock(&shared.book).is_empty() {
                    // Nobody has a use for it any more. If this fails it ends by itself.
                    let _ = shared.control.stop(PATIENCE).await;
                    return;
                }
                LOOKS
            }
            Err(error) if !error.is_gone() => {
                process.is_seen();
                shared.is(Standing::Not(format!("the broker of the lease: {error}")), &events);
                LOOKS
            }
            Err(_) => match &shared.broker {
                Some(broker) => process.raise(&shared, broker, &events).await,
                // One that an earlier site has left is gone.
                None => return,
            },
        };
        let mut leaves = shared.leaves.subscribe();
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = shared.wake.notified() => {}
            () = process.ended() => {}
            _ = leaves.wait_for(|leaves| *leaves) => return,
        }
    }
}

/// Ends one that was started with something else, if it can be started with what there is now.
async fn replace_if_changed(shared: &Shared, broker: &Broker) {
    if shared.control.jobs().await.is_err() {
        return;
    }
    match broker.look().await {
        Ok(offer) if broker.is_of(&offer) => tracing::info!("the broker of the lease still runs, and is gone on with"),
        Ok(_) => match shared.control.stop(PATIENCE).await {
            Ok(Found::There | Found::Nothing) => {
                tracing::info!(
                    "the broker of the lease or what it was started with is another now: it is started anew"
                );
            }
            Err(error) => tracing::warn!("the broker of the lease cannot be started anew, and goes on: {error}"),
        },
        Err(why) => tracing::error!("the broker of the lease goes on with what it was started with: {why}"),
    }
}

/// These jobs are not held here any more; they may have been recorded, also by another daemon.
pub(super) async fn find_records(shared: &Shared, jobs: &Arc<JobFiles>, away: Vec<JobId>) {
    for job in away {
        if jobs.final_record(&job).await.is_some() {
            lock(&shared.book).has_record(&job);
        }
    }
}

impl Shared {
    /// Ends those there that have their records. What does not end now is tried again with the next look.
    pub(super) async fn end_jobs(&self) {
        let over = lock(&self.book).over();
        for job in over {
            match self.control.end(&job).await {
                Ok(()) => lock(&self.book).ended(&job),
                Err(error) => {
                    tracing::debug!(job_id = %job, "the job does not end at the broker of the lease yet: {error}");
                    return;
                }
            }
        }
    }

    /// How the broker is now. The pools that have the lease hear of it when nothing can begin in them any more; that it
    /// can again, a look tells them.
    fn is(&self, standing: Standing, events: &Events) {
        let before = self.standing.send_replace(standing.clone());
        if let Standing::Not(why) = &standing
            && before != standing
        {
            for pool in &self.pools {
                events.send(Event::PoolBroken(pool.clone(), why.clone().into()));
            }
        }
    }
}

impl Process {
    /// Does it answer?
    async fn look(&mut self, shared: &Shared) -> Result<(), NoAnswer> {
        if self.was_asked {
            return shared.control.in_flight().await.map(drop);
        }
        let jobs = shared.control.jobs().await?;
        lock(&shared.book).found(jobs);
        self.was_asked = true;
        Ok(())
    }

    /// One answers.
    fn answers(&mut self) {
        self.since.get_or_insert_with(Instant::now);
        self.is_seen();
    }

    /// There is one. It may be another than the one that we have started, whose end is nothing to wait for then.
    fn is_seen(&mut self) {
        self.gone = None;
        if self.child.as_mut().is_some_and(|(child, _)| !matches!(child.try_wait(), Ok(None))) {
            self.child = None;
        }
    }

    /// Sees to it that there is one, where none answers. Returns when to look again.
    async fn raise(&mut self, shared: &Shared, broker: &Broker, events: &Events) -> Duration {
        let gone = *self.gone.get_or_insert_with(Instant::now);
        if let Some((child, words)) = &mut self.child {
            match child.try_wait() {
                Ok(None) => {
                    // It is about to be there, or was told to end and is about to.
                    if gone.elapsed() < PATIENCE {
                        return STARTS;
                    }
                    let log = broker.log();
                    let why = format!(
                        "the broker of the lease runs, and has not answered for {} s; see {}",
                        PATIENCE.as_secs(),
                        log.display()
                    );
                    shared.is(Standing::Not(why), events);
                    return LOOKS;
                }
                Ok(Some(status)) => {
                    let words = words.read().map(|words| format!(": {words}")).unwrap_or_default();
                    self.has_died(format!("the broker of the lease has ended ({status}){words}"), shared, events);
                }
                Err(error) => {
                    self.has_died(format!("how the broker of the lease is cannot be seen: {error}"), shared, events);
                }
            }
        } else if self.since.is_some() {
            // One that an earlier daemon has started.
            self.has_died("the broker of the lease has ended".to_owned(), shared, events);
        }
        let now = Instant::now();
        if let Some(left) = self.not_before.and_then(|at| at.checked_duration_since(now)).filter(|left| !left.is_zero())
        {
            return left;
        }
        let looked = broker.look().await;
        if *shared.leaves.borrow() {
            // One that begins now nobody would end.
            return Duration::ZERO;
        }
        let started = match looked {
            Ok(offer) => broker.start(&offer),
            Err(why) => Err(why),
        };
        match started {
            Ok(child) => {
                let now = Some(Instant::now());
                (self.child, self.since, self.gone) = (Some(child), now, now);
                STARTS
            }
            Err(why) => {
                self.deaths += 1;
                shared.is(Standing::Not(format!("the broker of the lease cannot be started: {why}")), events);
                // Somebody is about to mend it.
                self.pause(MENDED_WITHIN)
            }
        }
    }

    fn has_died(&mut self, how: String, shared: &Shared, events: &Events) {
        let lived = self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        if self.child.take().is_none() {
            shared.control.bury();
        }
        self.deaths = if lived >= PROVEN { 1 } else { self.deaths + 1 };
        if self.deaths == 1 {
            // Who wants to begin a job waits for so long.
            tracing::warn!("{how}; it is started again");
            shared.is(Standing::Starting, events);
            self.not_before = None;
        } else {
            shared.is(Standing::Not(how), events);
            self.pause(PAUSE_MAX);
        }
    }

    /// Sets the pause before the next start, and returns it.
    fn pause(&mut self, longest: Duration) -> Duration {
        let pause = Duration::from_secs(1 << self.deaths.saturating_sub(1).min(6)).min(longest);
        self.not_before = Some(Instant::now() + pause);
        pause
    }

    /// Resolves when the one that we have started has ended.
    async fn ended(&mut self) {
        match &mut self.child {
            // The error shows again with the next look.
            Some((child, _)) => drop(child.ended().await),
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use rustix::process::{Pid, Signal, kill_process};

    use program::TrustedGroup;
    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;
    use crate::events::{Heard, channel};
    use crate::lease::Lease;
    use crate::run::start_program;

    /// A process that takes the place of a broker: a command of the shell.
    fn started(folder: &Path, script: &str) -> (Service, LastWords) {
        let path = folder.join("broker.log");
        let words = [OsString::from("-c"), script.into()];
        let log = files::open_append(&path).unwrap();
        let service = start_program(Path::new("/bin/sh"), &words, &[], folder, log).unwrap();
        (service, LastWords { log: path, before: 0 })
    }

    /// A lease whose broker is in no way there, and what its pools hear.
    fn lease(folder: &Path) -> (Lease, Events, UnboundedReceiver<Heard>) {
        let text = "[lease]\nmachines = \"/none/q.toml\"\n[pool.a]\nimage = \"/a.sif\"\nlease = true\n";
        let defaults = site::Defaults { cpus: 1, ..Default::default() };
        let site = site::SiteFile::parse(text, Path::new("/site"), &defaults).unwrap().site;
        let lease = Lease::open(folder, &Arc::new(site), TrustedGroup::default()).unwrap().unwrap();
        let (events, heard) = channel();
        (lease, events, heard)
    }

    fn kill(service: &Service) {
        let pid = service.id().and_then(|id| Pid::from_raw(id.try_into().unwrap())).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn one_that_has_ended_while_another_answers_is_not_waited_for_again_and_again() {
        let temp = tempfile::tempdir().unwrap();
        let mut process = Process { child: Some(started(temp.path(), "exec cat /dev/null")), ..Process::default() };
        tokio::time::timeout(PATIENCE, process.ended()).await.unwrap();
        process.answers();
        assert!(process.child.is_none() && process.since.is_some());
        tokio::time::timeout(Duration::from_millis(50), process.ended()).await.unwrap_err();

        let mut process = Process { child: Some(started(temp.path(), "exec sleep 600")), ..Process::default() };
        process.answers();
        let (child, _) = process.child.as_ref().expect("it goes on");
        kill(child);
    }

    #[tokio::test]
    async fn one_that_takes_its_time_to_end_breaks_no_pool_however_long_it_has_lived() {
        let temp = tempfile::tempdir().unwrap();
        let (lease, events, mut heard) = lease(temp.path());
        let shared = &lease.0;
        let broker = shared.broker.as_ref().unwrap();
        let child = Some(started(temp.path(), "exec sleep 600"));
        let long_ago = Instant::now().checked_sub(2 * PATIENCE).expect("this machine has run for so long");
        let mut process = Process { child, since: Some(long_ago), ..Process::default() };
        assert_eq!(process.raise(shared, broker, &events).await, STARTS);
        assert_eq!(*shared.standing.borrow(), Standing::Starting);
        heard.try_recv().unwrap_err();
        // It does not end.
        process.gone = Some(long_ago);
        assert_eq!(process.raise(shared, broker, &events).await, LOOKS);
        assert!(matches!(&*shared.standing.borrow(), Standing::Not(why) if why.contains("has not answered for 15 s")));
        assert!(matches!(heard.try_recv(), Ok(Ok(Event::PoolBroken(..)))));
        process.answers();
        assert_eq!(process.gone, None);
        kill(&process.child.as_ref().expect("it goes on").0);
    }

    #[tokio::test]
    async fn nothing_is_started_any_more_by_a_daemon_that_leaves() {
        let temp = tempfile::tempdir().unwrap();
        let (lease, events, mut heard) = lease(temp.path());
        let shared = &lease.0;
        shared.leaves.send_replace(true);
        let mut process = Process::default();
        assert_eq!(process.raise(shared, shared.broker.as_ref().unwrap(), &events).await, Duration::ZERO);
        assert!(process.child.is_none() && process.deaths == 0);
        heard.try_recv().unwrap_err();
    }
}
