//! What jobs have of their allocations: nodes, GPUs; and what they cannot have.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use rustix::process::geteuid;
use serde_json::json;
use testkit::slurm::{Cluster, VERSIONS};
use testkit::{compile_with, parts, wait_for};

use crate::allocation::PATIENCE;
use crate::pools::{Site, pool};

#[test]
fn jobs_of_two_nodes_start_programs_of_mpi_on_both_and_one_that_asks_for_too_much_is_rejected_alone() {
    for version in VERSIONS {
        // Up to 22.05 what is too large would wait for ever.
        let cluster = Cluster::new(version).setting("EnforcePartLimits=ALL").start();
        let site = Site::new(cluster, &pool("mpi", "default = true", "max = 2, once = true"));
        let mut daemon = site.consumer.start();
        let too_much = site.submit_to("true", &json!({"resources": {"cpus": 400}, "retries": 2, "rerunnable": true}));
        let script = "srun sh -c 'echo $SLURMD_NODENAME > task-$SLURM_PROCID'; cat task-* > output.txt";
        let both = site.submit_to(script, &json!({"resources": {"nodes": 2, "cpus": 2}}));
        let record = site.record(&both, &mut daemon);
        assert_eq!(record["status"], "completed", "{version}: {record} {}", daemon.log());
        let nodes = fs::read_to_string(site.consumer.job_dir(&both).join("output.txt")).unwrap();
        let nodes: BTreeSet<&str> = nodes.lines().collect();
        assert_eq!(nodes, BTreeSet::from(["n1", "n2"]), "{version}");
        // A real MPI program, whose two processes find each other by Slurm's own means.
        let script = format!(
            "echo 'from mpi4py import MPI; w = MPI.COMM_WORLD; print(w.size, w.allreduce(w.rank + 1))' > sum.py; srun \
             --mpi=pmi2 {} sum.py > sum.txt",
            parts::mpi().display()
        );
        let mpi = site.submit_to(&script, &json!({"resources": {"nodes": 2}}));
        let record = site.record(&mpi, &mut daemon);
        assert_eq!(record["status"], "completed", "{version}: {record} {}", daemon.log());
        let sums = fs::read_to_string(site.consumer.job_dir(&mpi).join("sum.txt")).unwrap();
        assert_eq!(sums, "2 3\n2 3\n", "{version}");
        let record = site.record(&too_much, &mut daemon);
        assert_eq!(
            (&record["status"], &record["reason"]),
            (&json!("failed"), &json!("rejected")),
            "{version}: {record}"
        );
        let message = record["message"].as_str().unwrap();
        assert!(message.contains("what the job asks for") && message.contains("sbatch"), "{version}: {message}");
        // Its pool was not to blame, and goes on at once.
        let next = site.submit_to("true", &json!({"resources": {"cpus": 2}}));
        assert_eq!(site.record(&next, &mut daemon)["status"], "completed", "{version}");
        wait_for("nothing to be left", PATIENCE, || site.has_none());
    }
}

/// Its keeper sees the first node alone, and what `srun` starts is no child of it.
#[test]
fn what_a_job_has_used_on_all_its_nodes_is_told_as_the_accounting_knows_it() {
    const WORK: &str = "import time\nheld = bytearray(b\"x\") * (80 << 20)\nwhile time.process_time() < 1.2: pass\n";
    for version in VERSIONS {
        let site = Site::new(
            Cluster::new(version).accounting().start(),
            &pool("mpi", "default = true", "max = 2, once = true"),
        );
        fs::write(site.consumer.home().join("work.py"), WORK).unwrap();
        let mut daemon = site.consumer.start();
        let program = parts::mpi().display().to_string();
        let script = format!("srun {program} {}", site.consumer.home().join("work.py").display());
        let both = site.submit_to(&script, &json!({"resources": {"nodes": 2, "memory": "200MiB"}}));
        let record = site.record(&both, &mut daemon);
        assert_eq!(record["status"], "completed", "{version}: {record} {}", daemon.log());
        let usage = &record["usage"];
        assert_eq!(usage["source"], "slurm", "{version}: {record}");
        let number = |key: &str| usage[key].as_u64().unwrap_or_else(|| panic!("{version}: {key} in {record}"));
        assert!((2_200..20_000).contains(&number("cpu_time_ms")), "{version}: {usage}");
        assert!((160 << 20..1 << 30).contains(&number("memory_bytes")), "{version}: {usage}");

        // An accounting that is away holds no result up for long, and is left alone for a while.
        site.cluster.stop_accounting();
        for _ in 0..2 {
            let next = site.submit("true");
            let record = site.record(&next, &mut daemon);
            let known = (&record["status"], &record["usage"]["source"]);
            assert_eq!(known, (&json!("completed"), &json!(null)), "{version}: {record}");
            let ended: protocol::Timestamp = record["finished_at"].as_str().unwrap().parse().unwrap();
            let file = site.consumer.results_dir().join(format!("{next}.json"));
            let written = fs::metadata(file).unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
            let waited = i64::try_from(written.as_millis()).unwrap() - ended.as_millisecond();
            assert!(waited < 5_000, "{version}: {waited} ms passed between its end and its record");
        }
    }
}

/// Up to 22.05 Slurm takes what no node has, and lets it wait.
#[test]
fn a_job_that_would_wait_for_ever_for_what_there_is_not_is_rejected_and_the_others_go_on() {
    let site = Site::new(Cluster::new(VERSIONS[0]).start(), &pool("mpi", "default = true", "max = 2, once = true"));
    let mut daemon = site.consumer.start();
    let too_much = site.submit_to("touch begun", &json!({"resources": {"cpus": 400}}));
    wait_for("it to wait in Slurm", PATIENCE, || {
        site.cluster.ask("squeue", &["-h", "-o", "%r"]).contains("PartitionConfig").then_some(())
    });
    for _ in 0..2 {
        let next = site.submit("true");
        assert_eq!(site.record(&next, &mut daemon)["status"], "completed", "{}", daemon.log());
    }
    assert!(site.consumer.record(&too_much).is_none(), "somebody may yet make room for it");
    let record = wait_for("the final record", PATIENCE * 2, || site.consumer.record(&too_much));
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("rejected")), "{record}");
    assert!(record["message"].as_str().is_some_and(|why| why.contains("PartitionConfig")), "{record}");
    assert!(!site.consumer.job_dir(&too_much).join("begun").exists());
    wait_for("nothing to be left", PATIENCE, || site.has_none());
    let next = site.submit("true");
    assert_eq!(site.record(&next, &mut daemon)["status"], "completed", "{}", daemon.log());
}

/// The kernel holds the allocation to its memory, and ends what has most of it. Who may not make cgroups cannot try it.
#[test]
fn a_job_that_takes_too_much_memory_in_a_worker_is_the_only_one_that_fails() {
    if !geteuid().is_root() {
        return;
    }
    for version in VERSIONS {
        let cluster = Cluster::new(version).nodes(1).cgroups().start();
        let pools = pool("cpu", "default = true", "max = 1, slots = 2, idle = \"5s\"").replace("50MiB", "100MiB");
        let site = Site::new(cluster, &pools);
        let mut daemon = site.consumer.start();
        let gate = site.cluster.directory().join("gate");
        let stays = site.submit(&format!("echo >> begun; until [ -e {} ]; do sleep 0.1; done", gate.display()));
        let begun = site.consumer.job_dir(&stays).join("begun");
        wait_for("its neighbor to run", PATIENCE, || begun.exists().then_some(()));
        let eats = site.submit("head -c 900m /dev/zero | tail -c 900m > /dev/null");
        let record = site.record(&eats, &mut daemon);
        assert_eq!(
            (&record["status"], &record["reason"]),
            (&json!("failed"), &json!("memory_limit")),
            "{version}: {record} {}",
            daemon.log()
        );
        fs::write(&gate, "").unwrap();
        let neighbor = site.record(&stays, &mut daemon);
        assert_eq!(
            (&neighbor["status"], &neighbor["attempt"]),
            (&json!("completed"), &json!(1)),
            "{version}: {neighbor}"
        );
        assert_eq!(neighbor["slurm_job_id"], record["slurm_job_id"], "{version}: they were in one worker");
        // Slurm marks all of the allocation for it, which is nobody else's matter.
        wait_for("nothing to be left", PATIENCE, || site.has_none());
        let next = site.submit("true");
        assert_eq!(site.record(&next, &mut daemon)["status"], "completed", "{version}: {}", daemon.log());
    }
}

#[test]
fn a_program_of_mpi_in_containers_on_two_nodes_is_one_program() {
    let cluster = Cluster::new(VERSIONS[1]).start();
    let site = Site::new(cluster, &pool("mpi", "default = true", "max = 2, once = true"));
    let (program, mpi) = (site.consumer.home().join("sum"), parts::mpi().ancestors().nth(2).unwrap().to_owned());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slurm/sum.c");
    compile_with(&source, &program, &mpi, "mpi");
    let mut daemon = site.consumer.start();
    // What starts it on each node is outside of the containers, and through what that hands on they find each other.
    let script = format!(
        "cp {} sum; srun --mpi=pmi2 {} exec --no-privs --bind $PWD:/work,{}:/opt/mpi --pwd /work \
         --env LD_LIBRARY_PATH=/opt/mpi {} ./sum > sum.txt",
        program.display(),
        parts::apptainer().display(),
        mpi.join("lib").display(),
        parts::python_sif().display()
    );
    let job = site.submit_to(&script, &json!({"resources": {"nodes": 2}}));
    let record = site.record(&job, &mut daemon);
    assert_eq!(record["status"], "completed", "{record} {}", daemon.log());
    let sums = fs::read_to_string(site.consumer.job_dir(&job).join("sum.txt")).unwrap();
    assert_eq!(sums, "2 3 /work\n2 3 /work\n");
}

#[test]
fn a_job_sees_the_gpus_that_are_its_own() {
    for version in VERSIONS {
        let slot = "slot = { cpus = 1, memory = \"50MiB\", gpus = 1 }";
        let pools = pool("gpu", "default = true", "max = 1, slots = 2, idle = \"2s\"")
            + &pool("both", "", "max = 1, once = true");
        let pools = pools.replacen("slot = { cpus = 1, memory = \"50MiB\" }", slot, 1);
        let site = Site::new(Cluster::new(version).nodes(1).start(), &pools);
        let mut daemon = site.consumer.start();
        // Each waits for the other, so that they run at the same time.
        let gate = site.cluster.directory().join("gate");
        fs::create_dir(&gate).unwrap();
        let script = format!(
            "echo $CUDA_VISIBLE_DEVICES $HPC_QUEUE_GPUS > gpus; touch {0}/$JOB_ID; until [ $(ls {0} | wc -l) = 2 ]; do \
             sleep 0.1; done",
            gate.display()
        );
        let seen = |id: &str| fs::read_to_string(site.consumer.job_dir(id).join("gpus")).unwrap().trim().to_owned();
        let two: Vec<String> = (0..2).map(|_| site.submit(&script)).collect();
        for id in &two {
            assert_eq!(site.record(id, &mut daemon)["status"], "completed", "{version}: {}", daemon.log());
        }
        let gpus: BTreeSet<String> = two.iter().map(|id| seen(id)).collect();
        assert_eq!(gpus, BTreeSet::from(["0 0".to_owned(), "1 1".to_owned()]), "{version}");
        // A job that has an allocation to itself has all of its GPUs.
        let both = json!({"pool": "both", "resources": {"gpus": 2}});
        let id = site.submit_to("echo $CUDA_VISIBLE_DEVICES $HPC_QUEUE_GPUS > gpus", &both);
        assert_eq!(site.record(&id, &mut daemon)["status"], "completed", "{version}: {}", daemon.log());
        assert_eq!(seen(&id), "0,1 0,1", "{version}");
        wait_for("nothing to be left", PATIENCE, || site.has_none());
    }
}
