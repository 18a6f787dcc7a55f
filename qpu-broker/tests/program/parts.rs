//! The parts: a broker, its clients, and a vendor that does what the test says.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// What nobody but the adapter and the vendor is to see.
pub(crate) const TOKEN: &str = "t0ken-\"of\\a-vendor-öß-0123456789";

pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < BOUND, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A task at the vendor.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) tag: String,
    pub(crate) payload: Value,
    pub(crate) status: &'static str,
}

/// What the vendor does, and what it has seen.
#[derive(Default)]
pub(crate) struct Doings {
    pub(crate) tasks: BTreeMap<String, Task>,
    /// What was asked, as `POST /tasks`, and when.
    pub(crate) asked: Vec<(Instant, String)>,
    /// Tasks stay `running`.
    pub(crate) hold: bool,
    /// An order is carried out and its answer kept back, or is neither.
    pub(crate) mute: Option<Mute>,
    /// It answers an order with this status, so many times.
    pub(crate) refuse: Option<(u16, usize)>,
    /// It finds nothing.
    pub(crate) blind: bool,
    /// It answers questions for a task with somebody else's.
    pub(crate) strange: bool,
    /// What else it says.
    pub(crate) says: Option<String>,
    unauthorized: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mute {
    /// It takes the task and says nothing, until this is taken back.
    Taken,
    /// It takes nothing, and ends the connection.
    NotTaken,
}

/// A stand-in for a vendor, with the interface of `examples/quantum/vendor.py`.
pub(crate) struct Vendor {
    pub(crate) url: String,
    shared: Arc<(Mutex<Doings>, Condvar)>,
}

impl Vendor {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new((Mutex::new(Doings::default()), Condvar::new()));
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.unwrap(), of_thread.clone());
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { url, shared }
    }

    pub(crate) fn doings(&self) -> MutexGuard<'_, Doings> {
        self.shared.0.lock().unwrap()
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Doings)) {
        change(&mut self.doings());
        self.shared.1.notify_all();
    }

    /// How many tasks it has taken.
    pub(crate) fn paid(&self) -> usize {
        self.doings().tasks.len()
    }

    /// How often it was asked this.
    pub(crate) fn times(&self, asked: &str) -> usize {
        self.doings().asked.iter().filter(|(_, what)| what == asked).count()
    }
}

fn serve(stream: TcpStream, shared: &(Mutex<Doings>, Condvar)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let (method, path) = line.split_once(' ').unwrap();
    let path = path.split(' ').next().unwrap().to_owned();
    let (mut length, mut authorized) = (0, false);
    loop {
        let mut header = Vec::new();
        reader.read_until(b'\n', &mut header).unwrap();
        // Python sends the letters of a header in Latin-1.
        let header: String = header.iter().map(|byte| char::from(*byte)).collect();
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => authorized = value == format!("Bearer {TOKEN}"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let (doings, changed) = shared;
    let mut doings = doings.lock().unwrap();
    let (plain, query) = path.split_once('?').unwrap_or((&path, ""));
    let kind = format!("{method} /{}", plain.trim_start_matches('/').split('/').next().unwrap());
    let kind = if query.is_empty() { kind } else { "FIND /tasks".to_owned() };
    doings.asked.push((Instant::now(), kind.clone()));
    if !authorized {
        doings.unauthorized += 1;
        return send(stream, 401, &json!({"error": "who are you?"}));
    }
    let name = plain.rsplit('/').next().unwrap().to_owned();
    let (status, answer) = match kind.as_str() {
        "POST /tasks" => match (doings.refuse, doings.mute) {
            (Some((status, times)), _) if times > 0 => {
                doings.refuse = Some((status, times - 1));
                (status, json!({"error": doings.says}))
            }
            (_, Some(Mute::NotTaken)) => return,
            (_, mute) => {
                let asked: Value = serde_json::from_slice(&body).unwrap();
                let name = format!("task-{}", doings.tasks.len());
                let tag = asked["tag"].as_str().unwrap().to_owned();
                let task = Task { tag, payload: asked["payload"].clone(), status: "running" };
                doings.tasks.insert(name.clone(), task);
                if mute == Some(Mute::Taken) {
                    doings = changed.wait_while(doings, |doings| doings.mute.is_some()).unwrap();
                }
                (201, seen(&doings, &name))
            }
        },
        "FIND /tasks" => {
            let found = |task: &Task| !doings.blind && query == format!("tag={}", task.tag);
            let names = doings.tasks.iter().filter(|(_, task)| found(task)).map(|(name, _)| name);
            let tasks: Vec<Value> = names.map(|name| seen(&doings, name)).collect();
            (200, json!({"tasks": tasks}))
        }
        "GET /tasks" if doings.strange => {
            (200, json!({"id": "x", "tag": "not yours", "status": "completed", "result": "somebody else's"}))
        }
        "GET /tasks" if doings.tasks.contains_key(&name) => {
            if !doings.hold && doings.tasks[&name].status == "running" {
                doings.tasks.get_mut(&name).unwrap().status = "completed";
            }
            (200, seen(&doings, &name))
        }
        "DELETE /tasks" if doings.tasks.contains_key(&name) => {
            doings.tasks.get_mut(&name).unwrap().status = "cancelled";
            (200, json!({}))
        }
        _ => (404, json!({"error": "there is nothing here"})),
    };
    drop(doings);
    send(stream, status, &answer);
}

fn seen(doings: &Doings, name: &str) -> Value {
    let task = &doings.tasks[name];
    let mut seen = json!({"id": name, "tag": task.tag, "status": task.status});
    if task.status == "completed" {
        seen["result"] = json!({"of": task.payload, "says": doings.says});
    }
    seen
}

fn send(mut stream: TcpStream, status: u16, body: &Value) {
    let body = body.to_string();
    let after = if status == 429 { "retry-after: 2\r\n" } else { "" };
    let length = body.len();
    // Whoever asked may have gone.
    let _ = write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n{after}connection: close\r\n\r\n{body}");
}

/// An answer of the broker.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A broker with one machine, `q`.
pub(crate) struct Broker {
    pub(crate) dir: TempDir,
    child: Child,
    starts: usize,
    more: &'static [&'static str],
}

impl Broker {
    /// Starts one, with more lines of `[qpu.q]`, and before them.
    pub(crate) fn start(vendor: &Vendor, before: &str, lines: &str) -> Self {
        let adapter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/lease/vendor_adapter.py");
        let adapter = adapter.canonicalize().unwrap();
        let environment = format!("environment = {{ VENDOR_URL = {:?}, PYTHONDONTWRITEBYTECODE = \"1\" }}", vendor.url);
        let command = format!("command = [\"python3\", {adapter:?}]");
        Self::start_with(before, &format!("{command}\n{environment}\npoll = \"50ms\"\nsettle = \"200ms\"\n{lines}"))
    }

    pub(crate) fn start_with(before: &str, lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secrets = dir.path().join("vendor.env");
        fs::write(&secrets, format!("VENDOR_TOKEN={TOKEN}\n")).unwrap();
        fs::set_permissions(&secrets, Permissions::from_mode(0o600)).unwrap();
        let file = format!("{before}\n[qpu.q]\nsecrets = \"vendor.env\"\n{lines}\n");
        fs::write(dir.path().join("qpus.toml"), file).unwrap();
        let child = spawn(dir.path(), 0, &[]);
        let mut broker = Self { dir, child, starts: 0, more: &[] };
        broker.wait_until_ready();
        broker
    }

    /// Starts it again with these arguments, once it has ended.
    pub(crate) fn start_again_with(&mut self, more: &'static [&'static str]) {
        self.more = more;
        self.start_again();
    }

    /// How it ends by itself.
    pub(crate) fn end(&mut self) -> ExitStatus {
        wait_for("the end of the broker", || self.child.try_wait().unwrap())
    }

    pub(crate) fn is_there(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn start_again(&mut self) {
        self.starts += 1;
        self.child = spawn(self.dir.path(), self.starts, self.more);
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        wait_for("a broker that is ready", || {
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended: {}", self.log());
            self.log_of_last().contains("ready: ").then_some(())
        });
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.end()
    }

    pub(crate) fn log(&self) -> String {
        (0..=self.starts).map(|start| fs::read_to_string(self.log_path(start)).unwrap()).collect()
    }

    fn log_of_last(&self) -> String {
        fs::read_to_string(self.log_path(self.starts)).unwrap()
    }

    fn log_path(&self, start: usize) -> PathBuf {
        self.dir.path().join(format!("log.{start}"))
    }

    pub(crate) fn control(&self, method: &str, path: &str) -> Answer {
        request(&self.dir.path().join("state/control.sock"), method, path, "", None)
    }

    /// Begins a job.
    pub(crate) fn job(&self, job: &str) -> Job {
        let answer = self.control("POST", &format!("/v1/jobs/{job}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        Job { socket: answer.json()["socket"].as_str().unwrap().into() }
    }

    /// How the machine is used.
    pub(crate) fn machine(&self) -> Value {
        self.control("GET", "/v1/qpus").json()["qpus"][0].clone()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- the broker ----\n{}", self.log());
        }
    }
}

fn spawn(dir: &Path, start: usize, more: &[&str]) -> Child {
    let log = File::create(dir.join(format!("log.{start}"))).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_qpu-broker"));
    command.args(["serve", "--log", "debug"]).args(more).arg("--config").arg(dir.join("qpus.toml"));
    command.arg("--state-dir").arg(dir.join("state")).arg("--sockets").arg(dir.join("sockets"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// A job that runs, as the broker sees it.
pub(crate) struct Job {
    pub(crate) socket: PathBuf,
}

impl Job {
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        request(&self.socket, method, path, "", body)
    }

    pub(crate) fn submit_with_key(&self, payload: &str, key: &str) -> Answer {
        request(&self.socket, "POST", "/v1/qpus/q/tasks", &format!("idempotency-key: {key}\r\n"), Some(payload))
    }

    pub(crate) fn submit(&self, payload: &str) -> String {
        let answer = self.ask("POST", "/v1/qpus/q/tasks", Some(payload));
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn task(&self, id: &str, wait: u32) -> Value {
        let answer = self.ask("GET", &format!("/v1/qpus/q/tasks/{id}?wait={wait}"), None);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The task when it has ended.
    pub(crate) fn end_of(&self, id: &str) -> Value {
        let task = self.task(id, 30);
        assert!(!matches!(task["status"].as_str(), Some("queued" | "running")), "it goes on: {task}");
        task
    }

    /// Begins to wait for a task, and does not read the answer.
    pub(crate) fn begin_to_wait(&self, id: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        write!(stream, "GET /v1/qpus/q/tasks/{id}?wait=60 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        stream
    }
}

fn request(socket: &Path, method: &str, path: &str, headers: &str, body: Option<&str>) -> Answer {
    let mut stream =
        UnixStream::connect(socket).unwrap_or_else(|error| panic!("cannot connect to {}: {error}", socket.display()));
    stream.set_read_timeout(Some(BOUND * 2)).unwrap();
    let body = body.unwrap_or_default();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}");
    // It may be refused before it was read.
    let _ = write!(stream, "{head}content-length: {length}\r\n\r\n{body}");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), text: text.to_owned() }
}
