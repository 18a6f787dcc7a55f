//! `local-edge`: the queues, and one of the two edges.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::files::Content;
use crate::http::{Answer, block_on, client, send, try_send};
use crate::{PATIENCE, Process, command, parts, wait_for};

/// One of the queues that `local-edge` makes at its first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// `hpc-jobs`
    Jobs,
    /// `hpc-results`
    Results,
}

/// Where jobs are submitted, and with which key.
#[derive(Debug, Clone)]
pub struct Producer {
    /// The address, without a path.
    pub url: String,
    /// The key.
    pub api_key: String,
}

/// A running `local-edge` with its own data.
#[derive(Debug)]
pub struct Edge {
    // Declared first, so that the process is gone before its directory is.
    process: Process,
    programs: PathBuf,
    settings: BTreeMap<String, String>,
    options: Vec<String>,
    home: TempDir,
}

impl Edge {
    /// Starts one on a free port.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one on a free port, with more options.
    pub fn start_with(options: &[&str]) -> Self {
        let program = parts::program("local-edge");
        Self::start_of(program.parent().expect("a program lies in a directory"), options)
    }

    /// Starts the one in this directory, which may be of another version, on a free port.
    pub fn start_from(programs: &Path) -> Self {
        Self::start_of(programs, &[])
    }

    fn start_of(programs: &Path, options: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let (process, settings) = serve(programs, home.path(), "127.0.0.1:0", &options);
        Self { process, programs: programs.to_owned(), settings, options, home }
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills it and starts it again, on the same address and with the same data.
    pub fn restart(&mut self) {
        self.kill();
        fs::remove_file(self.env_file()).expect("the settings file is there");
        let (process, settings) = serve(&self.programs, self.home.path(), &self.address(), &self.options);
        assert_eq!(settings, self.settings, "a restart changed the settings");
        self.process = process;
    }

    /// Takes away all that its hub knows. It must not run.
    pub fn forget_hub(&self) {
        for file in ["hub.sqlite", "hub.sqlite-wal", "hub.sqlite-shm"] {
            match fs::remove_file(self.home.path().join("data").join(file)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{file}: {error}"),
                _ => {}
            }
        }
    }

    /// Kills it and starts the one in this directory on its data and address.
    pub fn restart_from(&mut self, programs: &Path) {
        programs.clone_into(&mut self.programs);
        self.restart();
    }

    /// Where its store of files keeps a content that is one piece, by the SHA-256 of what is there; nothing if it does
    /// not.
    pub fn piece_of(&self, sha256: &str) -> Option<PathBuf> {
        let mut todo = vec![self.home.path().join("data/files")];
        while let Some(directory) = todo.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let path = entry.expect("the directory can be read").path();
                if path.is_dir() {
                    todo.push(path);
                } else if fs::read(&path).is_ok_and(|bytes| Content::of(bytes).sha256 == sha256) {
                    return Some(path);
                }
            }
        }
        None
    }

    /// The settings file that it wrote for the other programs.
    pub fn env_file(&self) -> PathBuf {
        self.home.path().join("env")
    }

    /// One of the settings in it.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).unwrap_or_else(|| panic!("no {name} in the settings file: {:?}", self.settings))
    }

    /// All settings in it.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// Its address, as `host:port`.
    pub fn address(&self) -> String {
        let url = reqwest::Url::parse(self.setting("CF_API_BASE_URL")).expect("CF_API_BASE_URL is a URL");
        format!("{}:{}", url.host_str().expect("it has a host"), url.port().expect("it has a port"))
    }

    /// The most memory that it ever had resident, in bytes.
    pub fn peak_resident_bytes(&self) -> u64 {
        self.process.peak_resident_bytes()
    }

    /// Its own way to submit jobs.
    pub fn producer(&self) -> Producer {
        let url = self.setting("PRODUCER_URL").trim_end_matches('/').trim_end_matches("/jobs").to_owned();
        Producer { url, api_key: self.setting("API_KEY").to_owned() }
    }

    /// The id of a queue.
    pub fn queue_id(&self, queue: Queue) -> &str {
        self.setting(match queue {
            Queue::Jobs => "CF_JOBS_QUEUE_ID",
            Queue::Results => "CF_RESULTS_QUEUE_ID",
        })
    }

    /// The client of the project.
    pub fn queues(&self) -> queues::Client {
        let endpoint = queues::Endpoint {
            base_url: self.setting("CF_API_BASE_URL").to_owned(),
            account_id: self.setting("CF_ACCOUNT_ID").to_owned(),
            api_token: self.setting("CF_QUEUES_API_TOKEN").to_owned(),
            api_token_origin: "CF_QUEUES_API_TOKEN of local-edge".to_owned(),
            plain_http: queues::PlainHttp::OwnListener,
        };
        queues::Client::new(client().clone(), &endpoint).expect("CF_API_BASE_URL is a URL")
    }

    /// Puts raw texts into a queue.
    pub fn push(&self, queue: Queue, bodies: &[&str]) {
        block_on(self.queues().push(self.queue_id(queue), bodies)).expect("local-edge takes messages");
    }

    /// Pulls up to 100 messages, leased for a minute.
    pub fn pull(&self, queue: Queue) -> Vec<queues::Delivery> {
        let pulled = block_on(self.queues().pull(self.queue_id(queue), 100, Duration::from_secs(60)));
        pulled.expect("local-edge gives messages").deliveries
    }

    /// How many messages a queue holds, leased and delayed ones included.
    pub fn backlog(&self, queue: Queue) -> u64 {
        let backlog = block_on(self.queues().backlog(self.queue_id(queue))).expect("local-edge has metrics");
        backlog.expect("the metrics have a backlog_count")
    }

    /// Puts a message into `hpc-jobs` as a Worker's queue binding does, in any of its formats: `json`, `text`, `bytes`
    /// or `v8`. The pull API's own push has only the first two.
    pub fn push_by_binding(&self, format: &str, body: &[u8]) {
        let request = client()
            .post(format!("http://{}/message", self.address()))
            .bearer_auth(self.setting("CF_QUEUES_API_TOKEN"))
            .header("x-queue-name", "hpc-jobs")
            .header("x-msg-fmt", format)
            .body(body.to_vec());
        let answer = send(request);
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// A request to the queue API; `path` is relative to the account's `/queues`.
    pub fn api(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let (base, account) = (self.setting("CF_API_BASE_URL"), self.setting("CF_ACCOUNT_ID"));
        let request = client()
            .request(method, format!("{base}/accounts/{account}/queues{path}"))
            .bearer_auth(self.setting("CF_QUEUES_API_TOKEN"));
        send(match body {
            Some(body) => request.json(body),
            None => request,
        })
    }

    /// Sets a plan of faults, or takes it away. The server must have been started with `--faults`; what was set is gone
    /// after a restart.
    pub fn set_faults(&self, plan: Option<&Value>) {
        self.faults(|url| match plan {
            Some(plan) => client().put(url).json(plan),
            None => client().delete(url),
        });
    }

    /// How often each fault was injected since the server started.
    pub fn injected_faults(&self) -> BTreeMap<String, u64> {
        let report = self.faults(|url| client().get(url));
        let injected = report["injected"].as_object().unwrap_or_else(|| panic!("no counts of faults in {report}"));
        injected.iter().map(|(fault, count)| (fault.clone(), count.as_u64().expect("a count is a number"))).collect()
    }

    fn faults(&self, request: impl Fn(String) -> reqwest::RequestBuilder) -> Value {
        let url = format!("http://{}/faults", self.address());
        // A connection to the server before its restart may still be in the pool.
        let answer = wait_for("an answer of /faults", PATIENCE, || {
            try_send(request(url.clone()).bearer_auth(self.setting("CF_QUEUES_API_TOKEN"))).ok()
        });
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Stops or resumes the delivery of a queue, as a person does.
    pub fn pause(&self, queue: Queue, paused: bool) {
        let path = format!("/{}", self.queue_id(queue));
        let answer = self.api(Method::PATCH, &path, Some(&json!({"settings": {"delivery_paused": paused}})));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

impl Producer {
    /// A request of a person, with the key in place.
    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        client().get(format!("{}{path}", self.url)).header("x-api-key", &self.api_key)
    }

    /// A request to submit, with the key and the content type in place.
    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        let request = client().post(format!("{}{path}", self.url));
        request.header("x-api-key", &self.api_key).header("content-type", "application/json")
    }

    /// Submits one job and returns its id; a refusal fails the test.
    pub fn submit(&self, job: &Value) -> String {
        let answer = send(self.post("/jobs").body(job.to_string()));
        assert_eq!(answer.status, 202, "{answer:?}");
        let answer = answer.json();
        answer["job_id"].as_str().unwrap_or_else(|| panic!("no job_id in {answer}")).to_owned()
    }
}

fn serve(programs: &Path, home: &Path, listen: &str, options: &[String]) -> (Process, BTreeMap<String, String>) {
    let env_file = home.join("env");
    let mut command = command(&programs.join("local-edge"), home);
    command.args(["serve", "--listen", listen, "--data-dir"]).arg(home.join("data"));
    command.arg("--env-file").arg(&env_file).args(options);
    let mut process = Process::start("local-edge", &mut command, home);
    wait_for("the settings file of local-edge", PATIENCE, || {
        assert!(process.is_running(), "local-edge has ended");
        env_file.exists().then_some(())
    });
    let settings = dotenvy::from_path_iter(&env_file).expect("the settings file can be read");
    let settings = settings.map(|setting| setting.expect("each line of the settings file is NAME=value")).collect();
    (process, settings)
}
