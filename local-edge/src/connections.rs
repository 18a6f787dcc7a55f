//! The connections: how many there are, how long one may say nothing, and which one goes when there is no room.
//!
//! Everyone on the machine can connect, and opening a connection costs nothing. So one that does not ask for anything,
//! or asks slowly, is closed after a time, and before that as soon as its place is needed: a new connection always
//! finds one, unless all are at work for somebody who has shown the token or the key.
//!
//! Out of scope: how long a body may take (`http`), what is asked (all else).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::listener::{Listener, Stream};

/// How many there are at most.
const CONNECTIONS_MAX: usize = 1_024;

/// How many files the process has open besides: the store, the log, the reactor.
const DESCRIPTORS_OWN: usize = 64;

/// How long the head of a request may take, and how long a connection may be idle before it. Clients of this project
/// let go of an idle connection before that.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The pause after the system has refused a connection.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Between two times that it is said that there is no room.
const SAID_EVERY: Duration = Duration::from_mins(1);

/// Answers what comes until told to stop, and then until all that has begun is answered.
pub(crate) async fn serve(listener: Listener, router: Router, mut stopping: watch::Receiver<bool>) {
    let connections = Connections::new(room(CONNECTIONS_MAX));
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => if let Some(place) = connections.take(peer) {
                    let (router, stopping) = (router.clone(), stopping.clone());
                    match stream {
                        Stream::Tcp(stream) => open.spawn(converse(stream, place, router, stopping)),
                        Stream::Unix(stream) => open.spawn(converse(stream, place, router, stopping)),
                    };
                },
                // The one that was about to be is gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!("no connection can be accepted; it is tried again: {error}");
                    connections.make_room();
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            },
            Some(_) = open.join_next() => {}
            () = told_to_stop(&mut stopping) => break,
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    // An error is the end of what could have said so.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// One connection, to its end.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: Place,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let answer = TowerToHyperService::new(router);
    let told = place.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(told.clone());
        answer.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    let mut conversation = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let mut stops = false;
    loop {
        tokio::select! {
            ended = conversation.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!("a connection of {} has ended: {error}", place.peer());
                }
                return;
            }
            () = place.is_needed() => return,
            () = told_to_stop(&mut stopping), if !stops => {
                stops = true;
                conversation.as_mut().graceful_shutdown();
            }
        }
    }
}

/// How many connections there may be, for what the process may have open. The limit is raised as far as that takes.
fn room(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = (wanted + DESCRIPTORS_OWN) as u64;
    let Some(before) = limit.current.filter(|current| *current < needed) else { return wanted };
    let raised = needed.min(limit.maximum.unwrap_or(u64::MAX));
    let now = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }) {
        Ok(()) => raised,
        Err(_) => before,
    };
    usize::try_from(now).unwrap_or(wanted).saturating_sub(DESCRIPTORS_OWN).clamp(1, wanted)
}

/// Who is at the other end, as far as one is told from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// Whoever is at this address.
    Address(IpAddr),
    /// A program of ours, or of root: nobody else reaches the socket.
    ThisUser,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => ip.fmt(f),
            Self::ThisUser => f.write_str("this user"),
        }
    }
}

/// All connections.
#[derive(Clone)]
struct Connections(Arc<Mutex<Table>>);

struct Table {
    max: usize,
    next: u64,
    open: BTreeMap<u64, Connection>,
    closed: u64,
    said_at: Option<Instant>,
}

struct Connection {
    peer: Peer,
    /// Since when nothing is done for it; none while something is.
    idle_since: Option<Instant>,
    /// Its place is needed.
    needed: Arc<Notify>,
}

/// The place of a connection among all; with its last clone the connection is gone.
#[derive(Clone)]
pub(crate) struct Place(Arc<Held>);

struct Held {
    connections: Connections,
    number: u64,
    peer: Peer,
    needed: Arc<Notify>,
}

impl Connections {
    fn new(max: usize) -> Self {
        Self(Arc::new(Mutex::new(Table { max, next: 0, open: BTreeMap::new(), closed: 0, said_at: None })))
    }

    /// A place for a new connection. Where there is none, another connection goes, and if all are at work, this one.
    fn take(&self, peer: Peer) -> Option<Place> {
        let mut table = self.lock();
        if table.open.len() >= table.max && !table.make_room() {
            return None;
        }
        let number = table.next;
        table.next += 1;
        let needed = Arc::new(Notify::new());
        let connection = Connection { peer, idle_since: Some(Instant::now()), needed: needed.clone() };
        table.open.insert(number, connection);
        drop(table);
        Some(Place(Arc::new(Held { connections: self.clone(), number, peer, needed })))
    }

    fn make_room(&self) {
        self.lock().make_room();
    }

    /// Nothing panics while it holds this.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Has the connection go that has been idle for the longest, of the peer that has the most of them: who opens many
    /// loses its own. Returns whether there was any.
    fn make_room(&mut self) -> bool {
        let mut of_peer: BTreeMap<Peer, usize> = BTreeMap::new();
        for connection in self.open.values() {
            *of_peer.entry(connection.peer).or_default() += 1;
        }
        let idle =
            self.open.iter().filter_map(|(number, connection)| Some((number, connection, connection.idle_since?)));
        let chosen = idle.max_by_key(|(_, connection, since)| (of_peer[&connection.peer], std::cmp::Reverse(*since)));
        let chosen = chosen.map(|(number, ..)| *number);
        let gone = chosen.and_then(|number| self.open.remove(&number));
        self.closed += 1;
        if self.said_at.is_none_or(|said_at| said_at.elapsed() > SAID_EVERY) {
            self.said_at = Some(Instant::now());
            let (max, closed) = (self.max, self.closed);
            match &gone {
                Some(Connection { peer, .. }) => tracing::warn!(
                    "all {max} connections are taken, {} by {peer}: for each new one an idle one is closed, {closed} so \
                     far; this is said once a minute",
                    of_peer[peer]
                ),
                None => tracing::warn!(
                    "all {max} connections are taken and at work: new ones are closed, {closed} so far; this is said \
                     once a minute"
                ),
            }
        }
        gone.map(|gone| gone.needed.notify_one()).is_some()
    }
}

impl Place {
    /// Something is being done for this connection.
    pub(crate) fn is_at_work(&self) {
        self.set(None);
    }

    /// All that is left is to hear the rest, and to send the answer.
    pub(crate) fn is_idle(&self) {
        self.set(Some(Instant::now()));
    }

    fn set(&self, idle_since: Option<Instant>) {
        if let Some(connection) = self.0.connections.lock().open.get_mut(&self.0.number) {
            connection.idle_since = idle_since;
        }
    }

    fn peer(&self) -> Peer {
        self.0.peer
    }

    async fn is_needed(&self) {
        self.0.needed.notified().await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn ip(text: &str) -> Peer {
        Peer::Address(text.parse().unwrap())
    }

    fn is_needed(place: &Place) -> bool {
        !place.0.connections.lock().open.contains_key(&place.0.number)
    }

    #[test]
    fn who_has_most_loses_the_one_that_was_idle_longest_and_nobody_at_work() {
        let connections = Connections::new(4);
        let [many, one] = [ip("192.0.2.1"), ip("192.0.2.2")];
        let first = connections.take(one).unwrap();
        let places: Vec<Place> = (0..3).map(|_| connections.take(many).unwrap()).collect();
        places[0].is_at_work();
        let _next = connections.take(one).unwrap();
        assert!(is_needed(&places[1]) && !is_needed(&places[0]) && !is_needed(&places[2]) && !is_needed(&first));
        drop(places);
        for place in [connections.take(many).unwrap(), connections.take(many).unwrap()] {
            place.is_at_work();
            std::mem::forget(place);
        }
        first.is_at_work();
        let last = connections.take(one).unwrap();
        last.is_at_work();
        assert!(connections.take(many).is_none() && !is_needed(&last), "all are at work");
        last.is_idle();
        assert!(connections.take(many).is_some() && is_needed(&last));
    }

    async fn serving(max: usize) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Connections::new(max);
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(async move {
            let _stop = stop;
            let router = Router::new().fallback(async || "hello");
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                let place = connections.take(Peer::Address(peer.ip())).unwrap();
                tokio::spawn(converse(stream, place, router.clone(), stopping.clone()));
            }
        });
        address
    }

    /// What comes until the other side closes.
    async fn all(mut stream: TcpStream) -> String {
        let mut text = String::new();
        // What was reset has ended as well.
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[tokio::test(start_paused = true)]
    async fn what_says_nothing_or_half_of_something_is_closed_after_its_time() {
        let address = serving(10).await;
        for begun in ["", "GET / HTTP/1.1\r\nhost: x\r\nx-slow:"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(begun.as_bytes()).await.unwrap();
            let start = tokio::time::Instant::now();
            all(stream).await;
            let took = start.elapsed();
            assert!(took >= HEAD_TIMEOUT / 2 && took <= HEAD_TIMEOUT * 2, "{begun:?}: {took:?}");
        }
    }

    #[tokio::test]
    async fn idle_connections_give_way_to_new_ones() {
        let address = serving(3).await;
        let mut idle = Vec::new();
        for _ in 0..50 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let answer = tokio::time::timeout(HEAD_TIMEOUT / 2, all(stream)).await.expect("it is answered at once");
        assert!(answer.ends_with("hello"), "{answer}");
    }
}
