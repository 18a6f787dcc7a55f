//! The promises, as they are seen from outside, in books of the world's own.

use std::collections::BTreeSet;

use lifecycle::{Attempt, Effect, Ending, Entry, Fact, Origin, Phase, Run, Stage};
use protocol::{JobId, JobSpec};

use crate::keeper::{Outcome, State};
use crate::plan::{DAY, HOUR, Job, LEASE_MAX, MINUTE, Time, time};
use crate::queues::Sent;
use crate::world::{Checked, World};

/// How old a message may be when a daemon lets go of its job. The queue may forget it after a day. A daemon may stand
/// still for hours between its decision and the fact.
const LETS_GO_AGE_MAX: Time = 20 * HOUR;

/// How often a node fails a job at least before it gives the job up.
const GIVES_UP_AFTER: u32 = 30;

/// A job that was cancelled so long before it was sent is never begun: every daemon has heard of it.
const CANCELS_WITHIN: Time = MINUTE;

/// In how many attempts in a row a job fills the disk before it fails for that.
const FILLS_DISKS: u32 = 3;

/// How long all other jobs may take, after the last fault, when there is one that cannot be claimed somewhere.
const CURSE_PATIENCE: Time = DAY;

/// What the world knows of a job.
#[derive(Debug)]
pub(crate) struct Known {
    /// When it was sent first.
    sent: Time,
    lasts: Time,
    retries: u32,
    rerunnable: bool,
    /// May it be run at all?
    pub(crate) readable: bool,
    /// The highest attempt that was begun, or 0.
    begun: u32,
    /// How often its task has failed.
    failures: u32,
    /// How many failures of the task allow one more start.
    allowed: u32,
    /// Was a run cut off, or is it unknown what became of one?
    cut_off: bool,
    /// Which attempts have filled a disk.
    filled_disks: BTreeSet<u32>,
    /// What was published.
    pub(crate) published: Option<String>,
    /// Whose child it is. What becomes of it nobody else is told.
    pub(crate) parent: Option<JobId>,
    /// Is it an instance of a service? Nobody is told of it, either.
    is_instance: bool,
}

impl Known {
    pub(crate) fn new(job: &Job) -> Self {
        Self {
            sent: job.sent[0],
            lasts: job.lasts,
            retries: job.retries,
            rerunnable: job.rerunnable,
            readable: job.readable,
            begun: 0,
            failures: 0,
            allowed: job.retries,
            cut_off: false,
            filled_disks: BTreeSet::new(),
            published: None,
            parent: None,
            is_instance: false,
        }
    }

    /// What there is to know of a child.
    pub(crate) fn of_child(now: Time, lasts: Time, spec: &JobSpec, parent: JobId) -> Self {
        let retries = spec.retries.unwrap_or(0);
        Self {
            sent: now,
            lasts,
            retries,
            rerunnable: spec.rerunnable.unwrap_or(true),
            readable: true,
            begun: 0,
            failures: 0,
            allowed: retries,
            cut_off: false,
            filled_disks: BTreeSet::new(),
            published: None,
            parent: Some(parent),
            is_instance: false,
        }
    }

    /// What there is to know of an instance of a service.
    pub(crate) fn of_instance(now: Time, lasts: Time) -> Self {
        Self {
            sent: now,
            lasts,
            retries: 0,
            rerunnable: false,
            readable: true,
            begun: 0,
            failures: 0,
            allowed: 0,
            cut_off: false,
            filled_disks: BTreeSet::new(),
            published: None,
            parent: None,
            is_instance: true,
        }
    }

    /// Does its result stay on the cluster?
    fn stays(&self) -> bool {
        self.parent.is_some() || self.is_instance
    }
}

impl World {
    /// A run is being begun. Returns how long it lasts.
    pub(crate) fn begins(&mut self, n: usize, run: &Run) -> Checked<Time> {
        let job_id = &run.job_id;
        if !self.nodes[n]
            .book
            .entry(job_id)
            .is_some_and(|entry| entry.stage == Stage::Launching && entry.attempt == Some(run.attempt))
        {
            return Err(format!("{run} begins on node {n}, and its launch is not on disk there"));
        }
        if let Some(record) = self.files.records.get(job_id) {
            return Err(format!("{run} begins on node {n}, and the job has its record: {record}"));
        }
        for (other, node) in self.nodes.iter().enumerate() {
            for (alive, kept) in &node.keeper.runs {
                // A whole node that stood still cannot know; its keeper ends such a run when it wakes.
                if kept.state == State::Alive && alive.job_id == *job_id && !kept.overtaken {
                    return Err(format!("{run} begins on node {n} while {alive} goes on on node {other}"));
                }
            }
        }
        let (busy, slots) = (self.nodes[n].keeper.alive().len(), self.plan.slots);
        if busy >= slots && !self.plan.several {
            return Err(format!("{run} begins on node {n}, where {busy} runs go on in {slots} slots"));
        }
        let Some(job) = self.jobs.get_mut(job_id).filter(|job| job.readable) else {
            return Err(format!("{run} begins on node {n}, and nobody submitted such a job"));
        };
        if run.attempt.get() <= job.begun {
            return Err(format!("{run} begins on node {n} after attempt {}", job.begun));
        }
        if job.cut_off && !job.rerunnable {
            return Err(format!("{run} begins on node {n}; the job was cut off before and may not be run again"));
        }
        if let Some(since) = self.files.cancelled.get(job_id)
            && since + CANCELS_WITHIN < job.sent
        {
            return Err(format!("{run} begins on node {n}, and was cancelled long before it was sent"));
        }
        if job.failures > job.allowed {
            let Known { failures, allowed, .. } = job;
            return Err(format!("{run} begins on node {n} after {failures} failures; {allowed} are allowed"));
        }
        job.begun = run.attempt.get();
        self.has_room(n, run)?;
        self.has_its_files(run)?;
        self.may_go_on(n, run)?;
        self.may_begin_task(run)?;
        self.has_its_services(n, run)?;
        let Some(job) = self.jobs.get(job_id) else { return Err(format!("nobody submitted {run}")) };
        self.report.runs += 1;
        self.report.in_pools += u64::from(self.plan.several);
        let shared = self.plan.daemons > 1 && self.plan.lease == LEASE_MAX;
        self.report.many_leases += u64::from(shared && job.lasts >= 2 * LEASE_MAX);
        self.report.long_outages += u64::from(job.lasts >= DAY / 2 && self.plan.longest_outage() >= 7 * DAY);
        Ok(job.lasts)
    }

    pub(crate) fn task_failed(&mut self, run: &Run) {
        if let Some(job) = self.jobs.get_mut(&run.job_id) {
            job.failures += 1;
        }
    }

    pub(crate) fn filled_disk(&mut self, run: &Run) {
        if let Some(job) = self.jobs.get_mut(&run.job_id) {
            job.filled_disks.insert(run.attempt.get());
        }
    }

    /// A failure of the task was put down to the node.
    pub(crate) fn not_the_task(&mut self, n: usize, run: &Run) {
        let failed = self.nodes[n].keeper.runs.get(run).is_some_and(|kept| kept.outcome == Outcome::TaskFailed);
        if failed
            && self.files.holds(n, run)
            && let Some(job) = self.jobs.get_mut(&run.job_id)
        {
            job.allowed += 1;
        }
    }

    pub(crate) fn was_cut_off(&mut self, job_id: &JobId) {
        if let Some(job) = self.jobs.get_mut(job_id) {
            job.cut_off = true;
        }
    }

    /// Nobody knows any more how a run ended.
    pub(crate) fn end_forgotten(&mut self, run: &Run, task_failed: bool) {
        self.was_cut_off(&run.job_id);
        if let Some(job) = self.jobs.get_mut(&run.job_id) {
            job.allowed += u32::from(task_failed);
        }
    }

    /// The job is with a daemon that does not know what happened before: its budgets begin anew.
    pub(crate) fn new_holder(&mut self, job_id: &JobId) {
        if let Some(job) = self.jobs.get_mut(job_id) {
            job.allowed = job.allowed.max(job.failures + job.retries);
        }
    }

    /// May a run be concluded like this?
    pub(crate) fn may_conclude(&self, n: usize, run: &Run, ending: &Ending, may_retry: bool) -> Checked {
        let kept = self.nodes[n].keeper.runs.get(run);
        let state = kept.map(|kept| kept.state);
        let entry = self.nodes[n].book.entry(&run.job_id);
        let failures = entry.map(|entry| entry.failures).unwrap_or_default();
        if state == Some(State::Alive) {
            return Err(format!("daemon {n} concludes {run} ({ending:?}), which goes on"));
        }
        match ending {
            Ending::Finished(_) if state != Some(State::Ended) && self.plan.tasks_of(&run.job_id).is_none() => {
                return Err(format!("daemon {n} takes {run} for ended; the keeper has {kept:?}"));
            }
            // It may have been ended before its time.
            Ending::CutOff(_)
                if state == Some(State::Ended)
                    && kept.is_some_and(|kept| !matches!(kept.outcome, Outcome::Ended(_))) =>
            {
                return Err(format!("daemon {n} takes {run} for lost; the keeper knows how it ended: {kept:?}"));
            }
            Ending::FilledDisk(filled) => {
                let known = self.jobs.get(&run.job_id).map_or(0, |job| job.filled_disks.len());
                if filled.times as usize > known
                    || filled.again != (filled.times < FILLS_DISKS && entry.is_none_or(|entry| entry.parking.is_none()))
                {
                    return Err(format!("daemon {n}: {run} has filled disks {known} times, and {ending:?}"));
                }
            }
            Ending::Cancelled(_)
                if !self.files.cancelled.contains_key(&run.job_id)
                    && !self.is_orphan(n, &run.job_id)
                    && entry.is_none_or(|entry| entry.service.is_none()) =>
            {
                return Err(format!("daemon {n} cancels {run}, and nobody asked for that"));
            }
            Ending::Rejected(why) => {
                if self.has_bad_files(&run.job_id, why) {
                    return Ok(());
                }
                let asks = self.plan.jobs.iter().find(|job| job.job_id == run.job_id).map(|job| job.asks);
                let sent = self.jobs.get(&run.job_id).map_or(self.now, |job| job.sent);
                if asks.is_none_or(|asks| {
                    !self.plan.is_for_nobody(asks) || self.now - sent < self.plan.is_rejected_after(asks)
                }) {
                    return Err(format!("daemon {n} rejects {run}, {} ms after it was sent: {why}", self.now - sent));
                }
            }
            // Another one takes its place.
            Ending::GivenUp(_) if entry.is_some_and(|entry| entry.service.is_some()) => {}
            Ending::GivenUp(_) if failures.node < GIVES_UP_AFTER => {
                return Err(format!("daemon {n} gives {run} up after {} failures of the node", failures.node));
            }
            // If it was not launched, its claims have failed.
            Ending::GivenUp(_)
                if entry.is_some_and(|entry| entry.stage == Stage::Launching)
                    && kept.is_some_and(|kept| matches!(kept.outcome, Outcome::Completed | Outcome::Ended(_))) =>
            {
                return Err(format!("daemon {n} blames the node for {run}; the keeper has {kept:?}"));
            }
            _ => {}
        }
        let retries = self.jobs.get(&run.job_id).map_or(0, |job| job.retries);
        let used = failures.task;
        if may_retry && used >= retries {
            return Err(format!("daemon {n} would retry {run} after {used} failures; the job allows {retries}"));
        }
        Ok(())
    }

    /// A result is in the queue of results.
    pub(crate) fn was_published(&mut self, n: usize, job_id: &JobId, record: String) -> Checked {
        let Some(job) = self.jobs.get_mut(job_id) else {
            return Err(format!("daemon {n} publishes a result of {job_id}, which nobody submitted"));
        };
        if job.stays() {
            return Err(format!("daemon {n} publishes the result of {job_id}, a child or an instance: {job:?}"));
        }
        if let Some(before) = &job.published
            && *before != record
        {
            return Err(format!("daemon {n} publishes {record} for {job_id} after {before}"));
        }
        if self.sabotage.is_none() && self.files.records.get(job_id) != Some(&record) {
            return Err(format!("daemon {n} publishes {record}, which is not the final record of {job_id}"));
        }
        job.published = Some(record);
        self.is_held_up(job_id)
    }

    /// May a daemon begin what it is about to? Not while its node is broken or it drains, and no more is pulled than
    /// what will find a slot soon.
    pub(crate) fn may_begin(&self, n: usize, effects: &[Effect]) -> Checked {
        let Some(life) = &self.nodes[n].life else { return Ok(()) };
        let state = life.driver.lifecycle();
        for effect in effects {
            let begins = matches!(effect, Effect::Pull(_) | Effect::Stage(_) | Effect::Claim { .. } | Effect::Start(_));
            if begins && state.draining() {
                return Err(format!("daemon {n}: {effect:?}, and it drains"));
            }
            self.may_begin_in_pool(n, state, effect)?;
            if let Effect::Start(run) = effect
                && state.is_cancelled(&run.job_id)
            {
                return Err(format!("daemon {n} starts {run}, which it knows to be cancelled"));
            }
            let Effect::Pull(count) = effect else { continue };
            if self.plan.several {
                // Whose the messages will be nobody knows, and what is for a full pool may wait there.
                continue;
            }
            let early = [Phase::Asked, Phase::Claiming, Phase::Ready];
            let begun = state.jobs().filter(|held| early.contains(&held.1)).count();
            let recent = life.ended.iter().filter(|at| self.now - **at <= time(lifecycle::AHEAD)).count();
            let room = self.plan.slots.saturating_sub(state.running()) + recent.min(self.plan.batch_size);
            if begun + count > room {
                return Err(format!("daemon {n} asks for {count}, has {begun} on their way, and room for {room}"));
            }
        }
        Ok(())
    }

    /// May a daemon let go of a job? Asked before the fact is on its disk, which knows nothing of the job after that.
    pub(crate) fn may_let_go(&self, n: usize, fact: &Fact) -> Checked {
        let Fact::Released(job_id) = fact else { return Ok(()) };
        let Some(entry) = self.nodes[n].book.entry(job_id) else { return Ok(()) };
        let claim = self.files.claims.get(job_id);
        if claim.is_some_and(|claim| claim.owner == Some(n)) {
            return Err(format!("daemon {n} lets go of {job_id} and keeps its claim, so nobody else can have it"));
        }
        let later = |attempt: u32| entry.attempt.is_some_and(|known| attempt > known.get());
        if claim.is_some_and(|claim| claim.owner.is_some() || later(claim.attempt)) {
            // It was taken over.
            return Ok(());
        }
        if entry.failures.task + entry.failures.cut_off > 0 {
            return Err(format!("daemon {n} lets go of {job_id}, whose failures are forgotten with it: {entry:?}"));
        }
        if self.jobs.get(job_id).is_some_and(|job| self.now - job.sent > LETS_GO_AGE_MAX) {
            return Err(format!("daemon {n} lets go of {job_id}, whose message the queue may forget soon"));
        }
        Ok(())
    }

    /// A fact is on the disk of a daemon.
    pub(crate) fn is_true(&self, n: usize, fact: &Fact) -> Checked {
        match fact {
            Fact::Accepted { origin: Origin::Queue(lease), .. } | Fact::Leased(_, lease)
                if self
                    .queues
                    .kept_until(&lease.id)
                    .is_some_and(|until| self.nodes[n].true_time(lease.until) > until) =>
            {
                Err(format!("daemon {n} counts on a lease for longer than the queue keeps it: {lease:?}"))
            }
            Fact::Recorded(job_id, record) if self.files.records.get(job_id) != Some(record) => {
                Err(format!("daemon {n} records {record}, which is not the final record of {job_id}"))
            }
            Fact::Recorded(job_id, record) => self.is_complete(n, job_id, record),
            Fact::Unwanted(job_id) => self.is_unwanted(n, job_id),
            Fact::Finished(job_id)
                if self.jobs.get(job_id).is_none_or(|job| job.published.is_none() && !job.stays())
                    && !self.plan.is_unfit(job_id) =>
            {
                Err(format!("daemon {n} has done with {job_id}, and nothing was published"))
            }
            Fact::Released(job_id) if !self.is_held(job_id) && !self.queues.holds(job_id) => {
                Err(format!("daemon {n} lets go of {job_id}, and nobody else has it"))
            }
            _ => Ok(()),
        }
    }

    /// Has the job its final record, or does a daemon hold it?
    fn is_held(&self, job_id: &JobId) -> bool {
        self.files.records.contains_key(job_id) || self.nodes.iter().any(|node| node.book.entry(job_id).is_some())
    }

    /// May the queue forget this message?
    pub(crate) fn is_safe(&self, sent: &Sent) -> bool {
        sent.job_id.as_ref().map_or_else(|| self.files.aside.contains(&sent.body), |job_id| self.is_held(job_id))
    }

    /// Does a daemon know what is on its disk, and the disk what the daemon holds? Only when no fact is on its way.
    pub(crate) fn agree(&self, n: usize) -> Checked {
        let node = &self.nodes[n];
        let Some(life) = &node.life else { return Ok(()) };
        if !life.driver.is_settled() {
            return Ok(());
        }
        if let Some(entry) =
            node.book.entries.iter().find(|entry| life.driver.lifecycle().phase_of(&entry.job_id).is_none())
        {
            return Err(format!("daemon {n} does not know any more what is on its disk: {entry:?}"));
        }
        for held in life.driver.lifecycle().jobs().filter(|held| held.1 != Phase::Asked) {
            let Some(entry) = node.book.entry(held.0) else {
                return Err(format!("daemon {n} holds {held:?}, which is not on its disk"));
            };
            // Sabotage is to be seen from outside.
            if self.sabotage.is_none() && !tells(entry, held.1, held.2) {
                return Err(format!("daemon {n} holds {held:?}, and its disk says {entry:?}"));
            }
        }
        Ok(())
    }

    /// Is everything done that was accepted? `None` says so; else what is left.
    pub(crate) fn left_over(&self) -> Option<String> {
        if self.queues.backlog() > 0 {
            return Some(format!("{} messages are in the queue of jobs", self.queues.backlog()));
        }
        for (job_id, job) in &self.jobs {
            if !self.files.records.contains_key(job_id) {
                return Some(format!("{job_id} has no final record"));
            }
            if job.published.is_none() && !job.stays() && !self.plan.is_unfit(job_id) {
                return Some(format!("the result of {job_id} was not published"));
            }
        }
        for (n, node) in self.nodes.iter().enumerate() {
            let Some(life) = &node.life else { return Some(format!("daemon {n} is away")) };
            // A result that is never taken may be owed for ever.
            let mut held =
                life.driver.lifecycle().jobs().filter(|held| held.1 != Phase::Recorded || !self.plan.is_unfit(held.0));
            let mut entries = node.book.entries.iter();
            let owed = |entry: &Entry| matches!(entry.stage, Stage::Recorded(_)) && self.plan.is_unfit(&entry.job_id);
            if held.next().is_some() || entries.any(|entry| !owed(entry)) {
                let held: Vec<_> = life.driver.lifecycle().jobs().collect();
                return Some(format!("daemon {n} holds {held:?}, and on its disk {:?}", node.book.entries));
            }
            if !node.keeper.runs.is_empty() {
                return Some(format!("the keeper of node {n} still remembers {:?}", node.keeper.runs));
            }
        }
        self.files_left().or_else(|| self.hub_is_wrong())
    }

    /// A job that is not done although its time is over. The one that cannot be claimed somewhere may take longer.
    pub(crate) fn is_late(&self) -> Option<String> {
        if self.plan.cursed.is_none() || self.now <= self.plan.calm + CURSE_PATIENCE {
            return None;
        }
        let may_wait = |job_id: &JobId| self.plan.is_cursed(job_id) || self.plan.is_unfit(job_id);
        let owed = |job: &Known| job.published.is_none() && !job.stays();
        let late = self.jobs.iter().find(|(job_id, job)| owed(job) && !may_wait(job_id));
        late.map(|(job_id, _)| format!("{job_id} has no result yet, held up by one that cannot be claimed"))
    }
}

/// Does the disk say this of a job in this phase, at this attempt?
fn tells(entry: &Entry, phase: Phase, attempt: Option<Attempt>) -> bool {
    let so_far = match phase {
        Phase::Asked => false,
        // Until its next round is launched a job is parked on disk.
        Phase::Waiting | Phase::Claiming if entry.parking.is_some() => {
            matches!(entry.stage, Stage::Accepted | Stage::Parked)
        }
        Phase::Waiting | Phase::Staging | Phase::Claiming | Phase::Returning => entry.stage == Stage::Accepted,
        // A graph is launched once, and parked for as long as it has anything to do.
        Phase::Parked => matches!(entry.stage, Stage::Parked | Stage::Launching),
        Phase::Ready | Phase::Running | Phase::Uploading => entry.stage == Stage::Launching,
        // It may have been given up, or cancelled, without a run.
        Phase::Ending => matches!(entry.stage, Stage::Accepted | Stage::Launching | Stage::Parked),
        Phase::Recorded => matches!(entry.stage, Stage::Recorded(_)),
    };
    // A claim that failed is an attempt as long as the daemon lives, because part of it may stand. It was not launched.
    let claim_failed = (entry.attempt, attempt) == (None, Some(Attempt::FIRST)) && entry.stage != Stage::Launching;
    so_far && (entry.attempt == attempt || claim_failed)
}
