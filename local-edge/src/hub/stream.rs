//! A stream on its way to somebody who listens: as much of it waits as is allowed, and no more.
//!
//! What waits is counted in bytes, of each stream and of all: a thousand who do not read cost no more than the bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

/// So much of one stream waits at the most. A piece is smaller, and one may always wait.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// So much of all.
const ALL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What waits of all streams.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting(Arc<AtomicUsize>);

/// Where pieces are put in.
pub(super) struct Sender {
    pieces: mpsc::UnboundedSender<Counted>,
    waiting: Waiting,
    of_all: Waiting,
}

/// Where they come out.
pub(crate) struct Receiver(mpsc::UnboundedReceiver<Counted>);

/// A piece that waits, and is counted for as long as it does, wherever it ends.
struct Counted {
    piece: Arc<str>,
    counts: [Waiting; 2],
}

impl Drop for Counted {
    fn drop(&mut self) {
        for Waiting(count) in &self.counts {
            count.fetch_sub(self.piece.len(), Ordering::Relaxed);
        }
    }
}

/// A stream.
pub(super) fn stream(of_all: &Waiting) -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Sender { pieces: sender, waiting: Waiting::default(), of_all: of_all.clone() }, Receiver(receiver))
}

impl Sender {
    /// Puts a piece in. False: who listens has gone, or takes no more, and is to be cut off.
    pub(super) fn send(&self, piece: Arc<str>) -> bool {
        let bytes = piece.len();
        let counts = [self.waiting.clone(), self.of_all.clone()];
        let [waits, of_all] = counts.each_ref().map(|Waiting(count)| count.fetch_add(bytes, Ordering::Relaxed));
        let counted = Counted { piece, counts };
        let has_room = waits == 0 || (waits + bytes <= BYTES_MAX && of_all + bytes <= ALL_BYTES_MAX);
        has_room && self.pieces.send(counted).is_ok()
    }
}

impl Receiver {
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Arc<str>>> {
        self.0.poll_recv(context).map(|counted| counted.map(|counted| counted.piece.clone()))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;

    use super::*;

    fn next(receiver: &mut Receiver) -> Option<Arc<str>> {
        match receiver.poll_next(&mut Context::from_waker(noop_waker_ref())) {
            Poll::Ready(piece) => piece,
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_does_not_read_is_cut_off_and_costs_no_more_than_the_bound() {
        let of_all = Waiting::default();
        let piece: Arc<str> = "x".repeat(1_000_000).into();
        let (sender, mut receiver) = stream(&of_all);
        let sent = (0..100).take_while(|_| sender.send(piece.clone())).count();
        assert_eq!(sent, 8);
        assert_eq!(next(&mut receiver), Some(piece.clone()));
        drop(receiver);
        assert_eq!(of_all.0.load(Ordering::Relaxed), 0, "nothing waits any more");
        assert!(!sender.send(piece.clone()) && of_all.0.load(Ordering::Relaxed) == 0, "nobody listens");

        let of_all = Waiting::default();
        let many: Vec<_> = (0..40).map(|_| stream(&of_all)).collect();
        let first = many.iter().all(|(sender, _)| sender.send(piece.clone()));
        let second = many.iter().filter(|(sender, _)| sender.send(piece.clone())).count();
        assert!(first && (24..=27).contains(&second), "a first piece always, more as long as there is room: {second}");
        let large: Arc<str> = "x".repeat(2 * BYTES_MAX).into();
        let (sender, mut receiver) = stream(&Waiting::default());
        assert!(sender.send(large.clone()) && next(&mut receiver) == Some(large), "one may always wait");
    }
}
