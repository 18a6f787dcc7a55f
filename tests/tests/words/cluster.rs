//! `hpc-consumer`.

use std::fs;

use serde_json::json;
use testkit::{Consumer, Edge, PATIENCE, SCRIPT, wait_until};

use crate::transcript::Transcript;

/// Settings that are well, as a file. Nobody listens there.
const WELL: &str = "RUNTIME=bare
CONTAINER_CMD=true
RESULTS_DIR=results
STATE_DIR=state
MAX_PARALLEL_JOBS=1
CF_API_BASE_URL=http://127.0.0.1:9/client/v4
CF_ACCOUNT_ID=a
CF_JOBS_QUEUE_ID=j
CF_RESULTS_QUEUE_ID=r
CF_QUEUES_API_TOKEN=t
";

#[test]
fn arguments_that_are_wrong_are_told() {
    let mut shell = Transcript::new();
    shell.run("hpc-consumer");
    shell.run("hpc-consumer start");
    shell.run("hpc-consumer run --results /tmp");
    shell.run("hpc-consumer command");
    shell.run("hpc-consumer republish");
    shell.run("hpc-consumer republish ../job");
    shell.run("hpc-consumer status --output xml");
    shell.assert_as_in("hpc-consumer/arguments.txt");
}

#[test]
fn settings_that_are_wrong_are_told() {
    let mut shell = Transcript::new();
    shell.run("hpc-consumer run --check");
    shell.run("hpc-consumer run --check --env-file missing.env");
    shell.run("hpc-consumer run --check --profile missing");
    shell.file("well.env", WELL);
    shell.run("hpc-consumer run --check --env-file well.env");
    for wrong in [
        "RUNTIME=docker",
        "RUNTIME=apptainer",
        "CONTAINER_CMD=\"python '\"",
        "RESULTS_DIR='~/results'",
        "CF_RESULTS_QUEUE_ID=j",
        "CF_API_BASE_URL=api.cloudflare.com",
        "MAX_PARALLEL_JOBS=0",
        "JOB_TIME_LIMIT_SECONDS=1x",
        "VISIBILITY_TIMEOUT_MS=13h",
        "POLL_INTERVAL_SECONDS=0",
        "OUTPUT_LOG_BYTES_MAX=1",
        "BATCH_SIZE=101",
        "RUNTIME=apptainer APPTAINER_IMAGE=image.sif RESULTS_DIR=/a:b",
        "RUNTIME=apptainer APPTAINER_IMAGE=image.sif MAX_PARALLEL_JOBS=2 APPTAINER_ARGS='--overlay o.img'",
    ] {
        shell.run(&format!("{wrong} hpc-consumer run --check --env-file well.env"));
    }
    shell.file(".env", "RESULT_DIR=/a\n");
    shell.run("hpc-consumer run --check");
    shell.file(".env", "MAX_PARALLEL_JOBS=lots\nCONTAINER_CMD=python /app/run.py\n");
    shell.run("hpc-consumer run --check");
    shell.run("CONTAINER_CMD=task-runner hpc-consumer run --check");
    shell.run("hpc-consumer status");
    shell.file(".env", "CONTAINER_CMD='python /app/run.py'\nMAX_PARALLEL_JOBS=lots\n");
    shell.run("hpc-consumer run --check");
    shell.run("hpc-consumer run --check --env-file .env");
    shell.assert_as_in("hpc-consumer/settings.txt");
}

#[test]
fn a_state_that_is_not_there_or_cannot_be_used_is_told() {
    let mut shell = Transcript::new();
    shell.run("hpc-consumer status");
    shell.run("STATE_DIR=state hpc-consumer jobs");
    fs::create_dir_all(shell.path("state")).expect("the directory of a test can be written to");
    shell.run("STATE_DIR=state hpc-consumer status");
    shell.run("STATE_DIR=state hpc-consumer jobs");
    shell.run("STATE_DIR=state hpc-consumer jobs --output json");
    shell.file("state/state.db", "no database, but more than nothing");
    shell.run("STATE_DIR=state hpc-consumer status");
    shell.file("well.env", WELL);
    shell.run("hpc-consumer run --env-file well.env");
    shell.run("RUNTIME=bare CONTAINER_CMD='python run.py' hpc-consumer command --job-dir try");
    shell.run("hpc-consumer republish --env-file well.env 3f2a8c1e-7f6b-4c55-9a53-0c6f5c2d8f10");
    shell.assert_as_in("hpc-consumer/state.txt");
}

#[test]
fn a_daemon_is_shown_with_its_jobs() {
    let edge = Edge::start();
    let mut shell = Transcript::new();
    let consumer = Consumer::bare(&edge, SCRIPT)
        .set("STATE_DIR", shell.path("state"))
        .set("RESULTS_DIR", shell.path("results"))
        .set("MAX_PARALLEL_JOBS", "1");
    let text = "if test -e once; then exec sleep 300; fi; touch once; echo why >&2; exit 3";
    edge.producer().submit(&json!({"task": "simulate", "name": "draft 3", "input": text, "retries": 2}));
    let mut daemon = consumer.start();
    let shown = |what: &str| {
        let view = fs::read_to_string(consumer.state_dir().join("view.json")).unwrap_or_default();
        view.contains(what)
    };
    wait_until("the second attempt to be shown", PATIENCE, || shown(r#""running":1,"#) && shown("attempt 2 follows"));
    shell.run("STATE_DIR=state hpc-consumer status");
    shell.run("STATE_DIR=state hpc-consumer jobs");
    fs::copy(edge.env_file(), shell.path("edge.env")).expect("local-edge has written it");
    let run =
        "STATE_DIR=state RESULTS_DIR=results RUNTIME=bare CONTAINER_CMD=true MAX_PARALLEL_JOBS=1 hpc-consumer run";
    shell.run(&format!("{run} --env-file edge.env"));
    daemon.kill();
    shell.run("STATE_DIR=state hpc-consumer status");
    shell.run("STATE_DIR=state hpc-consumer jobs");
    shell.run(&format!("{run} --check --env-file edge.env"));
    shell.run(&format!("RESULTS_DIR=elsewhere {}", run.replace("RESULTS_DIR=results ", "") + " --env-file edge.env"));
    shell.assert_as_in("hpc-consumer/daemon.txt");
}
