//! The hub: a view of all jobs for people and programs, and a bell for sites.
//!
//! One [`Hub`] is one object: events go in, one at a time, and effects come out, in the order in which the shell has to
//! carry them out. What must outlive the object is in tables ([`Database`]); what is in memory may be lost at any time,
//! and costs freshness only: the object of a Worker is put to sleep between two events, and forgets.
//!
//! ```text
//! request, message of a site, submission, alarm ──► Hub::handle(tables, event, now) ──► answers, pieces of streams,
//!                                                                                     messages to sites, alarms
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | `request` | what is asked, from the head and body of a request |
//! | `view` | what is known of one job: a join of all that was said |
//! | `jobs`, `sites` | the tables of jobs, and of daemons with their pools |
//! | `answers` | requests that are answered from the tables |
//! | `followers` | requests that wait, and streams |
//! | `logs` | what jobs print, on its way to those who look |
//! | `link` | what sites say |
//! | `bell` | who is woken for a submission |
//! | `asking` | when sites are asked for jobs that may have ended |
//! | `callbacks` | who is called when a job is so far |
//! | `database`, `schema` | what tables are here, and which there are |
//!
//! Out of scope: HTTP, WebSockets, the tables themselves, clocks (the shells).

mod answers;
mod asking;
mod bell;
mod callbacks;
mod database;
mod followers;
mod jobs;
mod link;
mod logs;
mod request;
mod schema;
mod sites;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use protocol::{JobId, JobMessage, Timestamp};

#[cfg(test)]
pub(crate) use self::callbacks::Told;
pub use self::database::{Database, Value};
pub(crate) use self::database::{integer_at, text_at};
pub(crate) use self::jobs::result as job_result;
use self::jobs::{Joined, Said};
pub(crate) use self::request::Path;
pub use self::request::{Filter, From, Opening, Request};
pub use self::schema::SCHEMA;
#[cfg(test)]
pub(crate) use self::tests::World;
use self::view::View;
use crate::files::{self, Files, StoreAnswer, StoreCall};
use crate::{Callbacks, Problem, Response};

/// Who waits for an answer, as the shell calls it.
pub type Follower = u64;

/// A link of a site, as the shell calls it; it is the same as long as the link holds.
pub type Socket = String;

/// How many requests may wait or stream at once.
const FOLLOWERS_MAX: usize = 5_000;

/// What the operator says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// So many jobs are kept.
    pub keep_jobs: u32,
    /// For so long after anything was heard of them.
    pub keep_for: Duration,
    /// Who may be called.
    pub callbacks: Callbacks,
    /// Where files are; there are none without.
    pub files: Option<files::Settings>,
}

impl Default for Settings {
    fn default() -> Self {
        let keep_for = Duration::from_hours(30 * 24);
        Self { keep_jobs: 100_000, keep_for, callbacks: Callbacks::default(), files: None }
    }
}

/// Something that happens.
#[derive(Debug, Clone)]
pub enum Event {
    /// The queue has taken these messages.
    Submitted {
        /// Their texts.
        messages: Vec<String>,
    },
    /// Somebody asks. The answer is an effect for this follower, now or later.
    Request {
        /// Who.
        follower: Follower,
        /// What.
        request: Request,
    },
    /// The time of an [`Effect::Wait`] is over.
    TimedOut(Follower),
    /// Who asked does not listen any more.
    Gone(Follower),
    /// A site has begun a link, with the right key.
    LinkOpened(Socket),
    /// It says something.
    LinkMessage(Socket, String),
    /// The link is gone.
    LinkClosed(Socket),
    /// The object begins, with what is in its tables; these links hold.
    Restarted {
        /// Those that are open.
        sockets: Vec<Socket>,
    },
    /// The time of an [`Effect::Alarm`] has come.
    Alarm,
    /// An [`Effect::Call`] was made.
    Called {
        /// For which job.
        job_id: JobId,
        /// What was told.
        event: String,
        /// The status of the answer, or why there is none, in a sentence for a person.
        outcome: Result<u16, String>,
    },
    /// An [`Effect::Store`] was carried out.
    Stored {
        /// Which.
        call: StoreCall,
        /// What the store has answered, or why it has not, in a sentence for a person.
        outcome: Result<StoreAnswer, String>,
    },
}

/// A call to an address that a submission has named: `POST`, without following redirects, and without waiting for long.
/// Its name may lead to public addresses only ([`crate::is_public`]), unless [`Callbacks::check`] says that it is
/// allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// For which job.
    pub job_id: JobId,
    /// What is told.
    pub event: String,
    /// Whom.
    pub url: String,
    /// The headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Answer a request. Who asked is forgotten here.
    Answer(Follower, Response),
    /// Begin to answer a request with a stream of server-sent events.
    Stream(Follower),
    /// Send a piece of it. A follower that takes no more for long is cut off: [`Event::Gone`].
    Piece(Follower, Arc<str>),
    /// End it. Who asked is forgotten here.
    End(Follower),
    /// Say [`Event::TimedOut`] after this time. A follower has one such time, the last one that was said.
    Wait(Follower, Duration),
    /// Send a message to a site.
    Send(Socket, String),
    /// Close a link, with a code of the protocol and a reason.
    Close(Socket, u16, &'static str),
    /// Say [`Event::Alarm`] at this time. There is one alarm, the last one that was said.
    Alarm(Timestamp),
    /// Make a call, and say [`Event::Called`].
    Call(Call),
    /// Ask the store of files, and say [`Event::Stored`].
    Store(StoreCall),
}

/// The hub: what it has in memory.
#[derive(Debug, Default)]
pub struct Hub {
    settings: Settings,
    followers: followers::Followers,
    tails: logs::Tails,
    /// Which jobs a site has told of since it linked, until it has told of all.
    told: HashMap<Socket, HashSet<JobId>>,
    bell: bell::Bell,
    asking: asking::Asking,
    /// May calls wait to be made? After a start nobody knows.
    calls_wait: bool,
    files: Files,
    /// The alarm that is set.
    alarm: Option<i64>,
}

/// One event being handled.
pub(crate) struct Step<'a, D> {
    pub(crate) db: &'a mut D,
    pub(crate) now: Timestamp,
    pub(crate) effects: Vec<Effect>,
}

impl<D: Database> Step<'_, D> {
    pub(crate) fn answer(&mut self, follower: Follower, answer: Response) {
        self.effects.push(Effect::Answer(follower, answer));
    }

    pub(crate) fn refuse(&mut self, follower: Follower, problem: Problem) {
        self.answer(follower, problem.response());
    }

    pub(crate) fn millis(&self) -> i64 {
        self.now.as_millisecond()
    }
}

impl Hub {
    /// A hub that remembers nothing but its tables.
    pub fn new(settings: Settings) -> Self {
        let files = Files::new(settings.files.clone());
        Self { settings, calls_wait: true, files, ..Self::default() }
    }

    /// Handles an event. All that is done to the tables is one transaction; the effects are carried out after it.
    ///
    /// # Errors
    ///
    /// Those of the tables. Then nothing of it was done, and who asked is to be told so.
    pub fn handle<D: Database>(&mut self, db: &mut D, event: Event, now: Timestamp) -> Result<Vec<Effect>, D::Error> {
        let mut step = Step { db, now, effects: Vec::new() };
        match event {
            Event::Submitted { messages } => self.submitted(&mut step, &messages)?,
            Event::Request { follower, request } => self.asked(&mut step, follower, request)?,
            Event::TimedOut(follower) => self.timed_out(&mut step, follower)?,
            Event::Gone(follower) => {
                self.files.gone(follower);
                self.forget(&mut step, follower)?;
            }
            Event::LinkOpened(_) => {}
            Event::LinkMessage(socket, text) => self.heard(&mut step, &socket, &text)?,
            Event::LinkClosed(socket) => self.unlinked(&mut step, &socket)?,
            Event::Restarted { sockets } => self.restarted(&mut step, &sockets)?,
            Event::Alarm => {
                self.alarm = None;
                self.ring_again(&mut step)?;
                self.ask_sites(&mut step)?;
                self.make_calls(&mut step)?;
                self.files.sweep(&mut step)?;
            }
            Event::Called { job_id, event, outcome } => self.called(&mut step, &job_id, &event, &outcome)?,
            Event::Stored { call, outcome } => self.files.stored(&mut step, call, outcome)?,
        }
        self.set_alarm(&mut step)?;
        Ok(step.effects)
    }

    fn submitted<D: Database>(&mut self, step: &mut Step<'_, D>, messages: &[String]) -> Result<(), D::Error> {
        // The edge made them: they can be read.
        let messages: Vec<JobMessage> = messages.iter().filter_map(|text| JobMessage::parse(text).ok()).collect();
        let now = step.now;
        let said = messages.iter().map(|message| Said {
            job_id: &message.job_id,
            view: View::submitted(message, now),
            input: Some(message.spec.input.as_str()).filter(|input| *input != "null"),
        });
        let said: Vec<Said<'_>> = said.collect();
        // Nearly all are jobs that nobody has heard of.
        let mut new = jobs::insert(step.db, &said)?;
        for (said, message) in said.into_iter().zip(&messages) {
            // A job of which there are two is new once.
            match new.remove(message.job_id.as_str()) {
                Some(number) => {
                    let joined = Joined { before: View::default(), after: said.view, new: Some(number) };
                    self.joined(step, &message.job_id, &joined)?;
                }
                None => self.learn(step, said)?,
            }
            self.files.submitted(step, message)?;
        }
        let pools: Vec<_> = messages.into_iter().map(|message| message.spec.pool).collect();
        self.ring(step, &pools)
    }

    /// Joins what was said of a job to what is known, and tells those who look.
    fn learn<D: Database>(&mut self, step: &mut Step<'_, D>, said: Said<'_>) -> Result<(), D::Error> {
        let job_id = said.job_id;
        match jobs::join(step.db, said)? {
            Some(joined) => self.joined(step, job_id, &joined),
            None => Ok(()),
        }
    }

    /// More is known of a job: tells those who look.
    fn joined<D: Database>(&mut self, step: &mut Step<'_, D>, job_id: &JobId, joined: &Joined) -> Result<(), D::Error> {
        let Joined { before, after, new } = joined;
        if let Some(number) = new {
            self.make_room(step, *number)?;
        }
        if after.is_queued() {
            self.asking.may_be_needed();
        }
        if after.has_ended() && !before.has_ended() {
            self.files.ended(step, job_id)?;
        }
        self.tell(step, job_id, before, after)?;
        self.call_for(step, job_id, before, after)
    }

    /// Forgets the oldest jobs, now and then, when this one has come.
    fn make_room<D: Database>(&mut self, step: &mut Step<'_, D>, number: i64) -> Result<(), D::Error> {
        const AT_ONCE: i64 = 200;
        // By the number of the job, because an object that sleeps between two jobs counts nothing.
        if number % AT_ONCE == 0 {
            let keep_for = i64::try_from(self.settings.keep_for.as_millis()).unwrap_or(i64::MAX);
            let heard_since = step.millis().saturating_sub(keep_for);
            // Twice as many as came since the last time.
            let gone = jobs::prune(step.db, self.settings.keep_jobs.into(), heard_since, 2 * AT_ONCE)?;
            self.files.forgotten(step, gone)?;
            sites::prune(step.db, heard_since)?;
            callbacks::prune(step.db, heard_since)?;
        }
        Ok(())
    }

    fn set_alarm<D: Database>(&mut self, step: &mut Step<'_, D>) -> Result<(), D::Error> {
        let due = [self.bell.again_at, self.next_asking(step)?, self.next_call(step)?, self.files.next_sweep(step)?];
        let due = due.into_iter().flatten().min();
        if due != self.alarm
            && let Some(at) = due
        {
            step.effects.push(Effect::Alarm(protocol::timestamp_from_millis(at)));
        }
        self.alarm = due;
        Ok(())
    }
}
