//! Machines and tasks by name. Both stand in paths of requests.

use std::fmt;
use std::str::FromStr;

/// The name of a machine that a site offers, as `ibm_torino`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QpuName(String);

/// Why a text is no such name. It does not repeat the text: that may be long, or binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 characters of A-Z a-z 0-9 . _ -, the first a letter or a digit")]
pub struct InvalidName;

impl QpuName {
    /// The longest name.
    pub const LENGTH_MAX: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for QpuName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let bytes = text.as_bytes();
        let well = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let starts_well = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
        let is_well = starts_well && bytes.len() <= Self::LENGTH_MAX && bytes.iter().all(well);
        if is_well { Ok(Self(text.to_owned())) } else { Err(InvalidName) }
    }
}

impl fmt::Display for QpuName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A task: 32 hexadecimal digits, which nobody can guess.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(String);

impl TaskId {
    /// A new id.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the vendor is given along with the task, to find it by. It is the same on every try.
    pub fn tag(&self) -> String {
        format!("hpc-queue-{}", self.0)
    }
}

impl FromStr for TaskId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let well = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if well { Ok(Self(text.to_owned())) } else { Err(InvalidName) }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_become_another_path_is_no_name() {
        let long = "a".repeat(65);
        for text in ["", ".", "..", "a/b", "-a", "_a", "a b", "ä", "a\0", &long] {
            assert_eq!(text.parse::<QpuName>(), Err(InvalidName), "{text:?}");
            assert_eq!(text.parse::<TaskId>(), Err(InvalidName), "{text:?}");
        }
        assert_eq!("ibm_torino-2.1".parse::<QpuName>().unwrap().as_str(), "ibm_torino-2.1");
        let id = TaskId::from_random([10; 16]);
        assert_eq!(id.as_str().parse::<TaskId>().unwrap(), id);
        assert_eq!(id.tag(), format!("hpc-queue-{}", "0a".repeat(16)));
    }
}
