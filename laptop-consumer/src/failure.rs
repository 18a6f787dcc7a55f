//! Which exit code an error of the library means. Errors of the commands say it themselves ([`program::Failure`]).

use client::poll::GaveUp;
use client::{Remedy, hub, receive, submit};
use program::{Exit, Failure};
use transfer::Class;

/// The error with its exit code.
pub(crate) fn with_exit(error: anyhow::Error) -> anyhow::Error {
    match remedy(&error) {
        Some(Remedy::Settings) => Failure::usage(error),
        Some(Remedy::Nothing) => Failure::with(Exit::NotFound, format!("{error:#}")),
        Some(Remedy::TryLater) => Failure::with(Exit::TryLater, format!("{error:#}")),
        Some(Remedy::Unexpected) | None => error,
    }
}

/// What the library says of one of its errors.
fn remedy(error: &anyhow::Error) -> Option<Remedy> {
    let whole = error.downcast_ref().map(client::Error::remedy);
    let queue = || error.downcast_ref().map(|gave_up: &GaveUp| gave_up.remedy);
    let receive = || error.downcast_ref().map(receive::Error::remedy);
    let hub = || error.downcast_ref().map(hub::Error::remedy);
    let submit = || error.downcast_ref().map(submit::Error::remedy);
    let files = || error.downcast_ref().map(of_files);
    whole.or_else(queue).or_else(receive).or_else(submit).or_else(hub).or_else(files)
}

/// What the store of files says.
fn of_files(error: &transfer::Error) -> Remedy {
    match error.class() {
        Class::Away | Class::Changed => Remedy::TryLater,
        Class::NoStore | Class::Gone => Remedy::Nothing,
        Class::Refused | Class::Denied | Class::Wrong | Class::Local => Remedy::Unexpected,
    }
}
