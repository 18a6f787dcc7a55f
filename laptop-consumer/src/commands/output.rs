//! `output`: what a job has given, and nothing else.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use anyhow::Context as _;
use client::Inbox;
use client::hub::{Answer, Hub};
use files::Durability;
use program::{Exit, Failure, Stream};
use protocol::{Content, JobId, JobResult};
use transfer::Store;

use super::fetch::needs_store;
use super::{hub, jobs, note};
use crate::cli::OutputArgs;
use crate::config::CommonArgs;
use crate::meter::Meter;
use crate::stop::Stop;

/// A larger output is no use on a terminal.
const TERMINAL_BYTES_MAX: u64 = 16_000_000;

/// So much of a file is printed at once.
const CHUNK_BYTES: usize = 256 * 1024;

pub(super) async fn run(common: &CommonArgs, args: &OutputArgs) -> anyhow::Result<Exit> {
    if let Some(path) = &args.to {
        check(path)?;
    }
    let inbox = Inbox::new(&common.data_dir()?);
    let hub = hub::if_any(common, &args.edge);
    let job_id = jobs::named(&args.job, &inbox, hub.as_ref()).await?;
    let result = result(&job_id, &inbox, hub.as_ref()).await?;
    let exit = Exit::of(&result);
    match (&result.output, result.output_file) {
        (Some(output), _) => here(&format!("{}\n", output.as_str()), args.to.as_deref())?,
        (None, Some(content)) => {
            let store = args.edge.store(common)?;
            let fetched = match &args.to {
                Some(path) => into_file(&store, &content, path).await?,
                None => onto_stdout(common, &store, &content, &job_id).await?,
            };
            if !fetched {
                note("what has come of it stays, and the same command goes on");
                return Ok(Exit::Interrupted);
            }
        }
        (None, None) => return Err(none(&result)),
    }
    Ok(exit)
}

/// What is in place of the file is replaced if it is a file, and nothing else.
fn check(path: &Path) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => {
            let path = path.display();
            Err(Failure::usage(format!("-o {path}: it is there and is no plain file; name a file, or print to a pipe")))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::usage(format!("-o {}: {error}", path.display()))),
    }
}

/// The result that is here, or else the hub's.
async fn result(job_id: &JobId, inbox: &Inbox, hub: Option<&Hub>) -> anyhow::Result<JobResult> {
    if let Some(arrived) = inbox.find(job_id)? {
        for path in inbox.conflicting(job_id)? {
            note(&format!("another result of this job, which came later and differs, is kept in {}", path.display()));
        }
        return Ok(arrived.result);
    }
    if let Some(hub) = hub
        && let Answer::Known(status) = hub.job(job_id, None).await?
        && let Some(text) = &status.result
    {
        let result = JobResult::parse(text.as_str()).context("what the hub has as the result of the job is none")?;
        if result.job_id == *job_id {
            return Ok(result);
        }
    }
    let message = format!("the job {job_id} has no result yet; next: `laptop-consumer wait {job_id}`");
    Err(Failure::with(Exit::NotFound, message))
}

/// Why there is no output, and what to do now.
fn none(result: &JobResult) -> anyhow::Error {
    let JobResult { job_id, result_pointer, .. } = result;
    if Exit::of(result) != Exit::Ok {
        let message = format!("the job {job_id} has failed without an output; next: `laptop-consumer show {job_id}`");
        return Failure::with(Exit::JobFailed, message);
    }
    let message = match result.output_bytes {
        Some(bytes) => format!(
            "the output of the job {job_id}, {bytes} bytes, stayed on the cluster, at {result_pointer}: it is too large \
             for a result, and there was no store of files"
        ),
        None => format!(
            "the job {job_id} has left no output.json; next: `laptop-consumer logs {job_id}`, and `laptop-consumer fetch \
             {job_id}` for its files"
        ),
    };
    Failure::with(Exit::NotFound, message)
}

fn here(text: &str, to: Option<&Path>) -> anyhow::Result<()> {
    match to {
        None => Stream::Stdout.pass_on(text.as_bytes()),
        Some(path) => files::replace(path, text.as_bytes(), Durability::Named).map(drop).with_context(|| cannot(path)),
    }
}

/// `false` if a signal came.
async fn into_file(store: &Store, content: &Content, path: &Path) -> anyhow::Result<bool> {
    // Of another content there may be another beginning.
    let digest = content.sha256.to_string();
    let partial = path.with_file_name(format!(".hpc-queue-{}.part", &digest[..32]));
    if !had(store, content, &partial).await? {
        return Ok(false);
    }
    files::put(&partial, path, Durability::Named).with_context(|| cannot(path))?;
    Ok(true)
}

async fn onto_stdout(common: &CommonArgs, store: &Store, content: &Content, job_id: &JobId) -> anyhow::Result<bool> {
    if Stream::Stdout.is_terminal() && content.size > TERMINAL_BYTES_MAX {
        let message = format!(
            "the output has {} bytes, which are no use on a terminal; next: `laptop-consumer output {job_id} -o FILE`",
            content.size
        );
        return Err(Failure::usage(message));
    }
    let dir = common.inbox().and(common.data_dir())?.join("outputs");
    files::own_dir(&dir)?;
    let path = dir.join(content.sha256.to_string()).with_extension("json");
    if !had(store, content, &path).await? {
        return Ok(false);
    }
    let printed = files::open_own(&path).map_err(Into::into).and_then(print);
    // It can be had again.
    let _ = std::fs::remove_file(&path);
    printed.map(|()| true)
}

fn print(mut file: File) -> anyhow::Result<()> {
    if Stream::Stdout.is_terminal() {
        // Whole, so that no character is cut in two.
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        if !bytes.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        return Stream::Stdout.pass_on(&bytes);
    }
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(()),
            read => Stream::Stdout.pass_on(&chunk[..read])?,
        }
    }
}

/// Has a content in a file; `false` if a signal came.
async fn had(store: &Store, content: &Content, path: &Path) -> anyhow::Result<bool> {
    let (meter, mut stop) = (Meter::new(), Stop::listen()?);
    let listener = |news| meter.hear(news);
    let had = tokio::select! {
        had = store.get(content, path, &listener) => Some(had),
        () = stop.asked() => None,
    };
    meter.clear();
    match had {
        Some(Ok(())) => Ok(true),
        Some(Err(error)) => Err(needs_store(error, "the output is a file in the store")),
        None => Ok(false),
    }
}

fn cannot(path: &Path) -> String {
    format!("the output cannot be written to {}", path.display())
}
