//! What is known of the process that holds the runs: whether it is there, and what it was asked.

use std::time::Duration;

use crate::Problem;

/// Between two comparisons of what runs with what is recorded, when nothing happens.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(60);

/// Before the next try to reach an executor that has gone.
const PAUSE: Duration = Duration::from_secs(1);

/// The executor, seen from here.
#[derive(Debug)]
pub(crate) struct ExecutorView {
    /// Is it there, and did it tell of its runs?
    known: bool,
    question: Question,
    /// Is it to be told when what followed from its incomplete list is on disk?
    to_reconcile: bool,
    /// Why it cannot be reached.
    trouble: Option<Problem>,
}

#[derive(Debug)]
enum Question {
    /// It was asked at this time, and is to answer.
    Asked(Duration),
    /// It is asked at this time.
    AskAt(Duration),
}

/// An answer, as far as it matters here.
#[derive(Debug)]
pub(crate) struct Answer {
    /// When it was asked: what was told to it since need not be in its list. Where it was not asked, nothing was told.
    pub(crate) asked_at: Option<Duration>,
    /// Is it the first since it was reached?
    pub(crate) first: bool,
}

impl Default for ExecutorView {
    fn default() -> Self {
        Self { known: false, question: Question::AskAt(Duration::ZERO), to_reconcile: false, trouble: None }
    }
}

impl ExecutorView {
    pub(crate) fn is_known(&self) -> bool {
        self.known
    }

    /// Why it cannot be reached, while it cannot.
    pub(crate) fn trouble(&self) -> Option<&Problem> {
        self.trouble.as_ref()
    }

    /// When it is to be asked.
    pub(crate) fn ask_at(&self) -> Option<Duration> {
        match self.question {
            Question::AskAt(at) => Some(at),
            Question::Asked(_) => None,
        }
    }

    /// Begins to ask, if it is time.
    pub(crate) fn ask(&mut self, now: Duration) -> bool {
        let due = self.ask_at().is_some_and(|at| at <= now);
        if due {
            self.question = Question::Asked(now);
        }
        due
    }

    /// It has told all its runs; what may be missing there is settled by us if the list is not complete.
    pub(crate) fn answered(&mut self, complete: bool, now: Duration) -> Answer {
        let next = Question::AskAt(now + OBSERVE_INTERVAL);
        let asked_at = match std::mem::replace(&mut self.question, next) {
            Question::Asked(at) => Some(at),
            Question::AskAt(_) => None,
        };
        self.trouble = None;
        self.to_reconcile = !complete;
        Answer { asked_at, first: !std::mem::replace(&mut self.known, true) }
    }

    /// Is it to be told that all that was missing in its list has its consequences, once that is so?
    pub(crate) fn reconcile(&mut self, is_so: impl FnOnce() -> bool) -> bool {
        let told = self.to_reconcile && is_so();
        self.to_reconcile &= !told;
        told
    }

    /// It has gone, or cannot be reached. Is why news?
    pub(crate) fn is_gone(&mut self, why: Option<Problem>, now: Duration) -> Option<Problem> {
        self.known = false;
        self.to_reconcile = false;
        self.question = Question::AskAt(now + PAUSE);
        let why = why?;
        let news = self.trouble.as_ref() != Some(&why);
        self.trouble = Some(why.clone());
        news.then_some(why)
    }
}
