//! A node that cannot run jobs: no apptainer, no image, no room on the disk. The job is not failed for it; it waits in
//! the queue, the daemon says what is wrong, and goes on by itself once it is right.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use testkit::{Consumer, Edge, PATIENCE, Process, Queue, SCRIPT, parts};

use super::{script, wait_for_backlog, wait_for_record};

const ECHO_INPUT: &str = "hello";

fn echo(edge: &Edge) -> String {
    edge.producer().submit(&json!({"task": "echo", "input": ECHO_INPUT}))
}

fn assert_waits(edge: &Edge, consumer: &Consumer, daemon: &mut Process, job_id: &str) {
    assert!(daemon.is_running(), "the daemon has ended");
    assert_eq!(consumer.record(job_id), None, "the job was failed for what it cannot help");
    assert_eq!((edge.backlog(Queue::Jobs), edge.backlog(Queue::Results)), (1, 0));
}

fn assert_completes(consumer: &Consumer, daemon: &mut Process, job_id: &str) {
    let record = wait_for_record(consumer, daemon, job_id);
    assert_eq!((&record["status"], &record["output"]), (&json!("completed"), &json!(ECHO_INPUT)), "{record}");
}

/// A copy that is there at once and whole, as a download that was moved into place.
fn put(from: &Path, to: &Path) {
    let aside = to.with_extension("aside");
    fs::copy(from, &aside).expect("a file can be copied");
    fs::rename(aside, to).expect("a file can be moved");
}

#[test]
fn a_missing_image_is_waited_for() {
    let edge = Edge::start();
    let home = tempfile::tempdir().unwrap();
    let image = home.path().join("runtime.sif");
    let consumer = Consumer::apptainer(&edge, &image);
    let first = echo(&edge);
    let mut daemon = consumer.start();
    daemon.wait_for_log(&format!("the image {} is not there", image.display()), PATIENCE);
    assert_waits(&edge, &consumer, &mut daemon, &first);
    put(&parts::runtime_sif(), &image);
    assert_completes(&consumer, &mut daemon, &first);

    // It goes away under a daemon that is at work: the job that meets it goes back, and comes again.
    wait_for_backlog(&edge, Queue::Results, 1);
    wait_for_backlog(&edge, Queue::Jobs, 0);
    fs::rename(&image, home.path().join("away.sif")).unwrap();
    let second = echo(&edge);
    daemon.wait_for_log("the node failed attempt", PATIENCE);
    assert_eq!(consumer.record(&second), None);
    assert_eq!((edge.backlog(Queue::Jobs), edge.backlog(Queue::Results)), (1, 1));
    fs::rename(home.path().join("away.sif"), &image).unwrap();
    assert_completes(&consumer, &mut daemon, &second);
    let attempt = consumer.record(&second).and_then(|record| record["attempt"].as_u64());
    assert!(attempt >= Some(2), "the run that failed for the image was an attempt: {attempt:?}");
}

#[test]
fn an_image_that_is_none_is_waited_for() {
    let edge = Edge::start();
    let home = tempfile::tempdir().unwrap();
    let image = home.path().join("runtime.sif");
    fs::write(&image, "this is no image").unwrap();
    let consumer = Consumer::apptainer(&edge, &image);
    let job = echo(&edge);
    let mut daemon = consumer.start();
    daemon.wait_for_log("apptainer cannot start a container", PATIENCE);
    assert_waits(&edge, &consumer, &mut daemon, &job);
    put(&parts::runtime_sif(), &image);
    assert_completes(&consumer, &mut daemon, &job);
}

#[test]
fn a_bind_that_is_not_mounted_is_waited_for() {
    let edge = Edge::start();
    let home = tempfile::tempdir().unwrap();
    let scratch = home.path().join("scratch");
    let bind = format!("{}:/scratch", scratch.display());
    let consumer = Consumer::apptainer(&edge, &parts::runtime_sif()).set("APPTAINER_BIND", bind);
    let job = echo(&edge);
    let mut daemon = consumer.start();
    daemon.wait_for_log("apptainer cannot start a container", PATIENCE);
    assert_waits(&edge, &consumer, &mut daemon, &job);
    fs::create_dir(&scratch).unwrap();
    assert_completes(&consumer, &mut daemon, &job);
}

#[test]
fn an_image_is_pulled_whole_or_not_at_all() {
    let edge = Edge::start();
    let home = tempfile::tempdir().unwrap();
    let (image, program) = (home.path().join("runtime.sif"), home.path().join("apptainer"));
    // A registry cannot run here. This apptainer pulls nothing; it leaves half of an image behind and fails.
    let real = parts::apptainer();
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = pull ]; then echo half > \"$3\"; echo 'FATAL: no such host' >&2; exit 255; fi\nexec {} \"$@\"\n",
        real.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let consumer = Consumer::apptainer(&edge, &image)
        .set("APPTAINER_BIN", &program)
        .set("APPTAINER_OCI_REF", "registry.invalid/runtime:latest");
    let job = echo(&edge);
    let mut daemon = consumer.start();
    daemon.wait_for_log("could not pull APPTAINER_OCI_REF registry.invalid/runtime:latest", PATIENCE);
    assert!(daemon.log().contains("no such host"), "{}", daemon.log());
    assert!(!image.exists(), "half of an image was taken for one");
    assert_waits(&edge, &consumer, &mut daemon, &job);
    put(&parts::runtime_sif(), &image);
    assert_completes(&consumer, &mut daemon, &job);
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let job = edge.producer().submit(&script("echo 1 > output.json"));
    let mut first = consumer.start();
    wait_for_record(&consumer, &mut first, &job);
    let mut second = consumer.start();
    assert_eq!(second.wait(PATIENCE).code(), Some(1));
    assert!(second.log().contains("is in use by the hpc-consumer"), "{}", second.log());
    assert!(first.is_running());
}

#[test]
fn a_record_that_cannot_be_read_is_answered_as_lost_and_kept() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    fs::create_dir_all(consumer.results_dir()).unwrap();
    let job = edge.producer().submit(&script("echo 1 > output.json"));
    fs::write(consumer.results_dir().join(format!("{job}.json")), "").unwrap();
    consumer.run_until_idle();
    let record = consumer.record(&job).expect("a record");
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("lost")), "{record}");
    assert!(!consumer.job_dir(&job).exists(), "a job that may have run was run");
    assert_eq!(consumer.rejected().len(), 1);
    assert_eq!((edge.backlog(Queue::Jobs), edge.backlog(Queue::Results)), (0, 1));
}

#[test]
fn a_missing_apptainer_is_waited_for() {
    let edge = Edge::start();
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("apptainer");
    let consumer = Consumer::apptainer(&edge, &parts::runtime_sif()).set("APPTAINER_BIN", &program);
    let job = echo(&edge);
    let mut daemon = consumer.start();
    daemon.wait_for_log("APPTAINER_BIN", PATIENCE);
    assert!(daemon.log().contains(&program.display().to_string()), "{}", daemon.log());
    assert_waits(&edge, &consumer, &mut daemon, &job);

    let aside = home.path().join("aside");
    fs::write(&aside, format!("#!/bin/sh\nexec '{}' \"$@\"\n", parts::apptainer().display())).unwrap();
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(aside, &program).unwrap();
    assert_completes(&consumer, &mut daemon, &job);
}

#[test]
fn a_missing_program_of_the_bare_runtime_is_waited_for() {
    let edge = Edge::start();
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("my-task");
    let consumer = Consumer::bare(&edge, &format!("'{}'", program.display()));
    let job = echo(&edge);
    let mut daemon = consumer.start();
    daemon.wait_for_log("CONTAINER_CMD", PATIENCE);
    assert_waits(&edge, &consumer, &mut daemon, &job);

    let aside = home.path().join("aside");
    fs::write(&aside, format!("#!/bin/sh\nprintf '\"%s\"' {ECHO_INPUT} > output.json\n")).unwrap();
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(aside, &program).unwrap();
    assert_completes(&consumer, &mut daemon, &job);
}

#[test]
fn a_results_directory_that_cannot_be_made_is_waited_for() {
    let edge = Edge::start();
    let home = tempfile::tempdir().unwrap();
    let in_the_way = home.path().join("results");
    fs::write(&in_the_way, "a file where a directory should be").unwrap();
    let consumer = Consumer::bare(&edge, SCRIPT).set("RESULTS_DIR", in_the_way.join("below"));
    let job = edge.producer().submit(&script("echo 1 > output.json"));
    let mut daemon = consumer.start();
    daemon.wait_for_log("RESULTS_DIR", PATIENCE);
    assert_waits(&edge, &consumer, &mut daemon, &job);
    fs::remove_file(&in_the_way).unwrap();
    assert_eq!(wait_for_record(&consumer, &mut daemon, &job)["output"], 1);
}

/// Mounts a small file system over `RESULTS_DIR`, in a mount namespace of its own (which an ordinary user may have),
/// fills it to the last byte, and becomes the daemon.
const FULL_DISK: &str = r#"
    set -e
    mount -t tmpfs -o size=1m none "$RESULTS_DIR"
    cat /dev/zero > "$RESULTS_DIR/filler" 2> filler.log || true
    exec "$@"
"#;

#[test]
fn a_full_disk_is_waited_for() {
    let unshare = parts::on_path("unshare").expect("`unshare` (of util-linux) is on the PATH: it makes a full disk");
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    fs::create_dir(consumer.results_dir()).unwrap();
    let job = edge.producer().submit(&script("echo 1 > output.json"));
    let words = ["--user", "--map-root-user", "--mount", "sh", "-c", FULL_DISK, "sh"];
    let mut daemon = Process::start("hpc-consumer", &mut consumer.command_within(&unshare, &words), consumer.home());
    daemon.wait_for_log("No space left on device", PATIENCE);
    // What the daemon sees lies behind its own root.
    let seen = |path: &Path| Path::new(&format!("/proc/{}/root", daemon.pid())).join(path.strip_prefix("/").unwrap());
    let (filler, record) =
        (seen(&consumer.results_dir().join("filler")), seen(&consumer.results_dir().join(format!("{job}.json"))));
    assert!(fs::metadata(&filler).unwrap().len() > 500_000, "the disk is full");
    assert!(!record.exists());
    assert_eq!((edge.backlog(Queue::Jobs), edge.backlog(Queue::Results)), (1, 0));

    fs::remove_file(filler).unwrap();
    wait_for_backlog(&edge, Queue::Results, 1);
    let record: serde_json::Value = serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    assert_eq!((&record["status"], &record["output"]), (&json!("completed"), &json!(1)), "{record}");
    wait_for_backlog(&edge, Queue::Jobs, 0);
    assert!(daemon.is_running());
}

#[test]
fn a_disk_that_fills_while_a_job_runs_is_not_the_jobs_fault() {
    let unshare = parts::on_path("unshare").expect("`unshare` (of util-linux) is on the PATH: it makes a full disk");
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    fs::create_dir(consumer.results_dir()).unwrap();
    // The first attempt fills the disk and fails for it; the next one finds room.
    let job = edge.producer().submit(&script(
        "if test -e ../filler.was; then echo 1 > output.json; else mkdir ../filler.was; \
         cat /dev/zero > ../filler; echo 1 > output.json; fi",
    ));
    let mount = r#"mount -t tmpfs -o size=1m none "$RESULTS_DIR" && exec "$@""#;
    let words = ["--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"];
    let mut daemon = Process::start("hpc-consumer", &mut consumer.command_within(&unshare, &words), consumer.home());
    daemon.wait_for_log("the node failed attempt", PATIENCE);
    daemon.wait_for_log("No space left on device", PATIENCE);
    let seen = |name: &str| {
        let path = consumer.results_dir().join(name);
        Path::new(&format!("/proc/{}/root", daemon.pid())).join(path.strip_prefix("/").unwrap())
    };
    assert!(!seen(&format!("{job}.json")).exists());
    fs::remove_file(seen("filler")).unwrap();
    wait_for_backlog(&edge, Queue::Results, 1);
    let record: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(seen(&format!("{job}.json"))).unwrap()).unwrap();
    assert_eq!((&record["status"], &record["output"]), (&json!("completed"), &json!(1)), "{record}");
}
