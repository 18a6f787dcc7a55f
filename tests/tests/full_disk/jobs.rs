//! Jobs that need room, and note elsewhere when they begin and how they end; and the count of what became of them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::http::send;
use testkit::{Consumer, Edge, PATIENCE, Queue, wait_until};

use super::LONG_PATIENCE;

/// So that input, output and record take two pages each, and can be cut in the middle.
const BALLAST_BYTES: usize = 6_000;

/// Notes its beginning below `$1`, prints, waits for the gate, writes its input as its output and notes how that went.
/// `$2` tells how it names its output.
const SCRIPT: &str = r#"
home=$1
case $2 in absolute) output=$WORK_DIR/output.json ;; *) output=output.json ;; esac
note() { echo "$1" >> "$home/notes/$JOB_ID"; }
note begin
echo 'for stdout.log'
echo 'for stderr.log' >&2
while test -e "$home/closed"; do sleep 0.02; done
cat input.json > "$output"
code=$?
note "end $code"
exit $code
"#;

/// What the jobs of one test have noted.
pub(super) struct Jobs {
    home: TempDir,
}

impl Jobs {
    /// None so far.
    pub(super) fn new() -> Self {
        let jobs = Self { home: tempfile::tempdir().expect("a directory can be made") };
        fs::create_dir(jobs.path("notes")).expect("the directory of a test can be written to");
        fs::write(jobs.path("job.sh"), SCRIPT).expect("the directory of a test can be written to");
        jobs
    }

    /// A consumer that runs them. Deliveries that a daemon has taken with it come again soon.
    pub(super) fn consumer(&self, edge: &Edge) -> Consumer {
        self.consumer_naming(edge, "relative")
    }

    /// One whose jobs name their output by an `absolute` or a `relative` path.
    pub(super) fn consumer_naming(&self, edge: &Edge, output: &str) -> Consumer {
        let (script, home) = (self.path("job.sh"), self.home.path());
        Consumer::bare(edge, &format!("sh '{}' '{}' {output}", script.display(), home.display()))
            .set("VISIBILITY_TIMEOUT_MS", "3000")
    }

    /// Holds up jobs from here on, before they write their output.
    pub(super) fn close_gate(&self) {
        fs::write(self.path("closed"), "").expect("the directory of a test can be written to");
    }

    /// Lets them go on.
    pub(super) fn open_gate(&self) {
        fs::remove_file(self.path("closed")).expect("the gate was closed");
    }

    /// What the runs of a job have noted, in order.
    pub(super) fn noted(&self, job_id: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path("notes").join(job_id)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until the runs of a job have noted so much.
    pub(super) fn wait_for_notes(&self, job_id: &str, count: usize) {
        wait_until(&format!("{count} notes of {job_id}"), PATIENCE, || self.noted(job_id).len() >= count);
    }

    /// Checks that the jobs, in the order of their numbers, have a good record each, which is their result, and ran to
    /// a good end once. Returns how many messages the queue of results had.
    pub(super) fn assert_done(&self, edge: &Edge, results: &Path, jobs: &[String]) -> usize {
        let messages = edge.pull(Queue::Results);
        for (number, job_id) in jobs.iter().enumerate() {
            let path = record_path(results, job_id);
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let text = text.trim_end();
            let record: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
            let seen = (&record["status"], &record["output"]["input"]["number"]);
            assert_eq!(seen, (&json!("completed"), &json!(number)), "{record}");
            let mut of_job = messages.iter().filter(|message| message.body.contains(job_id.as_str())).peekable();
            assert!(of_job.peek().is_some(), "no result of {job_id}");
            assert!(of_job.all(|message| message.body == text), "a result of {job_id} is not its record {text}");
            self.assert_ran(job_id);
        }
        messages.len()
    }

    /// One run ended well, and none began after it, or while another one went on.
    fn assert_ran(&self, job_id: &str) {
        let noted = self.noted(job_id);
        let apart = noted
            .chunks(2)
            .all(|run| matches!(run, [begin, end] if begin.as_str() == "begin" && end.starts_with("end ")));
        let well = noted.iter().filter(|line| line.as_str() == "end 0").count();
        let last = noted.last().is_some_and(|line| line.as_str() == "end 0");
        assert!(apart && well == 1 && last, "the runs of {job_id}: {noted:?}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

fn job(number: usize) -> Value {
    json!({"task": "note", "input": {"number": number, "ballast": "x".repeat(BALLAST_BYTES)}})
}

/// Submits the job with this number.
pub(super) fn submit(edge: &Edge, number: usize) -> String {
    edge.producer().submit(&job(number))
}

/// Submits job 0 under a key; when this is repeated, there are two messages of one job.
pub(super) fn submit_under_key(edge: &Edge, key: &str) -> String {
    let answer = send(edge.producer().post("/jobs").header("idempotency-key", key).body(job(0).to_string()));
    assert_eq!(answer.status, 202, "{answer:?}");
    let answer = answer.json();
    answer["job_id"].as_str().unwrap_or_else(|| panic!("no job_id in {answer}")).to_owned()
}

/// Waits until these jobs have their records and the queues know it. `tend` looks after the daemon meanwhile.
pub(super) fn wait_for_results(edge: &Edge, results: &Path, jobs: &[String], mut tend: impl FnMut()) {
    for job_id in jobs {
        wait_until(&format!("the final record of {job_id}"), LONG_PATIENCE, || {
            tend();
            has_record(results, job_id)
        });
    }
    wait_until("all results in the queue, and no job", LONG_PATIENCE, || {
        tend();
        edge.backlog(Queue::Results) >= jobs.len() as u64 && edge.backlog(Queue::Jobs) == 0
    });
}

/// Has the job its final record?
pub(super) fn has_record(results: &Path, job_id: &str) -> bool {
    record_path(results, job_id).exists()
}

fn record_path(results: &Path, job_id: &str) -> PathBuf {
    results.join(format!("{job_id}.json"))
}
