//! `laptop-consumer`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use testkit::{Consumer, Edge, SCRIPT};

use crate::transcript::Transcript;

#[test]
fn arguments_that_are_wrong_are_told() {
    let mut shell = Transcript::new();
    shell.run("laptop-consumer");
    shell.run("laptop-consumer start");
    shell.run("laptop-consumer submit");
    shell.run("laptop-consumer submit --task echo --inptu 1");
    shell.file(".env", "PRODUCER_URL=http://127.0.0.1:9\nAPI_KEY=k\n");
    let submit = "laptop-consumer submit --task echo";
    for wrong in
        ["--input '{'", "--input @missing.json", "--time-limit soon", "--time-limit 0", "--retries 101", "--timeout 10"]
            .into_iter()
            .chain(["--name ''", "--name 'two\nlines'", "--pool GPU", "--cpus 0", "--memory 2G", "--gpus all"])
            .chain(["--id --wait"])
    {
        shell.run(&format!("{submit} {wrong}"));
    }
    shell.run("laptop-consumer wait");
    shell.run("laptop-consumer wait ../job");
    shell.run("laptop-consumer wait last");
    shell.run("laptop-consumer wait @missing.txt");
    shell.file("jobs.txt", "two words");
    shell.run("laptop-consumer wait @jobs.txt");
    shell.run("laptop-consumer show 3f2a8c1e-7f6b-4c55-9a53-0c6f5c2d8f10");
    shell.run("laptop-consumer show j1 --output xml");
    shell.run("laptop-consumer status");
    shell.run("laptop-consumer status last");
    shell.run("laptop-consumer status j1 j2");
    shell.run("laptop-consumer jobs");
    shell.run("laptop-consumer jobs --state canceled");
    shell.run("laptop-consumer logs j1");
    shell.run("laptop-consumer logs j1 --follow");
    shell.run("laptop-consumer run");
    shell.run("laptop-consumer run python x.py");
    shell.run("laptop-consumer run --file missing.py -- python missing.py");
    shell.run("laptop-consumer run --file missing/output.json -- true");
    shell.run("laptop-consumer submit --task echo --from missing.csv");
    shell.file("sweep.csv", "a,b\n1,2\n3\n");
    shell.run("laptop-consumer submit --task echo --from sweep.csv");
    shell.run("laptop-consumer submit --task echo --from jobs.txt");
    shell.run("laptop-consumer submit --task echo --from sweep.csv --input 1");
    shell.run("laptop-consumer output j1");
    shell.run("laptop-consumer output j1 -o .");
    shell.run("laptop-consumer rerun");
    shell.run("laptop-consumer rerun --failed");
    shell.run("laptop-consumer rerun j1 --failed");
    shell.run("laptop-consumer purge");
    shell.run("laptop-consumer purge j1");
    shell.run("laptop-consumer purge --state running");
    shell.run("laptop-consumer pull --batch-size 101");
    shell.run("laptop-consumer cancel");
    shell.run("laptop-consumer cancel last");
    shell.run("laptop-consumer cancel 3f2a8c1e-7f6b-4c55-9a53-0c6f5c2d8f10 j1");
    shell.assert_as_in("laptop-consumer/arguments.txt");
}

#[test]
fn settings_that_are_wrong_are_told() {
    let mut shell = Transcript::new();
    let submit = "laptop-consumer submit --task echo";
    shell.run(submit);
    shell.run(&format!("PRODUCER_URL=http://127.0.0.1:9 {submit}"));
    shell.run(&format!("PRODUCER_URL=ftp://host HPC_QUEUE_API_KEY=k {submit}"));
    shell.run(&format!("PRODUCER_URL=http://127.0.0.1:9 HPC_QUEUE_API_KEY=k {submit}"));
    shell.run("laptop-consumer tail");
    let queue = "CF_ACCOUNT_ID=a CF_RESULTS_QUEUE_ID=r CF_QUEUES_API_TOKEN=t";
    shell.run(&format!("{queue} CF_API_BASE_URL=ftp://host laptop-consumer tail"));
    shell.run("laptop-consumer tail --env-file missing.env");
    shell.run("laptop-consumer tail --profile missing");
    shell.run("HPC_QUEUE_LOG=loud laptop-consumer tail");
    shell.file(".env", "PRODUCER_ULR=http://127.0.0.1:9\n");
    shell.run(submit);
    shell.file("wrong.env", "RESULTS_POLL_INTERVAL_SECONDS=often\nAPI_KEY=a b\n");
    shell.run(&format!("{submit} --env-file wrong.env"));
    shell.run("laptop-consumer pull --env-file wrong.env");
    shell.file("key", "two words\n");
    shell.run(&format!("PRODUCER_URL=http://127.0.0.1:9 {submit} --api-key-file key"));
    shell.run(&format!("HPC_QUEUE_API_KEY=k API_KEY_FILE=key PRODUCER_URL=http://127.0.0.1:9 {submit}"));
    shell.file(".env", "PRODUCER_URL=http://127.0.0.1:9\nAPI_KEY=k\n");
    let mode = |shell: &Transcript, mode| {
        fs::set_permissions(shell.path(".env"), fs::Permissions::from_mode(mode)).expect("a mode can be set");
    };
    mode(&shell, 0o644);
    shell.run("laptop-consumer show j1");
    mode(&shell, 0o666);
    shell.run(submit);
    shell.run(&format!("{submit} --env-file .env"));
    shell.assert_as_in("laptop-consumer/settings.txt");
}

#[test]
fn what_an_edge_refuses_is_told_with_what_to_do() {
    let edge = Edge::start();
    let mut shell = Transcript::new();
    let settings = fs::read_to_string(edge.env_file()).expect("local-edge has written it");
    shell.quiet_file(".env", &settings);
    shell.run("HPC_QUEUE_API_KEY=wrong laptop-consumer submit --task echo");
    shell.run("CF_QUEUES_API_TOKEN=wrong laptop-consumer pull");
    shell.run("CF_RESULTS_QUEUE_ID=wrong laptop-consumer pull");
    shell.run("CF_ACCOUNT_ID=wrong laptop-consumer pull");
    let jobs = edge.setting("CF_JOBS_QUEUE_ID");
    edge.push(testkit::Queue::Jobs, &[r#"{"v":1,"job_id":"j1","task":"echo","input":1}"#]);
    shell.run(&format!("CF_RESULTS_QUEUE_ID={jobs} laptop-consumer pull"));
    shell.run("laptop-consumer submit --task echo --wait --timeout 1ms");
    shell.run("laptop-consumer wait 3f2a8c1e-7f6b-4c55-9a53-0c6f5c2d8f10 --timeout 1ms");
    shell.run("laptop-consumer tail --until-idle");
    drop(edge);
    shell.assert_as_in("laptop-consumer/refused.txt");
}

#[test]
fn results_are_shown() {
    let edge = Edge::start();
    let mut shell = Transcript::new();
    let settings = fs::read_to_string(edge.env_file()).expect("local-edge has written it");
    shell.quiet_file(".env", &settings);
    let consumer = Consumer::bare(&edge, SCRIPT).set("RESULTS_DIR", shell.path("results"));
    for (script, retries) in [
        ("echo hello; echo [1,2] > output.json", 0),
        ("echo hello", 0),
        ("echo so far; echo why >&2; exit 3", 1),
        ("kill -SEGV $$", 0),
        ("echo NaN > output.json", 0),
    ] {
        let body = json!({"task": "script", "input": script, "retries": retries});
        let job = edge.producer().submit(&body);
        consumer.run_until_idle();
        shell.run(&format!("laptop-consumer wait {job} --output text"));
    }
    shell.run("laptop-consumer tail --until-idle --output text");
    shell.assert_as_in("laptop-consumer/results.txt");
}
