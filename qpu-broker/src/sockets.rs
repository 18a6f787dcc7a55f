//! One socket for each job, and one for whoever starts and ends jobs.
//!
//! Whose a request is, is told by the socket through which it came, and by nothing that is in it. A job's socket lies
//! in a directory of its own, which is what a container is shown: after a restart there is a new socket in the same
//! directory, while a socket that was shown itself would be the old one for ever.
//!
//! A path of a socket may have about 100 bytes, and a directory with the id of a job is soon longer. So it is named
//! through a descriptor of its directory, which has no length.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use protocol::JobId;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::desk::Ways;
use crate::http;
use crate::needed::{Through, Visits};

/// The socket in the directory of a job.
const NAME: &str = "qpu.sock";

/// How many connections one job may have; more wait.
const CONNECTIONS_OF_JOB: usize = 32;

/// How many open files are asked for. Half of what there is are for connections of jobs, in all; the others for their
/// sockets, the state and the adapters.
const FILES_WANTED: u64 = 16_384;

/// How long the head of a request may take, and how long a connection may be idle before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The pause after the system has refused a connection.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// All sockets of jobs.
#[derive(Clone)]
pub(crate) struct Sockets(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    ways: Ways,
    payload_max: usize,
    connections: Arc<Semaphore>,
    visits: Visits,
    stopping: watch::Receiver<bool>,
    open: Mutex<BTreeMap<JobId, Listening>>,
}

/// A socket that is listened on, until the value goes.
pub(crate) struct Listening {
    path: PathBuf,
    task: AbortHandle,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!("cannot remove {}: {error}", self.path.display());
        }
    }
}

impl Sockets {
    pub(crate) fn new(
        dir: &Path,
        ways: &Ways,
        payload_max: usize,
        visits: &Visits,
        stopping: &watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir).with_context(|| format!("where {} is cannot be told", dir.display()))?;
        let (ways, visits, stopping, open) = (ways.clone(), visits.clone(), stopping.clone(), Mutex::default());
        let connections = Arc::new(Semaphore::new(connections()));
        Ok(Self(Arc::new(Inner { dir, ways, payload_max, connections, visits, stopping, open })))
    }

    /// Listens for a job. The path is that of its socket.
    pub(crate) fn open(&self, job: &JobId) -> anyhow::Result<PathBuf> {
        let dir = self.0.dir.join(job.as_str());
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.contains_key(job) {
            files::own_dir(&dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
            let router = http::of_job(job.clone(), self.0.ways.clone(), self.0.payload_max);
            open.insert(job.clone(), self.listen(&dir.join(NAME), router, self.0.connections.clone(), Through::Job)?);
        }
        Ok(dir.join(NAME))
    }

    /// Does not listen for a job any more, and ends its connections.
    pub(crate) fn remove(&self, job: &JobId) {
        drop(self.0.open.lock().unwrap_or_else(PoisonError::into_inner).remove(job));
        let dir = self.0.dir.join(job.as_str());
        match fs::remove_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!("cannot remove {}: {error}", dir.display());
            }
            _ => {}
        }
    }

    /// Removes what a broker has left that was killed while a job ended.
    pub(crate) fn sweep(&self, jobs: &[JobId]) -> anyhow::Result<()> {
        let cannot = || format!("cannot read {}", self.0.dir.display());
        for entry in fs::read_dir(&self.0.dir).with_context(cannot)? {
            let name = entry.with_context(cannot)?.file_name();
            let job = name.to_str().and_then(|name| name.parse::<JobId>().ok());
            let Some(job) = job.filter(|job| !jobs.contains(job)) else { continue };
            // What is none of ours stays, with the directory around it.
            match clear(&self.0.dir.join(&name).join(NAME)) {
                Ok(()) => self.remove(&job),
                Err(error) => tracing::debug!("the socket of {job}, which has ended, stays: {error:#}"),
            }
        }
        Ok(())
    }

    /// Listens for whoever starts and ends jobs.
    pub(crate) fn control(&self, path: &Path) -> anyhow::Result<Listening> {
        let path = std::path::absolute(path).with_context(|| format!("where {} is cannot be told", path.display()))?;
        let router = http::control(self.clone(), self.0.ways.clone());
        // Whatever jobs do, it is answered.
        let of_all = Arc::new(Semaphore::new(CONNECTIONS_OF_JOB));
        self.listen(&path, router, of_all, Through::Control)
    }

    /// Does not listen any more. The directories of jobs stay, which are shown in their containers.
    pub(crate) fn close(&self) {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn listen(
        &self,
        path: &Path,
        router: Router,
        of_all: Arc<Semaphore>,
        through: Through,
    ) -> anyhow::Result<Listening> {
        let listener = bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        let visits = self.0.visits.clone();
        let serving = serve(listener, router, of_all, move || visits.come(through), self.0.stopping.clone());
        Ok(Listening { path: path.to_owned(), task: tokio::spawn(serving).abort_handle() })
    }
}

/// How many connections jobs may have in all. The limit of open files is raised as far as it can be.
fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let before = limit.current.unwrap_or(FILES_WANTED);
    let wanted = FILES_WANTED.min(limit.maximum.unwrap_or(FILES_WANTED)).max(before);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    let files = if raised.is_ok() { wanted } else { before };
    usize::try_from(files / 2).unwrap_or(usize::MAX).clamp(CONNECTIONS_OF_JOB, Semaphore::MAX_PERMITS)
}

/// Binds the socket of this path, which may be long.
fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    let (dir, name) = path.parent().zip(path.file_name()).context("it has no directory")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = File::from(rustix::fs::open(dir, flags, Mode::empty()).map_err(io::Error::from)?);
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    clear(&short)?;
    let listener = UnixListener::bind(&short)?;
    // Nobody else gets into the directory; this is for whoever opens that one day.
    fs::set_permissions(&short, Permissions::from_mode(files::FILE_MODE))?;
    Ok(listener)
}

/// Removes the socket that a broker has left which was killed. There is no other one: it would have the state.
pub(crate) fn clear(path: &Path) -> anyhow::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() || found.uid() != rustix::process::geteuid().as_raw() {
        bail!("something else than a socket of ours is there; move it away, or choose another directory");
    }
    Ok(fs::remove_file(path)?)
}

/// Answers what comes through one socket. With this future go its connections.
async fn serve(
    listener: UnixListener,
    router: Router,
    of_all: Arc<Semaphore>,
    come: impl Fn(),
    mut stopping: watch::Receiver<bool>,
) {
    let of_this = Arc::new(Semaphore::new(CONNECTIONS_OF_JOB));
    let mut open = JoinSet::new();
    loop {
        let accepted = async {
            // Neither is ever closed.
            let places = (of_this.clone().acquire_owned().await, of_all.clone().acquire_owned().await);
            (listener.accept().await, places)
        };
        tokio::select! {
            (accepted, places) = accepted => match accepted {
                Ok((stream, _)) => {
                    come();
                    let (router, stopping) = (router.clone(), stopping.clone());
                    open.spawn(async move {
                        converse(stream, router, stopping).await;
                        drop(places);
                    });
                }
                Err(error) => {
                    tracing::warn!("no connection can be accepted; it is tried again: {error}");
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            },
            Some(_) = open.join_next() => {}
            () = told_to_stop(&mut stopping) => break,
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    // An error is the end of what could have said so.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// One connection, to its end.
async fn converse(stream: UnixStream, router: Router, mut stopping: watch::Receiver<bool>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    let mut conversation =
        std::pin::pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = conversation.as_mut() => ended,
        () = told_to_stop(&mut stopping) => {
            conversation.as_mut().graceful_shutdown();
            conversation.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection has ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_may_have_a_long_path_and_replaces_only_one_of_ours() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a".repeat(120));
        fs::create_dir(&dir).unwrap();
        let path = dir.join("qpu.sock");
        drop(bind(&path).unwrap());
        drop(bind(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(bind(&path).unwrap_err().to_string().contains("something else"));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(bind(&path).is_err(), "no link is followed");
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert!(bind(&link.join("other.sock")).is_err(), "nor one in place of the directory");
    }
}
