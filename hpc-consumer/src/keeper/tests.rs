//! The keeper of an allocation as a process of its own, with the variables of a Slurm that is not there.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::Parser as _;
use lifecycle::{EndReason, Run};
use protocol::{Ran, RuntimeKind};
use rustix::process::{Pid, Signal, kill_process};
use slurm::fleet::Closed;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::allocation::{self, CleanEnd};
use super::folder::{Card, Folder};
use super::*;
use crate::job::StartLine;
use crate::run::{CommandLine, Confinement, Ended, Finished, Limits, Wrapping};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const FOLDER: &str = "HPC_QUEUE_TEST_FOLDER";

/// What the others start.
#[test]
#[ignore = "it is started by the other tests"]
fn the_process() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let words = ["hpc-consumer".into(), "allocation".into(), folder];
    let cli = crate::cli::Cli::try_parse_from(words).unwrap();
    cli.log.init().unwrap();
    let crate::cli::Command::Allocation(settings) = cli.command else { panic!() };
    match crate::start(crate::Resolved::Allocation(settings.folder)) {
        Ok(_) => std::process::exit(0),
        Err(error) => {
            eprintln!("{error:#}");
            std::process::exit(1)
        }
    }
}

/// A `RESULTS_DIR`, and a folder for an allocation.
struct Site {
    temp: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("results/.owners")).unwrap();
        fs::write(temp.path().join("results/.owners/o1.json"), "").unwrap();
        Self { temp }
    }

    fn folder(&self) -> PathBuf {
        self.temp.path().join("slurm-1")
    }

    fn heart(&self) -> PathBuf {
        self.temp.path().join("results/.owners/o1.json")
    }

    fn settings(&self) -> Settings {
        let (beat, grace) = (Duration::from_millis(100), Duration::from_secs(5));
        Settings { heart: self.heart(), beat, grace, umask: None }
    }

    fn worker(&self, slots: u32, idle: Duration) -> Order {
        Order::worker("hpcq-test-1".to_owned(), "cpu".parse().unwrap(), slots, idle, self.settings())
    }

    fn once(&self, line: StartLine) -> Order {
        Order::once("hpcq-test-1".to_owned(), "cpu".parse().unwrap(), line, self.settings())
    }

    /// The first run of a job, with its directory as a daemon leaves it.
    fn job(&self, job_id: &str, script: &str) -> StartLine {
        let directory = self.temp.path().join("results").join(job_id);
        fs::create_dir(&directory).unwrap();
        let meta = format!(
            r#"{{"v":1,"job_id":"{job_id}","attempt":1,"owner":"o1","host":"h","started_at":"2026-11-21T00:00:00Z"}}"#
        );
        fs::write(directory.join("meta.json"), meta).unwrap();
        let limits = Limits {
            time: Duration::from_secs(300),
            grace: Duration::from_secs(5),
            warning: None,
            log_bytes: 4_096,
            memory: None,
            processors: None,
        };
        StartLine {
            run: run(job_id),
            command: CommandLine {
                words: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
                environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
                directory: directory.clone(),
            },
            marks: Vec::new(),
            limits,
            record: self.temp.path().join(format!("results/{job_id}.json")),
            logs: directory,
            wrapping: Wrapping {
                runtime: RuntimeKind::Bare,
                image: None,
                hook: false,
                confinement: Confinement::default(),
                isolation: None,
                secrets: Default::default(),
                launched: None,
                seen: None,
            },
            resources: None,
        }
    }

    fn file_of(&self, job_id: &str, name: &str) -> PathBuf {
        self.temp.path().join("results").join(job_id).join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder().join("keeper.log")).unwrap_or_default()
    }

    fn begin(&self, order: &Order) -> Allocation {
        order.write(&self.folder()).unwrap();
        Allocation::begin(&self.folder(), &[])
    }

    fn look(&self) -> Look {
        look(&self.folder()).unwrap()
    }

    async fn begin_worker(&self, slots: u32, idle: Duration) -> Allocation {
        let process = self.begin(&self.worker(slots, idle));
        until("it listens", || self.look().listens).await;
        process
    }

    /// What is left, once the keeper is gone: which runs have ended, and which were cut off.
    async fn left(&self) -> (Vec<(String, Finished)>, Vec<(String, String)>) {
        let said = left(&self.folder(), "the node has failed", Closed::default()).await.unwrap();
        let Said::Runs { alive, ended, cut_off, complete } = said else { panic!("{said:?}") };
        assert!(alive.is_empty() && complete);
        let ended = ended.into_iter().map(|(run, finished)| (run.to_string(), finished)).collect();
        (ended, cut_off.into_iter().map(|(run, what)| (run.to_string(), what)).collect())
    }
}

fn run(job_id: &str) -> Run {
    Run::parse(&format!("{job_id}.1")).unwrap()
}

/// A process of Slurm's.
struct Allocation(Child);

impl Allocation {
    fn begin(folder: &Path, variables: &[(&str, String)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["keeper::tests::the_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env_clear().env(FOLDER, folder).env("PATH", "/usr/bin:/bin");
        command.env("SLURM_JOB_ID", "4711").env("SLURM_CPUS_ON_NODE", "3");
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// With so much time.
    fn begin_with_time(folder: &Path, seconds: i64) -> Self {
        let now = protocol::Timestamp::now().as_second();
        let times = [("SLURM_JOB_START_TIME", now.to_string()), ("SLURM_JOB_END_TIME", (now + seconds).to_string())];
        Self::begin(folder, &times)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    async fn end(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn ends_well(&mut self) {
        assert!(self.end().await.success());
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "not so in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A daemon, as far as it has to do with a keeper.
struct Daemon {
    keeper: Keeper,
    said: mpsc::UnboundedReceiver<Said>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Daemon {
    /// Connected, and with what it heard first.
    async fn connect(site: &Site) -> (Self, Vec<Run>, Vec<(Run, Finished)>) {
        let keeper = Keeper::of_allocation(site.folder(), site.settings());
        let (tell, said) = mpsc::unbounded_channel();
        let task = {
            let keeper = keeper.clone();
            tokio::spawn(async move { keeper.observe(|said| drop(tell.send(said))).await })
        };
        let mut daemon = Self { keeper, said, task };
        let Said::Runs { alive, ended, complete: true, .. } = daemon.hear().await else { panic!() };
        (daemon, alive, ended)
    }

    async fn hear(&mut self) -> Said {
        let heard = tokio::time::timeout(PATIENCE, self.said.recv()).await.expect("it says nothing");
        match heard {
            Some(said) => said,
            None => panic!("{:?}", (&mut self.task).await),
        }
    }

    async fn hear_end(&mut self) -> (String, Finished) {
        match self.hear().await {
            Said::Ended(run, finished) => (run.to_string(), finished),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_folder_is_claimed_once_and_the_second_begins_nothing() {
    let site = Site::new();
    site.worker(1, PATIENCE).write(&site.folder()).unwrap();
    assert_eq!(site.look(), Look::default(), "nobody has begun");
    let mut all = [(); 3].map(|()| Allocation::begin(&site.folder(), &[]));
    let has_ended = |one: &mut Allocation| one.0.try_wait().unwrap().is_some();
    let ended = |all: &mut [Allocation]| all.iter_mut().map(has_ended).filter(|ended| *ended).count();
    let end = Instant::now() + PATIENCE;
    while ended(&mut all) < 2 || !site.look().listens {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let claim = site.look().claim.unwrap();
    assert_eq!((claim.slurm_job_id.as_deref(), claim.node.as_str()), (Some("4711"), crate::host().as_str()));
    assert_eq!(ended(&mut all), 2, "the first goes on");
    let first = all.iter_mut().position(|one| one.0.id() == claim.pid).unwrap();
    for (number, one) in all.iter_mut().enumerate().filter(|(number, _)| *number != first) {
        assert!(one.end().await.success(), "{number}");
    }
    let log = site.log();
    assert_eq!(log.matches("was claimed before by Slurm job 4711 on ").count(), 2, "{log}");
    assert_eq!(site.look().capacity.unwrap().cpus, Some(3));
}

#[tokio::test]
async fn an_order_that_is_gone_or_newer_is_not_guessed_at() {
    let site = Site::new();
    let fails = async || Allocation::begin(&site.folder(), &[]).end().await.code();
    assert_eq!(fails().await, Some(1), "there is no folder");
    site.worker(1, PATIENCE).write(&site.folder()).unwrap();
    let order = site.folder().join("order.json");
    let newer = fs::read_to_string(&order).unwrap().replace("\"v\":1", "\"v\":2");
    fs::write(&order, newer).unwrap();
    assert_eq!(fails().await, Some(1));
    assert!(site.log().contains("is of version 2"), "{}", site.log());
    fs::remove_file(&order).unwrap();
    assert_eq!(fails().await, Some(1));
    assert!(site.log().contains("order.json cannot be read"), "{}", site.log());
    assert_eq!(site.look().claim, None, "who can do nothing claims nothing");
}

#[tokio::test]
async fn a_worker_takes_runs_until_it_was_idle_and_its_heart_beats_for_them() {
    let site = Site::new();
    let mut process = site.begin_worker(2, Duration::from_secs(1)).await;
    let (mut daemon, alive, ended) = Daemon::connect(&site).await;
    assert!(alive.is_empty() && ended.is_empty());
    let beat = || fs::read_to_string(site.heart()).unwrap();
    assert_eq!(beat(), "", "it holds nothing for its daemon");
    let wait = "until [ -e go ]; do sleep 0.01; done; echo done; env";
    daemon.keeper.start(site.job("j1", wait));
    daemon.keeper.start(site.job("j2", "exit 3"));
    let (run, finished) = daemon.hear_end().await;
    assert_eq!((run.as_str(), finished.ended), ("j2.1", Ended::Exit(3)));
    let ran = Ran { node: crate::host(), slurm_job_id: Some("4711".to_owned()) };
    assert_eq!(finished.ran.as_deref(), Some(&ran));
    let seen = beat();
    until("the heart goes on", || beat() != seen).await;
    fs::write(site.file_of("j1", "go"), "").unwrap();
    let (run, finished) = daemon.hear_end().await;
    assert!(run == "j1.1" && finished.stdout_tail.starts_with("done\n"), "{finished:?}");
    assert!(!finished.stdout_tail.contains("SLURM"), "it is not to know that it is in an allocation");
    daemon.keeper.forget(&[self::run("j1"), self::run("j2")]);
    assert!(matches!(daemon.hear().await, Said::Gone));
    process.ends_well().await;
    let Look { end: Some(CleanEnd { why, .. }), listens: false, .. } = site.look() else { panic!("{:?}", site.look()) };
    assert_eq!(why, "it had nothing to do");
    assert_eq!(site.left().await, (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_worker_has_no_more_runs_than_ordered_and_nothing_stays_of_one_that_it_refuses() {
    let site = Site::new();
    let _process = site.begin_worker(1, PATIENCE).await;
    let (mut daemon, ..) = Daemon::connect(&site).await;
    daemon.keeper.start(site.job("j1", "exec sleep 600"));
    daemon.keeper.start(site.job("j2", "touch begun"));
    let said = daemon.hear().await;
    assert!(matches!(&said, Said::NotBegun(run, NotBegun::NoRoom) if run.to_string() == "j2.1"), "{said:?}");
    daemon.keeper.end(&run("j1"), EndReason::Cancelled);
    assert_eq!(daemon.hear_end().await.1.ended, Ended::Stopped(EndReason::Cancelled));
    // The same again, now that there is room.
    fs::remove_dir_all(site.file_of("j2", "")).unwrap();
    daemon.keeper.start(site.job("j2", "touch begun"));
    assert_eq!(daemon.hear_end().await.1.ended, Ended::Exit(0));
    assert!(site.file_of("j2", "begun").exists());
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_ends_with_its_last_run() {
    for by_file in [false, true] {
        let site = Site::new();
        let mut process = site.begin_worker(2, PATIENCE).await;
        let (mut daemon, ..) = Daemon::connect(&site).await;
        daemon.keeper.start(site.job("j1", "touch ready; until [ -e go ]; do sleep 0.01; done"));
        until("it runs", || site.file_of("j1", "ready").exists()).await;
        if by_file {
            // What the connection can tell is not looked for in files as often.
            daemon.task.abort();
            stop(&site.folder()).unwrap();
            until("it has heard", || site.look().beat.is_some_and(|beat| beat.stopping)).await;
            daemon = Daemon::connect(&site).await.0;
        } else {
            daemon.keeper.stop();
        }
        daemon.keeper.start(site.job("j2", "true"));
        let said = daemon.hear().await;
        assert!(matches!(&said, Said::NotBegun(_, NotBegun::EndsSoon)), "{said:?}");
        fs::write(site.file_of("j1", "go"), "").unwrap();
        assert_eq!(daemon.hear_end().await.1.ended, Ended::Exit(0));
        process.ends_well().await;
        assert_eq!(site.look().end.unwrap().why, "its daemon needs it no more");
        let (ended, cut_off) = site.left().await;
        assert!(cut_off.is_empty() && ended[0].0 == "j1.1" && ended[0].1.ended == Ended::Exit(0), "{ended:?}");
    }
}

#[tokio::test]
async fn near_the_end_of_its_time_nothing_is_begun_and_then_all_is_ended_and_written_down() {
    let site = Site::new();
    let mut order = site.worker(2, PATIENCE);
    (order.margin, order.leave) = (Duration::from_secs(14), Duration::ZERO);
    order.write(&site.folder()).unwrap();
    let mut process = Allocation::begin_with_time(&site.folder(), 19);
    until("it listens", || site.look().listens).await;
    let (mut daemon, ..) = Daemon::connect(&site).await;
    let begun = Instant::now();
    daemon.keeper.start(site.job("j1", "touch ready; exec sleep 600"));
    until("it runs", || site.file_of("j1", "ready").exists()).await;
    until("it tells how much time is left", || site.look().beat.is_some()).await;
    let left = site.look().beat.unwrap().left().unwrap();
    assert!((10..=19).contains(&left.as_secs()), "{left:?}");
    tokio::time::sleep_until((begun + Duration::from_secs(6)).into()).await;
    daemon.keeper.start(site.job("j2", "true"));
    let said = daemon.hear().await;
    assert!(matches!(&said, Said::NotBegun(_, NotBegun::EndsSoon)), "{said:?}");
    let (run, finished) = daemon.hear_end().await;
    assert_eq!((run.as_str(), finished.ended), ("j1.1", Ended::Stopped(EndReason::AllocationEnds)));
    process.ends_well().await;
    assert_eq!(site.left().await.0.len(), 1);
}

#[tokio::test]
async fn when_slurm_ends_an_allocation_its_runs_are_ended_and_written_down() {
    let site = Site::new();
    let mut process = site.begin_worker(2, PATIENCE).await;
    let (mut daemon, ..) = Daemon::connect(&site).await;
    daemon.keeper.start(site.job("j1", "trap 'echo last words; exit 0' TERM; touch ready; sleep 600 & wait"));
    until("it runs", || site.file_of("j1", "ready").exists()).await;
    process.signal(Signal::TERM);
    let (_, finished) = daemon.hear_end().await;
    assert_eq!(finished.ended, Ended::Stopped(EndReason::AllocationEnds));
    assert_eq!(finished.stdout_tail, "last words\n");
    process.ends_well().await;
    let (ended, cut_off) = site.left().await;
    assert!(cut_off.is_empty() && ended == [("j1.1".to_owned(), finished)], "{ended:?}");
}

#[tokio::test]
async fn of_a_keeper_that_was_killed_the_ends_are_left_and_the_others_are_cut_off_and_killed() {
    let site = Site::new();
    let mut process = site.begin_worker(2, PATIENCE).await;
    let (mut daemon, ..) = Daemon::connect(&site).await;
    daemon.keeper.start(site.job("j1", "true"));
    assert_eq!(daemon.hear_end().await.0, "j1.1");
    daemon.keeper.start(site.job("j2", "echo $$ > pid; exec sleep 600"));
    let pid = || fs::read_to_string(site.file_of("j2", "pid")).ok()?.trim().parse::<i32>().ok();
    until("it runs", || pid().is_some()).await;
    let error = left(&site.folder(), "x", Closed::default()).await.unwrap_err().to_string();
    assert!(error.contains("still lives") && site.look().closed.is_none(), "{error}");
    assert!(site.look().beat.is_some() && !site.look().gone);
    process.signal(Signal::KILL);
    process.end().await;
    assert!(site.look().gone, "nobody has to wait until its silence tells that");
    assert!(matches!(daemon.hear().await, Said::Gone));
    assert_eq!(site.look().end, None);
    for _ in 0..2 {
        let (ended, cut_off) = site.left().await;
        assert_eq!(cut_off, [("j2.1".to_owned(), "the node has failed".to_owned())]);
        assert!(ended.len() == 1 && ended[0].0 == "j1.1", "{ended:?}");
    }
    let is_alive = |pid: i32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(!is_alive(pid().unwrap()), "nothing of it may go on when it is begun elsewhere");
}

#[tokio::test]
async fn where_the_daemon_has_given_up_waiting_nothing_is_begun_any_more() {
    let site = Site::new();
    let line = site.job("j1", "touch begun");
    site.once(line).write(&site.folder()).unwrap();
    assert_eq!(site.left().await, (Vec::new(), Vec::new()));
    let mut late = Allocation::begin(&site.folder(), &[]);
    late.ends_well().await;
    assert!(site.log().contains("was claimed before by its daemon"), "{}", site.log());
    assert!(!site.file_of("j1", "begun").exists() && site.look().claim.is_none());
    // The two came at the same moment.
    fs::remove_file(site.folder().join("claim")).unwrap();
    Allocation::begin(&site.folder(), &[]).ends_well().await;
    assert!(site.log().contains("was closed by its daemon"), "{}", site.log());
    assert!(!site.file_of("j1", "begun").exists());
}

#[tokio::test]
async fn what_was_known_of_the_end_is_there_for_the_next_daemon() {
    let site = Site::new();
    site.worker(2, PATIENCE).write(&site.folder()).unwrap();
    assert_eq!(site.look().closed, None);
    let closed = Closed { end: slurm::AllocationEnd::NodeFailed, clean: false };
    left(&site.folder(), "x", closed.clone()).await.unwrap();
    assert_eq!(site.look().closed, Some(closed));
    let text = fs::read_to_string(site.folder().join("closed")).unwrap();
    assert_eq!(text, "{\"end\":\"node_failed\",\"clean\":false}\n");
    // What other versions wrote.
    for text in ["null\n", "{\"end\":\"melted\",\"clean\":true}\n", ""] {
        fs::write(site.folder().join("closed"), text).unwrap();
        assert_eq!(site.look().closed, Some(Closed::default()), "{text}");
    }
}

#[tokio::test]
async fn a_keeper_that_was_taken_for_dead_ends_what_it_has() {
    let site = Site::new();
    let mut process = site.begin_worker(2, PATIENCE).await;
    let (daemon, ..) = Daemon::connect(&site).await;
    daemon.keeper.start(site.job("j1", "trap '' TERM; touch ready; while :; do sleep 1; done"));
    until("it runs", || site.file_of("j1", "ready").exists()).await;
    daemon.task.abort();
    // As after a lock that is not seen on the other machine.
    fs::write(site.folder().join("closed"), "").unwrap();
    let begun = Instant::now();
    process.ends_well().await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(site.log().contains("takes this keeper for dead"), "{}", site.log());
}

#[tokio::test]
async fn a_daemon_that_was_away_misses_nothing() {
    let site = Site::new();
    let _process = site.begin_worker(2, PATIENCE).await;
    let (daemon, ..) = Daemon::connect(&site).await;
    daemon.keeper.start(site.job("j1", "touch ready; exit 7"));
    daemon.keeper.start(site.job("j2", "touch ready; exec sleep 600"));
    until("all have begun", || ["j1", "j2"].iter().all(|job| site.file_of(job, "ready").exists())).await;
    daemon.task.abort();
    let ended = || fs::read_to_string(site.folder().join("journal")).unwrap().contains("{\"end\":");
    until("one has ended without it", ended).await;
    let (_daemon, alive, ended) = Daemon::connect(&site).await;
    assert_eq!(alive, [run("j2")]);
    assert!(ended.len() == 1 && ended[0].0 == run("j1") && ended[0].1.ended == Ended::Exit(7), "{ended:?}");
}

#[tokio::test]
async fn only_who_can_read_the_card_is_the_daemon_and_only_who_wrote_it_the_keeper() {
    let site = Site::new();
    let _process = site.begin_worker(1, PATIENCE).await;
    let card = Folder::of_allocation(&site.folder()).card().unwrap();
    let meets = async |card: &Card| {
        Folder::of_allocation(&site.folder()).write_card(card).unwrap();
        let keeper = Keeper::of_allocation(site.folder(), site.settings());
        let mut said = Vec::new();
        let met = tokio::time::timeout(Duration::from_secs(3), keeper.observe(|what| said.push(what))).await;
        // Who is taken for the daemon is spoken with for ever.
        met.map(|met| format!("{:#}", met.unwrap_err())).unwrap_or_default()
    };
    assert_eq!(meets(&card).await, "");
    let wrong = |of: &str| of.replace(of.chars().next().unwrap(), "z");
    let no_daemon = meets(&Card { daemon_token: wrong(&card.daemon_token), ..card.clone() }).await;
    assert!(no_daemon.contains("it is ending, or it is not a keeper"), "{no_daemon}");
    let no_keeper = meets(&Card { keeper_token: wrong(&card.keeper_token), ..card.clone() }).await;
    assert!(no_keeper.contains("another program listens"), "{no_keeper}");
    let mut other = card.clone();
    let network = other.network.as_mut().unwrap();
    // The last bytes of the key, before the filling.
    let at = network.key.len() - 4;
    network.key.replace_range(at..at + 1, if network.key[at..].starts_with('A') { "B" } else { "A" });
    let no_key = meets(&other).await;
    assert!(no_key.contains("invalid peer certificate"), "{no_key}");
}

/// A job without a container can read all of the folder. It cannot write there.
#[tokio::test]
async fn who_knows_all_that_stands_in_the_folder_is_still_not_the_daemon() {
    let site = Site::new();
    let _process = site.begin_worker(1, PATIENCE).await;
    let card = Folder::of_allocation(&site.folder()).card().unwrap();
    let hello =
        format!(r#"{{"hello":{{"v":5,"token":"{}","heart":"/h","beat_ms":1,"grace_ms":1}}}}"#, card.daemon_token);
    let call = async |announces: bool| {
        let own = network::Key::make().unwrap();
        if announces {
            allocation::announce(&site.folder(), &own.public).unwrap();
        }
        let mut stream = network::connect(card.network.as_ref().unwrap(), &card.origin, &own).await.unwrap();
        stream.write_all(format!("{hello}\n").as_bytes()).await.unwrap();
        let mut heard = [0; 9];
        stream.read_exact(&mut heard).await.map(|_| String::from_utf8(heard.to_vec()).unwrap())
    };
    assert!(call(false).await.is_err(), "the keys of others do not count, whatever is said");
    assert_eq!(call(true).await.unwrap(), r#"{"hello":"#);
    Daemon::connect(&site).await;
    let names = fs::read_dir(site.folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("caller-")).count(), 1, "the daemon takes its own away");
}

#[tokio::test]
async fn strangers_in_the_network_hear_nothing_and_keep_nobody_out() {
    use std::io::{Read as _, Write as _};

    let site = Site::new();
    let process = site.begin_worker(1, PATIENCE).await;
    let port = Folder::of_allocation(&site.folder()).card().unwrap().network.unwrap().port;
    let call = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let mut silent: Vec<TcpStream> = (0..300).map(|_| call()).collect();
    let memory = || {
        let status = fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = memory();
    let mut loud: Vec<TcpStream> = (0..20).map(|_| call()).collect();
    for stream in &mut loud {
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        // Until it is not listened to any more.
        let _ = (0..100).try_for_each(|_| stream.write_all(&[0x16; 64 * 1024]));
    }
    let (mut daemon, ..) = Daemon::connect(&site).await;
    assert!(memory() < before + 64 * 1024, "{} kB, {before} kB before", memory());
    // The first had to go for the others, and the last was not waited for.
    for at in [0, 299] {
        silent[at].set_read_timeout(Some(PATIENCE)).unwrap();
        let mut heard = Vec::new();
        let read = silent[at].read_to_end(&mut heard);
        assert!(read.is_ok() || read.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset, "{at} is let go");
        assert_eq!(heard, b"", "nothing is said to who says nothing");
    }
    daemon.keeper.start(site.job("j1", "true"));
    assert_eq!(daemon.hear_end().await.1.ended, Ended::Exit(0));
    assert!(site.log().contains("is not the daemon wanted to speak"), "{}", site.log());
}

#[tokio::test]
async fn an_allocation_for_one_run_begins_it_by_itself_and_ends_with_it() {
    for (script, ended) in [
        ("exit 0", Ended::Exit(0)),
        ("exit 3", Ended::Exit(3)),
        ("kill -9 $$", Ended::Signal(9)),
        ("exec sleep 600", Ended::TimeLimit),
    ] {
        let site = Site::new();
        let mut line = site.job("j1", &format!("echo job $SLURM_JOB_ID; {script}"));
        if ended == Ended::TimeLimit {
            line.limits.time = Duration::from_secs(1);
        }
        let mut process = site.begin(&site.once(line));
        process.ends_well().await;
        assert_eq!(site.look().end.unwrap().why, "its run has ended");
        let (runs, cut_off) = site.left().await;
        assert!(cut_off.is_empty() && runs.len() == 1, "{runs:?}");
        assert_eq!((&runs[0].1.ended, runs[0].1.stdout_tail.as_str()), (&ended, "job 4711\n"));
    }
}

#[tokio::test]
async fn the_run_of_an_allocation_for_one_is_ended_by_a_file_or_with_it() {
    for by_file in [true, false] {
        let site = Site::new();
        let process = &mut site.begin(&site.once(site.job("j1", "touch ready; exec sleep 600")));
        until("it runs", || site.file_of("j1", "ready").exists()).await;
        let (look, network) = (site.look(), Folder::of_allocation(&site.folder()).card().unwrap().network);
        assert!(!look.listens && network.is_none(), "nobody has to connect");
        let reason = if by_file { EndReason::Cancelled } else { EndReason::AllocationEnds };
        if by_file {
            end_run(&site.folder(), &run("j1"), reason).unwrap()
        } else {
            process.signal(Signal::TERM)
        }
        process.ends_well().await;
        assert_eq!(site.left().await.0[0].1.ended, Ended::Stopped(reason));
    }
}

#[tokio::test]
async fn an_allocation_for_one_run_that_came_too_late_has_not_begun_it() {
    let site = Site::new();
    site.once(site.job("j1", "touch begun")).write(&site.folder()).unwrap();
    let mut process = Allocation::begin_with_time(&site.folder(), 60);
    process.ends_well().await;
    assert!(site.look().end.unwrap().why.contains("nearly over"));
    assert_eq!(site.left().await, (Vec::new(), Vec::new()));
    assert!(!site.file_of("j1", "begun").exists());
}

/// The daemon is on another machine, so that the journal is synced.
#[tokio::test]
async fn what_is_read_on_another_machine_is_whole_also_when_the_node_is_gone() {
    let site = Site::new();
    let order = site.worker(1, PATIENCE);
    order.write(&site.folder()).unwrap();
    let path = site.folder().join("order.json");
    let there = fs::read_to_string(&path).unwrap().replace(&crate::boot_id().unwrap(), "another-boot");
    fs::write(&path, there).unwrap();
    let mut process = Allocation::begin(&site.folder(), &[]);
    until("it listens", || site.look().listens).await;
    let (mut daemon, ..) = Daemon::connect(&site).await;
    daemon.keeper.start(site.job("j1", "true"));
    daemon.hear_end().await;
    process.signal(Signal::KILL);
    process.end().await;
    let boot_of_claim = |boot: &str| {
        let mut claim = allocation::claimed_by(&site.folder()).unwrap().unwrap();
        claim.boot_id = boot.to_owned();
        fs::write(site.folder().join("claim"), serde_json::to_vec(&claim).unwrap()).unwrap();
    };
    let is_complete = async || {
        let said = left(&site.folder(), "x", Closed::default()).await.unwrap();
        matches!(said, Said::Runs { complete: true, ended, .. } if ended.len() == 1)
    };
    boot_of_claim("the-node");
    assert!(is_complete().await, "it was synced");
    boot_of_claim("another-boot");
    assert!(!is_complete().await, "the daemon's machine was started anew since, and nothing was synced for it");
}
