//! Errors that end the program with an exit code of their own. Every other error ends it with 1.

use client::poll::GaveUp;
use client::{Remedy, receive, submit};
use program::Exit;

/// What went wrong, for a person, and the exit code, for a script.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// A failure, as the error that all commands return.
    pub(crate) fn with(exit: Exit, message: impl Into<String>) -> anyhow::Error {
        Self { exit, message: message.into() }.into()
    }
}

/// The exit code for an error.
pub(crate) fn exit(error: &anyhow::Error) -> Exit {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.exit;
    }
    match remedy(error) {
        Some(Remedy::Settings) => Exit::Usage,
        Some(Remedy::TryLater) => Exit::TryLater,
        Some(Remedy::Unexpected) | None => Exit::Unexpected,
    }
}

/// What the library says of one of its errors.
fn remedy(error: &anyhow::Error) -> Option<Remedy> {
    let whole = error.downcast_ref().map(client::Error::remedy);
    let queue = || error.downcast_ref().map(|gave_up: &GaveUp| gave_up.remedy);
    let receive = || error.downcast_ref().map(receive::Error::remedy);
    whole.or_else(queue).or_else(receive).or_else(|| error.downcast_ref().map(submit::Error::remedy))
}
