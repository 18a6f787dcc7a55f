//! Claims, runs, and the executor that holds them.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::{JobId, JobResult, PoolName};

use crate::lane::Turn;
use crate::lifecycle::{Lifecycle, Step};
use crate::needs::Places;
use crate::phases::Phase;
use crate::pool::Pool;
use crate::pools::PoolNo;
use crate::table::{Job, State};
use crate::transfers::Transfer;
use crate::trouble::pause_of_its_own;
use crate::{
    Attempt, Claimed, Concluded, Effect, EndReason, Ending, Fact, Finished, Notice, Observation, Room, Run, RunEnd,
    Sighting,
};

/// How many jobs are claimed besides those that fill the free slots, or as many as there are slots. After a power cut
/// nothing tells whether a job that was ready had been started.
const CLAIMS_AHEAD: usize = 8;

/// Before what a run left behind is looked at again although a probe finds nothing wrong; the second time twice as
/// long. What is away may come back: the first beat of a keeper's heart, say.
const HELD_UP_PAUSE: Duration = Duration::from_secs(1);

/// How often a job is started again after it was cut off. A job that takes its machine down each time must not go on.
const CUT_OFFS_MAX: u32 = 10;

impl Lifecycle {
    /// May jobs be claimed and started in a pool?
    pub(crate) fn may_begin(&self, no: PoolNo) -> bool {
        no != self.pools.nowhere() && self.pools.get(no).is_ready() && self.executor.is_known() && !self.draining()
    }

    /// Claims what waits and starts what is ready, as far as there is room: in each pool in the order in which jobs
    /// were accepted, so that a large one has its turn, and none of another pool waits for it.
    pub(crate) fn begin_runs(&mut self, step: &mut Step) {
        let mut pools: Vec<PoolNo> = self.pools.real().filter(|no| self.may_begin(*no)).collect();
        pools.iter().for_each(|no| self.start_ready(*no, step));
        let share_services = pools.len() > 1 && pools.iter().any(|no| self.jobs.lane(*no).needing_count() > 0);
        if share_services || !self.settings.site.quota.is_unlimited() {
            // What all pools have in common goes to whoever waits for the longest time.
            pools.sort_by_cached_key(|no| self.next_to_claim(*no).map(|(turn, ..)| turn));
        }
        for no in pools {
            if !self.claim_due(no, step) {
                break;
            }
        }
    }

    fn start_ready(&mut self, no: PoolNo, step: &mut Step) {
        while self.jobs.lane(no).count(Phase::Ready) > 0
            && (self.pools.get(no).is_trusted() || self.at_work(no) == 0)
            && let Some(job_id) = self.jobs.lane(no).first_ready().cloned()
            && let Some(job) = self.jobs.get(&job_id)
            && self.jobs.lane(no).can_start(job)
            && (job.grant.is_some() || self.is_within_quota(no, false, job))
            && let Some(run) = self.run_of(&job_id)
        {
            self.jobs.set(&job_id, State::Running(Some(self.now)));
            step.effects.push(Effect::Start(run.clone()));
            self.instance_begins(&run, step);
        }
    }

    /// Claims jobs of a pool. Are the other pools to do so as well? Not once the quota is used up.
    fn claim_due(&mut self, no: PoolNo, step: &mut Step) -> bool {
        loop {
            let (pool, lane) = (self.pools.get(no), self.jobs.lane(no));
            let Some((_, job_id, places)) = self.next_to_claim(no) else { return true };
            let Some(job) = self.jobs.get(&job_id) else { return true };
            let ahead = pool.ahead(self.now).min(lane.slots().max(CLAIMS_AHEAD));
            let claimed = lane.count(Phase::Claiming) + lane.count(Phase::Ready);
            let has_room = if pool.is_trusted() { lane.can_claim(job, ahead) } else { claimed + self.at_work(no) == 0 };
            if !has_room {
                return true;
            }
            if !self.is_within_quota(no, true, job) {
                return false;
            }
            let (last_attempt, rerunnable, round) = (job.launched, job.terms.rerunnable, job.round());
            if let Some(places) = places {
                self.take_places(&job_id, places);
            }
            self.jobs.set(&job_id, State::Claiming);
            self.round_claimed(&job_id);
            step.effects.push(Effect::Claim { job_id, last_attempt, rerunnable, round });
        }
    }

    /// The job of a pool whose turn it is: the first that waits for nothing but a slot, or that can have its places in
    /// services as well, which come with it.
    fn next_to_claim(&self, no: PoolNo) -> Option<(Turn, JobId, Option<Places>)> {
        let due = self.jobs.lane(no).first_due();
        let served = self.first_with_places(no).filter(|(turn, ..)| due.is_none_or(|(first, _)| *turn < first));
        match served {
            Some((turn, job_id, places)) => Some((turn, job_id, Some(places))),
            None => due.map(|(turn, job_id)| (turn, job_id.clone(), None)),
        }
    }

    /// May a job of this pool have what it is to get, beside what all pools together have taken? In a batch system the
    /// allocations are within the quota, and what runs in them is theirs.
    fn is_within_quota(&self, no: PoolNo, with_claimed: bool, job: &Job) -> bool {
        let quota = &self.settings.site.quota;
        let taken = || self.jobs.lanes().map(|lane| lane.shared(with_claimed)).sum();
        quota.is_unlimited() || self.jobs.lane(no).room_elsewhere().is_some() || quota.allows(taken(), &job.resources)
    }

    /// The executor says what a pool has that lives in a batch system.
    pub(crate) fn room_is(&mut self, pool: &PoolName, room: Room) {
        let no = self.pools.of_name(Some(pool));
        if self.jobs.lane(no).room_elsewhere() != Some(&room) {
            self.jobs.lane_mut(no).set_room(room);
        }
    }

    /// The executor says what a run waits for that it has not begun yet, or that it waits no more.
    pub(crate) fn run_waits(&mut self, run: &Run, why: Option<String>) {
        if self.jobs.is(run, Phase::Running) {
            self.jobs.set_waits(&run.job_id, why);
        }
    }

    /// How many runs of a pool go on, or are on their way to a record.
    fn at_work(&self, no: PoolNo) -> usize {
        self.jobs.lane(no).count(Phase::Running) + self.being_dealt_with(no)
    }

    pub(crate) fn claimed(&mut self, job_id: &JobId, claimed: Claimed, step: &mut Step) {
        if self.phase_of(job_id) != Some(Phase::Claiming) {
            return;
        }
        match claimed {
            Claimed::Ours(attempt) => {
                if let Some(job) = self.jobs.get_mut(job_id) {
                    job.attempt = Some(attempt);
                    job.launched = Some(attempt);
                    job.claims_failed = 0;
                    job.elsewhere = false;
                    // They are in its directory now, and a further attempt needs them anew.
                    job.transfer = Transfer::default();
                }
                self.pool_of_mut(job_id).job_claimed();
                self.jobs.drop_input(job_id);
                self.jobs.set(job_id, State::Ready);
                step.facts.extend(self.launched(job_id).map(|at| Fact::Launching(job_id.clone(), attempt, at)));
                if self.jobs.get(job_id).is_some_and(|job| job.terms.is_graph) {
                    self.begin_unfolding(job_id);
                }
            }
            Claimed::Finished(record) => {
                self.unstage(job_id, step);
                self.recorded(job_id, record, step);
            }
            Claimed::Elsewhere => {
                step.effects.push(Effect::Say(Notice::Elsewhere(job_id.clone())));
                if let Some(job) = self.jobs.get_mut(job_id) {
                    job.elsewhere = true;
                }
                self.jobs.set(job_id, State::Waiting(self.now + self.settings.claim_patience));
            }
            Claimed::NodeBroken(problem) => {
                // Some of them may be in its directory already.
                if let Some(job) = self.jobs.get_mut(job_id) {
                    job.transfer.staged = false;
                }
                self.claim_failed(job_id, problem, step);
            }
        }
    }

    pub(crate) fn recorded(&mut self, job_id: &JobId, record: String, step: &mut Step) {
        self.jobs.set(job_id, State::Recorded(record.len()));
        if self.service_of(job_id).is_some() {
            let said = JobResult::parse(&record).ok().and_then(|result| result.message);
            self.instance_is_over(job_id, said, step);
        }
        step.facts.push(Fact::Recorded(job_id.clone(), record));
        self.has_its_record(job_id, step);
    }

    /// Observed against recorded: the same pass after a start, after the keeper went, and from time to time.
    pub(crate) fn observed(&mut self, observation: Observation, step: &mut Step) {
        let answer = self.executor.answered(observation.complete, self.now);
        self.tell_again_what_to_end();
        self.tell_again_which_instances_end();
        let mut sightings: BTreeMap<Run, Sighting> = observation.runs.into_iter().collect();
        let running: Vec<(JobId, Option<Attempt>, Option<Duration>)> = self
            .jobs
            .iter()
            .filter_map(|(job_id, job)| match job.state {
                State::Running(since) => Some((job_id.clone(), job.attempt, since)),
                _ => None,
            })
            .collect();
        let mut alive = 0;
        for (job_id, attempt, since) in running {
            let Some(run) = attempt.map(|attempt| Run { job_id, attempt }) else { continue };
            let told_since = || since.is_some_and(|since| answer.asked_at.is_none_or(|asked_at| since >= asked_at));
            match sightings.remove(&run) {
                Some(sighting @ (Sighting::Alive | Sighting::Queued)) => {
                    alive += 1;
                    self.instance_is_seen(&run, sighting == Sighting::Queued);
                }
                Some(Sighting::Ended(finished)) => self.run_ended(&run, finished, step),
                Some(Sighting::CutOff(what)) => self.cut_off(&run, what, step),
                // It was told to the executor after the list was asked for.
                None if told_since() => {}
                // Nothing is begun before it is in the list.
                None if observation.complete || self.is_elsewhere(&run.job_id) => {
                    if self.lost_services(&run.job_id).is_some() {
                        // An instance that it was launched with has gone since: it waits for another one.
                        self.services.placeless.insert(run.job_id.clone());
                    }
                    self.jobs.set(&run.job_id, State::Ready);
                }
                None => {
                    let what = "it was to be started when the machine went down, and nothing tells whether it was";
                    self.cut_off(&run, what.to_owned(), step);
                }
            }
        }
        if answer.first && alive > 0 {
            step.effects.push(Effect::Say(Notice::TakenUp { running: alive }));
        }
        for (run, sighting) in sightings {
            self.stray_run(run, sighting, step);
        }
    }

    /// Once all that was missing in the list has its consequences on disk, the list is as good as complete. A job that
    /// is lost is not there yet while its record is being written.
    pub(crate) fn reconcile_done(&mut self, step: &mut Step) {
        let undecided = |job: &Job| {
            let (State::Ending { ending, .. } | State::Uploading { ending, .. }) = &job.state else { return false };
            matches!(ending, Ending::CutOff(_))
        };
        let told = self.executor.reconcile(|| !self.jobs.iter().any(|(_, job)| undecided(job)));
        step.effects.extend(told.then_some(Effect::Reconciled));
    }

    /// Does it run in a batch system? What was handed over for that is on disk before it is, or in the list.
    pub(crate) fn is_elsewhere(&self, job_id: &JobId) -> bool {
        self.jobs.get(job_id).is_some_and(|job| self.jobs.lane(job.lane).room_elsewhere().is_some())
    }

    /// A run that is not recorded as running.
    fn stray_run(&mut self, run: Run, sighting: Sighting, step: &mut Step) {
        if self.jobs.is(&run, Phase::Ready) {
            // It was told on an earlier connection and begun after all.
            self.jobs.set(&run.job_id, State::Running(None));
            match sighting {
                Sighting::Alive | Sighting::Queued => {}
                Sighting::Ended(finished) => self.run_ended(&run, finished, step),
                Sighting::CutOff(what) => self.cut_off(&run, what, step),
            }
        } else if self.has_ended(&run) {
            // It is being dealt with, and forgotten after that.
        } else if matches!(sighting, Sighting::Alive | Sighting::Queued) {
            step.effects.push(Effect::End(run, EndReason::NotHeld));
        } else {
            step.effects.push(Effect::Forget(vec![run]));
        }
    }

    pub(crate) fn run_ended(&mut self, run: &Run, finished: Box<Finished>, step: &mut Step) {
        if !self.jobs.is(run, Phase::Running) {
            return self.forget_unless_needed(run, step);
        }
        match finished.end {
            RunEnd::EndedBy(EndReason::Cancelled) => self.conclude(run, Ending::Finished(finished), step),
            RunEnd::EndedBy(reason) if reason.is_of_service() => {
                self.instance_was_ended(run, reason);
                self.conclude(run, Ending::Finished(finished), step);
            }
            // A keeper of an earlier version does not say that it was this.
            RunEnd::EndedBy(EndReason::Unsaid) if self.is_cancelled(&run.job_id) => {
                let finished = Finished { end: RunEnd::EndedBy(EndReason::Cancelled), ..*finished };
                self.conclude(run, Ending::Finished(Box::new(finished)), step);
            }
            RunEnd::EndedBy(EndReason::Unsaid) if let Some(reason) = self.ending_of_instance(&run.job_id) => {
                let finished = Finished { end: RunEnd::EndedBy(reason), ..*finished };
                self.conclude(run, Ending::Finished(Box::new(finished)), step);
            }
            // Before its time, by no fault of its own.
            RunEnd::EndedBy(reason) => self.cut_off(run, reason.to_string(), step),
            _ => self.conclude(run, Ending::Finished(finished), step),
        }
    }

    pub(crate) fn run_cut_off(&mut self, run: &Run, what: String, step: &mut Step) {
        if self.jobs.is(run, Phase::Running) {
            self.cut_off(run, what, step);
        } else {
            self.forget_unless_needed(run, step);
        }
    }

    pub(crate) fn run_rejected(&mut self, run: &Run, why: String, step: &mut Step) {
        if !self.jobs.is(run, Phase::Running) {
            return self.forget_unless_needed(run, step);
        }
        let cancelled = self.is_cancelled(&run.job_id);
        self.conclude(run, if cancelled { Ending::Cancelled(None) } else { Ending::Rejected(why) }, step);
    }

    /// A run is over that is not recorded as running.
    fn forget_unless_needed(&self, run: &Run, step: &mut Step) {
        if !self.has_ended(run) && !self.jobs.is(run, Phase::Ready) {
            step.effects.push(Effect::Forget(vec![run.clone()]));
        }
    }

    /// Is this run over and its job has no record yet? It is forgotten when that has.
    fn has_ended(&self, run: &Run) -> bool {
        self.jobs.is(run, Phase::Ending) || self.jobs.is(run, Phase::Uploading)
    }

    pub(crate) fn conclude(&mut self, run: &Run, ending: Ending, step: &mut Step) {
        self.unstage(&run.job_id, step);
        let Some(job) = self.jobs.get(&run.job_id) else { return };
        let may_retry = job.failures.task < job.terms.retries && !self.is_cancelled(&run.job_id);
        let held_up = match job.state {
            State::Ending { held_up, .. } => held_up,
            _ => 0,
        };
        self.jobs.set(&run.job_id, State::Ending { ending: ending.clone(), held_up, again_at: None });
        step.effects.push(Effect::Conclude { run: run.clone(), ending, may_retry });
    }

    /// How many runs are over and on their way to a record, without those that wait for a broken directory.
    pub(crate) fn being_dealt_with(&self, no: PoolNo) -> usize {
        let lane = self.jobs.lane(no);
        lane.count(Phase::Ending) - lane.undone_count()
    }

    /// The pool in which a job is, or what stands for it.
    pub(crate) fn pool_of_mut(&mut self, job_id: &JobId) -> &mut Pool {
        let no = self.jobs.get(job_id).map_or(self.pools.nowhere(), |job| job.lane);
        self.pools.get_mut(no)
    }

    /// Goes on with what a broken node has held up.
    pub(crate) fn conclude_undone(&mut self, step: &mut Step) {
        for no in self.pools.all().filter(|no| self.pools.get(*no).is_ready()).collect::<Vec<_>>() {
            while let Some(job_id) = self.jobs.lane(no).first_undone(self.now).cloned() {
                let Some(run) = self.run_of(&job_id) else { break };
                let Some(State::Ending { ending, .. }) = self.jobs.get(&job_id).map(|job| &job.state) else { break };
                self.conclude(&run, ending.clone(), step);
            }
        }
    }

    pub(crate) fn concluded(&mut self, run: &Run, concluded: Concluded, step: &mut Step) {
        if !self.jobs.is(run, Phase::Ending) {
            return;
        }
        let job_id = &run.job_id;
        match concluded {
            Concluded::Recorded(record) => {
                self.ended_by_itself(job_id);
                self.recorded(job_id, record, step);
                step.effects.push(Effect::Forget(vec![run.clone()]));
            }
            Concluded::ToUpload => {
                self.ended_by_itself(job_id);
                self.has_outputs_to_send(run);
            }
            Concluded::Parks(continuation) => self.parks(run, continuation, step),
            Concluded::TaskFailed(why) => {
                self.job_ended(job_id);
                self.filled_no_disk(job_id);
                self.tried_again(run, &why, step);
            }
            Concluded::NodeFailed(problem) => {
                self.filled_no_disk(job_id);
                self.node_failed(run, problem, step);
            }
            Concluded::ServiceFailed(problem) => {
                self.job_ended(job_id);
                self.filled_no_disk(job_id);
                self.service_failed(run, problem, step);
            }
            Concluded::DiskFull(problem, share) => self.disk_full(run, problem, share, step),
            Concluded::NodeBroken(problem) => {
                let Some(State::Ending { ending, held_up, .. }) = self.jobs.get(job_id).map(|job| &job.state) else {
                    return;
                };
                let (ending, held_up) = (ending.clone(), held_up.saturating_add(1));
                let its_own = pause_of_its_own(held_up);
                let again_at = Some(self.now + its_own.unwrap_or(HELD_UP_PAUSE * held_up));
                self.jobs.set(job_id, State::Ending { ending, held_up, again_at });
                if let Some(next_try) = its_own {
                    step.effects.push(Effect::Say(Notice::HeldUp { job_id: job_id.clone(), problem, next_try }));
                } else {
                    self.node_doubted(job_id, problem, step);
                }
            }
            Concluded::TakenOver if self.is_being_cancelled(job_id) => self.cancelled_elsewhere(run, step),
            Concluded::TakenOver => {
                // Its successor holds the job, and the message as well: the leases lapse.
                self.is_waited_for_no_more(job_id);
                self.jobs.remove(job_id);
                step.facts.push(Fact::Released(job_id.clone()));
                step.effects.push(Effect::Forget(vec![run.clone()]));
            }
        }
    }

    /// There will be a record. Only a run that went to its end tells that the node is well, and it does so once.
    pub(crate) fn ended_by_itself(&mut self, job_id: &JobId) {
        if let Some(job) = self.jobs.get(job_id)
            && job.transfer.to_upload == 0
            && !job.terms.is_graph
            && matches!(job.state, State::Ending { ending: Ending::Finished(_), .. })
        {
            self.job_ended(job_id);
        }
    }

    /// A job came to its own end, which says that the node is well.
    fn job_ended(&mut self, job_id: &JobId) {
        let now = self.now;
        self.pool_of_mut(job_id).job_ended(now);
    }

    /// At once: who asks for retries means a task that may do better the next time, and it waits for a slot as all do.
    fn tried_again(&mut self, run: &Run, why: &str, step: &mut Step) {
        let Some(job) = self.jobs.get(&run.job_id) else { return };
        let (retry, retries, next) = (job.failures.task + 1, job.terms.retries, run.attempt.next());
        let what =
            format!("attempt {} failed: {why}; attempt {next} follows (retry {retry} of {retries})", run.attempt);
        step.effects.push(Effect::Say(Notice::TriedAgain { run: run.clone(), what: what.clone() }));
        self.again(run, Duration::ZERO, what, |failures| failures.task += 1, step);
    }

    /// The attempt does not count as the job's end; `why` is for people.
    pub(crate) fn again(
        &mut self,
        run: &Run,
        pause: Duration,
        why: String,
        count: impl Fn(&mut crate::Failures),
        step: &mut Step,
    ) {
        if let Some(job) = self.jobs.get_mut(&run.job_id) {
            job.last_attempt = Some(why.into());
            count(&mut job.failures);
            step.facts.push(Fact::Again(run.job_id.clone(), job.failures));
            step.effects.push(Effect::Forget(vec![run.clone()]));
        }
        self.jobs.set(&run.job_id, State::Waiting(self.now + pause));
    }

    fn cut_off(&mut self, run: &Run, what: String, step: &mut Step) {
        let Some(job) = self.jobs.get(&run.job_id) else { return };
        if self.is_cancelled(&run.job_id) {
            return self.conclude(run, Ending::Cancelled(Some(run.attempt)), step);
        }
        let again = job.terms.rerunnable && job.failures.cut_off < CUT_OFFS_MAX;
        step.effects.push(Effect::Say(Notice::CutOff { run: run.clone(), what: what.clone(), again }));
        if again {
            let why = format!("attempt {} was cut off: {what}", run.attempt);
            self.again(run, Duration::ZERO, why, |failures| failures.cut_off += 1, step);
        } else {
            self.conclude(run, Ending::CutOff(what), step);
        }
    }
}
