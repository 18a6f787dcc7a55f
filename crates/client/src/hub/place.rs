//! Where a reader of what a job prints is, so that no byte comes twice and none is lost, however often the connection
//! breaks.
//!
//! Out of scope: connections.

use protocol::hub::LogEvent;
use protocol::link::Stream;

/// An attempt, and the next byte of each of its streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    attempt: u32,
    next: [Option<u64>; 2],
}

/// What is to be done with a piece.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Another attempt has begun before it.
    pub(super) begins: Option<u32>,
    /// So many bytes before it are not there.
    pub(super) left_out: u64,
    /// What is new of it.
    pub(super) text: String,
}

impl Place {
    /// Takes a piece that comes next, or again.
    pub(super) fn take(&mut self, event: LogEvent) -> Taken {
        let nothing = Taken::default();
        let LogEvent { attempt, stream, offset, next, text } = event;
        if attempt < self.attempt || next < offset {
            return nothing;
        }
        let mut begins = None;
        if attempt > self.attempt {
            // Of the first one that is seen, what was printed before is asked for by where to begin.
            if self.attempt > 0 {
                begins = Some(attempt);
                self.next = [Some(0); 2];
            }
            self.attempt = attempt;
        }
        let place = &mut self.next[index(stream)];
        let here = place.unwrap_or(0);
        if next <= here && place.is_some() {
            return Taken { begins, ..nothing };
        }
        *place = Some(next);
        let text = if offset < here { end_of(&text, next - here) } else { text };
        Taken { begins, left_out: offset.saturating_sub(here), text }
    }

    /// The next byte of a stream, once that is known.
    pub(super) fn next(&self, stream: Stream) -> Option<u64> {
        self.next[index(stream)]
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// The last bytes of a text. What stands for a byte that was no character counts as the one byte that it mostly is.
fn end_of(text: &str, bytes: u64) -> String {
    let mut rest = bytes;
    let mut begin = text.len();
    for (at, c) in text.char_indices().rev() {
        let length = if c == char::REPLACEMENT_CHARACTER { 1 } else { c.len_utf8() as u64 };
        if length > rest {
            break;
        }
        rest -= length;
        begin = at;
    }
    text[begin..].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(attempt: u32, offset: u64, text: &str) -> LogEvent {
        let next = offset + text.len() as u64;
        LogEvent { attempt, stream: Stream::Stdout, offset, next, text: text.to_owned() }
    }

    fn taken(begins: Option<u32>, left_out: u64, text: &str) -> Taken {
        Taken { begins, left_out, text: text.to_owned() }
    }

    #[test]
    fn pieces_that_come_again_or_late_are_told_from_new_ones() {
        let mut place = Place::default();
        assert_eq!(place.take(event(1, 10, "abc")), taken(None, 10, "abc"), "it begins somewhere");
        assert_eq!(place.next(Stream::Stdout), Some(13));
        assert_eq!(place.next(Stream::Stderr), None);
        assert_eq!(place.take(event(1, 10, "abc")), taken(None, 0, ""));
        assert_eq!(place.take(event(1, 12, "cd")), taken(None, 0, "d"));
        assert_eq!(place.take(event(1, 20, "e")), taken(None, 6, "e"), "what nobody has any more is told");
        assert_eq!(place.take(event(2, 0, "anew")), taken(Some(2), 0, "anew"));
        assert_eq!(place.take(event(1, 21, "late")), taken(None, 0, ""));
        assert_eq!(place.take(event(3, 4, "x")), taken(Some(3), 4, "x"));
        let mut lie = event(3, 9, "x");
        lie.next = 1;
        assert_eq!(place.take(lie), taken(None, 0, ""));
        let mut err = event(3, 0, "err");
        err.stream = Stream::Stderr;
        assert_eq!(place.take(err), taken(None, 0, "err"));
    }

    #[test]
    fn an_overlap_within_a_text_with_bytes_that_are_none_is_cut() {
        assert_eq!(end_of("aéb", 1), "b");
        assert_eq!(end_of("aéb", 2), "b", "no half of a character");
        assert_eq!(end_of("aéb", 3), "éb");
        assert_eq!(end_of("a\u{fffd}b", 2), "\u{fffd}b");
        assert_eq!(end_of("ab", 9), "ab");
    }

    proptest! {
        /// A server that begins again, now and then, anywhere before the place where the reader is.
        #[test]
        fn no_byte_comes_twice_and_none_is_lost(
            printed in "[a-z\n]{0,200}",
            steps in proptest::collection::vec((1_usize..30, proptest::option::of(0_usize..50)), 0..40),
        ) {
            let mut place = Place::default();
            let mut out = String::new();
            let mut at = 0;
            for (length, back) in steps.into_iter().chain([(usize::MAX, None)]) {
                if let Some(back) = back {
                    at = out.len().saturating_sub(back);
                }
                let end = at.saturating_add(length).min(printed.len());
                let taken = place.take(event(1, at as u64, &printed[at..end]));
                prop_assert_eq!((taken.begins, taken.left_out), (None, 0));
                out.push_str(&taken.text);
                at = end;
            }
            prop_assert_eq!(out, printed);
        }
    }
}
