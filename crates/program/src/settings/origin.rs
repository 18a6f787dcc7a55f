//! Where the value of a setting comes from, in words that lead a person to it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where the value of a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag, as it is written: `--results-dir`.
    Flag(String),
    /// The variable with this name.
    Environment(String),
    /// A line of a settings file, which uses this name.
    File {
        /// The name in that line.
        name: String,
        /// The file, as it was named.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A file of its own, for a secret.
    SecretFile {
        /// Which one.
        path: PathBuf,
        /// What names it.
        by: Box<Origin>,
    },
}

impl Origin {
    /// Which of two goes first when they set the same thing by different names; a larger one does.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Flag(_) => 2,
            Self::Environment(_) => 1,
            Self::File { .. } => 0,
            Self::SecretFile { by, .. } => by.rank(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Environment(name) => write!(f, "{name} from the environment"),
            Self::File { name, path, line } => write!(f, "{name} from {} line {line}", path.display()),
            Self::SecretFile { path, by } => write!(f, "the file {} ({by})", path.display()),
        }
    }
}

/// Where the settings of a command come from. What is not here has its default, or none.
#[derive(Debug, Default)]
pub struct Origins(pub(super) BTreeMap<String, Origin>);

impl Origins {
    /// Where a setting comes from, by the name in its help.
    pub fn of(&self, setting: &str) -> Option<&Origin> {
        self.0.get(setting)
    }

    /// The subject of a sentence about a setting: `RESULTS_DIR from .env line 3`.
    pub fn named(&self, setting: &str) -> String {
        self.of(setting).map_or_else(|| setting.to_owned(), Origin::to_string)
    }

    /// All that was given, one a line, without the values.
    pub fn listed(&self) -> String {
        let line = |(setting, origin): (&String, &Origin)| match origin {
            Origin::Flag(flag) => format!("  {setting} by {flag}\n"),
            origin => format!("  {origin}\n"),
        };
        self.0.iter().map(line).collect()
    }
}
