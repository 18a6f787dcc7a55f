//! The disk of `STATE_DIR` is full: the daemon stops and says why, or waits until it can start a keeper; runs go on;
//! and once there is room, the next start goes on where it was.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use testkit::{Consumer, Edge, PATIENCE, Process, is_alive, parts, wait_until};

use super::disk::{Disk, Left};
use super::jobs::{Jobs, has_record, submit, wait_for_results};
use super::{LONG_PATIENCE, at_once};

/// What a daemon or its keeper says that has met the full disk, besides [`tells_of_full_disk`].
const HELD_UP: [&str; 2] = ["cannot be reached", "does not take the journal of the keeper"];

/// A daemon that is started again when it has stopped, as a service is.
struct Service<'a> {
    disk: &'a Disk,
    consumer: &'a Consumer,
    daemon: Process,
    /// What the earlier ones have said.
    log: String,
}

impl<'a> Service<'a> {
    fn start(disk: &'a Disk, consumer: &'a Consumer) -> Self {
        Self { disk, consumer, daemon: disk.start(consumer), log: String::new() }
    }

    /// Has it stopped? Only a full disk makes it stop, and it says so.
    fn has_stopped(&mut self) -> bool {
        let Some(status) = self.daemon.wait_within(Duration::ZERO) else { return false };
        let log = self.daemon.log();
        assert_eq!(status.code(), Some(1), "{log}");
        let place = self.consumer.state_dir().display().to_string();
        assert!(log.contains(&place) && tells_of_full_disk(&log), "it does not tell of the full disk: {log}");
        true
    }

    fn start_again(&mut self) {
        self.log.push_str(&self.daemon.log());
        self.daemon = self.disk.start(self.consumer);
    }

    /// Starts it again while the disk is still full, and waits until it has met that, or has done all the same.
    fn try_again(&mut self, is_done: impl Fn() -> bool) {
        self.start_again();
        wait_until("the full disk to be met once more", PATIENCE, || {
            let log = self.daemon.log();
            let met = tells_of_full_disk(&log) || HELD_UP.iter().any(|words| log.contains(words));
            met || self.has_stopped() || is_done()
        });
    }

    fn tend(&mut self) {
        if self.has_stopped() {
            self.start_again();
        }
    }

    /// What all of them and the keepers have said.
    fn said(&self) -> String {
        let keepers = fs::read_to_string(self.disk.seen(&self.consumer.state_dir()).join("keeper/keeper.log"));
        let said = format!("{}{}{}", self.log, self.daemon.log(), keepers.unwrap_or_default());
        assert!(!said.contains("panicked") && !said.contains("exit status: 101"), "a program broke down: {said}");
        said
    }
}

fn tells_of_full_disk(log: &str) -> bool {
    log.contains("No space left on device") || log.contains("disk is full")
}

/// A start with so little room. Returns what was said.
fn start_with(left: Left) -> String {
    let (edge, jobs) = (Edge::start(), Jobs::new());
    let consumer = jobs.consumer(&edge);
    let disk = Disk::over(&consumer, &consumer.state_dir());
    let results = consumer.results_dir();
    disk.fill(left);
    let submitted = [submit(&edge, 0)];
    let mut service = Service::start(&disk, &consumer);
    // It stops and says why, or waits for a keeper and says why, or has room enough.
    wait_until("the full disk to be met and told of", PATIENCE, || {
        let waits = service.daemon.log().contains("cannot be reached") && tells_of_full_disk(&service.said());
        waits || service.has_stopped() || has_record(&results, &submitted[0])
    });
    // To try again without room does no harm.
    if service.has_stopped() {
        service.try_again(|| has_record(&results, &submitted[0]));
    }
    disk.clear();
    wait_for_results(&edge, &results, &submitted, || service.tend());
    jobs.assert_done(&edge, &results, &submitted);
    service.said()
}

/// How often each amount of room is tried.
const ROUNDS_MAX: usize = 4;

#[test]
fn a_start_finds_no_room_at_each_write_in_turn_and_a_later_one_goes_on() {
    let mut cases: Vec<Left> = (0..13).map(Left::Files).collect();
    cases.extend((0..35).step_by(2).map(Left::Pages));
    let words = [
        "/lock: No space",
        "cannot use the state in",
        "the directory of the keeper",
        "the lock of the keeper",
        "the log of the keeper",
        "the journal of the keeper",
        "keeper.json cannot be written",
        "`hpc-consumer jobs` shows cannot be written",
        "the state of the daemon cannot be stored",
    ];
    let said = Mutex::new(String::new());
    let missing = || {
        let said = said.lock().unwrap();
        words.into_iter().filter(|words| !said.contains(words)).collect::<Vec<_>>()
    };
    // The keeper and what shows the jobs take room at the same time, now one first and now the other, so that a round
    // may pass over a write. If all do, writes take more or less room than they did, and the numbers above miss them.
    for _ in 0..ROUNDS_MAX {
        at_once(&cases, |left| {
            let log = start_with(*left);
            said.lock().unwrap().push_str(&log);
        });
        if missing().is_empty() {
            return;
        }
    }
    panic!("in no case was there {:?}", missing());
}

/// How far the jobs were when the daemon stopped for the first time; `None` if it did not.
#[derive(Debug, Clone, Copy)]
struct Stopped {
    begun: usize,
    completed: usize,
}

const JOBS: usize = 3;

/// A daemon at work that has so little room left.
fn work_with(left: Left) -> Option<Stopped> {
    let (edge, jobs) = (Edge::start(), Jobs::new());
    let consumer = jobs.consumer(&edge);
    let disk = Disk::over(&consumer, &consumer.state_dir());
    let results = consumer.results_dir();
    let mut submitted = vec![submit(&edge, 0)];
    let mut service = Service::start(&disk, &consumer);
    wait_for_results(&edge, &results, &submitted, || assert!(!service.has_stopped(), "there is room"));
    disk.fill(left);
    submitted.extend((1..=JOBS).map(|number| submit(&edge, number)));
    let is_done = || submitted.iter().all(|job_id| has_record(&results, job_id));
    wait_until("the full disk to be met", PATIENCE, || service.has_stopped() || is_done());
    let stopped = service.has_stopped().then(|| {
        let log = service.daemon.log();
        let count = |text: &str| log.matches(text).count() - 1;
        Stopped { begun: count("job starts"), completed: count("job completed") }
    });
    if stopped.is_some() {
        service.try_again(is_done);
    }
    disk.clear();
    wait_for_results(&edge, &results, &submitted, || service.tend());
    jobs.assert_done(&edge, &results, &submitted);
    service.said();
    stopped
}

#[test]
fn every_commit_in_turn_finds_no_room_and_the_next_start_goes_on() {
    let mut cases: Vec<Left> = (0..28).map(Left::Pages).collect();
    cases.push(Left::Files(0));
    let stops = Mutex::new(Vec::new());
    at_once(&cases, |left| {
        let stopped = work_with(*left);
        stops.lock().unwrap().push(stopped);
    });
    // If this fails, a job takes more or less room than it did, and the numbers above miss some commits.
    let stops = stops.into_inner().unwrap();
    let any = |is: fn(&Stopped) -> bool| stops.iter().flatten().any(is);
    assert!(any(|at| at.begun == 0), "none stopped before a job began: {stops:?}");
    assert!(any(|at| at.begun > at.completed), "none stopped while a job ran: {stops:?}");
    assert!(any(|at| at.completed > 0), "none stopped after a job had completed: {stops:?}");
    assert!(stops.iter().any(Option::is_none), "each stopped: {stops:?}");
}

#[test]
fn without_room_for_the_journal_no_run_begins_and_those_that_go_on_do_so() {
    const MORE: usize = 40;
    let (edge, jobs) = (Edge::start(), Jobs::new());
    let consumer = jobs.consumer(&edge).set("MAX_PARALLEL_JOBS", (MORE + 1).to_string());
    let disk = Disk::over(&consumer, consumer.keeper_file().parent().expect("it is in the directory of the keeper"));
    let results = consumer.results_dir();
    jobs.close_gate();
    let mut submitted = vec![submit(&edge, 0)];
    let mut daemon = disk.start(&consumer);
    jobs.wait_for_notes(&submitted[0], 1);
    disk.fill(Left::Pages(0));
    // More than fits the page that the journal has.
    submitted.extend((1..=MORE).map(|number| submit(&edge, number)));
    daemon.wait_for_log("the disk of STATE_DIR does not take the journal of the keeper", PATIENCE);
    assert!(submitted.iter().any(|job_id| jobs.noted(job_id).is_empty()), "all have begun");
    assert_eq!(jobs.noted(&submitted[0]), ["begin"]);
    disk.clear();
    jobs.open_gate();
    wait_for_results(&edge, &results, &submitted, || assert!(daemon.is_running(), "the daemon has ended"));
    assert_eq!(jobs.assert_done(&edge, &results, &submitted), submitted.len(), "a result came twice");
    for job_id in &submitted {
        assert_eq!(jobs.noted(job_id), ["begin", "end 0"]);
    }
}

/// A daemon whose log no disk takes.
fn start_unheard(consumer: &Consumer) -> Process {
    let sh = parts::on_path("sh").expect("a shell is on the PATH");
    let words = ["-c", r#"exec "$@" 2> /dev/full"#, "sh"];
    Process::start("hpc-consumer", &mut consumer.command_within(&sh, &words), consumer.home())
}

#[test]
fn logs_that_find_no_room_hold_nothing_up() {
    let (edge, jobs) = (Edge::start(), Jobs::new());
    let consumer = jobs.consumer(&edge);
    let results = consumer.results_dir();
    let keeper_dir = consumer.keeper_file().parent().map(Path::to_owned).expect("it is in the directory of the keeper");
    fs::create_dir_all(&keeper_dir).unwrap();
    symlink("/dev/full", keeper_dir.join("keeper.log")).unwrap();
    let submitted = [submit(&edge, 0), submit(&edge, 1)];
    let mut daemon = start_unheard(&consumer);
    let begun = Instant::now();
    wait_for_results(&edge, &results, &submitted, || {
        assert!(daemon.is_running(), "the daemon has ended, for want of room for its log");
        assert!(begun.elapsed() < LONG_PATIENCE / 3, "no job is done, for want of room for the log of the keeper");
    });
    jobs.assert_done(&edge, &results, &submitted);
    assert!(consumer.keeper_pid().is_some_and(is_alive));
    // Nor do they change how a program ends.
    let mut second = start_unheard(&consumer);
    assert_eq!(second.wait(PATIENCE).code(), Some(1));
    daemon.terminate();
    assert_eq!(daemon.wait(PATIENCE).code(), Some(0));
}
