//! What came out of histories: counts and transitions, or the promise that was broken.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lifecycle::{Claimed, Concluded, Effect, Event, Phase, Staged, Uploaded};

/// A change of a job's phase that was seen from outside: from, by which event, to. `None` is a job that is not held.
pub(crate) type Transition = (Option<Phase>, &'static str, Option<Phase>);

/// What happened in histories that kept the promises.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// How many things happened.
    pub(crate) steps: u64,
    /// Runs that were begun.
    pub(crate) runs: u64,
    /// Those of them that had several pools to be in.
    pub(crate) in_pools: u64,
    /// Jobs that no pool took.
    pub(crate) rejected: u64,
    /// Processes of daemons that ended, by a signal or by themselves.
    pub(crate) crashes: u64,
    /// Claims that another daemon took over.
    pub(crate) taken_over: u64,
    /// Rounds after the first, and children.
    pub(crate) rounds: u64,
    pub(crate) children: u64,
    /// How often it was looked what there is to do of a graph.
    pub(crate) unfolded: u64,
    /// Runs that were cut off.
    pub(crate) cut_off: u64,
    /// Claims that failed and stood all the same.
    pub(crate) half_claims: u64,
    /// Jobs that were given up because their node failed them too often.
    pub(crate) given_up: u64,
    /// Jobs that failed because they filled the disk again and again.
    pub(crate) disks_filled: u64,
    /// Jobs whose result is that they were cancelled.
    pub(crate) cancelled: u64,
    /// Jobs whose files were fetched, those whose files were not needed any more, runs whose outputs were sent, uploads
    /// that were stopped, and how often the store was away for one of these; how often it handed over something else
    /// than was announced, and kept something else than it was sent.
    pub(crate) staged: u64,
    pub(crate) unstaged: u64,
    pub(crate) sent: u64,
    pub(crate) uploads_stopped: u64,
    pub(crate) store_away: u64,
    pub(crate) lied_to: u64,
    pub(crate) lied_about: u64,
    /// Pulls that were held, and how many of them brought something when nobody waited for it any more.
    pub(crate) held: u64,
    pub(crate) held_for_nobody: u64,
    /// Links that came about, reports, wakes, and wishes of the hub to hear of jobs.
    pub(crate) links: u64,
    pub(crate) reports: u64,
    pub(crate) wakes: u64,
    pub(crate) asks: u64,
    /// Deliveries that were acknowledged while their jobs went on.
    pub(crate) early_acks: u64,
    /// Pushes of results that the queue refused, and results that were given up for that.
    pub(crate) refusals: u64,
    pub(crate) unfit: u64,
    /// Instances of services that were started, places that runs had in them, and runs that failed for want of one.
    pub(crate) instances: u64,
    pub(crate) served: u64,
    pub(crate) service_failed: u64,
    /// Runs longer than two of the longest leases, where another daemon could have got their messages.
    pub(crate) many_leases: u64,
    /// Runs of half a day and more in a history with an outage of a week and more.
    pub(crate) long_outages: u64,
    /// How often a daemon died "before" or "after" an effect of a kind.
    pub(crate) died_around: BTreeMap<(&'static str, &'static str), u64>,
    /// Every change of a phase that was seen. A phase that is entered and left in one step is not seen.
    pub(crate) transitions: BTreeSet<Transition>,
}

impl Report {
    /// Adds what happened in another history.
    pub(crate) fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.runs += other.runs;
        self.in_pools += other.in_pools;
        self.rejected += other.rejected;
        self.crashes += other.crashes;
        self.taken_over += other.taken_over;
        self.rounds += other.rounds;
        self.children += other.children;
        self.unfolded += other.unfolded;
        self.cut_off += other.cut_off;
        self.half_claims += other.half_claims;
        self.given_up += other.given_up;
        self.disks_filled += other.disks_filled;
        self.cancelled += other.cancelled;
        self.staged += other.staged;
        self.unstaged += other.unstaged;
        self.sent += other.sent;
        self.uploads_stopped += other.uploads_stopped;
        self.store_away += other.store_away;
        self.lied_to += other.lied_to;
        self.lied_about += other.lied_about;
        self.held += other.held;
        self.links += other.links;
        self.reports += other.reports;
        self.wakes += other.wakes;
        self.asks += other.asks;
        self.held_for_nobody += other.held_for_nobody;
        self.early_acks += other.early_acks;
        self.refusals += other.refusals;
        self.unfit += other.unfit;
        self.instances += other.instances;
        self.served += other.served;
        self.service_failed += other.service_failed;
        self.many_leases += other.many_leases;
        self.long_outages += other.long_outages;
        for (around, times) in other.died_around {
            *self.died_around.entry(around).or_default() += times;
        }
        self.transitions.extend(other.transitions);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, runs, crashes, taken_over, cut_off, half_claims, given_up, early_acks, .. } = self;
        let Self { disks_filled, cancelled, held, held_for_nobody, refusals, unfit, .. } = self;
        let Self { links, reports, wakes, asks, .. } = self;
        let Self { staged, unstaged, sent, uploads_stopped, store_away, lied_to, lied_about, .. } = self;
        let Self { many_leases, long_outages, died_around, transitions, in_pools, rejected, .. } = self;
        let Self { rounds, children, unfolded, instances, served, service_failed, .. } = self;
        let seen = transitions.len();
        write!(
            f,
            "{steps} steps, {runs} runs, {in_pools} in one of several pools, {rejected} jobs rejected, {crashes} ends of daemons, {taken_over} claims taken over, \
             {cut_off} runs cut off, {half_claims} claims that failed and stood, {given_up} jobs given up, \
             {disks_filled} that filled disks, {cancelled} cancelled, {rounds} further rounds after {children} children, {unfolded} looks at graphs, \
             {instances} instances of services with {served} places used and {service_failed} runs that lost theirs, \
             {staged} with files and {unstaged} that did not need them, {sent} outputs and {uploads_stopped} not wanted, \
             {store_away} times a store that was away, {lied_to} wrong files of it and {lied_about} wrong outputs, {held} pulls held, {held_for_nobody} for nobody, \
             {links} links with {reports} reports, {wakes} wakes and {asks} asks, \
             {early_acks} early acknowledgements, {refusals} refusals of results, {unfit} results given up, \
             {many_leases} runs of many leases, {long_outages} long runs in long outages, {seen} transitions; \
             ends around effects: {died_around:?}"
        )
    }
}

/// A promise that was broken.
#[derive(Debug)]
pub(crate) struct Violation {
    /// Which history.
    pub(crate) seed: u64,
    /// Which promise.
    pub(crate) what: String,
    /// The end of the history, if it was written down.
    pub(crate) lines: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        let Self { seed, what, .. } = self;
        write!(f, "seed {seed}: {what}\nto see it again: HPC_QUEUE_SIM_SEEDS={seed}; then name it in seeds.rs")
    }
}

/// The name of an effect in [`Report::died_around`].
pub(crate) fn kind_of_effect(effect: &Effect) -> &'static str {
    match effect {
        Effect::Probe(_) => "probe",
        Effect::Observe => "observe",
        Effect::Reconciled => "reconciled",
        Effect::Pull(_) => "pull",
        Effect::Recall(_) => "recall",
        Effect::Stage(_) => "stage",
        Effect::Unstage(_) => "unstage",
        Effect::Upload(_) => "upload",
        Effect::StopUpload(_) => "stop upload",
        Effect::Claim { .. } => "claim",
        Effect::Unclaim(_) => "unclaim",
        Effect::Unfold { .. } => "unfold",
        Effect::Start(_) => "start",
        Effect::Conclude { .. } => "conclude",
        Effect::End(..) => "end",
        Effect::Serve(_) => "serve",
        Effect::Withdraw(_) => "withdraw",
        Effect::Forget(_) => "forget",
        Effect::PutAway { .. } => "put away",
        Effect::Publish(_) => "publish",
        Effect::Settle { .. } => "settle",
        Effect::Say(_) => "say",
        Effect::Exit | Effect::Fail(_) => "exit",
    }
}

/// The name of an event in a [`Transition`].
pub(crate) fn kind_of(event: &Event) -> &'static str {
    match event {
        Event::Tick => "tick",
        Event::SpentBesides { .. } => "spent besides",
        Event::Probed(_, Ok(())) => "probed: well",
        Event::Probed(_, Err(_)) => "probed: broken",
        Event::Pulled(Ok(_)) => "pulled",
        Event::Pulled(Err(_)) => "pull failed",
        Event::Recalled(_) => "recalled",
        Event::Staged(_, Staged::Ready) => "staged: ready",
        Event::Staged(_, Staged::Refused(_)) => "staged: refused",
        Event::Staged(_, Staged::Away(_)) => "staged: away",
        Event::Uploaded(_, Uploaded::Done) => "uploaded",
        Event::Uploaded(_, Uploaded::Away(_)) => "uploaded: away",
        Event::Claimed(_, Claimed::Ours(_)) => "claimed: ours",
        Event::Claimed(_, Claimed::Finished(_)) => "claimed: finished",
        Event::Claimed(_, Claimed::Elsewhere) => "claimed: elsewhere",
        Event::Claimed(_, Claimed::NodeBroken(_)) => "claimed: node broken",
        Event::Unclaimed(_, Ok(())) => "unclaimed",
        Event::Unclaimed(_, Err(_)) => "unclaim failed",
        Event::Observed(_) => "observed",
        Event::Room(..) => "room",
        Event::RunWaits(..) => "run waits",
        Event::PoolBroken(..) => "pool broken",
        Event::ExecutorGone(_) => "keeper gone",
        Event::RunEnded(..) => "run ended",
        Event::RunCutOff(..) => "run cut off",
        Event::RunRejected(..) => "run rejected",
        Event::ServiceReady(..) => "service ready",
        Event::ServiceGone(..) => "service gone",
        Event::Concluded(_, Concluded::Recorded(_)) => "concluded: recorded",
        Event::Concluded(_, Concluded::Parks(_)) => "concluded: parks",
        Event::Concluded(_, Concluded::TaskFailed(_)) => "concluded: task failed",
        Event::Concluded(_, Concluded::NodeFailed(_)) => "concluded: node failed",
        Event::Concluded(_, Concluded::ServiceFailed(_)) => "concluded: service failed",
        Event::Concluded(_, Concluded::DiskFull(..)) => "concluded: disk full",
        Event::Concluded(_, Concluded::NodeBroken(_)) => "concluded: node broken",
        Event::Concluded(_, Concluded::ToUpload) => "concluded: to upload",
        Event::Concluded(_, Concluded::TakenOver) => "concluded: taken over",
        Event::PutAway { .. } => "put away",
        Event::PutAwayFailed { .. } => "put away failed",
        Event::Published(Ok(())) => "published",
        Event::Published(Err(_)) => "publish failed",
        Event::Unfolded(..) => "unfolded",
        Event::Settled(Ok(())) => "settled",
        Event::Settled(Err(_)) => "settle failed",
        Event::Cancel(_) => "cancel",
        Event::Woken => "woken",
        Event::Linked(_) => "linked",
        Event::Drain => "drain",
        Event::Stop => "stop",
        Event::HandOver => "hand over",
    }
}
