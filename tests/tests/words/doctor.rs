//! `doctor` of each program: its screen when all is well, and a sentence for each thing that people get wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use testkit::{Cloudflare, Edge, Permission, Plan};

use crate::transcript::Transcript;

/// What the daemon needs besides.
const NODE: &str = "RUNTIME=bare\nCONTAINER_CMD=true\nRESULTS_DIR=results\nSTATE_DIR=state\nMAX_PARALLEL_JOBS=1\n";

const DOCTOR: &str = "hpc-consumer doctor --env-file a.env";

/// An account as `--fix` makes it, and the settings that lead to it.
fn well(cloudflare: &Cloudflare) -> String {
    let consumer = |dead_letters: &str| json!({"type": "http_pull", "dead_letter_queue": dead_letters, "settings": {"max_retries": 100}});
    let jobs = cloudflare.add("hpc-jobs", Some(consumer("hpc-jobs-dlq")));
    let results = cloudflare.add("hpc-results", Some(consumer("")));
    cloudflare.add("hpc-jobs-dlq", None);
    let settings = cloudflare.settings(Permission::Edit);
    format!("{NODE}{settings}CF_JOBS_QUEUE_ID={jobs}\nCF_RESULTS_QUEUE_ID={results}\n")
}

#[test]
fn an_account_is_made_ready() {
    let cloudflare = Cloudflare::start(Plan::Free);
    let mut shell = Transcript::new();
    shell.run("hpc-consumer doctor");
    shell.run("hpc-consumer doctor --fix");
    shell.run("hpc-consumer doctor --yes");
    shell.quiet_file("a.env", &format!("{NODE}{}", cloudflare.settings(Permission::Edit)));
    shell.run(DOCTOR);
    shell.run(&format!("{DOCTOR} --fix"));
    shell.run(&format!("{DOCTOR} --fix --yes"));
    let id =
        |name: &str| cloudflare.queue(name).expect("it was made")["queue_id"].as_str().unwrap_or_default().to_owned();
    let ids = format!("CF_JOBS_QUEUE_ID={}\nCF_RESULTS_QUEUE_ID={}\n", id("hpc-jobs"), id("hpc-results"));
    shell.quiet_file("a.env", &format!("{NODE}{}{ids}", cloudflare.settings(Permission::Edit)));
    shell.run(DOCTOR);
    shell.assert_as_in("hpc-consumer/doctor-fix.txt");
}

#[test]
fn what_people_get_wrong_has_a_sentence_each() {
    let cloudflare = Cloudflare::start(Plan::Paid);
    let mut shell = Transcript::new();
    let settings = well(&cloudflare);
    shell.quiet_file("a.env", &settings);
    shell.run(DOCTOR);
    shell.run(&format!("{DOCTOR} --output json"));
    for wrong in [
        "CF_ACCOUNT_ID=hpc",
        "CF_ACCOUNT_ID=ffffffffffffffffffffffffffffffff",
        "CF_JOBS_QUEUE_ID=hpc-jobs",
        "CF_JOBS_QUEUE_ID=jobs",
        "CF_RESULTS_QUEUE_ID=ffffffffffffffffffffffffffffffff",
        "CF_QUEUES_API_TOKEN=token-that-may-read",
        "CF_QUEUES_API_TOKEN=token-of-something-else",
        "CF_QUEUES_API_TOKEN=unknown",
        "CF_QUEUES_API_TOKEN='token-that\nmay-edit'",
        "CF_API_BASE_URL=http://127.0.0.1:9/client/v4",
        "HPC_QUEUE_RESULT_DIR=/r",
        "CONTAINER_CMD=no-such-program",
    ] {
        shell.run(&format!("{wrong} {DOCTOR}"));
    }
    // The daemon and the laptop refuse a token that was not copied well, too.
    shell.run("CF_QUEUES_API_TOKEN='token-that\nmay-edit' hpc-consumer run --env-file a.env");
    shell.run("CF_QUEUES_API_TOKEN='token-that\nmay-edit' laptop-consumer pull --env-file a.env");
    cloudflare.pause("hpc-jobs");
    shell.run(DOCTOR);
    // As Windows, shells and editors write it.
    let odd = settings.replace("RUNTIME=bare\n", "export RUNTIME=\"bare\"\r\n").replace("=true\n", "='true' # all\r\n");
    shell.quiet_file("odd.env", &format!("\u{feff}{odd}"));
    shell.run("hpc-consumer doctor --env-file odd.env");
    fs::create_dir(shell.path("directory.env")).expect("the directory of a test can be written to");
    shell.run("hpc-consumer doctor --env-file directory.env");
    shell.assert_as_in("hpc-consumer/doctor.txt");
}

#[test]
fn a_node_is_looked_at() {
    let cloudflare = Cloudflare::start(Plan::Paid);
    let mut shell = Transcript::new();
    shell.quiet_file("a.env", &well(&cloudflare));
    shell.quiet_file("apptainer", "#!/bin/sh\necho apptainer version 1.4.1\n");
    fs::set_permissions(shell.path("apptainer"), fs::Permissions::from_mode(0o700)).expect("a mode can be set");
    let apptainer = "RUNTIME=apptainer APPTAINER_BIN=./apptainer";
    shell.run(&format!("{apptainer} APPTAINER_IMAGE=image.sif {DOCTOR}"));
    shell.run(&format!("{apptainer} APPTAINER_OCI_REF=ghcr.io/OWNER/runtime:1 {DOCTOR}"));
    shell.run(&format!("RUNTIME=apptainer APPTAINER_BIN=no-such-apptainer APPTAINER_IMAGE=/i.sif {DOCTOR}"));
    // A service of an earlier version, which does not run.
    let service = format!(".local/state/hpc-queue/service-{}", rustix::system::uname().nodename().to_string_lossy());
    fs::create_dir_all(shell.path(&service)).expect("the directory of a test can be written to");
    shell.quiet_file(
        &format!("{service}/service.json"),
        r#"{"v":1,"version":"0.0.9","way":"detached","start":{"program":"/p","arguments":[],"directory":"/","environment":{}}}"#,
    );
    shell.run(DOCTOR);
    shell.quiet_file(&format!("{service}/service.json"), "{");
    shell.run(DOCTOR);
    shell.assert_as_in("hpc-consumer/doctor-node.txt");
}

#[test]
fn a_laptop_is_looked_at() {
    let (edge, cloudflare) = (Edge::start(), Cloudflare::start(Plan::Paid));
    let mut shell = Transcript::new();
    shell.run("laptop-consumer doctor");
    let settings = fs::read_to_string(edge.env_file()).expect("local-edge has written it");
    shell.quiet_file(".env", &settings);
    shell.run("laptop-consumer doctor");
    shell.run("laptop-consumer doctor --output json");
    shell.run("HPC_QUEUE_API_KEY=wrong laptop-consumer doctor");
    shell.run("HPC_QUEUE_PRODUCER_URL=http://127.0.0.1:9 laptop-consumer doctor");
    shell.quiet_file(".env", &cloudflare.settings(Permission::Edit));
    shell.run("laptop-consumer doctor");
    shell.run("laptop-consumer doctor --fix --yes");
    shell.assert_as_in("laptop-consumer/doctor.txt");
}
