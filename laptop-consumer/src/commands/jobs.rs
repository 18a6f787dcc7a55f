//! The jobs that are named on the command line: by ids, by beginnings of ids, as the last one, in files, or all.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;

use anyhow::Context as _;
use client::hub::Hub;
use client::{Inbox, names};
use program::{Exit, Failure};
use protocol::JobId;
use serde::Deserialize;

use super::note;

/// A larger file is no list of jobs.
const FILE_BYTES_MAX: u64 = 64_000_000;

/// The job that a name means: one that is known here or, where none is, to the hub. Says which one it is, where the
/// name does not.
pub(super) async fn named(name: &JobId, inbox: &Inbox, hub: Option<&Hub>) -> anyhow::Result<JobId> {
    let usage = |error: names::Error| match error {
        names::Error::Inbox(error) => error.into(),
        error => Failure::with(Exit::Usage, error.to_string()),
    };
    let here = names::job(name, inbox);
    let is_here = !matches!(&here, Err(names::Error::NoLast)) && !here.as_ref().is_ok_and(|job_id| job_id == name);
    let job_id = match hub {
        Some(hub) if !is_here => match names::job_of_hub(name, hub).await {
            Ok(Some(job_id)) => job_id,
            Ok(None) => here.map_err(usage)?,
            Err(names::Error::Hub(error)) => {
                tracing::warn!("only the ids that are known here can be shortened: {error}");
                here.map_err(usage)?
            }
            Err(error) => return Err(usage(error)),
        },
        _ => here.map_err(usage)?,
    };
    if job_id != *name {
        note(&format!("{name} is the job {job_id}"));
    }
    Ok(job_id)
}

/// The jobs that these arguments mean, each once, in their order.
pub(super) async fn wanted(
    arguments: &[String],
    all: bool,
    inbox: &Inbox,
    hub: Option<&Hub>,
) -> anyhow::Result<Vec<JobId>> {
    let mut jobs = Vec::new();
    for argument in arguments {
        match argument.strip_prefix('@') {
            Some(path) => jobs.extend(in_file(path)?),
            None => jobs.push(named(&argument.parse().context("the arguments have been checked")?, inbox, hub).await?),
        }
    }
    if all {
        let arrived: HashSet<JobId> = inbox.arrived()?.into_iter().collect();
        let mut missing: Vec<JobId> =
            inbox.submitted()?.into_iter().filter(|job_id| !arrived.contains(job_id)).collect();
        missing.sort();
        jobs.extend(missing);
    }
    let mut seen = HashSet::new();
    jobs.retain(|job_id| seen.insert(job_id.clone()));
    Ok(jobs)
}

fn in_file(path: &str) -> anyhow::Result<Vec<JobId>> {
    let usage = |message: String| Failure::with(Exit::Usage, message);
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|error| usage(format!("cannot read the list of jobs {path}: {error}")))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(usage(format!("the list of jobs {path} is larger than {FILE_BYTES_MAX} bytes")));
    }
    let mut jobs = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let in_line = in_line(line).ok_or_else(|| {
            usage(format!(
                "the list of jobs {path} has something else in line {number}; a line is the id of a job, or JSON with \
                 `job_id`, such as `submit` prints"
            ))
        })?;
        jobs.extend(in_line);
    }
    if jobs.is_empty() {
        note(&format!("the list of jobs {path} names no job"));
    }
    Ok(jobs)
}

/// An id; what the edge answers to a submission, or to a batch of them; a result. Nothing in an empty line or a
/// comment.
fn in_line(line: &str) -> Option<Vec<JobId>> {
    #[derive(Deserialize)]
    struct Answer {
        job_id: Option<JobId>,
        jobs: Option<Vec<Answer>>,
    }
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Some(Vec::new());
    }
    if !line.starts_with('{') {
        return Some(vec![line.parse().ok()?]);
    }
    match serde_json::from_str(line).ok()? {
        Answer { job_id: Some(job_id), .. } => Some(vec![job_id]),
        // What the edge refused has no id, and no result to wait for.
        Answer { jobs: Some(jobs), .. } => Some(jobs.into_iter().filter_map(|job| job.job_id).collect()),
        Answer { job_id: None, jobs: None } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_hold_ids_and_answers_of_the_edge() {
        let ids = |line| in_line(line).map(|ids| ids.iter().map(JobId::to_string).collect::<Vec<_>>().join(" "));
        for (line, jobs) in [
            ("j1", Some("j1")),
            ("  j1\r", Some("j1")),
            ("", Some("")),
            ("# the first run", Some("")),
            (r#"{"status":"queued","job_id":"j1","queue":"hpc-jobs"}"#, Some("j1")),
            (r#"{"jobs":[{"status":"queued","job_id":"j1"},{"status":"refused","problem":{}}]}"#, Some("j1")),
            ("../x", None),
            ("j1 j2", None),
            ("{}", None),
            (r#"{"job_id":"../x"}"#, None),
            ("{", None),
        ] {
            assert_eq!(ids(line).as_deref(), jobs, "{line}");
        }
    }
}
