//! This process itself: its clock, its signals, and what it owes to the system.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::inherited;

/// The time since the Unix epoch: what the clock said at the start, and from then on how much time has passed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    wall: Duration,
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { wall: wall(), started: Instant::now() }
    }

    /// Never goes back.
    pub(crate) fn now(&self) -> Duration {
        self.wall + self.started.elapsed()
    }

    /// What the clock says, for what is kept beyond this process.
    pub(crate) fn wall(&self) -> Duration {
        wall()
    }
}

fn wall() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// A part of the daemon or of a keeper that broke would never end, and what waits for it would wait for ever. After an
/// abort the next start goes on from what is stored; the next keeper ends the runs of one that broke.
pub(crate) fn abort_on_panic() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        told(info);
        std::process::abort();
    }));
}

/// What a person or a service manager wants of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    End,
    Reload,
}

/// The signals that are for us. A hangup comes from a terminal that is closed, or asks for new settings where there is
/// none.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    at_terminal: bool,
}

impl Signals {
    /// From now on no other signal that is sent in passing has an effect.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        inherited::settle_signals()?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            at_terminal: std::io::stderr().is_terminal(),
        })
    }

    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::End,
            _ = self.terminate.recv() => Asked::End,
            _ = self.hangup.recv() => if self.at_terminal { Asked::End } else { Asked::Reload },
        }
    }

    /// Has one that asks for an end come, and was not heard yet?
    pub(crate) async fn have_asked_to_end(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            () = std::future::ready(()) => false,
        }
    }
}
