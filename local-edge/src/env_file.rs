//! The `.env` file that the other programs read.
//!
//! Invariant: nobody's own settings are lost. A file that sets one of our names and was not written here is left alone,
//! and the server does not start. Lines with other settings are kept, and a copy of `.env.example` is filled in.

use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::data_dir::write_private;

/// A larger file is none of settings.
const BYTES_MAX: u64 = 1_000_000;

const MARK: &str = "# Written by local-edge at each start. Lines with other settings are kept.";

/// Writes `settings` into the file, as a whole.
pub(crate) fn write(path: &Path, settings: &[(&str, String)]) -> anyhow::Result<()> {
    let before = match files::read_own_text(path, BYTES_MAX) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let ours = |line: &&str| name(line).is_some_and(|name| settings.iter().any(|(ours, _)| *ours == name));
    let written_here = before.lines().any(|line| line == MARK);
    let set = |line: &&str| ours(line) && line.split_once('=').is_some_and(|(_, value)| !value.trim().is_empty());
    if !written_here && let Some(line) = before.lines().find(set) {
        bail!(
            "{} holds {} and was not written by local-edge; move the file away, or name another one with --env-file",
            path.display(),
            name(line).unwrap_or_default()
        );
    }
    let mut text = format!("{MARK}\n");
    for (name, value) in settings {
        text.push_str(&format!("{name}={}\n", quoted(value)));
    }
    for line in before.lines().filter(|line| *line != MARK && !ours(line)) {
        text.push_str(line);
        text.push('\n');
    }
    write_private(path, &text)
}

/// The name that a line sets.
fn name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line);
    line.split_once('=').map(|(name, _)| name.trim())
}

/// Single quotes keep a shell and a `.env` reader from giving a meaning to `$`, `#` and the like. Values hold no
/// quotes.
fn quoted(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    if value.bytes().all(plain) { value.to_owned() } else { format!("'{value}'") }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn own_settings_are_replaced_and_other_lines_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        fs::write(&path, "# mine\nAPI_KEY=\nRESULTS_DIR=/data\n").unwrap();
        write(&path, &[("API_KEY", "a$b".to_owned()), ("PRODUCER_URL", "http://[::1]:1".to_owned())]).unwrap();
        write(&path, &[("API_KEY", "c".to_owned()), ("PRODUCER_URL", "http://127.0.0.1:2".to_owned())]).unwrap();
        let text = format!("{MARK}\nAPI_KEY=c\nPRODUCER_URL=http://127.0.0.1:2\n# mine\nRESULTS_DIR=/data\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(quoted("a$b"), "'a$b'");
    }

    #[test]
    fn settings_of_somebody_else_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        for text in ["API_KEY=production\n", " export API_KEY = production"] {
            fs::write(&path, text).unwrap();
            let error = write(&path, &[("API_KEY", "c".to_owned())]).unwrap_err().to_string();
            assert!(error.contains("holds API_KEY and was not written by local-edge"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
