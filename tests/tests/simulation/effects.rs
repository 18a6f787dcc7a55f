//! Effects are carried out: as their documentation says, each in one moment.

use lifecycle::{Concluded, Effect, EndReason, Ending, Event, Problem, Recalled, Run, Share};
use protocol::{JobId, PoolName};

use crate::keeper::Outcome;
use crate::plan::{MINUTE, Time};
use crate::sabotage::Sabotage;
use crate::world::{Checked, World};

/// A run that failed so near to a trouble of the node is not blamed.
const TROUBLE_REACHES: Time = MINUTE;

/// An effect with all that it takes along.
pub(crate) enum Errand {
    Do(Effect),
    /// What is published, from the disk.
    Publish(Vec<(JobId, String)>),
}

impl Errand {
    /// May it arrive although its sender is dead, or stands still?
    pub(crate) fn is_on_the_wire(&self) -> bool {
        matches!(self, Self::Publish(_) | Self::Do(Effect::Pull(_) | Effect::Settle { .. }))
    }

    /// Does it go to the keeper?
    pub(crate) fn is_for_the_keeper(&self) -> bool {
        matches!(
            self,
            Self::Do(Effect::Observe | Effect::Reconciled | Effect::Start(_) | Effect::End(..) | Effect::Forget(_))
        )
    }
}

impl World {
    /// What an effect takes along; nothing for one that only tells, or is done at once.
    pub(crate) fn errand(&mut self, n: usize, life: u64, effect: Effect) -> Checked<Option<Errand>> {
        let jobs = match effect {
            Effect::Unstage(job_id) => {
                self.unstage(n, life, &job_id);
                return Ok(None);
            }
            Effect::StopUpload(run) => {
                self.stop_upload(n, life, &run);
                return Ok(None);
            }
            Effect::Serve(run) => {
                self.serve(n, life, run);
                return Ok(None);
            }
            Effect::Withdraw(run) => {
                self.withdraw(n, life, &run);
                return Ok(None);
            }
            Effect::Say(_) | Effect::Exit | Effect::Fail(_) => return Ok(None),
            Effect::Publish(jobs) => jobs,
            effect => return Ok(Some(Errand::Do(effect))),
        };
        let mut records = Vec::new();
        for job_id in jobs {
            let Some(record) = self.nodes[n].book.records.get(&job_id) else {
                return Err(format!("daemon {n} publishes the result of {job_id}, which is not on its disk"));
            };
            records.push((job_id, record.clone()));
        }
        Ok(Some(Errand::Publish(records)))
    }

    /// Carries it out; returns the answer.
    pub(crate) fn carry_out(&mut self, n: usize, errand: Errand) -> Checked<Option<Event>> {
        let effect = match errand {
            Errand::Publish(records) => return Ok(Some(Event::Published(self.publish(n, records)?))),
            Errand::Do(effect) => effect,
        };
        Ok(Some(match effect {
            Effect::Probe(pool) => {
                let found = self.look_at_node(n, pool.as_ref()).map_err(Problem::from);
                Event::Probed(pool, found)
            }
            Effect::Observe => self.observe(n),
            Effect::Pull(count) => Event::Pulled(self.pull(n, count)?.map(Into::into)),
            Effect::Recall(jobs) => {
                let (finished, visible) = (&self.nodes[n].book.finished, self.can_see(n).is_ok());
                let recalled = |job_id: JobId| {
                    let record = || self.files.records.get(&job_id).filter(|_| visible).cloned();
                    let recalled = if finished.contains(&job_id) { Recalled::Ended(record()) } else { Recalled::New };
                    (job_id, recalled)
                };
                Event::Recalled(jobs.into_iter().map(recalled).collect())
            }
            Effect::Stage(job_id) => {
                let staged = self.stage(n, &job_id)?;
                Event::Staged(job_id, staged)
            }
            Effect::Upload(run) => {
                let uploaded = self.upload(n, &run)?;
                Event::Uploaded(run, uploaded)
            }
            Effect::Claim { job_id, last_attempt, rerunnable, .. } => {
                let claimed = self.claim(n, &job_id, last_attempt, rerunnable);
                Event::Claimed(job_id, claimed)
            }
            Effect::Unclaim(run) => {
                let outcome = self.unclaim(n, &run)?;
                Event::Unclaimed(run, outcome.map_err(Problem::from))
            }
            Effect::Unfold { run, alive, room } => {
                let unfolded = self.unfold(n, &run, &alive, room)?;
                Event::Unfolded(run, unfolded)
            }
            Effect::Start(run) => return self.start(n, run),
            Effect::Reconciled => {
                self.nodes[n].keeper.complete = true;
                return Ok(None);
            }
            Effect::End(run, why) => return self.end_run(n, &run, why),
            Effect::Forget(runs) => return self.forget(n, &runs),
            Effect::Conclude { run, ending, may_retry } => {
                let concluded = self.conclude(n, &run, &ending, may_retry)?;
                Event::Concluded(run, concluded)
            }
            Effect::PutAway { lease_id, job_id, body, .. } => self.put_away(n, lease_id, job_id, body)?,
            Effect::Settle { acks, retries } => Event::Settled(self.settle(n, &acks, &retries)?),
            Effect::Unstage(_)
            | Effect::StopUpload(_)
            | Effect::Serve(_)
            | Effect::Withdraw(_)
            | Effect::Publish(_)
            | Effect::Say(_)
            | Effect::Exit
            | Effect::Fail(_) => return Ok(None),
        }))
    }

    /// What a probe finds. That something was wrong is remembered as evidence for runs that fail about then.
    fn look_at_node(&mut self, n: usize, pool: Option<&PoolName>) -> Result<(), String> {
        let gpu = if self.is_pool_broken(n, pool) { Err("the GPU is gone".to_owned()) } else { Ok(()) };
        let (found, now) = (self.well(n).and(gpu), self.now);
        if let (Err(_), Some(life)) = (&found, &mut self.nodes[n].life) {
            life.trouble = Some(now);
        }
        found
    }

    /// Was the node to blame for the end of a run? That is looked at before all else.
    fn node_is_to_blame(&mut self, n: usize, run: &Run) -> bool {
        let Some(kept) = self.nodes[n].keeper.runs.get(run).cloned() else { return false };
        match kept.outcome {
            Outcome::NodeFailed | Outcome::NotStarted => true,
            // A disk that is full is looked at by itself.
            Outcome::Completed | Outcome::Ended(_) | Outcome::FillsDisk => false,
            Outcome::TaskFailed => {
                let pool = self.pool_of_run(n, run);
                let found = self.look_at_node(n, pool.as_ref());
                let trouble = self.nodes[n].life.as_ref().and_then(|life| life.trouble);
                found.is_err() || trouble.is_some_and(|met| (met - kept.ends_at).abs() <= TROUBLE_REACHES)
            }
        }
    }

    fn conclude(&mut self, n: usize, run: &Run, ending: &Ending, may_retry: bool) -> Checked<Concluded> {
        if matches!(ending, Ending::Finished(_)) && self.node_is_to_blame(n, run) {
            self.may_conclude(n, run, ending, may_retry)?;
            self.not_the_task(n, run);
            return Ok(Concluded::NodeFailed("the runtime does not start".into()));
        }
        if matches!(ending, Ending::Finished(_)) && self.service_is_to_blame(n, run)? {
            self.may_conclude(n, run, ending, may_retry)?;
            self.not_the_task(n, run);
            return Ok(Concluded::ServiceFailed("its instance has ended".into()));
        }
        if let Err(problem) = self.well(n) {
            return Ok(Concluded::NodeBroken(problem.into()));
        }
        let taken_over = match ending {
            // There may be no claim at all: that is why it is given up.
            Ending::GivenUp(_) | Ending::Cancelled(_) | Ending::Rejected(_) => {
                self.files.is_with_another(n, &run.job_id)
            }
            Ending::Finished(_) | Ending::CutOff(_) | Ending::FilledDisk(_) | Ending::Unparkable(..) => {
                !self.files.holds(n, run)
            }
        };
        if taken_over {
            return Ok(Concluded::TakenOver);
        }
        self.may_conclude(n, run, ending, may_retry)?;
        let outcome = self.nodes[n].keeper.runs.get(run).map(|kept| kept.outcome);
        let status = match (ending, outcome) {
            // Of a graph nothing runs.
            (Ending::Finished(finished), None) if self.plan.tasks_of(&run.job_id).is_some() => {
                if finished.has_failed() { "failed" } else { "completed" }
            }
            (Ending::CutOff(_), _) => "lost",
            (Ending::FilledDisk(filled), _) if filled.again => {
                return Ok(Concluded::NodeFailed(filled.problem.clone()));
            }
            (Ending::FilledDisk(_), _) => "disk_full",
            (Ending::Finished(_), Some(Outcome::FillsDisk)) => {
                self.filled_disk(run);
                let share = Share::Bytes { held: 1, used: Some(1) };
                return Ok(Concluded::DiskFull("the disk is full".into(), share));
            }
            (Ending::Unparkable(_, why), _) => return Err(format!("daemon {n} does not park {run}: {why}")),
            (Ending::GivenUp(_), _) => "infrastructure",
            (Ending::Rejected(_), _) => "rejected",
            (Ending::Cancelled(_), _) | (Ending::Finished(_), Some(Outcome::Ended(EndReason::Cancelled))) => {
                "cancelled"
            }
            (Ending::Finished(_), Some(Outcome::Ended(why))) if why.is_of_service() => "cancelled",
            (Ending::Finished(_), Some(Outcome::Completed)) => match self.leaves(n, run) {
                Some(continuation) => return Ok(Concluded::Parks(continuation)),
                None => "completed",
            },
            (Ending::Finished(_), Some(Outcome::TaskFailed)) if may_retry => {
                return Ok(Concluded::TaskFailed("it failed".to_owned()));
            }
            (Ending::Finished(_), Some(Outcome::TaskFailed)) => "failed",
            (Ending::Finished(_), Some(Outcome::NodeFailed | Outcome::NotStarted | Outcome::Ended(_)) | None) => {
                return Err(format!("daemon {n} concludes {run} as if it had ended by itself: {outcome:?}"));
            }
        };
        if self.owes_outputs(run, status) && self.sabotage != Some(Sabotage::RecordBeforeUpload) {
            return Ok(Concluded::ToUpload);
        }
        self.report.cancelled += u64::from(status == "cancelled");
        self.report.rejected += u64::from(status == "rejected");
        self.report.given_up += u64::from(matches!(ending, Ending::GivenUp(_)));
        self.report.disks_filled += u64::from(matches!(ending, Ending::FilledDisk(_)));
        Ok(Concluded::Recorded(self.files.record(&run.job_id, run.attempt.get(), status)))
    }

    fn put_away(&mut self, n: usize, lease_id: String, job_id: Option<JobId>, body: String) -> Checked<Event> {
        if let Err(problem) = self.well(n) {
            return Ok(Event::PutAwayFailed { lease_id, problem: problem.into() });
        }
        self.files.aside.insert(body);
        let Some(job_id) = job_id else { return Ok(Event::PutAway { lease_id, record: None }) };
        if self.jobs.get(&job_id).is_none_or(|job| job.readable) {
            return Err(format!("daemon {n} puts {job_id} away as if it were no job"));
        }
        let record = self.files.record(&job_id, 0, "rejected");
        Ok(Event::PutAway { lease_id, record: Some((job_id, record)) })
    }
}
