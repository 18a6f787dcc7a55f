//! The promises, as they are seen from outside, in books of the world's own.

use lifecycle::{Ending, Fact, Phase, Run, Stage};
use protocol::JobId;

use crate::keeper::{Outcome, State};
use crate::plan::{Job, Time};
use crate::queues::Sent;
use crate::world::{Checked, World};

/// What the world knows of a job.
#[derive(Debug)]
pub(crate) struct Known {
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
    /// What was published.
    pub(crate) published: Option<String>,
}

impl Known {
    pub(crate) fn new(job: &Job) -> Self {
        Self {
            lasts: job.lasts,
            retries: job.retries,
            rerunnable: job.rerunnable,
            readable: job.readable,
            begun: 0,
            failures: 0,
            allowed: job.retries,
            cut_off: false,
            published: None,
        }
    }
}

impl World {
    /// A run is being begun. Returns how long it lasts.
    pub(crate) fn begins(&mut self, n: usize, run: &Run) -> Checked<Time> {
        let job_id = &run.job_id;
        if !self.nodes[n]
            .book
            .entry(job_id)
            .is_some_and(|entry| entry.stage == Stage::Launching && entry.attempt == run.attempt)
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
        if busy >= slots {
            return Err(format!("{run} begins on node {n}, where {busy} runs go on in {slots} slots"));
        }
        let Some(job) = self.jobs.get_mut(job_id).filter(|job| job.readable) else {
            return Err(format!("{run} begins on node {n}, and nobody submitted such a job"));
        };
        if run.attempt <= job.begun {
            return Err(format!("{run} begins on node {n} after attempt {}", job.begun));
        }
        if job.cut_off && !job.rerunnable {
            return Err(format!("{run} begins on node {n}; the job was cut off before and may not be run again"));
        }
        if job.failures > job.allowed {
            let Known { failures, allowed, .. } = job;
            return Err(format!("{run} begins on node {n} after {failures} failures; {allowed} are allowed"));
        }
        job.begun = run.attempt;
        self.report.runs += 1;
        Ok(job.lasts)
    }

    pub(crate) fn task_failed(&mut self, run: &Run) {
        if let Some(job) = self.jobs.get_mut(&run.job_id) {
            job.failures += 1;
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
        if state == Some(State::Alive) {
            return Err(format!("daemon {n} concludes {run} ({ending:?}), which goes on"));
        }
        match ending {
            Ending::Exited if state != Some(State::Ended) => {
                return Err(format!("daemon {n} takes {run} for ended; the keeper has {kept:?}"));
            }
            Ending::CutOff(_) if state == Some(State::Ended) => {
                return Err(format!("daemon {n} takes {run} for lost; the keeper knows how it ended: {kept:?}"));
            }
            Ending::GivenUp(_) if kept.is_some_and(|kept| kept.outcome != Outcome::NodeFailed) => {
                return Err(format!("daemon {n} blames the node for {run}; the keeper has {kept:?}"));
            }
            _ => {}
        }
        let retries = self.jobs.get(&run.job_id).map_or(0, |job| job.retries);
        let used = self.nodes[n].book.entry(&run.job_id).map_or(0, |entry| entry.failures.task);
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
        if let Some(before) = &job.published
            && *before != record
        {
            return Err(format!("daemon {n} publishes {record} for {job_id} after {before}"));
        }
        if self.sabotage.is_none() && self.files.records.get(job_id) != Some(&record) {
            return Err(format!("daemon {n} publishes {record}, which is not the final record of {job_id}"));
        }
        job.published = Some(record);
        Ok(())
    }

    /// A fact is on the disk of a daemon.
    pub(crate) fn is_true(&self, n: usize, fact: &Fact) -> Checked {
        match fact {
            Fact::Recorded(job_id, record) if self.files.records.get(job_id) != Some(record) => {
                Err(format!("daemon {n} records {record}, which is not the final record of {job_id}"))
            }
            Fact::Finished(job_id) if self.jobs.get(job_id).is_none_or(|job| job.published.is_none()) => {
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
        if life.committing.is_some() || life.pending.has_facts() {
            return Ok(());
        }
        if let Some(entry) = node.book.entries.iter().find(|entry| life.lifecycle.phase_of(&entry.job_id).is_none()) {
            return Err(format!("daemon {n} does not know any more what is on its disk: {entry:?}"));
        }
        for held in life.lifecycle.jobs() {
            if held.1 != Phase::Asked && node.book.entry(held.0).is_none() {
                return Err(format!("daemon {n} holds {held:?}, which is not on its disk"));
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
            if job.published.is_none() {
                return Some(format!("the result of {job_id} was not published"));
            }
        }
        for (n, node) in self.nodes.iter().enumerate() {
            let Some(life) = &node.life else { return Some(format!("daemon {n} is away")) };
            if life.lifecycle.held() > 0 || !node.book.entries.is_empty() {
                let held: Vec<_> = life.lifecycle.jobs().collect();
                return Some(format!("daemon {n} holds {held:?}, and on its disk {:?}", node.book.entries));
            }
            if !node.keeper.runs.is_empty() {
                return Some(format!("the keeper of node {n} still remembers {:?}", node.keeper.runs));
            }
        }
        None
    }
}
