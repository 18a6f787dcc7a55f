//! Pools in a real Slurm, from the submission of a job to its record: what grows, what is found again, what goes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::slurm::{Cluster, Slurm, VERSIONS};
use testkit::{Consumer, Edge, Process, signal, wait_for};

use crate::allocation::PATIENCE;

/// A site with pools in a cluster, and the queues.
pub(crate) struct Site {
    pub(crate) consumer: Consumer,
    pub(crate) edge: Edge,
    pub(crate) cluster: Slurm,
}

/// What each job runs: its input, a text without `"`, as a script of the shell.
const COMMAND: &str =
    r#"['sh', '-c', 'sed -n "s/.*\"input\": *\"\([^\"]*\)\".*/\1/p" input.json > job.sh; exec sh ./job.sh']"#;

impl Site {
    pub(crate) fn new(cluster: Slurm, pools: &str) -> Self {
        let edge = Edge::start();
        let path = cluster.directory().join("site.toml");
        fs::write(&path, pools).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut consumer = Consumer::of_site(&edge, &path);
        for (name, value) in cluster.environment() {
            consumer = consumer.set(name, value);
        }
        Self { consumer, edge, cluster }
    }

    pub(crate) fn submit(&self, script: &str) -> String {
        self.submit_to(script, &json!({}))
    }

    pub(crate) fn submit_to(&self, script: &str, more: &Value) -> String {
        let mut job = json!({"task": "run", "input": script});
        for (key, value) in more.as_object().unwrap() {
            job[key] = value.clone();
        }
        self.edge.producer().submit(&job)
    }

    pub(crate) fn record(&self, id: &str, daemon: &mut Process) -> Value {
        wait_for("the final record", PATIENCE, || {
            assert!(daemon.is_running(), "the daemon has ended: {}", daemon.log());
            self.consumer.record(id)
        })
    }

    /// What is in the queue of Slurm and not over: name and state.
    pub(crate) fn allocations(&self) -> Vec<(String, String)> {
        let said = self.cluster.ask("squeue", &["-h", "-r", "-t", "PENDING,RUNNING,COMPLETING", "-o", "%j|%T"]);
        let rows = said.lines().filter_map(|line| line.split_once('|'));
        rows.map(|(name, state)| (name.to_owned(), state.to_owned())).collect()
    }

    pub(crate) fn has_none(&self) -> Option<()> {
        self.allocations().is_empty().then_some(())
    }
}

pub(crate) fn pool(name: &str, more: &str, workers: &str) -> String {
    format!(
        "[pool.{name}]\nruntime = \"bare\"\ncommand = {COMMAND}\nwhere = \"slurm\"\nslot = {{ cpus = 1, memory = \"50MiB\" }}\nslurm = {{ time = \
         \"30m\" }}\nworkers = {{ {workers} }}\n{more}\n"
    )
}

#[test]
fn a_pool_grows_from_zero_to_its_quota_and_goes_back() {
    for version in VERSIONS {
        let cluster = Cluster::new(version).start();
        let pools =
            format!("[quota]\nallocations = 3\n{}", pool("cpu", "default = true", "max = 5, slots = 2, idle = \"2s\""));
        let site = Site::new(cluster, &pools);
        let mut daemon = site.consumer.start();
        let jobs: Vec<String> = (0..12).map(|_| site.submit("hostname > host; sleep 1")).collect();
        let (mut most, mut ids) = (0, BTreeSet::new());
        for id in &jobs {
            let record = wait_for("the record", PATIENCE, || {
                most = most.max(site.allocations().len());
                assert!(daemon.is_running(), "{}", daemon.log());
                site.consumer.record(id)
            });
            assert_eq!(record["status"], "completed", "{version}: {record}");
            ids.insert(record["slurm_job_id"].as_str().expect("it is told where it ran").to_owned());
        }
        assert!((2..=3).contains(&most), "{version}: {most} allocations at once");
        assert!(ids.len() >= 2, "{version}: {ids:?}");
        wait_for("the pool to be empty again", PATIENCE, || site.has_none());
        let slurm = site.consumer.state_dir().join("slurm");
        wait_for("nothing of it to be left", PATIENCE, || {
            let names = fs::read_dir(&slurm).unwrap().map(|entry| entry.unwrap().file_name());
            let folders: Vec<_> = names.filter(|name| name.to_str().unwrap().starts_with("hpcq-")).collect();
            folders.is_empty().then_some(())
        });
        assert!(fs::read_to_string(slurm.join("scaling.jsonl")).unwrap().lines().count() > 0);
    }
}

#[test]
fn two_pools_share_a_quota_by_their_work() {
    let cluster = Cluster::new(VERSIONS[0]).start();
    let workers = "max = 3, slots = 1, idle = \"2s\"";
    let pools = format!("[quota]\nallocations = 3\n{}{}", pool("more", "", workers), pool("less", "", workers));
    let site = Site::new(cluster, &pools);
    let mut jobs: Vec<String> = (0..16).map(|_| site.submit_to("sleep 1", &json!({"pool": "more"}))).collect();
    jobs.extend((0..8).map(|_| site.submit_to("sleep 1", &json!({"pool": "less"}))));
    let mut daemon = site.consumer.start();
    wait_for("two to one", PATIENCE, || {
        let allocations = site.allocations();
        assert!(allocations.len() <= 3, "{allocations:?}");
        let of = |pool: &str| allocations.iter().filter(|(name, _)| name.contains(pool)).count();
        (of("-more-") == 2 && of("-less-") == 1).then_some(())
    });
    for id in &jobs {
        assert_eq!(site.record(id, &mut daemon)["status"], "completed");
    }
}

#[test]
fn a_job_of_its_own_size_has_an_allocation_to_itself() {
    let cluster = Cluster::new(VERSIONS[0]).start();
    let site = Site::new(cluster, &pool("mpi", "default = true", "max = 2, once = true"));
    let mut daemon = site.consumer.start();
    let id = site.submit_to("echo $SLURM_CPUS_PER_TASK; sleep 1", &json!({"resources": {"cpus": 3}}));
    let record = site.record(&id, &mut daemon);
    assert_eq!(record["status"], "completed", "{record} {}", daemon.log());
    assert!(record["slurm_job_id"].is_string(), "{record}");
    wait_for("nothing to be left", PATIENCE, || site.has_none());
}

#[test]
fn a_daemon_that_is_killed_again_and_again_loses_nothing_and_runs_nothing_twice() {
    let cluster = Cluster::new(VERSIONS[0]).start();
    let pools =
        pool("cpu", "default = true", "max = 3, slots = 2, idle = \"3s\"") + &pool("mpi", "", "max = 3, once = true");
    let site = Site::new(cluster, &pools);
    let begun = site.cluster.directory().join("begun");
    fs::create_dir(&begun).unwrap();
    let script = format!("mkdir {}/$JOB_ID || exit 9; sleep 1", begun.display());
    let mut jobs: Vec<String> = (0..20).map(|_| site.submit(&script)).collect();
    jobs.extend((0..4).map(|_| site.submit_to(&script, &json!({"pool": "mpi"}))));
    let mut daemon = site.consumer.start();
    let end = Instant::now() + PATIENCE * 2;
    let mut kills = 0;
    loop {
        let missing = jobs.iter().filter(|id| site.consumer.record(id).is_none()).count();
        if missing == 0 {
            break;
        }
        assert!(Instant::now() < end, "{missing} have no record after {kills} kills: {}", daemon.log());
        if kills < 12 {
            std::thread::sleep(Duration::from_millis(200 + 370 * (kills % 5)));
            daemon.kill();
            daemon = site.consumer.start();
            kills += 1;
        } else {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    for id in &jobs {
        let record = site.consumer.record(id).unwrap();
        assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(1)), "{record}");
    }
    wait_for("nothing to be left", PATIENCE, || site.has_none());
}

/// 22.05, where a name would have all of an array cancelled that waits.
#[test]
fn what_waits_of_several_and_is_not_needed_is_cancelled_and_what_runs_stays() {
    // A node has room for one.
    let workers = "max = 3, slots = 1, pending = 3, idle = \"5m\"";
    let pools = pool("cpu", "default = true", workers).replace("cpus = 1", "cpus = 3");
    let site = Site::new(Cluster::new(VERSIONS[0]).nodes(1).start(), &pools);
    let three: Vec<String> = (0..3).map(|_| site.submit("sleep 1")).collect();
    let mut daemon = site.consumer.start();
    let mut most = 0;
    let ran_in = |id: &str, daemon: &mut Process| {
        let record = site.record(id, daemon);
        assert_eq!(record["status"], "completed", "{record}");
        record["slurm_job_id"].as_str().unwrap().to_owned()
    };
    wait_for("three to be asked for together", PATIENCE, || {
        most = most.max(site.allocations().len());
        (most == 3).then_some(())
    });
    let worker = ran_in(&three[0], &mut daemon);
    assert!(worker.contains('_'), "{worker} is none of several");
    three.iter().for_each(|id| assert_eq!(ran_in(id, &mut daemon), worker));
    wait_for("those that wait to be cancelled", PATIENCE, || (site.allocations().len() == 1).then_some(()));
    wait_for("the pool to have one", PATIENCE, || {
        let told = site.consumer.ask(&["pools", "--output", "json"]).output;
        (told.contains("\"allocations\":1") && told.contains("\"since\":\"20")).then_some(())
    });
    let next = site.submit("true");
    assert_eq!(ran_in(&next, &mut daemon), worker, "{}", daemon.log());
}

#[test]
fn jobs_of_a_worker_that_is_killed_or_cancelled_are_tried_again() {
    let cluster = Cluster::new(VERSIONS[0]).start();
    let site = Site::new(cluster, &pool("cpu", "default = true", "max = 2, slots = 2, idle = \"3s\""));
    let mut daemon = site.consumer.start();
    let id = site.submit("test $(cat n 2>/dev/null || echo 0) = 0; echo >> runs; sleep 3");
    let runs = site.consumer.job_dir(&id).join("runs");
    wait_for("it to begin", PATIENCE, || runs.exists().then_some(()));
    let worker = site.cluster.ask("squeue", &["-h", "-t", "RUNNING", "-o", "%i"]);
    site.cluster.ask("scancel", &[worker.trim()]);
    let record = site.record(&id, &mut daemon);
    assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(2)), "{record}");
    // As the keeper there or as Slurm says it, whichever is heard first.
    assert!(daemon.log().contains("was cut off, the job starts again"), "{}", daemon.log());

    let id = site.submit("echo >> runs; sleep 3");
    let runs = site.consumer.job_dir(&id).join("runs");
    wait_for("it to begin", PATIENCE, || runs.exists().then_some(()));
    let folders = fs::read_dir(site.consumer.state_dir().join("slurm")).unwrap();
    let pids = folders.filter_map(|entry| fs::read_to_string(entry.unwrap().path().join("claim")).ok());
    let pids: Vec<u32> = pids
        .filter_map(|text| serde_json::from_str::<Value>(&text).ok())
        .filter_map(|claim| claim["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()))
        .collect();
    assert!(!pids.is_empty());
    pids.iter().for_each(|pid| signal(*pid, Signal::KILL));
    let record = site.record(&id, &mut daemon);
    assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(2)), "{record}");
}

#[test]
fn jobs_of_a_node_that_is_lost_are_tried_again_elsewhere() {
    let cluster = Cluster::new(VERSIONS[0]).setting("SlurmdTimeout=5").start();
    let site = Site::new(cluster, &pool("cpu", "default = true", "max = 1, slots = 1, idle = \"3s\""));
    let mut daemon = site.consumer.start();
    let id = site.submit("echo >> runs; test $(wc -l < runs) -gt 1 || sleep 600");
    let runs = site.consumer.job_dir(&id).join("runs");
    wait_for("it to begin", PATIENCE, || runs.exists().then_some(()));
    let node = site.cluster.ask("squeue", &["-h", "-t", "RUNNING", "-o", "%N"]);
    site.cluster.kill_node(node.trim());
    let record = wait_for("the final record", PATIENCE * 2, || {
        assert!(daemon.is_running(), "the daemon has ended: {}", daemon.log());
        site.consumer.record(&id)
    });
    assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(2)), "{record}");
}

#[test]
fn what_has_a_name_of_ours_and_is_in_no_record_is_cancelled_and_nothing_else_is() {
    let site = Site::new(
        Cluster::new(VERSIONS[1]).start(),
        &pool("cpu", "default = true", "max = 1, slots = 1, idle = \"60s\""),
    );
    let mut daemon = site.consumer.start();
    let first = site.submit("true");
    site.record(&first, &mut daemon);
    let ours = site.allocations().into_iter().map(|(name, _)| name).next().expect("its worker is there");
    let owner: Vec<&str> = ours.split('-').take(2).collect();
    let lost = format!("{}-cpu-1-1", owner.join("-"));
    for name in [lost.as_str(), "hpcq-another-cpu-1-1", "theirs"] {
        site.cluster.ask("sbatch", &["-Q", "-n1", "--mem=50", "-o", "/dev/null", "-J", name, "--wrap", "sleep 600"]);
    }
    // Something of the daemon's changes, so that it asks soon.
    let next = site.submit("true");
    site.record(&next, &mut daemon);
    wait_for("it to be cancelled", PATIENCE, || {
        let names: BTreeSet<String> = site.allocations().into_iter().map(|(name, _)| name).collect();
        assert!(names.contains("theirs") && names.contains("hpcq-another-cpu-1-1"), "{names:?}");
        (!names.contains(&lost)).then_some(())
    });
    assert!(daemon.log().contains(&lost) && daemon.log().contains("is in no record"), "{}", daemon.log());
    assert!(site.allocations().iter().any(|(name, _)| *name == ours), "its own worker stays");
}

/// It knows no job any more, ends what nodes still run, and gives the same ids again.
#[test]
fn a_controller_that_has_lost_its_state_loses_no_job() {
    for version in VERSIONS {
        let pools = pool("cpu", "default = true", "max = 1, slots = 1, idle = \"3s\"")
            + &pool("mpi", "", "max = 1, once = true");
        let site = Site::new(Cluster::new(version).start(), &pools);
        let mut daemon = site.consumer.start();
        let script = "echo >> runs; sleep 4";
        let jobs = [json!({}), json!({"pool": "mpi"})].map(|more| site.submit_to(script, &more));
        let runs = |id: &str| site.consumer.job_dir(id).join("runs");
        wait_for("both to begin", PATIENCE, || jobs.iter().all(|id| runs(id).exists()).then_some(()));
        site.cluster.stop_controller(Signal::KILL);
        site.cluster.forget_state();
        site.cluster.start_controller();
        for id in &jobs {
            let record = wait_for("the final record", PATIENCE * 2, || {
                assert!(daemon.is_running(), "the daemon has ended: {}", daemon.log());
                site.consumer.record(id)
            });
            assert_eq!(record["status"], "completed", "{version}: {record} {}", daemon.log());
            let count = fs::read_to_string(runs(id)).unwrap().lines().count();
            assert_eq!(record["attempt"], count, "{version}: {record}");
        }
        let next = site.submit("true");
        assert_eq!(site.record(&next, &mut daemon)["status"], "completed", "{version}: {}", daemon.log());
        wait_for("nothing to be left", PATIENCE, || site.has_none());
    }
}

#[test]
fn a_controller_that_is_away_stops_nothing_that_runs() {
    let cluster = Cluster::new(VERSIONS[0]).start();
    let site = Site::new(cluster, &pool("cpu", "default = true", "max = 1, slots = 1, idle = \"30s\""));
    let mut daemon = site.consumer.start();
    let first = site.submit("true");
    site.record(&first, &mut daemon);
    site.cluster.stop_controller(Signal::KILL);
    for _ in 0..3 {
        let id = site.submit("sleep 1");
        assert_eq!(site.record(&id, &mut daemon)["status"], "completed");
    }
    site.cluster.start_controller();
    let id = site.submit("true");
    assert_eq!(site.record(&id, &mut daemon)["attempt"], 1);
}
