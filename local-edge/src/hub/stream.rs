//! A stream on its way to somebody who listens: as much of it waits as is allowed, and no more.
//!
//! What waits is counted in bytes, of each stream and of all: a thousand who do not read cost no more than the bound. A
//! piece that is for many is there once, and of all it is counted once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use axum::body::Bytes;
use tokio::sync::mpsc;

/// So much of one stream waits at the most. A piece is smaller, and one may always wait.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// So much of all.
const ALL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How much waits, in bytes.
#[derive(Debug, Clone, Default)]
struct Waiting(Arc<AtomicUsize>);

/// What waits of all streams.
#[derive(Debug, Default)]
pub(super) struct All {
    waiting: Waiting,
    /// The piece that came last: who else it is for is told next.
    last: Weak<Shared>,
}

/// Where pieces are put in.
pub(super) struct Sender {
    pieces: mpsc::UnboundedSender<Counted>,
    waiting: Waiting,
}

/// Where they come out.
pub(crate) struct Receiver(mpsc::UnboundedReceiver<Counted>);

/// A piece that waits for one or for many, and is counted for as long as it does, wherever it ends.
struct Shared {
    piece: Arc<str>,
    of_all: Waiting,
}

/// The same, for one of them.
struct Counted {
    shared: Arc<Shared>,
    of_stream: Waiting,
}

impl Waiting {
    /// Returns what waits now.
    fn add(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    fn take(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.of_all.take(self.piece.len());
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.of_stream.take(self.shared.piece.len());
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        self.shared.piece.as_bytes()
    }
}

/// A stream.
pub(super) fn stream() -> (Sender, Receiver) {
    let (pieces, receiver) = mpsc::unbounded_channel();
    (Sender { pieces, waiting: Waiting::default() }, Receiver(receiver))
}

impl All {
    fn share(&mut self, piece: Arc<str>) -> Arc<Shared> {
        if let Some(last) = self.last.upgrade().filter(|last| Arc::ptr_eq(&last.piece, &piece)) {
            return last;
        }
        self.waiting.add(piece.len());
        let shared = Arc::new(Shared { piece, of_all: self.waiting.clone() });
        self.last = Arc::downgrade(&shared);
        shared
    }
}

impl Sender {
    /// Puts a piece in. False: who listens has gone, or takes no more, and is to be cut off.
    pub(super) fn send(&self, piece: Arc<str>, all: &mut All) -> bool {
        let bytes = piece.len();
        let shared = all.share(piece);
        let waits = self.waiting.add(bytes);
        let has_room = waits == bytes || (waits <= BYTES_MAX && all.waiting.0.load(Ordering::Relaxed) <= ALL_BYTES_MAX);
        let counted = Counted { shared, of_stream: self.waiting.clone() };
        has_room && self.pieces.send(counted).is_ok()
    }
}

impl Receiver {
    /// The next piece, which counts until it has left.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_recv(context).map(|counted| counted.map(Bytes::from_owner))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;

    use super::*;

    fn next(receiver: &mut Receiver) -> Option<Bytes> {
        match receiver.poll_next(&mut Context::from_waker(noop_waker_ref())) {
            Poll::Ready(piece) => piece,
            Poll::Pending => None,
        }
    }

    fn piece(bytes: usize) -> Arc<str> {
        "x".repeat(bytes).into()
    }

    fn waiting(all: &All) -> usize {
        all.waiting.0.load(Ordering::Relaxed)
    }

    #[test]
    fn who_does_not_read_is_cut_off_and_costs_no_more_than_the_bound() {
        let mut all = All::default();
        let (sender, mut receiver) = stream();
        let sent = (0..100).take_while(|_| sender.send(piece(1_000_000), &mut all)).count();
        assert_eq!(sent, 8);
        let first = next(&mut receiver).unwrap();
        assert_eq!((first.len(), waiting(&all)), (1_000_000, 8_000_000), "it is still on its way");
        drop(first);
        assert_eq!(waiting(&all), 7_000_000);
        drop(receiver);
        assert_eq!(waiting(&all), 0, "nothing waits any more");
        assert!(!sender.send(piece(1), &mut all) && waiting(&all) == 0, "nobody listens");

        let many: Vec<_> = (0..40).map(|_| stream()).collect();
        let first = many.iter().all(|(sender, _)| sender.send(piece(1_000_000), &mut all));
        let second = many.iter().filter(|(sender, _)| sender.send(piece(1_000_000), &mut all)).count();
        assert!(first && (24..=27).contains(&second), "a first piece always, more as long as there is room: {second}");
        let (sender, mut receiver) = stream();
        assert!(sender.send(piece(2 * BYTES_MAX), &mut All::default()), "one may always wait");
        assert_eq!(next(&mut receiver).map(|piece| piece.len()), Some(2 * BYTES_MAX));
    }

    #[test]
    fn what_is_for_a_thousand_waits_once() {
        let mut all = All::default();
        let mut many: Vec<_> = (0..1_000).map(|_| stream()).collect();
        for _ in 0..8 {
            let piece = piece(1_000_000);
            assert!(many.iter().all(|(sender, _)| sender.send(piece.clone(), &mut all)));
        }
        assert_eq!(waiting(&all), 8_000_000);
        let (_, last) = many.last_mut().unwrap();
        while next(last).is_some() {}
        assert_eq!(waiting(&all), 8_000_000, "the others wait for it");
        drop(many);
        assert_eq!(waiting(&all), 0);
    }
}
