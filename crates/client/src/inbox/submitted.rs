//! Notes of jobs that were submitted from here: what the edge answered, and the words by which a person knows the job.
//! Earlier versions noted the answer alone.

use std::collections::BTreeMap;
use std::time::SystemTime;

use protocol::{JobId, JobSpec, Json, PoolName};
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

/// The text of a note: the fields of the answer, and those words that the answer does not have.
pub(super) fn note(answer: &Json, job: &JobSpec) -> String {
    // An answer that is no object is kept as it is.
    let Ok(mut fields) = answer.read::<BTreeMap<String, Json>>() else { return answer.as_str().to_owned() };
    let pool = job.pool.as_ref().map(PoolName::as_str);
    for (field, word) in [("task", Some(job.task.as_str())), ("name", job.name.as_deref()), ("pool", pool)] {
        if let Some(word) = word.and_then(|word| Json::from_serialize(&word).ok()) {
            fields.entry(field.to_owned()).or_insert(word);
        }
    }
    serde_json::to_string(&fields).unwrap_or_else(|_| answer.as_str().to_owned())
}

/// The words in a note, as far as they can be read.
pub(super) fn words(text: &str) -> Words {
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_the_answer_with_words_and_is_read_whoever_wrote_it() {
        let job = JobSpec::parse(r#"{"task":"simulate","name":"draft 3","pool":"gpu","input":1}"#).unwrap();
        let answer = Json::parse(r#"{"status":"queued","job_id":"j1","queue":"hpc-jobs"}"#).unwrap();
        let text = note(&answer, &job);
        let whole =
            r#"{"job_id":"j1","name":"draft 3","pool":"gpu","queue":"hpc-jobs","status":"queued","task":"simulate"}"#;
        assert_eq!(text, whole);
        let Words { task, name, pool } = words(&text);
        assert_eq!((task.as_deref(), name.as_deref()), (Some("simulate"), Some("draft 3")));
        assert_eq!(pool, job.pool);
        assert_eq!(words(answer.as_str()), Words::default(), "of an earlier version");
        assert_eq!(words("{"), Words::default());
        assert_eq!(note(&Json::null(), &job), "null");
    }
}
