//! `tail`: results as they come, for ever or until the queue holds nothing more.

use std::path::Path;
use std::time::{Duration, Instant};

use client::hub::{Interest, Listener};
use client::{Follower, Patience, Received, Receiver, Troubles, Watch};
use program::{Exit, Printer};
use protocol::JobResult;
use upkeep::Notify;

use super::fetch::Fetches;
use super::{follower, hub, note, print_new, receiver};
use crate::cli::TailArgs;
use crate::config::CommonArgs;
use crate::stop::Stop;

pub(super) async fn run(common: &CommonArgs, args: &TailArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    if args.check {
        return check(common, args).await;
    }
    let stop = Stop::listen()?;
    let mut files = match &args.fetch {
        Some(into) => Some(Files { fetches: Fetches::begin(args.edge.store(common)?)?, into }),
        None => None,
    };
    if args.until_idle {
        let receiver = receiver(common, args.queue.complete(common)?)?;
        until_idle(&receiver, args.queue.poll_interval(), stop, printer, files.as_mut()).await
    } else {
        let mut follower = follower(common, &args.queue, Patience::FOR_EVER)?;
        if let Some(hub) = hub::if_any(common, &args.edge) {
            follower.listen(Listener::new(hub, Interest::All));
        }
        follow(follower, stop, printer, files.as_mut()).await
    }
}

/// Would it fetch results like this?
async fn check(common: &CommonArgs, args: &TailArgs) -> anyhow::Result<Exit> {
    if args.fetch.is_some() {
        args.edge.store(common)?;
    }
    let receiver = receiver(common, args.queue.complete(common)?)?;
    let held = receiver.backlog().await?.map_or_else(String::new, |count| format!(", which holds {count} messages"));
    note(&format!("the settings are valid: results go to {}, from the queue{held}", common.data_dir()?.display()));
    Ok(Exit::Ok)
}

/// The files of jobs, each job's in a directory of its name.
struct Files<'a> {
    fetches: Fetches,
    into: &'a Path,
}

impl Files<'_> {
    /// What is wrong with the files of one job is told, and those of the next are fetched.
    async fn fetch(&mut self, results: Vec<JobResult>) -> anyhow::Result<()> {
        for result in results {
            let into = self.into.join(result.job_id.as_str());
            match self.fetches.fetch_of(&result, &into).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if error.is::<transfer::Error>() => {
                    let job_id = &result.job_id;
                    let into = into.display();
                    tracing::warn!("{error}; `laptop-consumer fetch {job_id} -o {into}` fetches the files of the job");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Fetches the files of what was printed, where that is wanted.
async fn fetch(files: Option<&mut Files<'_>>, results: Vec<JobResult>) -> anyhow::Result<()> {
    match files {
        Some(files) => files.fetch(results).await,
        None => Ok(()),
    }
}

/// Prints what comes into the inbox, whichever program puts it there.
async fn follow(
    mut follower: Follower,
    mut stop: Stop,
    printer: &mut Printer,
    mut files: Option<&mut Files<'_>>,
) -> anyhow::Result<Exit> {
    let mut watch = Watch::new(follower.inbox())?;
    // Its settings are good and its inbox is there; the queue may be out of reach for now.
    Notify::to(&upkeep::Listener::of_environment()).ready();
    loop {
        let received = tokio::select! {
            received = follower.step() => received?,
            () = stop.asked() => break,
        };
        let results = print_arrivals(received, &mut watch, printer)?;
        fetch(files.as_deref_mut(), results).await?;
    }
    // What has been leased is stored and acknowledged before the end.
    print_arrivals(follower.finish().await, &mut watch, printer)?;
    Ok(Exit::Ok)
}

/// Prints what a look of this program has brought, in the order of the queue, and then what others have stored.
fn print_arrivals(
    received: Option<Received>,
    watch: &mut Watch,
    printer: &mut Printer,
) -> anyhow::Result<Vec<JobResult>> {
    let mut results = Vec::new();
    if let Some(mut received) = received {
        // The inbox may have shown it while the look was still acknowledging.
        received.new.retain(|arrived| watch.saw(&arrived.result.job_id));
        results.extend(print_new(received, printer)?);
    }
    for arrived in watch.new_results()? {
        printer.result(&arrived.result, &arrived.line())?;
        results.push(arrived.result);
    }
    Ok(results)
}

/// Prints what the queue gives until it holds nothing more. It looks in any case, whoever else does: it was asked what
/// there is.
async fn until_idle(
    receiver: &Receiver,
    interval: Duration,
    mut stop: Stop,
    printer: &mut Printer,
    mut files: Option<&mut Files<'_>>,
) -> anyhow::Result<Exit> {
    let mut troubles = Troubles::new(Patience::UNTIL_IDLE);
    let mut idle = Idle::new(receiver.queue().visibility_timeout + interval);
    let mut nothing_came = true;
    while !stop.is_asked() {
        // A look is never cut short, not even by a signal: what it has leased is to be stored and acknowledged.
        let pause = match receiver.look().await {
            Ok(received) => {
                troubles.over();
                let messages = received.messages;
                let results = print_new(received, printer)?;
                fetch(files.as_deref_mut(), results).await?;
                nothing_came &= messages == 0;
                if messages > 0 {
                    idle.reset();
                    Duration::ZERO
                } else if idle.is_reached(receiver).await {
                    if nothing_came && printer.is_human() {
                        note("no results");
                    }
                    return Ok(Exit::Ok);
                } else {
                    interval
                }
            }
            Err(error) => troubles.met(error, Instant::now())?,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.asked() => {}
        }
    }
    Ok(Exit::Ok)
}

/// Has the queue nothing more for us? An empty pull alone does not say so: messages may be leased to somebody who will
/// not settle them (a program that was killed, this one included), or delayed. They are waited for as long as a lease
/// of ours lasts. Who holds them longer than that is alive, and they are theirs.
struct Idle {
    patience: Duration,
    empty_since: Option<Instant>,
}

impl Idle {
    fn new(patience: Duration) -> Self {
        Self { patience, empty_since: None }
    }

    fn reset(&mut self) {
        self.empty_since = None;
    }

    /// To be asked after an empty pull.
    async fn is_reached(&mut self, receiver: &Receiver) -> bool {
        let held = match receiver.backlog().await {
            Ok(None | Some(0)) => return true,
            Ok(Some(count)) => format!("the queue holds {count} more messages"),
            // As good as a queue that may hold something; the next look meets the same trouble, and says it.
            Err(error) => {
                tracing::debug!("{error}");
                "the queue does not say whether it holds more messages".to_owned()
            }
        };
        if self.empty_since.get_or_insert_with(Instant::now).elapsed() < self.patience {
            return false;
        }
        note(&format!("{held}; they are leased to another program, or delayed"));
        true
    }
}
