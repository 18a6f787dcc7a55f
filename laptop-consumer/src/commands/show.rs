//! `show`: what the inbox has; for a person also the jobs that a job has asked for, as far as the hub tells.

use client::Inbox;
use program::{Exit, Failure, Printer};
use protocol::JobId;

use super::fetch::whole;
use super::{jobs, note, print_one, tree};
use crate::cli::ShowArgs;
use crate::config::CommonArgs;

pub(super) async fn run(common: &CommonArgs, args: &ShowArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    let dir = common.data_dir()?;
    let inbox = Inbox::new(&dir);
    let job_id = jobs::named(&args.job, &inbox, None).await?;
    match inbox.find(&job_id)? {
        Some(arrived) => {
            for path in inbox.conflicting(&job_id)? {
                note(&format!(
                    "another result of this job, which came later and differs, is kept in {}",
                    path.display()
                ));
            }
            let arrived = whole(common, args.edge.store(common), arrived).await;
            let exit = print_one(&arrived, printer)?;
            draw(common, args, &job_id, printer).await?;
            Ok(exit)
        }
        None => {
            draw(common, args, &job_id, printer).await?;
            let message = format!(
                "there is no result of the job {job_id} in {}; `laptop-consumer wait {job_id}` waits for it, \
                 `laptop-consumer pull` fetches what has come",
                dir.display()
            );
            Err(Failure::with(Exit::NotFound, message))
        }
    }
}

/// Draws the tree of a job that has asked for others. Programs that read JSON ask the hub themselves.
async fn draw(common: &CommonArgs, args: &ShowArgs, job_id: &JobId, printer: &mut Printer) -> anyhow::Result<()> {
    let hub = if printer.is_human() { args.edge.hub(common).ok().flatten() } else { None };
    match hub {
        Some(hub) => match tree::of(&hub, job_id).await {
            Some(tree) => printer.text(&tree),
            None => Ok(()),
        },
        None => Ok(()),
    }
}
