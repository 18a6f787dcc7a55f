//! `run`: a command on the cluster as if it were here, by the task `command`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use client::upload::{Found, Gathered};
use client::{Arrived, Patience, Waiting};
use program::{Exit, Failure, Printer, Stream};
use protocol::Json;

use super::fetch::whole;
use super::submit::{JOB_BYTES_MAX, bytes_of, fetched, gathered, send, submitted, until_result};
use super::{follower, hub, note};
use crate::cli::RunArgs;
use crate::command_task::{CommandInput, CommandOutput, TASK};
use crate::config::{CommonArgs, hub_of, store_of};

pub(super) async fn run(common: &CommonArgs, args: RunArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    let edge = args.edge.complete(common)?;
    let stdin = args.stdin.as_deref().map(|path| match path.to_str() {
        Some("-") => text("standard input", Ok(io::stdin())),
        _ => text(&path.display().to_string(), File::open(path)),
    });
    let stdin = stdin.transpose()?;
    let mut gathered = gathered(&args.files)?;
    let job = |files: BTreeMap<String, String>| {
        let input = CommandInput { argv: args.argv.clone(), files, stdin: stdin.clone() };
        let input = Json::from_serialize(&input).expect("it holds only strings");
        args.job.spec(TASK.to_owned(), input, None)
    };
    // What is small goes with the job, and needs no store of files.
    let with_it = texts(&gathered).map(&job).filter(|job| bytes_of(job) <= JOB_BYTES_MAX);
    let mut job = match with_it {
        Some(with_it) => {
            gathered = Gathered::default();
            with_it
        }
        None => job(BTreeMap::new()),
    };
    job.outputs = args.files.outputs(common.patterns())?;
    // Whether the result can be fetched is known before anything is sent.
    let follower = if args.no_wait { None } else { Some(follower(common, &args.queue, Patience::OF_A_WAIT)?) };
    if send(common, &edge, &mut job, &gathered, None).await? == Exit::Interrupted {
        return Ok(Exit::Interrupted);
    }
    let queued = submitted(common, &edge, &job, args.job.idempotency_key.clone()).await?;
    let Some(mut follower) = follower else {
        printer.id(&queued.job_id)?;
        return Ok(Exit::Ok);
    };
    hub::listen(&mut follower, Some(hub_of(&edge)?), std::slice::from_ref(&queued.job_id));
    let (exit, came) = until_result(Waiting::new(follower, vec![queued.job_id]), args.timeout).await?;
    let Some(arrived) = came else { return Ok(exit) };
    let arrived = whole(common, store_of(&edge), arrived).await;
    let exit = print_command(&arrived)?;
    match &args.fetch {
        Some(into) => fetched(&edge, &arrived, into, exit).await,
        None => Ok(exit),
    }
}

/// Files as text, by their names in the job directory, if all of them are text that may fit into a message.
fn texts(gathered: &Gathered) -> Option<BTreeMap<String, String>> {
    let mut left = JOB_BYTES_MAX as u64;
    let text = |found: &Found| {
        left = left.checked_sub(found.size)?;
        let mut bytes = Vec::new();
        File::open(&found.from).ok()?.take(JOB_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).ok()?;
        Some((found.path.to_string(), String::from_utf8(bytes).ok()?))
    };
    gathered.singles()?.iter().map(text).collect()
}

/// The text of standard input. More than fits into a message is not read.
fn text(what: &str, from: io::Result<impl Read>) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = from.and_then(|from| from.take(JOB_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| usage(format!("--stdin: cannot read {what}: {error}")))?;
    if bytes.len() > JOB_BYTES_MAX {
        return Err(usage(format!(
            "--stdin: {what} has more than {JOB_BYTES_MAX} bytes, and travels with the job, which has no more than \
             these; {ADVICE}"
        )));
    }
    String::from_utf8(bytes)
        .map_err(|_| usage(format!("--stdin: {what} is not text (UTF-8), and only text travels so; {ADVICE}")))
}

const ADVICE: &str = "send it with --file, and have the command read it";

/// Prints what the command has printed, and ends as it did.
fn print_command(arrived: &Arrived) -> anyhow::Result<Exit> {
    let result = &arrived.result;
    let job_id = &result.job_id;
    let exit = Exit::of(result);
    let Some(output) = CommandOutput::of(result) else {
        for (stream, tail) in [(Stream::Stdout, &result.stdout_tail), (Stream::Stderr, &result.stderr_tail)] {
            stream.pass_on(tail.as_deref().unwrap_or_default().as_bytes())?;
        }
        let message = result.message.as_deref().unwrap_or("its result does not say why");
        let pointer = &result.result_pointer;
        note(&match exit {
            Exit::Ok => format!(
                "the job {job_id} has completed, and how the command ended did not come along: {message}; {pointer}"
            ),
            _ => format!("the job {job_id} failed, and how the command ended is not known: {message}"),
        });
        return Ok(Exit::JobFailed);
    };
    Stream::Stdout.pass_on(output.stdout.as_bytes())?;
    Stream::Stderr.pass_on(output.stderr.as_bytes())?;
    if let Some(left_out) = output.left_out(job_id) {
        note(&left_out);
    }
    Ok(match output.shell_code() {
        0 if exit != Exit::Ok => {
            note(&format!("the job {job_id} failed: {}", result.message.as_deref().unwrap_or_default()));
            exit
        }
        code => Exit::Command(code),
    })
}

fn usage(message: String) -> anyhow::Error {
    Failure::with(Exit::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_command_ended_is_how_the_program_ends() {
        let end = |text: &str| {
            let text = format!(r#"{{"job_id":"j",{text}}}"#);
            print_command(&Arrived::parse(text).unwrap()).unwrap().code()
        };
        let completed = r#""status":"completed","task":"command""#;
        assert_eq!(end(&format!(r#"{completed},"output":{{"exit_code":0}}"#)), 0);
        assert_eq!(end(&format!(r#"{completed},"output":{{"exit_code":7}}"#)), 7);
        assert_eq!(end(completed), 3, "its output was too large");
        let failed = r#""status":"failed","task":"command","reason":"exit""#;
        assert_eq!(end(failed), 3);
        assert_eq!(end(&format!(r#"{failed},"output":{{"exit_code":9}}"#)), 9, "the task ends as its command does");
        assert_eq!(end(&format!(r#"{failed},"output":{{"exit_code":0}}"#)), 3, "it is no success");
    }
}
