//! The task `command`, which runs whatever it is told to: what it takes and what it gives. It is there where the site's
//! file has it.

use std::collections::BTreeMap;

use protocol::{JobId, JobResult};
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
    /// As a shell counts: a signal is 128 and its number. Other programs have the number, as a negative one.
    pub(crate) exit_code: i32,
    #[serde(default)]
    pub(crate) stdout: String,
    #[serde(default)]
    pub(crate) stderr: String,
    /// How much it was, where that is the end of it alone.
    stdout_bytes: Option<u64>,
    stderr_bytes: Option<u64>,
}

impl CommandOutput {
    /// That of a job of this task, if its command ran and the output came along.
    pub(crate) fn of(result: &JobResult) -> Option<Self> {
        let output = result.output.as_ref().filter(|_| result.task.as_deref() == Some(TASK))?;
        serde_json::from_str(output.as_str()).ok()
    }

    /// What a person should know who has seen only the end of it.
    pub(crate) fn left_out(&self, job_id: &JobId) -> Option<String> {
        let left_out = |stream: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{stream} had {bytes} bytes"));
        let streams = [left_out("stdout", self.stdout_bytes), left_out("stderr", self.stderr_bytes)];
        let what = streams.into_iter().flatten().collect::<Vec<_>>().join(" and ");
        (!what.is_empty())
            .then(|| format!("only the end of it is here: {what}; on the cluster: hpc-consumer logs {job_id}"))
    }

    /// As a shell counts.
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
        assert_eq!(output.left_out(&"j".parse().unwrap()), None);
        let cut = of(TASK, r#"{"exit_code":7,"stdout":"a","stderr_bytes":70000}"#).unwrap();
        let told = cut.left_out(&"j".parse().unwrap()).unwrap();
        assert!(told.contains("stderr had 70000 bytes;") && told.ends_with("hpc-consumer logs j"), "{told}");
        assert_eq!(of("echo", r#"{"exit_code":7}"#), None);
        assert_eq!(of(TASK, "[]"), None);
        for (code, shell) in [(0, 0), (255, 255), (-9, 137), (256, 255), (-200, 255)] {
            assert_eq!(of(TASK, &format!(r#"{{"exit_code":{code}}}"#)).unwrap().shell_code(), shell, "{code}");
        }
    }
}
