//! The loop around the lease: what has come since the last time is one transaction; once it is on disk, what follows
//! from it is done, and whoever asked is answered.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use lease::{
    Book, Effect, Event, Lease, Machine, QpuName, Refusal, Reply, RequestId, Settings, TaskId, View, ViewStage,
};
use protocol::JobId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::adapter::Adapters;
use crate::broker::STOP_GRACE;
use crate::state::Store;

/// How much shares one transaction.
const BATCH_MAX: usize = 256;

/// What comes to the desk.
pub(crate) enum Message {
    /// Something has happened.
    Event(Event),
    /// Somebody wants something, and waits for the answer.
    Request(Box<dyn FnOnce(RequestId) -> Event + Send>, oneshot::Sender<Reply>),
    /// How far a task is; or, for who waits, once it has ended.
    Look(JobId, TaskId, bool, oneshot::Sender<Result<View, Refusal>>),
    /// How the machines are used.
    Machines(oneshot::Sender<BTreeMap<QpuName, Machine>>),
    /// Which jobs may submit.
    Jobs(oneshot::Sender<Vec<JobId>>),
}

/// The ways to the desk. All wait for as long as it takes; without an answer the desk is gone.
#[derive(Clone)]
pub(crate) struct Ways(mpsc::UnboundedSender<Message>, Store);

/// The desk is gone: the program ends.
#[derive(Debug)]
pub(crate) struct Gone;

impl Ways {
    pub(crate) fn tell(&self, message: Message) {
        // Without a desk there is nobody whom it would matter to.
        let _ = self.0.send(message);
    }

    pub(crate) async fn request(&self, event: impl FnOnce(RequestId) -> Event + Send + 'static) -> Result<Reply, Gone> {
        self.ask(|reply| Message::Request(Box::new(event), reply)).await
    }

    pub(crate) async fn look(&self, job: &JobId, id: &TaskId, wait: bool) -> Result<Result<View, Refusal>, Gone> {
        self.ask(|reply| Message::Look(job.clone(), id.clone(), wait, reply)).await
    }

    pub(crate) async fn machines(&self) -> Result<BTreeMap<QpuName, Machine>, Gone> {
        self.ask(Message::Machines).await
    }

    pub(crate) async fn jobs(&self) -> Result<Vec<JobId>, Gone> {
        self.ask(Message::Jobs).await
    }

    /// The result of a task that is completed, which from now on counts as fetched.
    pub(crate) async fn fetch(&self, id: &TaskId) -> Result<Option<String>, Gone> {
        let of_it = id.clone();
        let result = self.1.call(move |state| state.result(&of_it)).await.map_err(|_| Gone)?;
        self.tell(Message::Event(Event::Fetched(id.clone())));
        Ok(result)
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        self.tell(message(reply));
        answer.await.map_err(|_| Gone)
    }
}

/// Who waits for the end of a task.
type Waiter = oneshot::Sender<Result<View, Refusal>>;

/// The loop, and all that it has.
pub(crate) struct Desk {
    lease: Lease,
    store: Store,
    messages: mpsc::UnboundedReceiver<Message>,
    clock: Clock,
    requests: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    next_request: RequestId,
    waiters: BTreeMap<TaskId, (JobId, Vec<Waiter>)>,
}

impl Desk {
    pub(crate) fn new(settings: Settings, book: &Book, store: Store) -> (Self, Ways) {
        let clock = Clock::start();
        let lease = Lease::restore(settings, book, clock.now());
        for (qpu, tasks) in lease.missing() {
            tracing::warn!(
                "{tasks} tasks are for {qpu}, which the file of the machines does not name any more: they wait until it \
                 does, or until their jobs end"
            );
        }
        let (sender, messages) = mpsc::unbounded_channel();
        let ways = Ways(sender, store.clone());
        let (requests, waiters) = (BTreeMap::new(), BTreeMap::new());
        (Self { lease, store, messages, clock, requests, next_request: 0, waiters }, ways)
    }

    /// Works until told to stop, and then until the adapters have answered what they were asked.
    pub(crate) async fn run(
        mut self,
        mut adapters: Adapters,
        mut stopping: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        self.handle(vec![Message::Event(Event::Tick)], &adapters, false).await?;
        loop {
            let wake = self.lease.wake_at().map(|at| self.clock.instant(at));
            let message = tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => break,
                message = self.messages.recv() => message.unwrap_or(Message::Event(Event::Tick)),
                () = at(wake) => Message::Event(Event::Tick),
            };
            let batch = self.batch(message);
            self.handle(batch, &adapters, false).await?;
        }
        let deadline = Instant::now() + STOP_GRACE;
        loop {
            let message = tokio::select! {
                biased;
                message = self.messages.recv() => message,
                () = adapters.ended() => break,
                () = tokio::time::sleep_until(deadline) => break,
            };
            let Some(message) = message else { break };
            let batch = self.batch(message);
            self.handle(batch, &adapters, true).await?;
        }
        // What they have answered last.
        if let Ok(message) = self.messages.try_recv() {
            let batch = self.batch(message);
            self.handle(batch, &adapters, true).await?;
        }
        Ok(())
    }

    fn batch(&mut self, first: Message) -> Vec<Message> {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(message) = self.messages.try_recv()
        {
            batch.push(message);
        }
        batch
    }

    async fn handle(&mut self, batch: Vec<Message>, adapters: &Adapters, is_last: bool) -> anyhow::Result<()> {
        let now = self.clock.now();
        let (mut facts, mut effects, mut looks) = (Vec::new(), Vec::new(), Vec::new());
        for message in batch {
            let event = match message {
                Message::Event(event) => event,
                Message::Request(event, reply) => {
                    self.next_request += 1;
                    self.requests.insert(self.next_request, reply);
                    event(self.next_request)
                }
                look => {
                    looks.push(look);
                    continue;
                }
            };
            let step = self.lease.step(event, now);
            facts.extend(step.facts);
            effects.extend(step.effects);
        }
        if !facts.is_empty() {
            let kept = self.store.call(move |state| state.apply(&facts)).await;
            kept.context("the state takes nothing any more; look at its disk, and start again")?;
        }
        for effect in effects {
            match effect {
                Effect::Ask(_) if is_last => {}
                Effect::Ask(ask) => adapters.ask(ask),
                Effect::Reply(request, reply) => {
                    // Who asked may have gone away; what is done is done.
                    let _ = self.requests.remove(&request).map(|waiting| waiting.send(reply));
                }
                Effect::Ended(id) => self.tell_end(&id),
                Effect::Say(what) => tracing::warn!("{what}"),
            }
        }
        for look in looks {
            self.show(look, now);
        }
        Ok(())
    }

    fn show(&mut self, look: Message, now: Duration) {
        match look {
            Message::Look(job, id, wait, waiter) => {
                let view = self.view(&job, &id);
                match view {
                    Ok(View { stage: ViewStage::Ended(..), .. }) | Err(_) => {
                        let _ = waiter.send(view);
                    }
                    Ok(_) if wait => {
                        let (_, waiters) = self.waiters.entry(id).or_insert_with(|| (job, Vec::new()));
                        waiters.retain(|waiter| !waiter.is_closed());
                        waiters.push(waiter);
                    }
                    Ok(_) => {
                        let _ = waiter.send(view);
                    }
                }
            }
            Message::Machines(waiter) => {
                let _ = waiter.send(self.lease.machines(now));
            }
            Message::Jobs(waiter) => {
                let _ = waiter.send(self.lease.jobs().cloned().collect());
            }
            Message::Event(_) | Message::Request(..) => {}
        }
        // What is forgotten without an end, with its job, has nobody who waits.
        self.waiters.retain(|_, (_, waiters)| waiters.iter().any(|waiter| !waiter.is_closed()));
    }

    fn view(&self, job: &JobId, id: &TaskId) -> Result<View, Refusal> {
        if !self.lease.has_job(job) {
            return Err(Refusal::NoJob);
        }
        self.lease.task(job, id).ok_or(Refusal::NoTask)
    }

    fn tell_end(&mut self, id: &TaskId) {
        let Some((job, waiters)) = self.waiters.remove(id) else { return };
        for waiter in waiters {
            let _ = waiter.send(self.view(&job, id));
        }
    }
}

async fn at(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// The time since the Unix epoch, by a clock that does not go back while this process lives.
struct Clock {
    began_at: Duration,
    began: Instant,
}

impl Clock {
    fn start() -> Self {
        let began_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { began_at, began: Instant::now() }
    }

    fn now(&self) -> Duration {
        self.began_at + self.began.elapsed()
    }

    fn instant(&self, at: Duration) -> Instant {
        self.began + at.saturating_sub(self.began_at)
    }
}
