//! The whole path: submit, queue, run, publish, receive. Once with every real part, and then its promises one by one
//! with the bare runtime, where a job can be any script.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use testkit::http::send;
use testkit::{
    Consumer, Edge, Laptop, PATIENCE, Producer, Queue, SCRIPT, Worker, command, parts, wait_for, wait_until,
};

/// A job that leaves its own input as its output.
const COPY: &str = "cp input.json output.json";

/// Submits as the README does: by `curl`, where there is one.
fn post_by_curl(producer: &Producer, job: &Value, home: &Path) -> Value {
    let Some(curl) = parts::on_path("curl") else {
        let answer = send(producer.post("/jobs").body(job.to_string()));
        assert_eq!(answer.status, 202, "{answer:?}");
        return answer.json();
    };
    // All users of a machine can see the arguments of a program.
    let header = home.join("api-key.header");
    fs::write(&header, format!("x-api-key: {}\n", producer.api_key)).expect("a file can be written");
    let output = command(&curl, home)
        .args(["--silent", "--show-error", "--max-time", "30", "--write-out", "\n%{http_code}"])
        .args(["-X", "POST", &format!("{}/jobs", producer.url), "-H", "content-type: application/json"])
        .args(["-H", &format!("@{}", header.display()), "-d", &job.to_string()])
        .output()
        .expect("curl starts");
    let answer = String::from_utf8(output.stdout).expect("the answer is text");
    let (body, status) = answer.rsplit_once('\n').unwrap_or_else(|| panic!("{answer:?} {:?}", output.stderr));
    assert_eq!(status, "202", "{body}");
    serde_json::from_str(body).expect("the answer is JSON")
}

fn job_id(answer: &Value) -> String {
    assert_eq!((&answer["status"], &answer["queue"]), (&json!("queued"), &json!("hpc-jobs")), "{answer}");
    answer["job_id"].as_str().expect("an accepted job has an id").to_owned()
}

fn by_id(results: Vec<Value>) -> BTreeMap<String, Value> {
    let count = results.len();
    let id = |result: &Value| result["job_id"].as_str().unwrap_or_else(|| panic!("no job_id in {result}")).to_owned();
    let map: BTreeMap<String, Value> = results.into_iter().map(|result| (id(&result), result)).collect();
    assert_eq!(map.len(), count, "a result came twice");
    map
}

fn script(text: &str) -> Value {
    json!({"task": "script", "input": text})
}

fn json_file(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{} is not JSON ({error}): {text}", path.display()))
}

#[test]
fn from_curl_through_the_worker_the_queue_and_a_container_to_the_laptop() {
    let edge = Edge::start();
    let worker = Worker::start(&edge);
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("table.csv"), "time,temperature\n0,20.0\n1,21.0\n2,25.0\n").unwrap();
    let consumer = Consumer::apptainer(&edge, &parts::runtime_sif())
        .set("APPTAINER_BIND", format!("{}:/data:ro", data.path().display()));
    let post = |job: Value| job_id(&post_by_curl(&worker.producer(), &job, data.path()));

    let echo = post(json!({"task": "echo", "input": {"text": "hello"}, "metadata": {"name": "first"}}));
    let simulate =
        post(json!({"task": "simulate", "input": {"walkers": 1000, "steps": 100, "dimensions": 3, "seed": 42}}));
    let failing = post(json!({"task": "simulate", "input": {"walkers": 0}}));
    let summarize = post(json!({"task": "summarize", "input": {"path": "/data/table.csv"}}));
    assert_eq!(edge.backlog(Queue::Jobs), 4);
    consumer.run_until_idle();
    assert_eq!((edge.backlog(Queue::Jobs), edge.backlog(Queue::Results)), (0, 4));

    let laptop = Laptop::new(&edge);
    let results = by_id(laptop.take_results());
    assert_eq!(edge.backlog(Queue::Results), 0);
    assert_eq!(results.len(), 4);
    for id in [&echo, &simulate, &failing, &summarize] {
        let result = &results[id];
        assert_eq!(Some(result), consumer.record(id).as_ref(), "the laptop has what the cluster has");
        assert_eq!((&result["v"], &result["attempt"], &result["runtime"]), (&json!(1), &json!(1), &json!("apptainer")));
        for name in ["host", "created_at", "started_at", "finished_at", "task", "result_pointer"] {
            assert!(result[name].is_string(), "no {name} in {result}");
        }
        for name in ["input.json", "meta.json"] {
            assert!(consumer.job_dir(id).join(name).is_file(), "no {name} of {result}");
        }
    }

    assert_eq!(
        (&results[&echo]["status"], &results[&echo]["output"]),
        (&json!("completed"), &json!({"text": "hello"}))
    );
    assert_eq!(
        json_file(&consumer.job_dir(&echo).join("input.json")),
        json!({"job_id": echo, "task": "echo", "input": {"text": "hello"}, "metadata": {"name": "first"}})
    );
    let pointer = results[&echo]["result_pointer"].as_str().unwrap();
    assert!(pointer.starts_with("file://") && pointer.ends_with(&format!("/{echo}/output.json")), "{pointer}");

    let walk = &results[&simulate]["output"];
    assert_eq!((&walk["estimate"], &walk["exact"], &walk["agrees"]), (&json!(102.038), &json!(100.0), &json!(true)));
    assert_eq!(*walk, json_file(&consumer.job_dir(&simulate).join("output.json")));

    let failed = &results[&failing];
    assert_eq!(
        (&failed["status"], &failed["reason"], &failed["exit_code"]),
        (&json!("failed"), &json!("exit"), &json!(2)),
        "{failed}"
    );
    assert!(failed["stderr_tail"].as_str().is_some_and(|tail| tail.contains("`input.walkers`")), "{failed}");
    assert!(failed["message"].is_string() && failed.get("output").is_none(), "{failed}");

    let temperature = &results[&summarize]["output"]["columns"][1];
    assert_eq!((&temperature["name"], &temperature["mean"]), (&json!("temperature"), &json!(22.0)), "{temperature}");
}

#[test]
fn without_a_cloud_and_without_a_container_it_is_the_same_in_both_body_encodings() {
    for encoding in ["plain", "base64"] {
        let edge = Edge::start_with(&["--json-bodies", encoding]);
        let consumer = Consumer::bare(&edge, SCRIPT);
        let submitted = edge.producer().submit(&json!({"task": "script", "input": COPY, "metadata": {"n": 1}}));
        // Other producers have other habits: the API's own push, and the formats of a queue binding.
        let foreign = |id: &str| json!({"job_id": id, "task": "script", "input": COPY});
        let path = format!("/{}/messages", edge.queue_id(Queue::Jobs));
        let pushed = edge.api(Method::POST, &path, Some(&json!({"body": foreign("by-push"), "content_type": "json"})));
        assert_eq!(pushed.status, 200, "{pushed:?}");
        for format in ["json", "text", "bytes"] {
            edge.push_by_binding(format, foreign(&format!("by-binding-{format}")).to_string().as_bytes());
        }
        let process = consumer.run_until_idle();
        assert!(
            process.log().contains("RUNTIME=bare has no container"),
            "the bare runtime says what it is: {}",
            process.log()
        );

        let results = by_id(Laptop::new(&edge).take_results());
        let ids = [submitted.as_str(), "by-push", "by-binding-json", "by-binding-text", "by-binding-bytes"];
        assert_eq!(results.len(), ids.len(), "{encoding}: {results:?}");
        for id in ids {
            let result = &results[id];
            assert_eq!((&result["status"], &result["runtime"]), (&json!("completed"), &json!("bare")), "{result}");
            assert_eq!(result["output"], json_file(&consumer.job_dir(id).join("input.json")), "{encoding}");
            assert_eq!((&result["output"]["job_id"], &result["output"]["task"]), (&json!(id), &json!("script")));
        }
        assert_eq!(results[&submitted]["output"]["metadata"], json!({"n": 1}));
        assert_eq!(results["by-push"]["output"]["metadata"], Value::Null);
        assert_eq!(edge.backlog(Queue::Jobs), 0);
    }
}

#[test]
fn a_repeated_submission_is_one_run_and_one_result() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let runs = consumer.home().join("runs");
    let job = script(&format!("echo run >> {}; echo 1 > output.json", runs.display()));
    let producer = edge.producer();
    let post = || {
        let answer = send(producer.post("/jobs").header("idempotency-key", "once").body(job.to_string()));
        assert_eq!(answer.status, 202, "{answer:?}");
        job_id(&answer.json())
    };
    let id = post();
    assert_eq!(
        (post(), edge.backlog(Queue::Jobs)),
        (id.clone(), 2),
        "the edge keeps nothing; the cluster tells them apart"
    );
    consumer.run_until_idle();
    let laptop = Laptop::new(&edge);
    let first = laptop.take_results();
    assert_eq!(by_id(first.clone()).keys().collect::<Vec<_>>(), [&id]);

    // Once more, after all is over and with a daemon that was started anew.
    assert_eq!(post(), id);
    consumer.run_until_idle();
    assert_eq!(edge.backlog(Queue::Jobs), 0);
    assert_eq!(laptop.take_results(), Vec::<Value>::new(), "the laptop drops what it has");
    assert_eq!(fs::read_to_string(&runs).unwrap(), "run\n");
    assert_eq!(consumer.record(&id).as_ref(), Some(&first[0]));
}

#[test]
fn of_a_mixed_batch_the_good_jobs_run() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let good = |number: u32| script(&format!("echo {number} > output.json"));
    let bad = [json!({}), json!({"task": "script", "input": "x".repeat(130_000)})];
    let jobs = json!({"jobs": [good(0), bad[0], good(2), bad[1], good(4)]});
    let answer = send(edge.producer().post("/jobs/batch").body(jobs.to_string()));
    assert_eq!(answer.status, 202, "{answer:?}");
    let answers = answer.json()["jobs"].as_array().unwrap().clone();
    assert_eq!(answers.len(), 5);
    assert_eq!(answers[1]["problem"]["code"], "invalid_job");
    assert_eq!(answers[3]["problem"]["code"], "message_too_large");
    consumer.run_until_idle();
    let results = by_id(Laptop::new(&edge).take_results());
    assert_eq!(results.len(), 3);
    for position in [0, 2, 4] {
        assert_eq!(results[&job_id(&answers[position])]["output"], position, "{results:?}");
    }
}

#[test]
fn what_was_accepted_survives_the_death_of_the_queue_server() {
    let mut edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let ids = [0, 1].map(|number| edge.producer().submit(&script(&format!("echo {number} > output.json"))));
    edge.restart();
    consumer.run_until_idle();
    edge.restart();
    let results = by_id(Laptop::new(&edge).take_results());
    assert_eq!(ids.map(|id| results[&id]["output"].clone()), [json!(0), json!(1)]);
}

#[test]
fn the_laptop_submits_waits_and_remembers() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let _daemon = consumer.start();
    let laptop = Laptop::new(&edge);

    let spoken = laptop.run(&["submit", "--task", "script", "--input", "\"echo 42 > output.json\"", "--wait"]);
    assert!(spoken.status.success(), "{spoken:?}");
    let lines = spoken.results();
    let result = lines.last().expect("the answer is printed");
    assert_eq!((&result["status"], &result["output"]), (&json!("completed"), &json!(42)), "{spoken:?}");
    let id = result["job_id"].as_str().unwrap();
    for again in [["show", id], ["wait", id]] {
        let spoken = laptop.run(&again);
        assert!(spoken.status.success(), "{spoken:?}");
        assert_eq!(spoken.results(), std::slice::from_ref(result));
    }

    // A script can tell a job that failed from a laptop that did.
    let failed = laptop.run(&["submit", "--task", "script", "--input", "\"exit 9\"", "--wait"]);
    assert_eq!(failed.status.code(), Some(3), "{failed:?}");
    assert_eq!(failed.results().last().map(|result| result["exit_code"].clone()), Some(json!(9)));
    let unknown = laptop.run(&["show", "no-such-job"]);
    assert_eq!((unknown.status.code(), unknown.output.as_str()), (Some(4), ""), "{unknown:?}");
    let refused = laptop.run(&["submit", "--task", "", "--input", "{}"]);
    assert!(!refused.status.success() && refused.log.contains("task"), "{refused:?}");
}

#[test]
fn no_more_jobs_run_at_once_than_there_are_slots() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT).set("MAX_PARALLEL_JOBS", "1");
    // A directory can be made by one at a time.
    let slot = consumer.home().join("slot");
    let job = script(&format!("mkdir {0} && sleep 0.2 && rmdir {0} && echo 1 > output.json", slot.display()));
    for _ in 0..4 {
        edge.producer().submit(&job);
    }
    consumer.run_until_idle();
    let results = Laptop::new(&edge).take_results();
    assert_eq!(results.iter().filter(|result| result["status"] == "completed").count(), 4, "{results:?}");
}

#[test]
fn a_drained_daemon_finishes_what_it_has_and_takes_nothing_new() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT).set("MAX_PARALLEL_JOBS", "1");
    let gate = consumer.home().join("gate");
    let first = edge
        .producer()
        .submit(&script(&format!("until test -e {}; do sleep 0.05; done; echo 1 > output.json", gate.display())));
    let mut daemon = consumer.start();
    wait_until("the job to start", PATIENCE, || consumer.job_dir(&first).join("job.sh").exists());
    let second = edge.producer().submit(&script("echo 2 > output.json"));
    daemon.terminate();
    daemon.wait_for_log("draining", PATIENCE);
    fs::write(&gate, "").unwrap();
    assert!(daemon.wait(PATIENCE).success());

    assert_eq!(consumer.record(&first).map(|record| record["output"].clone()), Some(json!(1)));
    assert_eq!((edge.backlog(Queue::Results), edge.backlog(Queue::Jobs)), (1, 1));
    assert_eq!(consumer.record(&second), None);
    consumer.run_until_idle();
    let record = wait_for("the second job", PATIENCE, || consumer.record(&second));
    assert_eq!(record["output"], 2);
}
