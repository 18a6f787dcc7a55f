//! What a job brings by itself: a command, a script, a function in Python. Each test runs the program as a site has it
//! run.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of an integration test for product code")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

fn program(dir: &Path, kind: &str, input: &Value) -> Command {
    let job = json!({ "job_id": "j1", "task": "whatever", "input": input, "metadata": null });
    fs::write(dir.join("input.json"), job.to_string()).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_task-runner"));
    let path = std::env::var_os("PATH").unwrap();
    program.arg(kind).env_clear().env("PATH", path).env("WORK_DIR", dir).env("JOB_ID", "j1").stdin(Stdio::null());
    program
}

fn run(dir: &Path, kind: &str, input: &Value) -> Output {
    program(dir, kind, input).output().unwrap()
}

fn output_in(dir: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(dir.join("output.json")).unwrap()).unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_command_has_its_files_and_its_input_and_what_it_prints_is_the_output() {
    let dir = tempfile::tempdir().unwrap();
    let input = json!({
        "argv": ["sh", "-c", "cat lib/data.txt - && echo why >&2 && echo \"$1\"", "sh", "two words"],
        "files": { "lib/data.txt": "of a file\n" },
        "stdin": "of stdin\n",
    });
    let ended = run(dir.path(), "command", &input);
    assert!(ended.status.success(), "{ended:?}");
    let (stdout, stderr) = ("of a file\nof stdin\ntwo words\n", "why\n");
    assert_eq!(output_in(dir.path()), json!({ "exit_code": 0, "stdout": stdout, "stderr": stderr }));
    assert_eq!((text(&ended.stdout), text(&ended.stderr)), (stdout, stderr), "the logs have it as well");
    // A further attempt finds what the last one has left.
    fs::write(dir.path().join("lib/data.txt"), "spoilt").unwrap();
    assert!(run(dir.path(), "command", &input).status.success());
    assert_eq!(output_in(dir.path())["stdout"], stdout);
}

#[test]
fn the_exit_code_of_a_script_is_that_of_the_job() {
    let dir = tempfile::tempdir().unwrap();
    for (script, code, more) in [
        ("echo so far; echo no >&2; exit 3", 3, json!({ "stdout": "so far\n", "stderr": "no\n" })),
        ("#!/bin/cat\nnothing to do\n", 0, json!({ "stdout": "#!/bin/cat\nnothing to do\n", "stderr": "" })),
        ("kill -KILL $$", 137, json!({ "signal": 9, "stdout": "", "stderr": "" })),
    ] {
        let ended = run(dir.path(), "command", &json!({ "script": script }));
        assert_eq!(ended.status.code(), Some(code), "{ended:?}");
        let mut expected = more;
        expected["exit_code"] = code.into();
        assert_eq!(output_in(dir.path()), expected);
    }
    let ended = run(dir.path(), "command", &json!({ "argv": ["/no/such/program"] }));
    assert_eq!(ended.status.code(), Some(127));
    assert!(text(&ended.stderr).starts_with("task-runner: /no/such/program cannot be run"), "{ended:?}");
    assert_eq!(output_in(dir.path())["exit_code"], 127);
}

#[test]
fn what_is_no_command_is_told_by_the_field_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    for (input, told) in [
        (json!(null), "`input.argv` is missing, and so is `script`"),
        (json!({ "argv": [] }), "`input.argv` names no program"),
        (json!({ "argv": "ls" }), "`input.argv` must be a list of strings"),
        (json!({ "argv": ["ls"], "script": "ls" }), "`input.script` stands beside `argv`"),
        (json!({ "argv": ["ls"], "files": { "../x": "" } }), "`input.files.../x` must be the name of a file"),
        (json!({ "argv": ["ls"], "files": { "input.json": "" } }), "`input.files.input.json` has a name that is taken"),
        (json!({ "argv": ["ls"], "env": {} }), "`input.env` is no field of this task"),
    ] {
        let ended = run(dir.path(), "command", &input);
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(text(&ended.stderr).starts_with(&format!("task-runner: {told}")), "{ended:?}");
    }
    assert!(!dir.path().join("output.json").exists());
}

/// A site that has no task of this kind starts the program without a word, and then the name of a task gives nobody a
/// command.
#[test]
fn the_name_of_a_task_alone_runs_no_command() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["command", "python"] {
        let job = json!({ "job_id": "j1", "task": name, "input": { "argv": ["touch", "done"], "code": "x" } });
        fs::write(dir.path().join("input.json"), job.to_string()).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_task-runner"));
        let ended = program.env("WORK_DIR", dir.path()).output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(text(&ended.stderr).contains("which this image does not know"), "{ended:?}");
    }
    assert!(!dir.path().join("done").exists());
}

#[test]
fn a_command_that_is_asked_to_end_may_take_its_time_and_its_output_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap 'echo saved; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child =
        program(dir.path(), "command", &json!({ "script": script })).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready", "what is printed comes at once");
    let both = format!("kill -TERM {0} $(ps -o pid= --ppid {0})", child.id());
    assert!(Command::new("sh").args(["-c", &both]).status().unwrap().success());
    assert_eq!(lines.next().unwrap().unwrap(), "saved");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(output_in(dir.path())["stdout"], "ready\nsaved\n");
}

#[test]
fn what_a_command_leaves_in_the_background_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let mut child = program(dir.path(), "command", &json!({ "script": "sleep 60 & echo $!" }));
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    let pid = output_in(dir.path())["stdout"].as_str().unwrap().trim().to_owned();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn of_a_flood_the_end_is_in_the_output_and_how_much_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let script = "i=0; while [ $i -lt 20000 ]; do echo \"line $i\"; i=$((i+1)); done";
    let ended = run(dir.path(), "command", &json!({ "script": script }));
    assert!(ended.status.success(), "{ended:?}");
    let output = output_in(dir.path());
    assert!(output["stdout"].as_str().unwrap().ends_with("line 19999\n"));
    assert_eq!(output["stdout_bytes"], ended.stdout.len());
    assert!(fs::metadata(dir.path().join("output.json")).unwrap().len() < 48_000);
}

#[test]
fn python_calls_main_with_its_arguments_and_its_answer_is_the_output() {
    let dir = tempfile::tempdir().unwrap();
    let code = "import dataclasses\n\n@dataclasses.dataclass\nclass P:\n    x: int\n\n\
                def main(values, scale=1):\n    print('at work')\n    return {'sum': P(sum(values) * scale).x, 'é': None}\n";
    let ended = run(dir.path(), "python", &json!({ "code": code, "args": { "values": [1, 2, 3], "scale": 10 } }));
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(text(&ended.stdout), "at work\n");
    assert_eq!(output_in(dir.path()), json!({ "sum": 60, "é": null }));
    let code = "async def main():\n    return [1]\n";
    assert!(run(dir.path(), "python", &json!({ "code": code })).status.success());
    assert_eq!(output_in(dir.path()), json!([1]));
}

#[test]
fn python_that_does_not_end_well_says_why() {
    let dir = tempfile::tempdir().unwrap();
    for (code, arguments, exit, told) in [
        ("def main():\n    return missing\n", json!({}), 1, "    return missing"),
        ("def main(:\n", json!({}), 2, "`input.code` is not Python"),
        ("x = 1\n", json!({}), 2, "`input.code` defines no function main"),
        ("def main(n):\n    return n\n", json!({ "m": 1 }), 2, "`input.args` does not fit main(n)"),
        ("def main():\n    return float('nan')\n", json!(null), 1, "what main returned is not JSON"),
        ("def main():\n    return {1}\n", json!({}), 1, "what main returned is not JSON"),
        ("import sys\ndef main():\n    sys.exit(7)\n", json!({}), 7, ""),
    ] {
        let ended = run(dir.path(), "python", &json!({ "code": code, "args": arguments }));
        assert_eq!(ended.status.code(), Some(exit), "{ended:?}");
        let stderr = text(&ended.stderr);
        assert!(stderr.contains(told) && !stderr.contains("<string>"), "{stderr}");
        assert!(!dir.path().join("output.json").exists());
    }
}
