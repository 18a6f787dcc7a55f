//! Standard output of what prints results: lines for people, or JSON lines for programs.
//!
//! Invariant: what a terminal gets has no control characters in it.

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use anyhow::Context as _;
use protocol::text::{escaped, escaped_json};
use protocol::{JobId, JobResult, Json, Reason, Status, Word};

use crate::output::OutputFormat;
use crate::pretty::pretty_json;
use crate::style::may_color;

/// How many lines of the end of a failed job's standard error are shown.
const TAIL_LINES_MAX: usize = 20;

/// Whoever read standard output has gone.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub struct StdoutClosed;

/// Standard output.
#[derive(Debug)]
pub struct Printer {
    out: std::io::Stdout,
    format: OutputFormat,
    is_terminal: bool,
    paint: Paint,
    /// The command that prints a result in full.
    in_full: &'static str,
}

impl Printer {
    /// Prints in the given form; without one, as fits what standard output is. `in_full` is the command that prints the
    /// result of a job in full, where it was cut.
    pub fn new(format: Option<OutputFormat>, in_full: &'static str) -> Self {
        let out = std::io::stdout();
        let is_terminal = out.is_terminal();
        let format = format.unwrap_or(if is_terminal { OutputFormat::Text } else { OutputFormat::Json });
        let paint = if is_terminal && may_color(&out) { Paint::Colors } else { Paint::Nothing };
        Self { out, format, is_terminal, paint, in_full }
    }

    /// Does it print lines for people?
    pub fn is_human(&self) -> bool {
        self.format == OutputFormat::Text
    }

    /// Prints a result; `line` is its JSON on one line.
    pub fn result(&mut self, result: &JobResult, line: &str) -> anyhow::Result<()> {
        let text = match self.format {
            OutputFormat::Text => human(result, self.paint, self.in_full),
            OutputFormat::Json => self.line(line),
        };
        self.write(&text)
    }

    /// Prints that a job is in the queue; `answer` is what the edge said.
    pub fn queued(&mut self, job_id: &JobId, answer: &Json) -> anyhow::Result<()> {
        let text = match self.format {
            OutputFormat::Text => format!("{job_id}  queued\n"),
            OutputFormat::Json => self.line(answer.as_str()),
        };
        self.write(&text)
    }

    /// Prints the id of a job alone.
    pub fn id(&mut self, job_id: &JobId) -> anyhow::Result<()> {
        self.write(&format!("{job_id}\n"))
    }

    /// Prints JSON that is on one line.
    pub fn json(&mut self, line: &str) -> anyhow::Result<()> {
        self.write(&self.line(line))
    }

    /// Prints what has its own form.
    pub fn text(&mut self, text: &str) -> anyhow::Result<()> {
        self.write(text)
    }

    fn line(&self, json: &str) -> String {
        if self.is_terminal { format!("{}\n", escaped_json(json)) } else { format!("{json}\n") }
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
            written => written.context("cannot write to standard output"),
        }
    }
}

/// Colors, which never carry a meaning alone: what they say stands there as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paint {
    Colors,
    Nothing,
}

impl Paint {
    /// Red for what did not succeed, green for what did.
    fn status(self, text: &str, status: &Word<Status>) -> String {
        let color = if *status == Status::Completed { 32 } else { 31 };
        match self {
            Self::Colors => format!("\u{1b}[{color}m{text}\u{1b}[0m"),
            Self::Nothing => text.to_owned(),
        }
    }
}

/// A result for people: one line, and what matters below it.
fn human(result: &JobResult, paint: Paint, in_full: &str) -> String {
    let mut head = vec![result.job_id.to_string(), paint.status(&status(result), &result.status)];
    head.extend(result.task.as_deref().map(escaped));
    head.extend((result.attempt > 1).then(|| format!("attempt {}", result.attempt)));
    head.extend(duration(result).map(|duration| format!("in {duration}")));
    head.extend(result.host.as_deref().map(|host| format!("on {}", escaped(host))));
    let mut lines = vec![head.join("  ")];

    if let Some(message) = &result.message {
        lines.push(format!("  {}", escaped(message)));
    }
    let mut whole = false;
    if let Some(output) = &result.output {
        let (text, shown_whole) = pretty_json(output.as_str());
        lines.extend(text.lines().map(|line| format!("  {line}")));
        whole = shown_whole;
        if !whole {
            lines.push(format!("  … cut here; `{in_full} {} --output json` prints all", result.job_id));
        }
    }
    for (stream, tail) in [("stdout", &result.stdout_tail), ("stderr", &result.stderr_tail)] {
        let Some(tail) = tail.as_ref().filter(|tail| !tail.trim().is_empty()) else { continue };
        lines.push(format!("  the end of {stream}:"));
        let all: Vec<&str> = tail.trim_end().lines().collect();
        let shown = &all[all.len().saturating_sub(TAIL_LINES_MAX)..];
        lines.extend(shown.iter().map(|line| format!("    {}", escaped(line))));
    }
    let files = result.files.len();
    if files > 0 || result.output_file.is_some() {
        let bytes: u64 =
            result.files.iter().map(|file| file.size).chain(result.output_file.map(|file| file.size)).sum();
        let what = match (files, result.output_file.is_some() && result.output.is_none()) {
            (0, _) => "the output".to_owned(),
            (files, true) => format!("the output and {}", counted(files)),
            (files, false) => counted(files),
        };
        lines.push(format!("  {what} of {bytes} bytes: `laptop-consumer fetch {}`", result.job_id));
    }
    lines.extend(result.files_note.as_deref().map(|note| format!("  {}", escaped(note))));
    if !whole {
        let size = result.output_bytes.map(|bytes| format!(" ({bytes} bytes of output)")).unwrap_or_default();
        lines.push(format!("  {}{size}", escaped(&result.result_pointer)));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn counted(files: usize) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

fn status(result: &JobResult) -> String {
    // A word that we do not know is shown as it came.
    let state = escaped(&result.status.to_string());
    let Some(reason) = result.reason.as_ref().filter(|_| result.status != Status::Completed) else { return state };
    let number = match (reason, result.exit_code, result.signal) {
        (Word::Known(Reason::Exit), Some(code), _) => format!(" {code}"),
        (Word::Known(Reason::Signal), _, Some(signal)) => format!(" {signal}"),
        _ => String::new(),
    };
    format!("{state} ({}{number})", escaped(&reason.to_string()))
}

fn duration(result: &JobResult) -> Option<String> {
    let seconds = result.finished_at?.duration_since(result.started_at?).as_secs_f64();
    // A clock may have been set meanwhile.
    if seconds < 0.0 {
        return None;
    }
    let whole = seconds.round() as u64;
    Some(match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str) -> String {
        human(&JobResult::parse(json).unwrap(), Paint::Nothing, "laptop-consumer show")
    }

    #[test]
    fn what_failed_is_red_and_says_so() {
        let result = |status: &str| {
            let json = format!(r#"{{"v":1,"job_id":"j1","status":"{status}","result_pointer":"p"}}"#);
            human(&JobResult::parse(&json).unwrap(), Paint::Colors, "")
        };
        assert!(result("failed").starts_with("j1  \u{1b}[31mfailed\u{1b}[0m\n"));
        assert!(result("completed").starts_with("j1  \u{1b}[32mcompleted\u{1b}[0m\n"));
    }

    #[test]
    fn a_completed_job_shows_its_output() {
        let text = shown(
            r#"{"v":1,"job_id":"j1","status":"completed","result_pointer":"file://n/output.json","task":"simulate","attempt":1,"host":"node1","started_at":"2026-11-21T01:15:28Z","finished_at":"2026-11-21T01:15:29.54Z","output":{"pi":3.140},"output_bytes":12}"#,
        );
        assert_eq!(text, "j1  completed  simulate  in 1.5 s  on node1\n  {\"pi\": 3.140}\n");
        let text = shown(
            r#"{"v":1,"job_id":"j1","status":"completed","result_pointer":"p","task":"simulate","attempt":3,"host":"node1","output":1}"#,
        );
        assert_eq!(text, "j1  completed  simulate  attempt 3  on node1\n  1\n");
    }

    #[test]
    fn files_that_a_job_has_left_are_told_with_what_fetches_them() {
        let digest = "0".repeat(64);
        let file = format!(r#"{{"path":"a.png","size":7,"sha256":"{digest}"}}"#);
        let result = |fields: &str| {
            shown(&format!(r#"{{"v":1,"job_id":"j1","status":"completed","result_pointer":"p",{fields}}}"#))
        };
        for (fields, says) in [
            (format!(r#""files":[{file}],"output":1"#), "  1 file of 7 bytes: `laptop-consumer fetch j1`\n"),
            (
                format!(r#""files":[{file},{file}],"files_note":"too\u001bmany""#),
                "  2 files of 14 bytes: `laptop-consumer fetch j1`\n  too\\u{1b}many\n",
            ),
            (
                format!(r#""output_file":{{"sha256":"{digest}","size":90}}"#),
                "  the output of 90 bytes: `laptop-consumer fetch j1`\n",
            ),
            (
                format!(r#""files":[{file}],"output_file":{{"sha256":"{digest}","size":90}}"#),
                "  the output and 1 file of 97 bytes: ",
            ),
        ] {
            assert!(result(&fields).contains(says), "{}", result(&fields));
        }
    }

    #[test]
    fn a_failed_job_shows_why() {
        let tail: String = (0..30).map(|number| format!("line {number}\\n")).collect();
        let text = shown(&format!(
            r#"{{"v":1,"job_id":"j1","status":"failed","result_pointer":"file://n/j1.json","reason":"exit","message":"the task ended with exit code 3","exit_code":3,"stderr_tail":"{tail}\u001b[31mred"}}"#
        ));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["j1  failed (exit 3)", "  the task ended with exit code 3", "  the end of stderr:"]);
        assert_eq!(lines.len(), 3 + TAIL_LINES_MAX + 1);
        assert_eq!(lines[3], "    line 11");
        assert_eq!(lines[3 + TAIL_LINES_MAX - 1], "    \\u{1b}[31mred");
        assert_eq!(lines.last(), Some(&"  file://n/j1.json"));
    }

    #[test]
    fn an_output_that_did_not_travel_is_pointed_to_and_a_long_one_is_cut() {
        let text = shown(
            r#"{"v":1,"job_id":"j1","status":"completed","result_pointer":"file://n/output.json","output_bytes":90000}"#,
        );
        assert_eq!(text, "j1  completed\n  file://n/output.json (90000 bytes of output)\n");
        let output = format!("[{}0]", "123,".repeat(10_000));
        let text =
            shown(&format!(r#"{{"v":1,"job_id":"j1","status":"completed","result_pointer":"p","output":{output}}}"#));
        assert!(text.len() < 10_000 && text.contains("`laptop-consumer show j1 --output json` prints all"), "{text}");
        assert!(text.ends_with("  p\n"), "{text}");
    }

    #[test]
    fn nothing_that_was_sent_reaches_the_terminal_as_a_control_character() {
        let evil = r"\u001b]0;x\u0007\n\u009b2J\u202e";
        let text = shown(&format!(
            r#"{{"v":1,"job_id":"j1","status":"failed","result_pointer":"{evil}","reason":"signal","signal":9,"message":"{evil}","task":"{evil}","host":"{evil}","output":{{"{evil}":"{evil}"}},"stderr_tail":"{evil}"}}"#
        ));
        assert!(text.starts_with("j1  failed (signal 9)"), "{text}");
        let harmless = |c: char| !c.is_control() && c != '\u{202e}';
        assert!(text.split('\n').all(|line| line.chars().all(harmless)), "{text:?}");
    }

    #[test]
    fn durations_are_readable() {
        let after = |finished: &str| {
            let json = format!(
                r#"{{"v":1,"job_id":"j1","status":"completed","result_pointer":"p","started_at":"2026-11-21T01:00:00Z","finished_at":"{finished}"}}"#
            );
            duration(&JobResult::parse(&json).unwrap())
        };
        assert_eq!(after("2026-11-21T01:00:00.04Z").as_deref(), Some("0.0 s"));
        assert_eq!(after("2026-11-21T01:03:20Z").as_deref(), Some("3 min 20 s"));
        assert_eq!(after("2026-11-21T03:05:20Z").as_deref(), Some("2 h 5 min"));
        assert_eq!(after("2026-11-21T00:59:00Z"), None);
    }
}
