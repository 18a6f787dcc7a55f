//! What can happen next, and what does.

use lifecycle::{Attempt, Entry, Run, Stage};
use protocol::JobId;

use super::{Known, NODES, Pair, run_of};
use crate::keeper::Outcome;

/// Something that happens to both, by the number of the node.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    /// Half of the time passes after which a claim is taken over.
    Time,
    DaemonComes(usize),
    DaemonDies(usize),
    KeeperDies(usize),
    /// The machine goes down, and its journal loses these.
    Reboot(usize, Vec<Run>),
    /// The node stands still, and goes on.
    Freeze(usize),
    Thaw(usize),
    /// The node does not see what all share, and sees it again.
    LoseResults(usize),
    FindResults(usize),
    /// The daemon does not know this job any more.
    LoseState(usize, JobId),
    Probe(usize),
    Observe(usize),
    Reconciled(usize),
    Recall(usize, JobId),
    PutAway(usize, JobId),
    /// The store of files is away, and comes back.
    LoseStore,
    FindStore,
    Stage(usize, JobId),
    Unstage(usize, JobId),
    Upload(usize, Run),
    Claim(usize, JobId),
    Unclaim(usize, Run),
    Start(usize, Run),
    /// A run ends like this.
    RunOver(usize, Run, Outcome),
    /// What an ended run left is dealt with; the flag tells whether a job that the node failed is given back.
    Conclude(usize, Run, bool),
    GiveUp(usize, Run),
    End(usize, Run),
    Forget(usize, Run),
}

impl Pair<'_> {
    pub(super) fn draw(&mut self) -> Operation {
        let mut possible = vec![(6, Operation::Time)];
        let is_away = self.world.transfers.away_until > self.world.now;
        possible.push(if is_away { (3, Operation::FindStore) } else { (1, Operation::LoseStore) });
        for n in 0..NODES {
            self.of_node(n, &mut possible);
        }
        let all: u32 = possible.iter().map(|(weight, _)| *weight).sum();
        let mut drawn = self.rng.u32(..all);
        for (weight, operation) in possible {
            if drawn < weight {
                return operation;
            }
            drawn -= weight;
        }
        Operation::Time
    }

    fn of_node(&mut self, n: usize, possible: &mut Vec<(u32, Operation)>) {
        if self.world.is_frozen(n) {
            possible.push((2, Operation::Thaw(n)));
            return;
        }
        let node = &self.world.nodes[n];
        for run in node.keeper.alive() {
            let outcome = if self.rng.u8(0..3) == 0 { Outcome::TaskFailed } else { Outcome::Completed };
            possible.push((4, Operation::RunOver(n, run, outcome)));
        }
        possible.push((1, Operation::Freeze(n)));
        let away = self.world.can_see(n).is_err();
        possible.push(if away { (3, Operation::FindResults(n)) } else { (1, Operation::LoseResults(n)) });
        let runs: Vec<Run> = node.keeper.runs.keys().cloned().collect();
        possible.push((1, Operation::Reboot(n, runs.into_iter().filter(|_| self.rng.bool()).collect())));
        if node.keeper.alive {
            possible.push((1, Operation::KeeperDies(n)));
        }
        let Some(daemon) = &self.daemons[n] else {
            possible.push((6, Operation::DaemonComes(n)));
            return;
        };
        possible.push((1, Operation::DaemonDies(n)));
        possible.push((if daemon.ready { 1 } else { 12 }, Operation::Probe(n)));
        possible.push((if daemon.connected { 1 } else { 12 }, Operation::Observe(n)));
        let is_open = |run: &Run| matches!(daemon.runs.get(run), Some(Known::CutOff) | None);
        let launched = |entry: &Entry| (entry.stage == Stage::Launching).then(|| run_of(entry)).flatten();
        if daemon.connected
            && daemon.incomplete
            && !node.book.entries.iter().filter_map(launched).any(|run| is_open(&run))
        {
            possible.push((6, Operation::Reconciled(n)));
        }
        for (run, alive) in daemon.strays.iter().filter(|_| daemon.connected) {
            let end = if *alive { Operation::End(n, run.clone()) } else { Operation::Forget(n, run.clone()) };
            possible.push((6, end));
        }
        for job in &self.world.plan.jobs {
            let job_id = job.job_id.clone();
            if self.lost.contains(&job_id) {
                continue;
            }
            if !job.readable {
                possible.extend(daemon.ready.then_some((1, Operation::PutAway(n, job_id))));
                continue;
            }
            if node.book.finished.contains(&job_id) {
                possible.push((1, Operation::Recall(n, job_id)));
                continue;
            }
            let is_staged = self.world.is_staged(n, &job_id);
            let claim = match job.wants.has_files() && !is_staged {
                true => Operation::Stage(n, job_id.clone()),
                false => Operation::Claim(n, job_id.clone()),
            };
            // What is not seen is removed at the next start.
            if is_staged && !away {
                possible.push((1, Operation::Unstage(n, job_id.clone())));
            }
            let Some(entry) = node.book.entry(&job_id) else {
                possible.extend(daemon.ready.then_some((4, claim)));
                continue;
            };
            let run = run_of(entry);
            match (entry.stage, run) {
                (Stage::Launching, Some(run)) => match daemon.runs.get(&run) {
                    Some(Known::Ready) => {
                        possible.extend(daemon.connected.then(|| (8, Operation::Start(n, run.clone()))));
                        possible.push((1, Operation::Unclaim(n, run)));
                    }
                    Some(Known::Begun) => {
                        possible.extend(daemon.connected.then_some((1, Operation::Start(n, run))));
                        if self.rng.u8(0..8) == 0 {
                            possible.push((1, Operation::LoseState(n, job_id)));
                        }
                    }
                    Some(known @ (Known::Ended(..) | Known::CutOff)) => {
                        let told_again = daemon.connected && matches!(known, Known::Ended(..));
                        possible.extend(told_again.then(|| (1, Operation::Start(n, run.clone()))));
                        let back = self.rng.bool();
                        if daemon.to_upload.contains(&run) {
                            possible.push((8, Operation::Upload(n, run.clone())));
                        }
                        possible.push((8, Operation::Conclude(n, run, back)));
                    }
                    None => {}
                },
                (_, run) => {
                    possible.extend(daemon.ready.then_some((4, claim)));
                    let run = run.unwrap_or(Run { job_id, attempt: Attempt::FIRST });
                    if self.rng.u8(0..8) == 0 {
                        possible.push((1, Operation::GiveUp(n, run)));
                    }
                }
            }
        }
    }
}
