//! The ledger: jobs that note when they begin and when they end, outside of the control of any program under test.
//!
//! What the project says of its own runs proves nothing about a run that it forgot. So each job appends to a file of
//! its own (`ledger.c`), and a test counts the lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::image::{build_image, compile};
use crate::{Consumer, Edge, Process, command, is_alive, words_of};

/// Where a container sees the ledger.
const MOUNT: &str = "/ledger";

/// A directory of such files, and the program that writes them.
#[derive(Debug)]
pub struct Ledger {
    home: TempDir,
}

/// What the runs of one job have noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs {
    /// How many began.
    pub begun: usize,
    /// How many came to their end.
    pub ended: usize,
    /// How many began while a process of another one was there.
    pub overlapping: usize,
    /// The process ids of those that began, as they saw themselves.
    pub pids: Vec<u32>,
    /// Each of them, in the order in which they began.
    pub each: Vec<Noted>,
}

/// What one run has noted. Times are those of the clock, since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// Which attempt at the job it is.
    pub attempt: u64,
    /// Where it ran, if the consumer has a number.
    pub node: usize,
    /// When it began.
    pub begun: Duration,
    /// When it came to its end, if it did.
    pub ended: Option<Duration>,
    /// Did it fail there?
    pub failed: bool,
    /// Did it leave jobs behind there, after which its job goes on?
    pub parked: bool,
    /// Did it fail there because the instance of its service was not there?
    pub left: bool,
}

/// An instance of the service of [`Ledger::site_node`], as it has noted itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The id of its job.
    pub job_id: String,
    /// Its process.
    pub pid: u32,
    /// On which node.
    pub node: usize,
}

impl Ledger {
    /// An empty one.
    pub fn new() -> Self {
        let ledger = Self { home: tempfile::tempdir().expect("a directory can be made") };
        fs::create_dir(ledger.directory()).expect("a directory can be made");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ledger.c");
        compile(&source, &ledger.program());
        ledger
    }

    /// A consumer whose jobs write to it, without a container.
    pub fn bare(&self, edge: &Edge) -> Consumer {
        self.bare_node(edge, 0)
    }

    /// The same on one of several nodes, whose jobs note its number.
    pub fn bare_node(&self, edge: &Edge, node: usize) -> Consumer {
        let command = format!("'{}' '{}' {node}", self.program().display(), self.directory().display());
        Consumer::bare(edge, &command).set("BARE_WRITABLE", self.directory())
    }

    /// The same with a file of its site, so that there are workflows, jobs of the task `flow`, and a service,
    /// `counter`.
    pub fn site_node(&self, edge: &Edge, node: usize, slots: usize) -> Consumer {
        let site = self.home.path().join(format!("site-{node}.toml"));
        let (program, directory) = (self.program(), self.directory());
        let (program, directory) = (program.display(), directory.display());
        let text = format!(
            "[pool.cpu]\ndefault = true\nruntime = \"bare\"\ncapacity = {{ cpus = {slots} }}\n\
             [task.flow]\nkind = \"workflow\"\npool = \"cpu\"\n\
             [task.ledger]\npool = \"cpu\"\ncommand = [\"{program}\", \"{directory}\", \"{node}\"]\n\
             [pool.counters]\nruntime = \"bare\"\ncapacity = {{ cpus = 2 }}\n\
             [service.{SERVICE}]\npool = \"counters\"\ncommand = [\"{program}\", \"{directory}\", \"{node}\", \"{SERVE}\"]\n\
             ready = {{ tcp = true, within = \"1m\" }}\ninstances = {{ max = 2, users = 2 }}\nlife = {{ idle = \"3s\" }}\n",
        );
        fs::write(&site, text).expect("the directory of a test can be written to");
        Consumer::of_site(edge, &site).set("BARE_WRITABLE", self.directory())
    }

    /// A consumer whose jobs write to it out of real containers.
    pub fn apptainer(&self, edge: &Edge) -> Consumer {
        self.apptainer_node(edge, 0)
    }

    /// The same on one of several nodes, whose jobs note its number.
    pub fn apptainer_node(&self, edge: &Edge, node: usize) -> Consumer {
        let image = self.home.path().join("ledger.sif");
        if !image.exists() {
            build_image(&self.program(), &[MOUNT.trim_start_matches('/')], &image);
        }
        Consumer::apptainer(edge, &image)
            .set("CONTAINER_CMD", format!("/bin/ledger {MOUNT} {node}"))
            .set("APPTAINER_BIND", format!("{}:{MOUNT}", self.directory().display()))
    }

    /// The command of runs in allocations of Slurm, which note which one they are in (see [`allocation_number`]).
    pub fn words_in_allocations(&self) -> [String; 3] {
        [self.program().display().to_string(), self.directory().display().to_string(), "allocation".to_owned()]
    }

    /// Where runs write that are in no container.
    pub fn writable(&self) -> PathBuf {
        self.directory()
    }

    /// A job with this number, which takes so long.
    pub fn job(number: usize, duration: Duration) -> Value {
        let milliseconds = u64::try_from(duration.as_millis()).expect("a test does not last for ages");
        json!({"task": "ledger", "input": {"gate": 0, "number": number, "sleep_ms": milliseconds}})
    }

    /// The same job, but the first run that comes to its end fails there; the next one, which it asks for, does not.
    pub fn failing_once(number: usize, duration: Duration) -> Value {
        let mut job = Self::job(number, duration);
        job["input"]["fails"] = json!(1);
        job["retries"] = json!(1);
        job
    }

    /// A job that goes on after two others, whose numbers are so much and twice as much higher; the second one fails
    /// once.
    pub fn parking(number: usize, stride: usize, duration: Duration) -> Value {
        let mut job = Self::job(number, duration);
        job["input"]["parks"] = json!(stride);
        job
    }

    /// A workflow of three tasks with these numbers, of which the last one waits for the others.
    pub fn workflow(numbers: [usize; 3], duration: Duration) -> Value {
        let [first, second, last] = numbers.map(|number| number.to_string());
        let task = |id: &str, parents: &[&str], children: &[&str]| {
            json!({
                "id": id, "name": "ledger", "parents": parents, "children": children,
                "inputFiles": parents, "outputFiles": [id],
            })
        };
        let milliseconds = duration.as_millis().to_string();
        let command =
            |id: &String| json!({"id": id, "command": {"program": "ledger", "arguments": [id, milliseconds]}});
        let commands = [&first, &second, &last].map(command);
        let tasks = [task(&first, &[], &[&last]), task(&second, &[], &[&last]), task(&last, &[&first, &second], &[])];
        let document = json!({
            "name": "chaos", "schemaVersion": "1.5",
            "workflow": {
                "specification": {"tasks": tasks},
                "execution": {"tasks": commands},
            },
        });
        json!({"task": "flow", "input": document})
    }

    /// Has a job stay connected to an instance of the service while it runs.
    pub fn with_service(mut job: Value) -> Value {
        job["input"]["asks"] = json!(1);
        job["needs"] = json!([SERVICE]);
        job
    }

    /// All instances that have begun, and which of them are there.
    pub fn instances(&self) -> Vec<(Instance, bool)> {
        let text = fs::read_to_string(self.directory().join("instances")).unwrap_or_default();
        let noted = text.split_inclusive('\n').filter_map(|line| Instance::read(line.strip_suffix('\n')?));
        let all = noted.filter(|instance| instance.job_id != STRANGER);
        let directory = self.directory().display().to_string();
        let is_there = |pid| is_alive(pid) && words_of(pid).contains(&directory);
        all.map(|instance| (instance.clone(), is_there(instance.pid))).collect()
    }

    /// Starts the program of the service where no daemon knows of it.
    pub fn stranger(&self) -> Process {
        let home = self.home.path().join(STRANGER);
        fs::create_dir(&home).expect("a directory can be made");
        let mut program = command(&self.program(), &home);
        program.arg(self.directory()).args(["0", SERVE]).env("JOB_ID", STRANGER);
        Process::start(STRANGER, &mut program, &home)
    }

    /// Has a job make files of the one that it brings.
    pub fn with_files(mut job: Value) -> Value {
        job["input"]["files"] = json!(1);
        job
    }

    /// What the run of such a job leaves: by path, with what is in it.
    pub fn left_by(number: usize, run: &Noted, brought: &[u8]) -> [(&'static str, Vec<u8>); 2] {
        let line = format!("{number} {} {}\n", run.attempt, run.begun.as_nanos());
        [("out/data", [brought, line.as_bytes()].concat()), ("out/line", line.into_bytes())]
    }

    /// A job with this number, which goes on until the gate is open.
    pub fn gated_job(number: usize) -> Value {
        json!({"task": "ledger", "input": {"gate": 1, "number": number, "sleep_ms": 0}})
    }

    /// Lets the jobs end that wait for it, now and later.
    pub fn open_gate(&self) {
        fs::write(self.directory().join("gate"), "").expect("the directory of a test can be written to");
    }

    /// What the runs of a job have noted.
    pub fn runs(&self, number: usize) -> Runs {
        Runs::read(&self.lines(number))
    }

    /// The same as it stands in the file.
    pub fn lines(&self, number: usize) -> String {
        fs::read_to_string(self.directory().join(number.to_string())).unwrap_or_default()
    }

    fn directory(&self) -> PathBuf {
        self.home.path().join("entries")
    }

    fn program(&self) -> PathBuf {
        self.home.path().join("ledger")
    }
}

/// The service that there is where there is a site's file.
const SERVICE: &str = "counter";

/// The word with which the program is an instance of it.
const SERVE: &str = "serve";

/// What an instance says it is that no daemon has started.
const STRANGER: &str = "stranger";

impl Noted {
    /// Did it come to its end, and has done what it is for?
    pub fn is_completed(&self) -> bool {
        self.ended.is_some() && !self.failed && !self.parked && !self.left
    }
}

impl Instance {
    fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [job_id, pid, node] = words[..] else { return None };
        Some(Self { job_id: job_id.to_owned(), pid: pid.parse().ok()?, node: node.parse().ok()? })
    }
}

/// What a run notes as its node whose keeper had died before it could note whose it is.
pub(crate) const ORPHAN: usize = 1 << 31;

/// What a run notes as its node that is in the allocation of this name (FNV-1a, 31 bits).
pub fn allocation_number(name: &str) -> usize {
    let hash = name.bytes().fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    usize::try_from(hash & 0x7fff_ffff).expect("31 bits fit")
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Runs {
    fn read(lines: &str) -> Self {
        let mut runs = Self::default();
        for line in lines.split_inclusive('\n') {
            // One that is being written.
            let Some(line) = line.strip_suffix('\n') else { continue };
            let read = Line::read(line).unwrap_or_else(|| panic!("a line of the ledger is none: {line:?}"));
            runs.add(&read);
        }
        runs
    }

    fn add(&mut self, line: &Line<'_>) {
        let &Line { word, time, pid, attempt, node } = line;
        let (failed, parked, left) = (word == "failed", word == "parked", word == "left");
        if failed || parked || left || word == "end" {
            self.ended += 1;
            let mut of_it = self.each.iter_mut().rev();
            let run = of_it.find(|run| (run.attempt, run.node, run.ended) == (attempt, node, None));
            let run = run.unwrap_or_else(|| panic!("the ledger has the end of a run that did not begin: {line:?}"));
            (run.ended, run.failed, run.parked, run.left) = (Some(time), failed, parked, left);
        } else {
            self.begun += 1;
            self.overlapping += usize::from(word == "beside");
            self.pids.push(pid);
            self.each.push(Noted {
                attempt,
                node,
                begun: time,
                ended: None,
                failed: false,
                parked: false,
                left: false,
            });
        }
    }
}

/// A line as `ledger.c` writes it.
#[derive(Debug)]
struct Line<'a> {
    word: &'a str,
    time: Duration,
    pid: u32,
    attempt: u64,
    node: usize,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [word @ ("begin" | "beside" | "end" | "failed" | "parked" | "left"), time, pid, attempt, node] = words[..]
        else {
            return None;
        };
        let time = Duration::from_nanos(time.parse::<u64>().ok()?);
        let (attempt, node) = (attempt.parse::<u64>().ok()?, node.parse::<usize>().ok()?);
        Some(Self { word, time, pid: pid.parse::<u32>().ok()?, attempt, node })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::{PATIENCE, wait_until};

    #[test]
    fn a_run_that_begins_beside_another_is_seen() {
        let runs = Runs::read("begin 1 10 1 2\nfailed 2 10 1 2\nbegin 3 11 2 1\nbeside 4 12 3 2\nend 5 11 2 1\nbeg");
        let noted = |attempt, node, begun, ended: Option<u64>, failed| Noted {
            attempt,
            node,
            begun: Duration::from_nanos(begun),
            ended: ended.map(Duration::from_nanos),
            failed,
            parked: false,
            left: false,
        };
        let each = vec![noted(1, 2, 1, Some(2), true), noted(2, 1, 3, Some(5), false), noted(3, 2, 4, None, false)];
        assert_eq!(runs, Runs { begun: 3, ended: 2, overlapping: 1, pids: vec![10, 11, 12], each });
    }

    /// The job itself, as a run has it.
    fn run(ledger: &Ledger, job: &Value) -> Child {
        let home = ledger.home.path().join("job");
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("input.json"), job["input"].to_string()).unwrap();
        let mut command = Command::new(ledger.program());
        command.arg(ledger.directory()).current_dir(home).stdin(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn a_run_that_was_killed_is_gone_and_one_that_goes_on_is_not() {
        let ledger = Ledger::new();
        let mut killed = run(&ledger, &Ledger::gated_job(1));
        wait_until("the first run", PATIENCE, || ledger.runs(1).begun == 1);
        killed.kill().unwrap();
        killed.wait().unwrap();
        let mut first = run(&ledger, &Ledger::gated_job(1));
        wait_until("the second run", PATIENCE, || ledger.runs(1).begun == 2);
        assert_eq!(ledger.runs(1).overlapping, 0);
        let mut second = run(&ledger, &Ledger::gated_job(1));
        wait_until("the third run", PATIENCE, || ledger.runs(1).begun == 3);
        ledger.open_gate();
        assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
        let runs = ledger.runs(1);
        assert_eq!((runs.begun, runs.ended, runs.overlapping), (3, 2, 1));
    }

    #[test]
    fn a_run_with_files_makes_them_of_what_it_finds_and_of_itself() {
        let ledger = Ledger::new();
        let folder = ledger.home.path().join("job/in");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("data"), [7; 100_000]).unwrap();
        assert!(run(&ledger, &Ledger::with_files(Ledger::job(1, Duration::ZERO))).wait().unwrap().success());
        let left = Ledger::left_by(1, &ledger.runs(1).each[0], &[7; 100_000]);
        for (path, bytes) in left {
            assert!(fs::read(ledger.home.path().join("job").join(path)).unwrap() == bytes, "{path}");
        }
    }

    #[test]
    fn a_run_in_an_allocation_notes_which_one() {
        let ledger = Ledger::new();
        let [program, directory, word] = ledger.words_in_allocations();
        let home = ledger.home.path().join("job");
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("input.json"), Ledger::job(1, Duration::ZERO)["input"].to_string()).unwrap();
        // As the keeper is called, with another parent in between.
        fs::write(home.join("allocation"), format!("sh -c \"'{program}' '{directory}' {word}; exit\"; exit")).unwrap();
        let mut keeper = Command::new("sh");
        keeper.args(["allocation", "/state/slurm/hpcq-a-cpu-7_1"]).current_dir(&home).stdin(Stdio::null());
        assert!(keeper.status().unwrap().success());
        assert_eq!(ledger.runs(1).each[0].node, allocation_number("hpcq-a-cpu-7_1"));
    }

    #[test]
    fn a_job_that_parks_leaves_two_others_and_goes_on_when_they_have_left_their_records() {
        let ledger = Ledger::new();
        let job = Ledger::parking(1, 10, Duration::ZERO);
        assert!(run(&ledger, &job).wait().unwrap().success());
        let home = ledger.home.path().join("job");
        let left: Value = serde_json::from_str(&fs::read_to_string(home.join("continue.json")).unwrap()).unwrap();
        let numbers: Vec<_> = (0..2).map(|at| left["run"][at]["input"]["number"].clone()).collect();
        assert_eq!((numbers, &left["run"][1]["retries"]), (vec![json!(11), json!(21)], &json!(1)));
        let next = || {
            let mut command = Command::new(ledger.program());
            command.arg(ledger.directory()).current_dir(&home).env("HPC_QUEUE_ROUND", "2").stdin(Stdio::null());
            command.status().unwrap().success()
        };
        assert!(!next(), "no child has left a record");
        fs::create_dir(home.join("children")).unwrap();
        for name in ["1.json", "2.json"] {
            fs::write(home.join("children").join(name), "").unwrap();
        }
        assert!(next());
        let ends: Vec<_> = ledger.runs(1).each.iter().map(|run| (run.parked, run.ended.is_some())).collect();
        assert_eq!(ends, [(true, true), (false, false), (false, true)]);
    }

    #[test]
    fn a_run_that_has_an_instance_notes_that_it_was_left() {
        let ledger = Ledger::new();
        let job = |number, sleep| Ledger::with_service(Ledger::job(number, Duration::from_millis(sleep)));
        let home = ledger.home.path().join("job");
        let mut stranger = ledger.stranger();
        let said = ledger.home.path().join(STRANGER).join("address.json");
        wait_until("an address", PATIENCE, || said.exists());
        let address: Value = serde_json::from_str(&fs::read_to_string(said).unwrap()).unwrap();
        let has = |instance: &str| {
            let found = json!({"url": format!("http://127.0.0.1:{}", address["port"]), "instance": instance});
            fs::create_dir_all(home.join("services")).unwrap();
            fs::write(home.join("services/counter.json"), found.to_string()).unwrap();
        };
        has(STRANGER);
        assert!(run(&ledger, &job(1, 0)).wait().unwrap().success());
        has("another");
        assert_eq!(run(&ledger, &job(2, 0)).wait().unwrap().code(), Some(4), "it is somebody else's");
        has(STRANGER);
        let mut left = run(&ledger, &job(3, 500));
        wait_until("the run", PATIENCE, || ledger.runs(3).begun == 1);
        stranger.kill();
        assert_eq!(left.wait().unwrap().code(), Some(4));
        assert_eq!(run(&ledger, &job(4, 0)).wait().unwrap().code(), Some(4));
        let how = |number| ledger.runs(number).each.iter().map(|run| run.left).collect::<Vec<_>>();
        assert_eq!([1, 2, 3, 4].map(how), [[false], [true], [true], [true]]);
        assert_eq!(ledger.instances(), [], "no daemon has started it");
    }

    #[test]
    fn a_task_of_a_workflow_has_its_number_among_its_words_and_makes_a_file() {
        let ledger = Ledger::new();
        let home = ledger.home.path().join("job");
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("input.json"), r#"{"input":{"argv":["ledger","12","1"]}}"#).unwrap();
        let mut command = Command::new(ledger.program());
        command.arg(ledger.directory()).current_dir(&home).env("HPC_QUEUE_WORKFLOW_DIR", &home).stdin(Stdio::null());
        assert!(command.status().unwrap().success());
        assert!(ledger.runs(12).ended == 1 && home.join("12").exists());
        let document = Ledger::workflow([1, 2, 3], Duration::ZERO);
        assert_eq!(document["input"]["workflow"]["specification"]["tasks"][2]["inputFiles"], json!(["1", "2"]));
    }

    #[test]
    fn the_first_run_that_comes_to_its_end_fails_if_it_is_told_to() {
        let ledger = Ledger::new();
        let job = Ledger::failing_once(1, Duration::from_secs(60));
        let mut killed = run(&ledger, &job);
        wait_until("the first run", PATIENCE, || ledger.runs(1).begun == 1);
        killed.kill().unwrap();
        killed.wait().unwrap();
        let job = Ledger::failing_once(1, Duration::ZERO);
        assert_eq!(run(&ledger, &job).wait().unwrap().code(), Some(3));
        assert!(run(&ledger, &job).wait().unwrap().success());
        assert_eq!(ledger.runs(1).each.iter().map(|run| run.failed).collect::<Vec<_>>(), [false, true, false]);
    }
}
