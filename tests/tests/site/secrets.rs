//! Secrets of a pool: jobs of the pool have them, and nothing else has.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use testkit::{PATIENCE, wait_until};

use crate::{Site, text};

const FILE: &str = r#"
[pool.qpu]
image = "{home}/look.sif"
command = ["/bin/look", "wait", "/run/secrets/ibm", "/run/secrets/crn"]
capacity = { cpus = 1 }
secrets = { ibm = "ibm.env", crn = { file = "crn", variable = "IBM_CRN" } }
[pool.cpu]
default = true
image = "{home}/look.sif"
command = ["/bin/look", "/run/secrets/ibm", "/run/secrets/crn"]
capacity = { cpus = 1 }
"#;

/// What a shell would make something else of.
const CRN: &str = "crn:v1:$HOME`id`\\end\"'";
const KEY: &str = "k3y-0f-1bm";

/// Every file below a directory that holds one of these.
fn files_with(directory: &Path, secrets: &[&str], found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("it is there"));
        if kind.is_dir() {
            files_with(&path, secrets, found);
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap_or_default();
            let content = String::from_utf8_lossy(&content);
            if secrets.iter().any(|secret| content.contains(secret)) {
                found.push(path.file_name().expect("it has a name").to_string_lossy().into_owned());
            }
        }
    }
}

/// The words of all processes that hold one of these.
fn words_with(secrets: &[&str]) -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let words = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let words = words.map(|words| String::from_utf8_lossy(&words).replace('\0', " "));
    words.filter(|words| secrets.iter().any(|secret| words.contains(secret))).collect()
}

#[test]
fn secrets_reach_the_jobs_of_their_pool_and_nothing_else() {
    let site = Site::new(FILE);
    site.image().write("ibm.env", &format!("# of ibm\nIBM_KEY={KEY}\n"));
    site.write("crn", &format!("{CRN}\n"));
    let mut daemon = site.consumer.start();
    let id = site.submit(&json!({ "task": "look", "pool": "qpu" }));
    let job_dir = site.consumer.job_dir(&id);
    wait_until("the job to run", PATIENCE, || job_dir.join("waits").exists());
    assert_eq!(words_with(&[KEY, CRN]), Vec::<String>::new(), "other users of the machine can read these");
    fs::write(job_dir.join("go"), "").expect("the job directory is ours");
    let record = site.record(&id, &mut daemon);
    assert_eq!((text(&record["reason"]), text(&record["pool"])), ("exit", "qpu"), "{record}");

    let printed = fs::read_to_string(job_dir.join("stdout.log")).expect("the job has printed");
    for line in [
        format!("/run/secrets/ibm: # of ibm\nIBM_KEY={KEY}\n, read-only"),
        format!("/run/secrets/crn: {CRN}\n, read-only"),
        format!("IBM_CRN={CRN}\n"),
        "HPC_QUEUE_POOL=qpu\n".to_owned(),
    ] {
        assert!(printed.contains(&line), "{line}: {printed}");
    }
    let tail = text(&record["stdout_tail"]);
    assert!(tail.contains("IBM_CRN=***\n") && tail.contains("/run/secrets/ibm: ***\n"), "{tail}");

    let mut found = Vec::new();
    files_with(&site.consumer.results_dir(), &[KEY, CRN], &mut found);
    files_with(&site.consumer.state_dir(), &[KEY, CRN], &mut found);
    assert_eq!(found, ["stdout.log"], "what the job itself printed, and nothing of ours");
    let log = daemon.log();
    assert!(!log.contains(KEY) && !log.contains(CRN), "{log}");

    let id = site.submit(&json!({ "task": "look" }));
    let record = site.record(&id, &mut daemon);
    let tail = text(&record["stdout_tail"]);
    assert!(tail.contains("/run/secrets/ibm: none\n/run/secrets/crn: none\n"), "{record}");
    assert!(!tail.contains("IBM_CRN"), "{record}");
}

#[test]
fn a_secret_that_others_can_read_is_refused_with_what_mends_it() {
    let site = Site::new(FILE);
    site.write("ibm.env", KEY);
    site.write("crn", CRN);
    let secret = site.path("crn");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let mut daemon = site.consumer.start();
    assert_eq!(daemon.wait(PATIENCE).code(), Some(2));
    let told = daemon.log();
    assert!(told.contains(&format!("`chmod 600 {}` mends it", secret.display())), "{told}");
    assert!(told.contains("site.toml:6:") && !told.contains(CRN), "{told}");
}

#[test]
fn a_secret_that_becomes_readable_keeps_its_pool_from_jobs_until_that_is_mended() {
    let site = Site::new(&FILE.replace("\"wait\", ", ""));
    site.image().write("ibm.env", KEY);
    site.write("crn", CRN);
    let mut daemon = site.consumer.start();
    let first = site.submit(&json!({ "task": "look", "pool": "qpu" }));
    assert_eq!(site.record(&first, &mut daemon)["reason"], "exit");
    let secret = site.path("crn");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).expect("it is ours");
    let id = site.submit(&json!({ "task": "look", "pool": "qpu" }));
    daemon.wait_for_log("is open to others than you (mode 0640)", PATIENCE);
    assert!(site.consumer.record(&id).is_none(), "it is not the job's fault");
    let other = site.submit(&json!({ "task": "look" }));
    assert_eq!(site.record(&other, &mut daemon)["pool"], "cpu", "the other pool goes on");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let record = site.record(&id, &mut daemon);
    assert_eq!((text(&record["reason"]), text(&record["pool"])), ("exit", "qpu"), "{record}");
}

/// There is no `/run/secrets` then, and a site has to say that it accepts what such jobs can read.
#[test]
fn a_job_without_a_container_has_those_that_are_variables() {
    let site = Site::new(
        "[pool.qpu]\nruntime = \"bare\"\nexpose_secrets = true\ncapacity = { cpus = 1 }\n\
         command = [\"sh\", \"-c\", \"printf '%s\\n' \\\"$IBM_CRN\\\"; exit 4\"]\n\
         secrets = { crn = { file = \"crn\", variable = \"IBM_CRN\" } }\n",
    );
    site.write("crn", CRN);
    let record = site.run(&json!({ "task": "look" }));
    assert_eq!((&record["exit_code"], text(&record["stdout_tail"])), (&json!(4), "***\n"), "{record}");
    let log = site.consumer.job_dir(text(&record["job_id"])).join("stdout.log");
    assert_eq!(fs::read_to_string(log).expect("the job has printed"), format!("{CRN}\n"));
}
