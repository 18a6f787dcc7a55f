//! What a job in a container does to get out of it: in real Apptainer, which an ordinary user starts. Each attack is
//! seen to work where its defense is switched off.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testkit::{Edge, PATIENCE, command, compile, parts, wait_for};

use crate::users::{Machine, ROOT, User, VICTIM, chmod, own};

/// A machine with Apptainer, on which the victim has a name: Apptainer runs for nobody else.
struct Node {
    machine: Machine,
    edge: Edge,
    /// Run by a shell as root in the mounts of the daemon alone, before it starts.
    mounts: String,
}

impl Node {
    fn new() -> Self {
        let (machine, edge) = (Machine::new(), Edge::start());
        // A directory is an image as well, which a user without /dev/fuse starts as quickly.
        for folder in ["bin", "dev", "etc", "proc", "sys", "tmp", "var/tmp", "work"] {
            machine.make(&format!("image/{folder}"), ROOT, 0o755);
        }
        machine.make("image/var", ROOT, 0o755);
        machine.make("image", ROOT, 0o755);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks/contained.c");
        compile(&source, &machine.path("image/bin/contained"));
        let passwd = machine.path("passwd");
        let known = fs::read_to_string("/etc/passwd").expect("there are users");
        let victim = format!("victim:x:{}:{}::{}:/bin/sh\n", VICTIM.0, VICTIM.0, machine.home(VICTIM).display());
        fs::write(&passwd, known + &victim).expect("the machine can be written to");
        chmod(&passwd, 0o644);
        let mounts = format!("mount --bind {} /etc/passwd", passwd.display());
        Self { machine, edge, mounts }
    }

    /// `hpc-consumer run` with these settings, as this user.
    fn consumer(&mut self, user: User, settings: &[(&str, &str)]) -> Command {
        let (results, state) = (self.results(user), self.machine.home(user).join("state"));
        if user == ROOT {
            self.machine.make("0", ROOT, 0o755);
        }
        let bare = self.machine.consumer(&self.edge, &results, &state);
        own(&self.machine.home(VICTIM).join("settings.env"), user, 0o600);
        let program = Path::new("unshare");
        let mut consumer = command(program, &self.machine.home(user));
        let line =
            format!("{} && exec setpriv --reuid {id} --regid {id} --clear-groups \"$@\"", self.mounts, id = user.0);
        consumer.args(["--mount", "sh", "-c", &line, "sh"]).arg(bare.get_program()).args(bare.get_args());
        consumer.envs(bare.get_envs().filter_map(|(name, value)| Some((name, value?))));
        consumer.env("RUNTIME", "apptainer").env("APPTAINER_BIN", parts::apptainer());
        consumer.env("APPTAINER_IMAGE", self.machine.path("image"));
        consumer.envs(settings.iter().copied());
        consumer
    }

    fn results(&self, user: User) -> PathBuf {
        self.machine.home(user).join("results")
    }

    /// What a job ran into that does this, and its whole result.
    fn attacked(&mut self, user: User, attack: &str, settings: &[(&str, &str)]) -> Attacked {
        let mut consumer = self.consumer(user, settings);
        let id = self.edge.producer().submit(&json!({"task": "attack"}));
        consumer.arg("--exit-when-idle").env("CONTAINER_CMD", format!("/bin/contained {attack}"));
        let (code, log) = self.machine.ended("hpc-consumer", &mut consumer);
        assert_eq!(code, Some(0), "{log}");
        let record = fs::read_to_string(self.results(user).join(format!("{id}.json"))).expect("the job has its record");
        let result: Value = serde_json::from_str(&record).expect("a record is JSON");
        assert_eq!(result["status"], "completed", "{result}\n{log}");
        Attacked { result, log }
    }
}

struct Attacked {
    result: Value,
    log: String,
}

impl Attacked {
    /// How far each went, without those that are no attacks.
    fn ends<'a>(&'a self, harmless: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        let ends = self.result["output"].as_object().expect("the program tells how far each went");
        ends.iter()
            .map(|(name, end)| (name.as_str(), end.as_str().expect("each end is a word")))
            .filter(|(name, _)| !harmless.contains(name))
    }

    fn of(&self, name: &str) -> &str {
        self.result["output"][name].as_str().unwrap_or_else(|| panic!("{name}: {}", self.result))
    }

    #[track_caller]
    fn assert_all(&self, harmless: &[&str], is: impl Fn(&str) -> bool) {
        assert!(self.ends(harmless).count() >= 1);
        for (name, end) in self.ends(harmless) {
            assert!(is(end), "{name}: {end}; {}", self.result);
        }
        for name in harmless {
            assert_eq!(self.of(name), "reached", "a program needs it: {}", self.result);
        }
    }
}

/// Row 1: nobody becomes the user of the daemon by a file that the job has left.
#[test]
fn a_job_in_a_container_makes_no_setuid_file() {
    let mut node = Node::new();
    let here = node.attacked(VICTIM, "setuid", &[]);
    here.assert_all(&["modes"], |end| end != "reached");
    assert!(here.result["isolation"]["seccomp"].as_str().unwrap().starts_with("sha256:"), "{}", here.result);
    assert_eq!(here.result["isolation"]["namespaces"], "user", "{}", here.result);
    let without = node.attacked(VICTIM, "setuid", &[("JOB_SECCOMP", "none")]);
    assert_eq!(without.result["isolation"]["seccomp"], "none", "{}", without.result);
    for (name, end) in without.ends(&["by_fchmodat2", "as_a_program_of_32_bits", "with_a_ring"]) {
        assert_eq!(end, "reached", "so the attack {name} is one: {}", without.result);
    }
}

/// Row 14: in a namespace of its own a job would have every right, and mount what it likes.
#[test]
fn a_job_in_a_container_gets_no_user_namespace_and_mounts_nothing() {
    let mut node = Node::new();
    node.attacked(VICTIM, "namespaces", &[]).assert_all(&["threads", "debugging"], |end| end != "reached");
    let without = node.attacked(VICTIM, "namespaces", &[("JOB_SECCOMP", "none")]);
    // To mount without any right is refused by the kernel as well.
    for (name, end) in without.ends(&["mount_without", "traced_by_old_options"]) {
        assert_eq!(end, "reached", "so the attack {name} is one: {}", without.result);
    }
}

/// Rows 13 and 2: keys of the user, and descriptors of other processes.
#[test]
fn a_job_in_a_container_reads_no_keyring_and_takes_no_descriptor() {
    let mut node = Node::new();
    node.attacked(VICTIM, "keys", &[]).assert_all(&[], |end| end == "EPERM");
    let without = node.attacked(VICTIM, "keys", &[("JOB_SECCOMP", "none")]);
    assert_eq!(without.of("descriptor"), "reached", "so the attack is one: {}", without.result);
}

/// Rows 2 and 14: what listens on the node, and what listens on abstract names, is not the job's to reach.
#[test]
fn a_job_in_a_container_reaches_nothing_of_the_network_but_itself() {
    let mut node = Node::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("hpc-queue-attacks-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let attack = format!("network {} {name}", port.local_addr().unwrap().port());
    let here = node.attacked(VICTIM, &attack, &[]);
    let harmless = ["own_localhost", "localhost_has_a_name"];
    here.assert_all(&harmless, |end| end != "reached");
    assert_eq!(here.result["isolation"]["network"], "none", "{}", here.result);
    let without = node.attacked(VICTIM, &attack, &[("JOB_NETWORK", "host")]);
    assert_eq!((without.of("port_of_the_node"), without.of("abstract_name")), ("reached", "reached"));
    assert_eq!(without.result["isolation"]["network"], "host", "{}", without.result);
}

/// Row 14: a user to whom a control group was given could raise the limits of their jobs, and so could the jobs.
#[test]
fn a_job_in_a_container_leaves_no_control_group_and_writes_nothing_below_sys() {
    let mut node = Node::new();
    let group = format!("hpc-queue-attacks-{}", std::process::id());
    let place = format!("/sys/fs/cgroup/{group}");
    let files = format!("{place}/cgroup.procs");
    let passwd = node.mounts.clone();
    // One hierarchy, as nodes of today have it, also where this machine has several.
    let given = format!("mkdir -p {place} && chown -R {} {place}", VICTIM.0);
    node.mounts = format!("{passwd} && mount -t cgroup2 none /sys/fs/cgroup && {given}");
    let here = node.attacked(VICTIM, &format!("open {files}"), &[]);
    assert_eq!(here.of(&files), "EROFS", "{}", here.result);
    assert_eq!(here.result["isolation"]["sys"], "read_only", "{}", here.result);
    let without = node.attacked(VICTIM, &format!("open {files}"), &[("APPTAINER_BIND", "/sys/fs/cgroup")]);
    assert_eq!(without.of(&files), "reached", "so the attack is one: {}", without.result);
    assert_eq!(without.result["isolation"]["sys"], "read_write", "{}", without.result);
    // Where there are several, none is shown.
    node.mounts = format!(
        "{passwd} && mount -t tmpfs none /sys/fs/cgroup && mkdir /sys/fs/cgroup/one && \
         mount -t cgroup2 none /sys/fs/cgroup/one"
    );
    let files = format!("/sys/fs/cgroup/one/{group}/cgroup.procs");
    let here = node.attacked(VICTIM, &format!("open {files}"), &[]);
    assert_eq!((here.of(&files), here.result["isolation"]["sys"].as_str()), ("ENOENT", Some("read_only")));
    let line = format!("mount -t cgroup2 none /sys/fs/cgroup && rmdir {place}");
    let removed = command(Path::new("unshare"), Path::new("/")).args(["--mount", "sh", "-c", &line]).status();
    assert!(removed.unwrap().success(), "the control group of the test stays");
}

/// Root writes to files of root without any further right: the settings of the kernel, which start programs.
#[test]
fn a_job_of_root_in_a_container_sets_nothing_of_the_kernel() {
    let mut node = Node::new();
    let files = "/proc/sys/kernel/core_pattern";
    let here = node.attacked(ROOT, &format!("open {files} /sys/kernel/mm/transparent_hugepage/enabled"), &[]);
    here.assert_all(&[], |end| end == "EROFS");
    assert_eq!(here.result["isolation"]["namespaces"], "root", "{}", here.result);
    let without = node.attacked(ROOT, &format!("open {files}"), &[("APPTAINER_BIND", "/proc/sys")]);
    assert_eq!(without.of(files), "reached", "so the attack is one: {}", without.result);
}

/// An Apptainer that says no to some of it: by its own check of a profile that cannot be read, and as one does that was
/// built without.
fn without(machine: &Machine, seccomp: bool) -> PathBuf {
    let (broken, program) = (machine.path("broken.json"), machine.path("bin/apptainer"));
    fs::write(&broken, "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":")
        .expect("the machine can be written to");
    chmod(&broken, 0o644);
    let refuse = match seccomp {
        true => format!("case \"$word\" in seccomp:*) word=seccomp:{};; esac", broken.display()),
        false => "case \"$word\" in --net) echo 'FATAL: no network namespace' >&2; exit 255;; esac".to_owned(),
    };
    let script = format!(
        "#!/bin/sh\ncount=$#\nwhile [ $count -gt 0 ]; do word=$1; shift; {refuse}; set -- \"$@\" \"$word\"; \
         count=$((count - 1)); done\nexec {} \"$@\"\n",
        parts::apptainer().display()
    );
    fs::write(&program, script).expect("the machine can be written to");
    own(&program, ROOT, 0o755);
    program
}

#[test]
fn what_an_apptainer_does_not_take_is_left_out_and_told_and_jobs_run() {
    for (seccomp, told, fact, still) in [
        (true, "jobs run without the seccomp profile: ", "seccomp", "network"),
        (false, "jobs share the network of this node: ", "network", "seccomp"),
    ] {
        let mut node = Node::new();
        let program = without(&node.machine, seccomp);
        let ran = node.attacked(VICTIM, "keys", &[("APPTAINER_BIN", program.to_str().unwrap())]);
        assert!(ran.log.contains(told), "{}", ran.log);
        let facts = &ran.result["isolation"];
        assert!(["none", "host"].contains(&facts[fact].as_str().unwrap()), "{facts}");
        let still = facts[still].as_str().unwrap();
        assert!(still == "none" || still.starts_with("sha256:"), "{facts}");
    }
}

#[test]
fn a_node_that_lacks_what_is_demanded_takes_no_job() {
    let mut node = Node::new();
    let program = without(&node.machine, true);
    let settings = [
        ("APPTAINER_BIN", program.to_str().unwrap()),
        ("CONTAINER_CMD", "/bin/contained keys"),
        ("REQUIRE", "seccomp,no-network"),
    ];
    let mut check = node.consumer(VICTIM, &settings);
    let (code, log) = node.machine.ended("check", check.arg("--check"));
    assert_eq!(code, Some(2), "{log}");
    for said in ["REQUIRE demands seccomp, which jobs do not get here", "jobs run without the seccomp profile: "] {
        assert!(log.contains(said), "{log}");
    }
    let id = node.edge.producer().submit(&json!({"task": "attack"}));
    let mut consumer = node.consumer(VICTIM, &settings);
    let mut daemon = node.machine.start("hpc-consumer", &mut consumer);
    wait_for("the daemon to say so", PATIENCE, || {
        assert!(daemon.is_running(), "{}", daemon.log());
        daemon.log().contains("REQUIRE demands seccomp").then_some(())
    });
    // It was never pulled.
    assert!(!node.results(VICTIM).join(&id).exists(), "{}", daemon.log());
    daemon.kill();
    // Where all of it can be had, the same job runs.
    let mut consumer = node.consumer(VICTIM, &settings);
    consumer.env("APPTAINER_BIN", parts::apptainer()).arg("--exit-when-idle");
    let (code, log) = node.machine.ended("hpc-consumer", &mut consumer);
    assert_eq!(code, Some(0), "{log}");
    assert!(node.results(VICTIM).join(format!("{id}.json")).exists(), "{log}");
}
