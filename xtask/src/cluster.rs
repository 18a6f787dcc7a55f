//! A real Slurm on this host, for as long as it is needed: the program `slurm-cluster` of the tests keeps it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::command;
use crate::tools::{Kind, Tools};
use crate::workspace::{Profile, Workspace};

/// How long until nothing runs any more of what was cancelled.
const EMPTY_WITHIN: Duration = Duration::from_secs(120);

/// States of what is there.
const THERE: &str = "PENDING,RUNNING,COMPLETING,CONFIGURING,SUSPENDED";

/// What nodes ask by themselves, and who asks for the counts.
const NOT_ASKED: [&str; 4] =
    ["REQUEST_STATS_INFO", "MESSAGE_NODE_REGISTRATION_STATUS", "REQUEST_PING", "REQUEST_CONTROL_STATUS"];

/// A real Slurm of version 24.11, gone with this value.
pub(crate) struct Cluster {
    child: Child,
    exports: String,
}

impl Cluster {
    /// Starts one with so many nodes of four processors. The package of the tests must have been built.
    pub(crate) fn start(workspace: &Workspace, tools: &Tools, folder: &Path, nodes: usize) -> anyhow::Result<Self> {
        let log = folder.join("slurm.log");
        let log = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = Command::new(workspace.program(Profile::Dev, "slurm-cluster"));
        command.args(["24.11", &nodes.to_string()]).env("HPC_QUEUE_SLURM_24_11", &tools.get(Kind::Slurm24)?.path);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn();
        let child = child.with_context(|| format!("cannot start `{}`", command::line(&command)))?;
        let mut cluster = Self { child, exports: String::new() };
        let mut stdout = cluster.child.stdout.take().context("its output was asked for")?;
        let mut byte = [0];
        while !cluster.exports.ends_with("# ready\n") {
            if stdout.read(&mut byte)? == 0 {
                bail!("no Slurm could be started; {} says why", folder.join("slurm.log").display());
            }
            cluster.exports.push(char::from(byte[0]));
        }
        cluster.exports.truncate(cluster.exports.len() - "# ready\n".len());
        Ok(cluster)
    }

    /// The same as a shell takes it.
    pub(crate) fn exports(&self) -> &str {
        self.exports.trim_end()
    }

    /// What clients need in their environment.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let words = shell_words::split(&self.exports).unwrap_or_default();
        words
            .iter()
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// A program of Slurm, or one that starts some.
    pub(crate) fn client(&self, program: &str) -> Command {
        let environment = self.environment();
        let path = environment.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_str());
        // The PATH of whoever starts a program is where it is looked for.
        let folders = std::env::split_paths(path.unwrap_or_default());
        let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
        let mut command = Command::new(found.unwrap_or_else(|| program.into()));
        command.envs(environment);
        command
    }

    /// How many allocations are there, and what squeue says of them.
    pub(crate) fn allocations(&self) -> anyhow::Result<(usize, String)> {
        let said = command::capture(self.client("squeue").args(["-h", "-r", "-t", THERE, "-o", "  %i %j %T %N %r"]))?;
        Ok((said.lines().count(), said.trim_end().to_owned()))
    }

    /// Waits until nothing is there; with a pause between two looks.
    pub(crate) fn wait_until_empty(&self, pause: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + EMPTY_WITHIN;
        loop {
            let (count, said) = self.allocations()?;
            if count == 0 {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("Slurm still has {count} allocations after {EMPTY_WITHIN:?}:\n{said}");
            }
            std::thread::sleep(pause);
        }
    }

    /// Cancels whatever is there.
    pub(crate) fn cancel_all(&self) -> anyhow::Result<()> {
        let states = ["PENDING", "RUNNING", "SUSPENDED"];
        for state in states {
            let user = format!("--user={}", rustix::process::geteuid().as_raw());
            command::capture(self.client("scancel").args([&user, "-t", state]))?;
        }
        self.wait_until_empty(Duration::from_millis(200))
    }

    /// How many requests the controller has had of each kind, but for those that nodes make.
    pub(crate) fn requests(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        Ok(requests_in(&command::capture(&mut self.client("sdiag"))?))
    }

    /// The seconds of processor time that the controller has had.
    pub(crate) fn controller_seconds(&self) -> anyhow::Result<f64> {
        let environment = self.environment();
        let configuration = environment.iter().find(|(name, _)| name == "SLURM_CONF").context("it has a slurm.conf")?;
        let is_it = |folder: &Path| {
            let line = fs::read(folder.join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.first().is_some_and(|program| program.ends_with(b"slurmctld"))
                && words.contains(&configuration.1.as_bytes())
        };
        let mut processes = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
        let controller = processes.find(|folder| is_it(folder)).context("no controller is running")?;
        let stat = fs::read_to_string(controller.join("stat"))?;
        let ticks = ticks_in(&stat).with_context(|| format!("{stat:?} tells no times"))?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It ends with its input. Both fail only when it is gone already.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The counts by message type in what `sdiag` says.
fn requests_in(said: &str) -> BTreeMap<String, u64> {
    let by_type = said.split_once("by message type").map_or("", |(_, rest)| rest);
    let by_type = by_type.split("by user").next().unwrap_or_default();
    let row = |line: &str| {
        let (name, rest) = line.trim().split_once(' ')?;
        let count = rest.split_once("count:")?.1.split_whitespace().next()?.parse().ok()?;
        Some((name.to_owned(), count))
    };
    let asked = |name: &str| !NOT_ASKED.contains(&name) && !name.contains("COMPLETE") && !name.contains("EPILOG");
    by_type.lines().filter_map(row).filter(|(name, _)| asked(name)).collect()
}

/// Processor time in what `/proc/PID/stat` says, in ticks: that of the process itself, user and system.
fn ticks_in(stat: &str) -> Option<u64> {
    // The name, which may hold anything, is in parentheses; the state is the first field behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_ask_is_counted_and_what_nodes_ask_is_not() {
        let said = "Server thread count:  1\n\nRemote Procedure Call statistics by message type\n\
            \tREQUEST_SUBMIT_BATCH_JOB                ( 4003) count:3      ave_time:500    total_time:1500\n\
            \tMESSAGE_EPILOG_COMPLETE                 ( 6012) count:7      ave_time:50     total_time:350\n\
            \tREQUEST_JOB_USER_INFO                   ( 2039) count:12     ave_time:90     total_time:1080\n\
            \nRemote Procedure Call statistics by user\n\troot ( 0) count:99 ave_time:1 total_time:2\n";
        let counts = requests_in(said);
        assert_eq!((counts.len(), counts["REQUEST_SUBMIT_BATCH_JOB"], counts["REQUEST_JOB_USER_INFO"]), (2, 3, 12));
    }

    #[test]
    fn the_time_of_a_process_is_what_it_had_itself() {
        let stat = "7 (slurm) ctld) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 9 9 20 0 12 0 1000 0 0";
        assert_eq!(ticks_in(stat), Some(300));
        assert_eq!(ticks_in("7 (x"), None);
    }
}
