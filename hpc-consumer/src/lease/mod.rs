//! The lease of quantum machines, as the daemon sees it: the program `qpu-broker`, which has the credential, is kept
//! running beside it, and which jobs may ask it is told there.
//!
//! ```text
//! STATE_DIR/lease/
//!   started             what the broker was started with, as one digest
//!   control.sock        where jobs begin and end
//!   lease.sqlite        the tasks
//!   sockets/<job_id>/   the directory that a container is shown at /run/hpc-queue
//!   broker.log          what it has to tell a person
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`broker`] | the program: where it is, what it says of the file of the machines, how it is started |
//! | [`control`] | what is asked through its control socket |
//! | [`tend`] | the loop that keeps it running, and ends jobs there |
//! | [`book`] | which jobs it has, and how they stand here |
//!
//! A broker outlives the daemon, as runs do: they go on asking it. The next daemon takes it up, unless the file of its
//! machines, the files of its secrets or the program itself have changed: then another one takes its place, in whose
//! state is all that this one knew. A daemon that ends with no run going on ends it; after one that died it ends by
//! itself, once there is no job and no task.
//!
//! A job is begun there before its first attempt is launched, under its own id, and ends there when it has its final
//! record. So what it has asked for is the same in every attempt and in every round. One that went back into the queue
//! keeps it for a day.
//!
//! Out of scope: what the broker does (`qpu-broker`, crate `lease`), and who may have the lease (crate `site`).

mod book;
mod broker;
mod control;
mod tend;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use lifecycle::{Lifecycle, Phase};
use program::TrustedGroup;
use protocol::{JobId, PoolName};
use site::Site;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::book::Book;
use self::broker::{Broker, Found};
pub(crate) use self::broker::{look, missing};
use self::control::Control;
use crate::events::Events;
use crate::job::JobFiles;
use crate::lock;

/// Where a container sees the directory with the socket.
pub(crate) const IN_CONTAINER: &str = "/run/hpc-queue";

/// How long a broker may take to be there, and who asks for it waits.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long it may take to cancel what jobs had at vendors that have ended last.
const CANCELS_WITHIN: Duration = Duration::from_secs(5);

/// Between two looks at that.
const PAUSE: Duration = Duration::from_millis(100);

/// The directory that a job is shown in its container.
pub(crate) fn socket_dir(state_dir: &Path, job_id: &JobId) -> PathBuf {
    sockets(&folder(state_dir)).join(job_id.as_str())
}

/// The folder of the lease, which no job may see.
pub(crate) fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("lease")
}

fn sockets(folder: &Path) -> PathBuf {
    folder.join("sockets")
}

/// The lease of a site.
#[derive(Debug, Clone)]
pub(crate) struct Lease(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The pools some of whose jobs may have the lease.
    pools: Vec<PoolName>,
    /// None where the site has no lease any more, and a broker is there for jobs that have begun.
    broker: Option<Broker>,
    control: Control,
    book: std::sync::Mutex<Book>,
    standing: watch::Sender<Standing>,
    /// Where the records of jobs are, since it is tended.
    jobs: OnceLock<Arc<JobFiles>>,
    /// There is something to do for who tends it.
    wake: Notify,
    /// The daemon ends, and nothing is started any more.
    leaves: watch::Sender<bool>,
}

/// How the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// It is about to be there.
    Starting,
    /// It answers.
    Ready,
    /// It cannot be had for this reason.
    Not(String),
}

impl Lease {
    /// The lease of this site, if it has one or an earlier one has left a broker.
    pub(crate) fn open(state_dir: &Path, site: &Arc<Site>, trust: TrustedGroup) -> anyhow::Result<Option<Self>> {
        let folder = folder(&std::path::absolute(state_dir)?);
        if site.lease.is_none() && !folder.exists() {
            return Ok(None);
        }
        files::own_dir(&folder)
            .with_context(|| format!("the directory of the lease {} cannot be made", folder.display()))?;
        let broker = Broker::new(folder.clone(), site.clone(), trust);
        let control = Control::of(&folder).with_context(|| format!("{} cannot be opened", folder.display()))?;
        let has_lease = |pool: &&PoolName| site.plans(pool).iter().any(|plan| plan.lease);
        let pools = site.pools.keys().filter(has_lease).cloned().collect();
        Ok(Some(Self(Arc::new(Shared {
            pools,
            broker,
            control,
            book: std::sync::Mutex::default(),
            standing: watch::Sender::new(Standing::Starting),
            jobs: OnceLock::new(),
            wake: Notify::new(),
            leaves: watch::Sender::new(false),
        }))))
    }

    /// Begins to keep the broker running, for as long as this process lives.
    pub(crate) fn tend(&self, events: Events, jobs: Arc<JobFiles>) {
        // It is tended once.
        let _ = self.0.jobs.set(jobs.clone());
        tokio::spawn(tend::tend(self.0.clone(), events, jobs));
    }

    /// May jobs of this pool have the lease?
    pub(crate) fn is_of(&self, pool: &PoolName) -> bool {
        self.0.pools.contains(pool)
    }

    /// Why nothing can begin in the pools that have the lease. One that is about to be there is waited for.
    pub(crate) async fn problem(&self) -> Option<String> {
        let mut standing = self.0.standing.subscribe();
        let settled = standing.wait_for(|standing| *standing != Standing::Starting);
        match tokio::time::timeout(PATIENCE, settled).await {
            Ok(Ok(standing)) => match &*standing {
                Standing::Not(why) => Some(why.clone()),
                Standing::Starting | Standing::Ready => None,
            },
            _ => Some("the broker of the lease is not ready yet".to_owned()),
        }
    }

    /// Has a job begun there, unless it has: its socket is in its directory from now on.
    pub(crate) async fn begin(&self, job_id: &JobId) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(why) = self.problem().await {
                return Err(why);
            }
            // Whatever comes of it, it may be there now.
            lock(&self.0.book).begun(job_id);
            let Err(error) = self.0.control.begin(job_id).await else { return Ok(()) };
            if Instant::now() >= until || !error.is_gone() {
                return Err(format!("the broker of the lease does not take the job: {error}"));
            }
            // It has just died, and whoever tends it is about to see that.
            self.0.standing.send_replace(Standing::Starting);
            self.0.wake.notify_one();
        }
    }

    /// How the jobs stand that are begun there. What has its final record ends there now.
    pub(crate) fn happened(&self, lifecycle: &Lifecycle) {
        let has_ended = |job: &JobId| match lifecycle.phase_of(job) {
            Some(phase) => book::Seen::Held { has_record: phase == Phase::Recorded },
            None => book::Seen::Gone,
        };
        if lock(&self.0.book).look(Instant::now(), has_ended) {
            self.0.wake.notify_one();
        }
    }

    /// The daemon ends while no run goes on: nobody asks the broker any more. Its state stays for the next one.
    pub(crate) async fn leave(&self) {
        self.0.leaves.send_replace(true);
        if let Some(jobs) = self.0.jobs.get() {
            // What was published last is not held any more, and nobody may have looked at its record yet.
            let away = lock(&self.0.book).away();
            tend::find_records(&self.0, jobs, away).await;
        }
        self.0.end_jobs().await;
        if lock(&self.0.book).is_empty() {
            // What a vendor is to cancel it is told before that.
            let until = Instant::now() + CANCELS_WITHIN;
            while Instant::now() < until && self.0.control.in_flight().await.is_ok_and(|count| count > 0) {
                tokio::time::sleep(PAUSE).await;
            }
        }
        match self.0.control.stop(PATIENCE).await {
            Ok(Found::There) => tracing::info!("the broker of the lease has ended; tasks go on where they are"),
            Ok(Found::Nothing) => {}
            Err(error) => tracing::warn!("the broker of the lease cannot be ended, and ends by itself: {error}"),
        }
    }
}
