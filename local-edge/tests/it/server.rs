//! A running `local-edge` on a free port, with its own data directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything here may take, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    child: Child,
    settings: BTreeMap<String, String>,
    http: Client,
    home: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[], &[]).await
    }

    pub(crate) async fn start_with(options: &[&str], environment: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let (child, settings) = spawn(home.path(), options, environment).await;
        // Another test may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A proxy of the environment knows nothing of this machine's ports.
        let http = Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client can be made");
        Self { child, settings, http, home }
    }

    /// As a power cut would.
    pub(crate) fn kill(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        self.child.wait().expect("a child can be waited for");
    }

    /// Starts it again after [`Self::kill`], on another free port and with the same data.
    pub(crate) async fn start_again(&mut self) {
        fs::remove_file(self.env_file()).expect("the settings file is there");
        let (child, settings) = spawn(self.home.path(), &[], &[]).await;
        self.child = child;
        self.settings = settings;
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the server runs");
        wait_for("the server to stop", async || self.child.try_wait().expect("a child can be waited for")).await
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn env_file(&self) -> PathBuf {
        self.home.path().join("env")
    }

    /// What it has written to standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).expect("the log is there")
    }

    pub(crate) fn setting(&self, name: &str) -> &str {
        self.settings.get(name).unwrap_or_else(|| panic!("no {name} in the settings file: {:?}", self.settings))
    }

    pub(crate) fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// A request to any path, without credentials.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.setting("PRODUCER_URL")))
    }

    /// A request to the queue API; `path` is relative to the account's `/queues`.
    pub(crate) fn api_request(&self, method: Method, path: &str) -> RequestBuilder {
        let (base, account) = (self.setting("CF_API_BASE_URL"), self.setting("CF_ACCOUNT_ID"));
        let request = self.http.request(method, format!("{base}/accounts/{account}/queues{path}"));
        request.bearer_auth(self.setting("CF_QUEUES_API_TOKEN"))
    }

    /// A request to the queue API with a JSON body, or without one where it is `null`.
    pub(crate) async fn api(&self, method: Method, path: &str, body: Value) -> Answer {
        let request = self.api_request(method, path);
        send(if body.is_null() { request } else { request.json(&body) }).await
    }

    /// A request to the queue API that succeeds; its `result`.
    pub(crate) async fn ok(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self.api(method, path, body).await;
        let envelope = answer.json();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(envelope["success"], true);
        assert_eq!((&envelope["errors"], &envelope["messages"]), (&json!([]), &json!([])));
        envelope["result"].clone()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.ok(Method::POST, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ok(Method::GET, path, Value::Null).await
    }

    /// Makes a queue with an `http_pull` consumer; its id.
    pub(crate) async fn queue(&self, name: &str, consumer: Value) -> String {
        let queue = self.post("", json!({"queue_name": name})).await;
        let id = text(&queue["queue_id"]).to_owned();
        let mut body = json!({"type": "http_pull"});
        body.as_object_mut().expect("it is an object").extend(consumer.as_object().expect("an object").clone());
        self.post(&format!("/{id}/consumers"), body).await;
        id
    }

    /// Pulls messages.
    pub(crate) async fn pull(&self, queue: &str, body: Value) -> Vec<Value> {
        let result = self.post(&format!("/{queue}/messages/pull"), body).await;
        result["messages"].as_array().expect("a pull has messages").clone()
    }

    /// Pulls until there is a message.
    pub(crate) async fn pull_one(&self, queue: &str, body: Value) -> Value {
        wait_for("a message", async || self.pull(queue, body.clone()).await.into_iter().next()).await
    }

    pub(crate) async fn ack(&self, queue: &str, lease: &Value) -> Value {
        self.post(&format!("/{queue}/messages/ack"), json!({"acks": [{"lease_id": lease}]})).await
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of the first error.
    pub(crate) fn code(&self) -> i64 {
        let envelope = self.json();
        assert_eq!((&envelope["success"], &envelope["result"]), (&json!(false), &Value::Null), "{self:?}");
        envelope["errors"][0]["code"].as_i64().unwrap_or_else(|| panic!("no code: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("headers here are ASCII"))
    }
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("the server answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, text: response.text().await.expect("the answer comes whole") }
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Tries until there is something.
pub(crate) async fn wait_for<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// `local-edge serve` in `home`, with nothing of this process's environment.
pub(crate) fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_local-edge"));
    command.env_clear().current_dir(home);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir", "data", "--env-file", "env"]);
    command
}

async fn spawn(home: &Path, options: &[&str], environment: &[(&str, &str)]) -> (Child, BTreeMap<String, String>) {
    let log = File::options().create(true).append(true).open(home.join("log")).expect("a log can be made");
    let mut command = command(home);
    command.args(options).envs(environment.iter().copied()).stderr(log);
    let mut child = command.spawn().expect("the program can be started");
    let env_file = home.join("env");
    let content = wait_for("the settings file", async || {
        let ended = child.try_wait().expect("a child can be waited for");
        assert_eq!(ended, None, "{}", fs::read_to_string(home.join("log")).unwrap_or_default());
        fs::read_to_string(&env_file).ok()
    })
    .await;
    let lines = content.lines().filter(|line| !line.starts_with('#'));
    let settings = lines.map(|line| {
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line} is no setting"));
        (name.to_owned(), value.trim_matches('\'').to_owned())
    });
    let settings = settings.collect();
    (child, settings)
}
