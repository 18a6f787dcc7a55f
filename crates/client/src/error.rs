//! Why something of a user's program could not be done, and what can be done about it.

use crate::{hub, inbox, poll, receive, submit};

/// Whatever ends a step of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The inbox cannot be used.
    #[error(transparent)]
    Inbox(#[from] inbox::Error),
    /// What came could not be taken.
    #[error(transparent)]
    Receive(#[from] receive::Error),
    /// The queue does not answer as it should, and patience is over.
    #[error(transparent)]
    Queue(#[from] poll::GaveUp),
    /// The edge did not take the job.
    #[error(transparent)]
    Submit(#[from] submit::Error),
    /// The hub did not say what was asked.
    #[error(transparent)]
    Hub(#[from] hub::Error),
}

/// What can be done about an error. The programs turn it into an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Set something right that the person has set.
    Settings,
    /// Nothing: what was asked for is not there.
    Nothing,
    /// Try again later.
    TryLater,
    /// What the error says; trying again is of no use before that.
    Unexpected,
}

impl Error {
    /// What can be done about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Inbox(_) => Remedy::Unexpected,
            Self::Receive(error) => error.remedy(),
            Self::Queue(error) => error.remedy,
            Self::Submit(error) => error.remedy(),
            Self::Hub(error) => error.remedy(),
        }
    }
}
