//! The contents on disk: files that are written once, and named only once they are whole.
//!
//! What a piece is of stands in the index, which is written after it. So a piece that the index does not know belongs
//! to nothing: whoever wrote it died, or it was just taken out of the index. Those are removed at the next start.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use axum::body::Bytes;
use md5::Md5;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::refusal::Refusal;
use crate::random;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// How many pieces of a body wait to be written, or to be sent.
const WAITING_MAX: usize = 4;

/// Where pieces are.
#[derive(Debug, Clone)]
pub(super) struct Pieces(PathBuf);

/// A piece that is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) name: String,
    pub(super) size: u64,
}

/// What was written.
pub(super) struct Written {
    pub(super) piece: Piece,
    pub(super) sha256: [u8; 32],
    pub(super) md5: Option<[u8; 16]>,
}

/// A piece that is being written. One that is dropped before it is finished is removed.
pub(super) struct Writing {
    bytes: mpsc::Sender<Option<Bytes>>,
    written: oneshot::Receiver<io::Result<Written>>,
}

impl Pieces {
    /// Opens the directory.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        files::own_dir(&path)?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name.get(..2).unwrap_or(name)).join(name)
    }

    /// Begins to write a piece.
    pub(super) fn write(&self, with_md5: bool) -> Writing {
        let (bytes, mut coming) = mpsc::channel(WAITING_MAX);
        let (tell, written) = oneshot::channel();
        let name = random::hex();
        let (path, all) = (self.path(&name), self.clone());
        tokio::task::spawn_blocking(move || {
            let outcome = write(&path, &name, with_md5, &mut coming);
            if let Err(error) = &outcome {
                discard(&path);
                if files::is_no_room(error) {
                    tracing::warn!(
                        "a file that was sent here is refused, for there is no room in {}: make room there, or move \
                         the data directory (--data-dir, LOCAL_EDGE_DATA_DIR)",
                        all.0.display()
                    );
                }
            }
            if tell.send(outcome).is_err() {
                discard(&path);
            }
        });
        Writing { bytes, written }
    }

    /// Removes pieces that nothing refers to any more.
    pub(super) fn remove(&self, names: Vec<String>) {
        if names.is_empty() {
            return;
        }
        let pieces = self.clone();
        tokio::task::spawn_blocking(move || names.iter().for_each(|name| discard(&pieces.path(name))));
    }

    /// Removes all but these. Nothing may be written meanwhile.
    pub(super) fn keep_only(&self, known: &HashSet<String>) -> io::Result<usize> {
        let mut gone = 0;
        for directory in std::fs::read_dir(&self.0)? {
            for entry in std::fs::read_dir(directory?.path())? {
                let entry = entry?;
                if entry.file_name().to_str().is_none_or(|name| !known.contains(name)) {
                    std::fs::remove_file(entry.path())?;
                    gone += 1;
                }
            }
        }
        Ok(gone)
    }

    /// Are they on the disk, with all their bytes? Disks lose files, and people remove some. It blocks.
    pub(super) fn are_whole(&self, pieces: &[Piece], range: &Range<u64>) -> bool {
        let mut begin = 0;
        pieces.iter().all(|piece| {
            let (from, until) = (begin, begin + piece.size);
            begin = until;
            let is_asked_for = from < range.end && range.start < until;
            !is_asked_for || std::fs::metadata(self.path(&piece.name)).is_ok_and(|found| found.len() == piece.size)
        })
    }

    /// Reads a range of what these pieces are together.
    pub(super) fn read(&self, pieces: Vec<Piece>, range: Range<u64>) -> mpsc::Receiver<io::Result<Bytes>> {
        let (sender, bytes) = mpsc::channel(WAITING_MAX);
        let all = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = all.send(&pieces, range, &sender) {
                let _ = sender.blocking_send(Err(error));
            }
        });
        bytes
    }

    fn send(&self, pieces: &[Piece], range: Range<u64>, to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        let mut begin = 0;
        for piece in pieces {
            let end = begin + piece.size;
            let (from, until) = (range.start.max(begin), range.end.min(end));
            if from < until {
                let mut file = files::open_own(&self.path(&piece.name))?;
                file.seek(SeekFrom::Start(from - begin))?;
                let mut left = until - from;
                while left > 0 {
                    let mut buffer = vec![0; usize::try_from(left).map_or(READ_BYTES, |left| left.min(READ_BYTES))];
                    file.read_exact(&mut buffer)?;
                    left -= buffer.len() as u64;
                    if to.blocking_send(Ok(Bytes::from(buffer))).is_err() {
                        return Ok(());
                    }
                }
            }
            begin = end;
        }
        Ok(())
    }
}

/// Makes a file, and its directory if it is the first one there.
fn create(path: &Path) -> io::Result<File> {
    match files::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or(path);
            files::own_dir(directory)?;
            files::sync_dir(directory.parent().unwrap_or(directory))?;
            files::create_new(path)
        }
        made => made,
    }
}

fn discard(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("cannot remove {}, which nothing refers to: {error}", path.display());
        }
        _ => {}
    }
}

fn write(path: &Path, name: &str, with_md5: bool, coming: &mut mpsc::Receiver<Option<Bytes>>) -> io::Result<Written> {
    let mut file = create(path)?;
    let (mut sha256, mut md5, mut size) = (Sha256::new(), with_md5.then(Md5::new), 0);
    loop {
        match coming.blocking_recv() {
            Some(Some(bytes)) => {
                file.write_all(&bytes)?;
                sha256.update(&bytes);
                md5.iter_mut().for_each(|md5| md5.update(&bytes));
                size += bytes.len() as u64;
            }
            // The end was said.
            Some(None) => break,
            None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "nobody writes it any more")),
        }
    }
    file.sync_all()?;
    files::sync_dir(path.parent().unwrap_or(path))?;
    let (sha256, md5) = (sha256.finalize().into(), md5.map(|md5| md5.finalize().into()));
    Ok(Written { piece: Piece { name: name.to_owned(), size }, sha256, md5 })
}

impl Writing {
    /// Writes more of it.
    pub(super) async fn take(&mut self, bytes: Bytes) -> Result<(), Refusal> {
        if self.bytes.send(Some(bytes)).await.is_ok() {
            return Ok(());
        }
        // It has failed, and says why.
        Err(match (&mut self.written).await {
            Ok(Err(error)) => Refusal::of_disk(&error),
            _ => Refusal::of_disk(&io::Error::other("a file that is written ended by itself")),
        })
    }

    /// Has it last.
    pub(super) async fn end(self) -> Result<Written, Refusal> {
        let _ = self.bytes.send(None).await;
        match self.written.await {
            Ok(Ok(written)) => Ok(written),
            Ok(Err(error)) => Err(Refusal::of_disk(&error)),
            Err(_) => Err(Refusal::of_disk(&io::Error::other("a file that is written ended by itself"))),
        }
    }
}
