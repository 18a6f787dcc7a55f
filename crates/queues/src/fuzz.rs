//! What must hold of whatever the other end answers, for the fuzzer and the property tests.
//!
//! What was pushed as text comes back as the same text, whatever it is.

#[cfg(test)]
#[path = "../../../fuzz/targets.rs"]
mod targets;

use serde_json::{Value, json};

use crate::client::{Delivery, Pulled, pulled};
use crate::wire;

/// Reads bytes as each of the answers of the API.
pub fn answer(bytes: &[u8]) {
    let settled = serde_json::from_slice::<wire::Envelope<wire::SettleResult>>(bytes);
    drop(settled.map(|settled| settled.result.map(|result| wire::warnings(&result.warnings))));
    drop(serde_json::from_slice::<wire::Envelope<wire::Metrics>>(bytes));
    drop(serde_json::from_slice::<wire::Envelope<Value>>(bytes));
    let queue = serde_json::from_slice::<wire::Envelope<wire::Queue>>(bytes);
    drop(queue.map(|queue| queue.result.map(wire::Queue::info)));
    if let Some(first) = pull(bytes) {
        let message = |delivery: &Delivery| {
            let Delivery { message_id, lease_id, body, .. } = delivery;
            json!({"id": message_id, "lease_id": lease_id, "body": body, "attempts": 1})
        };
        let messages: Vec<Value> = first.deliveries.iter().map(message).collect();
        let again = json!({"success": true, "result": {"messages": messages, "message_backlog_count": first.backlog}});
        let again = pull(again.to_string().as_bytes()).expect("it is an answer");
        let bodies = |pulled: &Pulled| {
            let whole = pulled.deliveries.iter().map(|delivery| (delivery.lease_id.clone(), delivery.body.clone()));
            whole.collect::<Vec<_>>()
        };
        assert_eq!(bodies(&again), bodies(&first));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let pushed = wire::PushMessage { body: text, content_type: "text" };
        let body = serde_json::to_value(&pushed).expect("it holds only strings")["body"].to_string();
        assert_eq!(wire::text(&serde_json::value::RawValue::from_string(body).expect("it is JSON")), text);
    }
}

fn pull(bytes: &[u8]) -> Option<Pulled> {
    let envelope = serde_json::from_slice::<wire::Envelope<wire::PullResult>>(bytes).ok()?;
    envelope.result.map(pulled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_fuzzer_begins_with_holds() {
        targets::replay("queue_answer", answer);
    }

    proptest! {
        #[test]
        fn whatever_is_answered_holds(bytes in any::<Vec<u8>>()) {
            answer(&bytes);
        }

        #[test]
        fn whatever_a_message_holds_comes_as_it_was(
            lease in ".{0,8}",
            body in prop_oneof![".{0,40}", Just("\"quoted\"".to_owned()), Just("{\"a\":1}".to_owned())],
            attempts in any::<f64>(),
            cut in 0..200_usize,
        ) {
            let message = json!({"id": "m", "lease_id": lease, "body": body, "attempts": attempts});
            let text = json!({"success": true, "errors": [], "result": {"messages": [message]}}).to_string();
            answer(text.as_bytes());
            answer(&text.as_bytes()[..cut.min(text.len())]);
            let deliveries = pull(text.as_bytes()).expect("it is an answer").deliveries;
            prop_assert_eq!((&deliveries[0].lease_id, &deliveries[0].body), (&lease, &body));
        }
    }
}
