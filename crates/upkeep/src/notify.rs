//! A program tells who started it that it is up, and that its loop turns: systemd, or `service start` of the program.
//!
//! Invariant: nothing here holds the daemon up, and nobody who does not listen is any trouble.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use program::variables;
use service::notify::{READY, alive, interval};
use tokio::time::Instant;

/// Who wants to know that the program is up, and lives: what systemd says in the environment.
#[derive(Debug)]
pub struct Listener {
    socket: Option<OsString>,
    watchdog_usec: Option<String>,
}

impl Listener {
    /// What the environment of this process says.
    pub fn of_environment() -> Self {
        let of = |name| variables(&[name]).pop().map(|(_, value)| value);
        let text = |name| of(name)?.into_string().ok();
        let is_ours = text("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        Self { socket: of("NOTIFY_SOCKET"), watchdog_usec: text("WATCHDOG_USEC").filter(|_| is_ours) }
    }
}

/// Who is told, if anybody is.
#[derive(Debug)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    interval: Duration,
    next: Instant,
}

impl Notify {
    /// Tells this one.
    pub fn to(listener: &Listener) -> Self {
        let to = listener.socket.as_deref().and_then(|name| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address(name)?))
        });
        Self { to, interval: interval(listener.watchdog_usec.as_deref()), next: Instant::now() }
    }

    /// The program is up.
    pub fn ready(&self) {
        self.tell(READY);
    }

    /// Its loop turns.
    pub fn turns(&mut self) {
        if self.to.is_some() && Instant::now() >= self.next {
            self.next = Instant::now() + self.interval;
            self.tell(&alive());
        }
    }

    /// Until that is to be said again.
    pub async fn due(&self) {
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
        #[cfg(target_os = "linux")]
        (b'@', name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).ok(),
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
