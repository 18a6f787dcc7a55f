//! The look of text for people: whether it may have colors, and how lines are broken.

use std::io::Write as _;

use anstream::ColorChoice;
use anstream::stream::RawStream;
use protocol::text::{escaped, escaped_lines};

/// May text on this stream have colors? It is a terminal, `NO_COLOR` is not set, and `TERM` is not `dumb`.
/// Color never carries a meaning alone: what it says stands there as a word as well.
pub fn may_color(stream: &impl RawStream) -> bool {
    anstream::AutoStream::choice(stream) != ColorChoice::Never
}

/// Says on standard error why the program ends, with the word that all programs and their parser of arguments begin
/// with.
pub(crate) fn say_error(text: &str) {
    let stderr = std::io::stderr();
    let text = within(&stderr, &format!("error: {}", escaped(text)));
    let text = match text.strip_prefix("error:") {
        Some(rest) if may_color(&stderr) => format!("\u{1b}[1;31merror:\u{1b}[0m{rest}"),
        _ => text,
    };
    // A closed standard error is no reason to end in another way.
    let _ = writeln!(&stderr, "{text}");
}

/// Tells the person something on standard error that is neither data nor an error. Lines stay lines.
pub fn say(text: &str) {
    let stderr = std::io::stderr();
    // A closed standard error is no reason to stop.
    let _ = writeln!(&stderr, "{}", within(&stderr, &escaped_lines(text)));
}

/// The text in the width of this stream, if it is a terminal.
fn within(stream: &std::io::Stderr, text: &str) -> String {
    match terminal_size::terminal_size_of(stream) {
        Some((width, _)) => wrapped(text, usize::from(width.0)),
        None => text.to_owned(),
    }
}

/// Text in lines of up to `width` columns, broken at spaces only, so that ids and commands can be copied.
fn wrapped(text: &str, width: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            out.push('\n');
            column = 0;
        } else if column > 0 || !out.is_empty() {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_alone() {
        let id = "67995bdb-e88f-84f3-982a-a41723a075bc";
        let text = format!("the job {id} goes on; `laptop-consumer wait {id}` waits");
        let lines = wrapped(&text, 40);
        assert_eq!(lines.replace('\n', " "), text);
        assert!(lines.lines().all(|line| line.chars().count() <= 40 || !line.contains(' ')), "{lines}");
        assert_eq!(wrapped(&text, 1000), text);
        assert_eq!(wrapped("a  b", 10), "a  b");
    }
}
