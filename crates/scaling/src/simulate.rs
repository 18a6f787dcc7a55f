//! The rule played against a workflow, in virtual time: so that a site can try its numbers before it uses them.
//!
//! Allocations begin some time after they were asked for, and pools know no more than a daemon knows: the jobs whose
//! parents have ended, and how long the last ones ran.

use std::collections::VecDeque;

use crate::{Amount, Decision, History, PoolState, Quota, Room, Snapshot, Trace, Worker, decide, place};

/// How many of the last run times count.
const RUNS_KEPT: usize = 20;

/// How many jobs must have run before their mean is known.
const RUNS_KNOWN: usize = 5;

/// A simulation that takes longer than this many seconds is not going to end.
const HORIZON: f64 = 1e8;

/// A pool, as a site has it.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolShape {
    /// Its name.
    pub name: String,
    /// The fewest allocations.
    pub min: u64,
    /// The most.
    pub max: u64,
    /// Jobs in one at a time.
    pub slots: u64,
    /// What one takes of the quota.
    pub cost: Amount,
    /// Allocations that may wait at a time.
    pub pending_max: u64,
    /// Seconds without a job after which one ends.
    pub idle: f64,
    /// How much its work counts beside that of others.
    pub weight: f64,
}

/// What is played.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulation {
    /// What all pools together may have.
    pub quota: Quota,
    /// The pools.
    pub pools: Vec<PoolShape>,
    /// How many seconds an allocation takes to begin.
    pub start: f64,
    /// Every how many seconds there is a decision.
    pub interval: f64,
}

/// How it came out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// When the last task ended, in seconds.
    pub makespan: f64,
    /// How many seconds processors were held, all together.
    pub held: f64,
    /// The most allocations that there were at a time.
    pub most: u64,
    /// How often the rule wanted more, and how often less, than just before.
    pub turns: u64,
}

struct Alive {
    pool: usize,
    name: String,
    begins: f64,
    jobs: u64,
    idle_since: Option<f64>,
}

impl Simulation {
    /// Plays it; `pool_of` says in which pool each task runs, by its place. None if it does not come to an end: some
    /// pool never gets what its tasks need.
    pub fn play(&self, trace: &Trace, pool_of: &[usize]) -> Option<Outcome> {
        let children = trace.children();
        let mut waits: Vec<usize> = trace.tasks.iter().map(|task| task.parents.len()).collect();
        let mut queues: Vec<VecDeque<(usize, f64)>> = vec![VecDeque::new(); self.pools.len()];
        let mut runs: Vec<VecDeque<f64>> = vec![VecDeque::new(); self.pools.len()];
        let mut alive: Vec<Alive> = Vec::new();
        let mut running: Vec<(f64, usize, usize)> = Vec::new();
        let (mut outcome, mut now, mut next_decision, mut left) = (Outcome::default(), 0.0, 0.0, trace.tasks.len());
        let (mut number, mut wanted) = (0_u64, vec![0; self.pools.len()]);
        let mut rising = vec![true; self.pools.len()];
        for at in (0..waits.len()).filter(|at| waits[*at] == 0) {
            queues[pool_of[at]].push_back((at, now));
        }
        while left > 0 {
            if now > HORIZON {
                return None;
            }
            running.retain(|(ends, task, worker)| {
                let goes_on = *ends > now;
                if !goes_on {
                    left -= 1;
                    outcome.makespan = outcome.makespan.max(*ends);
                    alive[*worker].jobs -= 1;
                    if alive[*worker].jobs == 0 {
                        alive[*worker].idle_since = Some(now);
                    }
                    let of_pool = &mut runs[pool_of[*task]];
                    of_pool.push_back(trace.tasks[*task].seconds);
                    if of_pool.len() > RUNS_KEPT {
                        of_pool.pop_front();
                    }
                    for child in &children[*task] {
                        waits[*child] -= 1;
                        if waits[*child] == 0 {
                            queues[pool_of[*child]].push_back((*child, now));
                        }
                    }
                }
                goes_on
            });
            if now >= next_decision {
                next_decision = now + self.interval;
                let decision = decide(&self.snapshot(now, &queues, &runs, &alive, &running, pool_of));
                outcome.turns += turns(&decision, &mut wanted, &mut rising);
                for (pool, decided) in decision.pools.iter().enumerate() {
                    for _ in 0..decided.start {
                        let name = number.to_string();
                        number += 1;
                        let begins = now + self.start;
                        alive.push(Alive { pool, name, begins, jobs: 0, idle_since: Some(begins) });
                    }
                    let stopped = |worker: &Alive| decided.stop.contains(&worker.name);
                    for worker in alive.iter_mut().filter(|worker| stopped(worker)) {
                        outcome.held += (now - worker.begins) * self.pools[worker.pool].cost.cpus.max(1) as f64;
                        // It stays in its place, which others are known by, and is gone.
                        worker.begins = f64::INFINITY;
                        worker.idle_since = None;
                        worker.name.clear();
                    }
                }
                outcome.most = outcome.most.max(alive.iter().filter(|worker| !worker.name.is_empty()).count() as u64);
            }
            for (pool, queue) in queues.iter_mut().enumerate() {
                while let Some((task, _)) = queue.front().copied() {
                    let rooms: Vec<Room> = alive
                        .iter()
                        .map(|worker| {
                            let is_there = worker.pool == pool && worker.begins <= now;
                            Room {
                                jobs: worker.jobs,
                                slots: if is_there { self.pools[pool].slots } else { 0 },
                                left: None,
                            }
                        })
                        .collect();
                    let Some(worker) = place(&rooms, 0.0) else { break };
                    queue.pop_front();
                    alive[worker].jobs += 1;
                    alive[worker].idle_since = None;
                    running.push((now + trace.tasks[task].seconds, task, worker));
                }
            }
            let ends = running.iter().map(|(ends, ..)| *ends);
            let begins = alive.iter().map(|worker| worker.begins).filter(|begins| *begins > now && begins.is_finite());
            let next = ends.chain(begins).fold(next_decision, f64::min);
            now = next.max(now);
        }
        for worker in alive.iter().filter(|worker| worker.begins < outcome.makespan) {
            outcome.held += (outcome.makespan - worker.begins) * self.pools[worker.pool].cost.cpus.max(1) as f64;
        }
        Some(outcome)
    }

    fn snapshot(
        &self,
        now: f64,
        queues: &[VecDeque<(usize, f64)>],
        runs: &[VecDeque<f64>],
        alive: &[Alive],
        running: &[(f64, usize, usize)],
        pool_of: &[usize],
    ) -> Snapshot {
        let pools = self.pools.iter().enumerate().map(|(at, shape)| {
            let there = |worker: &&Alive| worker.pool == at && !worker.name.is_empty();
            let runs_here = running.iter().filter(|(_, task, _)| pool_of[*task] == at).count();
            let workers = alive.iter().filter(there).filter(|worker| worker.begins <= now).map(|worker| Worker {
                name: worker.name.clone(),
                idle_since: worker.idle_since,
                left: None,
            });
            PoolState {
                name: shape.name.clone(),
                min: shape.min,
                max: shape.max,
                slots: shape.slots,
                cost: shape.cost,
                weight: shape.weight,
                pending_max: shape.pending_max,
                idle: shape.idle,
                backlog: (queues[at].len() + runs_here) as u64,
                mean_run: (runs[at].len() >= RUNS_KNOWN).then(|| runs[at].iter().sum::<f64>() / runs[at].len() as f64),
                waiting_since: queues[at].front().map(|(_, since)| *since),
                pending: alive.iter().filter(there).filter(|worker| worker.begins > now).count() as u64,
                workers: workers.collect(),
                history: History::default(),
            }
        });
        Snapshot { at: now, quota: self.quota, pools: pools.collect() }
    }
}

/// How many pools have turned, from growing to shrinking or back.
fn turns(decision: &Decision, wanted: &mut [u64], rising: &mut [bool]) -> u64 {
    let mut turns = 0;
    for (at, decided) in decision.pools.iter().enumerate() {
        let turned = if rising[at] { decided.want < wanted[at] } else { decided.want > wanted[at] };
        if turned {
            rising[at] = !rising[at];
            turns += 1;
        }
        wanted[at] = decided.want;
    }
    turns
}
