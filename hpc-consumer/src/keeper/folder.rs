//! `STATE_DIR/keeper`: the lock, the file that tells who the keeper is and where it listens, and the socket.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use files::Durability;
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::allocation::Capacity;
use super::dialect::Versions;
use crate::run::FirstProcess;

/// A log that is larger is put aside.
const LOG_BYTES_MAX: u64 = 1024 * 1024;

/// No card is larger.
const CARD_BYTES_MAX: u64 = 100_000;

/// The name of the socket in the directory of the keeper.
const SOCKET: &str = "socket";

/// The directory of the keeper.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
    /// What the file is called that tells who the keeper is.
    card: &'static str,
}

/// One start of a machine. What was written during another one tells nothing of processes that run now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) boot_id: String,
    pub(super) host: String,
}

/// Who the keeper is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Card {
    /// The newest version of the messages that it speaks.
    pub(super) v: u32,
    /// The oldest one. Version 1 does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) oldest: Option<u32>,
    pub(super) pid: u32,
    /// When the process started, in clock ticks since the machine did: with it the number means one process.
    pub(super) started: u64,
    #[serde(flatten)]
    pub(super) origin: Origin,
    /// The abstract name of its socket, empty where it listens in its directory. Everyone on the machine reaches an
    /// abstract name, the jobs in their containers too: only keepers of earlier builds have one, and those whose file
    /// system has no sockets. Daemons of earlier builds want the field, and find nobody at an empty name.
    pub(super) socket: String,
    /// The name of its socket in the directory of the keeper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<SocketFile>,
    /// What a daemon says to the keeper first, and what the keeper answers: only who can read this file is the daemon,
    /// or the keeper.
    pub(super) daemon_token: String,
    pub(super) keeper_token: String,
    /// Where it listens for a daemon on another machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) network: Option<Network>,
    /// What the allocation has that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) capacity: Option<Capacity>,
}

/// Where a keeper listens for a daemon on another machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Network {
    pub(super) port: u16,
    /// Of the node, but for those that only it has.
    pub(super) addresses: Vec<IpAddr>,
    /// The public key that proves who listens there, as DER in Base64.
    pub(super) key: String,
}

/// The one name that a socket has there: no path is built from what stands in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SocketFile {
    /// [`SOCKET`].
    Socket,
}

/// The address of a socket in a directory. It goes through the open directory, because a path of the system's may be
/// many times longer than an address; it holds for as long as this value.
#[derive(Debug)]
pub(super) struct SocketPath {
    address: SocketAddr,
    _directory: Option<OwnedFd>,
}

impl SocketPath {
    /// To be given to the system.
    pub(super) fn address(&self) -> &SocketAddr {
        &self.address
    }
}

impl Origin {
    /// This machine, as it was last started.
    pub(super) fn here() -> Self {
        Self { boot_id: crate::boot_id().unwrap_or_default(), host: crate::host() }
    }

    /// Is this the same machine? Its name may have been changed since it was started.
    pub(super) fn is_near(&self, other: &Self) -> bool {
        self.is_same_boot(other) || self.host == other.host
    }

    /// Was it started anew in between? Where the system does not tell, it may have been.
    pub(super) fn is_same_boot(&self, other: &Self) -> bool {
        !self.boot_id.is_empty() && self.boot_id == other.boot_id
    }
}

impl Card {
    pub(super) fn versions(&self) -> Versions {
        Versions::written(self.v, self.oldest)
    }
}

impl Folder {
    pub(super) fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join("keeper"), card: "keeper.json" }
    }

    /// The folder of an allocation.
    pub(super) fn of_allocation(folder: &Path) -> Self {
        Self { path: folder.to_owned(), card: "card.json" }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("keeper.log")
    }

    /// What runs print may be anybody's secret, and who reaches the socket may speak to the keeper.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        files::own_dir(&self.path)
            .with_context(|| format!("the directory of the keeper {} cannot be made", self.path.display()))
    }

    /// Where a keeper of this build listens: nobody else gets through this directory.
    pub(super) fn socket(&self) -> io::Result<SocketPath> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&self.path, flags, Mode::empty())?;
        let address = SocketAddr::from_pathname(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))?;
        Ok(SocketPath { address, _directory: Some(directory) })
    }

    /// Where the keeper of this card listens.
    pub(super) fn socket_of(&self, card: &Card) -> io::Result<SocketPath> {
        match card.file {
            Some(SocketFile::Socket) => self.socket(),
            None => Ok(SocketPath { address: SocketAddr::from_abstract_name(&card.socket)?, _directory: None }),
        }
    }

    /// A socket that a keeper before us has left keeps its name, and nobody can listen there. Called with the lock.
    pub(super) fn remove_socket(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join(SOCKET)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The lock, if no keeper has it.
    pub(super) fn lock(&self) -> anyhow::Result<Option<File>> {
        let path = self.path.join("lock");
        let cannot = || format!("the lock of the keeper {} cannot be taken", path.display());
        let file = files::open_lock(&path).with_context(cannot)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(cannot),
        }
    }

    /// Is there a keeper?
    pub(super) fn is_locked(&self) -> anyhow::Result<bool> {
        Ok(self.lock()?.is_none())
    }

    /// The process that was the keeper before, since the machine was started: all its runs are in its session. Of a
    /// container with another name the numbers of processes tell nothing.
    pub(super) fn dead_keeper(&self, here: &Origin) -> Option<FirstProcess> {
        let card = self.card().ok().filter(|card| card.origin == *here && card.started != 0)?;
        Some(FirstProcess { pid: card.pid.try_into().ok()?, started: card.started })
    }

    /// Does the keeper that wrote the card live? Locks can be lost, on network file systems above all.
    pub(super) fn lives(&self) -> bool {
        self.card().is_ok_and(|card| {
            card.origin.is_same_boot(&Origin::here())
                && card.pid != std::process::id()
                && card.started != 0
                && i32::try_from(card.pid)
                    .is_ok_and(|pid| crate::run::is_running(FirstProcess { pid, started: card.started }))
        })
    }

    pub(super) fn card(&self) -> anyhow::Result<Card> {
        let path = self.card_path();
        let text = files::read_own_text(&path, CARD_BYTES_MAX)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// The same, where there may be none.
    pub(super) fn card_if_any(&self) -> io::Result<Option<Card>> {
        match files::read_own(&self.card_path(), CARD_BYTES_MAX) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write_card(&self, card: &Card) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(card).expect("it holds only strings and numbers");
        text.push(b'\n');
        let path = self.card_path();
        let written = files::replace(&path, &text, Durability::Cached);
        written.map(drop).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// There is no keeper any more: its number may be another process's soon.
    pub(super) fn remove_card(&self) {
        // A card without a process does no harm: the time of its start tells them apart. Nor does a socket.
        let _ = fs::remove_file(self.card_path());
        let _ = self.remove_socket();
    }

    /// The log, to be written at its end.
    pub(super) fn open_log(&self) -> anyhow::Result<File> {
        let path = self.log();
        if self.log_is_large() {
            // If this fails it grows on, which is no reason to run no jobs.
            let _ = fs::rename(&path, self.old_log());
        }
        files::open_append(&path).with_context(|| format!("the log of the keeper {} cannot be written", path.display()))
    }

    /// Keeps the log of a keeper at work from growing. The file stays the same, because the keeper has it open; it is
    /// written at its end, wherever that is.
    pub(super) fn bound_log(&self) {
        if self.log_is_large() {
            // Where there is no room for a copy, what is new counts more than what is old.
            let _ = files::copy_own(&self.log(), &self.old_log());
            let _ = files::open_append(&self.log()).and_then(|log| log.set_len(0));
        }
    }

    fn log_is_large(&self) -> bool {
        fs::metadata(self.log()).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX)
    }

    fn old_log(&self) -> PathBuf {
        self.log().with_extension("log.old")
    }

    fn card_path(&self) -> PathBuf {
        self.path.join(self.card)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn the_card_format_unchanged() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::of(temp.path());
        folder.make().unwrap();
        let origin = Origin { boot_id: "b".to_owned(), host: "node1".to_owned() };
        let [daemon_token, keeper_token] = ["d", "k"].map(str::to_owned);
        let (v, oldest, pid, started) = (3, Some(1), 7, 4711);
        for (socket, file, written) in
            [("s", None, "\"socket\":\"s\""), ("", Some(SocketFile::Socket), "\"socket\":\"\",\"file\":\"socket\"")]
        {
            let (socket, origin) = (socket.to_owned(), origin.clone());
            let [daemon_token, keeper_token] = [daemon_token.clone(), keeper_token.clone()];
            let (network, capacity) = (None, None);
            let card =
                Card { v, oldest, pid, started, origin, socket, file, daemon_token, keeper_token, network, capacity };
            folder.write_card(&card).unwrap();
            let text = fs::read_to_string(temp.path().join("keeper/keeper.json")).unwrap();
            assert_eq!(
                text,
                format!(
                    "{{\"v\":3,\"oldest\":1,\"pid\":7,\"started\":4711,\"boot_id\":\"b\",\"host\":\"node1\",{written},\"daemon_token\":\"d\",\"keeper_token\":\"k\"}}\n"
                )
            );
            assert_eq!(folder.card().unwrap(), card);
        }
    }

    #[test]
    fn a_socket_is_reached_below_a_path_that_is_longer_than_an_address() {
        let temp = tempfile::tempdir().unwrap();
        let deep = (0..6).fold(temp.path().to_owned(), |path, _| path.join("d".repeat(60)));
        fs::create_dir_all(&deep).unwrap();
        let folder = Folder::of(&deep);
        folder.make().unwrap();
        let listener = UnixListener::bind_addr(folder.socket().unwrap().address()).unwrap();
        assert!(folder.path().join(SOCKET).exists());
        UnixStream::connect_addr(folder.socket().unwrap().address()).unwrap();
        listener.accept().unwrap();
        folder.remove_socket().unwrap();
        folder.remove_socket().unwrap();
        assert!(!folder.path().join(SOCKET).exists());
    }

    #[test]
    fn a_directory_that_was_open_to_others_is_closed() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::of(temp.path());
        fs::create_dir(folder.path()).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o2775)).unwrap();
        folder.make().unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn the_log_of_a_keeper_at_work_does_not_grow_without_bound() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::of(temp.path());
        folder.make().unwrap();
        let mut log = folder.open_log().unwrap();
        let read = || [folder.log(), folder.old_log()].map(|path| fs::read(path).unwrap_or_default());
        log.write_all(b"first\n").unwrap();
        folder.bound_log();
        assert_eq!(read(), [b"first\n".to_vec(), Vec::new()]);
        log.write_all(&vec![b'x'; LOG_BYTES_MAX as usize]).unwrap();
        folder.bound_log();
        log.write_all(b"last\n").unwrap();
        let [now, old] = read();
        assert_eq!((now, old.len() as u64), (b"last\n".to_vec(), LOG_BYTES_MAX + 6));
    }

    #[test]
    fn one_keeper_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::of(temp.path());
        folder.make().unwrap();
        let held = folder.lock().unwrap();
        assert!(held.is_some() && folder.is_locked().unwrap());
        drop(held);
        assert!(!folder.is_locked().unwrap());
    }
}
