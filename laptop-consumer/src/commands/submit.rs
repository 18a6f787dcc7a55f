//! `submit`: one job, and with `--wait` its result.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use client::upload::{self, Gathered, Input};
use client::{Arrived, Edge, Patience, Queued, Waiting, submit};
use program::{Exit, Failure, Printer};
use protocol::{JobSpec, Json, limits};
use serde::de::IgnoredAny;

use super::fetch::{Fetches, needs_store, whole};
use super::wait::{Results, until_here};
use super::{follower, hub, note, print_one, submit_from};
use crate::cli::{FilesArgs, FollowArgs, SubmitArgs};
use crate::config::{CommonArgs, http_client, hub_of, store_of};
use crate::meter::Meter;
use crate::stop::Stop;

/// The most that is read of a file. White space in JSON does not travel, so this is more generous than the edge.
const FILE_BYTES_MAX: u64 = 16_000_000;

/// The largest job that surely fits into a message.
pub(super) const JOB_BYTES_MAX: usize = limits::MESSAGE_BODY_BYTES_MAX - MESSAGE_FIELDS_BYTES;

/// What the edge adds to a job when it makes a message of it: id, time, version.
const MESSAGE_FIELDS_BYTES: usize = 200;

/// As much a file has in a message besides its path: its size, its SHA-256, and the names of these.
const FILE_FIELDS_BYTES: usize = 150;

pub(super) async fn run(common: &CommonArgs, args: SubmitArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    if let Some(from) = args.from.clone() {
        return submit_from::run(common, &from, args, printer).await;
    }
    // All settings are checked before anything is sent: a job whose result cannot be fetched would be a surprise.
    let edge = args.follow.edge.complete(common)?;
    let input = args.input.as_deref().map(|value| input("--input", value, io::stdin())).transpose()?;
    let metadata = metadata(&args)?;
    let (input, input_file) = match input.unwrap_or_default() {
        GivenInput::Here(input) => (input, None),
        GivenInput::File(path) => (Json::null(), Some(Input::File(path))),
    };
    let mut job = args.job.spec(args.task, input, metadata);
    job.outputs = args.files.outputs(common.patterns())?;
    let gathered = gathered(&args.files)?;
    let key = args.job.idempotency_key;
    submit_and_follow(common, &edge, job, (&gathered, input_file), key, &args.follow, printer).await
}

/// Submits a job with its files, and its input where that is a file, and waits for its result where that is wanted.
pub(super) async fn submit_and_follow(
    common: &CommonArgs,
    edge: &Edge,
    mut job: JobSpec,
    (gathered, input_file): (&Gathered, Option<Input>),
    key: Option<String>,
    args: &FollowArgs,
    printer: &mut Printer,
) -> anyhow::Result<Exit> {
    let follower = if args.wait { Some(follower(common, &args.queue, Patience::OF_A_WAIT)?) } else { None };
    if send(common, edge, &mut job, gathered, input_file).await? == Exit::Interrupted {
        return Ok(Exit::Interrupted);
    }
    let queued = submitted(common, edge, &job, key).await?;
    let Some(mut follower) = follower else {
        if args.id {
            printer.id(&queued.job_id)?;
        } else {
            printer.queued(&queued.job_id, &queued.answer)?;
        }
        return Ok(Exit::Ok);
    };
    hub::listen(&mut follower, Some(hub_of(edge)?), std::slice::from_ref(&queued.job_id));
    let (exit, came) = until_result(Waiting::new(follower, vec![queued.job_id]), args.timeout).await?;
    let Some(arrived) = came else { return Ok(exit) };
    let arrived = whole(common, store_of(edge), arrived).await;
    let exit = print_one(&arrived, printer)?;
    match &args.fetch {
        Some(into) => fetched(edge, &arrived, into, exit).await,
        None => Ok(exit),
    }
}

/// The notes that go with a job.
pub(super) fn metadata(args: &SubmitArgs) -> anyhow::Result<Option<Json>> {
    args.metadata.as_deref().map(|value| json("--metadata", value, io::stdin())).transpose()
}

/// The files that were named, looked at.
pub(super) fn gathered(files: &FilesArgs) -> anyhow::Result<Gathered> {
    let gathered = Gathered::of(&files.given()).map_err(|error| Failure::usage(format!("--file: {error}")))?;
    gathered.notes.iter().for_each(|text| note(text));
    Ok(gathered)
}

/// Sends the files of a job, and its input where that is too large for the queue, and has the job name them.
pub(super) async fn send(
    common: &CommonArgs,
    edge: &Edge,
    job: &mut JobSpec,
    gathered: &Gathered,
    mut input: Option<Input>,
) -> anyhow::Result<Exit> {
    let listed: usize = gathered.paths().map(|path| path.as_str().len() + FILE_FIELDS_BYTES).sum();
    if bytes_of(job) + listed > JOB_BYTES_MAX && input.is_none() && job.input != Json::null() {
        input = Some(Input::Bytes(std::mem::take(&mut job.input).as_str().as_bytes().to_vec()));
    }
    let bytes = bytes_of(job) + listed;
    if bytes > JOB_BYTES_MAX {
        return Err(Failure::usage(format!(
            "the job has {bytes} bytes as JSON besides its input, and no more than {JOB_BYTES_MAX} travel: name fewer \
             files, or put them into one directory and name that; and see --metadata"
        )));
    }
    if gathered.is_empty() && input.is_none() {
        return Ok(Exit::Ok);
    }
    let aside = common.inbox().and(common.data_dir())?.join("packs");
    let what = if gathered.is_empty() { "the input is too large for the queue, and goes as a file" } else { "--file" };
    let (meter, mut stop, store) = (Meter::new(), Stop::listen()?, store_of(edge)?);
    let listener = |news| meter.hear(news);
    let sent = tokio::select! {
        sent = upload::send(&store, gathered, input.as_ref(), &aside, &listener) => sent,
        () = stop.asked() => {
            meter.clear();
            note("no job was submitted; what was sent stays there, and the same command goes on");
            return Ok(Exit::Interrupted);
        }
    };
    meter.clear();
    let sent = sent.map_err(|error| match error.is_no_room() {
        true => anyhow!("{error}; --data-dir or LAPTOP_DATA_DIR names another place"),
        false => needs_store(error, what),
    })?;
    meter.end("sent");
    (job.files, job.input_file) = (sent.files, sent.input);
    Ok(Exit::Ok)
}

pub(super) fn bytes_of(job: &JobSpec) -> usize {
    serde_json::to_string(job).expect("a job holds only strings, numbers and JSON").len()
}

/// Fetches the files of a job that has ended; the exit code stays that of the job, unless a signal ends the fetching.
pub(super) async fn fetched(edge: &Edge, arrived: &Arrived, into: &Path, exit: Exit) -> anyhow::Result<Exit> {
    let is_done = Fetches::begin(store_of(edge)?)?.fetch_of(&arrived.result, into).await?;
    Ok(if is_done { exit } else { Exit::Interrupted })
}

/// Submits a job, and notes that it was.
pub(super) async fn submitted(
    common: &CommonArgs,
    edge: &Edge,
    job: &JobSpec,
    idempotency_key: Option<String>,
) -> anyhow::Result<Queued> {
    let idempotency_key = idempotency_key.map_or_else(random_key, checked_key)?;
    let queued = submit(&http_client(&edge.address)?, edge, job, &idempotency_key).await?;
    note_submitted(common, &queued, job);
    Ok(queued)
}

/// Waits for the result of the one job that was submitted.
pub(super) async fn until_result(
    waiting: Waiting,
    timeout: Option<Duration>,
) -> anyhow::Result<(Exit, Option<Arrived>)> {
    // From here on a signal ends the waiting and not the job, which is to be said.
    let stop = Stop::listen()?;
    if let [job_id] = waiting.pending() {
        note(&format!("{job_id}  queued; waiting for its result"));
    }
    let mut came = None;
    let mut keep = |arrived: &Arrived| {
        came = Some(arrived.clone());
        Ok(Exit::of(&arrived.result))
    };
    let exit = until_here(waiting, timeout, stop, Results::new(1, &mut keep)).await?;
    Ok((exit, came))
}

/// The job is in the queue, whether or not this machine can remember it.
fn note_submitted(common: &CommonArgs, queued: &Queued, job: &JobSpec) {
    let noted = common.inbox().and_then(|inbox| Ok(inbox.note_submitted(&queued.job_id, &queued.answer, job)?));
    if let Err(error) = noted {
        tracing::warn!(
            "the job {} is in the queue, but `last` and `wait --all` will not know of it: {error:#}",
            queued.job_id
        );
    }
}

/// The input of a job.
#[derive(Debug, PartialEq, Eq)]
enum GivenInput {
    Here(Json),
    /// It is JSON, and too large to be in memory.
    File(PathBuf),
}

impl Default for GivenInput {
    fn default() -> Self {
        Self::Here(Json::null())
    }
}

/// An input as an argument names it. What is large is looked at where it is, and sent as it is.
fn input(flag: &str, value: &str, stdin: impl Read) -> anyhow::Result<GivenInput> {
    let large = value
        .strip_prefix('@')
        .filter(|path| std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > FILE_BYTES_MAX));
    let Some(path) = large else { return json(flag, value, stdin).map(GivenInput::Here) };
    let usage = |message: String| Failure::with(Exit::Usage, message);
    let file = File::open(path).map_err(|error| usage(format!("{flag}: cannot read {path}: {error}")))?;
    let read: Result<IgnoredAny, _> = serde_json::from_reader(BufReader::with_capacity(1 << 20, file));
    read.map_err(|error| usage(format!("{flag}: {path} is not JSON: {error}")))?;
    Ok(GivenInput::File(path.into()))
}

/// The JSON of an argument: itself, or in the file after `@`, or on standard input for `-`.
fn json(flag: &str, value: &str, stdin: impl Read) -> anyhow::Result<Json> {
    let usage = |message: String| Failure::with(Exit::Usage, message);
    let (source, text) = if value == "-" {
        ("standard input".to_owned(), read(stdin).context("cannot read standard input")?)
    } else if let Some(path) = value.strip_prefix('@') {
        let content = File::open(path).and_then(read);
        (path.to_owned(), content.map_err(|error| usage(format!("{flag}: cannot read {path}: {error}")))?)
    } else {
        ("the argument".to_owned(), value.as_bytes().to_vec())
    };
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(usage(format!(
            "{flag}: {source} is larger than {FILE_BYTES_MAX} bytes; put it into a file and name that as @FILE, which \
             `--input` takes of any size"
        )));
    }
    let text = std::str::from_utf8(&text).map_err(|error| usage(format!("{flag}: {source} is not UTF-8: {error}")))?;
    Json::parse(text).map_err(|error| {
        let hint = if value != "-" && !value.starts_with('@') && Path::new(value).is_file() {
            format!("; to read the file, write {flag} @{value}")
        } else {
            String::new()
        };
        usage(format!("{flag}: {source} is not JSON: {error}{hint}"))
    })
}

/// Everything, up to one byte more than is allowed.
fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    from.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// The key travels in a header, which carries ASCII unharmed and spaces at its ends not at all.
pub(super) fn checked_key(key: String) -> anyhow::Result<String> {
    let is_plain = key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') && key.trim() == key;
    if !is_plain || key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX {
        let max = limits::IDEMPOTENCY_KEY_BYTES_MAX;
        let message = format!("--idempotency-key is 1 to {max} ASCII characters, without spaces at its ends");
        return Err(Failure::with(Exit::Usage, message));
    }
    Ok(key)
}

pub(super) fn random_key() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("the system gives no random numbers")?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(value: &str, stdin: &[u8]) -> String {
        json("--input", value, stdin).unwrap_err().to_string()
    }

    #[test]
    fn json_is_read_from_everywhere_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.json");
        let text = "{\"b\": 12345678901234567890.10,\n \"a\": 1}";
        std::fs::write(&path, text).unwrap();
        let compact = "{\"b\":12345678901234567890.10,\"a\":1}";
        for value in [text, "-", &format!("@{}", path.display())] {
            assert_eq!(json("--input", value, text.as_bytes()).unwrap().as_str(), compact);
        }
    }

    #[test]
    fn what_is_not_json_is_named_with_line_and_column() {
        assert!(error("{\"a\":1,}", b"").contains("--input: the argument is not JSON"));
        let message = error("-", b"{\n  \"a\": tru }\n");
        assert!(message.contains("standard input") && message.contains("line 2 column"), "{message}");
        assert!(error("-", b"\xff").contains("not UTF-8"));
        assert!(error("@/no/such/file", b"").contains("cannot read /no/such/file"));

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.json").display().to_string();
        std::fs::write(&path, "[").unwrap();
        let message = error(&format!("@{path}"), b"");
        assert!(message.contains(&path) && message.contains("line 1 column 1"), "{message}");
        assert!(error(&path, b"").contains(&format!("write --input @{path}")));
    }

    #[test]
    fn an_input_that_is_too_large_for_memory_is_looked_at_and_stays_in_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.json");
        let value = format!("@{}", path.display());
        let mut text = format!("[{}1", "1,\n".repeat(6_000_000));
        std::fs::write(&path, &text).unwrap();
        let error = input("--input", &value, io::empty()).unwrap_err().to_string();
        assert!(error.contains("in.json is not JSON") && error.contains("line 6000001"), "{error}");
        text.push(']');
        std::fs::write(&path, &text).unwrap();
        assert_eq!(input("--input", &value, io::empty()).unwrap(), GivenInput::File(path));
        assert_eq!(input("--input", "[1]", io::empty()).unwrap(), GivenInput::Here(Json::parse("[1]").unwrap()));
    }

    #[test]
    fn what_is_too_large_is_not_read_to_its_end() {
        assert!(json("--input", "-", io::repeat(b' ')).unwrap_err().to_string().contains("larger than"));
    }

    #[test]
    fn keys_are_such_that_a_header_carries_them() {
        for key in ["", " a", "a ", "é", "a\nb", &"a".repeat(256)] {
            assert!(checked_key(key.to_owned()).is_err(), "{key:?}");
        }
        assert_eq!(checked_key("run 1/a".to_owned()).unwrap(), "run 1/a");
        let (first, second) = (random_key().unwrap(), random_key().unwrap());
        assert!(first != second && first.len() == 32 && checked_key(first).is_ok());
    }
}
