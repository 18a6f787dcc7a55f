//! `show`: what the inbox has.

use client::Inbox;
use program::{Exit, Failure, Printer};

use super::fetch::whole;
use super::{jobs, note, print_one};
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
            print_one(&arrived, printer)
        }
        None => {
            let message = format!(
                "there is no result of the job {job_id} in {}; `laptop-consumer wait {job_id}` waits for it, \
                 `laptop-consumer pull` fetches what has come",
                dir.display()
            );
            Err(Failure::with(Exit::NotFound, message))
        }
    }
}
