//! New settings for a daemon at work: it starts anew in its own place, and what runs goes on.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use rustix::process::Signal;
use testkit::{Edge, Ledger, PATIENCE, Process, Queue, signal, wait_until};

use super::{assert_completed, wait_for_backlog, wait_for_record};

#[test]
fn settings_are_read_anew_and_jobs_go_on() {
    let (edge, ledger) = (Edge::start(), Ledger::new());
    let consumer = ledger.bare(&edge);
    let set = |value: &str| {
        let mut file = OpenOptions::new().append(true).open(edge.env_file()).expect("the settings file is there");
        writeln!(file, "MAX_PARALLEL_JOBS={value}").expect("it can be written");
    };
    let before = fs::read_to_string(edge.env_file()).expect("the settings file can be read");
    set("3");
    let mut command = consumer.command();
    command.env_remove("MAX_PARALLEL_JOBS");
    let mut daemon = Process::start("hpc-consumer", &mut command, consumer.home());
    daemon.wait_for_log(" 3 slots", PATIENCE);
    let job = edge.producer().submit(&Ledger::gated_job(0));
    wait_until("the job to run", PATIENCE, || ledger.runs(0).begun == 1);

    fs::write(edge.env_file(), &before).expect("the settings file can be written");
    set("none");
    signal(daemon.pid(), Signal::HUP);
    daemon.wait_for_log("keeps the old ones", PATIENCE);
    assert!(
        daemon.log().contains("MAX_PARALLEL_JOBS from"),
        "it does not say which setting is wrong: {}",
        daemon.log()
    );

    fs::write(edge.env_file(), &before).expect("the settings file can be written");
    set("5");
    signal(daemon.pid(), Signal::HUP);
    daemon.wait_for_log(" 5 slots", PATIENCE);
    daemon.wait_for_log("runs of an earlier daemon go on and are watched: 1", PATIENCE);
    ledger.open_gate();
    assert_completed(&wait_for_record(&consumer, &mut daemon, &job), 1);
    wait_for_backlog(&edge, Queue::Results, 1);
    assert_eq!(ledger.runs(0).begun, 1);
}
