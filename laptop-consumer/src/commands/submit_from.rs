//! `submit --from`: a job for each line of a file.
//!
//! Invariant: nothing is sent before all lines are read and fit; and which jobs the lines are follows from them alone
//! (`client::many`), so that the same command again sends what is missing and nothing else.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use client::Patience;
use client::many::Keys;
use program::{Exit, Failure, Printer, counted};
use protocol::{JobId, JobSpec, Json};
use serde_json::json;

use super::several::{self, Outgoing, SAME_COMMAND};
use super::submit::{JOB_BYTES_MAX, bytes_of, checked_key, gathered, metadata, send};
use super::{follower, hub, note, wait};
use crate::cli::SubmitArgs;
use crate::config::{CommonArgs, hub_of};
use crate::lines::{Form, Line};

/// A larger file is no list of inputs.
const FILE_BYTES_MAX: u64 = 64_000_000;

/// A key has so many digits.
const KEY_BYTES: usize = 60;

/// A job of a line.
struct Planned {
    line: Line,
    key: String,
    /// The id that an edge gives to this key.
    job_id: JobId,
    bytes: usize,
}

pub(super) async fn run(
    common: &CommonArgs,
    from: &Path,
    mut args: SubmitArgs,
    printer: &mut Printer,
) -> anyhow::Result<Exit> {
    let edge = args.follow.edge.complete(common)?;
    let lines = read(from)?;
    let word = args.job.idempotency_key.take().map_or_else(|| Ok(String::new()), checked_key)?;
    let mut job = args.job.spec(std::mem::take(&mut args.task), Json::null(), metadata(&args)?);
    job.outputs = args.files.outputs(common.patterns())?;
    let gathered = gathered(&args.files)?;
    let follower =
        if args.follow.wait { Some(follower(common, &args.follow.queue, Patience::OF_A_WAIT)?) } else { None };
    // Before the files are sent, as far as it can be told by then.
    fits(&lines, &job, from)?;
    let inbox = common.inbox()?;
    if send(common, &edge, &mut job, &gathered, None).await? == Exit::Interrupted {
        return Ok(Exit::Interrupted);
    }
    fits(&lines, &job, from)?;
    let planned = plan(lines, &job, &word);
    let total = planned.len();
    let (before, new): (Vec<Planned>, Vec<Planned>) =
        planned.into_iter().partition(|planned| inbox.has_submitted(&planned.job_id));
    if !before.is_empty() {
        note(&format!(
            "{} of {} were submitted before, with the same options, and are not sent again; for new jobs of the same \
             lines, give --idempotency-key and any word",
            before.len(),
            counted(total, "line")
        ));
    }
    let mut jobs: Vec<(u64, JobId)> = Vec::new();
    for planned in before {
        print(&args, printer, "known", planned.line.number, &planned.job_id)?;
        jobs.push((planned.line.number, planned.job_id));
    }
    let outgoing: Vec<Outgoing> = new.iter().map(outgoing).collect();
    let job_of = |place: usize| {
        let Planned { line, key, .. } = &new[place];
        JobSpec { input: line.input.clone(), idempotency_key: Some(key.clone()), ..job.clone() }
    };
    let sent = several::send(&edge, &inbox, &outgoing, SAME_COMMAND, job_of, |place, queued| {
        print(&args, printer, "queued", new[place].line.number, &queued.job_id)
    });
    let sent = sent.await?;
    jobs.extend(new.iter().zip(sent.queued).filter_map(|(planned, job_id)| Some((planned.line.number, job_id?))));
    jobs.sort_unstable_by_key(|(number, _)| *number);
    if sent.exit == Exit::Interrupted {
        return Ok(Exit::Interrupted);
    }
    let Some(mut follower) = follower else {
        if printer.is_human() && !args.follow.id {
            let text = counted(jobs.len(), "job");
            let is = if jobs.len() == 1 { "is" } else { "are" };
            printer.text(&format!("{text} {is} submitted; `laptop-consumer wait --all` waits for all results\n"))?;
        }
        return Ok(sent.exit);
    };
    let jobs: Vec<JobId> = jobs.into_iter().map(|(_, job_id)| job_id).collect();
    hub::listen(&mut follower, Some(hub_of(&edge)?), &jobs);
    let exit = wait::for_results(follower, &inbox, jobs, args.follow.timeout, printer).await?;
    Ok(if exit == Exit::Ok { sent.exit } else { exit })
}

/// What is printed of a job. With --wait its result is printed alone, and for people on a terminal the sum.
fn print(args: &SubmitArgs, printer: &mut Printer, status: &str, line: u64, job_id: &JobId) -> anyhow::Result<()> {
    if args.follow.wait || (printer.is_human() && !args.follow.id) {
        return Ok(());
    }
    if args.follow.id {
        return printer.id(job_id);
    }
    printer.json(&json!({"status": status, "job_id": job_id, "line": line}).to_string())
}

fn outgoing(planned: &Planned) -> Outgoing {
    Outgoing { what: format!("line {}", planned.line.number), bytes: planned.bytes, rerun_of: None }
}

/// The inputs in a file, or on standard input.
fn read(from: &Path) -> anyhow::Result<Vec<Line>> {
    let usage = |why: String| Failure::usage(format!("--from {}: {why}", from.display()));
    let form = Form::of(from).map_err(usage)?;
    let mut bytes = Vec::new();
    let mut read_from = |source: &mut dyn Read| source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    let read = match from.to_str() {
        Some("-") => read_from(&mut io::stdin().lock()),
        _ => File::open(from).and_then(|mut file| read_from(&mut file)),
    };
    read.map_err(|error| usage(format!("it cannot be read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(usage(format!("it has more than {FILE_BYTES_MAX} bytes; split it into several files")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        usage(format!("line {line} is not UTF-8"))
    })?;
    form.read(&text).map_err(usage)
}

/// Does each job fit into a message? Each line has the same options.
fn fits(lines: &[Line], job: &JobSpec, from: &Path) -> anyhow::Result<()> {
    let rest = bytes_of(job) + KEY_BYTES;
    match lines.iter().find(|line| rest + line.input.as_str().len() > JOB_BYTES_MAX) {
        None => Ok(()),
        Some(line) => Err(Failure::usage(format!(
            "--from {}: line {} is a job of {} bytes, and no more than {JOB_BYTES_MAX} travel; submit it by itself, with \
             --input @FILE, which takes any size",
            from.display(),
            line.number,
            rest + line.input.as_str().len()
        ))),
    }
}

fn plan(lines: Vec<Line>, job: &JobSpec, word: &str) -> Vec<Planned> {
    let mut keys = Keys::new(word);
    let rest = bytes_of(job) + KEY_BYTES;
    let plan = |line: Line| {
        let key = keys.of_next(&JobSpec { input: line.input.clone(), ..job.clone() });
        let job_id = JobId::from_idempotency_key(&key, None);
        Planned { bytes: rest + line.input.as_str().len(), line, key, job_id }
    };
    lines.into_iter().map(plan).collect()
}
