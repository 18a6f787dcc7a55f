//! Jobs that leave children behind and go on after them.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Consumer, Edge, PATIENCE, Queue, wait_until};

use super::{record_of, write_site};

/// What the tasks of the tests run. A job of `parent` leaves in its first round what the test has put there, and tells
/// in a further one which round it is and what it has found.
const PARENT: &str = r#"
if [ "$HPC_QUEUE_ROUND" = 1 ]; then exec sh "HOME/first.sh"; fi
found=$(cat children/*.json | tr -d '\n' | sed 's/}{/},{/g')
printf '{"round": %s, "found": [%s]}' "$HPC_QUEUE_ROUND" "$found" > output.json
"#;
const FIRST: &str = "cp HOME/continue.json continue.json\n";
const CHILD: &str = "sed -n 's/.*\"input\": *\\([0-9]*\\).*/\\1/p' input.json > output.json; touch HOME/ran; \
                     while [ -e HOME/hold ]; do sleep 0.05; done\n";

struct Case {
    // Declared first, so that the processes are gone before their directories are.
    edge: Edge,
    consumer: Consumer,
    home: TempDir,
}

impl Case {
    /// A site with one processor: a parent and its children cannot run at the same time.
    fn new(continuation: &Value) -> Self {
        let (edge, home) = (Edge::start(), tempfile::tempdir().expect("a directory can be made"));
        let place = home.path().to_str().expect("paths of tests are plain").to_owned();
        let task = |name: &str| {
            format!(
                "[task.{name}]\npool = \"cpu\"\npools = [\"cpu\"]\ncommand = [\"/bin/sh\", \"{place}/{name}.sh\"]\n"
            )
        };
        let pools = "[pool.cpu]\nruntime = \"bare\"\ncapacity = { cpus = 1 }\n\
                     [pool.side]\nruntime = \"bare\"\ncapacity = { cpus = 1 }\n";
        let site = write_site(home.path(), &format!("{pools}{}{}", task("parent"), task("child")));
        let consumer = Consumer::of_site(&edge, &site).set("BARE_WRITABLE", &place);
        let case = Self { edge, consumer, home };
        case.write("parent.sh", PARENT);
        case.write("first.sh", FIRST);
        case.write("child.sh", CHILD);
        case.write("continue.json", &continuation.to_string());
        case
    }

    fn write(&self, name: &str, text: &str) {
        let place = self.home.path().to_str().expect("paths of tests are plain");
        fs::write(self.home.path().join(name), text.replace("HOME", place)).expect("a file can be written");
    }

    fn has(&self, name: &str) -> bool {
        self.home.path().join(name).exists()
    }

    fn submit(&self) -> String {
        self.edge.producer().submit(&json!({ "task": "parent" }))
    }

    fn state_of(&self, job_id: &str) -> String {
        self.consumer.ask(&["status", job_id]).output.trim().to_owned()
    }
}

fn children() -> Value {
    json!({ "run": [{ "task": "child", "input": 7 }, { "task": "child", "input": 8, "name": "the second" }] })
}

#[test]
fn a_job_goes_on_after_its_children_in_the_slot_that_they_had() {
    let case = Case::new(&children());
    let _daemon = case.consumer.start();
    let job_id = case.submit();
    let record = record_of(&case.consumer, &job_id, PATIENCE);
    assert_eq!((&record["status"], &record["output"]["round"]), (&json!("completed"), &json!(2)), "{record}");
    let found = &record["output"]["found"];
    let told: Vec<_> = (0..2).map(|at| (found[at]["job_id"].clone(), found[at]["output"].clone())).collect();
    let id = |number: u32| json!(format!("{job_id}-{number}"));
    assert_eq!(told, [(id(1), json!(7)), (id(2), json!(8))], "{record}");
    // One result for one message.
    wait_until("its result", PATIENCE, || case.edge.backlog(Queue::Results) > 0);
    wait_until("the end of its message", PATIENCE, || case.edge.backlog(Queue::Jobs) == 0);
    assert_eq!(case.edge.backlog(Queue::Results), 1);
}

#[test]
fn a_parent_is_found_again_whoever_is_killed_while_its_children_run() {
    let case = Case::new(&children());
    case.write("hold", "");
    let mut daemon = case.consumer.start();
    let job_id = case.submit();
    wait_until("the first child", PATIENCE, || case.has("ran"));
    daemon.kill();
    let mut daemon = case.consumer.start();
    let parked = || case.consumer.ask(&["jobs"]).output;
    wait_until("the parent to be parked", PATIENCE, || parked().contains("waits for its jobs"));
    assert_eq!(case.state_of(&job_id), "held");
    testkit::signal(case.consumer.keeper_pid().expect("it is there"), rustix::process::Signal::KILL);
    daemon.kill();
    let _daemon = case.consumer.start();
    fs::remove_file(case.home.path().join("hold")).expect("it is there");
    let record = record_of(&case.consumer, &job_id, PATIENCE);
    assert_eq!(record["output"]["round"], json!(2), "{record}");
    assert_eq!(record["output"]["found"].as_array().map(Vec::len), Some(2), "{record}");
}

#[test]
fn a_cancelled_parent_takes_its_children_along() {
    let case = Case::new(&children());
    case.write("hold", "");
    let _daemon = case.consumer.start();
    let job_id = case.submit();
    wait_until("the first child", PATIENCE, || case.has("ran"));
    assert!(case.consumer.ask(&["cancel", &job_id]).status.success());
    for id in [job_id.clone(), format!("{job_id}-1"), format!("{job_id}-2")] {
        let record = record_of(&case.consumer, &id, PATIENCE);
        assert_eq!(record["reason"], json!("cancelled"), "{id}: {record}");
    }
}

#[test]
fn a_child_that_fails_is_for_its_parent_to_judge() {
    let jobs =
        json!({ "run": [{ "task": "unknown" }, { "task": "child", "pool": "side" }, { "task": "child", "input": 1 }] });
    let case = Case::new(&jobs);
    let _daemon = case.consumer.start();
    let record = record_of(&case.consumer, &case.submit(), PATIENCE);
    let found = record["output"]["found"].as_array().cloned().unwrap_or_default();
    let how: Vec<_> = found.iter().map(|child| (child["status"].clone(), child["reason"].clone())).collect();
    let rejected = (json!("failed"), json!("rejected"));
    assert_eq!(how, [rejected.clone(), rejected, (json!("completed"), json!(null))], "{record}");
}

#[test]
fn what_cannot_be_gone_on_with_fails_the_job_and_says_why() {
    let case = Case::new(&children());
    let many = format!(r#"{{"run": [{}]}}"#, vec![r#"{"task":"child"}"#; 1_001].join(","));
    case.write("many.json", &many);
    case.write("million.json", &format!(r#"{{"run": [{}]}}"#, vec!["{}"; 1_000_000].join(",")));
    case.write("long.json", &many.replace("task", &"x".repeat(10_000)));
    let _daemon = case.consumer.start();
    for (first, why) in [
        ("ln -s /etc/passwd continue.json", "continue.json is a symbolic link"),
        ("truncate -s 1G continue.json", "continue.json has 1073741824 bytes"),
        ("mkfifo continue.json", "continue.json is not a regular file"),
        ("cp HOME/many.json continue.json", "asks for 1001 jobs at once"),
        ("cp HOME/million.json continue.json", "asks for 1000000 jobs at once"),
        ("cp HOME/long.json continue.json", "continue.json has 1"),
        ("echo '{\"run\": []}' > continue.json", "nothing to wait for"),
        ("echo '{\"run\": [{\"tsk\": 1}]}' > continue.json", "`run[0]`: `tsk` is no field of a job"),
        ("cp HOME/continue.json continue.json; exit 1", "the task ended with exit code 1"),
    ] {
        case.write("first.sh", first);
        let record = record_of(&case.consumer, &case.submit(), PATIENCE);
        let reason = if first.ends_with("exit 1") { "exit" } else { "output" };
        assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!(reason)), "{record}");
        assert!(record["message"].as_str().is_some_and(|said| said.contains(why)), "{why}: {record}");
    }
    assert!(!case.has("ran"), "nobody has children");
}
