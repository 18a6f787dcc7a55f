//! What a job has left, sent once more after its end, by hand: what was too much, has expired, or was lost by the
//! store.
//!
//! How the job has ended stays as it is. Where its files are is written into its record, which is published anew.
//!
//! Out of scope: the queue and the hub (`crate::resend`).

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use lifecycle::{Attempt, Problem, Run, Uploaded};
use protocol::{JobFile, JobId, JobMessage, JobResult, Outputs, WorkPath};

use super::manifest::{Manifest, Wanted};
use super::{Tell, Trust, and_also};
use crate::blocking;
use crate::job::conclude::OUTPUT_BESIDE_FILES_MAX;
use crate::job::files::{META, Place};
use crate::job::meta::meta_of;
use crate::job::result::fitting;
use crate::job::{JobFiles, now};

/// What came of it.
#[derive(Debug)]
pub(crate) struct Resent {
    /// The result of the job, as it is to be published.
    pub(crate) record: String,
    pub(crate) result: JobResult,
}

/// Why it was not sent, in a sentence for a person.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsent {
    /// The same command may do it later.
    #[error("{0}")]
    Away(Problem),
    #[error("{0}")]
    Refused(String),
}

impl From<io::Error> for Unsent {
    fn from(error: io::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

fn refused<T>(why: impl Into<String>) -> Result<T, Unsent> {
    Err(Unsent::Refused(why.into()))
}

/// A job that has ended, and what is wanted of what it has left.
struct Ended {
    run: Run,
    record: String,
    result: JobResult,
    job: JobMessage,
}

impl JobFiles {
    /// Sends what fits these patterns of what a job has left, or, without any, what was wanted of it.
    pub(crate) async fn resend(
        self: &Arc<Self>,
        job_id: &JobId,
        patterns: Vec<WorkPath>,
        tell: &Tell,
    ) -> Result<Resent, Unsent> {
        let (files, id) = (self.clone(), job_id.clone());
        let Ended { run, record, result, job } = blocking(move || files.ended_with(&id, patterns)).await?;
        match self.upload_all(&job, &run, tell, Trust::Nobody).await {
            Uploaded::Done => {}
            Uploaded::Away(problem) => return Err(Unsent::Away(problem)),
        }
        let files = self.clone();
        blocking(move || files.renew(&run, record, result)).await
    }

    fn ended_with(&self, job_id: &JobId, patterns: Vec<WorkPath>) -> Result<Ended, Unsent> {
        let results = self.claims.results();
        results.must_be_it()?;
        let record = results.final_record(job_id)?;
        let result = record.as_deref().and_then(|record| JobResult::parse(record).ok());
        let (Some(record), Some(result)) = (record, result) else {
            return refused(results.no_record());
        };
        let (Place::Dir(dir), Some(attempt)) = (results.open_job_dir(job_id)?, Attempt::new(result.attempt)) else {
            let place = results.job_dir(job_id);
            return refused(format!("what it has left is not there any more: {} is no directory", place.display()));
        };
        let meta = meta_of(job_id, &dir.read(META)?);
        let (known, files) = meta.map(|meta| (meta.outputs, meta.read_only)).unwrap_or_default();
        let outputs = if patterns.is_empty() { known } else { Some(Outputs { patterns, when: None }) };
        let bytes = result.output_bytes.unwrap_or(0);
        // As when it has ended: beside a list of files there is less room for it.
        let output = match &result.output {
            _ if result.output_bytes.is_none() => false,
            Some(_) => outputs.is_some() && bytes > OUTPUT_BESIDE_FILES_MAX,
            None => true,
        };
        if outputs.is_none() && !output {
            return refused("which of its files are wanted is not known here; name them: --output 'plots/*.png'");
        }
        let run = Run { job_id: job_id.clone(), attempt };
        let wanted = Wanted { files: outputs.is_some(), output, files_max: None };
        self.outgoing.uploads.clean_old(SystemTime::now())?;
        self.outgoing.uploads.write(&run, &Manifest::new(wanted))?;
        let mut job = JobMessage::unknown(job_id.clone());
        (job.spec.outputs, job.spec.files) = (outputs, files);
        Ok(Ended { run, record, result, job })
    }

    /// Writes down what is in the store now.
    fn renew(&self, run: &Run, record: String, result: JobResult) -> Result<Resent, Unsent> {
        let sent = self.outgoing.uploads.manifest(run)?.filter(|manifest| manifest.complete);
        let Some(sent) = sent else {
            return refused("another `resend` of it is at work, or was; the same command may do it");
        };
        // What stays goes by its age.
        let _ = self.outgoing.uploads.forget(run);
        if let Some(why) = sent.refused {
            return refused(why);
        }
        let (files, note, output_file): (Vec<JobFile>, _, _) = (sent.files(), sent.note, sent.output);
        if files.is_empty() && output_file.is_none() {
            return refused(note.unwrap_or_else(|| "it has left nothing that fits".to_owned()));
        }
        if (&files, &output_file) == (&result.files, &result.output_file) {
            // The store has again what the result has said all the time.
            return Ok(Resent { record, result });
        }
        let resent_at = now();
        let files_note = Some(and_also(note.as_deref(), &format!("sent by hand at {resent_at}")));
        let mut result = JobResult { files, files_note, output_file, resent_at: Some(resent_at), ..result };
        let record = fitting(&mut result);
        self.claims.results().renew_record(&run.job_id, &record)?;
        Ok(Resent { record, result })
    }
}
