//! Where runs happen, as the daemon sees it: it says what is to be begun, ended and forgotten there, and hears what
//! becomes of it as events. What holds for every executor: it outlives the daemon; a run is begun at most once under
//! its name until it is forgotten; it can be asked for all runs at any time; how one ended is kept until it is
//! forgotten.
//!
//! Out of scope: what a run is (`run`), who holds runs on this node (`keeper`) and in allocations (`slurm`), what
//! follows from all this (`lifecycle`).

use ::slurm::fleet::Need;
use lifecycle::{EndReason, Event, Lifecycle, Observation, Run, RunEnd, Sighting};
use protocol::PoolName;

use crate::events::Events;
use crate::job::StartLine;
use crate::keeper::{Keeper, Said};
use crate::run::{Ended, Finished};
use crate::slurm::Slurm;

/// Where runs happen. Nothing here waits: what follows comes as events, in the order in which it happened.
pub(crate) trait Executor {
    /// Reaches it, starting it where it is not there, and asks for all runs.
    fn observe(&self);
    /// Has a run begun. A run that was begun before is not begun again.
    fn start(&self, line: StartLine);
    /// Has a run ended, within its grace.
    fn end(&self, run: &Run, why: EndReason);
    /// Has runs forgotten that have ended.
    fn forget(&self, runs: &[Run]);
    /// All that followed from the last observation is stored: from now on the list is complete.
    fn reconciled(&self);
    /// What there is to do by now.
    fn demand(&self, _lifecycle: &Lifecycle) {}
    /// Why nothing can begin in a pool, where this is not for a look at the node to find.
    fn problem(&self, _pool: &PoolName) -> Option<String> {
        None
    }
    /// Has what it was told come to something, as far as it does so at once?
    fn is_settled(&self) -> bool {
        true
    }
}

/// This node: the keeper that outlives the daemon.
#[derive(Debug, Clone)]
pub(crate) struct Here {
    keeper: Keeper,
    events: Events,
    /// What else there is: one answer tells of the runs of all places.
    beside: Option<Slurm>,
}

/// This node and Slurm, by the pool of each run.
#[derive(Debug)]
pub(crate) struct Places {
    here: Here,
    slurm: Slurm,
}

impl Here {
    pub(crate) fn new(keeper: Keeper, events: Events) -> Self {
        Self { keeper, events, beside: None }
    }
}

impl Places {
    /// Begins to work.
    pub(crate) fn new(keeper: Keeper, events: Events, slurm: Slurm) -> Self {
        let here = Here { keeper, events, beside: Some(slurm.clone()) };
        let all = here.clone();
        slurm.begin(move || all.observe());
        Self { here, slurm }
    }
}

impl Executor for Places {
    fn observe(&self) {
        self.here.observe();
    }

    fn start(&self, line: StartLine) {
        let pool = line.wrapping.launched.as_ref().map(|launched| &launched.pool);
        match pool.filter(|pool| self.slurm.has(pool)).cloned().zip(line.resources.clone()) {
            Some((pool, resources)) => {
                let limit = line.limits.time + line.limits.grace;
                self.slurm.start(line, Need { pool, resources, limit });
            }
            None => self.here.start(line),
        }
    }

    fn end(&self, run: &Run, why: EndReason) {
        self.here.end(run, why);
        self.slurm.end(run, why);
    }

    fn forget(&self, runs: &[Run]) {
        self.here.forget(runs);
        self.slurm.forget(runs);
    }

    fn reconciled(&self) {
        self.here.reconciled();
    }

    fn demand(&self, lifecycle: &Lifecycle) {
        self.slurm.demand(lifecycle);
    }

    fn problem(&self, pool: &PoolName) -> Option<String> {
        self.slurm.problem(pool)
    }

    fn is_settled(&self) -> bool {
        self.slurm.is_settled()
    }
}

impl Executor for Here {
    fn observe(&self) {
        let (keeper, events, beside) = (self.keeper.clone(), self.events.clone(), self.beside.clone());
        tokio::spawn(async move {
            let said = {
                let events = events.clone();
                move |said| {
                    events.send(match (heard(said), &beside) {
                        (Event::Observed(observation), Some(slurm)) => Event::Observed(slurm.observed(observation)),
                        (event, _) => event,
                    });
                }
            };
            if let Err(error) = keeper.observe(said).await {
                let error = error.context("the keeper of the runs cannot be reached");
                events.send(Event::ExecutorGone(Some(error.into_boxed_dyn_error().into())));
            }
        });
    }

    fn start(&self, line: StartLine) {
        self.keeper.start(line);
    }

    fn end(&self, run: &Run, why: EndReason) {
        tracing::warn!("run {run} is ended: {why}");
        self.keeper.end(run, why);
    }

    fn forget(&self, runs: &[Run]) {
        self.keeper.forget(runs);
    }

    fn reconciled(&self) {
        self.keeper.reconciled();
    }
}

/// What the keeper says, as an event.
fn heard(said: Said) -> Event {
    match said {
        Said::Ended(run, finished) => match seen(finished) {
            Ok(finished) => Event::RunEnded(run, Box::new(finished)),
            Err(what) => Event::RunCutOff(run, what),
        },
        Said::Runs { alive, ended, cut_off, complete } => {
            let alive = alive.into_iter().map(|run| (run, Sighting::Alive));
            let ended = ended.into_iter().map(|(run, finished)| match seen(finished) {
                Ok(finished) => (run, Sighting::Ended(Box::new(finished))),
                Err(what) => (run, Sighting::CutOff(what)),
            });
            let cut_off = cut_off.into_iter().map(|(run, what)| (run, Sighting::CutOff(what)));
            Event::Observed(Observation { runs: alive.chain(ended).chain(cut_off).collect(), complete })
        }
        // Only keepers in allocations say so.
        Said::NotBegun(run, _) => Event::RunCutOff(run, "its keeper has not begun it".to_owned()),
        Said::Gone => Event::ExecutorGone(None),
    }
}

/// A run that could not be begun, for this reason.
pub(crate) fn not_started(run: Run, why: String) -> Event {
    match seen(Finished::not_started(why)) {
        Ok(finished) => Event::RunEnded(run, Box::new(finished)),
        Err(what) => Event::RunCutOff(run, what),
    }
}

/// The end of a run as the keeper tells it, in the words of all executors; or what is known where nobody saw it.
pub(crate) fn seen(finished: Finished) -> Result<lifecycle::Finished, String> {
    let Finished { ended, stdout_tail, stderr_tail, started_at_ms, finished_at_ms, .. } = finished;
    let Finished { runtime, began, image_lost, isolation, launched, ran, usage, .. } = finished;
    let end = match ended {
        Ended::Exit(code) => RunEnd::Exit(code),
        Ended::Signal(signal) => RunEnd::Signal(signal),
        Ended::TimeLimit => RunEnd::TimeLimit,
        Ended::MemoryLimit(what) => RunEnd::MemoryLimit(what),
        Ended::Stopped(why) => RunEnd::EndedBy(why),
        Ended::NotStarted(why) => RunEnd::NotStarted(why),
        Ended::CutOff(what) => return Err(what),
    };
    Ok(lifecycle::Finished {
        end,
        stdout_tail,
        stderr_tail,
        started_at_ms,
        finished_at_ms,
        runtime,
        began,
        image_lost,
        isolation,
        launched,
        ran,
        usage,
    })
}
