//! What is wrong with a document, in words for the person who wrote it.

use std::fmt;

use protocol::text::escaped;

use crate::limits::PROBLEMS_TOLD_MAX;

/// One thing that is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The id of the task that has it; none where it is the document's.
    pub task: Option<String>,
    /// What, and what to do. Names of the document in it are shortened and harmless.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.task {
            Some(task) => write!(f, "task {}: {}", shown(task), self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// All that is wrong with a document, in the order in which it was found; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The first of them.
    pub told: Vec<Problem>,
    /// How many there are besides those.
    pub more: usize,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.told.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))?;
        match self.more {
            0 => Ok(()),
            more => write!(f, "\n{more} more problems are told when these are gone"),
        }
    }
}

impl std::error::Error for Problems {}

/// What is found while a document is read.
#[derive(Debug, Default)]
pub(crate) struct Found {
    told: Vec<Problem>,
    more: usize,
}

impl Found {
    /// Something is wrong with the document. The text is made only if it is told.
    pub(crate) fn say(&mut self, text: impl FnOnce() -> String) {
        self.add(None, text);
    }

    /// Something is wrong with a task.
    pub(crate) fn of(&mut self, task: &str, text: impl FnOnce() -> String) {
        self.add(Some(task), text);
    }

    fn add(&mut self, task: Option<&str>, text: impl FnOnce() -> String) {
        if self.told.len() == PROBLEMS_TOLD_MAX {
            self.more += 1;
        } else {
            // An id may be as long as the document.
            let task = task.map(|task| task.chars().take(SHOWN_MAX + 1).collect());
            self.told.push(Problem { task, text: text() });
        }
    }

    /// Is nobody told of what is found from now on?
    pub(crate) fn is_full(&self) -> bool {
        self.told.len() == PROBLEMS_TOLD_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// What was found, if anything was.
    pub(crate) fn into_result(self) -> Result<(), Problems> {
        if self.told.is_empty() { Ok(()) } else { Err(self.into_problems()) }
    }

    /// What was found; something was.
    pub(crate) fn into_problems(self) -> Problems {
        Problems { told: self.told, more: self.more }
    }
}

const SHOWN_MAX: usize = 80;

/// A name of the document, as it is shown: harmless, and not longer than anybody reads.
pub(crate) fn shown(name: &str) -> String {
    match name.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("`{}…`", escaped(&name[..end])),
        None => format!("`{}`", escaped(name)),
    }
}

/// What a reader of JSON says of a part of a document, without the place in that part, which nobody can find.
pub(crate) fn of_json(error: &serde_json::Error) -> String {
    const SAID_MAX: usize = 200;
    let said = error.to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
    // It repeats a text that is no number, whatever its length.
    escaped(&said.chars().take(SAID_MAX).collect::<String>())
}

/// Several names, of which the first are shown.
pub(crate) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const LISTED_MAX: usize = 12;
    let more = names.len().saturating_sub(LISTED_MAX);
    let mut text = names.take(LISTED_MAX).map(shown).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_problems_the_first_are_told_and_the_others_counted() {
        let mut found = Found::default();
        for number in 0..PROBLEMS_TOLD_MAX + 7 {
            found.of("a\nb", || format!("wrong {number}"));
        }
        let problems = found.into_result().unwrap_err();
        assert_eq!((problems.told.len(), problems.more), (PROBLEMS_TOLD_MAX, 7));
        let text = problems.to_string();
        assert!(text.starts_with("task `a\\nb`: wrong 0\n"), "{text}");
        assert!(text.ends_with("\n7 more problems are told when these are gone"), "{text}");
    }

    #[test]
    fn long_names_are_shortened() {
        let name = "é".repeat(100_000);
        assert_eq!(shown(&name).chars().count(), SHOWN_MAX + 3);
        let names = ["a"; 20];
        assert!(listed(names.into_iter()).ends_with("`a` and 8 more"));
        let mut found = Found::default();
        found.of(&name, || "long".to_owned());
        assert!(found.into_result().unwrap_err().to_string().len() < 500);
    }
}
