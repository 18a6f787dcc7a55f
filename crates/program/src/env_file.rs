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
    let text = settings(&text);
    if let Some(line) = refused_line(&text) {
        anyhow::bail!(
            "{}: line {line} cannot be understood; it is NAME=value, and a value with spaces, quotes, $ or # stands between single quotes",
            cannot()
        );
    }
    // The library's own text would show the line, which may be a secret.
    dotenvy::from_read(text.as_bytes()).map_err(|_| anyhow::anyhow!(cannot()))
}

/// The lines of the file, empty where they set nothing. Each ends with a line break: the library does not understand
/// spaces at the end of a last line without one.
fn settings(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().flat_map(|line| [if sets_nothing(line) { "" } else { line }, "\n"]).collect()
}

/// The number of the line that is not understood; where quotes do not end, of the line in which they begin.
fn refused_line(text: &str) -> Option<usize> {
    let mut lines = Lines { rest: text.as_bytes(), given: 0 };
    let error = dotenvy::from_read_iter(&mut lines).find_map(Result::err)?;
    let dotenvy::Error::LineParse(part, _) = error else { return Some(lines.given) };
    let below_the_first = part.strip_suffix('\n').unwrap_or(&part).matches('\n').count();
    Some(lines.given.saturating_sub(below_the_first))
}

/// Gives one line at a time, so that who reads line by line has had no more than it has looked at.
struct Lines<'a> {
    rest: &'a [u8],
    /// How many lines were given.
    given: usize,
}

impl io::Read for Lines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let line = self.rest.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        let size = line.len().min(buffer.len());
        let (given, rest) = self.rest.split_at(size);
        buffer[..size].copy_from_slice(given);
        self.given += usize::from(given.ends_with(b"\n"));
        self.rest = rest;
        Ok(size)
    }
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
    fn a_line_that_is_not_understood_is_told_by_its_number() {
        let long = format!("A={}\nB=a b\nC=1\n", "a".repeat(100_000));
        for (text, line) in [
            ("A=1\n\n# a b\nB='a b'\n", None),
            ("A=1 ", None),
            ("\u{feff}A=1", None),
            ("A=", None),
            ("A B", Some(1)),
            ("# a b\nA=a b\nB=1\n", Some(2)),
            ("A='1\n2'\n\nexport B=a b # c\nC=1\n", Some(4)),
            ("A=1\r\nB=\"x\r\nC=1\r\n\r\n", Some(2)),
            (long.as_str(), Some(2)),
        ] {
            assert_eq!(refused_line(&settings(text)), line, "{}", &text[..text.len().min(30)]);
        }
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
