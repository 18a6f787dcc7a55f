//! What must hold of whatever lies in an inbox, for the fuzzer and the property tests.

#[cfg(test)]
#[path = "../../../fuzz/targets.rs"]
mod targets;

use protocol::JobResult;

use crate::Arrived;

/// Reads bytes as a file in an inbox.
pub fn inbox(bytes: &[u8]) {
    let Ok(text) = String::from_utf8(bytes.to_vec()) else { return };
    let Ok(arrived) = Arrived::parse(text.clone()) else { return };
    assert_eq!(arrived.text, text, "it is kept as it came");
    let line = arrived.line();
    assert!(!line.contains('\n'), "it is one line: {line}");
    assert_eq!(JobResult::parse(&line).expect("the line is the same result"), arrived.result);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_fuzzer_begins_with_holds() {
        targets::replay("inbox", inbox);
    }

    proptest! {
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
