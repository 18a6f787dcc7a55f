//! The loop between the pure crate `lifecycle` and the world: put facts on disk, carry out effects, and hand back
//! events.
//!
//! No decision stands here. What leaves, and when, is [`Driver`]'s; every effect becomes a task, its end becomes an
//! event.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lifecycle::{
    Attempt, Claimed, Delivery, Driver, Effect, Ending, Event, Failure, Fatal, Lifecycle, Output, Phase, Pulled,
    Recalled, Round, Run,
};
use program::Exit;
use protocol::{JobId, JobMessage, ServiceName};
use queues::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use upkeep::Notify;

use crate::events::{Events, Heard};
use crate::executor::{self, Executor};
use crate::job::{JobFiles, Within};
use crate::lease::Lease;
use crate::link::{self, Desk};
use crate::notices;
use crate::pace::Pace;
use crate::process::{Asked, Clock, Signals};
use crate::run::Invocation;
use crate::services::{self, Services};
use crate::spending::Spending;
use crate::startup::{Stay, WrongSettings};
use crate::store::{Problem, Store};
use crate::transfers::Transfers;
use crate::viewer::Viewer;

/// How many events are stepped for one transaction at most.
const EVENTS_MAX: usize = 1_000;

/// After so long a round is over whatever is on its way.
const ROUND_MAX: Duration = Duration::from_hours(1);

/// Who has gone round stays so long for what was begun to come to something at once, and no longer than the second for
/// what is on its way elsewhere.
const ROUND_RESTS: Duration = Duration::from_millis(500);
const ROUND_RESTS_MAX: Duration = Duration::from_secs(15);

/// Between two looks whether that has settled.
const ROUND_LOOKS: Duration = Duration::from_millis(200);

/// Claims of one batch are made by this many tasks at a time: on a network file system each takes a while.
const CLAIMS_AT_ONCE: usize = 4;

const CANNOT_STORE: &str = "the state of the daemon cannot be stored, so it stops; jobs that run go on, and a new start takes them up once the file can be written";

/// What the effects need.
pub(crate) struct Daemon {
    pub(crate) client: Client,
    pub(crate) jobs_queue: String,
    pub(crate) results_queue: String,
    pub(crate) lease: Duration,
    /// How long a pull may wait for jobs, at a queue that lets it.
    pub(crate) hold: Duration,
    pub(crate) stay: Stay,
    /// Shared with other daemons; none where this one has to hear for itself that there is nothing.
    pub(crate) pace: Option<Pace>,
    /// What is spent of the day's operations, shared with them as well; none where there is no end to these.
    pub(crate) spending: Option<Spending>,
    /// Becomes true when no job is taken any more, so that no pull waits for one.
    pub(crate) enough: watch::Sender<bool>,
    pub(crate) jobs: Arc<JobFiles>,
    pub(crate) store: Store,
    pub(crate) executor: Arc<dyn Executor + Send + Sync>,
    pub(crate) events: Events,
    pub(crate) transfers: Transfers,
    /// The quantum machines that jobs may ask while they run, where there are any.
    pub(crate) quantum: Option<Lease>,
    pub(crate) services: Arc<Services>,
    pub(crate) link: Link,
    /// Who has started us, and wants to know that we are up.
    pub(crate) notify: Notify,
}

/// The hub, where there is one.
pub(crate) struct Link(pub(crate) Option<Desk>);

impl Link {
    async fn next(&mut self, clock: &Clock) -> link::Next {
        match &mut self.0 {
            Some(desk) => desk.next(clock).await,
            None => std::future::pending().await,
        }
    }
}

/// Facts on their way to the disk.
type Commit = Pin<Box<dyn Future<Output = Result<(), Problem>>>>;

/// A job to be claimed.
struct Claim {
    job_id: JobId,
    /// Its message, if it need not be read back.
    message: Option<Arc<JobMessage>>,
    last_attempt: Option<Attempt>,
    rerunnable: bool,
    round: Round,
    /// The service that it is an instance of.
    service: Option<ServiceName>,
}

/// How the daemon ends, and how many runs it leaves to the keeper.
pub(crate) struct Left {
    pub(crate) exit: anyhow::Result<Exit>,
    pub(crate) running: usize,
    pub(crate) reload: bool,
    /// They may have come since.
    pub(crate) signals: Signals,
}

impl Daemon {
    /// Runs until told to end, or until nothing can get better by itself.
    pub(crate) async fn serve(
        mut self,
        lifecycle: Lifecycle,
        mut queue: mpsc::UnboundedReceiver<Heard>,
        clock: Clock,
        mut viewer: Viewer,
        mut signals: Signals,
        invocation: &Invocation,
    ) -> anyhow::Result<Left> {
        let (checked, mut settings_checked) = mpsc::unbounded_channel();
        let mut reload = false;
        let mut driver = Driver::new(lifecycle);
        let mut link = Link(self.link.0.take());
        let mut events = VecDeque::from([Event::Tick]);
        let mut commit: Option<Commit> = None;
        self.notify.ready();
        let mut round = Patrol::of(self.stay);
        loop {
            self.notify.turns();
            let happened = !events.is_empty();
            if happened {
                viewer.changed();
            }
            for event in events.drain(..) {
                viewer.hears(&event);
                driver.handle(event, clock.now());
            }
            if driver.lifecycle().takes_nothing_new() {
                self.enough.send_replace(true);
            }
            if happened {
                self.executor.demand(driver.lifecycle());
            }
            if let Some(desk) = link.0.as_mut().filter(|_| happened) {
                desk.happened(&mut driver, &clock);
            }
            if let Some(exit) = self.carry_out(&mut driver, &mut commit, &mut link, &clock) {
                let lifecycle = driver.lifecycle();
                let reload = reload && !lifecycle.draining();
                // The next daemon, which begins at once, tells the rest.
                if let Some(desk) = link.0.as_mut().filter(|_| !reload) {
                    desk.last(lifecycle, &clock).await;
                }
                viewer.last(lifecycle).await;
                if let Some((spending, expenses)) = self.spending.as_ref().zip(lifecycle.expenses()) {
                    spending.exchange(&expenses).await;
                }
                return Ok(Left { exit, running: at_work(lifecycle), reload, signals });
            }
            let lifecycle = driver.lifecycle();
            if let Some(quantum) = &self.quantum {
                quantum.happened(lifecycle);
            }
            let at_rest = || commit.is_none() && lifecycle.has_gone_round();
            let round_ends = round.ends(at_rest, || self.executor.is_settled());
            let wake = driver.wake_at().map_or(Duration::MAX, |at| at.saturating_sub(clock.now()));
            tokio::select! {
                biased;
                asked = signals.next() => match asked {
                    Asked::Reload => check_settings(invocation.clone(), checked.clone()),
                    Asked::End => events.push_back(told_to_end(lifecycle)),
                },
                outcome = async { commit.as_mut().expect("the condition says so").await }, if commit.is_some() => {
                    commit = None;
                    // Without this nothing that was promised can be kept; what runs goes on, and is taken up again.
                    outcome.context(CANNOT_STORE)?;
                    driver.committed();
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
                Some(heard) = queue.recv() => {
                    events.push_back(heard.context(CANNOT_STORE)?);
                    while events.len() < EVENTS_MAX && let Ok(heard) = queue.try_recv() {
                        events.push_back(heard.context(CANNOT_STORE)?);
                    }
                }
                () = sleep_until(round_ends) => {
                    round = Patrol::Over;
                    events.push_back(Event::HandOver);
                }
                // Of what settles elsewhere nothing is heard.
                () = tokio::time::sleep(ROUND_LOOKS), if round_ends.is_some() => {}
                () = viewer.due() => {
                    viewer.write(lifecycle);
                    self.exchange_spending(lifecycle);
                }
                () = self.notify.due() => {}
                () = tokio::time::sleep(wake), if wake < Duration::MAX => events.push_back(Event::Tick),
                // The last: however much it says, it holds nothing up.
                next = link.next(&clock) => if let Some(desk) = &mut link.0 {
                    match next {
                        link::Next::Report => desk.report(lifecycle, &clock),
                        link::Next::Progress => desk.tell_progress(&clock),
                        link::Next::Hear(heard) => events.extend(desk.hear(heard, lifecycle, &clock)),
                    }
                },
            }
        }
    }

    /// Begins all that may leave now; returns how to end, if it is the end.
    fn carry_out(
        &self,
        driver: &mut Driver,
        commit: &mut Option<Commit>,
        link: &mut Link,
        clock: &Clock,
    ) -> Option<anyhow::Result<Exit>> {
        let mut claims = Vec::new();
        let mut end = None;
        while let Some(output) = driver.next_output(clock.now()) {
            match output {
                Output::Commit(facts) => {
                    if let Some(desk) = &mut link.0 {
                        let ended = driver.take_ended(&facts);
                        desk.commits(&facts, &ended, driver.lifecycle());
                    }
                    *commit = Some(Box::pin(self.store.commit(facts, clock.wall())));
                }
                Output::Perform(Effect::Claim { job_id, last_attempt, rerunnable, round }) => {
                    let message = driver.lifecycle().message(&job_id).cloned();
                    let service = driver.lifecycle().service_of(&job_id).cloned();
                    claims.push(Claim { job_id, message, last_attempt, rerunnable, round, service });
                }
                Output::Perform(Effect::Exit) => {
                    tracing::info!("hpc-consumer ends");
                    end = Some(Ok(Exit::Ok));
                }
                Output::Perform(Effect::Fail(Fatal::Refused(why))) => end = Some(Err(anyhow::anyhow!(why))),
                Output::Perform(Effect::Fail(Fatal::WrongSettings(why))) => end = Some(Err(WrongSettings(why).into())),
                Output::Perform(effect) => self.perform(effect, driver.lifecycle()),
            }
        }
        let share = claims.len().div_ceil(CLAIMS_AT_ONCE).max(1);
        while !claims.is_empty() {
            self.claim(claims.split_off(claims.len().saturating_sub(share)));
        }
        end
    }

    fn perform(&self, effect: Effect, lifecycle: &Lifecycle) {
        match effect {
            Effect::Probe(pool) => {
                if let Some(problem) = pool.as_ref().and_then(|pool| self.executor.problem(pool)) {
                    return self.events.send(Event::Probed(pool, Err(problem.into())));
                }
                let files = self.jobs.clone();
                let quantum =
                    self.quantum.clone().filter(|quantum| pool.as_ref().is_some_and(|pool| quantum.is_of(pool)));
                self.spawn(async move {
                    if let Some(quantum) = quantum
                        && let Some(problem) = quantum.problem().await
                    {
                        return Event::Probed(pool, Err(problem.into()));
                    }
                    let outcome = files.probe(pool.as_ref()).await;
                    Event::Probed(pool, outcome)
                });
            }
            Effect::Observe => self.executor.observe(),
            Effect::Reconciled => self.executor.reconciled(),
            Effect::Pull(count) => {
                let (client, queue, lease, hold) =
                    (self.client.clone(), self.jobs_queue.clone(), self.lease, self.hold);
                let (mut enough, pace) = (self.enough.subscribe(), self.pace.clone());
                // What others have found before says nothing of what has come since.
                let awake = lifecycle.is_awake();
                let spending = self.spending.clone().zip(lifecycle.expenses());
                let events = self.events.clone();
                self.spawn(async move {
                    let mut count = count;
                    if let Some((spending, expenses)) = spending {
                        // What others have spent meanwhile may have left less.
                        if let Some((besides, news)) = spending.exchange(&expenses).await {
                            news.into_iter().for_each(|news| events.send(news));
                            count = besides.permits(count, expenses);
                        }
                        if count == 0 {
                            return Event::Pulled(Ok(Pulled { spared: true, ..Pulled::default() }));
                        }
                    }
                    if let Some(pace) = &pace
                        && !awake
                        && pace.is_spared().await
                    {
                        return Event::Pulled(Ok(Pulled { spared: true, ..Pulled::default() }));
                    }
                    // An error is the end of the daemon.
                    let given_up = async { drop(enough.wait_for(|enough| *enough).await) };
                    let pulled = client.pull_held(&queue, count, lease, hold, given_up).await;
                    if let (Some(pace), Ok(pulled)) = (&pace, &pulled) {
                        // Where a pull waits for something to come, it costs nothing.
                        pace.found(pulled.deliveries.is_empty() && pulled.held.is_none()).await;
                    }
                    Event::Pulled(pulled.map(self::pulled).map_err(failure))
                });
            }
            Effect::Recall(jobs) => {
                let (files, store) = (self.jobs.clone(), self.store.clone());
                self.spawn_fallible(async move {
                    let mut answers = Vec::new();
                    for (job_id, has_ended) in store.recall(jobs).await? {
                        let recalled =
                            if has_ended { Recalled::Ended(files.final_record(&job_id).await) } else { Recalled::New };
                        answers.push((job_id, recalled));
                    }
                    Ok(Event::Recalled(answers))
                });
            }
            Effect::Stage(job_id) => {
                let (store, known, job) = (self.store.clone(), lifecycle.message(&job_id).cloned(), job_id.clone());
                self.transfers.stage(job_id, async move {
                    match known {
                        Some(message) => Ok(message),
                        None => whole_message_of(&store, &job).await,
                    }
                });
            }
            Effect::Unstage(job_id) => self.transfers.unstage(job_id),
            Effect::Upload(run) => {
                let (store, known) = (self.store.clone(), lifecycle.brief(&run.job_id).cloned());
                let job_id = run.job_id.clone();
                self.transfers.upload(run, async move {
                    match known {
                        Some(message) => Ok(message),
                        None => message_of(&store, &job_id).await,
                    }
                });
            }
            Effect::StopUpload(run) => self.transfers.stop_upload(run),
            Effect::Unclaim(run) => {
                let files = self.jobs.clone();
                self.spawn(async move {
                    let outcome = files.unclaim(&run).await;
                    Event::Unclaimed(run, outcome)
                });
            }
            Effect::Unfold { run, alive, room } => {
                let (files, store) = (self.jobs.clone(), self.store.clone());
                self.spawn_fallible(async move {
                    let whole = whole_message_of(&store, &run.job_id);
                    let unfolded = files.unfold(whole, run.clone(), alive, room).await?;
                    Ok(Event::Unfolded(run, unfolded))
                });
            }
            Effect::Start(run) => self.start(run, lifecycle),
            Effect::Serve(run) => {
                if let Some(name) = lifecycle.service_of(&run.job_id) {
                    self.services.serve(name, run);
                }
            }
            Effect::Withdraw(run) => self.services.withdraw(run),
            Effect::Conclude { run, ending, may_retry } => self.conclude(run, ending, may_retry, lifecycle),
            Effect::End(run, why) => self.executor.end(&run, why),
            Effect::Forget(runs) => self.executor.forget(&runs),
            Effect::PutAway { lease_id, job_id, body, problem } => {
                let files = self.jobs.clone();
                self.spawn(async move {
                    match files.put_away(job_id, body, problem).await {
                        Ok(record) => Event::PutAway { lease_id, record },
                        Err(error) => {
                            let problem =
                                anyhow::Error::new(error).context("a message that is no job cannot be put away");
                            Event::PutAwayFailed { lease_id, problem: problem.into_boxed_dyn_error().into() }
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
            Effect::Claim { .. } | Effect::Exit | Effect::Fail(_) => unreachable!("these are taken out before"),
        }
    }

    /// Tells other daemons what this one has spent, and hears of them.
    fn exchange_spending(&self, lifecycle: &Lifecycle) {
        let Some((spending, expenses)) = self.spending.clone().zip(lifecycle.expenses()) else { return };
        let events = self.events.clone();
        tokio::spawn(async move {
            let news = spending.exchange(&expenses).await.and_then(|(_, news)| news);
            news.into_iter().for_each(|news| events.send(news));
        });
    }

    fn claim(&self, claims: Vec<Claim>) {
        let (files, store, events) = (self.jobs.clone(), self.store.clone(), self.events.clone());
        let quantum = self.quantum.clone();
        tokio::spawn(async move {
            let unknown = claims.iter().filter(|claim| claim.message.is_none()).map(|claim| claim.job_id.clone());
            let mut stored: HashMap<JobId, String> = match read_messages(&store, unknown.collect()).await {
                Ok(messages) => messages.into_iter().collect(),
                Err(problem) => return events.tell(Err(problem)),
            };
            for Claim { job_id, message, last_attempt, rerunnable, round, service } in claims {
                let message = match message {
                    Some(message) => Ok(message),
                    None => JobMessage::parse(&stored.remove(&job_id).unwrap_or_default()).map(Arc::new),
                };
                let job = match message {
                    Ok(job) => job,
                    // We stored it ourselves, after reading it.
                    Err(error) => {
                        let problem = format!("a stored job cannot be read: {error}");
                        events.send(Event::Claimed(job_id, Claimed::NodeBroken(problem.into())));
                        continue;
                    }
                };
                let quantum = quantum.clone().filter(|_| files.has_lease(&job, service.as_ref()));
                let (files, events) = (files.clone(), events.clone());
                let has_lease = quantum.is_some();
                let claim = async move {
                    let claimed = match begin_to_ask(quantum, &job_id).await {
                        Ok(()) => files.claim(&job, last_attempt, rerunnable, round).await,
                        Err(problem) => Claimed::NodeBroken(problem.into()),
                    };
                    events.send(Event::Claimed(job_id, claimed));
                };
                if has_lease {
                    // The broker may be starting, which is not for others to wait for.
                    tokio::spawn(claim);
                } else {
                    claim.await;
                }
            }
        });
    }

    fn start(&self, run: Run, lifecycle: &Lifecycle) {
        let launched = lifecycle.launched(&run.job_id);
        let (grant, uses) = launched.map(|launched| (launched.grant, launched.services)).unwrap_or_default();
        let service = lifecycle.service_of(&run.job_id).cloned();
        let (round, workflow) = (lifecycle.round(&run.job_id), lifecycle.workflow_of(&run.job_id).cloned());
        let known = lifecycle.brief(&run.job_id).cloned();
        if let Some(job) = known.as_ref().filter(|_| workflow.is_none() && service.is_none() && uses.is_empty()) {
            return begin(
                &self.jobs,
                &*self.executor,
                job,
                &run,
                Within { grant: &grant, round, workflow: None, service: None },
            );
        }
        let (files, store, executor) = (self.jobs.clone(), self.store.clone(), self.executor.clone());
        let events = self.events.clone();
        tokio::spawn(async move {
            let job = match known {
                Some(job) => job,
                None => match message_of(&store, &run.job_id).await {
                    Ok(job) => job,
                    Err(problem) => return events.tell(Err(problem)),
                },
            };
            if let Some(workflow) = &workflow
                && files.has_lost_its_dir(workflow).await
            {
                let why = "the directory of its workflow is gone: one of the tasks has removed it".to_owned();
                return events.send(Event::RunRejected(run, why));
            }
            let prepared = match &service {
                Some(name) => files.prepare_service(name, &run).await.map_err(|error| {
                    format!("what an instance of the service {name} needs cannot be made in RESULTS_DIR: {error}")
                }),
                None if uses.is_empty() => Ok(()),
                None => files.place_services(&run.job_id, uses).await,
            };
            if let Err(why) = prepared {
                return events.send(executor::not_started(run, why));
            }
            let (workflow, service) = (workflow.as_ref(), service.as_ref());
            begin(&files, &*executor, &job, &run, Within { grant: &grant, round, workflow, service });
        });
    }

    fn conclude(&self, run: Run, ending: Ending, may_retry: bool, lifecycle: &Lifecycle) {
        let (files, store, known) = (self.jobs.clone(), self.store.clone(), lifecycle.brief(&run.job_id).cloned());
        let service = lifecycle.service_of(&run.job_id).cloned();
        let gone = lifecycle.lost_services(&run.job_id).map(str::to_owned);
        let uses = lifecycle.launched(&run.job_id).map(|launched| launched.services).unwrap_or_default();
        self.spawn_fallible(async move {
            let job = match known {
                Some(job) => job,
                None => message_of(&store, &run.job_id).await?,
            };
            let gone = match gone {
                None if services::may_be_why(&ending) && !uses.is_empty() => Services::lost(&files, uses).await,
                gone => gone,
            };
            if let Some(name) = &service {
                // It has ended: what its keeper has written of it to the last, or an earlier daemon has left, goes.
                files.withdraw_service(name, &run).await;
            }
            let concluded = files.conclude_with(&job, &run, ending, may_retry, gone.map(Into::into)).await;
            notices::say_how_it_ended(&run, &concluded);
            Ok(Event::Concluded(run, concluded))
        });
    }

    fn spawn(&self, task: impl Future<Output = Event> + Send + 'static) {
        self.spawn_fallible(async { Ok(task.await) });
    }

    /// For tasks that ask the store.
    fn spawn_fallible(&self, task: impl Future<Output = Heard> + Send + 'static) {
        let events = self.events.clone();
        tokio::spawn(async move { events.tell(task.await) });
    }
}

/// From now on the job may ask quantum machines, if it is one that may.
async fn begin_to_ask(quantum: Option<Lease>, job_id: &JobId) -> Result<(), String> {
    match quantum {
        Some(quantum) => quantum.begin(job_id).await,
        None => Ok(()),
    }
}

/// Has a run begun.
fn begin(files: &JobFiles, executor: &dyn Executor, job: &JobMessage, run: &Run, within: Within<'_>) {
    // A slot is empty until then; nobody waits for the line.
    executor.start(files.start_line(job, run, within));
    tracing::info!(job_id = %run.job_id, attempt = %run.attempt, task = %job.spec.task, "job starts");
}

/// Asks the store only if there is something to ask.
async fn read_messages(store: &Store, jobs: Vec<JobId>) -> Result<Vec<(JobId, String)>, Problem> {
    if jobs.is_empty() { Ok(Vec::new()) } else { store.messages(jobs).await }
}

/// The message of a job that an earlier daemon has left, without its input.
async fn message_of(store: &Store, job_id: &JobId) -> Result<Arc<JobMessage>, Problem> {
    Ok(Arc::new(whole_message_of(store, job_id).await?.without_input()))
}

/// The same, whole.
async fn whole_message_of(store: &Store, job_id: &JobId) -> Result<Arc<JobMessage>, Problem> {
    let stored = store.messages(vec![job_id.clone()]).await?.pop().map(|(_, message)| message);
    Ok(match JobMessage::parse(&stored.unwrap_or_default()) {
        Ok(job) => Arc::new(job),
        Err(error) => {
            // Its run is not to be forgotten for that; to deal with what it left needs no more than its id.
            tracing::error!(%job_id, "a stored job cannot be read: {error}");
            Arc::new(JobMessage::unknown(job_id.clone()))
        }
    })
}

fn failure(error: queues::Error) -> Failure {
    Failure { class: error.class, what: error.to_string(), jitter: fastrand::f64() }
}

fn pulled(pulled: queues::Pulled) -> Pulled {
    let delivery = |delivery: queues::Delivery| Delivery {
        lease_id: delivery.lease_id,
        body: delivery.body,
        deliveries: delivery.deliveries,
    };
    Pulled { deliveries: pulled.deliveries.into_iter().map(delivery).collect(), held: pulled.held, spared: false }
}

/// A daemon that is to go one round.
enum Patrol {
    /// It is not.
    Endless,
    /// Until then at the latest.
    Until {
        last: Instant,
        /// Since when it is at rest.
        rests: Option<Instant>,
        /// Since when it is, and nothing is on its way elsewhere.
        settled: Option<Instant>,
    },
    Over,
}

impl Patrol {
    fn of(stay: Stay) -> Self {
        match stay {
            Stay::UntilTold => Self::Endless,
            Stay::OneRound => Self::Until { last: Instant::now() + ROUND_MAX, rests: None, settled: None },
        }
    }

    /// When it is over, as far as can be said now.
    fn ends(&mut self, at_rest: impl FnOnce() -> bool, is_settled: impl FnOnce() -> bool) -> Option<Instant> {
        let Self::Until { last, rests, settled } = self else { return None };
        let since = |since: &mut Option<Instant>, so: bool| {
            *since = if so { Some(since.unwrap_or_else(Instant::now)) } else { None };
            *since
        };
        let rests = since(rests, at_rest());
        let settled = since(settled, rests.is_some() && is_settled());
        let ends = [settled.map(|at| at + ROUND_RESTS), rests.map(|at| at + ROUND_RESTS_MAX), Some(*last)];
        ends.into_iter().flatten().min()
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// How many runs the keeper still knows.
fn at_work(lifecycle: &Lifecycle) -> usize {
    lifecycle.jobs().filter(|(_, phase, ..)| matches!(phase, Phase::Running | Phase::Ending | Phase::Uploading)).count()
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
