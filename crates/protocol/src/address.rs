//! What an instance of a service leaves in `/work/address.json`: where it listens, and what it says of itself.
//!
//! A stranger's program wrote it. Out of scope: on which node that is, and whether it is true (the daemon looks).

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::InvalidJob;
use crate::fields::{Fields, Unknown};
use crate::need::{Fact, Facts};

/// Where an instance of a service listens, and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Its port, on the node that it runs on.
    #[serde(deserialize_with = "port")]
    pub port: u16,
    /// The scheme of its address, as `http` or `redis`.
    #[serde(default)]
    pub scheme: Scheme,
    /// What jobs can ask of it.
    #[serde(default, deserialize_with = "facts", skip_serializing_if = "Facts::is_empty")]
    pub facts: Facts,
}

/// The scheme of an address: 1 to 32 characters of `a-z 0-9 + - .`, the first a letter. `http` where nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scheme(String);

impl Default for Scheme {
    fn default() -> Self {
        Self("http".to_owned())
    }
}

impl Scheme {
    /// The scheme as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Scheme {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let well = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.');
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if begins && text.len() <= 32 && text.bytes().all(well) {
            return Ok(Self(text));
        }
        Err("must be the scheme of an address, as \"http\": 1 to 32 characters of a-z 0-9 + - ., the first a letter")
    }
}

impl From<Scheme> for String {
    fn from(scheme: Scheme) -> Self {
        scheme.0
    }
}

impl Address {
    /// Reads the text of the file. Fields that are not known are passed over. The error is a sentence that goes on
    /// after the file's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields = Fields::find(text).map_err(|error| match InvalidJob::from(error) {
            InvalidJob::NotJson(error) => format!("is not JSON: {error}"),
            _ => "is no object such as {\"port\": 8080, \"facts\": {\"qubits\": 32}}".to_owned(),
        })?;
        if !fields.has("port") {
            return Err("has no `port`".to_owned());
        }
        fields.read(Unknown::Passed).map_err(|error| match error {
            InvalidJob::Field { field, problem } => format!("has `{field}`, which {problem}"),
            other => other.to_string(),
        })
    }
}

fn port<'de, D: Deserializer<'de>>(given: D) -> Result<u16, D::Error> {
    match u16::deserialize(given) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(D::Error::custom("must be the number of a port, from 1 to 65535")),
    }
}

fn facts<'de, D: Deserializer<'de>>(given: D) -> Result<Facts, D::Error> {
    let given = Box::<RawValue>::deserialize(given)?;
    Fact::read_all(given.get()).map_err(|error| D::Error::custom(format!("cannot be used: they {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_not_trusted() {
        let whole = r#"{"port": 8080, "scheme": "redis", "facts": {"qubits": 32}, "later": 1}"#;
        let address = Address::parse(whole).unwrap();
        assert_eq!((address.port, address.scheme.as_str(), address.facts.len()), (8080, "redis", 1));
        let least = Address::parse(r#"{"port":1}"#).unwrap();
        assert_eq!((least.scheme.as_str(), least.facts.len()), ("http", 0));
        let written = serde_json::to_string(&address).unwrap();
        assert_eq!(written, r#"{"port":8080,"scheme":"redis","facts":{"qubits":32}}"#);
        assert_eq!(Address::parse(&written).unwrap(), address);
        for (text, problem) in [
            ("", "is not JSON"),
            ("8080", "is no object"),
            ("{}", "has no `port`"),
            (r#"{"port":0}"#, "`port`, which must be the number of a port"),
            (r#"{"port":65536}"#, "`port`"),
            (r#"{"port":"80"}"#, "`port`"),
            (r#"{"port":80,"scheme":"http://"}"#, "`scheme`, which must be the scheme"),
            (r#"{"port":80,"scheme":""}"#, "`scheme`"),
            (r#"{"port":80,"facts":[1]}"#, "`facts`, which cannot be used: they are no object"),
            (r#"{"port":80,"facts":{"a":[]}}"#, "`facts`, which cannot be used: they have `a`"),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
