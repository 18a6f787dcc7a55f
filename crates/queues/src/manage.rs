//! Making what is missing: queues, what reads them, how long they keep messages. What counts against the rate limit of
//! the whole API, which pulls do not.

use std::time::Duration;

use protocol::FailureClass;
use reqwest::Method;

use crate::client::{Client, Consumer, QueueInfo};
use crate::error::Error;
use crate::wire;

/// More pages of queues are not read: an account has 10,000 queues at most.
const PAGES_MAX: u32 = 100;

impl Client {
    /// All queues of the account.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        let mut queues: Vec<QueueInfo> = Vec::new();
        for page in 1..=PAGES_MAX {
            let answer = self.send::<Vec<wire::Queue>>("list the queues".to_owned(), self.page(page)).await?;
            let found: Vec<QueueInfo> = answer.result.unwrap_or_default().into_iter().map(wire::Queue::info).collect();
            // Who knows no pages answers with the same ones again.
            let is_new = |queue: &QueueInfo| !queues.iter().any(|known| known.id == queue.id);
            let new: Vec<QueueInfo> = found.into_iter().filter(is_new).collect();
            if new.is_empty() {
                break;
            }
            queues.extend(new);
        }
        Ok(queues)
    }

    /// May this token change what is in the queue? It is asked to acknowledge nothing; that this is refused for another
    /// reason than the token is as good as an answer.
    pub async fn may_write(&self, queue_id: &str) -> Result<(), Error> {
        match self.settle(queue_id, &[], &[]).await {
            Err(error) if error.class != FailureClass::Refused => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes a queue.
    pub async fn create_queue(&self, name: &str) -> Result<QueueInfo, Error> {
        let request = self.request(Method::POST, &[]).json(&wire::CreateQueue { queue_name: name });
        let answer = self.send::<wire::Queue>(format!("make the queue {name}"), request).await?;
        Ok(answer.result.map(wire::Queue::info).unwrap_or_default())
    }

    /// Has a queue keep its messages for so long.
    pub async fn keep_messages_for(&self, queue_id: &str, retention: Duration) -> Result<(), Error> {
        let settings = wire::EditedSettings { message_retention_period: retention.as_secs() };
        let request = self.request(Method::PATCH, &[queue_id]).json(&wire::EditQueue { settings });
        let operation = format!("set how long the queue {queue_id} keeps messages");
        self.send::<serde_json::Value>(operation, request).await.map(drop)
    }

    /// Has a queue read by pulls over HTTP, as this says. With an id it takes the place of that consumer.
    pub async fn put_pull_consumer(&self, queue_id: &str, consumer: &Consumer) -> Result<(), Error> {
        let mut settings = consumer.others.clone();
        settings.extend(consumer.max_retries.map(|retries| ("max_retries".to_owned(), retries.into())));
        let dead_letter_queue = consumer.dead_letter_queue.as_deref();
        let body = wire::PutConsumer { r#type: "http_pull", dead_letter_queue, settings };
        let request = match &consumer.id {
            Some(id) => self.request(Method::PUT, &[queue_id, "consumers", id]),
            None => self.request(Method::POST, &[queue_id, "consumers"]),
        };
        let operation = format!("have the queue {queue_id} read by pulls");
        self.send::<serde_json::Value>(operation, request.json(&body)).await.map(drop)
    }
}
