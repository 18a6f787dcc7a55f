//! `ids`: what completions of shells ask; and `completions`, which prints them.

use std::cmp::Reverse;
use std::collections::HashSet;

use client::Inbox;
use program::{Exit, completions, print};

use crate::cli::{Cli, CompletionsArgs};
use crate::config::CommonArgs;

/// More of them nobody reads.
const IDS_MAX: usize = 1_000;

/// Prints `last` and the ids of jobs here, the newest first.
pub(super) fn ids(common: &CommonArgs) -> anyhow::Result<Exit> {
    let inbox = Inbox::new(&common.data_dir()?);
    let mut submitted = inbox.submissions()?;
    submitted.sort_by_key(|job| Reverse(job.at));
    let mut ids: Vec<_> = submitted.into_iter().map(|job| job.job_id).collect();
    // Of what was submitted elsewhere.
    ids.extend(inbox.arrived()?);
    let mut seen = HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    let lines = ids.iter().take(IDS_MAX).map(|id| format!("{id}\n"));
    let last = (!ids.is_empty()).then(|| "last\n".to_owned());
    print(&last.into_iter().chain(lines).collect::<String>())?;
    Ok(Exit::Ok)
}

/// Prints the script of a shell.
pub(super) fn script(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    print(&completions::<Cli>(args.shell.into()))?;
    Ok(Exit::Ok)
}
