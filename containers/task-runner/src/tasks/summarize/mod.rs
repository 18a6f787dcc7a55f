//! `summarize`: statistics of every numeric column of a CSV table, in one pass.
//!
//! The table is a file (`input.path`, relative to the work directory, or absolute: something that `APPTAINER_BIND` put
//! there) or stands in the job itself (`input.csv`). The first line names the columns.
//!
//! A column is numeric when every value in it that is not missing is a finite decimal number. Others are listed with
//! the first value that is none. Mean and standard deviation take no memory (Welford); quartiles need the values, so at
//! most [`VALUES_MAX`] of them are kept, and past that the quartiles are left out and a note says so.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::TaskError;
use crate::fields::Fields;

mod column;

use column::{Column, ColumnSummary, TextColumn};

/// The most values, of all columns together, that are kept for the quartiles: 80 MB, and twice as much while they grow.
const VALUES_MAX: usize = 10_000_000;

/// The statistics of one table.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// The lines of the table without the first.
    rows: u64,
    /// The numeric columns, in the order of the table.
    columns: Vec<ColumnSummary>,
    /// The others.
    not_numeric: Vec<TextColumn>,
    /// What was left out, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// Reads the table that the job names.
pub(crate) fn run(input: &RawValue, work_dir: &Path) -> Result<Summary, TaskError> {
    let fields = Fields::of_input(input, &["path", "csv", "delimiter"])?;
    let delimiter = match fields.text("delimiter")?.as_deref() {
        None => b',',
        Some(text) => match text.as_bytes() {
            &[byte] if !matches!(byte, b'"' | b'\r' | b'\n') => byte,
            _ => {
                let problem = "must be one ASCII character such as \",\", \";\" or \"\\t\", and no quote or line end";
                return Err(fields.invalid("delimiter", problem));
            }
        },
    };
    match (fields.text("path")?, fields.text("csv")?) {
        (Some(path), None) => {
            let path = work_dir.join(path);
            let file = open_regular(&path, &fields)?;
            summarize(file, delimiter, VALUES_MAX).map_err(|error| match error {
                TableError::Unreadable(source) => TaskError::io("read", &path, source),
                TableError::Malformed(problem) => fields.invalid("path", format!("({}) {problem}", path.display())),
            })
        }
        (None, Some(text)) => summarize(text.as_bytes(), delimiter, VALUES_MAX).map_err(|error| match error {
            TableError::Unreadable(source) => fields.invalid("csv", format!("cannot be read: {source}")),
            TableError::Malformed(problem) => fields.invalid("csv", problem),
        }),
        (None, None) => Err(fields.invalid("path", "is missing; give it, or the table itself in `input.csv`")),
        (Some(_), Some(_)) => Err(fields.invalid("csv", "stands beside `input.path`; give one of the two")),
    }
}

/// Opens a file, and only a file: a FIFO or a device could keep the job waiting for ever.
fn open_regular(path: &Path, fields: &Fields<'_>) -> Result<File, TaskError> {
    let metadata = fs::metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => fields.invalid(
            "path",
            format!(
                "names {}, which is not there. A container sees only its image, the work directory, and what \
                 APPTAINER_BIND adds.",
                path.display()
            ),
        ),
        _ => TaskError::io("open", path, source),
    })?;
    if !metadata.is_file() {
        return Err(fields.invalid("path", format!("names {}, which is no regular file", path.display())));
    }
    File::open(path).map_err(|source| TaskError::io("open", path, source))
}

/// Why there are no statistics of a table.
#[derive(Debug)]
enum TableError {
    Unreadable(io::Error),
    /// A text that follows the name of a field.
    Malformed(String),
}

impl From<csv::Error> for TableError {
    fn from(error: csv::Error) -> Self {
        match error.into_kind() {
            csv::ErrorKind::Io(source) => Self::Unreadable(source),
            csv::ErrorKind::UnequalLengths { pos, expected_len, len } => Self::Malformed(format!(
                "has {len} fields in row {}, and {expected_len} columns in its first line",
                // The header is record 0, so this counts as `rows` does.
                pos.map_or(0, |pos| pos.record())
            )),
            other => Self::Malformed(format!("is no CSV table: {other:?}")),
        }
    }
}

fn summarize<R: io::Read>(table: R, delimiter: u8, values_max: usize) -> Result<Summary, TableError> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(table);
    let mut columns: Vec<Column> = reader
        .byte_headers()?
        .iter()
        .map(|name| Column::new(String::from_utf8_lossy(name.trim_ascii()).into_owned()))
        .collect();
    if columns.is_empty() {
        return Err(TableError::Malformed("is empty; its first line must name the columns".to_owned()));
    }
    let mut rows: u64 = 0;
    let mut keep_values = true;
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record)? {
        rows += 1;
        for (column, field) in columns.iter_mut().zip(record.iter()) {
            column.take(field.trim_ascii(), rows, keep_values);
        }
        if keep_values && columns.iter().map(Column::kept).sum::<usize>() > values_max {
            keep_values = false;
            columns.iter_mut().for_each(Column::forget_values);
        }
    }
    let mut summary = Summary { rows, columns: Vec::new(), not_numeric: Vec::new(), note: None };
    for column in columns {
        match column.finish(keep_values) {
            Ok(numeric) => summary.columns.push(numeric),
            Err(text) => summary.not_numeric.push(text),
        }
    }
    if !keep_values {
        summary.note = Some(format!("no quartiles: the table holds more than {values_max} numbers"));
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_json(input: serde_json::Value, work_dir: &Path) -> Result<Summary, TaskError> {
        run(&serde_json::value::to_raw_value(&input).unwrap(), work_dir)
    }

    fn summary_of(csv: &str) -> Summary {
        run_json(serde_json::json!({ "csv": csv }), Path::new("/nowhere")).unwrap()
    }

    #[test]
    fn summarize_output_format_unchanged() {
        let summary = summary_of("city, t ,empty\nOslo,1,\nRome,2,NA\n\"Bern, CH\",3,\nParis, 4,\nBonn,,null\n");
        assert_eq!(
            serde_json::to_string(&summary).unwrap(),
            concat!(
                r#"{"rows":5,"columns":["#,
                r#"{"name":"t","count":4,"missing":1,"mean":2.5,"std":1.2909944487358056,"min":1.0,"q1":1.75,"median":2.5,"q3":3.25,"max":4.0},"#,
                r#"{"name":"empty","count":0,"missing":5,"mean":null,"std":null,"min":null,"q1":null,"median":null,"q3":null,"max":null}"#,
                r#"],"not_numeric":[{"name":"city","missing":0,"row":1,"value":"Oslo"}]}"#
            )
        );
    }

    #[test]
    fn a_column_turns_to_text_at_its_first_word() {
        let summary = summary_of("a,b\n1,1\n2,inf\nx,3\n");
        assert!(summary.columns.is_empty());
        let json = serde_json::to_string(&summary.not_numeric).unwrap();
        assert_eq!(
            json,
            r#"[{"name":"a","missing":0,"row":3,"value":"x"},{"name":"b","missing":0,"row":2,"value":"inf"}]"#
        );
    }

    #[test]
    fn other_delimiters_encodings_and_line_ends_are_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("t.csv"), b"\xef\xbb\xbfx;name\r\n1e3;M\xfcnchen\r\n-2.5;\"a;b\"\r\n").unwrap();
        let input = serde_json::json!({ "path": "t.csv", "delimiter": ";" });
        let summary = run_json(input, dir.path()).unwrap();
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["rows"], 2);
        assert_eq!(json["columns"][0]["name"], "x");
        assert_eq!(json["columns"][0]["mean"], 498.75);
        assert_eq!(json["not_numeric"][0]["value"], "M\u{fffd}nchen");
    }

    #[test]
    fn quartiles_are_left_out_past_the_bound_and_the_rest_stays() {
        let table = "a,b\n1,10\n2,20\n3,30\n";
        let kept = summarize(table.as_bytes(), b',', 6).unwrap();
        assert_eq!((kept.note, kept.columns.len()), (None, 2));
        let bounded = summarize(table.as_bytes(), b',', 5).unwrap();
        assert_eq!(bounded.note.as_deref(), Some("no quartiles: the table holds more than 5 numbers"));
        let json = serde_json::to_value(&bounded.columns).unwrap();
        assert_eq!(json[1]["median"], serde_json::Value::Null);
        assert_eq!(json[1]["mean"], 20.0);
        assert_eq!(json[1]["max"], 30.0);
    }

    #[test]
    fn bad_tables_and_bad_paths_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for (input, sentence) in [
            (serde_json::json!({}), "`input.path` is missing"),
            (serde_json::json!({"path": "a", "csv": "b"}), "`input.csv` stands beside `input.path`"),
            (serde_json::json!({"csv": ""}), "`input.csv` is empty; its first line must name the columns"),
            (serde_json::json!({"csv": "a,b\n1,2\n3\n"}), "`input.csv` has 1 fields in row 2, and 2 columns"),
            (serde_json::json!({"csv": 5}), "`input.csv` must be a string, and it is 5"),
            (serde_json::json!({"csv": "a", "delimiter": ", "}), "`input.delimiter` must be one ASCII character"),
            (serde_json::json!({"csv": "a", "delimiter": "\n"}), "`input.delimiter` must be one ASCII character"),
            (serde_json::json!({"path": "none.csv"}), "`input.path` names "),
            (serde_json::json!({"path": "/dev/null"}), "`input.path` names /dev/null, which is no regular file"),
            (serde_json::json!({"path": "."}), "`input.path` names "),
        ] {
            let error = run_json(input.clone(), dir.path()).unwrap_err();
            assert!(error.to_string().starts_with(sentence), "{input}: {error}");
            assert_eq!(error.exit_code(), 2, "{input}");
        }
    }
}
