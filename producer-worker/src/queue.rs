//! Sending to the queue, and reading what it says when it does not take a message.

use edge::Refusal;
use worker::wasm_bindgen::JsValue;
use worker::{BatchMessageBuilder, Queue, QueueContentType, RawMessageBuilder, SendMessage, console_error};

/// Sends the messages in one write.
///
/// They travel as text that is JSON. Not as objects: the queue's JSON serialization would turn every map into `{}`.
pub(crate) async fn send(queue: &Queue, messages: &[String]) -> Result<(), Refusal> {
    let sent = match messages {
        [message] => queue.send_raw(text(message)).await,
        messages => {
            let batch = BatchMessageBuilder::new().messages(messages.iter().map(|message| text(message))).build();
            queue.send_raw_batch(batch).await
        }
    };
    sent.map_err(|error| {
        let what = error.to_string();
        console_error!("the queue did not take {} message(s): {what}", messages.len());
        refusal(&what)
    })
}

fn text(message: &str) -> SendMessage<JsValue> {
    RawMessageBuilder::new(JsValue::from_str(message)).build_with_content_type(QueueContentType::Text)
}

/// The runtime puts the service's error code in parentheses at the end of the exception's text (compatibility date
/// 2026-03-12 or later).
fn refusal(what: &str) -> Refusal {
    let code = |code: &str| what.contains(&format!("({code})"));
    if code("10250") || code("10251") {
        Refusal::Overloaded { retry_after: None }
    } else if code("10252") {
        Refusal::Disabled
    } else if code("10253") {
        Refusal::QuotaExhausted
    } else if code("10204") || code("10205") || code("10206") {
        Refusal::TooLarge
    } else {
        Refusal::Unavailable
    }
}
