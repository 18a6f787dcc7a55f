//! The daemon of pools in Slurm: one that goes rounds, one that is an ordinary user's, one on another login node; and
//! what it asks of the controller.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use serde_json::json;
use testkit::slurm::{Cluster, VERSIONS};
use testkit::{Process, parts, wait_for};

use crate::allocation::PATIENCE;
use crate::pools::{Site, pool};

#[test]
fn a_round_ends_when_it_is_done_and_a_later_one_finds_what_has_ended_meanwhile() {
    let site = Site::new(Cluster::new(VERSIONS[1]).start(), &pool("mpi", "default = true", "max = 2, once = true"));
    let round = || {
        let begin = Instant::now();
        let spoken = site.consumer.ask(&["tick"]);
        assert!(spoken.status.success(), "{}", spoken.log);
        // What it waits for at the most is 15 s.
        assert!(begin.elapsed() < Duration::from_secs(12), "{:?}: {}", begin.elapsed(), spoken.log);
    };
    round();
    let id = site.submit("echo done > output.txt");
    round();
    wait_for("it to be submitted and to end without a daemon", PATIENCE, || {
        let is_there = !site.cluster.ask("squeue", &["-h", "-t", "all"]).is_empty();
        (is_there && site.allocations().is_empty()).then_some(())
    });
    round();
    let record = site.consumer.record(&id).expect("it has ended");
    assert_eq!(record["status"], "completed", "{record}");
}

/// None of the rounds lasts for as long as a job is given before it is judged. Up to 22.05 Slurm takes what no node
/// has.
#[test]
fn rounds_judge_what_waits_for_ever_as_a_daemon_does_that_stays() {
    let pools = pool("mpi", "default = true", "max = 2, once = true");
    let site = Site::new(Cluster::new(VERSIONS[0]).start(), &pools);
    let round = || {
        let spoken = site.consumer.ask(&["tick"]);
        assert!(spoken.status.success(), "{}", spoken.log);
        spoken.log
    };
    let too_much = site.submit_to("touch begun", &json!({"resources": {"cpus": 400}}));
    let mut begin = None;
    let record = wait_for("the final record", PATIENCE * 2, || {
        round();
        let waits = site.cluster.ask("squeue", &["-h", "-o", "%r"]).contains("PartitionConfig");
        begin = begin.or_else(|| waits.then(Instant::now));
        site.consumer.record(&too_much)
    });
    assert!(
        begin.expect("it has waited in Slurm").elapsed() > Duration::from_secs(45),
        "somebody may make room for it"
    );
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("rejected")), "{record}");
    assert!(record["message"].as_str().is_some_and(|why| why.contains("PartitionConfig")), "{record}");
    assert!(!site.consumer.job_dir(&too_much).join("begun").exists());
    round();
    assert!(site.allocations().is_empty(), "{:?}", site.allocations());
}

#[test]
fn a_thousand_short_jobs_cost_the_controller_fewer_than_twenty_requests() {
    const JOBS: usize = 1_000;
    let cluster = Cluster::new(VERSIONS[1]).start();
    let site = Site::new(cluster, &pool("cpu", "default = true", "max = 4, slots = 2, idle = \"5s\""));
    let jobs: Vec<String> = (0..JOBS).map(|_| site.submit("true")).collect();
    let before = site.cluster.request_count();
    let mut daemon = site.consumer.start();
    for id in &jobs {
        assert_eq!(site.record(id, &mut daemon)["status"], "completed");
    }
    let requests = site.cluster.requests();
    let count = requests.values().sum::<u64>() - before;
    assert!(count < 20, "{count}: {requests:?}");
}

/// Only root can be anybody; who is somebody already has shown it by all the other tests.
#[test]
fn an_ordinary_users_daemon_has_its_jobs_run_as_that_user() {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let nobody = users.lines().find_map(|line| line.strip_prefix("nobody:")?.split(':').nth(1)?.parse().ok());
    let Some(user) = nobody.filter(|_| geteuid().is_root()) else { return };
    let cluster = Cluster::new(VERSIONS[0]).start();
    let pools =
        pool("cpu", "default = true", "max = 1, slots = 2, idle = \"3s\"") + &pool("mpi", "", "max = 1, once = true");
    let mut site = Site::new(cluster, &pools);
    site.consumer = site.consumer.unlinked();
    let home = site.consumer.home().to_owned();
    let program = home.join("hpc-consumer");
    // The way to the directory that it is built in may be closed to others.
    fs::copy(parts::program("hpc-consumer"), &program).unwrap();
    give(&home, user);
    give(&site.cluster.directory().join("site.toml"), user);
    let mut probe = site.cluster.client("sinfo");
    assert!(
        probe.uid(user).gid(user).status().is_ok_and(|status| status.success()),
        "{user} cannot use the clients of Slurm"
    );
    let given = site.consumer.command();
    let mut command = testkit::command(&program, &home);
    command.env_clear().args(given.get_args()).uid(user).gid(user);
    command.envs(given.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("ALLOW_ROOT");
    let output = fs::create_dir(home.join("said")).map(|()| home.join("said")).unwrap();
    let mut daemon = Process::start("hpc-consumer", &mut command, &output);
    for more in [json!({}), json!({"pool": "mpi"})] {
        let id = site.submit_to("id -u > who; sleep 0.5", &more);
        let record = site.record(&id, &mut daemon);
        assert_eq!(record["status"], "completed", "{record} {}", daemon.log());
        assert!(record["slurm_job_id"].is_string(), "{record}");
        let who = site.consumer.job_dir(&id).join("who");
        assert_eq!(fs::read_to_string(&who).unwrap(), format!("{user}\n"));
        assert_eq!(fs::metadata(&who).unwrap().uid(), user);
    }
    let owners = site.cluster.ask("squeue", &["-h", "-t", "all", "-o", "%U"]);
    assert!(owners.lines().count() >= 2 && owners.lines().all(|owner| owner == user.to_string()), "{owners}");
}

fn give(path: &Path, user: u32) {
    lchown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), user));
    }
}

/// It has another name and was booted at another time, which only root can have a process see.
#[test]
fn another_login_node_takes_over_what_runs_in_slurm() {
    if !geteuid().is_root() {
        return;
    }
    let unshare =
        parts::on_path("unshare").expect("`unshare` (of util-linux) is on the PATH: it makes another machine");
    let pools =
        pool("cpu", "default = true", "max = 1, slots = 2, idle = \"3s\"") + &pool("mpi", "", "max = 1, once = true");
    let site = Site::new(Cluster::new(VERSIONS[0]).start(), &pools);
    let mut first = site.consumer.start();
    let gate = site.cluster.directory().join("gate");
    let script = format!("mkdir begun || exit 9; until [ -e {} ]; do sleep 0.1; done", gate.display());
    let jobs = [json!({}), json!({}), json!({"pool": "mpi"})].map(|more| site.submit_to(&script, &more));
    for id in &jobs {
        let begun = site.consumer.job_dir(id).join("begun");
        wait_for("all to run", PATIENCE, || {
            assert!(first.is_running(), "{}", first.log());
            begun.exists().then_some(())
        });
    }
    first.kill();
    let boot = site.consumer.home().join("boot_id");
    fs::write(&boot, "11111111-2222-3333-4444-555555555555\n").unwrap();
    let machine = site.consumer.home().join("machine");
    let script = format!(
        "#!/bin/sh\nhostname login2 && mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"\n",
        boot.display()
    );
    fs::write(&machine, script).unwrap();
    fs::set_permissions(&machine, fs::Permissions::from_mode(0o755)).unwrap();
    let there = |more: &[&str]| {
        let words = ["--uts", "--mount", machine.to_str().unwrap()];
        let mut command = site.consumer.command_within(&unshare, &words);
        Process::start("hpc-consumer", command.args(more), site.consumer.home())
    };
    let mut refused = there(&[]);
    assert!(!refused.wait(PATIENCE).success(), "nobody has said that the other one is down");
    assert!(refused.log().contains("--take-over"), "{}", refused.log());
    let mut second = there(&["--take-over"]);
    fs::write(&gate, "").unwrap();
    for id in &jobs {
        let record = site.record(id, &mut second);
        assert_eq!(
            (&record["status"], &record["attempt"]),
            (&json!("completed"), &json!(1)),
            "{record} {}",
            second.log()
        );
        assert!(record["slurm_job_id"].is_string(), "{record}");
    }
    let id = site.submit("true");
    assert_eq!(site.record(&id, &mut second)["status"], "completed");
    second.terminate();
    second.wait(PATIENCE);
}
