//! What the measures of the daemon share: jobs in the queue, and the time until all of them have a final record.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::http::{Connection, Url};
use crate::processes::{LocalEdge, Process};
use crate::workspace::{Profile, Workspace};

/// The most that one request to the edge takes.
const BATCH: usize = 100;
const PATIENCE: Duration = Duration::from_secs(600);

/// Submits the same job so many times.
pub(super) fn submit(edge: &LocalEdge, job: &Value, count: usize) -> anyhow::Result<()> {
    let url = Url::parse(&format!("{}/jobs/batch", edge.settings.get("PRODUCER_URL")?.trim_end_matches('/')))?;
    let headers = [("x-api-key", edge.settings.get("API_KEY")?)];
    let mut connection = Connection::open(&url)?;
    let mut left = count;
    while left > 0 {
        let size = left.min(BATCH);
        let body = json!({"jobs": vec![job; size]}).to_string();
        let answer = connection.post(&url, &headers, body.as_bytes())?.json(202)?;
        let jobs = answer["jobs"].as_array().context("the answer to the batch has no list of jobs")?;
        if jobs.len() != size || jobs.iter().any(|job| job["job_id"].is_null()) {
            bail!("not every job of the batch was accepted: {answer}");
        }
        left -= size;
    }
    Ok(())
}

/// The daemon's command, with its results in `results`.
pub(super) fn command(workspace: &Workspace, edge: &LocalEdge, results: &Path) -> Command {
    let mut command = Command::new(workspace.program(Profile::Release, "hpc-consumer"));
    command
        .arg("run")
        .arg("--env-file")
        .arg(&edge.env_file)
        .env("RESULTS_DIR", results)
        .env("POLL_INTERVAL_SECONDS", "0.1")
        .env("POLL_INTERVAL_MAX_SECONDS", "0.1");
    command
}

/// Starts the daemon and measures the seconds until so many final records are there; then it must end by itself.
pub(super) fn seconds_for(mut command: Command, folder: &Path, results: &Path, records: usize) -> anyhow::Result<f64> {
    command.arg("--exit-when-idle");
    let begin = Instant::now();
    let mut daemon = Process::start("hpc-consumer", &mut command, folder)?;
    // The last record may be the last thing that the daemon does, so its end is no reason to stop looking.
    let seconds = loop {
        if count_records(results) >= records {
            break begin.elapsed().as_secs_f64();
        }
        if begin.elapsed() > PATIENCE {
            bail!("{} of {records} jobs ended within {PATIENCE:?}: {}", count_records(results), daemon.log());
        }
        if daemon.has_ended()? && count_records(results) < records {
            bail!("the daemon ended after {} of {records} jobs: {}", count_records(results), daemon.log());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let status = daemon.wait(Duration::from_secs(60))?;
    if !status.success() {
        bail!("the daemon ended with {status}: {}", daemon.log());
    }
    Ok(seconds)
}

/// How many files `<job_id>.json` are there.
fn count_records(results: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(results) else { return 0 };
    entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.ends_with(".json") && !name.starts_with('.')
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_final_records_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.json", "b.json", ".c.json.tmp", ".d.json", "state.db"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("a")).unwrap();
        assert_eq!(count_records(folder.path()), 2);
        assert_eq!(count_records(&folder.path().join("nowhere")), 0);
    }
}
