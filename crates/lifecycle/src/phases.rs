//! The phases of a job and every change between them that is possible: the diagram in `docs/lifecycle.md` is drawn
//! from this table.

use protocol::JobState;

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It was delivered, and the store is asked whether it has ended before.
    Asked,
    /// It is accepted, and waits for a slot.
    Waiting,
    /// Its files are on their way to the cluster. It has no slot.
    Staging,
    /// Its directory is being claimed.
    Claiming,
    /// It is claimed, and the launch is intended.
    Ready,
    /// It runs.
    Running,
    /// Its run is over, and what that left behind is being dealt with.
    Ending,
    /// Its run has ended, and its outputs are on their way to the store. It has no slot.
    Uploading,
    /// It has left children behind, and waits for them. It has no slot.
    Parked,
    /// It is going back to the queue.
    Returning,
    /// It has its final record, which is owed to the queue.
    Recorded,
}

use Phase::{Asked, Claiming, Ending, Parked, Ready, Recorded, Returning, Running, Staging, Uploading, Waiting};

/// Every change: from, to, why. `None` is a job that we do not hold.
pub const TRANSITIONS: &[(Option<Phase>, Option<Phase>, &str)] = &[
    (None, Some(Asked), "delivered"),
    (None, Some(Recorded), "no job, but with an id"),
    (None, Some(Waiting), "restart, or a child"),
    (None, Some(Parked), "restart"),
    (None, Some(Running), "restart"),
    (Some(Asked), Some(Waiting), "new, accepted"),
    (Some(Asked), Some(Recorded), "has ended before, asked for again"),
    (Some(Asked), None, "has ended before, or cannot be taken"),
    (Some(Waiting), Some(Staging), "files to fetch"),
    (Some(Waiting), Some(Claiming), "a slot"),
    (Some(Waiting), Some(Ending), "cancelled or rejected"),
    (Some(Waiting), None, "given back"),
    (Some(Waiting), Some(Returning), "given back after a restart"),
    (Some(Staging), Some(Waiting), "files are here, or store away"),
    (Some(Staging), Some(Ending), "cancelled, or files refused"),
    (Some(Staging), None, "given back"),
    (Some(Staging), Some(Returning), "given back after a restart"),
    (Some(Claiming), Some(Ready), "claimed, launch intended"),
    (Some(Claiming), Some(Recorded), "has its record already"),
    (Some(Claiming), Some(Waiting), "held elsewhere, or node broken"),
    (Some(Claiming), Some(Returning), "node broken"),
    (Some(Claiming), Some(Ending), "given up"),
    (Some(Ready), Some(Running), "started"),
    (Some(Ready), Some(Parked), "a graph"),
    (Some(Ready), Some(Waiting), "its service has gone"),
    (Some(Ready), Some(Returning), "drain, or node broken"),
    (Some(Ready), Some(Ending), "cancelled"),
    (Some(Running), Some(Ready), "never begun"),
    (Some(Running), Some(Ending), "ended"),
    (Some(Running), Some(Waiting), "cut off, again"),
    (Some(Ending), Some(Ending), "node broken, later again"),
    (Some(Ending), Some(Uploading), "outputs to send"),
    (Some(Ending), Some(Recorded), "record written"),
    (Some(Ending), Some(Waiting), "failed, again"),
    (Some(Ending), Some(Parked), "left children"),
    (Some(Ending), Some(Returning), "node failed it"),
    (Some(Ending), None, "taken over elsewhere"),
    (Some(Uploading), Some(Uploading), "store away, later again"),
    (Some(Uploading), Some(Ending), "outputs are there, or cancelled"),
    (Some(Parked), Some(Waiting), "children have ended"),
    (Some(Parked), Some(Ending), "cancelled, or the graph is done"),
    (Some(Returning), Some(Waiting), "cannot go back"),
    (Some(Returning), None, "given back"),
    (Some(Recorded), None, "published"),
];

impl Phase {
    pub(crate) const COUNT: usize = 11;

    /// All phases, in the order in which a job goes through them.
    pub const ALL: [Self; Self::COUNT] =
        [Asked, Waiting, Staging, Claiming, Ready, Running, Ending, Uploading, Parked, Returning, Recorded];

    /// Its name for people and files.
    pub fn name(self) -> &'static str {
        match self {
            Asked => "asked",
            Waiting => "waiting",
            Staging => "staging",
            Claiming => "claiming",
            Ready => "ready",
            Running => "running",
            Ending => "ending",
            Uploading => "uploading",
            Parked => "parked",
            Returning => "returning",
            Recorded => "recorded",
        }
    }

    /// The word of the contract for it; none where the record says how far the job is.
    pub fn state(self) -> Option<JobState> {
        match self {
            Asked => Some(JobState::Unknown),
            Waiting | Staging | Claiming | Ready | Parked => Some(JobState::Held),
            Running | Ending | Uploading => Some(JobState::Running),
            Returning => Some(JobState::Queued),
            Recorded => None,
        }
    }

    pub(crate) fn may_follow(from: Option<Self>, to: Option<Self>) -> bool {
        TRANSITIONS.iter().any(|(known_from, known_to, _)| (*known_from, *known_to) == (from, to))
    }
}

/// The table as a state diagram in Mermaid's language.
pub fn diagram() -> String {
    let name = |phase: &Option<Phase>| phase.map_or("[*]", Phase::name);
    let mut text = "stateDiagram-v2\n".to_owned();
    for (from, to, why) in TRANSITIONS {
        text.push_str(&format!("    {} --> {}: {why}\n", name(from), name(to)));
    }
    text
}
