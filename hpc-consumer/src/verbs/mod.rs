//! What scripts, workflow engines and people on the cluster ask of single jobs: how far they are, what they print, and
//! when they have ended. The words and exit codes are a contract: `docs/verbs.md`.
//!
//! All of it is read from the view of the daemon (`store::show`) and from `RESULTS_DIR`, and nothing is changed.
//!
//! Invariant: the records are looked at after the view. A job that has left the view has its record by then.

mod logs;
mod show;
mod status;
mod wait;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use program::{Exit, Failure};
use protocol::names::{self, LAST};
use protocol::{JobId, JobResult, JobState};

use crate::job::{Claim, ResultsDir};
use crate::store::{Holding, holding};

pub(crate) use self::logs::logs;
pub(crate) use self::show::show;
pub(crate) use self::status::status;
pub(crate) use self::wait::wait;

/// The jobs of a daemon and of its `RESULTS_DIR`.
pub(crate) struct Jobs {
    state_dir: PathBuf,
    results: ResultsDir,
}

/// What is known of one job.
enum Known {
    /// It has ended.
    Result(Box<JobResult>),
    /// It has not, as far as is known.
    State(JobState),
}

impl Jobs {
    /// Those of the daemon with this state.
    pub(crate) fn of(state_dir: PathBuf) -> anyhow::Result<Self> {
        let results_dir = match ResultsDir::of(&state_dir) {
            Some(results_dir) => results_dir,
            None => holding(&state_dir)?.results_dir.with_context(|| {
                format!(
                    "no daemon has run with STATE_DIR {} yet, so where its jobs are is not known; set STATE_DIR as for \
                     `hpc-consumer run`",
                    state_dir.display()
                )
            })?,
        };
        Ok(Self::at(state_dir, results_dir))
    }

    /// Those in this `RESULTS_DIR`.
    pub(crate) fn at(state_dir: PathBuf, results_dir: PathBuf) -> Self {
        Self { state_dir, results: ResultsDir::new(results_dir) }
    }

    pub(crate) fn results(&self) -> &ResultsDir {
        &self.results
    }

    /// The jobs that these names mean: ids, beginnings of ids, or `last`. Says which it is, where the name does not.
    pub(crate) fn named(&self, names: &[JobId]) -> anyhow::Result<Vec<JobId>> {
        names.iter().map(|name| self.one_named(name)).collect()
    }

    pub(crate) fn one_named(&self, name: &JobId) -> anyhow::Result<JobId> {
        let job_id = if name.as_str() == LAST {
            self.last()?.ok_or_else(|| {
                Failure::with(
                    Exit::Usage,
                    "no job was accepted here yet, so that none is the last one; name the job by its id",
                )
            })?
        } else if names::may_be_beginning(name) {
            let here = self.results.job_ids().with_context(|| self.unreadable())?;
            if here.contains(name) {
                return Ok(name.clone());
            }
            let held = self.holding()?.jobs.into_iter().map(|job| job.job_id);
            names::resolve(name, held.chain(here)).map_err(Failure::usage)?
        } else {
            return Ok(name.clone());
        };
        if job_id != *name {
            program::say(&format!("{name} is the job {job_id}"));
        }
        Ok(job_id)
    }

    /// The job that was accepted last: of those that wait for their first attempt the newest, if none has begun later;
    /// and none that another job has asked for.
    fn last(&self) -> anyhow::Result<Option<JobId>> {
        let held = self.holding()?.jobs;
        let here = self.results.job_ids().with_context(|| self.unreadable())?;
        let known: HashSet<JobId> = held.iter().map(|job| &job.job_id).chain(&here).cloned().collect();
        let waiting = held.into_iter().filter(|job| job.attempt == 0);
        let waiting = waiting.filter_map(|job| Some((SystemTime::from(job.since?), job.job_id)));
        let begun = here.into_iter().filter_map(|job_id| Some((self.results.begun_at(&job_id)?, job_id)));
        let found = waiting.chain(begun).filter(|(_, job_id)| !show::is_child(job_id, &known));
        Ok(found.max().map(|(_, job_id)| job_id))
    }

    /// An error where `RESULTS_DIR` is away: nothing would ever be seen there.
    pub(crate) fn must_be_there(&self) -> anyhow::Result<()> {
        if self.path().is_dir() {
            return Ok(());
        }
        anyhow::bail!("RESULTS_DIR {} is not there; mount its file system again", self.path().display())
    }

    pub(crate) fn holding(&self) -> anyhow::Result<Holding> {
        holding(&self.state_dir)
    }

    /// What is known of each of these jobs, in their order.
    fn known(&self, jobs: &[JobId]) -> anyhow::Result<Vec<Known>> {
        let holding = self.holding()?;
        jobs.iter()
            .map(|job_id| {
                if let Some((result, _)) = self.ended(job_id)? {
                    return Ok(Known::Result(Box::new(result)));
                }
                let held = holding.jobs.iter().find(|job| job.job_id == *job_id);
                let state = match held.map(|job| job.state()) {
                    Some(Some(state)) => state,
                    // It has ended, and a person has taken its record away.
                    Some(None) => JobState::Unknown,
                    None => match self.results.claim_of(job_id).with_context(|| self.unreadable())? {
                        // Another daemon has it, or the view is older than the job.
                        Claim::Stands => JobState::Running,
                        Claim::GivenUp => JobState::Queued,
                        Claim::None => {
                            if holding.unnamed > 0 {
                                program::say(&format!(
                                    "the daemon holds {} jobs more than it tells of; {job_id} may be one of them",
                                    holding.unnamed
                                ));
                            }
                            JobState::Unknown
                        }
                    },
                };
                Ok(Known::State(state))
            })
            .collect()
    }

    fn known_of(&self, job_id: &JobId) -> anyhow::Result<Known> {
        let known = self.known(std::slice::from_ref(job_id))?.pop();
        Ok(known.unwrap_or(Known::State(JobState::Unknown)))
    }

    /// The result of a job that has ended, and the record that it stands in.
    fn ended(&self, job_id: &JobId) -> anyhow::Result<Option<(JobResult, String)>> {
        let Some(record) = self.results.final_record(job_id).with_context(|| self.unreadable())? else {
            return Ok(None);
        };
        let result = JobResult::parse(&record).with_context(|| format!("the record of the job {job_id}"))?;
        Ok(Some((result, record)))
    }

    fn unreadable(&self) -> String {
        format!("RESULTS_DIR {} cannot be read", self.path().display())
    }

    fn path(&self) -> &Path {
        self.results.path()
    }
}
