//! Following what a job prints, for as long as it runs.
//!
//! Invariant: however often the connection breaks, each byte comes once ([`super::place`]). The future of a step can be
//! dropped without harm.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use protocol::JobId;
use protocol::hub::LogEvent;
use protocol::link::Stream;
use queues::Backoff;
use reqwest::Method;

use super::error::Error;
use super::place::Place;
use super::{Answer, Hub, sse};

/// For so long there may be nothing but trouble.
const PATIENCE: Duration = Duration::from_secs(300);

/// The same before the hub has ever said anything of the job.
const PATIENCE_FIRST: Duration = Duration::from_secs(5);

/// The pauses between connections.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// What is followed.
#[derive(Debug, Clone)]
pub struct LogsOf {
    /// Which job.
    pub job_id: JobId,
    /// One of its streams, or both.
    pub stream: Option<Stream>,
    /// From where, in bytes: from the beginning, or, below 0, from the end; without it, where the hub begins.
    pub from: Option<i64>,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogNews {
    /// The job has printed this.
    Printed(Stream, String),
    /// So many bytes are not there: what comes next was printed after them.
    LeftOut(Stream, u64),
    /// It was started again.
    Attempt(u32),
    /// It prints no more.
    End,
}

/// Follows what a job prints.
#[derive(Debug)]
pub struct LogFollower {
    hub: Hub,
    of: LogsOf,
    place: Place,
    /// Where the hub says that the stream is.
    event_id: Option<String>,
    connection: Option<sse::Stream>,
    ready: VecDeque<LogNews>,
    backoff: Backoff,
    trouble_since: Option<Instant>,
    is_told: bool,
    not_before: Option<Instant>,
    was_known: bool,
}

impl Hub {
    /// Follows what a job prints.
    pub fn follow(&self, of: LogsOf) -> LogFollower {
        LogFollower {
            hub: self.clone(),
            of,
            place: Place::default(),
            event_id: None,
            connection: None,
            ready: VecDeque::new(),
            backoff: Backoff::new(PAUSE_FIRST, PAUSE_MAX),
            trouble_since: None,
            is_told: false,
            not_before: None,
            was_known: false,
        }
    }
}

impl LogFollower {
    /// What comes next. There is nothing after [`LogNews::End`].
    pub async fn next(&mut self) -> Result<Answer<LogNews>, Error> {
        loop {
            if let Some(news) = self.ready.pop_front() {
                return Ok(Answer::Known(news));
            }
            if let Some(not_before) = self.not_before {
                tokio::time::sleep_until(not_before.into()).await;
                self.not_before = None;
            }
            let Some(connection) = &mut self.connection else {
                match self.open().await {
                    Ok(Answer::Known(stream)) => (self.connection, self.was_known) = (Some(stream), true),
                    // One that was wiped comes to know it again.
                    Ok(Answer::UnknownJob) if self.was_known => {
                        self.trouble(Error::unavailable("it does not know the job any more".to_owned()), true)?;
                    }
                    Ok(Answer::UnknownJob) => return Ok(Answer::UnknownJob),
                    Ok(Answer::NoHub) => return Ok(Answer::NoHub),
                    Err(error @ (Error::Refused(_) | Error::NotThere(_))) => return Err(error),
                    Err(error) => self.trouble(error, true)?,
                }
                continue;
            };
            match connection.next().await {
                Ok(Some(event)) => self.take(&event),
                Ok(None) => {
                    // As when it is renewed.
                    self.connection = None;
                    self.trouble(Error::unavailable("it has ended the stream".to_owned()), false)?;
                }
                Err(error) => {
                    self.connection = None;
                    self.trouble(error, true)?;
                }
            }
        }
    }

    async fn open(&self) -> Result<Answer<sse::Stream>, Error> {
        let mut url = self.hub.url(&["jobs", self.of.job_id.as_str(), "logs"]);
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("follow", "1");
            if let Some(stream) = self.of.stream {
                query.append_pair("stream", stream.as_str());
            }
            let here = self.of.stream.and_then(|stream| self.place.next(stream)).map(|next| next.to_string());
            if let Some(from) = here.or_else(|| self.of.from.map(|from| from.to_string())) {
                query.append_pair("from", &from);
            }
        }
        let mut request = self.hub.request(Method::GET, url);
        // It goes before `from`, and says the place in both streams.
        if let Some(id) = &self.event_id {
            request = request.header("last-event-id", id);
        }
        self.hub.stream(request).await
    }

    fn take(&mut self, event: &sse::Event) {
        if self.trouble_since.take().is_some() && std::mem::take(&mut self.is_told) {
            tracing::warn!("the hub answers again");
        }
        self.backoff.reset();
        match event.name.as_str() {
            "log" => match serde_json::from_str::<LogEvent>(&event.data) {
                Ok(piece) => {
                    let stream = piece.stream;
                    let taken = self.place.take(piece);
                    self.ready.extend(taken.begins.map(LogNews::Attempt));
                    self.ready.extend((taken.left_out > 0).then_some(LogNews::LeftOut(stream, taken.left_out)));
                    self.ready.extend((!taken.text.is_empty()).then_some(LogNews::Printed(stream, taken.text)));
                    self.event_id.clone_from(&event.id);
                }
                Err(error) => tracing::debug!("an event `log` of the hub is not understood: {error}"),
            },
            "end" => self.ready.push_back(LogNews::End),
            _ => {}
        }
    }

    /// Notes that something is wrong, and when to try again; the end of patience is an error.
    fn trouble(&mut self, error: Error, is_told: bool) -> Result<(), Error> {
        let now = Instant::now();
        let since = *self.trouble_since.get_or_insert(now);
        let patience = if self.was_known { PATIENCE } else { PATIENCE_FIRST };
        if now.duration_since(since) >= patience {
            return Err(error);
        }
        let pause = match &error {
            Error::Unavailable { after: Some(after), .. } => (*after).min(PATIENCE),
            _ => self.backoff.pause(),
        };
        if is_told && !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!("trying again: {error}");
        }
        self.not_before = Some(now + pause);
        Ok(())
    }
}
