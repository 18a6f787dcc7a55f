//! `workflow`: what is wrong with the document of one, and what it is made of, which asks nobody and needs no settings;
//! and a workflow as one job, with its files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use client::upload::{Gathered, Given};
use program::{Exit, Failure, Printer, counted, one_line, pairs, stdout_width, table};
use protocol::text::escaped;
use protocol::{Json, WorkPath, limits};
use serde::Serialize;
use workflow::{Form, Workflow, limits::DOCUMENT_BYTES_MAX};

use super::submit::submit_and_follow;
use super::{hub, jobs, note};
use crate::cli::{WorkflowCommand, WorkflowRunArgs, outputs};
use crate::config::CommonArgs;

pub(super) async fn run(common: &CommonArgs, command: WorkflowCommand, printer: &mut Printer) -> anyhow::Result<Exit> {
    match command {
        WorkflowCommand::Check { file } => check(&read(&file)?.0, printer).map(|()| Exit::Ok),
        WorkflowCommand::Show { file } => show(&read(&file)?.0, printer).map(|()| Exit::Ok),
        WorkflowCommand::Run(args) => submitted(common, *args, printer).await,
    }
}

/// Submits a workflow with the files that it needs.
async fn submitted(common: &CommonArgs, args: WorkflowRunArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    let edge = args.follow.edge.complete(common)?;
    let (workflow, text) = read(&args.file)?;
    let beside = || args.file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = args.dir.as_deref().unwrap_or_else(beside);
    let brought = brought(&workflow, dir)?;
    let gathered = Gathered::of(&brought).map_err(|error| Failure::usage(error.to_string()))?;
    gathered.notes.iter().for_each(|text| note(text));
    let mut patterns = common.patterns();
    if patterns.is_empty() && workflow.results().count() <= limits::OUTPUT_PATTERNS_MAX {
        patterns = workflow.results().cloned().collect();
    }
    // As it is read it is no longer than it must be.
    let document: serde_json::Value = serde_json::from_str(&text)?;
    let input = Json::parse(&document.to_string())?;
    let mut job = args.job.spec(args.task, input, None);
    job.outputs = outputs(patterns, args.outputs_when)?;
    if let Some(earlier) = &args.resume {
        let hub = hub::if_any(common, &args.follow.edge);
        job.resume = Some(jobs::named(earlier, &common.inbox()?, hub.as_ref()).await?);
    }
    let key = args.job.idempotency_key;
    submit_and_follow(common, &edge, job, (&gathered, None), key, &args.follow, printer).await
}

/// The files that a workflow needs, as they are in this directory. A signal of HyperFlow's need not be a file.
fn brought(workflow: &Workflow, dir: &Path) -> anyhow::Result<Vec<Given>> {
    let given = |path: &WorkPath| Given { from: dir.join(path.as_str()), path: Some(path.clone()), read_only: false };
    let (there, missing): (Vec<Given>, Vec<Given>) =
        workflow.brought().map(given).partition(|given| given.from.exists());
    if workflow.form() == Form::WfFormat
        && let Some(first) = missing.first()
    {
        let others = if missing.len() > 1 { format!(", nor are {} others", missing.len() - 1) } else { String::new() };
        return Err(Failure::usage(format!(
            "the workflow reads {}, which no task writes, and it is not there{others}; --dir says where they are",
            first.from.display()
        )));
    }
    Ok(there)
}

/// The workflow in a file, or on standard input, and its text.
fn read(from: &Path) -> anyhow::Result<(Workflow, String)> {
    let is_stdin = from.as_os_str() == "-";
    let name = if is_stdin { "standard input".to_owned() } else { from.display().to_string() };
    let usage = |why: String| Failure::usage(format!("{}: {why}", escaped(&name)));
    let mut bytes = Vec::new();
    // One byte more than may be is enough to be told so.
    let mut read_from = |source: &mut dyn Read| source.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    let read = if is_stdin {
        read_from(&mut io::stdin().lock())
    } else {
        File::open(from).and_then(|mut file| read_from(&mut file))
    };
    read.map_err(|error| usage(format!("it cannot be read: {error}")))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| usage(format!("it is not UTF-8, from byte {} on", error.utf8_error().valid_up_to())))?;
    match Workflow::parse(&text) {
        Ok(workflow) => Ok((workflow, text)),
        // A line for each, as compilers have it; none of them has a line break in it.
        Err(problems) => Err(usage(problems.to_string().replace('\n', &format!("\n{}: ", escaped(&name))))),
    }
}

/// What `check` says of a workflow. As JSON, fields may be added, nothing else.
#[derive(Serialize)]
struct Checked {
    v: u64,
    form: &'static str,
    tasks: usize,
}

fn check(workflow: &Workflow, printer: &mut Printer) -> anyhow::Result<()> {
    let checked = Checked { v: 1, form: workflow.form().as_str(), tasks: workflow.tasks().len() };
    if printer.is_human() {
        printer.text(&format!("{}: a workflow of {}\n", checked.form, counted(checked.tasks, "task")))
    } else {
        printer.json(&serde_json::to_string(&checked)?)
    }
}

/// What `show` says of a workflow. As JSON, fields may be added, nothing else.
#[derive(Serialize)]
struct Shown<'a> {
    v: u64,
    name: Option<&'a str>,
    form: &'static str,
    tasks: usize,
    /// How many tasks have each name.
    names: Vec<Named<'a>>,
    /// How many tasks each level has.
    levels: Vec<usize>,
    /// The ids of a longest way.
    critical_path: Vec<&'a str>,
    /// How long all of it took when it was run and written down, one task after the other.
    recorded_seconds: Option<f64>,
    /// What runs beside its tasks.
    services: BTreeSet<&'a str>,
    brought: Vec<&'a WorkPath>,
    results: Vec<&'a WorkPath>,
}

/// The tasks of one name.
#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    tasks: usize,
    recorded_seconds: Option<f64>,
}

impl<'a> Shown<'a> {
    fn of(workflow: &'a Workflow) -> Self {
        let mut names: BTreeMap<&str, Named<'_>> = BTreeMap::new();
        for task in workflow.tasks() {
            let named = Named { name: &task.name, tasks: 0, recorded_seconds: Some(0.0) };
            let named = names.entry(&task.name).or_insert(named);
            named.tasks += 1;
            named.recorded_seconds = named.recorded_seconds.zip(task.seconds).map(|(sum, seconds)| sum + seconds);
        }
        let names: Vec<Named<'_>> = names.into_values().collect();
        let path = workflow.critical_path();
        Self {
            v: 1,
            name: workflow.name(),
            form: workflow.form().as_str(),
            tasks: workflow.tasks().len(),
            levels: workflow.levels().iter().map(Vec::len).collect(),
            critical_path: path.iter().filter_map(|task| Some(workflow.get(*task)?.id.as_str())).collect(),
            recorded_seconds: names.iter().map(|named| named.recorded_seconds).sum(),
            names,
            services: workflow.tasks().iter().flat_map(|task| &task.needs).map(|need| need.service.as_str()).collect(),
            brought: workflow.brought().collect(),
            results: workflow.results().collect(),
        }
    }

    fn text(&self, width: Option<usize>) -> String {
        let seconds = |seconds: Option<f64>| seconds.map(|seconds| format!("{seconds:.1} s")).unwrap_or_default();
        let mut rows = vec![["TASK", "COUNT", "RECORDED"].map(str::to_owned)];
        rows.extend(
            self.names
                .iter()
                .map(|named| [one_line(named.name), named.tasks.to_string(), seconds(named.recorded_seconds)]),
        );
        if self.recorded_seconds.is_none() {
            // Where it is known of some alone, it is no use to a reader.
            rows.iter_mut().for_each(|row| row[2].clear());
        }
        let widest = self.levels.iter().max().copied().unwrap_or_default();
        let mut facts = vec![
            ["workflow".to_owned(), self.name.map_or_else(|| "has no name".to_owned(), one_line)],
            ["form".to_owned(), self.form.to_owned()],
            ["tasks".to_owned(), self.tasks.to_string()],
            ["levels".to_owned(), format!("{}, the widest of {}", self.levels.len(), counted(widest, "task"))],
            ["longest way".to_owned(), of_many(self.critical_path.iter().copied(), " → ")],
        ];
        if let Some(recorded) = self.recorded_seconds {
            facts.push(["recorded".to_owned(), format!("{recorded:.1} s, one task after the other")]);
        }
        if !self.services.is_empty() {
            facts.push(["services".to_owned(), of_many(self.services.iter().copied(), ", ")]);
        }
        for (name, files) in [("to bring", &self.brought), ("results", &self.results)] {
            let files = files.iter().map(|path| path.as_str());
            let told = if files.len() == 0 {
                "nothing".to_owned()
            } else {
                format!("{}: {}", counted(files.len(), "file"), of_many(files, ", "))
            };
            facts.push([name.to_owned(), told]);
        }
        format!("{}\n{}", pairs(&facts, width), table(&rows).concat())
    }
}

/// Names, of which a person is told the first and the last.
fn of_many<'a>(names: impl ExactSizeIterator<Item = &'a str>, between: &str) -> String {
    const TOLD: usize = 12;
    let names: Vec<String> = names.map(one_line).collect();
    match names.as_slice() {
        [first @ .., last] if first.len() > TOLD => {
            let left_out = format!("… {} more …", first.len() - (TOLD - 1));
            let told = first[..TOLD - 1].iter().chain([&left_out, last]);
            told.map(String::as_str).collect::<Vec<_>>().join(between)
        }
        all => all.join(between),
    }
}

fn show(workflow: &Workflow, printer: &mut Printer) -> anyhow::Result<()> {
    let shown = Shown::of(workflow);
    if printer.is_human() {
        printer.text(&shown.text(stdout_width()))
    } else {
        printer.json(&serde_json::to_string(&shown)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str) -> Workflow {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases").join(name)).unwrap().0
    }

    #[test]
    fn a_person_is_told_what_a_workflow_is_made_of() {
        let workflow = case("montage143/workflow.json");
        let text = Shown::of(&workflow).text(None);
        for words in [
            "workflow     has no name\n",
            "form         HyperFlow\n",
            "tasks        143\n",
            "levels       9, the widest of 73 tasks\n",
            " → mConcatFit_",
            " → mJPEG_143\n",
            "to bring     39 files: 2mass-atlas-990502s-j1450080.fits, ",
            ", … 27 more …, ",
            "\nmDiffFit     73\n",
        ] {
            assert!(text.contains(words), "{words:?} is not in {text}");
        }
        let workflow = case("wfcommons/helloworld-chain-5-chameleon.json");
        let text = Shown::of(&workflow).text(None);
        assert!(text.contains("recorded     501.2 s, one task after the other\n"), "{text}");
        assert!(text.contains("\ncpuhog  5      501.2 s\n") && !text.contains("services"), "{text}");
        let text = Shown::of(&case("../../examples/flow/workflow.json")).text(None);
        assert!(text.contains("services     vqpu-1, vqpu-2\nto bring     1 file: settings.json\n"), "{text}");
    }

    #[test]
    fn what_is_no_workflow_is_told_by_the_name_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("w.json");
        let says = |content: &[u8]| {
            std::fs::write(&file, content).unwrap();
            let error = read(&file).unwrap_err();
            assert_eq!(error.downcast_ref::<Failure>().unwrap().exit(), Exit::Usage);
            error.to_string()
        };
        assert!(says(b"\xff").ends_with("w.json: it is not UTF-8, from byte 0 on"));
        assert!(says(b"{").contains("w.json: it is not JSON"));
        let two = says(br#"{"processes":[{"type":"join"},{"type":"choice"}],"signals":[]}"#);
        assert_eq!(two.lines().count(), 4, "{two}");
        assert!(two.lines().all(|line| line.contains("w.json: task `process_")), "{two}");
        let error = read(&dir.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none: it cannot be read: No such file"), "{error}");
    }
}
