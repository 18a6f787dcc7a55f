//! A program that was started by us, and that no service manager holds: by whom it is found again, and how it ends.
//!
//! In the folder of the service: `service.json`, what is to run; `process.json`, what does; its log and the part before
//! it, as `daemon.log` and `daemon.log.old`.
//!
//! Out of scope: when it is started. Invariant: of several who start it at a time, one does.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use service::unit::Sort;
use service::watch::Record;
use tokio::net::UnixDatagram;

use crate::ask::{Apart, Output, start_apart, started_at};
use crate::place::Place;
use crate::words::Words;

/// How much of a log is kept, twice.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The file of a record is smaller.
const BYTES_MAX: u64 = 1024 * 1024;

/// How long a program may take until it is up. It asks the queue first, and waits for that for seconds only.
const START_MAX: Duration = Duration::from_secs(120);

/// How long one may drain, and a little more.
const STOP_MAX: Duration = Duration::from_hours(25);

/// How often its end is looked for.
const INTERVAL: Duration = Duration::from_millis(50);

/// A process that we have started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: i32,
    /// In clock ticks since the machine did.
    started: u64,
    boot_id: String,
}

/// How a start has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Started {
    /// It is up.
    Up(i32),
    /// It was running before.
    Before(i32),
    /// It runs, and has not said yet that it is up.
    NotYet(i32),
}

/// The folder of a service.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    words: &'static Words,
}

impl Folder {
    pub(crate) fn new(path: PathBuf, words: &'static Words) -> Self {
        Self { path, words }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn record_path(&self) -> PathBuf {
        self.path.join("service.json")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join(self.words.log).with_extension("log")
    }

    fn process_path(&self) -> PathBuf {
        self.path.join("process.json")
    }

    /// What is installed, if anything is.
    pub(crate) fn record(&self) -> anyhow::Result<Option<Record>> {
        let path = self.record_path();
        let text = match files::read_own_text(&path, BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let record: Record = serde_json::from_str(&text)
            .with_context(|| format!("{} cannot be understood; remove it, and install anew", path.display()))?;
        if record.v > Record::V {
            bail!("{} is of a newer {}, {}; use that one", path.display(), self.words.name, record.version);
        }
        Ok(Some(record))
    }

    /// Remembers it, also that a person has stopped it.
    pub(crate) fn write(&self, record: &Record) -> anyhow::Result<()> {
        let text = serde_json::to_string(record)? + "\n";
        let path = self.record_path();
        files::replace(&path, text.as_bytes(), files::Durability::Named)
            .map(drop)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The process id of the program that we have started, if it runs.
    pub(crate) fn running(&self) -> Option<i32> {
        let text = files::read_own_text(&self.process_path(), BYTES_MAX).ok()?;
        let Process { pid, started, boot_id } = serde_json::from_str(&text).ok()?;
        let is_here = program::boot_id().unwrap_or_default() == boot_id;
        (is_here && started_at(pid) == Some(started)).then_some(pid)
    }

    /// Starts it unless it runs, and waits until it is up.
    pub(crate) async fn start(&self, place: &Place, record: &Record) -> anyhow::Result<Started> {
        let _one = self.lock().await?;
        if let Some(pid) = self.running() {
            return Ok(Started::Before(pid));
        }
        self.bound_log();
        let log = files::open_append(&self.log()).with_context(|| format!("cannot write {}", self.log().display()))?;
        let told = self.path.join("notify");
        // Of an earlier start that was ended in between.
        let _ = fs::remove_file(&told);
        // The path may be too long for a socket: then only an end is noticed.
        let socket = UnixDatagram::bind(&told).ok();
        let mut environment = place.basics.clone();
        environment.extend(record.start.environment.iter().map(|(name, value)| (name.into(), value.into())));
        if socket.is_some() {
            environment.push(("NOTIFY_SOCKET".into(), told.clone().into()));
        }
        let start = &record.start;
        let output = if self.words.sort == Sort::Simple { Output::Dropped } else { Output::Logged };
        let directory = Path::new(&start.directory);
        let mut process = start_apart(&start.program, &start.arguments, &environment, directory, output, log)
            .with_context(|| format!("cannot start {} in {}", start.program, start.directory))?;
        let pid = i32::try_from(process.id()).unwrap_or_default();
        let noted = self.note(pid);
        let is_up = is_up(&mut process, socket).await;
        let _ = fs::remove_file(&told);
        noted?;
        match is_up? {
            Up::Yes => Ok(Started::Up(pid)),
            Up::NotYet => Ok(Started::NotYet(pid)),
            Up::Ended(status) => {
                let (what, log) = (self.words.what, self.log());
                bail!("{what} has ended ({status}); the end of its log {} says why", log.display())
            }
        }
    }

    fn note(&self, pid: i32) -> anyhow::Result<()> {
        let process = Process {
            pid,
            started: started_at(pid).unwrap_or_default(),
            boot_id: program::boot_id().unwrap_or_default(),
        };
        let text = serde_json::to_string(&process)?;
        let path = self.process_path();
        files::replace(&path, text.as_bytes(), files::Durability::Content).map(drop).with_context(|| {
            format!("cannot write {}, so that {} would not be found again", path.display(), self.words.what)
        })
    }

    /// Has it end as it does, and waits for that. Nothing is done if it does not run.
    pub(crate) async fn stop(&self) -> anyhow::Result<bool> {
        let Some(pid) = self.running() else { return Ok(false) };
        let process = Pid::from_raw(pid).context("a process has a number above 0")?;
        let what = self.words.what;
        kill_process(process, Signal::TERM).with_context(|| format!("cannot end {what}, process {pid}"))?;
        let end = async {
            while self.running() == Some(pid) {
                tokio::time::sleep(INTERVAL).await;
            }
        };
        tokio::time::timeout(STOP_MAX, end)
            .await
            .with_context(|| format!("{what}, process {pid}, has not ended; `kill -9 {pid}` ends it"))?;
        Ok(true)
    }

    /// Keeps the log from growing. The file stays the same, because a program may have it open.
    pub(crate) fn bound_log(&self) {
        let path = self.log();
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
            // Where there is no room for a copy, what is new counts more than what is old.
            let _ = files::copy_own(&path, &path.with_extension("log.old"));
            let _ = files::open_append(&path).and_then(|log| log.set_len(0));
        }
    }

    /// Goes with the value.
    async fn lock(&self) -> anyhow::Result<File> {
        let path = self.path.join("lock");
        let file = files::open_lock(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let locked = async {
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(INTERVAL).await,
                    Err(TryLockError::Error(error)) => return Err(error),
                }
            }
        };
        match tokio::time::timeout(START_MAX, locked).await {
            Ok(Ok(())) => Ok(file),
            Ok(Err(error)) => Err(error).with_context(|| {
                format!(
                    "cannot lock {}; set XDG_STATE_HOME to a directory on a file system that has locks",
                    path.display()
                )
            }),
            Err(_) => {
                let Words { name, what, .. } = self.words;
                bail!("another `{name} service` has been starting {what} for {START_MAX:?}; see to that one")
            }
        }
    }
}

enum Up {
    Yes,
    NotYet,
    Ended(ExitStatus),
}

/// Waits for its word, its end, or a while.
async fn is_up(process: &mut Apart, socket: Option<UnixDatagram>) -> anyhow::Result<Up> {
    let word = async {
        let Some(socket) = socket else { return std::future::pending().await };
        let mut bytes = [0; 4096];
        loop {
            match socket.recv(&mut bytes).await {
                Ok(length) if bytes[..length].starts_with(service::notify::READY.as_bytes()) => return,
                Ok(_) => {}
                Err(_) => return std::future::pending().await,
            }
        }
    };
    tokio::select! {
        () = word => Ok(Up::Yes),
        ended = process.end() => Ok(Up::Ended(ended?)),
        () = tokio::time::sleep(START_MAX) => Ok(Up::NotYet),
    }
}
