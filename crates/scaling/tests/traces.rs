//! The rule played against workflows that were run.

use std::fs;
use std::path::Path;

use scaling::{Amount, PoolShape, Quota, Simulation, Trace};

fn trace(name: &str) -> Trace {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases/wfcommons").join(name);
    Trace::parse(&fs::read_to_string(path).expect("it is in the repository")).expect("it is a trace")
}

/// 20 workers of one processor, that begin after 30 s; a decision every 3 s.
fn simulation(pools: &[&str]) -> Simulation {
    let pool = |name: &&str| PoolShape {
        name: (*name).to_owned(),
        min: 0,
        max: 20,
        slots: 1,
        cost: Amount { cpus: 1, ..Amount::default() },
        pending_max: 20,
        idle: 120.0,
        weight: 1.0,
    };
    let quota = Quota { allocations: Some(20), ..Quota::default() };
    Simulation { quota, pools: pools.iter().map(pool).collect(), start: 30.0, interval: 3.0 }
}

/// Makespans as another simulation of one pool with the same numbers had them (in seconds), which this rule may exceed
/// by a twentieth.
#[test]
fn one_pool_ends_a_workflow_as_soon_as_it_can() {
    for (name, makespan) in [
        ("montage-chameleon-2mass-03d-001.json", 129.0),
        ("1000genome-chameleon-2ch-100k-001.json", 239.0),
        ("epigenomics-chameleon-hep-1seq-50k-001.json", 180.0),
        ("soykb-chameleon-10fastq-10ch-001.json", 3_131.0),
    ] {
        let trace = trace(name);
        let played = simulation(&["all"]).play(&trace, &vec![0; trace.tasks.len()]).unwrap();
        assert!(played.makespan <= makespan * 1.05, "{name}: {played:?}");
        assert!(played.held >= trace.work() && played.most <= 20, "{name}: {played:?}");
    }
}

#[test]
fn a_pool_for_each_program_takes_longer_and_never_starves() {
    for name in [
        "montage-chameleon-2mass-005d-001.json",
        "montage-chameleon-2mass-01d-001.json",
        "helloworld-chain-5-chameleon.json",
    ] {
        let trace = trace(name);
        let mut programs: Vec<&str> = trace.tasks.iter().map(|task| task.name.as_str()).collect();
        programs.sort_unstable();
        programs.dedup();
        let pool_of: Vec<usize> =
            trace.tasks.iter().map(|task| programs.iter().position(|program| *program == task.name).unwrap()).collect();
        let one = simulation(&["all"]).play(&trace, &vec![0; trace.tasks.len()]).unwrap();
        let each = simulation(&programs).play(&trace, &pool_of).unwrap();
        assert!(each.makespan >= one.makespan * 0.99, "{name}: {each:?} {one:?}");
        assert!(each.most <= 20, "{name}: {each:?}");
    }
}

#[test]
fn a_pool_that_may_have_nothing_is_told() {
    let trace = trace("helloworld-chain-5-chameleon.json");
    let mut nothing = simulation(&["all"]);
    nothing.pools[0].max = 0;
    nothing.interval = 1e6;
    assert_eq!(nothing.play(&trace, &vec![0; trace.tasks.len()]), None);
}
