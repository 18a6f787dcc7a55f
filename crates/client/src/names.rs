//! The jobs that names mean ([`protocol::names`]) where an inbox says which are known, and a hub which others there
//! are.

use protocol::JobId;
use protocol::hub::PAGE_MAX;
use protocol::names::{self, AmbiguousName, LAST};

use crate::hub::{self, Filter, Hub};
use crate::inbox::{self, Inbox};

/// So many jobs of a hub can be shortened, the newest ones.
const OF_HUB_MAX: usize = 5_000;

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
    /// The hub did not say which jobs there are.
    #[error(transparent)]
    Hub(#[from] hub::Error),
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

/// The job of a hub that a name means which means none that is known here: a unique beginning, or the last one.
pub async fn job_of_hub(name: &JobId, hub: &Hub) -> Result<Option<JobId>, Error> {
    let count = match name.as_str() {
        // The tasks of a workflow are newer than it is.
        LAST => PAGE_MAX,
        _ if names::may_be_beginning(name) => OF_HUB_MAX,
        _ => return Ok(None),
    };
    let Some((jobs, _)) = hub.newest(&Filter::default(), count).await?.known() else { return Ok(None) };
    if name.as_str() == LAST {
        let first = jobs.first().map(|job| job.job_id.clone());
        return Ok(jobs.into_iter().find(|job| job.parent.is_none()).map(|job| job.job_id).or(first));
    }
    let job_id = names::resolve(name, jobs.into_iter().map(|job| job.job_id))?;
    Ok((job_id != *name).then_some(job_id))
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
