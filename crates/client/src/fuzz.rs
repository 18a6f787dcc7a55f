//! What must hold of whatever lies in an inbox, or comes from a hub, for the fuzzer and the property tests.

#[cfg(test)]
#[path = "../../../fuzz/targets.rs"]
mod targets;

use protocol::JobResult;

use crate::Arrived;
use crate::hub::sse::Parser;

/// Reads bytes as a file in an inbox.
pub fn inbox(bytes: &[u8]) {
    let Ok(text) = String::from_utf8(bytes.to_vec()) else { return };
    let Ok(arrived) = Arrived::parse(text.clone()) else { return };
    assert_eq!(arrived.text, text, "it is kept as it came");
    let line = arrived.line();
    assert!(!line.contains('\n'), "it is one line: {line}");
    assert_eq!(JobResult::parse(&line).expect("the line is the same result"), arrived.result);
}

/// Reads bytes as what the hub sends: server-sent events.
pub fn hub_events(bytes: &[u8]) {
    let whole = Parser::default().push(bytes);
    let mut parser = Parser::default();
    let mut events = Vec::new();
    for piece in bytes.chunks(1 + bytes.len() / 7) {
        match parser.push(piece) {
            Ok(more) => events.extend(more),
            Err(too_long) => return assert_eq!(whole, Err(too_long), "it is as long in pieces"),
        }
    }
    let length: usize = events.iter().map(|event| event.data.len() + event.name.len()).sum();
    // What is no UTF-8 takes three bytes for each.
    assert!(length <= 3 * bytes.len() + "message".len() * events.len(), "nothing is made up");
    assert_eq!(whole, Ok(events), "pieces make no difference");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_fuzzer_begins_with_holds() {
        targets::replay("inbox", inbox);
    }

    #[test]
    fn what_the_fuzzer_begins_with_holds_of_events() {
        targets::replay("hub_events", hub_events);
    }

    proptest! {
        #[test]
        fn whatever_a_hub_sends_holds(bytes in "(data|event|id|:|\n|\r|[ xé]){0,80}") {
            hub_events(bytes.as_bytes());
        }

        #[test]
        fn whatever_lies_there_holds(bytes in any::<Vec<u8>>()) {
            inbox(&bytes);
        }

        #[test]
        fn whatever_a_result_holds_is_shown_on_one_line(
            output in ".{0,40}",
            space in prop_oneof![Just(" "), Just("\n"), Just("\r\n\t")],
        ) {
            let output = serde_json::to_string(&output).unwrap();
            let fields = ["\"job_id\":\"j1\"", "\"status\":\"completed\"", "\"result_pointer\":\"x\"", "\"output\":"];
            let text = format!("{{{space}{}{space}[{output}{space}]}}", fields.join(&format!(",{space}")));
            prop_assert!(Arrived::parse(text.clone()).is_ok());
            inbox(text.as_bytes());
        }
    }
}
