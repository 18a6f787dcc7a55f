//! The queue of results, as the laptop sees it: how many are there, and what they say.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::http::Connection;
use crate::processes::LocalEdge;

/// The most that one request of the API takes.
const BATCH: usize = 100;

/// The queue.
pub(super) struct Results {
    metrics: String,
    pull: String,
    ack: String,
    authorization: String,
    connection: Connection,
}

/// A result that was pulled.
pub(super) struct Arrived {
    /// Whose it is.
    pub(super) job_id: String,
    lease_id: String,
}

impl Results {
    /// Connects to it.
    pub(super) fn of(edge: &LocalEdge) -> anyhow::Result<Self> {
        let settings = &edge.settings;
        let queue = format!(
            "{}/accounts/{}/queues/{}",
            settings.get("CF_API_BASE_URL")?.trim_end_matches('/'),
            settings.get("CF_ACCOUNT_ID")?,
            settings.get("CF_RESULTS_QUEUE_ID")?
        );
        Ok(Self {
            metrics: format!("{queue}/metrics"),
            pull: format!("{queue}/messages/pull"),
            ack: format!("{queue}/messages/ack"),
            authorization: format!("Bearer {}", settings.get("CF_QUEUES_API_TOKEN")?),
            connection: Connection::new(),
        })
    }

    /// How many are there, by the metrics of the queue: to look changes nothing and writes nothing.
    pub(super) fn count(&self) -> anyhow::Result<usize> {
        let metrics = self.connection.get(&self.metrics, &[("authorization", &self.authorization)])?.json(200)?;
        let count = metrics["result"]["backlog_count"].as_u64().and_then(|count| usize::try_from(count).ok());
        count.with_context(|| format!("these metrics of a queue have no backlog: {metrics}"))
    }

    /// Pulls what is there, up to a batch. A result that is not of a completed job is an error.
    pub(super) fn pull(&mut self) -> anyhow::Result<Vec<Arrived>> {
        let body = json!({"batch_size": BATCH, "visibility_timeout_ms": 600_000}).to_string();
        let headers = [("authorization", self.authorization.as_str())];
        let answer = self.connection.post(&self.pull, &headers, body.as_bytes())?.json(200)?;
        let messages = answer["result"]["messages"].as_array().context("the pull has no list of messages")?;
        messages.iter().map(arrived).collect()
    }

    /// Acknowledges what was pulled.
    pub(super) fn acknowledge(&mut self, arrived: &[Arrived]) -> anyhow::Result<()> {
        let acks: Vec<Value> = arrived.iter().map(|one| json!({"lease_id": one.lease_id})).collect();
        let body = json!({"acks": acks}).to_string();
        let headers = [("authorization", self.authorization.as_str())];
        self.connection.post(&self.ack, &headers, body.as_bytes())?.json(200)?;
        Ok(())
    }

    /// Takes all out. There must be exactly so many, each of another job.
    pub(super) fn take(&mut self, jobs: usize) -> anyhow::Result<()> {
        let mut seen = BTreeSet::new();
        loop {
            let arrived = self.pull()?;
            if arrived.is_empty() {
                break;
            }
            self.acknowledge(&arrived)?;
            for Arrived { job_id, .. } in arrived {
                if let Some(job_id) = seen.replace(job_id) {
                    bail!("the job {job_id} has two results in the queue");
                }
            }
        }
        let left = self.count()?;
        if seen.len() != jobs || left > 0 {
            bail!("the queue held the results of {} jobs and not of {jobs}; {left} are left", seen.len());
        }
        Ok(())
    }
}

fn arrived(message: &Value) -> anyhow::Result<Arrived> {
    let body = message["body"].as_str().with_context(|| format!("a message has no body: {message}"))?;
    let result: Value = serde_json::from_str(body).with_context(|| format!("a result is not JSON: {body}"))?;
    if result["status"] != "completed" {
        bail!("a job did not complete: {body}");
    }
    let text = |value: &Value, name: &str| {
        value[name].as_str().map(str::to_owned).with_context(|| format!("a result has no {name}: {message}"))
    };
    Ok(Arrived { job_id: text(&result, "job_id")?, lease_id: text(message, "lease_id")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_failed_does_not_count() {
        let message = |status: &str| {
            let body = json!({"job_id": "a", "status": status}).to_string();
            json!({"lease_id": "l", "body": body})
        };
        assert_eq!(arrived(&message("completed")).unwrap().job_id, "a");
        assert!(arrived(&message("failed")).is_err_and(|error| error.to_string().contains("did not complete")));
    }
}
