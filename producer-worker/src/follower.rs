//! One who waits for an answer of the hub, or reads a stream of it.
//!
//! Both ends share what lies between them. The follower's own future holds its time limit, so that nothing keeps the
//! object awake when nobody waits any more; and what lies there is bounded: who does not read is cut off. A piece that
//! is for many is there once, and of all it is counted once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::Stream;
use worker::{Delay, Result};

/// How much waits for one who does not read, in bytes. It is cut off then, and can go on where it was.
const BYTES_MAX: usize = 512 * 1024;

/// How much waits for all of them, in bytes: an object has 128 MB of memory in all.
const ALL_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The end of the hub.
#[derive(Clone)]
pub(crate) struct Outlet(Rc<RefCell<Between>>);

/// The end of the follower.
pub(crate) struct Inlet(Rc<RefCell<Between>>);

/// How an answer begins.
pub(crate) enum Reply {
    Answer(edge::Response),
    Stream,
}

/// What comes to a follower.
pub(crate) enum Next<T> {
    Is(T),
    TimedOut,
    Ended,
}

/// What waits of all of them.
#[derive(Default)]
pub(crate) struct All {
    bytes: Cell<usize>,
    /// The piece that came last: who else it is for is told next.
    last: RefCell<Weak<Shared>>,
}

/// A piece that waits for one or for many, and is counted for as long as it does.
struct Shared {
    piece: Arc<str>,
    all: Rc<All>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.all.bytes.set(self.all.bytes.get() - self.piece.len());
    }
}

impl All {
    fn share(self: &Rc<Self>, piece: Arc<str>) -> Rc<Shared> {
        let last = self.last.borrow().upgrade();
        last.filter(|last| Arc::ptr_eq(&last.piece, &piece)).unwrap_or_else(|| {
            self.bytes.set(self.bytes.get() + piece.len());
            let shared = Rc::new(Shared { piece, all: Rc::clone(self) });
            *self.last.borrow_mut() = Rc::downgrade(&shared);
            shared
        })
    }
}

#[derive(Default)]
struct Between {
    reply: Option<Reply>,
    pieces: VecDeque<Rc<Shared>>,
    bytes: usize,
    /// Nothing more comes.
    ended: bool,
    /// Nobody listens.
    gone: bool,
    delay: Option<Delay>,
    waker: Option<Waker>,
    all: Rc<All>,
}

impl Outlet {
    pub(crate) fn new(all: &Rc<All>) -> Self {
        Self(Rc::new(RefCell::new(Between { all: Rc::clone(all), ..Between::default() })))
    }

    pub(crate) fn inlet(&self) -> Inlet {
        Inlet(Rc::clone(&self.0))
    }

    pub(crate) fn reply(&self, reply: Reply) {
        self.change(|between| between.reply = Some(reply));
    }

    /// Sends a piece. `false`: it was one too many, and the follower is cut off.
    pub(crate) fn send(&self, piece: Arc<str>) -> bool {
        self.change(|between| {
            // One who has read all can take a piece of any size.
            let fits = between.bytes == 0 || between.bytes + piece.len() <= BYTES_MAX;
            let piece = between.all.share(piece);
            let fits = fits && between.all.bytes.get() <= ALL_BYTES_MAX;
            if fits {
                between.bytes += piece.piece.len();
                between.pieces.push_back(piece);
            } else {
                between.discard();
                between.ended = true;
            }
            fits
        })
    }

    pub(crate) fn end(&self) {
        self.change(|between| between.ended = true);
    }

    pub(crate) fn wait(&self, duration: Duration) {
        self.change(|between| between.delay = Some(Delay::from(duration)));
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.0.borrow().gone
    }

    fn change<T>(&self, change: impl FnOnce(&mut Between) -> T) -> T {
        let mut between = self.0.borrow_mut();
        let value = change(&mut between);
        let waker = between.waker.take();
        drop(between);
        waker.into_iter().for_each(Waker::wake);
        value
    }
}

impl Between {
    fn discard(&mut self) {
        self.pieces.clear();
        self.bytes = 0;
    }

    fn poll<T>(&mut self, context: &mut Context<'_>, take: impl FnOnce(&mut Self) -> Option<T>) -> Poll<Next<T>> {
        if let Some(taken) = take(self) {
            return Poll::Ready(Next::Is(taken));
        }
        if self.ended {
            return Poll::Ready(Next::Ended);
        }
        if let Some(delay) = &mut self.delay
            && Pin::new(delay).poll(context).is_ready()
        {
            self.delay = None;
            return Poll::Ready(Next::TimedOut);
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Inlet {
    pub(crate) async fn reply(&self) -> Next<Reply> {
        poll_fn(|context| self.0.borrow_mut().poll(context, |between| between.reply.take())).await
    }

    /// What comes after [`Reply::Stream`]. `timed_out` is called when it is time.
    pub(crate) fn pieces(self, timed_out: impl Fn() + 'static) -> Pieces {
        Pieces { inlet: self, timed_out: Box::new(timed_out) }
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        let mut between = self.0.borrow_mut();
        between.gone = true;
        between.discard();
        between.delay = None;
    }
}

/// The body of a stream.
pub(crate) struct Pieces {
    inlet: Inlet,
    timed_out: Box<dyn Fn()>,
}

impl Stream for Pieces {
    type Item = Result<Vec<u8>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let next = self.inlet.0.borrow_mut().poll(context, |between| {
                let piece = between.pieces.pop_front()?;
                between.bytes -= piece.piece.len();
                Some(piece)
            });
            match next {
                Poll::Ready(Next::Is(piece)) => return Poll::Ready(Some(Ok(piece.piece.as_bytes().to_vec()))),
                Poll::Ready(Next::Ended) => return Poll::Ready(None),
                // With nothing borrowed: what comes of it may be a piece for this very stream.
                Poll::Ready(Next::TimedOut) => (self.timed_out)(),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
