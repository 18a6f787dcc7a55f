//! Files that travel with jobs: where contents are put and had, which are there, and how long they stay.
//!
//! The edge carries no file. Contents lie in an object store under their SHA-256, and the edge hands out addresses that
//! it has signed. What is there, and what is on its way, stands in the hub's tables; what only the store knows is asked
//! of it by an effect ([`StoreCall`]).
//!
//! ```text
//! offered ──put──► complete ──look──► here ──old, and no job needs it──► going ──delete──► (forgotten)
//! uploading ──parts──► complete ──finish, look──► here
//!     └──a day without a word──► going ──abort, delete──► (forgotten)
//! here ──other bytes came──► doubted ──offered, put anew──► here
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | `sigv4` | how requests to a store are signed |
//! | `store` | where the store is, and what it is asked |
//! | `xml` | what stands in its answers |
//! | `request` | what is asked of the edge |
//! | `tables` | the tables of contents, and of who needs them |
//! | `upload` | contents on their way in |
//! | `download` | contents on their way out |
//! | `expiry` | contents that go |
//!
//! Out of scope: the store (`local-edge` has one of its own), and what is in the files.
//! Invariant: no content is said to be here of which the store has not said so, with the length that was offered.

mod download;
mod expiry;
mod request;
pub mod sigv4;
mod store;
mod tables;
#[cfg(test)]
mod tests;
mod upload;
pub mod xml;

use std::collections::HashMap;
use std::time::Duration;

use protocol::{Content, Timestamp};

pub(crate) use self::request::{Ask, Kind, Path};
pub use self::request::{Asker, Request};
use self::store::Question;
pub use self::store::{InvalidStore, Keys, Store};
use crate::hub::{Database, Effect, Follower, Step};
use crate::{Problem, Response};

/// What the operator says of files.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where they are.
    pub store: Store,
    /// For how long a content is kept after it was last offered, if no job needs it.
    pub keep_for: Duration,
    /// How much those who have one key may have there, in bytes.
    pub bytes_max: u64,
}

impl Settings {
    /// For how long contents are kept when nobody says otherwise.
    pub const KEEP_FOR: Duration = Duration::from_hours(30 * 24);

    /// How much may be there when nobody says otherwise: as good as no limit.
    pub const BYTES_MAX: u64 = 1_000_000_000_000_000;
}

/// A request to the store: the shell makes it, without following redirects, and says [`crate::hub::Event::Stored`] with
/// the same call. It may wait for half a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreCall {
    /// The method.
    pub method: &'static str,
    /// The address.
    pub url: String,
    /// The headers, by which it is signed.
    pub headers: Vec<(&'static str, String)>,
    /// The body; none if it is empty.
    pub body: String,
    why: Why,
}

/// What the store has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreAnswer {
    /// The status.
    pub status: u16,
    /// The header `content-length`.
    pub length: Option<u64>,
    /// The header `date`.
    pub date: Option<String>,
    /// The body, or its first [`StoreAnswer::BYTES_MAX`].
    pub body: String,
}

impl StoreAnswer {
    /// How much of a body is read.
    pub const BYTES_MAX: usize = 2_000_000;
}

/// What for the store is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Why {
    /// Who waits for it.
    follower: Option<Follower>,
    content: Content,
    question: Question,
}

/// What is in memory.
#[derive(Debug, Default)]
pub(crate) struct Files {
    settings: Option<Settings>,
    /// Offers that wait for the store.
    offers: HashMap<Follower, upload::Offering>,
    /// Contents whose upload is being begun.
    creating: upload::Creating,
    /// When to look for what goes.
    pub(crate) sweep_at: Option<i64>,
    /// Is it known whether there is anything to look for? After a start it is not.
    is_known: bool,
}

/// Why the store has not done what it was asked.
enum Trouble {
    /// It says no, with this code and message.
    Refused(u16, String),
    /// It refuses whoever asks: the key or the clock of the edge is wrong. Some stores answer so as well for an upload
    /// that they do not know.
    Denied(Problem),
    /// It did not answer, or has trouble of its own.
    Away(Problem),
}

impl Files {
    pub(crate) fn new(settings: Option<Settings>) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Somebody asks.
    pub(crate) fn asked<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        request: Request,
    ) -> Result<(), D::Error> {
        let Request { asker, ask } = request;
        if self.settings.is_none() {
            step.refuse(follower, Problem::NoFiles);
            return Ok(());
        }
        match ask {
            Ask::Offer(files) => self.offered(step, follower, asker, files),
            Ask::Complete(digest, complete) => self.completed(step, follower, digest, complete),
            Ask::Doubt(digest) => self.doubted(step, follower, digest),
            Ask::Get(digest) => self.get(step, follower, &asker, &digest),
            Ask::OfJob(job_id) => self.of_job(step, follower, &asker, &job_id),
        }
    }

    /// The store was asked.
    pub(crate) fn stored<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        call: StoreCall,
        outcome: Result<StoreAnswer, String>,
    ) -> Result<(), D::Error> {
        let Why { follower, content, question } = call.why;
        let outcome = outcome.map_err(|problem| away(&problem)).and_then(|answer| said(answer, step.now));
        match question {
            Question::Create => self.created(step, content, outcome),
            Question::Parts { upload, .. } => self.listed(step, follower, content, &upload, outcome),
            Question::Finish { .. } => self.finished(step, follower, content, outcome),
            Question::Look => self.looked(step, follower, content, outcome),
            Question::Find(asker) => self.found(step, follower, &asker, &content.sha256, outcome),
            Question::Delete => self.deleted(step, content, outcome),
            Question::Abort { .. } => self.aborted(step, content, outcome),
        }
    }

    /// Who asked does not listen any more.
    pub(crate) fn gone(&mut self, follower: Follower) {
        self.offers.remove(&follower);
    }

    fn ask<D: Database>(
        &self,
        step: &mut Step<'_, D>,
        follower: Option<Follower>,
        content: Content,
        question: Question,
    ) {
        let Some(settings) = &self.settings else { return };
        let asked = settings.store.ask(&content.sha256, &question, step.now);
        let why = Why { follower, content, question };
        step.effects.push(Effect::Store(StoreCall {
            method: asked.method,
            url: asked.url,
            headers: asked.headers,
            body: asked.body,
            why,
        }));
    }
}

/// What the store has said, if it has done what it was asked.
fn said(answer: StoreAnswer, now: Timestamp) -> Result<StoreAnswer, Trouble> {
    let code = xml::text(&answer.body, "Code").unwrap_or_default();
    let message = xml::text(&answer.body, "Message").unwrap_or_default();
    let words = format!("{code}: {message}");
    let words: String = protocol::text::escaped(words.trim_matches([':', ' '])).chars().take(300).collect();
    // What takes long is answered 200 before it is done, and may fail after that.
    let status = match answer.status {
        200 if xml::inner(&answer.body, "Error").is_some() && code == "InternalError" => 500,
        200 if xml::inner(&answer.body, "Error").is_some() => 400,
        status => status,
    };
    match status {
        200..=299 => Ok(answer),
        // Those are about who asks, and when: the edge, and not what it asks.
        401 | 403 => {
            let space = if words.is_empty() { "" } else { " " };
            let date: String = protocol::text::escaped(answer.date.as_deref().unwrap_or("not what time it is"));
            let date: String = date.chars().take(40).collect();
            let detail = format!(
                "it refuses what this edge has signed, with {status}{space}{words}; see its keys, its bucket and the \
                 clocks: it says {date}, and here it is {now}"
            );
            Err(Trouble::Denied(Problem::StoreUnavailable { detail }))
        }
        400..=499 if status != 429 && status != 408 => Err(Trouble::Refused(status, words)),
        _ => Err(away(&format!("it answered with {status} {words}"))),
    }
}

fn away(problem: &str) -> Trouble {
    Trouble::Away(Problem::StoreUnavailable { detail: problem.trim_end().to_owned() })
}

/// An answer that leads elsewhere.
fn redirect(url: String) -> Response {
    let headers = vec![("location", url), ("cache-control", "no-store".to_owned())];
    Response { status: 302, headers, body: String::new() }
}
