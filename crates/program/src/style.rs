//! The look of text for people: whether it may have colors, and what of other people's text may reach a terminal.

use std::io::Write as _;

use anstream::ColorChoice;
use anstream::stream::RawStream;

/// May text on this stream have colors? It is a terminal, `NO_COLOR` is not set, and `TERM` is not `dumb`.
/// Color never carries a meaning alone: what it says stands there as a word as well.
pub fn may_color(stream: &impl RawStream) -> bool {
    anstream::AutoStream::choice(stream) != ColorChoice::Never
}

/// Makes control characters and characters that change the direction of writing visible: `\n`, `\u{1b}`.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hazardous(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Can the character move a cursor, color a line or turn the direction of writing?
pub fn is_hazardous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Says on standard error why the program ends, with the word that all programs and their parser of arguments begin
/// with.
pub(crate) fn say_error(text: &str) {
    let stderr = std::io::stderr();
    let prefix = if may_color(&stderr) { "\u{1b}[1;31merror:\u{1b}[0m" } else { "error:" };
    // A closed standard error is no reason to end in another way.
    let _ = writeln!(&stderr, "{prefix} {}", escaped(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_cursor_passes() {
        assert_eq!(escaped("a\u{1b}[2J\nb\u{202e}é"), "a\\u{1b}[2J\\nb\\u{202e}é");
    }
}
