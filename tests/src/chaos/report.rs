//! The count: what was accepted against what ran and what came back.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::traffic::Seen;
use super::victims::Victims;
use super::{Plan, Runtime};
use crate::{Ledger, Runs};

/// Of how many jobs that went wrong everything known is shown.
const EVIDENCE_JOBS: usize = 3;

/// How many lines of the logs are shown of each.
const EVIDENCE_LINES: usize = 40;

/// What a chaos came to.
#[derive(Debug)]
pub struct Report {
    rows: Vec<(String, String)>,
    failures: Vec<String>,
    evidence: String,
    kills: u64,
    faults: u64,
}

/// What went wrong with one job.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Wrong {
    lost: bool,
    never_ran: bool,
    ran_too_often: bool,
    overlapping: bool,
    unfinished: bool,
    not_completed: bool,
    without_record: bool,
    two_results: bool,
}

impl Wrong {
    fn is_wrong(self) -> bool {
        self != Self::default()
    }
}

impl Report {
    pub(super) fn count(plan: &Plan, ledger: &Ledger, victims: &Victims, seen: &Seen, time: Duration) -> Self {
        let mut wrong = BTreeMap::new();
        let mut runs_max = 0;
        for (&number, job_id) in &seen.accepted {
            let runs = ledger.runs(number);
            runs_max = runs_max.max(runs.begun);
            let record = record(victims.results_dir(), job_id);
            let (result, differing) = (seen.results.get(job_id), seen.differing.contains(job_id));
            let of_job = judge(&runs, plan.runs(number), result, record.as_deref(), differing);
            if of_job.is_wrong() {
                wrong.insert(number, of_job);
            }
        }
        let faults: u64 = victims.injected().values().sum();
        let mut report = Self {
            rows: Vec::new(),
            failures: victims.problems().to_vec(),
            evidence: evidence(ledger, victims, seen, wrong.keys().copied()),
            kills: victims.kills(),
            faults,
        };
        let wrong: Vec<Wrong> = wrong.into_values().collect();

        let runtime = if plan.runtime == Runtime::Bare { "bare" } else { "apptainer" };
        report.row("seed, runtime", format!("{}, {runtime}", plan.seed));
        report.row("jobs accepted", seen.accepted.len());
        report.row("requests to submit that were repeated", seen.repeated);
        report.row("results received, deliveries", seen.deliveries);
        report.row("results received, messages", seen.messages.len());
        report.row("distinct results", seen.results.len());
        report.row("records in RESULTS_DIR", count_records(victims.results_dir()));
        let twice = seen.accepted.keys().filter(|number| plan.runs(**number) == 2).count();
        report.row("jobs whose first attempt fails", twice);
        report.row("runs of a job, at most", runs_max);
        report.row("messages left in the queue of jobs", victims.left_in_queue());
        for (victim, kills) in victims.kills_by_victim() {
            report.row(&format!("kills of {victim}"), kills);
            if *kills == 0 {
                report.failures.push(format!("{victim} was never killed: this was no chaos for it"));
            }
        }
        report.row("drains of daemons", victims.drains());
        let kinds: Vec<String> = victims
            .injected()
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(fault, count)| format!("{fault} {count}"))
            .collect();
        report.row("faults", format!("{faults} ({})", kinds.join(", ")));
        report.row("time", format!("{:.0} s", time.as_secs_f64()));

        let missing = plan.jobs - seen.accepted.len();
        report.verdict("jobs that were not accepted in time", missing);
        type Seen = fn(&Wrong) -> bool;
        let all: [(&str, Seen); 8] = [
            ("jobs lost: accepted, without a result", |wrong| wrong.lost),
            ("jobs that never ran", |wrong| wrong.never_ran),
            ("jobs run more often than they should", |wrong| wrong.ran_too_often),
            ("jobs with runs that overlap", |wrong| wrong.overlapping),
            ("jobs with a run that did not come to its end", |wrong| wrong.unfinished),
            ("jobs that did not complete", |wrong| wrong.not_completed),
            ("jobs without a record", |wrong| wrong.without_record),
            ("jobs with two different results", |wrong| wrong.two_results),
        ];
        for (what, is_so) in all {
            report.verdict(what, wrong.iter().filter(|wrong| is_so(wrong)).count());
        }
        let known: usize = seen.accepted.values().filter(|job_id| seen.results.contains_key(*job_id)).count();
        report.verdict("results of unknown jobs", seen.results.len() - known);
        report.verdict("messages that are no results", seen.unreadable.len());
        report
    }

    fn row(&mut self, name: &str, value: impl ToString) {
        self.rows.push((name.to_owned(), value.to_string()));
    }

    /// A row whose number is to be 0.
    fn verdict(&mut self, name: &str, count: usize) {
        self.row(name, count);
        if count > 0 {
            self.failures.push(format!("{name}: {count}"));
        }
    }

    /// Each thing that should not be, in a line or some.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// How many times a program was killed.
    pub fn kills(&self) -> u64 {
        self.kills
    }

    /// How many faults were injected.
    pub fn faults(&self) -> u64 {
        self.faults
    }

    /// What is known of the first jobs that went wrong; empty when none did.
    pub fn evidence(&self) -> &str {
        &self.evidence
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.rows {
            writeln!(f, "  {name:<46}{value}")?;
        }
        if self.failures.is_empty() {
            return writeln!(f, "\nEvery job ran as often as it should and has one result.");
        }
        writeln!(f, "\nWhat should not be:")?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "  {failure}"))?;
        write!(f, "{}", self.evidence)
    }
}

fn judge(runs: &Runs, wanted: usize, result: Option<&String>, record: Option<&str>, differing: bool) -> Wrong {
    let completed =
        |result: &String| serde_json::from_str::<Value>(result).is_ok_and(|result| result["status"] == "completed");
    Wrong {
        lost: result.is_none(),
        never_ran: runs.begun == 0,
        ran_too_often: runs.begun > wanted,
        overlapping: runs.overlapping > 0,
        unfinished: runs.begun > runs.ended,
        not_completed: result.is_some_and(|result| !completed(result)),
        without_record: record.is_none(),
        two_results: differing || result.is_some_and(|result| record.is_some_and(|record| record != result)),
    }
}

/// The final record as it is published: the file ends with a line break.
fn record(results_dir: &Path, job_id: &str) -> Option<String> {
    let text = fs::read_to_string(results_dir.join(format!("{job_id}.json"))).ok()?;
    Some(text.trim_end().to_owned())
}

fn count_records(results_dir: &Path) -> usize {
    let entries = fs::read_dir(results_dir).expect("the directory of a test can be read");
    let names = entries.map(|entry| entry.expect("a directory can be read to its end").file_name());
    let is_record = |name: &str| name.ends_with(".json") && !name.starts_with('.');
    names.filter(|name| name.to_str().is_some_and(is_record)).count()
}

fn evidence(ledger: &Ledger, victims: &Victims, seen: &Seen, numbers: impl Iterator<Item = usize>) -> String {
    let mut text = String::new();
    for number in numbers.take(EVIDENCE_JOBS) {
        let job_id = &seen.accepted[&number];
        text.push_str(&format!("\nJob {number}, {job_id}\n  ledger:\n"));
        ledger.lines(number).lines().for_each(|line| text.push_str(&format!("    {line}\n")));
        let result = seen.results.get(job_id).map_or("none", String::as_str);
        text.push_str(&format!("  first result: {result}\n"));
        let record = record(victims.results_dir(), job_id);
        text.push_str(&format!("  record: {}\n  logs:\n", record.as_deref().unwrap_or("none")));
        for line in lines_of_logs(victims, job_id) {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

/// What the daemons said of a job.
fn lines_of_logs(victims: &Victims, job_id: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (place, path) in victims.logs().iter().enumerate() {
        let text = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        found.extend(text.lines().filter(|line| line.contains(job_id)).map(|line| format!("log {place}: {line}")));
    }
    found.truncate(EVIDENCE_LINES);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_go_wrong_is_seen() {
        let once = Runs { begun: 1, ended: 1, overlapping: 0, pids: Vec::new() };
        let result = r#"{"status":"completed"}"#.to_owned();
        let good = |runs: &Runs| judge(runs, 1, Some(&result), Some(&result), false);
        assert!(!good(&once).is_wrong());
        assert!(good(&Runs::default()).never_ran);
        let twice = Runs { begun: 2, ended: 2, ..once.clone() };
        assert!(good(&twice).ran_too_often);
        assert!(!judge(&twice, 2, Some(&result), Some(&result), false).is_wrong());
        assert!(good(&Runs { overlapping: 1, ..once.clone() }).overlapping);
        assert!(good(&Runs { ended: 0, ..once.clone() }).unfinished);
        assert!(judge(&once, 1, None, Some(&result), false).lost);
        assert!(judge(&once, 1, Some(&result), None, false).without_record);
        assert!(judge(&once, 1, Some(&result), Some("{}"), false).two_results);
        assert!(judge(&once, 1, Some(&result), Some(&result), true).two_results);
        assert!(judge(&once, 1, Some(&r#"{"status":"failed"}"#.to_owned()), None, false).not_completed);
    }
}
