//! A run that serves others: what it says of its address, and whether that is true.
//!
//! A service listens on some port of its node and says which in `address.json`. Only a process on the same node can
//! tell whether it is a process of this run that listens there, so the keeper looks, and writes down what it has seen
//! where the daemon finds it. Out of scope: whether the service is ready, and who is told of it (`services`).
//!
//! Invariant: an address that is written down as found was, when it was looked at last, that of a socket on which a
//! process of this very run listens. Users send a token there.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use files::Durability;
use protocol::job_dir::ADDRESS;
use protocol::{Address, limits};
use serde::{Deserialize, Serialize};

use super::footprint::members;
use super::proc::{self, FirstProcess};
use super::token::Token;
use crate::{blocking, host, left, lock};

/// Between two looks, before an address was found and after.
const SOON: Duration = Duration::from_millis(250);
const PACE: Duration = Duration::from_secs(2);

/// No file of this kind is larger.
const SEEN_BYTES_MAX: u64 = 2 * limits::ADDRESS_BYTES_MAX;

/// What is seen of the address of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) v: u32,
    /// The name of its node.
    pub(crate) node: String,
    /// The address, if it is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<Address>,
    /// On which addresses of the node it listens there; those that stand for all of them as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) listens: Vec<IpAddr>,
    /// Why there is none: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

impl Seen {
    /// What a keeper has written down, if it has.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        match files::read_own(path, SEEN_BYTES_MAX) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Is a run over? Then nothing is written of it any more: who has heard of its end removes what was.
#[derive(Debug, Clone, Default)]
pub(super) struct Over(Arc<Mutex<bool>>);

impl Over {
    /// It is, once this has been awaited.
    pub(super) async fn set(self) {
        blocking(move || *lock(&self.0) = true).await;
    }
}

/// Looks for the address of a run for as long as this is awaited, and writes down in `file` whatever is new about it.
pub(super) async fn watch(
    file: PathBuf,
    over: Over,
    directory: Arc<OwnedFd>,
    first: FirstProcess,
    token: Token,
) -> Infallible {
    let mut written: Option<Seen> = None;
    let mut complained = false;
    loop {
        let (directory, path, before) = (directory.clone(), file.clone(), written.clone());
        let over = over.clone();
        let look = move || -> io::Result<Seen> {
            let seen = look(&directory, || members(first, token))?;
            // A look that has begun goes on when this is not awaited any more.
            let over = lock(&over.0);
            if !*over && before.as_ref() != Some(&seen) {
                files::replace(&path, &serde_json::to_vec(&seen)?, Durability::Cached)?;
            }
            Ok(seen)
        };
        match blocking(look).await {
            Ok(seen) => written = Some(seen),
            Err(error) if !std::mem::replace(&mut complained, true) => {
                tracing::warn!("the address of a service cannot be written to {}: {error}", file.display());
            }
            Err(_) => {}
        }
        let found = written.as_ref().is_some_and(|seen| seen.address.is_some());
        tokio::time::sleep(if found { PACE } else { SOON }).await;
    }
}

/// One look.
fn look(directory: &OwnedFd, members: impl FnOnce() -> Vec<i32>) -> io::Result<Seen> {
    let seen = |found: Result<(Address, Vec<IpAddr>), String>| {
        let (found, problem) = match found {
            Ok(found) => (Some(found), None),
            Err(problem) => (None, Some(problem)),
        };
        let (address, listens) = found.unzip();
        Seen { v: 1, node: host(), address, listens: listens.unwrap_or_default(), problem }
    };
    let text = match left::text(directory.as_fd(), ADDRESS, limits::ADDRESS_BYTES_MAX, "")? {
        None => return Ok(seen(Err(format!("it has not said where it listens: there is no {ADDRESS}")))),
        Some(Err(problem)) => return Ok(seen(Err(format!("{ADDRESS} {problem}")))),
        Some(Ok(text)) => text,
    };
    let address = match Address::parse(&text) {
        Ok(address) => address,
        Err(problem) => return Ok(seen(Err(format!("{ADDRESS} {problem}")))),
    };
    let listening = listening(address.port);
    let own: BTreeSet<u64> = members().into_iter().flat_map(proc::sockets).collect();
    Ok(seen(its_own(address.port, &listening, &own).map(|listens| (address, listens))))
}

/// On which addresses a run listens that has these sockets, of all that listen on its port; or why none of them counts.
fn its_own(port: u16, listening: &[(IpAddr, u64)], own: &BTreeSet<u64>) -> Result<Vec<IpAddr>, String> {
    let (its, others): (Vec<_>, Vec<_>) = listening.iter().copied().partition(|(_, inode)| own.contains(inode));
    let listens: BTreeSet<IpAddr> = its.into_iter().map(|(address, _)| address).collect();
    if listens.is_empty() {
        let who = if others.is_empty() { "nobody listens there" } else { "another program listens there" };
        return Err(format!("{ADDRESS} says port {port}, which is not its own: {who}"));
    }
    // All addresses of one family are not those of the other, and it may be reached by a name, which stands for both.
    if !others.is_empty() && listens.iter().any(IpAddr::is_unspecified) {
        return Err(format!("another program listens on port {port} as well, on another address"));
    }
    Ok(listens.into_iter().collect())
}

/// The sockets that listen on a port of this node: on which address, and the inode of each.
fn listening(port: u16) -> Vec<(IpAddr, u64)> {
    let of = |name: &str| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
    parse_listening(&of("tcp"), port).chain(parse_listening(&of("tcp6"), port)).collect()
}

/// Lines `sl local_address rem_address st … inode` with the address and the port in hexadecimal digits; 0A is a socket
/// that listens. Source: Linux, Documentation/networking/proc_net_tcp.rst.
pub(super) fn parse_listening(table: &str, port: u16) -> impl Iterator<Item = (IpAddr, u64)> {
    table.lines().skip(1).filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (address, its_port) = local.split_once(':')?;
        if *state != "0A" || u16::from_str_radix(its_port, 16) != Ok(port) {
            return None;
        }
        Some((parse_address(address)?, inode.parse().ok()?))
    })
}

/// One word of 32 bits, or four of them, each as this machine has them in memory.
fn parse_address(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(digits.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match digits.len() {
        8 => word(0).map(|bytes| Ipv4Addr::from(bytes).into()),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::TcpListener;

    use super::*;

    struct Case {
        temp: tempfile::TempDir,
        directory: OwnedFd,
    }

    impl Case {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let directory = File::open(temp.path()).unwrap().into();
            Self { temp, directory }
        }

        fn says(&self, text: &str) -> Seen {
            fs::write(self.temp.path().join(ADDRESS), text).unwrap();
            self.seen()
        }

        fn seen(&self) -> Seen {
            self.seen_of(vec![i32::try_from(std::process::id()).unwrap()])
        }

        fn seen_of(&self, pids: Vec<i32>) -> Seen {
            look(&self.directory, || pids).unwrap()
        }
    }

    #[test]
    fn a_port_counts_only_if_a_process_of_the_run_listens_there() {
        let case = Case::new();
        assert!(case.seen().problem.unwrap().contains("there is no address.json"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = case.says(&format!(r#"{{"port":{port},"facts":{{"qubits":4}}}}"#));
        assert_eq!((seen.problem, seen.listens), (None, vec![IpAddr::from(Ipv4Addr::LOCALHOST)]));
        assert_eq!(seen.address.map(|address| address.facts.len()), Some(1));
        let others = case.seen_of(vec![1]);
        assert!(others.problem.unwrap().contains("not its own: another program listens there"));
        drop(listener);
        assert!(case.seen().problem.unwrap().contains("not its own: nobody listens there"));
        let both = TcpListener::bind("[::]:0").unwrap();
        let port = both.local_addr().unwrap().port();
        assert_eq!(case.says(&format!(r#"{{"port":{port}}}"#)).listens, [IpAddr::from(Ipv6Addr::UNSPECIFIED)]);
    }

    #[test]
    fn who_listens_on_all_addresses_has_the_port_alone() {
        let of = |listening: &[(&str, u64)]| {
            let parsed: Vec<_> = listening.iter().map(|(address, inode)| (address.parse().unwrap(), *inode)).collect();
            its_own(7, &parsed, &BTreeSet::from([1, 2]))
        };
        for (all, others) in [("0.0.0.0", "::1"), ("::", "127.0.0.1"), ("0.0.0.0", "::")] {
            assert_eq!(of(&[(all, 1)]), Ok(vec![all.parse().unwrap()]));
            let refused = of(&[(all, 1), (others, 3)]).unwrap_err();
            assert_eq!(refused, "another program listens on port 7 as well, on another address");
        }
        assert_eq!(of(&[("0.0.0.0", 1), ("::", 2)]).map(|listens| listens.len()), Ok(2));
        // One address is that of its own socket alone.
        assert_eq!(of(&[("127.0.0.1", 1), ("::1", 3)]), Ok(vec![IpAddr::from(Ipv4Addr::LOCALHOST)]));
    }

    #[test]
    fn what_is_no_address_says_why() {
        let case = Case::new();
        assert!(case.says("{").problem.unwrap().starts_with("address.json is not JSON"));
        assert!(case.says(r#"{"port":0}"#).problem.unwrap().starts_with("address.json has `port`"));
        fs::remove_file(case.temp.path().join(ADDRESS)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", case.temp.path().join(ADDRESS)).unwrap();
        assert!(case.seen().problem.unwrap().contains("symbolic link"));
        fs::remove_file(case.temp.path().join(ADDRESS)).unwrap();
        File::create(case.temp.path().join(ADDRESS)).unwrap().set_len(1 << 30).unwrap();
        assert!(case.seen().problem.unwrap().contains("has 1073741824 bytes"));
    }

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n   \
            1: 0100007F:1F90 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n";
        let found: Vec<_> = parse_listening(table, 8080).collect();
        if cfg!(target_endian = "little") {
            assert_eq!(found, [(IpAddr::from(Ipv4Addr::LOCALHOST), 4711)]);
        }
        assert_eq!(parse_listening(table, 8081).count() + parse_listening("", 1).count(), 0);
        assert_eq!(parse_address(&"0".repeat(32)), Some(IpAddr::from(Ipv6Addr::UNSPECIFIED)));
        assert_eq!(parse_address("0"), None);
    }
}
