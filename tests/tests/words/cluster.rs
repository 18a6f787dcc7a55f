//! `hpc-consumer`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use testkit::{Consumer, Edge, PATIENCE, SCRIPT, wait_until};

use crate::transcript::Transcript;

/// Settings that are well, as a file. Nobody listens there.
pub(crate) const WELL: &str = "RUNTIME=bare
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
    shell.run("hpc-consumer resend");
    shell.run("hpc-consumer resend j1 --output ../x");
    shell.run("hpc-consumer status --output xml");
    shell.run("hpc-consumer wait");
    shell.run("hpc-consumer logs");
    shell.run("hpc-consumer jobs --state canceled");
    shell.run("hpc-consumer purge");
    shell.run("hpc-consumer purge --older-than 1m");
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

/// A site with two pools whose images are there, and a secret of one of them.
fn a_site(shell: &mut Transcript) {
    shell.quiet_file("science.sif", "an image");
    shell.quiet_file("qiskit.sif", "another one");
    shell.quiet_file("ibm.token", "s3cret");
    shell.file(
        "site.toml",
        "[pool.cpu]
default = true
image = \"science.sif\"
slot = { memory = \"2GiB\" }
capacity = { cpus = 12, memory = \"64GiB\" }

[pool.qpu]
image = \"qiskit.sif\"
capacity = { cpus = 4 }
secrets = { ibm = \"ibm.token\" }

[task.\"grover*\"]
pools = [\"qpu\", \"cpu\"]
time_limit = \"1h\"

[task.simulate]
pool = \"cpu\"
command = [\"python3\", \"/opt/simulate.py\"]
environment = { API_TOKEN = \"in the wrong place\" }
",
    );
}

#[test]
fn a_sites_file_is_checked_and_explained() {
    let mut shell = Transcript::new();
    a_site(&mut shell);
    shell.run("hpc-consumer site check site.toml");
    shell.run("SITE_FILE=site.toml hpc-consumer site check");
    for job in [
        r#"{"task":"simulate","resources":{"cpus":4},"time_limit_seconds":60}"#,
        r#"{"task":"grover-7"}"#,
        r#"{"task":"simulate","pool":"qpu"}"#,
        r#"{"task":"simulate","pool":"gpu"}"#,
        r#"{"task":"simulate","resources":{"cpus":13}}"#,
        r#"{"task":"unknown"}"#,
        r#"{"task":"simulate","name":"two\nlines"}"#,
        r#"{"task":"#,
    ] {
        shell.file("job.json", job);
        shell.run("hpc-consumer site explain job.json --site-file site.toml");
    }
    shell.run("hpc-consumer site explain missing.json --site-file site.toml");
    shell.quiet_file("job.json", r#"{"task":"grover-7"}"#);
    fs::remove_file(shell.path("qiskit.sif")).expect("it is there");
    shell.run("hpc-consumer site check site.toml");
    shell.run("hpc-consumer site explain job.json --site-file site.toml");
    shell.run("hpc-consumer site explain job.json --site-file site.toml --output json");
    shell.quiet_file("job.json", r#"{"task":"simulate","pool":"gpu"}"#);
    shell.run("hpc-consumer site explain job.json --site-file site.toml --output json");
    shell.file("well.env", WELL);
    shell.run("SITE_FILE=site.toml hpc-consumer run --check --env-file well.env");
    shell.run("hpc-consumer run --check --env-file well.env --site-file site.toml");
    shell.assert_as_in("hpc-consumer/site.txt");
}

#[test]
fn what_is_wrong_with_a_sites_file_is_told() {
    let mut shell = Transcript::new();
    shell.run("hpc-consumer site");
    shell.run("hpc-consumer site check");
    shell.run("hpc-consumer site check missing.toml");
    shell.run("hpc-consumer site check .");
    a_site(&mut shell);
    let mode = |shell: &Transcript, name: &str, mode| {
        fs::set_permissions(shell.path(name), fs::Permissions::from_mode(mode)).expect("a mode can be set");
    };
    mode(&shell, "ibm.token", 0o640);
    shell.run("hpc-consumer site check site.toml");
    mode(&shell, "ibm.token", 0o200);
    shell.run("hpc-consumer site check site.toml");
    fs::remove_file(shell.path("ibm.token")).expect("it is there");
    shell.run("hpc-consumer site check site.toml");
    shell.run("hpc-consumer site explain job.json --site-file site.toml");
    mode(&shell, "site.toml", 0o662);
    shell.run("hpc-consumer site check site.toml");
    // A secret, an image and three mistakes of the file, at once.
    shell.file(
        "wrong.toml",
        "[pool.a]
image = \"none.sif\"
secrets = { k = \"none.token\" }
[task.one]
command = []
[task.two]
command = [\"\"]
[task.\"ab*\"]
[task.\"*cd\"]
[task.\"two\\nlines\"]
",
    );
    shell.run("hpc-consumer site check wrong.toml");
    shell.file("bare.toml", "[pool.bare]\nruntime = \"bare\"\ncommand = [\"no-such-program\"]\n");
    shell.run("hpc-consumer site check bare.toml");
    shell.quiet_file("large.toml", &"# comment\n".repeat(100_001));
    shell.run("hpc-consumer site check large.toml");
    // What was sent with an archive names no file that says what runs.
    shell.file(".env", "SITE_FILE=bare.toml\n");
    shell.run("hpc-consumer site check");
    shell.run("hpc-consumer site check --env-file .env");
    shell.assert_as_in("hpc-consumer/site-wrong.txt");
}

#[test]
fn a_first_file_of_a_site_is_made_of_the_settings() {
    let mut shell = Transcript::new();
    shell.run("hpc-consumer site init");
    shell.run("APPTAINER_OCI_REF=ghcr.io/OWNER/runtime:1 MAX_PARALLEL_JOBS=4 hpc-consumer site init");
    shell.file(
        "well.env",
        "APPTAINER_IMAGE=/images/runtime.sif
APPTAINER_OCI_REF=ghcr.io/OWNER/runtime:1
APPTAINER_BIND='/data:/data:ro,/scratch'
APPTAINER_ARGS='--nv'
CONTAINER_CMD=\"python3 -c 'print(1)'\"
MAX_PARALLEL_JOBS=4
JOB_TIME_LIMIT_SECONDS=1h
CF_QUEUES_API_TOKEN=s3cret
",
    );
    shell.run("hpc-consumer site init --env-file well.env");
    shell.run("HPC_QUEUE_APPTAINER_BIND=data hpc-consumer site init --env-file well.env");
    shell.run("RUNTIME=bare CONTAINER_CMD=true MAX_PARALLEL_JOBS=1 hpc-consumer site init");
    shell.assert_as_in("hpc-consumer/site-init.txt");
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
    shell.run("hpc-consumer resend --env-file well.env 3f2a8c1e-7f6b-4c55-9a53-0c6f5c2d8f10");
    shell.assert_as_in("hpc-consumer/state.txt");
}

#[test]
fn a_daemon_is_shown_with_its_jobs() {
    let edge = Edge::start();
    let mut shell = Transcript::new();
    let consumer = Consumer::bare(&edge, SCRIPT)
        .set("STATE_DIR", shell.path("state"))
        .set("RESULTS_DIR", shell.path("results"))
        .set("SITE_NAME", "alpha")
        .set("MAX_PARALLEL_JOBS", "1");
    let text = "if test -e once; then exec sleep 300; fi; touch once; echo why >&2; exit 3";
    edge.producer().submit(&json!({"task": "simulate", "name": "draft 3", "input": text, "retries": 2}));
    let mut daemon = consumer.start();
    let shown = |what: &str| {
        let view = fs::read_to_string(consumer.state_dir().join("view.json")).unwrap_or_default();
        view.contains(what)
    };
    wait_until("the second attempt to be shown", PATIENCE, || shown(r#""running":1,"#) && shown("attempt 2 follows"));
    wait_until("the link to be shown", PATIENCE, || shown(r#""state":"linked""#));
    shell.run("STATE_DIR=state hpc-consumer status");
    shell.run("STATE_DIR=state hpc-consumer jobs");
    shell.run("STATE_DIR=state hpc-consumer jobs --state running");
    shell.run("STATE_DIR=state hpc-consumer jobs --state held");
    shell.run("STATE_DIR=state hpc-consumer status last");
    shell.run("STATE_DIR=state hpc-consumer logs last");
    shell.run("STATE_DIR=state hpc-consumer logs none");
    fs::copy(edge.env_file(), shell.path("edge.env")).expect("local-edge has written it");
    let run = "STATE_DIR=state RESULTS_DIR=results RUNTIME=bare CONTAINER_CMD=true MAX_PARALLEL_JOBS=1 SITE_NAME=alpha hpc-consumer run";
    shell.run(&format!("{run} --env-file edge.env"));
    daemon.kill();
    shell.run("STATE_DIR=state hpc-consumer status");
    shell.run("STATE_DIR=state hpc-consumer jobs");
    shell.run(&format!("{run} --check --env-file edge.env"));
    shell.run(&format!("RESULTS_DIR=elsewhere {}", run.replace("RESULTS_DIR=results ", "") + " --env-file edge.env"));
    shell.assert_as_in("hpc-consumer/daemon.txt");
}
