//! What was ever written to a queue is read today: every file of `tests/compat/wire`, and what is understood of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use protocol::link::{Children, Report, Up};
use protocol::{
    JobMessage, JobResult, Kind, Namespaces, Network, Reason, ResultMessage, RuntimeKind, Seccomp, Status, Sys, body,
};

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/compat/wire").join(name)
}

/// Reads the files of a directory, which are to be exactly these.
fn files<const N: usize>(name: &str, expected: [&str; N]) -> [String; N] {
    let entries = fs::read_dir(directory(name)).expect("golden files are in the repository");
    let names = entries.map(|entry| entry.expect("a directory can be read to its end").file_name());
    let found: BTreeSet<String> =
        names.map(|name| name.to_string_lossy().trim_end_matches(".json").to_owned()).collect();
    let named: BTreeSet<String> = expected.iter().map(|&file| file.to_owned()).collect();
    assert_eq!(found, named, "files of {name}, and what this test says of them");
    let read = |file| fs::read_to_string(directory(name).join(file).with_extension("json"));
    expected.map(|file| read(file).expect("a golden file is text"))
}

/// Reads a job and checks that nothing of its text is lost.
fn job(text: &str) -> JobMessage {
    let json = body::json_text(text).expect("a message is JSON");
    let job = JobMessage::parse(&json).expect("a message is a job");
    assert_eq!(job.text(), text);
    assert_eq!(Kind::of_text(text), Some(Kind::Job));
    job
}

#[test]
fn jobs() {
    let [whole, least, created_first, pool, with_files, needs, with_task, with_metadata, without_task] = files(
        "job-message",
        [
            "1-whole",
            "1-least",
            "1-created-first",
            "1-pool",
            "2-files",
            "3-needs",
            "original-with-task",
            "original-with-metadata",
            "original-without-task",
        ],
    );
    for text in [&whole, &created_first] {
        let job = job(text);
        let spec = &job.spec;
        assert_eq!((job.job_id.as_str(), spec.task.as_str()), ("01010101-0101-4101-8101-010101010101", "simulate"));
        assert_eq!((spec.time_limit_seconds, spec.retries, spec.rerunnable), (Some(60), Some(3), Some(false)));
        assert_eq!(spec.metadata.as_ref().unwrap().as_str(), r#"{"name":"a"}"#);
    }
    assert_eq!(job(&whole).spec.input.as_str(), r#"{"steps":10}"#);
    assert_eq!(job(&whole).created_at.unwrap().to_string(), "2026-11-21T01:15:27.123Z");
    assert_eq!(job(&created_first).spec.input.as_str(), r#"{"b":1.50,"a":["é",null]}"#);
    assert_eq!(job(&created_first).created_at.unwrap().to_string(), "2026-11-29T16:00:00.5Z");

    let least = job(&least);
    assert_eq!((least.spec.task.as_str(), least.spec.input.as_str(), least.spec.metadata), ("echo", "null", None));
    assert_eq!((least.spec.time_limit_seconds, least.spec.retries, least.spec.rerunnable), (None, None, None));

    let pool = job(&pool).spec;
    assert_eq!((pool.name.as_deref(), pool.pool.unwrap().as_str()), (Some("first try é"), "gpu-a100"));
    let asked = pool.resources.unwrap();
    assert_eq!((asked.cpus, asked.gpus, asked.nodes), (Some(4), Some(1), Some(2)));
    assert_eq!(asked.memory.unwrap().to_string(), "8GiB");

    let spec = job(&with_files).spec;
    let kinds: Vec<(&str, u64, bool, bool)> =
        spec.files.iter().map(|file| (file.path.as_str(), file.size, file.pack, file.read_only)).collect();
    assert_eq!(kinds, [("data/big.dat", 7, false, true), ("many.1.pack", 9, true, false)]);
    assert!(spec.outputs.unwrap().are_always_wanted());

    let needs = job(&needs).spec.needs;
    let words: Vec<String> = needs.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["db", "vqpu with kind = aer, noise = false, 20.5 ≤ qubits ≤ 40"]);

    for (text, id) in [(&with_task, "manual-smoke-4"), (&with_metadata, "agile-codon-3fa2c1")] {
        let job = job(text);
        assert_eq!((job.job_id.as_str(), job.spec.task.as_str()), (id, "simulate"));
        assert!(job.spec.input.is_object() && job.created_at.is_some());
    }
    // Later versions of the original had one command for all jobs, and no task to name.
    let refused = JobMessage::parse(&without_task).unwrap_err();
    assert_eq!(refused.job_id.unwrap().as_str(), "amber-allele-0b1c2d");
    assert!(refused.problem.contains("`task` is missing") && !refused.is_result, "{}", refused.problem);
}

fn result(text: &str) -> JobResult {
    assert_ne!(Kind::of_text(text), Some(Kind::Job));
    match ResultMessage::parse(text) {
        Ok(ResultMessage::Result(result)) => *result,
        other => panic!("{other:?}: {text}"),
    }
}

#[test]
fn results() {
    let [completed, failed, signal, rejected, output_null, too_large, three_decimals, isolation, plan, resent] =
        files_of_version_1();
    let completed = result(&completed);
    assert_eq!((completed.status, completed.reason), (Status::Completed.into(), None));
    assert_eq!((completed.runtime, completed.isolated), (Some(RuntimeKind::Apptainer.into()), Some(true)));
    assert_eq!((completed.output.unwrap().as_str(), completed.output_bytes), (r#"{"pi":3.140}"#, Some(12)));
    assert_eq!(completed.finished_at.unwrap().to_string(), "2026-11-21T01:15:29.5Z");

    let failed = result(&failed);
    assert_eq!((failed.status, failed.reason), (Status::Failed.into(), Some(Reason::Exit.into())));
    assert_eq!((failed.exit_code, failed.attempt, failed.stderr_tail.as_deref()), (Some(3), 1, Some("boom\n")));

    let signal = result(&signal);
    // Zeros at the end of a time were left out at first.
    assert_eq!(result(&three_decimals), signal);
    assert_eq!((signal.reason, signal.signal, signal.attempt), (Some(Reason::Signal.into()), Some(9), 2));
    assert_eq!((signal.runtime, signal.isolated), (Some(RuntimeKind::Bare.into()), Some(false)));

    let rejected = result(&rejected);
    assert_eq!((rejected.reason, rejected.attempt, rejected.task), (Some(Reason::Rejected.into()), 0, None));
    assert_eq!(result(&output_null).output.unwrap().as_str(), "null");
    assert_eq!((result(&too_large).output, result(&too_large).output_bytes), (None, Some(90_000)));

    let facts = result(&isolation).isolation.unwrap();
    assert_eq!((facts.network, facts.namespaces), (Some(Network::None.into()), Some(Namespaces::User.into())));
    assert_eq!((facts.seccomp, facts.sys), (Some(Seccomp::of_profile("0123456789abcdef")), Some(Sys::ReadOnly.into())));

    let plan = result(&plan);
    assert_eq!(plan.pool.unwrap().as_str(), "cpu");
    assert!(plan.image.unwrap().starts_with("ghcr.io/owner/name@sha256:9f86"));
    assert_eq!(plan.command.unwrap(), ["python3", "/opt/task.py"]);

    let resent = result(&resent);
    let before = JobResult { files: Vec::new(), files_note: None, resent_at: None, ..resent.clone() };
    assert!(resent.supersedes(&before) && !before.supersedes(&resent) && !resent.supersedes(&resent));
    let other = JobResult { attempt: 2, ..before };
    assert!(!resent.supersedes(&other), "it is another end");
}

fn files_of_version_1() -> [String; 10] {
    let [completed, failed, signal, rejected, output_null, too_large, three_decimals, isolation, plan, resent, ..] =
        all_results();
    [completed, failed, signal, rejected, output_null, too_large, three_decimals, isolation, plan, resent]
}

fn all_results() -> [String; 14] {
    files(
        "result",
        [
            "1-completed",
            "1-failed",
            "1-signal",
            "1-rejected",
            "1-output-null",
            "1-output-too-large",
            "1-three-decimals",
            "1-isolation",
            "1-plan",
            "1-resent",
            "original-first",
            "original-completed",
            "original-host-failed",
            "original-given-up",
        ],
    )
}

#[test]
fn results_of_the_original_system() {
    let [.., first, completed, host_failed, given_up] = all_results();
    let first = result(&first);
    assert_eq!((first.v, first.job_id.as_str(), first.status), (1, "dual-queue-smoke-1", Status::Completed.into()));
    assert!(first.result_pointer.ends_with("/dual-queue-smoke-1/output.json"));

    let completed = result(&completed);
    assert_eq!((completed.status, completed.exit_code), (Status::Completed.into(), Some(0)));
    let seconds = completed.finished_at.unwrap().duration_since(completed.started_at.unwrap()).as_secs();
    assert_eq!(seconds, 48);

    let host_failed = result(&host_failed);
    assert_eq!((host_failed.status, host_failed.exit_code), (Status::Failed.into(), Some(2)));
    assert_eq!((host_failed.reason, host_failed.stderr_tail.as_deref()), (None, Some("ls: cannot access\n")));

    let given_up = result(&given_up);
    assert_eq!((given_up.status, given_up.result_pointer.as_str()), (Status::Failed.into(), ""));
    assert!(given_up.stderr_tail.unwrap().contains("could not open image"));
}

#[test]
fn events_of_the_original_system() {
    let [heartbeat, log] = files("event", ["original-heartbeat", "original-log"]);
    for (text, event) in [(heartbeat, "heartbeat"), (log, "log")] {
        assert_eq!(ResultMessage::parse(&text), Ok(ResultMessage::Event(event.to_owned())));
        assert_eq!(Kind::of_text(&text), Some(Kind::Result), "never a job");
    }
}

#[test]
fn reports_of_sites() {
    let [parents, without] = files("report", ["1-parents", "1-without-parents"]).map(|text| {
        let Ok(Up::Report(Report { jobs, complete: true, .. })) = serde_json::from_str(&text) else { panic!("{text}") };
        let kin = |at: usize| (jobs[at].parent.as_ref().map(ToString::to_string), jobs[at].children);
        assert_eq!((jobs[0].name.as_deref(), jobs[1].task.as_deref()), (Some("m17"), Some("mProject")));
        [kin(0), kin(1)]
    });
    let children = Children { all: 1, ended: 0, tasks: Some(143) };
    assert_eq!(parents, [(None, Some(children)), (Some("w".to_owned()), None)]);
    assert_eq!(without, [(None, None), (None, None)]);
}
