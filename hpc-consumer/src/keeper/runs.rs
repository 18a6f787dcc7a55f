//! The runs that a keeper holds: the journal first, then what follows.
//!
//! Each turn takes all that has happened, writes it to the journal at once, and only then begins runs and tells the
//! daemon.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use lifecycle::{EndReason, Run};
use protocol::Ran;
use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::heart::Watched;
use super::journal::Journal;
use super::messages::{FromKeeper, NotBegun, Start, ToKeeper};
use super::roster::{JournalLine, RunState};
use crate::job::HeldDir;
use crate::run::{self, Ended, Finished, FirstProcess, Place, Stop, Token, Told};

/// How long a keeper that is told to end waits for the disk to take what it knows.
const BEHIND_PATIENCE: Duration = Duration::from_secs(60);

/// How long after its runs a keeper may hear that Slurm ends its allocation.
const DOUBT: Duration = Duration::from_secs(2);

/// What a run tells, or what is seen of it.
pub(super) enum News {
    /// Another daemon has taken it over.
    TakenOver(String),
    Began(String, FirstProcess),
    Ended(String, Finished),
    /// Its end was doubted for long enough.
    Waited(String),
}

/// A run that goes on.
struct Alive {
    stop: watch::Sender<Option<Told>>,
    grace: Duration,
}

/// All runs.
pub(super) struct Runs {
    journal: Journal,
    alive: BTreeMap<String, Alive>,
    /// Runs to begin once the journal has them.
    starts: Vec<(Start, Token, Stop)>,
    /// What the daemon is told once the journal has it.
    told: Vec<FromKeeper>,
    watched: Watched,
    news: mpsc::UnboundedSender<News>,
    /// Who the daemon is among those that share `RESULTS_DIR`.
    owner: String,
    /// Since when it is told to end.
    stopping: Option<Instant>,
    /// Where runs are, if that is to be told with their ends.
    ran: Option<Ran>,
    /// Runs that have ended as they would if Slurm ended their allocation, while it is not known whether it does.
    doubtful: BTreeMap<String, Finished>,
}

impl Runs {
    pub(super) fn new(journal: Journal, watched: Watched, news: mpsc::UnboundedSender<News>) -> Self {
        let (alive, owner) = (BTreeMap::new(), String::new());
        Self {
            journal,
            alive,
            starts: Vec::new(),
            told: Vec::new(),
            watched,
            news,
            owner,
            stopping: None,
            ran: None,
            doubtful: BTreeMap::new(),
        }
    }

    pub(super) fn are_at(&mut self, ran: Ran) {
        self.ran = Some(ran);
    }

    pub(super) fn is_told_to_stop(&self) -> bool {
        self.stopping.is_some()
    }

    pub(super) fn belong_to(&mut self, owner: String) {
        self.owner = owner;
    }

    /// Does nothing go on that this process is needed for? What has ended is in the journal.
    pub(super) fn are_over(&self) -> bool {
        self.alive.is_empty() && !self.journal.is_behind()
    }

    /// Is there nothing at all that a daemon may ask for?
    pub(super) fn is_empty(&self) -> bool {
        self.journal.roster().is_empty()
    }

    /// Is it time to end, as it was told to?
    pub(super) fn have_stopped(&self) -> bool {
        let patient = |since: Instant| since.elapsed() < BEHIND_PATIENCE;
        self.alive.is_empty() && self.stopping.is_some_and(|since| !self.journal.is_behind() || !patient(since))
    }

    /// Did the disk not take the journal?
    pub(super) fn is_behind(&self) -> bool {
        self.journal.is_behind()
    }

    /// Tries once more to have it on the disk.
    pub(super) fn catch_up(&mut self) {
        self.journal.rewrite();
    }

    /// How many go on.
    pub(super) fn alive(&self) -> usize {
        self.alive.len()
    }

    /// Has all that is known on the disk. `false` when it does not take it.
    pub(super) fn close(&mut self) -> bool {
        self.journal.flush() && self.journal.sync().is_ok()
    }

    /// `refusal` says why a run is not begun while so many go on.
    pub(super) fn obey(&mut self, message: ToKeeper, refusal: impl Fn(usize) -> Option<NotBegun>) {
        match message {
            // Heard already.
            ToKeeper::Hello(_) => {}
            ToKeeper::Start(start) => self.start(start, refusal),
            ToKeeper::Unread { run, why } if self.journal.roster().get(&run).is_none() => {
                self.told.push(FromKeeper::Ended { run, finished: Finished::not_started(why) });
            }
            ToKeeper::Unread { .. } => {}
            ToKeeper::End { run, why } => {
                if let Some(alive) = self.alive.get(&run) {
                    alive.stop(alive.grace, why.0);
                }
            }
            ToKeeper::Forget { runs } => self.forget(runs),
            ToKeeper::List => self.told.push(FromKeeper::Runs(self.journal.roster().runs())),
            ToKeeper::Reconciled if self.journal.roster().is_complete() => {}
            // Heard by the loop, where it says something.
            ToKeeper::Stop => {}
            ToKeeper::Reconciled => self.journal.note(JournalLine::Complete { complete: true }),
        }
    }

    fn start(&mut self, start: Start, refusal: impl Fn(usize) -> Option<NotBegun>) {
        let run = start.run.clone();
        let refused = refusal(self.alive.len());
        match self.journal.roster().get(&run) {
            Some(RunState::Ended(finished)) => self.told.push(FromKeeper::Ended { run, finished: finished.clone() }),
            Some(RunState::Begun { .. } | RunState::CutOff(_)) => {}
            None if let Some(why) = refused => self.told.push(FromKeeper::NotBegun { run, why }),
            // Nobody is told: the daemon sees that this keeper goes, and the run begins under the next one.
            None if self.stopping.is_some() => tracing::warn!("run {run} is not begun, because the keeper ends"),
            None => {
                let token = Token::new();
                self.journal.note(JournalLine::Begin { run: run.clone(), marks: vec![token.mark()] });
                let (stop, stopped) = watch::channel(None);
                self.alive.insert(run, Alive { stop, grace: start.limits.grace });
                self.starts.push((start, token, stopped));
            }
        }
    }

    fn forget(&mut self, mut runs: Vec<String>) {
        runs.retain(|run| self.journal.roster().get(run).is_some_and(|state| !matches!(state, RunState::Begun { .. })));
        if !runs.is_empty() {
            self.journal.note(JournalLine::Forget { runs });
        }
    }

    pub(super) fn note(&mut self, news: News) {
        match news {
            News::TakenOver(run) => {
                if let Some(alive) = self.alive.get(&run) {
                    tracing::warn!("run {run} is ended: another daemon has taken its job over");
                    alive.stop(Duration::ZERO, EndReason::TakenOver);
                }
            }
            News::Began(run, first) => self.journal.note(JournalLine::Began { run, first }),
            // It heard of the end of its allocation from Slurm before it heard of it from here.
            News::Ended(run, finished) if self.may_be_slurms(&finished) && self.stopping.is_some() => {
                self.ended(run, Finished { ended: Ended::Stopped(EndReason::AllocationEnds), ..finished });
            }
            News::Ended(run, finished) if self.may_be_slurms(&finished) => {
                self.doubtful.insert(run.clone(), finished);
                let news = self.news.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(DOUBT).await;
                    // The loop listens for as long as there are runs.
                    let _ = news.send(News::Waited(run));
                });
            }
            News::Ended(run, finished) => self.ended(run, finished),
            News::Waited(run) => {
                if let Some(finished) = self.doubtful.remove(&run) {
                    self.ended(run, finished);
                }
            }
        }
    }

    /// Did it end as it would if Slurm ended the allocation? Some tell each process of that, and this one perhaps
    /// later.
    fn may_be_slurms(&self, finished: &Finished) -> bool {
        let signals = [Signal::TERM, Signal::KILL].map(Signal::as_raw);
        let by_signal = match finished.ended {
            Ended::Signal(signal) => signals.contains(&signal),
            Ended::Exit(code) => signals.map(|signal| 128 + signal).contains(&code),
            _ => false,
        };
        by_signal && self.ran.is_some()
    }

    fn ended(&mut self, run: String, mut finished: Finished) {
        finished.ran = self.ran.clone().map(Box::new);
        self.alive.remove(&run);
        self.watched.forget(&run);
        self.journal.note(JournalLine::End { run: run.clone(), finished: finished.clone() });
        self.told.push(FromKeeper::Ended { run, finished });
    }

    pub(super) fn stop_all(&mut self, grace: Duration, why: EndReason) {
        tracing::warn!("the keeper is told to end, and ends all runs: {}", self.alive.len());
        self.stopping.get_or_insert_with(Instant::now);
        for (run, finished) in std::mem::take(&mut self.doubtful) {
            self.ended(run, Finished { ended: Ended::Stopped(why), ..finished });
        }
        self.alive.values().for_each(|alive| alive.stop(grace, why));
    }

    /// Writes down what has happened, and begins what is to begin. Returns what the daemon is to be told.
    ///
    /// Of a run that has ended the daemon is told even when the disk is full: as long as this process lives nothing is
    /// lost. A run is not begun then: after a sudden end of this process nobody would know of it.
    pub(super) fn turn(&mut self) -> Vec<FromKeeper> {
        let written = self.journal.flush();
        let starts = std::mem::take(&mut self.starts);
        if written && !starts.is_empty() {
            run::make_room(self.alive.len());
        }
        for (start, token, stop) in starts {
            if written {
                let (owner, watched) = (self.owner.clone(), self.watched.clone());
                tokio::spawn(perform(start, token, stop, owner, watched, self.news.clone()));
            } else {
                let why = "the disk of STATE_DIR does not take the journal of the keeper, so no run is begun";
                self.note(News::Ended(start.run, Finished::not_started(why.to_owned())));
            }
        }
        std::mem::take(&mut self.told)
    }
}

impl Alive {
    /// It may be told again, and then has no more time than before.
    fn stop(&self, grace: Duration, why: EndReason) {
        let less = |before: Told| Told { grace: before.grace.min(grace), ..before };
        self.stop.send_modify(|told| *told = Some(told.map_or(Told { grace, why }, less)));
    }
}

/// The directory of a run, held open, if its claim is still the daemon's.
fn look_at_claim(directory: &Path, record: &Path, owner: &str, name: &str) -> io::Result<Option<(HeldDir, OwnedFd)>> {
    match Run::parse(name) {
        Some(run) => HeldDir::find(directory, record, owner, &run),
        None => Ok(None),
    }
}

/// A run from its begin to its end.
async fn perform(
    start: Start,
    token: Token,
    stop: Stop,
    owner: String,
    watched: Watched,
    news: mpsc::UnboundedSender<News>,
) {
    let Start { run: name, mut command, logs, limits, record, wrapping, marks: _ } = start;
    // The whole machine may have stood still since the daemon sent this, and another one has taken the job over.
    // Here and not on another thread: to begin the run is to enter the same directory, which hangs as well if this
    // does.
    let directory = match look_at_claim(&logs, &record, &owner, &name) {
        Ok(Some((held, directory))) => {
            watched.watch(&name, held);
            Ok(directory)
        }
        Ok(None) => {
            tracing::warn!("run {name} is not begun: another daemon has taken its job over");
            Err(Finished::ended_before(EndReason::TakenOver))
        }
        Err(error) => {
            Err(Finished::not_started(format!("the job directory {} cannot be looked at: {error}", logs.display())))
        }
    };
    let directory = match directory {
        Ok(directory) => directory,
        Err(finished) => {
            let _ = news.send(News::Ended(name, finished));
            return;
        }
    };
    let begun = |first| {
        // The loop listens for as long as there are runs, as below.
        let _ = news.send(News::Began(name.clone(), first));
    };
    let (variable, value) = token.mark();
    command.environment.push((variable.into(), value.into()));
    let place = Place { path: logs, directory };
    let finished = run::run(command, token, wrapping, place, &limits, begun, stop).await;
    let _ = news.send(News::Ended(name, finished));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::keeper::finished::Why;
    use crate::keeper::folder::Origin;
    use crate::keeper::{journal, messages};
    use crate::run::{CommandLine, Ended, Limits, Wrapping};

    fn start(run: &str, directory: &Path, script: &str) -> ToKeeper {
        let command = CommandLine {
            words: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
            environment: vec![("M".into(), run.into())],
            directory: directory.to_owned(),
        };
        if directory.exists() {
            claim(run, directory, "o1");
        }
        let grace = Duration::from_secs(5);
        let limits = Limits {
            time: Duration::from_secs(60),
            grace,
            warning: None,
            log_bytes: 4_096,
            memory: None,
            processors: None,
        };
        ToKeeper::Start(Start {
            run: run.to_owned(),
            command,
            marks: vec![("M".to_owned(), run.to_owned())],
            logs: directory.to_owned(),
            limits,
            record: directory.join(format!("{run}.record")),
            wrapping: Wrapping {
                runtime: protocol::RuntimeKind::Bare,
                image: None,
                hook: false,
                confinement: run::Confinement::default(),
                isolation: None,
                secrets: Default::default(),
                launched: None,
                seen: None,
            },
        })
    }

    /// As the daemon of this owner leaves it for a run.
    fn claim(run: &str, directory: &Path, owner: &str) {
        let Run { job_id, attempt } = Run::parse(run).unwrap();
        let meta = format!(
            r#"{{"v":1,"job_id":"{job_id}","attempt":{attempt},"owner":"{owner}","host":"h","started_at":"2026-11-21T00:00:00Z"}}"#
        );
        std::fs::write(directory.join("meta.json"), meta).unwrap();
    }

    fn keeper(journal: &Path) -> (Runs, mpsc::UnboundedReceiver<News>) {
        let mut roster = journal::read(journal).unwrap();
        roster.take_over(Origin::here());
        let (news, heard) = mpsc::unbounded_channel();
        let journal = Journal::begin(journal.to_owned(), roster).unwrap();
        let mut runs = Runs::new(journal, Watched::default(), news);
        runs.belong_to("o1".to_owned());
        (runs, heard)
    }

    /// Lets the runs go on until one has ended.
    async fn next_end(keeper: &mut Runs, heard: &mut mpsc::UnboundedReceiver<News>) -> Finished {
        loop {
            keeper.note(heard.recv().await.unwrap());
            if let Some(FromKeeper::Ended { finished, .. }) = keeper.turn().pop() {
                return finished;
            }
        }
    }

    fn runs(keeper: &mut Runs) -> messages::Runs {
        keeper.obey(ToKeeper::List, |_| None);
        match keeper.turn().pop() {
            Some(FromKeeper::Runs(runs)) => runs,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_run_is_begun_once_until_it_is_forgotten() {
        let temp = tempfile::tempdir().unwrap();
        let journal = temp.path().join("journal");
        let (mut keeper, mut heard) = keeper(&journal);
        let begin = || start("j1.1", temp.path(), "echo once >> began; echo why >&2; exit 3");
        keeper.obey(begin(), |_| None);
        keeper.obey(begin(), |_| None);
        assert!(keeper.turn().is_empty());
        assert_eq!(journal::read(&journal).unwrap().runs().alive, ["j1.1"], "it is written before it begins");
        let finished = next_end(&mut keeper, &mut heard).await;
        assert_eq!((finished.ended.clone(), finished.stderr_tail.as_str()), (Ended::Exit(3), "why\n"));
        assert!(finished.finished_at_ms >= finished.started_at_ms);

        keeper.obey(begin(), |_| None);
        assert_eq!(keeper.turn(), [FromKeeper::Ended { run: "j1.1".to_owned(), finished: finished.clone() }]);
        assert_eq!(runs(&mut keeper).ended, [("j1.1".to_owned(), finished)]);
        assert_eq!(std::fs::read_to_string(temp.path().join("began")).unwrap(), "once\n");
        keeper.obey(ToKeeper::Forget { runs: vec!["j1.1".to_owned(), "j0.1".to_owned()] }, |_| None);
        assert_eq!(runs(&mut keeper), messages::Runs::default());
    }

    #[tokio::test]
    async fn runs_are_ended_when_told_and_none_begins_when_the_keeper_ends() {
        let temp = tempfile::tempdir().unwrap();
        let (mut keeper, mut heard) = keeper(&temp.path().join("journal"));
        keeper.obey(start("j1.1", temp.path(), "sleep 600"), |_| None);
        keeper.obey(ToKeeper::End { run: "j1.1".to_owned(), why: Why(EndReason::NotHeld) }, |_| None);
        keeper.obey(ToKeeper::Forget { runs: vec!["j1.1".to_owned()] }, |_| None);
        assert_eq!(runs(&mut keeper).alive, ["j1.1"], "what goes on is not forgotten");
        assert_eq!(next_end(&mut keeper, &mut heard).await.ended, Ended::Stopped(EndReason::NotHeld));
        keeper.stop_all(Duration::ZERO, EndReason::ExecutorEnds);
        keeper.obey(start("j2.1", temp.path(), "true"), |_| None);
        assert!(runs(&mut keeper).alive.is_empty() && keeper.alive.is_empty());
    }

    #[tokio::test]
    async fn a_run_that_was_taken_over_is_not_begun_and_does_not_go_on() {
        let temp = tempfile::tempdir().unwrap();
        let (mut keeper, mut heard) = keeper(&temp.path().join("journal"));
        keeper.obey(start("j1.1", temp.path(), "echo 1 > begun"), |_| None);
        claim("j1.2", temp.path(), "o2");
        keeper.turn();
        assert_eq!(next_end(&mut keeper, &mut heard).await.ended, Ended::Stopped(EndReason::TakenOver));
        assert!(!temp.path().join("begun").exists());

        keeper.obey(start("j2.1", temp.path(), "sleep 600"), |_| None);
        keeper.turn();
        keeper.note(heard.recv().await.unwrap());
        assert_eq!(keeper.watched.taken_over(), Vec::<String>::new());
        std::fs::write(temp.path().join("j2.1.record"), "").unwrap();
        assert_eq!(keeper.watched.taken_over(), ["j2.1"]);
        keeper.note(News::TakenOver("j2.1".to_owned()));
        assert_eq!(next_end(&mut keeper, &mut heard).await.ended, Ended::Stopped(EndReason::TakenOver));
        assert_eq!(keeper.watched.taken_over(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_cannot_be_started_says_why() {
        let temp = tempfile::tempdir().unwrap();
        let (mut keeper, mut heard) = keeper(&temp.path().join("journal"));
        keeper.obey(start("j1.1", &temp.path().join("missing"), "true"), |_| None);
        keeper.turn();
        let Ended::NotStarted(why) = next_end(&mut keeper, &mut heard).await.ended else { panic!() };
        assert!(why.contains("missing"), "{why}");
    }
}
