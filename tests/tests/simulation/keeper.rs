//! The keeper of a node: it holds the runs, outlives the daemon, and tells it what became of them. `stand_ins` holds
//! it against the real one.

use std::collections::BTreeMap;

use lifecycle::{EndReason, Event, Finished, Observation, Run, RunEnd, Sighting, Stage};

use crate::plan::{SECOND, Time};
use crate::sabotage::Sabotage;
use crate::world::{Checked, Happening, World};

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Alive,
    /// It is written down how it ended.
    Ended,
    /// Nobody saw how.
    CutOff,
}

/// How a run ends if it is let alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Completed,
    TaskFailed,
    NodeFailed,
    /// It fills the disk that it is on.
    FillsDisk,
    /// Its command could not be started.
    NotStarted,
    /// It was ended because it was not its daemon's any more, or it was not even begun for that reason.
    Ended(EndReason),
}

/// Some jobs fill the disk each time, as long as things go wrong.
fn fills_disks(run: &Run) -> bool {
    run.job_id.as_str().ends_with('7') && !run.job_id.as_str().starts_with("service-")
}

/// A run that is remembered.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) state: State,
    pub(crate) outcome: Outcome,
    pub(crate) ends_at: Time,
    /// Was its claim taken over while the whole node stood still?
    pub(crate) overtaken: bool,
}

impl Kept {
    /// How it ended, as the keeper tells it. The daemon has the same evidence of the node's failures and the task's:
    /// what tells them apart is seen where the end is dealt with.
    fn finished(&self) -> Box<Finished> {
        let end = match self.outcome {
            Outcome::Completed => RunEnd::Exit(0),
            Outcome::TaskFailed | Outcome::NodeFailed | Outcome::FillsDisk => RunEnd::Exit(1),
            Outcome::NotStarted => RunEnd::NotStarted("its directory is not there".to_owned()),
            Outcome::Ended(why) => RunEnd::EndedBy(why),
        };
        finished(end)
    }
}

/// A run that has ended like this.
pub(crate) fn finished(end: RunEnd) -> Box<Finished> {
    let (stdout_tail, stderr_tail) = (String::new(), String::new());
    Box::new(Finished {
        end,
        stdout_tail,
        stderr_tail,
        started_at_ms: 0,
        finished_at_ms: 0,
        runtime: None,
        began: None,
        image_lost: false,
        isolation: None,
        launched: None,
        ran: None,
        usage: None,
    })
}

/// The process, and the journal that outlives it.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) alive: bool,
    /// Does the present daemon have its ear?
    pub(crate) connected: bool,
    /// Does the journal have everything? Not after a reboot, and not before the first one is dealt with: a journal that
    /// is not there may have been lost.
    pub(crate) complete: bool,
    /// When its heart beat last, if it is not alive; if it is, when that of the one before it did.
    pub(crate) died_at: Time,
    /// When it was started.
    pub(crate) born_at: Time,
    pub(crate) runs: BTreeMap<Run, Kept>,
}

impl Keeper {
    pub(crate) fn new() -> Self {
        Self { alive: false, connected: false, complete: false, died_at: 0, born_at: 0, runs: BTreeMap::new() }
    }

    pub(crate) fn is_alive(&self, run: &Run) -> bool {
        self.runs.get(run).is_some_and(|kept| kept.state == State::Alive)
    }

    /// The runs that go on.
    pub(crate) fn alive(&self) -> Vec<Run> {
        let alive = self.runs.iter().filter(|(_, kept)| kept.state == State::Alive);
        alive.map(|(run, _)| run.clone()).collect()
    }

    fn observation(&self) -> Observation {
        let sighting = |(run, kept): (&Run, &Kept)| {
            let sighting = match kept.state {
                State::Alive => Sighting::Alive,
                State::Ended => Sighting::Ended(kept.finished()),
                State::CutOff => Sighting::CutOff("it was killed".to_owned()),
            };
            (run.clone(), sighting)
        };
        Observation { runs: self.runs.iter().map(sighting).collect(), complete: self.complete }
    }
}

impl World {
    pub(crate) fn observe(&mut self, n: usize) -> Event {
        if !self.calm && self.rng.u8(0..60) == 0 {
            self.nodes[n].keeper.connected = false;
            return Event::ExecutorGone(None);
        }
        let now = self.now;
        let keeper = &mut self.nodes[n].keeper;
        if !keeper.alive {
            (keeper.alive, keeper.born_at) = (true, now);
        }
        keeper.connected = true;
        if self.sabotage == Some(Sabotage::RestartInsteadOfObserve) {
            return Event::Observed(Observation { runs: Vec::new(), complete: true });
        }
        Event::Observed(keeper.observation())
    }

    /// A run that is known is not begun again.
    pub(crate) fn start(&mut self, n: usize, run: Run) -> Checked<Option<Event>> {
        let keeper = &self.nodes[n].keeper;
        if !keeper.connected {
            return Ok(Some(Event::ExecutorGone(None)));
        }
        if let Some(kept) = keeper.runs.get(&run)
            && self.sabotage != Some(Sabotage::RestartInsteadOfObserve)
        {
            if kept.state == State::Ended {
                let ended = Event::RunEnded(run, kept.finished());
                self.tell_from_keeper(n, ended);
            }
            return Ok(None);
        }
        let now = self.now;
        if self.can_see(n).is_err() {
            self.is_not_begun(n, run, Outcome::NotStarted);
            return Ok(None);
        }
        if !self.files.may_run(n, &run) {
            self.is_not_begun(n, run, Outcome::Ended(EndReason::TakenOver));
            return Ok(None);
        }
        let lasts = self.begins(n, &run)?;
        if let Some(claim) = self.files.claims.get_mut(&run.job_id) {
            claim.used = true;
        }
        let pool = self.pool_of_run(n, &run);
        let (outcome, lasts) = match self.rng.u8(0..50) {
            _ if self.is_pool_broken(n, pool.as_ref()) => (Outcome::NodeFailed, lasts.min(SECOND)),
            0 | 1 if !self.calm => (Outcome::NodeFailed, lasts.min(SECOND)),
            _ if !self.calm && fills_disks(&run) => (Outcome::FillsDisk, lasts),
            2..=6 => (Outcome::TaskFailed, lasts),
            _ => (Outcome::Completed, lasts),
        };
        let kept = Kept { state: State::Alive, outcome, ends_at: now + lasts, overtaken: false };
        self.note(format_args!("node {n}: {run} begins: {kept:?}"));
        self.nodes[n].keeper.runs.insert(run.clone(), kept);
        self.schedule(now + lasts, Happening::RunOver { node: n, run });
        Ok(None)
    }

    /// A run has its end at once.
    fn is_not_begun(&mut self, n: usize, run: Run, outcome: Outcome) {
        let kept = Kept { state: State::Ended, outcome, ends_at: self.now, overtaken: false };
        let ended = Event::RunEnded(run.clone(), kept.finished());
        self.nodes[n].keeper.runs.insert(run, kept);
        self.tell_from_keeper(n, ended);
    }

    /// A run has come to its end, unless it stood still in between.
    pub(crate) fn run_over(&mut self, n: usize, run: Run) {
        let (now, ours) = (self.now, self.files.holds(n, &run));
        if self.sabotage == Some(Sabotage::KeepSlot)
            && self.plan.wants(&run.job_id).has_outputs()
            && self.transfers.away_until > now
        {
            return self.schedule(self.transfers.away_until, Happening::RunOver { node: n, run });
        }
        let Some(kept) = self.nodes[n].keeper.runs.get_mut(&run) else { return };
        if kept.state != State::Alive {
            return;
        }
        if kept.ends_at > now {
            let at = kept.ends_at;
            self.schedule(at, Happening::RunOver { node: n, run });
            return;
        }
        kept.state = State::Ended;
        let finished = kept.finished();
        if kept.outcome == Outcome::TaskFailed && ours {
            self.task_failed(&run);
        }
        self.note(format_args!("node {n}: {run} is over"));
        self.users_fail(n, &run);
        self.tell_from_keeper(n, Event::RunEnded(run, finished));
    }

    pub(crate) fn end_run(&mut self, n: usize, run: &Run, why: EndReason) -> Checked<Option<Event>> {
        if !self.nodes[n].keeper.connected {
            return Ok(Some(Event::ExecutorGone(None)));
        }
        if !self.nodes[n].keeper.is_alive(run) {
            return Ok(None);
        }
        let unwanted = self.files.cancelled.contains_key(&run.job_id) || self.is_orphan(n, &run.job_id);
        let cancelled = why == EndReason::Cancelled && unwanted;
        let unneeded = self.may_end_instance(n, run, why)?;
        if self.files.holds(n, run) && self.is_open(n, run) && !cancelled && !unneeded {
            return Err(format!("daemon {n} ends {run}, which is its own"));
        }
        self.kill_overtaken(n, run, why);
        Ok(None)
    }

    fn kill_overtaken(&mut self, n: usize, run: &Run, why: EndReason) {
        let Some(kept) = self.nodes[n].keeper.runs.get_mut(run) else { return };
        kept.state = State::Ended;
        kept.outcome = Outcome::Ended(why);
        let finished = kept.finished();
        self.note(format_args!("node {n}: {run} is ended"));
        self.users_fail(n, run);
        self.tell_from_keeper(n, Event::RunEnded(run.clone(), finished));
    }

    pub(crate) fn forget(&mut self, n: usize, runs: &[Run]) -> Checked<Option<Event>> {
        if !self.nodes[n].keeper.connected {
            return Ok(Some(Event::ExecutorGone(None)));
        }
        for run in runs {
            if self.nodes[n].keeper.is_alive(run) {
                return Err(format!("daemon {n} has {run} forgotten, which goes on"));
            }
            if self.is_open(n, run) {
                return Err(format!("daemon {n} has {run} forgotten, and what became of it is not on its disk"));
            }
            self.nodes[n].keeper.runs.remove(run);
        }
        Ok(None)
    }

    /// Is it still to be settled what became of this run?
    fn is_open(&self, n: usize, run: &Run) -> bool {
        let open = |entry: &lifecycle::Entry| entry.stage == Stage::Launching && entry.attempt == Some(run.attempt);
        self.nodes[n].book.entry(&run.job_id).is_some_and(open)
    }

    /// The keeper is killed, and its runs with it. The next one finds its journal.
    pub(crate) fn keeper_dies(&mut self, n: usize) {
        if !self.nodes[n].keeper.alive {
            return;
        }
        for run in self.nodes[n].keeper.alive() {
            self.cut_off(n, &run);
        }
        self.tell_from_keeper(n, Event::ExecutorGone(None));
        let last = self.last_beat(n);
        let keeper = &mut self.nodes[n].keeper;
        keeper.alive = false;
        keeper.connected = false;
        keeper.died_at = last;
    }

    /// One run is killed, and the keeper sees it.
    pub(crate) fn run_vanishes(&mut self, n: usize) {
        let alive = self.nodes[n].keeper.alive();
        if let Some(run) = self.rng.choice(alive) {
            self.cut_off(n, &run);
            self.tell_from_keeper(n, Event::RunCutOff(run, "it was killed".to_owned()));
        }
    }

    fn cut_off(&mut self, n: usize, run: &Run) {
        self.report.cut_off += 1;
        self.note(format_args!("node {n}: {run} is cut off"));
        if let Some(kept) = self.nodes[n].keeper.runs.get_mut(run) {
            kept.state = State::CutOff;
        }
        self.users_fail(n, run);
        self.was_cut_off(&run.job_id);
    }

    /// Without a daemon, and with nothing to tell the next one, it ends.
    pub(crate) fn keeper_is_alone(&mut self, n: usize) {
        let last = self.last_beat(n);
        let keeper = &mut self.nodes[n].keeper;
        keeper.connected = false;
        if keeper.alive && keeper.runs.is_empty() {
            keeper.alive = false;
            keeper.died_at = last;
        }
    }

    /// What the journal had not yet on disk is gone, too.
    pub(crate) fn journal_torn(&mut self, n: usize) {
        let runs: Vec<Run> = self.nodes[n].keeper.runs.keys().cloned().collect();
        let torn: Vec<Run> = runs.into_iter().filter(|_| !self.rng.bool()).collect();
        self.journal_loses(n, &torn);
    }

    /// The machine went down, and these runs are not in the journal.
    pub(crate) fn journal_loses(&mut self, n: usize, runs: &[Run]) {
        self.nodes[n].keeper.complete = false;
        for run in runs {
            let Some(kept) = self.nodes[n].keeper.runs.remove(run) else { continue };
            if self.is_open(n, run) {
                self.end_forgotten(run, kept.outcome == Outcome::TaskFailed && kept.state == State::Ended);
            }
        }
    }

    /// The keeper looks at its claims after it stood still, or did not see them.
    pub(crate) fn thaw(&mut self, n: usize) {
        if self.is_apart(n) || !self.nodes[n].keeper.alive {
            return;
        }
        for run in self.nodes[n].keeper.alive() {
            if !self.files.may_run(n, &run) {
                self.kill_overtaken(n, &run, EndReason::TakenOver);
            }
        }
    }
}
