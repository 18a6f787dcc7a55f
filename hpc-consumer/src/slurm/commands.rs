//! The programs of Slurm: which there are, and asking them. What they are asked and what they say is in the crate
//! `slurm`.
//!
//! Invariants: they get nothing of our environment but what they need: it holds our secrets, and variables that change
//! what they say. Each has a time within which it is heard; one that is not heard has said nothing.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use slurm::{
    Accounted, Answer, Element, Ended, Listed, Listing, NoAnswer, NoRecords, Output, Request, Spent, cancel_arguments,
    queue_arguments, record_arguments, usage_arguments,
};

use crate::{config, run};

/// How long one may take. A controller that hangs lets them wait for up to 20 s, whatever a site has set.
const WITHIN: Duration = Duration::from_secs(60);

/// `sbatch` may be one of many that wait for their turn.
const SUBMISSION_WITHIN: Duration = Duration::from_secs(150);

/// A result waits for this answer.
const USAGE_WITHIN: Duration = Duration::from_secs(10);

/// So far back the accounting is asked.
const RECORDS_OF: Duration = Duration::from_hours(14 * 24);

/// Without one of these nothing can be done.
const NEEDED: [&str; 3] = ["sbatch", "squeue", "scancel"];

/// What asks Slurm.
#[derive(Debug, Clone)]
pub(crate) struct Commands {
    environment: Vec<(OsString, OsString)>,
}

impl Commands {
    /// With what programs of Slurm need of our environment.
    pub(crate) fn new() -> Self {
        Self { environment: config::environment_of_slurm() }
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        let (_, path) = self.environment.iter().find(|(name, _)| name == "PATH")?;
        program::on_path(path, program.as_ref())
    }

    /// Why nothing can be asked, if that is so: the end of a sentence about a pool.
    pub(crate) fn missing(&self) -> Option<String> {
        let missing = NEEDED.into_iter().find(|name| self.find(name).is_none())?;
        Some(format!(
            "there is no {missing} on the PATH; run hpc-consumer where jobs can be submitted to Slurm, and load its \
             module first where there is one"
        ))
    }

    /// Where `squeue` is.
    pub(crate) fn squeue(&self) -> Option<PathBuf> {
        self.find("squeue")
    }

    /// May Slurm keep accounts that can be asked? Whether it does is in the answer.
    pub(crate) fn may_have_accounting(&self) -> bool {
        self.find("sacct").is_some()
    }

    async fn ask(&self, program: &str, arguments: &[String], input: &str, within: Duration) -> Output {
        let Some(path) = self.find(program) else {
            let ended = Ended::NotStarted("there is none on the PATH".to_owned());
            return Output { ended, stdout: String::new(), stderr: String::new() };
        };
        let mut environment = self.environment.clone();
        environment.push(("LC_ALL".into(), "C".into()));
        // What sbatch has, allocations have.
        if program != "sbatch" {
            environment.push(("SLURM_TIME_FORMAT".into(), "%s".into()));
        }
        run::ask_slurm(&path, arguments, &environment, input, within).await
    }

    /// Submits it.
    pub(crate) async fn submit(&self, request: &Request<'_>) -> Answer {
        Answer::read(&self.ask("sbatch", &request.arguments(), &request.script(), SUBMISSION_WITHIN).await)
    }

    /// Would it be taken? `Ok` has Slurm's words about when and where.
    pub(crate) async fn test(&self, request: &Request<'_>) -> Result<String, Answer> {
        let arguments = request.arguments_of_test();
        Answer::read_test(&self.ask("sbatch", &arguments, &request.script(), WITHIN).await)
    }

    /// All jobs of this user, also those that have ended of late.
    pub(crate) async fn queue(&self) -> Result<Listing, NoAnswer> {
        Listing::of_queue(&self.ask("squeue", &queue_arguments(user()), "", WITHIN).await)
    }

    /// What the accounting has of the jobs of these names.
    pub(crate) async fn records(&self, jobs: &[String]) -> Result<Listed<Accounted>, NoRecords> {
        let names: Vec<&str> = jobs.iter().map(String::as_str).collect();
        let arguments = record_arguments(user(), &names, RECORDS_OF.as_secs());
        Listed::of_records(&self.ask("sacct", &arguments, "", WITHIN).await)
    }

    /// What the jobs of these names have used, which is worth no long wait.
    pub(crate) async fn usage(&self, jobs: &[String]) -> Result<Vec<Spent>, NoRecords> {
        let names: Vec<&str> = jobs.iter().map(String::as_str).collect();
        let arguments = usage_arguments(user(), &names, RECORDS_OF.as_secs());
        Spent::read(&self.ask("sacct", &arguments, "", USAGE_WITHIN).await)
    }

    /// Cancels a job, if it still has this name: Slurm may have given its id to another. One that is over or gone is
    /// none to cancel, and no error.
    pub(crate) async fn cancel(&self, job: &str, element: Element) -> Result<(), String> {
        let output = self.ask("scancel", &cancel_arguments(job, element), "", WITHIN).await;
        if output.is_success() { Ok(()) } else { Err(output.problem("scancel")) }
    }
}

fn user() -> u32 {
    rustix::process::getuid().as_raw()
}
