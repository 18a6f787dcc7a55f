//! Nodes that have no way to the daemon, or the daemon none to them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Signal, geteuid};
use serde_json::{Value, json};
use testkit::slurm::{Cluster, VERSIONS};
use testkit::{Process, parts, signal, wait_for};

use crate::allocation::PATIENCE;
use crate::pools::{Site, pool};

/// How `unshare` makes a network with nothing in it, in which who is not root has to be somebody first.
fn network() -> &'static str {
    if geteuid().is_root() { "--net" } else { "--user --map-current-user --net" }
}

/// A daemon whose program can be replaced on the nodes: allocations begin what stands by its name then.
struct Movable {
    daemon: Process,
    program: PathBuf,
    real: PathBuf,
}

impl Movable {
    fn start(site: &Site) -> Self {
        let [program, real] = ["hpc-consumer", "hpc-consumer-itself"].map(|name| site.consumer.home().join(name));
        fs::copy(parts::program("hpc-consumer"), &program).unwrap();
        fs::hard_link(&program, &real).unwrap();
        let given = site.consumer.command();
        let mut command = testkit::command(&program, site.consumer.home());
        command.args(given.get_args());
        command.envs(given.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let daemon = Process::start("hpc-consumer", &mut command, site.consumer.home());
        Self { daemon, program, real }
    }

    /// From now on keepers of allocations begin by means of this command of the shell, as long as this file is there.
    fn hinder(&self, while_there: &Path, by: &str) {
        let (gate, real) = (while_there.display(), self.real.display());
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = allocation ] && [ -e {gate} ]; then exec {by} {real} \"$@\"; fi\n\
             exec {real} \"$@\"\n"
        );
        let next = self.program.with_extension("next");
        fs::write(&next, script).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(while_there, "").unwrap();
        fs::rename(&next, &self.program).unwrap();
    }
}

fn shown(site: &Site, pool: &str) -> Value {
    let told = site.consumer.ask(&["pools", "--output", "json"]).output;
    let pools: Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"));
    let pools = pools.as_array().or_else(|| pools["pools"].as_array()).unwrap_or_else(|| panic!("{told}"));
    pools.iter().find(|one| one["name"] == pool || one["pool"] == pool).cloned().unwrap_or_else(|| panic!("{told}"))
}

/// The keepers live in networks of their own, as behind a firewall: what they publish leads nowhere.
#[test]
fn workers_that_nobody_reaches_pause_their_pool_and_its_jobs_run_once_that_is_mended() {
    // A worker of three minutes gives up after one: with less than two left it begins nothing.
    let workers = "max = 3, slots = 1, pending = 3, idle = \"1s\"";
    let pools = pool("cpu", "default = true", workers).replace("30m", "3m") + &pool("mpi", "", "max = 2, once = true");
    let site = Site::new(Cluster::new(VERSIONS[1]).start(), &pools);
    let mut movable = Movable::start(&site);
    let limit = json!({"time_limit_seconds": 20});
    let first = site.submit_to("true", &limit);
    assert_eq!(site.record(&first, &mut movable.daemon)["status"], "completed", "{}", movable.daemon.log());
    wait_for("its worker to be gone", PATIENCE, || site.has_none());

    let unshare = parts::on_path("unshare").expect("`unshare` (of util-linux) is on the PATH: it makes a network");
    let wall = site.consumer.home().join("wall");
    movable.hinder(&wall, &format!("{} {}", unshare.display(), network()));
    let jobs = [(); 3].map(|()| site.submit_to("echo >> runs", &limit));
    wait_for("somebody to say that one is not reached", PATIENCE, || {
        let log = movable.daemon.log();
        (log.contains("cannot be reached from here, which is tried again") && log.contains("Connection refused"))
            .then_some(())
    });
    // What needs no connection runs on the same nodes.
    let other = site.submit_to("true", &json!({"pool": "mpi"}));
    let record = site.record(&other, &mut movable.daemon);
    assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(1)), "{record}");
    wait_for("the pool to be paused", PATIENCE * 2, || {
        assert!(movable.daemon.is_running(), "{}", movable.daemon.log());
        let pool = shown(&site, "cpu").to_string();
        pool.contains("SIGHUP").then(|| {
            for text in ["could not be reached from here", "Connection refused", "once = true"] {
                assert!(pool.contains(text), "{pool}");
            }
        })
    });
    wait_for("no worker to be left, and none to be asked for", PATIENCE, || site.has_none());
    assert!(jobs.iter().all(|id| site.consumer.record(id).is_none()), "{}", movable.daemon.log());

    fs::remove_file(&wall).unwrap();
    signal(movable.daemon.pid(), Signal::HUP);
    for id in &jobs {
        let record = site.record(id, &mut movable.daemon);
        assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(1)), "{record}");
        assert_eq!(fs::read_to_string(site.consumer.job_dir(id).join("runs")).unwrap(), "\n");
    }
    wait_for("nothing to be left", PATIENCE, || site.has_none());
}

/// A node has no other way to the daemon than its files: only root can have a process not see them.
#[test]
fn nodes_that_do_not_see_the_state_begin_nothing_and_are_told_of_and_the_job_runs_once_they_do() {
    if !geteuid().is_root() {
        return;
    }
    let site = Site::new(Cluster::new(VERSIONS[0]).start(), &pool("mpi", "default = true", "max = 1, once = true"));
    let mut movable = Movable::start(&site);
    let first = site.submit("true");
    assert_eq!(site.record(&first, &mut movable.daemon)["status"], "completed", "{}", movable.daemon.log());
    let empty = site.consumer.home().join("empty");
    fs::create_dir(&empty).unwrap();
    let away = site.consumer.home().join("away");
    let script =
        format!("#!/bin/sh\nmount --bind {} {} && exec \"$@\"\n", empty.display(), site.consumer.state_dir().display());
    fs::write(&away, script).unwrap();
    fs::set_permissions(&away, fs::Permissions::from_mode(0o755)).unwrap();
    let unshare = parts::on_path("unshare").expect("`unshare` (of util-linux) is on the PATH: it hides a directory");
    let wall = site.consumer.home().join("wall");
    movable.hinder(&wall, &format!("{} --mount {}", unshare.display(), away.display()));
    let job = site.submit("echo >> runs");
    wait_for("somebody to say what to do", PATIENCE, || {
        assert!(movable.daemon.is_running(), "{}", movable.daemon.log());
        let log = movable.daemon.log();
        (log.contains("nothing has begun in it") && log.contains("STATE_DIR")).then_some(())
    });
    let why = wait_for("the pool to wait", PATIENCE, || {
        let pool = shown(&site, "mpi").to_string();
        pool.contains("failure").then_some(pool)
    });
    assert!(site.consumer.record(&job).is_none(), "{why}");
    fs::remove_file(&wall).unwrap();
    // After a failure the next one is asked for a minute later.
    let record = wait_for("the final record", PATIENCE + Duration::from_secs(60), || {
        assert!(movable.daemon.is_running(), "{}", movable.daemon.log());
        site.consumer.record(&job)
    });
    assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(1)), "{record} {why}");
    assert_eq!(fs::read_to_string(site.consumer.job_dir(&job).join("runs")).unwrap(), "\n");
}
