//! Workflows as one message.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Consumer, Edge, Laptop, PATIENCE, Process, Queue, command, parts, wait_until};

use super::{record_of, write_site};

/// How long Montage's graph may take; on two idle processors it takes half a minute.
const MONTAGE_PATIENCE: Duration = Duration::from_secs(300);

/// The files that the graph is for, and their MD5 sums; `tests/cases/README.md` says where those are from.
const MOSAICS: [(&str, &str); 2] = [
    ("mosaic_20130212_013030_8881.fits", "a69fc2f84144d486eb0779ff51c4be6a"),
    ("mosaic_20130212_013030_8881_area.fits", "87cfe520b869efa529044dc3488c3473"),
];

pub(crate) struct Case {
    // Declared first, so that the processes are gone before their directories are.
    pub(crate) edge: Edge,
    pub(crate) consumer: Consumer,
    pub(crate) home: TempDir,
}

impl Case {
    fn of_site(text: &str) -> Self {
        let (edge, home) = (Edge::start(), tempfile::tempdir().expect("a directory can be made"));
        let site = write_site(home.path(), text);
        let consumer = Consumer::of_site(&edge, &site);
        Self { edge, consumer, home }
    }

    /// Two processors without a container, in which every task is a command.
    pub(crate) fn bare() -> Self {
        let runner = parts::task_runner();
        Self::of_site(&format!(
            "[pool.cpu]\nruntime = \"bare\"\ncapacity = {{ cpus = 2 }}\n\
             [task.flow]\nkind = \"workflow\"\npool = \"cpu\"\n\
             [task.\"*\"]\nkind = \"command\"\npool = \"cpu\"\ncommand = [\"{}\", \"command\"]\n",
            runner.display()
        ))
    }

    /// The same, where tasks may write to `home` and elsewhere only as jobs may.
    pub(crate) fn confined() -> Self {
        let Self { edge, consumer, home } = Self::bare();
        let place = home.path().to_str().expect("paths of tests are plain").to_owned();
        Self { edge, consumer: consumer.set("BARE_WRITABLE", place), home }
    }

    pub(crate) fn submit(&self, document: &Value) -> String {
        self.edge.producer().submit(&json!({ "task": "flow", "input": document }))
    }

    /// How many of its tasks have a record.
    pub(crate) fn ended(&self, job_id: &str) -> usize {
        let entries = fs::read_dir(self.consumer.results_dir()).into_iter().flatten().flatten();
        let begins = format!("{job_id}-");
        entries
            .filter(|entry| {
                entry.file_name().to_str().is_some_and(|name| name.starts_with(&begins) && name.ends_with(".json"))
            })
            .count()
    }
}

/// A task of a document: its id, what it waits for, what it reads and writes, and a line for the shell.
pub(crate) type Task<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [&'a str], &'a str);

pub(crate) fn document(tasks: &[Task<'_>]) -> Value {
    let specification = tasks.iter().map(|(id, parents, reads, writes, _)| {
        let children: Vec<&str> = tasks.iter().filter(|other| other.1.contains(id)).map(|other| other.0).collect();
        json!({ "id": id, "name": id, "parents": parents, "children": children, "inputFiles": reads, "outputFiles": writes })
    });
    let execution = tasks
        .iter()
        .map(|(id, .., line)| json!({ "id": id, "command": { "program": "/bin/sh", "arguments": ["-c", line] } }));
    json!({
        "name": "a test", "schemaVersion": "1.5",
        "workflow": {
            "specification": { "tasks": specification.collect::<Vec<_>>() },
            "execution": { "tasks": execution.collect::<Vec<_>>() },
        },
    })
}

#[test]
fn tasks_pass_files_in_one_directory_and_a_failed_one_fails_what_needs_it_and_nothing_else() {
    let case = Case::bare();
    let _daemon = case.consumer.start();
    let good = document(&[
        ("split", &[], &[], &["sub/a"], "echo 1 > sub/a"),
        ("left", &["split"], &["sub/a"], &["b"], "cat sub/a > b; echo 2 >> b"),
        ("right", &["split"], &["sub/a"], &["c"], "cat sub/a > c; echo 3 >> c"),
        ("join", &["left", "right"], &["b", "c"], &["d"], "cat b c > d"),
    ]);
    let job_id = case.submit(&good);
    let record = record_of(&case.consumer, &job_id, PATIENCE);
    assert_eq!(record["output"], json!({ "tasks": 4, "done": 4, "failed": 0, "skipped": 0 }), "{record}");
    let made = fs::read_to_string(case.consumer.job_dir(&job_id).join("d")).expect("the last task has made it");
    assert_eq!(made, "1\n2\n1\n3\n");

    let bad = document(&[
        ("a", &[], &[], &["a.txt"], "echo a > a.txt"),
        ("b", &[], &[], &["b.txt"], "echo on purpose >&2; exit 3"),
        ("forgets", &["a"], &["a.txt"], &["never.txt"], "true"),
        ("needs-b", &["a", "b"], &["a.txt", "b.txt"], &["ab.txt"], "cat a.txt b.txt > ab.txt"),
        ("needs-a", &["a"], &["a.txt"], &["aa.txt"], "cat a.txt a.txt > aa.txt"),
    ]);
    let job_id = case.submit(&bad);
    let record = record_of(&case.consumer, &job_id, PATIENCE);
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("exit")), "{record}");
    let told = record["stderr_tail"].as_str().unwrap_or_default();
    let sum = "2 of 5 tasks failed, and 1 were not begun for that";
    assert!(told.starts_with(sum) && record["message"] == json!(sum), "{record}");
    assert!(told.contains("the task ended with exit code 3") && told.contains("has not written never.txt"), "{told}");
    let output = fs::read_to_string(case.consumer.job_dir(&job_id).join("output.json")).expect("it tells of itself");
    let output: Value = serde_json::from_str(&output).expect("it is JSON");
    assert_eq!((&output["done"], &output["failed"], &output["skipped"]), (&json!(2), &json!(2), &json!(1)));
    // One message each, however many tasks there are.
    wait_until("the results", PATIENCE, || case.edge.backlog(Queue::Results) == 2);
}

/// The next daemon finds what the one before it had found, although a file on the way is gone.
#[test]
fn a_workflow_that_removes_what_lies_on_the_way_goes_on_after_a_restart() {
    let case = Case::bare();
    let mut daemon = case.consumer.start();
    let job_id = case.submit(&document(&[
        ("a", &[], &[], &["a.tmp"], "echo 1 > a.tmp"),
        ("b", &["a"], &["a.tmp"], &["b.txt"], "mv a.tmp b.txt"),
        ("c", &["b"], &["b.txt"], &["c.txt"], "while [ ! -e go ]; do sleep 0.05; done; cp b.txt c.txt"),
        ("d", &["c"], &["c.txt"], &["d.txt"], "cp c.txt d.txt"),
    ]));
    wait_until("the second task", PATIENCE, || case.ended(&job_id) == 2);
    daemon.kill();
    let _daemon = case.consumer.start();
    fs::write(case.consumer.job_dir(&job_id).join("go"), "").expect("a file can be written");
    let record = record_of(&case.consumer, &job_id, PATIENCE);
    assert_eq!(record["output"], json!({ "tasks": 4, "done": 4, "failed": 0, "skipped": 0 }), "{record}");
}

#[test]
fn a_task_that_harms_its_workflow_harms_nobody_else() {
    let case = Case::bare();
    let _daemon = case.consumer.start();
    let elsewhere = tempfile::tempdir().expect("a directory can be made");
    fs::write(elsewhere.path().join("there"), "").expect("a file can be written");
    let link = format!("ln -s {} sub", elsewhere.path().display());
    for (line, writes, why) in [
        ("rm -rf -- \"$PWD\"", "x", "its directory is gone: one of its tasks has removed it"),
        (link.as_str(), "sub/there", "has not written sub/there"),
        ("echo > output.json", "output.json", "is what hpc-consumer or the job itself makes in its directory"),
    ] {
        let line = if writes.starts_with("sub") { format!("rmdir sub; {line}") } else { line.to_owned() };
        let job_id =
            case.submit(&document(&[("a", &[], &[], &[writes], &line), ("b", &["a"], &[writes], &[], "true")]));
        let record = record_of(&case.consumer, &job_id, PATIENCE);
        assert_eq!(record["status"], json!("failed"), "{record}");
        assert!(record["stderr_tail"].as_str().is_some_and(|told| told.contains(why)), "{why}: {record}");
    }
    let good = case.submit(&document(&[("a", &[], &[], &["x"], "echo > x")]));
    assert_eq!(record_of(&case.consumer, &good, PATIENCE)["status"], json!("completed"), "the pool is well");
}

#[test]
fn a_workflow_that_is_none_or_lacks_files_says_so_at_once() {
    let case = Case::bare();
    let _daemon = case.consumer.start();
    let circle = document(&[("a", &["b"], &[], &[], "true"), ("b", &["a"], &[], &[], "true")]);
    let orphan = document(&[("a", &["z"], &[], &[], "true")]);
    let twice = document(&[("a", &[], &[], &["x"], "true"), ("b", &[], &[], &["x"], "true")]);
    let out = document(&[("a", &[], &[], &["../x"], "true")]);
    let lacks = document(&[("a", &[], &["raw.dat"], &[], "true")]);
    for (document, why) in [
        (json!({ "x": 1 }), "workflow"),
        (circle, "circle"),
        (orphan, "its parent `z` is no task of the workflow"),
        (twice, "it writes `x`, and `a` writes it as well"),
        (out, "must be a path below the directory of the workflow"),
        (lacks, "not there: raw.dat; bring them with the job"),
    ] {
        let record = record_of(&case.consumer, &case.submit(&document), PATIENCE);
        assert_eq!(record["status"], json!("failed"), "{record}");
        assert!(record["stderr_tail"].as_str().is_some_and(|told| told.contains(why)), "{why}: {record}");
    }
}

/// A name is what people read, and the section of the site's file: no path is made of it.
#[test]
fn a_task_whose_name_looks_like_a_path_is_a_task_like_others() {
    let case = Case::bare();
    let _daemon = case.consumer.start();
    let name = "../../../up";
    let job_id = case.submit(&document(&[(name, &[], &[], &["x"], "echo > x"), ("..", &[name], &["x"], &[], "true")]));
    let record = record_of(&case.consumer, &job_id, PATIENCE);
    assert_eq!(record["output"], json!({ "tasks": 2, "done": 2, "failed": 0, "skipped": 0 }), "{record}");
    let of_task = record_of(&case.consumer, &format!("{job_id}-1"), PATIENCE);
    assert_eq!(of_task["task"], json!(name), "{of_task}");
    let results = case.consumer.results_dir();
    for above in results.ancestors().take(4) {
        assert!(!above.join("up").exists(), "{}", above.display());
    }
}

#[test]
fn a_cancelled_workflow_takes_its_tasks_along() {
    let case = Case::bare();
    let _daemon = case.consumer.start();
    let job_id = case.submit(&document(&[("a", &[], &[], &["a.txt"], "echo > began; sleep 600")]));
    wait_until("the task", PATIENCE, || case.consumer.job_dir(&job_id).join("began").exists());
    assert!(case.consumer.ask(&["cancel", &job_id]).status.success());
    for id in [job_id.clone(), format!("{job_id}-1")] {
        assert_eq!(record_of(&case.consumer, &id, PATIENCE)["reason"], json!("cancelled"));
    }
}

fn md5_sum(file: &Path) -> String {
    let program = parts::on_path("md5sum").expect("md5sum is on the PATH");
    let output = command(&program, Path::new("/")).arg(file).output().expect("md5sum starts");
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned()
}

/// Montage's 143 tasks in three pools of containers, as one message, with daemon and keeper killed on the way.
#[test]
fn a_mosaic_comes_from_one_message_whoever_is_killed_on_the_way() {
    let (image, runner) = (parts::montage(), parts::task_runner());
    let pool = |name: &str, cpus: u32| {
        format!(
            "[pool.{name}]\nimage = \"{}\"\nbinds = [\"{}:/usr/local/bin/task-runner:ro\"]\ncapacity = {{ cpus = {cpus} }}\n",
            image.display(),
            runner.display()
        )
    };
    let task = |pattern: &str, pool: &str| format!("[task.\"{pattern}\"]\nkind = \"command\"\npool = \"{pool}\"\n");
    let case = Case::of_site(&format!(
        "[quota]\ncpus = 3\n{}{}{}[task.montage]\nkind = \"workflow\"\npool = \"fits\"\n{}{}{}",
        pool("project", 2),
        pool("fits", 2),
        pool("mosaic", 1),
        task("mProject*", "project"),
        task("m*", "fits"),
        task("mAdd", "mosaic"),
    ));
    let mut daemon = case.consumer.start();
    let laptop = Laptop::new(&case.edge);
    let inputs = parts::workspace().join("tests/cases/montage143");
    let (graph, files) = (inputs.join("workflow.json"), inputs.join("in"));
    let place = |path: &Path| path.to_str().expect("paths of tests are plain").to_owned();
    let (graph, files) = (place(&graph), place(&files));
    let submitted = laptop.run(&["workflow", "run", &graph, "--task", "montage", "--dir", &files, "--id"]);
    assert!(submitted.status.success(), "{submitted:?}");
    let job_id = submitted.output.trim().to_owned();

    let wait_for_ended = |tasks: usize, daemon: &mut Process| {
        wait_until(&format!("the end of {tasks} tasks"), MONTAGE_PATIENCE, || {
            assert!(daemon.is_running(), "the daemon has ended");
            case.ended(&job_id) >= tasks
        });
    };
    wait_for_ended(20, &mut daemon);
    daemon.kill();
    let mut daemon = case.consumer.start();
    wait_for_ended(70, &mut daemon);
    testkit::signal(case.consumer.keeper_pid().expect("it is there"), rustix::process::Signal::KILL);
    let record = record_of(&case.consumer, &job_id, MONTAGE_PATIENCE);
    assert_eq!(record["output"], json!({ "tasks": 143, "done": 143, "failed": 0, "skipped": 0 }), "{record}");
    assert_eq!(record["files"].as_array().map(Vec::len), Some(75), "what no task reads comes back: {record}");
    for (mosaic, sum) in MOSAICS {
        assert_eq!(md5_sum(&case.consumer.job_dir(&job_id).join(mosaic)), sum, "{mosaic}");
    }
}
