//! A site whose jobs ask a quantum machine while they run: the files of `examples/quantum`, the daemon, the broker that
//! it starts, and the vendor.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{
    Consumer, Edge, PATIENCE, Process, Vendor, files_with, is_alive, parts, signal, wait_for, wait_until, words_of,
    write_private,
};

/// Some dozens of tasks, one after the other, on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(300);

/// Programs that the job brings, where the lease is, and where it is not.
const SCRIPTS: &str = r#"
[task.script]
pool = "hybrid"
kind = "command"
network = false

[task.plain]
pool = "cpu"
kind = "command"
network = false
"#;

/// What scripts of the tests have in common: a question to the machine, and its answer.
const CLIENT: &str = r#"
import http.client, json, os, pathlib, socket, sys, time
class Over(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(90)
        self.sock.connect("/run/hpc-queue/qpu.sock")
def ask(method, path, body=None, key=None):
    while True:
        connection = Over("lease")
        try:
            headers = {"idempotency-key": key} if key else {}
            connection.request(method, "/v1/qpus" + path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
        finally:
            connection.close()
def result(name):
    while True:
        task = ask("GET", f"/vendor/tasks/{name}?wait=60")[1]
        if task.get("status") not in ("queued", "running"):
            return task
def submit(key):
    circuit = "OPENQASM 2.0;\nqreg q[1];\nx q[0];\n"
    return ask("POST", "/vendor/tasks", {"circuits": [circuit], "terms": [[1.0, "Z"]]}, key)[1]["id"]
def end(output):
    print(json.dumps(output))
"#;

/// The site of the example, with its vendor and its lease.
pub(crate) struct Site {
    pub(crate) consumer: Consumer,
    pub(crate) edge: Edge,
    pub(crate) vendor: Vendor,
    home: TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let (edge, vendor) = (Edge::start(), Vendor::start());
        let home = tempfile::tempdir().expect("a directory can be made");
        let text = fs::read_to_string(Vendor::example().join("site.toml")).expect("the example has a site's file");
        let text = adapted(
            &text,
            &[
                // Its classical halves need no more than Python.
                ("/images/quantum.sif", shown(&parts::python_sif())),
                ("/home/you/hpc-queue/examples/quantum", shown(&Vendor::example())),
                ("https://quantum.example", vendor.address.clone()),
            ],
        );
        fs::create_dir(home.path().join("secrets")).expect("a directory can be made");
        write_private(&home.path().join("secrets/vendor.token"), "not-that-of-the-lease");
        write_private(&home.path().join("secrets/vendor.env"), &format!("VENDOR_TOKEN={}\n", Vendor::TOKEN));
        write_private(&home.path().join("site.toml"), &format!("{text}{SCRIPTS}"));
        let consumer = Consumer::of_site(&edge, &home.path().join("site.toml"));
        let site = Self { consumer, edge, vendor, home };
        site.offer("");
        site
    }

    /// Writes the file of the machines, that of the example, with more lines for its machine.
    pub(crate) fn offer(&self, more: &str) {
        let text = fs::read_to_string(Vendor::example().join("qpus.toml")).expect("the example has machines");
        let adapter = parts::workspace().join("examples/lease/vendor_adapter.py");
        let url = "VENDOR_URL = \"https://quantum.example\"";
        let ours = format!("VENDOR_URL = \"{}\", PYTHONDONTWRITEBYTECODE = \"1\"", self.vendor.address);
        let text = adapted(&text, &[("../lease/vendor_adapter.py", shown(&adapter)), (url, ours)]);
        self.write_machines(&format!("{text}poll = \"50ms\"\npoll_max = \"200ms\"\nsettle = \"300ms\"\n{more}\n"));
    }

    pub(crate) fn write_machines(&self, text: &str) {
        write_private(&self.home.path().join("qpus.toml"), text);
    }

    pub(crate) fn site_file(&self) -> PathBuf {
        self.home.path().join("site.toml")
    }

    /// Submits a program in Python that asks the machine, or one that runs where it cannot.
    pub(crate) fn script(&self, task: &str, script: &str) -> String {
        let argv = ["python3", "-c", &format!("{CLIENT}\n{script}")];
        self.submit(&json!({ "task": task, "input": { "argv": argv } }))
    }

    pub(crate) fn submit(&self, job: &Value) -> String {
        self.edge.producer().submit(job)
    }

    pub(crate) fn record(&self, id: &str, daemon: &mut Process) -> Value {
        wait_for("the final record", LONG, || {
            assert!(daemon.is_running(), "the daemon has ended: {}", daemon.log());
            self.consumer.record(id)
        })
    }

    /// The output of a job that has ended well.
    pub(crate) fn output(&self, id: &str, daemon: &mut Process) -> Value {
        let record = self.record(id, daemon);
        assert_eq!(record["status"], "completed", "{record}\n{}", self.broker_log());
        // Of a command that the job brings it is what that has printed.
        match record["output"]["stdout"].as_str() {
            Some(printed) => serde_json::from_str(printed).unwrap_or_else(|error| panic!("{error}: {record}")),
            None => record["output"].clone(),
        }
    }

    fn folder(&self) -> PathBuf {
        self.consumer.state_dir().join("lease")
    }

    /// The process of the broker, if there is one.
    pub(crate) fn broker(&self) -> Option<u32> {
        let folder = shown(&self.folder());
        let processes = fs::read_dir("/proc").expect("processes can be seen").flatten();
        let mut ids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
        ids.find(|pid| {
            let words = words_of(*pid);
            words.first().is_some_and(|word| word.ends_with("qpu-broker")) && words.contains(&folder) && is_alive(*pid)
        })
    }

    /// Waits until there is one, and not this one.
    pub(crate) fn broker_after(&self, before: Option<u32>) -> u32 {
        wait_for("a broker", PATIENCE, || {
            // It listens once it is ready.
            self.broker().filter(|pid| Some(*pid) != before && self.folder().join("control.sock").exists())
        })
    }

    /// Kills the broker and waits for the next one.
    pub(crate) fn kill_broker(&self) -> u32 {
        let before = self.broker_after(None);
        signal(before, Signal::KILL);
        self.broker_after(Some(before))
    }

    pub(crate) fn broker_log(&self) -> String {
        fs::read_to_string(self.folder().join("broker.log")).unwrap_or_default()
    }

    /// Is the job begun at the broker?
    pub(crate) fn may_ask(&self, id: &str) -> bool {
        self.folder().join("sockets").join(id).exists()
    }

    pub(crate) fn wait_until_it_ends_there(&self, id: &str) {
        wait_until("the end of the job at the broker", PATIENCE, || !self.may_ask(id));
    }

    /// What `hpc-consumer pools` says.
    pub(crate) fn pools(&self) -> String {
        self.consumer.ask(&["pools"]).output
    }

    /// No file that anything of us has written has the token in it.
    pub(crate) fn assert_token_is_nowhere(&self) {
        let found = files_with(self.home.path(), Vendor::TOKEN);
        assert_eq!(found, [self.home.path().join("secrets/vendor.env")], "the search finds it where it belongs");
        let edge = self.edge.env_file();
        // Job directories, records, state and logs of daemon and broker, queues and log of the edge.
        for directory in [self.consumer.home(), edge.parent().expect("a file lies in a directory")] {
            assert_eq!(files_with(directory, Vendor::TOKEN), Vec::<PathBuf>::new(), "the token is in them");
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(pid) = self.broker() {
            signal(pid, Signal::KILL);
        }
        if std::thread::panicking() {
            eprintln!("---- the broker ----\n{}", self.broker_log());
        }
    }
}

fn shown(path: &Path) -> String {
    path.to_str().expect("paths of tests are plain").to_owned()
}

fn adapted(text: &str, changes: &[(&str, String)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (of_example, ours)| {
        assert!(text.contains(of_example), "{of_example} is not in {text}");
        text.replace(of_example, ours)
    })
}
