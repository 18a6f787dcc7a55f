//! The compiled Worker in a real workerd, with its queue binding on `local-edge`.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::{Edge, PATIENCE, Process, Producer, command, parts, wait_for};

/// A running workerd.
#[derive(Debug)]
pub struct Worker {
    // Declared first, so that the process is gone before its directory is.
    process: Process,
    producer: Producer,
    _home: TempDir,
}

impl Worker {
    /// Starts the Worker; its queue is the one of `edge`, and so is its key.
    pub fn start(edge: &Edge) -> Self {
        Self::start_on(edge, &edge.address())
    }

    /// Starts the Worker with its queue at another address, as of a [`Front`](crate::Front) before `edge`.
    pub fn start_on(edge: &Edge, queue_address: &str) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        // A path that a configuration embeds is relative to it, so both lie in one directory.
        for name in ["index.js", "index_bg.wasm"] {
            let from = parts::worker_dir().join(name);
            fs::copy(&from, home.path().join(name))
                .unwrap_or_else(|error| panic!("cannot copy {}: {error}", from.display()));
        }
        let template = parts::workspace().join("producer-worker/workerd.capnp.in");
        let mut config =
            fs::read_to_string(&template).unwrap_or_else(|error| panic!("cannot read {}: {error}", template.display()));
        let values = [
            ("@LISTEN@", "127.0.0.1:0"),
            ("@EDGE_ADDRESS@", queue_address),
            ("@TOKEN@", edge.setting("CF_QUEUES_API_TOKEN")),
            ("@API_KEY@", edge.setting("API_KEY")),
            ("@WORKER_DIR@", "."),
        ];
        for (placeholder, value) in values {
            assert!(config.contains(placeholder), "{} has no {placeholder}", template.display());
            config = config.replace(placeholder, value);
        }
        let path = home.path().join("workerd.capnp");
        fs::write(&path, config).expect("the directory of a test can be written to");
        let mut command = command(&parts::workerd(), home.path());
        command.args(["serve", "--control-fd=1"]).arg(&path);
        let mut process = Process::start("workerd", &mut command, home.path());
        let port = wait_for("workerd to listen", PATIENCE, || {
            assert!(process.is_running(), "workerd has ended");
            process.output().lines().find_map(announced_port)
        });
        let producer =
            Producer { url: format!("http://127.0.0.1:{port}"), api_key: edge.setting("API_KEY").to_owned() };
        Self { process, producer, _home: home }
    }

    /// Where to submit.
    pub fn producer(&self) -> Producer {
        self.producer.clone()
    }

    /// Is it still running? A Worker survives whatever it is sent.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }
}

/// The port in a line such as `{"event":"listen","socket":"http","port":36307}`.
fn announced_port(line: &str) -> Option<u64> {
    let event: Value = serde_json::from_str(line).ok()?;
    (event["event"] == "listen").then(|| event["port"].as_u64()).flatten()
}
