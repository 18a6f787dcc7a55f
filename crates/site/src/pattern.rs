//! The names of tasks in a site's file: a name, or a glob that stands for many.

use std::fmt;
use std::str::FromStr;

use protocol::limits::TASK_BYTES_MAX;
use serde::{Deserialize, Serialize};

/// A task's name, or a glob: `*` stands for any characters, `?` for one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// Why a text names no task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the name of a task or a glob: 1 to {TASK_BYTES_MAX} bytes without control characters")]
pub struct InvalidPattern;

impl Pattern {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Does it stand for more than one name?
    pub fn is_glob(&self) -> bool {
        self.0.contains(['*', '?'])
    }

    /// Does it stand for this task?
    pub fn matches(&self, task: &str) -> bool {
        let (pattern, name): (Vec<char>, Vec<char>) = (self.0.chars().collect(), task.chars().collect());
        let (mut p, mut n) = (0, 0);
        // Where the last `*` is, and how far it reaches for now.
        let mut star = None;
        while n < name.len() {
            match pattern.get(p) {
                Some('*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(&c) if c == '?' || c == name[n] => (p, n) = (p + 1, n + 1),
                _ => match star {
                    Some((at, reach)) => {
                        star = Some((at, reach + 1));
                        (p, n) = (at + 1, reach + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|&c| c == '*')
    }

    /// The larger, the more specific: a name beats a glob, a longer glob a shorter one. `*` has no length.
    pub(crate) fn weight(&self) -> (bool, usize) {
        (!self.is_glob(), self.0.chars().filter(|&c| c != '*').count())
    }

    /// Is there a task for which neither of the two is the more specific?
    pub(crate) fn ties_with(&self, other: &Self) -> bool {
        self.weight() == other.weight() && self.is_glob() && self.meets(other)
    }

    /// Is there a name that both stand for?
    fn meets(&self, other: &Self) -> bool {
        let (a, b): (Vec<char>, Vec<char>) = (self.0.chars().collect(), other.0.chars().collect());
        // meet[j]: do the rest of `a` behind i and the rest of `b` behind j meet? From the ends to the beginnings.
        let mut meet: Vec<bool> = (0..=b.len()).map(|j| b[j..].iter().all(|&c| c == '*')).collect();
        for i in (0..a.len()).rev() {
            let mut before = vec![false; b.len() + 1];
            for j in (0..=b.len()).rev() {
                before[j] = match (a[i], b.get(j)) {
                    ('*', None) => meet[j],
                    ('*', Some(_)) => meet[j] || before[j + 1],
                    (_, None) => false,
                    (_, Some('*')) => before[j + 1] || meet[j],
                    (x, Some(&y)) => (x == y || x == '?' || y == '?') && meet[j + 1],
                };
            }
            meet = before;
        }
        meet[0]
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let well = !text.is_empty() && text.len() <= TASK_BYTES_MAX && !text.chars().any(char::is_control);
        if well { Ok(Self(text.to_owned())) } else { Err(InvalidPattern) }
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn globs_stand_for_what_they_say() {
        for (glob, task, matches) in [
            ("simulate", "simulate", true),
            ("simulate", "simulate2", false),
            ("grover*", "grover", true),
            ("grover*", "grover-3", true),
            ("grover*", "my-grover", false),
            ("*quantum*", "a quantum b", true),
            ("*quantum*", "quant", false),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("*a*b*c", "xxaxbxbxc", true),
            ("*a*b*c", "xxaxbxbx", false),
            ("*", "", true),
            ("**", "x", true),
            ("a[b]", "ab", false),
            ("a[b]", "a[b]", true),
        ] {
            assert_eq!(pattern(glob).matches(task), matches, "{glob} {task}");
        }
    }

    #[test]
    fn a_tie_is_of_two_globs_of_one_length_that_meet() {
        for (one, other, ties) in [
            ("sim*", "*ate", true),
            ("sim*", "ate*", false),
            ("sim*", "si*", false),
            ("sim", "si?", false),
            ("si?", "s?m", true),
            ("a*b", "b*a", false),
            ("a*", "*a", true),
            ("*", "**", true),
            ("a?*", "ab*", true),
            ("ab*cd", "a*bcd", true),
        ] {
            assert_eq!(pattern(one).ties_with(&pattern(other)), ties, "{one} {other}");
            assert_eq!(pattern(other).ties_with(&pattern(one)), ties, "{other} {one}");
        }
    }

    proptest! {
        /// Two globs meet if and only if there is a name that both stand for; with few letters it is a short one.
        #[test]
        fn globs_that_meet_have_a_name_in_common(one in "[ab*?]{1,4}", other in "[ab*?]{1,4}") {
            let (one, other) = (pattern(&one), pattern(&other));
            let mut names = vec![String::new()];
            let mut last = names.clone();
            for _ in 0..8 {
                last = last.iter().flat_map(|name| ["a", "b"].map(|letter| format!("{name}{letter}"))).collect();
                names.extend(last.iter().cloned());
            }
            let common = names.iter().any(|name| one.matches(name) && other.matches(name));
            prop_assert_eq!(one.meets(&other), common, "{} {}", one, other);
        }
    }
}
