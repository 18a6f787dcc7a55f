//! From a run that is over to its result: whose fault it was, what the task left behind, and the final record.
//!
//! Out of scope: what follows for the job (`lifecycle`). Invariants: the output is on disk before the record tells of
//! it, and nothing is recorded for a run whose job another daemon has taken over.

use std::io;

use lifecycle::{Concluded, EndReason, Ending, Finished, Run, RunEnd};
use protocol::{
    JobMessage, JobResult, Launched, Outputs, Reason, RuntimeKind, Seccomp, Status, limits, timestamp_from_millis,
};

use super::JobFiles;
use super::files::{CONTINUE, META, Place};
use super::job_dir::JobDir;
use super::meta::meta_of;
use super::output::{self, Output};
use super::outputs::Wanted;
use super::result::fitting;
use super::results_dir::ResultsDir;
use crate::run::signal_name;

/// What a filter of system calls ends a program with.
const BAD_CALL: i32 = rustix::process::Signal::SYS.as_raw();
const BAD_CALL_HINT: &str =
    ", as the filter of system calls does with programs of 32 bits; JOB_SECCOMP=none on the node takes the filter away";

/// How long an output may be that travels with a result that has a list of files as well.
pub(super) const OUTPUT_BESIDE_FILES_MAX: u64 = 16_000;

/// What a run has come to.
pub(super) struct Outcome {
    pub(super) result: JobResult,
    /// Its output is too large to travel with the result; this is to be said if it stays where it is.
    stays: Option<String>,
}

impl Outcome {
    fn new(result: JobResult) -> Self {
        Self { result, stays: None }
    }
}

impl JobFiles {
    pub(super) fn conclude_now(&self, job: JobMessage, run: &Run, ending: Ending, may_retry: bool) -> Concluded {
        let place = self.claims.results().job_dir(&run.job_id);
        self.try_conclude(job, run, ending, may_retry).unwrap_or_else(|error| {
            Concluded::NodeBroken(format!("what a run left in {} cannot be read: {error}", place.display()).into())
        })
    }

    fn try_conclude(&self, job: JobMessage, run: &Run, ending: Ending, may_retry: bool) -> io::Result<Concluded> {
        let uses_services = !job.spec.needs.is_empty();
        match ending {
            Ending::GivenUp(problem) => {
                let message = format!(
                    "this node failed the job again and again, through no fault of the job; the last time: {problem}"
                );
                self.end_unrun(
                    run,
                    uses_services,
                    self.recorder.of_run(job, run, Some((Reason::Infrastructure, message))),
                )
            }
            Ending::Rejected(why) => self.end_unrun(run, uses_services, self.recorder.rejected(job, why)),
            Ending::Cancelled(after) => {
                if job.spec.outputs.is_some() {
                    self.outgoing.uploads.forget(run)?;
                }
                self.end_unrun(run, uses_services, self.recorder.cancelled(job, after))
            }
            Ending::CutOff(what) => self.in_own_dir(run, uses_services, |_| {
                let outputs = job.spec.outputs.clone();
                self.record_sent(run, outputs.as_ref(), None, Outcome::new(self.recorder.lost(job, run, &what)))
            }),
            Ending::Finished(finished) => {
                self.in_own_dir(run, uses_services, |dir| self.conclude_seen(job, run, dir, *finished, may_retry))
            }
            Ending::FilledDisk(filled) => self.in_own_dir(run, uses_services, |dir| self.clear(job, run, dir, *filled)),
            Ending::Unparkable(finished, why) => self.in_own_dir(run, uses_services, |dir| {
                let files_max = finished.launched.as_ref().and_then(|launched| launched.output_files_bytes_max);
                let outputs = job.spec.outputs.clone();
                let mut outcome = self.result(job, run, dir, *finished)?;
                spoil(&mut outcome.result, format!("{CONTINUE} {why}"));
                self.record_sent(run, outputs.as_ref(), files_max, outcome)
            }),
        }
    }

    /// Deals with the directory of a run, unless another daemon has taken the job over.
    fn in_own_dir(
        &self,
        run: &Run,
        uses_services: bool,
        conclude: impl FnOnce(Option<&JobDir>) -> io::Result<Concluded>,
    ) -> io::Result<Concluded> {
        // Held open: should it be taken over in this moment, it is still ours that is read.
        let dir = match self.claims.results().open_job_dir(&run.job_id)? {
            Place::Dir(dir) => Some(dir),
            // A job may remove its own directory.
            Place::Nothing | Place::Foreign if self.claims.is_mounted()? => None,
            Place::Nothing | Place::Foreign => return Err(ResultsDir::not_where_it_was()),
        };
        if !self.claims.is_ours(dir.as_ref(), run)? {
            return Ok(Concluded::TakenOver);
        }
        if let Some(dir) = &dir {
            close(run, dir);
            if uses_services {
                dir.forget_services()?;
            }
        }
        conclude(dir.as_ref())
    }

    /// The same of a run of which nothing else is looked at.
    pub(super) fn close_own_dir(&self, run: &Run, uses_services: bool) {
        if let Ok(Place::Dir(dir)) = self.claims.results().open_job_dir(&run.job_id)
            && self.claims.is_ours(Some(&dir), run).unwrap_or(false)
        {
            close(run, &dir);
            if uses_services {
                forget_services(run, &dir);
            }
        }
    }

    /// Deals with a run that was seen to end.
    fn conclude_seen(
        &self,
        job: JobMessage,
        run: &Run,
        dir: Option<&JobDir>,
        finished: Finished,
        may_retry: bool,
    ) -> io::Result<Concluded> {
        let (ended_at_ms, spec) = (finished.finished_at_ms, job.spec.clone());
        let files_max = finished.launched.as_ref().and_then(|launched| launched.output_files_bytes_max);
        // Only who has ended well may go on.
        // And of a workflow, of which nothing ran, its tasks have the directory as well.
        let may_go_on = finished.end == RunEnd::Exit(0) && finished.runtime.is_some();
        let continuation = match dir.filter(|_| may_go_on) {
            Some(dir) => dir.continuation()?,
            None => None,
        };
        if let Some(Ok(continuation)) = continuation {
            return Ok(Concluded::Parks(continuation));
        }
        let mut outcome = self.result(job, run, dir, finished)?;
        if let Some(Err(problem)) = continuation {
            spoil(&mut outcome.result, problem);
        }
        let result = &outcome.result;
        let bad_output = result.reason == Some(Reason::Output.into());
        // It has computed its result, which would be the same once more, and is kept.
        let has_output = result.result_pointer == self.recorder.uri(&self.claims.results().output_path(&run.job_id));
        // A task that could not write its output on a full disk is not to blame for it.
        let nodes_fault = if result.status == Status::Failed && self.outgoing.has_begun(run) {
            None
        } else if bad_output && !has_output {
            self.health.probe_files_about(&spec, ended_at_ms).err()
        } else if self.claims.results().takes_nothing() {
            self.health.probe_files().err()
        } else {
            None
        };
        // An output that is there and can be used is the job's, whatever the node is in: there is room for its record,
        // or it is kept until there is.
        let usable = result.status == Status::Completed && result.output_bytes.is_some();
        if let Some(problem) = nodes_fault.filter(|_| !usable) {
            return Ok(Concluded::NodeFailed(problem.into()));
        }
        // Only these come from a run that ended; none is the node's fault.
        if may_retry && result.status == Status::Failed && !(bad_output && has_output) {
            return Ok(Concluded::TaskFailed(outcome.result.message.unwrap_or_default()));
        }
        self.record_sent(run, spec.outputs.as_ref(), files_max, outcome)
    }

    /// Records the end of a job of which a run was here, once all that is wanted of it is in the store of files. Its
    /// task may have said how much that may be.
    fn record_sent(
        &self,
        run: &Run,
        outputs: Option<&Outputs>,
        files_max: Option<u64>,
        outcome: Outcome,
    ) -> io::Result<Concluded> {
        let Outcome { mut result, stays } = outcome;
        let wanted = self.wanted(outputs, &result, stays.is_some());
        let wanted = Wanted { files_max: files_max.filter(|_| wanted.files), ..wanted };
        if wanted != Wanted::default() {
            let Some(sent) = self.outgoing.sent(run, wanted)? else { return Ok(Concluded::ToUpload) };
            let place = self.claims.results().job_dir(&run.job_id);
            (result.files, result.files_note, result.output_file) = (sent.files(), sent.note, sent.output);
            if let Some(why) = sent.refused.filter(|_| wanted.files) {
                let sentence = format!("{why}; what it has left stays on the cluster, in {}", place.display());
                if result.status == Status::Completed {
                    spoil(&mut result, sentence);
                } else {
                    result.files_note = Some(sentence);
                }
            }
        }
        if let Some(stays) = stays.filter(|_| result.output_file.is_none()) {
            result.message.get_or_insert(stays);
        }
        let concluded = self.record(result);
        if wanted != Wanted::default() && matches!(concluded, Concluded::Recorded(_)) {
            // What stays is found when a daemon starts.
            let _ = self.outgoing.uploads.forget(run);
        }
        Ok(concluded)
    }

    /// What of a run is to be sent before its end is recorded.
    fn wanted(&self, outputs: Option<&Outputs>, result: &JobResult, is_large: bool) -> Wanted {
        if result.reason == Some(Reason::Cancelled.into()) {
            return Wanted::default();
        }
        let files = outputs.is_some_and(|outputs| result.status == Status::Completed || outputs.are_always_wanted());
        let bytes = result.output_bytes.unwrap_or(0);
        // Beside a list of files there is less room for it.
        let is_in_the_way = result.output.is_some() && files && bytes > OUTPUT_BESIDE_FILES_MAX;
        let output = (is_large || is_in_the_way) && self.store.is_ok() && self.outgoing.allows(bytes);
        Wanted { files, output, files_max: None }
    }

    /// Records the end of a job of which nothing runs, and nothing may ever have run, unless another daemon holds it
    /// now.
    fn end_unrun(&self, run: &Run, uses_services: bool, result: JobResult) -> io::Result<Concluded> {
        if !self.claims.is_mounted()? {
            return Err(ResultsDir::not_where_it_was());
        }
        // That its directory cannot be read may be the very reason, and must not keep the job from an end.
        let dir = match self.claims.results().open_job_dir(&run.job_id) {
            Ok(Place::Dir(dir)) => Some(dir),
            Ok(Place::Nothing | Place::Foreign) | Err(_) => None,
        };
        let meta = dir.as_ref().and_then(|dir| meta_of(&run.job_id, &dir.read(META).ok()?));
        let is_ours = meta.as_ref().is_some_and(|meta| meta.owner == self.claims.owner());
        if meta.is_some_and(|meta| !meta.owner.is_empty()) && !is_ours {
            return Ok(Concluded::TakenOver);
        }
        // Its last attempt may have been cut off.
        if let Some(dir) = dir.filter(|_| uses_services && is_ours) {
            forget_services(run, &dir);
        }
        Ok(self.record(result))
    }

    pub(super) fn result(
        &self,
        job: JobMessage,
        run: &Run,
        dir: Option<&JobDir>,
        finished: Finished,
    ) -> io::Result<Outcome> {
        let time_limit = || match &finished.launched {
            Some(launched) => launched.time_limit_ms / 1_000,
            None => self
                .pools
                .plan(&job.spec)
                .map_or(self.pools.site().defaults.time_limit, |plan| plan.limits.time)
                .as_secs(),
        };
        let output_max = finished.launched.as_ref().and_then(|launched| launched.output_bytes_max);
        let failure = match &finished.end {
            RunEnd::Exit(0) => None,
            // Nothing ran: what there is to say of a workflow is the first line of what it says.
            RunEnd::Exit(_) if finished.runtime.is_none() && !finished.stderr_tail.is_empty() => {
                Some((Reason::Exit, finished.stderr_tail.lines().next().unwrap_or_default().to_owned()))
            }
            RunEnd::Exit(code) => Some((Reason::Exit, format!("the task ended with exit code {code}"))),
            RunEnd::Signal(signal) => {
                let name = signal_name(*signal).map(|name| format!(" ({name})")).unwrap_or_default();
                let filtered = finished.isolation.as_ref().and_then(|facts| facts.seccomp.as_ref());
                let by_filter = *signal == BAD_CALL && filtered.is_some_and(Seccomp::is_there);
                let hint = if by_filter { BAD_CALL_HINT } else { "" };
                Some((Reason::Signal, format!("signal {signal}{name} ended the task{hint}")))
            }
            RunEnd::MemoryLimit(what) => {
                let end = what.as_ref().map_or_else(
                    || "the kernel killed the task because memory was used up".to_owned(),
                    |what| format!("the task was ended: {what}"),
                );
                Some((Reason::MemoryLimit, format!("{end}: it needs more memory, or a smaller input")))
            }
            RunEnd::TimeLimit => Some((
                Reason::TimeLimit,
                format!("the task was ended: it ran longer than its time limit of {} s", time_limit()),
            )),
            RunEnd::EndedBy(EndReason::Cancelled) => {
                Some((Reason::Cancelled, "the job was cancelled while it ran, and was ended".to_owned()))
            }
            RunEnd::EndedBy(why) if why.is_of_service() => Some((Reason::Cancelled, why.to_string())),
            // These do not come here, because they are not the task's end.
            RunEnd::EndedBy(why) => Some((Reason::Lost, why.to_string())),
            RunEnd::NotStarted(problem) => Some((Reason::Infrastructure, problem.clone())),
        };
        let (exit_code, signal) = match finished.end {
            RunEnd::Exit(code) => (Some(code), None),
            RunEnd::Signal(signal) => (None, Some(signal)),
            RunEnd::MemoryLimit(_) => (None, Some(rustix::process::Signal::KILL.as_raw())),
            RunEnd::TimeLimit | RunEnd::EndedBy(_) | RunEnd::NotStarted(_) => (None, None),
        };
        let mut result = JobResult {
            exit_code,
            signal,
            started_at: Some(timestamp_from_millis(finished.started_at_ms)),
            finished_at: Some(timestamp_from_millis(finished.finished_at_ms)),
            isolation: finished.isolation.map(|facts| *facts),
            usage: finished.usage,
            ..self.recorder.of_run(job, run, failure)
        };
        if let Some(runtime) = finished.runtime {
            (result.runtime, result.isolated) = (Some(runtime.into()), Some(runtime == RuntimeKind::Apptainer));
        }
        if let Some(launched) = finished.launched {
            let Launched { pool, image, command, .. } = *launched;
            (result.pool, result.image, result.command) = (Some(pool), image, Some(command));
        }
        if let Some(ran) = finished.ran {
            (result.host, result.slurm_job_id) = (Some(ran.node), ran.slurm_job_id);
        }
        let stays = self.add_output(&mut result, dir, output_max)?;
        // What a task has printed may be all that there is of it.
        let does = result.status == Status::Failed || result.output.is_none();
        let travels = |text: String| Some(text).filter(|text| does && !text.is_empty());
        result.stdout_tail = travels(finished.stdout_tail);
        result.stderr_tail = travels(finished.stderr_tail);
        Ok(Outcome { result, stays })
    }

    /// Adds what the task has left to a result. What is too large to travel with it is not; then it is returned what
    /// there is to say, should it stay where it is.
    fn add_output(
        &self,
        result: &mut JobResult,
        dir: Option<&JobDir>,
        bytes_max: Option<u64>,
    ) -> io::Result<Option<String>> {
        let no_output = "the task ended well and wrote no output.json";
        let Some(dir) = dir else {
            result.message.get_or_insert(no_output.to_owned());
            return Ok(None);
        };
        match output::read(dir.as_fd())?.within(bytes_max) {
            Output::Missing => {
                result.message.get_or_insert(no_output.to_owned());
            }
            Output::Inline { json, bytes } => {
                result.result_pointer = self.recorder.uri(&self.claims.results().output_path(&result.job_id));
                result.output = Some(json);
                result.output_bytes = Some(bytes);
                dir.sync()?;
            }
            Output::Large { bytes, checked } => {
                result.result_pointer = self.recorder.uri(&self.claims.results().output_path(&result.job_id));
                result.output_bytes = Some(bytes);
                dir.sync()?;
                let unchecked = if checked { "" } else { "; whether it is JSON was not checked" };
                let limit = limits::INLINE_OUTPUT_BYTES_MAX;
                return Ok(Some(format!(
                    "output.json has {bytes} bytes, more than the {limit} that travel with a result; it stays on the cluster{unchecked}"
                )));
            }
            Output::Unusable { problem, bytes } => {
                result.output_bytes = bytes;
                spoil(result, problem);
            }
            Output::Unfit { problem, bytes } => {
                result.result_pointer = self.recorder.uri(&self.claims.results().output_path(&result.job_id));
                result.output_bytes = Some(bytes);
                dir.sync()?;
                spoil(result, format!("{problem}. The file is kept as it is"));
            }
        }
        Ok(None)
    }

    /// Writes the final record. The job has ended and may never run again: until the disk takes it, this is repeated.
    pub(super) fn record(&self, mut result: JobResult) -> Concluded {
        let text = fitting(&mut result);
        self.claims.results().write_record(&result.job_id, &text).map_or_else(
            |error| {
                let place = self.claims.results().record_path(&result.job_id);
                let problem = format!("the final record {} cannot be written: {error}", place.display());
                self.health.met(&problem);
                Concluded::NodeBroken(problem.into())
            },
            Concluded::Recorded,
        )
    }
}

/// Closes the directory of a run that is over. That it cannot be done takes no job its result.
fn close(run: &Run, dir: &JobDir) {
    if let Err(error) = dir.close() {
        tracing::warn!(job_id = %run.job_id, "the job directory may be open to others: {error}");
    }
}

/// Removes what a run that is over knew of services, as far as that can be done.
fn forget_services(run: &Run, dir: &JobDir) {
    if let Err(error) = dir.forget_services() {
        tracing::warn!(job_id = %run.job_id, "what the job knew of services cannot be removed: {error}");
    }
}

/// What the task left behind cannot be used, which matters only if it ended well.
fn spoil(result: &mut JobResult, problem: String) {
    if result.status == Status::Completed {
        result.status = Status::Failed.into();
        result.reason = Some(Reason::Output.into());
        result.message = Some(problem);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use lifecycle::Attempt;
    use protocol::{Isolation, Network};

    use super::*;
    use crate::job::tests::{self, job, node, run};

    /// A claimed job and a run of it that is over.
    struct Case {
        temp: tempfile::TempDir,
        node: Arc<JobFiles>,
    }

    fn finished(end: RunEnd) -> Ending {
        with(end, |_| {})
    }

    fn with(end: RunEnd, change: impl FnOnce(&mut Finished)) -> Ending {
        let mut finished = tests::finished(end);
        change(&mut finished);
        Ending::Finished(Box::new(finished))
    }

    impl Case {
        async fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let node = node(temp.path(), "us");
            assert_eq!(
                node.claim(&job("j1"), None, true, lifecycle::Round::FIRST).await,
                lifecycle::Claimed::Ours(Attempt::FIRST)
            );
            Self { temp, node }
        }

        fn write(&self, name: &str, content: &str) {
            fs::write(self.temp.path().join("j1").join(name), content).unwrap();
        }

        async fn conclude(&self, ending: Ending, may_retry: bool) -> Concluded {
            self.node.conclude(&job("j1"), &run("j1", 1), ending, may_retry).await
        }

        async fn recorded(&self, ending: Ending) -> JobResult {
            let Concluded::Recorded(record) = self.conclude(ending, false).await else { panic!() };
            assert_eq!(fs::read_to_string(self.temp.path().join("j1.json")).unwrap(), format!("{record}\n"));
            JobResult::parse(&record).unwrap()
        }
    }

    #[tokio::test]
    async fn a_run_is_judged_by_what_it_was_begun_as() {
        let launched = |output_bytes_max| {
            let image = Some("/images/a.sif, 5 bytes, changed 2026-11-21T01:15:27.000Z".to_owned());
            let (pool, command) = ("qpu".parse().unwrap(), vec!["run".to_owned()]);
            Some(Box::new(Launched {
                pool,
                image,
                command,
                time_limit_ms: 4_000,
                output_bytes_max,
                output_files_bytes_max: None,
            }))
        };
        let case = Case::new().await;
        case.write("output.json", "[1,2]");
        let ending = with(RunEnd::Exit(0), |finished| finished.launched = launched(Some(4)));
        // The same once more would leave as much, so it is not tried again.
        let Concluded::Recorded(record) = case.conclude(ending, true).await else { panic!() };
        let result = JobResult::parse(&record).unwrap();
        assert_eq!((result.status, result.reason), (Status::Failed.into(), Some(Reason::Output.into())));
        let message = result.message.unwrap();
        assert!(message.contains("has 5 bytes, and the site allows 4 (`output_max`)"), "{message}");
        assert!(result.result_pointer.ends_with("j1/output.json") && result.output.is_none(), "{record}");
        assert!(record.contains(r#""task":"echo","pool":"qpu","image":"/images/a.sif, 5 bytes"#), "{record}");
        assert_eq!(result.command, Some(vec!["run".to_owned()]));

        let case = Case::new().await;
        case.write("output.json", "[1,2]");
        let ending = with(RunEnd::Exit(0), |finished| finished.launched = launched(Some(5)));
        assert_eq!(case.recorded(ending).await.reason, None);
        let case = Case::new().await;
        let ending = with(RunEnd::TimeLimit, |finished| finished.launched = launched(None));
        let message = case.recorded(ending).await.message.unwrap();
        assert!(message.contains("its time limit of 4 s"), "{message}");
    }

    #[tokio::test]
    async fn a_result_tells_what_was_there() {
        let case = Case::new().await;
        case.write("output.json", "[1]");
        let result = case.recorded(finished(RunEnd::Exit(0))).await;
        assert_eq!((result.status, result.reason, result.exit_code), (Status::Completed.into(), None, Some(0)));
        assert_eq!((result.attempt, result.output_bytes, result.isolated), (1, Some(3), Some(false)));
        assert_eq!(result.output.unwrap().as_str(), "[1]");
        assert!(
            result.result_pointer.starts_with("file://node1/") && result.result_pointer.ends_with("j1/output.json")
        );
        assert_eq!(result.started_at.unwrap().as_millisecond(), 1_000);
        assert_eq!((result.finished_at.unwrap().as_millisecond(), result.stderr_tail), (2_500, None));
    }

    #[tokio::test]
    async fn a_result_tells_what_the_run_was_in_whatever_the_settings_are_now() {
        let none = Isolation { network: Some(Network::None.into()), ..Isolation::default() };
        for (runtime, isolated, isolation) in
            [(RuntimeKind::Bare, false, None), (RuntimeKind::Apptainer, true, Some(none))]
        {
            let ending = with(RunEnd::Exit(0), |finished| {
                (finished.runtime, finished.isolation) = (Some(runtime), isolation.clone().map(Box::new));
            });
            let result = Case::new().await.recorded(ending).await;
            assert_eq!((result.runtime, result.isolated), (Some(runtime.into()), Some(isolated)));
            assert_eq!(result.isolation, isolation);
        }
    }

    #[tokio::test]
    async fn every_end_has_its_reason() {
        let filtered = |finished: &mut Finished| {
            let seccomp = Some(Seccomp::of_profile("0123"));
            finished.isolation = Some(Box::new(Isolation { seccomp, ..Isolation::default() }));
        };
        for (ending, reason, message) in [
            (finished(RunEnd::Exit(3)), Reason::Exit, "exit code 3"),
            (finished(RunEnd::Signal(9)), Reason::Signal, "signal 9 (SIGKILL)"),
            (finished(RunEnd::Signal(31)), Reason::Signal, "signal 31 (SIGSYS) ended the task"),
            (with(RunEnd::Signal(31), filtered), Reason::Signal, "JOB_SECCOMP=none on the node"),
            (finished(RunEnd::MemoryLimit(None)), Reason::MemoryLimit, "the kernel killed the task"),
            (finished(RunEnd::MemoryLimit(Some("it used 2 of 1".to_owned()))), Reason::MemoryLimit, "used 2 of 1: it"),
            (finished(RunEnd::TimeLimit), Reason::TimeLimit, "time limit of 7 s"),
            (finished(RunEnd::EndedBy(lifecycle::EndReason::ExecutorEnds)), Reason::Lost, "told to end all"),
            (Ending::CutOff("the machine went down".to_owned()), Reason::Lost, "the machine went down"),
            (Ending::GivenUp("no image".into()), Reason::Infrastructure, "no image"),
            (finished(RunEnd::EndedBy(EndReason::Cancelled)), Reason::Cancelled, "while it ran"),
            (Ending::Cancelled(None), Reason::Cancelled, "before it began"),
            (Ending::Cancelled(Some(Attempt::FIRST)), Reason::Cancelled, "after attempt 1"),
        ] {
            let result = Case::new().await.recorded(ending).await;
            assert_eq!((&result.status, &result.reason), (&Status::Failed.into(), &Some(reason.into())));
            assert!(result.message.as_ref().unwrap().contains(message), "{result:?}");
            assert!(result.result_pointer.ends_with("/j1.json"), "{result:?}");
        }
        let case = Case::new().await;
        case.write("output.json", "{");
        let result = case.recorded(finished(RunEnd::Exit(0))).await;
        assert_eq!((result.status, result.reason), (Status::Failed.into(), Some(Reason::Output.into())));
    }

    #[tokio::test]
    async fn a_job_is_given_up_even_if_its_directory_cannot_be_used_but_not_while_another_daemon_holds_it() {
        let given_up = || Ending::GivenUp("permission denied".into());
        let case = Case::new().await;
        fs::remove_dir_all(case.temp.path().join("j1")).unwrap();
        fs::write(case.temp.path().join("j1"), "in its place").unwrap();
        assert_eq!(case.recorded(given_up()).await.reason, Some(Reason::Infrastructure.into()));
        let case = Case::new().await;
        let theirs =
            r#"{"v":1,"job_id":"j1","attempt":1,"owner":"them","host":"h","started_at":"2026-11-21T00:00:00Z"}"#;
        case.write("meta.json", theirs);
        assert_eq!(case.conclude(given_up(), false).await, Concluded::TakenOver);
        // It was taken over and given back since, and an earlier attempt of ours was moved aside by that.
        let case = Case::new().await;
        fs::create_dir_all(case.temp.path().join(".attempts/j1.1")).unwrap();
        case.write("meta.json", &theirs.replace("them", ""));
        assert_eq!(case.recorded(given_up()).await.reason, Some(Reason::Infrastructure.into()));
    }

    #[tokio::test]
    async fn only_what_the_task_did_is_tried_again() {
        let case = Case::new().await;
        for (end, how) in [
            (RunEnd::Exit(1), "exit code 1"),
            (RunEnd::Signal(11), "signal 11"),
            (RunEnd::TimeLimit, "time limit of 7 s"),
        ] {
            let concluded = case.conclude(finished(end), true).await;
            assert!(matches!(&concluded, Concluded::TaskFailed(why) if why.contains(how)), "{concluded:?}");
        }
        let not_started = finished(RunEnd::NotStarted("no such program".to_owned()));
        let concluded = case.conclude(not_started, true).await;
        assert!(
            matches!(&concluded, Concluded::NodeFailed(problem) if problem.to_string().contains("no such program"))
        );
        assert!(!case.temp.path().join("j1.json").exists(), "none of them is an end");
        assert!(matches!(case.conclude(finished(RunEnd::Exit(0)), true).await, Concluded::Recorded(_)));
    }

    #[tokio::test]
    async fn what_a_run_knows_of_services_goes_with_it_however_it_ends() {
        let user = r#"{"v":3,"job_id":"j1","task":"echo","input":{"n":1},"needs":["vqpu"]}"#;
        let not_started = || finished(RunEnd::NotStarted("no such program".to_owned()));
        let not_begun = || with(RunEnd::Exit(255), |finished| finished.began = Some(false));
        for (ending, gone) in [
            (finished(RunEnd::Exit(0)), None),
            (finished(RunEnd::Exit(1)), Some("it is gone".into())),
            (not_begun(), None),
            (not_started(), None),
            (Ending::Cancelled(Some(Attempt::FIRST)), None),
            (Ending::GivenUp("it is cut off again and again".into()), None),
        ] {
            for job in [JobMessage::parse(user).unwrap(), job("j1")] {
                let case = Case::new().await;
                fs::create_dir(case.temp.path().join("j1/services")).unwrap();
                case.write("services/vqpu.json", "{}");
                case.node.conclude_with(&job, &run("j1", 1), ending.clone(), true, gone.clone()).await;
                let is_left = case.temp.path().join("j1/services").exists();
                assert_eq!(is_left, job.spec.needs.is_empty(), "{ending:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_result_with_a_value_that_is_no_number_is_kept_and_not_computed_again() {
        let case = Case::new().await;
        case.write("output.json", r#"{"loss": NaN}"#);
        case.node.health.met("the disk is full");
        let Concluded::Recorded(record) = case.conclude(finished(RunEnd::Exit(0)), true).await else { panic!() };
        let result = JobResult::parse(&record).unwrap();
        assert_eq!((result.status, result.reason), (Status::Failed.into(), Some(Reason::Output.into())));
        assert!(result.message.unwrap().contains("$.loss is NaN"));
        assert!(result.result_pointer.ends_with("/j1/output.json"), "{}", result.result_pointer);
        assert_eq!(fs::read_to_string(case.temp.path().join("j1/output.json")).unwrap(), r#"{"loss": NaN}"#);
        // Text that is cut off in the middle may come out whole the next time.
        let case = Case::new().await;
        case.write("output.json", r#"{"loss": "#);
        assert!(matches!(case.conclude(finished(RunEnd::Exit(0)), true).await, Concluded::TaskFailed(_)));
    }

    #[tokio::test]
    async fn a_failure_near_a_trouble_of_the_node_is_not_the_tasks_even_when_the_trouble_is_over() {
        let case = Case::new().await;
        case.node.health.met("the disk is full");
        let at = |at_ms| with(RunEnd::Exit(1), |finished| finished.finished_at_ms = at_ms);
        let now_ms = crate::job::now().as_millisecond();
        for near in [now_ms, now_ms - 30_000, now_ms + 30_000] {
            let concluded = case.conclude(at(near), true).await;
            assert!(
                matches!(&concluded, Concluded::NodeFailed(problem) if problem.to_string().contains("the disk is full"))
            );
        }
        let before = case.conclude(at(now_ms - 100_000), true).await;
        assert!(matches!(before, Concluded::TaskFailed(_)), "it was before that");
        let after = case.conclude(at(now_ms + 100_000), true).await;
        assert!(matches!(after, Concluded::TaskFailed(_)), "it was after that");
    }

    #[tokio::test]
    async fn a_job_may_spoil_its_directory_and_keeps_its_result() {
        let forged = r#"{"v":1,"job_id":"j1","attempt":9,"owner":"x","host":"h","started_at":"2026-11-21T00:00:00Z"}"#;
        for spoiled in ["", "{", forged] {
            let case = Case::new().await;
            case.write("meta.json", spoiled);
            assert_eq!(case.recorded(finished(RunEnd::Exit(0))).await.status, Status::Completed, "{spoiled:?}");
        }
        let case = Case::new().await;
        case.write("output.json", "1");
        fs::set_permissions(case.temp.path().join("j1"), fs::Permissions::from_mode(0o0)).unwrap();
        assert_eq!(case.recorded(finished(RunEnd::Exit(0))).await.output_bytes, Some(1), "it locked us out");
        let case = Case::new().await;
        fs::remove_dir_all(case.temp.path().join("j1")).unwrap();
        assert_eq!(case.recorded(finished(RunEnd::Exit(0))).await.status, Status::Completed);
    }

    #[tokio::test]
    async fn a_results_dir_that_is_away_is_not_a_task_without_output() {
        let case = Case::new().await;
        let (path, away) = (case.temp.path(), tempfile::tempdir().unwrap());
        for name in ["j1", ".owners"] {
            fs::rename(path.join(name), away.path().join(name)).unwrap();
        }
        let concluded = case.conclude(finished(RunEnd::Exit(0)), false).await;
        assert!(
            matches!(&concluded, Concluded::NodeBroken(problem) if problem.to_string().contains("mount its file system")),
            "{concluded:?}"
        );
        assert!(!path.join("j1.json").exists());
    }

    #[tokio::test]
    async fn what_was_printed_travels_where_there_is_nothing_better() {
        let large = format!("\"{}\"", "x".repeat(limits::INLINE_OUTPUT_BYTES_MAX));
        for (end, output, stdout, stderr) in [
            (RunEnd::Exit(1), Some("1"), Some("so far"), Some("oops")),
            (RunEnd::TimeLimit, None, Some("so far"), Some("oops")),
            (RunEnd::Exit(0), None, Some("so far"), Some("oops")),
            (RunEnd::Exit(0), Some(large.as_str()), Some("so far"), Some("oops")),
            (RunEnd::Exit(0), Some("1"), None, None),
        ] {
            let case = Case::new().await;
            if let Some(output) = output {
                case.write("output.json", output);
            }
            let result = case.recorded(finished(end)).await;
            assert_eq!((result.stdout_tail.as_deref(), result.stderr_tail.as_deref()), (stdout, stderr));
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_stays_and_the_result_travels() {
        let case = Case::new().await;
        // Escapes make six bytes of one.
        let control = "\u{1}".repeat(limits::RESULT_BYTES_MAX / 5);
        case.write("output.json", "[1]");
        let result = case.recorded(with(RunEnd::Exit(1), |finished| finished.stderr_tail = control)).await;
        assert_eq!((result.stdout_tail, result.stderr_tail, result.output_bytes), (None, None, Some(3)));
        assert!(result.output.is_some(), "it fits when the rest is left out");
    }
}
