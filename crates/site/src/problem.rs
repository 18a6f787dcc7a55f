//! What is wrong in a file, and where: line and column, as editors count them.

use std::fmt;
use std::ops::Range;

use protocol::text::escaped;

/// A place in a file. Both count from 1; a column is a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

impl Position {
    /// The place of a byte in a text.
    pub(crate) fn of(offset: usize, text: &str) -> Self {
        // A byte-order mark is no character to an editor.
        let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let mut end = offset.clamp(start, text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &text[start..end];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { line, column }
    }
}

/// As compilers write it, so that editors find it: `12:9`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One thing that is wrong, as a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub position: Position,
    /// What, and what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.position, self.text)
    }
}

/// All that is wrong in a file, in the order of the file; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// One line for each, as `site.toml:12:9: …`; a line break in a name in the file makes no other one.
    pub fn in_file(&self, name: &str) -> String {
        let lines: Vec<String> = self.0.iter().map(|problem| escaped(&format!("{name}:{problem}"))).collect();
        lines.join("\n")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// More than anybody reads; a file that is none has one in every line.
const TOLD_MAX: usize = 100;

/// What is found while a file is read.
pub(crate) struct Found<'a> {
    text: &'a str,
    problems: Vec<Problem>,
    more: usize,
}

impl<'a> Found<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, problems: Vec::new(), more: 0 }
    }

    /// Something is wrong at this place.
    pub(crate) fn say(&mut self, at: &Range<usize>, text: impl Into<String>) {
        if self.problems.len() == TOLD_MAX {
            self.more += 1;
            return;
        }
        let problem = Problem { position: self.position(at), text: text.into() };
        // Two checks may meet the same thing.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    pub(crate) fn position(&self, at: &Range<usize>) -> Position {
        Position::of(at.start, self.text)
    }

    /// All of it, in the order of the file.
    pub(crate) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort();
        if let (Some(last), 1..) = (self.problems.last(), self.more) {
            let text = format!("{} more problems are told when these are gone", self.more);
            self.problems.push(Problem { position: last.position, text });
        }
        self.problems
    }
}

/// The one of `names` that is probably meant by a word.
pub(crate) fn meant<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let word = word.to_ascii_lowercase();
    let likeness = |name: &str| {
        let wrong = strsim::damerau_levenshtein(&word, name);
        let begins = word.len() >= 3 && name.starts_with(&word) || name.len() >= 3 && word.starts_with(name);
        (wrong <= name.len().div_ceil(4) || begins).then_some(wrong)
    };
    names.into_iter().filter_map(|name| Some((likeness(name)?, name))).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_what_an_editor_shows() {
        for (text, offset, place) in [
            ("", 0, "1:1"),
            ("ab", 1, "1:2"),
            ("ab", 9, "1:3"),
            ("é = 1\nb", 3, "1:3"),
            ("é = 1\nb", 1, "1:1"),
            ("a\r\nbc", 4, "2:2"),
            ("a\n\n", 3, "3:1"),
            ("\u{feff}ab", 4, "1:2"),
            ("\u{feff}ab", 0, "1:1"),
        ] {
            assert_eq!(Position::of(offset, text).to_string(), place, "{text:?} {offset}");
        }
    }

    #[test]
    fn the_name_that_is_meant() {
        let names = ["image", "slot", "memory", "cpus", "capacity"];
        for (word, name) in [
            ("imge", Some("image")),
            ("Image", Some("image")),
            ("cpu", Some("cpus")),
            ("mem", Some("memory")),
            ("slots", Some("slot")),
            ("capactiy", Some("capacity")),
            ("x", None),
            ("partition", None),
        ] {
            assert_eq!(meant(word, names), name, "{word}");
        }
    }
}
