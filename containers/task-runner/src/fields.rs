//! Reading the fields of a JSON object one by one, so that an error can name the field, the limit and what was given.
//!
//! What a user left out takes its default; `null` counts as left out. What a user misspelled is an error: a typing
//! error in `steps` must not become a run with the default.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::value::RawValue;

use crate::error::TaskError;

/// The fields of one JSON object.
pub(crate) struct Fields<'a> {
    /// What stands before a field's name in messages: nothing for the job itself, `input.` for its input.
    prefix: &'static str,
    values: BTreeMap<String, &'a RawValue>,
}

impl<'a> Fields<'a> {
    /// Reads the text of `input.json` (`prefix` is empty) or of an object within it.
    pub(crate) fn open(json: &'a str, prefix: &'static str) -> Result<Self, TaskError> {
        let values = serde_json::from_str(json).map_err(|error| {
            let what =
                if prefix.is_empty() { "input.json".to_owned() } else { format!("`{}`", prefix.trim_end_matches('.')) };
            TaskError::BadJob(format!("{what} must be a JSON object: {error}"))
        })?;
        Ok(Self { prefix, values })
    }

    /// Reads the `input` of a job. `null` is an object without fields; other fields than `known` are refused.
    pub(crate) fn of_input(input: &'a RawValue, known: &[&str]) -> Result<Self, TaskError> {
        let json = if input.get() == "null" { "{}" } else { input.get() };
        let fields = Self::open(json, "input.")?;
        match fields.values.keys().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => {
                let problem = format!("is no field of this task; its fields are {}", known.join(", "));
                Err(fields.invalid(&shortened(unknown), problem))
            }
            None => Ok(fields),
        }
    }

    /// The value of a field that is there and not `null`.
    pub(crate) fn given(&self, name: &str) -> Option<&'a RawValue> {
        self.values.get(name).copied().filter(|value| value.get() != "null")
    }

    /// A string.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, TaskError> {
        self.given(name)
            .map(|value| {
                serde_json::from_str(value.get())
                    .map_err(|_| self.invalid(name, format!("must be a string, and it is {}", shortened(value.get()))))
            })
            .transpose()
    }

    /// A value of some other kind.
    pub(crate) fn read<T: serde::Deserialize<'a>>(&self, name: &str, rule: &str) -> Result<Option<T>, TaskError> {
        let told = |value: &RawValue| self.invalid(name, format!("{rule}, and it is {}", shortened(value.get())));
        self.given(name).map(|value| serde_json::from_str(value.get()).map_err(|_| told(value))).transpose()
    }

    /// A whole number within a range.
    pub(crate) fn whole(&self, name: &str, default: u64, range: RangeInclusive<u64>) -> Result<u64, TaskError> {
        let Some(value) = self.given(name) else { return Ok(default) };
        match serde_json::from_str::<u64>(value.get()) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(self.invalid(
                name,
                format!(
                    "must be a whole number from {} to {}, and it is {}",
                    range.start(),
                    range.end(),
                    shortened(value.get())
                ),
            )),
        }
    }

    /// The error for one field: its name, and what is wrong with it.
    pub(crate) fn invalid(&self, name: &str, problem: impl AsRef<str>) -> TaskError {
        TaskError::BadJob(format!("`{}{name}` {}", self.prefix, problem.as_ref()))
    }
}

/// The beginning of a user's text, for a message.
pub(crate) fn shortened(text: &str) -> String {
    const SHOWN: usize = 48;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn null_and_absent_take_the_default() {
        for json in ["null", "{}", "{\"n\":null}"] {
            let input = raw(json);
            let fields = Fields::of_input(&input, &["n", "t"]).unwrap();
            assert_eq!(fields.whole("n", 7, 1..=9).unwrap(), 7, "{json}");
            assert_eq!(fields.text("t").unwrap(), None, "{json}");
        }
    }

    #[test]
    fn errors_name_the_field_the_rule_and_what_was_given() {
        for (json, sentence) in [
            ("{\"n\":0}", "`input.n` must be a whole number from 1 to 9, and it is 0"),
            ("{\"n\":10}", "`input.n` must be a whole number from 1 to 9, and it is 10"),
            ("{\"n\":-1}", "`input.n` must be a whole number from 1 to 9, and it is -1"),
            ("{\"n\":1.5}", "`input.n` must be a whole number from 1 to 9, and it is 1.5"),
            ("{\"n\":\"5\"}", "`input.n` must be a whole number from 1 to 9, and it is \"5\""),
            ("{\"m\":5}", "`input.m` is no field of this task; its fields are n"),
        ] {
            let input = raw(json);
            let outcome = Fields::of_input(&input, &["n"]).and_then(|fields| fields.whole("n", 7, 1..=9));
            assert_eq!(outcome.unwrap_err().to_string(), sentence);
        }
        let input = raw("[1]");
        let Err(error) = Fields::of_input(&input, &["n"]) else { panic!("an array was taken for an object") };
        assert!(error.to_string().starts_with("`input` must be a JSON object: "), "{error}");
    }

    #[test]
    fn long_values_are_not_repeated_in_full() {
        let input = raw(&format!("{{\"n\":\"{}\"}}", "é".repeat(100_000)));
        let fields = Fields::of_input(&input, &["n"]).unwrap();
        let sentence = fields.whole("n", 1, 1..=9).unwrap_err().to_string();
        assert!(sentence.len() < 200 && sentence.ends_with('…'), "{sentence}");
    }
}
