//! Contents that are gone, or are not what they are called; jobs that bring or leave what cannot be.

use super::*;

fn rejected(consumer: &Consumer, job_id: &str, words: &[&str]) {
    let record = consumer.record(job_id).unwrap();
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("rejected")), "{record}");
    let message = record["message"].as_str().unwrap();
    words.iter().for_each(|word| assert!(message.contains(word), "{word}: {message}"));
    assert!(!consumer.job_dir(job_id).exists(), "nothing of it has run");
    assert_eq!(on_its_way(consumer).iter().filter(|name| !name.contains("partial")).count(), 0);
}

#[test]
fn a_content_that_is_gone_is_the_end_of_its_job_and_of_no_other() {
    let edge = Edge::start();
    let consumer = scripts(&edge);
    let never = json!({"sha256": sha256(b"never sent"), "size": 10});
    // Past the edge, which would not take it.
    let message = json!({"v": 2, "job_id": "gone", "task": "script", "files": [at("a", &never)]});
    edge.push(testkit::Queue::Jobs, &[&message.to_string()]);
    let well = submit(&edge, "cat a", json!([at("a", &put(&edge, b"here"))]), json!(null));
    consumer.run_until_idle();
    rejected(&consumer, "gone", &["cannot be had", &sha256(b"never sent")]);
    assert_eq!(consumer.record(&well).unwrap()["status"], "completed");
}

#[test]
fn a_content_that_the_store_has_spoiled_is_not_given_to_a_job() {
    let edge = Edge::start();
    let consumer = scripts(&edge);
    let bytes = random(MB);
    let job_id = submit(&edge, "touch ran", json!([at("a", &put(&edge, &bytes))]), json!(null));
    let path = edge.piece_of(&sha256(&bytes)).unwrap();
    let mut spoiled = bytes.clone();
    spoiled[MB / 2] ^= 1;
    fs::write(&path, &spoiled).unwrap();
    consumer.run_until_idle();
    rejected(&consumer, &job_id, &["SHA-256", "who has it sends it anew"]);
    assert_eq!(names(&consumer.results_dir().join(".cache")), Vec::<String>::new());
    // As does who submits it again; also where nothing is left of it.
    for _ in 0..2 {
        let job_id = submit(&edge, "touch ran", json!([at("a", &put(&edge, &bytes))]), json!(null));
        consumer.run_until_idle();
        assert_eq!(consumer.record(&job_id).unwrap()["status"], "completed");
        fs::remove_dir_all(consumer.results_dir().join(".cache")).unwrap();
        fs::remove_file(edge.piece_of(&sha256(&bytes)).unwrap()).unwrap();
        let job_id =
            submit(&edge, "touch ran", json!([at("a", &content(Local::bytes(bytes.clone()).content()))]), json!(null));
        consumer.run_until_idle();
        rejected(&consumer, &job_id, &["cannot be had", "404", "who has it sends it anew"]);
    }
}

#[test]
fn an_output_that_the_store_has_spoiled_is_sent_anew_by_the_job_that_left_it() {
    let edge = Edge::start();
    let (consumer, laptop) = (scripts(&edge), testkit::Laptop::new(&edge));
    let job = || submit(&edge, "seq 100000 > out", json!(null), json!({"patterns": ["out"]}));
    let first = job();
    consumer.run_until_idle();
    let sha256 = consumer.record(&first).unwrap()["files"][0]["sha256"].as_str().unwrap().to_owned();
    let path = edge.piece_of(&sha256).unwrap();
    let right = fs::read(&path).unwrap();
    let mut spoiled = right.clone();
    spoiled[77] ^= 1;
    fs::write(&path, &spoiled).unwrap();
    assert_eq!(laptop.take_results().len(), 1);
    let into = laptop.path("out");
    let fetched = laptop.run(&["fetch", &first, "-o", into.to_str().unwrap()]);
    assert_eq!(fetched.status.code(), Some(1), "{fetched:?}");
    assert!(fetched.log.contains("the job that has left it") && !into.join("out").exists(), "{fetched:?}");
    job();
    consumer.run_until_idle();
    let fetched = laptop.run(&["fetch", &first, "-o", into.to_str().unwrap()]);
    assert!(fetched.status.success() && fs::read(into.join("out")).unwrap() == right, "{fetched:?}");
}

#[test]
fn what_a_job_may_not_bring_is_told() {
    let edge = Edge::start();
    let consumer = scripts(&edge);
    let content = put(&edge, b"x");
    let ours = submit(&edge, "", json!([at("meta.json", &content)]), json!(null));
    let mut pack = at("p.tar", &content);
    pack["pack"] = true.into();
    let no_pack = submit(&edge, "", json!([pack]), json!(null));
    let no_json = edge.producer().submit(&json!({"task": "script", "input_file": content}));
    consumer.run_until_idle();
    rejected(&consumer, &ours, &["`meta.json`", "another name"]);
    rejected(&consumer, &no_pack, &["the pack `p.tar` cannot be read"]);
    rejected(&consumer, &no_json, &["no JSON"]);
}

#[test]
fn what_is_too_much_fails_with_the_numbers_and_stays() {
    let edge = Edge::start();
    let consumer = scripts(&edge).set("OUTPUT_FILES_BYTES_MAX", "2MB");
    let script = "head -c 3000000 /dev/zero > out; echo '[1]' > output.json";
    let job_id = submit(&edge, script, json!(null), json!({"patterns": ["out"]}));
    consumer.run_until_idle();
    let record = consumer.record(&job_id).unwrap();
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("output")), "{record}");
    let message = record["message"].as_str().unwrap();
    for word in ["3.0 MB", "2.0 MB", "OUTPUT_FILES_BYTES_MAX", consumer.job_dir(&job_id).to_str().unwrap()] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert_eq!(fs::metadata(consumer.job_dir(&job_id).join("out")).unwrap().len(), 3_000_000);
    assert_eq!(record["output"], json!([1]), "what it has computed is kept");
}

#[test]
fn a_store_that_has_no_room_for_a_site_fails_the_job_with_its_words() {
    let edge = Edge::start_with(&["--files-bytes-max", "2MB"]);
    let consumer = scripts(&edge);
    let job_id = submit(&edge, "head -c 3000000 /dev/zero > out", json!(null), json!({"patterns": ["out"]}));
    consumer.run_until_idle();
    let record = consumer.record(&job_id).unwrap();
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("output")), "{record}");
    assert!(record["message"].as_str().unwrap().contains("not taken by the store"), "{record}");
    assert!(consumer.job_dir(&job_id).join("out").exists());
}
