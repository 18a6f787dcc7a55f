//! Several jobs and daemons with one cache, which has a bound.

use super::*;

#[test]
fn daemons_of_one_directory_share_what_was_fetched() {
    let edge = Edge::start();
    let first = scripts(&edge);
    let second = scripts(&edge).sharing(&first);
    let bytes = random(5 * MB);
    let content = put(&edge, &bytes);
    let job = || submit(&edge, "sleep 0.2; cp a out", json!([at("a", &content)]), json!({"patterns": ["out"]}));
    let jobs: Vec<String> = (0..12).map(|_| job()).collect();
    let (mut one, mut other) = (first.start(), second.start());
    for job_id in &jobs {
        let record = record(&first, &mut one, job_id);
        assert_eq!(record["status"], "completed", "{record}");
        assert_eq!(record["files"][0]["sha256"], content["sha256"]);
    }
    one.kill();
    let held = names(&first.results_dir().join(".cache"));
    assert_eq!(held.iter().filter(|name| name.starts_with("sha256")).count(), 1, "{held:?}");
    // What one of them has fetched the other one has, and the store need not have it any more.
    fs::remove_file(edge.piece_of(&sha256(&bytes)).unwrap()).unwrap();
    let job_id = submit(&edge, "cmp a a && touch ran", json!([at("a", &content)]), json!(null));
    assert_eq!(record(&second, &mut other, &job_id)["status"], "completed");
}

#[test]
fn no_more_is_kept_than_may_be() {
    let edge = Edge::start();
    let consumer = scripts(&edge).set("FILES_CACHE_BYTES", "2500KB");
    let contents: Vec<Vec<u8>> = (0..4).map(|_| random(MB)).collect();
    let named: Vec<Value> = contents.iter().map(|bytes| put(&edge, bytes)).collect();
    // More than may be kept is there while it is needed.
    let all: Vec<Value> = named.iter().enumerate().map(|(number, content)| at(&number.to_string(), content)).collect();
    let job_id = submit(&edge, "cat 0 1 2 3 > out", json!(all), json!({"patterns": ["out"]}));
    consumer.run_until_idle();
    assert!(left(&edge, &job_id)["out"] == contents.concat());
    let kept = || names(&consumer.results_dir().join(".cache/sha256"));
    for number in [2, 0] {
        submit(&edge, "true", json!([at("x", &named[number])]), json!(null));
        consumer.run_until_idle();
    }
    let mut expected = [&contents[2], &contents[0]].map(|bytes| sha256(bytes));
    expected.sort();
    assert_eq!(kept(), expected, "what was used last is kept");
}
