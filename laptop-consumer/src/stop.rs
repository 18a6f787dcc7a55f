//! Ctrl-C and SIGTERM: the first asks the program to end, the second ends it at once.

use program::Exit;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Becomes true at SIGINT or SIGTERM. A second signal ends the program at once: a network may hang for a minute.
#[derive(Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// From here on signals are heard.
    pub(crate) fn listen() -> anyhow::Result<Self> {
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
                    std::process::exit(i32::from(Exit::Interrupted.code()));
                }
            }
        });
        Ok(Self(receiver))
    }

    /// Has a signal come?
    pub(crate) fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when a signal comes.
    pub(crate) async fn asked(&mut self) {
        // The sender lives as long as the program, so this ends only by a signal.
        let _ = self.0.wait_for(|asked| *asked).await;
    }
}
