//! `setup` of both programs where nobody can be asked, as in a script; what a person is asked is in the tests of
//! `laptop-consumer`.

use testkit::Edge;

use crate::transcript::Transcript;

const ACCOUNT: &str = "--cf-account-id 0123456789abcdef0123456789abcdef";

/// The queues of a server that runs, by its settings.
fn queues(edge: &Edge) -> String {
    let (url, account) = (edge.setting("CF_API_BASE_URL"), edge.setting("CF_ACCOUNT_ID"));
    format!("--cf-api-base-url {url} --cf-account-id {account} --token-file token")
}

#[test]
fn a_laptop_is_set_up() {
    let edge = Edge::start();
    let mut shell = Transcript::new();
    shell.run("laptop-consumer setup");
    shell.run("laptop-consumer setup --producer-url edge.example");
    shell.quiet_file("key", edge.setting("API_KEY"));
    shell.quiet_file("token", edge.setting("CF_QUEUES_API_TOKEN"));
    shell.run("laptop-consumer setup --producer-url https://edge.example --api-key-file key --cf-account-id me");
    let setup = format!(
        "laptop-consumer setup --producer-url {} --api-key-file key {}",
        edge.setting("PRODUCER_URL"),
        queues(&edge)
    );
    shell.run(&setup);
    // The same again changes nothing; something else only with --force.
    shell.run("laptop-consumer setup");
    shell.run(&setup.replace("--api-key-file key", "--api-key other"));
    shell.run(&setup.replace("--api-key-file key", "--api-key other --force"));
    shell.run(&format!("laptop-consumer setup --file away.env --producer-url http://127.0.0.1:9 --api-key-file key {ACCOUNT} --token-file token --cf-results-queue-id 0123456789abcdef0123456789abcdef --cf-api-base-url http://127.0.0.1:9"));
    shell.assert_as_in("laptop-consumer/setup.txt");
    let text = std::fs::read_to_string(shell.path(".env")).expect("it was written");
    assert!(text.contains(&format!("CF_RESULTS_QUEUE_ID={}", edge.setting("CF_RESULTS_QUEUE_ID"))), "{text}");
}

#[test]
fn a_cluster_is_set_up() {
    let edge = Edge::start();
    let mut shell = Transcript::new();
    shell.run("hpc-consumer setup");
    shell.quiet_file("token", edge.setting("CF_QUEUES_API_TOKEN"));
    shell.run(&format!("hpc-consumer setup {ACCOUNT} --token-file token --results-dir results"));
    shell.run(&format!("hpc-consumer setup {ACCOUNT} --token-file token --results-dir results --image image.sif"));
    let setup = format!("hpc-consumer setup {} --results-dir results", queues(&edge));
    shell.run(&format!("{setup} --image bare --partition none"));
    shell.run("hpc-consumer site check --env-file .env");
    shell.run(&format!("{setup} --image bare --partition debug"));
    shell.assert_as_in("hpc-consumer/setup.txt");
    for (image, partition) in [("ghcr.io/o/r:1", "none"), ("ghcr.io/o/r:1", "debug")] {
        shell.run(&format!("{setup} --force --image {image} --partition {partition}"));
    }
    let text = std::fs::read_to_string(shell.path(".env")).expect("it was written");
    for (setting, queue) in [("CF_JOBS_QUEUE_ID", "CF_JOBS_QUEUE_ID"), ("CF_RESULTS_QUEUE_ID", "CF_RESULTS_QUEUE_ID")] {
        assert!(text.contains(&format!("{setting}={}", edge.setting(queue))), "{text}");
    }
    let site = std::fs::read_to_string(shell.path("site.toml")).expect("it was written");
    assert!(site.contains("where = \"slurm\"") && site.contains("partition = \"debug\""), "{site}");
}
