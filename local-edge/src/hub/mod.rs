//! The hub: a shell around [`edge::hub`], over tables of its own.
//!
//! One task takes what happens, in the order in which it does, has `edge::hub` handle it on the thread of the tables,
//! and carries out what comes of that. What waits shares one transaction.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `stream` | a stream on its way to somebody who listens |
//! | `tables` | the file `hub.sqlite`, and the hub over it |
//! | `link` | the WebSocket of a site |
//! | `call` | calls to addresses that submissions have named |
//! | `ask` | a request that the hub answers, now, later, or with a stream |
//!
//! Invariant: effects leave in the order in which the hub said them, after what they tell of is in the tables.

mod ask;
mod call;
mod link;
mod stream;
mod tables;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edge::Problem;
use edge::hub::{Effect, Event, Follower, Request, Socket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub(crate) use self::ask::{answer, ask};
pub(crate) use self::call::Caller;
pub(crate) use self::link::link;
pub(crate) use self::tables::Tables;
use crate::files;
use crate::store::now;

/// How much waits to be handled at most. Links wait then, and submissions are not told.
const INPUTS_MAX: usize = 4_096;

/// How much is handled within one transaction.
const BATCH_MAX: usize = 256;

/// How many messages wait for a site that does not read. Its link is closed then, and it is told all again.
const MESSAGES_MAX: usize = 4_096;

/// The way to the hub.
#[derive(Clone)]
pub(crate) struct Hub {
    inputs: mpsc::Sender<Input>,
    followers: Arc<AtomicU64>,
}

/// What comes to the task.
enum Input {
    Event(Event),
    Asked(Follower, Request, oneshot::Sender<Reply>),
    Linked(Socket, mpsc::Sender<ToSite>),
}

/// The answer to a request.
pub(crate) enum Reply {
    Answer(edge::Response),
    Stream(stream::Receiver),
}

/// What leaves over a link.
enum ToSite {
    Message(String),
    Close(u16, &'static str),
}

impl Hub {
    /// Starts the task, within a runtime. It ends when told to stop, and with it every stream and link.
    pub(crate) fn start(
        tables: store::Store<Tables>,
        caller: Caller,
        files: files::Store,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let task = Task {
            tables,
            caller,
            files,
            // Its own way back: the end of all others is not the end of this one, which stops when told to.
            inputs: sender.clone(),
            waiting: HashMap::new(),
            streams: HashMap::new(),
            streaming: stream::All::default(),
            sockets: HashMap::new(),
            timers: BTreeSet::new(),
            timer_of: HashMap::new(),
            alarm: None,
            more: vec![Event::Restarted { sockets: Vec::new() }],
        };
        tokio::spawn(task.run(inputs, stopping));
        Self { inputs: sender, followers: Arc::default() }
    }

    /// The queue has taken these messages. A hub that has too much to do is not told: it costs freshness only.
    pub(crate) fn submitted(&self, messages: Vec<String>) {
        if self.inputs.try_send(Input::Event(Event::Submitted { messages })).is_err() {
            tracing::debug!("the hub has too much to do, and is not told of a submission");
        }
    }
}

struct Task {
    tables: store::Store<Tables>,
    caller: Caller,
    files: files::Store,
    inputs: mpsc::Sender<Input>,
    waiting: HashMap<Follower, oneshot::Sender<Reply>>,
    streams: HashMap<Follower, stream::Sender>,
    /// What waits of all of them.
    streaming: stream::All,
    sockets: HashMap<Socket, mpsc::Sender<ToSite>>,
    timers: BTreeSet<(Instant, Follower)>,
    timer_of: HashMap<Follower, Instant>,
    alarm: Option<Instant>,
    /// What has come of carrying out effects.
    more: Vec<Event>,
}

impl Task {
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>, mut stopping: watch::Receiver<bool>) {
        let mut came = Vec::new();
        loop {
            let due = self.timers.first().map(|(at, _)| *at).into_iter().chain(self.alarm).min();
            if self.more.is_empty() {
                tokio::select! {
                    _ = inputs.recv_many(&mut came, BATCH_MAX) => {}
                    () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                    // An error is the end of what could have said so.
                    _ = stopping.wait_for(|stopping| *stopping) => return,
                }
            }
            let mut events = std::mem::take(&mut self.more);
            events.extend(self.due(Instant::now()));
            events.extend(came.drain(..).filter_map(|input| self.event(input)));
            self.handle(events).await;
        }
    }

    /// What the hub is to hear of an input.
    fn event(&mut self, input: Input) -> Option<Event> {
        match input {
            Input::Event(event) => Some(event),
            Input::Asked(follower, request, reply) => {
                self.waiting.insert(follower, reply);
                Some(Event::Request { follower, request })
            }
            Input::Linked(socket, way) => {
                self.sockets.insert(socket.clone(), way);
                Some(Event::LinkOpened(socket))
            }
        }
    }

    fn due(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some((at, follower)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, follower));
            self.timer_of.remove(&follower);
            events.push(Event::TimedOut(follower));
        }
        if self.alarm.is_some_and(|at| at <= now) {
            self.alarm = None;
            events.push(Event::Alarm);
        }
        events
    }

    async fn handle(&mut self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let all = events.clone();
        match self.tables.call(move |tables| tables.handle(all)).await {
            Ok(effects) => effects.into_iter().for_each(|effect| self.carry_out(effect)),
            Err(_) => {
                // One of them may be to blame: a disk that is full still answers who only asks.
                for event in events {
                    let one = vec![event.clone()];
                    match self.tables.call(move |tables| tables.handle(one)).await {
                        Ok(effects) => effects.into_iter().for_each(|effect| self.carry_out(effect)),
                        Err(error) => self.failed(event, &error),
                    }
                }
            }
        }
    }

    /// The hub could not handle an event. Nothing that was promised hangs on it.
    fn failed(&mut self, event: Event, error: &store::Error) {
        tracing::warn!("the hub cannot use its tables; what it shows is late until it can: {error}");
        match event {
            Event::Request { follower, .. } | Event::TimedOut(follower) => {
                self.reply(follower, Reply::Answer(Problem::HubUnavailable.response()));
                self.streams.remove(&follower);
                self.more.push(Event::Gone(follower));
            }
            // The site tells all again when it comes back.
            Event::LinkMessage(socket, _) => self.close(&socket, 1011, "hub_unavailable"),
            _ => {}
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Answer(follower, answer) => {
                self.forget_timer(follower);
                self.reply(follower, Reply::Answer(answer));
            }
            Effect::Stream(follower) => {
                let (sender, pieces) = stream::stream();
                self.streams.insert(follower, sender);
                self.reply(follower, Reply::Stream(pieces));
            }
            Effect::Piece(follower, piece) => {
                // A follower that does not read is cut off, and can go on where it was.
                let stream = self.streams.get(&follower);
                if stream.is_some_and(|stream| !stream.send(piece, &mut self.streaming)) {
                    self.streams.remove(&follower);
                    self.forget_timer(follower);
                    self.more.push(Event::Gone(follower));
                }
            }
            Effect::End(follower) => {
                self.forget_timer(follower);
                self.streams.remove(&follower);
            }
            Effect::Wait(follower, duration) => {
                self.forget_timer(follower);
                let at = Instant::now() + duration;
                self.timers.insert((at, follower));
                self.timer_of.insert(follower, at);
            }
            Effect::Send(socket, text) => {
                let sent = self.sockets.get(&socket).map(|way| way.try_send(ToSite::Message(text)));
                if sent.is_some_and(|sent| sent.is_err()) {
                    self.close(&socket, 1013, "too_slow");
                    self.more.push(Event::LinkClosed(socket));
                }
            }
            Effect::Close(socket, code, reason) => self.close(&socket, code, reason),
            Effect::Call(call) => {
                let (caller, inputs) = (self.caller.clone(), self.inputs.clone());
                tokio::spawn(async move { inputs.send(Input::Event(caller.call(call).await)).await });
            }
            Effect::Store(call) => {
                let (files, inputs) = (self.files.clone(), self.inputs.clone());
                tokio::spawn(async move {
                    let outcome = files.ask(&call).await;
                    inputs.send(Input::Event(Event::Stored { call, outcome })).await
                });
            }
            Effect::Alarm(at) => {
                let millis = u64::try_from(at.as_millisecond() - now()).unwrap_or(0);
                self.alarm = Some(Instant::now() + Duration::from_millis(millis));
            }
        }
    }

    fn reply(&mut self, follower: Follower, reply: Reply) {
        if let Some(waiting) = self.waiting.remove(&follower)
            && waiting.send(reply).is_err()
        {
            self.more.push(Event::Gone(follower));
        }
    }

    fn close(&mut self, socket: &Socket, code: u16, reason: &'static str) {
        if let Some(way) = self.sockets.remove(socket) {
            // Without room for it, the end of the way says it.
            let _ = way.try_send(ToSite::Close(code, reason));
        }
    }

    fn forget_timer(&mut self, follower: Follower) {
        if let Some(at) = self.timer_of.remove(&follower) {
            self.timers.remove(&(at, follower));
        }
    }
}

/// Says that somebody does not listen any more, when it is dropped.
struct Listening {
    hub: Hub,
    follower: Follower,
}

impl Hub {
    fn listening(&self) -> Listening {
        Listening { hub: self.clone(), follower: self.followers.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let event = Input::Event(Event::Gone(self.follower));
        if let Err(mpsc::error::TrySendError::Full(event)) = self.hub.inputs.try_send(event) {
            // It must be said, or the hub would go on for nobody.
            let inputs = self.hub.inputs.clone();
            tokio::spawn(async move { inputs.send(event).await });
        }
    }
}
