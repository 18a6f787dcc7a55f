//! Files that travel with a job: named by what is in them, placed by a path below the job's directory.
//!
//! In scope: names, and what may stand in them, on any system that a laptop or a cluster runs. Out of scope: where
//! files are kept and how they come there (`edge`, `client`, the daemon).
//!
//! Invariant: no path leads out of a job's directory, on any system.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::fields::{Fields, Unknown};
use crate::{InvalidJob, Word, limits};

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
    #[serde(deserialize_with = "rules::any_bytes")]
    pub size: u64,
}

/// A file that a job finds in its directory, or has left there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobFile {
    /// Where.
    pub path: WorkPath,
    /// In bytes.
    #[serde(deserialize_with = "rules::bytes")]
    #[cfg_attr(feature = "schema", schemars(range(max = limits::FILE_BYTES_MAX)))]
    pub size: u64,
    /// What is in it.
    pub sha256: Digest,
    /// It is a pack, which is an archive (tar) of many files: each has its own path below the job's directory in it,
    /// and is found there. The path of the pack is only what the pack is called.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schemars(extend("type" = ["boolean", "null"])))]
    pub pack: bool,
    /// The job does not change it: a container sees what the cluster keeps of it, and it is not copied for each job.
    /// It is no output, whatever the patterns say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", schemars(extend("type" = ["boolean", "null"])))]
    pub read_only: bool,
}

impl JobFile {
    /// What is in it.
    pub fn content(&self) -> Content {
        Content { sha256: self.sha256, size: self.size }
    }
}

/// What a job leaves that its user wants to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Outputs {
    /// Which files, as paths below the job's directory: `*` and `?` stand for anything but `/`, `**` for any number of
    /// directories. A directory stands for all that is in it.
    #[serde(deserialize_with = "rules::patterns")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = limits::OUTPUT_PATTERNS_MAX)))]
    pub patterns: Vec<WorkPath>,
    /// After which ends; after a success when this is absent.
    #[serde(default, deserialize_with = "rules::when", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<OutputsWhen>"))]
    pub when: Option<Word<OutputsWhen>>,
}

/// After which ends of a job its files are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OutputsWhen {
    /// When its task has ended well.
    Success,
    /// However it ended.
    Always,
}

impl Outputs {
    /// Are the files wanted of a job whose task failed?
    pub fn are_always_wanted(&self) -> bool {
        self.when.as_ref().is_some_and(|when| *when == OutputsWhen::Always)
    }

    /// Reads an object. The error is the end of a sentence about the field that it is the value of.
    pub(crate) fn read(text: &str, strict: bool) -> Result<Self, String> {
        let fields = Fields::find(text)
            .map_err(|_| r#"must be an object such as {"patterns": ["plots/*.png"], "when": "always"}"#.to_owned())?;
        let unknown = if strict { Unknown::RefusedIn("outputs") } else { Unknown::Passed };
        let outputs: Self = fields.read(unknown).map_err(of_field)?;
        if strict && outputs.when.as_ref().is_some_and(|when| when.known().is_none()) {
            return Err("has `when`, which must be success or always".to_owned());
        }
        Ok(outputs)
    }
}

/// What is wrong with a field of an object that is a field itself.
fn of_field(error: InvalidJob) -> String {
    match error {
        InvalidJob::Field { field, problem } => format!("has `{field}`, which {problem}"),
        other => other.to_string(),
    }
}

/// Reads the files of a job. The error is the end of a sentence about the field that they are the value of.
pub(crate) fn read_files(text: &str, strict: bool) -> Result<Vec<JobFile>, String> {
    let example = r#"must be a list of files such as {"path": "data/big.dat", "size": 7, "sha256": "…"}"#;
    let given: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| example.to_owned())?;
    if given.len() > limits::FILES_COUNT_MAX {
        return Err(format!(
            "has {} files, and may have {} at the most; send many as a pack",
            given.len(),
            limits::FILES_COUNT_MAX
        ));
    }
    let unknown = || if strict { Unknown::RefusedIn("a file") } else { Unknown::Passed };
    let file = |file: &&RawValue| {
        let fields = Fields::find(file.get()).map_err(|_| example.to_owned())?;
        fields.read(unknown()).map_err(of_field)
    };
    let files: Vec<JobFile> = given.iter().map(file).collect::<Result<_, String>>()?;
    if let Some(file) = files.iter().find(|file| strict && file.pack && file.read_only) {
        return Err(format!(
            "has `{}`, which is a pack and so cannot be `read_only`: what is in it is unpacked",
            file.path
        ));
    }
    match meets(files.iter().filter(|file| !file.pack).map(|file| &file.path)) {
        Some((one, other)) if one == other => Err(format!("has `{one}` twice")),
        Some((one, other)) => {
            Err(format!("has `{one}` and `{other}`, which cannot be beside each other on every system"))
        }
        None => Ok(files),
    }
}

/// Two paths that are one file on a system that does not tell the case of letters apart, or of which one would be a
/// directory and a file.
pub fn meets<'a>(paths: impl Iterator<Item = &'a WorkPath>) -> Option<(&'a WorkPath, &'a WorkPath)> {
    let mut seen: BTreeMap<String, &WorkPath> = BTreeMap::new();
    for path in paths {
        if let Some(other) = seen.insert(format!("{}/", path.as_str().to_lowercase()), path) {
            return Some((other, path));
        }
    }
    // What follows a path in this order and begins with it lies within it.
    seen.iter()
        .zip(seen.iter().skip(1))
        .find(|((one, _), (other, _))| other.starts_with(*one))
        .map(|(one, other)| (*one.1, *other.1))
}

/// What is right in a field. What a rule says follows the field's name.
mod rules {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer};

    use super::{InvalidWorkPath, OutputsWhen, WorkPath};
    use crate::{Word, limits};

    pub(super) fn patterns<'de, D: Deserializer<'de>>(given: D) -> Result<Vec<WorkPath>, D::Error> {
        let max = limits::OUTPUT_PATTERNS_MAX;
        let must = || D::Error::custom(format!("must be a list of 1 to {max} patterns such as \"plots/*.png\""));
        let given = Vec::<String>::deserialize(given).map_err(|_| must())?;
        if given.is_empty() || given.len() > max {
            return Err(must());
        }
        // A directory may be written as such.
        let pattern = |text: &String| text.strip_suffix('/').unwrap_or(text).parse();
        let patterns: Result<_, InvalidWorkPath> = given.iter().map(pattern).collect();
        patterns.map_err(|_| D::Error::custom(format!("has a pattern that {InvalidWorkPath}")))
    }

    pub(super) fn bytes<'de, D: Deserializer<'de>>(given: D) -> Result<u64, D::Error> {
        match u64::deserialize(given) {
            Ok(size) if size <= limits::FILE_BYTES_MAX => Ok(size),
            _ => Err(D::Error::custom(format!("must be a number of bytes from 0 to {}", limits::FILE_BYTES_MAX))),
        }
    }

    /// Who reads it says how large it may be.
    pub(super) fn any_bytes<'de, D: Deserializer<'de>>(given: D) -> Result<u64, D::Error> {
        u64::deserialize(given).map_err(|_| D::Error::custom("must be a number of bytes"))
    }

    pub(super) fn when<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Word<OutputsWhen>>, D::Error> {
        Word::deserialize(given).map(Some).map_err(|_| D::Error::custom("must be success or always"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_beside_each_other_are_found() {
        let met = |paths: &[&str]| {
            let paths: Vec<WorkPath> = paths.iter().map(|path| path.parse().unwrap()).collect();
            meets(paths.iter()).map(|(one, other)| format!("{one} {other}"))
        };
        assert_eq!(met(&["a", "b", "a.b", "ab/c", "c/d", "c/e"]), None);
        assert_eq!(met(&["a", "b", "a"]).as_deref(), Some("a a"));
        assert_eq!(met(&["É/x", "é/X"]).as_deref(), Some("É/x é/X"));
        assert_eq!(met(&["a/b/c", "a-b", "a", "a.b"]).as_deref(), Some("a a/b/c"));
    }

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
        let read_only = file.replace('}', r#","read_only":true}"#);
        let read = serde_json::from_str::<JobFile>(&read_only).unwrap();
        assert!(read.read_only && serde_json::to_string(&read).unwrap() == read_only);
    }

    #[test]
    fn a_pack_is_not_read_only() {
        let name = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let files = format!(r#"[{{"path":"a.tar","size":7,"sha256":"{name}","pack":true,"read_only":true}}]"#);
        assert!(read_files(&files, true).unwrap_err().contains("`a.tar`, which is a pack"));
        // Somebody newer may mean something by it.
        assert_eq!(read_files(&files, false).unwrap().len(), 1);
    }
}
