//! A job that the runtime could not begin, or whose image was taken away from under it, has not failed; and what no job
//! could ever run is said before any job is taken.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::json;
use testkit::{Consumer, Edge, PATIENCE, parts, signal, wait_until, words_of};

use super::signals::Image;
use super::{script, wait_for_record};

/// An apptainer that passes every probe, and fails to start jobs in each of these ways once.
fn failing_apptainer(consumer: &Consumer, ways: &[&str]) -> PathBuf {
    let path = consumer.home().join("apptainer");
    let mut text = "#!/bin/sh\n".to_owned();
    let real = format!("exec {} \"$@\"", parts::apptainer().display());
    writeln!(text, "case \"$*\" in *JOB_ID=probe*) {real};; esac").expect("a text takes more");
    for (number, way) in ways.iter().enumerate() {
        let met = consumer.home().join(format!("met-{number}"));
        writeln!(text, "mkdir {} 2> /dev/null && {{ {way}; }}", met.display()).expect("a text takes more");
    }
    writeln!(text, "{real}").expect("a text takes more");
    fs::write(&path, text).expect("the directory of a test can be written to");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

#[test]
fn a_job_that_the_runtime_does_not_begin_has_not_failed() {
    let (edge, image) = (Edge::start(), Image::build());
    let ways = [
        "echo 'ERROR: Failed to create user namespace: no space left on device' >&2; exit 1",
        "echo 'goroutine 1 [running]:' >&2; exit 2",
        "echo 'runtime/cgo: pthread_create failed: Resource temporarily unavailable' >&2; kill -s ABRT $$",
    ];
    let consumer = image.consumer(&edge, "environment").set("MAX_PARALLEL_JOBS", ways.len().to_string());
    let apptainer = failing_apptainer(&consumer, &ways);
    let consumer = consumer.set("APPTAINER_BIN", apptainer);
    let ids = ways.map(|_| edge.producer().submit(&script("")));
    let mut daemon = consumer.start();
    for id in &ids {
        let record = wait_for_record(&consumer, &mut daemon, id);
        assert_eq!(record["status"], "completed", "{record}\n{}", daemon.log());
    }
    assert_eq!(daemon.log().matches("the node failed attempt").count(), ways.len(), "{}", daemon.log());
}

#[test]
fn a_job_whose_image_was_written_to_while_it_ran_has_not_failed() {
    let (edge, image) = (Edge::start(), Image::build());
    let consumer = image.consumer(&edge, "gate");
    let mut daemon = consumer.start();
    let id = edge.producer().submit(&script(""));
    let directory = consumer.job_dir(&id);
    wait_until("the job to wait", PATIENCE, || directory.join("waiting").exists());
    let mut file = OpenOptions::new().append(true).open(image.path()).expect("it is ours");
    file.write_all(&[0; 4096]).expect("a file can be written to");
    fs::write(directory.join("gate"), "").expect("it is ours");
    wait_until("the next attempt", PATIENCE, || {
        assert!(daemon.is_running() && consumer.record(&id).is_none(), "{}", daemon.log());
        daemon.log().contains("attempt=2")
    });
    assert!(daemon.log().contains("the image was lost while the job ran"), "{}", daemon.log());
}

/// All processes that come from this one.
fn descendants_of(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|some| some.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|child| child.parse().ok())
        .collect();
    children.into_iter().flat_map(|child| [vec![child], descendants_of(child)].concat()).collect()
}

#[test]
fn a_job_whose_image_is_served_no_more_has_not_failed() {
    let (edge, image) = (Edge::start(), Image::build());
    // In a namespace of its own not even root has the kernel mount an image.
    let consumer = image.consumer(&edge, "gate").set("APPTAINER_ARGS", "--userns");
    let mut daemon = consumer.start();
    let id = edge.producer().submit(&script(""));
    let directory = consumer.job_dir(&id);
    wait_until("the job to wait", PATIENCE, || directory.join("waiting").exists());
    let keeper = consumer.keeper_pid().expect("it has begun the run");
    let watched = || {
        let open = fs::read_dir(format!("/proc/{keeper}/fd")).into_iter().flatten().flatten();
        open.filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().contains("pidfd"))).count()
    };
    // Two for the first process of the run, for its end and for what it has used; and one for what serves the image.
    wait_until("the keeper to watch what serves the image", PATIENCE, || watched() >= 3);
    let descendants = descendants_of(keeper);
    let helper = descendants.into_iter().find(|&pid| words_of(pid).iter().any(|word| word.contains("squashfuse")));
    signal(helper.expect("something serves the image"), Signal::KILL);
    wait_until("the keeper to hear of it", PATIENCE, || watched() < 3);
    fs::write(directory.join("gate"), "").expect("it is ours");
    wait_until("the next attempt", PATIENCE, || {
        assert!(daemon.is_running() && consumer.record(&id).is_none(), "{}", daemon.log());
        daemon.log().contains("attempt=2")
    });
    assert!(daemon.log().contains("the image was lost while the job ran"), "{}", daemon.log());
}

#[test]
fn a_program_that_is_not_in_the_image_is_said_before_a_job_is_taken() {
    let (edge, image) = (Edge::start(), Image::build());
    let id = edge.producer().submit(&script(""));
    for (command, said) in [
        ("countre count", "there is no program \"countre\", which CONTAINER_CMD names, in the image"),
        ("/bin/countre count", "there is no program \"/bin/countre\""),
        ("cd /bin && counter count", "this line is: CONTAINER_CMD=\"sh -c 'cd /bin && counter count'\""),
        ("A=1 counter count", "this line is: CONTAINER_CMD=\"sh -c 'A=1 counter count'\""),
    ] {
        let consumer = image.consumer(&edge, "x").set("CONTAINER_CMD", command);
        let checked = consumer.ask(&["run", "--check"]);
        assert_eq!(checked.status.code(), Some(2), "{}", checked.log);
        assert!(checked.log.contains(said), "{}", checked.log);
        let mut daemon = consumer.start();
        wait_until("the daemon to say what is missing", PATIENCE, || {
            assert!(daemon.is_running(), "{}", daemon.log());
            daemon.log().contains(said)
        });
        assert!(!consumer.job_dir(&id).exists(), "the job was taken");
    }
    let consumer = image.consumer(&edge, "environment");
    assert!(consumer.ask(&["run", "--check"]).output.contains("a job can be run here"));
    consumer.run_until_idle();
    let record = consumer.record(&id).expect("the job has its record");
    assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(1)), "{record}");
}
