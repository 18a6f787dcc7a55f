//! Jobs that are submitted together, and the hub is told of in one go.

use super::*;

/// A message as the edge makes it.
fn message(id: &str, input: &str, more: &Any) -> String {
    let mut message = json!({"v": 1, "job_id": id, "task": "t", "created_at": "1970-01-01T00:00:00.5Z"});
    message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let text = message.to_string();
    // As it came, byte for byte.
    format!(r#"{},"input":{input}}}"#, text.strip_suffix('}').unwrap())
}

#[test]
fn what_is_submitted_together_is_known_as_if_each_had_come_alone() {
    let long = format!("\"{}\"", "é\\\"".repeat(7_000));
    let too_long = format!("\"{}\"", "a".repeat(jobs::INPUT_BYTES_MAX));
    let mut messages = vec![
        message("odd", r#"{"a": "\"\\ \u0000 \u001b 漢 𝄞", "b": [1e999, 1.0, 10000000000000000000000]}"#, &json!({})),
        message(
            "named",
            "7",
            &json!({"name": "it's \"quoted\" \\ 漢", "pool": "gpu", "callback": {"url": "https://a/"}}),
        ),
        message("none", "null", &json!({})),
        message("runs", "[1]", &json!({"name": "late"})),
        message("too-long", &too_long, &json!({})),
        message("odd", r#"{"a": "another one"}"#, &json!({})),
    ];
    // More than one statement is given.
    let many = 2 * jobs::STATEMENT_BYTES / long.len() + 2;
    messages.extend((0..many).map(|number| message(&format!("long-{number}"), &long, &json!({}))));
    let [mut together, mut alone] = [World::new(), World::new()].map(|mut world| {
        world.hello("s", "alpha", "d");
        world.report("s", &[job("runs", "running", 1)]);
        world
    });
    together.handle(Event::Submitted { messages: messages.clone() });
    assert_eq!(together.sent("s"), [json!({"type": "wake"})]);
    for message in messages {
        alone.handle(Event::Submitted { messages: vec![message] });
    }
    let mut pages = [&mut together, &mut alone].map(|world| world.get("/jobs?limit=500"));
    assert_eq!(pages[0], pages[1]);
    let ids: Vec<Any> = pages[0].1["jobs"].as_array_mut().unwrap().iter().map(|job| job["job_id"].clone()).collect();
    assert_eq!((ids.len(), &ids[many..]), (5 + many, &["too-long", "none", "named", "odd", "runs"].map(Any::from)[..]));
    for id in ids {
        let target = format!("/jobs/{}", id.as_str().unwrap());
        let follower = [&mut together, &mut alone].map(|world| {
            let follower = world.ask("GET", &target);
            match &world.effects[..] {
                [Effect::Answer(to, answer)] if *to == follower => answer.body.clone(),
                other => panic!("{target}: {other:?}"),
            }
        });
        assert_eq!(follower[0], follower[1]);
        assert_eq!(follower[0].contains("\"input\""), id != "none" && id != "too-long", "{}", follower[0]);
    }
    assert!(together.get("/jobs/runs").1["state"] == "running");
}
