//! A real Slurm: a controller and several nodes on this host, all in one directory, and gone with the value.
//!
//! Nothing of it is installed, nobody but this host reaches it, and several can run side by side. With accounting,
//! there is a database with two accounts (`proj`, `other`) and three QOS (`normal`, `high`, `small`); without, limits
//! hold nobody. With cgroups (as root), the kernel holds jobs to their memory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use std::{env, thread};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::{is_alive, parts, signal, wait_for, wait_until};

/// The versions that tests run on.
pub const VERSIONS: [&str; 2] = ["22.05", "24.11"];

/// How long any of its daemons may take to be there.
const START_MAX: Duration = Duration::from_secs(60);

/// The longest path of a directory in which Slurm and MariaDB can have their sockets.
const DIRECTORY_BYTES_MAX: usize = 70;

/// A cluster to be.
#[derive(Debug, Clone)]
pub struct Cluster {
    version: &'static str,
    nodes: usize,
    cpus: u32,
    memory_mb: u32,
    accounting: bool,
    cgroups: bool,
    settings: Vec<String>,
}

impl Cluster {
    /// One of this version, with two nodes of four processors and 4000 MB.
    pub fn new(version: &'static str) -> Self {
        Self { version, nodes: 2, cpus: 4, memory_mb: 4_000, accounting: false, cgroups: false, settings: Vec::new() }
    }

    /// With so many nodes: `n1`, `n2` and so on.
    pub fn nodes(self, nodes: usize) -> Self {
        Self { nodes, ..self }
    }

    /// With so many processors in each.
    pub fn cpus(self, cpus: u32) -> Self {
        Self { cpus, ..self }
    }

    /// With a database in which jobs are kept, and accounts and their limits.
    pub fn accounting(self) -> Self {
        Self { accounting: true, ..self }
    }

    /// With memory limits that the kernel holds.
    pub fn cgroups(self) -> Self {
        Self { cgroups: true, ..self }
    }

    /// With one more line of `slurm.conf`, in place of one of the same key.
    pub fn setting(mut self, line: &str) -> Self {
        self.settings.push(line.to_owned());
        self
    }

    /// Starts it, and waits until all its nodes are idle.
    pub fn start(self) -> Slurm {
        Slurm::start(self)
    }
}

/// A running Slurm.
#[derive(Debug)]
pub struct Slurm {
    cluster: Cluster,
    tools: PathBuf,
    plugins: PathBuf,
    names: Vec<String>,
    daemons: Mutex<BTreeMap<String, Child>>,
    ports: Ports,
    directory: TempDir,
}

impl Slurm {
    fn start(cluster: Cluster) -> Self {
        let tools = parts::slurm(cluster.version);
        let plugins = plugins(&tools);
        let directory = tempfile::Builder::new().prefix("slurm-").tempdir().expect("a directory can be made");
        let path = directory.path();
        assert!(path.as_os_str().len() <= DIRECTORY_BYTES_MAX, "{} is too long for sockets in it", path.display());
        // Cgroups are named after nodes.
        let prefix = if cluster.cgroups { format!("c{}x", std::process::id()) } else { "n".to_owned() };
        let names: Vec<String> = (1..=cluster.nodes).map(|number| format!("{prefix}{number}")).collect();
        for name in ["etc", "run", "log", "state", "spool", "tmp"] {
            fs::create_dir(path.join(name)).expect("a directory can be made");
        }
        // Jobs of others run here as well.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        names.iter().for_each(|name| fs::create_dir(path.join("spool").join(name)).expect("a directory can be made"));
        let ports = Ports::take(cluster.nodes + 2);
        let slurm = Self { cluster, tools, plugins, names, daemons: Mutex::default(), ports, directory };
        slurm.configure();
        if slurm.cluster.accounting {
            slurm.start_accounting();
        }
        slurm.start_controller();
        slurm.names.iter().for_each(|name| slurm.start_node(name));
        slurm.wait_until_idle();
        slurm
    }

    /// The directory in which all of it lies; jobs can read it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its version.
    pub fn version(&self) -> &'static str {
        self.cluster.version
    }

    /// The names of its nodes.
    pub fn nodes(&self) -> &[String] {
        &self.names
    }

    /// The file that says to a client of Slurm where the cluster is.
    pub fn configuration(&self) -> PathBuf {
        self.directory().join("etc/slurm.conf")
    }

    /// The `PATH` of somebody who uses the cluster.
    pub fn path(&self) -> OsString {
        let system = env::var_os("PATH").unwrap_or_default();
        let folders = [self.tools.join("clients")].into_iter().chain(env::split_paths(&system));
        env::join_paths(folders).expect("what was split at colons holds none")
    }

    /// What somebody who uses the cluster has in their environment.
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        [("SLURM_CONF", self.configuration().into()), ("PATH", self.path())]
    }

    /// A program of Slurm, as `squeue`.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.tools.join("clients").join(program));
        command.env_clear().envs(self.environment()).env("SLURM_TIME_FORMAT", "%s").env("LC_ALL", "C");
        command.env("HOME", self.directory()).current_dir(self.directory()).stdin(Stdio::null());
        command
    }

    /// What such a program says, which must end well.
    pub fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.client(program).args(arguments).output();
        let output = output.unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Asks until the answer holds this.
    pub fn wait_for_answer(&self, program: &str, arguments: &[&str], text: &str) -> String {
        let what = format!("{text:?} in what {program} {arguments:?} says");
        wait_for(&what, START_MAX, || {
            let output = self.client(program).args(arguments).output().expect("a program of Slurm can be started");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            said.contains(text).then_some(said)
        })
    }

    /// Kills a node (SIGKILL of its daemon, and of what it started), as if it had lost power.
    pub fn kill_node(&self, name: &str) {
        self.end(&format!("slurmd-{name}"), Signal::KILL);
        self.kill_strays(&self.directory().join("spool").join(name));
    }

    /// Kills the daemon of a node alone: its jobs go on.
    pub fn kill_daemon_of(&self, name: &str) {
        self.end(&format!("slurmd-{name}"), Signal::KILL);
    }

    /// Starts the daemon of a node again.
    pub fn start_node(&self, name: &str) {
        let stepd = self.daemon("slurmstepd");
        self.spawn(&format!("slurmd-{name}"), &self.daemon("slurmd"), |command| {
            command.arg("-f").arg(self.configuration()).args(["-D", "-N", name, "-d"]).arg(stepd);
        });
    }

    /// Ends the controller: killed, or asked to, after which it has written its state.
    pub fn stop_controller(&self, with: Signal) {
        self.end("slurmctld", with);
    }

    /// Lets the controller take connections and answer none, or answer again.
    pub fn pause_controller(&self, paused: bool) {
        let daemons = self.daemons.lock().expect("no other thread has failed");
        let pid = daemons.get("slurmctld").expect("the controller was started").id();
        signal(pid, if paused { Signal::STOP } else { Signal::CONT });
    }

    /// Starts the controller again, with the state that it has.
    pub fn start_controller(&self) {
        self.spawn("slurmctld", &self.daemon("slurmctld"), |command| {
            // A controller that was killed has not written all of its state; -i takes what there is.
            command.arg("-f").arg(self.configuration()).args(["-D", "-i"]);
        });
        wait_until("an answer of the controller", START_MAX, || {
            let ping = self.client("scontrol").arg("ping").output().expect("scontrol can be started");
            String::from_utf8_lossy(&ping.stdout).contains("is UP")
        });
    }

    /// Removes all that a controller that is down would know of jobs.
    pub fn forget_state(&self) {
        let state = self.directory().join("state");
        fs::remove_dir_all(&state).expect("the state can be removed");
        fs::create_dir(&state).expect("a directory can be made");
    }

    /// Ends the daemon of the accounting.
    pub fn stop_accounting(&self) {
        self.end("slurmdbd", Signal::KILL);
    }

    /// Waits until no node runs anything.
    pub fn wait_until_idle(&self) {
        let all = format!("idle {}", self.names.len());
        self.wait_for_answer("sinfo", &["-h", "-o", "%T %D", "-p", "main"], &all);
    }

    /// How many requests the controller has had of each kind, without those that nodes make and those that ask this.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        let said = self.ask("sdiag", &[]);
        let by_type = said.split_once("by message type").map_or("", |(_, rest)| rest);
        let by_type = by_type.split("by user").next().unwrap_or_default();
        let row = |line: &str| {
            let (name, rest) = line.trim().split_once(' ')?;
            let count = rest.split_once("count:")?.1.split_whitespace().next()?.parse().ok()?;
            Some((name.to_owned(), count))
        };
        let own = ["REQUEST_STATS_INFO", "MESSAGE_NODE_REGISTRATION_STATUS", "REQUEST_PING", "REQUEST_CONTROL_STATUS"];
        by_type.lines().filter_map(row).filter(|(name, _)| !own.contains(&name.as_str())).collect()
    }

    /// The sum of them.
    pub fn request_count(&self) -> u64 {
        self.requests().values().sum()
    }

    fn configure(&self) {
        let Cluster { cpus, memory_mb, accounting, cgroups, .. } = &self.cluster;
        let (user, host) = (user(), host());
        let directory = self.directory().display();
        let mut ports = self.ports.rest.iter().copied();
        let mut port = || ports.next().expect("there are as many as asked for");
        let (controller, database) = (port(), port());
        let mut lines: Vec<String> = [
            "ClusterName=test",
            &format!("SlurmctldHost={host}(127.0.0.1)"),
            &format!("SlurmctldPort={controller}"),
            &format!("SlurmUser={user}"),
            &format!("SlurmdUser={user}"),
            "AuthType=auth/none",
            "CredType=cred/none",
            // A job that begins again has to wait for so long.
            "AuthInfo=cred_expire=5",
            "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny",
            &format!("PluginDir={}", self.plugins.display()),
            &format!("StateSaveLocation={directory}/state"),
            &format!("SlurmdSpoolDir={directory}/spool/%n"),
            &format!("SlurmctldPidFile={directory}/run/slurmctld.pid"),
            &format!("SlurmdPidFile={directory}/run/slurmd-%n.pid"),
            "SlurmctldDebug=verbose",
            "SlurmdDebug=verbose",
            &format!("ProctrackType=proctrack/{}", if *cgroups { "cgroup" } else { "linuxproc" }),
            &format!("TaskPlugin=task/{}", if *cgroups { "cgroup" } else { "none" }),
            &format!("JobAcctGatherType=jobacct_gather/{}", if *cgroups { "cgroup" } else { "linux" }),
            "JobAcctGatherFrequency=1",
            "MpiDefault=none",
            "SwitchType=switch/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core_Memory",
            "SlurmdParameters=config_overrides",
            "GresTypes=gpu",
            "PriorityType=priority/multifactor",
            "SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,bf_continue",
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
            "MailProg=/bin/true",
            "ReturnToService=2",
            "SlurmdTimeout=10",
            "SlurmctldTimeout=30",
            "KillWait=2",
            "MaxJobCount=40000",
        ]
        .map(str::to_owned)
        .to_vec();
        if *accounting {
            lines.extend(
                [
                    "AccountingStorageType=accounting_storage/slurmdbd",
                    "AccountingStorageHost=127.0.0.1",
                    &format!("AccountingStoragePort={database}"),
                    "AccountingStorageEnforce=associations,limits,qos",
                ]
                .map(str::to_owned),
            );
            self.write("slurmdbd.conf", &self.configuration_of_accounting(&user, database));
        }
        for setting in &self.cluster.settings {
            let key = setting.split_once('=').map_or(setting.as_str(), |(key, _)| key);
            lines.retain(|line| line.split_once('=').is_none_or(|(other, _)| other != key));
            lines.push(setting.clone());
        }
        for name in &self.names {
            let port = port();
            lines.push(format!(
                "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} \
                 RealMemory={memory_mb} Gres=gpu:2 Feature=f-{name}"
            ));
        }
        let all = self.names.join(",");
        for (name, more) in [
            ("main", "Default=YES MaxTime=INFINITE PriorityTier=10"),
            ("low", "MaxTime=INFINITE PriorityTier=1"),
            ("short", "MaxTime=1 PriorityTier=10"),
        ] {
            lines.push(format!("PartitionName={name} Nodes={all} DefMemPerCPU=500 {more}"));
        }
        self.write("slurm.conf", &(lines.join("\n") + "\n"));
        // A gpu needs a device; any will do that is a file of characters.
        let gres = |file: &str| format!("NodeName={all} Name=gpu File={file}\n");
        self.write("gres.conf", &(gres("/dev/null") + &gres("/dev/zero")));
        let cgroup = match (*cgroups, Path::new("/sys/fs/cgroup/memory").is_dir()) {
            (true, true) => "ConstrainRAMSpace=yes\nConstrainSwapSpace=yes\nCgroupPlugin=cgroup/v1\n",
            (true, false) => {
                "ConstrainRAMSpace=yes\nConstrainSwapSpace=yes\nCgroupPlugin=cgroup/v2\nIgnoreSystemd=yes\n"
            }
            (false, _) if self.cluster.version < "23" => "",
            (false, _) => "CgroupPlugin=disabled\n",
        };
        self.write("cgroup.conf", cgroup);
    }

    fn configuration_of_accounting(&self, user: &str, port: u16) -> String {
        let directory = self.directory().display();
        format!(
            "AuthType=auth/none\nDbdHost=localhost\nDbdAddr=127.0.0.1\nDbdPort={port}\nSlurmUser={user}\n\
             LogFile={directory}/log/slurmdbd.log\nPidFile={directory}/run/slurmdbd.pid\nPluginDir={}\n\
             CommunicationParameters=NoInAddrAny\nStorageType=accounting_storage/mysql\nStorageHost=localhost\n\
             StorageUser=root\nStorageLoc=slurm_acct_db\nDebugLevel=info\n",
            self.plugins.display()
        )
    }

    /// A file of `etc`. slurmdbd takes its own only where nobody else reads it.
    fn write(&self, name: &str, text: &str) {
        let path = self.directory().join("etc").join(name);
        fs::write(&path, text).expect("the directory of a test can be written to");
        let mode = if name == "slurmdbd.conf" { 0o600 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    fn daemon(&self, name: &str) -> PathBuf {
        self.tools.join("root/usr/sbin").join(name)
    }

    /// A command with nothing of the caller's environment: it would reach the jobs.
    fn bare(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", self.directory());
        command.env("SLURM_CONF", self.configuration()).env("MYSQL_UNIX_PORT", self.directory().join("run/db"));
        command.current_dir(self.directory()).stdin(Stdio::null());
        command
    }

    fn spawn(&self, name: &str, program: &Path, prepare: impl FnOnce(&mut Command)) {
        let log = self.directory().join("log").join(format!("{name}.out"));
        let log = File::options().create(true).append(true).open(&log).expect("a log can be opened");
        let mut command = self.bare(program);
        prepare(&mut command);
        command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let before = self.daemons.lock().expect("no other thread has failed").insert(name.to_owned(), child);
        assert!(before.is_none(), "{name} runs already");
    }

    fn end(&self, name: &str, with: Signal) {
        let Some(mut child) = self.daemons.lock().expect("no other thread has failed").remove(name) else { return };
        signal(child.id(), with);
        child.wait().expect("a child can be waited for");
    }

    /// A database with the tables of Slurm and the accounts. The first start makes it; the next ones take a copy.
    fn start_accounting(&self) {
        let template = self.tools.join(format!("database-{}", geteuid().as_raw()));
        let data = self.directory().join("db");
        if template.is_dir() {
            copy(&template, &data);
            self.start_database();
            self.start_slurmdbd();
            return;
        }
        fs::create_dir(&data).expect("a directory can be made");
        self.make_database();
        self.start_database();
        self.start_slurmdbd();
        let user = user();
        for what in [
            "cluster test",
            "qos high Priority=1000",
            "qos small MaxTRESPerJob=cpu=2 Flags=DenyOnLimit",
            "account proj QOS=normal,high,small",
            "account other",
            &format!("user {user} Account=proj"),
            &format!("user {user} Account=other"),
        ] {
            let words: Vec<&str> = what.split(' ').collect();
            self.ask("sacctmgr", &[&["-i", "add"], &words[..]].concat());
        }
        self.end("slurmdbd", Signal::TERM);
        self.end("mariadbd", Signal::TERM);
        let whole = tempfile::Builder::new().prefix("database-").tempdir_in(&self.tools);
        // Where nothing can be kept, each start makes its own.
        if let Ok(whole) = whole {
            copy(&data, &whole.path().join("db"));
            // Another test may have been first.
            let _ = fs::rename(whole.path().join("db"), &template);
        }
        self.start_database();
        self.start_slurmdbd();
    }

    fn database(&self) -> Command {
        let mut command = self.bare(&self.daemon("mariadbd"));
        let share = self.share();
        let (data, tmp) = (self.directory().join("db"), self.directory().join("tmp"));
        command.arg("--no-defaults").args([
            format!("--user={}", user()),
            format!("--datadir={}", data.display()),
            format!("--tmpdir={}", tmp.display()),
            format!("--lc-messages-dir={}", share.display()),
            format!("--character-sets-dir={}/charsets", share.display()),
        ]);
        // Fast rather than safe: it is thrown away.
        command.args([
            "--skip-log-bin",
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=16M",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            "--skip-innodb-doublewrite",
            "--innodb-undo-tablespaces=0",
            "--innodb-temp-data-file-path=ibtmp1:2M:autoextend",
            "--performance-schema=0",
            // Slurm's queries fail under the stricter rule of later versions.
            "--loose-innodb-snapshot-isolation=OFF",
        ]);
        command
    }

    fn share(&self) -> PathBuf {
        let share = self.tools.join("root/usr/share");
        let share = ["mariadb", "mysql"].map(|name| share.join(name));
        let has_tables = |folder: &&PathBuf| system_tables(folder).next().is_some();
        share.iter().find(has_tables).cloned().unwrap_or_else(|| panic!("no tables of MariaDB in {share:?}"))
    }

    fn make_database(&self) {
        let mut text = "create database mysql;\ncreate database slurm_acct_db;\nuse mysql;\n".to_owned();
        for file in system_tables(&self.share()) {
            text += &fs::read_to_string(&file).expect("a file of MariaDB can be read");
        }
        let tables = self.directory().join("tmp/tables.sql");
        fs::write(&tables, text).expect("the directory of a test can be written to");
        let mut command = self.database();
        command.arg("--bootstrap").stdin(File::open(&tables).expect("it was just written"));
        let output = command.output().expect("MariaDB can be started");
        assert!(output.status.success(), "{output:?}");
    }

    fn start_database(&self) {
        let socket = self.directory().join("run/db");
        // Nobody else gets to the socket, so nobody is asked for a password.
        let given = self.database();
        self.spawn("mariadbd", &self.daemon("mariadbd"), |command| {
            command.args(given.get_args()).args([
                &format!("--socket={}", socket.display()),
                "--skip-networking",
                "--skip-grant-tables",
                "--innodb-lock-wait-timeout=900",
                "--max-connections=20",
            ]);
        });
        wait_until("the socket of MariaDB", START_MAX, || socket.exists());
    }

    /// Starts the daemon of the accounting, which the controller must find when it starts.
    pub fn start_slurmdbd(&self) {
        self.spawn("slurmdbd", &self.daemon("slurmdbd"), |command| {
            command.arg("-D");
        });
        wait_until("an answer of the accounting", START_MAX, || {
            let asked = self.client("sacctmgr").args(["-n", "show", "cluster"]).output();
            asked.expect("sacctmgr can be started").status.success()
        });
    }

    /// Kills what the daemons of nodes have started and does not end with them: step daemons and jobs.
    fn kill_strays(&self, spool: &Path) {
        // Who dies may have just started another.
        for _ in 0..3 {
            let found: Vec<u32> = strays(spool, &self.configuration()).collect();
            if found.is_empty() {
                return;
            }
            found.iter().for_each(|pid| signal(*pid, Signal::KILL));
            let bound = std::time::Instant::now() + Duration::from_secs(5);
            while found.iter().any(|pid| is_alive(*pid)) && std::time::Instant::now() < bound {
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show_logs();
        }
        // What they would save is thrown away, so they need not be asked.
        let mut daemons = std::mem::take(&mut *self.daemons.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for child in daemons.values_mut() {
            // Both fail only when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.kill_strays(&self.directory().join("spool"));
        if self.cluster.cgroups {
            self.names.iter().for_each(|name| remove_cgroups(name));
        }
    }
}

impl Slurm {
    fn show_logs(&self) {
        for entry in fs::read_dir(self.directory().join("log")).into_iter().flatten().flatten() {
            let text = fs::read(entry.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            eprintln!("---- {} ----\n{last}", entry.path().display());
        }
    }
}

fn plugins(tools: &Path) -> PathBuf {
    let libraries = tools.join("root/usr/lib");
    let entries = fs::read_dir(&libraries).unwrap_or_else(|error| panic!("{}: {error}", libraries.display()));
    let mut found = entries.flatten().map(|entry| entry.path().join("slurm-wlm")).filter(|path| path.is_dir());
    found.next().unwrap_or_else(|| panic!("no plugins of Slurm in {}", libraries.display()))
}

fn system_tables(share: &Path) -> impl Iterator<Item = PathBuf> {
    let names = ["mariadb_system_tables.sql", "mysql_system_tables.sql"];
    let more = ["mariadb_system_tables_data.sql", "mysql_system_tables_data.sql"];
    let files: Vec<PathBuf> = names.iter().chain(&more).map(|name| share.join(name)).collect();
    files.into_iter().filter(|file| file.is_file())
}

/// Processes that only a node of the cluster can have started, with the spool of that node, or of all.
fn strays(spool: &Path, configuration: &Path) -> impl Iterator<Item = u32> {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let within = |line: &&str| line.split_whitespace().nth(7).is_some_and(|path| Path::new(path).starts_with(spool));
    let inodes = sockets.lines().filter(within).filter_map(|line| line.split_whitespace().nth(6));
    let sockets: Vec<String> = inodes.map(|inode| format!("socket:[{inode}]")).collect();
    let configuration = format!("SLURM_CONF={}", configuration.display()).into_bytes();
    // The jobs of one node: they know its name.
    let node = spool.file_name().filter(|name| *name != "spool");
    let node = node.map(|name| format!("SLURMD_NODENAME={}", name.to_string_lossy()).into_bytes());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(move |pid| {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let is_step = fs::read_link(folder.join("exe")).is_ok_and(|path| path.to_string_lossy().contains("slurmstepd"));
        if is_step {
            let files = fs::read_dir(folder.join("fd")).into_iter().flatten().flatten();
            let mut targets = files.filter_map(|entry| fs::read_link(entry.path()).ok());
            return targets.any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()));
        }
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        let has = |wanted: &[u8]| environment.split(|byte| *byte == 0).any(|variable| variable == wanted);
        let of_job = environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(b"SLURM_JOB_ID="));
        of_job && has(&configuration) && node.as_ref().is_none_or(|node| has(node)) && is_alive(*pid)
    })
}

fn remove_cgroups(node: &str) {
    let roots = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for group in roots.map(|root| root.join(format!("slurm_{node}"))).filter(|group| group.is_dir()) {
        remove_group(&group);
    }
}

/// A cgroup is removed by removing its folder, from the inside; the files in it are none.
fn remove_group(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

fn user() -> String {
    let uid = geteuid().as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").expect("the users of a system can be read");
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut own = fields.filter(|fields| fields.get(2) == Some(&uid.as_str()));
    own.next().unwrap_or_else(|| panic!("the user {uid} has no name, and Slurm needs one"))[0].to_owned()
}

fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// A block of ports below those that the system gives to whoever asks for any. Whoever has the first of a block has all
/// of it, so no two clusters that start at the same time take the same.
#[derive(Debug)]
struct Ports {
    _first: TcpListener,
    rest: Vec<u16>,
}

impl Ports {
    /// Of each block.
    const COUNT: u16 = 64;
    const BLOCKS: u16 = 180;

    fn take(count: usize) -> Self {
        let listen = |port: u16| TcpListener::bind(("127.0.0.1", port));
        let begin = fastrand::u16(0..Self::BLOCKS);
        for number in 0..Self::BLOCKS {
            let first = 20_000 + (begin + number) % Self::BLOCKS * Self::COUNT;
            let Ok(held) = listen(first) else { continue };
            let rest: Vec<u16> =
                (first + 1..first + Self::COUNT).filter(|port| listen(*port).is_ok()).take(count).collect();
            if rest.len() == count {
                return Self { _first: held, rest };
            }
        }
        panic!("no block of ports has {count} that are free");
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status().expect("cp can be started");
    assert!(status.success(), "cannot copy {} to {}", from.display(), to.display());
}
