//! Files that travel with a job: named by what is in them, placed by a path below the job's directory.
//!
//! In scope: names, and what may stand in them, on any system that a laptop or a cluster runs. Out of scope: where
//! files are kept and how they come there (`edge`, `client`, the daemon).
//!
//! Invariant: no path leads out of a job's directory, on any system.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;

/// The SHA-256 of a content, which is its name: 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// A text that is no such name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a SHA-256: 64 hexadecimal digits in lower case")]
pub struct InvalidDigest;

impl Digest {
    /// The name of a content by its SHA-256.
    pub fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// The SHA-256.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(InvalidDigest),
        };
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| InvalidDigest)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// A path below a job's directory, with `/` between its parts.
///
/// Only what every system takes for the same path: no part is empty, `.` or `..`, or longer than 255 bytes, none has a
/// control character, a backslash or a colon in it, and none ends with a dot or a space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkPath(String);

/// A text that is no such path. It does not repeat the text: that may be long, or hold anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a path below the job's directory: 1 to {max} bytes, parts of up to 255 with `/` between them, none of them \
     `.` or `..`, without control characters, `\\` and `:`, none ending with a dot or a space",
    max = limits::WORK_PATH_BYTES_MAX
)]
pub struct InvalidWorkPath;

impl WorkPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WorkPath {
    type Err = InvalidWorkPath;

    fn from_str(text: &str) -> Result<Self, InvalidWorkPath> {
        let part_is_well = |part: &str| {
            !part.is_empty()
                && part.len() <= 255
                && !matches!(part, "." | "..")
                && !part.ends_with(['.', ' '])
                && !part.contains(|c: char| crate::text::is_hazardous(c) || matches!(c, '\\' | ':'))
        };
        if text.len() <= limits::WORK_PATH_BYTES_MAX && text.split('/').all(part_is_well) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidWorkPath)
        }
    }
}

impl TryFrom<String> for WorkPath {
    type Error = InvalidWorkPath;

    fn try_from(text: String) -> Result<Self, InvalidWorkPath> {
        text.parse()
    }
}

impl From<WorkPath> for String {
    fn from(path: WorkPath) -> Self {
        path.0
    }
}

impl fmt::Display for WorkPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A content, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Content {
    /// What it is called.
    pub sha256: Digest,
    /// In bytes.
    pub size: u64,
}

/// A file that a job finds in its directory, or has left there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobFile {
    /// Where.
    pub path: WorkPath,
    /// In bytes.
    pub size: u64,
    /// What is in it.
    pub sha256: Digest,
    /// It is an archive (tar), and the path is the directory that is made of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unpack: bool,
}

impl JobFile {
    /// What is in it.
    pub fn content(&self) -> Content {
        Content { sha256: self.sha256, size: self.size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_directory() {
        for path in ["a", "a/b.txt", ".hidden", "-x", "é/ü", "a b", &"x".repeat(255), "..a", "a/...b"] {
            assert_eq!(path.parse::<WorkPath>().unwrap().as_str(), path);
        }
        let long = "x/".repeat(600) + "x";
        for path in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/..",
            "../a",
            "a/../b",
            "a/./b",
            "a\\b",
            "..\\a",
            "c:",
            "c:\\a",
            "a\n",
            "a\0",
            "\u{202e}a",
            "a.",
            "a ",
            "...",
            &"x".repeat(256),
            &long,
        ] {
            assert_eq!(path.parse::<WorkPath>(), Err(InvalidWorkPath), "{path:?}");
        }
    }

    #[test]
    fn a_content_has_one_name() {
        let name = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(name.parse::<Digest>().unwrap().to_string(), name);
        for text in ["", "e3", &name.to_uppercase(), &format!("{name}0"), &name.replace('0', "g")] {
            assert_eq!(text.parse::<Digest>(), Err(InvalidDigest), "{text}");
        }
        let file = format!(r#"{{"path":"a/b","size":7,"sha256":"{name}"}}"#);
        assert_eq!(serde_json::to_string(&serde_json::from_str::<JobFile>(&file).unwrap()).unwrap(), file);
    }
}
