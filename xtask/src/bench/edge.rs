//! Messages of 1 KB through the queues of `local-edge`, over HTTP, with durability on.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::load::{Request, in_threads};
use super::median;
use super::table::{Aim, Row};
use crate::http::Connection;
use crate::processes::LocalEdge;
use crate::workspace::{Profile, Workspace};

/// What Cloudflare names as the ceiling of one queue.
const CEILING: f64 = 5_000.0;
/// The most that one request of the API takes.
const BATCH: u64 = 100;
const MESSAGES: u64 = 30_000;
const ROUNDS: usize = 3;
const PUSHERS: usize = 2;
const PULLERS: usize = 2;
const SINGLE_CONNECTIONS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let queue = Queue::of(&edge)?;
    let rounds = (0..ROUNDS).map(|_| queue.whole_path()).collect::<anyhow::Result<Vec<f64>>>()?;
    let singles = queue.single_pushes()?;
    let row = |measure: &str, rate: f64, aim: Aim| Row {
        measure: measure.to_owned(),
        here: format!("{rate:.0}/s"),
        against: format!("{CEILING:.0}/s, the ceiling of one queue at Cloudflare"),
        ratio: rate / CEILING,
        aim,
    };
    Ok(vec![
        row(
            "local-edge: 1 KB messages pushed, pulled and acknowledged per second, 100 a request",
            median(&rounds),
            Aim::AtLeast(1.0),
        ),
        row("local-edge: 1 KB messages pushed per second, one a request, 16 connections", singles, Aim::None),
    ])
}

/// The addresses of one queue.
struct Queue {
    push: String,
    push_batch: String,
    pull: String,
    ack: String,
    authorization: String,
}

impl Queue {
    fn of(edge: &LocalEdge) -> anyhow::Result<Self> {
        let settings = &edge.settings;
        let messages = format!(
            "{}/accounts/{}/queues/{}/messages",
            settings.get("CF_API_BASE_URL")?.trim_end_matches('/'),
            settings.get("CF_ACCOUNT_ID")?,
            settings.get("CF_JOBS_QUEUE_ID")?
        );
        let url = |suffix: &str| format!("{messages}{suffix}");
        Ok(Self {
            push: url(""),
            push_batch: url("/batch"),
            pull: url("/pull"),
            ack: url("/ack"),
            authorization: format!("Bearer {}", settings.get("CF_QUEUES_API_TOKEN")?),
        })
    }

    fn post(&self, connection: &Connection, url: &str, body: &[u8]) -> anyhow::Result<Value> {
        connection.post(url, &[("authorization", self.authorization.as_str())], body)?.json(200)
    }

    /// Messages per second from the first push to the last acknowledgment, pushers and pullers at once.
    fn whole_path(&self) -> anyhow::Result<f64> {
        let batches = AtomicU64::new(MESSAGES / BATCH);
        let acknowledged = AtomicU64::new(0);
        let begin = Instant::now();
        let pulled = thread::scope(|scope| {
            let pushing = scope.spawn(|| in_threads(PUSHERS, || self.push_all(&batches)));
            let pulled = in_threads(PULLERS, || self.pull_all(&acknowledged, begin + PATIENCE));
            pushing.join().map_err(|_| anyhow::anyhow!("a pusher panicked"))??;
            pulled
        });
        pulled?;
        Ok(MESSAGES as f64 / begin.elapsed().as_secs_f64())
    }

    fn push_all(&self, batches: &AtomicU64) -> anyhow::Result<()> {
        let message = json!({"body": "x".repeat(1000), "content_type": "text"});
        let body = json!({"messages": vec![message; BATCH as usize]}).to_string();
        let connection = Connection::new();
        while batches.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            self.post(&connection, &self.push_batch, body.as_bytes())?;
        }
        Ok(())
    }

    fn pull_all(&self, acknowledged: &AtomicU64, end: Instant) -> anyhow::Result<()> {
        let pull = json!({"batch_size": BATCH, "visibility_timeout_ms": 600_000}).to_string();
        let connection = Connection::new();
        while acknowledged.load(Ordering::Relaxed) < MESSAGES {
            if Instant::now() > end {
                bail!("{} of {MESSAGES} messages came within {PATIENCE:?}", acknowledged.load(Ordering::Relaxed));
            }
            let answer = self.post(&connection, &self.pull, pull.as_bytes())?;
            let messages = answer["result"]["messages"].as_array().context("the pull has no list of messages")?;
            if messages.is_empty() {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            let acks: Vec<Value> = messages.iter().map(|message| json!({"lease_id": message["lease_id"]})).collect();
            self.post(&connection, &self.ack, json!({"acks": acks}).to_string().as_bytes())?;
            acknowledged.fetch_add(messages.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn single_pushes(&self) -> anyhow::Result<f64> {
        let body = json!({"body": "x".repeat(1000), "content_type": "text"}).to_string();
        let headers = [("authorization", self.authorization.as_str())];
        Request { url: &self.push, headers: &headers, body: body.as_bytes(), status: 200 }
            .per_second(SINGLE_CONNECTIONS, Duration::from_secs(5))
    }
}
