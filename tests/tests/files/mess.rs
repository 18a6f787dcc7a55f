//! What a job makes of its directory: nothing of it leads out, and nobody waits for it.

use super::*;

#[test]
fn links_pipes_and_names_of_all_kinds_are_the_jobs_and_are_said() {
    let edge = Edge::start();
    let consumer = scripts(&edge);
    let secret = consumer.home().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "precious").unwrap();
    let script = format!(
        "mkdir -p out; echo fine > out/fine; ln -s {0}/key out/key; ln -s {0} linked; ln -s /etc/passwd out/passwd; \
         mkfifo out/pipe; touch 'out/trailing.' 'out/co:lon' out/.. ; ln -s out out/loop; chmod 000 out/fine; mkdir -m 000 out/shut",
        secret.display()
    );
    let job_id = submit(&edge, &script, json!(null), json!({"patterns": ["out", "linked/*"], "when": "always"}));
    consumer.run_until_idle();
    let record = consumer.record(&job_id).unwrap();
    assert_eq!(record["status"], "completed", "{record}");
    let note = record["files_note"].as_str().unwrap();
    for part in [
        "nothing has matched `linked/*`. Left",
        "4 symbolic links",
        "1 that is no regular file: out/pipe",
        "2 whose names",
    ] {
        assert!(note.contains(part), "{part}: {note}");
    }
    assert_eq!(left(&edge, &job_id).keys().collect::<Vec<_>>(), ["out/fine"]);
    assert!(edge.piece_of(&sha256(b"precious")).is_none(), "nothing of it has left");
    assert!(edge.piece_of(&sha256(b"fine\n")).is_some());
}

#[test]
fn a_job_without_a_directory_has_no_files_and_an_end() {
    let edge = Edge::start();
    let consumer = scripts(&edge);
    let job_id = submit(&edge, "d=$PWD; cd /; rm -rf $d", json!(null), json!({"patterns": ["**"]}));
    consumer.run_until_idle();
    let record = consumer.record(&job_id).unwrap();
    assert_eq!((&record["status"], &record["files"]), (&json!("completed"), &json!(null)), "{record}");
    let note = record["files_note"].as_str().unwrap();
    assert!(note.contains("removed its directory") || note.contains("nothing has matched"), "{record}");
}

#[test]
fn no_job_writes_its_own_list() {
    let edge = Edge::start();
    let consumer = scripts(&edge);
    let script = "echo x > manifest.json; mkdir .uploads; echo x > .uploads/x; echo a > a";
    let job_id = submit(&edge, script, json!(null), json!({"patterns": ["*"]}));
    consumer.run_until_idle();
    let left = left(&edge, &job_id);
    assert!(left.contains_key("a") && left.contains_key("manifest.json"), "{left:?}");
    assert!(!left.contains_key("meta.json") && !left.contains_key("input.json"));
}
