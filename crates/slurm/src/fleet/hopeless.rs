//! What waits in Slurm for what no time changes: whose matter that is, and what follows.
//!
//! A worker that waits so has its pool paused, until a person has looked. Of an allocation that is for one job it
//! matters what it waits for:
//!
//! | for what | what follows |
//! | --- | --- |
//! | more than the `slot` of its pool, because its job asks for it | it is cancelled, and its job rejected |
//! | time, or that a person releases it | it waits on, and the others go on beside it |
//! | anything else, which all others would wait for as well | its pool is paused |
//!
//! Those that wait on have their part of the quota and of `max`. When that is all of it, the pool is paused.

use std::time::Duration;

use lifecycle::Run;
use protocol::PoolName;

use super::allocation::Allocation;
use super::{Effect, Fleet, Kind, Notice, split};
use crate::{AllocationEnd, Hopeless};

/// For so long an allocation waits for what no time changes, before anything follows for its job. Several listings show
/// it by then.
const JOB_PATIENCE: Duration = Duration::from_secs(60);

/// The same before anything follows for its pool: whoever looks after the site may be about to mend it.
const POOL_PATIENCE: Duration = Duration::from_secs(300);

/// Whose matter it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Its job's, which asks for what there is not.
    Job,
    /// Its job's, which has to wait for a person.
    JobWaits,
    /// All jobs' of its pool.
    Pool,
}

impl Fleet {
    /// Whose matter it is that an allocation waits, if it has waited long enough for what no time changes.
    fn whose(&self, one: &Allocation) -> Option<Whose> {
        let (_, reason) = one.row.as_ref().filter(|_| one.is_pending())?;
        let whose = match (&one.kind, reason.hopeless()?) {
            (Kind::Worker { .. }, _) => Whose::Pool,
            (Kind::Once(_), Hopeless::Resources) if one.asks_more => Whose::Job,
            (Kind::Once(_), Hopeless::Held | Hopeless::Time) => Whose::JobWaits,
            (Kind::Once(_), Hopeless::Resources | Hopeless::Place) => Whose::Pool,
        };
        let patience = if whose == Whose::Pool { POOL_PATIENCE } else { JOB_PATIENCE };
        one.hopeless_since.is_some_and(|since| since + patience <= self.now).then_some(whose)
    }

    /// Does it wait by itself, while others of its pool go on?
    pub(super) fn is_aside(&self, one: &Allocation) -> bool {
        self.whose(one) == Some(Whose::JobWaits)
    }

    /// Why what waits in Slurm for a pool waits for ever, if nothing else can begin there.
    pub(super) fn hopeless(&self, name: &PoolName) -> Option<String> {
        let of = |whose| self.allocations.iter().find(|(_, one)| one.pool == *name && self.whose(one) == Some(whose));
        let all = of(Whose::Pool).or_else(|| {
            let pool = self.settings.pools.get(name)?;
            let aside = self.allocations.values().filter(|one| one.pool == *name && self.is_aside(one)).count();
            of(Whose::JobWaits).filter(|_| aside >= self.slots_of(name, pool))
        });
        all.map(|(allocation, one)| why(allocation, one))
    }

    /// The same of one that waits by itself.
    pub(super) fn aside(&self, name: &PoolName) -> Option<String> {
        let mut aside = self.allocations.iter().filter(|(_, one)| one.pool == *name && self.is_aside(one));
        let (allocation, one) = aside.next()?;
        let more = aside.count();
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        Some(format!("{}{more}", why(allocation, one)))
    }

    /// Rejects jobs that Slurm can never give what they ask for, and tells of those that wait for a person.
    pub(super) fn judge_hopeless(&mut self) {
        let judged = self.allocations.iter().filter_map(|(name, one)| Some((name.clone(), self.whose(one)?)));
        for (name, whose) in judged.collect::<Vec<_>>() {
            match whose {
                Whose::Job => self.gives_up(&name),
                Whose::JobWaits => {
                    if let Some(one) = self.allocations.get(&name)
                        && !self.complaints.contains(&aside_of(&name))
                    {
                        let notice = Notice::Aside(one.pool.clone(), why(&name, one));
                        self.complain(aside_of(&name), notice);
                        // What waits beside it may begin now.
                        self.decide_soon();
                    }
                }
                Whose::Pool => {
                    let pool = self.allocations.get(&name).and_then(|one| self.pools.get(&one.pool));
                    if pool.is_some_and(|pool| pool.broken.is_none()) {
                        // Who goes a round is gone before it is time to decide again.
                        self.decide_soon();
                    }
                }
            }
        }
    }

    /// Has an allocation cancelled whose job asks for what there is not. Should it begin all the same before that, its
    /// run goes on: only what has not begun is rejected.
    fn gives_up(&mut self, name: &str) {
        let Some(one) = self.allocations.get_mut(name) else { return };
        let reason = one.row.as_ref().map(|(_, reason)| reason.in_words()).unwrap_or_default();
        let words = format!("Slurm never gives what the job asks for by its resources: {reason}");
        one.runs.values_mut().for_each(|placed| placed.refused = Some(words.clone()));
        one.asked_to_end = true;
        let element = one.element;
        // Whoever sees it end may be the next daemon, or the next round of `tick`.
        self.note(name);
        if let Some(element) = element {
            self.push(Effect::Cancel { job: split(name).0.to_owned(), element });
        }
        self.ends(name, AllocationEnd::Asked, false);
    }

    /// Tells the daemon that a run will begin nowhere. It stays in its allocation until the daemon has dealt with it,
    /// and says to forget it.
    pub(super) fn rejects(&mut self, run: Run, why: String) {
        self.waits_no_more(&run);
        self.push(Effect::Say(Notice::AsksTooMuch(run.clone(), why.clone())));
        self.push(Effect::Rejected(run, why));
        self.decide_soon();
    }
}

/// What is said of one that waits by itself is said once.
pub(super) fn aside_of(name: &str) -> String {
    format!("aside {name}")
}

/// Why an allocation waits for ever, and what to do.
fn why(name: &str, one: &Allocation) -> String {
    let reason = one.row.as_ref().map(|(_, reason)| reason.clone()).unwrap_or_default();
    let id = one.element.map(|id| id.to_string()).unwrap_or_default();
    let pool = &one.pool;
    let what = match reason.hopeless() {
        Some(Hopeless::Held) => format!("release it with `scontrol release {id}`, or"),
        _ => format!("correct `pool.{pool}.slurm` in the site's file, and"),
    };
    format!(
        "its allocation {name} waits in Slurm for what no time changes: {}; {what} take it out of the queue with `scancel \
         {id}`",
        reason.in_words()
    )
}
