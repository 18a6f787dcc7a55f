//! The loop between the pure crate `lifecycle` and the world: carry out effects, hand back events.
//!
//! No decision stands here. Every effect becomes a task; its end becomes an event; after each event, and when the
//! lifecycle asks to be woken, it is stepped again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lifecycle::{Delivery, Effect, Event, Failure, Lifecycle, Notice, RunEnd};
use program::Exit;
use protocol::{FailureClass, JobId, JobResult, Status};
use queues::Client;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::Settings;
use crate::job::attempt::Node;
use crate::job::files::{Ownership, ResultsDir};

/// How long to wait for the end of all runs when the daemon cannot go on.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// What the effects need.
struct Daemon {
    client: Client,
    jobs_queue: String,
    results_queue: String,
    visibility_timeout: Duration,
    node: Arc<Node>,
    tasks: JoinSet<Event>,
    /// Runs whose processes are gone, while their tasks go on; never more than there are tasks.
    exits: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    stop: watch::Sender<bool>,
}

/// Runs until told to end, or until nothing can get better by itself.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<Exit> {
    let http = queues::http_client().context("cannot set up HTTPS")?;
    let client = Client::new(http, &settings.endpoint)
        .with_context(|| format!("CF_API_BASE_URL is not an http or https URL: {}", settings.endpoint.base_url))?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    tracing::info!(
        "hpc-consumer {} on {host}: {} slots, runtime {}, command {}, results in {}, queues at {}",
        env!("CARGO_PKG_VERSION"),
        settings.lifecycle.slots,
        settings.runtime.kind(),
        settings.runtime.describe(),
        settings.results_dir.display(),
        settings.endpoint.base_url
    );
    for warning in settings.runtime.warning().into_iter().chain(settings.lease_warning.as_deref()) {
        tracing::warn!("{warning}");
    }
    crate::run::prepare();
    let results = ResultsDir::new(settings.results_dir);
    let _ownership = own(&results)?;
    // A mistake in where results go is better met before a job has run for hours. All else is the loop's to wait for.
    if let Err(error) = client.backlog(&settings.results_queue).await
        && error.class == FailureClass::Fatal
    {
        anyhow::bail!(error);
    }
    let daemon = Daemon {
        client,
        jobs_queue: settings.jobs_queue,
        results_queue: settings.results_queue,
        visibility_timeout: settings.visibility_timeout,
        node: Arc::new(Node { results, runtime: settings.runtime, limits: settings.limits, host }),
        tasks: JoinSet::new(),
        exits: mpsc::unbounded_channel(),
        stop: watch::Sender::new(false),
    };
    daemon.serve(Lifecycle::new(settings.lifecycle)).await
}

/// Takes the results directory for this daemon alone.
fn own(results: &ResultsDir) -> anyhow::Result<Option<Ownership>> {
    match results.own() {
        Ok(None) => {
            anyhow::bail!("another hpc-consumer works in this RESULTS_DIR; stop it, or choose another directory")
        }
        Ok(ownership) => Ok(ownership),
        Err(error) => {
            // A directory that cannot be made is a broken node, which is waited for.
            tracing::warn!("RESULTS_DIR cannot be locked, make sure that no other hpc-consumer uses it: {error}");
            Ok(None)
        }
    }
}

impl Daemon {
    async fn serve(mut self, mut lifecycle: Lifecycle) -> anyhow::Result<Exit> {
        let mut signals = Signals::listen()?;
        let started = Instant::now();
        let mut draining = false;
        let mut event = Event::Tick;
        loop {
            for effect in lifecycle.step(event, started.elapsed()) {
                match effect {
                    Effect::Exit => {
                        tracing::info!("the end: no job runs here");
                        return Ok(Exit::Ok);
                    }
                    Effect::Fail(why) => anyhow::bail!(why),
                    effect => self.perform(effect),
                }
            }
            let wake = lifecycle.wake_at().map_or(Duration::MAX, |at| at.saturating_sub(started.elapsed()));
            event = tokio::select! {
                // In this order: a person goes before everything, and an exit is told before the end of the same run.
                biased;
                () = signals.next() => {
                    let (running, owed) = (lifecycle.running(), lifecycle.owed());
                    if draining {
                        tracing::warn!("stopping: running jobs are ended and go back to the queue; running: {running}, results owed: {owed}");
                        self.stop.send_replace(true);
                        Event::Stop
                    } else {
                        tracing::info!("draining: nothing new is taken; running: {running}, results owed: {owed}; a second signal stops the running jobs");
                        draining = true;
                        Event::Drain
                    }
                }
                Some(exit) = self.exits.1.recv() => exit,
                Some(done) = self.tasks.join_next() => match done {
                    Ok(event) => event,
                    Err(error) => {
                        self.end_all().await;
                        return Err(error).context("a part of the daemon broke");
                    }
                },
                () = tokio::time::sleep(wake), if wake < Duration::MAX => Event::Tick,
            };
        }
    }

    /// Ends what runs: it has no other parent.
    async fn end_all(&mut self) {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // What does not end within this hangs in the kernel.
        let _ = tokio::time::timeout(END_PATIENCE, all).await;
    }

    fn perform(&mut self, effect: Effect) {
        let (client, node) = (self.client.clone(), self.node.clone());
        match effect {
            Effect::Probe => {
                self.tasks.spawn(async move { Event::Probed(node.probe().await) });
            }
            Effect::Pull(count) => {
                let (queue, visibility_timeout) = (self.jobs_queue.clone(), self.visibility_timeout);
                self.tasks.spawn(async move {
                    let pulled = client.pull(&queue, count, visibility_timeout).await.map_err(failure);
                    Event::Pulled(pulled.map(|pulled| pulled.deliveries.into_iter().map(delivery).collect()))
                });
            }
            Effect::Run(job) => {
                tracing::info!(job_id = %job.job_id, task = %job.task, "job starts");
                let (stop, exits) = (self.stop.subscribe(), self.exits.0.clone());
                self.tasks.spawn(async move {
                    let job_id = job.job_id.clone();
                    let exited = || {
                        // The daemon listens for as long as there are tasks.
                        let _ = exits.send(Event::RunExited(job_id.clone()));
                    };
                    let end = node.attempt(*job, stop, exited).await;
                    match &end {
                        RunEnd::Recorded(record) => say_how_it_ended(&job_id, record),
                        RunEnd::NodeBroken(_) => tracing::warn!(%job_id, "job goes back to the queue"),
                        RunEnd::Stopped => tracing::warn!(%job_id, "job was stopped and goes back to the queue"),
                    }
                    Event::RunEnded(job_id, end)
                });
            }
            Effect::PutAway { lease_id, job_id, body, problem } => {
                self.tasks.spawn(async move {
                    match node.put_away(job_id, body, problem).await {
                        Ok(record) => Event::PutAway { lease_id, record },
                        Err(error) => {
                            let problem = format!("a message that is no job cannot be put away: {error}");
                            Event::PutAwayFailed { lease_id, problem }
                        }
                    }
                });
            }
            Effect::Publish(records) => {
                let queue = self.results_queue.clone();
                self.tasks.spawn(async move {
                    let bodies: Vec<&str> = records.iter().map(String::as_str).collect();
                    Event::Published(client.push(&queue, &bodies).await.map_err(failure))
                });
            }
            Effect::Settle { acks, retries } => {
                let queue = self.jobs_queue.clone();
                self.tasks.spawn(async move {
                    let settled = client.settle(&queue, &acks, &retries).await;
                    if let Ok(settled) = &settled {
                        for warning in &settled.warnings {
                            tracing::warn!("the queue says of a lease: {warning}");
                        }
                    }
                    Event::Settled(settled.map(drop).map_err(failure))
                });
            }
            Effect::Say(notice) => say(&notice),
            Effect::Exit | Effect::Fail(_) => unreachable!("the loop ends on these"),
        }
    }
}

fn say_how_it_ended(job_id: &JobId, record: &str) {
    match JobResult::parse(record) {
        Ok(JobResult { status: Status::Completed, .. }) => tracing::info!(%job_id, "job completed"),
        Ok(JobResult { reason, message, .. }) => {
            let reason = reason.map(|reason| reason.to_string()).unwrap_or_default();
            tracing::warn!(%job_id, reason, "job failed: {}", message.unwrap_or_default());
        }
        // A record that a newer version wrote; it is published as it stands.
        Err(_) => tracing::info!(%job_id, "job has its record"),
    }
}

fn say(notice: &Notice) {
    match notice {
        Notice::NodeBroken(problem) => {
            tracing::error!("this node cannot run jobs, no more are taken until it can: {problem}");
        }
        Notice::NodeReady => tracing::info!("this node can run jobs again"),
        Notice::QueueTrouble { what, next_try } => {
            let seconds = next_try.as_secs_f64();
            tracing::warn!("{what}; next try in {seconds:.1} s, and again until it works");
        }
        Notice::QueueBack => tracing::info!("the queue answers again"),
        Notice::ResultRefused { job_id, what } => {
            tracing::error!(%job_id, "the queue does not take a result; its record stays in RESULTS_DIR: {what}");
        }
        Notice::CannotGoOn { what, running } => {
            tracing::error!("{what}; nothing more is taken, and this ends when the running jobs have: {running}");
        }
        Notice::LeftOver { results } => {
            tracing::warn!(
                "results that are recorded and not published: {results}; they are published when their messages come again, after the leases"
            );
        }
    }
}

fn failure(error: queues::Error) -> Failure {
    Failure { class: error.class, what: error.to_string(), jitter: fastrand::f64() }
}

fn delivery(delivery: queues::Delivery) -> Delivery {
    Delivery { lease_id: delivery.lease_id, body: delivery.body }
}

/// The signals that ask us to end; the last one comes when a terminal is closed.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
