//! Following an inbox: one program of those that share it looks at the queue, the others see what it stores.
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
        }
    }

    /// Where results are stored.
    pub fn inbox(&self) -> &Inbox {
        self.receiver.inbox()
    }

    /// Asks whoever looks to look often for a while: somebody waits.
    pub fn ask(&self) {
        self.turn.ask();
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
        let due = self.due(Instant::now());
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
            (_, Some(looked)) => {
                let asked = self.asked.map(|asked| now.saturating_duration_since(asked));
                Some(looked + pace::pause(self.interval, asked, now.saturating_duration_since(self.news)))
            }
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
