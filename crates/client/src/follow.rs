//! Following an inbox: one program of those that share it looks at the queue, the others see what it stores.
//!
//! While a hub would tell of what ends ([`Listener`]), looks are rare, and there is one at once when it tells.
//!
//! Out of scope: which results somebody wants ([`crate::Waiting`]), and which are new ([`crate::Watch`]).
//!
//! Invariant: a step can be dropped at any time without harm. A look that is under way stays, and goes on with the next
//! step; [`Follower::finish`] ends it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::error::Error;
use crate::hub::Listener;
use crate::inbox::Inbox;
use crate::pace;
use crate::poll::{Patience, Troubles};
use crate::receive::{Received, Receiver};
use crate::turn::Turn;

/// How long a step takes at the most, and so how soon a result is seen that another program stores.
const STEP_MAX: Duration = Duration::from_millis(200);

type Look = Pin<Box<dyn Future<Output = Result<Received, queues::Error>> + Send>>;

/// One of the programs that follow an inbox.
pub struct Follower {
    receiver: Arc<Receiver>,
    turn: Turn,
    interval: Duration,
    troubles: Troubles,
    looking: Option<Look>,
    /// Lets go of a look that is held open.
    given_up: Arc<Notify>,
    /// Does the server hold looks open until there is something?
    holds: bool,
    next: Next,
    looked: Option<Instant>,
    asked: Option<Instant>,
    news: Instant,
    listener: Option<Listener>,
    /// What was heard last from the hub that whoever looks was told.
    rung: Option<Instant>,
    /// Does this program wait for something?
    waits: bool,
    /// Is whoever looks to be asked to look often, once no hub tells?
    to_ask: bool,
}

/// When to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The other program looks.
    NotMyTurn,
    /// After the pause that is right now.
    Paced,
    /// Not before this, whoever asks.
    At(Instant),
}

impl Follower {
    /// Follows the inbox of `receiver`. `interval` is how often to look while things happen.
    pub fn new(receiver: Receiver, interval: Duration, patience: Patience) -> Self {
        let receiver = Arc::new(receiver);
        Self {
            turn: Turn::new(receiver.inbox().polling(), receiver.queue()),
            receiver,
            interval,
            troubles: Troubles::new(patience),
            looking: None,
            given_up: Arc::default(),
            holds: false,
            next: Next::NotMyTurn,
            looked: None,
            asked: None,
            news: Instant::now(),
            listener: None,
            rung: None,
            waits: false,
            to_ask: false,
        }
    }

    /// Has a hub tell when something has ended.
    pub fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }

    /// What hears from the hub, if anything does.
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Where results are stored.
    pub fn inbox(&self) -> &Inbox {
        self.receiver.inbox()
    }

    /// Asks whoever looks to look often for a while: somebody waits. For as long as a hub tells, there is no need to.
    pub fn ask(&mut self) {
        (self.waits, self.to_ask) = (true, true);
        self.ask_if_not_told(Instant::now());
    }

    fn ask_if_not_told(&mut self, now: Instant) {
        if self.is_told(now) {
            self.to_ask = self.waits;
        } else if std::mem::take(&mut self.to_ask) {
            self.turn.ask();
        }
    }

    fn is_told(&self, now: Instant) -> bool {
        self.listener.as_ref().is_some_and(|listener| listener.hears(now))
    }

    /// Has whoever looks look at once if something was heard.
    fn heed_the_bell(&mut self) {
        let rung = self.listener.as_ref().and_then(Listener::rung);
        if rung != std::mem::replace(&mut self.rung, rung) && !self.turn.is_mine() {
            self.turn.ask();
        }
    }

    /// Goes on for a moment, after which there may be something new in the inbox: with a look, should it be time for
    /// one and this program's turn. Returns what the look brought, if one ended.
    pub async fn step(&mut self) -> Result<Option<Received>, Error> {
        if let Some(look) = &mut self.looking {
            let looked = tokio::select! {
                looked = look => looked,
                () = tokio::time::sleep(STEP_MAX) => return Ok(None),
            };
            self.looking = None;
            return self.after(looked).map_err(Error::from);
        }
        let now = Instant::now();
        self.ask_if_not_told(now);
        self.heed_the_bell();
        let due = self.due(now);
        let pause = due.map_or(STEP_MAX, |due| due.saturating_duration_since(Instant::now()));
        if pause.is_zero() {
            let (receiver, given_up) = (Arc::clone(&self.receiver), Arc::clone(&self.given_up));
            self.looking = Some(Box::pin(async move { receiver.look_held(given_up.notified()).await }));
        } else {
            tokio::time::sleep(pause.min(STEP_MAX)).await;
        }
        Ok(None)
    }

    /// Ends a look that is under way: one that is held open at once, another with its answer, and what comes is stored
    /// and acknowledged.
    pub async fn finish(&mut self) -> Option<Received> {
        let look = self.looking.take()?;
        self.given_up.notify_one();
        let looked = look.await;
        self.turn.looked();
        looked.inspect_err(|error| tracing::debug!("{error}")).ok()
    }

    /// When to look; nothing when another program does.
    fn due(&mut self, now: Instant) -> Option<Instant> {
        if !self.turn.is_mine() {
            return None;
        }
        if self.turn.asked_anew() {
            self.asked = Some(now);
        }
        if self.next == Next::NotMyTurn {
            // The pace goes on where the program was that looked before.
            self.looked = self.turn.since_looked().and_then(|since| now.checked_sub(since));
            self.asked = self.turn.since_asked().and_then(|since| now.checked_sub(since));
            self.next = Next::Paced;
        }
        match (self.next, self.looked) {
            (Next::At(due), _) => Some(due),
            (_, None) => Some(now),
            // The bell has rung since then.
            (_, Some(looked)) if self.rung.is_some_and(|rung| rung > looked) => Some(looked + pace::EAGER_PAUSE_FIRST),
            (_, Some(looked)) => Some(looked + self.pause(now)),
        }
    }

    fn pause(&self, now: Instant) -> Duration {
        self.receiver.pause(self.usual_pause(now))
    }

    fn usual_pause(&self, now: Instant) -> Duration {
        let asked = self.asked.map(|asked| now.saturating_duration_since(asked));
        match &self.listener {
            Some(listener) if listener.hears(now) => {
                let owed = listener.owed(now, |job_id| self.inbox().has(job_id));
                pace::pause_if_told(self.interval, asked, owed)
            }
            _ => pace::pause(self.interval, asked, now.saturating_duration_since(self.news)),
        }
    }

    fn after(&mut self, looked: Result<Received, queues::Error>) -> Result<Option<Received>, crate::poll::GaveUp> {
        let now = Instant::now();
        self.looked = Some(now);
        self.turn.looked();
        match looked {
            Ok(received) => {
                self.troubles.over();
                if received.messages > 0 {
                    self.news = now;
                }
                // A server that holds looks open does the waiting. One that answers an empty look at once does not.
                self.holds = received.held || (self.holds && received.messages > 0);
                self.next = if received.more || self.holds { Next::At(now) } else { Next::Paced };
                Ok(Some(received))
            }
            Err(error) => {
                self.next = Next::At(now + self.troubles.met(error, now)?);
                Ok(None)
            }
        }
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("next", &self.next).field("looking", &self.looking.is_some()).finish()
    }
}
