//! The directories of a user, by the XDG Base Directory Specification. Its rule fits into one function, which reads the
//! environment as all settings are read; a library for it would bring the rules of other operating systems.

use std::path::PathBuf;

use crate::environment::Environment;

/// Within each of them.
const NAME: &str = "hpc-queue";

/// What a directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserDirectory {
    /// What a person writes.
    Config,
    /// What is to be kept.
    Data,
    /// What a program remembers.
    State,
}

/// Ours of these directories; `None` without `HOME`.
pub fn user_directory(what: UserDirectory) -> Option<PathBuf> {
    within(what, &Environment::of_this_process())
}

pub(crate) fn within(what: UserDirectory, environment: &Environment) -> Option<PathBuf> {
    let (variable, below_home) = match what {
        UserDirectory::Config => ("XDG_CONFIG_HOME", ".config"),
        UserDirectory::Data => ("XDG_DATA_HOME", ".local/share"),
        UserDirectory::State => ("XDG_STATE_HOME", ".local/state"),
    };
    // A relative path is to be ignored, says the specification.
    let absolute = |name| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))?;
    Some(base.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_goes_before_home_and_relative_paths_are_ignored() {
        let state = |variables: &[(&str, &str)]| within(UserDirectory::State, &Environment::of(variables));
        assert_eq!(state(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]), Some("/s/hpc-queue".into()));
        for ignored in ["", "s"] {
            let found = state(&[("HOME", "/h"), ("XDG_STATE_HOME", ignored)]);
            assert_eq!(found, Some("/h/.local/state/hpc-queue".into()));
        }
        assert_eq!(state(&[("HOME", "h")]), None);
    }
}
