//! What `hpc-consumer` asks of Slurm for a person, and what it does with the log of decisions.

use std::fs;
use std::process::Output;

use testkit::slurm::{Cluster, Slurm, VERSIONS};
use testkit::{command, parts};

fn hpc_consumer(slurm: Option<&Slurm>, home: &std::path::Path, arguments: &[&str]) -> Output {
    let mut command = command(&parts::program("hpc-consumer"), home);
    match slurm {
        Some(slurm) => command.envs(slurm.environment()),
        None => command.env("PATH", "/usr/bin:/bin"),
    };
    command.args(arguments).output().expect("a program can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const POOL: &str = "runtime = \"bare\"\ncommand = [\"true\"]\nwhere = \"slurm\"\n";

#[test]
fn site_check_asks_slurm_whether_it_would_take_each_pool() {
    let site = format!(
        "[pool.good]\n{POOL}slot = {{ cpus = 2, memory = \"500MiB\" }}\nworkers = {{ max = 4, slots = 2 }}\n\
         [pool.big]\n{POOL}slurm = {{ time = \"1h\" }}\nslot = {{ cpus = 300 }}\nworkers = {{ max = 1, once = true }}\n\
         [pool.wrong]\n{POOL}slurm = {{ partition = \"nowhere\" }}\nworkers = {{ max = 1 }}\n"
    );
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("site.toml"), site).unwrap();
    for version in VERSIONS {
        let slurm = Cluster::new(version).start();
        let output = hpc_consumer(Some(&slurm), home.path(), &["site", "check", "site.toml"]);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{version}: {stderr}");
        assert!(
            stdout.contains("Slurm would take an allocation of good: Job ") && stdout.contains("4 processors"),
            "{stdout}"
        );
        assert!(stdout.contains("big (not ready)") && stdout.contains("wrong (not ready)"), "{stdout}");
        for (line, pool, why) in [(11, "big", "node configuration is not available"), (18, "wrong", "nowhere")] {
            let told = stderr.lines().any(|told| {
                told.contains(&format!("site.toml:{line}:"))
                    && told.contains(&format!("pool.{pool}.slurm"))
                    && told.contains(why)
            });
            assert!(told, "{version}: {pool}: {stderr}");
        }
        assert_eq!(slurm.ask("squeue", &["-h", "-t", "all"]), "", "{version}: a question has submitted");
    }
    let output = hpc_consumer(None, home.path(), &["site", "check", "site.toml"]);
    let stderr = text(&output.stderr);
    assert!(output.status.success() && stderr.contains("there is no sbatch on the PATH"), "{stderr}");
    assert_eq!(stderr.matches("sbatch").count(), 1, "it is told once: {stderr}");
    let told = text(&output.stdout);
    assert_eq!(told.matches("(not ready)").count(), 3, "{told}");
}

#[test]
fn a_workflow_is_played_against_the_pools_of_a_site() {
    let home = tempfile::tempdir().unwrap();
    let pool = format!("{POOL}default = true\nworkers = {{ max = 20, slots = 2, pending = 20 }}\n");
    fs::write(home.path().join("site.toml"), format!("[quota]\ncpus = 8\n[pool.cpu]\n{pool}")).unwrap();
    fs::write(home.path().join("none.toml"), format!("[quota]\nallocations = 0\n[pool.cpu]\n{pool}")).unwrap();
    let trace = parts::workspace().join("tests/cases/wfcommons/soykb-chameleon-10fastq-10ch-001.json");
    let trace = trace.to_str().unwrap();
    let arguments = ["scaling", "simulate", trace, "--site", "site.toml", "--output", "json"];
    let output = hpc_consumer(None, home.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |key: &str| told[key].as_f64().unwrap_or_else(|| panic!("{key} in {told}"));
    assert!(number("makespan_seconds") >= number("work_seconds") / 8.0, "{told}");
    assert!(
        number("held_core_hours") * 3_600.0 >= number("work_seconds") && number("most_allocations") <= 4.0,
        "{told}"
    );
    let told = text(&hpc_consumer(None, home.path(), &arguments[..5]).stdout);
    assert!(told.contains("makespan: ") && told.contains("core hours"), "{told}");

    let output = hpc_consumer(None, home.path(), &["scaling", "simulate", trace, "--site", "none.toml"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("never ends"), "{}", text(&output.stderr));
    let output = hpc_consumer(None, home.path(), &["scaling", "simulate", "site.toml", "--site", "site.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("WfFormat 1.5"), "{}", text(&output.stderr));
}

#[test]
fn decisions_are_explained_from_their_log_and_made_again() {
    let home = tempfile::tempdir().unwrap();
    let line = r#"{"snapshot":{"at":1000.0,"pools":[{"name":"cpu","max":16,"slots":1,"pending_max":2,"idle":120.0,"backlog":312,"mean_run":8.1}]},"decision":{"pools":[{"want":16,"start":2,"stop":[],"why":{"pool":"cpu","want":16,"max":16,"min":0,"backlog":312,"mean_run":8.1,"share":1.0,"fills":312,"by_quota":false,"have":0,"pending":0,"ends_in":null,"pause":null}}]}}"#;
    fs::write(home.path().join("same"), format!("{line}\n{line}\n")).unwrap();
    let output = hpc_consumer(None, home.path(), &["scaling", "replay", "same"]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert!(stdout.starts_with("1: cpu wants 16 of at most 16: backlog 312 × 8.1 s is 100 % of the work"), "{stdout}");
    assert!(stderr.contains("2 decisions, of which 0 would be another now"), "{stderr}");

    fs::write(home.path().join("other"), format!("{}\nhalf of a li", line.replace("\"start\":2", "\"start\":9")))
        .unwrap();
    let output = hpc_consumer(None, home.path(), &["scaling", "replay", "other"]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stdout.contains("1: DIFFERS: cpu was want 16, start 9, stop 0, and is want 16, start 2, stop 0"),
        "{stdout}"
    );
    assert!(stderr.contains("other:2: this is no decision") && stderr.contains("1 line cannot be read"), "{stderr}");

    fs::write(home.path().join("empty"), "").unwrap();
    let output = hpc_consumer(None, home.path(), &["scaling", "replay", "empty"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("scaling.jsonl"), "{}", text(&output.stderr));
}
