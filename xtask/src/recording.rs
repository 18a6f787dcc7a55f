//! What a terminal showed, and when: as a cast that players of asciinema take, and as a picture that moves.
//!
//! The picture is one SVG without scripts, so that it plays wherever pictures are shown. Out of scope: what is shown
//! (`report`).

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

const COLUMNS: usize = 100;
const ROWS: usize = 30;

/// Nothing happens for longer than this.
const PAUSE_MAX: Duration = Duration::from_millis(1_500);

/// Each line stands for so long at least, or nobody could read it.
const PAUSE_MIN: Duration = Duration::from_millis(120);

/// How long the end is shown before it begins again.
const LAST: Duration = Duration::from_secs(8);

/// In pixels: of a character, of a line, and around them.
const CHARACTER: f64 = 8.0;
const LINE: usize = 18;
const MARGIN: usize = 14;

/// How a line is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Plain,
    /// The title of a step.
    Step,
    /// What the reader can type.
    Command,
    /// The closing line.
    Good,
    Bad,
}

impl Look {
    /// The numbers by which a terminal knows it.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Step => "1",
            Self::Command => "36",
            Self::Good => "1;32",
            Self::Bad => "1;31",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Step => " class=\"s\"",
            Self::Command => " class=\"c\"",
            Self::Good => " class=\"g\"",
            Self::Bad => " class=\"b\"",
        }
    }
}

/// Lines, and when each came.
#[derive(Debug)]
pub(crate) struct Recording {
    began: Instant,
    /// Paths of this machine, and what is shown in their place.
    places: Vec<(String, &'static str)>,
    lines: Vec<(Duration, Look, String)>,
}

impl Recording {
    /// What lies below `root` is shown relative to it, and what lies in the home directory below `~`.
    pub(crate) fn of(root: &Path, home: Option<&Path>) -> Self {
        let mut places = vec![(root.display().to_string(), ".")];
        places.extend(home.filter(|home| home.components().count() > 1).map(|home| (home.display().to_string(), "~")));
        Self { began: Instant::now(), places, lines: Vec::new() }
    }

    pub(crate) fn line(&mut self, look: Look, text: &str) {
        let at = self.began.elapsed();
        let text = self.places.iter().fold(text.to_owned(), |text, (place, shown)| text.replace(place, shown));
        self.lines.extend(wrapped(&text).into_iter().map(|line| (at, look, line)));
    }

    /// Writes `NAME.cast` and `NAME.svg`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> anyhow::Result<()> {
        for (kind, text) in [("cast", self.cast()), ("svg", self.svg())] {
            let path = folder.join(format!("{name}.{kind}"));
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// When each line is shown: what took long is shortened, and what came at once is drawn apart.
    fn times(&self) -> Vec<Duration> {
        let mut shown = Duration::ZERO;
        let mut before = Duration::ZERO;
        let mut times = Vec::with_capacity(self.lines.len());
        for (at, ..) in &self.lines {
            shown += at.saturating_sub(before).clamp(PAUSE_MIN, PAUSE_MAX);
            before = *at;
            times.push(shown);
        }
        times
    }

    /// In the format of asciinema, version 2: a head, then a line for each output.
    fn cast(&self) -> String {
        let mut cast = format!("{}\n", json!({"version": 2, "width": COLUMNS, "height": ROWS}));
        for (at, (_, look, text)) in self.times().iter().zip(&self.lines) {
            let text = format!("\u{1b}[{}m{text}\u{1b}[0m\r\n", look.code());
            let _ = writeln!(cast, "{}", json!([at.as_secs_f64(), "o", text]));
        }
        cast
    }

    fn svg(&self) -> String {
        let times = self.times();
        let whole = times.last().copied().unwrap_or_default() + LAST;
        let share = |at: Duration| at.as_secs_f64() / whole.as_secs_f64() * 100.0;
        let (width, height) = (COLUMNS as f64 * CHARACTER + 2.0 * MARGIN as f64, ROWS * LINE + 2 * MARGIN);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"A terminal in which the demo runs\"><style>\
             text{{font:13px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#d5d9e0;white-space:pre}}\
             .s{{font-weight:bold;fill:#fff}}.c{{fill:#6cc7d9}}.g{{font-weight:bold;fill:#7ec97e}}\
             .b{{font-weight:bold;fill:#ef7b7b}}\
             #lines{{animation:scroll {:.2}s step-end infinite}}\
             @keyframes scroll{{",
            whole.as_secs_f64()
        );
        // A line appears by coming into view from below, so that one animation does for all of them.
        for (number, at) in times.iter().enumerate() {
            let _ = write!(svg, "{:.3}%{{transform:translateY({}px)}}", share(*at), self.offset(number + 1));
        }
        let _ = write!(
            svg,
            "0%{{transform:translateY({height}px)}}}}\
             @media (prefers-reduced-motion:reduce){{#lines{{animation:none;transform:translateY({}px)}}}}\
             </style><rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#1c2027\"/>\
             <svg y=\"{MARGIN}\" height=\"{}\"><g id=\"lines\">",
            self.offset(self.lines.len()),
            ROWS * LINE
        );
        for (number, (_, look, text)) in self.lines.iter().enumerate() {
            let y = (number + 1) * LINE - 5;
            let _ = write!(svg, "\n<text x=\"{MARGIN}\" y=\"{y}\"{}>{}</text>", look.class(), escaped(text));
        }
        svg.push_str("</g></svg></svg>\n");
        svg
    }

    /// How far all lines are moved when so many of them are shown: the last one stands at the bottom.
    fn offset(&self, shown: usize) -> i64 {
        (ROWS as i64 - shown as i64) * LINE as i64
    }
}

/// The lines of a text, none of them wider than the terminal.
fn wrapped(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec![String::new()];
    }
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(COLUMNS).map(|line| line.iter().collect()).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording() -> Recording {
        let mut recording = Recording::of(Path::new("/somewhere/here"), Some(Path::new("/somewhere")));
        recording.line(Look::Step, "1. <One> & two");
        recording.line(Look::Command, &format!("$ /somewhere/here/target/x /somewhere/z {}", "y".repeat(COLUMNS)));
        recording.line(Look::Good, "");
        recording
    }

    #[test]
    fn a_cast_has_a_head_and_a_line_for_each_output_in_the_order_of_time() {
        let cast = recording().cast();
        let lines: Vec<serde_json::Value> = cast.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["version"], lines.len()), (&json!(2), 5));
        assert!(lines[1..].windows(2).all(|pair| pair[0][0].as_f64() < pair[1][0].as_f64()), "{cast}");
        assert!(
            lines[2][2].as_str().unwrap().contains("$ ./target/x ~/z yyy") && !cast.contains("/somewhere"),
            "{cast}"
        );
    }

    #[test]
    fn a_picture_holds_every_line_as_text() {
        let svg = recording().svg();
        assert_eq!(svg.matches("<text ").count(), 4, "{svg}");
        assert!(svg.contains("1. &lt;One&gt; &amp; two") && !svg.contains("/somewhere"), "{svg}");
    }
}
