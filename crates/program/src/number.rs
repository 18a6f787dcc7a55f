//! Whole numbers: read within bounds, refused in words and not in a parser's, and counted out.

use std::ops::RangeInclusive;

/// The number in a text, if it is allowed. The error is the end of a sentence about the setting.
pub fn whole(text: &str, allowed: RangeInclusive<u64>) -> Result<u64, String> {
    text.trim().parse().ok().filter(|number| allowed.contains(number)).ok_or_else(|| match allowed.into_inner() {
        (least, u64::MAX) => format!("it is a whole number, at least {least}"),
        (least, most) => format!("it is a whole number, {least} to {most}"),
    })
}

/// So many of a thing: `1 slot`, `2 slots`.
pub fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "slot")), ["0 slots", "1 slot", "2 slots"]);
    }

    #[test]
    fn bounds_are_told() {
        assert_eq!(whole(" 7 ", 1..=100), Ok(7));
        for text in ["0", "101", "-1", "1.5", "x", ""] {
            assert_eq!(whole(text, 1..=100), Err("it is a whole number, 1 to 100".to_owned()), "{text}");
        }
        assert_eq!(whole("3", 4..=u64::MAX), Err("it is a whole number, at least 4".to_owned()));
    }
}
