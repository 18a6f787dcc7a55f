//! Which pool takes a job, by which rule, and what is told when none does.

mod common;

use common::{WHOLE, job, site};
use proptest::prelude::*;
use site::{Refusal, Rule, Site};

const POOLS: &str = r#"
[pool.cpu]
image = "/c.sif"
default = true
slot = { cpus = 1, memory = "2GiB" }
capacity = { cpus = 16, memory = "64GiB" }

[pool.gpu]
image = "/g.sif"
slot = { cpus = 4, memory = "16GiB", gpus = 1 }
capacity = { cpus = 8, memory = "64GiB", gpus = 2 }

[pool.qpu]
image = "/q.sif"
capacity = { cpus = 4 }
"#;

const TASKS: &str = r#"
[task."*"]
[task.simulate]
pool = "cpu"
[task."train*"]
pools = ["gpu", "cpu"]
[task."train-small*"]
pool = "cpu"
[task.train-small-1]
pool = "gpu"
[task."*quantum*"]
pool = "qpu"
"#;

fn of(site: &Site, text: &str) -> String {
    match site.route(&job(text)) {
        Ok(route) => format!("{}: {}: {}", route.pool, route.rule, route.resources),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn the_most_specific_section_counts_and_the_job_comes_first() {
    let site = site(&format!("{POOLS}{TASKS}"));
    for (text, told) in [
        (r#"{"task":"other"}"#, "cpu: it is the default: 1 cpu, 2GiB"),
        (r#"{"task":"simulate"}"#, "cpu: task `simulate`: 1 cpu, 2GiB"),
        (r#"{"task":"train"}"#, "gpu: task `train*`: 4 cpus, 16GiB, 1 GPU"),
        (r#"{"task":"train","pool":"cpu"}"#, "cpu: the job names it: 1 cpu, 2GiB"),
        (r#"{"task":"train-small-2"}"#, "cpu: task `train-small*`: 1 cpu, 2GiB"),
        (r#"{"task":"train-small-1"}"#, "gpu: task `train-small-1`: 4 cpus, 16GiB, 1 GPU"),
        (r#"{"task":"a quantum b"}"#, "qpu: task `*quantum*`: 1 cpu"),
        (r#"{"task":"other","runtime":"qpu"}"#, "qpu: the job names it: 1 cpu"),
        (r#"{"task":"qpu"}"#, "cpu: it is the default: 1 cpu, 2GiB"),
        (r#"{"task":"x","resources":{"cpus":16,"memory":"64GiB"}}"#, "cpu: it is the default: 16 cpus, 64GiB"),
        (r#"{"task":"train","resources":{"gpus":2}}"#, "gpu: task `train*`: 4 cpus, 16GiB, 2 GPUs"),
        (r#"{"task":"train","resources":{"gpus":0,"nodes":1}}"#, "gpu: task `train*`: 4 cpus, 16GiB"),
    ] {
        assert_eq!(of(&site, text), told, "{text}");
    }
}

#[test]
fn a_refusal_names_the_pools_or_the_numbers() {
    let site = site(&format!("{POOLS}{TASKS}\n[quota]\ncpus = 12"));
    for (text, elsewhere, told) in [
        (r#"{"task":"other","pool":"tpu"}"#, true, "this site has no pool tpu; its pools are cpu, gpu, qpu"),
        (
            r#"{"task":"simulate","pool":"gpu"}"#,
            false,
            "the task `simulate` may not run in the pool gpu; it may in cpu",
        ),
        (r#"{"task":"train","pool":"qpu"}"#, false, "the task `train` may not run in the pool qpu; it may in cpu, gpu"),
        (
            r#"{"task":"x","resources":{"cpus":17}}"#,
            false,
            "the job can never run in the pool cpu: it asks for 17 cpus, and the pool has 16",
        ),
        (
            r#"{"task":"x","resources":{"cpus":13}}"#,
            false,
            "the job can never run in the pool cpu: it asks for 13 cpus, and the quota of this site is 12",
        ),
        (
            r#"{"task":"x","resources":{"memory":"65GiB"}}"#,
            false,
            "the job can never run in the pool cpu: it asks for 65GiB of memory, and the pool has 64GiB",
        ),
        (
            r#"{"task":"x","resources":{"gpus":1}}"#,
            false,
            "the job can never run in the pool cpu: it asks for 1 GPU, and the pool has none",
        ),
        (
            r#"{"task":"train","resources":{"gpus":3}}"#,
            false,
            "the job can never run in the pool gpu: it asks for 3 GPUs, and the pool has 2",
        ),
        (
            r#"{"task":"x","resources":{"nodes":2}}"#,
            false,
            "the job can never run in the pool cpu: it asks for 2 nodes, and the pool has 1",
        ),
    ] {
        let refusal = site.route(&job(text)).expect_err(text);
        assert_eq!((refusal.to_string().as_str(), refusal.may_run_elsewhere()), (told, elsewhere), "{text}");
    }
}

#[test]
fn with_any_section_a_task_without_one_is_refused() {
    let some = site(WHOLE);
    assert_eq!(
        of(&some, r#"{"task":"other"}"#),
        "this site does not run the task `other`; its tasks are grover*, simulate, and its pools big, cpu, gpu, qpu"
    );
    // Another site may have the pool, and it knows what may run there.
    let refusal = some.route(&job(r#"{"task":"other","pool":"tpu"}"#)).unwrap_err();
    assert!(refusal.may_run_elsewhere(), "{refusal}");
    let refusal = some.route(&job(r#"{"task":"other","pool":"cpu"}"#)).unwrap_err();
    assert!(matches!(refusal, Refusal::TaskNotAllowed { .. }), "{refusal}");

    let none = site(&POOLS.replace("default = true\n", ""));
    assert_eq!(
        of(&none, r#"{"task":"x"}"#),
        "the job names no pool, and this site has no default; its pools are cpu, gpu, qpu"
    );
    assert_eq!(of(&none, r#"{"task":"x","pool":"qpu"}"#), "qpu: the job names it: 1 cpu");
}

#[test]
fn the_only_pool_takes_what_nothing_sends_elsewhere() {
    let site = site("[pool.a]\nimage = \"/x.sif\"\n[task.t]");
    assert_eq!(site.route(&job(r#"{"task":"t"}"#)).unwrap().rule, Rule::OnlyPool);
}

#[test]
fn an_allocation_has_room_for_its_slots_and_one_for_one_job_for_what_it_asks() {
    let site = site(&format!("{WHOLE}\n[task.train]\nimage = \"/t.sif\"\npools = [\"gpu\", \"big\"]"));
    for (text, told) in [
        (r#"{"task":"train","resources":{"cpus":16,"gpus":4}}"#, "gpu: task `train`: 16 cpus, 16GiB, 4 GPUs"),
        (
            r#"{"task":"train","resources":{"cpus":17}}"#,
            "the job can never run in the pool gpu: it asks for 17 cpus, and the pool has 16",
        ),
        (
            r#"{"task":"train","resources":{"nodes":2}}"#,
            "the job can never run in the pool gpu: it asks for 2 nodes, and the pool has 1",
        ),
        (
            r#"{"task":"train","pool":"big","resources":{"nodes":4,"cpus":64}}"#,
            "big: the job names it: 64 cpus, on each of 4 nodes",
        ),
        (
            r#"{"task":"train","pool":"big","resources":{"nodes":5,"cpus":64}}"#,
            "the job can never run in the pool big: it asks for 320 cpus, and the quota of this site is 256",
        ),
    ] {
        assert_eq!(of(&site, text), told, "{text}");
    }
}

proptest! {
    /// Whatever a job is, it goes to a pool that it may go to, by a section that it matches, and fits there; or it is
    /// told why not. A name always beats a glob.
    #[test]
    fn a_route_is_allowed_and_fits(
        task in "(simulate|train|train-small|train-small-1|a quantum|other){1,2}",
        pool in prop::option::of(prop_oneof![Just("cpu"), Just("gpu"), Just("qpu"), Just("tpu")]),
        cpus in prop::option::of(1_u32..20),
        gpus in prop::option::of(0_u32..4),
    ) {
        let site = site(&format!("{POOLS}{TASKS}"));
        let mut given = serde_json::json!({"task": task, "resources": {"cpus": cpus, "gpus": gpus}});
        if let Some(pool) = pool {
            given["pool"] = pool.into();
        }
        match site.route(&job(&given.to_string())) {
            Ok(route) => {
                let pattern = route.task.unwrap();
                prop_assert!(pattern.matches(&task) && site.pools[&route.pool].never_fits(&route.resources).is_none());
                let section = &site.tasks[&pattern];
                prop_assert!(section.pools.is_empty() || section.pools.contains(&route.pool));
                prop_assert!(pool.is_none_or(|pool| pool == route.pool.as_str()));
                prop_assert_eq!(pattern.is_glob(), !site.tasks.contains_key(&task.parse::<site::Pattern>().unwrap()));
            }
            Err(refusal) => {
                prop_assert_eq!(refusal.may_run_elsewhere(), pool == Some("tpu"));
                prop_assert!(refusal.to_string().contains("pool"));
            }
        }
    }
}
