//! `wait`, and the second half of `submit --wait`: until the result of one job is here.

use std::time::{Duration, Instant};

use client::text::escaped;
use client::{Arrived, Inbox, Pace, Patience, Receiver, Troubles};
use program::Exit;
use protocol::JobId;

use super::{http_client, print_one, receiver};
use crate::cli::WaitArgs;
use crate::config::CommonArgs;
use crate::failure::Failure;
use crate::printer::Printer;

pub(super) async fn run(common: &CommonArgs, args: &WaitArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    // What is here needs neither settings nor a network.
    if let Some(arrived) = Inbox::new(&common.data_dir()?).find(&args.job_id)? {
        return print_one(&arrived, printer);
    }
    let queue = args.queue.complete(common)?;
    let pace = Pace::eager(args.queue.poll_interval());
    let receiver = receiver(common, http_client()?, queue)?;
    print_one(&result_of(&args.job_id, &receiver, pace, args.timeout).await?, printer)
}

/// The result of a job, as soon as it is in the inbox: this process, or another one, may put it there.
pub(super) async fn result_of(
    job_id: &JobId,
    receiver: &Receiver,
    mut pace: Pace,
    timeout: Option<Duration>,
) -> anyhow::Result<Arrived> {
    let start = Instant::now();
    let remaining = || timeout.map_or(Duration::MAX, |timeout| timeout.saturating_sub(start.elapsed()));
    let mut troubles = Troubles::new(Patience::ONE_JOB);
    loop {
        let looked = receiver.look().await;
        if looked.is_ok() {
            troubles.over();
        }
        if let Some(arrived) = receiver.inbox().find(job_id)? {
            if let Ok(received) = looked
                && let Some(failure) = received.failure
            {
                // Another result could not be stored. That must be said, but this one is here.
                tracing::warn!("{}", escaped(&format!("{:#}", anyhow::Error::from(failure))));
            }
            return Ok(arrived);
        }
        let pause = match looked {
            Ok(received) => {
                if let Some(failure) = received.failure {
                    return Err(failure.into());
                }
                if received.messages == 0 { pace.after_nothing() } else { pace.after_something(received.more) }
            }
            Err(error) => troubles.met(error, Instant::now())?,
        };
        let remaining = remaining();
        if remaining.is_zero() {
            let message =
                format!("the result of the job {job_id} is not here yet; `laptop-consumer wait {job_id}` waits on");
            return Err(Failure::with(Exit::TryLater, message));
        }
        tokio::time::sleep(pause.min(remaining)).await;
    }
}
