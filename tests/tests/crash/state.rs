//! A state that cannot be used: the daemon refuses to start, says what to do, and touches nothing.

use std::fs;
use std::path::{Path, PathBuf};

use testkit::{Consumer, Edge, PATIENCE, Queue, SCRIPT};

use super::{assert_completed, script, wait_for_record};

/// Where SQLite keeps what a program says of its version, in the header of the file.
const USER_VERSION: std::ops::Range<usize> = 60..64;

/// A daemon that has worked and ended, and its state.
fn worked(edge: &Edge) -> (Consumer, PathBuf) {
    let consumer = Consumer::bare(edge, SCRIPT);
    let job = edge.producer().submit(&script("echo 1 > output.json"));
    consumer.run_until_idle();
    assert!(consumer.record(&job).is_some());
    let state = consumer.state_dir().join("state.db");
    assert!(state.is_file(), "{} is not there", state.display());
    // What is not in the file itself yet would be read over what this test writes.
    for suffix in ["-wal", "-journal"] {
        let _ = fs::remove_file(format!("{}{suffix}", state.display()));
    }
    (consumer, state)
}

fn change(state: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(state).expect("the state file can be read and written");
    change(&mut bytes);
    fs::write(state, bytes).expect("the state file can be read and written");
}

/// The daemon does not start, names the file and one of these ways to go on, and leaves the file and the job alone.
fn assert_refused(edge: &Edge, consumer: &Consumer, state: &Path, said: &str) {
    let before = fs::read(state).expect("the state file can be read and written");
    let job = edge.producer().submit(&script("echo 1 > output.json"));
    let mut daemon = consumer.start();
    let status = daemon.wait(PATIENCE);
    let log = daemon.log();
    assert!(matches!(status.code(), Some(1 | 2)), "{status}: {log}");
    assert!(log.contains(&state.display().to_string()), "the file is not named: {log}");
    assert!(log.contains(said), "no {said:?}: {log}");
    assert!(!log.contains("panicked"), "{log}");
    assert!(fs::read(state).expect("the state file can be read and written") == before, "the file was changed");
    assert_eq!(consumer.record(&job), None);
    assert_eq!(edge.backlog(Queue::Jobs), 1, "the job was taken");
}

#[test]
fn a_damaged_state_is_refused_and_left_as_it_is() {
    let edge = Edge::start();
    let (consumer, state) = worked(&edge);
    // The first page, but for its header: it tells where everything else is.
    change(&state, |bytes| bytes[100..2_000].fill(0xff));
    assert_refused(&edge, &consumer, &state, "move");
}

#[test]
fn a_state_of_a_newer_version_is_refused_and_left_as_it_is() {
    let edge = Edge::start();
    let (consumer, state) = worked(&edge);
    change(&state, |bytes| bytes[USER_VERSION].copy_from_slice(&999_u32.to_be_bytes()));
    assert_refused(&edge, &consumer, &state, "newer");
}

#[test]
fn a_file_that_is_no_state_is_refused_and_left_as_it_is() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let state = consumer.state_dir().join("state.db");
    fs::create_dir_all(consumer.state_dir()).unwrap();
    fs::write(&state, "chapter 1 of my thesis\n".repeat(100)).unwrap();
    assert_refused(&edge, &consumer, &state, "move");
}

#[test]
fn a_second_daemon_with_the_same_state_is_refused_and_told_who_holds_it() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let submit = || edge.producer().submit(&script("echo 1 > output.json"));
    let mut first = consumer.start();
    assert_completed(&wait_for_record(&consumer, &mut first, &submit()), 1);
    let keeper = consumer.keeper_pid();
    let mut second = consumer.start();
    let status = second.wait(PATIENCE);
    let log = second.log();
    assert!(matches!(status.code(), Some(1 | 2)), "{status}: {log}");
    assert!(log.contains(&consumer.state_dir().display().to_string()), "{log}");
    assert!(log.contains(&first.pid().to_string()), "it does not say that process {} holds it: {log}", first.pid());
    // The first one has not noticed.
    assert_eq!(consumer.keeper_pid(), keeper);
    assert_completed(&wait_for_record(&consumer, &mut first, &submit()), 1);
}
