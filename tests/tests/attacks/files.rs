//! Attacks on files that travel with jobs, in `RESULTS_DIR`: a content, a tree or a list that is another one when it is
//! used than it was when it was checked.

use std::fs;
use std::path::Path;

use protocol::JobId;
use serde_json::{Value, json};
use testkit::files::{Asked as _, Content};
use testkit::{Edge, PATIENCE, Queue, wait_for, wait_until};

use crate::users::{ATTACKER, Machine, VICTIM, chmod, own};

fn record(results: &Path, job_id: &str) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(results.join(format!("{job_id}.json"))).ok()?).ok()
}

fn await_record(results: &Path, job_id: &str) -> Value {
    wait_for(&format!("the record of {job_id}"), PATIENCE, || record(results, job_id))
}

/// A job that leaves what it was given.
fn job(job_id: &str, content: &Content, script: &str) -> String {
    json!({
        "v": 2,
        "job_id": job_id,
        "task": "t",
        "input": format!("{script}; cat given > left; test -s said && echo 2 > output.json || echo 1 > output.json"),
        "files": [content.as_file("given")],
        "outputs": {"patterns": ["left"]},
    })
    .to_string()
}

/// What another user tries, where they may enter: to read, to write, to put another one in its place, and the folder.
const SWAP: &str = r#"
    for file in "$1"/.cache/sha256/* "$1"/.staging/*/*/given "$1"/.uploads/*/manifest.json "$1"/.cache "$1"/.staging; do
        cat "$file" 2>/dev/null && echo "reads $file"
        (echo evil > "$file") 2>/dev/null && echo "writes $file"
        (mv "$2" "$file" || ln -f "$2" "$file" || mv "$file" "$file.old") 2>/dev/null && echo "swaps $file"
    done
    ls "$1"/.cache/* "$1"/.staging/* "$1"/.uploads/* 2>/dev/null
    true
"#;

#[test]
fn another_user_and_a_job_swap_no_file_between_check_and_use() {
    let edge = Edge::start();
    let mut machine = Machine::new();
    let (results, state) = (machine.make("results", VICTIM, 0o755), machine.home(VICTIM).join("state"));
    let evil = machine.home(ATTACKER).join("evil");
    machine.done(ATTACKER, &format!("echo evil > {}", evil.display()));
    let (content, gate) = (Content::of_size(100_000), machine.home(VICTIM).join("gate"));
    edge.put_all(&content);
    let [first, second] = [1, 2].map(|number| JobId::from_random([number; 16]).to_string());
    // A job of the same user tries the same, and then waits.
    let swap = "for place in ../.cache/sha256/* ../.cache/new ../.staging/new ../.uploads/new; do \
                (echo evil > $place) 2>/dev/null && echo $place >> said; mv given $place 2>/dev/null && echo $place >> said; done";
    let script = format!("{swap}; touch ready; until [ -e {} ]; do sleep 0.05; done", gate.display());
    edge.push(Queue::Jobs, &[&job(&first, &content, &script)]);
    // Directories of tests lie in `/tmp`, so that is not where jobs may write here.
    let mut command = machine.consumer(&edge, &results, &state);
    command.env("BARE_WRITABLE", machine.make("scratch", VICTIM, 0o700));
    let mut daemon = machine.start("hpc-consumer", &mut command);
    wait_until("the job to have tried it", PATIENCE, || {
        assert!(daemon.is_running(), "the daemon has ended");
        results.join(&first).join("ready").exists()
    });
    let place = results.join(".cache/sha256").join(&content.sha256);
    assert!(fs::read(&place).unwrap() == content.bytes, "it is kept, and is what it was");
    // Somebody shows a result to a colleague.
    for mode in [0o700, 0o755] {
        chmod(&results, mode);
        let line = format!("sh -c '{}' sh {} {}", SWAP.replace('\'', "'\\''"), results.display(), evil.display());
        let said = machine.shell(ATTACKER, &line);
        assert!(said.stdout.is_empty(), "with mode {mode:o}: {}", String::from_utf8_lossy(&said.stdout));
    }
    fs::write(&gate, "").unwrap();
    edge.push(Queue::Jobs, &[&job(&second, &content, "true")]);
    for job_id in [&first, &second] {
        let record = await_record(&results, job_id);
        assert_eq!((&record["status"], &record["files"][0]["sha256"]), (&json!("completed"), &json!(content.sha256)));
        assert_eq!(record["output"], json!(1), "{record}");
    }
    assert_eq!(edge.download(&content, None), (200, content.bytes.clone()));
}

/// What another user has put there while all could write to `RESULTS_DIR`: under the name of a content another one of
/// its length, a tree of a job, and a list that says that all of it is sent.
#[derive(Debug, Clone, Copy)]
enum Planted {
    Cache,
    /// In a directory of ours.
    Content,
    Tree,
    List,
}

impl Planted {
    fn is_not_ours(self) {
        let edge = Edge::start();
        let mut machine = Machine::new();
        let (results, state) = (machine.make("results", VICTIM, 0o777), machine.home(VICTIM).join("state"));
        let content = Content::of_size(100_000);
        edge.put_all(&content);
        let job_id = JobId::from_random([3; 16]).to_string();
        let (folder, file, text) = match self {
            Self::Cache | Self::Content => (".cache", format!("sha256/{}", content.sha256), "0".repeat(100_000)),
            Self::Tree => (".staging", format!("owner/{job_id}/given"), "evil".to_owned()),
            Self::List => {
                let list = json!({"v": 1, "wanted": {"files": true, "output": false}, "files": [], "complete": true});
                (".uploads", format!("{job_id}.1/manifest.json"), list.to_string())
            }
        };
        let place = results.join(folder).join(&file);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, text).unwrap();
        for path in place.ancestors().take_while(|path| *path != results) {
            let is_theirs = !matches!(self, Self::Content) || path == place;
            own(path, if is_theirs { ATTACKER } else { VICTIM }, if path.is_dir() { 0o777 } else { 0o666 });
        }
        edge.push(Queue::Jobs, &[&job(&job_id, &content, "true")]);
        let mut command = machine.consumer(&edge, &results, &state);
        let mut daemon = machine.start("hpc-consumer", &mut command);
        daemon.wait_for_log(&format!("belongs to user {}", ATTACKER.0), PATIENCE);
        assert!(record(&results, &job_id).is_none(), "it waits");
        // As it says.
        let theirs = if matches!(self, Self::Content) { place } else { results.join(folder) };
        fs::rename(theirs, machine.path("moved away")).unwrap();
        let record = await_record(&results, &job_id);
        assert_eq!((&record["status"], &record["files"][0]["sha256"]), (&json!("completed"), &json!(content.sha256)));
        assert!(fs::read(results.join(&job_id).join("left")).unwrap() == content.bytes, "it is what was sent");
    }
}

#[test]
fn files_that_were_put_there_before_are_not_taken_for_ours() {
    std::thread::scope(|scope| {
        for planted in [Planted::Cache, Planted::Content, Planted::Tree, Planted::List] {
            scope.spawn(move || planted.is_not_ours());
        }
    });
}
