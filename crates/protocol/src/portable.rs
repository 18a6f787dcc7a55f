//! JSON that not every reader takes: nested very deep, or with half a character in a text.
//!
//! Both are JSON by its grammar. Python's own reader, `jq` and most libraries end with an error for the one or the
//! other, and who reads results one after the other then reads no further result. RFC 7493 (I-JSON) forbids the second.
//! Not here: whether a text is JSON at all, which a parser tells; what is not JSON is of no meaning to this.

use std::fmt;

use crate::limits;

/// Why not every reader takes a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPortable {
    /// Its arrays and objects are nested deeper than [`limits::OUTPUT_DEPTH_MAX`].
    TooDeep,
    /// A text in it has one half of a pair of surrogates.
    LoneSurrogate {
        /// As it is written: `\ud83d`.
        word: String,
        /// Behind which byte of the whole text.
        at: u64,
    },
}

/// Looks at JSON piece by piece, so that its size costs no memory.
#[derive(Debug, Default)]
pub struct Portability {
    depth: usize,
    within: Within,
    /// The first half of a pair that has come in this text, and is to be followed by the second.
    high: Option<u16>,
    seen: u64,
}

#[derive(Debug, Default, Clone, Copy)]
enum Within {
    /// Between texts.
    #[default]
    Structure,
    /// In a text, an object's name included.
    Text,
    /// In a text, behind a backslash.
    Escape,
    /// In the hexadecimal digits of `\u`, of which there were so many.
    Digits(u8, u16),
}

impl Portability {
    /// Looks at the next bytes.
    pub fn look(&mut self, piece: &[u8]) -> Result<(), NotPortable> {
        for byte in piece {
            self.next(*byte)?;
            self.seen += 1;
        }
        Ok(())
    }

    fn next(&mut self, byte: u8) -> Result<(), NotPortable> {
        self.within = match (self.within, byte) {
            (Within::Structure, b'"') => Within::Text,
            (Within::Structure, b'[' | b'{') => {
                self.depth += 1;
                if self.depth > limits::OUTPUT_DEPTH_MAX {
                    return Err(NotPortable::TooDeep);
                }
                Within::Structure
            }
            (Within::Structure, b']' | b'}') => {
                self.depth = self.depth.saturating_sub(1);
                Within::Structure
            }
            (Within::Structure, _) => Within::Structure,
            (Within::Text, b'\\') => Within::Escape,
            (Within::Text, byte) => {
                self.no_half()?;
                if byte == b'"' { Within::Structure } else { Within::Text }
            }
            (Within::Escape, b'u') => Within::Digits(0, 0),
            (Within::Escape, _) => {
                self.no_half()?;
                Within::Text
            }
            (Within::Digits(count, value), byte) => {
                let digit = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok());
                let value = value << 4 | digit.unwrap_or_default();
                if count < 3 {
                    Within::Digits(count + 1, value)
                } else {
                    self.unit(value)?;
                    Within::Text
                }
            }
        };
        Ok(())
    }

    /// A unit of UTF-16 that was written as `\u`.
    fn unit(&mut self, unit: u16) -> Result<(), NotPortable> {
        match unit {
            0xd800..=0xdbff => {
                self.no_half()?;
                self.high = Some(unit);
                Ok(())
            }
            0xdc00..=0xdfff if self.high.take().is_some() => Ok(()),
            0xdc00..=0xdfff => Err(self.lone(unit)),
            _ => self.no_half(),
        }
    }

    fn no_half(&self) -> Result<(), NotPortable> {
        self.high.map_or(Ok(()), |unit| Err(self.lone(unit)))
    }

    fn lone(&self, unit: u16) -> NotPortable {
        NotPortable::LoneSurrogate { word: format!("\\u{unit:04x}"), at: self.seen }
    }
}

impl fmt::Display for NotPortable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooDeep => write!(
                f,
                "is nested deeper than {} levels, and many readers of JSON take no more; write it flatter",
                limits::OUTPUT_DEPTH_MAX
            ),
            Self::LoneSurrogate { word, at } => write!(
                f,
                "has {word} before byte {at}, which is half of a character, and many readers of JSON take only whole \
                 ones; write the character as it is, or what is no text in another way"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a text, whether it comes whole or byte by byte.
    fn found(text: &str) -> Option<NotPortable> {
        let mut whole = Portability::default();
        let found = whole.look(text.as_bytes()).err();
        let mut pieces = Portability::default();
        assert_eq!(text.as_bytes().chunks(1).find_map(|piece| pieces.look(piece).err()), found, "{text}");
        found
    }

    #[test]
    fn what_every_reader_takes_passes() {
        for text in [
            "1",
            r#"{"a":[1,{"b":"\ud83d\ude00 \u0041 \\ud83d \" [[[ \n"}],"\uD83D\uDE00":"é😀"}"#,
            r#"["\\","\\\\ud800","]"]"#,
        ] {
            serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn half_a_character_is_found_wherever_it_is() {
        for (text, word) in [
            (r#""\ud83d""#, "\\ud83d"),
            (r#""\ude00""#, "\\ude00"),
            (r#"["\ude00\ud83d"]"#, "\\ude00"),
            (r#"{"\uD83D":1}"#, "\\ud83d"),
            (r#""\ud83dx\ude00""#, "\\ud83d"),
            (r#""\ud83d\n""#, "\\ud83d"),
            (r#""\ud83d\u0041""#, "\\ud83d"),
            (r#""\ud83d\ud83d\ude00""#, "\\ud83d"),
            (r#""\ud83d\ude00\ude00""#, "\\ude00"),
        ] {
            let Some(NotPortable::LoneSurrogate { word: found, .. }) = found(text) else { panic!("{text}") };
            assert_eq!(found, word, "{text}");
            // Who reads it as text refuses it.
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn depth_has_a_limit_and_breadth_has_none() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(found(&nested(limits::OUTPUT_DEPTH_MAX)), None);
        assert_eq!(found(&nested(limits::OUTPUT_DEPTH_MAX + 1)), Some(NotPortable::TooDeep));
        assert_eq!(found(&format!("[{}[]]", "[{}],".repeat(10_000))), None);
        assert_eq!(
            found(&format!("{}1{}", r#"{"a":["#.repeat(23_000), "]}".repeat(23_000))),
            Some(NotPortable::TooDeep)
        );
    }
}
