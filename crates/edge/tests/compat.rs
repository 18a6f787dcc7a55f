//! What was ever submitted is admitted today: every file of `tests/compat/wire/submission` and `batch`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use edge::{Config, Decision, Head, Pending, Route, Secret, route};
use protocol::{JobId, JobMessage};

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/compat/wire").join(name)
}

/// Submits the file, and gives what goes to the queue.
fn admitted(path: &str, file: &Path) -> Pending {
    let head =
        Head { method: "POST", path, content_type: Some("application/json"), api_key: Some("key"), ..Head::default() };
    let config = Config { api_key: Secret::new("key"), ..Config::default() };
    let Route::ReadBody(admission) = route(&head, &config) else { panic!("{path}") };
    let now = protocol::timestamp_from_millis(0);
    let body = fs::read(file).expect("a golden file can be read");
    match admission.admit(&body, now, &mut || [7; 16]) {
        Decision::Enqueue(pending) => pending,
        Decision::Answer(answer) => panic!("{}: {answer:?}", file.display()),
    }
}

fn names(name: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory(name)).expect("golden files are in the repository");
    let names = entries.map(|entry| entry.expect("a directory can be read to its end").file_name());
    names.map(|name| name.into_string().expect("names are plain")).collect()
}

#[test]
fn submissions() {
    let files = ["original.json", "1-whole.json", "1-nulls.json", "1-pool.json"];
    assert_eq!(names("submission"), files.map(str::to_owned).into());
    let [original, whole, nulls, pool] = files.map(|file| {
        let pending = admitted("/jobs", &directory("submission").join(file));
        JobMessage::parse(&pending.messages()[0]).unwrap()
    });
    assert_eq!((original.spec.task.as_str(), original.spec.input.as_str()), ("simulate", r#"{"iterations":100}"#));
    assert_eq!((nulls.spec.task.as_str(), nulls.spec.metadata, nulls.spec.retries), ("echo", None, None));
    assert_eq!(whole.job_id, JobId::from_idempotency_key("k", None));
    assert_eq!((pool.spec.name.as_deref(), pool.spec.pool.unwrap().as_str()), (Some("first try é"), "gpu-a100"));
    assert_eq!(pool.spec.resources.unwrap().memory.unwrap().bytes(), 8 << 30);
    let spec = whole.spec;
    assert_eq!((spec.time_limit_seconds, spec.retries, spec.rerunnable), (Some(60), Some(3), Some(false)));
}

#[test]
fn batches() {
    assert_eq!(names("batch"), BTreeSet::from(["1.json".to_owned()]));
    let pending = admitted("/jobs/batch", &directory("batch").join("1.json"));
    let ids: Vec<JobId> = pending.messages().iter().map(|message| JobMessage::parse(message).unwrap().job_id).collect();
    assert_eq!(ids, [JobId::from_random([7; 16]), JobId::from_idempotency_key("k", None)], "the third is refused");
}
