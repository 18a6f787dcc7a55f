//! Jobs of a cluster that are cancelled at the edge, wherever they are by then.

use std::fs;
use std::path::Path;

use serde_json::json;
use testkit::http::{client, send};
use testkit::slurm::{Cluster, VERSIONS};
use testkit::wait_for;

use crate::allocation::PATIENCE;
use crate::pools::{Site, pool};

#[test]
fn jobs_in_a_cluster_are_cancelled_while_they_run_and_while_they_wait() {
    let worker = pool("cpu", "default = true", "max = 1, slots = 1, idle = \"30s\"");
    let pools = worker + &pool("mpi", "", "max = 2, once = true");
    let site = Site::new(Cluster::new(VERSIONS[0]).start(), &pools);
    let mut daemon = site.consumer.start();
    let in_both = |script: &str| [json!({}), json!({"pool": "mpi"})].map(|pool| site.submit_to(script, &pool));
    let running = in_both("echo $$ > pid; until test -e never; do sleep 0.1; done");
    let pids = running.each_ref().map(|id| {
        let pid = site.consumer.job_dir(id).join("pid");
        wait_for("it to begin", PATIENCE, || fs::read_to_string(&pid).ok().filter(|pid| pid.ends_with('\n')))
    });
    // One waits in Slurm, for all of both nodes, of which something runs; the others do not come so far.
    let all = json!({"pool": "mpi", "resources": {"nodes": 2, "cpus": 4}});
    let in_slurm = site.submit_to("touch ran", &all);
    let is_pending = || site.allocations().iter().any(|(_, state)| state == "PENDING");
    wait_for("it to wait in Slurm", PATIENCE, || is_pending().then_some(()));
    let mut waiting = vec![in_slurm];
    waiting.extend(in_both("touch ran"));
    let producer = site.edge.producer();
    for id in &waiting[1..] {
        let url = format!("{}/jobs/{id}", producer.url);
        wait_for("the site to hold it", PATIENCE, || {
            let job = send(client().get(&url).header("x-api-key", &producer.api_key)).json();
            (job["state"] == "held").then_some(())
        });
    }
    // Those that wait first, while nothing makes room for them.
    for jobs in [&waiting[..], &running[..]] {
        for id in jobs {
            let answer = send(producer.post(&format!("/jobs/{id}/cancel")));
            assert_eq!((answer.status, &answer.json()["cancel"]), (202, &json!("requested")), "{answer:?}");
        }
        for id in jobs {
            let record = site.record(id, &mut daemon);
            assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("cancelled")), "{record}");
            assert!(!site.consumer.job_dir(id).join("ran").exists());
        }
        wait_for("nothing to wait in Slurm for a job that is cancelled", PATIENCE, || (!is_pending()).then_some(()));
    }
    for pid in pids {
        let process = Path::new("/proc").join(pid.trim());
        assert!(process.starts_with("/proc/") && !process.exists(), "{} goes on", process.display());
    }
    // The worker goes on, and the other pool has its allocation for the next one.
    for id in in_both("echo 7 > output.json") {
        let record = site.record(&id, &mut daemon);
        assert_eq!((&record["status"], &record["output"]), (&json!("completed"), &json!(7)), "{record}");
    }
}
