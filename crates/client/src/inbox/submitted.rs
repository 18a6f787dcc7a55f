//! Notes of jobs that were submitted from here: what the edge answered, the words by which a person knows the job, and
//! the job itself, so that it can be sent again. Earlier versions noted the answer alone, or with the words.

use std::collections::BTreeMap;
use std::time::SystemTime;

use protocol::{InvalidJob, JobId, JobSpec, Json, PoolName};
use serde::Deserialize;

/// A job that was submitted from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Which.
    pub job_id: JobId,
    /// When, the last time.
    pub at: Option<SystemTime>,
    /// What it is known by.
    pub words: Words,
    /// The job that it is another run of.
    pub rerun_of: Option<JobId>,
}

/// What a person knows a job by besides its id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Words {
    /// What it runs.
    pub task: Option<String>,
    /// What its user calls it.
    pub name: Option<String>,
    /// The pool that it was submitted to, if one was named.
    pub pool: Option<PoolName>,
}

/// What a note says besides the answer of the edge.
#[derive(Default, Deserialize)]
pub(super) struct Noted {
    #[serde(flatten)]
    pub(super) words: Words,
    pub(super) rerun_of: Option<JobId>,
}

/// The text of a note: the fields of the answer, and those that the answer does not have.
pub(super) fn note(answer: &Json, job: &JobSpec, rerun_of: Option<&JobId>) -> String {
    // An answer that is no object is kept as it is.
    let Ok(mut fields) = answer.read::<BTreeMap<String, Json>>() else { return answer.as_str().to_owned() };
    let pool = job.pool.as_ref().map(PoolName::as_str);
    for (field, word) in [("task", Some(job.task.as_str())), ("name", job.name.as_deref()), ("pool", pool)] {
        if let Some(word) = word.and_then(|word| Json::from_serialize(&word).ok()) {
            fields.entry(field.to_owned()).or_insert(word);
        }
    }
    // A key makes two submissions one job: whoever sends it again on purpose wants another one.
    let job = JobSpec { idempotency_key: None, ..job.clone() };
    let job = ("job", Json::from_serialize(&job).ok());
    let rerun_of = ("rerun_of", rerun_of.and_then(|job_id| Json::from_serialize(job_id).ok()));
    fields.extend([job, rerun_of].into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?))));
    serde_json::to_string(&fields).unwrap_or_else(|_| answer.as_str().to_owned())
}

/// What a note says, as far as it can be read.
pub(super) fn noted(text: &str) -> Noted {
    serde_json::from_str(text).unwrap_or_default()
}

/// The job in a note. Strictly: one that is not understood whole would be another job.
pub(super) fn job(text: &str) -> Option<Result<JobSpec, InvalidJob>> {
    #[derive(Deserialize)]
    struct WithJob {
        job: Option<Json>,
    }
    let WithJob { job } = serde_json::from_str(text).ok()?;
    Some(JobSpec::parse(job?.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_the_answer_with_words_and_is_read_whoever_wrote_it() {
        let job = JobSpec::parse(r#"{"task":"simulate","name":"draft 3","pool":"gpu","input":1}"#).unwrap();
        let answer = Json::parse(r#"{"status":"queued","job_id":"j1","queue":"hpc-jobs"}"#).unwrap();
        let text = note(&answer, &job, None);
        let whole = concat!(
            r#"{"job":{"task":"simulate","input":1,"name":"draft 3","pool":"gpu"},"job_id":"j1","name":"draft 3","#,
            r#""pool":"gpu","queue":"hpc-jobs","status":"queued","task":"simulate"}"#
        );
        assert_eq!(text, whole);
        let Noted { words: Words { task, name, pool }, rerun_of } = noted(&text);
        assert_eq!((task.as_deref(), name.as_deref(), rerun_of), (Some("simulate"), Some("draft 3"), None));
        assert_eq!(pool, job.pool);
        assert_eq!(noted(answer.as_str()).words, Words::default(), "of an earlier version");
        assert_eq!(noted("{").words, Words::default());
        assert_eq!(note(&Json::null(), &job, None), "null");
    }

    #[test]
    fn the_job_of_a_note_is_the_one_that_was_sent_without_its_key() {
        let sent = JobSpec::parse(r#"{"task":"t","input":1.50,"retries":2,"idempotency_key":"k"}"#).unwrap();
        let answer = Json::parse(r#"{"status":"queued","job_id":"j2"}"#).unwrap();
        let text = note(&answer, &sent, Some(&"j1".parse().unwrap()));
        let again = job(&text).unwrap().unwrap();
        assert_eq!(again, JobSpec { idempotency_key: None, ..sent });
        assert_eq!(noted(&text).rerun_of.unwrap().as_str(), "j1");
        assert!(job(answer.as_str()).is_none(), "of an earlier version");
        assert!(job(r#"{"job":{"task":"t","input":1,"not_before":"noon"}}"#).unwrap().is_err(), "of a later one");
    }
}
