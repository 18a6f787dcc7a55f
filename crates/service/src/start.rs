//! What a service starts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A program with all that it is started with. Nothing of a person's shell is there besides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The absolute path of the program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The absolute path of the directory that it works in.
    pub directory: String,
    /// Variables besides those that every service has.
    pub environment: BTreeMap<String, String>,
}

/// Something that cannot stand in the file of a service manager.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// A line break, say.
    #[error("{0:?} has a control character, which no file of a service can hold; use another name")]
    Control(String),
    /// It means another directory wherever it is read.
    #[error("{0:?} is no absolute path, which a service needs")]
    Relative(String),
    /// systemd reads it in another way.
    #[error(
        "{0:?} ends with a backslash or a space, which systemd does not take as a part of a directory's name; use another directory"
    )]
    End(String),
    /// systemd reads it in another way.
    #[error("{0:?} has a dollar sign, which systemd does not take in the name of a program; put the program elsewhere")]
    Dollar(String),
}

impl Start {
    /// What of it no file can hold.
    pub fn check(&self) -> Result<(), Unwritable> {
        let variables = self.environment.iter().flat_map(|(name, value)| [name, value]);
        let texts = [&self.program, &self.directory].into_iter().chain(&self.arguments).chain(variables);
        if let Some(text) = texts.into_iter().find(|text| text.contains(char::is_control)) {
            return Err(Unwritable::Control(text.clone()));
        }
        match [&self.program, &self.directory].into_iter().find(|path| !path.starts_with('/')) {
            Some(path) => Err(Unwritable::Relative(path.clone())),
            None => Ok(()),
        }
    }

    /// The same as a line for a shell.
    pub fn to_shell_line(&self) -> String {
        let variables = self.environment.iter().map(|(name, value)| format!("{name}={}", shell_words::quote(value)));
        let mut words: Vec<String> = variables.collect();
        if !words.is_empty() {
            words.insert(0, "env".to_owned());
        }
        let program = [&self.program].into_iter().chain(&self.arguments);
        words.extend(program.map(|word| shell_words::quote(word).into_owned()));
        format!("cd {} && exec {}", shell_words::quote(&self.directory), words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_file_can_hold_is_refused() {
        let start = Start { program: "/bin/p".into(), directory: "/d".into(), ..Start::default() };
        assert_eq!(start.check(), Ok(()));
        let wrong = Start { arguments: vec!["a\nExecStartPre=/bin/evil".into()], ..start.clone() };
        assert!(matches!(wrong.check(), Err(Unwritable::Control(_))));
        let wrong = Start { environment: [("A".into(), "\u{1b}".into())].into(), ..start.clone() };
        assert!(matches!(wrong.check(), Err(Unwritable::Control(_))));
        let wrong = Start { program: "p".into(), ..start };
        assert_eq!(wrong.check(), Err(Unwritable::Relative("p".into())));
    }

    #[test]
    fn a_shell_reads_each_word_as_it_is() {
        let start = Start {
            program: "/a b/p".into(),
            arguments: vec!["--x".into(), "$HOME's".into()],
            directory: "/d e".into(),
            environment: [("A".into(), "1 2".into())].into(),
        };
        let line = start.to_shell_line();
        assert_eq!(
            shell_words::split(&line).unwrap(),
            ["cd", "/d e", "&&", "exec", "env", "A=1 2", "/a b/p", "--x", "$HOME's"]
        );
    }
}
