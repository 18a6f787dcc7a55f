//! What a job sees in a real Apptainer container, and that the container ends whole.
//!
//! The runtime image holds the task runner and nothing to look around with, so these jobs run in an image of their own
//! around `probe.c`, built the same way: a statically linked program in an otherwise empty root file system.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};
use testkit::{Consumer, Edge, PATIENCE, command, parts, wait_for, wait_until};

/// An image that holds only the probe, as `/bin/probe`.
struct Image {
    path: PathBuf,
    _home: TempDir,
}

impl Image {
    fn build() -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let root = home.path().join("root");
        for folder in ["bin", "dev", "etc", "proc", "sys", "tmp", "var/tmp", "work", "data"] {
            fs::create_dir_all(root.join(folder)).expect("a directory can be made");
        }
        for file in ["passwd", "group", "hosts", "resolv.conf", "localtime"] {
            File::create(root.join("etc").join(file)).expect("a file can be made");
        }
        let compiler = parts::on_path("cc").expect("a C compiler, `cc`, is on the PATH");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/probe.c");
        run(command(&compiler, home.path()).args(["-static", "-O1", "-o"]).arg(root.join("bin/probe")).arg(source));
        let path = home.path().join("probe.sif");
        run(command(&parts::apptainer(), home.path()).args(["--quiet", "build"]).arg(&path).arg(&root));
        Self { path, _home: home }
    }

    fn consumer(&self, edge: &Edge, command: &str) -> Consumer {
        Consumer::apptainer(edge, &self.path).set("CONTAINER_CMD", command)
    }
}

fn run(command: &mut std::process::Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs one job to its end and returns its final record.
fn record_of(edge: &Edge, consumer: &Consumer) -> Value {
    let id = edge.producer().submit(&json!({"task": "probe"}));
    consumer.run_until_idle();
    consumer.record(&id).expect("the job has its record")
}

#[test]
fn a_job_sees_its_directory_its_image_and_the_stated_binds_and_nothing_else() {
    let (edge, image) = (Edge::start(), Image::build());
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("table.csv"), "a\n1\n").unwrap();
    // Each of these places is shared with containers unless one takes care.
    let in_tmp = NamedTempFile::new_in("/tmp").unwrap();
    let in_var_tmp = NamedTempFile::new_in("/var/tmp").unwrap();
    let in_home = NamedTempFile::new_in(parts::home()).unwrap();
    let markers = [in_tmp.path(), in_var_tmp.path(), in_home.path()].map(|path| path.to_str().unwrap().to_owned());
    let command = format!("/bin/probe look /work /bin /data/table.csv /data/new /lib /usr {}", markers.join(" "));
    let consumer = image
        .consumer(&edge, &command)
        .set("SECRET_OF_THE_DAEMON", "s3cret")
        // Apptainer itself would hand these on.
        .set("APPTAINERENV_HANDED_ON", "s3cret")
        .set("SINGULARITYENV_HANDED_ON", "s3cret")
        .set("APPTAINER_BIND", format!("{}:/data:ro", data.path().display()));
    fs::write(consumer.home().join("marker"), "").unwrap();
    let record = record_of(&edge, &consumer);
    assert_eq!(record["status"], "completed", "{record}");
    let seen = &record["output"];

    assert_eq!(seen["directory"], "/work", "{seen}");
    assert_eq!(
        (&seen["uid"], &seen["gid"]),
        (&json!(rustix::process::getuid().as_raw()), &json!(rustix::process::getgid().as_raw()))
    );
    assert!(
        seen["pid"].as_u64().is_some_and(|pid| pid < 100),
        "the numbers of the host's processes are not seen: {seen}"
    );

    let path = |path: &str| (seen["paths"][path]["exists"] == true, seen["paths"][path]["writable"] == true);
    assert_eq!(path("/work"), (true, true), "{seen}");
    assert_eq!(path("/bin"), (true, false), "the image is read-only: {seen}");
    assert_eq!(path("/data/table.csv"), (true, false), "a bind with `ro` is read-only: {seen}");
    for absent in markers.iter().map(String::as_str).chain(["/lib", "/usr", "/data/new"]) {
        assert_eq!(path(absent), (false, false), "{absent} of the host is seen: {seen}");
    }

    let environment: Vec<&str> =
        seen["environment"].as_array().unwrap().iter().map(|variable| variable.as_str().unwrap()).collect();
    let job_id = format!("JOB_ID={}", record["job_id"].as_str().unwrap());
    assert!(environment.contains(&job_id.as_str()) && environment.contains(&"WORK_DIR=/work"), "{environment:?}");
    let token = edge.setting("CF_QUEUES_API_TOKEN");
    for variable in environment {
        let leaked =
            ["s3cret", "HANDED_ON", "CF_", "RESULTS_DIR", token].iter().any(|secret| variable.contains(secret));
        assert!(!leaked, "{variable} reached the job");
    }
}

#[test]
fn the_time_limit_ends_everything_in_the_container() {
    let (edge, image) = (Edge::start(), Image::build());
    let consumer = image.consumer(&edge, "/bin/probe linger").set("JOB_TIME_LIMIT_SECONDS", "3");
    let mut daemon = consumer.start();
    let id = edge.producer().submit(&json!({"task": "probe"}));
    // Every process of the job holds one lock, so it is free when, and only when, all of them are gone.
    let path = consumer.job_dir(&id).join("lock");
    let lock = wait_for("the lock of the job", PATIENCE, || File::open(&path).ok());
    let free = || rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    wait_until("the job to hold its lock", PATIENCE, || {
        let free = free();
        if free {
            rustix::fs::flock(&lock, FlockOperation::Unlock).expect("our own lock can be given up");
        }
        !free
    });
    let record = wait_for("the final record", PATIENCE, || {
        assert!(daemon.is_running(), "the daemon has ended");
        consumer.record(&id)
    });
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("time_limit")), "{record}");
    assert!(free(), "a process of the container outlived its job");
}

#[test]
fn a_job_cannot_pass_for_a_broken_node() {
    let (edge, image) = (Edge::start(), Image::build());
    for (command, said) in
        [("/bin/probe fatal", "FATAL:   container creation failed"), ("no-such-program", "no-such-program")]
    {
        let consumer = image.consumer(&edge, command);
        let record = record_of(&edge, &consumer);
        assert_eq!(
            (&record["status"], &record["reason"], &record["exit_code"]),
            (&json!("failed"), &json!("exit"), &json!(255)),
            "{record}"
        );
        assert!(record["stderr_tail"].as_str().is_some_and(|tail| tail.contains(said)), "{record}");
    }
}
