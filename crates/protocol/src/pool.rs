//! The names of pools, sites and services. They stand in submissions, in a site's file, and in the names of what runs
//! for a pool.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Plain text that stands in names of files, processes and batch jobs, too.
fn is_plain(text: &str, length_max: usize) -> bool {
    let bytes = text.as_bytes();
    let well = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let all_well = bytes.iter().all(|byte| well(byte) || *byte == b'-');
    bytes.first().is_some_and(well) && all_well && bytes.len() <= length_max
}

/// A checked text, and what is wrong with one that is none.
macro_rules! plain_name {
    ($(#[$doc:meta])* $name:ident, $invalid:ident, $what:literal, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        /// Why a text is no such name. It does not repeat the text: that may be long, or binary.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
        #[error("must be the name of a {}: 1 to {} characters of a-z 0-9 -, the first a letter or a digit",
                $what, $name::LENGTH_MAX)]
        pub struct $invalid;

        impl $name {
            /// The longest name.
            pub const LENGTH_MAX: usize = $length;

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = $invalid;

            fn from_str(text: &str) -> Result<Self, $invalid> {
                if is_plain(text, Self::LENGTH_MAX) { Ok(Self(text.to_owned())) } else { Err($invalid) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = $invalid;

            fn try_from(text: String) -> Result<Self, $invalid> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

plain_name! {
    /// A pool's name: 1 to 64 characters of `a-z 0-9 -`, the first a letter or a digit.
    PoolName, InvalidPoolName, "pool", 64
}

plain_name! {
    /// A site's name, by the same rule. It is what people call one cluster.
    SiteName, InvalidSiteName, "site", 64
}

plain_name! {
    /// A service's name, by the same rule; shorter, because the ids of its instances hold it.
    ServiceName, InvalidServiceName, "service", 32
}

/// `default`: the one pool of a site that names none.
impl Default for PoolName {
    fn default() -> Self {
        Self("default".to_owned())
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
            assert_eq!(name.parse::<SiteName>(), Err(InvalidSiteName), "{name}");
            assert_eq!(name.parse::<ServiceName>(), Err(InvalidServiceName), "{name}");
        }
        assert!("x".repeat(32).parse::<ServiceName>().is_ok() && "x".repeat(33).parse::<ServiceName>().is_err());
        assert_eq!(PoolName::default().as_str().parse::<PoolName>(), Ok(PoolName::default()));
    }
}
