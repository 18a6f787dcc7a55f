//! What is said of a job that is submitted, and the commands that submit one.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use client::upload::Given;
use program::{Failure, whole};
use protocol::{JobId, JobSpec, Json, Memory, Need, Outputs, OutputsWhen, PoolName, ResourceRequest, WorkPath, limits};

use super::job_or_list;
use crate::config::{EdgeArgs, QueueArgs, length_of_time, time_limit};

/// The arguments of `workflow run`.
#[derive(Args)]
pub(crate) struct WorkflowRunArgs {
    /// The document
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Run this task of the site, one of the kind workflow
    #[arg(long, value_name = "NAME", default_value = "workflow")]
    pub(crate) task: String,
    /// Look for the files that it needs here, instead of beside the document
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Take over what is done of this earlier job, and run what is missing or has changed
    ///
    /// It is named as `show` takes it. A task is done if it has completed, and has the same id, command and files as
    /// now, and what it reads that was brought is the same. Where the directory of that job is not on the cluster any
    /// more, all tasks run.
    #[arg(long, value_name = "JOB")]
    pub(crate) resume: Option<JobId>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Have the files back after a success, or however the workflow ends; without it, after a success
    #[arg(long, value_name = "WHEN")]
    pub(crate) outputs_when: Option<When>,
    #[command(flatten)]
    pub(crate) follow: FollowArgs,
}

/// What becomes of a job once it is submitted.
#[derive(Args)]
pub(crate) struct FollowArgs {
    /// Print the id of the job and nothing else, on a terminal and elsewhere
    #[arg(long, conflicts_with = "wait")]
    pub(crate) id: bool,
    /// Wait for the result and print it
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait, fetch the files that the job leaves into DIR; without DIR, to here
    #[arg(long, value_name = "DIR", requires = "wait", num_args = 0..=1, require_equals = true,
          default_missing_value = ".")]
    pub(crate) fetch: Option<PathBuf>,
    /// With --wait, end with 75 when the result is not there after this long
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = length_of_time)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

/// The arguments of `submit`.
#[derive(Args)]
pub(crate) struct SubmitArgs {
    /// Run this task
    ///
    /// Which tasks there are is decided by the image on the cluster.
    #[arg(long, value_name = "NAME")]
    pub(crate) task: String,
    /// Give the task this input: JSON, @FILE to read a file, - to read standard input
    ///
    /// It passes as it is: numbers keep all digits and objects their order. Without it the input is null.
    #[arg(long, value_name = "JSON|@FILE|-", allow_negative_numbers = true)]
    pub(crate) input: Option<String>,
    /// Submit a job for each line of FILE: .csv, .ndjson or .jsonl; - reads lines of JSON from standard input
    ///
    /// In a .csv the first line names the fields of the inputs. What is written as a number in JSON is that number,
    /// with all its digits (1, -2.50, 1e-3); an empty cell is no field; anything else is text, as are true, 007 and +1.
    /// Spaces around a cell do not count. In the other forms each line is an input as it is.
    ///
    /// With --idempotency-key WORD the same lines are other jobs than without it, or with another word.
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["input", "fetch"])]
    pub(crate) from: Option<PathBuf>,
    /// Keep these notes with the job: a JSON object, or @FILE to read a file
    #[arg(long, value_name = "JSON|@FILE")]
    pub(crate) metadata: Option<String>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) files: FilesArgs,
    #[command(flatten)]
    pub(crate) follow: FollowArgs,
}

/// What a job is told besides what it is to do.
#[derive(Args)]
pub(crate) struct JobArgs {
    /// Call the job this; several may have the same name
    ///
    /// `hpc-consumer jobs` shows it. Its id names the job, and this does not.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) name: Option<String>,
    /// Run the job in this pool of the site; without it, the site says in which
    ///
    /// A pool is a part of a site with its own image and machine; the site's file names them (`hpc-consumer pools`). A
    /// job for a pool that its task may not use fails, and says why. A site without such a file has one: `default`.
    #[arg(long, value_name = "POOL")]
    pub(crate) pool: Option<PoolName>,
    /// Ask for this many processors
    ///
    /// Of what is not asked for, the pool says how much the job gets.
    #[arg(long, value_name = "COUNT", value_parser = |text: &str| resource(text, 1))]
    pub(crate) cpus: Option<u32>,
    /// Ask for this much memory, with its unit: 2GiB, 512MiB
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Memory>,
    /// Ask for this many GPUs
    #[arg(long, value_name = "COUNT", value_parser = |text: &str| resource(text, 0))]
    pub(crate) gpus: Option<u32>,
    /// End the job when it has run this long; the cluster may allow less
    #[arg(long, value_name = "DURATION", value_parser = time_limit)]
    pub(crate) time_limit: Option<u64>,
    /// Try the job again up to this many times when its task fails; without it, not at all
    ///
    /// A task fails by its exit code, a signal, its time limit, or an output that cannot be used. What the node does
    /// wrong is not counted here.
    #[arg(long, value_name = "COUNT", value_parser = retries)]
    pub(crate) retries: Option<u32>,
    /// Never start the job again after it was cut off; it is `lost` then
    ///
    /// A job is cut off when the machine that it runs on goes down. Without this flag it is started again as its next
    /// attempt.
    #[arg(long)]
    pub(crate) not_rerunnable: bool,
    /// Begin the job only when this service of the site is ready and has a place for it; may be given several times
    ///
    /// NEED is the name of a service, or JSON with its name and what is asked of its facts, as
    /// '{"service": "vqpu", "qubits": {"min": 20}}'. The job finds it in services/NAME.json in its directory. The
    /// site's file names its services (`hpc-consumer services`).
    #[arg(long, value_name = "NEED", value_parser = need)]
    pub(crate) needs: Vec<Need>,
    /// Make this submission one job with every other one of the same key
    ///
    /// Without it each call of `submit` is a job of its own.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

impl JobArgs {
    /// The job that runs this task on this input.
    pub(crate) fn spec(&self, task: String, input: Json, metadata: Option<Json>) -> JobSpec {
        let resources = ResourceRequest { cpus: self.cpus, memory: self.memory, gpus: self.gpus, nodes: None };
        JobSpec {
            task,
            input,
            metadata,
            name: self.name.clone(),
            pool: self.pool.clone(),
            resources: Some(resources).filter(|resources| *resources != ResourceRequest::default()),
            time_limit_seconds: self.time_limit,
            retries: self.retries,
            // Only what was said is sent: the default is the cluster's.
            rerunnable: self.not_rerunnable.then_some(false),
            resume: None,
            // The request carries it, for this job is all of it.
            idempotency_key: None,
            callback: None,
            files: Vec::new(),
            outputs: None,
            input_file: None,
            needs: self.needs.clone(),
        }
    }
}

/// The files of a job.
#[derive(Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct FilesArgs {
    /// Put this file or directory into the job directory, at this path; may be given several times
    ///
    /// Without NAME it is there at its path from here, or, where that does not lead down from here, under its own name.
    /// A link is followed, but not those within a directory. The files of a directory with more than 32 of them travel
    /// as a pack. The small text files of `run` travel with the job, as long as there is room for all; everything else
    /// needs the store of files behind the edge.
    #[arg(long = "file", value_name = "PATH[:NAME]", value_parser = Given::parse)]
    files: Vec<Given>,
    /// The same of what the job only reads: containers see what the cluster keeps of it, and not a copy for each job
    ///
    /// For large inputs of many jobs. Where a pool has no containers, and of what travels as a pack, each job has a
    /// copy as with --file. It is no output, whatever --output says.
    #[arg(long = "read-only", value_name = "PATH[:NAME]", value_parser = Given::parse_read_only)]
    read_only: Vec<Given>,
    /// Have the files that fit --output PATTERN after a success, or however the job ends; without it, after a success
    #[arg(long, value_name = "WHEN")]
    pub(crate) outputs_when: Option<When>,
}

/// After which ends of a job its files are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// When its task has ended well
    Success,
    /// However it ended
    Always,
}

impl FilesArgs {
    /// What is to be sent.
    pub(crate) fn given(&self) -> Vec<Given> {
        [self.files.as_slice(), &self.read_only].concat()
    }

    /// What the job is to leave.
    pub(crate) fn outputs(&self, patterns: Vec<WorkPath>) -> anyhow::Result<Option<Outputs>> {
        outputs(patterns, self.outputs_when)
    }
}

/// What a job is to leave, by the patterns of --output.
pub(crate) fn outputs(patterns: Vec<WorkPath>, when: Option<When>) -> anyhow::Result<Option<Outputs>> {
    let when = when.map(|when| match when {
        When::Success => OutputsWhen::Success,
        When::Always => OutputsWhen::Always,
    });
    if patterns.is_empty() {
        return match when {
            Some(_) => Err(Failure::usage("--outputs-when says when --output PATTERN is wanted; give a pattern")),
            None => Ok(None),
        };
    }
    let max = limits::OUTPUT_PATTERNS_MAX;
    if patterns.len() > max {
        return Err(Failure::usage(format!("--output: a job has {max} patterns at the most")));
    }
    Ok(Some(Outputs { patterns, when: when.map(Into::into) }))
}

/// The arguments of `run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) files: FilesArgs,
    /// Fetch the files that the command leaves into DIR; without DIR, to here
    #[arg(long, value_name = "DIR", conflicts_with = "no_wait", num_args = 0..=1, require_equals = true,
          default_missing_value = ".")]
    pub(crate) fetch: Option<PathBuf>,
    /// Give the command this file, or - for standard input, as its standard input; without it, that is empty
    #[arg(long, value_name = "FILE|-")]
    pub(crate) stdin: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Print the id of the job, and do not wait for it
    #[arg(long, conflicts_with = "timeout")]
    pub(crate) no_wait: bool,
    /// End with 75 when the command has not ended after this long
    #[arg(long, value_name = "DURATION", value_parser = length_of_time)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    /// The command and its arguments, as its program takes them: no shell reads them
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) argv: Vec<String>,
}

/// The arguments of `rerun`.
#[derive(Args)]
pub(crate) struct RerunArgs {
    /// Submit these jobs again: ids, unique beginnings of ids, `last`, or @FILE for a list, as `wait` takes it
    #[arg(value_name = "JOB|@FILE", value_parser = job_or_list, conflicts_with_all = ["failed"])]
    pub(crate) jobs: Vec<String>,
    /// Submit again all jobs whose results here say that they failed, and that were not submitted again since
    #[arg(long)]
    pub(crate) failed: bool,
    /// With --failed, only jobs of this task
    #[arg(long, value_name = "NAME", requires = "failed")]
    pub(crate) task: Option<String>,
    /// With --failed, only jobs that their user calls this
    #[arg(long, value_name = "NAME", requires = "failed")]
    pub(crate) name: Option<String>,
    /// With --failed, only jobs that have ended within this time
    #[arg(long, value_name = "DURATION", requires = "failed", value_parser = length_of_time)]
    pub(crate) since: Option<Duration>,
    /// Run all tasks of a workflow, also those that are done
    ///
    /// Without it, a workflow that has not completed runs only what is missing, and takes over the rest from the
    /// directory of the earlier job.
    #[arg(long)]
    pub(crate) anew: bool,
    /// Print the ids of the new jobs and nothing else
    #[arg(long)]
    pub(crate) id: bool,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
}

fn name(text: &str) -> Result<String, String> {
    protocol::check_name(text).map(|()| text.to_owned())
}

fn resource(text: &str, min: u32) -> Result<u32, String> {
    let max = limits::RESOURCES_MAX;
    whole(text, u64::from(min)..=u64::from(max)).map(|count| u32::try_from(count).unwrap_or(max))
}

fn retries(text: &str) -> Result<u32, String> {
    whole(text, 0..=u64::from(limits::RETRIES_MAX)).map(|count| u32::try_from(count).unwrap_or(limits::RETRIES_MAX))
}

/// The name of a service, or the JSON of what is asked of it.
fn need(text: &str) -> Result<Need, String> {
    if !text.trim_start().starts_with('{') {
        return text.parse().map(Need::of).map_err(|error: protocol::InvalidServiceName| error.to_string());
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}
