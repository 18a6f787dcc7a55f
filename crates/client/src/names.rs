//! The jobs that names mean ([`protocol::names`]) where an inbox says which are known.

use protocol::JobId;
use protocol::names::{self, AmbiguousName, LAST};

use crate::inbox::{self, Inbox};

/// Why a name means no job.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was submitted from here.
    #[error("nothing was submitted with this inbox yet, so that no job is the last one; name the job by its id")]
    NoLast,
    /// It begins several ids.
    #[error(transparent)]
    Ambiguous(#[from] AmbiguousName),
    /// The inbox cannot be read.
    #[error(transparent)]
    Inbox(#[from] inbox::Error),
}

/// The job that a name means: one that was submitted here or whose result is here, or, in full, any other.
pub fn job(name: &JobId, inbox: &Inbox) -> Result<JobId, Error> {
    if name.as_str() == LAST {
        return inbox.last_submitted()?.ok_or(Error::NoLast);
    }
    if !names::may_be_beginning(name) {
        return Ok(name.clone());
    }
    Ok(names::resolve(name, inbox.arrived()?.into_iter().chain(inbox.submitted()?))?)
}

#[cfg(test)]
mod tests {
    use protocol::{JobSpec, Json};

    use super::*;

    #[test]
    fn what_was_submitted_here_can_be_shortened_and_the_last_one_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = Inbox::new(dir.path());
        let means = |name: &str| job(&name.parse().unwrap(), &inbox).map(|job| job.to_string());
        // Nothing is known, and there is not even a directory.
        assert_eq!(means("6799").unwrap(), "6799");
        assert!(matches!(means("last"), Err(Error::NoLast)));

        inbox.prepare(&files::NobodyElse).unwrap();
        let id = "67995bdb-e88f-84f3-982a-a41723a075bc";
        inbox.note_submitted(&id.parse().unwrap(), &Json::null(), &JobSpec::default()).unwrap();
        assert_eq!((means("6799").unwrap().as_str(), means("last").unwrap().as_str()), (id, id));
        inbox.note_submitted(&id.replace('c', "d").parse().unwrap(), &Json::null(), &JobSpec::default()).unwrap();
        assert!(matches!(means("6799"), Err(Error::Ambiguous(_))));
    }
}
