//! What a job without a container does to what is not its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Edge, PATIENCE, Process, is_alive, wait_for, wait_until};

use crate::attacker::Tool;
use crate::users::{Machine, ROOT, VICTIM, own};

/// A machine with a daemon of the victim whose jobs have no container.
struct Site {
    edge: Edge,
    machine: Machine,
    tool: Tool,
    results: PathBuf,
    state: PathBuf,
}

impl Site {
    fn new() -> Self {
        let machine = Machine::new();
        let home = machine.home(VICTIM);
        machine.make("scratch", VICTIM, 0o700);
        Self {
            edge: Edge::start(),
            tool: Tool::new(),
            results: home.join("results"),
            state: home.join("state"),
            machine,
        }
    }

    /// Directories of tests lie in `/tmp`, so that is not where jobs may write here.
    fn command(&mut self) -> Command {
        let mut command = self.machine.consumer(&self.edge, &self.results, &self.state);
        command.env("BARE_WRITABLE", self.machine.path("scratch"));
        command
    }

    fn start(&self, command: &mut Command) -> Process {
        self.machine.start("hpc-consumer", command)
    }

    fn submit(&self, script: &str) -> String {
        self.edge.producer().submit(&json!({"task": "script", "input": script}))
    }

    fn record(&self, id: &str) -> Value {
        wait_for(&format!("the record of {id}"), PATIENCE, || {
            serde_json::from_str(&fs::read_to_string(self.results.join(format!("{id}.json"))).ok()?).ok()
        })
    }

    /// Runs this script as a job, and returns what it printed.
    fn said(&self, script: &str) -> String {
        let id = self.submit(script);
        let record = self.record(&id);
        assert_eq!(record["status"], "completed", "{record}");
        record["stdout_tail"].as_str().unwrap_or_default().to_owned()
    }

    fn keeper(&self) -> u32 {
        let card = fs::read_to_string(self.state.join("keeper/keeper.json")).expect("a job has a keeper");
        let card: Value = serde_json::from_str(&card).expect("it is JSON");
        card["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("it has a number")
    }
}

/// The ways of a list that worked, by the words of a script that tries one after the other.
fn ways_that_work(site: &Site, ways: &[&str]) -> Vec<String> {
    let tries: Vec<String> =
        ways.iter().enumerate().map(|(number, way)| format!("({way}) 2> /dev/null && echo {number}; ")).collect();
    let said = site.said(&format!("{}true", tries.concat()));
    said.lines().map(|number| ways[number.parse::<usize>().expect("a number is said")].to_owned()).collect()
}

#[test]
fn a_job_without_a_container_writes_to_nothing_that_is_not_its_own() {
    let mut site = Site::new();
    let home = site.machine.home(VICTIM);
    let keys = home.join("authorized_keys");
    fs::write(&keys, "mine").unwrap();
    own(&keys, VICTIM, 0o600);
    let (home, results, state) = (home.display(), site.results.display(), site.state.display());
    let attacks = [
        format!("echo attackers >> {home}/authorized_keys"),
        format!("echo x > {home}/.bashrc"),
        format!("mv {home}/authorized_keys {home}/moved"),
        format!("ln {home}/authorized_keys taken"),
        format!("mkdir {home}/more"),
        format!("echo forged > {results}/other.json"),
        format!("rm {state}/keeper/keeper.json"),
        format!("echo forged >> {state}/keeper/journal"),
        format!("truncate -s 0 {state}/state.db"),
    ];
    let allowed = [
        "echo x > mine && mkdir below && mv mine below/ && ln below/mine here".to_owned(),
        format!("echo x > {}/x", site.machine.path("scratch").display()),
        "cat /proc/self/status > /dev/null".to_owned(),
        format!("cat {home}/authorized_keys > copy"),
    ];
    let ways: Vec<&str> = attacks.iter().chain(&allowed).map(String::as_str).collect();
    let mut command = site.command();
    let mut daemon = site.start(&mut command);
    assert_eq!(ways_that_work(&site, &ways), allowed);
    assert_eq!(fs::read_to_string(&keys).unwrap(), "mine");
    daemon.wait_for_log("RUNTIME=bare has no container: a job reads all that this user can, and writes to", PATIENCE);

    // The same without it, so that it is no proof of attacks that never work.
    daemon.kill();
    let mut daemon = site.start(command.env("BARE_CONFINEMENT", "none"));
    daemon.wait_for_log("isolates nothing", PATIENCE);
    assert_eq!(ways_that_work(&site, &ways[..2]), ways[..2]);
    assert_eq!(fs::read_to_string(&keys).unwrap(), "mineattackers\n");
}

#[test]
fn a_place_to_write_to_that_is_not_there_is_said_before_a_job_is_taken() {
    let mut site = Site::new();
    let place = site.machine.path("missing");
    let mut command = site.command();
    let mut daemon = site.start(command.env("BARE_WRITABLE", &place));
    let id = site.submit("echo x > $WORK_DIR/../../../missing/x && echo 1 > output.json");
    daemon.wait_for_log("BARE_WRITABLE names", PATIENCE);
    site.machine.make("missing", VICTIM, 0o700);
    assert_eq!(site.record(&id)["status"], "completed");
    assert!(place.join("x").exists());
}

#[test]
fn a_job_without_a_container_signals_neither_keeper_nor_daemon_and_is_ended_by_them() {
    let mut site = Site::new();
    let mut command = site.command();
    command.env("JOB_TIME_LIMIT_SECONDS", "3").env("JOB_KILL_GRACE_SECONDS", "1");
    let mut daemon = site.start(&mut command);
    assert!(!site.said("echo $$").is_empty());
    let keeper = site.keeper();
    let daemon_pid = daemon.pid();
    // Its own processes it may signal, and those in a session of their own as well.
    let script = format!(
        "for pid in {keeper} {daemon_pid}; do for signal in STOP TERM KILL; do kill -$signal $pid && echo $pid; done; \
         prlimit --pid $pid --nofile=1:1 --cpu=1:1 && echo limited $pid; done 2> /dev/null; \
         ulimit -n 100 && prlimit --nofile > /dev/null || echo none; sleep 600 & kill $! && setsid sleep 600 & kill $! && echo own; echo $$ > pid; \
         trap : TERM; echo > waits; while :; do sleep 1; done"
    );
    let id = site.submit(&script);
    let record = site.record(&id);
    assert_eq!((&record["reason"], &record["stdout_tail"]), (&json!("time_limit"), &json!("own\n")), "{record}");
    assert_eq!((&record["isolation"]["writes"], &record["isolation"]["signals"]), (&json!("own"), &json!("own")));
    assert_eq!(record["isolation"]["keyring"], "own", "{record}");
    let pid: u32 = fs::read_to_string(site.results.join(&id).join("pid")).unwrap().trim().parse().unwrap();
    assert!(!is_alive(pid), "the keeper ends it, whatever it does about SIGTERM");
    assert!(daemon.is_running() && site.keeper() == keeper && is_alive(keeper));
}

/// Whoever can speak to the keeper has it start what they like, which is then not confined.
#[test]
fn a_job_without_a_container_knows_the_keepers_token_and_is_not_heard() {
    let mut site = Site::new();
    let mut command = site.command();
    let _daemon = site.start(&mut command);
    let (tool, folder) = (site.tool.program(), site.state.join("keeper"));
    let (tool, folder) = (tool.display(), folder.display());
    let said = site.said(&format!("{tool} speak {folder} || true; (setsid {tool} speak {folder} &) ; sleep 1; true"));
    assert!(said.matches("token of 32 characters").count() == 2 && !said.contains("hello"), "{said}");
    let log = site.state.join("keeper/keeper.log");
    wait_until("the keeper to say so", PATIENCE, || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("a process of a run wanted to speak to this keeper"))
    });
    // The same by a process that is no job's, so that it is no proof of an attack that never works.
    let (had, said) = site.tool.run(VICTIM.0, &["speak", &folder.to_string()]);
    assert!(had && said.contains("hello"), "{said}");
}

#[test]
fn a_job_without_a_container_gains_nothing_by_a_setuid_program() {
    let mut site = Site::new();
    let program = site.machine.path("bin").join("id");
    fs::copy("/usr/bin/id", &program).unwrap();
    own(&program, ROOT, 0o4755);
    let mut command = site.command();
    let mut daemon = site.start(&mut command);
    let script = format!("{} -u", program.display());
    assert_eq!(site.said(&script), format!("{}\n", VICTIM.0));
    daemon.kill();
    let _daemon = site.start(command.env("BARE_CONFINEMENT", "none"));
    assert_eq!(site.said(&script), "0\n", "the attack is one");
}

/// Row 13: tickets of Kerberos and AFS lie in the keyring of the session in which the daemon was started.
#[test]
fn a_job_has_a_session_keyring_of_its_own() {
    let mut site = Site::new();
    let tool = site.tool.program();
    let script = format!("{} ticket || true", tool.display());
    for (whose, found) in [("own", false), ("inherited", true)] {
        let daemon = site.command();
        let mut command = testkit::command(&tool, &site.machine.home(VICTIM));
        command.arg("session").arg(daemon.get_program()).args(daemon.get_args());
        command.envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env_remove("ALLOW_ROOT").env("SESSION_KEYRING", whose);
        let mut daemon = site.start(crate::attacker::by(VICTIM.0, &mut command));
        let said = site.said(&script);
        assert_eq!(said.contains("found"), found, "{whose}: {said}");
        // The keeper goes with it: the next one is to be of another session.
        end(&site, &mut daemon);
    }
}

fn end(site: &Site, daemon: &mut Process) {
    let keeper = site.keeper();
    daemon.terminate();
    daemon.wait(PATIENCE);
    wait_until("the keeper to be gone", PATIENCE, || !is_alive(keeper));
}

fn score(pid: u32) -> i32 {
    fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))
        .expect("the process runs")
        .trim()
        .parse()
        .expect("a number")
}

/// Row 12: one job takes the memory of the machine, and the kernel kills others for it.
#[test]
fn a_job_that_takes_more_memory_than_it_may_is_ended_alone() {
    let mut site = Site::new();
    let mut command = site.command();
    command.env("JOB_MEMORY_LIMIT", "150MiB").env("MAX_PARALLEL_JOBS", "3");
    let daemon = site.start(&mut command);
    let (tool, open) = (site.tool.program(), TempDir::new().unwrap());
    let gate = open.path().join("gate");
    own(open.path(), VICTIM, 0o700);
    let (tool, wait) = (tool.display(), format!("until [ -e {} ]; do sleep 0.1; done", gate.display()));
    let modest = site.submit(&format!("echo $$ > pid; {wait}; echo 1 > output.json"));
    // 80 MiB that five processes share, and 300 in a session of its own.
    let sharing = site.submit(&format!("{tool} hog 80 4 5; {wait}"));
    let hog = site.submit(&format!("setsid {tool} hog 300 0 600 & wait"));
    let record = site.record(&hog);
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("memory_limit")), "{record}");
    assert_eq!(record["isolation"]["memory"], "watch", "{record}");
    let message = record["message"].as_str().unwrap();
    assert!(message.contains("MiB of memory and may use 150MiB, as a watch saw"), "{message}");
    assert!(message.contains("used 30"), "{message}");

    let pid = wait_for("the modest job", PATIENCE, || {
        fs::read_to_string(site.results.join(&modest).join("pid")).ok()?.trim().parse().ok()
    });
    let of_others = score(daemon.pid()).max(score(site.keeper()));
    assert!(score(pid) >= of_others + 500, "the kernel kills a job first: {} and {of_others}", score(pid));
    fs::write(&gate, "").unwrap();
    for id in [&modest, &sharing] {
        let record = site.record(id);
        assert_eq!(record["status"], "completed", "{record}");
    }
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

/// A control group in which all together may use so much memory.
struct Group(PathBuf);

impl Group {
    fn new(bytes: u64) -> Self {
        let (first, second) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let name = format!("hpc-queue-attacks-memory-{}", std::process::id());
        let (group, limits) = match first.is_dir() {
            true => {
                (Self(first.join(name)), [("memory.limit_in_bytes", bytes), ("memory.memsw.limit_in_bytes", bytes)])
            }
            false => (Self(second.join(name)), [("memory.max", bytes), ("memory.swap.max", 0)]),
        };
        fs::create_dir(&group.0).expect("root makes control groups");
        fs::write(group.0.join(limits[0].0), limits[0].1.to_string()).expect("the kernel limits memory by them");
        // Not where it counts no swap.
        let _ = fs::write(group.0.join(limits[1].0), limits[1].1.to_string());
        group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            wait_until("the control group to be empty", PATIENCE, || fs::remove_dir(&self.0).is_ok());
        }
    }
}

/// Row 12: where the kernel ends what takes too much, it is the job that took it, and that is told.
#[test]
fn a_job_that_the_kernel_ends_for_its_memory_is_told_so_and_no_other_is() {
    let group = Group::new(200 << 20);
    let mut site = Site::new();
    let inner = site.command();
    let line = format!(
        "echo $$ > \"$0\"/cgroup.procs && exec setpriv --reuid {id} --regid {id} --clear-groups \"$@\"",
        id = VICTIM.0
    );
    let mut command = testkit::command(Path::new("/bin/sh"), &site.machine.home(VICTIM));
    command.args(["-c", &line]).arg(&group.0).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("ALLOW_ROOT");
    let mut daemon = site.start(&mut command);
    let gate = site.machine.home(VICTIM).join("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.1; done", gate.display());
    let modest = site.submit(&format!("touch begun; {wait}; echo 1 > output.json"));
    wait_until("the modest job", PATIENCE, || site.results.join(&modest).join("begun").exists());
    // A shell goes on when the kernel has killed its child, and ends as that did.
    let record = site.record(&site.submit(&format!("{} hog 300 0 600; exit $?", site.tool.program().display())));
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("memory_limit")), "{record}");
    assert!(record["message"].as_str().unwrap().contains("the kernel killed the task"), "{record}");
    assert!(daemon.is_running() && is_alive(site.keeper()));
    fs::write(&gate, "").unwrap();
    assert_eq!(site.record(&modest)["status"], "completed");
    // The same end without any need of memory.
    let record = site.record(&site.submit("kill -KILL $$"));
    assert_eq!((&record["reason"], &record["signal"]), (&json!("signal"), &json!(9)), "{record}");
}
