//! `tail`: results as they come, for ever or until the queue holds nothing more.

use std::time::{Duration, Instant};

use client::{Pace, Patience, Receiver, Troubles};
use program::Exit;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{http_client, note, print_new, receiver};
use crate::cli::TailArgs;
use crate::config::CommonArgs;
use crate::printer::Printer;

/// The exit code of a program that a second Ctrl-C ends, by custom 128 and the number of the signal.
const INTERRUPTED: i32 = 130;

pub(super) async fn run(common: &CommonArgs, args: &TailArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    let queue = args.queue.complete(common)?;
    let interval = args.queue.poll_interval();
    let receiver = receiver(common, http_client()?, queue)?;
    let mut stop = stop_signal()?;
    let mut pace = Pace::steady(interval);
    let mut troubles = Troubles::new(if args.until_idle { Patience::UNTIL_IDLE } else { Patience::FOR_EVER });
    let mut idle = Idle::new(receiver.visibility_timeout() + interval);
    let mut nothing_came = true;
    while !*stop.borrow() {
        // A look is never cut short, not even by a signal: what it has leased is to be stored and acknowledged.
        let pause = match receiver.look().await {
            Ok(received) => {
                troubles.over();
                let (messages, more) = (received.messages, received.more);
                print_new(received, printer)?;
                nothing_came &= messages == 0;
                if !args.until_idle {
                    if messages == 0 { pace.after_nothing() } else { pace.after_something(more) }
                } else if messages > 0 {
                    idle.reset();
                    Duration::ZERO
                } else if idle.is_reached(&receiver).await {
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
            // The sender lives as long as the program, so this ends only by a signal.
            _ = stop.wait_for(|stop| *stop) => {}
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

/// Becomes true at SIGINT or SIGTERM. A second signal ends the program at once: a network may hang for a minute.
fn stop_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if sender.send_replace(true) {
                std::process::exit(INTERRUPTED);
            }
        }
    });
    Ok(receiver)
}
