//! What jobs print, on its way from a site to those who look.
//!
//! A site sends each stream once, however many look. So that another one who comes later need not have it sent again,
//! the end of it is kept here for as long as anybody looks. Each who looks has its own place in the stream, and a piece
//! that it has had, or a part of it, is passed over.
//!
//! Invariant: within an attempt nobody gets a byte twice, and what is given follows what was given before, unless the
//! site itself has lost what lies between.

use std::collections::{HashMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::JobId;
use protocol::hub::LogEvent;
use protocol::link::{LogPiece, Stream};

use super::request::{From, OFFSET_MAX};

/// How much of a stream is kept, in bytes.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// How many streams are kept at once; of further ones nothing is, and each who looks has the site go back.
const TAILS_MAX: usize = 100;

/// A piece of a stream, decoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<'a> {
    pub(super) attempt: u32,
    pub(super) offset: u64,
    pub(super) bytes: &'a [u8],
    /// Nothing more comes of this attempt.
    pub(super) end: bool,
}

/// The streams that somebody looks at.
#[derive(Debug, Default)]
pub(super) struct Tails(HashMap<(JobId, Stream), Tail>);

#[derive(Debug, Default)]
struct Tail {
    attempt: u32,
    /// Where what is kept begins.
    start: u64,
    kept: VecDeque<u8>,
    end: bool,
}

impl Tails {
    /// Keeps a piece, where it goes on with what is kept.
    pub(super) fn keep(&mut self, job_id: &JobId, stream: Stream, piece: Bytes<'_>) {
        let Some(tail) = self.0.get_mut(&(job_id.clone(), stream)) else { return };
        if piece.attempt > tail.attempt {
            *tail = Tail { attempt: piece.attempt, start: piece.offset, ..Tail::default() };
        }
        let next = tail.start + tail.kept.len() as u64;
        if piece.attempt < tail.attempt || piece.offset + (piece.bytes.len() as u64) < next {
            return;
        }
        match piece.offset.checked_sub(next) {
            None => tail.kept.extend(&piece.bytes[usize::try_from(next - piece.offset).unwrap_or(0)..]),
            Some(0) => tail.kept.extend(piece.bytes),
            // The site has lost what lies between.
            Some(_) => {
                tail.start = piece.offset;
                tail.kept = piece.bytes.iter().copied().collect();
            }
        }
        tail.end |= piece.end;
        while tail.kept.len() > KEPT_BYTES_MAX {
            let too_many = tail.kept.len() - KEPT_BYTES_MAX;
            tail.kept.drain(..too_many);
            tail.start += too_many as u64;
        }
    }

    /// What is kept, if it is enough for somebody who begins there; otherwise the site has to go back.
    pub(super) fn from(&self, job_id: &JobId, stream: Stream, place: &Place) -> Option<(u32, u64, Vec<u8>, bool)> {
        let tail = self.0.get(&(job_id.clone(), stream)).filter(|tail| tail.attempt > 0)?;
        let end = tail.start + tail.kept.len() as u64;
        let begin = place.next.unwrap_or(end.saturating_sub(place.back));
        let skipped = usize::try_from(begin.checked_sub(tail.start)?).ok().filter(|skip| *skip <= tail.kept.len())?;
        Some((tail.attempt, begin, tail.kept.iter().skip(skipped).copied().collect(), tail.end))
    }

    /// Somebody looks at a stream.
    pub(super) fn open(&mut self, job_id: &JobId, stream: Stream) {
        if self.0.len() < TAILS_MAX {
            self.0.entry((job_id.clone(), stream)).or_default();
        }
    }

    /// Nobody does any more.
    pub(super) fn close(&mut self, job_id: &JobId, stream: Stream) {
        self.0.remove(&(job_id.clone(), stream));
    }
}

/// Where in a stream somebody is who looks at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The next byte; not known before the first piece has come, for somebody who wants the end of a stream.
    pub(super) next: Option<u64>,
    /// How much of the end is wanted.
    back: u64,
    /// The beginning of a character whose end is still to come.
    partial: Vec<u8>,
    /// All of this attempt was given.
    pub(super) end: bool,
}

impl Place {
    fn new(from: i64) -> Self {
        match u64::try_from(from) {
            Ok(next) => Self { next: Some(next), ..Self::default() },
            Err(_) => Self { back: from.unsigned_abs(), ..Self::default() },
        }
    }

    /// As a site is asked.
    pub(super) fn wanted(&self) -> i64 {
        let back = || -i64::try_from(self.back).unwrap_or(i64::MAX);
        self.next.map_or_else(back, |next| i64::try_from(next).unwrap_or(i64::MAX))
    }
}

/// Somebody who looks at what a job prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reader {
    pub(super) streams: Vec<Stream>,
    /// The attempt whose output it gets; 0 before the first piece.
    pub(super) attempt: u32,
    /// Its places, by [`index`].
    pub(super) places: [Place; 2],
}

/// The place of a stream among those of a reader.
pub(super) fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

impl Reader {
    pub(super) fn new(stream: Option<Stream>, from: From) -> Self {
        let streams = stream.map_or_else(|| Stream::ALL.to_vec(), |stream| vec![stream]);
        let (attempt, places) = match from {
            From::Offset(from) => (0, [Place::new(from), Place::new(from)]),
            From::Resumed { attempt, next } => (attempt, next.map(Place::new)),
        };
        Self { streams, attempt, places }
    }

    pub(super) fn place(&self, stream: Stream) -> &Place {
        &self.places[index(stream)]
    }

    /// Has it had all of this attempt?
    pub(super) fn is_through(&self) -> bool {
        self.streams.iter().all(|stream| self.place(*stream).end)
    }

    /// What of a piece is new to it.
    pub(super) fn take(&mut self, stream: Stream, piece: Bytes<'_>) -> Option<LogEvent> {
        if !self.streams.contains(&stream) || piece.attempt < self.attempt {
            return None;
        }
        if piece.attempt > self.attempt {
            if self.attempt > 0 {
                // Each attempt begins anew.
                self.places = [Place::new(0), Place::new(0)];
            }
            self.attempt = piece.attempt;
        }
        let attempt = self.attempt;
        let place = &mut self.places[index(stream)];
        let next = place.next.unwrap_or(piece.offset);
        let had = usize::try_from(next.saturating_sub(piece.offset)).unwrap_or(usize::MAX);
        let (mut offset, new) = match piece.bytes.get(had..) {
            Some(new) => (next.max(piece.offset), new),
            None => return None,
        };
        let mut bytes = std::mem::take(&mut place.partial);
        if offset > next {
            // What lies between is lost, and with it the rest of a character.
            bytes.clear();
        }
        offset -= bytes.len() as u64;
        bytes.extend_from_slice(new);
        place.end |= piece.end;
        if !piece.end {
            place.partial = bytes.split_off(bytes.len() - partial_len(&bytes));
        }
        let end = offset + bytes.len() as u64;
        place.next = Some(end + place.partial.len() as u64);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (!text.is_empty()).then_some(LogEvent { attempt, stream, offset, next: end, text })
    }

    /// The id of an event: where to go on after it ([`From::Resumed`]). A stream of which nothing has come begins where
    /// it was to begin.
    pub(super) fn event_id(&self) -> String {
        let [out, err] = Stream::ALL.map(|stream| match self.place(stream) {
            _ if !self.streams.contains(&stream) => 0,
            place => place.wanted() - place.partial.len() as i64,
        });
        format!("{}.{out}.{err}", self.attempt)
    }
}

/// How many bytes at the end are the beginning of a character.
fn partial_len(bytes: &[u8]) -> usize {
    let begin = bytes.len().saturating_sub(4);
    let tail = &bytes[begin..];
    // The last byte that can begin a character of several bytes.
    let Some(lead) = tail.iter().rposition(|byte| *byte >= 0xc0) else { return 0 };
    let wanted = match tail[lead] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return 0,
    };
    let rest = &tail[lead..];
    let goes_on = rest[1..].iter().all(|byte| (0x80..0xc0).contains(byte));
    if goes_on && rest.len() < wanted { rest.len() } else { 0 }
}

/// The bytes of a piece; none where it is not what it should be.
pub(super) fn decode(piece: &LogPiece) -> Option<Vec<u8>> {
    if piece.offset > OFFSET_MAX {
        return None;
    }
    STANDARD.decode(&piece.data).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(attempt: u32, offset: u64, bytes: &[u8]) -> Bytes<'_> {
        Bytes { attempt, offset, bytes, end: false }
    }

    proptest! {
        #[test]
        fn nobody_gets_a_byte_twice_and_none_is_left_out(
            text in "\\PC{0,60}",
            pieces in prop::collection::vec((any::<prop::sample::Index>(), 0..20_usize), 0..40),
            from in 0..10_u64,
        ) {
            let whole = text.as_bytes();
            let from = from.min(whole.len() as u64);
            let begin = (from..).find(|begin| text.is_char_boundary(*begin as usize)).unwrap();
            let mut reader = Reader::new(Some(Stream::Stdout), From::Offset(begin as i64));
            let mut got = String::new();
            let mut sent = begin as usize;
            for (at, length) in pieces {
                // The site goes back for others, and never forward past what it has sent.
                let offset = at.index(sent + 1);
                let end = (offset + length).min(whole.len());
                if let Some(event) = reader.take(Stream::Stdout, bytes(1, offset as u64, &whole[offset..end])) {
                    prop_assert_eq!(event.offset, begin + got.len() as u64);
                    got.push_str(&event.text);
                    prop_assert_eq!(event.next, begin + got.len() as u64);
                }
                sent = sent.max(end);
            }
            let rest = Bytes { end: true, ..bytes(1, sent as u64, &whole[sent..]) };
            got.extend(reader.take(Stream::Stdout, rest).map(|event| event.text));
            prop_assert_eq!(got.as_str(), &text[begin as usize..]);
            prop_assert!(reader.is_through());
        }

        #[test]
        fn an_end_that_is_half_a_character_is_told_from_rubbish(text in "\\PC{1,4}", cut in any::<prop::sample::Index>()) {
            let end = cut.index(text.len()) + 1;
            let partial = partial_len(&text.as_bytes()[..end]);
            prop_assert!(text.is_char_boundary(end - partial) && partial < 4);
            prop_assert_eq!(partial == 0, text.is_char_boundary(end));
        }
    }

    #[test]
    fn rubbish_is_given_as_it_is() {
        let mut reader = Reader::new(None, From::Offset(0));
        let event = reader.take(Stream::Stderr, bytes(1, 0, b"a\xff\x80\xc3")).unwrap();
        assert_eq!((event.text.as_str(), event.next), ("a\u{fffd}\u{fffd}", 3));
        assert_eq!(reader.event_id(), "1.0.3");
        let mut end = Reader::new(None, From::Offset(-10));
        end.take(Stream::Stderr, bytes(1, 90, b"abc")).unwrap();
        assert_eq!(end.event_id(), "1.-10.93", "what was not seen is not begun anew");
        let event = reader.take(Stream::Stderr, bytes(1, 4, b"x")).unwrap();
        assert_eq!((event.text.as_str(), event.offset, event.next), ("\u{fffd}x", 3, 5));
    }

    #[test]
    fn a_new_attempt_begins_anew_and_an_old_one_is_over() {
        let mut reader = Reader::new(Some(Stream::Stdout), From::Offset(-10));
        assert_eq!(reader.place(Stream::Stdout).wanted(), -10);
        assert_eq!(reader.take(Stream::Stdout, bytes(1, 90, b"0123456789")).unwrap().offset, 90);
        assert_eq!(
            reader.take(Stream::Stdout, bytes(2, 5, b"5")).unwrap().offset,
            5,
            "what was lost is not waited for"
        );
        assert_eq!(reader.take(Stream::Stdout, bytes(1, 100, b"late")), None);
    }

    #[test]
    fn who_comes_later_gets_what_is_kept() {
        let id: JobId = "j".parse().unwrap();
        let mut tails = Tails::default();
        let from = |tails: &Tails, place: &Place| {
            let found = tails.from(&id, Stream::Stdout, place);
            found.map(|(_, begin, bytes, _)| (begin, String::from_utf8(bytes).unwrap()))
        };
        assert_eq!(from(&tails, &Place::new(0)), None);
        tails.open(&id, Stream::Stdout);
        assert_eq!(from(&tails, &Place::new(0)), None);
        tails.keep(&id, Stream::Stdout, bytes(1, 10, b"abcdef"));
        tails.keep(&id, Stream::Stdout, bytes(1, 13, b"defgh"));
        tails.keep(&id, Stream::Stdout, bytes(1, 11, b"bc"));
        assert_eq!(from(&tails, &Place::new(12)), Some((12, "cdefgh".to_owned())));
        assert_eq!(from(&tails, &Place::new(-2)), Some((16, "gh".to_owned())));
        assert_eq!(from(&tails, &Place::new(18)), Some((18, String::new())));
        assert_eq!(from(&tails, &Place::new(9)), None, "the site has to go back");
        assert_eq!(from(&tails, &Place::new(-100)), None);
        tails.keep(&id, Stream::Stdout, bytes(1, 30, b"x"));
        assert_eq!(from(&tails, &Place::new(30)), Some((30, "x".to_owned())));
        tails.keep(&id, Stream::Stdout, bytes(1, 31, &vec![b'y'; 2 * KEPT_BYTES_MAX]));
        assert_eq!(tails.0.values().next().unwrap().kept.len(), KEPT_BYTES_MAX);
        tails.keep(&id, Stream::Stdout, bytes(2, 0, b"new"));
        assert_eq!(from(&tails, &Place::new(-100)), Some((0, "new".to_owned())));
        tails.close(&id, Stream::Stdout);
        assert!(tails.0.is_empty());
    }
}
