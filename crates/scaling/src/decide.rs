//! The rule.

use serde::{Deserialize, Serialize};

use crate::snapshot::Used;
use crate::{Pause, PoolState, Snapshot, Why, Worker};

/// The pauses after failures in a row, in seconds; the last one again and again.
const PAUSES: [f64; 5] = [0.0, 60.0, 900.0, 1_800.0, 3_600.0];

/// After so many refused submissions in a row a person has to look.
const REFUSED_MAX: u32 = 10;

/// After so many allocations in a row that died before their first job a person has to look.
const DIED_MAX: u32 = 3;

/// Run times are taken for no less and no more than this, in seconds.
const RUN_BOUNDS: (f64, f64) = (1.0, 3_600.0);

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// For each pool, in the order of the snapshot.
    pub pools: Vec<PoolDecision>,
}

/// What is to be done for a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolDecision {
    /// How many allocations it should have.
    pub want: u64,
    /// How many to ask for now.
    pub start: u64,
    /// The idle workers to end now, by name.
    pub stop: Vec<String>,
    /// Why.
    pub why: Why,
}

/// Decides for all pools at once.
pub fn decide(snapshot: &Snapshot) -> Decision {
    let pools = &snapshot.pools;
    let pauses: Vec<Option<Pause>> = pools.iter().map(|pool| pause(pool, snapshot.at)).collect();
    let runs = run_times(pools);
    let fills: Vec<u64> = pools.iter().map(|pool| pool.backlog.div_ceil(pool.slots.max(1))).collect();
    let caps: Vec<u64> = pools
        .iter()
        .zip(&fills)
        .zip(&pauses)
        .map(|((pool, fills), pause)| match pause {
            // What is there goes on.
            Some(pause) if pause.is_for_good() => pool.have().min(*fills).min(pool.max),
            _ => (*fills).min(pool.max),
        })
        .collect();
    let work: Vec<f64> =
        pools.iter().zip(&runs).map(|(pool, run)| pool.weight.max(0.0) * pool.backlog as f64 * run).collect();
    let (wants, by_quota) = wants(snapshot, &caps, &work, &pauses);
    let (starts, hungry) = starts(snapshot, &wants, &pauses);
    let all_work: f64 = work.iter().sum();
    let decided = pools.iter().enumerate().map(|(at, pool)| {
        let yields = hungry.iter().any(|other| *other != at);
        let why = Why {
            pool: pool.name.clone(),
            want: wants[at],
            max: pool.max,
            min: pool.min,
            backlog: pool.backlog,
            mean_run: pool.mean_run,
            share: if all_work > 0.0 { work[at] / all_work } else { 0.0 },
            fills: fills[at],
            by_quota: by_quota[at],
            have: pool.workers.len() as u64,
            pending: pool.pending,
            ends_in: ends_in(pool, snapshot.at),
            pause: pauses[at],
        };
        PoolDecision { want: wants[at], start: starts[at], stop: stops(pool, wants[at], snapshot.at, yields), why }
    });
    Decision { pools: decided.collect() }
}

/// The run time by which the backlog of each pool is weighed.
fn run_times(pools: &[PoolState]) -> Vec<f64> {
    let known: Vec<f64> = pools.iter().filter_map(|pool| pool.mean_run).map(bounded).collect();
    // Of a pool that nothing is known of, as that of all others.
    let mean = if known.is_empty() { RUN_BOUNDS.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
    pools.iter().map(|pool| pool.mean_run.map_or(mean, bounded)).collect()
}

fn bounded(run: f64) -> f64 {
    if run.is_finite() { run.clamp(RUN_BOUNDS.0, RUN_BOUNDS.1) } else { RUN_BOUNDS.1 }
}

/// How many each pool should have, and whether it is the quota that it is no more.
fn wants(snapshot: &Snapshot, caps: &[u64], work: &[f64], pauses: &[Option<Pause>]) -> (Vec<u64>, Vec<bool>) {
    let (pools, quota) = (&snapshot.pools, &snapshot.quota);
    let mut wants = vec![0; pools.len()];
    let mut by_quota = vec![false; pools.len()];
    let mut used = Used::default();
    let give = |at: usize, used: &mut Used, wants: &mut Vec<u64>| {
        let fits = quota.has_room(used, &pools[at].cost);
        if fits {
            used.add(1, &pools[at].cost);
            wants[at] += 1;
        }
        fits
    };
    for (at, pool) in pools.iter().enumerate() {
        let least = if pauses[at].is_some_and(Pause::is_for_good) { pool.min.min(pool.have()) } else { pool.min };
        while wants[at] < least.min(pool.max) && give(at, &mut used, &mut wants) {}
    }
    let mut hungry: Vec<usize> = (0..pools.len()).filter(|at| caps[*at] > 0 && wants[*at] == 0).collect();
    // Who waits for longest is first; of jobs that do not wait nobody is.
    let since = |at: &usize| pools[*at].waiting_since.unwrap_or(f64::INFINITY);
    hungry.sort_by(|one, other| since(one).total_cmp(&since(other)));
    for at in hungry {
        by_quota[at] |= !give(at, &mut used, &mut wants);
    }
    loop {
        let value = |at: &usize| work[*at] / quota.share(wants[*at] + 1, &pools[*at].cost);
        let candidates = (0..pools.len()).filter(|at| wants[*at] < caps[*at] && !by_quota[*at]);
        let best = candidates.max_by(|one, other| value(one).total_cmp(&value(other)).then(other.cmp(one)));
        let Some(at) = best else { break };
        by_quota[at] |= !give(at, &mut used, &mut wants);
    }
    (wants, by_quota)
}

/// How many to ask for now, and the pools that want more and find no room in the quota for it.
fn starts(snapshot: &Snapshot, wants: &[u64], pauses: &[Option<Pause>]) -> (Vec<u64>, Vec<usize>) {
    let (pools, quota) = (&snapshot.pools, &snapshot.quota);
    // All that is there takes its part, whether it should be there or not: nothing that runs is ended for another.
    let mut used = Used::default();
    pools.iter().for_each(|pool| used.add(pool.have(), &pool.cost));
    let mut starts = vec![0; pools.len()];
    let mut hungry = Vec::new();
    for (at, pool) in pools.iter().enumerate() {
        let missing = wants[at].saturating_sub(pool.have());
        let allowed = if pauses[at].is_some() { 0 } else { pool.pending_max.saturating_sub(pool.pending) };
        while starts[at] < missing.min(allowed) {
            if !quota.has_room(&used, &pool.cost) {
                hungry.push(at);
                break;
            }
            used.add(1, &pool.cost);
            starts[at] += 1;
        }
    }
    (starts, hungry)
}

/// The idle workers to end: those that were idle for their time, and at once those that a hungry pool could have.
fn stops(pool: &PoolState, want: u64, now: f64, yields: bool) -> Vec<String> {
    let spare = (pool.workers.len() as u64).saturating_sub(want.max(pool.min));
    let idle = |worker: &&Worker| worker.idle_since.is_some_and(|since| yields || now - since >= pool.idle);
    let mut idle: Vec<&Worker> = pool.workers.iter().filter(idle).collect();
    // Those first whose time is nearly up.
    idle.sort_by(|one, other| left(one).total_cmp(&left(other)));
    let count = usize::try_from(spare).unwrap_or(usize::MAX);
    idle.into_iter().take(count).map(|worker| worker.name.clone()).collect()
}

fn left(worker: &Worker) -> f64 {
    worker.left.unwrap_or(f64::INFINITY)
}

/// Where all workers are idle: when the last of them ends.
fn ends_in(pool: &PoolState, now: f64) -> Option<f64> {
    let ends: Option<Vec<f64>> =
        pool.workers.iter().map(|worker| worker.idle_since.map(|since| (since + pool.idle - now).max(0.0))).collect();
    ends.filter(|_| pool.min == 0 && pool.backlog == 0).and_then(|ends| ends.into_iter().reduce(f64::max))
}

/// Is nothing started for now, and why?
fn pause(pool: &PoolState, now: f64) -> Option<Pause> {
    let history = &pool.history;
    if history.refused >= REFUSED_MAX {
        return Some(Pause::Refused(history.refused));
    }
    if history.died >= DIED_MAX {
        return Some(Pause::Died(history.died));
    }
    let failures = (history.refused + history.died) as usize;
    let until = history.failed_at? + PAUSES[failures.min(PAUSES.len() - 1)];
    (failures > 0 && now < until).then_some(Pause::For(until - now))
}
