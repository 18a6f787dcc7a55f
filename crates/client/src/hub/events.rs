//! What happens to all jobs, as the hub tells it.

use protocol::hub::{JobBrief, Sites};

use super::error::Error;
use super::sse::Stream;

/// The events of a hub.
#[derive(Debug)]
pub struct Events {
    stream: Stream,
}

/// Something has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A job is now so far.
    Job(Box<JobBrief>),
    /// These sites came or went, or are not what they were.
    Sites(Sites),
    /// Something else, or something that a newer hub says.
    Other,
}

impl Events {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream }
    }

    /// The next event; nothing when the hub has ended the stream, as it does when it is renewed. Can be dropped without
    /// harm.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        let Some(event) = self.stream.next().await? else { return Ok(None) };
        let understood = match event.name.as_str() {
            "job" => serde_json::from_str(&event.data).map(|job| Event::Job(Box::new(job))),
            "sites" => serde_json::from_str(&event.data).map(Event::Sites),
            _ => Ok(Event::Other),
        };
        Ok(Some(understood.unwrap_or_else(|error| {
            tracing::debug!("an event `{}` of the hub is not understood: {error}", event.name);
            Event::Other
        })))
    }
}
