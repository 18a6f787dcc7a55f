//! Random histories: effects end late, in any order, with failures and further deliveries. After every step the
//! invariants hold, and at the end every job has run once and was published and acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use lifecycle::{Delivery, Effect, Event, Failure, Lifecycle, RunEnd, Settings};
use protocol::{FailureClass, JobId, JobResult};

const JOBS: usize = 40;

/// The queue and the node, as far as the lifecycle can tell.
#[derive(Default)]
struct World {
    waiting: Vec<String>,
    leases: BTreeMap<String, String>,
    acknowledged: BTreeSet<String>,
    published: BTreeMap<String, u32>,
    running: BTreeSet<JobId>,
    finished: BTreeSet<JobId>,
    next_lease: u32,
    /// The ends of runs whose processes are gone.
    exited: Vec<Event>,
}

fn record(id: &str) -> String {
    format!(r#"{{"v":1,"job_id":"{id}","status":"completed","result_pointer":"file://x/{id}"}}"#)
}

impl World {
    fn lease(&mut self, id: String) -> Delivery {
        self.next_lease += 1;
        let lease_id = format!("L{}", self.next_lease);
        let body = format!(r#"{{"v":1,"job_id":"{id}","task":"echo"}}"#);
        self.leases.insert(lease_id.clone(), id);
        Delivery { lease_id, body }
    }

    /// Carries out an effect, or fails to.
    fn perform(&mut self, effect: Effect, rng: &mut Rng) -> Option<Event> {
        let lost_request = rng.u8(..) < 30;
        let lost_response = rng.u8(..) < 30;
        let failure = || Failure { class: FailureClass::Unavailable, what: "lost".to_owned(), jitter: 0.5 };
        Some(match effect {
            Effect::Probe => Event::Probed(if rng.u8(..) < 60 { Err("broken".to_owned()) } else { Ok(()) }),
            Effect::Pull(_) if lost_request => Event::Pulled(Err(failure())),
            Effect::Pull(count) => {
                let mut deliveries = Vec::new();
                for _ in 0..count.min(self.waiting.len()) {
                    let id = self.waiting.swap_remove(rng.usize(..self.waiting.len()));
                    deliveries.push(self.lease(id));
                }
                // A lease that lapsed: the queue delivers the message once more.
                let held: Vec<String> = self.leases.values().cloned().collect();
                if !held.is_empty() && rng.u8(..) < 40 {
                    let id = held[rng.usize(..held.len())].clone();
                    deliveries.push(self.lease(id));
                }
                if lost_response {
                    self.waiting.extend(deliveries.iter().map(|delivery| self.leases[&delivery.lease_id].clone()));
                    return Some(Event::Pulled(Err(failure())));
                }
                Event::Pulled(Ok(deliveries))
            }
            Effect::Run(job) => {
                assert!(self.running.insert(job.job_id.clone()), "{} runs twice at the same time", job.job_id);
                let end = if rng.u8(..) < 30 && !self.finished.contains(&job.job_id) {
                    RunEnd::NodeBroken("broken".to_owned())
                } else {
                    RunEnd::Recorded(record(job.job_id.as_str()))
                };
                if rng.bool() {
                    self.exited.push(Event::RunEnded(job.job_id.clone(), end));
                    return Some(Event::RunExited(job.job_id));
                }
                Event::RunEnded(job.job_id, end)
            }
            Effect::Publish(_) if lost_request => Event::Published(Err(failure())),
            Effect::Publish(records) => {
                for record in records {
                    let id = JobResult::parse(&record).expect("we made the record").job_id;
                    *self.published.entry(id.to_string()).or_default() += 1;
                }
                Event::Published(if lost_response { Err(failure()) } else { Ok(()) })
            }
            Effect::Settle { .. } if lost_request => Event::Settled(Err(failure())),
            Effect::Settle { acks, retries } => {
                for lease in acks {
                    let Some(id) = self.leases.remove(&lease) else { continue };
                    assert!(self.published.contains_key(&id), "{id} is acknowledged and not published");
                    self.acknowledged.insert(id);
                }
                for (lease, _) in retries {
                    self.waiting.extend(self.leases.remove(&lease));
                }
                Event::Settled(if lost_response { Err(failure()) } else { Ok(()) })
            }
            Effect::Say(_) => return None,
            Effect::PutAway { .. } | Effect::Exit | Effect::Fail(_) => panic!("not in these histories: {effect:?}"),
        })
    }
}

fn history(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let slots = rng.usize(1..5);
    let mut state = Lifecycle::new(Settings {
        slots,
        batch_size: 100,
        poll_interval: Duration::from_secs(1),
        poll_interval_max: Duration::from_secs(4),
        retry_delay: Duration::from_secs(5),
        exit_when_idle: false,
    });
    let mut world = World { waiting: (0..JOBS).map(|n| format!("job{n}")).collect(), ..World::default() };
    let mut now = Duration::ZERO;
    let mut under_way: Vec<Event> = Vec::new();
    let mut event = Event::Tick;
    let mut slots_taken = 0;
    let mut freed = BTreeSet::new();
    for _ in 0..20_000 {
        if let Event::RunExited(job_id) = &event {
            slots_taken -= 1;
            let end = world.exited.iter().position(|end| matches!(end, Event::RunEnded(id, _) if id == job_id));
            under_way.push(world.exited.swap_remove(end.expect("its end was put there when it began")));
            freed.insert(job_id.clone());
        }
        if let Event::RunEnded(job_id, end) = &event {
            world.running.remove(job_id);
            if !freed.remove(job_id) {
                slots_taken -= 1;
            }
            if matches!(end, RunEnd::Recorded(_)) {
                world.finished.insert(job_id.clone());
            }
        }
        for effect in state.step(event, now) {
            slots_taken += usize::from(matches!(effect, Effect::Run(_)));
            under_way.extend(world.perform(effect, &mut rng));
        }
        state.check().unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
        assert!(slots_taken <= slots, "seed {seed}");
        let all_done = world.acknowledged.len() == JOBS && state.running() == 0 && state.owed() == 0;
        if all_done && world.waiting.is_empty() {
            return;
        }
        event = if under_way.is_empty() || rng.u8(..) < 20 {
            now = state.wake_at().unwrap_or(now).max(now) + Duration::from_millis(rng.u64(..50));
            Event::Tick
        } else {
            under_way.swap_remove(rng.usize(..under_way.len()))
        };
    }
    panic!("seed {seed}: not done: {} acknowledged, {} wait", world.acknowledged.len(), world.waiting.len());
}

#[test]
fn every_history_ends_with_each_job_done() {
    for seed in 0..500 {
        history(seed);
    }
}
