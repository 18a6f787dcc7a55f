//! Jobs that run as a site's file says, on real parts: what reaches them of their pool and their task, and what does
//! not.

mod limits;
mod pools;
mod secrets;
mod tasks;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::{Consumer, Edge, PATIENCE, Process, build_image, compile, parts, wait_for};

/// A site, its daemon, and the queues.
struct Site {
    consumer: Consumer,
    edge: Edge,
    home: tempfile::TempDir,
}

impl Site {
    /// A site with this file, in which `{home}` stands for a directory of its own.
    fn new(file: &str) -> Self {
        let (edge, home) = (Edge::start(), tempfile::tempdir().expect("a directory can be made"));
        let path = home.path().join("site.toml");
        let text = file.replace("{home}", &home.path().display().to_string());
        fs::write(&path, text).expect("a file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        let consumer = Consumer::bare(&edge, "false").set("SITE_FILE", &path).set("APPTAINER_BIN", parts::apptainer());
        Self { consumer, edge, home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A file that only we can read.
    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("a file can be written");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).expect("it is ours");
    }

    /// An image with the program that tells what it sees.
    fn image(&self) -> &Self {
        let program = self.path("look");
        compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/site/look.c"), &program);
        build_image(&program, &["run"], &self.path("look.sif"));
        self
    }

    fn submit(&self, job: &Value) -> String {
        self.edge.producer().submit(job)
    }

    fn record(&self, id: &str, daemon: &mut Process) -> Value {
        wait_for("the final record", PATIENCE, || {
            assert!(daemon.is_running(), "the daemon has ended: {}", daemon.log());
            self.consumer.record(id)
        })
    }

    /// Runs one job to its end.
    fn run(&self, job: &Value) -> Value {
        let id = self.submit(job);
        self.consumer.run_until_idle();
        self.consumer.record(&id).expect("the job has its record")
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
