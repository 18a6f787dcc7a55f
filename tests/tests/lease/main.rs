//! The lease, from the file of the site to the vendor: the daemon starts the broker and keeps it running, jobs in real
//! containers ask it, and whatever is killed meanwhile, no task is paid twice and the token is nowhere.

mod parts;
mod upkeep;

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::json;
use testkit::{PATIENCE, signal, wait_until};

use crate::parts::{LONG, Site};

/// All at once: refusals, answers that are late, double, lost or somebody else's, and tags that mean nothing.
const FAULTS: &str = r#"{"delay":0.5,"too_many":9,"late":0.1,"lose":4,"twice":1,"stranger":5,"forgetful":1}"#;

/// The lowest energy of the molecule, and how near a search has to come.
const EXACT: f64 = -1.857_275;
const NEAR: f64 = 0.001;

#[test]
fn a_ground_state_is_found_and_no_task_is_paid_twice_whatever_is_killed() {
    let mut site = Site::new();
    site.vendor.set_faults(FAULTS);
    let mut daemon = site.consumer.start();
    let id = site.submit(&json!({ "task": "vqe-lease", "input": { "tolerance": 1e-3 } }));
    for paid in [2, 6, 10, 14, 18] {
        wait_until("tasks that are paid", LONG, || site.vendor.paid().len() >= paid);
        match paid {
            2 | 14 => {
                site.kill_broker();
            }
            // It goes on without the daemon, and is taken up.
            6 => {
                let before = site.broker();
                daemon.kill();
                wait_until("tasks that are paid without a daemon", LONG, || site.vendor.paid().len() > paid);
                daemon = site.consumer.start();
                daemon.wait_for_log("still runs, and is gone on with", PATIENCE);
                assert_eq!(site.broker(), before);
            }
            10 => {
                site.vendor.restart();
                site.vendor.set_faults(FAULTS);
            }
            // Both at once.
            _ => {
                let before = site.broker_after(None);
                daemon.kill();
                signal(before, Signal::KILL);
                daemon = site.consumer.start();
                site.broker_after(Some(before));
            }
        }
    }
    let found = site.output(&id, &mut daemon);
    let energy = found["energy"].as_f64().expect("it has found an energy");
    assert!((energy - EXACT).abs() < NEAR, "{found}");
    assert_eq!(found["converged"], true, "{found}");
    let record = site.record(&id, &mut daemon);
    assert_eq!((&record["attempt"], &record["pool"]), (&json!(1), &json!("hybrid")), "{record}");
    let paid = site.vendor.paid();
    assert!(paid.values().all(|count| *count == 1), "paid twice: {paid:?}");
    assert_eq!(found["evaluations"], paid.len(), "each energy is a task, and none was paid without a use");
    site.wait_until_it_ends_there(&id);
    site.assert_token_is_nowhere();
    drop(daemon);
    site.assert_token_is_nowhere();
}

#[test]
fn another_attempt_finds_what_the_one_before_has_paid() {
    let site = Site::new();
    site.vendor.set_faults(r#"{"delay":2}"#);
    let mut daemon = site.consumer.start();
    let id = site.script("script", "end({'id': submit('step-1'), 'of': result(submit('step-1'))['result']})");
    wait_until("a task that is paid", LONG, || site.vendor.paid().len() == 1);
    let keeper = site.consumer.keeper_pid().expect("there is a keeper");
    daemon.kill();
    signal(keeper, Signal::KILL);
    wait_until("the end of the keeper", PATIENCE, || site.consumer.keeper_pid() != Some(keeper));
    daemon = site.consumer.start();
    let found = site.output(&id, &mut daemon);
    assert_eq!(found["of"], json!({ "values": [-1.0] }));
    assert_eq!(site.record(&id, &mut daemon)["attempt"], 2);
    assert_eq!(site.vendor.paid().len(), 1, "it is the same task in both");
    site.wait_until_it_ends_there(&id);
}

#[test]
fn a_job_that_has_waited_for_others_finds_its_tasks_and_ends_there_with_its_record() {
    let site = Site::new();
    let mut daemon = site.consumer.start();
    let id = site.script(
        "script",
        r#"
task = submit("first")
kept = pathlib.Path("task.txt")
if os.environ["HPC_QUEUE_ROUND"] == "1":
    result(task)
    kept.write_text(task)
    child = {"task": "plain", "input": {"argv": ["sh", "-c", "test ! -e /run/hpc-queue"]}}
    pathlib.Path("continue.json").write_text(json.dumps({"run": [child], "when": "all"}))
else:
    child = json.loads(pathlib.Path("children/1.json").read_text())
    end({"same": kept.read_text() == task, "status": result(task)["status"], "child": child["status"]})
"#,
    );
    let child = format!("{id}-1");
    wait_until("the job waits for another", LONG, || site.consumer.job_dir(&child).exists());
    assert!(site.may_ask(&id) && !site.may_ask(&child), "only the child has no lease");
    let found = site.output(&id, &mut daemon);
    assert_eq!(found, json!({ "same": true, "status": "completed", "child": "completed" }));
    assert_eq!(site.vendor.paid().len(), 1);
    site.wait_until_it_ends_there(&id);
}

#[test]
fn a_job_that_is_cancelled_ends_its_tasks() {
    let site = Site::new();
    site.vendor.set_faults(r#"{"delay":600}"#);
    let mut daemon = site.consumer.start();
    let id = site.script("script", "result(submit('long'))");
    wait_until("a task that is paid", LONG, || site.vendor.paid().len() == 1);
    let said = site.consumer.ask(&["cancel", &id]);
    assert!(said.status.success(), "{said:?}");
    assert_eq!(site.record(&id, &mut daemon)["reason"], "cancelled");
    wait_until("the task to be cancelled", PATIENCE, || site.vendor.cancelled() == 1);
    site.wait_until_it_ends_there(&id);
}

#[test]
fn a_client_that_goes_away_in_the_middle_loses_nothing() {
    let site = Site::new();
    site.vendor.set_faults(r#"{"delay":1}"#);
    let mut daemon = site.consumer.start();
    let id = site.script(
        "script",
        r#"
def half(text):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect("/run/hpc-queue/qpu.sock")
    connection.sendall(text.encode())
    connection.close()
half("POST /v1/qpus/vendor/tasks HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{\"circuits\":")
task = submit("kept")
half(f"GET /v1/qpus/vendor/tasks/{task}?wait=60 HTTP/1.1\r\nhost: x\r\n\r\n")
half("GET /v1/qp")
half("\x00\x01\x02 nothing of HTTP")
child = os.fork()
if child == 0:
    result(task)
    os._exit(0)
os.kill(child, 9)
os.waitpid(child, 0)
end({"same": submit("kept") == task, "status": result(task)["status"], "others": ask("GET", "/other/tasks/x")[0]})
"#,
    );
    let found = site.output(&id, &mut daemon);
    assert_eq!(found, json!({ "same": true, "status": "completed", "others": 404 }));
    assert_eq!(site.vendor.paid().len(), 1);
}

/// Two jobs, each with a machine's worth of keys that the other has, too.
#[test]
fn jobs_have_tasks_and_sockets_of_their_own() {
    let site = Site::new();
    let mut daemon = site.consumer.start();
    let script = "end({'id': submit('same'), 'there': os.listdir('/run/hpc-queue'), \
                  'mine': result(submit('same'))['status']})";
    let ids = [site.script("script", script), site.script("script", script)];
    let outputs: Vec<_> = ids.iter().map(|id| site.output(id, &mut daemon)).collect();
    assert!(outputs.iter().all(|output| output["there"] == json!(["qpu.sock"]) && output["mine"] == "completed"));
    assert_ne!(outputs[0]["id"], outputs[1]["id"]);
    let tags: BTreeSet<_> = site.vendor.paid().into_keys().collect();
    assert_eq!(tags.len(), 2, "a key is that of its job: {tags:?}");
}
