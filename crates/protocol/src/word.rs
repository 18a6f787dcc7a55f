//! Words on the wire: a closed list for who writes, an open one for who reads.

use std::fmt;

use serde::de::value::{Error, StrDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

/// A word of the list `T`, or one that another version has put there, which is kept and printed as it came.
///
/// What is written is a `T`, so that no program invents a word; what is read is this, so that none is refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Word<T> {
    /// It is on our list.
    Known(T),
    /// It is not.
    Unknown(String),
}

impl<T> From<T> for Word<T> {
    fn from(word: T) -> Self {
        Self::Known(word)
    }
}

impl<T: Copy> Word<T> {
    /// The word, if it is on our list.
    pub fn known(&self) -> Option<T> {
        match self {
            Self::Known(word) => Some(*word),
            Self::Unknown(_) => None,
        }
    }
}

impl<T: PartialEq> PartialEq<T> for Word<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Self::Known(word) if word == other)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = T::deserialize(StrDeserializer::<Error>::new(&text));
        Ok(known.map_or(Self::Unknown(text), Self::Known))
    }
}

impl<T: fmt::Display> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(word) => word.fmt(f),
            Self::Unknown(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;

    #[test]
    fn a_word_of_another_version_is_kept_and_printed() {
        let word: Word<Reason> = serde_json::from_str("\"preempted\"").unwrap();
        assert_eq!((word.to_string().as_str(), word.known()), ("preempted", None));
        assert_eq!(serde_json::to_string(&word).unwrap(), "\"preempted\"");
        let word: Word<Reason> = serde_json::from_str("\"time_\\u006cimit\"").unwrap();
        assert_eq!((word.to_string().as_str(), word == Reason::TimeLimit), ("time_limit", true));
        assert_eq!(serde_json::to_string(&word).unwrap(), "\"time_limit\"");
        assert!(serde_json::from_str::<Word<Reason>>("7").is_err());
    }
}
