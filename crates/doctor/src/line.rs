//! One line for each check, and all of them.

use std::fmt::Write as _;

use program::{Exit, OutputFormat, counted, escaped, escaped_json};
use serde::Serialize;

/// The version of the JSON. Its fields stay; others may come.
const VERSION: u64 = 1;

/// How a check has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is as it must be.
    Ok,
    /// It works, and something of it may be lost, or is not as it is meant.
    Warning,
    /// It does not work.
    Failure,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What was looked at, in a word or two.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub text: String,
    /// What to do now: a command to type, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Line {
    /// It is well.
    pub fn ok(check: &str, text: impl Into<String>) -> Self {
        Self { check: check.to_owned(), verdict: Verdict::Ok, text: text.into(), next: None }
    }

    /// It may lead to trouble.
    pub fn warning(check: &str, text: impl Into<String>, next: impl Into<String>) -> Self {
        let (check, verdict) = (check.to_owned(), Verdict::Warning);
        Self { check, verdict, text: text.into(), next: Some(next.into()) }
    }

    /// It does not work.
    pub fn failure(check: &str, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failure, ..Self::warning(check, text, next) }
    }
}

/// All that a look has found, in the order in which a person mends it.
#[derive(Debug, Default)]
pub struct Report(Vec<Line>);

/// The same for programs.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    v: u64,
    /// Is there no failure?
    ok: bool,
    checks: &'a [Line],
}

impl Report {
    /// Adds what was found.
    pub fn add(&mut self, lines: impl IntoIterator<Item = Line>) {
        self.0.extend(lines);
    }

    /// Puts the words that name the settings behind each of these commands, so that it finds them as it is printed.
    pub fn name_settings(&mut self, commands: &[&str], words: &str) {
        if words.is_empty() {
            return;
        }
        for next in self.0.iter_mut().filter_map(|line| line.next.as_mut()) {
            let is_all = |rest: &str| rest.is_empty() || rest.starts_with("   (");
            if let Some(command) = commands.iter().find(|command| next.strip_prefix(**command).is_some_and(is_all)) {
                next.insert_str(command.len(), &format!(" {words}"));
            }
        }
    }

    /// Is there no failure?
    pub fn is_well(&self) -> bool {
        self.0.iter().all(|line| line.verdict != Verdict::Failure)
    }

    /// 0 without a failure, 1 with one.
    pub fn exit(&self) -> Exit {
        if self.is_well() { Exit::Ok } else { Exit::Unexpected }
    }

    /// All of it, as text or JSON.
    pub fn shown(&self, format: OutputFormat) -> String {
        match format {
            OutputFormat::Text => self.text(),
            OutputFormat::Json => {
                let shown = Shown { v: VERSION, ok: self.is_well(), checks: &self.0 };
                let json = serde_json::to_string(&shown).expect("it holds only strings and numbers");
                escaped_json(&json) + "\n"
            }
        }
    }

    fn text(&self) -> String {
        let width = self.0.iter().map(|line| line.check.chars().count()).max().unwrap_or_default();
        let mut shown = String::new();
        for Line { check, verdict, text, next } in &self.0 {
            let _ = writeln!(shown, "{:<9}{check:<width$}  {}", verdict.word(), escaped(text));
            if let Some(next) = next {
                let _ = writeln!(shown, "{:<9}{:<width$}  next: {}", "", "", escaped(next));
            }
        }
        let count = |verdict| self.0.iter().filter(|line| line.verdict == verdict).count();
        let (failures, warnings) = (count(Verdict::Failure), count(Verdict::Warning));
        let _ = match (failures, warnings) {
            (0, 0) => writeln!(shown, "all is well"),
            _ => writeln!(shown, "{}, {}", counted(failures, "failure"), counted(warnings, "warning")),
        };
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[Line]) -> Report {
        let mut report = Report::default();
        report.add(lines.iter().cloned());
        report
    }

    #[test]
    fn a_person_and_a_program_read_the_same() {
        let report =
            report(&[Line::ok("clock", "is right"), Line::warning("hub", "is\naway", "wait"), Line::ok("a", "b")]);
        let text = "ok       clock  is right\nwarning  hub    is\\naway\n                next: wait\nok       a      b\n0 failures, 1 warning\n";
        assert_eq!(report.shown(OutputFormat::Text), text);
        let json = r#"{"v":1,"ok":true,"checks":[{"check":"clock","verdict":"ok","text":"is right"},{"check":"hub","verdict":"warning","text":"is\naway","next":"wait"},{"check":"a","verdict":"ok","text":"b"}]}"#;
        assert_eq!(report.shown(OutputFormat::Json), format!("{json}\n"));
    }

    #[test]
    fn a_command_finds_the_settings_as_it_is_printed() {
        let next = |next: &str, words: &str| {
            let mut report = report(&[Line::warning("a", "b", next)]);
            report.name_settings(&["x run", "x check"], words);
            report.0[0].next.clone().unwrap()
        };
        assert_eq!(next("x run", "--env-file 'a b'"), "x run --env-file 'a b'");
        assert_eq!(next("x check   (it says where)", "--env-file a"), "x check --env-file a   (it says where)");
        for other in ["x run --help   (it lists all)", "x running", "see x run"] {
            assert_eq!(next(other, "--env-file a"), other);
        }
        assert_eq!(next("x run", ""), "x run");
    }

    #[test]
    fn only_a_failure_is_one_for_a_script() {
        let warned = report(&[Line::warning("a", "b", "c")]);
        assert!(warned.is_well() && warned.exit() == Exit::Ok);
        let failed = report(&[Line::failure("a", "b", "c"), Line::ok("d", "e")]);
        assert!(!failed.is_well() && failed.exit() == Exit::Unexpected);
        assert!(report(&[]).shown(OutputFormat::Text).ends_with("all is well\n"));
    }
}
