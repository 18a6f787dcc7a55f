//! A log of bounded size: the beginning of what a run prints, and the end, with a line between them that tells how
//! much was left out. A job that prints for ever costs no more than this.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

use protocol::limits;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How much of the end is kept when not all is.
const TAIL_BYTES: usize = 64 * 1024;

/// A log file that is being written.
pub(super) struct LogFile {
    path: PathBuf,
    head_bytes: u64,
    tail_bytes: usize,
}

impl LogFile {
    pub(super) fn new(path: PathBuf, bytes_max: u64) -> Self {
        let tail_bytes = usize::try_from(bytes_max / 2).unwrap_or(TAIL_BYTES).min(TAIL_BYTES);
        Self { path, head_bytes: bytes_max - tail_bytes as u64, tail_bytes }
    }

    /// Writes what comes until its end, and returns the last bytes for the result.
    ///
    /// The stream is read to its end even if the file cannot be written, because a job must not block or die on a full
    /// pipe; what the disk did not take is missing from the log and nowhere else.
    pub(super) async fn keep(self, mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
        let mut file = open(&self.path).inspect_err(|error| self.complain(error)).ok();
        let mut buffer = vec![0; 8 * 1024];
        let mut tail: VecDeque<u8> = VecDeque::new();
        let mut written = 0;
        let mut left_out = 0;
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            let bytes = &buffer[..count];
            let room = usize::try_from(self.head_bytes - written).unwrap_or(usize::MAX);
            let (head, rest) = bytes.split_at(count.min(room));
            written += head.len() as u64;
            if let Some(open) = &mut file
                && let Err(error) = open.write_all(head)
            {
                self.complain(&error);
                file = None;
            }
            // The tail serves the result as well, so it holds the last bytes even when all of them fit the head.
            tail.extend(bytes);
            let surplus = tail.len().saturating_sub(self.tail_bytes.max(limits::STDERR_TAIL_BYTES_MAX));
            tail.drain(..surplus);
            left_out += rest.len() as u64;
        }
        let tail = Vec::from(tail);
        if let Some(mut file) = file
            && left_out > 0
        {
            let end = &tail
                [tail.len().saturating_sub(self.tail_bytes.min(usize::try_from(left_out).unwrap_or(usize::MAX)))..];
            let skipped = left_out - end.len() as u64;
            let notice = format!("\n[hpc-queue: {skipped} bytes left out]\n");
            if let Err(error) = file.write_all(notice.as_bytes()).and_then(|()| file.write_all(end)) {
                self.complain(&error);
            }
        }
        tail[tail.len().saturating_sub(limits::STDERR_TAIL_BYTES_MAX)..].to_vec()
    }

    fn complain(&self, error: &io::Error) {
        tracing::warn!("cannot write {}: {error}", self.path.display());
    }
}

/// A new file; what an earlier attempt left in its place, a link or a FIFO even, was removed by the caller.
fn open(path: &PathBuf) -> io::Result<File> {
    File::options().write(true).create_new(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn log_of(bytes_max: u64, input: Vec<u8>) -> (String, Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let tail = LogFile::new(path.clone(), bytes_max).keep(input.as_slice()).await;
        (String::from_utf8(std::fs::read(path).unwrap()).unwrap(), tail)
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
