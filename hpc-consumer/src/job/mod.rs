//! The files of a job: the claim for its directory, what its run leaves there, its final record.
//!
//! ```text
//! RESULTS_DIR/
//!   <job_id>/            the job directory, /work in the container
//!     input.json         what the task works on
//!     output.json        what it leaves behind
//!     stdout.log stderr.log
//!     meta.json          the claim: which attempt this is, whose, where and when
//!   <job_id>.json        the final record: the bytes of the published result, written last and whole
//!   .probe/              what probes write and remove
//!   .attempts/<job_id>.<attempt>/   the job directory of an attempt that another daemon has taken over
//!   .owners/<owner>.json            the heart of a daemon's keeper
//!   _rejected/           messages that were no jobs, and records that could not be read
//! ```
//!
//! [`files`] and [`job_dir`] know how files are named, made and read; [`claim`], [`meta`] and [`whose`] tell whose a
//! job is; [`output`] reads what a stranger's program wrote; [`conclude`] turns a run that is over into a result, and
//! [`record`] writes that down.
//!
//! Out of scope: processes (`run`, `keeper`), what follows for the queue (`lifecycle`).
//!
//! Invariants: a final record is never replaced, and it is whole when it has its name. A claim changes hands only by
//! moving the directory away, which one of many can do.

mod claim;
mod conclude;
mod files;
mod job_dir;
mod meta;
mod output;
mod record;
mod whose;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lifecycle::{Attempt, Claimed, Concluded, Ending, Problem, Run};
use protocol::{JobId, JobMessage, Reason, RuntimeKind, Timestamp};

use self::claim::Wanted;
pub(crate) use self::files::ResultsDir;
pub(crate) use self::meta::HeldDir;
use self::record::Record;
use self::whose::Signs;
use crate::run::{CommandLine, Limits, Runtime};
use crate::{blocking, lock};

/// A run that failed so near to a trouble of the node is not blamed: the node may have been well again when it was
/// looked at.
const TROUBLE_REACHES: Duration = Duration::from_secs(60);

/// What all jobs of a daemon share.
#[derive(Debug)]
pub(crate) struct Node {
    results: ResultsDir,
    runtime: Runtime,
    limits: Limits,
    host: String,
    /// Who we are among the daemons that share `RESULTS_DIR`; it stays the same when the daemon starts anew.
    owner: String,
    /// For how long another daemon shows no sign of life before its jobs are taken over.
    stale: Duration,
    signs: Signs,
    /// The last trouble that the node was seen in, and when, in milliseconds since the Unix epoch.
    trouble: Mutex<Option<(i64, String)>>,
}

/// All that is needed to begin a run.
#[derive(Debug, Clone)]
pub(crate) struct StartLine {
    pub(crate) run: Run,
    pub(crate) command: CommandLine,
    /// Variables that all its processes have from their start; they are in the environment of the command.
    pub(crate) marks: Vec<(String, String)>,
    pub(crate) limits: Limits,
    /// The directory for `stdout.log` and `stderr.log`.
    pub(crate) logs: PathBuf,
    /// The final record, which must not be there before the run has ended.
    pub(crate) record: PathBuf,
    pub(crate) runtime: RuntimeKind,
}

impl Node {
    pub(crate) fn new(
        results: ResultsDir,
        runtime: Runtime,
        limits: Limits,
        host: String,
        owner: String,
        stale: Duration,
    ) -> Self {
        Self { results, runtime, limits, host, owner, stale, signs: Signs::default(), trouble: Mutex::default() }
    }

    /// Is all there that a job needs?
    pub(crate) async fn probe(&self) -> Result<(), Problem> {
        let results = self.results.clone();
        let probed = match blocking(move || results.probe()).await {
            Ok(scratch) => self.runtime.probe(&scratch).await,
            Err(problem) => Err(problem),
        };
        probed.inspect_err(|problem| self.met(problem)).map_err(Problem::from)
    }

    /// Remembers that the node is in trouble.
    fn met(&self, problem: &str) {
        *lock(&self.trouble) = Some((now().as_millisecond(), problem.to_owned()));
    }

    /// The trouble that the node was in when a run ended, or shortly before or after.
    fn trouble_near(&self, ended_at_ms: i64) -> Option<String> {
        let trouble = lock(&self.trouble);
        let (met_at_ms, problem) = trouble.as_ref()?;
        let distance = Duration::from_millis(met_at_ms.abs_diff(ended_at_ms));
        (distance <= TROUBLE_REACHES).then(|| format!("about when the run ended, {problem}"))
    }

    /// Claims the directory of a job for its next attempt. `last_attempt` is the last one of ours that was launched;
    /// `rerunnable` tells whether the job may be started again when an attempt elsewhere was cut off.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        job: &JobMessage,
        last_attempt: Option<Attempt>,
        rerunnable: bool,
    ) -> Claimed {
        let (node, wanted) = (self.clone(), Wanted::new(job));
        let claimed = blocking(move || node.claim_now(&wanted, last_attempt, rerunnable, Instant::now())).await;
        if let Claimed::NodeBroken(problem) = &claimed {
            self.met(&problem.to_string());
        }
        claimed
    }

    /// Gives up the claim for a run that was not begun, or that the node failed.
    pub(crate) async fn unclaim(self: &Arc<Self>, run: &Run) -> Result<(), Problem> {
        let (node, run) = (self.clone(), run.clone());
        blocking(move || node.unclaim_now(&run)).await
    }

    /// How the keeper is to begin a run.
    pub(crate) fn start_line(&self, job: &JobMessage, run: &Run) -> StartLine {
        let directory = self.results.job_dir(&run.job_id);
        let mut command = self.runtime.command(&run.job_id, &directory);
        // Not what a job may set anew, or what may be no text: a keeper of an earlier version knows its runs by these.
        let marks = vec![("HPC_QUEUE_RUN".to_owned(), run.to_string())];
        // A container clears what its runtime was started with, so this tells nothing to the job in it.
        for (name, value) in &marks {
            if !command.environment.iter().any(|(known, _)| known == name.as_str()) {
                command.environment.push((name.into(), value.into()));
            }
        }
        let limits = Limits { time: self.time_limit(job), ..self.limits.clone() };
        let record = self.results.record_path(&run.job_id);
        let runtime = self.runtime.kind();
        StartLine { run: run.clone(), command, marks, limits, logs: directory, record, runtime }
    }

    /// Deals with what a run left behind. The final record is written unless the task failed and `may_retry`.
    pub(crate) async fn conclude(
        self: &Arc<Self>,
        job: &JobMessage,
        run: &Run,
        ending: Ending,
        may_retry: bool,
    ) -> Concluded {
        if let Ending::Finished(finished) = &ending
            && let Err(problem) = self.exonerate(finished).await
        {
            return Concluded::NodeFailed(problem.into());
        }
        let (node, job, run) = (self.clone(), job.clone(), run.clone());
        blocking(move || node.conclude_now(job, &run, ending, may_retry)).await
    }

    /// Makes the file of a record again that is stored elsewhere, if the file is missing or empty: the machine may
    /// have gone down before it was on the disk.
    pub(crate) async fn put_record(self: &Arc<Self>, job_id: &JobId, record: &str) -> io::Result<()> {
        let (node, job_id, record) = (self.clone(), job_id.clone(), record.to_owned());
        blocking(move || match node.results.record(&job_id)? {
            _ if !node.results.has_mark()? => Err(ResultsDir::not_where_it_was()),
            Record::Whole(_) | Record::Unreadable(_) => Ok(()),
            Record::Missing => node.results.write_record(&job_id, &record).map(drop),
            Record::Blank => {
                node.results.remove_record(&job_id)?;
                node.results.write_record(&job_id, &record).map(drop)
            }
        })
        .await
    }

    /// Puts away a message that is no job, and records a failed result where it has an id of its own.
    pub(crate) async fn put_away(
        self: &Arc<Self>,
        job_id: Option<JobId>,
        body: String,
        problem: String,
    ) -> io::Result<Option<(JobId, String)>> {
        let node = self.clone();
        blocking(move || {
            if !node.results.is_where_it_was()? {
                return Err(ResultsDir::not_where_it_was());
            }
            let place = node.results.put_away(&body, &problem, now())?;
            tracing::warn!("a message was rejected and kept in {}: {problem}", place.display());
            // The message may share its id with a real job; that one keeps its own end.
            let Some(job_id) = job_id.filter(|job_id| !node.results.job_dir(job_id).exists()) else { return Ok(None) };
            match node.results.record(&job_id)? {
                // Ours of an earlier try, as a rule, which was not stored: it is owed all the same.
                Record::Whole(record) => return Ok(Some((job_id, record))),
                Record::Unreadable(_) => return Ok(None),
                Record::Missing | Record::Blank => {}
            }
            let result = node.failed(job_id.clone(), None, Reason::Rejected, problem);
            let record = node.results.write_record(&job_id, &result.to_json())?;
            Ok(Some((job_id, record)))
        })
        .await
    }

    /// The longest that a job may run: what it asked for, where the node allows as much.
    fn time_limit(&self, job: &JobMessage) -> Duration {
        let asked = job.spec.time_limit_seconds.map_or(Duration::MAX, Duration::from_secs);
        self.limits.time.min(asked)
    }
}

/// Milliseconds are as much as clocks of different machines agree on at best.
fn now() -> Timestamp {
    protocol::timestamp_from_millis(Timestamp::now().as_millisecond())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::run::Bare;

    /// A node that has `RESULTS_DIR` to itself or shares it, and whose keeper has beaten once.
    pub(super) fn node(results: &Path, owner: &str) -> Arc<Node> {
        let results = ResultsDir::new(results.to_owned());
        std::fs::create_dir_all(results.heart(owner).parent().unwrap()).unwrap();
        std::fs::write(results.heart(owner), "{\"beat\":1}\n").unwrap();
        let runtime = Runtime::Bare(Bare { command: vec!["true".to_owned()], inherited: Vec::new() });
        let limits = Limits { time: Duration::from_secs(100), grace: Duration::ZERO, warning: None, log_bytes: 1_000 };
        Arc::new(Node::new(results, runtime, limits, "node1".to_owned(), owner.to_owned(), Duration::from_secs(60)))
    }

    pub(super) fn job(id: &str) -> JobMessage {
        JobMessage::parse(&format!(r#"{{"job_id":"{id}","task":"echo","input":{{"n":1}},"time_limit_seconds":7}}"#))
            .unwrap()
    }

    pub(super) fn run(id: &str, attempt: u32) -> Run {
        Run { job_id: id.parse().unwrap(), attempt: Attempt::new(attempt).unwrap() }
    }

    #[test]
    fn every_mark_of_a_run_is_in_its_environment() {
        let node = node(tempfile::tempdir().unwrap().path(), "us");
        let line = node.start_line(&job("j1"), &run("j1", 3));
        assert!(line.marks.contains(&("HPC_QUEUE_RUN".to_owned(), "j1.3".to_owned())));
        for (name, value) in &line.marks {
            let found = line.command.environment.iter().filter(|(known, _)| known == name.as_str());
            assert_eq!(found.map(|(_, value)| value.to_str().unwrap()).collect::<Vec<_>>(), [value.as_str()]);
        }
        assert_eq!(line.limits.time, Duration::from_secs(7), "the job asked for less than the node allows");
    }

    #[tokio::test]
    async fn a_message_that_is_no_job_gets_a_record_unless_its_id_is_taken() {
        let temp = tempfile::tempdir().unwrap();
        let node = node(temp.path(), "us");
        std::fs::create_dir(temp.path().join("taken")).unwrap();
        let put = async |id: Option<&str>| {
            let job_id = id.map(|id| id.parse().unwrap());
            node.put_away(job_id, "{}".to_owned(), "it has no task".to_owned()).await.unwrap()
        };
        assert_eq!(put(None).await, None);
        assert_eq!(put(Some("taken")).await, None);
        let (_, record) = put(Some("j1")).await.unwrap();
        assert!(record.contains("rejected") && record.contains("it has no task"), "{record}");
        assert_eq!(put(Some("j1")).await.map(|(_, again)| again), Some(record), "the same bytes on every try");
        assert_eq!(std::fs::read_dir(temp.path().join("_rejected")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_record_is_made_again_when_its_file_was_lost_and_never_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let node = node(temp.path(), "us");
        let job_id: JobId = "j1".parse().unwrap();
        let record = r#"{"v":1,"job_id":"j1","status":"completed","result_pointer":"x"}"#;
        let path = node.results.record_path(&job_id);
        for lost in [None, Some(""), Some("\0\0")] {
            if let Some(content) = lost {
                std::fs::write(&path, content).unwrap();
            }
            node.put_record(&job_id, record).await.unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{record}\n"));
        }
        node.put_record(&job_id, &record.replace("completed", "failed")).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{record}\n"));
    }
}
