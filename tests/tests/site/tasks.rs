//! Tasks for which the job brings the program.

use std::fs;
use std::path::Path;

use serde_json::json;
use testkit::parts;

use crate::{Site, text};

fn site(image: &Path, more: &str) -> Site {
    Site::new(&format!(
        "[pool.cpu]\nimage = {:?}\ncapacity = {{ cpus = 2 }}\n[task.run]\nkind = \"command\"\nnetwork = false\n{more}",
        image.display()
    ))
}

#[test]
fn a_job_brings_its_command_where_the_site_has_a_task_for_it() {
    let site = site(&parts::runtime_sif(), "[task.echo]\n");
    // The image has no other program.
    let argv = ["task-runner", "--version"];
    let record = site.run(&json!({ "task": "run", "input": { "argv": argv, "files": { "x.txt": "x" } } }));
    assert_eq!(text(&record["status"]), "completed", "{record}");
    assert_eq!(record["output"]["exit_code"], 0, "{record}");
    assert!(text(&record["output"]["stdout"]).starts_with("task-runner "), "{record}");
    assert_eq!(record["command"], json!(["task-runner", "command"]), "{record}");
    let job_dir = site.consumer.job_dir(text(&record["job_id"]));
    assert_eq!(fs::read_to_string(job_dir.join("x.txt")).expect("it was brought"), "x");

    let record = site.run(&json!({ "task": "run", "input": { "argv": ["task-runner", "--no-such"] } }));
    assert_eq!((text(&record["reason"]), &record["exit_code"]), ("exit", &json!(2)), "{record}");
    assert_eq!(record["output"]["exit_code"], 2, "{record}");
    assert!(text(&record["stderr_tail"]).contains("it takes no arguments"), "{record}");

    // The name of a task gives nobody a command.
    let record = site.run(&json!({ "task": "command", "input": { "argv": argv } }));
    assert_eq!(text(&record["reason"]), "rejected", "{record}");
}

#[test]
fn a_job_brings_a_function_in_python_where_the_site_has_a_task_for_it() {
    let site = site(&parts::python_sif(), "[task.call]\nkind = \"python\"\n");
    let code =
        "import math\n\ndef main(n, scale=1):\n    print('at work')\n    return {'root': math.isqrt(n) * scale}\n";
    let input = json!({ "code": code, "args": { "n": 1764, "scale": 2 } });
    let record = site.run(&json!({ "task": "call", "input": input }));
    assert_eq!((text(&record["status"]), &record["output"]), ("completed", &json!({ "root": 84 })), "{record}");
    let log = site.consumer.job_dir(text(&record["job_id"])).join("stdout.log");
    assert_eq!(fs::read_to_string(log).expect("it has printed"), "at work\n");

    let code = "def main():\n    raise ValueError('no such thing')\n";
    let record = site.run(&json!({ "task": "call", "input": { "code": code } }));
    assert_eq!((text(&record["reason"]), &record["exit_code"]), ("exit", &json!(1)), "{record}");
    let told = text(&record["stderr_tail"]);
    assert!(told.contains("raise ValueError('no such thing')\nValueError: no such thing"), "{record}");
    assert_eq!(record["command"], json!(["task-runner", "python"]), "{record}");
}

#[test]
fn a_command_that_is_asked_to_end_may_save_what_it_has() {
    // Time enough for a container to begin on a machine that does much else.
    let site = site(&parts::python_sif(), "time_limit = \"5s\"\ngrace = \"20s\"\n");
    let script = "trap 'echo saved > saved; exit 0' TERM; echo begun; while :; do sleep 0.1; done";
    let record = site.run(&json!({ "task": "run", "input": { "script": script } }));
    assert_eq!(text(&record["reason"]), "time_limit", "{record}");
    let job_dir = site.consumer.job_dir(text(&record["job_id"]));
    assert_eq!(fs::read_to_string(job_dir.join("saved")).expect("it had the time"), "saved\n");
    assert_eq!(record["output"]["stdout"], "begun\n", "{record}");
    let x = "import sys\nprint(sys.stdin.read() + sys.argv[1])\n";
    let input = json!({ "argv": ["python", "x.py", "b"], "files": { "x.py": x }, "stdin": "a" });
    let record = site.run(&json!({ "task": "run", "input": input }));
    assert_eq!(record["output"], json!({ "exit_code": 0, "stdout": "ab\n", "stderr": "" }), "{record}");
}
