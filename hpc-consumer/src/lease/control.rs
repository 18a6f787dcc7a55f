//! What is asked of the broker through its control socket: HTTP/1.1, one request for each connection. Both sides are
//! ours, and an answer has one form, so a client of HTTP would bring more than there is to do.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use protocol::JobId;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, test_kill_process, waitpid};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::broker::Found;

/// The socket in the folder of the lease.
const SOCKET: &str = "control.sock";

/// How long an answer may take: the broker writes to its disk before it answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// The longest answer: the ids of all jobs.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// The way to the broker.
#[derive(Debug)]
pub(super) struct Control {
    /// An address of a socket is short, and a path of ours may not be; so it goes through the open folder.
    folder: OwnedFd,
    /// Who has answered last.
    met: Mutex<Option<Pid>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// There is no broker.
    Gone(io::Error),
    /// It does not do what it is to.
    Trouble(String),
}

impl NoAnswer {
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Gone(_))
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(error) => write!(f, "it is not there ({error})"),
            Self::Trouble(what) => f.write_str(what),
        }
    }
}

#[derive(Deserialize)]
struct Jobs {
    jobs: Vec<JobId>,
}

#[derive(Deserialize)]
struct Machines {
    qpus: Vec<Machine>,
}

#[derive(Deserialize)]
struct Machine {
    in_flight: usize,
}

#[derive(Deserialize)]
struct Refused {
    detail: String,
}

impl Control {
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { folder: rustix::fs::open(folder, flags, Mode::empty())?, met: Mutex::default() })
    }

    /// The jobs that it has.
    pub(super) async fn jobs(&self) -> Result<Vec<JobId>, NoAnswer> {
        Ok(parsed::<Jobs>(&self.ask("GET", "/v1/jobs").await?)?.jobs)
    }

    /// How many tasks are at vendors.
    pub(super) async fn in_flight(&self) -> Result<usize, NoAnswer> {
        let machines: Machines = parsed(&self.ask("GET", "/v1/qpus").await?)?;
        Ok(machines.qpus.iter().map(|machine| machine.in_flight).sum())
    }

    pub(super) async fn begin(&self, job: &JobId) -> Result<(), NoAnswer> {
        self.ask("POST", &format!("/v1/jobs/{job}")).await.map(drop)
    }

    pub(super) async fn end(&self, job: &JobId) -> Result<(), NoAnswer> {
        self.ask("DELETE", &format!("/v1/jobs/{job}")).await.map(drop)
    }

    /// Has it end, if it is there, and waits until it has.
    pub(super) async fn stop(&self, within: Duration) -> Result<Found, NoAnswer> {
        let stream = match self.connect().await {
            Err(NoAnswer::Gone(_)) => return Ok(Found::Nothing),
            stream => stream?,
        };
        drop(stream);
        let pid = *crate::lock(&self.met);
        let pid = pid.ok_or_else(|| NoAnswer::Trouble("which process it is cannot be told".to_owned()))?;
        kill_process(pid, Signal::TERM).map_err(|error| NoAnswer::Trouble(error.to_string()))?;
        let until = Instant::now() + within;
        // The next one can have its state once it is gone.
        while goes_on(pid) {
            if Instant::now() > until {
                let seconds = within.as_secs();
                return Err(NoAnswer::Trouble(format!("process {pid} has not ended {seconds} s after SIGTERM")));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(Found::There)
    }

    /// The one that has answered last has ended. It may have been started by this process before that began anew with
    /// other settings, and nobody else hears of its end.
    pub(super) fn bury(&self) {
        if let Some(pid) = *crate::lock(&self.met) {
            goes_on(pid);
        }
    }

    async fn connect(&self) -> Result<UnixStream, NoAnswer> {
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", self.folder.as_raw_fd()));
        let stream = UnixStream::connect(&path).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => NoAnswer::Gone(error),
            _ => NoAnswer::Trouble(format!("it cannot be reached ({error})")),
        })?;
        let of_us = stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw());
        if !of_us {
            return Err(NoAnswer::Trouble("a process of another user listens in its place".to_owned()));
        }
        *crate::lock(&self.met) = stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(Pid::from_raw);
        Ok(stream)
    }

    /// The body of an answer that says that it was done.
    async fn ask(&self, method: &str, path: &str) -> Result<String, NoAnswer> {
        let asked = async {
            let mut stream = self.connect().await?;
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: lease\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            let mut answer = Vec::new();
            let spoken = async {
                stream.write_all(request.as_bytes()).await?;
                stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await
            };
            // One that dies in the middle is gone.
            spoken.await.map_err(NoAnswer::Gone)?;
            Ok(answer)
        };
        let late = || NoAnswer::Trouble(format!("it does not answer within {} s", ANSWERS_WITHIN.as_secs()));
        let answer = tokio::time::timeout(ANSWERS_WITHIN, asked).await.map_err(|_| late())??;
        read(&answer)
    }
}

/// Does this process go on? One of ours is gone for good once its end was seen.
fn goes_on(pid: Pid) -> bool {
    match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(None) => true,
        Ok(Some(_)) => false,
        // It is none of ours.
        Err(_) => test_kill_process(pid).is_ok(),
    }
}

fn parsed<T: DeserializeOwned>(text: &str) -> Result<T, NoAnswer> {
    serde_json::from_str(text).map_err(|error| NoAnswer::Trouble(format!("it answers what cannot be read ({error})")))
}

fn read(answer: &[u8]) -> Result<String, NoAnswer> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(NoAnswer::Gone(io::Error::new(io::ErrorKind::UnexpectedEof, "it has gone without an answer")));
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    match status {
        Some(200..=299) => Ok(body.to_owned()),
        Some(503) => Err(NoAnswer::Gone(io::Error::other("it is about to end"))),
        _ => {
            let why = serde_json::from_str::<Refused>(body).map(|refused| refused.detail);
            let first = head.lines().next().unwrap_or_default().to_owned();
            Err(NoAnswer::Trouble(why.unwrap_or(first)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_body_a_reason_or_the_end_of_the_broker() {
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n{}").unwrap(), "{}");
        assert_eq!(read(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), "");
        let told = |answer: &[u8]| read(answer).unwrap_err();
        assert_eq!(told(b"HTTP/1.1 500 x\r\n\r\n{\"detail\":\"its log says why\"}").to_string(), "its log says why");
        assert_eq!(told(b"HTTP/1.1 500 x\r\n\r\nno").to_string(), "HTTP/1.1 500 x");
        assert!(told(b"").is_gone() && told(b"HTTP/1.1 200").is_gone() && told(b"HTTP/1.1 503 x\r\n\r\n{}").is_gone());
    }
}
