//! What a job needs of the services of a site, and the facts that a service publishes of itself.
//!
//! Out of scope: which instance a job gets (`lifecycle`), and where facts come from (the daemon reads them).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use crate::{ServiceName, limits};

const EXAMPLE: &str = r#"must be a list of services such as ["vqpu", {"service": "vqpu", "qubits": {"min": 20}}]"#;

/// A service that a job needs, and what it asks of the service's facts.
///
/// In JSON it is the name alone, or an object with the name as `service` and one field for each fact. No service is met
/// by a reader who passes over what is asked of it, so nothing unknown is passed over here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Which service.
    pub service: ServiceName,
    /// What is asked of its facts, by their names.
    pub facts: BTreeMap<String, Bound>,
}

/// What a service says of itself, by the names of its facts.
pub type Facts = BTreeMap<String, Fact>;

/// One fact of a service: `true`, `32`, `"statevector"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fact {
    /// Yes or no.
    Flag(bool),
    /// Of any size.
    Number(Number),
    /// At most [`limits::FACT_CHARS_MAX`] characters, none of them a control character.
    Text(String),
}

/// What is asked of one fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Bound {
    /// It is this.
    Is(Fact),
    /// It is a number within these bounds; at least one of them is there.
    Within {
        /// At least so much.
        #[serde(skip_serializing_if = "Option::is_none")]
        min: Option<Number>,
        /// At most so much.
        #[serde(skip_serializing_if = "Option::is_none")]
        max: Option<Number>,
    },
}

/// The services of a job are none: a text that follows the name of their field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidNeeds(String);

/// What a service says of itself is none: a text that follows "its facts".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidFacts(String);

impl Need {
    /// Any instance of a service.
    pub fn of(service: ServiceName) -> Self {
        Self { service, facts: BTreeMap::new() }
    }

    /// Reads all that a job needs, in the JSON text of a list.
    pub fn read_all(text: &str) -> Result<Vec<Self>, InvalidNeeds> {
        read(text).map_err(InvalidNeeds)
    }

    /// Does a service with these facts do for the job?
    pub fn is_met_by(&self, facts: &Facts) -> bool {
        self.facts.iter().all(|(name, bound)| facts.get(name).is_some_and(|fact| bound.is_met_by(fact)))
    }

    /// Reads one. The error is the end of a sentence about the field that it is a value of.
    fn read(value: Value) -> Result<Self, String> {
        let name = |value: &Value| {
            let name = value.as_str().ok_or(EXAMPLE)?;
            name.parse().map_err(|error: crate::InvalidServiceName| format!("has a service whose name {error}"))
        };
        let Value::Object(mut fields) = value else { return Ok(Self::of(name(&value)?)) };
        let service = fields.remove("service").ok_or("has a service without `service`, which is its name")?;
        let service = name(&service)?;
        if fields.len() > limits::NEEDS_MAX {
            let max = limits::NEEDS_MAX;
            return Err(format!("asks for {} facts of the service {service}; {max} are the most", fields.len()));
        }
        let mut facts = BTreeMap::new();
        for (fact, bound) in fields {
            check_name(&fact).map_err(|problem| format!("asks the service {service} for {problem}"))?;
            let bound = Bound::read(bound)
                .map_err(|problem| format!("asks the service {service} for `{fact}`, which {problem}"))?;
            facts.insert(fact, bound);
        }
        Ok(Self { service, facts })
    }
}

/// As people say it: `vqpu`, or `vqpu with qubits ≥ 20`.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        for (place, (name, bound)) in self.facts.iter().enumerate() {
            f.write_str(if place == 0 { " with " } else { ", " })?;
            match bound {
                Bound::Is(fact) => write!(f, "{name} = {fact}")?,
                Bound::Within { min: Some(min), max: Some(max) } => write!(f, "{min} ≤ {name} ≤ {max}")?,
                Bound::Within { min: Some(min), .. } => write!(f, "{name} ≥ {min}")?,
                Bound::Within { max, .. } => {
                    write!(f, "{name} ≤ {}", max.as_ref().map_or(String::new(), Number::to_string))?
                }
            }
        }
        Ok(())
    }
}

impl Serialize for Need {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.facts.is_empty() {
            return self.service.serialize(to);
        }
        let mut map = to.serialize_map(Some(self.facts.len() + 1))?;
        map.serialize_entry("service", &self.service)?;
        self.facts.iter().try_for_each(|(name, bound)| map.serialize_entry(name, bound))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Need {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::read(Value::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// Reads the needs of a job. The error is the end of a sentence about the field that they are the value of.
fn read(text: &str) -> Result<Vec<Need>, String> {
    let given: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| EXAMPLE.to_owned())?;
    if given.len() > limits::NEEDS_MAX {
        return Err(format!("has {} services; {} are the most", given.len(), limits::NEEDS_MAX));
    }
    let mut needs: Vec<Need> = Vec::new();
    for given in given {
        let need = Need::read(serde_json::from_str(given.get()).map_err(|_| EXAMPLE.to_owned())?)?;
        if needs.iter().any(|other| other.service == need.service) {
            return Err(format!("has the service {} twice", need.service));
        }
        needs.push(need);
    }
    Ok(needs)
}

impl Fact {
    /// Reads one; none, if it is neither true nor false, a number or a short text.
    fn read(value: Value) -> Option<Self> {
        match value {
            Value::Bool(flag) => Some(Self::Flag(flag)),
            Value::Number(number) => Some(Self::Number(number)),
            Value::String(text)
                if text.chars().count() <= limits::FACT_CHARS_MAX && !text.chars().any(char::is_control) =>
            {
                Some(Self::Text(text))
            }
            _ => None,
        }
    }

    /// Reads the facts in the JSON text of an object.
    pub fn read_all(text: &str) -> Result<Facts, InvalidFacts> {
        let given: BTreeMap<String, Value> = serde_json::from_str(text)
            .map_err(|_| InvalidFacts("are no object such as {\"qubits\": 32}".to_owned()))?;
        if given.len() > limits::FACTS_MAX {
            return Err(InvalidFacts(format!("are {}; {} are the most", given.len(), limits::FACTS_MAX)));
        }
        let fact = |(name, value): (String, Value)| {
            check_name(&name).map_err(|problem| InvalidFacts(format!("have {problem}")))?;
            let fact = Self::read(value).ok_or_else(|| {
                let max = limits::FACT_CHARS_MAX;
                InvalidFacts(format!(
                    "have `{name}`, which must be true, false, a number or a text of up to {max} characters"
                ))
            })?;
            Ok((name, fact))
        };
        given.into_iter().map(fact).collect()
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Bound {
    fn is_met_by(&self, fact: &Fact) -> bool {
        match (self, fact) {
            // 20 and 20.0 are the same number.
            (Self::Is(Fact::Number(asked)), Fact::Number(fact)) => compare(asked, fact) == Some(Ordering::Equal),
            (Self::Is(asked), fact) => asked == fact,
            (Self::Within { min, max }, Fact::Number(fact)) => {
                min.as_ref().is_none_or(|min| compare(min, fact).is_some_and(Ordering::is_le))
                    && max.as_ref().is_none_or(|max| compare(max, fact).is_some_and(Ordering::is_ge))
            }
            (Self::Within { .. }, _) => false,
        }
    }

    fn read(value: Value) -> Result<Self, String> {
        let Value::Object(mut fields) = value else {
            let form = "must be true, false, a number, a short text, or bounds such as {\"min\": 20}";
            return Fact::read(value).map(Self::Is).ok_or_else(|| form.to_owned());
        };
        let mut bound = |name: &str| match fields.remove(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(number)),
            Some(_) => Err(format!("has `{name}`, which must be a number")),
        };
        let (min, max) = (bound("min")?, bound("max")?);
        if let Some(other) = fields.keys().next() {
            let shown: String = other.chars().take(64).collect();
            return Err(format!("has `{shown}`, which is no bound; min and max are"));
        }
        match (&min, &max) {
            (None, None) => Err("asks for nothing; say min or max".to_owned()),
            (Some(least), Some(most)) if compare(least, most) == Some(Ordering::Greater) => {
                Err(format!("must be at least {least} and at most {most}, which nothing can be"))
            }
            _ => Ok(Self::Within { min, max }),
        }
    }
}

/// Whole numbers as such, others as near as a floating point number comes.
fn compare(one: &Number, other: &Number) -> Option<Ordering> {
    match (one.as_i128(), other.as_i128()) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

/// The name of a fact: what follows is the end of a sentence.
fn check_name(name: &str) -> Result<(), String> {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let well = |byte: u8| first(byte) || matches!(byte, b'_' | b'.' | b'-');
    let max = limits::FACT_NAME_BYTES_MAX;
    if name.bytes().next().is_some_and(first) && name.bytes().all(well) && name.len() <= max {
        return Ok(());
    }
    Err(format!("a fact whose name must be 1 to {max} characters of a-z 0-9 _ . -, the first a letter or a digit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(text: &str) -> Need {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_need_is_met_by_facts() {
        let facts = Fact::read_all(r#"{"qubits": 32, "kind": "aer", "noise": false, "load": 0.5}"#).unwrap();
        for (asked, is_met) in [
            (r#""vqpu""#, true),
            (r#"{"service":"vqpu"}"#, true),
            (r#"{"service":"vqpu","qubits":{"min":32}}"#, true),
            (r#"{"service":"vqpu","qubits":{"min":33}}"#, false),
            (r#"{"service":"vqpu","qubits":{"min":31.5,"max":32}}"#, true),
            (r#"{"service":"vqpu","qubits":{"max":31}}"#, false),
            (r#"{"service":"vqpu","qubits":32.0}"#, true),
            (r#"{"service":"vqpu","qubits":"32"}"#, false),
            (r#"{"service":"vqpu","kind":"aer","noise":false}"#, true),
            (r#"{"service":"vqpu","kind":"aer","noise":true}"#, false),
            (r#"{"service":"vqpu","kind":{"min":1}}"#, false),
            (r#"{"service":"vqpu","shots":{"min":1}}"#, false),
            (r#"{"service":"vqpu","load":{"max":1}}"#, true),
        ] {
            assert_eq!(need(asked).is_met_by(&facts), is_met, "{asked}");
        }
    }

    #[test]
    fn needs_are_written_as_they_are_read_and_said_in_words() {
        for (text, words) in [
            (r#""vqpu""#, "vqpu"),
            (r#"{"service":"vqpu","kind":"aer","qubits":{"min":20}}"#, "vqpu with kind = aer, qubits ≥ 20"),
            (r#"{"service":"db","a":{"min":1,"max":2.5},"b":{"max":3}}"#, "db with 1 ≤ a ≤ 2.5, b ≤ 3"),
        ] {
            assert_eq!(serde_json::to_string(&need(text)).unwrap(), text);
            assert_eq!(need(text).to_string(), words);
        }
        assert_eq!(need(r#"{"service":"vqpu"}"#), Need::of("vqpu".parse().unwrap()));
        assert_eq!(
            read(&format!("[{}]", vec!["\"a\""; 17].join(","))).unwrap_err(),
            "has 17 services; 16 are the most"
        );
    }

    #[test]
    fn facts_are_few_and_short() {
        for (text, problem) in [
            ("[]", "are no object"),
            ("{", "are no object"),
            (r#"{"a":null}"#, "`a`, which must be true"),
            (r#"{"a":[1]}"#, "`a`, which must be true"),
            (r#"{"a":"\n"}"#, "`a`, which must be true"),
            (r#"{"A":1}"#, "a fact whose name must be"),
            (r#"{"":1}"#, "a fact whose name must be"),
        ] {
            let error = Fact::read_all(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        let many: Vec<String> = (0..65).map(|number| format!("\"f{number}\":1")).collect();
        assert!(Fact::read_all(&format!("{{{}}}", many.join(","))).is_err());
        assert!(Fact::read_all(&format!(r#"{{"a":"{}"}}"#, "x".repeat(257))).is_err());
    }
}
