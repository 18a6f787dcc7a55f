//! When a connection to the hub is tried, in which way, and what a person is told of it.
//!
//! What a person has to mend is said once and tried seldom; what may pass is tried with growing pauses. None of it is
//! the end of the daemon, or holds up a job.

use std::path::PathBuf;
use std::time::Duration;

use protocol::link::{Hello, VERSION};
use queues::Backoff;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::answers::Trouble;
use super::socket::{Over, Socket, Unwanted};
use super::tails::Followed;
use super::{LinkState, Said, Shown, Target, cancels, identity};
use crate::blocking;
use crate::job::ResultsDir;

/// How many messages of cancelled jobs wait to be marked.
const UNWANTED_MAX: usize = 8;

/// So many connections in a row that come to nothing prove that no WebSocket gets through.
const FRUITLESS_MAX: u32 = 3;

/// How long things take. Tests have less time.
#[derive(Debug, Clone)]
pub(super) struct Timing {
    /// Between two tries, at first and at last.
    pub(super) first: Duration,
    pub(super) longest: Duration,
    /// Between two tries of what a person has to mend.
    pub(super) rarely: Duration,
    /// What is over sooner has not held.
    pub(super) holds: Duration,
    /// Between two pings, and how long their answers, the answer to a handshake and the welcome may take.
    pub(super) ping: Duration,
    pub(super) answer: Duration,
    /// How long a message may take to leave, and the word that a report is stored to come.
    pub(super) write: Duration,
    pub(super) stored: Duration,
    /// Between two requests where no WebSocket gets through, and between two tries of one then.
    pub(super) report: Duration,
    pub(super) again: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            first: seconds(1),
            longest: seconds(60),
            rarely: seconds(300),
            holds: seconds(20),
            ping: seconds(30),
            answer: seconds(15),
            write: seconds(30),
            stored: seconds(60),
            report: seconds(30),
            again: seconds(600),
        }
    }
}

/// Who keeps the link.
pub(super) struct Contact {
    pub(super) target: Target,
    pub(super) http: reqwest::Client,
    pub(super) state_dir: PathBuf,
    pub(super) results: ResultsDir,
    pub(super) said: mpsc::Sender<Said>,
    pub(super) shown: Shown,
    pub(super) followed: Followed,
    pub(super) timing: Timing,
}

impl Contact {
    /// Keeps the link for as long as this process lives.
    pub(super) async fn keep(self) {
        let (unwanted, waiting) = mpsc::channel(UNWANTED_MAX);
        tokio::spawn(cancels::mark(self.results.clone(), waiting, self.said.clone()));
        let hello = self.hello().await;
        let mut backoff = Backoff::new(self.timing.first, self.timing.longest);
        let mut fruitless = 0_u32;
        loop {
            let trouble = if fruitless < FRUITLESS_MAX {
                match self.connect().await {
                    Ok(socket) => self.talk(socket, &hello, &unwanted, &mut fruitless, &mut backoff).await,
                    Err(trouble) => {
                        fruitless += u32::from(matches!(trouble, Trouble::NoWebSocket(_)));
                        trouble
                    }
                }
            } else {
                let why = self.shown.view().trouble.unwrap_or_default();
                match self.report(&hello, &unwanted, why).await {
                    Ok(socket) => self.talk(socket, &hello, &unwanted, &mut fruitless, &mut backoff).await,
                    Err(trouble) => {
                        // Nothing gets through: it is not the WebSocket.
                        fruitless = 0;
                        trouble
                    }
                }
            };
            self.tell(LinkState::Unlinked, Some(trouble.text().to_owned()));
            // Nobody hears it any more at the end of the daemon.
            let _ = self.said.send(Said::Failed).await;
            sleep(match trouble {
                Trouble::ForAPerson(_) => self.timing.rarely.mul_f64(0.5 + fastrand::f64() / 2.0),
                Trouble::NoWebSocket(_) | Trouble::Passing(_) => backoff.pause(),
            })
            .await;
        }
    }

    /// Talks over a connection until it is over; returns why that is.
    async fn talk(
        &self,
        socket: Socket,
        hello: &Hello,
        unwanted: &Unwanted,
        fruitless: &mut u32,
        backoff: &mut Backoff,
    ) -> Trouble {
        let Over { welcomed, trouble } = self.converse(socket, hello, unwanted).await;
        if welcomed.is_some_and(|at| at.elapsed() >= self.timing.holds) {
            *fruitless = 0;
            backoff.reset();
        } else if !matches!(trouble, Trouble::ForAPerson(_)) {
            *fruitless += 1;
        }
        trouble
    }

    /// Who we are. `RESULTS_DIR` may not be there yet, and is waited for.
    async fn hello(&self) -> Hello {
        let mut backoff = Backoff::new(self.timing.first / 10, self.timing.longest);
        loop {
            let (state_dir, results) = (self.state_dir.clone(), self.results.clone());
            match blocking(move || Ok::<_, std::io::Error>((identity::of_daemon(&state_dir)?, results.id()?))).await {
                Ok((daemon, results)) => {
                    return Hello {
                        v: VERSION,
                        site: self.target.site.clone(),
                        daemon,
                        results,
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        host: crate::host(),
                    };
                }
                // What is wrong with the directory is told by who needs it for jobs.
                Err(error) => self.shown.set(LinkState::Unlinked, Some(error.to_string())),
            };
            sleep(backoff.pause()).await;
        }
    }

    /// Tells a person how it is, if that is news.
    pub(super) fn tell(&self, state: LinkState, trouble: Option<String>) {
        if !self.shown.set(state, trouble.clone()) {
            return;
        }
        let Target { edge, site, .. } = &self.target;
        match (state, trouble) {
            (LinkState::Linked, _) => tracing::info!("linked to the hub at {edge} as site {site}"),
            (LinkState::Reporting, why) => tracing::warn!(
                "no WebSocket to the hub at {edge} gets through, so it is told every {} s as site {site}: {}",
                self.timing.report.as_secs(),
                why.unwrap_or_default()
            ),
            (LinkState::Unlinked | LinkState::Unknown, why) => tracing::warn!(
                "not linked to the hub, which is tried again; jobs go on without it: {}",
                why.unwrap_or_default()
            ),
        }
    }
}
