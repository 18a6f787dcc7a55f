//! The lease of quantum machines: who may have it, by which rule, and what of it cannot be.

mod common;

use std::path::Path;

use common::{file, job, parse, site};

const SITE: &str = r#"
[lease]
machines = "qpus.toml"

[pool.cpu]
default = true
image = "/images/science.sif"
capacity = { cpus = 4 }

[pool.hybrid]
image = "/images/science.sif"
capacity = { cpus = 4 }
lease = true

[pool.far]
image = "/images/science.sif"
where = "slurm"
workers = { max = 1 }

[task.vqe]
pool = "cpu"
lease = true

[task.plain]
pools = ["hybrid", "cpu"]
lease = false

[task.either]
pools = ["hybrid", "cpu", "far"]

[task.graph]
pool = "hybrid"
kind = "workflow"
"#;

#[test]
fn a_task_has_the_lease_if_it_says_so_or_else_its_pool_does() {
    let whole = file(SITE);
    assert_eq!(whole.site.lease.as_ref().unwrap().machines, Path::new("/site/qpus.toml"));
    assert_eq!(whole.lease_at.unwrap().to_string(), "3:12");
    for (text, lease, rule) in [
        (r#"{"task":"vqe"}"#, true, Some("task `vqe`")),
        (r#"{"task":"plain"}"#, false, None),
        (r#"{"task":"either"}"#, true, Some("pool hybrid")),
        (r#"{"task":"either","pool":"cpu"}"#, false, None),
        (r#"{"task":"graph"}"#, false, None),
    ] {
        assert_eq!(whole.site.plan(&job(text)).unwrap().lease, lease, "{text}");
        let parts = whole.site.explain(&job(text)).unwrap().parts;
        let said = parts.iter().find(|part| part.what == "lease");
        assert_eq!(said.map(|part| part.rule.as_str()), rule, "{text}");
        assert!(said.is_none_or(|part| part.value.ends_with("at /run/hpc-queue/qpu.sock")), "{said:?}");
    }
}

#[test]
fn what_cannot_have_the_lease_is_told_with_its_place_and_what_to_do() {
    let there = "[lease]\nmachines = \"q.toml\"\n";
    let pool = "[pool.a]\nimage = \"/x.sif\"\n";
    let slurm = "where = \"slurm\"\nworkers = { max = 1 }\n";
    for (text, told) in [
        (format!("{pool}lease = true"), "3:1: `pool.a.lease` names a lease that this file does not have: add [lease]"),
        (format!("{pool}[task.t]\nlease = true"), "4:1: `task.t.lease` names a lease that this file does not have"),
        (format!("[lease]\n{pool}"), "1:2: `lease.machines` is missing: the file that names the quantum machines"),
        (format!("[lease]\nmachine = \"q.toml\"\n{pool}"), "2:1: `lease.machine` is no key; did you mean `machines`?"),
        (format!("[lease]\nmachines = \"~/q.toml\"\n{pool}"), "2:12: `lease.machines` begins with ~"),
        (format!("{there}{pool}lease = 1"), "5:9: `pool.a.lease` must be true or false"),
        (format!("{there}{pool}{slurm}lease = true"), "7:1: `pool.a.lease`: jobs of the pool a run on other nodes"),
        (
            format!("{there}{pool}{slurm}[task.t]\nlease = true"),
            "8:1: `task.t.lease`: jobs of the pool a run on other nodes",
        ),
        (
            format!("{there}[pool.a]\nruntime = \"bare\"\nlease = true"),
            "5:1: `pool.a.lease`: jobs of the pool a run without a container",
        ),
        (
            format!("{there}[pool.a]\nruntime = \"bare\"\n[task.t]\nlease = true"),
            "6:1: `task.t.lease`: jobs of the pool a run without a container",
        ),
        (
            format!("{there}{pool}[pool.b]\nruntime = \"bare\"\ncapacity = {{ cpus = 1 }}\n"),
            "6:1: `pool.b`: jobs without a container can read whatever you can, the credential of the lease too",
        ),
        (
            format!("{there}{pool}[task.t]\nkind = \"workflow\"\nlease = true"),
            "7:1: `task.t.lease`: nothing of a workflow runs itself",
        ),
    ] {
        let problems = parse(&text).unwrap_err().to_string();
        assert!(problems.lines().any(|line| line.starts_with(told)), "{told}: {problems}");
    }
}

/// A pool that only says that its jobs do not have it is as good as one that says nothing.
#[test]
fn nobody_needs_a_lease() {
    let without = site("[pool.a]\nimage = \"/x.sif\"\nlease = false");
    assert_eq!((&without.lease, without.plan(&job(r#"{"task":"t"}"#)).unwrap().lease), (&None, false));
}
