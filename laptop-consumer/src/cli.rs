//! The commands, their arguments and their help. Settings that may also come from the environment are in `config`.

mod jobs;
mod machine;
mod results;
mod submit;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use program::ReferenceArgs;
use protocol::{InvalidJobId, JobId};

use crate::commands::ServiceCommand;
use crate::config::{CommonArgs, QueueArgs};

pub(crate) use self::jobs::{CancelArgs, CancelFilter, ListArgs, LogsArgs, StatusArgs};
pub(crate) use self::machine::{CompletionsArgs, DoctorArgs, SetupArgs};
pub(crate) use self::results::{FetchArgs, OutputArgs, PurgeArgs, ShowArgs, TailArgs, WaitArgs};
pub(crate) use self::submit::{FilesArgs, FollowArgs, RerunArgs, RunArgs, SubmitArgs, WorkflowRunArgs, outputs};

/// Submit jobs to the cluster, and fetch, keep and show their results
///
/// Results are stored in the inbox, a directory on this machine, before the queue may forget them. Settings come from
/// flags, the environment, the file .env and defaults, in this order. Each may also be named HPC_QUEUE_NAME, which goes
/// first. A length of time is written as 90s, 15m or 1h30m; a plain number is seconds. Standard output holds results
/// and nothing else.
///
/// Where PRODUCER_URL and API_KEY lead to an edge with a hub, that tells how far jobs are, from any laptop.
///
/// Exit codes: 0 all is well; 1 something failed; 2 wrong arguments or settings; 3 the job failed, everything around
/// it worked; 4 there is no such result here, or no hub for this; 75 not now, try again later; 130 a wait was
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
    ///
    /// Files go with the job, of any size, through the store of files behind the edge: what is there already is not
    /// sent again, and what was interrupted is gone on with by the same command. An input that is too large for the
    /// queue goes as a file by itself; the task does not notice.
    ///
    /// With --from, each line of a file is the input of a job. All lines are read before anything is sent, and what is
    /// wrong is told with its line. The same lines with the same options are the same jobs: the same command again goes
    /// on where it was interrupted, sends what is new in the file, and nothing twice.
    #[command(after_help = "Examples:\n  laptop-consumer submit --task simulate --input @params.json --wait\n  \
                      laptop-consumer submit --task simulate --from sweep.csv --id > jobs.txt\n  \
                      laptop-consumer submit --task fit --file in.melt --file big.dat:data/big.dat \\\n    \
                      --output 'plots/*.png' --wait --fetch=results")]
    Submit(Box<SubmitArgs>),
    /// Run a command on the cluster, print what it prints, and end as it does
    ///
    /// It is a job of the task `command`, which the site's file must have. The command runs in the job directory, with
    /// the files that were named beside it. What it prints comes when it has ended; what it leaves comes with --output
    /// and --fetch.
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
    /// on the free plan each look counts. Where a hub tells that jobs have ended, it looks then, and otherwise every
    /// two minutes.
    #[command(after_help = "Example:\n  laptop-consumer tail --output json > results.ndjson")]
    Tail(TailArgs),
    /// Wait for the results of jobs and print them as they come
    ///
    /// Looks into the inbox first, then at the queue. Results of other jobs that arrive meanwhile are stored and not
    /// printed. Ends with 0 when all jobs completed, 3 when one failed, 75 when the time is over. Ctrl-C ends the
    /// waiting, with 130, and no job.
    ///
    /// Where there is a hub, it tells when a job has ended, and the queue is looked at then. A result that the queue
    /// does not give within ten seconds of that, because another laptop has fetched it, is taken from the hub.
    ///
    /// Any number of `wait` and `tail` may run with one inbox: one of them looks at the queue, for all.
    #[command(after_help = "Examples:\n  laptop-consumer wait last --timeout 3600\n  laptop-consumer wait --all\n  \
                            laptop-consumer wait @jobs.ndjson > results.ndjson")]
    Wait(WaitArgs),
    /// Print how far jobs are, a word for each; without jobs, whether anybody works
    ///
    /// The words are: unknown, queued, held, running, completed, failed, cancelled. Of one job, its word is all that is
    /// printed; of several, each has a line: its id, a tab, its word. A result in the inbox is the last word on its
    /// job; of others the hub of the edge tells. Where there is no hub, a job is `queued` from its submission here
    /// until its result is here, and a job that was not submitted here is `unknown`; `hpc-consumer status` on the
    /// cluster knows more.
    ///
    /// Without jobs it needs a hub: it prints which sites are linked and what they do, what waits in the queue, and
    /// which pools are not ready, and why.
    ///
    /// Ends with 0 when all is printed, also `failed` and `unknown`, and with 4 without jobs where there is no hub.
    #[command(after_help = "Examples:\n  laptop-consumer status last\n  laptop-consumer status")]
    Status(StatusArgs),
    /// List the jobs that were submitted here, those whose results are here, and those of the hub
    ///
    /// A result in the inbox is the last word on its job; of others the hub of the edge tells, also of jobs that were
    /// submitted elsewhere: of the newest 1,000 that fit, or of as many as --limit says. Where there is no hub, a job
    /// is `queued` from its submission here until its result is here. On the cluster `hpc-consumer jobs` lists what is
    /// held and runs there.
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  laptop-consumer jobs --state queued\n  laptop-consumer jobs --since 1d --limit 20"
    )]
    Jobs(ListArgs),
    /// Print what a job has printed, on the stream on which it did, and with --follow what it prints
    ///
    /// With a result comes the end of what the job has printed when it failed, and when it completed without an output;
    /// of the task `command` all of it. Where no result here has it, the hub of the edge has the end of it, also while
    /// the job runs. On the cluster `hpc-consumer logs` has everything. A terminal gets no control characters.
    ///
    /// With --follow it goes on until the job has ended, through all attempts and broken connections. Ends with 0 when
    /// it is printed, if the job has printed anything, with 4 when nothing of it is here or at a hub, with 75 when the
    /// hub does not answer, and with 130 by Ctrl-C, which ends no job.
    #[command(
        after_help = "Examples:\n  laptop-consumer logs last --stream stderr\n  laptop-consumer logs 67995bdb -f"
    )]
    Logs(LogsArgs),
    /// Print the stored result of a job
    ///
    /// Looks only into the inbox; but an output that was too large to come with the result comes from the store of
    /// files behind the edge, up to 16 MB of it. For a person the jobs that it has asked for, or the tasks of a
    /// workflow, are drawn below, with their times, where the edge has a hub; also while it goes on. Ends with 0 when
    /// the job completed, 3 when it failed, 4 when its result is not here.
    #[command(after_help = "Example:\n  laptop-consumer show 67995bdb-e88f-84f3-982a-a41723a075bc --output json")]
    Show(ShowArgs),
    /// Print the output of a job alone, whole, or write it into a file
    ///
    /// It is the content of its output.json: as it came with the result, or, where it was too large for that, from the
    /// store of files behind the edge. A result that is not here is asked of the hub. Ends with 0 when the job
    /// completed, 3 when it failed, 4 when there is no output, or no result yet.
    #[command(after_help = "Examples:\n  laptop-consumer output last | jq .mean\n  \
                            laptop-consumer output 67995bdb -o result.json")]
    Output(OutputArgs),
    /// Submit jobs again: the same task, input, files and options, as new jobs
    ///
    /// What is sent is what was noted here when the job was submitted; its files are those that the store of files has.
    /// Of a job that was submitted elsewhere, the hub of the edge knows task, input, name and pool. Nothing is asked,
    /// and nothing happens to the earlier jobs. Prints a line for each new job: its id, and which job it is again. Of a
    /// workflow that has not completed, only those tasks run that are not done (see --anew).
    ///
    /// With --failed, all jobs of this inbox that failed, but for those that were submitted again already; the same
    /// command again sends nothing twice.
    #[command(after_help = "Examples:\n  laptop-consumer rerun last\n  \
                            laptop-consumer rerun --failed --task simulate --since 1d")]
    Rerun(RerunArgs),
    /// Remove results, and what else is here of their jobs, from the inbox
    ///
    /// Jobs that are named go as they are, also before they have a result: they are forgotten here, and go on. Without
    /// names, jobs go whose results are here, and what --older-than and --state say must all be so. A person at the
    /// terminal is asked; elsewhere it takes --yes. Files that were fetched stay, and so does what is on the cluster.
    #[command(after_help = "Examples:\n  laptop-consumer purge --older-than 30d\n  \
                            laptop-consumer purge --state failed,cancelled --older-than 1d --yes")]
    Purge(PurgeArgs),
    /// Fetch the files that jobs have left, from the store of files behind the edge
    ///
    /// With several jobs, each has a directory of its name. Words with `*`, `?`, `/` or a dot in them are patterns of
    /// files (plots/ is a directory), all others are jobs; without a pattern, all files come. A large output.json comes
    /// as a file as well. What is here already does not come again, what was interrupted is gone on with by the same
    /// command, all is verified, and no file that is another is written over. Prints a line for each file.
    ///
    /// Ends with 0 when all is here, with 4 when a job has no result or a file is not there any more, with 75 when edge
    /// or store do not answer, with 130 by Ctrl-C.
    #[command(after_help = "Examples:\n  laptop-consumer fetch last\n  \
                            laptop-consumer fetch 67995bdb 'plots/*.png' -o results")]
    Fetch(FetchArgs),
    /// Cancel jobs, by the hub of the edge: those that are named, or all that fit
    ///
    /// A job that waits has its result at once, one that runs is ended, and one that is still in the queue is not run.
    /// Their results say `cancelled`. Of each job that had ended this is said. What --state, --task, --pool and --name
    /// say must all be so. Jobs that are not named by their ids are counted first, and a person at the terminal is
    /// asked; elsewhere it takes --yes.
    ///
    /// Ends with 0 when all are to be canceled, or had ended; with 4 where there is no hub: then it says which command
    /// does it on the cluster; with 75 when the hub does not answer.
    #[command(after_help = "Examples:\n  laptop-consumer cancel last\n  \
                            laptop-consumer cancel --state held --task simulate")]
    Cancel(CancelArgs),
    /// Look for what keeps results from coming, and say what to do about it
    ///
    /// Prints a line for each check: settings, token and account, the queue of the results and what reads it, clock,
    /// inbox and room, edge and hub, whether a site is linked. It takes no result, and works beside other commands.
    ///
    /// With --fix it first makes at Cloudflare what is missing, after it was shown and agreed to: the queues, their
    /// HTTP pull consumers with 100 retries and a dead letter queue, and 14 days of retention where the plan allows it.
    /// It needs CF_ACCOUNT_ID and CF_QUEUES_API_TOKEN alone, prints the ids that belong into the settings, and takes
    /// nothing away.
    ///
    /// Ends with 0 when there is no failure, warnings or not, and with 1 when there is one.
    #[command(
        after_help = "Examples:\n  laptop-consumer doctor\n  laptop-consumer doctor --fix\n  laptop-consumer doctor --output json"
    )]
    Doctor(DoctorArgs),
    /// Ask five questions, and write the answers into a settings file; the first command of a newcomer
    ///
    /// It asks for the edge and its key, the account and its token, and the queue of the results, whose id it looks up
    /// by its name. What a flag says is not asked, and what is set already is the answer to an empty line; where nobody
    /// can be asked, all must be there. Nothing that is there is changed before you agree: of a settings file, other
    /// lines stay. In the end it says what `doctor` does, and which command is the next one.
    ///
    /// Ends with 0 when all is written and well, with 1 when the doctor has found a failure or you have not agreed.
    #[command(
        after_help = "Examples:\n  laptop-consumer setup\n  laptop-consumer setup --file ~/hpc-queue.env \\\n    \
                            --producer-url https://hpc-queue-producer.you.workers.dev --api-key-file key.txt \\\n    \
                            --cf-account-id 0123456789abcdef0123456789abcdef --token-file token.txt"
    )]
    Setup(Box<SetupArgs>),
    /// Install, start, stop and look at `tail` as a service, which fetches results whenever you are logged in
    ///
    /// There is one service for each user. Without it, results wait in the queue until `tail`, `wait` or `pull`.
    #[command(
        subcommand,
        after_help = "Examples:\n  laptop-consumer service install --env-file ~/hpc-queue.env\n  laptop-consumer service status"
    )]
    Service(ServiceCommand),
    /// Print what completes the arguments of this program in a shell, ids of jobs included
    ///
    /// A release has it already, where shells look for it. The ids are those of the inbox, the newest first.
    #[command(
        after_help = "Examples:\n  source <(laptop-consumer completions bash)\n  laptop-consumer completions fish > ~/.config/fish/completions/laptop-consumer.fish"
    )]
    Completions(CompletionsArgs),
    /// Print the ids of jobs, for completions
    #[command(hide = true)]
    Ids,
    /// Check, show and run workflows: graphs of tasks, in WfFormat 1.5 or HyperFlow's workflow.json
    ///
    /// A document has for each task what it runs, which files it reads and writes, and for which others it waits.
    /// `check` and `show` read the file alone, and ask nobody.
    #[command(
        subcommand,
        after_help = "Examples:\n  laptop-consumer workflow check montage.json\n  laptop-consumer workflow show montage.json"
    )]
    Workflow(WorkflowCommand),
    /// Write man pages and completions of shells into a folder, which releases have
    #[command(hide = true)]
    Reference(ReferenceArgs),
}

/// What to do with the document of a workflow.
#[derive(Subcommand)]
pub(crate) enum WorkflowCommand {
    /// Tell all that is wrong with a workflow, at once
    ///
    /// Each mistake is a line on standard error, with the file and the task. Ends with 0 for a workflow, and with 2
    /// when something is wrong with it, or it cannot be read.
    #[command(after_help = "Example:\n  laptop-consumer workflow check montage.json")]
    Check {
        /// The document, or - for standard input
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// Print what a workflow is made of
    ///
    /// Tasks by name, levels, a longest way, the files that have to be brought, and those that no task reads, which are
    /// the results. With --output json all of them are named. Ends with 2, as `check` does, where it is no workflow.
    #[command(after_help = "Example:\n  laptop-consumer workflow show montage.json --output json")]
    Show {
        /// The document, or - for standard input
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// Submit a workflow as one job, with the files that it needs
    ///
    /// It is checked first. What its tasks read and none writes is taken from the directory of the document, or from
    /// --dir, and goes along. Without --output PATTERN, what no task reads is wanted back, as far as these are no more
    /// than 100 files. The site says by --task which of its tasks runs workflows.
    ///
    /// Ends as `submit` does: with --wait, with 0 when every task is done, and with 3 when one has failed.
    #[command(
        after_help = "Example:\n  laptop-consumer workflow run montage.json --task montage --wait --fetch=mosaic"
    )]
    Run(Box<WorkflowRunArgs>),
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
        for command in cli.get_subcommands().filter(|command| command.get_name() != "help" && !command.is_hide_set()) {
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
