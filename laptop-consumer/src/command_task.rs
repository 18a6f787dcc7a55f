//! The task `command`, which runs whatever it is told to: what it takes and what it gives. It is there where the site's
//! file has it.

use std::collections::BTreeMap;

use protocol::JobResult;
use serde::{Deserialize, Serialize};

/// Its name.
pub(crate) const TASK: &str = "command";

/// What it takes.
#[derive(Debug, Serialize)]
pub(crate) struct CommandInput {
    /// The command and its arguments.
    pub(crate) argv: Vec<String>,
    /// Small files, by name, that are there when it begins.
    pub(crate) files: BTreeMap<String, String>,
    /// Its standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stdin: Option<String>,
}

/// What it gives: that the command ran, and how it ended.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct CommandOutput {
    /// Negative is the number of the signal that ended it.
    pub(crate) exit_code: i32,
    #[serde(default)]
    pub(crate) stdout: String,
    #[serde(default)]
    pub(crate) stderr: String,
}

impl CommandOutput {
    /// That of a job of this task, if its command ran and the output came along.
    pub(crate) fn of(result: &JobResult) -> Option<Self> {
        let output = result.output.as_ref().filter(|_| result.task.as_deref() == Some(TASK))?;
        serde_json::from_str(output.as_str()).ok()
    }

    /// As a shell counts: a signal is 128 and its number.
    pub(crate) fn shell_code(&self) -> u8 {
        match self.exit_code {
            code @ 0..=255 => u8::try_from(code).unwrap_or(u8::MAX),
            signal @ -127..=-1 => u8::try_from(128 - signal).unwrap_or(u8::MAX),
            _ => u8::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_format_unchanged() {
        let files = BTreeMap::from([("x.py".to_owned(), "print(1)\n".to_owned())]);
        let input =
            CommandInput { argv: vec!["python".to_owned(), "x.py".to_owned()], files, stdin: Some("in".to_owned()) };
        let json = r#"{"argv":["python","x.py"],"files":{"x.py":"print(1)\n"},"stdin":"in"}"#;
        assert_eq!(serde_json::to_string(&input).unwrap(), json);
        let input = CommandInput { argv: vec!["true".to_owned()], files: BTreeMap::new(), stdin: None };
        assert_eq!(serde_json::to_string(&input).unwrap(), r#"{"argv":["true"],"files":{}}"#);
    }

    #[test]
    fn only_an_output_of_the_task_says_how_the_command_ended() {
        let of = |task: &str, output: &str| {
            let text = format!(r#"{{"job_id":"j","status":"completed","task":"{task}","output":{output}}}"#);
            CommandOutput::of(&JobResult::parse(&text).unwrap())
        };
        let output = of(TASK, r#"{"exit_code":7,"stdout":"a","stderr":"b","more":1}"#).unwrap();
        assert_eq!((output.shell_code(), output.stdout.as_str(), output.stderr.as_str()), (7, "a", "b"));
        assert_eq!(of("echo", r#"{"exit_code":7}"#), None);
        assert_eq!(of(TASK, "[]"), None);
        for (code, shell) in [(0, 0), (255, 255), (-9, 137), (256, 255), (-200, 255)] {
            assert_eq!(of(TASK, &format!(r#"{{"exit_code":{code}}}"#)).unwrap().shell_code(), shell, "{code}");
        }
    }
}
