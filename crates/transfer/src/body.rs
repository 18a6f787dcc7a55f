//! A part of a file as the body of a request: chunks that a thread reads.
//!
//! Invariant: it ends with an error unless all of its bytes came, so that no store takes a part of a part for the whole.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::error::Error;

/// The body.
pub(crate) struct FileBody {
    chunks: mpsc::Receiver<Result<Bytes, Error>>,
    left: u64,
    sent: Arc<AtomicU64>,
}

impl FileBody {
    /// So many bytes, in these chunks. `sent` counts those that were taken.
    pub(crate) fn new(chunks: mpsc::Receiver<Result<Bytes, Error>>, length: u64, sent: Arc<AtomicU64>) -> Self {
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
        Poll::Ready(Some(match ready!(self.chunks.poll_recv(cx)) {
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
