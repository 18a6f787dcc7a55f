//! Text of other people: control characters are made visible before a person or a log sees it.
//!
//! This is the only place that knows which characters those are. What is logged, said or printed passes through here at
//! the end of its way (`program`, `laptop-consumer`'s printer), so that nobody has to remember it where text is made.
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

/// The same of a text of several lines, which stay lines.
pub fn escaped_lines(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

/// What a program has printed: its lines and tabs stay. What it has gone back in a line for, as bars of progress do,
/// comes below.
pub fn escaped_log(text: &str) -> String {
    let lines = text.replace("\r\n", "\n");
    let line = |line: &str| line.split('\t').map(escaped).collect::<Vec<_>>().join("\t");
    lines.split(['\n', '\r']).map(line).collect::<Vec<_>>().join("\n")
}

/// JSON with such characters written as JSON writes them: `\u001b`. The value stays what it was, because JSON on one
/// line has such characters only within strings.
pub fn escaped_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        // All of them are in the first plane, so one escape is enough.
        if is_hazardous(c) { out.push_str(&format!("\\u{:04x}", u32::from(c))) } else { out.push(c) }
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
        assert_eq!(escaped_lines("a\r\n\tb\n"), "a\\r\n\\tb\n");
        assert_eq!(escaped_log("a\r\n\tb\u{1b}[2J\n 1%\r 2%"), "a\n\tb\\u{1b}[2J\n 1%\n 2%");
        let json = "{\"a\u{7f}\":\"\u{9b}\u{202e}é\"}";
        let harmless = escaped_json(json);
        assert_eq!(harmless, r#"{"a\u007f":"\u009b\u202eé"}"#);
        let value = |json| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(value(&harmless), value(json));
    }
}
