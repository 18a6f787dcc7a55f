//! The fields of a JSON object, each still unread: what every reader of a message begins with.
//!
//! In one pass over the text it is checked to be JSON, and every value is found, and none is copied. Out of scope: what
//! the fields mean (`spec`, `message`, `result`).
//!
//! Two rules hold for all messages here: a field that is `null` is a field that was left out, because clients in other
//! languages write both; and of a field that is given twice the last one counts.

use std::borrow::{Borrow, Cow};
use std::collections::BTreeMap;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use serde_json::value::RawValue;

use crate::InvalidJob;

/// The fields of an object by name, without those that are `null`.
#[derive(Debug)]
pub(crate) struct Fields<'a>(BTreeMap<Name<'a>, &'a RawValue>);

/// A field's name: borrowed, unless it is written with escapes.
#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl Borrow<str> for Name<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What becomes of a field that a struct does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// Nothing: a newer program may know it.
    Passed,
    /// It is an error, which names what it is no field of.
    RefusedIn(&'static str),
}

/// Why a text has no fields.
#[derive(Debug)]
pub(crate) enum NoFields {
    /// It is not JSON.
    NotJson(serde_json::Error),
    /// It is JSON, but no object.
    NotAnObject,
}

impl<'a> Fields<'a> {
    /// Finds the fields of the object in a JSON text.
    pub(crate) fn find(text: &'a str) -> Result<Self, NoFields> {
        let mut fields: BTreeMap<Name<'a>, &'a RawValue> = match serde_json::from_str(text) {
            Ok(fields) => fields,
            // It begins like another kind of JSON; whether it is JSON to its end is another question.
            Err(error) if error.is_data() => {
                return Err(match serde_json::from_str::<&RawValue>(text) {
                    Ok(_) => NoFields::NotAnObject,
                    Err(error) => NoFields::NotJson(error),
                });
            }
            Err(error) => return Err(NoFields::NotJson(error)),
        };
        fields.retain(|_, value| value.get() != "null");
        Ok(Self(fields))
    }

    /// The value of a field, if it is there.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied()
    }

    /// Is the field there?
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The fields that a struct has, as its type: an error names the field.
    pub(crate) fn read<T: Deserialize<'a>>(self, unknown: Unknown) -> Result<T, InvalidJob> {
        T::deserialize(Reader { fields: self.0, unknown })
    }
}

/// Gives a struct its fields. The struct itself says which they are, so that they stand in one place.
struct Reader<'a> {
    fields: BTreeMap<Name<'a>, &'a RawValue>,
    unknown: Unknown,
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = InvalidJob;

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, InvalidJob> {
        if let Unknown::RefusedIn(whole) = self.unknown
            && let Some(Name(unknown)) = self.fields.keys().find(|name| !names.contains(&&*name.0))
        {
            let shown: String = unknown.chars().take(64).collect();
            let problem = format!("is no field of {whole}; the fields are {}", names.join(", "));
            return Err(InvalidJob::Field { field: shown, problem });
        }
        // In the order of the struct, so that of several errors the same one is told on every try.
        let given = names.iter().filter_map(|name| Some((*name, self.fields.remove(*name)?))).collect::<Vec<_>>();
        visitor.visit_map(Given { left: given.into_iter(), present: None })
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, InvalidJob> {
        Err(InvalidJob::NotAnObject)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Given<'a> {
    left: std::vec::IntoIter<(&'static str, &'a RawValue)>,
    present: Option<(&'static str, &'a RawValue)>,
}

impl<'a> MapAccess<'a> for Given<'a> {
    type Error = InvalidJob;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, InvalidJob> {
        self.present = self.left.next();
        self.present.map(|(name, _)| seed.deserialize(StrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, InvalidJob> {
        let (name, value) = self.present.expect("a value is asked for after its name");
        seed.deserialize(value)
            .map_err(|error| InvalidJob::Field { field: name.to_owned(), problem: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_escapes_nulls_and_repetitions() {
        let fields = Fields::find(r#" {"a": null, "\u0062": [1], "c": 1, "c": {"d": null}} "#).unwrap();
        assert!(!fields.has("a"));
        assert_eq!(fields.get("b").map(RawValue::get), Some("[1]"));
        assert_eq!(fields.get("c").map(RawValue::get), Some(r#"{"d": null}"#));
    }

    #[test]
    fn what_is_no_object_is_told_from_what_is_no_json() {
        for text in ["[]", "7", "null", "\"{}\"", " true "] {
            assert!(matches!(Fields::find(text), Err(NoFields::NotAnObject)), "{text}");
        }
        for text in ["", "{", "{} {}", "[", "[1,", "nul", "{\"a\":}", "{'a':1}", "\u{feff}{}"] {
            assert!(matches!(Fields::find(text), Err(NoFields::NotJson(_))), "{text}");
        }
    }
}
