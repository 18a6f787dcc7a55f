//! The `.env` file: settings between the environment and the defaults.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context as _;

/// Reads the file that `--env-file FILE` (or `--env-file=FILE`) among `arguments` names, else `.env` in the current
/// directory or the nearest one above that has it. What the environment holds already stays as it is.
///
/// This is called before the arguments are parsed, and before any thread starts, because the parser takes its
/// defaults from the environment.
pub fn load_env_file(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<()> {
    match named_file(arguments) {
        Some(path) => {
            dotenvy::from_path(&path).with_context(|| format!("cannot read the settings file {}", path.display()))
        }
        None => match dotenvy::dotenv() {
            Ok(_) => Ok(()),
            Err(error) if error.not_found() => Ok(()),
            Err(error) => Err(error).context("cannot read the settings file .env"),
        },
    }
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
    fn the_named_file_is_found_among_the_arguments() {
        let named = |words: &[&str]| named_file(words.iter().map(OsString::from));
        assert_eq!(named(&["run", "--env-file", "a"]), Some("a".into()));
        assert_eq!(named(&["--env-file=b", "run"]), Some("b".into()));
        assert_eq!(named(&["run", "--", "--env-file", "a"]), None);
        assert_eq!(named(&["run", "--env-file"]), None);
    }
}
