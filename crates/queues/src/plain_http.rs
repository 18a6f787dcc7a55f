//! Where a key or a token may go without TLS: to a listener of this user, or of root, on this machine.
//!
//! On a machine that many share, any of them can listen on a port that is free: that of a `local-edge` which has
//! stopped, or has not started yet, or an SSH tunnel that broke. So before each request the system is asked whose the
//! listener is. Out of scope: TLS, whose certificates say who answers.
//!
//! Not guarded: a listener that ends, and another one in its place, between the look and the connection. On a Unix
//! socket nobody else gets its place (`address`).

use std::fs::File;
use std::io::{self, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use reqwest::Url;
use rustix::io::Errno;

use crate::address::UnusableUrl;

/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// A line of that file. To read no more at once keeps the system from looking for lines that nobody wants: behind the
/// listeners come all connections of the machine.
const LINE_BYTES: usize = 150;

/// Where plain HTTP may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlainHttp {
    /// To a loopback address, as long as nobody but this user or root listens there.
    #[default]
    OwnListener,
    /// Wherever the settings say. Whoever is on the way, or listens there, has what is sent.
    Anywhere,
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// Nobody is there.
    #[error("{host} cannot be reached: {}", io::Error::from(*errno))]
    Nobody {
        /// The address.
        host: String,
        /// What the system would say.
        errno: Errno,
    },
    /// Somebody else is.
    #[error(
        "nothing was sent to {host}: it is another user of this machine that listens there (uid {uid}), who would get \
         the key or token; is the right program running there? If this one is meant, set ALLOW_PLAIN_HTTP=1"
    )]
    Stranger {
        /// The address.
        host: String,
        /// Whose it is.
        uid: u32,
    },
    /// It cannot be told who is.
    #[error("nothing was sent to {host}: whose the listener is cannot be told ({error}); ALLOW_PLAIN_HTTP=1 sends")]
    Unknown {
        /// The address.
        host: String,
        /// Why.
        error: io::Error,
    },
    /// It is a Unix socket, and its directory is not closed.
    #[error(
        "nothing was sent to {host}: others can write to {}, and listen there in place of the right program; have the \
         socket in a directory of mode 700 that is yours, or set ALLOW_PLAIN_HTTP=1",
        dir.display()
    )]
    Open {
        /// The address.
        host: String,
        /// The directory.
        dir: PathBuf,
    },
}

/// A socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listener {
    address: SocketAddr,
    uid: u32,
}

impl PlainHttp {
    /// As the setting has it.
    pub fn allowed_anywhere(allowed: bool) -> Self {
        if allowed { Self::Anywhere } else { Self::OwnListener }
    }

    /// May this address be used at all?
    pub(crate) fn permits(self, url: &Url) -> Result<(), UnusableUrl> {
        match (self, url.scheme()) {
            (Self::OwnListener, "http") if !is_here(url) => {
                Err(UnusableUrl::PlainHttp(url.origin().ascii_serialization()))
            }
            _ => Ok(()),
        }
    }

    /// May something be sent to this address now?
    pub(crate) fn check(self, url: &Url) -> Result<(), Unsent> {
        if self == Self::Anywhere || url.scheme() != "http" || !cfg!(target_os = "linux") {
            return Ok(());
        }
        let host = url.origin().ascii_serialization();
        let mut found = false;
        for address in loopback(url) {
            // A listener may be missed while others come and go.
            let uid = match answering(address) {
                Ok(None) => answering(address),
                told => told,
            };
            match uid {
                Ok(None) => {}
                Ok(Some(uid)) if is_own(uid) => found = true,
                Ok(Some(uid)) => return Err(Unsent::Stranger { host, uid }),
                Err(error) => return Err(Unsent::Unknown { host, error }),
            }
        }
        if found { Ok(()) } else { Err(Unsent::Nobody { host, errno: Errno::CONNREFUSED }) }
    }
}

/// Is this user trusted with key and token?
pub(crate) fn is_own(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Does plain HTTP to this address stay on this machine?
pub(crate) fn is_here(url: &Url) -> bool {
    url.scheme() == "http" && !loopback(url).is_empty()
}

/// The addresses of this machine that a URL means; none if it means another one.
fn loopback(url: &Url) -> Vec<SocketAddr> {
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Vec::new() };
    // It is a name for both, and which of them is asked first is not ours to say.
    let addresses = match host {
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        host => host.trim_matches(['[', ']']).parse::<IpAddr>().into_iter().collect(),
    };
    let here = addresses.into_iter().filter(|ip| ip.to_canonical().is_loopback());
    here.map(|ip| SocketAddr::new(ip.to_canonical(), port)).collect()
}

/// Whose the listener is that answers at an address.
fn answering(address: SocketAddr) -> io::Result<Option<u32>> {
    let mut found = Vec::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match File::open(file) {
            Ok(file) => found.extend(read(BufReader::with_capacity(LINE_BYTES, file), address)?),
            // A system without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.ends_with('6') => {}
            Err(error) => return Err(error),
        }
        if found.iter().any(|listener| listener.address == address) {
            break;
        }
    }
    Ok(most_precise(&found, address).map(|listener| listener.uid))
}

/// The system takes the most precise one of those that could answer. Those of one address are of one user.
fn most_precise(listeners: &[Listener], address: SocketAddr) -> Option<Listener> {
    let any = |ip: IpAddr| SocketAddr::new(ip, address.port());
    let places = match address {
        SocketAddr::V4(_) => vec![address, any(Ipv4Addr::UNSPECIFIED.into()), any(Ipv6Addr::UNSPECIFIED.into())],
        SocketAddr::V6(_) => vec![address, any(Ipv6Addr::UNSPECIFIED.into())],
    };
    let at = |place| listeners.iter().copied().find(|listener| listener.address == place);
    places.into_iter().find_map(at)
}

/// The listeners, up to the one at this very address. They stand before the connections.
fn read(lines: impl io::BufRead, until: SocketAddr) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for line in lines.lines().skip(1) {
        let line = line?;
        let fields: Vec<&str> = line.split_ascii_whitespace().take(8).collect();
        let &[_, local, _, state, _, _, _, uid] = fields.as_slice() else { break };
        if state != LISTENS {
            break;
        }
        if let (Some(address), Ok(uid)) = (parse(local), uid.parse()) {
            listeners.push(Listener { address, uid });
            if address == until {
                break;
            }
        }
    }
    Ok(listeners)
}

/// An address as `0100007F:2253`: words of 32 bits, each in the byte order of the machine, and a port.
fn parse(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(words.get(8 * at..8 * at + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = match words.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, place) in bytes.chunks_exact_mut(4).enumerate() {
                place.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn plain_http_leaves_this_machine_only_when_told() {
        let own = PlainHttp::OwnListener;
        for here in ["http://127.0.0.1:1/x", "http://127.9.9.9:1", "http://[::1]:1", "http://localhost", "https://a.b"]
        {
            assert_eq!(own.permits(&url(here)), Ok(()), "{here}");
        }
        for elsewhere in ["http://192.0.2.1:1", "http://0.0.0.0:1", "http://edge.test", "http://localhost.evil.test"] {
            assert!(matches!(own.permits(&url(elsewhere)), Err(UnusableUrl::PlainHttp(_))), "{elsewhere}");
            assert_eq!(PlainHttp::Anywhere.permits(&url(elsewhere)), Ok(()));
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn listeners_are_read_up_to_the_first_connection() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:2253 00000000:0000 0A 00000000:00000000 00:00000000 00000000 64001        0 7 1 x\n   \
             1: 00000000:2254 00000000:0000 0A 00000000:00000000 00:00000000 00000000 64002        0 9 1 x\n   \
             2: 0100007F:2253 0100007F:1 01 00000000:00000000 00:00000000 00000000 64002        0 8 1 x\n   \
             3: 00000000:2255 00000000:0000 0A 00000000:00000000 00:00000000 00000000 64002        0 9 1 x\n";
        let listener = Listener { address: "127.0.0.1:8787".parse().unwrap(), uid: 64_001 };
        for (until, count) in [("127.0.0.1:1", 2), ("127.0.0.1:8787", 1)] {
            let found = read(text.as_bytes(), until.parse().unwrap()).unwrap();
            assert_eq!((found[0], found.len()), (listener, count));
        }
        assert_eq!(parse("00000000000000000000000001000000:0050"), Some("[::1]:80".parse().unwrap()));
        assert_eq!(parse("0000000000000000FFFF00000100007F:0050"), Some("127.0.0.1:80".parse().unwrap()));
        assert!(["", ":", "0100007F", "0100007F:X", "é100007F:1"].iter().all(|text| parse(text).is_none()));
    }

    #[test]
    fn who_answers_is_the_most_precise_one() {
        let listener = |address: &str, uid| Listener { address: address.parse().unwrap(), uid };
        let all = [listener("0.0.0.0:1", 1), listener("[::]:1", 2), listener("127.0.0.1:1", 3), listener("[::1]:2", 4)];
        let uid = |listeners: &[Listener], address: &str| {
            most_precise(listeners, address.parse().unwrap()).map(|listener| listener.uid)
        };
        assert_eq!(uid(&all, "127.0.0.1:1"), Some(3));
        assert_eq!(uid(&all, "127.0.0.2:1"), Some(1));
        assert_eq!(uid(&all[1..], "127.0.0.2:1"), Some(2), "it takes both kinds");
        assert_eq!((uid(&all, "[::1]:1"), uid(&all, "[::1]:2")), (Some(2), Some(4)));
        assert_eq!(uid(&all, "127.0.0.1:3"), None);
    }

    #[test]
    fn an_own_listener_is_found_and_nobody_is_nobody() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            for host in ["127.0.0.1", "localhost"] {
                PlainHttp::OwnListener.check(&url(&format!("http://{host}:{port}/x"))).unwrap();
            }
            drop(listener);
            let none = PlainHttp::OwnListener.check(&url(&format!("http://127.0.0.1:{port}"))).unwrap_err();
            let expected = format!("http://127.0.0.1:{port} cannot be reached: Connection refused (os error 111)");
            assert_eq!(none.to_string(), expected);
        }
    }
}
