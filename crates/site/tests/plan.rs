//! What a job runs, and by which rules; with a file and without one.

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::{defaults, file, job, site};
use proptest::prelude::*;
use site::{Image, Plan, Runtime, Settings, Site};

const SITE: &str = r#"
[pool.cpu]
image = "/images/science.sif"
default = true
command = ["run-it", "--fast"]
binds = ["/data:/data:ro"]
arguments = ["--nv"]
environment = { A = "pool", B = "two words", API_TOKEN = "geheim" }
slot = { cpus = 2, memory = "2GiB" }
capacity = { cpus = 8, memory = "16GiB" }
secrets = { ibm = { file = "secrets/ibm", variable = "IBM" }, other = "/elsewhere/other" }

[pool.bare]
runtime = "bare"
expose_secrets = true
capacity = { cpus = 1 }

[pool.slurm]
where = "slurm"
image = "/images/science.sif"
slurm = { time = "2h" }
workers = { max = 1 }

[task.simulate]
pools = ["cpu", "slurm"]
image = "/images/other.sif"
command = ["python3", "it's.py"]
binds = ["/data:/data:ro", "/scratch"]
environment = { A = "task" }
time_limit = "1h"
grace = "1m"
output_max = "1MB"
output_files_max = "2GB"
log_max = "64KiB"
retries = 2
network = false

[task.command]
kind = "command"

[task.python]
kind = "python"
command = ["python-runner"]

[task."*"]
"#;

fn plan(site: &Site, text: &str) -> Plan {
    site.plan(&job(text)).expect("some pool takes it")
}

#[test]
fn a_plan_has_what_job_task_and_pool_say_and_the_explanation_says_who() {
    let site = site(SITE);
    let text = r#"{"task":"simulate","time_limit_seconds":600,"resources":{"cpus":4}}"#;
    let plan = plan(&site, text);
    assert_eq!(plan.image, Some(Image::File { path: "/images/other.sif".into(), pull: None }));
    assert_eq!(plan.command, ["python3", "it's.py"]);
    assert_eq!(plan.binds, ["/data:/data:ro", "/scratch"]);
    assert_eq!((plan.environment["A"].as_str(), plan.environment["B"].as_str()), ("task", "two words"));
    assert_eq!((plan.limits.time, plan.limits.grace), (Duration::from_mins(10), Duration::from_mins(1)));
    assert_eq!((plan.limits.log_bytes, plan.limits.output_bytes), (65_536, Some(1_000_000)));
    assert_eq!(plan.limits.output_files_bytes, Some(2_000_000_000));
    assert_eq!((plan.retries, plan.network), (2, false));
    assert_eq!(plan.secrets["ibm"].variable.as_deref(), Some("IBM"));
    let explained = site.explain(&job(text)).unwrap().to_string();
    assert_eq!(
        explained,
        "\
pool         cpu  (task `simulate`)
runtime      apptainer  (pool cpu)
image        /images/other.sif  (task `simulate`)
command      python3 'it'\\''s.py'  (task `simulate`)
arguments    --nv  (pool cpu)
binds        /data:/data:ro /scratch  (pool cpu and task `simulate`)
environment  A=task API_TOKEN=… 'B=two words'  (pool cpu and task `simulate`)
resources    4 cpus, 2GiB  (the job, else the slot of the pool cpu)
time limit   10m  (the job)
grace        1m  (task `simulate`)
output       up to 1MB  (task `simulate`)
files        up to 2GB of what it leaves  (task `simulate`)
logs         up to 64KiB each  (task `simulate`)
retries      2  (task `simulate`)
network      no  (task `simulate`)
secrets      ibm other  (pool cpu)"
    );
    let refusal = site.explain(&job(r#"{"task":"x","pool":"y"}"#)).unwrap_err();
    assert_eq!(refusal.to_string(), "this site has no pool y; its pools are bare, cpu, slurm");
}

#[test]
fn what_nobody_says_has_a_default() {
    let site = site(SITE);
    let other = plan(&site, r#"{"task":"other","retries":7,"time_limit_seconds":999999999}"#);
    assert_eq!((other.command.join(" ").as_str(), other.retries, other.network), ("run-it --fast", 7, true));
    assert_eq!((other.limits.time, other.limits.log_bytes), (defaults().time_limit, defaults().log_max));
    assert_eq!((other.limits.output_bytes, other.limits.grace), (None, defaults().grace));
    // What a job brings is run by a program that knows how, not by that of the pool.
    assert_eq!(plan(&site, r#"{"task":"command"}"#).command, ["task-runner", "command"]);
    assert_eq!(plan(&site, r#"{"task":"python"}"#).command, ["python-runner"]);
    let bare = plan(&site, r#"{"task":"other","pool":"bare"}"#);
    assert_eq!((bare.runtime, bare.image, bare.binds.len(), bare.secrets.len()), (Runtime::Bare, None, 0, 0));
    // An allocation ends for all that is in it.
    let slurm = plan(&site, r#"{"task":"other","pool":"slurm"}"#);
    assert_eq!(slurm.limits.time, Duration::from_hours(2));
    let limit = |text: &str| {
        site.explain(&job(text)).unwrap().parts.into_iter().find(|part| part.what == "time limit").unwrap()
    };
    let because = limit(r#"{"task":"other","pool":"slurm"}"#);
    assert_eq!((because.value.as_str(), because.rule.as_str()), ("2h", "pool slurm, an allocation"));
    assert_eq!(limit(r#"{"task":"simulate","time_limit_seconds":7200}"#).rule, "task `simulate`");
    assert_eq!(limit(r#"{"task":"other"}"#).rule, "the daemon's settings");
}

/// It is recorded with the attempt: fields may be added, nothing else.
#[test]
fn plan_format_unchanged() {
    let site = site(SITE);
    for (text, json) in [
        (
            r#"{"task":"simulate"}"#,
            r#"{"pool":"cpu","task":"simulate","kind":"program","runtime":"apptainer","image":{"file":{"path":"/images/other.sif"}},"command":["python3","it's.py"],"arguments":["--nv"],"binds":["/data:/data:ro","/scratch"],"environment":{"A":"task","API_TOKEN":"geheim","B":"two words"},"limits":{"time_ms":3600000,"grace_ms":60000,"log_bytes":65536,"output_bytes":1000000,"output_files_bytes":2000000000},"retries":2,"network":false,"resources":{"cpus":2,"memory":2147483648,"gpus":0,"nodes":1},"secrets":{"ibm":{"file":"/site/secrets/ibm","variable":"IBM"},"other":{"file":"/elsewhere/other"}}}"#,
        ),
        (
            r#"{"task":"command","pool":"bare"}"#,
            r#"{"pool":"bare","task":"command","kind":"command","runtime":"bare","command":["task-runner","command"],"limits":{"time_ms":604800000,"grace_ms":10000,"log_bytes":16777216},"retries":0,"network":true,"resources":{"cpus":1,"gpus":0,"nodes":1}}"#,
        ),
    ] {
        let plan = plan(&site, text);
        assert_eq!(serde_json::to_string(&plan).unwrap(), json);
        assert_eq!(serde_json::from_str::<Plan>(json).unwrap(), plan);
    }
}

#[test]
fn jobs_are_kept_to_processors_where_their_pool_says_so() {
    let kept = site("[pool.a]\nimage = \"/x.sif\"\naffinity = true\n");
    let told = kept.explain(&job(r#"{"task":"t"}"#)).unwrap().to_string();
    assert!(told.contains("affinity    kept to processors of its own  (pool a)"), "{told}");
    let plan = plan(&kept, r#"{"task":"t"}"#);
    let text = serde_json::to_string(&plan).unwrap();
    assert!(plan.affinity && text.contains(r#""affinity":true"#), "{text}");
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    let free = site(SITE).explain(&job(r#"{"task":"simulate"}"#)).unwrap().to_string();
    assert!(!free.contains("affinity"), "{free}");
}

fn settings(runtime: Runtime, image: Option<Image>) -> Settings {
    let command = vec!["python3".to_owned(), "/opt/task.py".to_owned()];
    let binds = vec!["/data:/data:ro".to_owned()];
    Settings { runtime, image, command, binds, arguments: vec!["--nv".to_owned()], slots: 3, defaults: defaults() }
}

#[test]
fn without_a_file_one_pool_takes_every_task_as_the_settings_say() {
    let image = Image::File { path: "/r.sif".into(), pull: Some("ghcr.io/a/b:latest".to_owned()) };
    let site = Site::from_settings(&settings(Runtime::Apptainer, Some(image.clone())));
    let plan = plan(&site, r#"{"task":"whatever","retries":1}"#);
    assert_eq!((plan.pool.as_str(), plan.image, plan.retries, plan.network), ("default", Some(image), 1, true));
    assert_eq!(
        (plan.command.join(" ").as_str(), plan.binds, plan.arguments),
        ("python3 /opt/task.py", vec!["/data:/data:ro".to_owned()], vec!["--nv".to_owned()])
    );
    assert_eq!((plan.limits.time, plan.limits.grace), (defaults().time_limit, defaults().grace));
    assert_eq!((plan.resources.cpus, plan.resources.memory), (1, None));
}

/// Examples are right, too: without their `#`, the file is one that can be read.
#[test]
fn the_examples_of_a_first_file_can_be_read() {
    let image = Image::File { path: "/r.sif".into(), pull: None };
    let text = settings(Runtime::Apptainer, Some(image)).to_file();
    let is_example = |line: &str| line.starts_with('[') || line.contains(" = ");
    let uncommented = text.lines().map(|line| line.strip_prefix("# ").filter(|line| is_example(line)).unwrap_or(line));
    // The pool shares the node with the one of the examples, and says so already.
    let file = file(&uncommented.collect::<Vec<_>>().join("\n"));
    assert_eq!((file.site.pools.len(), file.site.tasks.len(), file.site.quota.cpus), (2, 2, Some(16)));
    assert!(file.notices.is_empty(), "{:?}", file.notices);
}

/// Nobody has to say what the network of a container is: the daemon's settings do, unless the task does.
#[test]
fn the_network_is_the_settings_to_say_unless_a_task_does() {
    let file = "[pool.a]\nimage = \"/a.sif\"\ndefault = true\ncapacity = { cpus = 1 }\n[pool.b]\nruntime = \"bare\"\ncapacity = { cpus = 1 }\n[task.on]\nnetwork = true\n[task.\"*\"]";
    let mut site = site(file);
    site.defaults.network = false;
    let network = |text: &str| plan(&site, text).network;
    assert_eq!((network(r#"{"task":"on"}"#), network(r#"{"task":"x"}"#)), (true, false));
    assert!(network(r#"{"task":"x","pool":"b"}"#), "nothing keeps it from there");
}

#[test]
fn the_plans_of_a_pool_are_those_that_its_jobs_can_have() {
    let site = site(SITE);
    let plans = |pool: &str| {
        let plans = site.plans(&pool.parse().unwrap());
        plans.iter().map(|plan| plan.task.as_ref().map_or_else(String::new, ToString::to_string)).collect::<Vec<_>>()
    };
    assert_eq!(plans("bare"), ["*", "command", "python"]);
    assert_eq!(plans("slurm"), ["*", "command", "python", "simulate"]);
    assert_eq!(plans("gone"), Vec::<String>::new());
    let of_simulate = site.plans(&"cpu".parse().unwrap()).pop().unwrap();
    assert_eq!(of_simulate, plan(&site, r#"{"task":"simulate"}"#));
    let settings = Site::from_settings(&settings(Runtime::Bare, None));
    assert_eq!(settings.plans(&protocol::PoolName::default()).len(), 1);
}

/// Without a file all is as the settings say, whatever a job asks for.
#[test]
fn the_pool_of_the_settings_takes_every_job_alike() {
    let site = Site::from_settings(&settings(Runtime::Bare, None));
    let route = site.route(&job(r#"{"task":"a","pool":"gpu","resources":{"cpus":1000,"gpus":8}}"#)).unwrap();
    assert_eq!((route.pool.as_str(), route.resources.to_string().as_str()), ("default", "1 cpu"));
}

proptest! {
    /// What `site init` writes means the same as the settings that it was made from.
    #[test]
    fn a_first_file_says_what_the_settings_say(
        bare in any::<bool>(),
        path in "/[^\0]{0,20}",
        pull in prop::option::of("[a-z]{1,9}/[a-z:.]{1,9}"),
        command in prop::collection::vec("[^\0]{1,12}", 1..4),
        arguments in prop::collection::vec("[^\0]{0,12}", 0..3),
        binds in prop::collection::vec("/[a-z \"'#]{0,9}(:/[a-z]{1,9}x(:ro)?)?", 0..3),
        slots in 1_u32..100_000,
    ) {
        // What no file of TOML can have on one line, or would mean something else.
        prop_assume!(!path.chars().any(char::is_control) && !path.contains("/.") && !path.contains("//") && !path.contains('@'));
        prop_assume!(!path.ends_with('/') && !binds.iter().any(|bind| bind == "/" || bind.starts_with("/work")));
        let image = Image::File { path: PathBuf::from(&path), pull };
        let runtime = if bare { Runtime::Bare } else { Runtime::Apptainer };
        let settings = Settings { runtime, image: Some(image), command, binds, arguments, slots, defaults: defaults() };
        let text = settings.to_file();
        let wanted = Site { is_of_file: true, ..Site::from_settings(&settings) };
        prop_assert_eq!(file(&text).site, wanted, "{}", text);
    }
}
