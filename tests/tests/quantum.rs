//! The programs of `examples/quantum`, as they are: hybrid jobs in real containers, whose quantum half is a simulator
//! or a vendor that counts what would be paid.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{
    Consumer, Edge, PATIENCE, Process, Vendor, files_with, parts, signal, wait_for, wait_until, write_private,
};

/// Some dozens of containers, one after the other, on a busy machine.
const LONG: Duration = Duration::from_secs(400);

/// The lowest energy of the molecule, and how near a search has to come.
const EXACT: f64 = -1.857_275;
const NEAR: f64 = 0.001;

/// All at once: refusals, answers that are late, double, lost or somebody else's, and tags that mean nothing.
const FAULTS: &str = r#"{"delay":1,"too_many":6,"late":0.1,"lose":4,"twice":1,"stranger":5,"forgetful":1}"#;

/// The site of the example, with its vendor.
struct Site {
    consumer: Consumer,
    edge: Edge,
    vendor: Vendor,
    home: TempDir,
}

impl Site {
    /// Each pool has room for so many jobs at a time.
    fn new(cpu: u32, qpu: u32) -> Self {
        let (edge, vendor) = (Edge::start(), Vendor::start());
        let home = tempfile::tempdir().expect("a directory can be made");
        let mut text = fs::read_to_string(Vendor::example().join("site.toml")).expect("the example has a site's file");
        for (of_example, ours) in [
            ("/images/quantum.sif", shown(&parts::quantum_sif())),
            ("/home/you/hpc-queue/examples/quantum", shown(&Vendor::example())),
            ("https://quantum.example", vendor.address.clone()),
            ("capacity = { cpus = 8, memory = \"8GiB\" }", format!("capacity = {{ cpus = {cpu}, memory = \"8GiB\" }}")),
            ("capacity = { cpus = 4, memory = \"4GiB\" }", format!("capacity = {{ cpus = {qpu}, memory = \"4GiB\" }}")),
        ] {
            assert!(text.contains(of_example), "{of_example} is not in {text}");
            text = text.replace(of_example, &ours);
        }
        fs::create_dir(home.path().join("secrets")).expect("a directory can be made");
        write_private(&home.path().join("secrets/vendor.token"), Vendor::TOKEN);
        write_private(&home.path().join("site.toml"), &text);
        let consumer = Consumer::of_site(&edge, &home.path().join("site.toml"));
        Self { consumer, edge, vendor, home }
    }

    fn submit(&self, job: &Value) -> String {
        self.edge.producer().submit(job)
    }

    fn record(&self, id: &str, daemon: &mut Process) -> Value {
        wait_for("the final record", LONG, || {
            assert!(daemon.is_running(), "the daemon has ended: {}", daemon.log());
            self.consumer.record(id)
        })
    }

    /// The records of the jobs that a job has waited for, by their numbers.
    fn children(&self, parent: &str) -> Vec<Value> {
        (1..).map_while(|number| self.consumer.record(&format!("{parent}-{number}"))).collect()
    }

    /// Kills what runs `qpu.py` for a job or its children, and says how many those were.
    fn kill_at_the_vendor(&self, job_id: &str) -> usize {
        let processes = fs::read_dir("/proc").expect("processes can be seen").flatten();
        let ids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
        let ours = ids.filter(|pid| {
            let words = testkit::words_of(*pid);
            let program = words.first().is_some_and(|word| word.ends_with("python3"));
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let of_job = String::from_utf8_lossy(&environment).contains(&format!("JOB_ID={job_id}"));
            program && of_job && words.iter().any(|word| word.ends_with("qpu.py"))
        });
        ours.inspect(|pid| signal(*pid, Signal::KILL)).count()
    }

    /// No file that anything of us has written has the token in it.
    fn assert_token_is_nowhere(&self) {
        let found = files_with(self.home.path(), Vendor::TOKEN);
        assert_eq!(found, [self.home.path().join("secrets/vendor.token")], "the search finds it where it belongs");
        let edge = self.edge.env_file();
        // Results, state and logs of the daemon, queues and log of the edge.
        for directory in [self.consumer.home(), edge.parent().expect("a file lies in a directory")] {
            assert_eq!(files_with(directory, Vendor::TOKEN), Vec::<PathBuf>::new(), "the token is in them");
        }
    }
}

fn shown(path: &Path) -> String {
    path.to_str().expect("paths of tests are plain").to_owned()
}

/// The output of a job that has ended well.
fn output(record: &Value) -> &Value {
    assert_eq!(record["status"], "completed", "{record}");
    &record["output"]
}

fn assert_is_ground_state(found: &Value) {
    let energy = found["energy"].as_f64().unwrap_or_else(|| panic!("no energy in {found}"));
    assert!((energy - EXACT).abs() < NEAR, "{found}");
    assert_eq!(found["converged"], true, "{found}");
    let curve = found["curve"].as_array().unwrap_or_else(|| panic!("no curve in {found}"));
    assert!(curve.windows(2).all(|pair| pair[1][1].as_f64() <= pair[0][1].as_f64().map(|e| e + 1e-9)), "{found}");
}

/// There is one slot. If the job held it while it waits, nothing would ever run.
#[test]
fn a_ground_state_is_found_by_a_job_that_waits_without_a_slot() {
    let site = Site::new(1, 1);
    let mut daemon = site.consumer.start();
    let id = site.submit(&json!({ "task": "vqe", "input": { "tolerance": 1e-3 } }));
    let record = site.record(&id, &mut daemon);
    let found = output(&record);
    assert_is_ground_state(found);
    assert!(found["rounds"].as_u64().is_some_and(|rounds| rounds > 5 && rounds < 40), "{found}");
    let children = site.children(&id);
    assert_eq!(found["evaluations"], children.len(), "each energy is a job, and none was lost");
    assert!(children.iter().all(|child| child["status"] == "completed" && child["pool"] == "cpu"), "{children:?}");
    assert_eq!(record["attempt"], found["rounds"], "each round is one execution: {record}");
}

#[test]
fn nothing_is_paid_twice_whatever_is_killed_and_the_token_is_nowhere() {
    let mut site = Site::new(1, 2);
    site.vendor.set_faults(FAULTS);
    let mut daemon = site.consumer.start();
    let id = site.submit(&json!({ "task": "vqe", "input": { "task": "qpu" } }));

    // What runs in the pool of the machine is killed once its task is paid, and then more than that.
    for paid in [2, 6, 10, 16] {
        wait_until("tasks that are paid", LONG, || site.vendor.paid().len() >= paid);
        match paid {
            // Only what runs.
            2 => assert!(site.kill_at_the_vendor(&id) > 0, "something waits for the vendor"),
            6 => {
                daemon.kill();
                site.kill_at_the_vendor(&id);
                daemon = site.consumer.start();
            }
            // The attempts are cut off.
            10 => {
                let keeper = site.consumer.keeper_pid().expect("there is a keeper");
                daemon.kill();
                signal(keeper, Signal::KILL);
                wait_until("the end of the keeper", PATIENCE, || site.consumer.keeper_pid() != Some(keeper));
                site.kill_at_the_vendor(&id);
                daemon = site.consumer.start();
            }
            _ => {
                site.vendor.restart();
                site.vendor.set_faults(FAULTS);
            }
        }
    }

    let record = site.record(&id, &mut daemon);
    assert_is_ground_state(output(&record));
    let paid = site.vendor.paid();
    assert!(paid.values().all(|count| *count == 1), "paid twice: {paid:?}");
    let children = site.children(&id);
    let ids: Vec<_> = children.iter().map(|child| child["job_id"].as_str().unwrap_or_default()).collect();
    assert!(paid.keys().all(|tag| ids.contains(&tag.as_str())), "{paid:?} for {ids:?}");
    assert_eq!(paid.len(), children.len(), "each child is a task of the vendor");
    let again = |child: &&Value| child["attempt"].as_u64() > Some(1);
    assert!(children.iter().filter(again).count() >= 2, "no job of these was killed: {children:?}");
    site.assert_token_is_nowhere();
    drop(daemon);
    site.assert_token_is_nowhere();
}

#[test]
fn a_search_is_prepared_in_one_pool_run_in_another_and_checked_in_the_first() {
    let site = Site::new(1, 1);
    let mut daemon = site.consumer.start();
    for (task, pool) in [("sample", "cpu"), ("qpu", "qpu")] {
        let id = site.submit(&json!({ "task": "grover", "input": { "marked": "011", "task": task } }));
        let record = site.record(&id, &mut daemon);
        let found = output(&record);
        assert_eq!((&found["found"], &found["correct"]), (&json!("011"), &json!(true)), "{found}");
        assert!(found["probability"].as_f64() > Some(0.9), "{found}");
        assert_eq!(record["pool"], "cpu", "{record}");
        let children = site.children(&id);
        assert_eq!((children.len(), &children[0]["pool"]), (1, &json!(pool)), "{children:?}");
    }
}

#[test]
fn the_largest_cut_of_a_graph_is_found() {
    let site = Site::new(2, 1);
    let mut daemon = site.consumer.start();
    let id = site.submit(&json!({ "task": "qaoa", "input": { "rounds": 2 } }));
    let record = site.record(&id, &mut daemon);
    let found = output(&record);
    assert_eq!((&found["cut"], &found["rounds"]), (&json!(7), &json!(4)), "{found}");
    // Half of the nine edges is what chance cuts.
    assert!(found["mean"].as_f64() > Some(5.5), "{found}");
    assert_eq!(site.children(&id).len(), 11);
}

/// The vendor does not know a tag again by itself.
#[test]
fn an_order_is_found_and_not_repeated_when_its_job_was_killed() {
    let site = Site::new(1, 1);
    site.vendor.set_faults(r#"{"delay":4,"forgetful":1}"#);
    let mut daemon = site.consumer.start();
    let circuit = "OPENQASM 2.0;\nqreg q[1];\nx q[0];\n";
    let id = site.submit(&json!({ "task": "qpu", "input": { "circuits": [circuit], "terms": [[1.0, "Z"]] } }));
    wait_until("an order", PATIENCE, || !site.vendor.paid().is_empty());
    assert_eq!(site.kill_at_the_vendor(&id), 1, "it waits for the vendor");
    let record = site.record(&id, &mut daemon);
    assert_eq!((output(&record), &record["attempt"]), (&json!({ "values": [-1.0] }), &json!(2)), "{record}");
    assert_eq!(site.vendor.paid(), BTreeMap::from([(id, 1)]));
}

#[test]
fn a_task_that_the_machine_cannot_do_fails_with_its_reason_and_is_ordered_once() {
    let site = Site::new(1, 1);
    let mut daemon = site.consumer.start();
    let circuit = "OPENQASM 2.0;\nqreg q[1];\nsx q[0];\n";
    let id = site.submit(&json!({ "task": "qpu", "input": { "circuits": [circuit], "terms": [[1.0, "Z"]] } }));
    let record = site.record(&id, &mut daemon);
    assert_eq!((&record["reason"], &record["attempt"]), (&json!("exit"), &json!(4)), "{record}");
    let told = record["stderr_tail"].as_str().unwrap_or_default();
    assert!(told.contains("this machine has no gate sx"), "{told}");
    assert_eq!(site.vendor.paid(), BTreeMap::from([(id, 1)]), "tried again, and paid once");
    site.assert_token_is_nowhere();
}

/// The simulator in the image and the stand-in's machine say the same, so each may stand for the other.
#[test]
fn one_circuit_has_one_mean_wherever_it_runs() {
    let site = Site::new(1, 1);
    let mut daemon = site.consumer.start();
    let circuit = "OPENQASM 2.0;\ninclude \"qelib1.inc\";\nqreg q[3];\nh q[0];\nrx(0.3) q[1];\nry(0.7) q[2];\n\
                   cx q[0],q[2];\nrz(0.4) q[2];\nccx q[0],q[1],q[2];\ncz q[1],q[2];\nx q[1];\nrx(1.1) q[0];\n";
    let terms = json!([[0.3, "XYZ"], [0.2, "YYI"], [0.5, "ZIX"], [0.7, "IYX"], [0.4, "YII"]]);
    let means = ["estimate", "qpu"].map(|task| {
        let job = json!({ "task": task, "input": { "circuits": [circuit, circuit], "terms": terms } });
        let record = site.record(&site.submit(&job), &mut daemon);
        let values = output(&record)["values"].as_array().cloned().unwrap_or_default();
        assert_eq!((values.len(), &values[0]), (2, &values[1]), "{record}");
        values[0].as_f64().unwrap_or_else(|| panic!("no number in {record}"))
    });
    assert!((means[0] - means[1]).abs() < 1e-9 && (means[0] - 0.178_842_973).abs() < 1e-6, "{means:?}");
}
