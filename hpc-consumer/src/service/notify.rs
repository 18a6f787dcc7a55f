//! The daemon tells who started it that it is up, and that its loop turns: systemd, or `hpc-consumer service start`.
//!
//! Invariant: nothing here holds the daemon up, and nobody who does not listen is any trouble.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use service::notify::{READY, alive, interval};
use tokio::time::Instant;

use crate::config::Listener;

/// Who is told, if anybody is.
#[derive(Debug)]
pub(crate) struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    interval: Duration,
    next: Instant,
}

impl Notify {
    pub(crate) fn to(listener: &Listener) -> Self {
        let to = listener.socket.as_deref().and_then(|name| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address(name)?))
        });
        Self { to, interval: interval(listener.watchdog_usec.as_deref()), next: Instant::now() }
    }

    /// The daemon is up.
    pub(crate) fn ready(&self) {
        self.tell(READY);
    }

    /// Its loop turns.
    pub(crate) fn turns(&mut self) {
        if self.to.is_some() && Instant::now() >= self.next {
            self.next = Instant::now() + self.interval;
            self.tell(&alive());
        }
    }

    /// Until that is to be said again.
    pub(crate) async fn due(&self) {
        match self.to {
            Some(_) => tokio::time::sleep_until(self.next).await,
            None => std::future::pending().await,
        }
    }

    fn tell(&self, text: &str) {
        if let Some((socket, address)) = &self.to {
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

/// A path, or with an @ in front a name without a file.
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes().split_first()? {
        (b'@', name) => SocketAddr::from_abstract_name(name).ok(),
        (b'/', _) => SocketAddr::from_pathname(name).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_listens_hears_it_at_once_and_then_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let listener = Listener { socket: Some(path.into()), watchdog_usec: Some("60000".into()) };
        let mut notify = Notify::to(&listener);
        let hear = || {
            let mut bytes = [0; 100];
            let length = socket.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        notify.ready();
        assert_eq!(hear(), "READY=1\n");
        for _ in 0..2 {
            notify.due().await;
            notify.turns();
            assert!(hear().starts_with("WATCHDOG=1\n"));
        }
        notify.turns();
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut [0; 100]).is_err(), "more often than asked for");
    }

    #[tokio::test]
    async fn nobody_is_told_where_nobody_listens() {
        for name in
            [None, Some("".into()), Some("relative".into()), Some("/no/such/socket".into()), Some("@none".into())]
        {
            let mut notify = Notify::to(&Listener { socket: name, watchdog_usec: None });
            notify.ready();
            notify.turns();
        }
    }
}
