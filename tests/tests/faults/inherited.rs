//! What daemon and keeper get from who starts them: a cron line, a batch system, a shell with limits.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::{Consumer, Edge, PATIENCE, Process, SCRIPT, is_alive, signal, wait_for, wait_until};

use super::{script, wait_for_record};

/// Starts the daemon from a shell that does something first.
fn start_from_shell(consumer: &Consumer, before: &str) -> Process {
    let line = format!(r#"{before}; exec "$@""#);
    Process::start("hpc-consumer", &mut consumer.command_within(Path::new("sh"), &["-c", &line, "sh"]), consumer.home())
}

/// A job that makes `begun`, and has the output 1 once there is `gate`.
struct Gated {
    begun: PathBuf,
    gate: PathBuf,
}

impl Gated {
    fn new(consumer: &Consumer) -> Self {
        Self { begun: consumer.home().join("begun"), gate: consumer.home().join("gate") }
    }

    fn job(&self) -> Value {
        let (begun, gate) = (self.begun.display(), self.gate.display());
        script(&format!("echo $$ >> {begun}; until test -e {gate}; do sleep 0.05; done; echo 1 > output.json"))
    }

    fn wait_until_begun(&self) {
        wait_until("the job to run", PATIENCE, || {
            fs::read_to_string(&self.begun).is_ok_and(|text| text.ends_with('\n'))
        });
    }

    fn open(&self) {
        fs::write(&self.gate, "").expect("the directory of a test can be written to");
    }

    fn times_begun(&self) -> usize {
        fs::read_to_string(&self.begun).unwrap_or_default().lines().count()
    }
}

fn assert_completed(record: &Value, attempt: u32) {
    assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(attempt)), "{record}");
}

fn keeper_of(consumer: &Consumer) -> u32 {
    wait_for("the keeper", PATIENCE, || consumer.keeper_pid())
}

#[test]
fn a_lock_of_cron_is_free_once_the_daemon_is_dead_and_the_next_one_takes_its_jobs_up() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let (gated, lock) = (Gated::new(&consumer), consumer.home().join("lock"));
    let cron = || {
        let words = ["--nonblock", "--no-fork", lock.to_str().expect("it is plain")];
        Process::start("hpc-consumer", &mut consumer.command_within(Path::new("flock"), &words), consumer.home())
    };
    let job = edge.producer().submit(&gated.job());
    let mut first = cron();
    gated.wait_until_begun();
    let keeper = keeper_of(&consumer);
    assert!(!cron().wait(PATIENCE).success(), "the daemon does not hold the lock with which it was started");
    first.kill();
    assert!(is_alive(keeper), "the run has no keeper");
    flock(File::open(&lock).unwrap(), FlockOperation::NonBlockingLockExclusive).expect("the lock is still held");

    let mut second = cron();
    second.wait_for_log("runs of an earlier daemon go on", PATIENCE);
    gated.open();
    assert_completed(&wait_for_record(&consumer, &mut second, &job), 1);
    assert_eq!((gated.times_begun(), keeper_of(&consumer)), (1, keeper));
}

#[test]
fn who_starts_the_daemon_with_signals_ignored_gets_one_run_and_jobs_with_the_default() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let mut daemon = start_from_shell(&consumer, "trap '' CHLD HUP INT QUIT USR1 ALRM XFSZ XCPU");
    let (ran, ignored) = (consumer.home().join("ran"), consumer.home().join("ignored"));
    let mut job = script(&format!(
        "echo 1 >> {}; sed -n s/SigIgn:.//p /proc/self/status > {}; echo 1 > output.json",
        ran.display(),
        ignored.display()
    ));
    job["rerunnable"] = false.into();
    let job = edge.producer().submit(&job);
    assert_completed(&wait_for_record(&consumer, &mut daemon, &job), 1);
    assert_eq!(fs::read_to_string(ran).unwrap(), "1\n", "it ran again");
    let ignored = u64::from_str_radix(fs::read_to_string(ignored).unwrap().trim(), 16).unwrap();
    // Signals 32 and 33 belong to the C library.
    assert_eq!(ignored & !(0b11 << 31), 0, "{ignored:b}");
}

#[test]
fn signals_that_were_blocked_are_heard() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let words = ["--block-signal=CHLD", "--block-signal=TERM"];
    let mut command = consumer.command_within(Path::new("env"), &words);
    let mut daemon = Process::start("hpc-consumer", &mut command, consumer.home());
    let job = edge.producer().submit(&script("echo 1 > output.json"));
    assert_completed(&wait_for_record(&consumer, &mut daemon, &job), 1);
    daemon.terminate();
    assert!(daemon.wait(PATIENCE).success(), "{}", daemon.log());
}

#[test]
fn a_limit_of_file_size_ends_neither_daemon_nor_keeper_nor_jobs() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let gated = Gated::new(&consumer);
    // Blocks of 512 or of 1024 bytes, as the shell likes it.
    let mut daemon = start_from_shell(&consumer, "ulimit -f 2048");
    let beside = edge.producer().submit(&gated.job());
    gated.wait_until_begun();
    let keeper = keeper_of(&consumer);
    let flood = edge.producer().submit(&script("yes | head -c 6000000; echo 1 > output.json"));
    assert_completed(&wait_for_record(&consumer, &mut daemon, &flood), 1);
    gated.open();
    assert_completed(&wait_for_record(&consumer, &mut daemon, &beside), 1);
    assert_eq!((consumer.keeper_pid(), gated.times_begun()), (Some(keeper), 1));
    assert!(daemon.log().contains("ulimit -f"), "nobody is told why logs are cut");
}

#[test]
fn signals_of_batch_systems_end_neither_daemon_nor_keeper() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let gated = Gated::new(&consumer);
    let mut daemon = consumer.start();
    let job = edge.producer().submit(&gated.job());
    gated.wait_until_begun();
    let keeper = keeper_of(&consumer);
    let log = || fs::read_to_string(consumer.state_dir().join("keeper/keeper.log")).unwrap_or_default();
    for (sent, name) in [(Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2"), (Signal::XCPU, "SIGXCPU")] {
        signal(keeper, sent);
        signal(daemon.pid(), sent);
        daemon.wait_for_log(name, PATIENCE);
        wait_until(&format!("{name} in the log of the keeper"), PATIENCE, || log().contains(name));
    }
    gated.open();
    assert_completed(&wait_for_record(&consumer, &mut daemon, &job), 1);
    assert_eq!((consumer.keeper_pid(), gated.times_begun()), (Some(keeper), 1));
}

#[test]
fn the_mask_of_new_files_is_that_of_the_last_daemon_and_lets_nobody_else_write() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let gated = Gated::new(&consumer);
    let mask_of_a_job = |daemon: &mut Process| {
        let noted = consumer.home().join("mask");
        let text = format!("umask > {}; echo 1 > output.json", noted.display());
        assert_completed(&wait_for_record(&consumer, daemon, &edge.producer().submit(&script(&text))), 1);
        fs::read_to_string(noted).expect("the job has noted it").trim().to_owned()
    };
    let mut first = start_from_shell(&consumer, "umask 0");
    let beside = edge.producer().submit(&gated.job());
    gated.wait_until_begun();
    let keeper = keeper_of(&consumer);
    assert_eq!(mask_of_a_job(&mut first), "0002");
    let log = fs::metadata(consumer.state_dir().join("keeper/keeper.log")).unwrap();
    assert_eq!(log.permissions().mode() & 0o002, 0, "anybody may write to it");
    first.kill();
    let mut second = start_from_shell(&consumer, "umask 0027");
    second.wait_for_log("runs of an earlier daemon go on", PATIENCE);
    assert_eq!((mask_of_a_job(&mut second).as_str(), consumer.keeper_pid()), ("0027", Some(keeper)));
    gated.open();
    assert_completed(&wait_for_record(&consumer, &mut second, &beside), 1);
}
