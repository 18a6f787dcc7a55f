//! Claims, runs, the keeper that holds them, and the node that they run on.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::JobId;

use crate::phases::Phase;
use crate::state::{Lifecycle, Node, Step};
use crate::table::{Job, State};
use crate::{Claimed, Concluded, Effect, Ending, Fact, Notice, Observation, Run, Sighting};

/// Between two looks at a broken node. It doubles each time that a node which passed its probe breaks again without
/// having finished a job: a probe cannot see everything, and each try takes an attempt from a job.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// The longest time between two looks at a broken node.
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(600);

/// Between two comparisons of what runs with what is recorded, when nothing happens.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(60);

/// Before the next try to reach a keeper that has gone.
const KEEPER_PAUSE: Duration = Duration::from_secs(1);

/// How often a node may fail a job here before its outcome is `infrastructure`. The pauses between make this a day.
const NODE_FAILURES_MAX: u32 = 30;

/// How many jobs are claimed besides those that fill the free slots, or as many as there are slots. After a power cut
/// nothing tells whether a job that was ready had been started.
const CLAIMS_AHEAD: usize = 8;

/// How often the end of a run may be held up by a node that passes its probe before that is put down to the job.
const HELD_UP_MAX: u32 = 2;

/// How often a job is started again after it was cut off. A job that takes its machine down each time must not go on.
const CUT_OFFS_MAX: u32 = 10;

/// How old a message may be to go back. The queue forgets a message some time after it was sent, whatever happens to
/// it: on the free plan after a day.
const GIVE_BACK_AGE_MAX: Duration = Duration::from_hours(12);

/// The longest pause before a node tries a job again that it failed.
const AGAIN_PAUSE_MAX: Duration = Duration::from_secs(3_600);

impl Lifecycle {
    /// May jobs be claimed and started?
    pub(crate) fn may_begin(&self) -> bool {
        self.node == Node::Ready && self.keeper.known && !self.draining()
    }

    /// Claims what waits and starts what is ready, as far as there are slots.
    pub(crate) fn begin_runs(&mut self, step: &mut Step) {
        if !self.may_begin() {
            return;
        }
        while self.free_slots() > 0
            && (self.trusted || self.running() + self.being_dealt_with() == 0)
            && let Some(job_id) = self.jobs.first_ready()
        {
            self.jobs.set(&job_id, State::Running(Some(self.now)));
            step.effects.push(Effect::Start(self.run_of(&job_id)));
        }
        loop {
            let claimed = self.jobs.count(Phase::Claiming) + self.jobs.count(Phase::Ready);
            let at_work = claimed + self.running() + self.being_dealt_with();
            let ahead = self.ahead().min(self.settings.slots.max(CLAIMS_AHEAD));
            let room = if self.trusted { claimed < self.free_slots() + ahead } else { at_work == 0 };
            if !room {
                break;
            }
            let Some(job_id) = self.jobs.due(self.now) else { break };
            let Some(job) = self.jobs.get(&job_id) else { break };
            let (last_attempt, rerunnable) = (job.attempt, job.terms.rerunnable);
            self.jobs.set(&job_id, State::Claiming);
            step.effects.push(Effect::Claim { job_id, last_attempt, rerunnable });
        }
    }

    pub(crate) fn claimed(&mut self, job_id: &JobId, claimed: Claimed, step: &mut Step) {
        if self.phase_of(job_id) != Some(Phase::Claiming) {
            return;
        }
        match claimed {
            Claimed::Ours(attempt) => {
                if let Some(job) = self.jobs.get_mut(job_id) {
                    job.attempt = attempt;
                    job.claims_failed = 0;
                }
                step.facts.push(Fact::Launching(job_id.clone(), attempt));
                self.jobs.set(job_id, State::Ready);
            }
            Claimed::Finished(record) => self.recorded(job_id, record, step),
            Claimed::Elsewhere => {
                step.effects.push(Effect::Say(Notice::Elsewhere(job_id.clone())));
                self.jobs.set(job_id, State::Waiting(self.now + self.settings.claim_patience));
            }
            Claimed::NodeBroken(problem) => self.claim_failed(job_id, problem, step),
        }
    }

    fn claim_failed(&mut self, job_id: &JobId, problem: String, step: &mut Step) {
        let goes_back = self.can_go_back(job_id);
        let Some(job) = self.jobs.get_mut(job_id) else { return };
        // Part of the claim may stand, and would keep every other daemon from the job: it is an attempt like one that was
        // launched, and the job goes back only when its claim is given up for sure.
        let first = job.attempt == 0;
        job.attempt = job.attempt.max(1);
        job.claims_failed = job.claims_failed.saturating_add(1);
        if job.claims_failed > HELD_UP_MAX {
            return self.claim_fails_again(job_id, problem, step);
        }
        if goes_back && first {
            let run = self.run_of(job_id);
            self.jobs.set(job_id, State::Returning(self.settings.retry_delay));
            step.effects.push(Effect::Unclaim(run));
        } else {
            self.jobs.set(job_id, State::Waiting(self.now + self.settings.retry_delay));
        }
        self.node_broken(problem, step);
    }

    /// Probes have passed in between: it is something about this job, which must not hold up all others.
    fn claim_fails_again(&mut self, job_id: &JobId, problem: String, step: &mut Step) {
        let Some(job) = self.jobs.get_mut(job_id) else { return };
        job.failures.node += 1;
        let failures = job.failures;
        if failures.node > NODE_FAILURES_MAX {
            let run = self.run_of(job_id);
            return self.conclude(&run, Ending::GivenUp(problem), step);
        }
        let next_try = self.node_pause(failures.node);
        step.facts.push(Fact::Again(job_id.clone(), failures));
        step.effects.push(Effect::Say(Notice::HeldUp { job_id: job_id.clone(), problem, next_try }));
        self.jobs.set(job_id, State::Waiting(self.now + next_try));
    }

    /// The pause before a job is tried again that this node has failed so often.
    fn node_pause(&self, failures: u32) -> Duration {
        self.settings.retry_delay.saturating_mul(1 << failures.min(12)).min(AGAIN_PAUSE_MAX)
    }

    fn recorded(&mut self, job_id: &JobId, record: String, step: &mut Step) {
        self.jobs.set(job_id, State::Recorded(record.len()));
        step.facts.push(Fact::Recorded(job_id.clone(), record));
    }

    /// Observed against recorded: the same pass after a start, after the keeper went, and from time to time.
    pub(crate) fn observed(&mut self, observation: Observation, step: &mut Step) {
        let asked_at = self.keeper.asked.take().unwrap_or_default();
        let first = !std::mem::replace(&mut self.keeper.known, true);
        self.keeper.ask_at = self.now + OBSERVE_INTERVAL;
        let mut sightings: BTreeMap<Run, Sighting> = observation.runs.into_iter().collect();
        let running: Vec<(Run, Option<Duration>)> = self
            .jobs
            .iter()
            .filter_map(|(job_id, job)| match job.state {
                State::Running(since) => Some((Run { job_id: job_id.clone(), attempt: job.attempt }, since)),
                _ => None,
            })
            .collect();
        let mut alive = 0;
        for (run, since) in running {
            match sightings.remove(&run) {
                Some(Sighting::Alive) => alive += 1,
                Some(Sighting::Ended) => self.run_ended(&run, step),
                Some(Sighting::CutOff(what)) => self.cut_off(&run, what, step),
                // It was told to the keeper after the list was asked for.
                None if since.is_some_and(|since| since >= asked_at) => {}
                // Nothing is begun before it is in the list.
                None if observation.complete => self.jobs.set(&run.job_id, State::Ready),
                None => {
                    let what = "it was to be started when the machine went down, and nothing tells whether it was";
                    self.cut_off(&run, what.to_owned(), step);
                }
            }
        }
        if first && alive > 0 {
            step.effects.push(Effect::Say(Notice::TakenUp { running: alive }));
        }
        for (run, sighting) in sightings {
            self.stray_run(run, &sighting, step);
        }
        self.keeper.to_reconcile = !observation.complete;
    }

    /// Once all that was missing in the list has its consequences on disk, the list is as good as complete. A job that
    /// is lost is not there yet while its record is being written.
    pub(crate) fn reconcile_done(&mut self, step: &mut Step) {
        let undecided = |job: &Job| matches!(job.state, State::Ending { ending: Ending::CutOff(_), .. });
        if self.keeper.to_reconcile && !self.jobs.iter().any(|(_, job)| undecided(job)) {
            self.keeper.to_reconcile = false;
            step.effects.push(Effect::Reconciled);
        }
    }

    /// A run that is not recorded as running.
    fn stray_run(&mut self, run: Run, sighting: &Sighting, step: &mut Step) {
        if self.jobs.is(&run, Phase::Ready) {
            // It was told to an earlier keeper connection and begun after all.
            self.jobs.set(&run.job_id, State::Running(None));
            self.taken_up = self.taken_up.max(self.running());
            match sighting {
                Sighting::Alive => {}
                Sighting::Ended => self.run_ended(&run, step),
                Sighting::CutOff(what) => self.cut_off(&run, what.clone(), step),
            }
        } else if self.jobs.is(&run, Phase::Ending) {
            // It is being dealt with, and forgotten after that.
        } else if *sighting == Sighting::Alive {
            step.effects.push(Effect::End(run));
        } else {
            step.effects.push(Effect::Forget(vec![run]));
        }
    }

    pub(crate) fn keeper_gone(&mut self) {
        self.keeper.known = false;
        self.keeper.to_reconcile = false;
        self.keeper.asked = None;
        self.keeper.ask_at = self.now + KEEPER_PAUSE;
    }

    pub(crate) fn run_ended(&mut self, run: &Run, step: &mut Step) {
        if self.jobs.is(run, Phase::Running) {
            self.conclude(run, Ending::Exited, step);
        } else if !self.jobs.is(run, Phase::Ending) && !self.jobs.is(run, Phase::Ready) {
            step.effects.push(Effect::Forget(vec![run.clone()]));
        }
    }

    pub(crate) fn run_cut_off(&mut self, run: &Run, what: String, step: &mut Step) {
        if self.jobs.is(run, Phase::Running) {
            self.cut_off(run, what, step);
        } else {
            self.run_ended(run, step);
        }
    }

    fn conclude(&mut self, run: &Run, ending: Ending, step: &mut Step) {
        let Some(job) = self.jobs.get(&run.job_id) else { return };
        let may_retry = job.failures.task < job.terms.retries;
        let held_up = match job.state {
            State::Ending { held_up, .. } => held_up,
            _ => 0,
        };
        let state = State::Ending { ending: ending.clone(), under_way: true, held_up, again_at: Duration::ZERO };
        self.jobs.set(&run.job_id, state);
        step.effects.push(Effect::Conclude { run: run.clone(), ending, may_retry });
    }

    /// How many runs are over and on their way to a record, without those that wait for a broken directory.
    pub(crate) fn being_dealt_with(&self) -> usize {
        self.jobs.count(Phase::Ending) - self.jobs.undone_count()
    }

    /// Goes on with what a broken node has held up.
    pub(crate) fn conclude_undone(&mut self, step: &mut Step) {
        if self.node != Node::Ready {
            return;
        }
        while let Some(job_id) = self.jobs.first_undone(self.now) {
            let run = self.run_of(&job_id);
            let Some(State::Ending { ending, .. }) = self.jobs.get(&job_id).map(|job| &job.state) else { break };
            self.conclude(&run, ending.clone(), step);
        }
    }

    pub(crate) fn concluded(&mut self, run: &Run, concluded: Concluded, step: &mut Step) {
        if !self.jobs.is(run, Phase::Ending) {
            return;
        }
        let job_id = &run.job_id;
        match concluded {
            Concluded::Recorded(record) => {
                // Only a run that went to its end tells that the node is well.
                if matches!(
                    self.jobs.get(job_id).map(|job| &job.state),
                    Some(State::Ending { ending: Ending::Exited, .. })
                ) {
                    self.job_ended();
                }
                self.recorded(job_id, record, step);
                step.effects.push(Effect::Forget(vec![run.clone()]));
            }
            Concluded::TaskFailed => {
                self.job_ended();
                self.again(run, Duration::ZERO, |failures| failures.task += 1, step);
            }
            Concluded::NodeFailed(problem) => self.node_failed(run, problem, step),
            Concluded::NodeBroken(problem) => {
                let Some(State::Ending { ending, held_up, .. }) = self.jobs.get(job_id).map(|job| &job.state) else {
                    return;
                };
                let (ending, held_up) = (ending.clone(), held_up.saturating_add(1));
                // Probes have passed in between: it is something about this job, which must not hold up all others.
                let its_own = held_up > HELD_UP_MAX;
                let pause = if its_own { PROBE_INTERVAL.saturating_mul(1 << held_up.min(6)) } else { Duration::ZERO };
                let again_at = self.now + pause.min(PROBE_INTERVAL_MAX);
                self.jobs.set(job_id, State::Ending { ending, under_way: false, held_up, again_at });
                if its_own {
                    let next_try = again_at.saturating_sub(self.now);
                    step.effects.push(Effect::Say(Notice::HeldUp { job_id: job_id.clone(), problem, next_try }));
                } else {
                    self.node_broken(problem, step);
                }
            }
            Concluded::TakenOver => {
                // Its successor holds the job, and the message as well: the leases lapse.
                self.jobs.remove(job_id);
                step.facts.push(Fact::Released(job_id.clone()));
                step.effects.push(Effect::Forget(vec![run.clone()]));
            }
        }
    }

    fn node_failed(&mut self, run: &Run, problem: String, step: &mut Step) {
        let job_id = &run.job_id;
        self.node_broken(problem.clone(), step);
        let failures = self.jobs.get(job_id).map_or(0, |job| job.failures.node);
        if failures >= NODE_FAILURES_MAX {
            self.conclude(run, Ending::GivenUp(problem), step);
        } else if self.can_go_back(job_id) {
            self.jobs.set(job_id, State::Returning(self.settings.retry_delay));
            step.effects.extend([Effect::Unclaim(run.clone()), Effect::Forget(vec![run.clone()])]);
            self.failed_by_node(run, step);
        } else {
            let pause = self.node_pause(failures);
            self.again(run, pause, |failures| failures.node += 1, step);
        }
    }

    /// The attempt is over, whatever becomes of the job: a restart must not look for its run.
    fn failed_by_node(&mut self, run: &Run, step: &mut Step) {
        if let Some(job) = self.jobs.get_mut(&run.job_id) {
            job.failures.node += 1;
            step.facts.push(Fact::Again(run.job_id.clone(), job.failures));
        }
    }

    fn again(&mut self, run: &Run, pause: Duration, count: impl Fn(&mut crate::Failures), step: &mut Step) {
        if let Some(job) = self.jobs.get_mut(&run.job_id) {
            count(&mut job.failures);
            step.facts.push(Fact::Again(run.job_id.clone(), job.failures));
            step.effects.push(Effect::Forget(vec![run.clone()]));
        }
        self.jobs.set(&run.job_id, State::Waiting(self.now + pause));
    }

    fn cut_off(&mut self, run: &Run, what: String, step: &mut Step) {
        let Some(job) = self.jobs.get(&run.job_id) else { return };
        let again = job.terms.rerunnable && job.failures.cut_off < CUT_OFFS_MAX;
        step.effects.push(Effect::Say(Notice::CutOff { run: run.clone(), what: what.clone(), again }));
        if again {
            self.again(run, Duration::ZERO, |failures| failures.cut_off += 1, step);
        } else {
            self.conclude(run, Ending::CutOff(what), step);
        }
    }

    /// Can the job go back to the queue, so that nothing of it is ours any more? Only while its message is sure to be
    /// there: it was delivered to us alone, and the lease holds.
    fn can_go_back(&self, job_id: &JobId) -> bool {
        self.jobs.get(job_id).is_some_and(|job| {
            // What has failed already counts, and would be forgotten.
            let unharmed = job.failures.task + job.failures.cut_off == 0;
            // It must be there for longer than it takes to be delivered again.
            let young = job.sent.is_none_or(|sent| self.now < sent + GIVE_BACK_AGE_MAX);
            unharmed
                && young
                && job.deliveries <= 1
                && !job.leases.is_empty()
                && job.leases.iter().all(|lease| lease.until > self.now)
        })
    }

    /// Gives back all that was not started, as far as that is possible; the rest waits here.
    pub(crate) fn give_unstarted_back(&mut self, delay: Duration, step: &mut Step) {
        for job_id in self.jobs.waiting().into_iter().chain(self.jobs.ready()) {
            self.give_back(&job_id, delay, step);
        }
    }

    fn give_back(&mut self, job_id: &JobId, delay: Duration, step: &mut Step) {
        if !self.can_go_back(job_id) {
            return;
        }
        match self.phase_of(job_id) {
            // An earlier attempt here has left its claim on disk, and no other daemon could take the job.
            Some(Phase::Waiting) if self.run_of(job_id).attempt > 0 => {}
            Some(Phase::Waiting) => self.release(job_id, delay, step),
            Some(Phase::Ready) => {
                // From here on a restart claims anew: the claim may be gone already.
                let failures = self.jobs.get(job_id).map(|job| job.failures).unwrap_or_default();
                step.facts.push(Fact::Again(job_id.clone(), failures));
                self.jobs.set(job_id, State::Returning(delay));
                step.effects.push(Effect::Unclaim(self.run_of(job_id)));
            }
            _ => {}
        }
    }

    fn release(&mut self, job_id: &JobId, delay: Duration, step: &mut Step) {
        let leases = self.jobs.remove(job_id);
        step.facts.push(Fact::Released(job_id.clone()));
        self.retry(leases, delay);
    }

    pub(crate) fn unclaimed(&mut self, run: &Run, outcome: Result<(), String>, step: &mut Step) {
        if !self.jobs.is(run, Phase::Returning) {
            return;
        }
        let Some(State::Returning(delay)) = self.jobs.get(&run.job_id).map(|job| &job.state) else { return };
        let delay = *delay;
        match outcome {
            Ok(()) if self.can_go_back(&run.job_id) => self.release(&run.job_id, delay, step),
            outcome => {
                self.jobs.set(&run.job_id, State::Waiting(self.now + self.settings.retry_delay));
                if let Err(problem) = outcome {
                    self.node_broken(problem, step);
                }
            }
        }
    }

    pub(crate) fn probed(&mut self, outcome: Result<(), String>, step: &mut Step) {
        let Node::Probing { broken } = &mut self.node else { return };
        let known = broken.take();
        match outcome {
            Ok(()) => {
                self.node = Node::Ready;
                // What went back meanwhile may be there again.
                self.empty_pulls = 0;
                // A job of days must not keep all other slots empty for as long.
                self.trust_at = (!self.trusted).then_some(self.now + PROBE_INTERVAL_MAX);
                if known.is_some() {
                    step.effects.push(Effect::Say(Notice::NodeReady));
                }
            }
            Err(problem) => {
                if known.as_ref() != Some(&problem) {
                    step.effects.push(Effect::Say(Notice::NodeBroken(problem.clone())));
                }
                self.node = Node::Broken { probe_at: self.now + PROBE_INTERVAL, problem: Some(problem) };
            }
        }
    }

    pub(crate) fn node_broken(&mut self, problem: String, step: &mut Step) {
        if self.node != Node::Ready {
            return;
        }
        self.node = Node::Broken { probe_at: self.now + self.probe_interval, problem: Some(problem.clone()) };
        self.probe_interval = (self.probe_interval * 2).min(PROBE_INTERVAL_MAX);
        self.trusted = false;
        self.trust_at = None;
        step.effects.push(Effect::Say(Notice::NodeBroken(problem)));
        self.give_unstarted_back(self.settings.retry_delay, step);
    }
}
