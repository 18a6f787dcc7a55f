//! What was not sent, or is not there any more, sent by hand: the laptop, the hub and the record know where it is.

use super::*;

fn fetched(laptop: &testkit::Laptop, job_id: &str, name: &str) -> testkit::Spoken {
    laptop.run(&["fetch", job_id, "-o", laptop.path(name).to_str().unwrap()])
}

fn resend(consumer: &Consumer, words: &[&str]) -> testkit::Spoken {
    consumer.ask(&[&["resend"], words].concat())
}

#[test]
fn outputs_that_were_too_much_come_home_by_hand() {
    let edge = Edge::start();
    let (consumer, laptop) = (scripts(&edge).set("OUTPUT_FILES_BYTES_MAX", "1000"), testkit::Laptop::new(&edge));
    let script = "mkdir plots; seq 1000 > plots/a; seq 2000 > plots/b; for i in $(seq 200); do echo $i > plots/n$i; done; echo 7 > output.json";
    let job_id = submit(&edge, script, json!(null), json!({"patterns": ["plots"]}));
    consumer.run_until_idle();
    let before = consumer.record(&job_id).unwrap();
    assert_eq!((&before["status"], &before["reason"]), (&json!("failed"), &json!("output")), "{before}");
    assert!(before["message"].as_str().unwrap().contains("OUTPUT_FILES_BYTES_MAX allows"), "{before}");
    assert_eq!(laptop.take_results().len(), 1);

    // The limit holds for a person as well, who is told what to say.
    let told = resend(&consumer, &[&job_id]);
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    assert!(told.output.contains("not sent: ") && told.output.contains("OUTPUT_FILES_BYTES_MAX"), "{told:?}");
    assert_eq!(consumer.record(&job_id).unwrap(), before);

    let told = resend(&consumer, &[&job_id, "--output-files-bytes-max", "1GB"]);
    assert!(told.status.success(), "{told:?}");
    assert_eq!(told.output, format!("{job_id}: sent, 1 file; its result is published with their list\n"));
    let after = consumer.record(&job_id).unwrap();
    for same in ["status", "reason", "message", "attempt", "finished_at"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    assert!(after["resent_at"].is_string() && after["files_note"].as_str().unwrap().contains("sent by hand at"));
    assert_eq!(on_its_way(&consumer), Vec::<String>::new());
    assert_eq!(left(&edge, &job_id).len(), 202, "the hub lists them");
    // The laptop has a result already, and now a later one of the same end.
    assert_eq!(laptop.take_results().len(), 1);
    let had = fetched(&laptop, &job_id, "home");
    assert!(had.status.success(), "{had:?}");
    assert_eq!(fs::read(laptop.path("home/plots/n200")).unwrap(), b"200\n");
    assert_eq!(fs::read_dir(laptop.path("home/plots")).unwrap().count(), 202);

    // A daemon that starts finds a record, and nothing to do.
    consumer.run_until_idle();
    assert_eq!(consumer.record(&job_id).unwrap(), after);
}

#[test]
fn what_the_store_has_lost_is_there_again_under_the_same_result() {
    let edge = Edge::start();
    let (consumer, laptop) = (scripts(&edge), testkit::Laptop::new(&edge));
    let script = "seq 30000 > out; (printf '[0'; seq -f ',%.0f' 1 40000; printf ']') > output.json";
    let job_id = submit(&edge, script, json!(null), json!({"patterns": ["out"]}));
    consumer.run_until_idle();
    let before = consumer.record(&job_id).unwrap();
    assert_eq!(laptop.take_results().len(), 1);
    for content in [&before["files"][0]["sha256"], &before["output_file"]["sha256"]] {
        fs::remove_file(edge.piece_of(content.as_str().unwrap()).unwrap()).unwrap();
    }
    // The edge believes that both are there, and nobody has missed them yet.
    let mut daemon = consumer.start();
    let told = resend(&consumer, &[&job_id]);
    assert!(told.status.success() && told.output.contains("sent, 2 files"), "{told:?}");
    assert_eq!(consumer.record(&job_id).unwrap(), before, "it has said so all the time");
    let had = fetched(&laptop, &job_id, "home");
    assert!(had.status.success() && laptop.path("home/output.json").exists(), "{had:?}");
    assert!(daemon.is_running());
}

#[test]
fn what_was_not_wanted_is_sent_by_its_name_and_what_cannot_be_is_said() {
    let edge = Edge::start();
    let consumer = scripts(&edge);
    let plain = submit(&edge, "mkdir p; echo x > p/x; echo y > y", json!(null), json!(null));
    consumer.run_until_idle();
    let said = |words: &[&str]| {
        let told = resend(&consumer, words);
        (told.status.code(), told.output)
    };
    let (code, told) = said(&[&plain]);
    assert!(code == Some(1) && told.contains("name them: --output"), "{told}");
    let (code, told) = said(&[&plain, "--output", "none/*"]);
    assert!(code == Some(1) && told.contains("nothing has matched `none/*`"), "{told}");
    let (code, told) = said(&[&plain, "--output", "p/"]);
    assert!(code == Some(0), "{told}");
    assert_eq!(left(&edge, &plain).keys().collect::<Vec<_>>(), ["p/x"]);
    // A second time with more: what it says last counts.
    let (code, told) = said(&[&plain, "--output", "p", "--output", "y"]);
    assert!(code == Some(0), "{told}");
    assert_eq!(left(&edge, &plain).keys().collect::<Vec<_>>(), ["p/x", "y"]);
    fs::remove_dir_all(consumer.job_dir(&plain)).unwrap();
    let (code, told) = said(&[&plain, "--output", "y"]);
    assert!(code == Some(1) && told.contains("is not there any more"), "{told}");
    let (code, told) = said(&["3f2a8c1e-7f6b-4c55-9a53-0c6f5c2d8f10", "--output", "y"]);
    assert!(code == Some(1) && told.contains("no final record"), "{told}");
}

#[test]
fn a_store_that_is_away_is_told_and_the_same_command_goes_on() {
    let mut edge = Edge::start();
    let consumer = scripts(&edge).set("OUTPUT_FILES_BYTES_MAX", "1000");
    let job_id = submit(&edge, "seq 1000 > out", json!(null), json!({"patterns": ["out"]}));
    consumer.run_until_idle();
    let before = consumer.record(&job_id).unwrap();
    edge.kill();
    let told = resend(&consumer, &[&job_id, "--output-files-bytes-max", "1GB"]);
    assert_eq!(told.status.code(), Some(75), "{told:?}");
    assert!(told.output.contains("the store of files is away"), "{told:?}");
    assert_eq!(consumer.record(&job_id).unwrap(), before);
    edge.restart();
    let told = resend(&consumer, &[&job_id, "--output-files-bytes-max", "1GB"]);
    assert!(told.status.success(), "{told:?}");
    assert_eq!(left(&edge, &job_id).len(), 1);
}
