//! Results as they are written down: who ran what, and how it ended.
//!
//! Out of scope: whose fault an end was (`conclude`), and how a file is put in place (`record`).

use std::io;
use std::path::Path;
use std::sync::Arc;

use lifecycle::{Attempt, Run};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use protocol::{JobId, JobMessage, JobResult, Reason, RuntimeKind, Status, VERSION, limits};

use super::now;
use super::pools::Pools;
use super::record::Record;
use super::results_dir::ResultsDir;

/// What stays as it is in the path of a `file:` URI.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Makes results and their records.
#[derive(Debug, Clone)]
pub(super) struct Recorder {
    results: ResultsDir,
    host: String,
    pools: Arc<Pools>,
}

impl Recorder {
    pub(super) fn new(results: ResultsDir, host: String, pools: Arc<Pools>) -> Self {
        Self { results, host, pools }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    #[cfg(test)]
    pub(super) fn results(&self) -> &ResultsDir {
        &self.results
    }

    /// The final record of a job that has ended, if it is still there: a person may have removed it.
    pub(super) fn final_record(&self, job_id: &JobId) -> Option<String> {
        self.results.final_record(job_id).unwrap_or_else(|error| {
            tracing::warn!(%job_id, "the final record of a job that is asked for again cannot be read: {error}");
            None
        })
    }

    /// Makes the file of a record again that is stored elsewhere, if the file is missing or empty.
    pub(super) fn put_record(&self, job_id: &JobId, record: &str) -> io::Result<()> {
        match self.results.record(job_id)? {
            _ if !self.results.has_mark()? => Err(ResultsDir::not_where_it_was()),
            Record::Whole(_) | Record::Unreadable(_) => Ok(()),
            Record::Missing => self.results.copy_record(job_id, record).map(drop),
            Record::Blank => {
                self.results.remove_record(job_id)?;
                self.results.copy_record(job_id, record).map(drop)
            }
        }
    }

    /// Puts away a message that is no job, and records a failed result where it has an id of its own.
    pub(super) fn put_away(
        &self,
        job_id: Option<JobId>,
        body: &str,
        problem: String,
    ) -> io::Result<Option<(JobId, String)>> {
        if !self.results.is_where_it_was()? {
            return Err(ResultsDir::not_where_it_was());
        }
        let place = self.results.put_away(body, &problem, now())?;
        tracing::warn!("a message was rejected and kept in {}: {problem}", place.display());
        // The message may share its id with a real job; that one keeps its own end.
        let Some(job_id) = job_id.filter(|job_id| !self.results.job_dir(job_id).exists()) else { return Ok(None) };
        match self.results.record(&job_id)? {
            // Ours of an earlier try, as a rule, which was not stored: it is owed all the same.
            Record::Whole(record) => return Ok(Some((job_id, record))),
            Record::Unreadable(_) => return Ok(None),
            Record::Missing | Record::Blank => {}
        }
        let result = self.failed(job_id.clone(), None, Reason::Rejected, problem);
        let record = self.results.write_record(&job_id, &result.to_json())?;
        Ok(Some((job_id, record)))
    }

    /// The result of a run of which nobody can say how it ended.
    pub(super) fn lost(&self, job: JobMessage, run: &Run, what: &str) -> JobResult {
        let place = self.results.job_dir(&run.job_id);
        let message = format!(
            "it cannot be known how attempt {} ended: {what}; what it left is in {}",
            run.attempt,
            place.display()
        );
        self.of_run(job, run, Some((Reason::Lost, message)))
    }

    /// The result of a job that was cancelled while nothing of it ran, after this attempt or before the first.
    pub(super) fn cancelled(&self, job: JobMessage, after: Option<Attempt>) -> JobResult {
        let message = match after {
            Some(attempt) => format!("the job was cancelled after attempt {attempt}, and is not tried again"),
            None => "the job was cancelled before it began".to_owned(),
        };
        JobResult {
            attempt: after.map_or(0, Attempt::get),
            created_at: job.created_at,
            ..self.failed(job.job_id, Some(job.spec.task), Reason::Cancelled, message)
        }
    }

    /// The result of a job that no pool of this site takes; nothing of it has run, or will.
    pub(super) fn rejected(&self, job: JobMessage, why: String) -> JobResult {
        let created_at = job.created_at;
        JobResult { created_at, ..self.failed(job.job_id, Some(job.spec.task), Reason::Rejected, why) }
    }

    /// The result of a run here.
    pub(super) fn of_run(&self, job: JobMessage, run: &Run, failure: Option<(Reason, String)>) -> JobResult {
        let runtime = self.pools.kind_of(&job.spec);
        JobResult {
            attempt: run.attempt.get(),
            runtime: runtime.map(RuntimeKind::into),
            isolated: runtime.map(|runtime| runtime == RuntimeKind::Apptainer),
            created_at: job.created_at,
            ..self.outcome(job.job_id, Some(job.spec.task), failure)
        }
    }

    /// A failed result without any run.
    pub(super) fn failed(&self, job_id: JobId, task: Option<String>, reason: Reason, message: String) -> JobResult {
        self.outcome(job_id, task, Some((reason, message)))
    }

    fn outcome(&self, job_id: JobId, task: Option<String>, failure: Option<(Reason, String)>) -> JobResult {
        let (reason, message) = failure.unzip();
        JobResult {
            v: VERSION,
            result_pointer: self.uri(&self.results.record_path(&job_id)),
            job_id,
            status: if reason.is_some() { Status::Failed } else { Status::Completed }.into(),
            reason: reason.map(Reason::into),
            message,
            exit_code: None,
            signal: None,
            task,
            pool: None,
            image: None,
            command: None,
            attempt: 0,
            runtime: None,
            isolated: None,
            isolation: None,
            slurm_job_id: None,
            usage: None,
            host: Some(self.host.clone()),
            created_at: None,
            started_at: None,
            finished_at: Some(now()),
            output: None,
            output_bytes: None,
            output_file: None,
            files: Vec::new(),
            files_note: None,
            resent_at: None,
            stdout_tail: None,
            stderr_tail: None,
        }
    }

    pub(super) fn uri(&self, path: &Path) -> String {
        format!("file://{}{}", self.host, utf8_percent_encode(&path.to_string_lossy(), PATH))
    }
}

/// The result as it travels. JSON escapes may blow a text up; what does not fit stays on the cluster, or is in the
/// store of files.
pub(super) fn fitting(result: &mut JobResult) -> String {
    // An output that travels inside need not be had from elsewhere.
    let file = if result.output.is_some() { result.output_file.take() } else { None };
    let mut text = result.to_json();
    if text.len() > limits::RESULT_BYTES_MAX && (result.stdout_tail.take(), result.stderr_tail.take()) != (None, None) {
        text = result.to_json();
    }
    if text.len() > limits::RESULT_BYTES_MAX && result.output.take().is_some() {
        result.output_file = file;
        if result.output_file.is_none() {
            let message = "output.json is too large to travel with its result; it stays on the cluster".to_owned();
            result.message.get_or_insert(message);
        }
        text = result.to_json();
    }
    text
}
