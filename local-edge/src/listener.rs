//! Where the server listens: at an address, or on a Unix socket that nobody else can reach or take the place of.
//!
//! A port is free for anybody as soon as a server has ended, and clients then send their key and token to whoever
//! listens there. A socket lies in a directory that is this user's alone.
//!
//! Guarded: what is there under the name and is not ours, or has somebody listening, stays there. A lock beside the
//! socket keeps two servers that start in the same moment from removing each other's.

use std::fmt;
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr as SocketAddress, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use files::{Access, Trust};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::connections::Peer;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Address(SocketAddr),
    Socket(PathBuf),
}

/// As a client is told it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "http://{address}"),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What listens.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Name),
}

/// Somebody who has come.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Begins to listen. To be called within the runtime.
    pub(crate) async fn bind(place: &Place, trust: &dyn Trust) -> anyhow::Result<Self> {
        match place {
            Place::Address(address) => {
                let listener = TcpListener::bind(address).await.with_context(|| {
                    format!("cannot listen on {address}, which --listen or LOCAL_EDGE_LISTEN may change")
                })?;
                Ok(Self::Tcp(listener))
            }
            Place::Socket(path) => {
                let (listener, name) = bind_socket(path, trust).with_context(|| {
                    format!(
                        "cannot listen on the socket {}, which --socket or LOCAL_EDGE_SOCKET may change",
                        path.display()
                    )
                })?;
                Ok(Self::Unix(listener, name))
            }
        }
    }

    /// Where it listens, with the port that it got.
    pub(crate) fn place(&self) -> io::Result<Place> {
        Ok(match self {
            Self::Tcp(listener) => Place::Address(listener.local_addr()?),
            Self::Unix(_, name) => Place::Socket(name.path.clone()),
        })
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Answers are small and whole; waiting for more to send would only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!("cannot set TCP_NODELAY: {error}");
                }
                (Stream::Tcp(stream), Peer::Address(peer.ip()))
            }
            Self::Unix(listener, _) => (Stream::Unix(listener.accept().await?.0), Peer::ThisUser),
        })
    }
}

/// The name of a socket of ours. It goes with the server; one that is killed leaves it to the next.
#[derive(Debug)]
pub(crate) struct Name {
    path: PathBuf,
    /// Nobody else makes or removes a socket of this name.
    _lock: File,
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!("cannot remove the socket {}: {error}", self.path.display());
        }
    }
}

/// The whole path, if the system takes it for a socket, and a `.env` for a setting.
pub(crate) fn whole_path(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| format!("cannot tell where {} is", path.display()))?;
    let bytes = path.as_os_str().len();
    if SocketAddress::from_pathname(&path).is_err() {
        bail!(
            "{} is {bytes} bytes long, which is longer than the system takes for a socket (about 100): choose a shorter path",
            path.display()
        );
    }
    let fits = |text: &str| !text.contains(|c: char| c.is_control() || matches!(c, '\'' | '"' | '\\'));
    if !path.to_str().is_some_and(fits) {
        bail!(
            "{} cannot stand in the settings of the other programs: choose a path in UTF-8 without quotes and backslashes",
            path.display()
        );
    }
    Ok(path)
}

fn bind_socket(path: &Path, trust: &dyn Trust) -> anyhow::Result<(UnixListener, Name)> {
    let dir = path.parent().context("it has no directory")?;
    let notes = program::private_dir("the directory of the socket", dir, Access::Closed, trust)?;
    notes.iter().for_each(|note| tracing::warn!("{note}"));
    let lock = lock(path)?;
    clear(path)?;
    let listener = UnixListener::bind(path)?;
    let name = Name { path: path.to_owned(), _lock: lock };
    // Nobody else gets through the directory; this is for whoever opens that one day.
    fs::set_permissions(path, Permissions::from_mode(files::FILE_MODE))?;
    Ok((listener, name))
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let lock = files::open_lock(&lock_path).with_context(|| format!("cannot open {}", lock_path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!("another local-edge listens there; stop it, or choose another path"),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", lock_path.display())),
    }
}

/// Removes the socket of a server that has ended.
fn clear(path: &Path) -> anyhow::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let owner = found.uid();
    if !found.file_type().is_socket() {
        bail!("something else than a socket is there; move it away, or choose another path");
    }
    if owner != rustix::process::geteuid().as_raw() {
        bail!("a socket of user {owner} is there; see who put it there, and move it away, or choose another path");
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => bail!("another program listens there; stop it, or choose another path"),
        Err(error) => {
            Err(error).context("whether another program listens there cannot be told; remove it if none does")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener as StdListener;

    use super::*;

    async fn bind(path: &Path) -> Result<Listener, String> {
        let bound = Listener::bind(&Place::Socket(path.to_owned()), &files::NobodyElse).await;
        bound.map_err(|error| format!("{error:#}"))
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_only_and_gone_with_its_server() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("new/edge/socket");
        let listener = bind(&path).await.unwrap();
        assert_eq!(listener.place().unwrap().to_string(), format!("unix:{}", path.display()));
        for (path, mode) in [(path.as_path(), 0o600), (path.parent().unwrap(), 0o700)] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, mode, "{}", path.display());
        }
        let _client = StdStream::connect(&path).unwrap();
        assert!(matches!(listener.accept().await.unwrap(), (Stream::Unix(_), Peer::ThisUser)));
        let problem = bind(&path).await.unwrap_err();
        assert!(problem.contains("another local-edge listens there") && problem.contains("--socket"), "{problem}");
        drop(listener);
        assert!(!path.exists());
        bind(&path).await.unwrap();
    }

    #[tokio::test]
    async fn what_an_ended_server_has_left_is_replaced_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        chmod(temp.path(), 0o700);
        let path = temp.path().join("socket");
        let other = StdListener::bind(&path).unwrap();
        let problem = bind(&path).await.unwrap_err();
        assert!(problem.contains("another program listens there"), "{problem}");
        StdStream::connect(&path).unwrap();
        drop(other);
        drop(bind(&path).await.unwrap());
        fs::write(&path, "precious").unwrap();
        assert!(bind(&path).await.unwrap_err().contains("something else than a socket"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::rename(&path, temp.path().join("file")).unwrap();
        drop(StdListener::bind(temp.path().join("left")).unwrap());
        symlink("left", &path).unwrap();
        assert!(bind(&path).await.unwrap_err().contains("something else than a socket"), "no link is followed");
        assert!(temp.path().join("left").exists());
    }

    #[tokio::test]
    async fn a_directory_that_others_can_enter_is_refused_and_stays_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("open");
        fs::create_dir(&dir).unwrap();
        chmod(temp.path(), 0o755);
        for mode in [0o755, 0o770, 0o1777] {
            chmod(&dir, mode);
            let problem = bind(&dir.join("socket")).await.unwrap_err();
            assert!(problem.contains(&format!("`chmod 700 {}`", dir.display())), "{problem}");
            assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, mode);
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        chmod(temp.path(), 0o777);
        assert!(bind(&dir.join("in/socket")).await.unwrap_err().contains("everybody can write"));
    }

    #[test]
    fn a_path_that_is_no_address_is_told() {
        let long = format!("/{}socket", "directory/".repeat(12));
        let problem = whole_path(Path::new(&long)).unwrap_err().to_string();
        assert!(problem.contains("is 127 bytes long") && problem.contains("choose a shorter path"), "{problem}");
        for odd in ["/it's", "/a\nb", "/a\\b"] {
            assert!(whole_path(Path::new(odd)).unwrap_err().to_string().contains("without quotes"), "{odd}");
        }
        assert_eq!(whole_path(Path::new("/run/it is/socket")).unwrap(), Path::new("/run/it is/socket"));
        assert!(whole_path(Path::new("socket")).unwrap().is_absolute());
    }
}
