//! JSON of other people on a terminal: control characters are made visible, it is indented without being taken apart,
//! and nothing is longer than a person reads.
//!
//! Invariant: nothing that comes out of here can move a cursor, color a line or turn the direction of writing.

use protocol::text::escaped_json;

/// The most that is shown of one JSON value.
const JSON_BYTES_MAX: usize = 8_000;

/// The most lines that are shown of one JSON value.
const JSON_LINES_MAX: usize = 100;

/// An object or array up to this long stays on one line.
const ONE_LINE_BYTES_MAX: usize = 72;

/// How deep indentation goes; what is nested deeper is indented as much as this.
const INDENT_LEVELS_MAX: usize = 20;

/// JSON text (without white space between tokens) on lines of its own, and whether that is all of it.
pub(crate) fn pretty_json(json: &str) -> (String, bool) {
    let json = &escaped_json(json);
    let mut out = String::new();
    let (mut depth, mut lines) = (0_usize, 1);
    let (mut within_string, mut after_backslash) = (false, false);
    // Up to here everything stays on the line.
    let mut one_line_end = 0;
    let mut new_line = |out: &mut String, depth: usize| {
        lines += 1;
        out.push('\n');
        out.push_str(&"  ".repeat(depth.min(INDENT_LEVELS_MAX)));
        lines <= JSON_LINES_MAX
    };
    for (position, c) in json.char_indices() {
        let mut goes_on = out.len() < JSON_BYTES_MAX;
        if within_string {
            out.push(c);
            within_string = c != '"' || after_backslash;
            after_backslash = c == '\\' && !after_backslash;
        } else {
            match c {
                '{' | '[' => {
                    if position >= one_line_end {
                        one_line_end = short_value_end(json, position);
                    }
                    out.push(c);
                    if position >= one_line_end {
                        depth += 1;
                        goes_on &= new_line(&mut out, depth);
                    }
                }
                '}' | ']' => {
                    if position >= one_line_end {
                        depth = depth.saturating_sub(1);
                        goes_on &= new_line(&mut out, depth);
                    }
                    out.push(c);
                }
                ',' if position < one_line_end => out.push_str(", "),
                ',' => {
                    out.push(c);
                    goes_on &= new_line(&mut out, depth);
                }
                ':' => out.push_str(": "),
                '"' => {
                    within_string = true;
                    out.push(c);
                }
                c => out.push(c),
            }
        }
        if !goes_on {
            return (out.trim_end().to_owned(), false);
        }
    }
    (out, true)
}

/// The end of the object or array that begins at `start`, or `start` when it is too long for one line.
fn short_value_end(json: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    let (mut within_string, mut after_backslash) = (false, false);
    for (length, byte) in json.bytes().skip(start).take(ONE_LINE_BYTES_MAX).enumerate() {
        if within_string {
            within_string = byte != b'"' || after_backslash;
            after_backslash = byte == b'\\' && !after_backslash;
            continue;
        }
        match byte {
            b'"' => within_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return start + length + 1;
                }
            }
            _ => {}
        }
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_its_tokens_stay_as_they_are() {
        let short = r#"{"a":[1,2.50,12345678901234567890],"b":{}}"#;
        assert_eq!(pretty_json(short), (r#"{"a": [1, 2.50, 12345678901234567890], "b": {}}"#.to_owned(), true));
        let long = format!(r#"{{"a":"{}","b":[1,{{"c,:[":"\"]"}}]}}"#, "x".repeat(80));
        let lines = [
            "{".to_owned(),
            format!("  \"a\": \"{}\",", "x".repeat(80)),
            r#"  "b": [1, {"c,:[": "\"]"}]"#.to_owned(),
            "}".to_owned(),
        ];
        assert_eq!(pretty_json(&long), (lines.join("\n"), true));
        for scalar in ["null", "\"text\"", "-1e5"] {
            assert_eq!(pretty_json(scalar), (scalar.to_owned(), true));
        }
    }

    #[test]
    fn what_is_shown_is_bounded() {
        let many = format!("[{}0]", "123456,".repeat(10_000));
        let long = format!("\"{}\"", "é".repeat(100_000));
        let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
        for json in [many, long, deep] {
            let (text, whole) = pretty_json(&json);
            assert!(!whole && text.len() <= JSON_BYTES_MAX + 100, "{} bytes", text.len());
            assert!(text.lines().count() <= JSON_LINES_MAX);
        }
    }
}
