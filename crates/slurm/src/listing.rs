//! What `squeue`, `sacct` and `scontrol` are asked, and their rows.
//!
//! All ask for columns of our own choice, separated by `|`, with the one that may hold anything at the end; times are
//! seconds since 1970, as the variable `SLURM_TIME_FORMAT=%s` has it in all versions.

use crate::request::name_of;
use crate::{Element, ExitCode, Output, Reason, State};

/// Id, state, the times of submission, begin and end, name, nodes, reason.
const QUEUE_FORMAT: &str = "%i|%T|%V|%S|%e|%j|%N|%r";

/// The same of the accounting, which knows the exit code, and no reason.
const RECORD_FORMAT: &str = "JobID,State,ExitCode,Submit,Start,End,NodeList,JobName";

/// The arguments of `squeue`: all jobs of this user, also those that have ended of late. The controller picks them.
pub fn queue_arguments(user: u32) -> Vec<String> {
    ["-h", "-r", "-u", &user.to_string(), "-t", "all", "-o", QUEUE_FORMAT].map(str::to_owned).to_vec()
}

/// The arguments of `sacct`: what is recorded of the jobs of these names, of so many seconds until now. All of each id:
/// Slurm may give one twice.
pub fn record_arguments(user: u32, names: &[&str], seconds: u64) -> Vec<String> {
    let user = user.to_string();
    let (names, since) = (format!("--name={}", names.join(",")), format!("now-{seconds}seconds"));
    let arguments = ["-n", "-P", "-X", "-D", "-u", &user, "-S", &since, &names, "-o", RECORD_FORMAT];
    arguments.map(str::to_owned).to_vec()
}

/// The arguments of `scontrol`: one job, with its exit code, for as long as the controller remembers it.
pub fn show_arguments(element: Element) -> Vec<String> {
    ["-o", "show", "job", &element.to_string()].map(str::to_owned).to_vec()
}

/// The arguments of `scancel`: this job, if it has this name. An id alone is nobody's name. Of an array the id alone is
/// said all the same, for 22.05 ends all that wait of one when it is given a name; who cancels one has just seen that
/// id with that name in a listing.
pub fn cancel_arguments(job_name: &str, element: Element) -> Vec<String> {
    let named = element.index.is_none().then(|| format!("--name={job_name}"));
    named.into_iter().chain([element.to_string()]).collect()
}

/// Slurm did not answer, and why. It says nothing of any job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer(pub String);

impl NoAnswer {
    fn unless_good(output: &Output, program: &str) -> Result<(), Self> {
        // Some versions end well after they have said that they could not ask.
        let good = output.is_success() && !output.stderr.contains("error:");
        if good { Ok(()) } else { Err(Self(output.problem(program))) }
    }
}

/// Why the accounting has said nothing of any job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRecords {
    /// It did not answer.
    NoAnswer(NoAnswer),
    /// This Slurm keeps no accounts, although there is a `sacct`: nothing is ever to be heard of it.
    NotKept,
}

impl NoRecords {
    pub(crate) fn unless_good(output: &Output) -> Result<(), Self> {
        NoAnswer::unless_good(output, "sacct").map_err(|no_answer| {
            // A part of what was said may be of another question, so all of it has to be this.
            let says_so = output.stderr.trim().ends_with(NOT_KEPT) && output.stderr.trim().lines().count() == 1;
            if says_so { Self::NotKept } else { Self::NoAnswer(no_answer) }
        })
    }
}

/// What `sacct` says then, from 22.05 to 24.11, by the configuration alone: it asks nobody.
const NOT_KEPT: &str = "accounting storage is disabled";

/// What a listing says, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<R> {
    /// The rows, in its order.
    pub rows: Vec<R>,
    /// What could not be read, as it came.
    pub unread: Vec<String>,
}

impl<R> Listed<R> {
    fn read(stdout: &str, row: impl Fn(&str) -> Option<R>) -> Self {
        let mut listed = Self { rows: Vec::new(), unread: Vec::new() };
        for line in stdout.lines().filter(|line| !line.trim().is_empty()) {
            match row(line) {
                Some(row) => listed.rows.push(row),
                None => listed.unread.push(line.to_owned()),
            }
        }
        listed
    }

    /// Does what could not be read name this? Then nothing follows from its not being among the rows.
    pub fn may_hold(&self, job_name: &str) -> bool {
        self.unread.iter().any(|line| line.contains(job_name))
    }
}

/// The queue as `squeue` tells it.
pub type Listing = Listed<Row>;

/// A job in the queue, or one that has ended of late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What Slurm calls it.
    pub element: Element,
    /// What we call it; for one of an array that of all of it.
    pub job_name: String,
    /// Its state.
    pub state: State,
    /// When it was submitted, in seconds since 1970.
    pub submitted: Option<i64>,
    /// When it began, or is expected to.
    pub started: Option<i64>,
    /// When it ended, or will at the latest.
    pub ends: Option<i64>,
    /// Its nodes, as Slurm writes them; empty while it has none.
    pub nodes: String,
    /// Why it waits, or ended.
    pub reason: Reason,
}

impl Row {
    /// The name of the allocation.
    pub fn name(&self) -> String {
        name_of(&self.job_name, self.element.index)
    }

    fn read(line: &str) -> Option<Self> {
        let mut fields = line.splitn(8, '|').map(str::trim);
        let row = Self {
            element: fields.next()?.parse().ok()?,
            state: State::parse(fields.next()?),
            submitted: time(fields.next()?)?,
            started: time(fields.next()?)?,
            ends: time(fields.next()?)?,
            job_name: fields.next()?.to_owned(),
            nodes: nodes(fields.next()?)?,
            reason: Reason::parse(fields.next()?),
        };
        Some(row)
    }
}

impl Listing {
    /// Reads what `squeue` said.
    pub fn of_queue(output: &Output) -> Result<Self, NoAnswer> {
        NoAnswer::unless_good(output, "squeue")?;
        Ok(Self::read(&output.stdout, Row::read))
    }
}

/// A job as the accounting has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounted {
    /// What Slurm calls it.
    pub element: Element,
    /// What we call it; for one of an array that of all of it.
    pub job_name: String,
    /// Its state. A job that a controller has forgotten runs there forever.
    pub state: State,
    /// How its script ended.
    pub exit: Option<ExitCode>,
    /// When it was submitted, in seconds since 1970.
    pub submitted: Option<i64>,
    /// When it began.
    pub started: Option<i64>,
    /// When it ended.
    pub ended: Option<i64>,
    /// Its nodes, as Slurm writes them.
    pub nodes: String,
}

impl Accounted {
    /// The name of the allocation.
    pub fn name(&self) -> String {
        name_of(&self.job_name, self.element.index)
    }

    fn read(line: &str) -> Option<Self> {
        let mut fields = line.splitn(8, '|').map(str::trim);
        let row = Self {
            element: fields.next()?.parse().ok()?,
            state: State::parse(fields.next()?),
            exit: ExitCode::parse(fields.next()?),
            submitted: time(fields.next()?)?,
            started: time(fields.next()?)?,
            ended: time(fields.next()?)?,
            nodes: nodes(fields.next()?)?,
            job_name: fields.next()?.to_owned(),
        };
        Some(row)
    }
}

impl Listed<Accounted> {
    /// Reads what `sacct` said.
    pub fn of_records(output: &Output) -> Result<Self, NoRecords> {
        NoRecords::unless_good(output)?;
        Ok(Self::read(&output.stdout, Accounted::read))
    }
}

/// What `scontrol show job` says more than the queue does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What we call it.
    pub job_name: String,
    /// Its state.
    pub state: State,
    /// How its script ended.
    pub exit: Option<ExitCode>,
}

impl Shown {
    /// Reads what `scontrol -o show job` said of one job.
    pub fn read(output: &Output) -> Result<Self, NoAnswer> {
        NoAnswer::unless_good(output, "scontrol")?;
        let unread = || NoAnswer(format!("scontrol said something else than a job: {}", output.stdout.trim()));
        let line = output.stdout.lines().next().ok_or_else(unread)?;
        let value = |key: &str| line.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
        Ok(Self {
            job_name: value("JobName").ok_or_else(unread)?.to_owned(),
            state: State::parse(value("JobState").ok_or_else(unread)?),
            exit: value("ExitCode").and_then(ExitCode::parse),
        })
    }
}

/// A time in seconds since 1970; some jobs have not got that far. `None` if it is neither.
fn time(text: &str) -> Option<Option<i64>> {
    match text {
        "N/A" | "Unknown" | "None" | "NONE" | "" => Some(None),
        text => text.parse().ok().map(Some),
    }
}

/// Nodes as Slurm writes them: `n[1-3,7],m4`. Not a piece of a name that held a `|`.
fn nodes(text: &str) -> Option<String> {
    let well = |c: char| c.is_ascii_alphanumeric() || "-_.,[]()".contains(c) || text.starts_with("None assigned");
    text.chars().all(well).then(|| if text.starts_with("None") { String::new() } else { text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ended;

    fn output(code: i32, stdout: &str, stderr: &str) -> Output {
        Output { ended: Ended::Exit(code), stdout: stdout.to_owned(), stderr: stderr.to_owned() }
    }

    #[test]
    fn rows_of_the_queue_are_read_and_what_is_none_is_kept() {
        let said = "2|FAILED|1795963261|1795963262|1795963262|hpcq-a|n1|NonZeroExitCode\n\
                    54_2|PENDING|1795963261|N/A|N/A|hpcq-x||JobArrayTaskLimit\n\
                    55|RUNNING|1795963261|1795963262|1795966862|hpcq-y|n[1-2],m3|None\n\
                    56|PENDING|1795963261|N/A|N/A|theirs|of a kind||Resources\n\
                    54_[3-9%2]|PENDING|1795963261|N/A|N/A|hpcq-x||JobArrayTaskLimit\n\
                    57|PENDING|2026-11-29T12:00:00|N/A|N/A|hpcq-z||Priority\n\
                    58|NEW_STATE|1795963261|N/A|N/A|hpcq-w||a|b c\n";
        let listing = Listing::of_queue(&output(0, said, "")).unwrap();
        let names: Vec<String> = listing.rows.iter().map(Row::name).collect();
        assert_eq!(names, ["hpcq-a", "hpcq-x_2", "hpcq-y", "hpcq-w"]);
        assert_eq!(listing.rows[0].state, State::Failed);
        assert_eq!((listing.rows[0].submitted, listing.rows[1].started), (Some(1_795_963_261), None));
        assert_eq!(listing.rows[2].nodes, "n[1-2],m3");
        assert_eq!(listing.rows[3].state, State::Unknown("NEW_STATE".to_owned()));
        assert_eq!(listing.rows[3].reason.as_str(), "a|b c");
        assert_eq!(listing.unread.len(), 3);
        assert!(listing.may_hold("hpcq-z") && !listing.may_hold("hpcq-y"));
    }

    #[test]
    fn an_answer_without_rows_is_none_of_an_answer_that_failed() {
        let none = Listing::of_queue(&output(0, "", "")).unwrap();
        assert_eq!((none.rows.len(), none.unread.len()), (0, 0));
        let away = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n";
        assert!(Listing::of_queue(&output(1, "", away)).is_err());
        assert!(Listing::of_queue(&output(0, "", away)).is_err());
        let late = Output { ended: Ended::TimedOut, ..output(0, "", "") };
        assert_eq!(Listing::of_queue(&late), Err(NoAnswer("squeue did not end in time".to_owned())));
    }

    #[test]
    fn records_have_the_exit_code() {
        let said = "4711|CANCELLED by 1000|0:0|1795963301|1795963302|1795963305|n1|hpcq-a\n\
                    4712_0|OUT_OF_MEMORY|0:125|1795963301|1795963302|Unknown|n1|hpcq-b\n\
                    4713|PENDING|0:0|1795963301|Unknown|Unknown|None assigned|hpcq|c\n";
        let records = Listed::of_records(&output(0, said, "")).unwrap();
        assert_eq!(records.rows[0].state, State::Cancelled { by: Some(1000) });
        assert_eq!(records.rows[1].exit, Some(ExitCode { code: 0, signal: 125 }));
        assert_eq!((records.rows[1].name().as_str(), records.rows[1].ended), ("hpcq-b_0", None));
        assert_eq!((records.rows[2].nodes.as_str(), records.rows[2].job_name.as_str()), ("", "hpcq|c"));
        let refused = Listed::of_records(&output(1, "", "sacct: error: Connection refused\n"));
        assert!(matches!(refused, Err(NoRecords::NoAnswer(_))), "{refused:?}");
        let disabled = Listed::of_records(&output(1, "", "Slurm accounting storage is disabled\n"));
        assert_eq!(disabled, Err(NoRecords::NotKept));
    }

    #[test]
    fn one_job_is_shown_with_its_exit_code() {
        let said = "JobId=3 JobName=hpcq-a UserId=root(0) JobState=FAILED Reason=NonZeroExitCode Dependency=(null) \
                    Requeue=0 ExitCode=3:0 Comment=ExitCode=7:0 JobName=x\n";
        let shown = Shown::read(&output(0, said, "")).unwrap();
        let exit = Some(ExitCode { code: 3, signal: 0 });
        assert_eq!(shown, Shown { job_name: "hpcq-a".to_owned(), state: State::Failed, exit });
        assert!(Shown::read(&output(1, "", "slurm_load_jobs error: Invalid job id specified\n")).is_err());
    }
}
