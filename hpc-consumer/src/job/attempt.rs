//! One attempt at a job, from claim to final record.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::RunEnd;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use protocol::{JobId, JobMessage, JobResult, Reason, RuntimeKind, Status, Timestamp, VERSION, limits};
use queues::Backoff;
use tokio::sync::watch;

use super::files::{Claim, JobDir, Record, ResultsDir};
use super::output::{self, Output};
use crate::run::{self, Ended, Finished, Limits, Runtime};

/// What stays as it is in the path of a `file:` URI.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What every attempt on this node shares.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) results: ResultsDir,
    pub(crate) runtime: Runtime,
    pub(crate) limits: Limits,
    pub(crate) host: String,
}

impl Node {
    /// Is all there that a job needs?
    pub(crate) async fn probe(&self) -> Result<(), String> {
        let results = self.results.clone();
        let scratch = blocking(move || results.probe()).await?;
        self.runtime.probe(&scratch).await
    }

    /// Runs a job to its end and writes its final record. `exited` is called once its processes are gone.
    pub(crate) async fn attempt(
        self: Arc<Self>,
        job: JobMessage,
        mut stop: watch::Receiver<bool>,
        exited: impl FnOnce(),
    ) -> RunEnd {
        let claimed = {
            let (node, job) = (self.clone(), job.clone());
            blocking(move || node.results.claim(&job, &node.host, now())).await
        };
        let dir = match claimed {
            Ok(Claim::Ours(dir)) => Arc::new(dir),
            Ok(Claim::Finished(record)) => return RunEnd::Recorded(record),
            Ok(Claim::Lost(problem)) => {
                let results = self.results.clone();
                let job_id = job.job_id.clone();
                if let Err(error) = blocking(move || results.put_record_away(&job_id, now())).await {
                    return RunEnd::NodeBroken(format!(
                        "a final record that cannot be read cannot be put away: {error}"
                    ));
                }
                let message = format!("the job has ended, and it is lost how: {problem}; it was kept in _rejected");
                let mut result = self.rejected(job.job_id, Some(job.task), message);
                result.reason = Some(Reason::Lost);
                return self.record(result, stop).await;
            }
            Ok(Claim::Foreign) => {
                let place = self.results.job_dir(&job.job_id);
                let problem = format!("{} is there already and is not of this job; it stays as it is", place.display());
                return self.record(self.rejected(job.job_id, Some(job.task), problem), stop).await;
            }
            Err(error) => {
                let place = self.results.job_dir(&job.job_id);
                return RunEnd::NodeBroken(format!("the job directory {} cannot be made: {error}", place.display()));
            }
        };
        let started_at = now();
        let asked = job.time_limit_seconds.map_or(Duration::MAX, Duration::from_secs);
        let limits = Limits { time: self.limits.time.min(asked), ..self.limits.clone() };
        let command = self.runtime.command(&job.job_id, dir.path());
        let work_dir = dir.path().to_string_lossy();
        let marks = [("JOB_ID", job.job_id.as_str()), ("WORK_DIR", work_dir.as_ref())];
        let finished = match run::run(&command, &marks, dir.path(), &limits, &mut stop).await {
            Ok(finished) => finished,
            Err(error) => {
                let program = command.words[0].to_string_lossy();
                return RunEnd::NodeBroken(format!("the program {program} of the runtime cannot be started: {error}"));
            }
        };
        if finished.ended == Ended::Stopped {
            return RunEnd::Stopped;
        }
        exited();
        if let Err(problem) = self.exonerate(&finished).await {
            return RunEnd::NodeBroken(problem);
        }
        let result = {
            let (node, dir) = (self.clone(), dir.clone());
            blocking(move || node.result(job, &dir, &finished, limits.time, started_at)).await
        };
        match result {
            // A task that could not write its output on a full disk is not to blame for it.
            Ok(result) if result.reason == Some(Reason::Output) || self.results.is_full() => {
                let results = self.results.clone();
                match blocking(move || results.probe()).await {
                    Ok(_) => self.record(result, stop).await,
                    Err(problem) => RunEnd::NodeBroken(problem),
                }
            }
            Ok(result) => self.record(result, stop).await,
            Err(error) => RunEnd::NodeBroken(format!("the output in {} cannot be read: {error}", dir.path().display())),
        }
    }

    /// Puts away a message that is no job, and records a failed result where it has an id of its own.
    pub(crate) async fn put_away(
        self: Arc<Self>,
        job_id: Option<JobId>,
        body: String,
        problem: String,
    ) -> io::Result<Option<(JobId, String)>> {
        let node = self.clone();
        blocking(move || {
            let place = node.results.put_away(&body, &problem, now())?;
            tracing::warn!("a message was rejected and kept in {}: {problem}", place.display());
            // The message may share its id with a real job; that one keeps its own end.
            let Some(job_id) = job_id.filter(|job_id| !node.results.job_dir(job_id).exists()) else { return Ok(None) };
            if node.results.record(&job_id)? != Record::Missing {
                return Ok(None);
            }
            let result = node.rejected(job_id.clone(), None, problem);
            let record = node.results.write_record(&job_id, &result.to_json())?;
            Ok(Some((job_id, record)))
        })
        .await
    }

    /// After a run that failed: was it the node? What the run itself says is not evidence enough.
    async fn exonerate(&self, finished: &Finished) -> Result<(), String> {
        if finished.ended == Ended::Exit(0) || finished.ended == Ended::TimeLimit {
            return Ok(());
        }
        let results = self.results.clone();
        let scratch = blocking(move || results.probe()).await?;
        let stderr = String::from_utf8_lossy(&finished.stderr_tail);
        if self.runtime.suspects_itself(&finished.ended, &stderr) { self.runtime.probe(&scratch).await } else { Ok(()) }
    }

    fn result(
        &self,
        job: JobMessage,
        dir: &JobDir,
        finished: &Finished,
        time_limit: Duration,
        started_at: Timestamp,
    ) -> io::Result<JobResult> {
        let mut result = JobResult {
            v: VERSION,
            result_pointer: self.uri(&self.results.record_path(&job.job_id)),
            job_id: job.job_id,
            status: Status::Failed,
            reason: None,
            message: None,
            exit_code: None,
            signal: None,
            task: Some(job.task),
            attempt: dir.attempt,
            runtime: Some(self.runtime.kind()),
            isolated: Some(self.runtime.kind() == RuntimeKind::Apptainer),
            host: Some(self.host.clone()),
            created_at: job.created_at,
            started_at: Some(started_at),
            finished_at: Some(now()),
            output: None,
            output_bytes: None,
            stderr_tail: None,
        };
        let failed = |result: &mut JobResult, reason: Reason, message: String| {
            result.reason = Some(reason);
            result.message = Some(message);
        };
        match finished.ended {
            Ended::Exit(0) => result.status = Status::Completed,
            Ended::Exit(code) => failed(&mut result, Reason::Exit, format!("the task ended with exit code {code}")),
            Ended::Signal(signal) => failed(&mut result, Reason::Signal, format!("signal {signal} ended the task")),
            Ended::TimeLimit | Ended::Stopped => {
                let seconds = time_limit.as_secs();
                let message = format!("the task was ended: it ran longer than its time limit of {seconds} s");
                failed(&mut result, Reason::TimeLimit, message);
            }
        }
        match finished.ended {
            Ended::Exit(code) => result.exit_code = Some(code),
            Ended::Signal(signal) => result.signal = Some(signal),
            Ended::TimeLimit | Ended::Stopped => {}
        }
        dir.take_back()?;
        match output::read(&dir.output())? {
            Output::Missing => {
                let message = "the task ended well and wrote no output.json".to_owned();
                result.message.get_or_insert(message);
            }
            Output::Inline { json, bytes } => {
                result.result_pointer = self.uri(&dir.output());
                result.output = Some(json);
                result.output_bytes = Some(bytes);
                dir.sync()?;
            }
            Output::Large { bytes, checked } => {
                result.result_pointer = self.uri(&dir.output());
                result.output_bytes = Some(bytes);
                dir.sync()?;
                let unchecked = if checked { "" } else { "; whether it is JSON was not checked" };
                let limit = limits::INLINE_OUTPUT_BYTES_MAX;
                let message = format!(
                    "output.json has {bytes} bytes, more than the {limit} that travel with a result; it stays on the cluster{unchecked}"
                );
                result.message.get_or_insert(message);
            }
            Output::Unusable { problem, bytes } => {
                result.output_bytes = bytes;
                if result.status == Status::Completed {
                    result.status = Status::Failed;
                    failed(&mut result, Reason::Output, problem);
                }
            }
        }
        if result.status == Status::Failed {
            let tail = String::from_utf8_lossy(&finished.stderr_tail);
            result.stderr_tail = (!tail.is_empty()).then(|| tail.into_owned());
        }
        Ok(result)
    }

    fn rejected(&self, job_id: JobId, task: Option<String>, problem: String) -> JobResult {
        JobResult {
            v: VERSION,
            result_pointer: self.uri(&self.results.record_path(&job_id)),
            job_id,
            status: Status::Failed,
            reason: Some(Reason::Rejected),
            message: Some(problem),
            exit_code: None,
            signal: None,
            task,
            attempt: 0,
            runtime: None,
            isolated: None,
            host: Some(self.host.clone()),
            created_at: None,
            started_at: None,
            finished_at: Some(now()),
            output: None,
            output_bytes: None,
            stderr_tail: None,
        }
    }

    /// Writes the final record. The job has ended and may never run again, so this is tried until the disk takes it.
    ///
    /// Told to stop, it gives up after a failure: the job runs again, as its next attempt.
    async fn record(self: &Arc<Self>, mut result: JobResult, mut stop: watch::Receiver<bool>) -> RunEnd {
        // JSON escapes may blow a text up; what does not fit stays on the cluster.
        if result.to_json().len() > limits::RESULT_BYTES_MAX {
            result.stderr_tail = None;
        }
        if result.to_json().len() > limits::RESULT_BYTES_MAX {
            result.output = None;
            let message = "output.json is too large to travel with its result; it stays on the cluster".to_owned();
            result.message.get_or_insert(message);
        }
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let record = result.to_json();
        let mut said = false;
        loop {
            let (node, job_id, text) = (self.clone(), result.job_id.clone(), record.clone());
            match blocking(move || node.results.write_record(&job_id, &text)).await {
                Ok(record) => return RunEnd::Recorded(record),
                Err(error) => {
                    if !said {
                        let place = self.results.record_path(&result.job_id);
                        tracing::error!(
                            "the final record {} cannot be written, and is tried again: {error}",
                            place.display()
                        );
                        said = true;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(backoff.pause()) => {}
                        () = run::stopped(&mut stop) => return RunEnd::Stopped,
                    }
                }
            }
        }
    }

    fn uri(&self, path: &std::path::Path) -> String {
        format!("file://{}{}", self.host, utf8_percent_encode(&path.to_string_lossy(), PATH))
    }
}

/// Milliseconds are as much as clocks of different machines agree on at best.
fn now() -> Timestamp {
    protocol::timestamp_from_millis(Timestamp::now().as_millisecond())
}

/// Handles files away from the reactor's thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // A panic is a broken invariant and stays one; nothing cancels these.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
