//! A disk that takes nothing when a run is over: did the job fill it?
//!
//! Nobody sees who took the last page. But a job whose directory holds a large share of the disk is what keeps it full,
//! whoever took that page: with what it left gone there is room again for all others. So its bulk goes, and it is tried
//! again, because the disk may have been nearly full of other things; and if it does the same again and again, it is
//! the job that fails, and not the node.

use protocol::JobId;

use crate::lifecycle::{Lifecycle, Step};
use crate::table::State;
use crate::{Ending, FilledDisk, Problem, Run};

/// In how many attempts in a row a job may fill the disk. Two that run side by side may each have had room alone: after
/// the first time they are tried one by one, and after the second time once more.
const FILLS_MAX: u32 = 3;

/// The part of what is used from which on a directory is a large share of a disk.
const LARGE_PART: u64 = 4;

/// A quota does not tell how much is used. From so many bytes on a directory counts as what has used it up.
const LARGE_BYTES: u64 = 1 << 30;

/// What a job directory holds of a disk that takes nothing, in what the disk has run out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Bytes.
    Bytes {
        /// In the directory.
        held: u64,
        /// On the disk. `None` if it has room and does not give it to us, by a quota.
        used: Option<u64>,
    },
    /// Files and directories.
    Files {
        /// In the directory.
        held: u64,
        /// On the disk.
        used: u64,
    },
}

impl Share {
    /// Is it so large that the job counts as what filled the disk?
    pub fn is_large(self) -> bool {
        let (held, used) = match self {
            Self::Bytes { held, used: None } => return held >= LARGE_BYTES,
            Self::Bytes { held, used: Some(used) } | Self::Files { held, used } => (held, used),
        };
        held > 0 && held >= used / LARGE_PART
    }
}

impl Lifecycle {
    pub(crate) fn disk_full(&mut self, run: &Run, problem: Problem, share: Share, step: &mut Step) {
        let Some(job) = self.jobs.get_mut(&run.job_id) else { return };
        let State::Ending { ending: Ending::Finished(finished), .. } = &job.state else {
            return self.node_failed(run, problem, step);
        };
        if !share.is_large() {
            self.filled_no_disk(&run.job_id);
            return self.node_failed(run, problem, step);
        }
        job.disks_filled += 1;
        let (times, finished) = (job.disks_filled, (**finished).clone());
        // What earlier rounds have left goes with the bulk, and does not come again.
        let again = times < FILLS_MAX && !job.has_been_parked() && job.service.is_none();
        let filled = FilledDisk { finished, problem, share, times, again };
        self.conclude(run, Ending::FilledDisk(Box::new(filled)), step);
    }

    /// An attempt is over: unless it filled the disk, those that did so are not in a row any more.
    pub(crate) fn filled_no_disk(&mut self, job_id: &JobId) {
        if let Some(job) = self.jobs.get_mut(job_id)
            && !matches!(job.state, State::Ending { ending: Ending::FilledDisk(_), .. })
        {
            job.disks_filled = 0;
        }
    }
}
