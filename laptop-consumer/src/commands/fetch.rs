//! `fetch`: the files that jobs have left; and the same where other commands do so.

use std::path::{Path, PathBuf};

use client::download::{Fetched as Had, Here, Wanted, fetch};
use client::hub::Hub;
use client::{Arrived, Inbox};
use program::{Exit, Failure, Printer};
use protocol::{JobId, JobResult, Json, WorkPath, text};
use serde::Serialize;
use transfer::{Class, Kept, Store};

use super::{hub, jobs, note};
use crate::cli::FetchArgs;
use crate::config::CommonArgs;
use crate::meter::Meter;
use crate::stop::Stop;

/// An output that is larger than this is not printed.
const OUTPUT_BYTES_MAX: u64 = 16_000_000;

/// So many files are printed one by one for a person.
const LISTED_MAX: usize = 100;

/// A file that is here, as it is printed. As JSON, fields may be added, nothing else.
#[derive(Serialize)]
struct Fetched<'a> {
    job_id: &'a JobId,
    path: &'a WorkPath,
    at: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Has it come just now?
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<bool>,
}

pub(super) async fn run(common: &CommonArgs, args: &FetchArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    let (names, patterns) = words(&args.words)?;
    let store = args.edge.store(common)?;
    let inbox = Inbox::new(&common.data_dir()?);
    let hub = hub::if_any(common, &args.edge);
    let wanted = jobs::wanted(&names, false, &inbox, hub.as_ref()).await?;
    let several = wanted.len() > 1;
    let mut fetches = Fetches::begin(store)?;
    let (mut exit, mut failed) = (Exit::Ok, Vec::new());
    for job_id in wanted {
        let into = if several { args.into.join(job_id.as_str()) } else { args.into.clone() };
        let Some(of_job) = fetches.wanted(&job_id, &inbox, hub.as_ref(), &patterns).await? else {
            note(&format!("the job {job_id} has no result yet; `laptop-consumer wait {job_id}` waits for it"));
            exit = Exit::NotFound;
            continue;
        };
        let Some(had) = fetches.fetch(&job_id, &of_job, &into).await? else { return Ok(Exit::Interrupted) };
        print(&job_id, &had, &into, printer)?;
        failed.extend(had.failed);
    }
    all_here(failed)?;
    Ok(exit)
}

/// The first of the errors of single files; the others are told.
fn all_here(mut failed: Vec<transfer::Error>) -> anyhow::Result<()> {
    let others = failed.split_off(failed.len().min(1));
    for error in others.iter().take(LISTED_MAX) {
        tracing::warn!("{error}");
    }
    failed.pop().map_or(Ok(()), |error| Err(error.into()))
}

/// The jobs and the patterns among some words: no id of a job has one of these characters.
fn words(words: &[String]) -> anyhow::Result<(Vec<String>, Vec<WorkPath>)> {
    let is_pattern = |word: &&String| !word.starts_with('@') && word.contains(['*', '?', '/', '.']);
    let (patterns, names): (Vec<&String>, Vec<&String>) = words.iter().partition(is_pattern);
    for name in names.iter().filter(|name| !name.starts_with('@')) {
        let invalid = |error| Failure::usage(format!("{}: {error}", text::escaped(name)));
        name.parse::<JobId>().map_err(invalid)?;
    }
    if names.is_empty() {
        return Err(Failure::usage("`fetch` takes the jobs whose files are wanted: their ids, `last`, or @FILE"));
    }
    let pattern = |word: &String| {
        let path = word.strip_prefix("./").unwrap_or(word);
        let path = path.strip_suffix('/').unwrap_or(path);
        path.parse().map_err(|error| Failure::usage(format!("{}: a pattern {error}", text::escaped(word))))
    };
    let patterns = patterns.into_iter().map(pattern).collect::<anyhow::Result<_>>()?;
    Ok((names.into_iter().cloned().collect(), patterns))
}

/// Fetches files of one job after the other; a signal ends it.
pub(super) struct Fetches {
    store: Store,
    stop: Stop,
}

impl Fetches {
    /// From here on signals are heard.
    pub(super) fn begin(store: Store) -> anyhow::Result<Self> {
        Ok(Self { store, stop: Stop::listen()? })
    }

    /// What is wanted of a job; nothing if it has no result, as far as is known here and at the hub.
    async fn wanted(
        &self,
        job_id: &JobId,
        inbox: &Inbox,
        hub: Option<&Hub>,
        patterns: &[WorkPath],
    ) -> anyhow::Result<Option<Wanted>> {
        if let Some(arrived) = inbox.find(job_id)? {
            tell_left_out(&arrived.result);
            return Ok(Some(Wanted::of(&arrived.result, patterns)));
        }
        let Some(hub) = hub else { return Ok(None) };
        let Some(status) = hub.job(job_id, None).await?.known() else { return Ok(None) };
        let result = status.result.as_ref().and_then(|result| JobResult::parse(result.as_str()).ok());
        Ok(result.map(|result| {
            tell_left_out(&result);
            Wanted::of(&result, patterns)
        }))
    }

    /// Fetches files, and says which are here; nothing, if a signal came.
    async fn fetch(&mut self, job_id: &JobId, wanted: &Wanted, into: &Path) -> anyhow::Result<Option<Had>> {
        let meter = Meter::new();
        let listener = |news| meter.hear(news);
        let fetched = tokio::select! {
            fetched = fetch(&self.store, wanted, into, &listener) => fetched,
            () = self.stop.asked() => {
                meter.clear();
                note(&format!("what is here stays; `laptop-consumer fetch {job_id} -o {}` goes on", into.display()));
                return Ok(None);
            }
        };
        meter.clear();
        let had = fetched?;
        meter.end("fetched");
        Ok(Some(had))
    }

    /// The files of a result that has just come: where they are is said on standard error, for standard output has the
    /// result. `false` if a signal came.
    pub(super) async fn fetch_of(&mut self, result: &JobResult, into: &Path) -> anyhow::Result<bool> {
        tell_left_out(result);
        let wanted = Wanted::of(result, &[]);
        if wanted.is_empty() {
            return Ok(true);
        }
        let Some(Had { here, failed }) = self.fetch(&result.job_id, &wanted, into).await? else { return Ok(false) };
        for Here { at, .. } in here.iter().take(LISTED_MAX) {
            note(&at.to_string_lossy());
        }
        note_more(here.len(), LISTED_MAX, into);
        all_here(failed)?;
        Ok(true)
    }
}

/// What is not among the files, and why, if the daemon has said so.
fn tell_left_out(result: &JobResult) {
    if let Some(text) = &result.files_note {
        note(&format!("the job {}: {text}", result.job_id));
    }
}

fn print(job_id: &JobId, had: &Had, into: &Path, printer: &mut Printer) -> anyhow::Result<()> {
    let here = &had.here;
    let is_human = printer.is_human();
    let listed = if is_human { LISTED_MAX } else { here.len() };
    for Here { path, at, kept } in here.iter().take(listed) {
        if is_human {
            printer.text(&format!("{}\n", text::escaped(&at.to_string_lossy())))?;
            continue;
        }
        let size = kept.map(|(_, content)| content.size);
        let new = kept.map(|(kept, _)| kept == Kept::New);
        printer.json(&serde_json::to_string(&Fetched { job_id, path, at, size, new })?)?;
    }
    note_more(here.len(), listed, into);
    if here.is_empty() && had.failed.is_empty() {
        note(&format!("the job {job_id} has left no file that fits; --output at its submission says which are kept"));
    }
    Ok(())
}

fn note_more(count: usize, listed: usize, into: &Path) {
    if count > listed {
        note(&format!("and {} more files in {}", count - listed, into.display()));
    }
}

/// A result with its output, where that is a file in the store and small enough to be printed.
pub(super) async fn whole(common: &CommonArgs, store: anyhow::Result<Store>, arrived: Arrived) -> Arrived {
    let result = &arrived.result;
    let (None, Some(content)) = (&result.output, result.output_file) else { return arrived };
    let job_id = &result.job_id;
    let told = format!("`laptop-consumer fetch {job_id} output.json` fetches the output of {} bytes", content.size);
    if content.size > OUTPUT_BYTES_MAX {
        note(&told);
        return arrived;
    }
    let had = async {
        let dir = common.inbox().and(common.data_dir())?.join("outputs");
        files::own_dir(&dir)?;
        let path: PathBuf = dir.join(content.sha256.to_string()).with_extension("json");
        let meter = Meter::new();
        let had = store?.get(&content, &path, &|news| meter.hear(news)).await;
        meter.clear();
        had?;
        let text = files::read_own_text(&path, OUTPUT_BYTES_MAX);
        // It can be had again.
        let _ = std::fs::remove_file(&path);
        Ok::<_, anyhow::Error>(Json::parse(&text?)?)
    };
    match had.await {
        Ok(output) => with_output(arrived, output),
        Err(error) => {
            tracing::warn!("the output is not here: {error:#}; {told}");
            arrived
        }
    }
}

/// The text stays as it came, but for the output.
fn with_output(arrived: Arrived, output: Json) -> Arrived {
    let line = arrived.line();
    let text = match line.strip_suffix('}') {
        Some(fields) => format!("{fields},\"output\":{}}}", output.as_str()),
        None => line,
    };
    let result = JobResult { output: Some(output), ..arrived.result };
    Arrived { text, result }
}

/// Is this an error of a store that is not there, of which a person should hear what needs it?
pub(super) fn needs_store(error: transfer::Error, what: &str) -> anyhow::Error {
    match error.class() {
        Class::NoStore => Failure::with(Exit::NotFound, format!("{what}: {error}")),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_told_from_patterns() {
        let told = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(|word| (*word).to_owned()).collect();
            words(&given)
                .map(|(names, patterns)| {
                    (names.join(" "), patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
                })
                .map_err(|error| error.to_string())
        };
        let both = |names: &str, patterns: &str| Ok((names.to_owned(), patterns.to_owned()));
        assert_eq!(told(&["last"]), both("last", ""));
        assert_eq!(
            told(&["67995bdb", "plots/*.png", "j2", "./log", "plots/", "a.b"]),
            both("67995bdb j2", "plots/*.png log plots a.b")
        );
        assert_eq!(told(&["@a/list.txt", "*"]), both("@a/list.txt", "*"));
        for wrong in [&["*.png"][..], &["last", "../x"], &["a b"], &["last", "a//b"]] {
            assert!(told(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_output_that_was_fetched_stands_in_the_result() {
        let text = r#"{"job_id":"j","status":"completed","result_pointer":"p","new":1}"#.to_owned();
        let arrived = with_output(Arrived::parse(text).unwrap(), Json::parse("[1.10]").unwrap());
        assert!(arrived.line().ends_with(r#""new":1,"output":[1.10]}"#), "{}", arrived.text);
        assert_eq!(arrived.result.output.unwrap().as_str(), "[1.10]");
    }
}
