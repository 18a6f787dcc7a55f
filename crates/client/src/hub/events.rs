//! What happens to all jobs, as the hub tells it.

use protocol::hub::JobBrief;

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
    /// A site came or went, or is not what it was.
    Sites,
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
        Ok(Some(match event.name.as_str() {
            "job" => serde_json::from_str(&event.data).map_or_else(
                |error| {
                    tracing::debug!("an event `job` of the hub is not understood: {error}");
                    Event::Other
                },
                |job| Event::Job(Box::new(job)),
            ),
            "sites" => Event::Sites,
            _ => Event::Other,
        }))
    }
}
