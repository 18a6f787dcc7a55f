//! The kind `python`: a function `main` in Python that the job brings; its output is what the function returns.
//!
//! Python takes the place of this program, so that signals reach it as they would reach a program of the image.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::value::RawValue;

use crate::error::TaskError;
use crate::fields::Fields;

/// What Python runs; it reads `input.json` by itself, and writes `output.json`.
const PROGRAM: &str = include_str!("python.py");

/// The interpreter, by the `PATH` of the image.
const PYTHON: &str = "python3";

/// Hands this process over to Python. Returns only where that cannot be.
pub(crate) fn run(input: &RawValue, work_dir: &Path) -> TaskError {
    if let Err(error) = check(input) {
        return error;
    }
    let error = Command::new(PYTHON).args(["-u", "-c", PROGRAM]).current_dir(work_dir).env("WORK_DIR", work_dir).exec();
    match error.kind() {
        io::ErrorKind::NotFound => {
            TaskError::BadJob("there is no python3 in this image, which tasks of the kind python need".to_owned())
        }
        _ => TaskError::io("run", Path::new(PYTHON), error),
    }
}

fn check(input: &RawValue) -> Result<(), TaskError> {
    let fields = Fields::of_input(input, &["code", "args"])?;
    if fields.text("code")?.is_none() {
        return Err(fields.invalid("code", "is missing; it is Python that defines a function main"));
    }
    fields.read::<BTreeMap<String, &RawValue>>("args", "must be an object: the keyword arguments of main")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_call_of_main_is_told() {
        for (input, told) in [
            ("null", "`input.code` is missing"),
            (r#"{"code":1}"#, "`input.code` must be a string"),
            (r#"{"code":"x","args":[1]}"#, "`input.args` must be an object"),
            (r#"{"code":"x","arg":{}}"#, "`input.arg` is no field of this task"),
        ] {
            let error = check(&RawValue::from_string(input.to_owned()).unwrap()).unwrap_err();
            assert!(error.to_string().starts_with(told), "{error}");
        }
        assert!(check(&RawValue::from_string(r#"{"code":"x","args":{"a":[1]}}"#.to_owned()).unwrap()).is_ok());
    }
}
