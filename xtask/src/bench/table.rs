//! The table of measures, and its place in `docs/benchmarks.md`.
//!
//! Only what stands between the two markers is rewritten. Rows of parts that were not measured this time stay, unless
//! they are of another machine.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

const BEGIN: &str = "<!-- measures: written by cargo xtask bench -->";
const END: &str = "<!-- end of the measures -->";
const HEAD: &str = "| measure | here | against | ratio | aim | date |\n|---|---|---|---|---|---|\n";

/// What a new file holds around the table.
const DOCUMENT: &str = "# Benchmarks\n\n\
    `cargo xtask bench` takes these measures and rewrites the table; `cargo xtask bench worker` and so on takes a part of \
    them.\nWhere it can be, a figure is set against something that was measured in the same run, so that the ratio \
    carries over\nto other machines better than the number does; the others are set against a fixed aim.\n\n";

/// What a ratio is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Aim {
    /// This or more.
    AtLeast(f64),
    /// Less than this.
    Under(f64),
    /// It is only watched.
    None,
}

/// One measure.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// What was measured; a row of the same name is replaced.
    pub(super) measure: String,
    /// The value of this project.
    pub(super) here: String,
    /// What it is set against.
    pub(super) against: String,
    /// The first over the second.
    pub(super) ratio: f64,
    /// What the ratio is to be.
    pub(super) aim: Aim,
}

impl Row {
    /// Is the ratio as it is to be?
    pub(super) fn meets_aim(&self) -> bool {
        match self.aim {
            Aim::AtLeast(aim) => self.ratio >= aim,
            Aim::Under(aim) => self.ratio < aim,
            Aim::None => true,
        }
    }

    fn markdown(&self, date: &str) -> String {
        let aim = match self.aim {
            Aim::AtLeast(aim) => format!("{aim} or more"),
            Aim::Under(aim) => format!("under {aim}"),
            Aim::None => "–".to_owned(),
        };
        let aim = if self.meets_aim() { aim } else { format!("{aim} (missed)") };
        let Self { measure, here, against, ratio, .. } = self;
        format!("| {measure} | {here} | {against} | {ratio:.2} | {aim} | {date} |")
    }
}

/// Writes the rows into the document and returns the whole table.
pub(super) fn keep(document: &Path, machine: &str, date: &str, rows: &[Row]) -> anyhow::Result<String> {
    let text = match fs::read_to_string(document) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("{DOCUMENT}{BEGIN}\n{END}\n"),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", document.display())),
    };
    let (text, table) =
        rewritten(&text, machine, date, rows).with_context(|| format!("cannot rewrite {}", document.display()))?;
    if let Some(folder) = document.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(document, text).with_context(|| format!("cannot write {}", document.display()))?;
    Ok(table)
}

/// The new text of the document, and the table in it.
fn rewritten(text: &str, machine: &str, date: &str, rows: &[Row]) -> anyhow::Result<(String, String)> {
    let Some((before, (between, after))) =
        text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?)))
    else {
        bail!("it lacks the lines `{BEGIN}` and `{END}`");
    };
    let machine = format!("Machine: {machine}.");
    let same_machine = between.lines().any(|line| line == machine);
    let mut lines: Vec<String> = Vec::new();
    if same_machine {
        let kept = between.lines().filter(|line| line.starts_with("| ")).skip(1);
        lines.extend(kept.map(str::to_owned));
    }
    for row in rows {
        let line = row.markdown(date);
        let start = format!("| {} |", row.measure);
        match lines.iter_mut().find(|line| line.starts_with(&start)) {
            Some(old) => *old = line,
            None => lines.push(line),
        }
    }
    let table = format!("{machine}\n\n{HEAD}{}\n", lines.join("\n"));
    Ok((format!("{before}{BEGIN}\n{table}{END}{after}"), table))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(measure: &str, ratio: f64, aim: Aim) -> Row {
        Row { measure: measure.to_owned(), here: "1/s".to_owned(), against: "2/s".to_owned(), ratio, aim }
    }

    #[test]
    fn rows_of_the_same_machine_stay_until_they_are_measured_again() {
        let empty = format!("before\n{BEGIN}\n{END}\nafter\n");
        let first = [row("a", 0.5, Aim::AtLeast(1.0)), row("b", 0.5, Aim::Under(1.05))];
        let (text, _) = rewritten(&empty, "2 cores", "2026-11-21", &first).unwrap();
        assert!(text.contains("| a | 1/s | 2/s | 0.50 | 1 or more (missed) | 2026-11-21 |\n"), "{text}");
        assert!(text.contains("| b | 1/s | 2/s | 0.50 | under 1.05 | 2026-11-21 |\n"), "{text}");
        assert!(text.starts_with("before\n") && text.ends_with("after\n"), "{text}");

        let (text, table) = rewritten(&text, "2 cores", "2026-11-22", &[row("a", 2.0, Aim::None)]).unwrap();
        assert!(text.contains("| a | 1/s | 2/s | 2.00 | – | 2026-11-22 |\n| b |"), "{text}");
        assert_eq!(table.lines().count(), 6, "{table}");

        let (text, _) = rewritten(&text, "4 cores", "2026-11-23", &[row("a", 3.0, Aim::None)]).unwrap();
        assert!(!text.contains("| b |") && text.contains("Machine: 4 cores."), "{text}");
    }

    #[test]
    fn a_document_without_markers_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("benchmarks.md");
        fs::write(&path, "mine\n").unwrap();
        assert!(keep(&path, "m", "d", &[]).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine\n");
        let fresh = folder.path().join("docs/benchmarks.md");
        keep(&fresh, "m", "d", &[row("a", 1.0, Aim::None)]).unwrap();
        keep(&fresh, "m", "d", &[row("b", 1.0, Aim::None)]).unwrap();
        let text = fs::read_to_string(&fresh).unwrap();
        assert!(text.starts_with("# Benchmarks") && text.contains("| a |") && text.contains("| b |"), "{text}");
    }
}
