//! Which requests reach `local-edge`, by its own log. It writes a line for each, so a measure of time has no use for it
//! unless requests are few.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::env_file::EnvFile;
use crate::processes::{LocalEdge, Process};
use crate::workspace::{Profile, Workspace};

/// Starts `local-edge` so that it logs each request.
pub(super) fn start(workspace: &Workspace, profile: Profile, folder: &Path) -> anyhow::Result<LocalEdge> {
    let mut command = LocalEdge::command(workspace, profile, folder);
    command.args(["--log", "local_edge=debug", "--log-format", "json"]);
    let mut process = Process::start("local-edge", &mut command, folder)?;
    let env_file = folder.join("edge.env");
    process.wait_for("it wrote its env file", Duration::from_secs(20), |_| env_file.exists().then_some(()))?;
    let settings = EnvFile::read(&env_file)?;
    Ok(LocalEdge { process, env_file, settings })
}

/// How many requests were answered so far whose path holds `part`.
pub(super) fn requests(edge: &LocalEdge, part: &str) -> usize {
    count(&edge.process.log(), part)
}

fn count(log: &str, part: &str) -> usize {
    let paths = log.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"] == "answered").then(|| line["path"].as_str().map(str::to_owned))?
    });
    paths.filter(|path| path.contains(part)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answered_requests_of_the_kind_are_counted() {
        let log = [
            "local-edge listens on http://127.0.0.1:1, its data is in /client/v4/",
            r#"{"level":"DEBUG","message":"answered","method":"POST","path":"/client/v4/q/messages/pull","status":200}"#,
            r#"{"level":"DEBUG","message":"answered","method":"POST","path":"/jobs/batch","status":202}"#,
            r#"{"level":"INFO","message":"stopping","path":"/client/v4/q/messages/pull"}"#,
            r#"{"level":"DEBUG","message":"answered","method":"POST","path":"/client/v4/q/messages/ack","status":200}"#,
        ]
        .join("\n");
        assert_eq!(count(&log, "/client/v4/"), 2);
        assert_eq!(count(&log, "/messages/pull"), 1);
    }
}
