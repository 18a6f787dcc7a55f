//! Submitting jobs.

use std::fs;
use std::net::TcpListener;
use std::process::Stdio;

use protocol::JobId;
use serde_json::{Value, json};

use crate::laptop::{Laptop, Running, finish};
use crate::server::Fault;

fn problem(status: u16, headers: &'static str, body: &Value) -> Fault {
    Fault::Answer(status, headers, body.to_string())
}

#[test]
fn a_submission_that_is_sent_again_stays_one_job() {
    let laptop = Laptop::new();
    laptop.server.order("jobs", Fault::HangUp);
    let unavailable = json!({"code": "queue_unavailable", "detail": "later", "retryable": true});
    laptop.server.order("jobs", problem(503, "", &unavailable));
    let full = json!({"code": "queue_full", "detail": "later", "retryable": true});
    laptop.server.order("jobs", problem(429, "retry-after: 1\r\n", &full));
    let mut command = laptop.command(&["submit", "--task", "echo"]);
    // The queue's settings are for --wait only.
    let spoken = finish(command.env_remove("CF_ACCOUNT_ID").env_remove("CF_QUEUES_API_TOKEN"));
    assert_eq!(spoken.code, Some(0), "{spoken:?}");
    let requests = laptop.server.requests("jobs");
    assert_eq!(requests.len(), 4);
    let key = &requests[0].headers["idempotency-key"];
    assert!(requests.iter().all(|request| request.headers["idempotency-key"] == *key));
    assert!(requests.iter().all(|request| request.body == r#"{"task":"echo","input":null}"#), "{requests:?}");
    let job_id = JobId::from_idempotency_key(key, None).to_string();
    assert_eq!(spoken.results(), [json!({"status": "queued", "job_id": job_id, "queue": "hpc-jobs"})]);

    // Another call is another job, unless it says otherwise.
    assert_ne!(laptop.run(&["submit", "--task", "echo"]).job_ids(), std::slice::from_ref(&job_id));
    let again = laptop.run(&["submit", "--task", "echo", "--idempotency-key", key, "--output", "human"]);
    assert_eq!(again.stdout, format!("{job_id}  queued\n"));
}

#[test]
fn what_the_user_gives_arrives_unharmed() {
    let laptop = Laptop::new();
    fs::write(laptop.path("notes.json"), "{ \"name\": \"é\" }\n").unwrap();
    let arguments = ["submit", "--task", "simulate", "--input", "-", "--metadata", "@notes.json", "--time-limit", "60"];
    let mut running = Running::start(laptop.command(&arguments).stdin(Stdio::piped()));
    running.give(b"{\"z\": 12345678901234567890.10,\n \"a\": [1e400, -0.0]}");
    assert_eq!(running.end().code, Some(0));
    let expected = "{\"task\":\"simulate\",\"input\":{\"z\":12345678901234567890.10,\"a\":[1e400,-0.0]},\
                    \"metadata\":{\"name\":\"é\"},\"time_limit_seconds\":60}";
    assert_eq!(laptop.server.requests("jobs")[0].body, expected);

    assert_eq!(laptop.run(&["submit", "--task", "t", "--retries", "100", "--not-rerunnable"]).code, Some(0));
    let expected = r#"{"task":"t","input":null,"retries":100,"rerunnable":false}"#;
    assert_eq!(laptop.server.requests("jobs")[1].body, expected);

    let arguments = ["submit", "--task", "t", "--name", "draft 3", "--pool", "gpu", "--cpus", "4", "--memory", "2GiB"];
    assert_eq!(laptop.run(&[&arguments[..], &["--gpus", "0"]].concat()).code, Some(0));
    let expected = r#"{"task":"t","input":null,"name":"draft 3","pool":"gpu","resources":{"cpus":4,"memory":2147483648,"gpus":0}}"#;
    assert_eq!(laptop.server.requests("jobs")[2].body, expected);
}

#[test]
fn a_script_can_have_the_id_alone() {
    let laptop = Laptop::new();
    for form in ["text", "json"] {
        let spoken = laptop.run(&["submit", "--task", "t", "--id", "--output", form]);
        assert_eq!(spoken.code, Some(0), "{spoken:?}");
        let id = spoken.stdout.strip_suffix('\n').expect("it is one line");
        let parsed = id.parse::<JobId>().expect("it is an id and nothing else");
        // The one that was noted.
        assert_eq!(laptop.run(&["cancel", "last"]).stderr.lines().next(), Some(&*format!("last is the job {parsed}")));
    }
    assert_eq!(laptop.run(&["submit", "--task", "t", "--id", "--wait"]).code, Some(2));
}

#[test]
fn refusals_are_told_with_field_and_hint_and_not_repeated() {
    let invalid = json!({"code": "invalid_job", "detail": "`metadata` must be an object", "field": "metadata"});
    let wrong_key = json!({"code": "unauthorized", "detail": "not the key"});
    let not_set_up = json!({"code": "not_configured", "detail": "no API_KEY yet", "retryable": false});
    let in_an_hour = json!({"code": "queue_full", "detail": "the day's allowance is used up", "retryable": true});
    for (fault, exit, says) in [
        (problem(422, "", &invalid), 1, ["`metadata` must be an object", "field: metadata"]),
        (problem(401, "", &wrong_key), 1, ["not the key", "check HPC_QUEUE_API_KEY from the environment: "]),
        (problem(503, "retry-after: 1\r\n", &not_set_up), 1, ["no API_KEY yet", "503"]),
        (problem(429, "retry-after: 3600\r\n", &in_an_hour), 75, ["allowance", "--idempotency-key"]),
        (Fault::Answer(404, "", "<html>\u{1b}[31mno</html>".to_owned()), 1, ["\\u{1b}[31m", "PRODUCER_URL"]),
        (Fault::Answer(301, "location: /\r\n", String::new()), 1, ["301", "PRODUCER_URL"]),
    ] {
        let laptop = Laptop::new();
        laptop.server.order("jobs", fault);
        let spoken = laptop.run(&["submit", "--task", "echo"]);
        assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(exit), ""), "{spoken:?}");
        assert!(says.iter().all(|says| spoken.stderr.contains(says)), "{says:?} in {}", spoken.stderr);
        assert_eq!(laptop.server.requests("jobs").len(), 1, "{spoken:?}");
    }
}

#[test]
fn an_edge_that_cannot_be_reached_is_given_up_on() {
    let laptop = Laptop::new();
    // A port that was free a moment ago, and that nobody listens on.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = laptop.command(&["submit", "--task", "echo", "--idempotency-key", "run-1"]);
    let spoken = finish(command.env("PRODUCER_URL", format!("http://{address}")));
    assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(75), ""), "{spoken:?}");
    let says = format!(
        "gave up after 5 tries: http://{address} cannot be reached: Connection refused (os error 111); is it running, \
         and is PRODUCER_URL right? Submit it later with --idempotency-key 'run-1'"
    );
    assert!(spoken.stderr.contains(&says), "{}", spoken.stderr);
}

#[test]
fn wrong_arguments_are_told_before_anything_is_sent() {
    let laptop = Laptop::new();
    fs::write(laptop.path("bad.json"), "{\n  \"a\": 1,\n}").unwrap();
    for (arguments, says) in [
        (vec!["--input", "{\"a\":1,}"], vec!["--input", "line 1 column"]),
        (vec!["--input", "@bad.json"], vec!["--input", "bad.json", "line 3 column"]),
        (vec!["--input", "bad.json"], vec!["--input @bad.json"]),
        (vec!["--metadata", "@none.json"], vec!["--metadata", "none.json"]),
        (vec!["--idempotency-key", "é"], vec!["--idempotency-key"]),
        (vec!["--time-limit", "0"], vec!["--time-limit"]),
        (vec!["--retries", "101"], vec!["--retries", "a whole number, 0 to 100"]),
        (vec!["--name", "a\nb"], vec!["--name", "none of them a control character"]),
        (vec!["--pool", "GPU"], vec!["--pool", "of a-z 0-9 -"]),
        (vec!["--cpus", "0"], vec!["--cpus", "a whole number, 1 to 1000000"]),
        (vec!["--memory", "2G"], vec!["--memory", "with its unit, as 2GiB"]),
        (vec!["--gpus", "all"], vec!["--gpus", "a whole number, 0 to 1000000"]),
    ] {
        let spoken = laptop.run(&[vec!["submit", "--task", "t"], arguments].concat());
        assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(2), ""), "{spoken:?}");
        assert!(says.iter().all(|says| spoken.stderr.contains(says)), "{says:?} in {}", spoken.stderr);
    }
    // With --wait the result must be fetchable, or the job is not sent.
    let mut command = laptop.command(&["submit", "--task", "t", "--wait"]);
    let spoken = finish(command.env_remove("CF_RESULTS_QUEUE_ID"));
    assert_eq!(spoken.code, Some(2), "{spoken:?}");
    let mut command = laptop.command(&["submit", "--task", "t"]);
    let spoken = finish(command.env("PRODUCER_URL", ""));
    assert!(spoken.code == Some(2) && spoken.stderr.contains("--producer-url"), "{spoken:?}");
    assert!(laptop.server.requests("jobs").is_empty());
}

#[test]
fn submit_and_wait_prints_the_result_alone() {
    for (key, status, exit) in [("good", "completed", 0), ("bad", "failed", 3)] {
        let laptop = Laptop::new();
        let job_id = JobId::from_idempotency_key(key, None);
        let result = format!(
            r#"{{"v":1,"job_id":"{job_id}","status":"{status}","result_pointer":"file://node1/x","output":{{"n":1}}}}"#
        );
        laptop.server.push(r#"{"v":1,"job_id":"other","status":"completed","result_pointer":"file://node1/y"}"#);
        laptop.server.push(result.clone());
        let arguments = ["submit", "--task", "t", "--idempotency-key", key, "--wait", "--timeout", "30"];
        let spoken = laptop.run(&arguments);
        assert_eq!((spoken.code, &spoken.stdout), (Some(exit), &format!("{result}\n")), "{spoken:?}");
        assert!(spoken.stderr.contains(job_id.as_str()), "who interrupts it must know the id: {}", spoken.stderr);
        assert!(laptop.stored("other").is_some() && laptop.server.backlog() == 0);
        // The same job again has its result here already.
        assert_eq!(laptop.run(&arguments).stdout, spoken.stdout);
    }
}
