//! The name of a pool. It stands in submissions, in a site's file, and in the names of what runs for the pool.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A pool's name: 1 to 64 characters of `a-z 0-9 -`, the first a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolName(String);

/// Why a text is no name of a pool. It does not repeat the text: that may be long, or binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the name of a pool: 1 to {max} characters of a-z 0-9 -, the first a letter or a digit",
        max = PoolName::LENGTH_MAX)]
pub struct InvalidPoolName;

impl PoolName {
    /// The longest name.
    pub const LENGTH_MAX: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `default`: the one pool of a site that names none.
impl Default for PoolName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl FromStr for PoolName {
    type Err = InvalidPoolName;

    fn from_str(text: &str) -> Result<Self, InvalidPoolName> {
        let bytes = text.as_bytes();
        let well = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let all_well = bytes.iter().all(|byte| well(byte) || *byte == b'-');
        if bytes.first().is_some_and(well) && all_well && bytes.len() <= Self::LENGTH_MAX {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidPoolName)
        }
    }
}

impl TryFrom<String> for PoolName {
    type Error = InvalidPoolName;

    fn try_from(text: String) -> Result<Self, InvalidPoolName> {
        text.parse()
    }
}

impl From<PoolName> for String {
    fn from(name: PoolName) -> Self {
        name.0
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for name in ["a", "gpu", "gpu-a100", "0", &"x".repeat(64)] {
            assert_eq!(name.parse::<PoolName>().unwrap().as_str(), name);
        }
        for name in ["", "-gpu", "GPU", "gpu_1", "gpu.1", "a/b", "a b", "a\n", "é", &"x".repeat(65)] {
            assert_eq!(name.parse::<PoolName>(), Err(InvalidPoolName), "{name}");
        }
        assert_eq!(PoolName::default().as_str().parse::<PoolName>(), Ok(PoolName::default()));
    }
}
