//! The program that speaks with a vendor: one for each machine, and one question at a time.
//!
//! ```text
//! {"id":7,"op":"submit","tag":"hpc-queue-…","payload":{…}}  ─►  {"id":7,"ok":true,"vendor_id":"…"}
//! ```
//!
//! What it answers is not believed in: it has a time, a length and a form (`wire`). One that takes longer, or says too
//! much, is killed, so that no answer of it comes late. One that has died is started again, with growing pauses.
//!
//! Invariant: the adapter of an earlier broker has ended before one is started here. It could otherwise still submit
//! what has just been looked up and not found. Each adapter inherits a lock for that, which the system lets go of when
//! the last of them is gone.

mod process;
mod secrets;
mod wire;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lease::{Answer, Ask, Event, FaultKind, QpuName, Question};
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) use self::secrets::Secrets;

use self::process::{Process, Trouble};
use crate::desk::{Message, Ways};
use crate::state::Store;

/// What adapters inherit, in the state directory.
const LOCK: &str = "adapters.lock";

/// How often it is tried, and when it is told that it cannot be had.
const LOCK_EVERY: Duration = Duration::from_millis(20);
const LOCK_TOLD_AFTER: Duration = Duration::from_secs(10);

/// The longest pause before an adapter is started again.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How to start an adapter, and what is expected of it.
pub(crate) struct Program {
    pub(crate) qpu: QpuName,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Where it is started.
    pub(crate) folder: PathBuf,
    /// All that it has in its environment besides what is secret.
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) secrets: Secrets,
    /// How long one answer may take.
    pub(crate) timeout: Duration,
    /// How long one answer may be, in bytes.
    pub(crate) answer_max: usize,
}

/// All adapters, and the way to each.
pub(crate) struct Adapters {
    ways: BTreeMap<QpuName, mpsc::UnboundedSender<Ask>>,
    running: JoinSet<()>,
}

impl Adapters {
    /// Takes questions from now on. The programs are started when there is one.
    pub(crate) fn start(
        programs: BTreeMap<QpuName, Program>,
        state_dir: &Path,
        store: &Store,
        desk: &Ways,
        stopping: &watch::Receiver<bool>,
    ) -> Self {
        let lock = Arc::new(Lock { path: state_dir.join(LOCK), held: OnceCell::new() });
        let (mut ways, mut running) = (BTreeMap::new(), JoinSet::new());
        for (name, program) in programs {
            // No more wait than tasks are in flight.
            let (way, asks) = mpsc::unbounded_channel();
            ways.insert(name, way);
            let (store, desk, stopping) = (store.clone(), desk.clone(), stopping.clone());
            let adapter = Adapter { program, process: None, deaths: 0, not_before: Instant::now(), lock: lock.clone() };
            running.spawn(adapter.run(asks, store, desk, stopping));
        }
        Self { ways, running }
    }

    /// Asks a question. Once it is told to stop, an adapter hears none any more.
    pub(crate) fn ask(&self, ask: Ask) {
        if let Some(way) = self.ways.get(&ask.qpu) {
            // Its end is the end of the program.
            let _ = way.send(ask);
        }
    }

    /// Waits until all have ended that were told to stop.
    pub(crate) async fn ended(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// What tells whether an adapter of an earlier broker still runs.
struct Lock {
    path: PathBuf,
    held: OnceCell<File>,
}

impl Lock {
    async fn hold(&self) -> std::io::Result<()> {
        self.held.get_or_try_init(|| self.take()).await.map(drop)
    }

    async fn take(&self) -> std::io::Result<File> {
        let file = files::open_lock(&self.path)?;
        let begun = Instant::now();
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {}
            }
            if !told && begun.elapsed() > LOCK_TOLD_AFTER {
                told = true;
                tracing::warn!(
                    "an adapter of an earlier broker still runs and holds {}; nothing is asked until it has ended. An \
                     adapter ends when its standard input does; find it with `fuser {0}` and end it",
                    self.path.display()
                );
            }
            tokio::time::sleep(LOCK_EVERY).await;
        }
        // From here on what is started has it as well.
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
        Ok(file)
    }
}

/// The adapter of one machine.
struct Adapter {
    program: Program,
    process: Option<Process>,
    /// How often in a row it ended without having answered anything.
    deaths: u32,
    /// It is not started before.
    not_before: Instant,
    lock: Arc<Lock>,
}

impl Adapter {
    async fn run(
        mut self,
        mut asks: mpsc::UnboundedReceiver<Ask>,
        store: Store,
        desk: Ways,
        mut stopping: watch::Receiver<bool>,
    ) {
        let lock = self.lock.clone();
        loop {
            let ask = tokio::select! {
                biased;
                // What has not been asked yet is not asked any more.
                _ = stopping.wait_for(|stopping| *stopping) => break,
                ask = asks.recv() => ask,
            };
            let Some(ask) = ask else { break };
            let answer = tokio::select! {
                answer = self.answer(&ask, &store) => answer,
                // As long as nothing was sent nobody has to be waited for.
                () = never_sent(&mut stopping, &lock) => break,
            };
            desk.tell(Message::Event(Event::Answered(ask.task, ask.number, answer)));
        }
        if let Some(process) = self.process.take() {
            process.end().await;
        }
    }

    async fn answer(&mut self, ask: &Ask, store: &Store) -> Answer {
        let payload = match &ask.question {
            Question::Submit => {
                let id = ask.task.clone();
                match store.call(move |state| state.payload(&id)).await {
                    Ok(Some(payload)) => Some(payload),
                    Ok(None) => return wire::fault(FaultKind::Refused, "its payload is not there any more"),
                    Err(error) => return wire::fault(FaultKind::Unreachable, &format!("the state: {error}")),
                }
            }
            _ => None,
        };
        if let Err(why) = self.ready().await {
            tracing::debug!(qpu = self.program.qpu.as_str(), "the adapter cannot be asked: {why}");
            return wire::fault(FaultKind::Unreachable, &why);
        }
        let Some(process) = &mut self.process else {
            return wire::fault(FaultKind::Unreachable, "the adapter does not run");
        };
        let request = wire::request(ask, payload.as_deref());
        let asked = process.ask(&request, ask.number, &self.program).await;
        let (answer, why) = match asked {
            Ok(line) => {
                self.deaths = 0;
                return wire::answer(&ask.question, &line);
            }
            // As many times as it is asked for, it will be too long.
            Err(Trouble::TooLong(why)) if matches!(ask.question, Question::Result(_)) => (FaultKind::Refused, why),
            Err(Trouble::TooLong(why) | Trouble::NoAnswer(why)) => (FaultKind::Unknown, why),
        };
        tracing::warn!(qpu = self.program.qpu.as_str(), "the adapter: {why}; it is started again");
        self.died().await;
        wire::fault(answer, &format!("the adapter: {why}"))
    }

    /// Sees to it that the process runs.
    async fn ready(&mut self) -> Result<(), String> {
        if let Some(process) = &mut self.process {
            let Some(ended) = process.has_ended() else { return Ok(()) };
            tracing::warn!(qpu = self.program.qpu.as_str(), "the adapter has ended ({ended}); it is started again");
            self.died().await;
        }
        self.lock.hold().await.map_err(|error| format!("cannot lock {}: {error}", self.lock.path.display()))?;
        let now = Instant::now();
        if now < self.not_before {
            let seconds = (self.not_before - now).as_secs() + 1;
            return Err(format!("the adapter has ended {} times, and is started in {seconds} s", self.deaths));
        }
        match Process::start(&self.program) {
            Ok(process) => {
                self.process = Some(process);
                Ok(())
            }
            Err(error) => {
                let why = format!("the adapter {} cannot be started: {error}", self.program.program.display());
                self.died().await;
                Err(why)
            }
        }
    }

    async fn died(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
        // The first time at once: it may have ended long ago, and nobody has noticed.
        let pause = if self.deaths == 0 { Duration::ZERO } else { Duration::from_secs(1 << self.deaths.min(6)) };
        self.not_before = Instant::now() + pause.min(PAUSE_MAX);
        self.deaths = self.deaths.saturating_add(1);
    }
}

/// Resolves when it is to stop and no adapter was started by this broker at all.
async fn never_sent(stopping: &mut watch::Receiver<bool>, lock: &Lock) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
    if lock.held.initialized() {
        std::future::pending::<()>().await;
    }
}
