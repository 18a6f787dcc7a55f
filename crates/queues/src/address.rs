//! Where a server is, as a setting names it: a URL of http or https, or a Unix socket of this machine.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use reqwest::Url;
use rustix::io::Errno;

use crate::plain_http::{PlainHttp, Unsent, is_here, is_own};

/// What stands before the path of a socket.
const SOCKET_SCHEME: &str = "unix:";

const GROUP_OR_OTHERS_WRITE: u32 = 0o022;

/// Where a server is, and what may be sent there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    url: Url,
    socket: Option<PathBuf>,
    plain_http: PlainHttp,
}

/// Why an address cannot be used. Who set it, and where, is told by whoever knows that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableUrl {
    /// It has another scheme, or none.
    #[error("it is no http or https address: {0}")]
    NotHttp(String),
    /// It has a user name or a password in it. The text must not repeat them.
    #[error("it holds a user name or a password, which would stand in logs; the API asks only for its token")]
    Credentials,
    /// The token would travel for everyone to read.
    #[error(
        "{0} is plain http, which shows the key or token to everyone on the way: use https, or an SSH tunnel and a \
         loopback address; where the way is safe, set ALLOW_PLAIN_HTTP=1"
    )]
    PlainHttp(String),
    /// It is named by a server that is on another machine.
    #[error("{0} is an address of this machine, and the server that names it is not on this machine")]
    Here(String),
    /// What follows is no path that a socket can have.
    #[error("{0} names no Unix socket: it takes a path from the root, as in unix:/run/user/1000/edge/socket")]
    NotSocket(String),
    /// The system has no room for such a path.
    #[error("{0} is longer than the system takes for a socket (about 100 bytes): choose a shorter path")]
    SocketTooLong(String),
}

impl Address {
    /// Reads what a setting says. A socket is the whole address of a server; `on_socket` is the path of a URL on it.
    pub fn parse(text: &str, on_socket: &str, plain_http: PlainHttp) -> Result<Self, UnusableUrl> {
        if let Some(path) = text.strip_prefix(SOCKET_SCHEME) {
            let socket = socket_path(text, path)?;
            let url = format!("http://localhost/{on_socket}");
            let url = Url::parse(&url).map_err(|_| UnusableUrl::NotHttp(url))?;
            return Ok(Self { url, socket: Some(socket), plain_http });
        }
        let not_http = || UnusableUrl::NotHttp(text.to_owned());
        let url = Url::parse(text).map_err(|_| not_http())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(if has_credentials(&url) { UnusableUrl::Credentials } else { not_http() });
        }
        plain_http.permits(&url)?;
        Ok(Self { url, socket: None, plain_http })
    }

    /// The address of what lies below this one.
    #[must_use]
    pub fn below<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.url.path_segments_mut().expect("an http or https URL has a path").pop_if_empty().extend(names);
        self
    }

    /// Where this server says that something is, by the rules of this address: on the server itself, wherever that is,
    /// or on another one, which is on this machine only if the server is.
    pub fn elsewhere(&self, url: &str) -> Result<Self, UnusableUrl> {
        // Its query may be a secret.
        let shown = || UnusableUrl::NotHttp(url.split('?').next().unwrap_or_default().chars().take(200).collect());
        let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(shown)?;
        if has_credentials(&url) {
            return Err(UnusableUrl::Credentials);
        }
        if url.origin() == self.url.origin() {
            return Ok(Self { url, ..self.clone() });
        }
        self.plain_http.permits(&url)?;
        if is_here(&url) && self.socket.is_none() && !is_here(&self.url) {
            return Err(UnusableUrl::Here(url.origin().ascii_serialization()));
        }
        Ok(Self { url, socket: None, plain_http: self.plain_http })
    }

    /// What a request is for. Where it goes is the client's matter; see [`crate::http_client`].
    pub fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Has it a user name or a password in it?
    pub fn has_credentials(&self) -> bool {
        has_credentials(&self.url)
    }

    /// May something be sent there now?
    pub fn check(&self) -> Result<(), Unsent> {
        match &self.socket {
            Some(socket) if self.plain_http == PlainHttp::OwnListener => check_socket(socket, &self.to_string()),
            Some(_) => Ok(()),
            None => self.plain_http.check(&self.url),
        }
    }
}

/// As a person reads it, without what lies below.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(socket) => write!(f, "{SOCKET_SCHEME}{}", socket.display()),
            None => f.write_str(&self.url.origin().ascii_serialization()),
        }
    }
}

fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn socket_path(text: &str, path: &str) -> Result<PathBuf, UnusableUrl> {
    let path = PathBuf::from(path);
    if !path.is_absolute() || path.file_name().is_none() || text.contains('\0') {
        return Err(UnusableUrl::NotSocket(text.to_owned()));
    }
    match SocketAddr::from_pathname(&path) {
        Ok(_) => Ok(path),
        Err(_) => Err(UnusableUrl::SocketTooLong(text.to_owned())),
    }
}

/// Nobody can listen on the socket of another user, or put one in its place, if its directory is theirs alone. The
/// directories above are looked at by who makes the socket.
fn check_socket(socket: &Path, host: &str) -> Result<(), Unsent> {
    let host = || host.to_owned();
    let unknown = |error: io::Error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(errno @ Errno::NOENT) => Unsent::Nobody { host: host(), errno },
        _ => Unsent::Unknown { host: host(), error },
    };
    let dir = socket.parent().unwrap_or(Path::new("/"));
    let found = fs::metadata(dir).map_err(unknown)?;
    if !is_own(found.uid()) || found.mode() & GROUP_OR_OTHERS_WRITE != 0 {
        return Err(Unsent::Open { host: host(), dir: dir.to_owned() });
    }
    let found = fs::symlink_metadata(socket).map_err(unknown)?;
    if !found.file_type().is_socket() {
        return Err(unknown(io::Error::other("it is no socket")));
    }
    match found.uid() {
        uid if is_own(uid) => Ok(()),
        uid => Err(Unsent::Stranger { host: host(), uid }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn parse(text: &str) -> Result<Address, UnusableUrl> {
        Address::parse(text, "client/v4", PlainHttp::OwnListener)
    }

    #[test]
    fn a_socket_is_the_whole_address() {
        for (text, told) in [("unix:/run/it is/socket", "unix:/run/it is/socket"), ("unix:///s", "unix:///s")] {
            let address = parse(text).unwrap();
            assert_eq!((address.to_string().as_str(), address.url().as_str()), (told, "http://localhost/client/v4"));
            assert_eq!(address.below(["accounts"]).url().path(), "/client/v4/accounts");
        }
        let edge = Address::parse("unix:/s", "", PlainHttp::OwnListener).unwrap();
        assert_eq!(edge.below(["jobs"]).url().as_str(), "http://localhost/jobs");
        assert_eq!(parse("https://a.test:1/x/").unwrap().to_string(), "https://a.test:1");
    }

    #[test]
    fn what_names_no_socket_is_refused() {
        for text in ["unix:", "unix:socket", "unix:./socket", "unix:/", "unix:/a\0b"] {
            assert_eq!(parse(text), Err(UnusableUrl::NotSocket(text.to_owned())));
        }
        let long = format!("unix:/{}", "d/".repeat(60));
        assert_eq!(parse(&long), Err(UnusableUrl::SocketTooLong(long.clone())));
        assert!(matches!(parse("unix"), Err(UnusableUrl::NotHttp(_))));
    }

    #[test]
    fn nothing_is_sent_to_a_socket_that_others_could_have_put_there() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("socket");
        let check = || parse(&format!("unix:{}", path.display())).unwrap().check().map_err(|error| error.to_string());
        assert!(check().unwrap_err().contains("cannot be reached: No such file"));
        let _listener = UnixListener::bind(&path).unwrap();
        check().unwrap();
        for mode in [0o770, 0o707, 0o1777] {
            fs::set_permissions(temp.path(), fs::Permissions::from_mode(mode)).unwrap();
            let problem = check().unwrap_err();
            assert!(problem.contains(&format!("others can write to {}", temp.path().display())), "{problem}");
        }
        let told = Address::parse(&format!("unix:{}", path.display()), "", PlainHttp::Anywhere).unwrap();
        told.check().unwrap();
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&path, temp.path().join("moved")).unwrap();
        symlink("moved", &path).unwrap();
        assert!(check().unwrap_err().contains("it is no socket"));
    }
}
