//! Files that a job only reads: a container sees what the cache keeps, for as long as it runs, whoever needs the room.

use std::os::unix::fs::MetadataExt as _;

use super::*;

fn only_read(path: &str, content: &Value) -> Value {
    let mut file = at(path, content);
    file["read_only"] = true.into();
    file
}

#[test]
fn a_container_reads_what_is_kept_and_nobody_takes_it_away_while_it_runs() {
    let edge = Edge::start();
    let home = tempfile::tempdir().unwrap();
    let (program, image) = (home.path().join("read"), home.path().join("read.sif"));
    testkit::compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/read.c"), &program);
    testkit::build_image(&program, &[], &image);
    // Neither may keep anything that is not in use.
    let consumer = Consumer::apptainer(&edge, &image).set("CONTAINER_CMD", "/bin/read").set("FILES_CACHE_BYTES", "1");
    let big = random(3 * MB);
    let named = put(&edge, &big);
    let digest = named["sha256"].as_str().unwrap().to_owned();
    let job_id = submit(&edge, "", json!([only_read("data/big.dat", &named)]), json!({"patterns": ["out", "data"]}));
    let mut daemon = consumer.start();
    let dir = consumer.job_dir(&job_id);
    wait_for("it to have read", PATIENCE, || {
        assert!(daemon.is_running() && consumer.record(&job_id).is_none(), "{}", daemon.log());
        dir.join("ready").exists().then_some(())
    });
    let kept = consumer.results_dir().join(".cache/sha256").join(&digest);
    let held = consumer.results_dir().join(".bound").join(&job_id).join(&digest);
    assert_eq!((fs::metadata(dir.join("data/big.dat")).unwrap().len(), mode(&dir.join("data/big.dat"))), (0, 0));
    assert_eq!(fs::metadata(&kept).unwrap().ino(), fs::metadata(&held).unwrap().ino(), "it is there once");

    // Another daemon there needs room, and whoever started the run is killed and begins anew.
    let other = scripts(&edge).sharing(&consumer).set("FILES_CACHE_BYTES", "1");
    daemon.kill();
    let mut second = other.start();
    let plain = submit(&edge, "cat a", json!([at("a", &put(&edge, &random(MB)))]), json!(null));
    assert_eq!(record(&other, &mut second, &plain)["status"], "completed");
    second.kill();
    let mut daemon = consumer.start();
    assert!(kept.exists() && held.exists());
    // Not even who removes it by hand takes it from a run.
    fs::remove_file(&kept).unwrap();
    fs::write(dir.join("go"), "").unwrap();
    let record = record(&consumer, &mut daemon, &job_id);
    assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(1)), "{record}");
    let left = left(&edge, &job_id);
    assert_eq!(left.keys().collect::<Vec<_>>(), ["out/after", "out/before", "out/refused"]);
    assert!(left["out/before"] == big && left["out/after"] == big, "it is what was sent");
    assert_eq!(String::from_utf8_lossy(&left["out/refused"]), "written removed opened");
    let note = record["files_note"].as_str().unwrap();
    assert!(note.contains("1 that the job has brought to read only: data/big.dat"), "{note}");
    wait_for("it to be let go", PATIENCE, || (!held.exists()).then_some(()));
}

#[test]
fn without_a_container_it_is_copied_and_that_is_said() {
    let edge = Edge::start();
    let consumer = scripts(&edge);
    let named = put(&edge, b"right");
    let job = || {
        let files = json!([only_read("data/big.dat", &named)]);
        submit(&edge, "cp data/big.dat out; echo spoiled > data/big.dat", files, json!({"patterns": ["**"]}))
    };
    let jobs = [job(), job()];
    let daemon = consumer.run_until_idle();
    for job_id in &jobs {
        let record = consumer.record(job_id).unwrap();
        assert_eq!(record["status"], "completed", "{record}");
        let left = left(&edge, job_id);
        assert_eq!(left["out"], b"right", "no job has what another one has made of it");
        assert!(!left.contains_key("data/big.dat"), "{left:?}");
    }
    assert!(daemon.log().contains("its read-only files are cloned or copied for it"), "{}", daemon.log());
    assert_eq!(names(&consumer.results_dir().join(".bound")), Vec::<String>::new());
}
