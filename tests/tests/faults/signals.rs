//! The end of a run: who hears of it, how often, how long they have, and that nothing is left after it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Consumer, Edge, PATIENCE, SCRIPT, build_image, compile, is_alive, wait_until};

use super::{record_of, script, wait_for_pid, wait_for_record};

fn assert_time_limit(record: &Value) {
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("time_limit")), "{record}");
}

/// A program that counts how often it is asked to end, and needs a second to save that number.
fn solver(consumer: &Consumer) -> PathBuf {
    let path = consumer.home().join("solver.sh");
    let text = "trap 'echo term >> terms; sleep 1; wc -l < terms > output.json; exit 0' TERM\n\
                echo $$ > solver.pid\nwhile :; do sleep 0.05; done\n";
    fs::write(&path, text).expect("the directory of a test can be written to");
    path
}

fn with_grace(edge: &Edge) -> Consumer {
    Consumer::bare(edge, SCRIPT).set("JOB_TIME_LIMIT_SECONDS", "1").set("JOB_KILL_GRACE_SECONDS", "30")
}

#[test]
fn the_whole_tree_has_the_grace_and_hears_once() {
    let edge = Edge::start();
    let consumer = with_grace(&edge);
    // The shell ends as soon as it is asked to.
    let record = record_of(&edge, &consumer, &format!("sh {}; echo done", solver(&consumer).display()));
    assert_time_limit(&record);
    assert_eq!(record["output"], 1, "it could not save its state, or was asked more than once: {record}");
}

#[test]
fn a_stopped_process_has_its_grace_too() {
    let edge = Edge::start();
    let consumer = with_grace(&edge);
    let text = format!(
        "sh {} & until test -s solver.pid; do sleep 0.01; done; kill -s STOP $!; wait",
        solver(&consumer).display()
    );
    let record = record_of(&edge, &consumer, &text);
    assert_time_limit(&record);
    assert_eq!(record["output"], 1, "{record}");
}

#[test]
fn the_end_does_not_wait_for_a_grace_that_nobody_needs() {
    let edge = Edge::start();
    let consumer =
        Consumer::bare(&edge, SCRIPT).set("JOB_TIME_LIMIT_SECONDS", "1").set("JOB_KILL_GRACE_SECONDS", "3600");
    assert_time_limit(&record_of(&edge, &consumer, "sleep 300 & sleep 301; echo done"));
}

/// What a job does to lose its processes, each with the file that names the one that must not stay. They are lost
/// beside another run, so that who they belong to must be told from themselves.
const ESCAPES: [(&str, &str); 3] = [
    ("export WORK_DIR=/tmp/x JOB_ID=x; (setsid sh -c 'echo $$ > a.pid; exec sleep 300' &)", "a.pid"),
    ("(setsid env -i /bin/sh -c 'echo $$ > b.pid; exec /bin/sleep 300' &)", "b.pid"),
    ("(setsid env -i /bin/sh -c '(/bin/sh -c \\'echo $$ > c.pid; exec /bin/sleep 300\\' &)' &)", "c.pid"),
];

/// Runs a job that loses processes while another job goes on.
fn lose_processes(consumer: &Consumer, edge: &Edge) {
    let mut daemon = consumer.start();
    let gate = consumer.home().join("gate");
    let other =
        format!("echo $$ > other.pid; until test -e {}; do sleep 0.05; done; echo 1 > output.json", gate.display());
    let other = edge.producer().submit(&script(&other));
    let other_pid = wait_for_pid(&consumer.job_dir(&other).join("other.pid"));
    for (escape, file) in ESCAPES {
        let path = consumer.home().join(format!("{file}.sh"));
        fs::write(&path, format!("{}\n", escape.replace("\\'", "'\"'\"'")))
            .expect("the directory of a test can be written to");
        let text = format!("sh {}; until test -s {file}; do sleep 0.01; done; echo 1 > output.json", path.display());
        let id = edge.producer().submit(&script(&text));
        let record = wait_for_record(consumer, &mut daemon, &id);
        assert_eq!(record["status"], "completed", "{record}");
        let left = wait_for_pid(&consumer.job_dir(&id).join(file));
        assert!(!is_alive(left), "process {left} of {escape:?} outlived its job");
        assert!(is_alive(other_pid), "the other job was ended with {escape:?}");
    }
    fs::write(&gate, "").expect("the directory of a test can be written to");
    assert_eq!(wait_for_record(consumer, &mut daemon, &other)["output"], 1);
}

#[test]
fn no_process_outlives_its_job_beside_another_run() {
    let edge = Edge::start();
    lose_processes(&Consumer::bare(&edge, SCRIPT), &edge);
}

#[test]
fn a_results_dir_that_is_no_text_hides_no_process() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let results = consumer.home().join(OsStr::from_bytes(b"results\xff"));
    let consumer = consumer.set("RESULTS_DIR", results);
    lose_processes(&consumer, &edge);
}

#[test]
fn what_was_lost_is_killed_by_the_next_keeper_too() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let mut daemon = consumer.start();
    let pid = consumer.home().join("left.pid");
    let text = format!(
        "mkdir {0} && (setsid env -i /bin/sh -c 'echo $$ > {1}; exec /bin/sleep 300' &) && exec sleep 300; echo 2 > output.json",
        consumer.home().join("first").display(),
        pid.display()
    );
    let id = edge.producer().submit(&script(&text));
    let left = wait_for_pid(&pid);
    testkit::signal(consumer.keeper_pid().expect("a keeper is running"), rustix::process::Signal::KILL);
    let record = wait_for_record(&consumer, &mut daemon, &id);
    assert_eq!((&record["output"], &record["attempt"]), (&json!(2), &json!(2)), "{record}");
    assert!(!is_alive(left), "process {left} of the first attempt is left");
}

/// How many children of a process have ended without being waited for.
fn zombies(parent: u32) -> usize {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().filter(|child| !is_alive(child.parse().expect("a process has a number"))).count()
}

#[test]
fn orphans_are_reaped_while_their_run_goes_on() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let mut daemon = consumer.start();
    let gate = consumer.home().join("gate");
    let text = format!(
        "for i in $(seq 100); do (sh -c 'sleep 0.1; echo x >> orphans' &); done; \
         until test -e {}; do sleep 0.05; done; wc -l < orphans > output.json",
        gate.display()
    );
    let id = edge.producer().submit(&script(&text));
    let orphans = consumer.job_dir(&id).join("orphans");
    wait_until("all orphans to have ended", PATIENCE, || {
        fs::read_to_string(&orphans).is_ok_and(|text| text.lines().count() == 100)
    });
    let keeper = consumer.keeper_pid().expect("a keeper is running");
    wait_until("the keeper to have no zombies", PATIENCE, || zombies(keeper) == 0);
    assert!(consumer.record(&id).is_none(), "the run has ended");
    fs::write(&gate, "").unwrap();
    assert_eq!(wait_for_record(&consumer, &mut daemon, &id)["output"], 100);
}

/// An image with a program that tells what it hears and sees: `counter.c`.
pub(super) struct Image {
    path: PathBuf,
    _home: TempDir,
}

impl Image {
    pub(super) fn build() -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let (program, path) = (home.path().join("counter"), home.path().join("counter.sif"));
        compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/counter.c"), &program);
        build_image(&program, &[], &path);
        Self { path, _home: home }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn consumer(&self, edge: &Edge, words: &str) -> Consumer {
        Consumer::apptainer(edge, &self.path).set("CONTAINER_CMD", format!("/bin/counter {words}"))
    }
}

#[test]
fn a_container_hears_once_and_can_read_its_image_in_its_grace() {
    let (edge, image) = (Edge::start(), Image::build());
    let consumer =
        image.consumer(&edge, "count").set("JOB_TIME_LIMIT_SECONDS", "2").set("JOB_KILL_GRACE_SECONDS", "30");
    let record = record_of(&edge, &consumer, "");
    assert_time_limit(&record);
    assert_eq!(record["output"], json!({"first": 1, "child": 1, "image": true}), "{record}");
}

#[test]
fn a_signal_is_a_signal_in_a_container_too() {
    let (edge, image) = (Edge::start(), Image::build());
    for (number, name) in [(11, "SIGSEGV"), (6, "SIGABRT"), (9, "SIGKILL")] {
        let record = record_of(&edge, &image.consumer(&edge, &format!("die {number}")), "");
        assert_eq!((&record["reason"], &record["signal"]), (&json!("signal"), &json!(number)), "{record}");
        assert!(record["message"].as_str().is_some_and(|message| message.contains(name)), "{record}");
    }
}
