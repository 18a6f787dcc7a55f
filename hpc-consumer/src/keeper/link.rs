//! A connection between daemon and keeper: JSON values, one a line, both ways.
//!
//! A message that cannot be read is passed over and loses only itself: the other side may be newer. Sending never
//! waits. All messages that wait go out in one write, and all that have come are taken at once: more than a thousand
//! short runs a second pass here.

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::messages::Message;
use crate::run;

/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;

/// The longest first line: who has connected is not known yet, and must not fill our memory.
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
    stream: Box<dyn Incoming>,
    bytes: Vec<u8>,
    /// Did the other side show that it is the one that we want to speak to?
    trusted: bool,
    /// Was it said that messages were passed over?
    said: bool,
    kind: PhantomData<fn() -> T>,
}

/// What bytes come from.
trait Incoming: AsyncRead + Debug + Send + Unpin {}

impl<T: AsyncRead + Debug + Send + Unpin> Incoming for T {}

/// Makes a link of a connection. The task sends what goes out.
pub(super) fn open<Out, In>(
    stream: impl AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static,
) -> (Outbox<Out>, Inbox<In>, JoinHandle<()>)
where
    Out: Serialize + Send + 'static,
{
    let (incoming, outgoing) = tokio::io::split(stream);
    let (sender, queue) = mpsc::unbounded_channel();
    let task = tokio::spawn(send_all(queue, outgoing));
    let stream = Box::new(incoming);
    let inbox = Inbox { stream, bytes: Vec::new(), trusted: false, said: false, kind: PhantomData };
    (Outbox(sender), inbox, task)
}

/// Is the other side a process of this user? Anyone on the machine can connect to an abstract name, or take it, where
/// there is no other kind of socket.
pub(super) fn is_ours(stream: &UnixStream) -> bool {
    uid(stream).is_some_and(|uid| uid == rustix::process::geteuid().as_raw())
}

/// Was the other side a process of a run when it connected? Without a container such a one can read what the daemon
/// says to be heard. A number of 0 is that of a process in another namespace, which is no run's.
pub(super) fn is_of_a_run(stream: &UnixStream) -> bool {
    match stream.peer_cred().ok().and_then(|peer| peer.pid()) {
        Some(pid) => pid != 0 && run::descends_from_us(pid),
        None => true,
    }
}

/// Whose process the other side is, as the system says.
pub(super) fn uid(stream: &UnixStream) -> Option<u32> {
    stream.peer_cred().ok().map(|peer| peer.uid())
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

async fn send_all<T: Serialize>(mut queue: mpsc::UnboundedReceiver<T>, mut stream: impl AsyncWrite + Unpin) {
    let mut messages = Vec::new();
    while queue.recv_many(&mut messages, MESSAGES_MAX).await > 0 {
        let mut bytes = Vec::new();
        for message in messages.drain(..) {
            push_line(&mut bytes, &message);
        }
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
    // The other half holds the connection as well.
    let _ = stream.shutdown().await;
}

impl<T: Message> Inbox<T> {
    /// From now on the other side is trusted.
    pub(super) fn trust(&mut self) {
        self.trusted = true;
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
                if self.bytes.len() > if self.trusted { LINE_MAX } else { FIRST_LINE_MAX } {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "what it says does not end"));
                }
                continue;
            };
            let end = fresh + last + 1;
            let Lines { messages, passed_over } = Lines::read(&self.bytes[..end]);
            self.bytes.drain(..end);
            self.bytes.shrink_to(2 * READ_BYTES);
            if let Some(error) = passed_over {
                // A stranger is not listened to any longer than it takes to see that it is one.
                if !self.trusted {
                    return Err(error.into());
                }
                if !std::mem::replace(&mut self.said, true) {
                    tracing::warn!("messages that this program does not understand are passed over: {error}");
                }
            }
            if !messages.is_empty() {
                return Ok(messages);
            }
        }
    }
}

/// What whole lines say.
pub(super) struct Lines<T> {
    pub(super) messages: Vec<T>,
    /// Why the first of those that cannot be read cannot be.
    passed_over: Option<serde_json::Error>,
}

impl<T: Message> Lines<T> {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut lines = Self { messages: Vec::new(), passed_over: None };
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(message) => lines.messages.push(message),
                Err(error) => match T::of_unread(line, &error) {
                    Some(message) => lines.messages.push(message),
                    None => drop(lines.passed_over.get_or_insert(error)),
                },
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use lifecycle::EndReason;

    use super::*;
    use crate::keeper::finished::Why;
    use crate::keeper::messages::{FromKeeper, ToKeeper};

    impl Message for String {}
    impl Message for () {}

    #[tokio::test]
    async fn what_cannot_be_read_is_passed_over_once_the_other_side_is_known() {
        for trusted in [false, true] {
            let (mut left, right) = UnixStream::pair().unwrap();
            let (_outbox, mut inbox, _) = open::<(), ToKeeper>(right);
            inbox.trusted = trusted;
            left.write_all(b"{\"rewind\":{\"run\":\"j1.1\"}}\n\xff\n\n\"list\"\n").await.unwrap();
            let heard = inbox.next().await;
            if trusted { assert_eq!(heard.unwrap(), [ToKeeper::List]) } else { assert!(heard.is_err()) }
        }
    }

    #[test]
    fn a_run_to_begin_that_is_not_understood_is_answered() {
        let line = b"{\"start\":{\"run\":\"j1.1\",\"words\":[],\"runtime\":\"podman\"}}\n";
        let Lines { messages, passed_over } = Lines::<ToKeeper>::read(line);
        let [ToKeeper::Unread { run, why }] = messages.as_slice() else { panic!("{messages:?}") };
        assert!(run == "j1.1" && why.contains("does not understand") && passed_over.is_none(), "{why}");
        assert!(Lines::<ToKeeper>::read(b"{\"start\":7}\n").messages.is_empty());
    }

    /// Lines that a keeper understands, and those that it does not, each as bytes without a line break.
    fn lines() -> impl Strategy<Value = Vec<(Option<ToKeeper>, Vec<u8>)>> {
        let run = "[a-z0-9.]{0,8}";
        let message = prop_oneof![
            Just(ToKeeper::List),
            run.prop_map(|run| ToKeeper::End { run, why: Why(EndReason::NotHeld) }),
            proptest::collection::vec(run, 0..4).prop_map(|runs| ToKeeper::Forget { runs }),
        ];
        let known = message.prop_map(|message| {
            let text = serde_json::to_vec(&message).unwrap();
            (Some(message), text)
        });
        let garbage = proptest::collection::vec(any::<u8>(), 0..64).prop_map(|mut bytes| {
            // None of ours begins like this.
            bytes.insert(0, b'#');
            bytes.retain(|byte| *byte != b'\n');
            (None, bytes)
        });
        let torn = (any::<prop::sample::Index>(), run).prop_map(|(at, run)| {
            let mut text = serde_json::to_vec(&ToKeeper::End { run, why: Why::default() }).unwrap();
            text.truncate(at.index(text.len()));
            (None, text)
        });
        proptest::collection::vec(prop_oneof![known, garbage, torn], 0..20)
    }

    proptest! {
        #[test]
        fn garbage_loses_only_itself(lines in lines()) {
            let bytes: Vec<u8> = lines.iter().flat_map(|(_, line)| [line, b"\n".as_slice()].concat()).collect();
            let expected: Vec<&ToKeeper> = lines.iter().filter_map(|(message, _)| message.as_ref()).collect();
            let read = Lines::<ToKeeper>::read(&bytes).messages;
            prop_assert_eq!(read.iter().collect::<Vec<_>>(), expected);
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            drop((Lines::<ToKeeper>::read(&bytes), Lines::<FromKeeper>::read(&bytes)));
        }
    }

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
