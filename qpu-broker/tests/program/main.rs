//! The real program, with a real adapter in Python and a stand-in for a vendor: what is asked and answered, and what
//! becomes of it when something dies.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of an integration test for product code")]

mod parts;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::parts::{Broker, Mute, TOKEN, Vendor, wait_for};

const RELIABLE: &str = "lookup = \"reliable\"";

#[test]
fn a_task_goes_its_way_and_belongs_to_its_job() {
    let vendor = Vendor::start();
    let broker = Broker::start(&vendor, "[limits]\npayload = \"1KiB\"", RELIABLE);
    let job = broker.job("a");
    let id = job.submit("{\"shots\":\n 10}");
    let task = job.end_of(&id);
    let result = json!({"of": {"shots": 10}, "says": null});
    assert_eq!(task, json!({"id": id, "qpu": "q", "status": "completed", "result": result}));
    assert_eq!(job.task(&id, 0), task, "it is kept for who did not get it");

    // The same key is the same task, and never another one.
    let keyed = |payload: &str| job.submit_with_key(payload, "step-1");
    let (first, again) = (keyed("[1]").json(), keyed("[1]").json());
    assert_eq!(first, again);
    job.end_of(first["id"].as_str().unwrap());
    assert_eq!((keyed("[1]").json(), vendor.paid()), (first, 2));
    assert_eq!((keyed("[2]").status, keyed("[2]").json()["code"].clone()), (409, json!("key_taken")));

    let other = broker.job("b");
    let path = format!("/v1/qpus/q/tasks/{id}");
    assert_eq!(other.ask("GET", &path, None).json()["code"], "unknown_task", "another job's task is not there");
    assert_eq!(other.ask("DELETE", &path, None).json()["code"], "unknown_task");
    assert_eq!(other.submit_with_key("[2]", "step-1").status, 202, "nor its keys");
    let machine = json!({"name": "q", "queued": 0, "jobs": 0, "in_flight": 0, "max_in_flight": 1});
    wait_for("a machine at rest", || (broker.machine() == machine).then_some(()));
    assert_eq!(broker.control("GET", "/v1/jobs").json(), json!({"jobs": ["a", "b"]}));

    let deep = format!("{}{}", "[".repeat(101), "]".repeat(101));
    let big = format!("[{}1]", "1,".repeat(2_000));
    for (method, path, body, status, code) in [
        ("GET", "/v1/nothing", None, 404, "not_found"),
        ("PUT", "/v1/qpus", None, 405, "method_not_allowed"),
        ("POST", "/v1/jobs/c", None, 404, "not_found"),
        ("POST", "/v1/qpus/none/tasks", Some("1"), 404, "unknown_qpu"),
        ("POST", "/v1/qpus/%ff/tasks", Some("1"), 400, "invalid_request"),
        ("POST", "/v1/qpus/q/tasks", Some("{"), 400, "malformed_json"),
        ("POST", "/v1/qpus/q/tasks", Some(""), 400, "malformed_json"),
        ("POST", "/v1/qpus/q/tasks", Some("1 2"), 400, "malformed_json"),
        ("POST", "/v1/qpus/q/tasks", Some(&deep), 400, "malformed_json"),
        ("POST", "/v1/qpus/q/tasks", Some(&big), 413, "payload_too_large"),
        ("GET", &format!("{path}?wait=soon"), None, 400, "invalid_request"),
        ("GET", &path.replace("/q/", "/other/"), None, 404, "unknown_task"),
        ("GET", "/v1/qpus/q/tasks/..", None, 404, "unknown_task"),
    ] {
        let answer = job.ask(method, path, body);
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (status, Some(code)),
            "{method} {path}: {answer:?}"
        );
        assert!(answer.head.contains("content-type: application/problem+json"), "{answer:?}");
    }
    for id in ["..%2f..", "a%20b", "-a"] {
        assert_eq!(broker.control("POST", &format!("/v1/jobs/{id}")).status, 400, "{id}");
    }
}

#[test]
fn a_task_that_the_vendor_has_taken_is_found_after_a_kill_and_paid_once() {
    let vendor = Vendor::start();
    let mut broker = Broker::start(&vendor, "", RELIABLE);
    let job = broker.job("a");
    vendor.set(|doings| doings.mute = Some(Mute::Taken));
    let id = job.submit("1");
    wait_for("a task at the vendor", || (vendor.paid() == 1).then_some(()));
    broker.kill();
    // What a kill has left of a job that has ended goes.
    let left = broker.dir.path().join("sockets/ended");
    fs::create_dir(&left).unwrap();
    drop(std::os::unix::net::UnixListener::bind(left.join("qpu.sock")).unwrap());
    broker.start_again();
    assert!(!left.exists());
    let before = job.task(&id, 1);
    assert_eq!(
        (before["status"].as_str(), vendor.times("FIND /tasks")),
        (Some("queued"), 0),
        "the adapter still lives"
    );
    vendor.set(|doings| doings.mute = None);
    assert_eq!(job.end_of(&id)["status"], "completed");
    assert_eq!((vendor.paid(), vendor.times("POST /tasks")), (1, 1));
    assert!(vendor.times("FIND /tasks") >= 1);
}

#[test]
fn a_task_that_is_surely_not_there_is_submitted_again_and_otherwise_lost() {
    let vendor = Vendor::start();
    for (lookup, status, paid) in [("reliable", "completed", 1), ("unreliable", "lost", 1)] {
        let mut broker = Broker::start(&vendor, "", &format!("lookup = \"{lookup}\""));
        let job = broker.job("a");
        vendor.set(|doings| doings.mute = Some(Mute::NotTaken));
        let id = job.submit("1");
        let asked = vendor.times("FIND /tasks");
        wait_for("a look for it", || (vendor.times("FIND /tasks") > asked).then_some(()));
        broker.kill();
        vendor.set(|doings| doings.mute = None);
        broker.start_again();
        let task = job.end_of(&id);
        assert_eq!((task["status"].as_str(), vendor.paid()), (Some(status), paid), "{lookup}: {task}");
        assert_eq!(task["error"].is_string(), status == "lost", "{task}");
    }
}

#[test]
fn jobs_take_turns_and_no_more_is_in_flight_than_may_be() {
    let vendor = Vendor::start();
    let broker = Broker::start(&vendor, "[limits]\ntasks_of_job = 6\ntasks = 9", "max_in_flight = 2");
    let (a, b) = (broker.job("a"), broker.job("b"));
    vendor.set(|doings| doings.hold = true);
    let of_a: Vec<String> = (0..6).map(|number| a.submit(&format!("\"a{number}\""))).collect();
    let refused = a.ask("POST", "/v1/qpus/q/tasks", Some("1"));
    assert_eq!((refused.status, refused.json()["retryable"].clone()), (429, json!(true)), "{refused:?}");
    assert!(refused.head.contains("retry-after: 5") && refused.text.contains("This job has 6 tasks"), "{refused:?}");
    let of_b: Vec<String> = (0..3).map(|number| b.submit(&format!("\"b{number}\""))).collect();
    assert!(b.ask("POST", "/v1/qpus/q/tasks", Some("1")).text.contains("All jobs together have 9 tasks"));
    wait_for("two tasks at the vendor", || (vendor.paid() == 2).then_some(()));
    assert_eq!(broker.machine(), json!({"name": "q", "queued": 7, "jobs": 2, "in_flight": 2, "max_in_flight": 2}));
    assert_eq!(a.task(&of_a[5], 0)["before"], 3);
    vendor.set(|doings| doings.hold = false);
    of_a.iter().for_each(|id| assert_eq!(a.end_of(id)["status"], "completed"));
    of_b.iter().for_each(|id| assert_eq!(b.end_of(id)["status"], "completed"));
    // Until b came, a had the machine for itself.
    let order: Vec<Value> = vendor.doings().tasks.values().map(|task| task.payload.clone()).collect();
    assert_eq!(json!(order), json!(["a0", "a1", "a2", "b0", "a3", "b1", "a4", "b2", "a5"]));
}

#[test]
fn a_client_that_goes_away_ends_nothing_and_the_end_of_its_job_ends_all() {
    let vendor = Vendor::start();
    let broker = Broker::start(&vendor, "", RELIABLE);
    let job = broker.job("a");
    vendor.set(|doings| doings.hold = true);
    let (first, second) = (job.submit("1"), job.submit("2"));
    wait_for("a task that runs", || (job.task(&first, 0)["status"] == "running").then_some(()));
    drop(job.begin_to_wait(&first));
    vendor.set(|doings| doings.hold = false);
    assert_eq!(job.end_of(&first)["result"]["of"], 1);
    assert_eq!(job.end_of(&second)["result"]["of"], 2);

    vendor.set(|doings| doings.hold = true);
    let (running, queued) = (job.submit("3"), job.submit("4"));
    wait_for("a task that runs", || (job.task(&running, 0)["status"] == "running").then_some(()));
    let mut waiting = job.begin_to_wait(&running);
    assert_eq!(broker.control("DELETE", "/v1/jobs/a").status, 204);
    let mut told = String::new();
    waiting.read_to_string(&mut told).unwrap();
    assert!(told.is_empty() || told.contains("unknown_job"), "who waits is let go: {told}");
    assert!(!job.socket.exists());
    let status = |name: &str| vendor.doings().tasks.get(name).map(|task| task.status);
    wait_for("the end of the task at the vendor", || (status("task-2") == Some("cancelled")).then_some(()));
    assert_eq!(vendor.paid(), 3, "what waited is not submitted");
    wait_for("a machine at rest", || (broker.machine()["in_flight"] == 0).then_some(()));
    let again = broker.job("a");
    for id in [&first, &running, &queued] {
        let answer = again.ask("GET", &format!("/v1/qpus/q/tasks/{id}"), None);
        assert_eq!(answer.json()["code"], "unknown_task", "it is forgotten");
    }
}

#[test]
fn a_task_is_cancelled_wherever_it_is() {
    let vendor = Vendor::start();
    let broker = Broker::start(&vendor, "", RELIABLE);
    let job = broker.job("a");
    vendor.set(|doings| doings.hold = true);
    let (running, queued) = (job.submit("1"), job.submit("2"));
    let cancel = |id: &str| job.ask("DELETE", &format!("/v1/qpus/q/tasks/{id}"), None).json();
    assert_eq!(cancel(&queued)["status"], "cancelled");
    wait_for("a task that runs", || (job.task(&running, 0)["status"] == "running").then_some(()));
    assert_eq!(cancel(&running)["cancelling"], true);
    assert_eq!(job.end_of(&running)["status"], "cancelled");
    assert_eq!(cancel(&running)["status"], "cancelled", "a second time changes nothing");
    // What the vendor may have, and has not said so, is looked for first.
    vendor.set(|doings| doings.mute = Some(Mute::Taken));
    let submitting = job.submit("3");
    wait_for("a task at the vendor", || (vendor.paid() == 2).then_some(()));
    assert_eq!(cancel(&submitting)["cancelling"], true);
    vendor.set(|doings| doings.mute = None);
    assert_eq!(job.end_of(&submitting)["status"], "cancelled");
    assert_eq!(vendor.doings().tasks["task-1"].status, "cancelled");
}

#[test]
fn a_job_with_many_connections_holds_up_nobody_else() {
    let vendor = Vendor::start();
    let broker = Broker::start(&vendor, "", RELIABLE);
    let (a, b) = (broker.job("a"), broker.job("b"));
    let idle: Vec<_> = (0..32).map(|_| UnixStream::connect(&a.socket).unwrap()).collect();
    // Each has its place once the next one is accepted; the last one has none.
    let mut waiting = UnixStream::connect(&a.socket).unwrap();
    waiting.write_all(b"GET /v1/qpus HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    assert_eq!(b.end_of(&b.submit("1"))["status"], "completed");
    assert_eq!(broker.control("GET", "/v1/jobs").status, 200);
    waiting.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(waiting.read(&mut [0; 9]).is_err(), "there is a bound");
    drop(idle);
    waiting.set_read_timeout(Some(parts::BOUND)).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_payload_that_the_adapter_cannot_read_fails_alone() {
    let vendor = Vendor::start();
    let broker = Broker::start(&vendor, "", RELIABLE);
    let job = broker.job("a");
    // A number that is too long for Python.
    let task = job.end_of(&job.submit(&"7".repeat(10_000)));
    assert_eq!(task["status"], "failed");
    assert!(task["error"].as_str().unwrap().contains("cannot read the payload"), "{task}");
    assert_eq!(job.end_of(&job.submit("1"))["status"], "completed");
    assert_eq!(broker.log().matches("the adapter is started").count(), 1, "it goes on");
}

#[test]
fn a_vendor_that_is_busy_is_asked_again_when_it_says() {
    let vendor = Vendor::start();
    let broker = Broker::start(&vendor, "", "max_in_flight = 3");
    let job = broker.job("a");
    vendor.set(|doings| doings.refuse = Some((429, 1)));
    let id = job.submit("1");
    let trouble = wait_for("trouble", || Some(broker.machine()).filter(|machine| machine["trouble"].is_string()));
    assert!(trouble["trouble"].as_str().unwrap().contains("429"), "{trouble}");
    assert!((1..=2).contains(&trouble["next_try_seconds"].as_u64().unwrap()), "{trouble}");
    assert_eq!(job.end_of(&id)["status"], "completed");
    let doings = vendor.doings();
    let orders: Vec<_> = doings.asked.iter().filter(|(_, what)| what == "POST /tasks").map(|(at, _)| *at).collect();
    assert_eq!(orders.len(), 2);
    assert!(orders[1] - orders[0] >= Duration::from_secs(2), "{:?}", orders[1] - orders[0]);
}

#[test]
fn what_the_vendor_refuses_fails_and_somebody_elses_task_is_never_taken() {
    let vendor = Vendor::start();
    let broker = Broker::start(&vendor, "", "give_up = \"3s\"");
    let job = broker.job("a");
    vendor.set(|doings| doings.refuse = Some((400, 1)));
    let task = job.end_of(&job.submit("1"));
    assert_eq!(task["status"], "failed");
    assert!(task["error"].as_str().unwrap().contains("the vendor has refused it"), "{task}");
    vendor.set(|doings| doings.strange = true);
    let task = job.end_of(&job.submit("2"));
    assert_eq!(task["status"], "lost");
    assert!(task["error"].as_str().unwrap().contains("another tag"), "{task}");
    assert!(task.get("result").is_none());
}

#[test]
fn a_signal_to_stop_leaves_all_to_the_next_start() {
    let vendor = Vendor::start();
    let mut broker = Broker::start(&vendor, "", "lookup = \"unreliable\"");
    let job = broker.job("a");
    vendor.set(|doings| (doings.hold, doings.mute) = (true, Some(Mute::Taken)));
    let (first, second) = (job.submit("1"), job.submit("2"));
    wait_for("a task at the vendor", || (vendor.paid() == 1).then_some(()));
    // The answer comes while it stops: it is waited for, and written down.
    let status = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            vendor.set(|doings| doings.mute = None);
        });
        broker.terminate()
    });
    assert_eq!(status.code(), Some(0));
    assert!(!job.socket.exists() && job.socket.parent().unwrap().is_dir(), "what a container is shown stays");
    vendor.set(|doings| doings.hold = false);
    broker.start_again();
    assert_eq!(job.end_of(&first)["status"], "completed");
    assert_eq!(job.end_of(&second)["status"], "completed");
    assert_eq!((vendor.paid(), vendor.times("FIND /tasks")), (2, 0), "what is written down need not be looked for");
}

#[test]
fn the_token_is_in_no_state_no_log_and_no_answer() {
    let vendor = Vendor::start();
    let mut broker = Broker::start(&vendor, "", RELIABLE);
    let job = broker.job("a");
    vendor.set(|doings| {
        doings.says = Some(format!("your token is {TOKEN}"));
        doings.refuse = Some((400, 1));
    });
    let refused = job.end_of(&job.submit("1"));
    assert!(refused["error"].as_str().unwrap().contains("your token is [redacted]"), "{refused}");
    // A busy vendor stands in what everybody may see of the machine, and in the log.
    vendor.set(|doings| doings.refuse = Some((503, 1)));
    let id = job.submit("2");
    let shown = wait_for("trouble", || Some(broker.machine()).filter(|machine| machine["trouble"].is_string()));
    assert!(shown.to_string().contains("[redacted]"), "{shown}");
    let done = job.end_of(&id);
    assert_eq!(done["result"]["says"], "your token is [redacted]");
    assert_eq!(broker.terminate().code(), Some(0));
    let mut searched = vec![("answers".to_owned(), format!("{refused}{shown}{done}").into_bytes())];
    searched.push(("log".to_owned(), broker.log().into_bytes()));
    for folder in ["state", "sockets"] {
        for entry in fs::read_dir(broker.dir.path().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                searched.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    assert!(searched.iter().any(|(_, bytes)| contains(bytes, b"[redacted]")), "the search finds what is there");
    // As it is, as JSON has it, and its plain end.
    let escaped = json!(TOKEN).to_string();
    for form in [TOKEN, escaped.trim_matches('"'), "0123456789"] {
        for (place, bytes) in &searched {
            assert!(!contains(bytes, form.as_bytes()), "{form} is in {place}");
        }
    }
}

fn contains(bytes: &[u8], searched: &[u8]) -> bool {
    bytes.windows(searched.len()).any(|window| window == searched)
}

#[test]
fn an_adapter_that_hangs_or_dies_is_started_again() {
    let script = r#"
import json, os, sys, time
starts = len(open("starts").read()) if os.path.exists("starts") else 0
open("starts", "a").write("x")
print("the secret is", os.environ["VENDOR_TOKEN"], file=sys.stderr, flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["op"] == "submit" and starts == 0:
        time.sleep(60)
    if asked["op"] == "submit" and starts == 1:
        sys.exit(3)
    print("no json at all", flush=True)
    print(json.dumps({"id": 0, "ok": True, "vendor_id": "of another question"}), flush=True)
    told = {"find": {"found": False}, "submit": {"vendor_id": "v"}, "status": {"status": "completed"},
            "result": {"result": [0.1, 12345678901234567890]}}[asked["op"]]
    print(json.dumps({"id": asked["id"], "ok": True, **told}), flush=True)
"#;
    let lines = "command = [\"python3\", \"adapter.py\"]\ntimeout = \"1s\"\nsettle = \"0s\"\nlookup = \"reliable\"";
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("adapter.py"), script).unwrap();
    let broker =
        Broker::start_with("", &lines.replace("adapter.py", &folder.path().join("adapter.py").to_string_lossy()));
    let job = broker.job("a");
    let task = job.end_of(&job.submit("1"));
    assert_eq!(task["status"], "completed", "{task}");
    let shown = task["result"].to_string();
    assert_eq!(shown, "[0.1,12345678901234567890]");
    let log = broker.log();
    assert!(log.contains("no answer within 1 s") && log.contains("ended without an answer"), "{log}");
    assert!(log.contains("adapter: the secret is [redacted]"), "{log}");
}

#[test]
fn what_is_wrong_with_the_file_or_a_second_broker_is_told_at_the_start() {
    let vendor = Vendor::start();
    let broker = Broker::start(&vendor, "", RELIABLE);
    let dir = broker.dir.path();
    let run = |config: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_qpu-broker"));
        command.arg("serve").arg("--config").arg(dir.join(config)).arg("--state-dir").arg(dir.join("state"));
        let output = command.arg("--sockets").arg(dir.join("sockets")).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run("qpus.toml");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another program has it open"), "{said}");
    fs::write(dir.join("wrong.toml"), "[qpu.q]\ncommand = [\"sh\"]\nsecrets = \"none.env\"").unwrap();
    let (code, said) = run("wrong.toml");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`qpu.q`") && said.contains("none.env"), "{said}");
    assert_eq!(broker.job("a").ask("GET", "/v1/qpus", None).status, 200, "the first one goes on");
}

#[test]
fn a_broker_that_nobody_needs_ends_by_itself_and_one_with_a_job_or_a_task_does_not() {
    let vendor = Vendor::start();
    let mut broker = Broker::start(&vendor, "", RELIABLE);
    broker.terminate();
    broker.start_again_with(&["--idle", "1s"]);
    let job = broker.job("a");
    vendor.set(|doings| doings.hold = true);
    let id = job.submit("1");
    wait_for("a task at the vendor", || (vendor.paid() == 1).then_some(()));
    // Nobody asks through the control socket for longer than that.
    std::thread::sleep(Duration::from_secs(3));
    assert!(broker.is_there() && job.task(&id, 0)["status"] == "running", "a job may ask at any time");
    assert_eq!(broker.control("DELETE", "/v1/jobs/a").status, 204);
    assert!(broker.end().success(), "{}", broker.log());
    assert!(vendor.times("DELETE /tasks") >= 1, "what is at the vendor was cancelled before that");
    assert!(broker.log().contains("it is not needed any more: there is no job and no task"), "{}", broker.log());
    assert!(!broker.dir.path().join("state/control.sock").exists());
}

#[test]
fn what_check_says_of_a_file_is_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    let (file, secrets) = (dir.path().join("qpus.toml"), dir.path().join("vendor.env"));
    fs::write(&secrets, "A=b\n").unwrap();
    fs::set_permissions(&secrets, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&file, "[qpu.b]\ncommand = [\"sh\"]\n[qpu.a]\ncommand = [\"sh\"]\nsecrets = \"vendor.env\"\n").unwrap();
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_qpu-broker"));
    let said = check.args(["check", "--config"]).arg(&file).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    let told: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(told, json!({"machines": ["a", "b"], "secrets": [secrets]}));
}
