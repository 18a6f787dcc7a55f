//! Tables for people: columns side by side, one row a line.

use std::fmt::Write as _;

use protocol::Timestamp;
use protocol::text::is_hazardous;

/// Columns side by side, a line for each row.
pub fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        line.truncate(line.trim_end().len());
        line + "\n"
    };
    rows.iter().map(line).collect()
}

/// For a terminal: what came from elsewhere cannot move the cursor.
pub fn one_line(text: &str) -> String {
    text.trim().chars().map(|c| if is_hazardous(c) { ' ' } else { c }).collect()
}

/// How long ago that is, as a person says it.
pub fn age(from: Timestamp, to: Timestamp) -> String {
    let seconds = ((to.as_millisecond() - from.as_millisecond()) / 1_000).max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
