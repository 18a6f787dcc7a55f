//! What a job finds and leaves, when nothing is wrong.

use super::*;

const JOB: &str = "mkdir -p out/deep plots; cp data/big.dat out/deep/copy.dat; cp many/* plots/; chmod 755 plots/a.txt; \
    printf '<svg/>' > plots/p.svg; printf '[1]' > output.json; cp input.json out/input";

fn is_all_there(edge: &Edge, consumer: &Consumer, job_id: &str, big: &[u8]) {
    let record = consumer.record(job_id).unwrap();
    assert_eq!((&record["status"], &record["output"]), (&json!("completed"), &json!([1])), "{record}");
    let files = record["files"].as_array().unwrap();
    let paths: Vec<&str> = files.iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["out/deep/copy.dat", "out/input", "plots/a.txt", "plots/b.txt", "plots/p.svg"]);
    assert_eq!((&files[0]["sha256"], &files[0]["size"]), (&json!(sha256(big)), &json!(big.len())));
    assert_eq!(record["files_note"], "nothing has matched `none/*`");
    let left = left(edge, job_id);
    assert!(left["out/deep/copy.dat"] == big, "it is what was sent");
    assert_eq!(left["plots/a.txt"], b"one");
    let input = format!("{{\"job_id\":\"{job_id}\",\"task\":\"script\",\"input\":\"{JOB}\",\"metadata\":null}}\n");
    assert_eq!(String::from_utf8_lossy(&left["out/input"]), input);
    assert_eq!(on_its_way(consumer), Vec::<String>::new());
}

#[test]
fn files_come_and_go_with_a_job() {
    let edge = Edge::start();
    let (consumer, big) = (scripts(&edge), random(3 * MB));
    let many = put(&edge, &pack(&[("many/a.txt", b"one"), ("many/b.txt", b"two")]));
    let mut many = at("many.tar", &many);
    many["pack"] = true.into();
    let files = json!([at("data/big.dat", &put(&edge, &big)), many]);
    let outputs = json!({"patterns": ["out", "plots/*", "none/*"]});
    let inline = submit(&edge, JOB, files.clone(), outputs.clone());
    // The same with an input that is a file, as one that is too large for the queue.
    let input = put(&edge, format!("  {}\n", json!(JOB)).as_bytes());
    let as_file =
        edge.producer().submit(&json!({"task": "script", "input_file": input, "files": files, "outputs": outputs}));
    consumer.run_until_idle();
    is_all_there(&edge, &consumer, &inline, &big);
    is_all_there(&edge, &consumer, &as_file, &big);
    let dir = consumer.job_dir(&inline);
    assert_eq!((mode(&dir.join("data")), mode(&dir.join("data/big.dat"))), (0o700, 0o600));
    // What the result says has come to the person as well.
    let pulled = edge.pull(testkit::Queue::Results);
    assert_eq!(pulled.len(), 2);
    assert!(pulled.iter().all(|delivery| delivery.body.contains("copy.dat")), "{pulled:?}");
    // Without a link in the way, what is there already was not had twice.
    assert_eq!(names(&consumer.results_dir().join(".cache/sha256")).len(), 3);
}

#[test]
fn files_come_and_go_with_a_job_in_a_container() {
    let edge = Edge::start();
    let home = tempfile::tempdir().unwrap();
    let (program, image) = (home.path().join("copy"), home.path().join("copy.sif"));
    testkit::compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/copy.c"), &program);
    testkit::build_image(&program, &[], &image);
    let consumer = Consumer::apptainer(&edge, &image).set("CONTAINER_CMD", "/bin/copy");
    let big = random(2 * MB);
    let files = json!([at("data/big.dat", &put(&edge, &big))]);
    let job_id = submit(&edge, "", files, json!({"patterns": ["out"]}));
    consumer.run_until_idle();
    let record = consumer.record(&job_id).unwrap();
    assert_eq!(record["status"], "completed", "{record}");
    assert!(left(&edge, &job_id)["out/copy.dat"] == big, "{record}");
}

#[test]
fn curl_has_what_a_job_has_left_by_its_links() {
    let Some(curl) = testkit::parts::on_path("curl") else { return };
    let edge = Edge::start();
    let consumer = scripts(&edge);
    let job_id = submit(&edge, "mkdir p; seq 100000 > p/out", json!(null), json!({"patterns": ["p"]}));
    consumer.run_until_idle();
    let there = left(&edge, &job_id);
    let answer = testkit::http::send(edge.producer().get(&format!("/jobs/{job_id}/files")));
    let file = &answer.json()["files"][0];
    let had = |words: &[&str]| {
        let had = testkit::command(&curl, consumer.home()).args(["-sSfL"]).args(words).output().unwrap();
        assert!(had.status.success(), "{}", String::from_utf8_lossy(&had.stderr));
        had.stdout
    };
    assert!(had(&[file["url"].as_str().unwrap()]) == there["p/out"], "the link needs no key");
    // By its name and with the key, from the edge, which leads to the store.
    let testkit::Producer { url, api_key } = edge.producer();
    let (key, url) = (format!("x-api-key: {api_key}"), format!("{url}/files/{}", file["sha256"].as_str().unwrap()));
    assert!(had(&["-H", &key, &url]) == there["p/out"]);
    assert!(had(&["-H", &key, "-r", "5-9", &url]) == there["p/out"][5..10]);
}

#[test]
fn an_output_that_does_not_fit_into_a_result_is_in_the_store() {
    let edge = Edge::start();
    let consumer = scripts(&edge);
    let large =
        submit(&edge, "(printf '[0'; seq -f ',%.0f' 1 40000; printf ']') > output.json", json!(null), json!(null));
    // Beside a list of files there is less room.
    let beside = "mkdir p; for i in $(seq 90); do echo $i > p/$i; done; (printf '[0'; seq -f ',%.0f' 1 6000; printf ']') > output.json";
    let beside = submit(&edge, beside, json!(null), json!({"patterns": ["p"]}));
    consumer.run_until_idle();
    for (job_id, files) in [(large, 0), (beside, 90)] {
        let record = consumer.record(&job_id).unwrap();
        assert_eq!((&record["status"], &record["message"]), (&json!("completed"), &json!(null)), "{record}");
        assert_eq!(record["files"].as_array().map_or(0, Vec::len), files);
        let output = fs::read(consumer.job_dir(&job_id).join("output.json")).unwrap();
        match record["output"].is_null() {
            true => {
                assert_eq!(record["output_file"], json!({"sha256": sha256(&output), "size": output.len()}));
                let temp = tempfile::tempdir().unwrap();
                let path = temp.path().join("output.json");
                let content = serde_json::from_value(record["output_file"].clone()).unwrap();
                block_on(store(&edge).get_file(&content, &path, &transfer::nobody)).unwrap();
                assert_eq!(fs::read(path).unwrap(), output);
            }
            false => assert!(files > 0 && record["output_file"].is_null(), "it fits all the same"),
        }
    }
    // Without a link to the edge it stays where it is, as ever.
    let alone = scripts(&edge).unlinked();
    let job_id =
        submit(&edge, "(printf '[0'; seq -f ',%.0f' 1 40000; printf ']') > output.json", json!(null), json!(null));
    alone.run_until_idle();
    let record = alone.record(&job_id).unwrap();
    assert!(record["message"].as_str().unwrap().contains("stays on the cluster"), "{record}");
}

#[test]
fn very_many_small_files_are_one_pack() {
    let edge = Edge::start();
    let consumer = scripts(&edge);
    let script = "mkdir -p many/deep; for i in $(seq 1000); do echo $i > many/$i; done; echo x > many/deep/x; head -c 2000000 /dev/zero > many/large";
    let job_id = submit(&edge, script, json!(null), json!({"patterns": ["many"]}));
    consumer.run_until_idle();
    let record = consumer.record(&job_id).unwrap();
    let files = record["files"].as_array().unwrap();
    assert_eq!(
        files.iter().map(|file| file["path"].as_str().unwrap()).collect::<Vec<_>>(),
        ["many/large", "files-1.tar"]
    );
    assert!(record["files_note"].as_str().unwrap().contains("1001 files are in one pack"), "{record}");
    let left = left(&edge, &job_id);
    assert_eq!(left.len(), 1002);
    assert_eq!((left["many/7"].as_slice(), left["many/deep/x"].as_slice()), (&b"7\n"[..], &b"x\n"[..]));
    assert_eq!(on_its_way(&consumer), Vec::<String>::new(), "no pack stays");
}

#[test]
fn outputs_of_a_failed_job_are_sent_where_they_are_always_wanted() {
    let edge = Edge::start();
    let consumer = scripts(&edge);
    let script = "echo x > out; exit 3";
    let always = submit(&edge, script, json!(null), json!({"patterns": ["out"], "when": "always"}));
    let success = submit(&edge, script, json!(null), json!({"patterns": ["out"]}));
    consumer.run_until_idle();
    let record = consumer.record(&always).unwrap();
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("exit")), "{record}");
    assert_eq!(left(&edge, &always)["out"], b"x\n");
    let record = consumer.record(&success).unwrap();
    assert_eq!((&record["reason"], &record["files"]), (&json!("exit"), &json!(null)), "{record}");
}

#[test]
fn a_further_attempt_finds_its_files_anew_and_what_it_left_for_itself() {
    let edge = Edge::start();
    let consumer = scripts(&edge);
    let script = "if [ -e d/checkpoint ]; then cat d/in d/checkpoint > out; else cp d/in d/checkpoint; echo spoiled > d/in; exit 1; fi";
    let files = json!([at("d/in", &put(&edge, b"fresh\n"))]);
    let job =
        json!({"task": "script", "input": script, "files": files, "outputs": {"patterns": ["out"]}, "retries": 1});
    let job_id = edge.producer().submit(&job);
    consumer.run_until_idle();
    let record = consumer.record(&job_id).unwrap();
    assert_eq!((&record["status"], &record["attempt"]), (&json!("completed"), &json!(2)), "{record}");
    assert_eq!(left(&edge, &job_id)["out"], b"fresh\nfresh\n");
}
