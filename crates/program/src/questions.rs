//! What `setup` of every program does: it asks a newcomer a few questions, and writes the answers into a file of
//! settings.
//!
//! Invariants: a secret is not shown while it is typed; nothing is written over that a person has not agreed to, and of
//! a file that is there the other lines stay.

use std::io::{self, BufRead as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use files::Durability;
use protocol::text::escaped_lines;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::ask::{can_be_asked, confirmed};
use crate::exit::Failure;
use crate::settings::{Origin, Origins};
use crate::style::say;

/// How often an answer may be wrong.
const TRIES: usize = 3;

/// A larger file is none of settings.
const BYTES_MAX: u64 = 1_000_000;

/// One question, about one setting.
#[derive(Debug)]
pub struct Question<'a> {
    /// The setting, as `CF_ACCOUNT_ID`.
    pub setting: &'a str,
    /// The flag that answers it, as `--cf-account-id`.
    pub flag: &'a str,
    /// What is asked, on one line, without a question mark's worth of explanation.
    pub text: &'a str,
    /// What it is now, from wherever.
    pub known: Option<String>,
    /// May it stay empty?
    pub optional: bool,
    /// Is the answer a secret?
    pub secret: bool,
}

/// Asks one question after the other.
#[derive(Debug)]
pub struct Questions<'a> {
    origins: &'a Origins,
    count: usize,
    asked: usize,
    /// Is there a person who can answer?
    person: bool,
}

impl<'a> Questions<'a> {
    /// There will be so many.
    pub fn new(count: usize, origins: &'a Origins) -> Self {
        Self { origins, count, asked: 0, person: can_be_asked() }
    }

    /// The answer: what a flag says, or, where nobody can be asked, what is set; otherwise what a person says, for whom
    /// what is set is the answer to an empty line. `check` says at once what is wrong with it.
    pub fn ask(
        &mut self,
        question: &Question<'_>,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> anyhow::Result<Option<String>> {
        let Question { setting, flag, text, known, optional, secret } = question;
        self.asked += 1;
        let known = known.as_deref().map(str::trim).filter(|value| !value.is_empty());
        let by_flag = match self.origins.of(setting) {
            Some(Origin::Flag(_)) => true,
            Some(Origin::SecretFile { by, .. }) => matches!(**by, Origin::Flag(_)),
            _ => false,
        };
        if by_flag || !self.person {
            return match known {
                Some(value) => {
                    let wrong = |why| Failure::usage(format!("{} {why}", self.origins.named(setting)));
                    check(value).map_err(wrong)?;
                    Ok(Some(value.to_owned()))
                }
                None if *optional => Ok(None),
                None => Err(Failure::usage(format!("nobody can be asked here, and {setting} is not set: give {flag}"))),
            };
        }
        let shown = match known {
            Some(_) if *secret => " [as it is set]".to_owned(),
            Some(value) => format!(" [{value}]"),
            None if *optional => " [none]".to_owned(),
            None => String::new(),
        };
        for _ in 0..TRIES {
            let line = self.line(&format!("{}/{} {text}{shown}: ", self.asked, self.count), *secret)?;
            let answer = Some(line.trim()).filter(|line| !line.is_empty()).or(known);
            match answer {
                None if *optional => return Ok(None),
                None => say(&format!("{setting} is needed; Ctrl-C ends this, and nothing is written")),
                Some(answer) => match check(answer) {
                    Ok(()) => return Ok(Some(answer.to_owned())),
                    Err(why) => say(&format!("this {why}")),
                },
            }
        }
        Err(Failure::usage(format!("{setting} was not told; nothing is written")))
    }

    fn line(&self, question: &str, secret: bool) -> anyhow::Result<String> {
        let mut stderr = io::stderr();
        write!(stderr, "{}", escaped_lines(question))?;
        stderr.flush()?;
        let read = || {
            let mut line = String::new();
            match io::stdin().lock().read_line(&mut line)? {
                0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                _ => Ok(line),
            }
        };
        let line = if secret { without_echo(read) } else { read() };
        line.context("no answer can be read; nothing is written")
    }
}

/// While a secret is typed, the terminal shows nothing of it.
fn without_echo(read: impl FnOnce() -> io::Result<String>) -> io::Result<String> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    // What was typed ahead is kept: a paste may hold several answers.
    tcsetattr(&stdin, OptionalActions::Now, &silent)?;
    let line = read();
    tcsetattr(&stdin, OptionalActions::Now, &before)?;
    // The line end was not shown either.
    let _ = writeln!(io::stderr());
    line
}

/// Writes settings into a file for the eyes of its owner only. In one that is there, lines with these settings are
/// replaced and all others stay, once a person has agreed, or with `force`. False: a person has not agreed.
pub fn write_settings(path: &Path, settings: &[(&str, String)], force: bool) -> anyhow::Result<bool> {
    let before = match files::read_own_text(path, BYTES_MAX) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let text = with_settings(&before, settings)?;
    if text == before {
        return Ok(true);
    }
    write_agreed(path, &text, force)
}

/// Writes a file for the eyes of its owner only. One that is there is replaced once a person has agreed, or with
/// `force`. False: a person has not agreed.
pub fn write_agreed(path: &Path, text: &str, force: bool) -> anyhow::Result<bool> {
    let name = path.display();
    if !force && path.symlink_metadata().is_ok() {
        if !can_be_asked() {
            return Err(Failure::usage(format!("{name} is there, and nobody can be asked here: --force changes it")));
        }
        if !confirmed(&format!("{name} is there; change it?"))? {
            say(&format!("{name} stays as it is"));
            return Ok(false);
        }
    }
    files::replace(path, text.as_bytes(), Durability::Named).with_context(|| format!("cannot write {name}"))?;
    say(&format!("{name} is written"));
    Ok(true)
}

/// The text of a file of settings with these, in the places of earlier ones, or at its end.
fn with_settings(before: &str, settings: &[(&str, String)]) -> anyhow::Result<String> {
    let lines: Result<Vec<_>, _> = settings.iter().map(|(name, value)| line(name, value)).collect();
    let lines = lines.map_err(Failure::usage)?;
    let mut missing: Vec<bool> = vec![true; lines.len()];
    let mut text = String::new();
    for kept in before.lines() {
        let at = name_of(kept).and_then(|name| settings.iter().position(|(ours, _)| *ours == name));
        match at {
            // The first one, where there are several.
            Some(at) if std::mem::take(&mut missing[at]) => text.push_str(&lines[at]),
            Some(_) => continue,
            None => text.push_str(kept),
        }
        text.push('\n');
    }
    for (line, _) in lines.iter().zip(missing).filter(|(_, missing)| *missing) {
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

/// The name that a line sets.
fn name_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line);
    line.split_once('=').map(|(name, _)| name.trim())
}

/// A line that sets this, as a shell and our programs read it.
fn line(name: &str, value: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@+".contains(c);
    if value.contains(|c: char| c == '\'' || c.is_control()) {
        return Err(format!("{name} has a quote or a control character in it, which setup does not write"));
    }
    Ok(if value.chars().all(is_plain) { format!("{name}={value}") } else { format!("{name}='{value}'") })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn settings_take_the_place_of_earlier_ones_and_other_lines_stay() {
        let before = "# mine\nexport API_KEY=old\nRESULTS_DIR=/data\nAPI_KEY=twice\nEMPTY=\n";
        let settings = [("API_KEY", "a$b".to_owned()), ("EMPTY", "x y".to_owned()), ("NEW", "u:/1".to_owned())];
        let text = with_settings(before, &settings).unwrap();
        assert_eq!(text, "# mine\nAPI_KEY='a$b'\nRESULTS_DIR=/data\nEMPTY='x y'\nNEW=u:/1\n");
        assert_eq!(with_settings(&text, &settings).unwrap(), text, "the same again");
        for wrong in ["it's", "two\nlines"] {
            assert!(with_settings("", &[("A", wrong.to_owned())]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_is_private_and_none_is_changed_that_nobody_agreed_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        let settings = |value: &str| [("API_KEY", value.to_owned())];
        assert!(write_settings(&path, &settings("one"), false).unwrap());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        // Nothing is different: nobody needs to be asked.
        assert!(write_settings(&path, &settings("one"), false).unwrap());
        // A test has no terminal.
        let error = write_settings(&path, &settings("two"), false).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "API_KEY=one\n");
        assert!(write_settings(&path, &settings("two"), true).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "API_KEY=two\n");
    }

    #[test]
    fn without_a_person_what_is_set_counts_and_what_is_missing_names_its_flag() {
        let origins = Origins::default();
        let mut questions = Questions { origins: &origins, count: 1, asked: 0, person: false };
        let question = |known: Option<&str>, optional| Question {
            setting: "CF_ACCOUNT_ID",
            flag: "--cf-account-id",
            text: "The account",
            known: known.map(str::to_owned),
            optional,
            secret: false,
        };
        let fine = |_: &str| Ok(());
        assert_eq!(questions.ask(&question(Some(" a "), false), fine).unwrap().as_deref(), Some("a"));
        assert_eq!(questions.ask(&question(Some(" "), true), fine).unwrap(), None);
        let error = questions.ask(&question(None, false), fine).unwrap_err().to_string();
        assert!(error.contains("CF_ACCOUNT_ID is not set: give --cf-account-id"), "{error}");
        let wrong = questions.ask(&question(Some("a"), false), |_| Err("is wrong".into())).unwrap_err();
        assert_eq!(wrong.to_string(), "CF_ACCOUNT_ID is wrong");
    }
}
