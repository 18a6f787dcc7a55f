//! What a task leaves in `/work/continue.json` that has more to do once other jobs have ended: which jobs, and whether
//! it waits for all of them.
//!
//! A stranger's program wrote it: it is read as strictly as a submission, because nobody is there to ask what was
//! meant.
//! Out of scope: what becomes of it (`lifecycle`).

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::fields::{Fields, Unknown};
use crate::{InvalidJob, JobSpec, limits};

/// What is to be done before the job begins its next round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Continuation {
    /// Jobs to run, its children. There may be none where others of an earlier round still go on.
    pub run: Vec<JobSpec>,
    /// For which of its children it waits.
    pub when: When,
}

/// When a job goes on whose children run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Once all of its children have ended, those of earlier rounds as well.
    #[default]
    All,
    /// Once any of them has ended that had not when its last round began.
    Any,
}

/// The file, its jobs unread.
#[derive(Deserialize)]
struct Given<'a> {
    #[serde(borrow, deserialize_with = "list")]
    run: Vec<&'a RawValue>,
    #[serde(default, deserialize_with = "when")]
    when: When,
}

impl Continuation {
    /// Reads and checks the text of the file. The error is a sentence that goes on after the file's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let unreadable = |error: InvalidJob| match error {
            InvalidJob::NotJson(error) => format!("is not JSON: {error}"),
            InvalidJob::NotAnObject => {
                "is no object such as {\"run\": [{\"task\": \"a\"}], \"when\": \"all\"}".to_owned()
            }
            InvalidJob::Field { field, problem } => format!("cannot be used: `{field}` {problem}"),
        };
        let fields = Fields::find(text).map_err(|error| unreadable(error.into()))?;
        let Given { run, when } = fields.read(Unknown::RefusedIn("a continuation")).map_err(unreadable)?;
        let most = limits::CHILDREN_AT_ONCE_MAX;
        if run.len() > most {
            let asked = run.len();
            return Err(format!(
                "asks for {asked} jobs at once, and {most} is the most; start the others in later rounds"
            ));
        }
        let job = |(number, json): (usize, &RawValue)| {
            let within = |what: String| format!("cannot be used: `run[{number}]`: {what}");
            let spec = JobSpec::parse(json.get()).map_err(|error| within(error.to_string()))?;
            let barred = [("callback", spec.callback.is_some()), ("idempotency_key", spec.idempotency_key.is_some())];
            match barred.into_iter().find(|(_, given)| *given) {
                Some((field, _)) => Err(within(format!("`{field}` is for jobs that a person submits; leave it out"))),
                None => Ok(spec),
            }
        };
        Ok(Self { run: run.into_iter().enumerate().map(job).collect::<Result<_, _>>()?, when })
    }
}

fn list<'de, D: Deserializer<'de>>(given: D) -> Result<Vec<&'de RawValue>, D::Error> {
    Vec::deserialize(given).map_err(|_| D::Error::custom("must be a list of jobs"))
}

fn when<'de, D: Deserializer<'de>>(given: D) -> Result<When, D::Error> {
    When::deserialize(given).map_err(|_| D::Error::custom("must be \"all\" or \"any\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continuation_says_which_jobs_and_when() {
        let read = Continuation::parse(r#"{"run": [{"task": "a"}, {"task": "b", "input": [1]}]}"#).unwrap();
        assert_eq!(read.run.iter().map(|spec| spec.task.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((read.when, read.run[1].input.as_str()), (When::All, "[1]"));
        let read = Continuation::parse(r#"{"run": [], "when": "any"}"#).unwrap();
        assert_eq!(read, Continuation { run: Vec::new(), when: When::Any });
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let many = format!(r#"{{"run": [{}]}}"#, vec![r#"{"task":"a"}"#; 1_001].join(","));
        for (text, problem) in [
            ("{", "is not JSON"),
            ("[]", "is no object"),
            ("{}", "`run` is missing"),
            (r#"{"run": 7}"#, "`run` must be a list of jobs"),
            (r#"{"run": [], "when": "some"}"#, r#"`when` must be "all" or "any""#),
            (r#"{"run": [], "until": 1}"#, "`until` is no field of a continuation; the fields are run, when"),
            (r#"{"run": [{"task": "a"}, {"tsk": "b"}]}"#, "`run[1]`: `tsk` is no field of a job"),
            (r#"{"run": [{"task": "a", "idempotency_key": "k"}]}"#, "`run[0]`: `idempotency_key` is for jobs"),
            (many.as_str(), "asks for 1001 jobs at once, and 1000 is the most"),
        ] {
            let told = Continuation::parse(text).unwrap_err();
            assert!(told.contains(problem), "{told}");
        }
    }
}
