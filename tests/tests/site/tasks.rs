//! Tasks for which the job brings the program.

use std::fs;

use serde_json::json;
use testkit::parts;

use crate::{Site, text};

fn site(more: &str) -> Site {
    let image = parts::runtime_sif();
    Site::new(&format!(
        "[pool.cpu]\nimage = {:?}\ncapacity = {{ cpus = 2 }}\n[task.run]\nkind = \"command\"\nnetwork = false\n{more}",
        image.display()
    ))
}

#[test]
fn a_job_brings_its_command_where_the_site_has_a_task_for_it() {
    let site = site("[task.echo]\n");
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
