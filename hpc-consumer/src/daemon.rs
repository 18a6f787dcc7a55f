//! The loop between the pure crate `lifecycle` and the world: put facts on disk, then carry out effects, and hand back
//! events.
//!
//! No decision stands here. All events that wait are stepped together; their facts go to the store as one transaction,
//! and their effects begin when it is on disk (see [`Pending`]). Meanwhile further events are stepped, for the next
//! transaction. Every effect becomes a task, its end becomes an event.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lifecycle::{Batch, Delivery, Effect, Ending, Event, Failure, Lifecycle, Pending, Phase, Run};
use program::Exit;
use protocol::{JobId, JobMessage};
use queues::Client;
use tokio::sync::mpsc;

use crate::job::{Conclusion, Node};
use crate::keeper::{self, Keeper};
use crate::lock;
use crate::notices;
use crate::process::{Asked, Clock, Signals};
use crate::run::Invocation;
use crate::store::{Problem, Store};
use crate::viewer::{Viewer, Watched};
use crate::work::Work;

/// How many events are stepped for one transaction at most.
const EVENTS_MAX: usize = 1_000;

/// Claims of one batch are made by this many tasks at a time: on a network file system each takes a while.
const CLAIMS_AT_ONCE: usize = 4;

const CANNOT_STORE: &str = "the state of the daemon cannot be stored, so it stops; jobs that run go on, and a new start takes them up once the file can be written";

/// What the effects need.
pub(crate) struct Daemon {
    pub(crate) client: Client,
    pub(crate) jobs_queue: String,
    pub(crate) results_queue: String,
    pub(crate) lease: Duration,
    pub(crate) node: Arc<Node>,
    pub(crate) store: Store,
    pub(crate) keeper: Keeper,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) work: Arc<Work>,
}

/// Facts on their way to the disk, and what follows once they are there.
struct Commit {
    done: Pin<Box<dyn Future<Output = Result<(), Problem>>>>,
    batch: Batch,
}

/// How the daemon ends, and how many runs it leaves to the keeper.
pub(crate) struct Left {
    pub(crate) exit: anyhow::Result<Exit>,
    pub(crate) running: usize,
    pub(crate) reload: bool,
}

impl Daemon {
    /// Runs until told to end, or until nothing can get better by itself.
    pub(crate) async fn serve(
        self,
        mut lifecycle: Lifecycle,
        mut queue: mpsc::UnboundedReceiver<Event>,
        clock: Clock,
        mut viewer: Viewer,
        mut signals: Signals,
        invocation: &Invocation,
    ) -> anyhow::Result<Left> {
        let (checked, mut settings_checked) = mpsc::unbounded_channel();
        let mut reload = false;
        let mut events = VecDeque::from([Event::Tick]);
        let mut pending = Pending::default();
        let mut commit: Option<Commit> = None;
        let mut ready = Vec::new();
        let mut trouble = None;
        loop {
            if !events.is_empty() {
                viewer.changed();
            }
            for event in events.drain(..) {
                let step = lifecycle.step(event, clock.now());
                step.effects.iter().for_each(|effect| notices::watch(effect, &mut trouble));
                pending.add(step).into_iter().for_each(|run| self.start(run));
            }
            if commit.is_none() {
                let mut batch = pending.take();
                if batch.facts.is_empty() {
                    ready.extend(batch.effects);
                } else {
                    let done = Box::pin(self.store.commit(std::mem::take(&mut batch.facts), clock.wall()));
                    commit = Some(Commit { done, batch });
                }
            }
            if let Some(exit) = self.perform_all(std::mem::take(&mut ready)) {
                viewer.last(&lifecycle, self.watched(trouble.as_deref())).await;
                return Ok(Left { exit, running: at_work(&lifecycle), reload: reload && !lifecycle.draining() });
            }
            let wake = lifecycle.wake_at().map_or(Duration::MAX, |at| at.saturating_sub(clock.now()));
            tokio::select! {
                biased;
                asked = signals.next() => match asked {
                    Asked::Reload => check_settings(invocation.clone(), checked.clone()),
                    Asked::End => events.push_back(told_to_end(&lifecycle)),
                },
                outcome = async { commit.as_mut().expect("the condition says so").done.as_mut().await }, if commit.is_some() => {
                    let Commit { batch, .. } = commit.take().expect("it has just ended");
                    // Without this nothing that was promised can be kept; what runs goes on, and is taken up again.
                    outcome.context(CANNOT_STORE)?;
                    ready = pending.written(batch);
                }
                Some(valid) = settings_checked.recv() => if valid && lifecycle.draining() {
                    tracing::info!("the daemon is about to end, and does not read its settings anew");
                } else if valid {
                    tracing::info!("the settings are read anew; jobs that run go on");
                    reload = true;
                    events.push_back(Event::HandOver);
                } else {
                    tracing::error!("the new settings are not valid (see above); the daemon keeps the old ones");
                },
                () = self.work.store_failed.notified() => self.store.commit(Vec::new(), clock.wall()).await.context(CANNOT_STORE)?,
                Some(event) = queue.recv() => {
                    events.push_back(event);
                    while events.len() < EVENTS_MAX && let Ok(event) = queue.try_recv() {
                        events.push_back(event);
                    }
                }
                () = viewer.due() => viewer.write(&lifecycle, self.watched(trouble.as_deref())),
                () = tokio::time::sleep(wake), if wake < Duration::MAX => events.push_back(Event::Tick),
            }
        }
    }

    fn watched(&self, trouble: Option<&str>) -> Watched {
        Watched { trouble: trouble.map(str::to_owned), keeper: lock(&self.work.keeper_trouble).clone() }
    }

    /// Begins effects; returns how to end, if it is the end.
    fn perform_all(&self, effects: Vec<Effect>) -> Option<anyhow::Result<Exit>> {
        let mut claims = Vec::new();
        let mut forgotten = Vec::new();
        for effect in effects {
            match effect {
                Effect::Exit => {
                    tracing::info!("hpc-consumer ends");
                    self.forget(forgotten);
                    return Some(Ok(Exit::Ok));
                }
                Effect::Fail(why) => {
                    self.forget(forgotten);
                    return Some(Err(anyhow::anyhow!(why)));
                }
                Effect::Claim { job_id, last_attempt, rerunnable } => claims.push((job_id, last_attempt, rerunnable)),
                Effect::Forget(runs) => forgotten.extend(runs),
                effect => self.perform(effect),
            }
        }
        let share = claims.len().div_ceil(CLAIMS_AT_ONCE).max(1);
        while !claims.is_empty() {
            self.claim(claims.split_off(claims.len().saturating_sub(share)));
        }
        self.forget(forgotten);
        None
    }

    fn perform(&self, effect: Effect) {
        match effect {
            Effect::Probe => {
                let node = self.node.clone();
                self.spawn(async move { Event::Probed(node.probe().await) });
            }
            Effect::Observe => self.observe(),
            Effect::Reconciled => self.keeper.reconciled(),
            Effect::Pull(count) => {
                let (client, queue, lease) = (self.client.clone(), self.jobs_queue.clone(), self.lease);
                self.spawn(async move {
                    let pulled = client.pull(&queue, count, lease).await.map_err(failure);
                    Event::Pulled(pulled.map(|pulled| pulled.deliveries.into_iter().map(delivery).collect()))
                });
            }
            Effect::Recall(jobs) => {
                let store = self.store.clone();
                self.spawn_fallible(async move { Ok(Event::Recalled(store.recall(jobs).await?)) });
            }
            Effect::Unclaim(run) => {
                self.work.forget(std::slice::from_ref(&run));
                let node = self.node.clone();
                self.spawn(async move {
                    let outcome = node.unclaim(&run).await;
                    Event::Unclaimed(run, outcome)
                });
            }
            Effect::Start(run) => self.start(run),
            Effect::Conclude { run, ending, may_retry } => self.conclude(run, ending, may_retry),
            Effect::End(run) => {
                tracing::warn!("run {run} is not ours any more and is ended");
                self.keeper.end(&run);
            }
            Effect::PutAway { lease_id, job_id, body, problem } => {
                let node = self.node.clone();
                self.spawn(async move {
                    match node.put_away(job_id, body, problem).await {
                        Ok(record) => Event::PutAway { lease_id, record },
                        Err(error) => {
                            let problem = format!("a message that is no job cannot be put away: {error}");
                            Event::PutAwayFailed { lease_id, problem }
                        }
                    }
                });
            }
            Effect::Publish(jobs) => {
                let (client, queue, store) = (self.client.clone(), self.results_queue.clone(), self.store.clone());
                self.spawn_fallible(async move {
                    let records = store.records(jobs).await?;
                    let bodies: Vec<&str> = records.iter().map(|(_, record)| record.as_str()).collect();
                    Ok(Event::Published(client.push(&queue, &bodies).await.map_err(failure)))
                });
            }
            Effect::Settle { acks, retries } => {
                let (client, queue) = (self.client.clone(), self.jobs_queue.clone());
                self.spawn(async move {
                    let settled = client.settle(&queue, &acks, &retries).await;
                    if let Ok(settled) = &settled {
                        notices::say_of_leases(settled, acks.len(), retries.len());
                    }
                    Event::Settled(settled.map(drop).map_err(failure))
                });
            }
            Effect::Say(notice) => notices::say(&notice),
            Effect::Claim { .. } | Effect::Forget(_) | Effect::Exit | Effect::Fail(_) => {
                unreachable!("these are taken out before")
            }
        }
    }

    /// Reaches the keeper and asks for all runs. What it says comes as events, in the order in which it says it.
    fn observe(&self) {
        let (keeper, events, work) = (self.keeper.clone(), self.events.clone(), self.work.clone());
        let trouble = self.work.clone();
        tokio::spawn(async move {
            let said = {
                let events = events.clone();
                move |event: keeper::Said| {
                    // Nobody listens any more only when the daemon ends.
                    let _ = events.send(work.hear(event));
                }
            };
            if let Err(error) = keeper.observe(said).await {
                let text = format!("the keeper of the runs cannot be reached: {error:#}");
                if lock(&trouble.keeper_trouble).replace(text.clone()).as_ref() != Some(&text) {
                    tracing::error!("{text}; it is tried again until it can");
                }
                let _ = events.send(Event::KeeperGone);
            }
        });
    }

    fn claim(&self, claims: Vec<(JobId, u32, bool)>) {
        let (node, store, events, work) =
            (self.node.clone(), self.store.clone(), self.events.clone(), self.work.clone());
        tokio::spawn(async move {
            let jobs = claims.iter().map(|(job_id, ..)| job_id.clone()).collect();
            let Ok(messages) = store.messages(jobs).await else { return work.store_failed.notify_one() };
            let mut messages: HashMap<JobId, String> = messages.into_iter().collect();
            for (job_id, last_attempt, rerunnable) in claims {
                let message = messages.remove(&job_id).unwrap_or_default();
                let claimed = match JobMessage::parse(&message) {
                    Ok(job) => {
                        let claimed = node.claim(&job, last_attempt, rerunnable).await;
                        if matches!(claimed, lifecycle::Claimed::Ours(_)) {
                            work.remember(job);
                        }
                        claimed
                    }
                    // We stored it ourselves, after reading it.
                    Err(error) => lifecycle::Claimed::NodeBroken(format!("a stored job cannot be read: {error}")),
                };
                let _ = events.send(Event::Claimed(job_id, claimed));
            }
        });
    }

    fn start(&self, run: Run) {
        if let Some(job) = self.work.job(&run.job_id) {
            return begin(&self.node, &self.keeper, &job, &run);
        }
        let (node, keeper) = (self.node.clone(), self.keeper.clone());
        let (store, work) = (self.store.clone(), self.work.clone());
        tokio::spawn(async move {
            if let Some(job) = work.job_from(&store, &run.job_id).await {
                begin(&node, &keeper, &job, &run);
            }
        });
    }

    fn conclude(&self, run: Run, ending: Ending, may_retry: bool) {
        let (node, store, work) = (self.node.clone(), self.store.clone(), self.work.clone());
        let events = self.events.clone();
        tokio::spawn(async move {
            let Some(job) = work.job_from(&store, &run.job_id).await else { return };
            let conclusion = match ending {
                Ending::Exited => match work.finished(&run) {
                    Some(finished) => Conclusion::Finished(finished),
                    None => Conclusion::CutOff("how it ended is not known any more".to_owned()),
                },
                Ending::CutOff(what) => Conclusion::CutOff(what),
                Ending::GivenUp(problem) => Conclusion::GivenUp(problem),
            };
            let concluded = node.conclude(&job, &run, conclusion, may_retry).await;
            notices::say_how_it_ended(&run, &concluded);
            let _ = events.send(Event::Concluded(run, concluded));
        });
    }

    fn forget(&self, runs: Vec<Run>) {
        if runs.is_empty() {
            return;
        }
        self.work.forget(&runs);
        self.keeper.forget(&runs);
    }

    fn spawn(&self, task: impl Future<Output = Event> + Send + 'static) {
        let events = self.events.clone();
        tokio::spawn(async move {
            let _ = events.send(task.await);
        });
    }

    /// For tasks that ask the store. If that fails, a commit says why and ends the daemon.
    fn spawn_fallible(&self, task: impl Future<Output = Result<Event, Problem>> + Send + 'static) {
        let (events, work) = (self.events.clone(), self.work.clone());
        tokio::spawn(async move {
            match task.await {
                Ok(event) => drop(events.send(event)),
                Err(problem) => {
                    tracing::error!("the state cannot be read: {problem}");
                    work.store_failed.notify_one();
                }
            }
        });
    }
}

fn begin(node: &Node, keeper: &Keeper, job: &JobMessage, run: &Run) {
    tracing::info!(job_id = %run.job_id, attempt = run.attempt, task = %job.task, "job starts");
    keeper.start(node.start_line(job, run));
}

fn failure(error: queues::Error) -> Failure {
    Failure { class: error.class, what: error.to_string(), jitter: fastrand::f64() }
}

fn delivery(delivery: queues::Delivery) -> Delivery {
    Delivery { lease_id: delivery.lease_id, body: delivery.body, deliveries: delivery.deliveries }
}

/// How many runs the keeper still knows.
fn at_work(lifecycle: &Lifecycle) -> usize {
    lifecycle.jobs().filter(|(_, phase, ..)| matches!(phase, Phase::Running | Phase::Ending)).count()
}

/// The first time the daemon drains, the second time it stops.
fn told_to_end(lifecycle: &Lifecycle) -> Event {
    let (running, owed) = (lifecycle.running(), lifecycle.owed());
    if lifecycle.draining() {
        tracing::warn!("stopping now; jobs that run go on without this daemon: {running}, results owed: {owed}");
        return Event::Stop;
    }
    tracing::info!(
        "draining: nothing new is taken; running: {running}, results owed: {owed}; a second signal stops at once and leaves running jobs to the next start"
    );
    Event::Drain
}

/// Looks whether a new start would take its settings.
fn check_settings(invocation: Invocation, checked: mpsc::UnboundedSender<bool>) {
    tokio::spawn(async move {
        let valid = invocation.is_still_valid().await.unwrap_or_else(|error| {
            tracing::error!("the settings cannot be checked: {error}");
            false
        });
        let _ = checked.send(valid);
    });
}
