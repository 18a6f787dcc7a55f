//! Several pools of one daemon, and of several: each has its own room, and what one cannot take stops no other.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::{Consumer, Edge, PATIENCE, Process, Queue, signal, wait_for, wait_until};

use crate::{Site, text};

/// Jobs of `slow` go on until the gate is open; those of `quick` do not.
const TWO: &str = r#"
[pool.slow]
runtime = "bare"
default = true
capacity = { cpus = 2 }
hold = 3
command = ["sh", "-c", "while [ ! -e {home}/gate ]; do sleep 0.05; done; echo '{}' > output.json"]

[pool.quick]
runtime = "bare"
capacity = { cpus = 1 }
command = ["sh", "-c", "echo \"{\\\"cpus\\\":$HPC_QUEUE_CPUS}\" > output.json"]
"#;

impl Site {
    /// What goes back comes again soon.
    fn retrying(self) -> Self {
        Self { consumer: self.consumer.set("RETRY_DELAY_SECONDS", "1"), ..self }
    }

    fn open_gate(&self) {
        fs::write(self.path("gate"), "").expect("a file can be written");
    }

    /// The daemon's own word for each of its pools.
    fn pools(&self) -> Vec<Value> {
        let asked = self.consumer.ask(&["pools", "--output", "json"]);
        let told: Value = serde_json::from_str(&asked.output).unwrap_or_default();
        told["pools"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until the daemon tells this of a pool.
    fn wait_for_pool(&self, pool: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, PATIENCE, || self.pools().into_iter().find(|known| known["pool"] == pool && is_so(known)))
    }
}

fn job(pool: &str) -> Value {
    json!({ "task": "t", "pool": pool })
}

/// SIGHUP, and the next daemon has begun.
fn reload(daemon: &mut Process) {
    let before = daemon.log().matches(" on ").count();
    signal(daemon.pid(), Signal::HUP);
    wait_until("the daemon begins anew", PATIENCE, || daemon.log().matches(" on ").count() > before);
}

#[test]
fn a_full_pool_holds_what_it_may_and_another_pool_goes_on() {
    let site = Site::new(TWO);
    let mut daemon = site.consumer.start();
    let slow: Vec<String> = (0..8).map(|_| site.submit(&job("slow"))).collect();
    // Two run, three wait here, and three are in the queue.
    site.wait_for_pool("slow", "the pool is full", |pool| pool["running"] == 2 && pool["held"] == 3);
    let record = site.record(&site.submit(&job("quick")), &mut daemon);
    assert_eq!((text(&record["status"]), text(&record["pool"])), ("completed", "quick"), "{record}");
    assert_eq!(record["output"], json!({ "cpus": 1 }), "{record}");
    daemon.wait_for_log("3 jobs wait in the pool slow; more stay in the queue", PATIENCE);
    let pools = site.pools();
    assert_eq!((&pools[1]["held"], &pools[1]["hold"], &pools[1]["running"]), (&json!(3), &json!(3), &json!(2)));
    assert_eq!(pools[1]["in_use"]["cpus"], 2, "{pools:?}");
    site.open_gate();
    for id in &slow {
        assert_eq!(text(&site.record(id, &mut daemon)["status"]), "completed");
    }
}

#[test]
fn a_pool_without_its_image_stops_alone_and_says_so() {
    let site = Site::new(&format!(
        "{TWO}\n[pool.image]\nimage = \"{{home}}/look.sif\"\ncommand = [\"look\"]\ncapacity = {{ cpus = 1 }}\n"
    ))
    .retrying();
    let mut daemon = site.consumer.start();
    let waits = site.submit(&job("image"));
    let record = site.record(&site.submit(&job("quick")), &mut daemon);
    assert_eq!(text(&record["status"]), "completed", "{record}");
    let broken = site.wait_for_pool("image", "it is not ready", |pool| pool["problem"].is_string());
    assert!(text(&broken["problem"]).contains("look.sif is not there"), "{broken}");
    daemon.wait_for_log("this node cannot run jobs of the pool image", PATIENCE);
    assert!(site.consumer.record(&waits).is_none());
    site.image();
    daemon.wait_for_log("this node can run jobs of the pool image again", PATIENCE);
    daemon.wait_for_log(&format!("job starts job_id={waits}"), PATIENCE);
}

#[test]
fn what_can_never_run_fails_at_once_with_the_numbers() {
    let site = Site::new(TWO);
    let mut daemon = site.consumer.start();
    for (asked, told) in [
        (json!({ "cpus": 3 }), "it asks for 3 cpus, and the pool has 2"),
        (json!({ "gpus": 1 }), "it asks for 1 GPU, and the pool has none"),
        (json!({ "nodes": 2 }), "it asks for 2 nodes, and the pool has 1"),
    ] {
        let record = site.record(&site.submit(&json!({ "task": "t", "resources": asked })), &mut daemon);
        assert_eq!((text(&record["status"]), text(&record["reason"])), ("failed", "rejected"), "{record}");
        assert!(text(&record["message"]).contains(told), "{record}");
    }
    wait_until("the queue has nothing left", PATIENCE, || site.edge.backlog(Queue::Jobs) == 0);
}

#[test]
fn no_more_processors_are_taken_than_there_are() {
    let site = Site::new(TWO);
    let mut daemon = site.consumer.start();
    let small = site.submit(&job("slow"));
    site.wait_for_pool("slow", "the small one runs", |pool| pool["running"] == 1);
    let large = site.submit(&json!({ "task": "t", "resources": { "cpus": 2 } }));
    let behind = site.submit(&job("slow"));
    // It does not overtake the large one, although there is room for it.
    let pool = site.wait_for_pool("slow", "both wait", |pool| pool["held"] == 2);
    assert_eq!((&pool["running"], &pool["in_use"]["cpus"]), (&json!(1), &json!(1)), "{pool}");
    site.open_gate();
    let ended = [small, large, behind].map(|id| site.record(&id, &mut daemon));
    for pair in ended.windows(2) {
        assert!(text(&pair[1]["started_at"]) >= text(&pair[0]["finished_at"]), "{pair:?}");
    }
}

/// The other daemon has a file of its own, and the same results.
fn beside(site: &Site, edge: &Edge, name: &str, file: &str) -> Consumer {
    site.write(name, file);
    Consumer::bare(edge, "false").sharing(&site.consumer).set("SITE_FILE", site.path(name))
}

#[test]
fn a_job_for_a_pool_of_another_site_is_left_to_it() {
    let site = Site::new(TWO).retrying();
    let mut here = site.consumer.start();
    let id = site.submit(&job("other"));
    here.wait_for_log("this site has no pool other; its pools are quick, slow", PATIENCE);
    assert!(site.consumer.record(&id).is_none());
    let file = "[pool.other]\nruntime = \"bare\"\ncapacity = { cpus = 1 }\ncommand = [\"true\"]\n";
    let there = beside(&site, &site.edge, "other.toml", file);
    let _there = there.start();
    let record = site.record(&id, &mut here);
    assert_eq!((text(&record["status"]), text(&record["pool"])), ("completed", "other"), "{record}");
}

#[test]
fn sighup_takes_a_changed_file_and_refuses_a_wrong_one() {
    let site = Site::new(TWO).retrying();
    let mut daemon = site.consumer.start();
    let (runs, _) = (site.submit(&job("slow")), site.submit(&job("slow")));
    let file = fs::read_to_string(site.path("site.toml")).expect("it is there");
    site.wait_for_pool("slow", "both run", |pool| pool["running"] == 2);
    let waits = site.submit(&job("slow"));
    site.wait_for_pool("slow", "one waits", |pool| pool["held"] == 1);

    // A wrong one, one that others can write to, and none at all.
    site.write("site.toml", &file.replace("hold", "hodl"));
    signal(daemon.pid(), Signal::HUP);
    daemon.wait_for_log("`pool.slow.hodl` is no key", PATIENCE);
    daemon.wait_for_log("the daemon keeps the old ones", PATIENCE);
    let kept = |times| move |daemon: &Process| daemon.log().matches("the daemon keeps the old ones").count() == times;
    site.write("site.toml", &file);
    fs::set_permissions(site.path("site.toml"), fs::Permissions::from_mode(0o622)).expect("it is ours");
    signal(daemon.pid(), Signal::HUP);
    wait_until("it is told", PATIENCE, || kept(2)(&daemon));
    daemon.wait_for_log("can be written to by others", PATIENCE);
    fs::remove_file(site.path("site.toml")).expect("it is ours");
    signal(daemon.pid(), Signal::HUP);
    wait_until("it is told", PATIENCE, || kept(3)(&daemon));
    assert_eq!(site.pools().len(), 2);

    // Without the pool in which two jobs run and one waits.
    let without = file.replace("[pool.slow]", "[pool.new]");
    site.write("site.toml", &without);
    reload(&mut daemon);
    site.wait_for_pool("new", "it is ready", |pool| pool["ready"] == true);
    assert!(site.consumer.record(&runs).is_none() && site.consumer.record(&waits).is_none());
    site.open_gate();
    let record = site.record(&runs, &mut daemon);
    assert_eq!((text(&record["status"]), text(&record["pool"])), ("completed", "slow"), "it went on: {record}");
    daemon.wait_for_log("this site has no pool slow", PATIENCE);
    assert!(site.consumer.record(&waits).is_none(), "it went back");

    // And with it again.
    site.write("site.toml", &file);
    reload(&mut daemon);
    assert_eq!(text(&site.record(&waits, &mut daemon)["status"]), "completed");
}

#[test]
fn a_daemon_that_is_killed_finds_what_its_runs_have() {
    let site = Site::new(TWO);
    let mut daemon = site.consumer.start();
    let ids: Vec<String> = (0..4).map(|_| site.submit(&job("slow"))).collect();
    site.wait_for_pool("slow", "two run", |pool| pool["running"] == 2 && pool["held"] == 2);
    daemon.kill();
    let mut next = site.consumer.start();
    next.wait_for_log("runs of an earlier daemon go on", PATIENCE);
    let pool = site.wait_for_pool("slow", "they are counted", |pool| pool["running"] == 2 && pool["ready"] == true);
    assert_eq!((&pool["in_use"]["cpus"], &pool["held"]), (&json!(2), &json!(2)), "{pool}");
    assert_eq!(text(&site.record(&site.submit(&job("quick")), &mut next)["status"]), "completed");
    site.open_gate();
    for id in &ids {
        assert_eq!(site.record(id, &mut next)["attempt"], 1);
    }
}
