//! The queue API from the first request to the last, in the order in which a user meets it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Server, text};

#[tokio::test]
async fn the_life_of_a_queue() {
    let server = Server::start().await;

    // What is there at the start.
    let list = server.api(Method::GET, "", Value::Null).await.json();
    let names: Vec<&str> = list["result"].as_array().unwrap().iter().map(|queue| text(&queue["queue_name"])).collect();
    assert_eq!(names, ["hpc-jobs", "hpc-results", "hpc-jobs-dlq"]);
    let info = json!({"page": 1, "per_page": 100, "count": 3, "total_count": 3, "total_pages": 1});
    assert_eq!(list["result_info"], info);
    assert_eq!(list["result"][0]["queue_id"], server.setting("CF_JOBS_QUEUE_ID"));
    assert_eq!(list["result"][1]["queue_id"], server.setting("CF_RESULTS_QUEUE_ID"));
    let jobs = &list["result"][0]["consumers"][0];
    assert_eq!((&jobs["type"], &jobs["dead_letter_queue"]), (&json!("http_pull"), &json!("hpc-jobs-dlq")));
    assert_eq!(jobs["settings"]["max_retries"], 100);
    let named = server.api(Method::GET, "?name=hpc-jobs-dlq&name=hpc-results", Value::Null).await.json();
    assert_eq!(named["result_info"]["total_count"], 2);
    let second = server.api(Method::GET, "?page=2&per_page=2", Value::Null).await.json();
    assert_eq!(second["result"][0]["queue_name"], "hpc-jobs-dlq");
    assert_eq!((&second["result_info"]["count"], &second["result_info"]["total_pages"]), (&json!(1), &json!(2)));

    // Create, get, edit.
    let made = server.post("", json!({"queue_name": "life", "settings": {"message_retention_period": 3600}})).await;
    let id = text(&made["queue_id"]).to_owned();
    let path = format!("/{id}");
    assert_eq!(id.len(), 32);
    assert_eq!(
        made["settings"],
        json!({"delivery_delay": 0, "delivery_paused": false, "message_retention_period": 3600})
    );
    assert_eq!((&made["producers"], &made["producers_total_count"]), (&json!([]), &json!(0)));
    assert_eq!((&made["consumers"], &made["consumers_total_count"]), (&json!([]), &json!(0)));
    assert!(text(&made["created_on"]).ends_with('Z'), "{made}");
    assert_eq!(server.get(&path).await, made);
    let edited = server.ok(Method::PATCH, &path, json!({"settings": {"delivery_paused": true}})).await;
    assert_eq!(
        edited["settings"],
        json!({"delivery_delay": 0, "delivery_paused": true, "message_retention_period": 3600})
    );

    // Its consumer, and delivery while it is paused.
    let consumers = format!("{path}/consumers");
    let pull_path = format!("{path}/messages/pull");
    let not_enabled = server.api(Method::POST, &pull_path, json!({})).await;
    assert_eq!((not_enabled.status, not_enabled.code()), (405, 0));
    let message = "messages cannot be pulled unless http_pull mode is enabled";
    assert_eq!(not_enabled.json()["errors"][0]["message"], message);
    let consumer = server.post(&consumers, json!({"type": "http_pull", "settings": {"batch_size": 2.0}})).await;
    assert_eq!(
        consumer["settings"],
        json!({"batch_size": 2, "max_retries": 3, "retry_delay": 0, "visibility_timeout_ms": 30000})
    );
    assert_eq!((&consumer["queue_name"], &consumer["dead_letter_queue"]), (&json!("life"), &json!("")));
    assert_eq!(server.get(&consumers).await, json!([consumer]));
    let consumer_path = format!("{consumers}/{}", text(&consumer["consumer_id"]));
    assert_eq!(server.get(&consumer_path).await, consumer);
    assert_eq!(server.get(&path).await["consumers"], json!([consumer]));
    let paused = server.api(Method::POST, &pull_path, json!({})).await;
    assert_eq!((paused.status, &paused.json()["errors"][0]["message"]), (409, &json!("queue_delivery_paused")));
    server.ok(Method::PATCH, &path, json!({"settings": {"delivery_paused": false}})).await;

    // Push and pull.
    let messages = format!("{path}/messages");
    let pushed = server.post(&messages, json!({"body": {"a": [1, 2]}})).await;
    assert_eq!(pushed["metadata"]["metrics"]["backlog_count"], 1);
    server.post(&messages, json!({"body": "text", "content_type": "text"})).await;
    let batch = json!({"messages": [
        {"body": null, "content_type": "json"},
        {"body": "a string", "content_type": "json"},
        {"body": "later", "content_type": "text", "delay_seconds": 3600},
    ]});
    let pushed = server.post(&format!("{messages}/batch"), batch).await;
    let metrics = &pushed["metadata"]["metrics"];
    assert_eq!((&metrics["backlog_count"], &metrics["backlog_bytes"]), (&json!(5), &json!(11 + 4 + 4 + 10 + 5)));
    let by_consumer = server.post(&pull_path, json!({})).await;
    assert_eq!((&by_consumer["message_backlog_count"], &by_consumer["metadata"]["metrics"]), (&json!(5), metrics));
    let first = &by_consumer["messages"][0];
    assert_eq!((&first["body"], &first["attempts"]), (&json!("{\"a\":[1,2]}"), &json!(1)));
    assert_eq!(first["metadata"], json!({"CF-Content-Type": "json", "CF-sourceMessageSource": "http"}));
    assert_eq!(first["timestamp_ms"], metrics["oldest_message_timestamp_ms"]);
    assert_eq!(text(&first["id"]).len(), 32);
    assert_eq!(by_consumer["messages"][1]["body"], "text");
    assert_eq!(by_consumer["messages"][1]["metadata"]["CF-Content-Type"], "text");
    assert_eq!(by_consumer["messages"].as_array().unwrap().len(), 2);
    let rest = server.pull(&id, json!({"batch_size": 100, "visibility_timeout_ms": 60000})).await;
    let bodies: Vec<&str> = rest.iter().map(|message| text(&message["body"])).collect();
    assert_eq!(bodies, ["null", "\"a string\""], "the delayed one is not due");

    // Acknowledge, give back, peek, purge.
    let lease = |message: &Value| json!({"lease_id": message["lease_id"]});
    let unknown = "never given out";
    let settle = json!({
        "acks": [lease(first), lease(&by_consumer["messages"][1]), {"lease_id": unknown}],
        "retries": [lease(&rest[0]), {"lease_id": rest[1]["lease_id"], "delay_seconds": 3600}],
    });
    let settled = server.post(&format!("{messages}/ack"), settle).await;
    assert_eq!((&settled["ackCount"], &settled["retryCount"]), (&json!(2), &json!(2)));
    let warnings = settled["warnings"].as_object().unwrap();
    assert_eq!(warnings.keys().collect::<Vec<_>>(), [unknown]);
    let seen = server.post(&format!("{messages}/peek"), json!({"batch_size": 10})).await;
    let [seen] = seen["messages"].as_array().unwrap().as_slice() else { panic!("{seen}") };
    assert_eq!((&seen["body"], &seen["attempts"]), (&json!("null"), &json!(1)));
    assert_eq!((&seen["id"], seen.get("lease_id")), (&rest[0]["id"], None));
    let refs = json!({"refs": [{"ref": seen["ref"]}, {"ref": unknown}]});
    let purged = server.post(&format!("{messages}/purge"), refs).await;
    assert_eq!(purged["errors"], json!([]));
    assert_eq!(purged["warnings"].as_object().unwrap().keys().collect::<Vec<_>>(), [unknown]);
    assert_eq!(server.get(&format!("{path}/metrics")).await["backlog_count"], 2);

    // Purge all, replace, delete.
    assert_eq!(server.get(&format!("{path}/purge")).await, json!({}));
    let purged = server.post(&format!("{path}/purge"), json!({"delete_messages_permanently": true})).await;
    assert_eq!(purged["queue_id"], made["queue_id"]);
    assert_eq!(server.get(&format!("{path}/purge")).await["completed"], "true");
    let empty = json!({"backlog_count": 0, "backlog_bytes": 0, "oldest_message_timestamp_ms": 0});
    assert_eq!(server.get(&format!("{path}/metrics")).await, empty);
    let replaced = server.ok(Method::PUT, &path, json!({"queue_name": "life-2"})).await;
    assert_eq!(
        (&replaced["queue_name"], &replaced["settings"]["message_retention_period"]),
        (&json!("life-2"), &json!(345_600))
    );
    let body = json!({"type": "http_pull", "dead_letter_queue": "life-dlq", "settings": {"retry_delay": 5}});
    let replaced = server.ok(Method::PUT, &consumer_path, body).await;
    assert_eq!((&replaced["settings"]["batch_size"], &replaced["settings"]["retry_delay"]), (&json!(5), &json!(5)));
    assert_eq!(replaced["created_on"], consumer["created_on"]);
    let dlq = server.api(Method::GET, "?name=life-dlq", Value::Null).await.json();
    assert_eq!(dlq["result_info"]["total_count"], 1, "a dead letter queue is made with its consumer");
    let deleted = server.api(Method::DELETE, &consumer_path, Value::Null).await;
    assert_eq!((deleted.status, deleted.json().get("result")), (200, None));
    assert_eq!(server.get(&consumers).await, json!([]));
    let fresh = format!("{consumers}/{}", "0".repeat(32));
    let put = server.ok(Method::PUT, &fresh, json!({"type": "http_pull"})).await;
    assert_eq!(put["consumer_id"], "0".repeat(32), "PUT makes a consumer that is not there");
    let deleted = server.api(Method::DELETE, &path, Value::Null).await;
    assert_eq!((deleted.status, deleted.json().get("result")), (200, None));
    assert_eq!(server.api(Method::GET, &path, Value::Null).await.status, 404);
}

#[tokio::test]
async fn json_bodies_are_plain_or_base64_by_a_switch() {
    let cases: [(&[&str], &str); 3] = [
        (&[], "{\"a\":1}"),
        (&["--json-bodies", "plain"], "{\"a\":1}"),
        (&["--json-bodies", "base64"], "eyJhIjoxfQ=="),
    ];
    for (options, json_body) in cases {
        let server = Server::start_with(options, &[]).await;
        let queue = server.queue("bodies", json!({})).await;
        let batch = json!({"messages": [{"body": {"a": 1}}, {"body": "{\"a\":1}", "content_type": "text"}]});
        server.post(&format!("/{queue}/messages/batch"), batch).await;
        let pulled = server.pull(&queue, json!({})).await;
        assert_eq!((&pulled[0]["body"], &pulled[1]["body"]), (&json!(json_body), &json!("{\"a\":1}")), "{options:?}");
    }
}
