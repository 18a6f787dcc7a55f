//! Numbers that JSON does not have: `NaN` and the infinities, which many programs write all the same.
//!
//! Python's `json.dumps` does so unless it is told otherwise, and C's `printf` prints `nan` and `inf`. To a parser such
//! a text is wrong at some column; to the person whose job it was, one value of the result is not a number, and it
//! helps to say which. Out of scope: whether the rest of the text is JSON, which a parser tells.

use std::fmt;

/// How much of a path is shown at most, in characters.
const PATH_SHOWN: usize = 200;

/// The first value in a text that is not a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotANumber {
    /// As it is written.
    pub word: String,
    /// Where it stands, as a JSON path: `$.losses[3]`.
    pub path: String,
}

/// A container that has been entered.
enum Level<'a> {
    /// An array, and which of its elements is meant.
    Array(usize),
    /// An object, and the name of the field that is meant, as it is written.
    Object(&'a [u8]),
}

impl NotANumber {
    /// Looks for one in a text that a parser has refused; none if the text is wrong in another way before it.
    pub fn find(text: &[u8]) -> Option<Self> {
        // Iterative: an array within an array costs no stack, however often.
        let mut levels: Vec<Level<'_>> = Vec::new();
        // Of an object's field, the name is yet to come.
        let mut names_next = false;
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | b':' => at += 1,
                b'[' => {
                    levels.push(Level::Array(0));
                    (names_next, at) = (false, at + 1);
                }
                b'{' => {
                    levels.push(Level::Object(b""));
                    (names_next, at) = (true, at + 1);
                }
                b']' | b'}' => {
                    levels.pop()?;
                    (names_next, at) = (false, at + 1);
                }
                b',' => {
                    match levels.last_mut()? {
                        Level::Array(index) => *index += 1,
                        Level::Object(_) => names_next = true,
                    }
                    at += 1;
                }
                b'"' => {
                    let length = string(&text[at + 1..])?;
                    if names_next && let Some(Level::Object(name)) = levels.last_mut() {
                        *name = &text[at + 1..at + 1 + length];
                        names_next = false;
                    }
                    at += length + 2;
                }
                _ => {
                    let is_end = |byte: &u8| !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'-' | b'.');
                    let length = text[at..].iter().position(is_end).unwrap_or(text.len() - at);
                    let word = std::str::from_utf8(&text[at..at + length]).ok().filter(|word| !word.is_empty())?;
                    if names_next {
                        return None;
                    }
                    if is_no_number(word) {
                        return Some(Self { word: word.to_owned(), path: path(&levels) });
                    }
                    if !matches!(word, "true" | "false" | "null") && word.parse::<f64>().is_err() {
                        return None;
                    }
                    at += length;
                }
            }
        }
        None
    }
}

/// The length of a string, whose first quotation mark is read already.
fn string(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn is_no_number(word: &str) -> bool {
    let magnitude = word.strip_prefix(['+', '-']).unwrap_or(word);
    ["nan", "inf", "infinity"].iter().any(|name| magnitude.eq_ignore_ascii_case(name))
}

fn path(levels: &[Level<'_>]) -> String {
    let mut path = "$".to_owned();
    for level in levels {
        match level {
            Level::Array(index) => path.push_str(&format!("[{index}]")),
            Level::Object(name) => {
                let plain = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') && !name.is_empty();
                let name = String::from_utf8_lossy(name);
                path.push_str(&if plain { format!(".{name}") } else { format!("[\"{name}\"]") });
            }
        }
        if path.chars().count() > PATH_SHOWN {
            return path.chars().take(PATH_SHOWN).chain(['…']).collect();
        }
    }
    path
}

impl fmt::Display for NotANumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { word, path } = self;
        write!(f, "the value of {path} is {word}, which is no number in JSON; write null or a text in its place")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(String, String)> {
        assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text} is JSON");
        NotANumber::find(text.as_bytes()).map(|found| (found.word, found.path))
    }

    #[test]
    fn what_is_no_number_is_named_with_its_place() {
        for (text, word, path) in [
            ("NaN", "NaN", "$"),
            (" -Infinity\n", "-Infinity", "$"),
            (r#"{"loss": NaN}"#, "NaN", "$.loss"),
            (
                r#"{"a":{"b":1,"c":[true,null,{"d":"NaN, [{","e":-1.5e3}]},"x y":[[1],[2,Infinity]]}"#,
                "Infinity",
                r#"$["x y"][1][1]"#,
            ),
            (r#"[{"q\"\\":[],"r":{}},inf]"#, "inf", "$[1]"),
            (r#"{"":{"é":-nan}}"#, "-nan", r#"$[""]["é"]"#),
            (r#"{"a":[1,{"b":[]},2,NaN]}"#, "NaN", "$.a[3]"),
        ] {
            assert_eq!(found(text), Some((word.to_owned(), path.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_in_another_way_is_not_blamed_on_numbers() {
        for text in [
            "",
            "{",
            "[1,}",
            "nope",
            "{'a':NaN}",
            "[undefined,NaN]",
            "{NaN:1}",
            "\"NaN",
            "{\"a\":1}]",
            "[1 2]",
            "\u{0}",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
        assert_eq!(NotANumber::find(b"[1,2]"), None);
        assert_eq!(NotANumber::find(b"\xff NaN"), None);
    }

    #[test]
    fn depth_and_length_cost_little() {
        let deep = format!("{}NaN", "[{\"a\":".repeat(100_000));
        let found = NotANumber::find(deep.as_bytes()).unwrap();
        assert!(found.path.chars().count() <= PATH_SHOWN + 1 && found.path.ends_with('…'), "{}", found.path);
        let long = format!("{{\"{}\":NaN}}", "k".repeat(100_000));
        assert!(NotANumber::find(long.as_bytes()).unwrap().to_string().len() < 500);
    }
}
