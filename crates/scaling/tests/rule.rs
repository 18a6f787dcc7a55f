//! The rule: against situations with known answers, and what must hold in every one.

use proptest::prelude::*;
use scaling::{Amount, History, Pause, PoolState, Quota, Snapshot, Worker, decide};

fn pool(name: &str, backlog: u64) -> PoolState {
    PoolState {
        name: name.to_owned(),
        max: 1_000,
        slots: 1,
        cost: Amount { cpus: 1, ..Amount::default() },
        weight: 1.0,
        pending_max: 1_000,
        idle: 120.0,
        backlog,
        waiting_since: (backlog > 0).then_some(0.0),
        ..PoolState::default()
    }
}

fn worker(name: &str, idle_since: Option<f64>) -> Worker {
    Worker { name: name.to_owned(), idle_since, left: None }
}

fn wants(quota: Quota, pools: Vec<PoolState>) -> Vec<u64> {
    decide(&Snapshot { at: 1_000.0, quota, pools }).pools.iter().map(|pool| pool.want).collect()
}

/// The situations of HyperFlow's operator as its rule was evaluated by Prometheus, and what is right in each: 21
/// processors, half of one for each worker.
#[test]
fn what_a_famous_rule_gets_wrong_is_right() {
    let quota = Quota { cpus: Some(42), ..Quota::default() };
    assert_eq!(wants(quota, vec![pool("a", 1)]), [1], "one message, the last one: not 42");
    assert_eq!(wants(quota, vec![pool("a", 10)]), [10], "ten, and nothing else: not 42");
    assert_eq!(wants(quota, vec![pool("a", 516), pool("b", 216)]), [30, 12], "by their parts of the work");
    // Another tenant's messages are in another queue, and in another quota.
    assert_eq!(wants(quota, vec![pool("a", 100)]), [42]);
    assert_eq!(wants(quota, vec![pool("a", 0)]), [0], "nothing queued anywhere: a number");
}

#[test]
fn two_pools_share_by_their_work_and_not_by_their_counts() {
    let quota = Quota { allocations: Some(9), ..Quota::default() };
    let run = |name: &str, backlog, mean_run| PoolState { mean_run: Some(mean_run), ..pool(name, backlog) };
    assert_eq!(wants(quota, vec![run("a", 200, 10.0), run("b", 100, 10.0)]), [6, 3]);
    assert_eq!(wants(quota, vec![run("a", 100, 20.0), run("b", 200, 5.0)]), [6, 3]);
    assert_eq!(wants(quota, vec![run("a", 1_000_000, 3_600.0), run("b", 1, 1.0)]), [8, 1], "nobody starves");
    let weighs = PoolState { weight: 2.0, ..run("b", 100, 10.0) };
    assert_eq!(wants(Quota { allocations: Some(6), ..quota }, vec![run("a", 100, 10.0), weighs]), [2, 4]);
    let large = PoolState { cost: Amount { cpus: 8, gpus: 4, memory: 0 }, ..run("gpu", 100, 10.0) };
    let quota = Quota { cpus: Some(64), gpus: Some(8), ..Quota::default() };
    assert_eq!(wants(quota, vec![run("cpu", 100, 10.0), large]), [56, 1], "by what each takes most of");
}

#[test]
fn who_waits_for_longest_is_first_where_there_is_not_one_for_each() {
    let quota = Quota { allocations: Some(1), ..Quota::default() };
    let waits = |name: &str, since| PoolState { waiting_since: Some(since), ..pool(name, 5) };
    assert_eq!(wants(quota, vec![waits("a", 900.0), waits("b", 10.0), waits("c", 500.0)]), [0, 1, 0]);
}

#[test]
fn idle_workers_yield_to_hunger_and_else_stay_for_their_time() {
    let quota = Quota { allocations: Some(2), ..Quota::default() };
    let idle = PoolState { workers: vec![worker("1", Some(995.0)), worker("2", Some(990.0))], ..pool("a", 0) };
    let decide = |pools: Vec<PoolState>| decide(&Snapshot { at: 1_000.0, quota, pools }).pools;
    assert!(decide(vec![idle.clone()])[0].stop.is_empty());
    let decided = decide(vec![idle.clone(), pool("b", 7)]);
    assert_eq!((decided[0].stop.len(), decided[1].want, decided[1].start), (2, 2, 0), "it is not there yet");
    let old = PoolState { workers: vec![worker("1", Some(10.0)), worker("2", None)], ..pool("a", 1) };
    assert_eq!(decide(vec![old.clone()])[0].stop, ["1"]);
    let least = PoolState { min: 2, ..old };
    assert!(decide(vec![least, pool("b", 7)])[0].stop.is_empty());
    // A worker at work is nobody's to take.
    let busy = PoolState { workers: vec![worker("1", None), worker("2", None)], ..pool("a", 2) };
    assert!(decide(vec![busy, pool("b", 1_000)]).iter().all(|pool| pool.stop.is_empty() && pool.start == 0));
}

#[test]
fn failures_slow_a_pool_down_and_then_pause_it() {
    let after = |history: History| {
        let pool = PoolState { history, ..pool("a", 5) };
        let decided = decide(&Snapshot { at: 1_000.0, quota: Quota::default(), pools: vec![pool] }).pools.remove(0);
        (decided.start, decided.why.pause)
    };
    let failed = |refused, died, ago: f64| History { refused, died, failed_at: Some(1_000.0 - ago) };
    assert_eq!(after(History::default()), (5, None));
    assert_eq!(after(failed(1, 0, 10.0)), (0, Some(Pause::For(50.0))));
    assert_eq!(after(failed(1, 0, 60.0)), (5, None));
    assert_eq!(after(failed(1, 1, 60.0)), (0, Some(Pause::For(840.0))));
    assert_eq!(after(failed(9, 0, 3_600.0)), (5, None));
    assert_eq!(after(failed(10, 0, 1e6)), (0, Some(Pause::Refused(10))));
    assert_eq!(after(failed(0, 3, 1e6)), (0, Some(Pause::Died(3))));
}

#[test]
fn each_number_is_explained() {
    let says = |quota: Quota, pools: Vec<PoolState>| {
        let decided = decide(&Snapshot { at: 1_000.0, quota, pools }).pools;
        decided.iter().map(|pool| pool.why.to_string()).collect::<Vec<_>>()
    };
    let cpu = PoolState {
        max: 16,
        mean_run: Some(8.1),
        pending: 1,
        workers: vec![worker("1", None), worker("2", None), worker("3", None)],
        ..pool("cpu", 312)
    };
    let other = PoolState { max: 16, mean_run: Some(16.2), ..pool("other", 100) };
    let quota = Quota { allocations: Some(8), ..Quota::default() };
    assert_eq!(
        says(quota, vec![cpu, other]),
        [
            "cpu wants 5 of at most 16: backlog 312 × 8.1 s is 61 % of the work, the quota leaves room for 5; has 3, 1 pending",
            "other wants 3 of at most 16: backlog 100 × 16.2 s is 39 % of the work, the quota leaves room for 3; has 0",
        ]
    );
    let gpu = PoolState { max: 4, workers: vec![worker("1", Some(921.0))], ..pool("gpu", 0) };
    assert_eq!(
        says(Quota::default(), vec![gpu, PoolState { slots: 4, ..pool("cpu", 7) }]),
        [
            "gpu wants 0 of at most 4: no backlog; has 1, the last idle one ends in 41 s",
            "cpu wants 2 of at most 1000: backlog 7 is 100 % of the work, which fills 2; has 0",
        ]
    );
}

fn any_pool() -> impl Strategy<Value = PoolState> {
    let numbers = (0..4_u64, 0..30_u64, 1..5_u64, 0..200_u64, 0..6_u64);
    let cost = (0..9_u64, 0..3_u64).prop_map(|(cpus, gpus)| Amount { cpus, gpus, memory: 0 });
    let workers = prop::collection::vec(prop::option::of(0.0..1_000.0), 0..12);
    let times = (prop::option::of(0.1..1e5), prop::option::of(0.0..1_000.0), 0.0..3.0, 0.0..300.0);
    let history = (0..12_u32, 0..4_u32, prop::option::of(0.0..1_000.0));
    (numbers, cost, workers, times, 0..5_u64, history).prop_map(
        |(
            (min, max, slots, backlog, pending_max),
            cost,
            workers,
            (mean_run, waiting, weight, idle),
            pending,
            history,
        )| {
            let (refused, died, failed_at) = history;
            let workers = workers.into_iter().enumerate().map(|(at, idle)| worker(&at.to_string(), idle)).collect();
            PoolState {
                name: "p".to_owned(),
                min,
                max,
                slots,
                cost,
                weight,
                pending_max,
                idle,
                backlog,
                mean_run,
                waiting_since: waiting.filter(|_| backlog > 0),
                pending,
                workers,
                history: History { refused, died, failed_at },
            }
        },
    )
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let quota = (prop::option::of(0..100_u64), prop::option::of(0..10_u64), prop::option::of(0..30_u64));
    let quota = quota.prop_map(|(cpus, gpus, allocations)| Quota { cpus, gpus, allocations, memory: None });
    (quota, prop::collection::vec(any_pool(), 1..6)).prop_map(|(quota, pools)| Snapshot { at: 1_000.0, quota, pools })
}

fn fits(quota: &Quota, counts: &[(u64, Amount)]) -> bool {
    let sum = |part: fn(&Amount) -> u64| counts.iter().map(|(count, cost)| count * part(cost)).sum::<u64>();
    quota.cpus.is_none_or(|limit| sum(|cost| cost.cpus) <= limit)
        && quota.gpus.is_none_or(|limit| sum(|cost| cost.gpus) <= limit)
        && quota.allocations.is_none_or(|limit| counts.iter().map(|(count, _)| count).sum::<u64>() <= limit)
}

proptest! {
    #[test]
    fn what_must_hold_holds(snapshot in any_snapshot()) {
        let decided = decide(&snapshot).pools;
        let pools = snapshot.pools.iter().zip(&decided);
        let wanted: Vec<_> = pools.clone().map(|(pool, decided)| (decided.want, pool.cost)).collect();
        prop_assert!(fits(&snapshot.quota, &wanted), "above the quota");
        let started: u64 = decided.iter().map(|pool| pool.start).sum();
        let after: Vec<_> = pools.clone().map(|(pool, decided)| (pool.have() + decided.start, pool.cost)).collect();
        prop_assert!(started == 0 || fits(&snapshot.quota, &after), "started above the quota");
        for (pool, decided) in pools.clone() {
            let fills = pool.backlog.div_ceil(pool.slots);
            prop_assert!(decided.want <= pool.max && decided.want <= fills.max(pool.min));
            prop_assert!(pool.pending + decided.start <= pool.pending_max.max(pool.pending));
            let stopped = decided.stop.iter().map(|name| &pool.workers[name.parse::<usize>().unwrap()]);
            prop_assert!(stopped.clone().all(|worker| worker.idle_since.is_some()), "a worker at work is stopped");
            let left = pool.workers.len() as u64 - stopped.count() as u64;
            prop_assert!(decided.stop.is_empty() || left >= decided.want.max(pool.min));
            prop_assert!(decided.stop.is_empty() || decided.start == 0, "stopped and started at once");
        }
        // A pool with a backlog gets nothing only where not even one more fits.
        for (at, (pool, decided)) in pools.enumerate() {
            let paused = decided.why.pause.is_some_and(Pause::is_for_good);
            if pool.backlog > 0 && pool.max > 0 && decided.want == 0 && !paused {
                let mut more = wanted.clone();
                more[at].0 += 1;
                prop_assert!(!fits(&snapshot.quota, &more), "{} is starved", pool.name);
            }
        }
        let text = serde_json::to_string(&snapshot).unwrap();
        let read: Snapshot = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(decide(&read).pools.iter().map(|pool| pool.want).collect::<Vec<_>>(),
                        decided.iter().map(|pool| pool.want).collect::<Vec<_>>(), "decided again from the log");
    }

    /// Once what is wanted is there, nothing changes any more while nothing else does.
    #[test]
    fn constant_input_does_not_oscillate(snapshot in any_snapshot()) {
        let mut snapshot = snapshot;
        for pool in &mut snapshot.pools {
            // As many have a job as there are jobs.
            pool.history = History::default();
            pool.pending_max = 100;
            pool.workers.clear();
            pool.pending = 0;
        }
        let first = decide(&snapshot).pools;
        for _ in 0..3 {
            let decided = decide(&snapshot).pools;
            for (pool, decided) in snapshot.pools.iter_mut().zip(&decided) {
                let next = pool.workers.len();
                pool.workers.extend((0..decided.start).map(|at| worker(&(next as u64 + at).to_string(), None)));
                prop_assert!(decided.stop.is_empty());
            }
            prop_assert_eq!(decided.iter().map(|pool| pool.want).collect::<Vec<_>>(),
                            first.iter().map(|pool| pool.want).collect::<Vec<_>>());
        }
        prop_assert!(decide(&snapshot).pools.iter().all(|pool| pool.start == 0));
    }
}
