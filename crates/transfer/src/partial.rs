//! What has come of a content so far, in a file, and the threads that write it.
//!
//! One thread writes, one computes the SHA-256 of what is written, and one has it come to the disk meanwhile: each of
//! these takes about as long as the others, and all of them are to take as long as one.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::{Content, Digest};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{Class, Error};
use crate::get::SEGMENT_BYTES;

/// So many segments wait for the disk.
const WRITES_MAX: usize = 1;

/// So much is written before the disk is to take it, while more comes.
const SYNCED_AT_ONCE: u64 = 32 * 1024 * 1024;

/// The partial file, and the thread that writes it.
pub(crate) struct Writing {
    pub(crate) segments: mpsc::Sender<Vec<u8>>,
    thread: JoinHandle<Result<(), Error>>,
}

/// A partial file that is open.
struct Partial {
    file: Arc<File>,
    path: PathBuf,
    content: Content,
    sha256: Sha256,
    length: u64,
}

impl Writing {
    /// Opens the file; also says how much of the content is in it.
    pub(crate) async fn begin(path: &Path, content: Content) -> Result<(Self, u64), Error> {
        let path = path.to_owned();
        let opened = spawn_blocking(move || Partial::open(path, content)).await;
        let partial = opened.map_err(|_| Error::of_thread())??;
        let (length, (segments, mut given)) = (partial.length, mpsc::channel(WRITES_MAX));
        let thread = spawn_blocking(move || partial.write(&mut given));
        Ok((Self { segments, thread }, length))
    }

    /// Waits for the thread: the file is whole, or free to be gone on with.
    pub(crate) async fn finish(self) -> Result<(), Error> {
        drop(self.segments);
        self.thread.await.map_err(|_| Error::of_thread())?
    }
}

impl Partial {
    fn open(path: PathBuf, content: Content) -> Result<Self, Error> {
        let file = files::open_append(&path).map_err(|error| Error::io("write", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(Error::away(format!("another program is just writing {}", path.display())));
            }
            // As of a file system without locks.
            Err(std::fs::TryLockError::Error(_)) => {}
        }
        let reading = |error| Error::io("read", &path, error);
        let mut length = file.metadata().map_err(reading)?.len();
        if length > content.size {
            file.set_len(0).map_err(|error| Error::io("write", &path, error))?;
            length = 0;
        }
        let sha256 = if length > 0 { begun(&path, length)? } else { Sha256::new() };
        let free = room(&file);
        if free.is_some_and(|free| free < content.size - length) {
            return Err(no_room(&path, &content, length, free));
        }
        Ok(Self { file: Arc::new(file), path, content, sha256, length })
    }

    fn write(mut self, given: &mut mpsc::Receiver<Vec<u8>>) -> Result<(), Error> {
        let left = self.content.size - self.length;
        let mut hashing = Hashing::begin(std::mem::take(&mut self.sha256), left);
        let mut syncing = Syncing::begin(&self.file, left);
        while let Some(segment) = given.blocking_recv() {
            if let Err(error) = (&*self.file).write_all(&segment) {
                return Err(self.of_disk(error));
            }
            self.length += segment.len() as u64;
            syncing.wrote(segment.len() as u64);
            hashing.update(segment);
        }
        if self.length < self.content.size {
            // It was given up; what is there is gone on with.
            return Ok(());
        }
        syncing.end().and_then(|()| self.file.sync_all()).map_err(|error| self.of_disk(error))?;
        let found = Digest::new(hashing.finish()?.finalize().into());
        if found == self.content.sha256 {
            return Ok(());
        }
        // Nothing of it is to be gone on with.
        let _ = self.file.set_len(0);
        Err(Error::new(
            Class::Wrong,
            format!(
                "what came is not the content {} of {} bytes: its SHA-256 is {found}",
                self.content.sha256, self.content.size
            ),
        ))
    }

    fn of_disk(&self, error: io::Error) -> Error {
        if files::is_no_room(&error) {
            let length = self.file.metadata().map_or(self.length, |metadata| metadata.len());
            return no_room(&self.path, &self.content, length, room(&self.file));
        }
        Error::io("write", &self.path, error)
    }
}

/// The SHA-256 of what is written. Of much it is computed on a thread of its own: it takes as long as to write it.
enum Hashing {
    Here(Sha256),
    Beside(std::sync::mpsc::SyncSender<Vec<u8>>, std::thread::JoinHandle<Sha256>),
}

impl Hashing {
    /// Goes on with so many bytes.
    fn begin(sha256: Sha256, bytes: u64) -> Self {
        if bytes <= 2 * SEGMENT_BYTES {
            return Self::Here(sha256);
        }
        let (segments, given) = std::sync::mpsc::sync_channel::<Vec<u8>>(0);
        let mut beside = sha256.clone();
        let hash = move || {
            given.iter().for_each(|segment| beside.update(&segment));
            beside
        };
        match std::thread::Builder::new().name("sha256".to_owned()).spawn(hash) {
            Ok(thread) => Self::Beside(segments, thread),
            // This user may start no more of them: then it takes longer.
            Err(_) => Self::Here(sha256),
        }
    }

    fn update(&mut self, segment: Vec<u8>) {
        match self {
            Self::Here(sha256) => sha256.update(&segment),
            // Should it have panicked, that is seen in the end.
            Self::Beside(segments, _) => drop(segments.send(segment)),
        }
    }

    fn finish(self) -> Result<Sha256, Error> {
        match self {
            Self::Here(sha256) => Ok(sha256),
            Self::Beside(segments, thread) => {
                drop(segments);
                thread.join().map_err(|_| Error::of_thread())
            }
        }
    }
}

/// Has what is written come to the disk while more is written, of much: otherwise all of it would be waited for in the
/// end. It ends before this value does, so that nobody holds the file any more then.
struct Syncing {
    wake: Option<std::sync::mpsc::SyncSender<()>>,
    thread: Option<std::thread::JoinHandle<io::Result<()>>>,
    /// So much was written since it was woken.
    bytes: u64,
}

impl Syncing {
    fn begin(file: &Arc<File>, bytes: u64) -> Self {
        let (wake, woken) = std::sync::mpsc::sync_channel(1);
        let file = file.clone();
        let sync = move || woken.iter().try_for_each(|()| file.sync_data());
        let thread = match bytes > 2 * SYNCED_AT_ONCE {
            // Without it, it takes longer.
            true => std::thread::Builder::new().name("sync".to_owned()).spawn(sync).ok(),
            false => None,
        };
        Self { wake: Some(wake), thread, bytes: 0 }
    }

    fn wrote(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes >= SYNCED_AT_ONCE
            && let Some(wake) = &self.wake
        {
            // It may be at work still, or have met an error, which is told in the end.
            let _ = wake.try_send(());
            self.bytes = 0;
        }
    }

    /// An error is told once, to whoever syncs first: so it counts also where the next one succeeds.
    fn end(&mut self) -> io::Result<()> {
        self.wake = None;
        match self.thread.take().map(std::thread::JoinHandle::join) {
            Some(Ok(synced)) => synced,
            Some(Err(_)) => Err(io::Error::other("the thread that syncs it has ended too early")),
            None => Ok(()),
        }
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// The SHA-256 of the beginning of a file, to be gone on with.
fn begun(path: &Path, length: u64) -> Result<Sha256, Error> {
    use std::io::Read as _;

    let reading = |error| Error::io("read", path, error);
    let mut file = files::open_own(path).map_err(reading)?.take(length);
    let (mut sha256, mut block) = (Sha256::new(), vec![0; 256 * 1024]);
    loop {
        match file.read(&mut block).map_err(reading)? {
            0 => return Ok(sha256),
            read => sha256.update(&block[..read]),
        }
    }
}

/// How much room there is for this user, where the file system says.
fn room(file: &File) -> Option<u64> {
    let found = rustix::fs::fstatvfs(file).ok()?;
    (found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize))
}

fn no_room(path: &Path, content: &Content, length: u64, free: Option<u64>) -> Error {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let free = free.map(|free| format!(", and {free} are free")).unwrap_or_default();
    Error::no_room(format!(
        "there is no room in {}: {} more bytes are to come, of {}{free}",
        directory.display(),
        content.size - length.min(content.size),
        content.size
    ))
}
