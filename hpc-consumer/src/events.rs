//! The way of events to the daemon's loop.

use lifecycle::Event;
use tokio::sync::mpsc;

use crate::store::Problem;

/// What the loop hears: an event, or that the state cannot be read, with which nothing can go on.
pub(crate) type Heard = Result<Event, Problem>;

/// Where events are sent.
#[derive(Debug, Clone)]
pub(crate) struct Events(mpsc::UnboundedSender<Heard>);

/// A new way, and where it ends.
pub(crate) fn channel() -> (Events, mpsc::UnboundedReceiver<Heard>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Events(sender), receiver)
}

impl Events {
    /// Nobody listens any more only when the daemon ends.
    pub(crate) fn send(&self, event: Event) {
        self.tell(Ok(event));
    }

    /// The same for what may have failed with the store.
    pub(crate) fn tell(&self, heard: Heard) {
        let _ = self.0.send(heard);
    }
}
