//! `run`: a command on the cluster as if it were here, by the task `command`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use client::{Arrived, Patience, Waiting};
use program::{Exit, Failure, Printer, Stream};
use protocol::{JobSpec, Json, limits};

use super::submit::{submitted, until_result};
use super::{follower, hub, note};
use crate::cli::RunArgs;
use crate::command_task::{CommandInput, CommandOutput, TASK};
use crate::config::{CommonArgs, hub_of};

/// What the edge adds to a job when it makes a message of it: id, time, version.
const MESSAGE_FIELDS_BYTES: usize = 200;

/// The largest job that surely fits into a message.
const JOB_BYTES_MAX: usize = limits::MESSAGE_BODY_BYTES_MAX - MESSAGE_FIELDS_BYTES;

/// What a job directory has of its own.
const TAKEN_NAMES: [&str; 5] = ["input.json", "output.json", "meta.json", "stdout.log", "stderr.log"];

pub(super) async fn run(common: &CommonArgs, args: RunArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    let edge = args.edge.complete(common)?;
    let (job, sizes) = job(&args)?;
    too_large(&job, &sizes)?;
    // Whether the result can be fetched is known before anything is sent.
    let follower = if args.no_wait { None } else { Some(follower(common, &args.queue, Patience::OF_A_WAIT)?) };
    let queued = submitted(common, &edge, &job, args.job.idempotency_key.clone()).await?;
    let Some(mut follower) = follower else {
        printer.id(&queued.job_id)?;
        return Ok(Exit::Ok);
    };
    hub::listen(&mut follower, Some(hub_of(&edge)?), std::slice::from_ref(&queued.job_id));
    until_result(Waiting::new(follower, vec![queued.job_id]), args.timeout, &mut print_command).await
}

/// The job, and how large its parts are.
fn job(args: &RunArgs) -> anyhow::Result<(JobSpec, Vec<(String, usize)>)> {
    let mut files = BTreeMap::new();
    let mut sizes = Vec::new();
    for path in &args.files {
        let name = name_of(path)?;
        let text = text("--file", &path.display().to_string(), File::open(path))?;
        sizes.push((name.clone(), text.len()));
        if files.insert(name.clone(), text).is_some() {
            return Err(usage(format!(
                "--file {}: there is another file of the name {name}, and both would be {name} in the job directory; \
                 rename one",
                path.display()
            )));
        }
    }
    let stdin = args.stdin.as_deref().map(|path| match path.to_str() {
        Some("-") => text("--stdin", "standard input", Ok(io::stdin())),
        _ => text("--stdin", &path.display().to_string(), File::open(path)),
    });
    let stdin = stdin.transpose()?;
    sizes.extend(stdin.iter().map(|text| ("standard input".to_owned(), text.len())));
    let input = CommandInput { argv: args.argv.clone(), files, stdin };
    let input = Json::from_serialize(&input).expect("it holds only strings");
    Ok((args.job.spec(TASK.to_owned(), input, None), sizes))
}

/// The name of a file in the job directory: its path from here, where that leads down, and otherwise its own name.
fn name_of(path: &Path) -> anyhow::Result<String> {
    let path_from_here: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    let leads_down = path_from_here.components().all(|part| matches!(part, Component::Normal(_)));
    let name = if leads_down { path_from_here.to_str() } else { path.file_name().and_then(|name| name.to_str()) };
    let name = name.filter(|name| !name.is_empty() && !name.chars().any(char::is_control)).ok_or_else(|| {
        usage(format!("--file {}: it has no name that a file in the job directory can have", path.display()))
    })?;
    if TAKEN_NAMES.contains(&name) {
        return Err(usage(format!(
            "--file {}: every job directory has a {name} of its own; give it another name",
            path.display()
        )));
    }
    Ok(name.to_owned())
}

/// The text of a file. More than fits into a message is not read.
fn text(flag: &str, what: &str, from: io::Result<impl Read>) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = from.and_then(|from| from.take(JOB_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| usage(format!("{flag}: cannot read {what}: {error}")))?;
    if bytes.len() > JOB_BYTES_MAX {
        return Err(usage(format!(
            "{flag}: {what} has more than {JOB_BYTES_MAX} bytes, and a job with all of its files has no more than these; \
             {ADVICE}"
        )));
    }
    String::from_utf8(bytes)
        .map_err(|_| usage(format!("{flag}: {what} is not text (UTF-8), and only text travels with a job; {ADVICE}")))
}

const ADVICE: &str = "put it where the cluster can read it, and name its path";

fn too_large(job: &JobSpec, sizes: &[(String, usize)]) -> anyhow::Result<()> {
    let bytes = serde_json::to_string(job).expect("a job holds only strings, numbers and JSON").len();
    if bytes <= JOB_BYTES_MAX {
        return Ok(());
    }
    let mut parts = String::new();
    for (name, size) in sizes {
        let _ = write!(parts, "{name} has {size}, ");
    }
    Err(usage(format!(
        "the job has {bytes} bytes as JSON, and no more than {JOB_BYTES_MAX} travel: {parts}the rest is the command and \
         what JSON adds; put what is large where the cluster can read it, and name its path"
    )))
}

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
    fn names_are_those_of_plain_files() {
        let name = |path: &str| name_of(Path::new(path)).map_err(|error| error.to_string());
        for (path, named) in
            [("./src/x.py", "src/x.py"), ("x.py", "x.py"), ("/home/me/x.py", "x.py"), ("../x.py", "x.py")]
        {
            assert_eq!(name(path).as_deref(), Ok(named));
        }
        for (path, says) in [("..", "no name"), ("/", "no name"), ("a\nb", "no name"), ("output.json", "another name")]
        {
            assert!(name(path).unwrap_err().contains(says), "{path}");
        }
    }

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
