//! What a job asks to have for itself while it runs.

use serde::{Deserialize, Serialize};

use crate::fields::{Fields, Unknown};
use crate::{InvalidJob, Memory, limits};

/// What a job asks for; of what it does not name, its pool says how much it gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct ResourceRequest {
    /// Processors, on each node.
    #[serde(default, deserialize_with = "rules::one_or_more", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = limits::RESOURCES_MAX)))]
    pub cpus: Option<u32>,
    /// Memory, on each node.
    #[serde(default, deserialize_with = "rules::memory", skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// GPUs, on each node.
    #[serde(default, deserialize_with = "rules::any_number", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = limits::RESOURCES_MAX)))]
    pub gpus: Option<u32>,
    /// Nodes.
    #[serde(default, deserialize_with = "rules::one_or_more", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = limits::RESOURCES_MAX)))]
    pub nodes: Option<u32>,
}

impl ResourceRequest {
    /// Reads an object. The error is the end of a sentence about the field that it is the value of.
    pub(crate) fn read(text: &str, strict: bool) -> Result<Self, String> {
        let unknown = if strict { Unknown::RefusedIn("resources") } else { Unknown::Passed };
        let fields = Fields::find(text)
            .map_err(|_| r#"must be an object such as {"cpus": 4, "memory": "8GiB", "gpus": 1}"#.to_owned())?;
        fields.read(unknown).map_err(|error| match error {
            InvalidJob::Field { field, problem } => format!("has `{field}`, which {problem}"),
            other => other.to_string(),
        })
    }
}

mod rules {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer};

    use super::limits::RESOURCES_MAX;
    use crate::Memory;

    pub(super) fn one_or_more<'de, D: Deserializer<'de>>(given: D) -> Result<Option<u32>, D::Error> {
        number(given, 1)
    }

    pub(super) fn any_number<'de, D: Deserializer<'de>>(given: D) -> Result<Option<u32>, D::Error> {
        number(given, 0)
    }

    pub(super) fn memory<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Memory>, D::Error> {
        Memory::deserialize(given).map(Some)
    }

    fn number<'de, D: Deserializer<'de>>(given: D, min: u32) -> Result<Option<u32>, D::Error> {
        match u32::deserialize(given) {
            Ok(number) if (min..=RESOURCES_MAX).contains(&number) => Ok(Some(number)),
            _ => Err(D::Error::custom(format!("must be a whole number from {min} to {RESOURCES_MAX}"))),
        }
    }
}
