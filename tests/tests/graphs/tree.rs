//! A tree of jobs as the hub, the laptop and the cluster draw it, from a real daemon.

use serde_json::{Value, json};
use testkit::http::send;
use testkit::{Edge, Laptop, PATIENCE, wait_for};

use crate::graphs::{Case, document};

/// What the hub answers.
fn hub(edge: &Edge, path: &str) -> Value {
    send(edge.producer().get(path)).json()
}

/// What the hub says of the children of a job, in the order of their ids.
fn children(edge: &Edge, job_id: &str) -> Vec<Value> {
    let page = hub(edge, &format!("/jobs?parent={job_id}"));
    let mut jobs = page["jobs"].as_array().cloned().unwrap_or_default();
    jobs.sort_by_key(|job| job["job_id"].to_string());
    jobs
}

#[test]
fn a_workflow_is_drawn_with_its_times_by_all_who_draw_it() {
    let case = Case::bare();
    let job_id = case.submit(&document(&[
        ("split", &[], &[], &["a"], "echo 1 > a"),
        ("left", &["split"], &["a"], &["b"], "cat a > b"),
        ("right", &["split"], &["a"], &[], "exit 3"),
        ("never", &["right"], &[], &[], "true"),
    ]));
    let daemon = case.consumer.start();
    let told = wait_for("the hub to know the end of it", PATIENCE, || {
        let job = hub(&case.edge, &format!("/jobs/{job_id}"));
        (job["state"] == "failed").then_some(job)
    });
    assert_eq!(told["children"], json!({"all": 3, "ended": 3, "tasks": 4}));
    let jobs = children(&case.edge, &job_id);
    let said = |field: &str| jobs.iter().map(|job| job[field].as_str().unwrap_or_default()).collect::<Vec<_>>();
    assert_eq!(said("name"), ["split", "left", "right"]);
    assert_eq!(said("state"), ["completed", "completed", "failed"]);
    assert_eq!(said("pool"), ["cpu"; 3]);
    assert_eq!(said("parent"), [job_id.as_str(); 3]);
    assert!(said("started_at").iter().chain(&said("host")).all(|known| !known.is_empty()), "{jobs:?}");
    assert!(said("started_at")[1] >= said("updated_at")[0], "one after the other: {jobs:?}");

    // The laptop and the cluster draw the same lines.
    let laptop = Laptop::new(&case.edge);
    let shown = laptop.run(&["show", &job_id, "--output", "text"]);
    assert_eq!(shown.status.code(), Some(4), "there is no result here: {shown:?}");
    let here = case.consumer.ask(&["show", &job_id]);
    assert!(here.status.success(), "{here:?}");
    for text in [&shown.output, &here.output] {
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        for (line, begins, state) in
            [(2, "├ 1 split", "completed"), (3, "├ 2 left", "completed"), (4, "└ 3 right", "failed")]
        {
            // What a job is called besides its task a record does not say.
            assert!(lines[line].starts_with(begins) && lines[line].contains(state), "{text}");
        }
    }
    let tree = case.consumer.ask(&["show", &job_id[..8], "--output", "json"]).results();
    assert_eq!((&tree[0]["v"], &tree[0]["below"][2]["state"]), (&json!(1), &json!("failed")));

    // With its result here it is drawn below that.
    drop(daemon);
    assert!(laptop.run(&["pull"]).status.success());
    let shown = laptop.run(&["show", &job_id, "--output", "text"]);
    assert!(shown.status.code() == Some(3) && shown.output.contains("\n└ 3 right"), "{shown:?}");
    let json = laptop.run(&["show", &job_id, "--output", "json"]);
    assert_eq!(json.results().len(), 1, "{json:?}");
    let nobody = case.consumer.ask(&["show", "nobody-knows-it"]);
    assert_eq!(nobody.status.code(), Some(4), "{nobody:?}");
}
