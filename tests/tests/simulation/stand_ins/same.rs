//! One effect on both sides, and whether what comes of it is the same.

use std::time::Duration;

use lifecycle::{Attempt, Claimed, Concluded, Effect, Event, Run, RunEnd, Sighting, Staged, Uploaded};
use protocol::{JobId, JobMessage, JobResult};
use testkit::PATIENCE;

use super::{Known, NODES, Pair, Same, ended, real};
use crate::effects::Errand;
use crate::plan::START;
use crate::transfers::CONTENT;

impl Pair<'_> {
    /// What has an answer of its own.
    pub(super) fn ask(&mut self, n: usize, effect: Effect, no: usize) -> Same<(Event, Event)> {
        let world = self.in_world(n, effect.clone())?.ok_or("the world has no answer")?;
        let real = self.in_reality(n, effect, no).ok_or("there is no real answer")?;
        self.same(&world, &real)?;
        Ok((world, real))
    }

    /// What is told to the keeper.
    pub(super) fn tell(&mut self, n: usize, effect: Effect, no: usize) -> Same {
        let world = self.in_world(n, effect.clone())?;
        let real = self.in_reality(n, effect, no);
        match (world, real) {
            (None, None) => Ok(()),
            (world, real) => Err(format!("an answer that was not expected: {world:?}, {real:?}")),
        }
    }

    pub(super) fn in_world(&mut self, n: usize, effect: Effect) -> Same<Option<Event>> {
        self.world.carry_out(n, Errand::Do(effect))
    }

    pub(super) fn in_reality(&mut self, n: usize, effect: Effect, no: usize) -> Option<Event> {
        let body = self.world.plan.jobs[no].body("t", None);
        let job_id = self.world.plan.jobs[no].job_id.clone();
        let job = JobMessage::parse(&body).unwrap_or_else(|_| JobMessage::unknown(job_id));
        let passed = u64::try_from(self.world.now - START).unwrap_or_default();
        self.real[n].carry_out(effect, &job, self.begun + Duration::from_millis(passed))
    }

    /// What the keeper of the world has said is what the real one says.
    pub(super) fn hear_all(&mut self, n: usize) -> Same {
        for world in self.world.said_to(n) {
            let real = self.real[n].hear(PATIENCE).ok_or_else(|| format!("the real keeper does not say: {world:?}"))?;
            self.same(&world, &real)?;
            let daemon = self.daemon(n);
            match (world, real) {
                (Event::RunEnded(run, world), Event::RunEnded(_, real)) => {
                    if let Some(alive) = daemon.strays.get_mut(&run) {
                        *alive = false;
                    } else if !matches!(daemon.runs.get(&run), Some(Known::Ended(..) | Known::CutOff)) {
                        daemon.runs.insert(run, ended(world, real));
                    }
                }
                (Event::ExecutorGone(_), _) => {
                    daemon.connected = false;
                    daemon.strays.clear();
                    daemon.runs.retain(|_, known| matches!(known, Known::Ended(..) | Known::CutOff));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn same(&mut self, world: &Event, real: &Event) -> Same {
        let (plain_world, plain_real) = (plain(world), plain(real));
        self.note(&plain_world);
        if plain_world != plain_real {
            return Err(format!("in the world: {world:?}; for real: {real:?}"));
        }
        for ((job_id, world), (_, real)) in record_of(world).into_iter().zip(record_of(real)) {
            self.same_record(&job_id, world, real)?;
        }
        Ok(())
    }

    /// A final record stays what it is.
    pub(super) fn same_record(&mut self, job_id: &JobId, world: String, real: String) -> Same {
        let now = (world, real);
        let first = self.records.entry(job_id.clone()).or_insert_with(|| now.clone());
        if *first == now { Ok(()) } else { Err(format!("the record of {job_id} was {first:?} and is {now:?}")) }
    }

    pub(super) fn same_files(&self) -> Same {
        for job in &self.world.plan.jobs {
            let files = &self.world.files;
            let claim = files.claims.get(&job.job_id);
            let world = claim.map(|claim| (claim.owner.map(real::owner), u64::from(claim.attempt)));
            let real = real::claim_in(self.temp, &job.job_id);
            if world != real {
                return Err(format!("the claim for {} in the world: {world:?}; the real one: {real:?}", job.job_id));
            }
            for n in 0..NODES {
                let (world, real) = (self.world.is_staged(n, &job.job_id), real::is_staged(self.temp, n, &job.job_id));
                if world != real {
                    return Err(format!(
                        "the files of {} are with node {n} in the world: {world}; for real: {real}",
                        job.job_id
                    ));
                }
            }
            let claimed = claim.and_then(|claim| Attempt::new(claim.attempt));
            if let Some(attempt) = claimed.filter(|_| job.wants.has_files())
                && self.world.is_in_place(&Run { job_id: job.job_id.clone(), attempt })
                && real::brought(self.temp, &job.job_id).as_deref() != Some(CONTENT)
            {
                return Err(format!("the file of {} is not in its directory", job.job_id));
            }
            let world = files.records.get(&job.job_id);
            if world.is_some() != real::has_record(self.temp, &job.job_id) {
                return Err(format!("{} has its record on one side only: {world:?}", job.job_id));
            }
        }
        Ok(())
    }
}

/// An event without what is different each time, and without texts for people.
fn plain(event: &Event) -> String {
    match event {
        Event::Probed(_, outcome) => format!("probed: {}", outcome.is_ok()),
        Event::Claimed(job_id, Claimed::Finished(record)) => format!("{job_id} has ended: {}", plain_record(record)),
        Event::Claimed(job_id, Claimed::NodeBroken(_)) => format!("{job_id} cannot be claimed"),
        Event::Claimed(job_id, claimed) => format!("{job_id}: {claimed:?}"),
        Event::Unclaimed(run, outcome) => format!("{run} given up: {}", outcome.is_ok()),
        Event::Observed(observation) => {
            let mut runs: Vec<String> =
                observation.runs.iter().map(|(run, sighting)| format!("{run} {}", plain_sighting(sighting))).collect();
            runs.sort();
            format!("{runs:?}, complete: {}", observation.complete)
        }
        Event::ExecutorGone(_) => "the keeper is gone".to_owned(),
        Event::RunEnded(run, finished) => format!("{run} {}", plain_end(&finished.end)),
        Event::Concluded(run, concluded) => match concluded {
            Concluded::Recorded(record) => format!("{run} recorded: {}", plain_record(record)),
            Concluded::Parks(_) => format!("{run} goes on after others"),
            Concluded::TaskFailed(_) => format!("{run} failed"),
            Concluded::NodeFailed(_) => format!("{run} was failed by the node"),
            Concluded::ServiceFailed(_) => format!("{run} failed without a service"),
            Concluded::NodeBroken(_) => format!("{run} cannot be concluded"),
            Concluded::DiskFull(..) => format!("{run} filled the disk"),
            Concluded::ToUpload => format!("{run} has outputs to send"),
            Concluded::TakenOver => format!("{run} was taken over"),
        },
        Event::PutAway { record, .. } => {
            format!("put away: {:?}", record.as_ref().map(|(job_id, record)| (job_id, plain_record(record))))
        }
        Event::PutAwayFailed { .. } => "it cannot be put away".to_owned(),
        Event::Staged(job_id, staged) => {
            let what = match staged {
                Staged::Ready => "here",
                Staged::Refused(_) => "refused",
                Staged::Away(_) => "away",
            };
            format!("{job_id} files: {what}")
        }
        Event::Uploaded(run, Uploaded::Done) => format!("{run} outputs: sent"),
        Event::Uploaded(run, Uploaded::Away(_)) => format!("{run} outputs: away"),
        other => format!("{other:?}"),
    }
}

fn plain_sighting(sighting: &Sighting) -> String {
    match sighting {
        Sighting::Queued | Sighting::Alive => "goes on".to_owned(),
        Sighting::Ended(finished) => plain_end(&finished.end),
        Sighting::CutOff(_) => "was cut off".to_owned(),
    }
}

fn plain_end(end: &RunEnd) -> String {
    match end {
        RunEnd::NotStarted(_) => "was not started".to_owned(),
        end => format!("{end:?}"),
    }
}

/// What a final record says of its job: the world has one word for what a real one says in two.
fn plain_record(record: &str) -> String {
    let fields: serde_json::Value = serde_json::from_str(record).expect("a record is JSON");
    let word = match (fields["status"].as_str(), fields["reason"].as_str()) {
        (Some("failed"), Some("exit") | None) => "failed",
        (Some("failed"), Some(reason)) => reason,
        (status, _) => status.unwrap_or_default(),
    };
    assert!(fields.get("v").is_none() || JobResult::parse(record).is_ok(), "it is no result: {record}");
    format!("{word} in attempt {} of {}", fields["attempt"], fields["job_id"])
}

fn record_of(event: &Event) -> Option<(JobId, String)> {
    match event {
        Event::Claimed(job_id, Claimed::Finished(record)) => Some((job_id.clone(), record.clone())),
        Event::Concluded(run, Concluded::Recorded(record)) => Some((run.job_id.clone(), record.clone())),
        Event::PutAway { record, .. } => record.clone(),
        _ => None,
    }
}
