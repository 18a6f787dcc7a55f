//! The object of the hub: a shell around [`edge::hub`], over SQLite of its own.
//!
//! Only the Worker reaches it, and has looked at who asks. It handles one event at a time, and has all that it must not
//! forget in its tables: between two events it may be put to sleep, and its links stay open meanwhile. Whether a site
//! is still there the runtime answers without waking it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use edge::Problem;
use edge::hub::{Effect, Event, Follower, Hub as Decisions, Request as Asked, Settings, Socket};
use protocol::link::{PING, PONG};
use worker::wasm_bindgen::{self, JsCast as _, JsValue};
use worker::{
    DurableObject, Env, Error, Headers, Request, Response, Result, ScheduledTime, State, WebSocket,
    WebSocketIncomingMessage, WebSocketPair, WebSocketRequestResponsePair, console_error, durable_object, js_sys,
    web_sys,
};

use crate::follower::{All, Next, Outlet, Reply};
use crate::storage::{self, Tables};
use crate::{call, config, http, hub, store};

/// A site says every 30 seconds that it is there. One that has not for so long is gone, although nothing has said so,
/// in milliseconds.
const SILENCE_MAX: i64 = 90_000;

/// So often it is looked whether one is, if anything has woken the object, in milliseconds.
const LOOK_EVERY: i64 = 15_000;

/// How the tag of a link begins that says when it was made; the other one is its name.
const SINCE: &str = "since:";

/// The class, as in `wrangler.toml`.
#[durable_object]
pub struct Hub {
    shell: Rc<Shell>,
}

struct Shell {
    state: Rc<State>,
    /// The same, for what the crate `worker` has no binding of.
    raw: JsValue,
    /// When it was looked last whether a site is silent.
    looked_at: Cell<i64>,
    /// `None` until the first event: then it is known whether the tables can be used.
    decisions: Rc<RefCell<Option<Decisions>>>,
    followers: RefCell<BTreeMap<Follower, Outlet>>,
    next_follower: Cell<Follower>,
    settings: Settings,
    /// What waits of all of them.
    waiting: Rc<All>,
}

impl DurableObject for Hub {
    fn new(state: State, env: Env) -> Self {
        match WebSocketRequestResponsePair::new(PING, PONG) {
            Ok(pair) => state.set_websocket_auto_response(&pair),
            Err(error) => console_error!("pings of sites are not answered: {error:?}"),
        }
        let raw = state._inner();
        let shell = Shell {
            raw: raw.clone().into(),
            state: Rc::new(raw.into()),
            looked_at: Cell::default(),
            decisions: Rc::default(),
            followers: RefCell::default(),
            next_follower: Cell::default(),
            settings: config::of_hub(&env),
            waiting: Rc::default(),
        };
        Self { shell: Rc::new(shell) }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let request = request.inner();
        let answer = match hub::read(request).await? {
            hub::Message::Submitted { messages } => {
                self.shell.handle(Event::Submitted { messages });
                return Response::empty();
            }
            hub::Message::Linked => return self.shell.link(),
            hub::Message::Asked(Ok(asked)) => return self.shell.answer(asked).await,
            hub::Message::Asked(Err(problem)) => problem.response(),
        };
        Ok(http::response(&answer)?.into())
    }

    async fn alarm(&self) -> Result<Response> {
        self.shell.handle(Event::Alarm);
        Response::empty()
    }

    async fn websocket_message(&self, socket: WebSocket, message: WebSocketIncomingMessage) -> Result<()> {
        let name = self.shell.name(&socket);
        match message {
            WebSocketIncomingMessage::String(text) => self.shell.handle(Event::LinkMessage(name, text)),
            WebSocketIncomingMessage::Binary(_) => self.shell.close(&name, 1003, "text_only"),
        }
        Ok(())
    }

    async fn websocket_close(&self, socket: WebSocket, _code: usize, _reason: String, _was_clean: bool) -> Result<()> {
        // The other end waits for it; it may have gone without.
        let _ = socket.close(Some(1000), Some(""));
        self.shell.handle(Event::LinkClosed(self.shell.name(&socket)));
        Ok(())
    }

    async fn websocket_error(&self, socket: WebSocket, _error: Error) -> Result<()> {
        self.shell.handle(Event::LinkClosed(self.shell.name(&socket)));
        Ok(())
    }
}

impl Shell {
    /// Makes a link. Its name stays with it while the object sleeps.
    fn link(self: &Rc<Self>) -> Result<Response> {
        // Before there is one more: those that the tables know are looked at then.
        if let Err(error) = self.begin() {
            console_error!("the hub cannot use its tables, and no site can link: {error}");
            return Ok(http::response(&Problem::HubUnavailable.response())?.into());
        }
        let WebSocketPair { client, server } = WebSocketPair::new()?;
        let name = hub::random_name();
        let since = format!("{SINCE}{}", crate::now().as_millisecond());
        self.state.accept_websocket_with_tags(&server, &[&name, &since]);
        self.handle(Event::LinkOpened(name));
        Response::from_websocket(client)
    }

    fn name(&self, socket: &WebSocket) -> Socket {
        self.state.get_tags(socket).into_iter().find(|tag| !tag.starts_with(SINCE)).unwrap_or_default()
    }

    /// Closes the links of sites that are gone.
    fn silent(&self) -> Vec<Socket> {
        let (now, looked_at) = (crate::now().as_millisecond(), self.looked_at.get());
        if (looked_at..looked_at + LOOK_EVERY).contains(&now) {
            return Vec::new();
        }
        self.looked_at.set(now);
        let mut sockets = self.state.get_websockets();
        sockets.retain(|socket| self.heard(socket).is_some_and(|heard| now - heard > SILENCE_MAX));
        let close = |socket: WebSocket| {
            let _ = socket.close(Some(4408), Some("silent"));
            self.name(&socket)
        };
        sockets.into_iter().map(close).collect()
    }

    /// When a site has said last that it is there, to which the runtime answers by itself; at least when it linked.
    fn heard(&self, socket: &WebSocket) -> Option<i64> {
        let tags = self.state.get_tags(socket);
        let since = tags.iter().find_map(|tag| tag.strip_prefix(SINCE)?.parse().ok());
        let name = JsValue::from_str("getWebSocketAutoResponseTimestamp");
        let ask = js_sys::Reflect::get(&self.raw, &name).ok()?.dyn_into::<js_sys::Function>().ok()?;
        let socket: &web_sys::WebSocket = socket.as_ref();
        let pinged = ask.call1(&self.raw, socket).ok()?.dyn_into::<js_sys::Date>().ok();
        since.max(pinged.map(|date| date.get_time() as i64))
    }

    /// Answers a request, now, later, or with a stream.
    async fn answer(self: &Rc<Self>, request: Asked) -> Result<Response> {
        let follower = self.next_follower.replace(self.next_follower.get() + 1);
        let outlet = Outlet::new(&self.waiting);
        let inlet = outlet.inlet();
        self.followers.borrow_mut().insert(follower, outlet);
        self.handle(Event::Request { follower, request });
        loop {
            let answer = match inlet.reply().await {
                Next::TimedOut => {
                    self.handle(Event::TimedOut(follower));
                    continue;
                }
                Next::Is(Reply::Stream) => {
                    let shell = Rc::clone(self);
                    let pieces = inlet.pieces(move || shell.handle(Event::TimedOut(follower)));
                    let headers = Headers::new();
                    headers.set("content-type", "text/event-stream")?;
                    headers.set("cache-control", "no-store")?;
                    return Ok(Response::from_stream(pieces)?.with_headers(headers));
                }
                Next::Is(Reply::Answer(answer)) => answer,
                Next::Ended => Problem::HubUnavailable.response(),
            };
            return Ok(http::response(&answer)?.into());
        }
    }

    /// Handles an event, and what has come of others.
    fn handle(self: &Rc<Self>, event: Event) {
        let mut events: Vec<Event> = self.gone().into_iter().map(Event::Gone).collect();
        events.extend(self.silent().into_iter().map(Event::LinkClosed));
        events.push(event);
        while !events.is_empty() {
            let mut more = Vec::new();
            for event in events {
                match self.begin().and_then(|()| self.decide(event.clone())) {
                    Ok(effects) => effects.into_iter().for_each(|effect| self.carry_out(effect, &mut more)),
                    Err(error) => self.failed(event, &error),
                }
            }
            events = more;
        }
    }

    /// Those who listen no more; nothing says so by itself.
    fn gone(&self) -> Vec<Follower> {
        let mut followers = self.followers.borrow_mut();
        followers.extract_if(.., |_, outlet| outlet.is_gone()).map(|(follower, _)| follower).collect()
    }

    fn decide(&self, event: Event) -> Result<Vec<Effect>> {
        let (state, decisions) = (Rc::clone(&self.state), Rc::clone(&self.decisions));
        storage::transaction(&self.state, move || match &mut *decisions.borrow_mut() {
            Some(decisions) => decisions.handle(&mut Tables::of(&state), event, crate::now()),
            None => Err(Error::RustError("the hub has not begun".to_owned())),
        })
    }

    /// The object has been made anew: it looks at its tables, and at the links that it had.
    fn begin(self: &Rc<Self>) -> Result<()> {
        if self.decisions.borrow().is_some() {
            return Ok(());
        }
        let settings = self.settings.clone();
        let sockets = self.state.get_websockets().iter().map(|socket| self.name(socket)).collect();
        let state = Rc::clone(&self.state);
        let (decisions, effects) = storage::transaction(&self.state, move || {
            let mut tables = Tables::of(&state);
            tables.migrate()?;
            let mut decisions = Decisions::new(settings);
            let effects = decisions.handle(&mut tables, Event::Restarted { sockets }, crate::now())?;
            Ok((decisions, effects))
        })?;
        *self.decisions.borrow_mut() = Some(decisions);
        // Nobody waits yet who could have gone.
        effects.into_iter().for_each(|effect| self.carry_out(effect, &mut Vec::new()));
        Ok(())
    }

    /// The hub could not handle an event. Nothing that was promised hangs on it.
    fn failed(&self, event: Event, error: &Error) {
        console_error!("the hub cannot use its tables; what it shows is late until it can: {error}");
        match event {
            Event::Request { follower, .. } | Event::TimedOut(follower) => {
                if let Some(outlet) = self.followers.borrow_mut().remove(&follower) {
                    outlet.end();
                }
            }
            // The site tells all again when it comes back.
            Event::LinkMessage(socket, _) => self.close(&socket, 1011, "hub_unavailable"),
            _ => {}
        }
    }

    fn carry_out(self: &Rc<Self>, effect: Effect, more: &mut Vec<Event>) {
        let outlet = |follower: &Follower| self.followers.borrow().get(follower).cloned();
        let forget = |follower: &Follower| self.followers.borrow_mut().remove(follower);
        match effect {
            Effect::Answer(follower, answer) => {
                forget(&follower).into_iter().for_each(|outlet| outlet.reply(Reply::Answer(answer.clone())));
            }
            Effect::Stream(follower) => {
                outlet(&follower).into_iter().for_each(|outlet| outlet.reply(Reply::Stream));
            }
            Effect::Piece(follower, piece) => {
                if outlet(&follower).is_some_and(|outlet| !outlet.send(piece)) {
                    forget(&follower);
                    more.push(Event::Gone(follower));
                }
            }
            Effect::End(follower) => forget(&follower).into_iter().for_each(|outlet| outlet.end()),
            Effect::Wait(follower, duration) => {
                outlet(&follower).into_iter().for_each(|outlet| outlet.wait(duration));
            }
            Effect::Send(socket, text) => {
                for socket in self.state.get_websockets_with_tag(&socket) {
                    // One that has just gone says so by itself.
                    let _ = socket.send_with_str(&text);
                }
            }
            Effect::Close(socket, code, reason) => self.close(&socket, code, reason),
            Effect::Call(call) => {
                let shell = Rc::clone(self);
                self.state.wait_until(async move {
                    let called = call::call(&shell.settings.callbacks, call).await;
                    shell.handle(called);
                });
            }
            Effect::Store(call) => {
                let shell = Rc::clone(self);
                self.state.wait_until(async move {
                    let stored = store::ask(call).await;
                    shell.handle(stored);
                });
            }
            Effect::Alarm(at) => {
                let state = Rc::clone(&self.state);
                self.state.wait_until(async move {
                    let at = js_sys::Date::new(&(at.as_millisecond() as f64).into());
                    if let Err(error) = state.storage().set_alarm(ScheduledTime::new(at)).await {
                        console_error!("the alarm of the hub cannot be set: {error}");
                    }
                });
            }
        }
    }

    fn close(&self, socket: &Socket, code: u16, reason: &str) {
        for socket in self.state.get_websockets_with_tag(socket) {
            let _ = socket.close(Some(code), Some(reason));
        }
    }
}
