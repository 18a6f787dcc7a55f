//! Load: the same request over several kept connections, for a time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};

use crate::http::Connection;

/// A request that is sent again and again.
pub(super) struct Request<'a> {
    /// Where to.
    pub(super) url: &'a str,
    /// Headers besides content-type and content-length.
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub(super) body: &'a [u8],
    /// The status that every answer must have.
    pub(super) status: u16,
}

impl Request<'_> {
    /// How many requests are answered per second over so many connections.
    pub(super) fn per_second(&self, connections: usize, time: Duration) -> anyhow::Result<f64> {
        let begin = Instant::now();
        let counts = in_threads(connections, || self.repeat(begin + time))?;
        Ok(counts.iter().sum::<u64>() as f64 / begin.elapsed().as_secs_f64())
    }

    fn repeat(&self, end: Instant) -> anyhow::Result<u64> {
        let connection = Connection::new();
        let mut count = 0;
        while Instant::now() < end {
            let answer = connection.post(self.url, self.headers, self.body)?;
            if answer.status != self.status {
                let body = String::from_utf8_lossy(&answer.body);
                bail!("an answer has status {} and not {}: {body}", answer.status, self.status);
            }
            count += 1;
        }
        Ok(count)
    }
}

/// Does the same in several threads, and returns what each returned.
pub(super) fn in_threads<T: Send>(
    threads: usize,
    work: impl Fn() -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        handles.into_iter().map(|handle| handle.join().map_err(|_| anyhow!("a thread of the load panicked"))?).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn one_thread_that_fails_fails_the_measure() {
        let calls = AtomicU64::new(0);
        let result = in_threads(4, || match calls.fetch_add(1, Ordering::Relaxed) {
            2 => bail!("refused"),
            call => Ok(call),
        });
        assert_eq!(result.unwrap_err().to_string(), "refused");
        assert_eq!(in_threads(3, || Ok(1)).unwrap(), [1, 1, 1]);
    }
}
