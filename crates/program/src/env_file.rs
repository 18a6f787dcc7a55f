//! The `.env` file: settings between the environment and the defaults.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;

/// A larger settings file is none.
const BYTES_MAX: u64 = 1_000_000;

/// Reads the file that `--env-file FILE` (or `--env-file=FILE`) among `arguments` names, else `.env` in the current
/// directory, where there is one. What the environment holds already stays as it is, and a line `NAME=` sets nothing.
///
/// This is called before the arguments are parsed, and before any thread starts, because the parser takes its
/// defaults from the environment.
///
/// Directories above are not searched, and a `.env` that others may write is refused: these settings name the program
/// that jobs run and the address that the token is sent to.
pub fn load_env_file(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<()> {
    let (path, named) = match named_file(arguments) {
        Some(path) => (path, true),
        None => (PathBuf::from(".env"), false),
    };
    let cannot = || format!("cannot read the settings file {}", path.display());
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !named => return Ok(()),
        Err(error) => return Err(error).with_context(cannot),
    };
    let metadata = file.metadata().with_context(cannot)?;
    if !named && metadata.permissions().mode() & 0o022 != 0 {
        anyhow::bail!(
            "the settings file {} can be written by others; `chmod go-w {0}`, or name it by --env-file",
            path.display()
        );
    }
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).with_context(cannot)?;
    let set: Vec<&str> = text.lines().map(|line| if sets_nothing(line) { "" } else { line }).collect();
    dotenvy::from_read(set.join("\n").as_bytes()).map_err(|error| match error {
        // The text of the line stays out of the message: it may be a secret.
        dotenvy::Error::LineParse(_, _) => anyhow::anyhow!(
            "{}: a line cannot be understood; it is NAME=value, and a value with spaces, quotes, $ or # stands between single quotes",
            cannot()
        ),
        other => anyhow::Error::new(other).context(cannot()),
    })
}

/// A line `NAME=`, as a template leaves it.
fn sets_nothing(line: &str) -> bool {
    let Some((_, value)) = line.split_once('=') else { return false };
    let value = value.trim();
    value.is_empty() || value.starts_with('#')
}

fn named_file(arguments: impl IntoIterator<Item = OsString>) -> Option<PathBuf> {
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let Some(text) = argument.to_str() else { continue };
        if text == "--" {
            return None;
        }
        if text == "--env-file" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = text.strip_prefix("--env-file=") {
            return Some(PathBuf::from(path));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_set_nothing() {
        assert!(["A=", "A= ", "export A=  # fill in", "A=#"].iter().all(|line| sets_nothing(line)));
        assert!(["A=1", "A=' '", "# A", "A", "A==", "A='#'"].iter().all(|line| !sets_nothing(line)));
    }

    #[test]
    fn the_named_file_is_found_among_the_arguments() {
        let named = |words: &[&str]| named_file(words.iter().map(OsString::from));
        assert_eq!(named(&["run", "--env-file", "a"]), Some("a".into()));
        assert_eq!(named(&["--env-file=b", "run"]), Some("b".into()));
        assert_eq!(named(&["run", "--", "--env-file", "a"]), None);
        assert_eq!(named(&["run", "--env-file"]), None);
    }
}
