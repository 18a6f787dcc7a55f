//! A node as the pure crate `lifecycle` meets it: the files of its jobs and the executor of its runs, without the
//! daemon around them. Tests hold the stand-ins of the simulation against it.
//!
//! Out of scope: the queue, and what is remembered in `STATE_DIR` by anybody but the keeper.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lifecycle::{Effect, Event};
use protocol::{JobId, JobMessage};
use queues::PlainHttp;
use reqwest::header::HeaderValue;
use site::{Grant, Site};
use tokio::sync::{mpsc, watch};

use crate::events::{self, Heard};
use crate::executor::{Executor as _, Here};
use crate::job::{FileSettings, JobFiles, ResultsDir, Tell, Within};
use crate::keeper::Keeper;
use crate::link::KEY_HEADER;
use crate::run::Kit;

/// Where a node works, and as whom. Its runs are in no container.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `STATE_DIR`, of which only the part of the keeper is used.
    pub state_dir: PathBuf,
    /// `RESULTS_DIR`, which other nodes may share.
    pub results_dir: PathBuf,
    /// Who it is among these.
    pub owner: String,
    /// For how long another one shows no sign of life before its jobs are taken over.
    pub stale: Duration,
    /// How often its keeper shows that it is alive.
    pub beat: Duration,
    /// The command of every job.
    pub command: Vec<String>,
    /// What is in the environment of that command.
    pub environment: Vec<(OsString, OsString)>,
    /// The edge whose store of files it uses: its address, and the key of sites.
    pub edge: (String, String),
}

/// What a daemon has of its node, for as long as the daemon lives.
#[derive(Debug)]
pub struct Node {
    files: Arc<JobFiles>,
    executor: Here,
    heard: mpsc::UnboundedReceiver<Heard>,
}

impl Node {
    /// The node as a daemon finds it that starts.
    pub fn new(settings: Settings) -> Self {
        let Settings { state_dir, results_dir, owner, stale, beat, command, environment, edge } = settings;
        let results = ResultsDir::new(results_dir).marked_by(&state_dir, &owner);
        let grace = Duration::from_secs(1);
        let (time_limit, log_max) = (Duration::from_hours(1), 64 * 1024);
        let settings = site::Settings {
            runtime: site::Runtime::Bare,
            image: None,
            command,
            binds: Vec::new(),
            arguments: Vec::new(),
            slots: 1,
            defaults: site::Defaults { time_limit, grace, log_max, ..site::Defaults::default() },
        };
        let keeper = Keeper::new(state_dir, results.heart(&owner), beat, grace);
        let (site, kit) = (Arc::new(Site::from_settings(&settings)), Kit::bare(environment));
        let (events, heard) = events::channel();
        let files = JobFiles::new(results, site, kit, Vec::new(), None, crate::host(), owner, stale);
        let (store, kept) = (store(&edge.0, &edge.1), FileSettings::default());
        let files = files.with_files(FileSettings { store, ..kept });
        Self { files: Arc::new(files), executor: Here::new(keeper, events), heard }
    }

    /// Removes what an earlier daemon has left of files on their way, as one that starts does.
    pub async fn clean(&self) {
        self.files.clean_files(false).await;
    }

    /// Carries out an effect that concerns the node, for this job. `at` is the time by which signs of life of others
    /// are judged. What comes of effects on the executor is heard ([`Self::hear`]).
    pub async fn carry_out(&self, effect: Effect, job: &JobMessage, at: Instant) -> Option<Event> {
        match effect {
            Effect::Probe(pool) => {
                let outcome = self.files.probe(pool.as_ref()).await;
                return Some(Event::Probed(pool, outcome));
            }
            Effect::Claim { job_id, last_attempt, rerunnable, round } => {
                let claimed = self.files.claim_at(job, last_attempt, rerunnable, round, at).await;
                return Some(Event::Claimed(job_id, claimed));
            }
            Effect::Unclaim(run) => {
                let outcome = self.files.unclaim(&run).await;
                return Some(Event::Unclaimed(run, outcome));
            }
            Effect::Conclude { run, ending, may_retry } => {
                let concluded = self.files.conclude(job, &run, ending, may_retry).await;
                return Some(Event::Concluded(run, concluded));
            }
            Effect::PutAway { lease_id, job_id, body, problem } => {
                return Some(match self.files.put_away(job_id, body, problem).await {
                    Ok(record) => Event::PutAway { lease_id, record },
                    Err(error) => Event::PutAwayFailed { lease_id, problem: error.into() },
                });
            }
            Effect::Unfold { run, alive, room } => {
                let whole = std::future::ready(Ok::<_, std::convert::Infallible>(Arc::new(job.clone())));
                let Ok(unfolded) = self.files.unfold(whole, run.clone(), alive, room).await;
                return Some(Event::Unfolded(run, unfolded));
            }
            Effect::Stage(job_id) => {
                let (_stop, stopped) = watch::channel(false);
                let staged = self.files.stage(&Arc::new(job.clone()), stopped, &unheard()).await?;
                return Some(Event::Staged(job_id, staged));
            }
            Effect::Unstage(job_id) => self.files.unstage(&job_id).await,
            Effect::Upload(run) => {
                let uploaded = self.files.upload(job, &run, &unheard()).await;
                return Some(Event::Uploaded(run, uploaded));
            }
            Effect::Observe => self.executor.observe(),
            Effect::Reconciled => self.executor.reconciled(),
            Effect::Start(run) => {
                self.executor.start(self.files.start_line(job, &run, Within::first(&Grant::default())))
            }
            Effect::End(run, why) => self.executor.end(&run, why),
            Effect::Forget(runs) => self.executor.forget(&runs),
            // These do not concern the node.
            Effect::Pull(_)
            | Effect::StopUpload(_)
            | Effect::Serve(_)
            | Effect::Withdraw(_)
            | Effect::Recall(_)
            | Effect::Publish(_)
            | Effect::Settle { .. }
            | Effect::Say(_)
            | Effect::Exit
            | Effect::Fail(_) => {}
        }
        None
    }

    /// The next that the executor tells.
    pub async fn hear(&mut self) -> Option<Event> {
        self.heard.recv().await?.ok()
    }

    /// The final record of a job, if it is to be seen here.
    pub async fn final_record(&self, job_id: &JobId) -> Option<String> {
        self.files.final_record(job_id).await
    }
}

/// The store behind this edge. It is asked once, so that what comes of it is known at once.
fn store(url: &str, key: &str) -> Result<transfer::Store, String> {
    let address = transfer::Edge::address(url, PlainHttp::OwnListener).map_err(|error| error.to_string())?;
    let http = queues::http_client(&address).map_err(|error| error.to_string())?;
    let key = HeaderValue::from_str(key).map_err(|error| error.to_string())?;
    let key_origin = "SITE_KEY".to_owned();
    let edge = transfer::Edge { address, key_header: KEY_HEADER, key, key_origin, setting: "EDGE_URL" };
    Ok(transfer::Store::new(http, edge).patient_for(Duration::ZERO))
}

/// Nobody is told how far it is.
fn unheard() -> Tell {
    Arc::new(|_| ())
}
