//! Jobs that wait for other jobs without a slot: a job that leaves children behind is parked, and begins its next round
//! once they have ended.
//!
//! - The children and the parking are one commit: there is no moment in which a job waits for children that nobody has.
//! - A round is an execution with a number of its own, because that is what fences its traces; it is no retry, and uses
//!   none up.
//! - The end of a child is its parent's to judge. Its record is on the cluster as that of every job, and is not
//!   published: what travels is the result of the job that a person has submitted.
//! - Children that go on when their job has ended are wanted by nobody. That is a fact, and they are cancelled. Those
//!   of a job that another daemon has taken over go on: that daemon finds their records.
//!
//! Out of scope: what is in a job's directory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use protocol::link::TREE_JOBS_MAX;
use protocol::{Continuation, JobId, JobMessage, JobSpec, When, limits, link};

use crate::lifecycle::{Lifecycle, Step};
use crate::needs::Needs;
use crate::pools::{Place, Routed};
use crate::report::timestamp;
use crate::table::{Job, NewJob, State};
use crate::{Effect, Ending, Fact, Failures, Finished, Origin, Parent, Parking, Round, Run, Terms};

/// What is known of the children of a job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Children {
    /// What is on disk of them.
    pub(crate) parking: Parking,
    /// How many of them have ended.
    pub(crate) ended: u32,
    /// How many had when its last round was claimed.
    seen: u32,
    /// Those that have not.
    pub(crate) alive: BTreeSet<JobId>,
    /// Of how many jobs below it the hub is told, where it is a job that a person has submitted.
    told: u32,
}

/// How many ends of children in a row are told of one by one, and of how many at once after that.
const ENDS_TOLD_ALONE: u32 = 1_000;
const ENDS_AT_ONCE: u32 = 100;

impl Children {
    /// Those that an earlier daemon has left; `alive` are the ones that have not ended.
    pub(crate) fn found(parking: Parking, alive: BTreeSet<JobId>) -> Self {
        let ended = parking.children.saturating_sub(u32::try_from(alive.len()).unwrap_or(u32::MAX));
        // Which of those that have ended were told of is not remembered: as many as may have been.
        Self { ended, seen: parking.seen, parking, alive, told: ended }
    }

    /// How many there are, for the hub.
    pub(crate) fn report(&self) -> link::Children {
        link::Children { all: self.parking.children, ended: self.ended, tasks: None }
    }

    /// May the job go on that waits for them?
    fn are_done(&self) -> bool {
        match self.parking.when {
            When::All => self.alive.is_empty(),
            When::Any => self.alive.is_empty() || self.ended > self.parking.seen,
        }
    }
}

impl Job {
    /// Its next round.
    pub(crate) fn round(&self) -> Round {
        self.children.as_ref().filter(|_| !self.terms.is_graph).map_or(Round::FIRST, |children| Round {
            number: children.parking.rounds.saturating_add(1),
            children: children.parking.children,
        })
    }

    /// Is it in a round after the first? Its directory holds what it has done so far.
    pub(crate) fn has_been_parked(&self) -> bool {
        self.children.is_some()
    }

    /// What there is to say of its children while it waits for them, for people.
    pub(crate) fn says_of_children(&self) -> Option<String> {
        let (alive, all) = self.children.as_ref().map(|children| (children.alive.len(), children.parking.children))?;
        self.waits_for_children().map(|waits| format!("{waits}: {alive} of {all} go on"))
    }

    /// The same without their numbers.
    pub(crate) fn waits_for_children(&self) -> Option<&'static str> {
        let children = self.children.as_ref().filter(|_| matches!(self.state, State::Parked))?;
        Some(match children.parking.when {
            When::All => "it waits for its jobs",
            When::Any => "it waits for any of its jobs",
        })
    }
}

impl Lifecycle {
    /// All jobs that an earlier daemon has left are there: who waits for whom?
    pub(crate) fn find_children(&mut self, parkings: Vec<(JobId, Parking)>) {
        let mut alive: BTreeMap<JobId, BTreeSet<JobId>> = BTreeMap::new();
        for (job_id, job) in self.jobs.iter() {
            if let Some(parent) = job.parent.as_ref().filter(|_| !matches!(job.state, State::Recorded(_))) {
                alive.entry(parent.job_id.clone()).or_default().insert(job_id.clone());
            }
        }
        for (job_id, parking) in parkings {
            let children = Children::found(parking, alive.remove(&job_id).unwrap_or_default());
            if let Some(job) = self.jobs.get_mut(&job_id) {
                job.children = Some(Box::new(children));
            }
            self.a_child_has_ended(&job_id);
        }
        self.find_untold();
    }

    /// Which execution of a job the next one is, and what it finds.
    pub fn round(&self, job_id: &JobId) -> Round {
        self.jobs.get(job_id).map_or(Round::FIRST, Job::round)
    }

    /// Each job of an earlier daemon that is one too many for the hub to be told of is found to be so, in the order in
    /// which they came.
    fn find_untold(&mut self) {
        let children = self.jobs.iter().filter_map(|(job_id, job)| {
            job.parent.as_ref().map(|parent| (job.no, job_id.clone(), parent.job_id.clone()))
        });
        let mut children: Vec<_> = children.collect();
        children.sort_unstable();
        for (_, job_id, parent) in children {
            let is_untold = !self.tells_of_one_more(&parent);
            if let Some(job) = self.jobs.get_mut(&job_id) {
                job.is_untold = is_untold;
            }
        }
    }

    /// Is the hub to be told of one more child of this job? Then it counts.
    fn tells_of_one_more(&mut self, parent: &JobId) -> bool {
        if self.jobs.get(parent).is_some_and(|job| job.is_untold) {
            return false;
        }
        let mut root = parent;
        while let Some(above) = self.jobs.get(root).and_then(|job| job.parent.as_ref()) {
            root = &above.job_id;
        }
        let root = root.clone();
        let Some(children) = self.jobs.get_mut(&root).and_then(|job| job.children.as_mut()) else { return true };
        children.told = children.told.saturating_add(1);
        children.told <= TREE_JOBS_MAX
    }

    /// Whose child a job is.
    pub fn parent(&self, job_id: &JobId) -> Option<&JobId> {
        self.jobs.get(job_id)?.parent.as_ref().map(|parent| &parent.job_id)
    }

    /// The workflow that a job is a task of.
    pub fn workflow_of(&self, job_id: &JobId) -> Option<&JobId> {
        let parent = self.parent(job_id)?;
        self.jobs.get(parent).filter(|job| job.terms.is_graph).map(|_| parent)
    }

    /// A round is about to begin: what has ended by now it finds.
    pub(crate) fn round_claimed(&mut self, job_id: &JobId) {
        if let Some(children) = self.jobs.get_mut(job_id).and_then(|job| job.children.as_mut()) {
            children.seen = children.ended;
        }
    }

    /// A run has ended well and leaves jobs to be run before its job goes on.
    pub(crate) fn parks(&mut self, run: &Run, continuation: Continuation, step: &mut Step) {
        let job_id = &run.job_id;
        if self.is_cancelled(job_id) {
            return self.conclude(run, Ending::Cancelled(Some(run.attempt)), step);
        }
        if self.service_of(job_id).is_some() {
            let why = "asks for jobs, and is an instance of a service, which goes on after none".to_owned();
            return self.cannot_park(run, why, step);
        }
        let Continuation { run: specs, when } = continuation;
        let Some(job) = self.jobs.get(job_id) else { return };
        let (first, is_more_to_come) = job.children.as_ref().map_or((1, false), |children| {
            // One that ended while the round ran it has not found yet.
            let more = !children.alive.is_empty() || children.ended > children.seen;
            (children.parking.children.saturating_add(1), more)
        });
        if specs.is_empty() && !is_more_to_come {
            let why = "asks for no job, and no child of an earlier round goes on, so there is nothing to wait for; \
                       leave no continue.json behind to end";
            return self.cannot_park(run, why.to_owned(), step);
        }
        let new = match self.children_of(job_id, (first..).zip(specs).collect()) {
            Ok(new) => new,
            Err(why) => return self.cannot_park(run, why, step),
        };
        self.ended_by_itself(job_id);
        self.filled_no_disk(job_id);
        if let Some(job) = self.jobs.get_mut(job_id) {
            job.last_attempt = None;
            // Each round has budgets of its own, as if it were a job.
            if job.failures != Failures::default() {
                job.failures = Failures::default();
                step.facts.push(Fact::Again(job_id.clone(), job.failures));
            }
        }
        self.jobs.set(job_id, State::Parked);
        self.has_children(job_id, new, when, step);
        step.effects.push(Effect::Forget(vec![run.clone()]));
        self.a_child_has_ended(job_id);
    }

    /// A graph goes on with these tasks; or why it cannot.
    pub(crate) fn start_children(
        &mut self,
        job_id: &JobId,
        tasks: Vec<(u32, JobSpec)>,
        step: &mut Step,
    ) -> Result<(), String> {
        if !tasks.is_empty() {
            let new = self.children_of(job_id, tasks)?;
            self.has_children(job_id, new, When::Any, step);
        }
        Ok(())
    }

    /// A job that is parked has further children.
    fn has_children(&mut self, job_id: &JobId, new: Vec<JobMessage>, when: When, step: &mut Step) {
        let parent = Parent { job_id: job_id.clone(), generation: self.generation(job_id) };
        let now = self.now;
        let Some(job) = self.jobs.get_mut(job_id) else { return };
        let children = job.children.get_or_insert_default();
        let more = u32::try_from(new.len()).unwrap_or(u32::MAX);
        children.parking = Parking {
            rounds: children.parking.rounds.saturating_add(1),
            children: children.parking.children.saturating_add(more),
            seen: children.seen,
            when,
        };
        children.alive.extend(new.iter().map(|message| message.job_id.clone()));
        step.facts.push(Fact::Parked(job_id.clone(), children.parking));
        self.jobs.has_news(job_id);
        for message in new {
            self.accept_child(message, parent.clone(), now, step);
        }
    }

    /// The messages of the children that a job asks for, each with its number, or why it cannot have them.
    fn children_of(&self, job_id: &JobId, specs: Vec<(u32, JobSpec)>) -> Result<Vec<JobMessage>, String> {
        let children = self.jobs.get(job_id).and_then(|job| job.children.as_ref());
        let parking = children.map(|children| children.parking).unwrap_or_default();
        if parking.rounds >= limits::ROUNDS_MAX {
            return Err(format!("asks for a further round after {}, which is the most", limits::ROUNDS_MAX));
        }
        if self.generation(job_id) > limits::GENERATIONS_MAX {
            return Err(format!(
                "asks for children of the generation {}, and {} is the last one",
                self.generation(job_id),
                limits::GENERATIONS_MAX
            ));
        }
        let count = u32::try_from(specs.len()).unwrap_or(u32::MAX);
        if parking.children.saturating_add(count) > limits::CHILDREN_MAX {
            return Err(format!(
                "asks for {count} more jobs after {}, and {} in all is the most",
                parking.children,
                limits::CHILDREN_MAX
            ));
        }
        let alive = children.map_or(0, |children| children.alive.len());
        if alive + specs.len() > limits::CHILDREN_AT_ONCE_MAX {
            return Err(format!(
                "asks for {count} jobs while {alive} go on, and {} at once is the most; wait for some of them first, with \
                 \"run\": []",
                limits::CHILDREN_AT_ONCE_MAX
            ));
        }
        let created_at = timestamp(self.now);
        let message = |(number, spec): (u32, JobSpec)| {
            let child = job_id.child(number).map_err(|_| {
                format!(
                    "asks for jobs whose ids would be too long: {job_id}-{number}; submit the job under a shorter id"
                )
            })?;
            if self.jobs.get(&child).is_some() {
                return Err(format!("asks for the job {child}, and there is one of that id already"));
            }
            Ok(JobMessage::new(child, spec, created_at))
        };
        specs.into_iter().map(message).collect()
    }

    /// How many generations there are from the job that a person has submitted to the children of this one.
    fn generation(&self, job_id: &JobId) -> u32 {
        let parent = self.jobs.get(job_id).and_then(|job| job.parent.as_ref());
        parent.map_or(0, |parent| parent.generation).saturating_add(1)
    }

    fn accept_child(&mut self, message: JobMessage, parent: Parent, now: Duration, step: &mut Step) {
        let job_id = message.job_id.clone();
        let Routed { place, resources, retries, is_graph } = self.route(&message.spec);
        // Its parent is here, so it can be nowhere else.
        let place = match place {
            Place::Elsewhere(refusal) => Place::Nowhere(refusal.to_string().into()),
            place => place,
        };
        let (rerunnable, needs_files) = (message.spec.rerunnable.unwrap_or(true), message.spec.needs_files());
        let terms = Terms { retries, rerunnable, needs_files, is_graph };
        step.facts.push(Fact::Accepted {
            job_id: job_id.clone(),
            message: message.text().to_owned(),
            terms,
            origin: Origin::Parent(parent.clone()),
        });
        let needs = Needs::of(&message.spec, is_graph);
        let is_untold = !self.tells_of_one_more(&parent.job_id);
        let (sent, message, parent) = (Some(now), Some(Arc::new(message)), Some(Box::new(parent)));
        let job = NewJob { sent, message, parent, needs, ..NewJob::new(State::Waiting(now), place, resources, terms) };
        self.jobs.insert(job_id.clone(), job);
        if let Some(job) = self.jobs.get_mut(&job_id) {
            job.is_untold = is_untold;
        }
        self.jobs.keep_message(&job_id);
        self.accepted(&job_id);
    }

    /// What it asks for cannot be had, which is its own fault.
    fn cannot_park(&mut self, run: &Run, why: String, step: &mut Step) {
        let Some(State::Ending { ending: Ending::Finished(finished), .. }) =
            self.jobs.get(&run.job_id).map(|job| &job.state)
        else {
            return;
        };
        let finished: Box<Finished> = finished.clone();
        self.conclude(run, Ending::Unparkable(finished, why), step);
    }

    /// A job has its final record: its children are wanted by nobody any more, and who waits for it may go on.
    pub(crate) fn has_its_record(&mut self, job_id: &JobId, step: &mut Step) {
        let children = self.jobs.get_mut(job_id).and_then(|job| job.children.as_mut());
        // How many they were is still to be told: no other end of theirs is counted.
        let unwanted = children.map(|children| {
            let alive = std::mem::take(&mut children.alive);
            children.ended = children.ended.saturating_add(u32::try_from(alive.len()).unwrap_or(u32::MAX));
            alive
        });
        for child in unwanted.unwrap_or_default() {
            step.facts.push(Fact::Unwanted(child.clone()));
            self.cancel(child);
        }
        if self.parent(job_id).is_none() && self.service_of(job_id).is_none() {
            return;
        }
        self.is_waited_for_no_more(job_id);
        // Where a message of that id has come from the queue as well, its sender waits for the result.
        if self.jobs.get(job_id).is_some_and(|job| job.leases.is_empty()) {
            if self.jobs.are_changes_kept() {
                self.ended.insert(job_id.clone(), self.known_of(job_id));
            }
            self.jobs.remove(job_id);
            step.facts.push(Fact::Finished(job_id.clone()));
        }
    }

    /// A child has ended, or is with another daemon, which has its parent as well.
    pub(crate) fn is_waited_for_no_more(&mut self, job_id: &JobId) {
        let Some(parent) = self.parent(job_id).cloned() else { return };
        if let Some(children) = self.jobs.get_mut(&parent).and_then(|job| job.children.as_mut())
            && children.alive.remove(job_id)
        {
            children.ended = children.ended.saturating_add(1);
            let (ended, is_last) = (children.ended, children.alive.is_empty());
            if ended <= ENDS_TOLD_ALONE || ended.is_multiple_of(ENDS_AT_ONCE) || is_last {
                self.jobs.has_news(&parent);
            }
            self.a_child_has_ended(&parent);
        }
    }

    /// Begins the next round of a job that is parked, if it need not wait any longer; a graph is asked what follows.
    fn a_child_has_ended(&mut self, job_id: &JobId) {
        let Some(job) = self.jobs.get(job_id).filter(|job| matches!(job.state, State::Parked)) else { return };
        if job.terms.is_graph {
            return self.is_to_unfold(job_id, self.now);
        }
        if job.children.as_ref().is_none_or(|children| children.are_done()) {
            // Before those that came after it: it has begun, and holds a directory.
            let turn = job.sent.unwrap_or(self.now).min(self.now);
            self.jobs.set(job_id, State::Waiting(turn));
        }
    }
}
