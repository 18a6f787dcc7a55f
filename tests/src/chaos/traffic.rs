//! Who submits jobs until they are accepted, and who receives results, through all trouble.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Plan;
use crate::http::{Answer, block_on, try_send};
use crate::{Laptop, Producer};

/// The most jobs in one request.
const BATCH: usize = 50;

/// For how long a pulled result is hidden: one whose acknowledgement is lost comes again soon.
const RESULT_LEASE: Duration = Duration::from_secs(5);

/// Where [`Traffic::submit`] draws its numbers, and [`Traffic::send`]; jobs draw from streams with their own, small
/// numbers.
const STREAM: u64 = u64::MAX;
const STREAM_OF_FILES: u64 = u64::MAX - 2;

/// So many of a hundred calls of `laptop-consumer` are killed, and at most so late.
const KILLED_PERCENT: u32 = 10;
const KILLED_WITHIN_MS: u64 = 60;

/// How long such a call may take. It goes on for two minutes where nothing answers.
const SENT_WITHIN: Duration = Duration::from_secs(180);

/// What was submitted and received so far.
pub(super) struct Traffic {
    jobs: usize,
    deadline: Instant,
    over: AtomicBool,
    seen: Mutex<Seen>,
}

/// The same as values.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The ids of accepted jobs, by their numbers.
    pub(super) accepted: BTreeMap<usize, String>,
    /// Requests that had to be repeated.
    pub(super) repeated: u64,
    /// Calls of `laptop-consumer` that were killed.
    pub(super) laptops_killed: u64,
    /// What the last of them said that did not end well.
    pub(super) laptop_said: String,
    /// Deliveries of results.
    pub(super) deliveries: u64,
    /// Their messages; each may be delivered several times.
    pub(super) messages: BTreeSet<String>,
    /// The first result of each job, byte by byte.
    pub(super) results: BTreeMap<String, String>,
    /// Jobs of which a later result was another.
    pub(super) differing: BTreeSet<String>,
    /// Messages that were no results.
    pub(super) unreadable: Vec<String>,
}

/// Ends the traffic when it goes.
pub(super) struct End<'a>(&'a Traffic);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

impl Traffic {
    pub(super) fn new(jobs: usize, deadline: Instant) -> Self {
        Self { jobs, deadline, over: AtomicBool::new(false), seen: Mutex::default() }
    }

    pub(super) fn end(&self) -> End<'_> {
        End(self)
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        // A panic is reported by the thread that had it.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From 0 to 1.
    pub(super) fn share_of_results(&self) -> f64 {
        self.seen().results.len() as f64 / self.jobs as f64
    }

    /// Are all jobs accepted, and have all a result?
    pub(super) fn is_complete(&self) -> bool {
        let seen = self.seen();
        seen.accepted.len() == self.jobs && seen.accepted.values().all(|id| seen.results.contains_key(id))
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Submits all jobs, each request again and again until its jobs are accepted.
    pub(super) fn submit(&self, plan: &Plan, producer: &Producer) {
        let mut random = super::random(plan.seed, STREAM);
        let numbers: Vec<usize> = (0..plan.jobs).filter(|number| !plan.has_files(*number)).collect();
        for (batch, numbers) in numbers.chunks(BATCH.min(plan.outstanding)).enumerate() {
            if !self.wait_for_room(plan.outstanding) {
                return;
            }
            let jobs: Vec<Value> = numbers.iter().map(|&number| plan.job(number)).collect();
            let body = json!({"jobs": jobs}).to_string();
            // The same key gives the same job ids, however often the request is made and whatever became of it.
            let key = format!("chaos-{}-{batch}", plan.seed);
            loop {
                let request = producer.post("/jobs/batch").header("idempotency-key", &key).body(body.clone());
                if let Some(ids) = try_send(request).ok().and_then(|answer| accepted(&answer, numbers.len())) {
                    self.seen().accepted.extend(numbers.iter().copied().zip(ids));
                    break;
                }
                if self.is_past() {
                    return;
                }
                self.seen().repeated += 1;
                thread::sleep(super::millis(&mut random, 20..=200));
            }
        }
    }

    /// Submits the jobs that bring files, each as a person does, with a laptop that dies now and then.
    pub(super) fn send(&self, plan: &Plan, laptop: &Laptop) {
        let mut random = super::random(plan.seed, STREAM_OF_FILES);
        let file = laptop.path("file");
        for number in (0..plan.jobs).filter(|number| plan.has_files(*number)) {
            if !self.wait_for_room(plan.outstanding) {
                return;
            }
            fs::write(&file, plan.brought(number)).expect("the directory of a test can be written to");
            let words = words(plan, number, &format!("{}:in/data", file.display()));
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            loop {
                let mut process = laptop.start(&words);
                let dies = random.u32(..100) < KILLED_PERCENT;
                let within = if dies { super::millis(&mut random, 0..=KILLED_WITHIN_MS) } else { SENT_WITHIN };
                let ended = process.wait_within(within);
                if ended.is_none() {
                    process.kill();
                    self.seen().laptops_killed += u64::from(dies);
                } else if let Some(id) = submitted(&process.output()) {
                    self.seen().accepted.insert(number, id);
                    break;
                } else {
                    self.seen().laptop_said = process.log();
                }
                if self.is_past() {
                    return;
                }
                self.seen().repeated += 1;
                thread::sleep(super::millis(&mut random, 20..=200));
            }
        }
    }

    /// Waits until there is room for more jobs; `false` if there never is.
    fn wait_for_room(&self, outstanding: usize) -> bool {
        while !self.has_room(outstanding) {
            if self.is_past() {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }

    fn has_room(&self, outstanding: usize) -> bool {
        let seen = self.seen();
        seen.accepted.len() < seen.results.len() + outstanding
    }

    fn is_past(&self) -> bool {
        self.is_over() || Instant::now() > self.deadline
    }

    /// Receives results until the end, and then until there are no more.
    pub(super) fn collect(&self, queues: &queues::Client, queue: &str) {
        loop {
            // Asked before the pull: what comes after the end is received as well.
            let over = self.is_over();
            let deliveries = match block_on(queues.pull(queue, 100, RESULT_LEASE)) {
                Ok(pulled) => pulled.deliveries,
                Err(_) => Vec::new(),
            };
            if deliveries.is_empty() {
                if over {
                    return;
                }
                thread::sleep(Duration::from_millis(50));
                continue;
            }
            let leases: Vec<String> = deliveries.iter().map(|delivery| delivery.lease_id.clone()).collect();
            let mut seen = self.seen();
            for delivery in deliveries {
                seen.receive(delivery);
            }
            drop(seen);
            // Where this fails the messages come again.
            let _ = block_on(queues.settle(queue, &leases, &[]));
        }
    }
}

impl Seen {
    fn receive(&mut self, delivery: queues::Delivery) {
        self.deliveries += 1;
        self.messages.insert(delivery.message_id);
        let result = serde_json::from_str::<Value>(&delivery.body);
        let Some(job_id) = result.ok().and_then(|result| result["job_id"].as_str().map(str::to_owned)) else {
            self.unreadable.push(delivery.body);
            return;
        };
        match self.results.get(&job_id) {
            None => {
                self.results.insert(job_id, delivery.body);
            }
            Some(first) if *first == delivery.body => {}
            Some(_) => {
                self.differing.insert(job_id);
            }
        }
    }
}

/// How a person submits a job with a file.
fn words(plan: &Plan, number: usize, file: &str) -> Vec<String> {
    let job = plan.job(number);
    let key = format!("chaos-{}-file-{number}", plan.seed);
    let input = job["input"].to_string();
    let words = ["submit", "--task", "ledger", "--input", &input, "--file", file, "--output", "out"];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    words.extend(["--idempotency-key".to_owned(), key]);
    if let Some(pool) = job["pool"].as_str() {
        words.extend(["--pool".to_owned(), pool.to_owned()]);
    }
    if let Some(retries) = job["retries"].as_u64() {
        words.extend(["--retries".to_owned(), retries.to_string()]);
    }
    if job["rerunnable"] == false {
        words.push("--not-rerunnable".to_owned());
    }
    words
}

/// The id of the job that `laptop-consumer submit` says it has submitted.
fn submitted(output: &str) -> Option<String> {
    let said: Value = serde_json::from_str(output.lines().next_back()?).ok()?;
    said["job_id"].as_str().map(str::to_owned)
}

/// The ids in an answer that accepts so many jobs; `None` for anything else.
fn accepted(answer: &Answer, count: usize) -> Option<Vec<String>> {
    let body: Value = serde_json::from_str(&answer.body).ok()?;
    let ids = |jobs: &Vec<Value>| jobs.iter().map(|job| job["job_id"].as_str().map(str::to_owned)).collect();
    let ids: Vec<String> = body["jobs"].as_array().and_then(ids)?;
    (answer.status == 202 && ids.len() == count).then_some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(message_id: &str, body: &str) -> queues::Delivery {
        let (message_id, body) = (message_id.to_owned(), body.to_owned());
        queues::Delivery { message_id, lease_id: String::new(), body, deliveries: 1 }
    }

    #[test]
    fn the_first_result_is_kept_and_another_one_is_told() {
        let mut seen = Seen::default();
        for (message, body) in [
            ("m1", r#"{"job_id":"a","output":1}"#),
            ("m1", r#"{"job_id":"a","output":1}"#),
            ("m2", r#"{"job_id":"b","output":1}"#),
            ("m3", r#"{"job_id":"b","output": 1}"#),
            ("m4", "hello"),
        ] {
            seen.receive(delivery(message, body));
        }
        assert_eq!((seen.deliveries, seen.messages.len(), seen.results.len()), (5, 4, 2));
        assert_eq!(seen.results["b"], r#"{"job_id":"b","output":1}"#);
        assert_eq!(seen.differing, BTreeSet::from(["b".to_owned()]));
        assert_eq!(seen.unreadable, ["hello"]);
    }
}
