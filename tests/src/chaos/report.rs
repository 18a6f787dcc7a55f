//! The count: what was accepted against what ran and what came back.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::contents::Contents;
use super::deaths::{Deaths, Terms};
use super::traffic::Seen;
use super::victims::Victims;
use super::{Family, Plan, Runtime, cluster, services};
use crate::{Ledger, Noted, Runs};

/// Of how many jobs that went wrong everything known is shown.
const EVIDENCE_JOBS: usize = 3;

/// What a daemon says of a run whose keeper is gone.
const CUT_OFF: &str = "was cut off";

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
    of_another_attempt: bool,
    without_record: bool,
    two_results: bool,
    other_files: bool,
    out_of_order: bool,
}

impl Wrong {
    fn is_wrong(self) -> bool {
        self != Self::default()
    }
}

impl Report {
    pub(super) fn count(
        plan: &Plan,
        ledger: &Ledger,
        victims: &Victims<'_>,
        seen: &Seen,
        contents: &Contents,
        time: Duration,
    ) -> Self {
        let mut wrong: BTreeMap<usize, Wrong> = BTreeMap::new();
        let mut members = 0;
        let (mut runs_max, mut cut_off, mut lost) = (0, 0, 0);
        for (&number, job_id) in &seen.accepted {
            let (runs, terms) = (ledger.runs(number), plan.terms(number));
            runs_max = runs_max.max(runs.begun);
            let record = Record::read(victims.results_dir(), job_id);
            let left = Left { result: seen.results.get(job_id), record, differing: seen.differing.contains(job_id) };
            let family = plan.family(number);
            let of_job = match family {
                Some(Family::Workflow) => judge_workflow(&left),
                _ => judge(&runs, terms, &left, victims.deaths()),
            };
            let mut all = Vec::new();
            for child in 1..=family.map_or(0, Family::size) {
                members += 1;
                let (member, job_id) = (plan.member(number, child), format!("{job_id}-{child}"));
                let runs = ledger.runs(member);
                let record = Record::read(victims.results_dir(), &job_id);
                // Its result stays on the cluster.
                let result = record.as_ref().map(|record| record.text.clone());
                let left = Left { result: result.as_ref(), record, differing: false };
                let terms = family.map_or(terms, |family| plan.terms_of_member(family, child));
                let of_member = judge(&runs, terms, &left, victims.deaths());
                cut_off += runs.begun - runs.ended;
                if of_member.is_wrong() {
                    wrong.insert(member, of_member);
                }
                all.push(runs);
            }
            let is_in_order = match (family, all.as_slice()) {
                (Some(Family::Parks), [first, second]) => is_in_order(&[first, second], &runs),
                (Some(Family::Workflow), [first, second, last]) => is_in_order(&[first, second], last),
                _ => true,
            };
            let of_job = Wrong { out_of_order: !is_in_order, ..of_job };
            let of_job = Wrong { other_files: contents.other.contains(&number), ..of_job };
            cut_off += runs.begun - runs.ended;
            lost += usize::from(left.outcome().is_some_and(|outcome| outcome.is_lost));
            if of_job.is_wrong() {
                wrong.insert(number, of_job);
            }
        }
        let faults: u64 = victims.injected().values().sum();
        let mut report = Self {
            rows: Vec::new(),
            failures: victims.problems().to_vec(),
            evidence: evidence(plan, ledger, victims, seen, wrong.keys().copied()),
            kills: victims.kills(),
            faults,
        };
        let wrong: Vec<Wrong> = wrong.into_values().collect();

        let version = victims.slurm_version().map(|version| format!(" {version}")).unwrap_or_default();
        report.row("seed, runtime", format!("{}, {}{version}", plan.seed, plan.runtime.word()));
        report.row("jobs accepted", seen.accepted.len());
        report.row("requests to submit that were repeated", seen.repeated);
        report.row("results received, deliveries", seen.deliveries);
        report.row("results received, messages", seen.messages.len());
        report.row("distinct results", seen.results.len());
        report.row("records in RESULTS_DIR", count_records(victims.results_dir()));
        let of_which =
            |is_so: fn(Terms) -> bool| seen.accepted.keys().filter(|&&number| is_so(plan.terms(number))).count();
        report.row("jobs whose first attempt fails", of_which(|terms| terms.retries > 0));
        let of_kind = |kind| seen.accepted.keys().filter(|&&number| plan.family(number) == Some(kind)).count();
        report.row("jobs that go on after two others", of_kind(Family::Parks));
        report.row("workflows of three tasks", of_kind(Family::Workflow));
        report.row("of both, jobs and tasks that nobody submitted", members);
        report.services(plan, ledger, victims, seen);
        report.row("jobs that may not be started again", of_which(|terms| !terms.rerunnable));
        report.row("results that say `lost`", lost);
        report.row("runs that were cut off", cut_off);
        report.row("runs of a job, at most", runs_max);
        report.row("messages left in the queue of jobs", victims.left_in_queue());
        for (victim, kills) in victims.kills_by_victim() {
            report.row(&format!("kills of {victim}"), kills);
            if *kills == 0 {
                report.failures.push(format!("{victim} was never killed: this was no chaos for it"));
            }
        }
        // What a dead keeper has started may come to its end all the same; it is cut off, and begun again.
        let told = victims.logs().iter().map(|path| lines_with(path, CUT_OFF).len()).sum::<usize>();
        if cut_off == 0 && told == 0 {
            report.failures.push("no run was cut off: the death of keepers was no chaos for the jobs".to_owned());
        }
        if plan.runtime == Runtime::Slurm {
            let once = seen.accepted.keys().filter(|number| plan.is_once(**number)).count();
            report.row("jobs with an allocation of their own", once);
            report.cut_offs_are_told(victims);
        }
        report.files(plan, victims, seen, contents);
        report.row("drains of daemons", victims.drains());
        report.row("times that the hub was wiped", victims.wipes());
        report.row("jobs that the hub knew at the end", victims.known_to_hub());
        if victims.wipes() == 0 || victims.known_to_hub() == 0 {
            report.failures.push("the hub was never wiped, or knew nothing: this was no chaos for it".to_owned());
        }
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
        let all: [(&str, Seen); 11] = [
            ("jobs lost: accepted, without a result", |wrong| wrong.lost),
            ("jobs that never ran", |wrong| wrong.never_ran),
            ("jobs run more often than there was reason", |wrong| wrong.ran_too_often),
            ("jobs with runs that overlap", |wrong| wrong.overlapping),
            ("jobs with a run that ended without reason", |wrong| wrong.unfinished),
            ("jobs that did not complete without reason", |wrong| wrong.not_completed),
            ("jobs with the result of another attempt", |wrong| wrong.of_another_attempt),
            ("jobs without a record", |wrong| wrong.without_record),
            ("jobs with two different results", |wrong| wrong.two_results),
            ("jobs whose files are not what they wrote", |wrong| wrong.other_files),
            ("jobs that did not wait for their others", |wrong| wrong.out_of_order),
        ];
        for (what, is_so) in all {
            report.verdict(what, wrong.iter().filter(|wrong| is_so(wrong)).count());
        }
        let known: usize = seen.accepted.values().filter(|job_id| seen.results.contains_key(*job_id)).count();
        report.verdict("results of unknown jobs", seen.results.len() - known);
        report.verdict("messages that are no results", seen.unreadable.len());
        report.verdict("contents that are not what they are called", contents.spoiled.len());
        report.verdict("files that nobody needs any more", contents.left.len());
        for what in contents.spoiled.iter().chain(&contents.left).take(EVIDENCE_JOBS) {
            report.evidence.push_str(&format!("\n{what}\n"));
        }
        if missing > 0 && !seen.laptop_said.is_empty() {
            report
                .evidence
                .push_str(&format!("\nwhat a laptop said last that could not submit: {}\n", seen.laptop_said));
        }
        report
    }

    /// Rows about services: none of their instances stays, and what no daemon has started lives.
    fn services(&mut self, plan: &Plan, ledger: &Ledger, victims: &Victims<'_>, seen: &Seen) {
        if !plan.has_services() {
            return;
        }
        let users: Vec<usize> = seen.accepted.keys().copied().filter(|number| plan.needs_service(*number)).collect();
        let left = users.iter().flat_map(|number| ledger.runs(*number).each).filter(|run| run.left).count();
        self.row("jobs that need a service", users.len());
        self.row("instances of it that have begun", ledger.instances().len());
        self.row("runs that were left by their instance", left);
        let there: Vec<String> =
            services::there(ledger).iter().map(|instance| format!("{instance:?} is still there")).collect();
        self.verdict("instances that are still there at the end", there.len());
        let files = services::files(victims.results_dir());
        self.verdict("files of instances that are still there", files.len());
        self.verdict("programs of others that were ended", usize::from(victims.has_ended_the_stranger()));
        for what in there.iter().chain(&files).take(EVIDENCE_JOBS) {
            self.evidence.push_str(&format!("\n{what}\n"));
        }
    }

    /// Rows about files on their way, and that they were in the midst of it.
    fn files(&mut self, plan: &Plan, victims: &Victims<'_>, seen: &Seen, contents: &Contents) {
        if plan.files_percent == 0 {
            return;
        }
        let kills = seen.laptops_killed + contents.laptops_killed;
        self.row("jobs that bring a file", seen.accepted.keys().filter(|number| plan.has_files(**number)).count());
        self.row("of these, jobs that leave files", contents.jobs);
        self.row("files that came home", contents.fetched);
        self.row("contents in caches and stores", contents.looked_at);
        self.row("kills of laptops that send or fetch", kills);
        self.row("kills while files were on their way", victims.amid_transfers());
        if kills == 0 || victims.amid_transfers() == 0 {
            self.failures
                .push("nothing was killed while files were on their way: this was no chaos for them".to_owned());
        }
    }

    /// A row for how each of the allocations ended that cut off runs; each end is one that the chaos leads to.
    fn cut_offs_are_told(&mut self, victims: &Victims<'_>) {
        let mut ends: BTreeMap<&'static str, usize> = BTreeMap::new();
        let mut unheard_of = Vec::new();
        for line in victims.logs().iter().flat_map(|path| lines_with(path, CUT_OFF)) {
            match cluster::end_in(&line) {
                Some(end) => *ends.entry(end).or_default() += 1,
                None => unheard_of.push(line),
            }
        }
        for (end, count) in ends {
            self.row(&format!("cut off: {end}"), count);
        }
        self.verdict("runs cut off by what this chaos does not do", unheard_of.len());
        for line in unheard_of.iter().take(EVIDENCE_JOBS) {
            self.evidence.push_str(&format!("\n{line}\n"));
        }
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
            writeln!(f, "  {name:<48}{value}")?;
        }
        if self.failures.is_empty() {
            return writeln!(f, "\nEvery job ran as often as there was reason to and has one result.");
        }
        writeln!(f, "\nWhat should not be:")?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "  {failure}"))?;
        write!(f, "{}", self.evidence)
    }
}

/// What there is of a job at the end.
struct Left<'a> {
    /// The first result, byte by byte.
    result: Option<&'a String>,
    record: Option<Record>,
    /// Was a later result another one?
    differing: bool,
}

/// The final record as it is published: the file ends with a line break.
struct Record {
    text: String,
    /// When it was made, since 1970.
    made: Duration,
}

/// What a result says.
struct Outcome {
    is_completed: bool,
    is_lost: bool,
    attempt: u64,
}

impl Left<'_> {
    fn outcome(&self) -> Option<Outcome> {
        let result: Value = serde_json::from_str(self.result?).unwrap_or_default();
        let is = |status: &str| result["status"] == status;
        let attempt = result["attempt"].as_u64().unwrap_or_default();
        Some(Outcome { is_completed: is("completed"), is_lost: is("failed") && result["reason"] == "lost", attempt })
    }

    fn is_recorded_otherwise(&self) -> bool {
        self.record.as_ref().zip(self.result).is_some_and(|(record, result)| record.text != *result)
    }

    fn made(&self) -> Duration {
        self.record.as_ref().map_or(Duration::ZERO, |record| record.made)
    }
}

impl Record {
    fn read(results_dir: &Path, job_id: &str) -> Option<Self> {
        let path = results_dir.join(format!("{job_id}.json"));
        let text = fs::read_to_string(&path).ok()?.trim_end().to_owned();
        let made = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok()?;
        Some(Self { text, made: made.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() })
    }
}

fn judge(runs: &Runs, terms: Terms, left: &Left<'_>, deaths: &Deaths) -> Wrong {
    let outcome = left.outcome();
    let is_excused =
        |outcome: &Outcome| outcome.is_lost && deaths.may_lose(&runs.each, terms, outcome.attempt, left.made());
    let is_of_the_last = |outcome: &Outcome| {
        let completed = |run: &Noted| run.is_completed() && run.attempt == outcome.attempt;
        runs.each.last().is_some_and(completed)
    };
    let mut unended = runs.each.iter().filter(|run| run.ended.is_none());
    Wrong {
        lost: outcome.is_none(),
        never_ran: runs.begun == 0 && !outcome.as_ref().is_some_and(is_excused),
        ran_too_often: !deaths.explain(&runs.each, terms),
        overlapping: runs.overlapping > 0,
        unfinished: !unended.all(|run| deaths.cut_off(run, left.made())),
        not_completed: outcome.as_ref().is_some_and(|outcome| !outcome.is_completed && !is_excused(outcome)),
        of_another_attempt: outcome.is_some_and(|outcome| outcome.is_completed && !is_of_the_last(&outcome)),
        without_record: left.record.is_none(),
        two_results: left.differing || left.is_recorded_otherwise(),
        other_files: false,
        out_of_order: false,
    }
}

/// The same of a workflow, of which nothing runs but its tasks.
fn judge_workflow(left: &Left<'_>) -> Wrong {
    let outcome = left.outcome();
    Wrong {
        lost: outcome.is_none(),
        not_completed: outcome.is_some_and(|outcome| !outcome.is_completed),
        without_record: left.record.is_none(),
        two_results: left.differing || left.is_recorded_otherwise(),
        ..Wrong::default()
    }
}

/// Did what waits for others begin when they had ended, and not before? Of who leaves them behind, the runs after that
/// count.
fn is_in_order(before: &[&Runs], after: &Runs) -> bool {
    let from = after.each.iter().rposition(|run| run.parked).map_or(0, |parked| parked + 1);
    let begun = after.each[from..].iter().map(|run| run.begun).min();
    let ended = before.iter().flat_map(|runs| &runs.each).filter_map(|run| run.ended).max();
    begun.is_none_or(|begun| ended.is_some_and(|ended| ended <= begun))
}

fn count_records(results_dir: &Path) -> usize {
    let entries = fs::read_dir(results_dir).expect("the directory of a test can be read");
    let names = entries.map(|entry| entry.expect("a directory can be read to its end").file_name());
    let is_record = |name: &str| name.ends_with(".json") && !name.starts_with('.');
    names.filter(|name| name.to_str().is_some_and(is_record)).count()
}

fn evidence(
    plan: &Plan,
    ledger: &Ledger,
    victims: &Victims<'_>,
    seen: &Seen,
    numbers: impl Iterator<Item = usize>,
) -> String {
    let mut text = String::new();
    for number in numbers.take(EVIDENCE_JOBS) {
        // Of one that nobody submitted, that of who has it.
        let (of, child) = (number % plan.jobs, number / plan.jobs);
        let Some(job_id) = seen.accepted.get(&of) else { continue };
        let job_id = &if child == 0 { job_id.clone() } else { format!("{job_id}-{child}") };
        text.push_str(&format!("\nJob {number}, {job_id}\n  ledger:\n"));
        ledger.lines(number).lines().for_each(|line| text.push_str(&format!("    {line}\n")));
        let result = seen.results.get(job_id).map_or("none", String::as_str);
        text.push_str(&format!("  first result: {result}\n"));
        let record = Record::read(victims.results_dir(), job_id);
        text.push_str(&format!("  record: {}\n", record.as_ref().map_or("none", |record| record.text.as_str())));
        text.push_str(&format!("  deaths of keepers: {:?}\n  logs:\n", victims.deaths()));
        for line in lines_of_logs(victims, job_id) {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

/// What the daemons said of a job.
fn lines_of_logs(victims: &Victims<'_>, job_id: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (place, path) in victims.logs().iter().enumerate() {
        found.extend(lines_with(path, job_id).into_iter().map(|line| format!("log {place}: {line}")));
    }
    found.truncate(EVIDENCE_LINES);
    found
}

/// The lines of a file with these words.
fn lines_with(path: &Path, words: &str) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONCE: Terms = Terms { retries: 0, rerunnable: true };
    const NEVER_AGAIN: Terms = Terms { retries: 0, rerunnable: false };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One of which each run has the next number and begins ten seconds later; told are the ends.
    fn runs(ends: &[Option<u64>]) -> Runs {
        let begun = |number| at(100 + 10 * number as u64);
        let run = |(number, ended): (usize, &Option<u64>)| Noted {
            attempt: number as u64 + 1,
            node: 1,
            begun: begun(number),
            ended: ended.map(at),
            failed: false,
            parked: false,
            left: false,
        };
        let each: Vec<Noted> = ends.iter().enumerate().map(run).collect();
        Runs { begun: ends.len(), ended: ends.iter().flatten().count(), each, ..Runs::default() }
    }

    fn judged(runs: &Runs, terms: Terms, result: &str, deaths: &[u64]) -> Wrong {
        let record = Some(Record { text: result.to_owned(), made: at(200) });
        let mut all = Deaths::default();
        deaths.iter().for_each(|&seconds| all.note(1, at(seconds)));
        judge(runs, terms, &Left { result: Some(&result.to_owned()), record, differing: false }, &all)
    }

    const COMPLETED: &str = r#"{"status":"completed","attempt":1}"#;
    const COMPLETED_AGAIN: &str = r#"{"status":"completed","attempt":2}"#;
    const LOST: &str = r#"{"status":"failed","reason":"lost","attempt":1}"#;

    #[test]
    fn every_way_to_go_wrong_is_seen() {
        let once = runs(&[Some(101)]);
        assert!(!judged(&once, ONCE, COMPLETED, &[]).is_wrong());
        assert!(judged(&Runs::default(), ONCE, COMPLETED, &[]).never_ran);
        assert!(judged(&runs(&[Some(101), Some(111)]), ONCE, COMPLETED_AGAIN, &[]).ran_too_often);
        assert!(judged(&Runs { overlapping: 1, ..once.clone() }, ONCE, COMPLETED, &[]).overlapping);
        assert!(judged(&runs(&[None]), ONCE, COMPLETED, &[]).unfinished);
        assert!(judged(&once, ONCE, COMPLETED_AGAIN, &[]).of_another_attempt);
        assert!(judged(&once, ONCE, r#"{"status":"failed","reason":"exit","attempt":1}"#, &[]).not_completed);
        let (result, other) = (COMPLETED.to_owned(), "{}".to_owned());
        let record = |text: &str| Some(Record { text: text.to_owned(), made: at(200) });
        let left =
            |result, record, differing| judge(&once, ONCE, &Left { result, record, differing }, &Deaths::default());
        assert!(left(None, record(COMPLETED), false).lost);
        assert!(left(Some(&result), None, false).without_record);
        assert!(left(Some(&result), record(&other), false).two_results);
        assert!(left(Some(&result), record(COMPLETED), true).two_results);
    }

    #[test]
    fn who_begins_before_others_have_ended_did_not_wait_for_them() {
        let (others, parked) = (runs(&[Some(101)]), runs(&[Some(102)]));
        let at_once = |begun| Runs { each: vec![Noted { begun: at(begun), ..others.each[0] }], ..Runs::default() };
        assert!(is_in_order(&[&others, &parked], &at_once(102)) && !is_in_order(&[&others, &parked], &at_once(101)));
        assert!(!is_in_order(&[&runs(&[None])], &at_once(102)), "it has not ended at all");
        let parent = Runs { each: vec![Noted { parked: true, ..others.each[0] }], ..Runs::default() };
        assert!(is_in_order(&[&runs(&[None])], &parent), "it has not gone on yet");
        let mut cut_off = runs(&[None, Some(112), Some(122)]);
        cut_off.each[1].parked = true;
        assert!(is_in_order(&[&runs(&[Some(115)])], &cut_off), "what was cut off before is no round");
    }

    #[test]
    fn the_death_of_a_keeper_excuses_what_it_cut_off() {
        let again = runs(&[None, Some(111)]);
        assert!(!judged(&again, ONCE, COMPLETED_AGAIN, &[105]).is_wrong());
        assert!(judged(&again, ONCE, COMPLETED_AGAIN, &[150]).ran_too_often);
        assert!(judged(&again, NEVER_AGAIN, COMPLETED_AGAIN, &[105]).ran_too_often);
        for cut_off in [runs(&[None]), runs(&[])] {
            assert!(!judged(&cut_off, NEVER_AGAIN, LOST, &[105]).is_wrong());
            assert!(judged(&cut_off, ONCE, LOST, &[105]).not_completed);
            assert!(judged(&cut_off, NEVER_AGAIN, LOST, &[]).not_completed);
        }
        assert!(judged(&Runs { overlapping: 1, ..again }, ONCE, COMPLETED_AGAIN, &[105]).overlapping);
    }
}
