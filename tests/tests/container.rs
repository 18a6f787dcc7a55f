//! What a job sees in a real Apptainer container, and that the container ends whole.
//!
//! The runtime image holds the task runner and nothing to look around with, so these jobs run in an image of their own
//! around `probe.c`, built the same way: a statically linked program in an otherwise empty root file system.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
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
fn an_image_is_unpacked_once_and_stays_read_only() {
    let (edge, image) = (Edge::start(), Image::build());
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("local/images");
    let consumer =
        image.consumer(&edge, "/bin/probe look / /bin /data /data/mark /work").set("APPTAINER_UNPACK_DIR", &directory);
    let assert_seen = |record: Value, mark: bool| {
        assert_eq!(record["status"], "completed", "{record}");
        for (path, expected) in
            [("/", (true, false)), ("/bin", (true, false)), ("/data", (true, false)), ("/work", (true, true))]
        {
            let seen = &record["output"]["paths"][path];
            assert_eq!((seen["exists"] == true, seen["writable"] == true), expected, "{path}: {record}");
        }
        assert_eq!(record["output"]["paths"]["/data/mark"], json!({"exists": mark, "writable": false}), "{record}");
    };
    assert_seen(record_of(&edge, &consumer), false);
    let places: Vec<PathBuf> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [place] = &places[..] else { panic!("there is not one image: {places:?}") };
    assert_eq!(fs::metadata(place).unwrap().permissions().mode() & 0o777, 0o700, "other users can look into it");

    // It is seen by a job that runs from this very directory; unpacking would make another one.
    fs::write(place.join("rootfs/data/mark"), "").unwrap();
    assert_seen(record_of(&edge, &consumer), true);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
}

#[test]
fn an_image_that_cannot_be_unpacked_is_run_as_it_is() {
    let (edge, image) = (Edge::start(), Image::build());
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        fs::write(home.path().join(name), text).unwrap();
        fs::set_permissions(home.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    write("apptainer", &format!("#!/bin/sh\nexec {} \"$@\"\n", parts::apptainer().display()));
    // It is looked for beside apptainer first. This one meets a disk that is full.
    let full = "while [ \"$1\" != -d ]; do shift; done\nmkdir \"$2\"\necho half > \"$2/half\"\n\
                echo 'FATAL ERROR: No space left on device' >&2\nexit 1\n";
    write("unsquashfs", &format!("#!/bin/sh\n{full}"));
    let directory = home.path().join("images");
    let consumer = image
        .consumer(&edge, "/bin/probe look /bin")
        .set("APPTAINER_BIN", home.path().join("apptainer"))
        .set("APPTAINER_UNPACK_DIR", &directory);
    let id = edge.producer().submit(&json!({"task": "probe"}));
    let log = consumer.run_until_idle().log();
    let record = consumer.record(&id).expect("the job has its record");
    assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(1)), "{record}");
    assert!(log.contains("No space left on device"), "{log}");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "half of an image is left");
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
    let consumer = image.consumer(&edge, "/bin/probe fatal");
    let record = record_of(&edge, &consumer);
    assert_eq!(
        (&record["status"], &record["reason"], &record["exit_code"]),
        (&json!("failed"), &json!("exit"), &json!(255)),
        "{record}"
    );
    let said = record["stderr_tail"].as_str().unwrap_or_default();
    assert!(said.contains("FATAL:   container creation failed"), "{record}");
}
