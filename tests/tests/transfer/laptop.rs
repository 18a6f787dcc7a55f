//! What a person types: files with a job, and what a job has left.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use testkit::{Laptop, Queue, signal};

use super::*;

fn said(spoken: &testkit::Spoken) -> (Option<i32>, &str) {
    (spoken.status.code(), spoken.output.as_str())
}

/// The job that was submitted last, as the daemon finds it.
fn message(edge: &LocalEdge) -> Value {
    serde_json::from_str(&edge.pull(Queue::Jobs).remove(0).body).unwrap()
}

/// What a daemon would send.
fn result(edge: &LocalEdge, job_id: &str, fields: &Value) {
    let mut result = json!({"v": 2, "job_id": job_id, "status": "completed", "result_pointer": "p"});
    result.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    edge.push(Queue::Results, &[&result.to_string()]);
}

fn as_file(path: &str, content: &Content) -> Value {
    json!({"path": path, "size": content.size, "sha256": content.sha256})
}

#[test]
fn files_and_what_is_wanted_of_a_job_travel_in_its_message() {
    let edge = LocalEdge::start();
    let laptop = Laptop::new(&edge);
    fs::create_dir_all(laptop.path("data/deep")).unwrap();
    for (name, text) in [("in.melt", "melt"), ("big.dat", "big"), ("data/a", "a"), ("data/deep/b", "b")] {
        fs::write(laptop.path(name), text).unwrap();
    }
    let submitted = laptop.run(&[
        "submit",
        "--task",
        "fit",
        "--file",
        "in.melt",
        "--file",
        "big.dat:data/big.dat",
        "--file",
        "data",
        "--read-only",
        "big.dat:ref/big.dat",
        "--output",
        "plots/*.png",
        "--output",
        "./json",
        "--outputs-when",
        "always",
    ]);
    assert!(submitted.status.success(), "{submitted:?}");
    let job = message(&edge);
    let paths: Vec<&str> = job["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["in.melt", "data/big.dat", "data/a", "data/deep/b", "ref/big.dat"]);
    assert_eq!((&job["files"][1]["read_only"], &job["files"][4]["read_only"]), (&json!(null), &json!(true)));
    assert_eq!(job["outputs"], json!({"patterns": ["plots/*.png", "json"], "when": "always"}));
    let file: protocol::JobFile = serde_json::from_value(job["files"][1].clone()).unwrap();
    let store = store_at(&edge.producer().url, &edge);
    get(&store, &file.content(), &laptop.path("back")).unwrap();
    assert_eq!(fs::read_to_string(laptop.path("back")).unwrap(), "big");
    assert_eq!(said(&laptop.run(&["submit", "--task", "t", "--outputs-when", "always"])).0, Some(2));
    assert_eq!(said(&laptop.run(&["jobs", "--output", "*.png"])).0, Some(2));
}

#[test]
fn a_directory_of_many_files_travels_as_a_pack_and_comes_out_of_it() {
    let edge = LocalEdge::start();
    let gate = Gate::before(&edge);
    let laptop = Laptop::with_producer(
        &edge,
        testkit::Producer { url: gate.url(), api_key: edge.setting("API_KEY").to_owned() },
    );
    for number in 0..500 {
        let directory = laptop.path(&format!("many/{}", number % 7));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("{number}.txt")), number.to_string()).unwrap();
    }
    let program = laptop.path("many/run.sh");
    fs::write(&program, "#!/bin/sh").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let submitted = laptop.run(&["submit", "--task", "t", "--file", "many:sweep"]);
    assert!(submitted.status.success(), "{submitted:?}");
    assert!(
        submitted.log.contains("501 files of many (") && submitted.log.contains("travel as a pack"),
        "{submitted:?}"
    );
    let job = message(&edge);
    let pack: protocol::JobFile = serde_json::from_value(job["files"][0].clone()).unwrap();
    assert!(pack.pack && job["files"].as_array().unwrap().len() == 1, "{job}");
    assert_eq!(names(&laptop.path("data/packs")), [""; 0], "the pack is not kept");
    gate.forget();
    assert!(laptop.run(&["submit", "--task", "t", "--file", "many:sweep"]).status.success());
    assert_eq!((gate.passed().put, gate.passed().requests["POST files"]), (0, 1), "the same files make the same pack");

    result(&edge, "j1", &json!({"files": [job["files"][0]]}));
    laptop.take_results();
    let fetched = laptop.run(&["fetch", "j1", "sweep/3", "-o", "some"]);
    assert_eq!((fetched.status.code(), names(&laptop.path("some/sweep")).as_slice()), (Some(0), &["3".to_owned()][..]));
    let fetched = laptop.run(&["fetch", "j1", "-o", "all"]);
    assert!(fetched.status.success() && fetched.output.lines().count() == 501, "{fetched:?}");
    assert_eq!(fs::read_to_string(laptop.path("all/sweep/0/252.txt")).unwrap(), "252");
    let mode = fs::metadata(laptop.path("all/sweep/run.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(names(&laptop.path("all")), ["sweep"]);
    fs::write(laptop.path("all/sweep/0/252.txt"), "mine").unwrap();
    let fetched = laptop.run(&["fetch", "j1", "-o", "all"]);
    assert_eq!(fetched.status.code(), Some(1), "{fetched:?}");
    assert!(fetched.log.contains("252.txt is there already, and is another file"), "{fetched:?}");
}

#[test]
fn an_input_that_is_too_large_for_the_queue_goes_as_a_file() {
    let edge = LocalEdge::start();
    let laptop = Laptop::new(&edge);
    let input = format!("[\"{}\", 1.10]", "x".repeat(200_000));
    fs::write(laptop.path("in.json"), &input).unwrap();
    let submitted = laptop.run(&["submit", "--task", "t", "--input", "@in.json"]);
    assert!(submitted.status.success(), "{submitted:?}");
    let job = message(&edge);
    assert!(job.get("input").is_none_or(Value::is_null), "{job}");
    let content: Content = serde_json::from_value(job["input_file"].clone()).unwrap();
    get(&store_at(&edge.producer().url, &edge), &content, &laptop.path("back")).unwrap();
    assert_eq!(fs::read_to_string(laptop.path("back")).unwrap(), input.replace(", ", ","));
}

#[test]
fn what_a_job_has_left_is_fetched_and_a_large_output_is_shown() {
    let edge = LocalEdge::start();
    let laptop = Laptop::new(&edge);
    let store = store_at(&edge.producer().url, &edge);
    let content = |text: &str| {
        fs::write(laptop.path("content"), text).unwrap();
        put(&store, &laptop.path("content")).unwrap()
    };
    let (plot, log) = (content("plot"), content("log"));
    let output = format!("{{\"x\":\"{}\"}}", "y".repeat(100_000));
    let large = content(&output);
    let fields = json!({
        "files": [as_file("plots/a.png", &plot), as_file("log.txt", &log)],
        "output_file": {"size": large.size, "sha256": large.sha256},
        "files_note": "nothing fits *.csv",
    });
    result(&edge, "j1", &fields);
    result(&edge, "j2", &json!({"files": [as_file("log.txt", &log)]}));
    assert_eq!(laptop.take_results().len(), 2);

    let shown = laptop.run(&["show", "j1"]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    assert_eq!(shown.results()[0]["output"]["x"].as_str().unwrap().len(), 100_000);
    let fetched = laptop.run(&["fetch", "j1", "plots/*.png", "-o", "out"]);
    let lines = fetched.results();
    assert_eq!(
        (lines.len(), &lines[0]["at"], &lines[0]["new"]),
        (1, &json!("out/plots/a.png"), &json!(true)),
        "{fetched:?}"
    );
    assert!(fetched.log.contains("nothing fits *.csv"), "{fetched:?}");
    assert_eq!(
        (names(&laptop.path("out")).as_slice(), fs::read_to_string(laptop.path("out/plots/a.png")).unwrap().as_str()),
        (&["plots".to_owned()][..], "plot")
    );
    let fetched = laptop.run(&["fetch", "j1", "-o", "out"]);
    let new: Vec<&Value> =
        fetched.results().iter().map(|line| line["new"].clone()).collect::<Vec<_>>().leak().iter().collect();
    assert_eq!(new, [&json!(true), &json!(true), &json!(false)], "log, output, and the plot that is here: {fetched:?}");
    assert_eq!(fs::read_to_string(laptop.path("out/output.json")).unwrap(), output);
    let fetched = laptop.run(&["fetch", "j1", "j2", "*.txt", "-o", "each"]);
    assert!(fetched.status.success(), "{fetched:?}");
    assert_eq!(names(&laptop.path("each")), ["j1", "j2"]);

    assert_eq!(laptop.run(&["fetch", "none"]).status.code(), Some(4));
    assert_eq!(laptop.run(&["fetch", "*.png"]).status.code(), Some(2));
    // What has expired.
    let gone = Content { sha256: protocol::Digest::new([9; 32]), size: 3 };
    result(&edge, "j3", &json!({"files": [as_file("gone", &gone), as_file("plot", &plot)]}));
    laptop.take_results();
    let fetched = laptop.run(&["fetch", "j3", "-o", "rest"]);
    assert_eq!(fetched.status.code(), Some(4), "{fetched:?}");
    assert!(fetched.log.contains("has expired"), "{fetched:?}");
    assert_eq!(names(&laptop.path("rest")), ["plot"], "the others come");
}

#[test]
fn results_that_come_bring_their_files() {
    let edge = LocalEdge::start();
    let laptop = Laptop::new(&edge);
    let store = store_at(&edge.producer().url, &edge);
    fs::write(laptop.path("content"), "plot").unwrap();
    let plot = put(&store, &laptop.path("content")).unwrap();
    let gone = Content { sha256: protocol::Digest::new([9; 32]), size: 3 };
    result(&edge, "j1", &json!({"files": [as_file("gone", &gone)]}));
    result(&edge, "j2", &json!({"files": [as_file("a.png", &plot)]}));
    let tail = laptop.run(&["tail", "--until-idle", "--fetch=all"]);
    assert!(tail.status.success() && tail.results().len() == 2, "{tail:?}");
    assert!(tail.log.contains("laptop-consumer fetch j1 -o all/j1"), "{tail:?}");
    assert!(tail.log.contains("all/j2/a.png"), "where it lies is said: {tail:?}");
    assert_eq!(fs::read_to_string(laptop.path("all/j2/a.png")).unwrap(), "plot");

    let submit = ["submit", "--task", "t", "--wait", "--fetch=here", "--timeout", "50"];
    let mut waiting = laptop.start(&submit);
    let mut job_id = String::new();
    testkit::wait_until("the job is there", testkit::PATIENCE, || {
        let messages = edge.pull(Queue::Jobs);
        if let Some(message) = messages.first() {
            job_id = serde_json::from_str::<Value>(&message.body).unwrap()["job_id"].as_str().unwrap().to_owned();
        }
        !job_id.is_empty()
    });
    result(&edge, &job_id, &json!({"files": [as_file("b.png", &plot)]}));
    assert_eq!(waiting.wait(testkit::PATIENCE).code(), Some(0));
    assert_eq!(waiting.output().lines().count(), 1, "standard output has the result alone");
    assert_eq!(fs::read_to_string(laptop.path("here/b.png")).unwrap(), "plot");
}

#[test]
fn ctrl_c_ends_the_sending_and_no_job_was_submitted() {
    let edge = LocalEdge::start();
    let gate = Gate::before(&edge);
    let laptop = Laptop::with_producer(
        &edge,
        testkit::Producer { url: gate.url(), api_key: edge.setting("API_KEY").to_owned() },
    );
    file(&laptop.path("big"), 70 * MIB);
    gate.stop_after(MIB);
    let mut sending = laptop.start(&["submit", "--task", "t", "--file", "big"]);
    gate.wait_until_stopped();
    signal(sending.pid(), rustix::process::Signal::INT);
    assert_eq!(sending.wait(testkit::PATIENCE).code(), Some(130));
    assert!(sending.log().contains("no job was submitted"), "{}", sending.log());
    assert_eq!(edge.backlog(Queue::Jobs), 0);
    gate.release();
}

#[test]
fn an_edge_without_a_store_is_told_in_a_sentence() {
    let edge = LocalEdge::start();
    let gate = Gate::before(&edge);
    let laptop = Laptop::with_producer(
        &edge,
        testkit::Producer { url: gate.url(), api_key: edge.setting("API_KEY").to_owned() },
    );
    let none = r#"{"code":"no_files","detail":"this edge has no store of files"}"#;
    gate.rule(|_, path| path.starts_with("/files").then(|| Act::Answer(501, none.to_owned())));
    fs::write(laptop.path("x"), "x").unwrap();
    let submitted = laptop.run(&["submit", "--task", "t", "--file", "x"]);
    assert_eq!(said(&submitted), (Some(4), ""), "{submitted:?}");
    assert!(submitted.log.contains("--file: this edge has no store of files"), "{submitted:?}");
    fs::write(laptop.path("in.json"), format!("\"{}\"", "x".repeat(200_000))).unwrap();
    let submitted = laptop.run(&["submit", "--task", "t", "--input", "@in.json"]);
    assert_eq!(submitted.status.code(), Some(4), "{submitted:?}");
    assert!(
        submitted.log.contains("the input is too large for the queue, and goes as a file: this edge"),
        "{submitted:?}"
    );
    assert_eq!(edge.backlog(Queue::Jobs), 0);
}
