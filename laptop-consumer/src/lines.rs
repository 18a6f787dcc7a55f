//! A file with an input on each line: comma-separated values, or JSON.
//!
//! Invariant: nothing of it is sent before all of it is understood, and what is not is told with its line.

use std::collections::HashSet;
use std::path::Path;

use csv::{ReaderBuilder, Trim};
use program::counted;
use protocol::Json;

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A header with the names of the fields, and a line for each input.
    Csv,
    /// Each line is an input.
    Ndjson,
}

/// An input, and the line that it begins in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) input: Json,
}

impl Form {
    /// As the name of a file says; standard input is JSON.
    pub(crate) fn of(path: &Path) -> Result<Self, String> {
        let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
        match ending.as_deref() {
            _ if path.as_os_str() == "-" => Ok(Self::Ndjson),
            Some("csv") => Ok(Self::Csv),
            Some("ndjson" | "jsonl") => Ok(Self::Ndjson),
            _ => Err("its name ends with .csv, .ndjson or .jsonl, so that it can be told what it is".to_owned()),
        }
    }

    /// The inputs in a text. The error names the line.
    pub(crate) fn read(self, text: &str) -> Result<Vec<Line>, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = match self {
            Self::Csv => csv(text)?,
            Self::Ndjson => ndjson(text)?,
        };
        if lines.is_empty() { Err("it has no line with an input".to_owned()) } else { Ok(lines) }
    }
}

fn ndjson(text: &str) -> Result<Vec<Line>, String> {
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    lines
        .map(|(line, number)| match Json::parse(line) {
            Ok(input) => Ok(Line { number, input }),
            Err(error) => {
                let why = error.to_string();
                let why = why.split(" at line ").next().unwrap_or_default();
                Err(format!("line {number} is not JSON: {why} at column {}", error.column()))
            }
        })
        .collect()
}

fn csv(text: &str) -> Result<Vec<Line>, String> {
    let mut reader = ReaderBuilder::new().flexible(true).trim(Trim::All).from_reader(text.as_bytes());
    let names: Vec<String> = reader.headers().map_err(|error| error.to_string())?.iter().map(str::to_owned).collect();
    check_header(&names)?;
    let mut lines = Vec::new();
    let (mut looked_at, mut number) = (0, 1);
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        // The reader takes the end of a line, and lines without content, for the beginning of the next record.
        let start = record.position().and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or(looked_at);
        let start = start + text[start..].bytes().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        number += text[looked_at..start].bytes().filter(|byte| *byte == b'\n').count() as u64;
        looked_at = start;
        if record.len() != names.len() {
            return Err(format!(
                "line {number} has {}, and the header has {}; a field with a comma in it stands between double quotes",
                counted(record.len(), "field"),
                names.len()
            ));
        }
        let fields: Vec<String> = names
            .iter()
            .zip(&record)
            .filter(|(_, cell)| !cell.is_empty())
            .map(|(name, cell)| format!("{}:{}", quoted(name), value(cell)))
            .collect();
        let input = Json::parse(&format!("{{{}}}", fields.join(","))).map_err(|error| error.to_string())?;
        lines.push(Line { number, input });
    }
    Ok(lines)
}

fn check_header(names: &[String]) -> Result<(), String> {
    if let [name] = names
        && name.contains([';', '\t'])
    {
        return Err(format!("the header is one field, {}: fields are separated by commas", quoted(name)));
    }
    let mut seen = HashSet::new();
    for (name, column) in names.iter().zip(1..) {
        if name.is_empty() {
            return Err(format!("the header has no name for column {column}; the first line names all fields"));
        }
        if !seen.insert(name) {
            return Err(format!("the header has the name {} twice", quoted(name)));
        }
    }
    Ok(())
}

/// What is written as JSON writes a number is that number, with all of its digits; anything else is text.
fn value(cell: &str) -> String {
    let is_number = cell.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if is_number && Json::parse(cell).is_ok() { cell.to_owned() } else { quoted(cell) }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(form: Form, text: &str) -> String {
        match form.read(text) {
            Ok(lines) => {
                lines.iter().map(|line| format!("{}={}", line.number, line.input)).collect::<Vec<_>>().join(" ")
            }
            Err(error) => format!("wrong: {error}"),
        }
    }

    #[test]
    fn the_cells_of_a_line_are_the_fields_of_an_input() {
        for (text, says) in [
            ("a,b\n1,x\n", r#"2={"a":1,"b":"x"}"#),
            ("\u{feff}a, b \r\n1 , x\r\n\r\n2,y", r#"2={"a":1,"b":"x"} 4={"a":2,"b":"y"}"#),
            // Numbers as JSON has them, and nothing else.
            ("a\n-1.50\n1e400\n0\n", r#"2={"a":-1.50} 3={"a":1e400} 4={"a":0}"#),
            (
                "a\n007\n+1\n.5\n1.\n1 2\n-\n",
                r#"2={"a":"007"} 3={"a":"+1"} 4={"a":".5"} 5={"a":"1."} 6={"a":"1 2"} 7={"a":"-"}"#,
            ),
            ("a\ntrue\nnull\nNaN\n", r#"2={"a":"true"} 3={"a":"null"} 4={"a":"NaN"}"#),
            // An empty cell is no field.
            ("a,b\n,\n,1\n", r#"2={} 3={"b":1}"#),
            ("\"a\"\"b\",c\n\"x,\ny\",\"1\"\nz,2\n", r#"2={"a\"b":"x,\ny","c":1} 4={"a\"b":"z","c":2}"#),
        ] {
            assert_eq!(told(Form::Csv, text), says, "{text:?}");
        }
    }

    #[test]
    fn each_line_of_json_is_an_input_as_it_is() {
        assert_eq!(
            told(Form::Ndjson, "{\"b\": 1.50, \"a\": 2}\n\n  [1]\r\nnull"),
            r#"1={"b":1.50,"a":2} 3=[1] 4=null"#
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (form, text, says) in [
            (Form::Csv, "a,b\n1,2\n1,2,3\n", "line 3 has 3 fields, and the header has 2"),
            (Form::Csv, "a,b\n\"x\ny\",1\n1\n", "line 4 has 1 field,"),
            (Form::Csv, "a;b\n1;2\n", "separated by commas"),
            (Form::Csv, "a,,b\n1,2,3\n", "no name for column 2"),
            (Form::Csv, "a,b,a\n1,2,3\n", "the name \"a\" twice"),
            (Form::Csv, "a,b\n", "no line with an input"),
            (Form::Csv, "", "no line with an input"),
            (Form::Ndjson, "{}\n\n{\"a\":}\n", "line 3 is not JSON: expected value at column 6"),
            (Form::Ndjson, "\n \n", "no line with an input"),
        ] {
            let told = told(form, text);
            assert!(told.starts_with("wrong: ") && told.contains(says), "{text:?}: {told}");
        }
    }

    #[test]
    fn the_name_says_what_a_file_is() {
        let of = |name: &str| Form::of(Path::new(name)).ok();
        assert_eq!([of("a/b.csv"), of("B.CSV")], [Some(Form::Csv); 2]);
        assert_eq!([of("a.ndjson"), of("a.jsonl"), of("-")], [Some(Form::Ndjson); 3]);
        assert_eq!([of("a.txt"), of("csv"), of("a.json")], [None; 3]);
    }
}
