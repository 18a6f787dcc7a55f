//! `cancel`: says that nothing leads from here to a job yet, and what does it on the cluster.

use client::Inbox;
use program::{Exit, Failure};

use super::jobs;
use crate::cli::CancelArgs;
use crate::config::CommonArgs;

pub(super) fn run(common: &CommonArgs, args: &CancelArgs) -> anyhow::Result<Exit> {
    let inbox = Inbox::new(&common.data_dir()?);
    let named = args.jobs.iter().map(|name| Ok(jobs::named(name, &inbox)?.to_string()));
    let named = named.collect::<anyhow::Result<Vec<_>>>()?.join(" ");
    let message = format!(
        "jobs cannot be canceled from the laptop yet, and nothing was done; on the cluster, with the settings of the \
         daemon there, this does it: hpc-consumer cancel {named}"
    );
    Err(Failure::with(Exit::NotFound, message))
}
