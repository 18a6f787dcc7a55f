//! What a job in a container has of a home, of temporary space and of its environment.

use std::fs;

use serde_json::Value;
use testkit::{Edge, PATIENCE};

use super::record_of;
use super::signals::Image;

fn variables(output: &Value) -> Vec<&str> {
    output["environment"].as_array().expect("a list").iter().map(|variable| variable.as_str().expect("text")).collect()
}

#[test]
fn home_and_temporary_directories_can_be_written_to_and_go_with_the_run() {
    let (edge, image) = (Edge::start(), Image::build());
    let consumer = image.consumer(&edge, "spaces");
    let record = record_of(&edge, &consumer, "");
    assert_eq!(record["status"], "completed", "{record}");
    let directory = consumer.job_dir(record["job_id"].as_str().expect("a record names its job"));
    let room = |place: &str| record["output"][place].as_u64().unwrap_or_default();
    for place in ["home", "/tmp", "/var/tmp"] {
        assert_eq!(room(place), room("/work"), "{place} is not on the disk of the job directory: {record}");
    }
    assert!(!directory.join(".scratch").exists(), "{:?}", fs::read_dir(&directory).expect("it is there").count());
}

#[test]
fn a_stated_list_of_variables_reaches_a_container_and_nothing_else_does() {
    let (edge, image) = (Edge::start(), Image::build());
    let consumer = image.consumer(&edge, "environment");
    let passed = [
        ("CUDA_VISIBLE_DEVICES", "1"),
        ("OMP_NUM_THREADS", "3"),
        ("TZ", "Europe/Berlin"),
        ("LANG", "de_DE.UTF-8"),
        ("NO_PROXY", "a.example,b.example"),
    ];
    let consumer = passed.iter().fold(consumer, |consumer, (name, value)| consumer.set(name, value));
    let consumer = consumer.set("SECRET_OF_THE_DAEMON", "s3cret").set("LD_PRELOAD_OF_A_SITE", "s3cret");
    let record = record_of(&edge, &consumer, "");
    let environment = variables(&record["output"]);
    for (name, value) in passed {
        assert!(environment.contains(&format!("{name}={value}").as_str()), "no {name}: {environment:?}");
    }
    assert!(!environment.iter().any(|variable| variable.contains("s3cret")), "{environment:?}");
}

#[test]
fn an_overlay_that_jobs_would_share_is_refused() {
    let (edge, image) = (Edge::start(), Image::build());
    let consumer = image.consumer(&edge, "environment").set("APPTAINER_ARGS", "--overlay /data/overlay");
    let mut daemon = consumer.start();
    assert_eq!(daemon.wait(PATIENCE).code(), Some(2));
    assert!(daemon.log().contains("--overlay /data/overlay") && daemon.log().contains(":ro"), "{}", daemon.log());
}
