//! A connection between daemon and keeper: JSON values, one a line, both ways.
//!
//! Sending never waits. All messages that wait go out in one write, and all that have come are taken at once: more than
//! a thousand short runs a second pass here.

use std::io;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;

/// The longest first line: anyone can connect, and must not fill our memory.
const FIRST_LINE_MAX: usize = 64 * 1024;

/// The longest line of all: a list of very many runs.
const LINE_MAX: usize = 1024 * 1024 * 1024;

/// How many messages go out in one write.
const MESSAGES_MAX: usize = 1_024;

/// Where messages go out. When it and all its clones are dropped, what waits is sent, and the connection ends.
#[derive(Debug)]
pub(super) struct Outbox<T>(mpsc::UnboundedSender<T>);

/// Where messages come in.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    stream: OwnedReadHalf,
    bytes: Vec<u8>,
    /// The longest line that is waited for.
    line_max: usize,
    kind: PhantomData<fn() -> T>,
}

/// Makes a link of a connection. The task sends what goes out.
pub(super) fn open<Out, In>(stream: UnixStream) -> (Outbox<Out>, Inbox<In>, JoinHandle<()>)
where
    Out: Serialize + Send + 'static,
{
    let (incoming, outgoing) = stream.into_split();
    let (sender, queue) = mpsc::unbounded_channel();
    let task = tokio::spawn(send_all(queue, outgoing));
    (Outbox(sender), Inbox { stream: incoming, bytes: Vec::new(), line_max: FIRST_LINE_MAX, kind: PhantomData }, task)
}

/// Is the other side a process of this user? Anyone on the machine can connect to an abstract name, or take it.
pub(super) fn is_ours(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}

/// Appends a value as a line.
pub(super) fn push_line<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(&mut *bytes, value).expect("it holds only strings, numbers and lists, and memory takes it");
    bytes.push(b'\n');
}

impl<T> Outbox<T> {
    /// Sends a message. That the other side has gone is learned where messages come in.
    pub(super) fn send(&self, message: T) {
        let _ = self.0.send(message);
    }
}

async fn send_all<T: Serialize>(mut queue: mpsc::UnboundedReceiver<T>, mut stream: OwnedWriteHalf) {
    let mut messages = Vec::new();
    while queue.recv_many(&mut messages, MESSAGES_MAX).await > 0 {
        let mut bytes = Vec::new();
        for message in messages.drain(..) {
            push_line(&mut bytes, &message);
        }
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

impl<T: DeserializeOwned> Inbox<T> {
    /// From now on the other side is trusted.
    pub(super) fn trust(&mut self) {
        self.line_max = LINE_MAX;
    }

    /// All messages that have come, or none when the other side has gone. Nothing is lost when this is not awaited to
    /// its end.
    pub(super) async fn next(&mut self) -> io::Result<Vec<T>> {
        loop {
            self.bytes.reserve(READ_BYTES);
            let count = self.stream.read_buf(&mut self.bytes).await?;
            if count == 0 {
                return Ok(Vec::new());
            }
            let fresh = self.bytes.len() - count;
            let Some(last) = self.bytes[fresh..].iter().rposition(|byte| *byte == b'\n') else {
                if self.bytes.len() > self.line_max {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "what it says does not end"));
                }
                continue;
            };
            let end = fresh + last + 1;
            let messages = parse(&self.bytes[..end])?;
            self.bytes.drain(..end);
            self.bytes.shrink_to(2 * READ_BYTES);
            if !messages.is_empty() {
                return Ok(messages);
            }
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<Vec<T>> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(io::Error::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stranger_cannot_fill_our_memory() {
        let (mut left, right) = UnixStream::pair().unwrap();
        let (outbox, mut inbox, _) = open::<(), String>(right);
        let flood = tokio::spawn(async move { left.write_all(&vec![b'x'; 10 * FIRST_LINE_MAX]).await });
        assert!(inbox.next().await.is_err());
        assert!(inbox.bytes.len() < 4 * FIRST_LINE_MAX, "{}", inbox.bytes.len());
        drop((inbox, outbox));
        assert!(flood.await.unwrap().is_err(), "it was not read to its end");
    }

    #[tokio::test]
    async fn messages_arrive_whole_and_in_order_however_they_are_cut() {
        let (left, right) = UnixStream::pair().unwrap();
        assert!(is_ours(&left));
        let (outbox, _, _) = open::<String, ()>(left);
        let (_, mut inbox, _) = open::<(), String>(right);
        inbox.trust();
        let sent: Vec<String> = (0..300).map(|number| format!("{number}\n").repeat(1 + number * 7)).collect();
        for message in &sent {
            outbox.send(message.clone());
        }
        drop(outbox);
        let mut received = Vec::new();
        loop {
            let messages = inbox.next().await.unwrap();
            if messages.is_empty() {
                break;
            }
            received.extend(messages);
        }
        assert_eq!(received, sent);
    }
}
