//! Contents on this machine: files that were read and hashed, and bytes.
//!
//! Guarded: what is read again is the same file, unchanged. Times alone do not tell that (a file may be written twice
//! in one tick of its clock), so each block has a checksum, and no block is passed on that is not as it was hashed.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use protocol::{Content, Digest, limits};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::body::{Chunks, FileBody};
use crate::error::{Class, Error};
use crate::{Listener, News, Step};

/// As much is read, and checked, at once.
pub(crate) const BLOCK_BYTES: u64 = 1024 * 1024;

/// As much of it is handed over at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// A file that is longer than this,
const SPARSE_BYTES_MIN: u64 = 64 * 1024 * 1024 * 1024;

/// and of which less than this part is on the disk, is a mistake of a program, or nothing but holes.
const SPARSE_PART: u64 = 64;

/// A content on this machine, with its name. A file is not kept open: when it is read again, it must still be the same
/// file, unchanged.
#[derive(Debug, Clone)]
pub struct Local {
    content: Content,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    File(Arc<Known>),
    Bytes(Bytes),
}

/// A file as it was when it was hashed.
#[derive(Debug)]
struct Known {
    path: PathBuf,
    stamp: Stamp,
    /// Of each block.
    checksums: Vec<u32>,
}

/// What tells a file from another, and from itself after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    pub(crate) size: u64,
    modified: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// Opens a file that somebody has named, to be read; a link is followed. What is no file is refused, and not waited
/// for.
pub fn open(path: &Path) -> Result<File, Error> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let file = File::from(opened.map_err(|error| Error::io("open", path, io::Error::from(error)))?);
    check(&file, path)?;
    Ok(file)
}

/// Is it a file that can travel?
fn check(file: &File, path: &Path) -> Result<(), Error> {
    let metadata = file.metadata().map_err(|error| Error::io("look at", path, error))?;
    let kind = metadata.file_type();
    if !kind.is_file() {
        let what = match kind {
            kind if kind.is_dir() => "a directory",
            kind if kind.is_fifo() => "a named pipe",
            kind if kind.is_socket() => "a socket",
            _ => "a device",
        };
        return Err(Error::local(format!("{} is {what}, and only files travel", path.display())));
    }
    let (size, on_disk) = (metadata.len(), metadata.blocks().saturating_mul(512));
    if size > limits::FILE_BYTES_MAX {
        return Err(Error::local(format!(
            "{} has {size} bytes, and no file that travels has more than {}",
            path.display(),
            limits::FILE_BYTES_MAX
        )));
    }
    if size > SPARSE_BYTES_MIN && on_disk < size / SPARSE_PART {
        return Err(Error::local(format!(
            "{} has {size} bytes, of which only {on_disk} are on the disk (it is sparse); all of them would travel: \
             compress it, and send that",
            path.display()
        )));
    }
    Ok(())
}

impl Local {
    /// Reads and hashes a file that somebody has named; a link is followed.
    pub async fn file(path: &Path, listener: &Listener<'_>) -> Result<Self, Error> {
        let opening = path.to_owned();
        let file = spawn_blocking(move || open(&opening)).await.map_err(|_| Error::of_thread())??;
        Self::opened(file, path, listener).await
    }

    /// The same of a file that is open already, as whoever does not trust its path has opened it. When it is read again
    /// it is opened by this path, and must be the same file.
    pub async fn opened(file: File, path: &Path, listener: &Listener<'_>) -> Result<Self, Error> {
        let (say, mut heard) = watch::channel((0, 0));
        let path = path.to_owned();
        let hashing = spawn_blocking(move || hash(&file, path, &say));
        // It ends with the thread. Should this future be dropped, the thread ends with that.
        while heard.changed().await.is_ok() {
            let (done, total) = *heard.borrow_and_update();
            listener(News::Progress { step: Step::Hash, done, total });
        }
        hashing.await.map_err(|_| Error::of_thread())?
    }

    /// Bytes in memory.
    pub fn bytes(bytes: Vec<u8>) -> Self {
        let sha256 = Digest::new(Sha256::digest(&bytes).into());
        Self { content: Content { sha256, size: bytes.len() as u64 }, source: Source::Bytes(bytes.into()) }
    }

    /// Its name and length.
    pub fn content(&self) -> Content {
        self.content
    }

    /// Where it is, if it is a file.
    pub fn path(&self) -> Option<&Path> {
        match &self.source {
            Source::File(known) => Some(&known.path),
            Source::Bytes(_) => None,
        }
    }

    /// As a person knows it.
    pub(crate) fn named(&self) -> String {
        self.path().map_or_else(|| format!("the content {}", self.content.sha256), |path| path.display().to_string())
    }

    /// A part of it as the body of a request. `sent` counts what the connection has taken.
    pub(crate) fn body(&self, range: Range<u64>, sent: Arc<AtomicU64>) -> (reqwest::Body, Reading) {
        match &self.source {
            Source::Bytes(bytes) => {
                let at = |at: u64| usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()));
                sent.store(range.end - range.start, Ordering::Relaxed);
                (bytes.slice(at(range.start)..at(range.end)).into(), Reading::default())
            }
            Source::File(_) if range.is_empty() => (Bytes::new().into(), Reading::default()),
            Source::File(known) => {
                let (say, heard) = mpsc::channel(1);
                let chunks = Chunks::new(heard);
                let (known, length) = (known.clone(), range.end - range.start);
                let reading = spawn_blocking(move || {
                    let read = known.read(range, &say);
                    if let Err(error) = &read {
                        // The request must end before it has all its bytes.
                        let _ = say.blocking_send(Err(error.clone()));
                    }
                    read
                });
                let body = reqwest::Body::wrap(FileBody::new(chunks.clone(), length, sent));
                (body, Reading { thread: Some(reading), chunks: Some(chunks) })
            }
        }
    }
}

/// The thread that reads a file for a request; it ends with this value.
#[derive(Default)]
pub(crate) struct Reading {
    thread: Option<JoinHandle<Result<(), Error>>>,
    chunks: Option<Chunks>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.end();
    }
}

impl Reading {
    fn end(&self) {
        if let Some(chunks) = &self.chunks {
            chunks.end();
        }
    }

    /// The request is over: what was wrong with the file, if that is what it ended of.
    pub(crate) async fn trouble(mut self) -> Option<Error> {
        self.end();
        match self.thread.take()?.await {
            Ok(read) => read.err(),
            Err(_) => Some(Error::of_thread()),
        }
    }
}

fn hash(file: &File, path: PathBuf, say: &watch::Sender<(u64, u64)>) -> Result<Local, Error> {
    check(file, &path)?;
    let reading = |error| Error::io("read", &path, error);
    let stamp = Stamp::of(file).map_err(reading)?;
    let mut block = vec![0; length(BLOCK_BYTES.min(stamp.size.max(1)))];
    let (mut sha256, mut checksums, mut done) = (Sha256::new(), Vec::new(), 0);
    while done < stamp.size {
        let here = &mut block[..length(BLOCK_BYTES.min(stamp.size - done))];
        match file.read_exact_at(here, done) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Error::changed(&path)),
            Err(error) => return Err(reading(error)),
        }
        sha256.update(&*here);
        checksums.push(crc32fast::hash(here));
        done += here.len() as u64;
        if say.send((done, stamp.size)).is_err() {
            return Err(Error::local("it is not wanted any more"));
        }
    }
    if Stamp::of(file).map_err(reading)? != stamp {
        return Err(Error::changed(&path));
    }
    let content = Content { sha256: Digest::new(sha256.finalize().into()), size: stamp.size };
    Ok(Local { content, source: Source::File(Arc::new(Known { path, stamp, checksums })) })
}

impl Known {
    fn read(&self, range: Range<u64>, say: &mpsc::Sender<Result<Bytes, Error>>) -> Result<(), Error> {
        let reading = |error| Error::io("read", &self.path, error);
        let file = open(&self.path)?;
        let mut at = range.start / BLOCK_BYTES * BLOCK_BYTES;
        while at < range.end {
            let mut block = vec![0; length(BLOCK_BYTES.min(self.stamp.size - at))];
            if Stamp::of(&file).map_err(reading)? != self.stamp {
                return Err(Error::changed(&self.path));
            }
            match file.read_exact_at(&mut block, at) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Error::changed(&self.path)),
                Err(error) => return Err(reading(error)),
            }
            let checksum = usize::try_from(at / BLOCK_BYTES).ok().and_then(|index| self.checksums.get(index));
            if checksum != Some(&crc32fast::hash(&block)) {
                return Err(Error::changed(&self.path));
            }
            let from = length(range.start.saturating_sub(at));
            let to = length(range.end - at).min(block.len());
            let mut rest = Bytes::from(block).slice(from..to);
            while !rest.is_empty() {
                let chunk = rest.split_to(CHUNK_BYTES.min(rest.len()));
                if say.blocking_send(Ok(chunk)).is_err() {
                    // The request is over.
                    return Ok(());
                }
            }
            at += BLOCK_BYTES;
        }
        Ok(())
    }
}

/// Of something in memory.
fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// What a file holds, and that it did not change meanwhile. It blocks.
pub(crate) fn digest(file: &mut File, path: &Path) -> Result<Content, Error> {
    let reading = |error| Error::io("read", path, error);
    let (mut sha256, mut size) = (Sha256::new(), 0);
    let mut block = vec![0; length(BLOCK_BYTES)];
    loop {
        match file.read(&mut block).map_err(reading)? {
            0 => break,
            read => {
                sha256.update(&block[..read]);
                size += read as u64;
            }
        }
    }
    Ok(Content { sha256: Digest::new(sha256.finalize().into()), size })
}

/// Is what an upload ended of a matter of this machine?
pub(crate) fn is_of_file(error: &Error) -> bool {
    matches!(error.class(), Class::Local | Class::Changed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;

    use super::*;

    fn read(local: &Local, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let Source::File(known) = &local.source else { panic!("it is a file") };
        let (say, mut heard) = mpsc::channel(10_000);
        known.read(range, &say)?;
        drop(say);
        let mut bytes = Vec::new();
        while let Some(chunk) = heard.blocking_recv() {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(bytes)
    }

    #[test]
    fn ranges_of_a_file_are_read_as_it_was_hashed() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        let bytes: Vec<u8> = (0..BLOCK_BYTES * 2 + 77).map(|_| fastrand::u8(..)).collect();
        fs::write(&path, &bytes).unwrap();
        let (_listening, say) = {
            let (say, heard) = watch::channel((0, 0));
            (heard, say)
        };
        let local = hash(&open(&path).unwrap(), path.clone(), &say).unwrap();
        assert_eq!(local.content().sha256.bytes()[..], Sha256::digest(&bytes)[..]);
        let size = bytes.len() as u64;
        for range in [0..size, 0..1, size - 1..size, BLOCK_BYTES - 1..BLOCK_BYTES + 1, 7..BLOCK_BYTES * 2, 5..5] {
            let part = &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            assert!(read(&local, range.clone()).unwrap() == part, "{range:?}");
        }
        // Another byte, in the same length and with the same time.
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[!bytes[0]], 0).unwrap();
        file.set_modified(before).unwrap();
        assert_eq!(read(&local, 0..1).unwrap_err().class(), Class::Changed);
        assert!(read(&local, BLOCK_BYTES..size).is_ok(), "the rest is as it was");
        // The same bytes in another file.
        fs::write(temp.path().join("other"), &bytes).unwrap();
        fs::rename(temp.path().join("other"), &path).unwrap();
        assert_eq!(read(&local, 0..size).unwrap_err().class(), Class::Changed);
        fs::remove_file(&path).unwrap();
        assert_eq!(read(&local, 0..size).unwrap_err().class(), Class::Local);
    }

    #[test]
    fn who_does_not_listen_any_more_ends_the_reading() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        fs::write(&path, "x").unwrap();
        let (say, heard) = watch::channel((0, 0));
        drop(heard);
        let error = hash(&open(&path).unwrap(), path, &say).unwrap_err();
        assert!(error.to_string().contains("not wanted any more"), "{error}");
    }

    #[tokio::test]
    async fn progress_is_told_and_bytes_have_the_same_name_as_a_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        fs::write(&path, "content").unwrap();
        let heard = Mutex::new(Vec::new());
        let local = Local::file(&path, &|news| heard.lock().unwrap().push(news)).await.unwrap();
        assert_eq!(local.content(), Local::bytes(b"content".to_vec()).content());
        let told = heard.into_inner().unwrap();
        assert_eq!(told.last(), Some(&News::Progress { step: Step::Hash, done: 7, total: 7 }));
        let error = Local::file(Path::new("/dev/null"), &crate::nobody).await.unwrap_err();
        assert_eq!(error.to_string(), "/dev/null is a device, and only files travel");
    }
}
