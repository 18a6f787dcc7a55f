//! The commands, one module each.

mod cancel;
mod doctor;
mod fetch;
mod hub;
mod ids;
mod jobs;
mod list;
mod logs;
mod output;
mod pull;
mod purge;
mod rerun;
mod run;
mod service;
mod setup;
mod several;
mod show;
mod status;
mod submit;
mod submit_from;
mod tail;
mod tree;
mod wait;
mod workflow;

use client::{Arrived, Follower, Patience, Received, Receiver, ResultsQueue};
use program::{Exit, Failure, Printer};
use protocol::JobResult;
use queues::UnusableUrl;

pub(crate) use self::service::ServiceCommand;
use crate::cli::{Cli, Command, WorkflowCommand};
use crate::config::{CommonArgs, QueueArgs, http_client};

/// Runs the command that was given.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let mut printer = Printer::new(cli.common.format(), "laptop-consumer show");
    let submits =
        matches!(cli.command, Command::Submit(_) | Command::Run(_) | Command::Workflow(WorkflowCommand::Run(_)));
    if !submits {
        cli.common.no_patterns()?;
    }
    match cli.command {
        Command::Submit(args) => submit::run(&cli.common, *args, &mut printer).await,
        Command::Run(args) => run::run(&cli.common, *args, &mut printer).await,
        Command::Pull(args) => pull::run(&cli.common, &args, &mut printer).await,
        Command::Tail(args) => tail::run(&cli.common, &args, &mut printer).await,
        Command::Wait(args) => wait::run(&cli.common, &args, &mut printer).await,
        Command::Status(args) => status::run(&cli.common, &args, &mut printer).await,
        Command::Jobs(args) => list::run(&cli.common, &args, &mut printer).await,
        Command::Logs(args) => logs::run(&cli.common, &args).await,
        Command::Show(args) => show::run(&cli.common, &args, &mut printer).await,
        Command::Output(args) => output::run(&cli.common, &args).await,
        Command::Rerun(args) => rerun::run(&cli.common, &args, &mut printer).await,
        Command::Purge(args) => purge::run(&cli.common, &args, &mut printer).await,
        Command::Fetch(args) => fetch::run(&cli.common, &args, &mut printer).await,
        Command::Doctor(args) => doctor::run(&cli.common, &args, &mut printer).await,
        Command::Cancel(args) => cancel::run(&cli.common, &args, &mut printer).await,
        Command::Setup(args) => setup::run(&cli.common, &args).await,
        Command::Service(command) => service::run(&cli.common, command).await,
        Command::Completions(args) => ids::script(&args),
        Command::Ids => ids::ids(&cli.common),
        Command::Workflow(command) => workflow::run(&cli.common, command, &mut printer).await,
        Command::Reference(args) => args.write::<Cli>().map(|()| Exit::Ok),
    }
}

fn receiver(common: &CommonArgs, queue: ResultsQueue) -> anyhow::Result<Receiver> {
    let usage = |error: UnusableUrl| Failure::with(Exit::Usage, error.to_string());
    let http = http_client(&queue.endpoint.address().map_err(usage)?)?;
    Receiver::new(http, queue, common.inbox()?).map_err(usage)
}

/// What looks at the queue in turns with other programs of this inbox.
fn follower(common: &CommonArgs, queue: &QueueArgs, patience: Patience) -> anyhow::Result<Follower> {
    let receiver = receiver(common, queue.complete(common)?)?;
    Ok(Follower::new(receiver, queue.poll_interval(), patience))
}

/// Prints what is new, and ends the program when something could not be stored.
fn print_new(received: Received, printer: &mut Printer) -> anyhow::Result<Vec<JobResult>> {
    for arrived in &received.new {
        printer.result(&arrived.result, &arrived.line())?;
    }
    let results = received.new.into_iter().map(|arrived| arrived.result).collect();
    received.failure.map_or(Ok(results), |error| Err(error.into()))
}

/// Prints the result of the one job that was asked for; the exit code says how it ended.
fn print_one(arrived: &Arrived, printer: &mut Printer) -> anyhow::Result<Exit> {
    printer.result(&arrived.result, &arrived.line())?;
    Ok(Exit::of(&arrived.result))
}

/// Tells the person at the terminal something that is neither a result nor an error.
fn note(text: &str) {
    program::say(text);
}
