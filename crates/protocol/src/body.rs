//! Decoding the body of a pulled message.
//!
//! The pull API gives bodies of content type `json` and `bytes` base64-encoded (as documented) or plain (as observed).
//! The first character of a JSON text can never be the first character of its base64 form, so the content itself tells
//! which it is, and neither the content type nor a setting is consulted.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::value::RawValue;

/// The JSON text within a message body, or `None` when there is none under either reading (v8, binary, other text).
pub fn json_text(body: &str) -> Option<Cow<'_, str>> {
    if is_json(body) {
        return Some(unquoted(body).map_or(Cow::Borrowed(body), Cow::Owned));
    }
    let compact = body.trim();
    let bytes = STANDARD.decode(compact).or_else(|_| STANDARD_NO_PAD.decode(compact)).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    if !is_json(&text) {
        return None;
    }
    Some(Cow::Owned(unquoted(&text).unwrap_or(text)))
}

/// Some producers send a JSON text as a JSON *string*; the object is within it.
fn unquoted(text: &str) -> Option<String> {
    let inner: String = serde_json::from_str(text).ok()?;
    is_json(&inner).then_some(inner)
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_base64_bodies_are_told_apart_by_content() {
        for json in ["{\"a\":1}", " [1]", "null", "true", "-1", "\"text\"", "{}"] {
            assert_eq!(json_text(json).as_deref(), Some(json));
            assert_eq!(json_text(&STANDARD.encode(json)).as_deref(), Some(json));
            assert_eq!(json_text(&STANDARD_NO_PAD.encode(json)).as_deref(), Some(json));
        }
        assert_eq!(json_text("\"{\\\"a\\\":1}\"").as_deref(), Some("{\"a\":1}"));
    }

    #[test]
    fn what_is_not_json_is_nothing() {
        for body in ["", "hello", "/w8=", "{\"a\":", "AAEC", "\u{0}\u{1}"] {
            assert_eq!(json_text(body), None, "{body:?}");
        }
    }
}
