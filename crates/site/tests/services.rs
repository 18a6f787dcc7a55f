//! The services of a site: what its file says of them, what is wrong with that, and what their instances run.

mod common;

use std::time::Duration;

use common::{file, job, parse, site};
use site::{Needed, Ready, Refusal, Rule};

const SITE: &str = r#"
[pool.cpu]
image = "/c.sif"
default = true
command = ["run-it"]
environment = { A = "pool" }
slot = { cpus = 2, memory = "2GiB" }
capacity = { cpus = 16, memory = "64GiB" }
secrets = { key = "key" }

[pool.slurm]
image = "/c.sif"
where = "slurm"
slurm = { time = "2h" }
workers = { max = 1 }

[task.simulate]
pool = "cpu"

[task.alone]
network = false

[task.graph]
kind = "workflow"

[service.vqpu]
pool = "cpu"
command = ["vqpu-server", "--port", "0"]
ready = { http = "/health?deep=1", within = "1m" }
instances = { min = 1, max = 4, users = 8 }
life = { idle = "90s", max = "12h" }

[service.db]
pool = "slurm"
command = ["db"]
ready = { tcp = true }

[service.flag]
pool = "slurm"
command = ["flag"]
ready = { file = "state/ready" }
life = { max = "1h" }
"#;

#[test]
fn a_service_is_what_its_section_says() {
    let file = file(SITE);
    assert_eq!(file.notices.len(), 0, "a pool may be there for services alone");
    let of = |name: &str| &file.site.services[&name.parse().unwrap()];
    let vqpu = of("vqpu");
    assert_eq!((vqpu.pool.as_str(), vqpu.command.join(" ").as_str()), ("cpu", "vqpu-server --port 0"));
    assert_eq!((&vqpu.ready, vqpu.within), (&Ready::Http("/health?deep=1".to_owned()), Duration::from_mins(1)));
    assert_eq!((vqpu.min, vqpu.max, vqpu.users), (1, 4, 8));
    assert_eq!((vqpu.idle, vqpu.longest), (Duration::from_secs(90), Duration::from_hours(12)));
    let db = of("db");
    assert_eq!((&db.ready, db.within, db.min, db.max, db.users), (&Ready::Tcp, Duration::from_mins(5), 0, 1, 1));
    assert_eq!((db.idle, db.longest), (Duration::from_mins(10), Duration::from_hours(12)));
    assert_eq!(of("flag").ready, Ready::File("state/ready".parse().unwrap()));
}

#[test]
fn an_instance_runs_in_its_pool_and_for_no_longer_than_an_allocation() {
    let site = site(SITE);
    let plan = |name: &str| site.plan_of_service(&name.parse().unwrap()).unwrap();
    let vqpu = plan("vqpu");
    assert_eq!((vqpu.pool.as_str(), vqpu.command.join(" ").as_str()), ("cpu", "vqpu-server --port 0"));
    assert_eq!((vqpu.limits.time, vqpu.retries, vqpu.network), (Duration::from_hours(12), 0, true));
    assert_eq!((vqpu.task, vqpu.environment.len(), vqpu.secrets.len(), vqpu.resources.cpus), (None, 1, 1, 2));
    assert_eq!(plan("db").limits.time, Duration::from_hours(2));
    assert_eq!(plan("flag").limits.time, Duration::from_hours(1));
    let route = site.route_of_service(&"vqpu".parse().unwrap()).unwrap();
    assert_eq!((route.pool.as_str(), route.rule, route.retries), ("cpu", Rule::Service("vqpu".parse().unwrap()), 0));
    let unknown = "other".parse().unwrap();
    assert!(site.plan_of_service(&unknown).is_none() && site.route_of_service(&unknown).is_none());
    let commands = |pool: &str| -> Vec<String> {
        site.plans(&pool.parse().unwrap()).iter().map(|plan| plan.command.join(" ")).collect()
    };
    assert_eq!(commands("cpu"), ["run-it", "run-it", "vqpu-server --port 0"], "all of them are looked for");
    assert_eq!(commands("slurm"), ["task-runner", "db", "flag"]);
}

#[test]
fn a_job_that_needs_what_the_site_has_not_may_run_at_another() {
    let site = site(SITE);
    let has = job(r#"{"task":"simulate","needs":["db",{"service":"vqpu","qubits":{"min":20}}]}"#);
    assert!(site.route(&has).is_ok());
    let explained = site.explain(&has).unwrap().to_string();
    assert!(explained.contains("services     db; vqpu with qubits ≥ 20  (the job)"), "{explained}");
    let refusal = site.route(&job(r#"{"task":"simulate","needs":["db","qpu"]}"#)).unwrap_err();
    assert!(matches!(refusal, Refusal::NoSuchService { .. }) && refusal.may_run_elsewhere());
    assert_eq!(refusal.to_string(), "this site has no service qpu; its services are db, flag, vqpu");
    let refused = |text: &str| site.route(&job(text)).unwrap_err().to_string();
    let told = refused(r#"{"task":"alone","needs":["db"]}"#);
    assert!(told.contains("the task `alone` has no network") && told.contains("network = true"), "{told}");
    let told = refused(r#"{"task":"graph","needs":["db"]}"#);
    assert!(told.contains("the task `graph` is a workflow, of which nothing runs itself"), "{told}");
    assert!(site.route(&job(r#"{"task":"alone"}"#)).is_ok());
    let settings = common::site("[pool.a]\nruntime = \"bare\"");
    let refusal = settings.route(&job(r#"{"task":"t","needs":["qpu"]}"#)).unwrap_err();
    assert_eq!(refusal.to_string(), "this site has no service qpu; its services are none");
}

#[test]
fn programs_of_services_without_a_container_are_looked_for() {
    let text = "[pool.a]\nruntime = \"bare\"\ncommand = [\"/bin/true\"]\n[service.s]\npool = \"a\"\ncommand = [\"/opt/serve\", \"x\"]\nready = { tcp = true }";
    let needs = file(text).needs;
    let of_service = needs.iter().find(|need| need.key == "service.s.command").unwrap();
    assert_eq!((of_service.what.clone(), of_service.path.to_str()), (Needed::Program, Some("/opt/serve")));
    assert_eq!(of_service.position.to_string(), "6:11");
}

/// What is wrong in a section, after one pool `a` with an image, in line 3 and after: all that is told.
const WRONG: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "3:10: `service.s.command` is missing",
            "3:10: `service.s.pool` is missing",
            "3:10: `service.s.ready` is missing: when an instance can be used",
        ],
    ),
    (
        "pool = \"b\"\ncommand = []\nready = { }",
        &[
            "4:8: `service.s.pool` names the pool b, which this file does not have; did you mean a?",
            "5:11: `service.s.command` names no program",
            "6:1: `service.s.ready` must have one of `http`, `tcp` and `file`",
        ],
    ),
    (
        "pool = \"a\"\ncommand = [\"x\"]\nready = { tcp = false, http = \"health\", file = \"../x\", with = 1 }",
        &[
            "6:1: `service.s.ready` must have one of",
            "6:17: `service.s.ready.tcp` must be true",
            "6:31: `service.s.ready.http` must be the path of an address",
            "6:48: `service.s.ready.file` must be a path below the job's directory",
            "6:56: `service.s.ready.with` is no key; did you mean `within`?",
        ],
    ),
    (
        "pool = \"a\"\ncommand = [\"x\"]\nready = { tcp = true, within = 5 }\ninstances = { min = 3, max = 2, users = 0 }\nlife = { idle = \"x\", max = \"0s\" }\nuser = 1",
        &[
            "6:32: `service.s.ready.within` must be a length of time",
            "7:21: `service.s.instances.min` is 3, more than `max`, which is 2",
            "7:41: `service.s.instances.users` must be a whole number from 1 to 10000",
            "8:17: `service.s.life.idle` must be a length of time",
            "8:28: `service.s.life.max` must be a length of time",
            "9:1: `service.s.user` is no key",
        ],
    ),
    (
        "pool = \"a\"\ncommand = [\"x\"]\nready = { http = \"/a b\" }\ninstances = { min = 2 }",
        &[
            "6:18: `service.s.ready.http` must be the path",
            "7:21: `service.s.instances.min` is 2, more than `max`, which is 1",
        ],
    ),
];

#[test]
fn everything_that_is_wrong_is_told_with_its_place() {
    let mut different = String::new();
    for (section, told) in WRONG {
        let text = format!("[pool.a]\nimage = \"/x.sif\"\n[service.s]\n{section}");
        let lines: Vec<String> = parse(&text).expect_err(section).0.iter().map(ToString::to_string).collect();
        if lines.len() != told.len() || !lines.iter().zip(*told).all(|(line, part)| line.starts_with(part)) {
            different += &format!("{text}\n  is:\n{}\n  expected:\n{}\n\n", lines.join("\n"), told.join("\n"));
        }
    }
    assert!(different.is_empty(), "{different}");
    let told = parse(
        "[pool.a]\n[task.t]\nimage = \"/x.sif\"\n[service.s]\npool = \"a\"\ncommand = [\"x\"]\nready = { tcp = true }\n[service.S]",
    );
    let told = told.unwrap_err().to_string();
    assert!(told.contains("1:7: `pool.a.image` is missing: `service.s` runs here"), "{told}");
    assert!(told.contains("`service.S`: the last part of it must be the name of a service: 1 to 32"), "{told}");
}

#[test]
fn a_job_that_never_fits_beside_the_instances_that_it_needs_is_refused_with_the_numbers() {
    let text = r#"
        [quota]
        cpus = 4
        [pool.one]
        runtime = "bare"
        default = true
        capacity = { cpus = 3 }
        [pool.other]
        runtime = "bare"
        capacity = { cpus = 3 }
        [service.a]
        pool = "one"
        command = ["a"]
        ready = { tcp = true }
        instances = { min = 1 }
        [service.b]
        pool = "other"
        command = ["b"]
        ready = { tcp = true }
        instances = { max = 2 }
    "#;
    let site_of = |text: &str| common::file(text).site;
    let site = site_of(text);
    let needs = |needs: &str, cpus: u32| {
        let text = format!(r#"{{"task":"t","needs":{needs},"resources":{{"cpus":{cpus}}}}}"#);
        site.route(&job(&text)).map_err(|refusal| (refusal.may_run_elsewhere(), refusal.to_string()))
    };
    assert!(needs(r#"["a","b"]"#, 2).is_ok());
    let beside =
        "the job can never run in the pool one beside the instances that it needs and those that are always kept";
    let told = format!("{beside} (an instance of a): together they ask for 4 cpus, and the pool one has 3");
    assert_eq!(needs("[]", 3), Err((false, told.clone())), "one instance is always there");
    assert_eq!(needs(r#"["a"]"#, 3), Err((false, told)));
    let site = site_of(&text.replace("cpus = 4", "cpus = 3"));
    let refusal = site.route(&job(r#"{"task":"t","needs":["a","b"],"resources":{"cpus":2}}"#)).unwrap_err();
    let told = "(an instance of a, an instance of b): together they ask for 4 cpus, and the quota of this site is 3";
    assert_eq!(refusal.to_string(), format!("{beside} {told}"));
    // In allocations of Slurm it is their slots that count.
    let slurm = r#"
        [quota]
        allocations = 2
        [pool.one]
        runtime = "bare"
        where = "slurm"
        slurm = { time = "2h" }
        workers = { max = 1, slots = 2 }
        [service.a]
        pool = "one"
        command = ["a"]
        ready = { tcp = true }
        [service.b]
        pool = "one"
        command = ["b"]
        ready = { tcp = true }
    "#;
    let site = site_of(slurm);
    assert!(site.route(&job(r#"{"task":"t","needs":["a"]}"#)).is_ok());
    let refusal = site.route(&job(r#"{"task":"t","needs":["a","b"]}"#)).unwrap_err().to_string();
    assert!(refusal.ends_with("together they ask for 3 slots, and the pool one has 2"), "{refusal}");
    let site = site_of(&slurm.replace("max = 1, slots = 2", "max = 3"));
    let refusal = site.route(&job(r#"{"task":"t","needs":["a","b"]}"#)).unwrap_err().to_string();
    assert!(refusal.ends_with("together they ask for 3 allocations, and the quota of this site is 2"), "{refusal}");
}

#[test]
fn instances_that_are_always_kept_fit_into_their_pool() {
    let text = r#"
        [pool.one]
        runtime = "bare"
        capacity = { cpus = 3 }
        [service.a]
        pool = "one"
        command = ["a"]
        ready = { tcp = true }
        instances = { min = 2, max = 2 }
        [service.b]
        pool = "one"
        command = ["b"]
        ready = { tcp = true }
        instances = { min = 2, max = 2 }
    "#;
    let problems = parse(text).unwrap_err().to_string();
    let told = "the instances that are always kept (`min`) do not fit into the pool one: 4 cpus asked for, and 3 there";
    assert!(problems.contains("`service.b.instances`") && problems.contains(told), "{problems}");
    assert!(parse(&text.replace("cpus = 3", "cpus = 4")).is_ok());
}
