//! `hpc-consumer purge`: removes the directories and records of jobs that have ended long ago.
//!
//! Invariant: no job goes that a daemon holds, or whose result it owes. What this daemon holds it says itself; of
//! another one of the same `RESULTS_DIR` nothing is known but its age, so that more of that is asked for.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use program::{Exit, Failure, counted, is_meant};
use protocol::{JobId, JobResult, JobState};

use crate::verbs::Jobs;

/// What a daemon tells of itself is younger than this.
pub(crate) const AGE_MIN: Duration = Duration::from_hours(1);

/// No queue keeps a message for longer than 14 days: by then each daemon has published what it owed, or never will.
const AGE_MIN_SHARED: Duration = Duration::from_hours(15 * 24);

/// Removes jobs that have ended at least so long ago, in one of these states, or in any if none is named.
pub(crate) fn purge(jobs: &Jobs, older_than: Duration, states: &[JobState], yes: bool) -> anyhow::Result<Exit> {
    if let Some(open) = states.iter().find(|state| !state.has_ended()) {
        let message = format!("--state {open}: such a job has not ended; it is completed, failed or cancelled");
        return Err(Failure::usage(message));
    }
    jobs.must_be_there()?;
    let results = jobs.results();
    let place = results.path().display().to_string();
    let unreadable = || format!("RESULTS_DIR {place} cannot be read");
    if older_than < AGE_MIN_SHARED && results.owners().with_context(unreadable)? > 1 {
        return Err(Failure::usage(format!(
            "several daemons have had RESULTS_DIR {place}, and what the others owe is not known here; say --older-than \
             15d or more, by which nobody owes anything"
        )));
    }
    let holding = jobs.holding()?;
    if !holding.known {
        let message = "it cannot be told what the daemon holds, so nothing is removed; next: `hpc-consumer status`";
        return Err(Failure::with(Exit::TryLater, message));
    }
    if holding.unnamed > 0 {
        let message = format!(
            "the daemon holds {} jobs more than it names, and each of them could be one that would go; try again when it \
             holds fewer",
            holding.unnamed
        );
        return Err(Failure::with(Exit::TryLater, message));
    }
    let held: HashSet<JobId> = holding.jobs.into_iter().map(|job| job.job_id).collect();
    let latest = SystemTime::now().checked_sub(older_than).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut which = Vec::new();
    for (job_id, ended) in results.recorded().with_context(unreadable)? {
        if ended > latest || held.contains(&job_id) {
            continue;
        }
        // A record that cannot be read is for a person to look at.
        let record = results.final_record(&job_id).ok().flatten();
        let Some(result) = record.and_then(|record| JobResult::parse(&record).ok()) else { continue };
        if states.is_empty() || states.contains(&JobState::of(&result)) {
            which.push(job_id);
        }
    }
    // What an earlier call was ended with.
    results.empty_trash().with_context(|| format!("the trash in {place} cannot be emptied"))?;
    if which.is_empty() {
        program::say("there is nothing to remove");
        return Ok(Exit::Ok);
    }
    let text = counted(which.len(), "job");
    if !yes && !is_meant(&format!("remove the directories and records of {text} from {place}"))? {
        program::say("nothing was removed");
        return Ok(Exit::Ok);
    }
    let mut attempts: HashMap<JobId, Vec<PathBuf>> = HashMap::new();
    for (job_id, path) in results.attempts().with_context(unreadable)? {
        attempts.entry(job_id).or_default().push(path);
    }
    for job_id in &which {
        let attempts = attempts.remove(job_id).unwrap_or_default();
        let thrown = results.throw_away(job_id, &attempts).and_then(|()| results.empty_trash());
        thrown.with_context(|| format!("what is in {place} of the job {job_id} cannot be removed"))?;
    }
    writeln!(std::io::stdout(), "the directories and records of {text} are removed")?;
    Ok(Exit::Ok)
}
