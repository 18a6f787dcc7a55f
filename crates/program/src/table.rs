//! Tables for people: columns side by side, one row a line, and no line wider than the terminal.
//!
//! Invariant: nothing is left out of what goes elsewhere than to a terminal; and an id that is shortened there is still
//! the beginning of one, by which every command takes it.

use std::collections::HashSet;
use std::fmt::Write as _;

use protocol::Timestamp;
use protocol::text::is_hazardous;

/// Columns side by side, a line for each row. A column without content is none.
pub fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let widths = widths(rows);
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths).filter(|(_, width)| *width > 0) {
            let _ = write!(line, "{cell:width$}  ");
        }
        line.truncate(line.trim_end().len());
        line + "\n"
    };
    rows.iter().map(line).collect()
}

/// No column becomes narrower than this; all words for states and all headings fit.
const COLUMN_MIN: usize = 9;

/// A shortened id has so many characters, if no other one of the table begins so.
const ID_MIN: usize = 8;

/// How wide standard output is, if it is a terminal.
pub fn stdout_width() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(std::io::stdout())?;
    (width.0 > 0).then_some(usize::from(width.0))
}

/// The rows of a table, the first of which are the headings, so that they fit into this width, if there is one: ids in
/// the first column become shorter, and then what is longest is cut.
pub fn fit<const N: usize>(rows: &mut [[String; N]], width: Option<usize>) {
    let Some(width) = width else { return };
    if needed(&widths(rows)) > width {
        shorten_ids(rows);
    }
    let mut widths = widths(rows);
    while needed(&widths) > width {
        let Some(widest) = (1..N).max_by_key(|column| widths[*column]).filter(|widest| widths[*widest] > COLUMN_MIN)
        else {
            return;
        };
        widths[widest] -= 1;
        for row in rows.iter_mut().filter(|row| row[widest].chars().count() > widths[widest]) {
            let kept = row[widest].chars().filter(|c| *c != '…').take(widths[widest] - 1);
            row[widest] = kept.chain(['…']).collect();
        }
    }
}

/// What a thing is and what is to be said of it, a line for each, with long ones broken between words.
pub fn pairs(rows: &[[String; 2]], width: Option<usize>) -> String {
    let first = rows.iter().map(|[name, _]| name.chars().count()).max().unwrap_or(0) + 2;
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(first).max(COLUMN_MIN));
    let mut text = String::new();
    for [name, value] in rows {
        let mut name = name.as_str();
        for line in broken(value, room) {
            let _ = writeln!(text, "{}", format!("{name:first$}{line}").trim_end());
            name = "";
        }
    }
    text
}

fn widths<const N: usize>(rows: &[[String; N]]) -> [usize; N] {
    std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
}

/// What a line of such columns needs; one without content needs nothing.
fn needed(widths: &[usize]) -> usize {
    let used = widths.iter().filter(|width| **width > 0);
    used.clone().sum::<usize>() + 2 * used.count().saturating_sub(1)
}

/// Only ids that an edge has made can be shortened.
fn shorten_ids<const N: usize>(rows: &mut [[String; N]]) {
    let is_made = |id: &str| {
        let dashes: Vec<usize> = id.match_indices('-').map(|(place, _)| place).collect();
        id.len() == 36 && id.is_ascii() && dashes == [8, 13, 18, 23]
    };
    let ids: Vec<String> = rows.iter().map(|row| row[0].clone()).filter(|id| is_made(id)).collect();
    let distinct = |length: usize| {
        let beginnings: HashSet<&str> = ids.iter().map(|id| &id[..length]).collect();
        beginnings.len() == ids.iter().collect::<HashSet<_>>().len()
    };
    let length = (ID_MIN..36).find(|length| distinct(*length)).unwrap_or(36);
    for row in rows.iter_mut().filter(|row| is_made(&row[0])) {
        row[0].truncate(length);
    }
}

fn broken(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one from the beginning");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<[String; 4]> {
        [
            ["JOB ID", "STATE", "TASK", ""],
            ["67995bdb-e88f-84f3-982a-a41723a075bc", "failed (infrastructure)", "simulate-with-a-very-long-name", ""],
            ["67995bdb-e88f-84f3-982a-a41723a075bd", "running", "simulate", ""],
            ["mine", "held", "-", ""],
        ]
        .map(|row| row.map(str::to_owned))
        .to_vec()
    }

    #[test]
    fn a_table_is_as_wide_as_the_terminal_at_the_most() {
        for width in [40, 60, 80, 100] {
            let mut fitted = rows();
            fit(&mut fitted, Some(width));
            let lines = table(&fitted);
            // Two ids that differ in their last character are not told apart by less.
            let most = width.max(36 + 2 + COLUMN_MIN + 2 + COLUMN_MIN);
            assert!(lines.iter().all(|line| line.trim_end().chars().count() <= most), "{width}: {lines:#?}");
            assert!(lines[3].starts_with("mine ") && lines[1].contains("failed"), "{lines:#?}");
        }
        let mut wide = rows();
        fit(&mut wide, None);
        assert_eq!(wide, rows());
        fit(&mut wide, Some(200));
        assert_eq!(wide, rows());
    }

    #[test]
    fn an_id_is_shortened_before_anything_is_cut_and_stays_one_of_its_own() {
        let mut rows = rows();
        rows[2][0] = "77995bdb-e88f-84f3-982a-a41723a075bd".to_owned();
        fit(&mut rows, Some(80));
        assert_eq!([&rows[1][0], &rows[2][0]], ["67995bdb", "77995bdb"]);
        assert_eq!(rows[1][2], "simulate-with-a-very-long-name");
        rows[2][0] = "67995bdb-f88f-84f3-982a-a41723a075bd".to_owned();
        rows[1][0] = "67995bdb-e88f-84f3-982a-a41723a075bc".to_owned();
        fit(&mut rows, Some(80));
        assert_eq!([&rows[1][0], &rows[2][0]], ["67995bdb-e", "67995bdb-f"]);
    }

    #[test]
    fn what_is_said_of_a_thing_is_broken_between_words() {
        let rows = [["daemon", "running on node1, process 1"], ["queue", "none"]].map(|row| row.map(str::to_owned));
        assert_eq!(pairs(&rows, None), "daemon  running on node1, process 1\nqueue   none\n");
        assert_eq!(pairs(&rows, Some(20)), "daemon  running on\n        node1,\n        process 1\nqueue   none\n");
    }
}
