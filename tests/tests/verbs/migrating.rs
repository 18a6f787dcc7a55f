//! `docs/migrating.md`: each of its steps, with the settings of the page and the messages of the original system.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};
use testkit::{Consumer, Edge, Laptop, PATIENCE, Process, Queue, Spoken, command, parts};

/// What the command of the page runs. It says what it was given.
const PROGRAM: &str = r#"
import json
job = json.load(open("input.json"))
json.dump({"task": job["task"], "input": job["input"]}, open("output.json", "w"))
"#;

fn page() -> String {
    fs::read_to_string(parts::workspace().join("docs/migrating.md")).expect("the page is there")
}

/// The lines of the blocks of settings of the page, in their order.
fn settings_of(page: &str) -> Vec<String> {
    let blocks = page.split("```env\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.map(str::to_owned).collect()
}

/// What was written by the original system.
fn original(kind: &str, name: &str) -> String {
    let path = parts::workspace().join("tests/compat/wire").join(kind).join(name).with_extension("json");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A cluster with the `.env` of the page, whose places are those of this machine.
struct Cluster {
    home: tempfile::TempDir,
    /// Ends what it started.
    _keeper: Consumer,
}

impl Cluster {
    fn new(edge: &Edge, env: &str) -> Self {
        let keeper = Consumer::bare(edge, "true");
        let home = tempfile::tempdir_in(keeper.home()).expect("a directory can be made");
        fs::create_dir(home.path().join("app")).expect("a directory can be made");
        fs::write(home.path().join("app/run.py"), PROGRAM).expect("a file can be written");
        let cluster = Self { home, _keeper: keeper };
        cluster.write_env(edge, env);
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write_env(&self, edge: &Edge, env: &str) {
        let ours = |line: &str| match line.split_once('=') {
            Some((
                name @ ("CF_ACCOUNT_ID" | "CF_JOBS_QUEUE_ID" | "CF_RESULTS_QUEUE_ID" | "CF_QUEUES_API_TOKEN"),
                _,
            )) => {
                format!("{name}={}\n", edge.setting(name))
            }
            Some(("RESULTS_DIR", _)) => format!("RESULTS_DIR={}\n", self.path("results").display()),
            _ => format!("{}\n", line.replace("/app/run.py", &self.path("app/run.py").display().to_string())),
        };
        let text: String = env.lines().map(ours).collect();
        fs::write(self.path(".env"), text).expect("a file can be written");
        fs::set_permissions(self.path(".env"), fs::Permissions::from_mode(0o600)).expect("a mode can be set");
    }

    /// What stands for Apptainer is no container, and Cloudflare is on this machine.
    fn run(&self, edge: &Edge, words: &[&str]) -> Spoken {
        let mut daemon = command(&parts::program("hpc-consumer"), self.home.path());
        daemon.env("RUNTIME", "bare").env("CF_API_BASE_URL", edge.setting("CF_API_BASE_URL"));
        daemon.env("STATE_DIR", self._keeper.state_dir()).args(words);
        let mut process = Process::start("hpc-consumer", &mut daemon, self.home.path());
        let status = process.wait(PATIENCE);
        Spoken { status, output: process.output(), log: process.log() }
    }
}

#[test]
fn the_settings_of_the_original_go_on_but_for_a_line_whose_mending_is_shown() {
    let page = page();
    let env = settings_of(&page).remove(0);
    let edge = Edge::start();
    // As it is on the page, whatever this machine is called.
    let cluster = Cluster::new(&edge, "");
    fs::write(cluster.path(".env"), &env).unwrap();
    let refused = cluster.run(&edge, &["run", "--check"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let sentence = refused.log.lines().find(|line| line.starts_with("error: ")).expect("it says why");
    assert!(page.contains(sentence), "the page has what is said: {sentence}");

    // Mended as it says, and named.
    let mended = env.replace("CONTAINER_CMD=python /app/run.py", "CONTAINER_CMD='python3 /app/run.py'");
    assert_ne!(mended, env);
    cluster.write_env(&edge, &mended);
    let checked = cluster.run(&edge, &["run", "--check", "--env-file", ".env"]);
    assert!(checked.status.success(), "{checked:?}");
    let sentence = checked.output.lines().find(|line| line.starts_with("a job can be run here")).expect("it says so");
    assert!(page.contains(sentence), "the page has what is said: {sentence}");
}

#[test]
fn jobs_that_waited_run_and_those_without_a_task_where_the_default_says_so() {
    let settings = settings_of(&page());
    let [env, default] = settings.as_slice() else { panic!("the page has two blocks of settings: {settings:?}") };
    let env = env.replace("CONTAINER_CMD=python /app/run.py", "CONTAINER_CMD='python3 /app/run.py'");
    let edge = Edge::start();
    let laptop = Laptop::new(&edge);
    let cluster = Cluster::new(&edge, &format!("{env}{default}"));
    let messages = ["original-with-task", "original-with-metadata", "original-without-task"];
    for name in messages {
        edge.push(Queue::Jobs, &[&original("job-message", name)]);
    }
    let run = ["run", "--exit-when-idle", "--env-file", ".env"];
    let spoken = cluster.run(&edge, &run);
    assert!(spoken.status.success(), "{spoken:?}");
    let results = laptop.take_results();
    assert_eq!(results.len(), messages.len(), "{results:#?}");
    for name in messages {
        let message: Value = serde_json::from_str(&original("job-message", name)).unwrap();
        let result = results.iter().find(|result| result["job_id"] == message["job_id"]).expect("each has a result");
        let task = message.get("task").cloned().unwrap_or_else(|| json!("run"));
        assert_eq!((&result["status"], &result["task"]), (&json!("completed"), &task), "{result}");
        assert_eq!(result["output"], json!({"task": task, "input": message["input"]}));
        let pointer = result["result_pointer"].as_str().unwrap();
        assert!(pointer.starts_with("file://") && pointer.ends_with("/output.json"), "{pointer}");
    }

    // Without the setting it is said what is wrong with it.
    cluster.write_env(&edge, &env);
    let other = original("job-message", "original-without-task").replace("amber-allele-0b1c2d", "amber-allele-2");
    edge.push(Queue::Jobs, &[&other]);
    let spoken = cluster.run(&edge, &run);
    assert!(spoken.status.success(), "{spoken:?}");
    let rejected = laptop.take_results().remove(0);
    assert_eq!((&rejected["status"], &rejected["reason"]), (&json!("failed"), &json!("rejected")), "{rejected}");
    assert!(rejected["message"].as_str().unwrap().contains("`task` is missing"), "{rejected}");
}

#[test]
fn results_that_waited_are_taken_and_shown() {
    let edge = Edge::start();
    let laptop = Laptop::new(&edge);
    let names = ["original-completed", "original-first", "original-given-up", "original-host-failed"];
    for name in names {
        edge.push(Queue::Results, &[&original("result", name)]);
    }
    edge.push(Queue::Results, &[&original("event", "original-heartbeat")]);
    let pulled = laptop.run(&["pull"]);
    assert_eq!((pulled.status.code(), pulled.results().len()), (Some(0), names.len()), "{pulled:?}");
    let shown = laptop.run(&["show", "agile-codon-3fa2c1"]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    assert_eq!(edge.backlog(Queue::Results), 0);
}

#[test]
fn a_consumer_with_the_retries_of_the_original_is_warned_of() {
    assert!(page().contains("`can lose jobs`"));
    let edge = Edge::start();
    let id = edge.queue_id(Queue::Jobs);
    let consumers = edge.api(Method::GET, &format!("/{id}/consumers"), None).json();
    let consumer = consumers["result"][0]["consumer_id"].as_str().expect("it has a consumer").to_owned();
    assert_eq!(edge.api(Method::DELETE, &format!("/{id}/consumers/{consumer}"), None).status, 200);
    let default = json!({"type": "http_pull", "settings": {"max_retries": 3}});
    assert_eq!(edge.api(Method::POST, &format!("/{id}/consumers"), Some(&default)).status, 200);
    let consumer = Consumer::bare(&edge, "true");
    let daemon = consumer.run_until_idle();
    assert!(daemon.log().contains("can lose jobs"), "{}", daemon.log());
}
