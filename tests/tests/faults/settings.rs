//! Settings of others that lie in our way, and our own with a mistake in them: what is not ours is left alone, and what
//! is wrong is told by the name and the line that a person wrote.

use std::fs;
use std::process::Command;

use tempfile::TempDir;
use testkit::{command, parts};

/// A directory to work in, with this `.env`.
fn folder(lines: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a directory can be made");
    fs::write(folder.path().join(".env"), lines).expect("a file can be written");
    folder
}

fn program(name: &str, folder: &TempDir, words: &[&str]) -> Command {
    let mut command = command(&parts::program(name), folder.path());
    command.args(words);
    command
}

/// Runs a program to its end: its exit code, and what it said.
fn spoken(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("the program can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn the_env_file_of_a_web_project_is_no_concern_of_ours() {
    let project = folder("GREETING=it's me\nDATABASE_URL=a b c\n<html>\nSECRET=\"-----BEGIN\nx\n-----END\"\nPORT=80\n");
    let (code, said) = spoken(&mut program("hpc-consumer", &project, &["status"]));
    assert!(
        said.contains("no daemon was started with this STATE_DIR") && !said.contains(".env line"),
        "{code:?} {said}"
    );
}

#[test]
fn a_name_that_looks_like_ours_is_told_with_the_one_meant() {
    let folder = folder("RESULT_DIR=/a\nMAX_CONCURRENT_JOBS=2\nVISIBLITY_TIMEOUT_MS=1\n");
    let (code, said) = spoken(&mut program("hpc-consumer", &folder, &["run", "--check"]));
    assert_eq!(code, Some(2), "{said}");
    for (line, meant) in [(1, "RESULTS_DIR"), (2, "MAX_PARALLEL_JOBS"), (3, "VISIBILITY_TIMEOUT_MS")] {
        assert!(
            said.contains(&format!(".env line {line}: ")) && said.contains(&format!("{meant} is meant?")),
            "{said}"
        );
    }
}

#[test]
fn a_line_that_is_not_understood_ends_only_who_needs_it() {
    let folder = folder("CONTAINER_CMD=python /app/run.py\n");
    let (code, said) = spoken(&mut program("hpc-consumer", &folder, &["run", "--check"]));
    let sentence = "error: CONTAINER_CMD from .env line 1 cannot be understood";
    assert!(code == Some(2) && said.contains(sentence), "{code:?} {said}");
    assert!(said.contains("CONTAINER_CMD='python /app/run.py'"), "{said}");
    let (_, said) = spoken(&mut program("hpc-consumer", &folder, &["status"]));
    assert!(!said.contains("CONTAINER_CMD"), "{said}");
    let (code, said) = spoken(&mut program("laptop-consumer", &folder, &["show", "a-job"]));
    assert!(code == Some(4) && !said.contains("CONTAINER_CMD"), "{code:?} {said}");
}

#[test]
fn a_wrong_value_is_told_by_the_name_and_the_line_that_hold_it() {
    let folder = folder("\nMAX_PARALLEL_JOBS=lots\n");
    let (code, said) = spoken(&mut program("hpc-consumer", &folder, &["run", "--check"]));
    let sentence = "MAX_PARALLEL_JOBS from .env line 2 is \"lots\", which cannot be used: it is a whole number";
    assert!(code == Some(2) && said.contains(sentence) && !said.contains("--max-parallel-jobs"), "{code:?} {said}");
}

#[test]
fn a_key_of_another_service_is_sent_nowhere_and_a_refused_one_is_told_with_its_line() {
    let edge = testkit::Edge::start();
    let url = format!("PRODUCER_URL={}\n", edge.producer().url);
    let submit = |folder: &TempDir| {
        let mut command = program("laptop-consumer", folder, &["submit", "--task", "echo"]);
        command.env("API_KEY", "of another service");
        spoken(&mut command)
    };
    let (code, said) = submit(&folder(&url));
    assert!(code == Some(2) && said.contains("name it HPC_QUEUE_API_KEY"), "{code:?} {said}");
    let (code, said) = submit(&folder(&format!("{url}API_KEY=wrong\n")));
    assert!(code == Some(1) && said.contains("check API_KEY from .env line 2: "), "{code:?} {said}");
    let right = format!("{url}API_KEY={}\n", edge.producer().api_key);
    let (code, said) = submit(&folder(&right));
    assert_eq!(code, Some(0), "{said}");
}
