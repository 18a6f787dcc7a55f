//! What is said of files that were not found, or not as they were wanted: `files_note` of a result.

use std::fmt::Write as _;
use std::io;

use protocol::{Outputs, text};

/// How long a note is at most, in bytes: it travels with the result.
const NOTE_BYTES_MAX: usize = 2_000;

/// How many names of a kind are told, and how much of each.
const NAMED_MAX: usize = 3;
const NAME_CHARS_MAX: usize = 80;

/// Why something is left where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Left {
    Link,
    Special,
    BadName,
    TooDeep,
    Mounted,
    Meeting,
    Unreadable,
    ReadOnly,
}

impl Left {
    const ALL: [Self; 8] = [
        Self::Link,
        Self::Special,
        Self::BadName,
        Self::TooDeep,
        Self::Mounted,
        Self::Meeting,
        Self::Unreadable,
        Self::ReadOnly,
    ];

    fn in_words(self, count: u64) -> String {
        let one = count == 1;
        let what = match self {
            Self::Link if one => "symbolic link",
            Self::Link => "symbolic links",
            Self::Special if one => "that is no regular file",
            Self::Special => "that are no regular files",
            Self::BadName if one => "whose name not every system can have",
            Self::BadName => "whose names not every system can have",
            Self::TooDeep if one => "that lies too deep",
            Self::TooDeep => "that lie too deep",
            Self::Mounted if one => "of another file system",
            Self::Mounted => "of other file systems",
            Self::Meeting if one => "that differs from another one only in the case of letters",
            Self::Meeting => "that differ from others only in the case of letters",
            Self::Unreadable => "that cannot be read",
            Self::ReadOnly => "that the job has brought to read only",
        };
        format!("{count} {what}")
    }
}

/// What there is to say.
#[derive(Debug)]
pub(super) struct Notes {
    patterns: Vec<(String, bool)>,
    left: [(u64, Vec<String>); Left::ALL.len()],
    also: Vec<String>,
}

impl Notes {
    pub(super) fn new(outputs: &Outputs) -> Self {
        let patterns = outputs.patterns.iter().map(|pattern| (pattern.to_string(), false)).collect();
        Self { patterns, left: Default::default(), also: Vec::new() }
    }

    /// These patterns have found something.
    pub(super) fn found(&mut self, patterns: impl Iterator<Item = usize>) {
        for pattern in patterns {
            if let Some((_, found)) = self.patterns.get_mut(pattern) {
                *found = true;
            }
        }
    }

    /// Something of this path stays where it is.
    pub(super) fn pass_over(&mut self, why: Left, path: &[u8], error: Option<io::Error>) {
        let (count, named) = &mut self.left[why as usize];
        *count += 1;
        if named.len() < NAMED_MAX {
            let path = String::from_utf8_lossy(path);
            let short: String = path.chars().take(NAME_CHARS_MAX).collect();
            let ending = if short.len() < path.len() { "…" } else { "" };
            let error = error.map(|error| format!(" ({error})")).unwrap_or_default();
            named.push(text::escaped(&format!("{short}{ending}{error}")));
        }
    }

    /// A sentence of its own, without its full stop.
    pub(super) fn say(&mut self, sentence: String) {
        self.also.push(sentence);
    }

    /// All of it, if there is anything to say.
    pub(super) fn text(&self) -> Option<String> {
        let mut sentences = self.also.clone();
        let unmatched: Vec<String> =
            self.patterns.iter().filter(|(_, found)| !found).map(|(pattern, _)| format!("`{pattern}`")).collect();
        if let Some((last, others)) = unmatched.split_last() {
            let all = if others.is_empty() { last.clone() } else { format!("{} and {last}", others.join(", ")) };
            sentences.push(format!("nothing has matched {all}"));
        }
        let left: Vec<String> = Left::ALL
            .into_iter()
            .filter_map(|why| {
                let (count, named) = &self.left[why as usize];
                let more = if *count > named.len() as u64 { ", …" } else { "" };
                (*count > 0).then(|| format!("{}: {}{more}", why.in_words(*count), named.join(", ")))
            })
            .collect();
        if !left.is_empty() {
            sentences.push(format!("Left where they are: {}", left.join("; ")));
        }
        if sentences.is_empty() {
            return None;
        }
        let mut note = String::new();
        for (number, sentence) in sentences.iter().enumerate() {
            // The first one follows a name, as a rule.
            let (first, rest) =
                sentence.split_at(if number == 0 { 0 } else { sentence.chars().next().map_or(0, char::len_utf8) });
            let _ = write!(note, "{}{}{rest}", if number == 0 { "" } else { ". " }, first.to_uppercase());
        }
        if note.len() > NOTE_BYTES_MAX {
            let end = (0..=NOTE_BYTES_MAX).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0);
            note.truncate(end);
            note.push('…');
        }
        Some(note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_names_a_few_and_has_a_bound() {
        let outputs = Outputs { patterns: vec!["a".parse().unwrap()], when: None };
        let mut notes = Notes::new(&outputs);
        assert_eq!(notes.text().as_deref(), Some("nothing has matched `a`"));
        notes.found([0].into_iter());
        assert_eq!(notes.text(), None);
        for number in 0..5 {
            notes.pass_over(Left::Link, format!("link-{number}\u{1b}").as_bytes(), None);
        }
        notes.pass_over(Left::Unreadable, b"x", Some(io::Error::other("no")));
        notes.say("first".to_owned());
        assert_eq!(
            notes.text().as_deref(),
            Some(
                "first. Left where they are: 5 symbolic links: link-0\\u{1b}, link-1\\u{1b}, link-2\\u{1b}, …; 1 that cannot be read: x (no)"
            )
        );
        (0..1_000).for_each(|_| notes.say("é".repeat(100)));
        assert!(notes.text().unwrap().len() <= NOTE_BYTES_MAX + "…".len());
    }
}
