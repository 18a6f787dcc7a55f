//! The task runner as the daemon starts it: a program, a work directory, an exit code.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of an integration test for product code")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn run_in(dir: &Path, input_json: &str) -> Output {
    fs::write(dir.join("input.json"), input_json).unwrap();
    Command::new(env!("CARGO_BIN_EXE_task-runner"))
        .env_clear()
        .env("WORK_DIR", dir)
        .env("JOB_ID", "j1")
        .output()
        .unwrap()
}

fn job(task: &str, input: Value) -> String {
    json!({ "job_id": "j1", "task": task, "input": input, "metadata": null }).to_string()
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn echo_writes_the_bytes_of_the_input() {
    let dir = tempfile::tempdir().unwrap();
    let given = "{ \"b\": 1.50e+400, \"a\": [\"\\u00e9 é\"] }";
    let outcome = run_in(dir.path(), &format!(r#"{{"job_id":"j1","task":"echo","input":{given},"metadata":{{}}}}"#));
    assert!(outcome.status.success(), "{outcome:?}");
    assert_eq!(fs::read_to_string(dir.path().join("output.json")).unwrap(), given);
    assert_eq!(names_in(dir.path()), ["input.json", "output.json"]);
    assert!(outcome.stderr.is_empty(), "{outcome:?}");
}

#[test]
fn a_job_without_input_echoes_null() {
    let dir = tempfile::tempdir().unwrap();
    let outcome =
        run_in(dir.path(), r#"{"job_id":"j1","task":"echo","later":"fields of newer daemons are let through"}"#);
    assert!(outcome.status.success(), "{outcome:?}");
    assert_eq!(fs::read_to_string(dir.path().join("output.json")).unwrap(), "null");
}

#[test]
fn simulate_finds_the_known_answer_and_repeats_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut outputs = Vec::new();
    for _ in 0..2 {
        let outcome = run_in(dir.path(), &job("simulate", json!({ "walkers": 2000, "steps": 100, "seed": 3 })));
        assert!(outcome.status.success(), "{outcome:?}");
        outputs.push(fs::read_to_string(dir.path().join("output.json")).unwrap());
    }
    assert_eq!(outputs[0], outputs[1]);
    let output: Value = serde_json::from_str(&outputs[0]).unwrap();
    assert_eq!((&output["exact"], &output["agrees"]), (&json!(100.0), &json!(true)));
    assert_eq!(output["parameters"]["dimensions"], 2);
}

#[test]
fn summarize_reads_files_by_relative_and_absolute_path() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for place in [dir.path(), elsewhere.path()] {
        fs::write(place.join("data.csv"), "x\n1\n3\n").unwrap();
    }
    for path in ["data.csv".to_owned(), elsewhere.path().join("data.csv").display().to_string()] {
        let outcome = run_in(dir.path(), &job("summarize", json!({ "path": path })));
        assert!(outcome.status.success(), "{outcome:?}");
        let output: Value = serde_json::from_str(&fs::read_to_string(dir.path().join("output.json")).unwrap()).unwrap();
        assert_eq!(output["columns"][0]["mean"], 2.0, "{path}");
        fs::remove_file(dir.path().join("output.json")).unwrap();
    }
}

#[test]
fn bad_jobs_end_with_2_one_sentence_and_no_output() {
    for (input_json, sentence) in [
        (
            job("simulate", json!({ "steps": -5 })),
            "`input.steps` must be a whole number from 1 to 1000000, and it is -5",
        ),
        (
            job("fold", json!(null)),
            "`task` is \"fold\", which this image does not know; it knows echo, simulate, summarize",
        ),
        (r#"{"job_id":"j1"}"#.to_owned(), "`task` is missing"),
        (r#"{"job_id":"j1","task":7}"#.to_owned(), "`task` must be a string, and it is 7"),
        ("[]".to_owned(), "input.json must be a JSON object"),
        ("{\"task\":".to_owned(), "input.json must be a JSON object"),
        (String::new(), "input.json must be a JSON object"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let outcome = run_in(dir.path(), &input_json);
        assert_eq!(outcome.status.code(), Some(2), "{input_json}: {outcome:?}");
        let stderr = String::from_utf8(outcome.stderr).unwrap();
        assert!(stderr.starts_with(&format!("task-runner: {sentence}")), "{input_json}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert_eq!(names_in(dir.path()), ["input.json"]);
    }
}

#[test]
fn a_missing_input_file_says_what_to_put_there() {
    let dir = tempfile::tempdir().unwrap();
    let outcome =
        Command::new(env!("CARGO_BIN_EXE_task-runner")).env_clear().env("WORK_DIR", dir.path()).output().unwrap();
    assert_eq!(outcome.status.code(), Some(2));
    let stderr = String::from_utf8(outcome.stderr).unwrap();
    assert!(stderr.contains("there is no ") && stderr.contains("\"task\": \"echo\""), "{stderr}");
}

#[test]
fn a_machine_that_fails_ends_with_1() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("output.json")).unwrap();
    let outcome = run_in(dir.path(), &job("echo", json!(1)));
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert_eq!(names_in(dir.path()), ["input.json", "output.json"]);
}

#[test]
fn help_names_every_task_and_other_arguments_are_refused() {
    let program = env!("CARGO_BIN_EXE_task-runner");
    let help = Command::new(program).arg("--help").output().unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(
        help.status.success() && ["echo", "simulate", "summarize"].iter().all(|task| text.contains(task)),
        "{text}"
    );
    let refused = Command::new(program).arg("echo").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}
