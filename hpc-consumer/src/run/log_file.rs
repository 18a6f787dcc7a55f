//! A log of bounded size: the beginning of what a run prints, and the end, with a line between them that tells how
//! much was left out. A job that prints for ever costs no more than this, and one that prints nothing leaves no log.
//!
//! A thousand runs that wait must cost next to nothing: no buffer waits for what is not printed yet, and what is held
//! of the end grows only with what is printed. The file is written on another thread, so that a file system that hangs
//! under one run does not hold up the others.

use std::collections::VecDeque;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use protocol::limits;
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::blocking;

/// How much of the end is kept when not all is.
const TAIL_BYTES: usize = 16 * 1024;

/// How much is read at once.
const READ_BYTES: usize = 8 * 1024;

/// The logs of a run, in its directory. Neither may be there before it begins.
pub(crate) const STDOUT_LOG: &str = "stdout.log";
pub(crate) const STDERR_LOG: &str = "stderr.log";

/// How long the pipes may stay open once no process of the run is left that we know of.
const PIPES_PATIENCE: Duration = Duration::from_secs(5);

/// Both logs of a run, while it is kept what it prints.
pub(super) struct Logs {
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    /// Dropped when it has been enough, whoever holds the pipes open.
    enough: watch::Sender<()>,
}

impl Logs {
    /// Keeps what a child prints, in this directory.
    pub(super) fn keep(child: &mut Child, directory: OwnedFd, bytes_max: u64) -> Self {
        let directory = Arc::new(directory);
        let (enough, until) = watch::channel(());
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let keep_stdout = LogFile::new(directory.clone(), STDOUT_LOG, bytes_max).keep(stdout, until.clone());
        let keep_stderr = LogFile::new(directory, STDERR_LOG, bytes_max).keep(stderr, until);
        Self { stdout: tokio::spawn(keep_stdout), stderr: tokio::spawn(keep_stderr), enough }
    }

    /// Waits for the end of both, now that the run has ended, and returns the end of stderr. Should something that
    /// nobody could find hold the pipes open, what it prints later is not the run's.
    pub(super) async fn stderr_tail(self) -> Vec<u8> {
        let Self { stdout, mut stderr, enough } = self;
        let both = async { (stdout.await, (&mut stderr).await) };
        if let Ok((_, stderr)) = tokio::time::timeout(PIPES_PATIENCE, both).await {
            return stderr.unwrap_or_default();
        }
        drop(enough);
        // A file system that hangs may hold up the file, and must not hold up the end.
        let tail = tokio::time::timeout(PIPES_PATIENCE, stderr).await;
        tail.ok().and_then(Result::ok).unwrap_or_default()
    }
}

/// A log file that is being written.
struct LogFile {
    /// Held open: should the job be taken over, what its run still prints does not get into the directory of the next.
    directory: Arc<OwnedFd>,
    name: &'static str,
    head_bytes: u64,
    tail_bytes: usize,
    file: Output,
    written: u64,
    left_out: u64,
    tail: VecDeque<u8>,
}

enum Output {
    /// Nothing was printed so far.
    Unopened,
    Open(File),
    /// The disk does not take it.
    Broken,
}

impl LogFile {
    fn new(directory: Arc<OwnedFd>, name: &'static str, bytes_max: u64) -> Self {
        let tail_bytes = usize::try_from(bytes_max / 2).unwrap_or(TAIL_BYTES).min(TAIL_BYTES);
        Self {
            directory,
            name,
            head_bytes: bytes_max - tail_bytes as u64,
            tail_bytes,
            file: Output::Unopened,
            written: 0,
            left_out: 0,
            tail: VecDeque::new(),
        }
    }

    /// Writes what comes until its end, or until it is enough, and returns the last bytes for the result.
    ///
    /// The stream is read to its end even if the file cannot be written, because a job must not block or die on a full
    /// pipe; what the disk did not take is missing from the log and nowhere else.
    async fn keep(mut self, mut stream: impl AsyncRead + Unpin, mut enough: watch::Receiver<()>) -> Vec<u8> {
        loop {
            let bytes = tokio::select! {
                biased;
                _ = enough.changed() => None,
                bytes = poll_fn(|context| poll_some(&mut stream, context)) => bytes,
            };
            let Some(bytes) = bytes else { break };
            let head = self.take(&bytes);
            self.write(head.to_vec()).await;
        }
        self.finish().await
    }

    /// Counts what was printed, and holds the end of it. Returns what belongs to the beginning of the log.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let room = usize::try_from(self.head_bytes - self.written).unwrap_or(usize::MAX);
        let (head, rest) = bytes.split_at(bytes.len().min(room));
        self.written += head.len() as u64;
        self.left_out += rest.len() as u64;
        // The tail serves the result as well, so it holds the last bytes even when all of them fit the head.
        let needed = if self.left_out > 0 { self.tail_bytes } else { 0 };
        let kept = needed.max(limits::STDERR_TAIL_BYTES_MAX);
        let bytes = &bytes[bytes.len().saturating_sub(kept)..];
        let surplus = (self.tail.len() + bytes.len()).saturating_sub(kept);
        self.tail.drain(..surplus);
        self.tail.extend(bytes);
        head
    }

    async fn finish(mut self) -> Vec<u8> {
        let mut tail = Vec::from(std::mem::take(&mut self.tail));
        if self.left_out > 0 {
            let length = self.tail_bytes.min(usize::try_from(self.left_out).unwrap_or(usize::MAX));
            let end = &tail[tail.len().saturating_sub(length)..];
            let skipped = self.left_out - end.len() as u64;
            let mut rest = format!("\n[hpc-queue: {skipped} bytes left out]\n").into_bytes();
            rest.extend_from_slice(end);
            self.write(rest).await;
        }
        tail.split_off(tail.len().saturating_sub(limits::STDERR_TAIL_BYTES_MAX))
    }

    async fn write(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let opened = match std::mem::replace(&mut self.file, Output::Broken) {
            Output::Broken => return,
            Output::Open(file) => Some(file),
            Output::Unopened => None,
        };
        let (directory, name) = (self.directory.clone(), self.name);
        let write = move || {
            let mut file = opened.map_or_else(|| open(directory.as_fd(), name), Ok)?;
            file.write_all(&bytes).map(|()| file)
        };
        match blocking(write).await {
            Ok(file) => self.file = Output::Open(file),
            Err(error) => tracing::warn!("cannot write {} of a run: {error}", self.name),
        }
    }
}

/// What the stream has, or `None` at its end.
fn poll_some(stream: &mut (impl AsyncRead + Unpin), context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
    let mut space = [MaybeUninit::<u8>::uninit(); READ_BYTES];
    let mut buffer = ReadBuf::uninit(&mut space);
    Pin::new(stream).poll_read(context, &mut buffer).map(|read| {
        let bytes = buffer.filled();
        // A stream that cannot be read has ended, too.
        (read.is_ok() && !bytes.is_empty()).then(|| bytes.to_vec())
    })
}

/// A new file; what an earlier attempt left in its place, a link or a FIFO even, was removed by the caller.
fn open(directory: BorrowedFd<'_>, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn log_in(directory: &Path, bytes_max: u64) -> LogFile {
        LogFile::new(Arc::new(File::open(directory).unwrap().into()), "log", bytes_max)
    }

    async fn log_of(bytes_max: u64, input: Vec<u8>) -> (String, Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let (_enough, until) = watch::channel(());
        let tail = log_in(directory.path(), bytes_max).keep(input.as_slice(), until).await;
        (std::fs::read_to_string(directory.path().join("log")).unwrap(), tail)
    }

    #[tokio::test]
    async fn who_prints_nothing_leaves_no_log() {
        let directory = tempfile::tempdir().unwrap();
        let (_enough, until) = watch::channel(());
        assert!(log_in(directory.path(), 4_096).keep(b"".as_slice(), until).await.is_empty());
        assert!(!directory.path().join("log").exists());
    }

    #[tokio::test]
    async fn what_fits_is_kept_whole() {
        let (log, tail) = log_of(4_096, b"hello\n".to_vec()).await;
        assert_eq!((log.as_str(), tail.as_slice()), ("hello\n", b"hello\n".as_slice()));
    }

    #[tokio::test]
    async fn a_flood_keeps_its_beginning_and_its_end() {
        let flood: String = (0..100_000).map(|line| format!("{line}\n")).collect();
        let (log, tail) = log_of(10_000, flood.clone().into_bytes()).await;
        assert!(log.len() < 10_100, "{}", log.len());
        assert!(log.starts_with("0\n1\n2\n") && log.ends_with("99998\n99999\n"));
        assert!(log.contains(" bytes left out]"));
        assert_eq!(tail, flood.as_bytes()[flood.len() - limits::STDERR_TAIL_BYTES_MAX..]);
    }
}
