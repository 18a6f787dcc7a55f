//! Server-sent events (WHATWG HTML, section 9.2): from the bytes of an answer to events.
//!
//! By hand: the crates that there are hold a line in memory however long it is, and this is short.
//!
//! Invariants: however the bytes come in pieces, the events are the same; what is kept between pieces has a bound; a
//! connection that is silent for too long has ended.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use reqwest::Response;
use transfer::Edge;

use super::error::Error;

/// What such an answer says that it is.
pub(super) const CONTENT_TYPE: &str = "text/event-stream";

/// The longest event. A piece of what a job prints is 48 KB, each of whose bytes may become six.
const EVENT_BYTES_MAX: usize = 2_000_000;

/// The longest silence. The hub says something now and then for the sake of what stands between.
const SILENCE_MAX: Duration = Duration::from_secs(75);

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// What it is; `message` where it does not say.
    pub(crate) name: String,
    /// What it says.
    pub(crate) data: String,
    /// Where the stream is after it, in the words of the server.
    pub(crate) id: Option<String>,
}

/// An event is longer than any that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Reads events out of pieces of bytes.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    /// The last byte was a carriage return, and a line feed after it would belong to it.
    after_return: bool,
    past_start: bool,
    name: String,
    data: String,
    has_data: bool,
    id: Option<String>,
}

impl Parser {
    /// The events that end in this piece.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for &byte in piece {
            if std::mem::take(&mut self.after_return) && byte == b'\n' {
                continue;
            }
            match byte {
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    events.extend(self.end_of_line());
                }
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                return Err(TooLong);
            }
        }
        Ok(events)
    }

    fn end_of_line(&mut self) -> Option<Event> {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.past_start, true) && line.starts_with("\u{feff}".as_bytes()) {
            line.drain(..3);
        }
        if line.is_empty() {
            return self.end_of_event();
        }
        let text = String::from_utf8_lossy(&line);
        let (field, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // `retry`, comments, and what is not known.
            _ => {}
        }
        None
    }

    fn end_of_event(&mut self) -> Option<Event> {
        let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        let name = if name.is_empty() { "message".to_owned() } else { name };
        Some(Event { name, data, id: self.id.clone() })
    }
}

/// An answer that comes as events.
#[derive(Debug)]
pub(crate) struct Stream {
    response: Response,
    edge: Edge,
    parser: Parser,
    ready: VecDeque<Event>,
    heard: Instant,
}

impl Stream {
    pub(super) fn new(response: Response, edge: Edge) -> Self {
        Self { response, edge, parser: Parser::default(), ready: VecDeque::new(), heard: Instant::now() }
    }

    /// The next event; nothing when the server has ended the answer. Can be dropped without harm.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let silent_at = self.heard + SILENCE_MAX;
            let piece = tokio::time::timeout_at(silent_at.into(), self.response.chunk()).await.map_err(|_| {
                let (host, seconds) = (&self.edge.address, SILENCE_MAX.as_secs());
                Error::unavailable(format!("{host} has said nothing for {seconds} s"))
            })?;
            let Some(piece) = piece.map_err(|error| Error::unavailable(self.edge.no_answer(&error)))? else {
                return Ok(None);
            };
            self.heard = Instant::now();
            let events = self
                .parser
                .push(&piece)
                .map_err(|TooLong| Error::garbage(&format!("an event has more than {EVENT_BYTES_MAX} bytes")))?;
            self.ready.extend(events);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(text: &[u8]) -> Vec<(String, String, Option<String>)> {
        let events = Parser::default().push(text).unwrap();
        events.into_iter().map(|event| (event.name, event.data, event.id)).collect()
    }

    fn event(name: &str, data: &str, id: Option<&str>) -> (String, String, Option<String>) {
        (name.to_owned(), data.to_owned(), id.map(str::to_owned))
    }

    #[test]
    fn events_are_read_as_the_standard_has_them() {
        let text = "\u{feff}: a comment\nevent: job\ndata: {\"a\":1}\nid: 7\n\n:\n\nevent:x\n\ndata:one\ndata:  two\ndata\n\n\
                    data\n\nretry: 5\nodd: x\nid: a\0b\ndata: ö\r\n\r\ndata: x\r\rdata: unfinished\n";
        assert_eq!(
            events(text.as_bytes()),
            [
                event("job", "{\"a\":1}", Some("7")),
                event("message", "one\n two\n", Some("7")),
                event("message", "", Some("7")),
                event("message", "ö", Some("7")),
                event("message", "x", Some("7")),
            ]
        );
        assert_eq!(events(b"data: \xff\n\n"), [event("message", "\u{fffd}", None)]);
        assert_eq!(events(b"data: a\n\ndata: \xef\xbb\xbfb\n\n")[1].1, "\u{feff}b", "it is a mark at the start alone");
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 100_000];
        let taken = (0..100).take_while(|_| parser.push(&piece).is_ok()).count();
        assert_eq!(taken, EVENT_BYTES_MAX / piece.len());
        assert!(parser.line.capacity() < 3 * EVENT_BYTES_MAX);
        // Nor does an event grow by lines.
        let mut parser = Parser::default();
        let line = [b"data: ", piece.as_slice(), b"\n"].concat();
        assert!((0..100).any(|_| parser.push(&line) == Err(TooLong)));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            text in "(data|event|id|:|\u{feff}|[ :xé\u{0}]|\r|\n){0,60}",
            cuts in proptest::collection::vec(0_usize..200, 0..10),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut parser = Parser::default();
            let mut found = Vec::new();
            for pair in cuts.windows(2) {
                found.extend(parser.push(&bytes[pair[0]..pair[1]]).unwrap());
            }
            prop_assert_eq!(&found, &Parser::default().push(bytes).unwrap());
            // However lines end, it is the same.
            let unix = text.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(found, Parser::default().push(unix.as_bytes()).unwrap());
        }

        #[test]
        fn whatever_is_written_is_read(
            sent in proptest::collection::vec(("[a-z]{1,8}", "[^\r\n]{0,40}(\n[^\r\n]{0,40}){0,3}"), 0..5),
        ) {
            let mut text = String::new();
            for (name, data) in &sent {
                text.push_str(&format!("event: {name}\n"));
                data.split('\n').for_each(|line| text.push_str(&format!("data: {line}\n")));
                text.push('\n');
            }
            let read: Vec<_> = events(text.as_bytes()).into_iter().map(|(name, data, _)| (name, data)).collect();
            prop_assert_eq!(read, sent);
        }
    }
}
