//! What is secret: a file of lines `NAME=value`, which only its owner may read. Its values are variables of the
//! adapter, and stand nowhere else: they are taken out of all that the adapter says, before anything is done with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// A larger file is none.
const BYTES_MAX: u64 = 64 * 1024;

/// Shorter values are words like `true`, which stand everywhere.
const REDACTED_BYTES_MIN: usize = 8;

/// What stands in place of a secret.
const BLANK: &str = "[redacted]";

/// Secrets of one machine. It has no `Debug`, so that no log can have it.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    variables: BTreeMap<String, String>,
    /// What is taken out, the longest first.
    values: Vec<String>,
}

impl Secrets {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let mends = || format!("`chmod 600 {}` mends it", path.display());
        let cannot = || format!("the file of secrets {} cannot be used", path.display());
        let metadata = std::fs::symlink_metadata(path).with_context(cannot)?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777;
        ensure!(mode & 0o077 == 0, "{}: it is open to others than you (mode {mode:04o}); {}", cannot(), mends());
        let text = files::read_own_text(path, BYTES_MAX).with_context(cannot)?;
        Self::parse(&text).with_context(cannot)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut variables = BTreeMap::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // The line itself is not told.
            let Some((name, value)) = line.split_once('=') else { bail!("line {number} is not NAME=value") };
            let name = name.trim().trim_start_matches("export ").trim();
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let well = name.bytes().all(plain) && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
            ensure!(well, "line {number}: the name of a variable is letters, digits and _");
            let value = unquoted(value.trim());
            ensure!(!value.contains('\0'), "line {number}: the value has a NUL byte, which no variable can have");
            ensure!(
                variables.insert(name.to_owned(), value.to_owned()).is_none(),
                "line {number}: {name} is there twice"
            );
        }
        let long = variables.values().filter(|value| value.len() >= REDACTED_BYTES_MIN);
        let mut values: Vec<String> = long.flat_map(|value| forms(value)).collect();
        values.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        values.dedup();
        Ok(Self { variables, values })
    }

    /// As an adapter has them.
    pub(super) fn variables(&self) -> impl Iterator<Item = (OsString, OsString)> {
        self.variables.iter().map(|(name, value)| (name.into(), value.into()))
    }

    /// How long the longest is that is taken out.
    pub(super) fn longest(&self) -> usize {
        self.values.first().map_or(0, String::len)
    }

    /// A text without them.
    pub(super) fn redacted(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, value| text.replace(value.as_str(), BLANK))
    }

    /// A line of JSON without them, however they are written there. One that has none is as it was, to the last digit.
    pub(super) fn redacted_json(&self, line: String) -> String {
        if self.values.is_empty() {
            return line;
        }
        let Ok(mut value) = serde_json::from_str::<Value>(&line) else { return self.redacted(&line) };
        if self.redact(&mut value) || self.is_in(&line) { self.redacted(&value.to_string()) } else { line }
    }

    fn redact(&self, value: &mut Value) -> bool {
        match value {
            Value::Null | Value::Bool(_) => false,
            Value::Number(number) => {
                let mut text = number.to_string();
                let found = self.redact_text(&mut text);
                if found {
                    *value = Value::String(text);
                }
                found
            }
            Value::String(text) => self.redact_text(text),
            Value::Array(values) => values.iter_mut().fold(false, |found, value| self.redact(value) | found),
            Value::Object(fields) => {
                let mut found = false;
                for (name, mut value) in std::mem::take(fields) {
                    let mut name = name;
                    found |= self.redact_text(&mut name) | self.redact(&mut value);
                    fields.insert(name, value);
                }
                found
            }
        }
    }

    fn is_in(&self, text: &str) -> bool {
        self.values.iter().any(|value| text.contains(value.as_str()))
    }

    fn redact_text(&self, text: &mut String) -> bool {
        let found = self.is_in(text);
        if found {
            *text = self.redacted(text);
        }
        found
    }
}

/// A value as it is, and as it stands in JSON, and in JSON that is a text in JSON: adapters tell errors of vendors as
/// they came. JSON may have other letters than those of ASCII as they are or by number.
fn forms(value: &str) -> Vec<String> {
    let in_json = |text: &String| {
        let quoted = serde_json::to_string(text).expect("a text can be written as JSON");
        let text = quoted[1..quoted.len() - 1].to_owned();
        [by_number(&text), text]
    };
    let mut last = vec![value.to_owned()];
    let mut forms = last.clone();
    for _ in 0..2 {
        last = last.iter().flat_map(in_json).collect();
        forms.extend(last.clone());
    }
    forms
}

fn by_number(text: &str) -> String {
    let mut told = String::new();
    for c in text.chars() {
        if c.is_ascii() {
            told.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // A text takes all that is written to it.
                let _ = write!(told, "\\u{unit:04x}");
            }
        }
    }
    told
}

/// The value without quotes around it.
fn unquoted(value: &str) -> &str {
    let within = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn lines_are_variables_and_what_is_wrong_is_told_without_a_value() {
        let secrets =
            Secrets::parse("# ibm\nTOKEN = \"s3cr3t-token\"\n\nexport CRN='crn:v1:a=b'\nDEBUG=true\n").unwrap();
        let variables: Vec<_> = secrets.variables().map(|(name, value)| format!("{name:?}={value:?}")).collect();
        assert_eq!(variables, ["\"CRN\"=\"crn:v1:a=b\"", "\"DEBUG\"=\"true\"", "\"TOKEN\"=\"s3cr3t-token\""]);
        assert_eq!(secrets.redacted("a s3cr3t-token is true"), "a [redacted] is true");
        for text in ["precious", "1A=precious", "A=precious\nA=precious", "A B=precious", "=precious"] {
            let problem = format!("{:#}", Secrets::parse(text).err().unwrap());
            assert!(problem.contains("line ") && !problem.contains("precious"), "{problem}");
        }
    }

    #[test]
    fn a_secret_is_found_in_json_however_it_is_written_there() {
        let secrets = Secrets::parse("A=s3cr3t\"tök\\en\nB=12345678901\nC=short").unwrap();
        let redacted = |line: &str| secrets.redacted_json(line.to_owned());
        for line in [
            r#"{"a":"x s3cr3t\"tök\\en y"}"#,
            r#"{"a":["s3cr3t\u0022t\u00f6k\\en"]}"#,
            r#"{"s3cr3t\"tök\\en":{"b":1}}"#,
            r#"{"a":12345678901}"#,
            r#"{"a":"12345678901","b":"s3cr3t\"tök\\en"}"#,
            "no json 12345678901",
            r#"{"a":"it said {\"b\":\"s3cr3t\\\"tök\\\\en\"}"}"#,
            r#"{"a":"it said {\"b\":\"s3cr3t\\\"t\\u00f6k\\\\en\"}"}"#,
        ] {
            let text = redacted(line);
            assert!(text.contains("[redacted]"), "{text}");
            assert!(!text.contains("12345678901") && !text.contains("s3cr3t"), "{text}");
        }
        let exact = r#"{"short": 0.1000000000000000055511151231257827, "big": 123456789012345678901234567890}"#;
        assert_eq!(Secrets::default().redacted_json(exact.to_owned()), exact);
        let exact = exact.replace("12345678901", "2");
        assert_eq!(redacted(&exact), exact);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ibm.env");
        fs::write(&path, "TOKEN=precious-token").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let problem = format!("{:#}", Secrets::read(&path).err().unwrap());
        assert!(problem.contains("mode 0640") && problem.contains("chmod 600"), "{problem}");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Secrets::read(&path).unwrap().longest(), 14);
        let link = folder.path().join("link.env");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Secrets::read(&link).is_err(), "no link is followed");
    }
}
