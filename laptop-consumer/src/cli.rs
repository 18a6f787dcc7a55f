//! The commands, their arguments and their help. Settings that may also come from the environment are in `config`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use program::{JobFilter, Stream, whole};
use protocol::{InvalidJobId, JobId, JobSpec, Json, Memory, PoolName, ResourceRequest, limits};

use crate::config::{CommonArgs, EdgeArgs, QueueArgs, length_of_time, time_limit};

/// Submit jobs to the cluster, and fetch, keep and show their results
///
/// Results are stored in the inbox, a directory on this machine, before the queue may forget them. Settings come from
/// flags, the environment, the file .env and defaults, in this order. Each may also be named HPC_QUEUE_NAME, which goes
/// first. A length of time is written as 90s, 15m or 1h30m; a plain number is seconds. Standard output holds results
/// and nothing else.
///
/// Exit codes: 0 all is well; 1 something failed; 2 wrong arguments or settings; 3 the job failed, everything around
/// it worked; 4 there is no such result here, or no such way yet; 75 not now, try again later; 130 a wait was
/// interrupted by Ctrl-C. `run` ends with the exit code of its command.
#[derive(Parser)]
#[command(
    name = "laptop-consumer",
    version,
    help_expected = true,
    after_help = "Example:\n  laptop-consumer submit --task echo --input '{\"hello\":\"cluster\"}' --wait"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Submit a job
    ///
    /// Prints the job's id. With --wait it prints the result in place of the id, once it is there, and ends with 0
    /// when the job completed and 3 when it failed. A submission that is not answered is sent again, a few times; it
    /// stays one job, because each try carries the same idempotency key.
    #[command(after_help = "Example:\n  laptop-consumer submit --task simulate --input @params.json --wait")]
    Submit(Box<SubmitArgs>),
    /// Run a command on the cluster, print what it prints, and end as it does
    ///
    /// It is a job of the task `command`, which the site's file must have. The command runs in the job directory, with
    /// the files that were named beside it. What it prints comes when it has ended.
    ///
    /// Ends with the exit code of the command when that ran and its output came along, with 128 and the number of the
    /// signal that ended it; with 3, and a word on standard error, when the job failed before or around it, or when it
    /// printed too much to come along. As with ssh and srun, a command can end with the codes of this program.
    #[command(after_help = "Examples:\n  laptop-consumer run --file x.py -- python x.py --steps 10\n  \
                            laptop-consumer run --pool gpu --gpus 1 -- nvidia-smi")]
    Run(Box<RunArgs>),
    /// Fetch one batch of results, print and store them
    ///
    /// Ends after one look at the queue, whether or not there was anything.
    #[command(after_help = "Example:\n  laptop-consumer pull --batch-size 10")]
    Pull(QueueArgs),
    /// Fetch results as they come, print and store them
    ///
    /// Ends by Ctrl-C, with 0. Prints each result that comes into the inbox while it runs, also when another program
    /// fetches it; `show` prints it again. After a minute without results it looks less often, down to once a minute:
    /// on the free plan each look counts.
    #[command(after_help = "Example:\n  laptop-consumer tail --output json > results.ndjson")]
    Tail(TailArgs),
    /// Wait for the results of jobs and print them as they come
    ///
    /// Looks into the inbox first, then at the queue. Results of other jobs that arrive meanwhile are stored and not
    /// printed. Ends with 0 when all jobs completed, 3 when one failed, 75 when the time is over. Ctrl-C ends the
    /// waiting, with 130, and no job.
    ///
    /// Any number of `wait` and `tail` may run with one inbox: one of them looks at the queue, for all.
    #[command(after_help = "Examples:\n  laptop-consumer wait last --timeout 3600\n  laptop-consumer wait --all\n  \
                            laptop-consumer wait @jobs.ndjson > results.ndjson")]
    Wait(WaitArgs),
    /// Print how far jobs are, a word for each
    ///
    /// The words are: unknown, queued, held, running, completed, failed, cancelled. Of one job, its word is all that is
    /// printed; of several, each has a line: its id, a tab, its word. Looks only into the inbox, and so it is `queued`
    /// from its submission until its result is here: `hpc-consumer status` on the cluster knows whether it is held or
    /// runs. A job that was not submitted here and has no result here is `unknown`.
    ///
    /// Ends with 0 when all words are printed, also `failed` and `unknown`.
    #[command(after_help = "Example:\n  laptop-consumer status last")]
    Status(StatusArgs),
    /// List the jobs that were submitted here, and those whose results are here
    ///
    /// Looks only into the inbox: a job is `queued` from its submission until its result is here. On the cluster
    /// `hpc-consumer jobs` lists what is held and runs there.
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  laptop-consumer jobs --state queued\n  laptop-consumer jobs --since 1d --limit 20"
    )]
    Jobs(ListArgs),
    /// Print what a job has printed, on the stream on which it did, as far as that came with its result
    ///
    /// With a result comes the end of what the job has printed when it failed, and when it completed without an output;
    /// of the task `command` all of it. Looks only into the inbox. On the cluster `hpc-consumer logs` has everything,
    /// also while the job runs.
    ///
    /// Ends with 0 when it is printed, if the job has printed anything, and with 4 when nothing of it is here.
    #[command(after_help = "Example:\n  laptop-consumer logs last --stream stderr")]
    Logs(LogsArgs),
    /// Print the stored result of a job
    ///
    /// Looks only into the inbox. Ends with 0 when the job completed, 3 when it failed, 4 when its result is not here.
    #[command(after_help = "Example:\n  laptop-consumer show 67995bdb-e88f-84f3-982a-a41723a075bc --output json")]
    Show(ShowArgs),
    /// Cancel jobs: not there yet; on the cluster, `hpc-consumer cancel` does it
    ///
    /// Nothing leads from the laptop to a job that is in the queue or on the cluster. This says which command does it
    /// there, and ends with 4.
    #[command(after_help = "Example:\n  laptop-consumer cancel last")]
    Cancel(CancelArgs),
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
    /// Keep these notes with the job: a JSON object, or @FILE to read a file
    #[arg(long, value_name = "JSON|@FILE")]
    pub(crate) metadata: Option<String>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Print the id of the job and nothing else, on a terminal and elsewhere
    #[arg(long, conflicts_with = "wait")]
    pub(crate) id: bool,
    /// Wait for the result and print it
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait, end with 75 when the result is not there after this long
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = length_of_time)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
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
            // The request carries it, for this job is all of it.
            idempotency_key: None,
            callback: None,
        }
    }
}

/// The arguments of `run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    /// Put this file into the job directory; may be given several times
    ///
    /// Its name there is its path from here, or, where that does not lead down from here, its own name.
    /// Only text (UTF-8) travels with a job, and all of it together has up to 127,700 bytes as JSON.
    #[arg(long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
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

/// The arguments of `tail`.
#[derive(Args)]
pub(crate) struct TailArgs {
    /// Fetch what is in the queue now, and end; this waits for no job
    ///
    /// Jobs that have not ended have no result in the queue: `wait` waits for them. It ends when a pull brings nothing
    /// and the queue says that it holds nothing. Messages that it holds but does not give are leased to another
    /// laptop, or delayed: they are waited for as long as a lease of this program lasts (--visibility-timeout-ms), and
    /// then left.
    #[arg(long)]
    pub(crate) until_idle: bool,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

/// The arguments of `wait`.
#[derive(Args)]
pub(crate) struct WaitArgs {
    /// Wait for these jobs: ids, unique beginnings of ids, `last`, or @FILE for a list
    ///
    /// `last` is the job that was submitted last with this inbox. A list has one job a line: its id, or the JSON that
    /// `submit` and the edge print.
    #[arg(value_name = "JOB|@FILE", value_parser = job_or_list)]
    pub(crate) jobs: Vec<String>,
    /// Wait for every job that was submitted with this inbox and has no result in it
    #[arg(long)]
    pub(crate) all: bool,
    /// End with 75 when results are missing after this long
    #[arg(long, value_name = "DURATION", value_parser = length_of_time)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

/// The arguments of `status`.
#[derive(Args)]
pub(crate) struct StatusArgs {
    /// The jobs: ids, unique beginnings of ids, `last`, or @FILE for a list, as `wait` takes it
    #[arg(required = true, value_name = "JOB|@FILE", value_parser = job_or_list)]
    pub(crate) jobs: Vec<String>,
}

/// The arguments of `jobs`.
#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) filter: JobFilter,
}

/// The arguments of `logs`.
#[derive(Args)]
pub(crate) struct LogsArgs {
    /// The job: its id, a unique beginning of it, or `last` for the one that was submitted last
    #[arg(value_name = "JOB")]
    pub(crate) job: JobId,
    /// Go on until the job has ended: not there yet
    ///
    /// What is here came with the result of a job that has ended. Of one that has not, this says which command shows it
    /// on the cluster, and ends with 4.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Print only this stream
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Option<Stream>,
}

/// The arguments of `show`.
#[derive(Args)]
pub(crate) struct ShowArgs {
    /// Show this job: its id, a unique beginning of it, or `last` for the one that was submitted last
    #[arg(value_name = "JOB")]
    pub(crate) job: JobId,
}

/// The arguments of `cancel`.
#[derive(Args)]
pub(crate) struct CancelArgs {
    /// Cancel these jobs: ids, unique beginnings of ids, or `last`
    #[arg(required = true, value_name = "JOB")]
    pub(crate) jobs: Vec<JobId>,
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

/// The name of a job, or of a file with a list of them.
fn job_or_list(text: &str) -> Result<String, InvalidJobId> {
    if text.strip_prefix('@').is_none_or(str::is_empty) {
        text.parse::<JobId>()?;
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_help_line_is_an_imperative() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
            let name = command.get_name();
            let after_help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after_help.contains(&format!("laptop-consumer {name} ")), "`{name}` has no example");
            let arguments = command.get_arguments().filter(|argument| argument.get_id() != "help");
            let helps = arguments.map(|argument| (argument.get_id().to_string(), argument.get_help()));
            for (what, help) in helps.chain([(name.to_owned(), command.get_about())]) {
                let help = help.map(ToString::to_string).unwrap_or_default();
                assert!(help.starts_with(char::is_uppercase) && !help.ends_with('.'), "{name} {what}: {help:?}");
            }
        }
    }

    #[test]
    fn secrets_are_not_shown_in_help() {
        let mut cli = Cli::command();
        cli.build();
        let secrets: Vec<_> = cli
            .get_subcommands()
            .flat_map(|command| command.get_arguments())
            .filter(|argument| matches!(argument.get_id().as_str(), "api_key" | "queues_api_token"))
            .collect();
        assert!(secrets.len() >= 2);
        assert!(secrets.iter().all(|argument| argument.is_hide_env_values_set()));
    }

    #[test]
    fn inputs_that_begin_with_a_minus_are_read() {
        for input in ["-", "-1.5"] {
            let cli = Cli::try_parse_from(["laptop-consumer", "submit", "--task", "t", "--input", input]);
            let Command::Submit(args) = cli.expect("the arguments are right").command else {
                panic!("another command")
            };
            assert_eq!(args.input.as_deref(), Some(input));
        }
        assert!(Cli::try_parse_from(["laptop-consumer", "wait", "../x"]).is_err());
        assert!(Cli::try_parse_from(["laptop-consumer", "submit", "--task", "t", "--timeout", "1"]).is_err());
    }
}
