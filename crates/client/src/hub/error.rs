//! Why the hub did not say what was asked.

use std::time::Duration;

use crate::error::Remedy;

/// The hub did not say what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It refuses, and would again.
    #[error("the hub refuses: {0}")]
    Refused(String),
    /// It has nothing of what was asked for.
    #[error("the hub has nothing of it: {0}")]
    NotThere(String),
    /// It did not answer as it should; it may later.
    #[error("the hub does not answer: {what}")]
    Unavailable {
        /// What is wrong.
        what: String,
        /// When it wants to be asked again.
        after: Option<Duration>,
    },
}

impl Error {
    pub(crate) fn unavailable(what: String) -> Self {
        Self::Unavailable { what, after: None }
    }

    /// Of an answer that is not, or cannot be, the hub's.
    pub(crate) fn garbage(what: &str) -> Self {
        Self::unavailable(format!(
            "{what}; is PRODUCER_URL the address of the edge, or does a proxy answer in its place?"
        ))
    }

    /// What can be done about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Refused(_) => Remedy::Unexpected,
            Self::NotThere(_) => Remedy::Nothing,
            Self::Unavailable { .. } => Remedy::TryLater,
        }
    }
}
