//! `compat DIRECTORY`: today's programs with those of an earlier commit, which lie in the directory, for `cargo xtask
//! compat`. A line for each case; exits with 1 when one has failed.
//!
//! In every case each job must end with one result that says what the job did, whoever took it, ran it and fetched it.
//! That old programs refuse what new ones left (a state is never read by who is older) is no failure as long as it is
//! said and nothing is lost.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::{Consumer, Edge, PATIENCE, Process, Queue, SCRIPT, command, parts, signal, wait_for};

/// The two ages of the programs.
struct Ages {
    old: PathBuf,
    new: PathBuf,
}

/// A case: its name, and what must hold. It returns what a reader should know besides.
type Case = (&'static str, fn(&Ages) -> String);

const CASES: [Case; 8] = [
    ("an old keeper with jobs, a new daemon", |ages| daemon_is_replaced(&ages.old, &ages.new)),
    ("a new keeper with jobs, an old daemon, and a new one again", old_daemon_after_new),
    ("an old state with waiting jobs, a new daemon and keeper", old_state),
    ("results of a new daemon, an old laptop", |ages| results_arrive(&ages.new, &ages.new, &ages.old)),
    ("results of an old daemon, a new laptop", |ages| results_arrive(&ages.new, &ages.old, &ages.new)),
    ("an old edge, a new daemon and laptop", |ages| results_arrive(&ages.old, &ages.new, &ages.new)),
    ("a new edge, an old daemon and laptop", |ages| results_arrive(&ages.new, &ages.old, &ages.old)),
    ("queues of an old local-edge, a new one", old_queues),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(old), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: compat DIRECTORY; `cargo xtask compat --help` tells what it is");
        return ExitCode::from(2);
    };
    let new = parts::program("hpc-consumer").parent().map(Path::to_owned).unwrap_or_default();
    let ages = Ages { old: PathBuf::from(old), new };
    let mut failed = 0_u32;
    for (name, holds) in &CASES {
        match catch_unwind(AssertUnwindSafe(|| holds(&ages))) {
            Ok(note) => println!("ok      {name}{}{note}", if note.is_empty() { "" } else { ": " }),
            Err(problem) => {
                failed += 1;
                let text = problem.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| problem.downcast_ref::<&str>().copied()).unwrap_or("see above");
                println!("FAILED  {name}: {text}");
            }
        }
    }
    println!("{} passed, {failed} failed", CASES.len() - failed as usize);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The same command with the program of that age.
fn aged(programs: &Path, same: &Command) -> Command {
    let name = Path::new(same.get_program()).file_name().expect("a program has a name");
    let mut aged = Command::new(programs.join(name));
    aged.env_clear().args(same.get_args());
    aged.envs(same.get_envs().filter_map(|(name, value)| Some((name, value?))));
    aged.current_dir(same.get_current_dir().expect("a command of the testkit has a directory"));
    aged
}

fn start(programs: &Path, consumer: &Consumer) -> Process {
    Process::start("hpc-consumer", &mut aged(programs, &consumer.command()), consumer.home())
}

/// A daemon whose jobs are shell scripts, in `slots`.
fn consumer(edge: &Edge, slots: u32) -> Consumer {
    Consumer::bare(edge, SCRIPT).set("MAX_PARALLEL_JOBS", slots.to_string())
}

/// Submits a job that writes a line into `started` and goes on until there is the file `go`, both in `folder`.
fn submit_held(edge: &Edge, folder: &Path) -> String {
    let folder = folder.display();
    let script = format!("echo x >> {folder}/started; until [ -e {folder}/go ]; do sleep 0.05; done");
    edge.producer().submit(&json!({"task": "held", "input": script}))
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

fn wait_for_record(consumer: &Consumer, id: &str) -> Value {
    wait_for(&format!("the record of {id}"), PATIENCE, || consumer.record(id))
}

/// Every job has exactly one result in the queue, and it says that the job completed.
fn one_result_each(edge: &Edge, ids: &[String]) {
    wait_for("all results in the queue", PATIENCE, || (edge.backlog(Queue::Results) >= ids.len() as u64).then_some(()));
    let results: Vec<Value> = edge.pull(Queue::Results).iter().map(|delivery| result_in(&delivery.body)).collect();
    assert_eq!(results.len(), ids.len(), "one result for each job: {results:?}");
    for id in ids {
        let of: Vec<&Value> = results.iter().filter(|result| result["job_id"] == *id).collect();
        assert!(of.len() == 1 && of[0]["status"] == "completed", "{id} has {of:?}");
    }
}

fn result_in(body: &str) -> Value {
    let text = protocol::body::json_text(body).expect("a daemon sends JSON");
    serde_json::from_str(&text).expect("a daemon sends JSON")
}

/// A daemon is replaced by one of another age while a job runs under the keeper that it left, which starts a further
/// job for the second.
fn daemon_is_replaced(first: &Path, second: &Path) -> String {
    let edge = Edge::start();
    let consumer = consumer(&edge, 2);
    let held = submit_held(&edge, consumer.home());
    let started = consumer.home().join("started");
    let mut daemon = start(first, &consumer);
    wait_for("the start of the job", PATIENCE, || (lines(&started) == 1).then_some(()));
    let keeper = consumer.keeper_pid();
    daemon.kill();
    let mut daemon = start(second, &consumer);
    let next = edge.producer().submit(&json!({"task": "next", "input": "exit 0"}));
    wait_for_record(&consumer, &next);
    assert_eq!(consumer.keeper_pid(), keeper, "the keeper did not go on");
    fs::write(consumer.home().join("go"), "").expect("the home can be written to");
    let record = wait_for_record(&consumer, &held);
    assert_eq!((&record["attempt"], lines(&started)), (&json!(1), 1), "the job ran again: {record}");
    one_result_each(&edge, &[held, next]);
    daemon.terminate();
    daemon.wait(PATIENCE);
    String::new()
}

/// A daemon of today leaves a running job, an older one looks at it, and then today's has it back.
fn old_daemon_after_new(ages: &Ages) -> String {
    let edge = Edge::start();
    let consumer = consumer(&edge, 2);
    let held = submit_held(&edge, consumer.home());
    let started = consumer.home().join("started");
    let mut daemon = start(&ages.new, &consumer);
    wait_for("the start of the job", PATIENCE, || (lines(&started) == 1).then_some(()));
    daemon.kill();
    let mut old = start(&ages.old, &consumer);
    let ended = old.wait_within(Duration::from_secs(5));
    let note = match ended {
        Some(status) => {
            assert!(!status.success(), "it ended as if all were done");
            let log = old.log();
            format!("the old daemon refuses: {}", log.lines().last().unwrap_or("without a word"))
        }
        None => "the old daemon goes on".to_owned(),
    };
    old.kill();
    let _daemon = start(&ages.new, &consumer);
    fs::write(consumer.home().join("go"), "").expect("the home can be written to");
    let record = wait_for_record(&consumer, &held);
    assert_eq!((&record["attempt"], lines(&started)), (&json!(1), 1), "the job ran again: {record}");
    one_result_each(&edge, &[held]);
    note
}

/// Daemon and keeper of old die with a job that runs and two that wait.
fn old_state(ages: &Ages) -> String {
    let edge = Edge::start();
    let consumer = consumer(&edge, 1);
    let mut ids = vec![submit_held(&edge, consumer.home())];
    let started = consumer.home().join("started");
    let mut daemon = start(&ages.old, &consumer);
    wait_for("the start of the job", PATIENCE, || (lines(&started) == 1).then_some(()));
    ids.extend((0..2).map(|number| edge.producer().submit(&json!({"task": format!("n{number}"), "input": "exit 0"}))));
    daemon.kill();
    let keeper = consumer.keeper_pid().expect("a job runs under a keeper");
    signal(keeper, Signal::TERM);
    wait_for("the end of the keeper", PATIENCE, || consumer.keeper_pid().is_none().then_some(()));
    fs::write(consumer.home().join("go"), "").expect("the home can be written to");
    let _daemon = start(&ages.new, &consumer);
    for id in &ids {
        wait_for_record(&consumer, id);
    }
    one_result_each(&edge, &ids);
    String::new()
}

/// A job goes from an edge over a daemon to a laptop, each of its own age: one that completes, and one that fails.
fn results_arrive(edge: &Path, daemon: &Path, laptop: &Path) -> String {
    let edge = Edge::start_from(edge);
    let consumer = consumer(&edge, 2);
    let _daemon = start(daemon, &consumer);
    for (script, status) in [("echo 5 > output.json", "completed"), ("exit 4", "failed")] {
        let mut submit = command(&laptop.join("laptop-consumer"), consumer.home());
        submit.env("RESULTS_POLL_INTERVAL_SECONDS", "0.2").arg("--env-file").arg(edge.env_file());
        submit.arg("--data-dir").arg(consumer.home().join("laptop")).args(["--output", "json", "submit", "--wait"]);
        submit.args(["--task", "any", "--input", &json!(script).to_string()]);
        let mut submitted = Process::start("laptop-consumer", &mut submit, consumer.home());
        submitted.wait(PATIENCE);
        let output = submitted.output();
        let result = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).next_back();
        let result = result.unwrap_or_else(|| panic!("no result: {output}\n{}", submitted.log()));
        assert_eq!(result["status"], status, "{result}");
        assert!(status == "failed" || result["output"] == 5, "{result}");
    }
    wait_for("the end of all messages", PATIENCE, || (edge.backlog(Queue::Results) == 0).then_some(()));
    String::new()
}

/// Jobs that an old `local-edge` took are still there under a new one, with the same settings.
fn old_queues(ages: &Ages) -> String {
    let mut edge = Edge::start_from(&ages.old);
    let ids: Vec<String> = (0..3)
        .map(|number| edge.producer().submit(&json!({"task": format!("n{number}"), "input": "exit 0"})))
        .collect();
    edge.restart_from(&ages.new);
    let consumer = consumer(&edge, 2);
    let _daemon = start(&ages.new, &consumer);
    for id in &ids {
        wait_for_record(&consumer, id);
    }
    one_result_each(&edge, &ids);
    String::new()
}
