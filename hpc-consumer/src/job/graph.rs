//! A job that is a workflow: which of its tasks can begin by now, found from what is there.
//!
//! The tasks are jobs of their own, `<job_id>-<n>` for the n-th task of the document, and run in the directory of the
//! workflow. A task is done when its record says that it completed and what it is to write is there; it has failed when
//! its record says anything else, or it was taken over from an earlier job (`resumed`). So nothing is remembered here
//! but what is quick to find again.
//!
//! Out of scope: what a document may be (`workflow`), when this is asked (`lifecycle`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};

use lifecycle::{Finished, Run, RunEnd, Unfolded};
use protocol::{JobId, JobMessage, JobResult, Launched, Status, job_dir};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use site::TaskKind;
use workflow::{Ended, Form, Progress, TaskNo, TaskState, Workflow};

use super::files::{INPUT, META, OUTPUT, Place, to_json};
use super::job_dir::JobDir;
use super::meta::meta_of;
use super::record::Record;
use super::results_dir::ResultsDir;
use super::resumed::{Resumed, Told};
use super::{JobFiles, now};
use crate::{blocking, lock};

/// How many workflows are kept as far as they are known. What falls out is read again.
const KNOWN_MAX: usize = 16;

/// How long the documents of these may be together.
const KNOWN_BYTES_MAX: usize = 64 << 20;

/// The longest document.
const DOCUMENT_BYTES_MAX: u64 = workflow::limits::DOCUMENT_BYTES_MAX as u64;

/// How many of the tasks that failed an output names.
const FAILED_TOLD: usize = 100;

/// How much is told of why one did, in characters.
const WHY_MAX: usize = 300;

/// How much is told of how a workflow has ended, in bytes: a result has other things to carry.
const TOLD_MAX: usize = 16_000;

/// How many files that are missing are named.
const MISSING_TOLD: usize = 10;

/// Of how many workflows it is known how many tasks they have: the last ones.
const SIZES_MAX: usize = 1_000;

/// Workflows as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Graphs {
    known: Mutex<Vec<(JobId, Known)>>,
    /// How many tasks each has, for people.
    sizes: Mutex<VecDeque<(JobId, u32)>>,
}

impl Graphs {
    fn take(&self, job_id: &JobId) -> Option<Known> {
        let mut graphs = lock(&self.known);
        let place = graphs.iter().position(|(known, _)| known == job_id)?;
        Some(graphs.remove(place).1)
    }

    /// Those that were asked for last stay, as long as they are not too many or too large.
    fn keep(&self, job_id: JobId, known: Known) {
        let mut graphs = lock(&self.known);
        graphs.push((job_id, known));
        while graphs.len() > KNOWN_MAX || graphs.iter().map(|(_, known)| known.bytes).sum::<usize>() > KNOWN_BYTES_MAX {
            graphs.remove(0);
        }
    }

    fn has_tasks(&self, job_id: &JobId, tasks: usize) {
        let mut sizes = lock(&self.sizes);
        sizes.retain(|(known, _)| known != job_id);
        sizes.truncate(SIZES_MAX - 1);
        sizes.push_front((job_id.clone(), u32::try_from(tasks).unwrap_or(u32::MAX)));
    }
}

/// One of them.
#[derive(Debug)]
struct Known {
    /// How long its document is.
    bytes: usize,
    /// Its job, without the document.
    job: Arc<JobMessage>,
    workflow: Arc<Workflow>,
    progress: Progress,
    /// Tasks that have begun and not ended.
    begun: BTreeSet<TaskNo>,
    /// Those that failed, and why.
    failed: BTreeMap<TaskNo, String>,
    /// What was taken over of an earlier job.
    resumed: Resumed,
}

/// The input of a workflow that is a file of the job.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InFile {
    file: String,
}

/// `input.json`, where it came as a file.
#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    input: &'a RawValue,
}

/// `output.json` of a workflow.
#[derive(Serialize)]
struct Output<'a> {
    tasks: usize,
    done: usize,
    failed: usize,
    /// Tasks that will never begin, because one that they need has failed.
    skipped: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<Told<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<FailedTask<'a>>,
}

#[derive(Serialize)]
struct FailedTask<'a> {
    task: &'a str,
    job_id: JobId,
    why: &'a str,
}

/// Why nothing is said of a workflow.
pub(super) enum Stuck {
    /// The node cannot tell.
    Node(io::Error),
    /// It is its own fault.
    Own(String),
}

impl From<io::Error> for Stuck {
    fn from(error: io::Error) -> Self {
        Self::Node(error)
    }
}

impl JobFiles {
    /// Which tasks of a workflow can begin, besides those whose jobs go on: so many at the most. Its whole message,
    /// which may be long, is asked for only where it is not known any more.
    pub(crate) async fn unfold<E>(
        self: &Arc<Self>,
        whole: impl Future<Output = Result<Arc<JobMessage>, E>>,
        run: Run,
        alive: Vec<JobId>,
        room: usize,
    ) -> Result<Unfolded, E> {
        let (files, asked) = (self.clone(), (run, alive));
        let (known, (run, alive)) = blocking(move || {
            let known = files.graphs.take(&asked.0.job_id);
            (known.and_then(|known| files.unfold_now(&known.job.clone(), &asked.0, Some(known), &asked.1, room)), asked)
        })
        .await;
        if let Some(unfolded) = known {
            return Ok(unfolded);
        }
        let (files, job) = (self.clone(), whole.await?);
        let found = blocking(move || files.unfold_now(&job, &run, None, &alive, room)).await;
        // It is there always; without it, this is asked again.
        Ok(found.unwrap_or(Unfolded::GoesOn(Vec::new())))
    }

    /// How many tasks a workflow has, as far as that is known without looking.
    pub(crate) fn tasks_of(&self, workflow: &JobId) -> Option<u32> {
        let sizes = lock(&self.graphs.sizes);
        sizes.iter().find(|(known, _)| known == workflow).map(|(_, tasks)| *tasks)
    }

    /// Is a job one?
    pub(super) fn is_workflow(&self, job: &JobMessage) -> bool {
        self.pools.plan(&job.spec).is_ok_and(|plan| plan.kind == TaskKind::Workflow)
    }

    /// Has a workflow no directory any more, although all others are where they were?
    pub(crate) async fn has_lost_its_dir(self: &Arc<Self>, workflow: &JobId) -> bool {
        let (files, workflow) = (self.clone(), workflow.clone());
        blocking(move || {
            let found = files.claims.results().open_job_dir(&workflow);
            let is_gone = matches!(found, Ok(Place::Nothing | Place::Foreign));
            is_gone && files.claims.is_mounted().unwrap_or(false)
        })
        .await
    }

    /// None where what was known is not what is.
    fn unfold_now(
        &self,
        job: &JobMessage,
        run: &Run,
        known: Option<Known>,
        alive: &[JobId],
        room: usize,
    ) -> Option<Unfolded> {
        match self.try_unfold(job, run, known, alive, room) {
            Ok(unfolded) => unfolded,
            Err(Stuck::Own(why)) => Some(Unfolded::Over(Box::new(self.finished(job, run, Some(why))))),
            Err(Stuck::Node(error)) => {
                let place = self.claims.results().job_dir(&run.job_id);
                let what =
                    format!("what there is to do of the workflow in {} cannot be told: {error}", place.display());
                Some(Unfolded::NodeBroken(what.into()))
            }
        }
    }

    fn try_unfold(
        &self,
        job: &JobMessage,
        run: &Run,
        known: Option<Known>,
        alive: &[JobId],
        room: usize,
    ) -> Result<Option<Unfolded>, Stuck> {
        let dir = match self.claims.results().open_job_dir(&run.job_id)? {
            Place::Dir(dir) => dir,
            Place::Nothing | Place::Foreign if self.claims.is_mounted()? => {
                return Err(Stuck::Own("its directory is gone: one of its tasks has removed it".to_owned()));
            }
            Place::Nothing | Place::Foreign => return Err(ResultsDir::not_where_it_was().into()),
        };
        if !self.claims.is_ours(Some(&dir), run)? {
            // Another daemon has it, which is found when this is concluded.
            return Ok(Some(Unfolded::Over(Box::new(self.finished(job, run, None)))));
        }
        let alive: BTreeSet<&JobId> = alive.iter().collect();
        let mut known = match known {
            Some(mut known) => {
                if !self.has_ended(run, &dir, &mut known, &alive)? {
                    // One was begun, and is not there.
                    return Ok(None);
                }
                known
            }
            None => self.find(job, run, &dir, &alive)?,
        };
        if known.progress.is_over() {
            return Ok(Some(Unfolded::Over(Box::new(self.over(job, run, &dir, &known)?))));
        }
        let ready: Vec<TaskNo> = known.progress.ready().take(room).collect();
        let mut tasks = Vec::with_capacity(ready.len());
        for task in ready {
            known.progress.begun(task);
            known.begun.insert(task);
            tasks.extend(known.workflow.job(task).map(|spec| (number(task), spec)));
        }
        self.graphs.keep(run.job_id.clone(), known);
        Ok(Some(Unfolded::GoesOn(tasks)))
    }

    /// Reads the document, and what has become of its tasks.
    fn find(&self, job: &JobMessage, run: &Run, dir: &JobDir, alive: &BTreeSet<&JobId>) -> Result<Known, Stuck> {
        let document = document(job, dir)?;
        let workflow = Workflow::parse(&document).map_err(|problems| Stuck::Own(problems.to_string()))?;
        let (workflow, bytes) = (Arc::new(check_names(workflow)?), document.len());
        self.graphs.has_tasks(&run.job_id, workflow.tasks().len());
        let resumed = self.resumed(job.spec.resume.as_ref(), run, dir, &workflow)?;
        let mut known = Known {
            progress: Progress::of(&workflow, |task| resumed.has(task)),
            bytes,
            job: Arc::new(job.without_input()),
            resumed,
            begun: BTreeSet::new(),
            failed: BTreeMap::new(),
            workflow: workflow.clone(),
        };
        for task in workflow.order() {
            if known.progress.state(*task) != Some(TaskState::Ready) {
                continue;
            }
            if alive.contains(&child(&run.job_id, *task)?) {
                known.progress.begun(*task);
                known.begun.insert(*task);
            } else {
                self.look_at(run, dir, &mut known, *task, alive)?;
            }
        }
        let ended = known.progress.summary().done.saturating_sub(known.resumed.count()) + known.failed.len();
        if known.begun.is_empty() && ended == 0 {
            self.prepare(dir, &workflow)?;
        }
        Ok(known)
    }

    /// Before anything has begun: what has to be brought is there, and the directories that tasks write to. A signal of
    /// HyperFlow's need not be a file: its own graphs name programs among them.
    fn prepare(&self, dir: &JobDir, workflow: &Workflow) -> Result<(), Stuck> {
        let are_files = workflow.form() == Form::WfFormat;
        let mut missing = Vec::new();
        for path in workflow.brought().filter(|_| are_files) {
            if !dir.is_there(path.as_str())? {
                missing.push(path.as_str());
            }
        }
        if !missing.is_empty() {
            let more = missing.len().saturating_sub(MISSING_TOLD);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let told = missing[..missing.len().min(MISSING_TOLD)].join(", ");
            return Err(Stuck::Own(format!(
                "these files are read by tasks, written by none, and not there: {told}{more}; bring them with the job"
            )));
        }
        for folder in workflow.folders() {
            dir.make_dirs(folder)?;
        }
        Ok(())
    }

    /// Which tasks have ended since? `false` if one that has begun is neither alive nor has a record.
    fn has_ended(&self, run: &Run, dir: &JobDir, known: &mut Known, alive: &BTreeSet<&JobId>) -> Result<bool, Stuck> {
        let mut all_there = true;
        for task in known.begun.clone() {
            if alive.contains(&child(&run.job_id, task)?) {
                continue;
            }
            known.begun.remove(&task);
            all_there &= self.look_at(run, dir, known, task, alive)?;
        }
        Ok(all_there)
    }

    /// Has a task its record? Then it has ended.
    fn look_at(
        &self,
        run: &Run,
        dir: &JobDir,
        known: &mut Known,
        task: TaskNo,
        alive: &BTreeSet<&JobId>,
    ) -> Result<bool, Stuck> {
        let Record::Whole(record) = self.claims.results().record(&child(&run.job_id, task)?)? else { return Ok(false) };
        let why = match JobResult::parse(&record) {
            Ok(result) if result.status == Status::Completed => match missing_output(dir, known, task)? {
                // What follows it has begun: it was found done before, and its files may have gone since.
                Some(_) if self.is_followed(run, known, alive, task)? => None,
                missing => missing,
            },
            Ok(result) => {
                let reason = result.reason.map(|reason| reason.to_string()).unwrap_or_default();
                Some(result.message.unwrap_or(reason))
            }
            Err(error) => Some(format!("its record cannot be read: {error}")),
        };
        known.progress.ended(task, if why.is_none() { Ended::Done } else { Ended::Failed });
        known.failed.extend(why.map(|why| (task, why.chars().take(WHY_MAX).collect())));
        Ok(true)
    }

    /// Has a task begun that waits for this one?
    fn is_followed(&self, run: &Run, known: &Known, alive: &BTreeSet<&JobId>, task: TaskNo) -> Result<bool, Stuck> {
        for next in known.workflow.children(task) {
            let next = child(&run.job_id, *next)?;
            if alive.contains(&next) || !matches!(self.claims.results().record(&next)?, Record::Missing) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Nothing is left to do: leaves behind what has become of it, and says how it has ended.
    fn over(&self, job: &JobMessage, run: &Run, dir: &JobDir, known: &Known) -> Result<Finished, Stuck> {
        let (summary, tasks) = (known.progress.summary(), known.workflow.tasks());
        let failures: Vec<FailedTask<'_>> = known
            .failed
            .iter()
            .take(FAILED_TOLD)
            .map(|(task, why)| {
                Ok(FailedTask { task: &tasks[task.index()].id, job_id: child(&run.job_id, *task)?, why })
            })
            .collect::<Result<_, Stuck>>()?;
        let why = (summary.failed > 0).then(|| {
            let told: Vec<String> =
                failures.iter().map(|failed| format!("{} ({}): {}", failed.task, failed.job_id, failed.why)).collect();
            format!(
                "{} of {} tasks failed, and {} were not begun for that\n{}",
                summary.failed,
                tasks.len(),
                summary.skipped,
                told.join("\n")
            )
        });
        let output = Output {
            tasks: tasks.len(),
            done: summary.done,
            failed: summary.failed,
            skipped: summary.skipped,
            resumed: known.resumed.told(),
            failures,
        };
        dir.replace(OUTPUT, &to_json(&output))?;
        Ok(self.finished(job, run, why))
    }

    /// How it has ended; with why, where it failed.
    fn finished(&self, job: &JobMessage, run: &Run, why: Option<String>) -> Finished {
        let begun = match self.claims.results().open_job_dir(&run.job_id) {
            Ok(Place::Dir(dir)) => dir.read(META).ok().and_then(|file| meta_of(&run.job_id, &file)),
            Ok(Place::Nothing | Place::Foreign) | Err(_) => None,
        };
        let finished_at_ms = now().as_millisecond();
        let launched = self.pools.plan(&job.spec).ok().map(|plan| {
            Box::new(Launched {
                pool: plan.pool,
                image: None,
                command: plan.command,
                time_limit_ms: u64::MAX,
                output_bytes_max: plan.limits.output_bytes,
                output_files_bytes_max: plan.limits.output_files_bytes,
            })
        });
        Finished {
            end: RunEnd::Exit(i32::from(why.is_some())),
            stdout_tail: String::new(),
            stderr_tail: shortened(why.unwrap_or_default()),
            started_at_ms: begun.map_or(finished_at_ms, |meta| meta.started_at.as_millisecond()),
            finished_at_ms,
            runtime: None,
            began: Some(true),
            image_lost: false,
            isolation: None,
            launched,
            ran: None,
            usage: None,
        }
    }
}

/// The text of the document.
fn document(job: &JobMessage, dir: &JobDir) -> Result<String, Stuck> {
    if job.spec.input_file.is_some() { in_input(dir) } else { of_input(job.spec.input.as_str().to_owned(), dir) }
}

/// The same, as it was found by a job in its directory.
pub(super) fn in_input(dir: &JobDir) -> Result<String, Stuck> {
    let whole = text(dir.read_text(INPUT, DOCUMENT_BYTES_MAX)?, INPUT)?;
    let Input { input } = serde_json::from_str(&whole).map_err(|error| Stuck::Own(format!("{INPUT}: {error}")))?;
    of_input(input.get().to_owned(), dir)
}

/// The input of a workflow is its document, or says in which file that is.
fn of_input(input: String, dir: &JobDir) -> Result<String, Stuck> {
    let Ok(InFile { file }) = serde_json::from_str(&input) else { return Ok(input) };
    if file.parse::<protocol::WorkPath>().is_err() {
        return Err(Stuck::Own(format!("`file` is {file:?}, which is no path of a file of the job")));
    }
    text(dir.read_text(&file, DOCUMENT_BYTES_MAX)?, &file)
}

fn text(text: Option<String>, name: &str) -> Result<String, Stuck> {
    text.ok_or_else(|| Stuck::Own(format!("{name} is not there, or is no file of text of up to 64 MiB")))
}

/// What tasks write must not be in the way of what is there besides.
fn check_names(workflow: Workflow) -> Result<Workflow, Stuck> {
    for task in workflow.tasks() {
        let mut paths = task.outputs.iter().map(|file| workflow.file(*file));
        if let Some(path) = paths.find(|path| job_dir::taken_by(path).is_some()) {
            let what = "is what hpc-consumer or the job itself makes in its directory: give it another name";
            return Err(Stuck::Own(format!("the task {} writes {path}, and {path} {what}", task.id)));
        }
    }
    Ok(workflow)
}

/// What a task that completed has not written, as a sentence.
fn missing_output(dir: &JobDir, known: &Known, task: TaskNo) -> io::Result<Option<String>> {
    for file in &known.workflow.tasks()[task.index()].outputs {
        let path = known.workflow.file(*file);
        if !dir.is_there(path.as_str())? {
            return Ok(Some(format!("it ended well and has not written {path}")));
        }
    }
    Ok(None)
}

/// As much of a text as there is room for, in whole lines.
fn shortened(text: String) -> String {
    if text.len() <= TOLD_MAX {
        return text;
    }
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= TOLD_MAX).last().unwrap_or(0);
    let end = text[..end].rfind('\n').unwrap_or(end);
    format!("{}\nand more", &text[..end])
}

/// The number of a task among the children.
pub(super) fn number(task: TaskNo) -> u32 {
    u32::try_from(task.index()).unwrap_or(u32::MAX).saturating_add(1)
}

/// The job of a task of this workflow.
pub(super) fn child(workflow: &JobId, task: TaskNo) -> Result<JobId, Stuck> {
    workflow.child(number(task)).map_err(|_| {
        Stuck::Own(format!(
            "the id {workflow} is too long for those of its tasks; submit the workflow under a shorter one"
        ))
    })
}
