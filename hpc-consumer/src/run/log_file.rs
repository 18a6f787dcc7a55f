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
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use protocol::job_dir::LOGS;
use protocol::limits;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::secrets::Secrets;
use crate::{blocking, lock};

/// How much of the end is kept when not all is.
const TAIL_BYTES: usize = 16 * 1024;

/// How much is read at once.
const READ_BYTES: usize = 8 * 1024;

/// How long the pipes may stay open once no process of the run is left that we know of.
const PIPES_PATIENCE: Duration = Duration::from_secs(5);

/// How long the end of a stream may be once it stands in a JSON text: with two of them, and the largest output that
/// travels, a result is never too large.
const TAIL_TEXT_BYTES_MAX: usize = limits::STDERR_TAIL_BYTES_MAX * 3 / 2;

/// The last bytes of a stream, which can be had at any time.
type Tail = Arc<Mutex<VecDeque<u8>>>;

/// Both logs of a run, while it is kept what it prints.
pub(super) struct Logs {
    writers: [JoinHandle<()>; 2],
    stdout: Tail,
    stderr: Tail,
    /// Dropped when it has been enough, whoever holds the pipes open.
    enough: watch::Sender<()>,
}

/// The end of what a run has printed.
#[derive(Debug)]
pub(super) struct Tails {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Logs {
    /// Keeps what a child prints, in this directory.
    pub(super) fn keep(child: &mut Child, directory: Arc<OwnedFd>, bytes_max: u64) -> Self {
        let (enough, until) = watch::channel(());
        let out = LogFile::new(directory.clone(), [LOGS[0], LOGS[2]], bytes_max);
        let err = LogFile::new(directory, [LOGS[1], LOGS[3]], bytes_max);
        let (stdout, stderr) = (out.tail.clone(), err.tail.clone());
        let out = out.keep(child.stdout.take().expect("stdout is piped"), until.clone());
        let err = err.keep(child.stderr.take().expect("stderr is piped"), until);
        Self { writers: [tokio::spawn(out), tokio::spawn(err)], stdout, stderr, enough }
    }

    /// Waits for the end of both, now that the run has ended, and returns how they ended. Should something that nobody
    /// could find hold the pipes open, what it prints later is not the run's; should a file system hang, the files
    /// come later.
    pub(super) async fn tails(self, secrets: &Secrets) -> Tails {
        let Self { writers: [out, err], stdout, stderr, enough } = self;
        let mut both = pin!(async { (out.await, err.await) });
        if tokio::time::timeout(PIPES_PATIENCE, &mut both).await.is_err() {
            drop(enough);
            let _ = tokio::time::timeout(PIPES_PATIENCE, both).await;
        }
        let text = |tail: &Tail| tail_text(&secrets.blanked(lock(tail).iter().copied().collect()));
        Tails { stdout: text(&stdout), stderr: text(&stderr) }
    }
}

/// The end of a stream as it travels.
fn tail_text(bytes: &[u8]) -> String {
    let bytes = &bytes[bytes.len().saturating_sub(limits::STDERR_TAIL_BYTES_MAX)..];
    let text = String::from_utf8_lossy(bytes);
    let mut room = TAIL_TEXT_BYTES_MAX;
    let fits = |character: &(usize, char)| {
        let fitting = room.checked_sub(bytes_in_json(character.1));
        room = fitting.unwrap_or(room);
        fitting.is_some()
    };
    let begin = text.char_indices().rev().take_while(fits).last().map_or(text.len(), |(at, _)| at);
    text[begin..].to_owned()
}

fn bytes_in_json(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => character.len_utf8(),
    }
}

/// A log file that is being written.
struct LogFile {
    /// Held open: should the job be taken over, what its run still prints does not get into the directory of the next.
    directory: Arc<OwnedFd>,
    /// The first one, unless the job has it for itself.
    names: [&'static str; 2],
    head_bytes: u64,
    tail_bytes: usize,
    file: Output,
    written: u64,
    left_out: u64,
    tail: Tail,
}

enum Output {
    /// Nothing was printed so far.
    Unopened,
    Open(File),
    /// The disk does not take it.
    Broken,
}

impl LogFile {
    fn new(directory: Arc<OwnedFd>, names: [&'static str; 2], bytes_max: u64) -> Self {
        let tail_bytes = usize::try_from(bytes_max / 2).unwrap_or(TAIL_BYTES).min(TAIL_BYTES);
        Self {
            directory,
            names,
            head_bytes: bytes_max - tail_bytes as u64,
            tail_bytes,
            file: Output::Unopened,
            written: 0,
            left_out: 0,
            tail: Tail::default(),
        }
    }

    /// Writes what comes until its end, or until it is enough.
    ///
    /// The stream is read to its end even if the file cannot be written, because a job must not block or die on a full
    /// pipe; what the disk did not take is missing from the log and nowhere else.
    async fn keep(mut self, mut stream: impl AsyncRead + Unpin, mut enough: watch::Receiver<()>) {
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
        self.finish().await;
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
        let mut tail = lock(&self.tail);
        let surplus = (tail.len() + bytes.len()).saturating_sub(kept);
        tail.drain(..surplus);
        tail.extend(bytes);
        head
    }

    async fn finish(mut self) {
        if self.left_out > 0 {
            let length = self.tail_bytes.min(usize::try_from(self.left_out).unwrap_or(usize::MAX));
            let mut end: Vec<u8> = lock(&self.tail).iter().copied().collect();
            end.drain(..end.len().saturating_sub(length));
            let skipped = self.left_out - end.len() as u64;
            let mut rest = format!("\n[hpc-queue: {skipped} bytes left out]\n").into_bytes();
            rest.append(&mut end);
            self.write(rest).await;
        }
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
        let (directory, names) = (self.directory.clone(), self.names);
        let write = move || {
            let mut file = opened.map_or_else(|| open(directory.as_fd(), names), Ok)?;
            file.write_all(&bytes).map(|()| file)
        };
        match blocking(write).await {
            Ok(file) => self.file = Output::Open(file),
            Err(error) => tracing::warn!("cannot write {} of a run: {error}", self.names[0]),
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

/// A new file; what an earlier attempt left in its place, a link or a FIFO even, was removed by the caller. What this
/// one has made there is its own.
fn open(directory: BorrowedFd<'_>, names: [&str; 2]) -> io::Result<File> {
    // Should the job empty it all the same, what comes next goes to its end.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND | OFlags::CLOEXEC;
    let open = |name: &str| rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600));
    let opened = open(names[0]).or_else(|error| if error == Errno::EXIST { open(names[1]) } else { Err(error) });
    Ok(opened?.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn log_in(directory: &Path, bytes_max: u64) -> LogFile {
        LogFile::new(Arc::new(File::open(directory).unwrap().into()), ["log", "log.ours"], bytes_max)
    }

    async fn keep(log: LogFile, input: &[u8]) -> String {
        let (_enough, until) = watch::channel(());
        let tail = log.tail.clone();
        log.keep(input, until).await;
        tail_text(&lock(&tail).iter().copied().collect::<Vec<_>>())
    }

    async fn log_of(bytes_max: u64, input: &[u8]) -> (String, String) {
        let directory = tempfile::tempdir().unwrap();
        let tail = keep(log_in(directory.path(), bytes_max), input).await;
        (std::fs::read_to_string(directory.path().join("log")).unwrap(), tail)
    }

    #[tokio::test]
    async fn who_prints_nothing_leaves_no_log() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(keep(log_in(directory.path(), 4_096), b"").await, "");
        assert!(!directory.path().join("log").exists());
    }

    #[tokio::test]
    async fn what_fits_is_kept_whole() {
        let (log, tail) = log_of(4_096, b"hello\n").await;
        assert_eq!((log.as_str(), tail.as_str()), ("hello\n", "hello\n"));
    }

    #[tokio::test]
    async fn a_flood_keeps_its_beginning_and_its_end() {
        let flood: String = (0..100_000).map(|line| format!("{line}\n")).collect();
        let (log, tail) = log_of(10_000, flood.as_bytes()).await;
        assert!(log.len() < 10_100, "{}", log.len());
        assert!(log.starts_with("0\n1\n2\n") && log.ends_with("99998\n99999\n"));
        assert!(log.contains(" bytes left out]"));
        assert_eq!(tail, flood[flood.len() - limits::STDERR_TAIL_BYTES_MAX..]);
    }

    #[tokio::test]
    async fn what_a_job_has_made_for_itself_is_left_to_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("log"), "the job's").unwrap();
        keep(log_in(directory.path(), 4_096), b"printed").await;
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!((read("log").as_str(), read("log.ours").as_str()), ("the job's", "printed"));
    }

    #[tokio::test]
    async fn a_stream_that_somebody_holds_open_has_its_tail() {
        let directory = tempfile::tempdir().unwrap();
        let (mut writer, reader) = tokio::io::duplex(64);
        let (enough, until) = watch::channel(());
        let log = log_in(directory.path(), 4_096);
        let tail = log.tail.clone();
        let kept = tokio::spawn(log.keep(reader, until));
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"why").await.unwrap();
        while lock(&tail).is_empty() {
            tokio::task::yield_now().await;
        }
        drop(enough);
        kept.await.unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("log")).unwrap(), "why");
    }

    #[test]
    fn a_tail_is_short_in_json_whatever_it_holds() {
        assert_eq!(tail_text("größer\n".as_bytes()), "größer\n");
        for byte in [b'x', 0, 0xff, b'"', b'\n'] {
            let text = tail_text(&[byte; 10_000]);
            let json = serde_json::to_string(&text).unwrap();
            assert!(!text.is_empty() && json.len() <= TAIL_TEXT_BYTES_MAX + 2, "{byte}: {}", json.len());
        }
        assert_eq!(tail_text(&[b'x'; 10_000]).len(), limits::STDERR_TAIL_BYTES_MAX);
        assert!(tail_text(&[&[0; 4_000][..], b"the end"].concat()).ends_with("the end"));
    }
}
