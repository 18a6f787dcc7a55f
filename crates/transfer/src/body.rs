//! A part of a file as the body of a request: chunks that a thread reads.
//!
//! Invariant: it ends with an error unless all of its bytes came, so that no store takes a part of a part for the
//! whole.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::error::Error;

/// Chunks on their way from the thread that reads to the connection that sends. A server that answers before it has
/// read all may leave the connection as it is, with the body: so whoever has asked can end the chunks.
#[derive(Clone)]
pub(crate) struct Chunks(Arc<Mutex<Option<Receiver>>>);

type Receiver = mpsc::Receiver<Result<Bytes, Error>>;

impl Chunks {
    pub(crate) fn new(chunks: Receiver) -> Self {
        Self(Arc::new(Mutex::new(Some(chunks))))
    }

    /// The thread that reads has nobody to read for any more.
    pub(crate) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(chunks) => chunks.poll_recv(cx),
            None => Poll::Ready(None),
        }
    }
}

/// The body.
pub(crate) struct FileBody {
    chunks: Chunks,
    left: u64,
    sent: Arc<AtomicU64>,
}

impl FileBody {
    /// So many bytes, in these chunks. `sent` counts those that were taken.
    pub(crate) fn new(chunks: Chunks, length: u64, sent: Arc<AtomicU64>) -> Self {
        Self { chunks, left: length, sent }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match ready!(self.chunks.poll(cx)) {
            Some(Ok(chunk)) => {
                let length = chunk.len() as u64;
                self.left = self.left.saturating_sub(length);
                self.sent.fetch_add(length, Ordering::Relaxed);
                Ok(Frame::data(chunk))
            }
            Some(Err(error)) => Err(error.into()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
