//! Jobs that leave children behind and go on after them, and jobs that are graphs of others: which do follows from
//! their ids, so that whoever runs a job anew asks for the same.

use std::collections::BTreeSet;

use lifecycle::{Entry, Fact, Origin, Run, RunEnd, Unfolded};
use protocol::{Continuation, JobId, JobMessage, JobSpec, When};

use crate::plan::{HOUR, Job, Plan, SECOND, Time};
use crate::promises::Known;
use crate::services::has_services;
use crate::transfers::Wants;
use crate::world::{Checked, World};

/// In half of the histories some jobs have children: in two fifths of all, and wherever there are several pools, for
/// only a site's file knows graphs.
pub(crate) fn has_families(seed: u64) -> bool {
    seed % 5 < 2 || seed % 4 == 1
}

/// The deepest generation that has children of its own.
const GENERATIONS: usize = 2;

/// A number that belongs to a job and a question.
pub(crate) fn drawn(seed: u64, job_id: &JobId, question: u64) -> u64 {
    let start = seed ^ question.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    job_id.as_str().bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) >> 20
}

impl Plan {
    /// How many tasks a graph has; none if it is no graph.
    pub(crate) fn tasks_of(&self, job_id: &JobId) -> Option<u32> {
        let job = self.jobs.iter().find(|job| job.job_id == *job_id)?;
        let is_graph = self.is_graph(job);
        is_graph.then(|| 1 + drawn(self.seed, job_id, 8) as u32 % 6)
    }

    /// Is a job one that is submitted as a graph? Only a site's file says which tasks are.
    pub(crate) fn is_graph(&self, job: &Job) -> bool {
        let fits = job.wants == Wants::NOTHING && job.readable && !self.is_for_nobody(job.asks);
        // Where there are services, most jobs are to use them.
        let graphs = if has_services(self.seed) { 1 } else { 3 };
        self.families && self.several && fits && drawn(self.seed, &job.job_id, 9) % 4 > 3 - graphs
    }

    /// Which tasks of a graph one needs: some of those before it.
    fn needs(&self, job_id: &JobId, task: u32) -> Vec<u32> {
        (1..task).filter(|before| drawn(self.seed, job_id, u64::from(100 * task + before)).is_multiple_of(2)).collect()
    }

    /// How many rounds of a job end with children.
    fn rounds(&self, job_id: &JobId) -> u32 {
        let generation = job_id.as_str().matches('-').count();
        let submitted = self.jobs.iter().find(|job| job.job_id == *job_id);
        let fits = submitted.is_none_or(|job| job.lasts <= HOUR && job.wants == Wants::NOTHING && job.readable);
        let graph = self.tasks_of(job_id).is_some() || submitted.is_none() && self.is_task_of_graph(job_id);
        if !self.families || !fits || graph || generation > GENERATIONS {
            return 0;
        }
        let few = if generation == 0 { 2 } else { 4 };
        if drawn(self.seed, job_id, 1).is_multiple_of(few) { 1 + drawn(self.seed, job_id, 2) as u32 % 3 } else { 0 }
    }
}

impl Plan {
    fn is_task_of_graph(&self, job_id: &JobId) -> bool {
        let parent = job_id.as_str().rsplit_once('-').and_then(|(parent, _)| parent.parse().ok());
        parent.is_some_and(|parent: JobId| self.tasks_of(&parent).is_some())
    }
}

impl World {
    /// What a run that has ended well leaves to be run before its job goes on.
    pub(crate) fn leaves(&self, n: usize, run: &Run) -> Option<Continuation> {
        let parking = self.nodes[n].book.entry(&run.job_id)?.parking.unwrap_or_default();
        if parking.rounds >= self.plan.rounds(&run.job_id) {
            return None;
        }
        let draw = |question| drawn(self.plan.seed, &run.job_id, question + 10 * u64::from(parking.rounds));
        let when = if draw(3).is_multiple_of(3) { When::Any } else { When::All };
        let spec = |number| JobSpec {
            task: "t".to_owned(),
            retries: draw(4 + number).is_multiple_of(3).then_some(1),
            rerunnable: Some(!draw(5 + number).is_multiple_of(4)),
            needs: self.plan.child_needs(draw(7 + number)),
            ..JobSpec::default()
        };
        Some(Continuation { run: (0..1 + draw(6) % 3).map(spec).collect(), when })
    }

    /// What there is to do of a graph: as the real thing, from the records of its tasks and from which go on.
    pub(crate) fn unfold(&mut self, n: usize, run: &Run, alive: &[JobId], room: usize) -> Checked<Unfolded> {
        let Some(tasks) = self.plan.tasks_of(&run.job_id) else {
            return Err(format!("daemon {n} unfolds {run}, which is no graph"));
        };
        if let Err(problem) = self.well(n) {
            return Ok(Unfolded::NodeBroken(problem.into()));
        }
        self.report.unfolded += 1;
        let (mut done, mut failed, mut ready) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for task in 1..=tasks {
            let child = run.job_id.child(task).expect("the ids are short");
            let needs = self.plan.needs(&run.job_id, task);
            if let Some(record) = self.files.records.get(&child) {
                let well = record.contains("completed");
                if well { &mut done } else { &mut failed }.insert(task);
            } else if needs.iter().any(|needed| failed.contains(needed)) {
                failed.insert(task);
            } else if !alive.contains(&child) && needs.iter().all(|needed| done.contains(needed)) {
                ready.push(task);
            }
        }
        if done.len() + failed.len() == tasks as usize {
            let end = RunEnd::Exit(i32::from(!failed.is_empty()));
            return Ok(Unfolded::Over(crate::keeper::finished(end)));
        }
        let task = |number: u32| (number, JobSpec { task: "t".to_owned(), ..JobSpec::default() });
        Ok(Unfolded::GoesOn(ready.into_iter().take(room).map(task).collect()))
    }

    /// May a task of a graph begin? Not before those have ended well that it needs.
    pub(crate) fn may_begin_task(&self, run: &Run) -> Checked {
        let Some(parent) = self.jobs.get(&run.job_id).and_then(|job| job.parent.as_ref()) else { return Ok(()) };
        if self.plan.tasks_of(parent).is_none() {
            return Ok(());
        }
        let number = run.job_id.as_str().rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        for needed in self.plan.needs(parent, number) {
            let child = parent.child(needed).expect("the ids are short");
            if !self.files.records.get(&child).is_some_and(|record| record.contains("completed")) {
                return Err(format!("{run} begins, and {child}, which it needs, has not ended well"));
            }
        }
        Ok(())
    }

    /// A job was accepted that is a child: it is one that the world knows.
    pub(crate) fn is_born(&mut self, fact: &Fact) {
        if let Fact::Parked(job_id, _) = fact {
            // Each round has budgets of its own.
            self.new_holder(job_id);
        }
        self.is_started_as_instance(fact);
        let Fact::Accepted { job_id, message, origin: Origin::Parent(parent), .. } = fact else { return };
        let Ok(message) = JobMessage::parse(message) else { return };
        self.report.children += 1;
        let lasts = SECOND + (drawn(self.plan.seed, job_id, 7) % 600) as Time * SECOND;
        let known = Known::of_child(self.now, lasts, &message.spec, parent.job_id.clone());
        self.jobs.entry(job_id.clone()).or_insert(known);
        // Another daemon may have had it, of whose attempts this one knows nothing.
        self.new_holder(job_id);
    }

    /// May a round begin? Not before those have ended that its job waits for.
    pub(crate) fn may_go_on(&mut self, n: usize, run: &Run) -> Checked {
        let Some(parking) = self.nodes[n].book.entry(&run.job_id).and_then(|entry| entry.parking) else {
            return Ok(());
        };
        self.report.rounds += 1;
        let has_ended = |number: &u32| {
            let child = run.job_id.child(*number).expect("the ids are short");
            self.files.records.contains_key(&child)
        };
        let ended = u32::try_from((1..=parking.children).filter(has_ended).count()).unwrap_or(u32::MAX);
        let enough = match parking.when {
            When::All => ended == parking.children,
            When::Any => ended > parking.seen || ended == parking.children,
        };
        if enough { Ok(()) } else { Err(format!("{run} begins after {ended} ends of children: {parking:?}")) }
    }

    /// Is it true that nobody wants a job any more?
    pub(crate) fn is_unwanted(&self, n: usize, job_id: &JobId) -> Checked {
        let parent = self.jobs.get(job_id).and_then(|job| job.parent.as_ref());
        match parent {
            Some(parent) if self.files.records.contains_key(parent) => Ok(()),
            _ => Err(format!("daemon {n} takes {job_id} for unwanted, and its parent {parent:?} has not ended")),
        }
    }

    /// Is a job to be ended that nobody has cancelled, because nobody wants it?
    pub(crate) fn is_orphan(&self, n: usize, job_id: &JobId) -> bool {
        self.nodes[n].book.entry(job_id).is_some_and(|entry: &Entry| entry.unwanted)
    }
}
