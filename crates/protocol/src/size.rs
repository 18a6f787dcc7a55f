//! Sizes and amounts of memory as people write them: `2GiB`, `512MiB`, `1.5GB`.
//!
//! The unit is always said, because `2G` means two different things to two programs. What is written into messages is
//! the number of bytes.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// An amount of memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Memory(u64);

/// Why a text or number is no amount of memory; the end of a sentence about the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an amount of memory with its unit, as 2GiB, 512MiB or 1.5GB, from 1MiB to 4096TiB")]
pub struct InvalidMemory;

/// From the largest to the smallest, those that count in powers of two first.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

impl Memory {
    /// The least that anything runs with; who writes `8` means something else than 8 bytes.
    pub const MIN: Self = Self(1 << 20);

    /// The most: every reader of JSON knows whole numbers so far exactly.
    pub const MAX: Self = Self(1 << 52);

    /// An amount in bytes, if it is within bounds.
    pub fn from_bytes(bytes: u64) -> Result<Self, InvalidMemory> {
        let memory = Self(bytes);
        if (Self::MIN..=Self::MAX).contains(&memory) { Ok(memory) } else { Err(InvalidMemory) }
    }

    /// The amount in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Memory {
    type Err = InvalidMemory;

    fn from_str(text: &str) -> Result<Self, InvalidMemory> {
        parse(text).ok_or(InvalidMemory).and_then(Self::from_bytes)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.0))
    }
}

/// The number of bytes that a text with its unit means.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = (&text[..end], text[end..].trim_start());
    let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    if number.bytes().all(|byte| byte.is_ascii_digit()) {
        return number.parse::<u64>().ok()?.checked_mul(*factor);
    }
    // What is too large saturates.
    number.parse::<f64>().ok().map(|number| (number * *factor as f64).round() as u64)
}

/// The same of a text that may be a number of bytes alone, as settings of programs may be.
pub fn parse_or_bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok().or_else(|| parse(text))
}

/// A size in the largest unit of which it is a whole number.
pub fn shown(bytes: u64) -> String {
    let whole = UNITS.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    let (name, factor) = whole.unwrap_or(&("B", 1));
    format!("{}{name}", bytes / factor)
}

/// A text with its unit, or a number of bytes.
impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: Deserializer<'de>>(given: D) -> Result<Self, D::Error> {
        struct Given;
        impl Visitor<'_> for Given {
            type Value = Memory;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of memory")
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Memory, E> {
                Memory::from_bytes(bytes).map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Memory, E> {
                text.parse().map_err(E::custom)
            }
        }
        given.deserialize_any(Given).map_err(|_| D::Error::custom(InvalidMemory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units() {
        for (text, bytes) in [
            ("2GiB", 2 << 30),
            (" 2 gib ", 2 << 30),
            ("512MiB", 512 << 20),
            ("1.5GB", 1_500_000_000),
            ("0.5TiB", 512 << 30),
            ("1048576B", 1 << 20),
            ("4096TiB", 1 << 52),
        ] {
            assert_eq!(text.parse::<Memory>().map(Memory::bytes), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "2",
            "2G",
            "GiB",
            "-2GiB",
            "2GiBs",
            "1.2.3GiB",
            ".GiB",
            "1KiB",
            "4097TiB",
            "99999999999999TiB",
            "1e3GiB",
            "∞GiB",
        ] {
            assert_eq!(text.parse::<Memory>(), Err(InvalidMemory), "{text}");
        }
    }

    #[test]
    fn a_setting_may_be_a_number_of_bytes() {
        for (text, bytes) in
            [("1000", Some(1_000)), (" 0 ", Some(0)), ("64KB", Some(64_000)), ("1.5", None), ("-1", None)]
        {
            assert_eq!(parse_or_bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn sizes_have_no_bounds_but_their_own() {
        for (text, bytes) in
            [("0B", Some(0)), ("64KB", Some(64_000)), ("1.5KiB", Some(1_536)), ("16777216TiB", None), ("64", None)]
        {
            assert_eq!(parse(text), bytes, "{text}");
        }
        assert_eq!((shown(0), shown(64_000), shown(4_096)), ("0B".to_owned(), "64KB".to_owned(), "4KiB".to_owned()));
    }

    #[test]
    fn amounts_are_shown_in_the_largest_whole_unit() {
        for (bytes, text) in [
            (2 << 30, "2GiB"),
            (3 << 29, "1536MiB"),
            (1_500_000_000, "1500MB"),
            (2_000_000_000_000, "2TB"),
            ((1 << 20) + 1, "1048577B"),
        ] {
            assert_eq!(Memory::from_bytes(bytes).unwrap().to_string(), text);
            assert_eq!(text.parse::<Memory>().unwrap().bytes(), bytes);
        }
    }
}
