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
    /// The configuration, with a placeholder for where it listens.
    config: String,
    home: TempDir,
}

impl Worker {
    /// Starts the Worker; its queue is the one of `edge`, and so are its keys.
    pub fn start(edge: &Edge) -> Self {
        Self::start_on(edge, &edge.address())
    }

    /// Starts the Worker with its queue at another address, as of a [`Front`](crate::Front) before `edge`.
    pub fn start_on(edge: &Edge, queue_address: &str) -> Self {
        Self::start_as(edge, queue_address, |config| config)
    }

    /// Starts the Worker as it was deployed before there was a hub: without its object.
    pub fn start_without_hub(edge: &Edge) -> Self {
        Self::start_as(edge, &edge.address(), |config| {
            let of_the_hub = |line: &&str| ["\"HUB\"", "durableObject"].iter().any(|word| line.contains(word));
            assert_eq!(config.lines().filter(of_the_hub).count(), 3, "{config}");
            config.lines().filter(|line| !of_the_hub(line)).map(|line| format!("{line}\n")).collect()
        })
    }

    /// Starts the Worker with more variables, and with a network that leads to this machine, too.
    pub fn start_with(edge: &Edge, variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| format!("(name = \"{name}\", text = \"{value}\"),\n"));
        let variables: String = variables.collect();
        Self::start_as(edge, &edge.address(), |config| {
            let network = "(name = \"internet\", network = (allow = [\"public\", \"private\"])),";
            for place in ["services = [\n", "bindings = [\n"] {
                assert!(config.contains(place), "no {place:?} in {config}");
            }
            let config = config.replacen("services = [\n", &format!("services = [\n{network}\n"), 1);
            config.replacen("bindings = [\n", &format!("bindings = [\n{variables}"), 1)
        })
    }

    fn start_as(edge: &Edge, queue_address: &str, change: impl FnOnce(String) -> String) -> Self {
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
            ("@EDGE_ADDRESS@", queue_address),
            ("@TOKEN@", edge.setting("CF_QUEUES_API_TOKEN")),
            ("@API_KEY@", edge.setting("API_KEY")),
            ("@SITE_KEY@", edge.setting("SITE_KEY")),
            ("@CALLBACK_SECRET@", edge.setting("CALLBACK_SECRET")),
            ("@HUB_DIR@", "hub"),
            ("@WORKER_DIR@", "."),
        ];
        for (placeholder, value) in values {
            assert!(config.contains(placeholder), "{} has no {placeholder}", template.display());
            config = config.replace(placeholder, value);
        }
        let config = change(config);
        let (process, port) = serve(&home, &config, "127.0.0.1:0");
        let producer =
            Producer { url: format!("http://127.0.0.1:{port}"), api_key: edge.setting("API_KEY").to_owned() };
        Self { process, producer, config, home }
    }

    /// Where to submit.
    pub fn producer(&self) -> Producer {
        self.producer.clone()
    }

    /// Is it still running? A Worker survives whatever it is sent.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// The most memory that it ever had resident, in bytes.
    pub fn peak_resident_bytes(&self) -> u64 {
        self.process.peak_resident_bytes()
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Kills workerd and starts it again, on the same address and with the same hub.
    pub fn restart(&mut self) {
        self.process.kill();
        let address = self.producer.url.trim_start_matches("http://");
        self.process = serve(&self.home, &self.config, address).0;
    }

    /// Kills workerd, takes away all that the hub knows, and starts it again.
    pub fn wipe_hub(&mut self) {
        self.process.kill();
        let hub = self.home.path().join("hub");
        assert!(fs::read_dir(&hub).is_ok_and(|mut names| names.next().is_some()), "the hub has no tables");
        fs::remove_dir_all(&hub).expect("the directory of a test can be emptied");
        self.restart();
    }

    /// Kills workerd, spoils the tables of the hub, and starts it again.
    pub fn spoil_hub(&mut self) {
        self.process.kill();
        let mut spoiled = 0;
        // One folder for the class, and in it a file for the object, beside what workerd itself keeps there.
        let class = self.home.path().join("hub/hpc-queue-hub");
        for entry in fs::read_dir(&class).expect("the hub has a folder") {
            let path = entry.expect("a folder of the hub can be read").path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // What was written last is in a file beside it.
            if name.ends_with("-wal") || name.ends_with("-shm") {
                fs::remove_file(&path).expect("a file of the hub can be removed");
            } else if name != "metadata.sqlite" {
                fs::write(&path, "this is no SQLite file, by no means").expect("a file of the hub can be written");
                spoiled += 1;
            }
        }
        assert!(spoiled > 0, "the hub has no tables");
        self.restart();
    }
}

fn serve(home: &TempDir, config: &str, listen: &str) -> (Process, u64) {
    let path = home.path().join("workerd.capnp");
    fs::write(&path, config.replace("@LISTEN@", listen)).expect("the directory of a test can be written to");
    fs::create_dir_all(home.path().join("hub")).expect("the directory of a test can be written to");
    let mut command = command(&parts::workerd(), home.path());
    command.args(["serve", "--control-fd=1"]).arg(&path);
    let mut process = Process::start("workerd", &mut command, home.path());
    let port = wait_for("workerd to listen", PATIENCE, || {
        assert!(process.is_running(), "workerd has ended");
        process.output().lines().find_map(announced_port)
    });
    (process, port)
}

/// The port in a line such as `{"event":"listen","socket":"http","port":36307}`.
fn announced_port(line: &str) -> Option<u64> {
    let event: Value = serde_json::from_str(line).ok()?;
    (event["event"] == "listen").then(|| event["port"].as_u64()).flatten()
}
