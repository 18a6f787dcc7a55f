//! Text of other people: control characters are made visible before a person or a log sees it.
//!
//! Invariant: nothing that comes out of here can move a cursor, color a line or turn the direction of writing.

/// Makes control characters and characters that change the direction of writing visible: `\n`, `\u{1b}`.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hazardous(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Can this character do more than stand where it is?
pub fn is_hazardous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(escaped("a\u{1b}[31m\n\u{9b}\u{202e}é"), "a\\u{1b}[31m\\n\\u{9b}\\u{202e}é");
    }
}
