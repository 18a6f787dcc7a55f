//! The link to the hub: what the daemon holds and does goes up, a bell and what people want come down.
//!
//! One WebSocket, outbound, for as long as the daemon lives; requests every half minute where none gets through. It
//! exists only where a site key is set. A hub that is lost, slow or lying costs freshness: nothing that comes down can
//! start or change a job, nothing is waited for, and every buffer on the way is bounded.
//!
//! ```text
//!  the loop (daemon.rs)                      a task
//!  Desk ── reports, one at a time ─────────► contact ─► socket ═══ hub
//!   ▲  lifecycle::Reporter                    │  ▲
//!   └── Said: linked, stored, asked, woken ◄──┘  └── log pieces ◄── tails (a task for each)
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`desk`] | the loop's side: what is told when, and what follows from what is said |
//! | [`contact`] | when a connection is tried, in which way, and what a person is told of it |
//! | [`socket`] | one connection: the handshake, then messages both ways |
//! | [`upload`] | one request with reports, where no WebSocket gets through |
//! | [`answers`] | what a server that refuses says |
//! | [`cancels`] | jobs that the hub says are not wanted, marked in `RESULTS_DIR` |
//! | [`tails`] | what jobs print, read while somebody looks |
//! | [`identity`] | the names by which the hub knows this daemon and its `RESULTS_DIR` |
//!
//! Out of scope: what there is to tell of a job (`lifecycle::Reporter`), what the hub makes of it (`edge::hub`).

mod answers;
mod cancels;
mod contact;
mod desk;
mod identity;
mod socket;
mod tails;
#[cfg(test)]
mod tests;
mod upload;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use protocol::link::{Down, Download, Hello, JobReport, Report, VERSION};
use protocol::{JobId, JobResult, JobState, Json, SiteName, Timestamp, timestamp_from_millis};
use queues::Address;
use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use self::contact::{Contact, Timing};
pub(crate) use self::desk::{Desk, Next};
use self::tails::Followed;
use crate::job::{JobFiles, ResultsDir};
use crate::store::Store;
use crate::transfers::UnderWay;
use crate::{blocking, lock};

/// The header with the key of the site.
pub(crate) const KEY_HEADER: &str = "x-site-key";

/// For how long a transfer tries again by itself while nothing goes on; after that it is tried again with growing
/// pauses, and people are told why.
const STORE_PATIENCE: Duration = Duration::from_secs(15);

/// How much may be said before the loop has heard it.
const SAID_MAX: usize = 64;

/// Where the hub is, and who we are there.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The edge.
    pub(crate) edge: Address,
    pub(crate) key: HeaderValue,
    /// The settings that a person changes, and where they stand.
    pub(crate) url_origin: String,
    pub(crate) key_origin: String,
    pub(crate) site: SiteName,
}

impl Target {
    /// The store of files behind the edge.
    pub(crate) fn store(&self) -> anyhow::Result<transfer::Store> {
        let http = queues::http_client(&self.edge).context("cannot set up HTTPS to the store of files")?;
        let edge = transfer::Edge {
            address: self.edge.clone(),
            key_header: KEY_HEADER,
            key: self.key.clone(),
            key_origin: self.key_origin.clone(),
            setting: "EDGE_URL",
        };
        Ok(transfer::Store::new(http, edge).patient_for(STORE_PATIENCE))
    }

    /// What a person is told before a daemon runs.
    pub(crate) fn summary(&self) -> String {
        format!("linked to the hub at {} as site {}", self.edge, self.site)
    }
}

/// How the link is, for `hpc-consumer status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LinkView {
    pub(crate) url: String,
    pub(crate) site: String,
    pub(crate) state: LinkState,
    /// Since when it is so.
    pub(crate) since: Timestamp,
    /// What keeps it from being linked, or did so last.
    pub(crate) trouble: Option<String>,
}

/// How the hub is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LinkState {
    /// It is not.
    Unlinked,
    /// By a WebSocket.
    Linked,
    /// By requests, because no WebSocket gets through.
    Reporting,
    #[serde(other)]
    Unknown,
}

/// The same, shared between who knows it and who shows it.
#[derive(Debug, Clone)]
pub(crate) struct Shown(Arc<Mutex<LinkView>>);

impl Shown {
    fn new(target: &Target) -> Self {
        let (url, site) = (target.edge.to_string(), target.site.to_string());
        let view = LinkView { url, site, state: LinkState::Unlinked, since: Timestamp::now(), trouble: None };
        Self(Arc::new(Mutex::new(view)))
    }

    pub(crate) fn view(&self) -> LinkView {
        lock(&self.0).clone()
    }

    /// Returns whether that is news.
    fn set(&self, state: LinkState, trouble: Option<String>) -> bool {
        let mut view = lock(&self.0);
        let news = (view.state, &view.trouble) != (state, &trouble);
        if view.state != state {
            view.since = Timestamp::now();
        }
        (view.state, view.trouble) = (state, trouble);
        news
    }
}

/// What the loop hears.
#[derive(Debug)]
enum Said {
    /// The hub has welcomed us. What is told goes here.
    Connected(Up),
    /// That connection is over.
    Disconnected,
    /// A try to link has come to nothing, or what came of it is over; another one follows.
    Failed,
    /// A report is stored.
    Stored(u64),
    /// The hub wants to hear of these jobs.
    Asked(Vec<JobId>),
    /// There may be something in the queue.
    Woken,
    /// These jobs are not wanted any more, and marked so.
    Cancelled(Vec<JobId>),
    /// The final records of jobs that were looked up.
    LookedUp(Vec<(JobId, Option<String>)>),
    /// It is to be known how far other jobs are than those before.
    Followed,
}

/// The way to the hub, as long as one connection lasts.
#[derive(Debug)]
struct Up {
    reports: mpsc::Sender<protocol::link::Report>,
    /// Does the hub tell when there is something in the queue?
    rings: bool,
}

/// Does the edge have a hub, and take our key? Nothing is told there. The error is a sentence for a person.
pub(crate) async fn reach(target: &Target) -> Result<(), String> {
    let http = queues::http_client(&target.edge).map_err(|error| format!("cannot set up HTTPS to the hub: {error}"))?;
    let socket = target.connect(&http, Timing::default().answer).await;
    socket.map(drop).map_err(|trouble| trouble.text().to_owned())
}

/// Tells the hub of the result of a job that has changed after its end. Not as the daemon with this state, whose link
/// that would cut.
pub(crate) async fn tell_once(
    target: &Target,
    state_dir: &Path,
    results: &ResultsDir,
    result: &JobResult,
    record: &str,
) -> Result<(), String> {
    let http = queues::http_client(&target.edge).map_err(|error| format!("cannot set up HTTPS to the hub: {error}"))?;
    let (state_dir, results, site) = (state_dir.to_owned(), results.clone(), target.site.clone());
    let hello = blocking(move || {
        let daemon = format!("{}-resend", identity::of_daemon(&state_dir)?);
        let (version, host) = (env!("CARGO_PKG_VERSION").to_owned(), crate::host());
        std::io::Result::Ok(Hello { v: VERSION, site, daemon, results: results.id()?, version, host })
    });
    let hello = hello.await.map_err(|error| error.to_string())?;
    let job = JobReport {
        job_id: result.job_id.clone(),
        state: JobState::of(result).into(),
        attempt: result.attempt,
        // Of two words of one end the later one counts.
        at: timestamp_from_millis(Timestamp::now().as_millisecond()),
        task: result.task.clone(),
        name: None,
        pool: result.pool.clone(),
        parent: None,
        children: None,
        message: None,
        again_at: None,
        result: Json::parse(record).ok(),
    };
    let report = Report { number: 1, jobs: vec![job], ..Report::default() };
    let told = target.upload(&http, &hello, Some(report)).await;
    let Download { down } = told.map_err(|trouble| trouble.text().to_owned())?;
    if down.iter().any(|down| matches!(down, Down::Ack { .. })) {
        return Ok(());
    }
    Err(format!("{} has not stored it", target.edge))
}

/// Begins to link: returns the loop's side.
pub(crate) fn begin(
    target: Target,
    state_dir: PathBuf,
    files: Arc<JobFiles>,
    store: Store,
    under_way: UnderWay,
) -> anyhow::Result<Desk> {
    begin_with(target, state_dir, files, store, under_way, Timing::default())
}

fn begin_with(
    target: Target,
    state_dir: PathBuf,
    files: Arc<JobFiles>,
    store: Store,
    under_way: UnderWay,
    timing: Timing,
) -> anyhow::Result<Desk> {
    let http = queues::http_client(&target.edge).context("cannot set up HTTPS to the hub")?;
    let (said, hears) = mpsc::channel(SAID_MAX);
    let (shown, followed) = (Shown::new(&target), Followed::default());
    let contact = Contact {
        target,
        http,
        state_dir,
        results: files.results().clone(),
        said: said.clone(),
        shown: shown.clone(),
        followed: followed.clone(),
        timing,
    };
    tokio::spawn(contact.keep());
    Ok(Desk::new(hears, said, files, store, shown, followed, under_way))
}
