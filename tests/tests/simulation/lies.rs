//! A store of files that lies: under the name of a content it has, or keeps of what it is sent, something shorter,
//! longer or other, and says that all is well.
//!
//! Who receives compares the length and the SHA-256 with those that were announced, whoever has said what. So what a
//! job brings is its failure with that reason, for it is wrong whoever asks; and what a run has left is not announced,
//! and is sent anew until the store has it as it is.
//!
//! Out of scope: a store that spoils later what it had as it is. Whoever has it then compares it as well (`transfer`).

use std::collections::BTreeSet;

use fastrand::Rng;
use lifecycle::{Staged, Uploaded};
use protocol::JobId;
use testkit::files::Content;

use crate::plan::{Fault, START, Time};
use crate::sabotage::Sabotage;
use crate::transfers::Wants;
use crate::world::{Checked, World};

/// What is said of a wrong file, in the reason of its job's failure.
const WRONG: &str = "what came is not the content";

/// What a store has in place of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    Shorter,
    Longer,
    /// As long, with another hash.
    Other,
}

impl Lie {
    /// What is there instead of this.
    fn about(self, content: &str) -> String {
        let all_but_last = &content[..content.len() - 1];
        match self {
            Self::Shorter => all_but_last.to_owned(),
            Self::Longer => format!("{content}+"),
            Self::Other => format!("{all_but_last}+"),
        }
    }
}

/// What is wrong with the store.
#[derive(Debug, Default)]
pub(crate) struct Lies {
    /// Until when it lies, and how.
    pub(crate) until: Time,
    pub(crate) now: Option<Lie>,
    /// Jobs that were handed a wrong file.
    handed: BTreeSet<JobId>,
}

/// When it lies: for a while, of some of what it is asked for, in each of the three ways.
pub(crate) fn lies(span: Time, rng: &mut Rng) -> Vec<(Time, Fault)> {
    [Lie::Shorter, Lie::Longer, Lie::Other]
        .map(|lie| (START + rng.i64(0..=span / 3), Fault::StoreLies(rng.i64(1..=span / 12), lie)))
        .into()
}

/// Is this what was announced? By its length, and by its hash.
fn is_as_announced(found: &str, announced: &str) -> bool {
    found.len() == announced.len() && Content::of(found).sha256 == Content::of(announced).sha256
}

impl World {
    /// What the store has of a content, or keeps of it.
    fn what_is_there(&mut self, content: &str) -> String {
        let lie = self.transfers.lies.now.filter(|_| self.transfers.lies.until > self.now && self.rng.bool());
        lie.map_or_else(|| content.to_owned(), |lie| lie.about(content))
    }

    /// The file of a job as it comes from the store; the refusal of the job if it is not what its message says.
    pub(crate) fn take_file(&mut self, job_id: &JobId, wants: Wants) -> Result<String, Staged> {
        let announced = wants.announced();
        let came = if wants.are_wrong() { Lie::Other.about(announced) } else { self.what_is_there(announced) };
        if self.sabotage == Some(Sabotage::TakeAnyFile) || is_as_announced(&came, announced) {
            return Ok(came);
        }
        self.report.lied_to += 1;
        self.transfers.lies.handed.insert(job_id.clone());
        Err(Staged::Refused(format!("{WRONG}: {} bytes", came.len())))
    }

    /// What the store keeps of an output, and what follows from a look at that. What is there as it is stays so.
    pub(crate) fn put_output(&mut self, before: Option<&str>, output: &str) -> (String, Uploaded) {
        let kept = match before {
            Some(before) if is_as_announced(before, output) => before.to_owned(),
            _ => self.what_is_there(output),
        };
        if self.sabotage == Some(Sabotage::BelieveTheStore) || is_as_announced(&kept, output) {
            return (kept, Uploaded::Done);
        }
        self.report.lied_about += 1;
        (kept, Uploaded::Away("the store does not have what was put".into()))
    }

    /// Does a run find in its directory what its message has announced?
    pub(crate) fn is_right_file(&self, job_id: &JobId, found: &str) -> Checked {
        let announced = self.plan.wants(job_id).announced();
        if found == announced {
            return Ok(());
        }
        Err(format!("{job_id} is given `{found}` for a file, and its message announces `{announced}`"))
    }

    /// May a job be rejected for its files? Those of it that are wrong are told as that.
    pub(crate) fn has_bad_files(&self, job_id: &JobId, why: &str) -> bool {
        self.plan.wants(job_id).are_gone() || self.transfers.lies.handed.contains(job_id) && why.contains(WRONG)
    }
}
