//! What the programs on the laptop and on the cluster say alike of jobs, for scripts and workflow engines. It is a
//! contract: `docs/verbs.md`.

use std::fmt::Write as _;

use protocol::text::escaped_json;
use protocol::{JobId, JobState, Reason, Word};
use serde::Serialize;

use crate::output::OutputFormat;

/// How far one job is.
#[derive(Debug, Serialize)]
pub struct StatusLine<'a> {
    /// Which job.
    pub job_id: &'a JobId,
    /// How far it is.
    pub state: JobState,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a Word<Reason>>,
}

impl StatusLine<'_> {
    /// What `status` prints. Of one job that was asked for `alone` that is its word and nothing else; else each has a
    /// line, id and word with a tab between them; as JSON each is a line in any case.
    pub fn print(lines: &[Self], alone: bool, format: OutputFormat) -> String {
        let mut text = String::new();
        for line in lines {
            let Self { job_id, state, reason: _ } = line;
            let _ = match format {
                OutputFormat::Text if alone => writeln!(text, "{state}"),
                OutputFormat::Text => writeln!(text, "{job_id}\t{state}"),
                OutputFormat::Json => {
                    let json = serde_json::to_string(line).expect("it holds only words");
                    writeln!(text, "{}", escaped_json(&json))
                }
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_format_unchanged() {
        // Scripts and workflow engines read this.
        let ids = ["j1", "j2"].map(|id| id.parse::<JobId>().unwrap());
        let reason = Reason::Exit.into();
        let lines = || {
            [
                StatusLine { job_id: &ids[0], state: JobState::Running, reason: None },
                StatusLine { job_id: &ids[1], state: JobState::Failed, reason: Some(&reason) },
            ]
        };
        assert_eq!(StatusLine::print(&lines()[..1], true, OutputFormat::Text), "running\n");
        assert_eq!(StatusLine::print(&lines(), false, OutputFormat::Text), "j1\trunning\nj2\tfailed\n");
        let json =
            "{\"job_id\":\"j1\",\"state\":\"running\"}\n{\"job_id\":\"j2\",\"state\":\"failed\",\"reason\":\"exit\"}\n";
        assert_eq!(StatusLine::print(&lines(), false, OutputFormat::Json), json);
    }
}
