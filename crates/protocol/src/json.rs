//! JSON that belongs to the user and passes through unread.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// One JSON value, kept as its text without insignificant white space.
///
/// It is never taken apart, so numbers keep all of their digits and keys their order, and it always fits on one line.
#[derive(Clone)]
pub struct Json(Box<RawValue>);

impl Json {
    /// Reads one JSON value.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        Ok(Self::from_raw(serde_json::from_str(text)?))
    }

    /// Any value as JSON.
    pub fn from_serialize<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        Ok(Self(serde_json::value::to_raw_value(value)?))
    }

    /// The JSON `null`.
    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned())
    }

    /// The text, on one line.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Is it `null`?
    pub fn is_null(&self) -> bool {
        self.as_str() == "null"
    }

    /// Is it an object?
    pub fn is_object(&self) -> bool {
        self.as_str().starts_with('{')
    }

    /// Reads it into a type.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.as_str())
    }

    fn from_raw(raw: Box<RawValue>) -> Self {
        match without_white_space(raw.get()) {
            Some(text) => Self(RawValue::from_string(text).expect("JSON without its white space is JSON")),
            None => Self(raw),
        }
    }
}

/// The text without white space between tokens, or `None` when there is none to take out.
fn without_white_space(text: &str) -> Option<String> {
    // As programs write it, there is none but within strings, and then little of the text is looked at twice.
    if !text.bytes().any(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
        return None;
    }
    let mut within_string = false;
    let mut escaped = false;
    let mut significant = |c: char| {
        if within_string {
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == '"' {
                within_string = false;
            }
            true
        } else {
            within_string = c == '"';
            !matches!(c, ' ' | '\t' | '\n' | '\r')
        }
    };
    let compact: String = text.chars().filter(|&c| significant(c)).collect();
    (compact.len() != text.len()).then_some(compact)
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

impl Default for Json {
    fn default() -> Self {
        Self::null()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from_raw(Box::<RawValue>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_values_pass_through_unharmed() {
        for (given, kept) in [
            ("12345678901234567890123.0e+400", "12345678901234567890123.0e+400"),
            (" { \"b\" : [ 1 ,\n 2 ] , \"a\" : \"x \\\" y\\\\\" } ", "{\"b\":[1,2],\"a\":\"x \\\" y\\\\\"}"),
            ("\"\\u00e9 é\"", "\"\\u00e9 é\""),
            ("null", "null"),
        ] {
            assert_eq!(Json::parse(given).unwrap().as_str(), kept);
        }
        assert!(Json::parse("{} {}").is_err());
        assert!(Json::parse("nul").is_err());
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
        assert_eq!(Json::parse(&deep).unwrap().as_str().len(), 120_000);
    }
}
