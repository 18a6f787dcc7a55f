//! SIGKILL of the laptop at random bytes of both directions: the same command goes on, and what that costs has a bound.

use testkit::{Laptop, Producer, Queue};

use super::*;

fn laptop(edge: &LocalEdge, gate: &Gate) -> Laptop {
    Laptop::with_producer(edge, Producer { url: gate.url(), api_key: edge.setting("API_KEY").to_owned() })
}

#[test]
fn a_laptop_that_is_killed_while_it_sends_goes_on() {
    let edge = LocalEdge::start();
    let gate = Gate::before(&edge);
    let laptop = laptop(&edge, &gate);
    let size = 5 * PART + 5;
    file(&laptop.path("big"), size);
    let submit = ["submit", "--task", "t", "--file", "big:data/big", "--idempotency-key", "k"];
    let mut kills = 0;
    for _ in 0..3 {
        gate.stop_after(fastrand::u64(1..2 * PART));
        let mut sending = laptop.start(&submit);
        gate.wait_until_stopped();
        sending.kill();
        gate.release();
        kills += 1;
        assert_eq!(edge.backlog(Queue::Jobs), 0, "no job without its files");
    }
    let submitted = laptop.run(&submit);
    assert!(submitted.status.success(), "{submitted:?}");
    let put = gate.passed().put;
    assert!(put <= size + kills * PARALLEL * PART, "{kills} kills cost {} bytes", put - size);
    let message = edge.pull(Queue::Jobs).remove(0).body;
    let job: serde_json::Value = serde_json::from_str(&message).unwrap();
    assert_eq!((&job["files"][0]["path"], &job["files"][0]["size"]), (&"data/big".into(), &size.into()));
    let content: protocol::JobFile = serde_json::from_value(job["files"][0].clone()).unwrap();
    let back = laptop.path("back");
    get(&store_at(&gate.url(), &edge), &content.content(), &back).unwrap();
    assert!(fs::read(back).unwrap() == fs::read(laptop.path("big")).unwrap());
}

#[test]
fn a_laptop_that_is_killed_while_it_fetches_goes_on() {
    let edge = LocalEdge::start();
    let gate = Gate::before(&edge);
    let laptop = laptop(&edge, &gate);
    let size = 4 * PART + 7;
    file(&laptop.path("big"), size);
    let content = put(&store_at(&gate.url(), &edge), &laptop.path("big")).unwrap();
    let result = format!(
        r#"{{"v":2,"job_id":"j1","status":"completed","result_pointer":"p","files":[{{"path":"out/big","size":{size},"sha256":"{}"}}]}}"#,
        content.sha256
    );
    edge.push(Queue::Results, &[&result]);
    laptop.take_results();
    gate.forget();
    let fetch = ["fetch", "j1", "-o", "results"];
    for _ in 0..3 {
        gate.stop_after(fastrand::u64(1..2 * PART));
        let mut fetching = laptop.start(&fetch);
        gate.wait_until_stopped();
        fetching.kill();
        gate.release();
        assert!(!laptop.path("results/out/big").exists(), "it is there as a whole or not at all");
    }
    let fetched = laptop.run(&fetch);
    assert!(fetched.status.success(), "{fetched:?}");
    assert!(fs::read(laptop.path("results/out/big")).unwrap() == fs::read(laptop.path("big")).unwrap());
    // What was on its way, and in the buffers of two connections.
    let had = gate.passed().had;
    assert!(had <= size + 3 * (PART + 8 * MIB), "3 kills cost {} bytes", had - size);
    assert_eq!(names(&laptop.path("results/out")), ["big"]);
    let again = laptop.run(&fetch);
    assert!(again.status.success() && gate.passed().had == had, "what is here does not come again: {again:?}");
}
