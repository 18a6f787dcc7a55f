//! Workflows that go on after an earlier one: what is done is not done again.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use testkit::{Laptop, PATIENCE, wait_until};

use super::graphs::{Case, Task, document};
use super::record_of;

/// A case whose tasks note in `ran` that they begin, and of which some fail until `NAME.ok` is there.
struct Noted {
    case: Case,
    laptop: Laptop,
}

impl Noted {
    fn new() -> Self {
        let case = Case::confined();
        let laptop = Laptop::new(&case.edge);
        let noted = Self { case, laptop };
        noted.write("raw.txt", "raw\n");
        noted
    }

    fn path(&self, name: &str) -> PathBuf {
        self.case.home.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file can be written");
    }

    /// What ran since this was asked last, in the order of the alphabet.
    fn ran(&self) -> String {
        let text = fs::read_to_string(self.path("ran")).unwrap_or_default();
        let _ = fs::remove_file(self.path("ran"));
        let mut ran: Vec<&str> = text.lines().collect();
        ran.sort_unstable();
        ran.join(" ")
    }

    /// Two chains that meet: `b` and `c` fail until they are let go on.
    fn document(&self, last: &str) -> Value {
        let home = self.case.home.path().display();
        let line = |id: &str, line: &str| format!("echo {id} >> {home}/ran; {line}");
        let held = |id: &str, run: &str| line(id, &format!("[ -e {home}/{id}.ok ] && {run}"));
        let lines = [
            line("a", "cat raw.txt raw.txt > sub/a.txt"),
            line("aa", "mkdir made && echo 1 > made/one && echo 2 > other.txt"),
            held("b", "cat sub/a.txt > b.txt"),
            held("c", "cat made/one other.txt > c.txt"),
            line("d", last),
        ];
        let [a, aa, b, c, d] = lines.each_ref().map(String::as_str);
        let tasks: [Task<'_>; 5] = [
            ("a", &[], &["raw.txt"], &["sub/a.txt"], a),
            ("aa", &[], &[], &["made", "other.txt"], aa),
            ("b", &["a"], &["sub/a.txt"], &["b.txt"], b),
            ("c", &["aa"], &["made", "other.txt"], &["c.txt"], c),
            ("d", &["b", "c"], &["b.txt", "c.txt"], &["d.txt"], d),
        ];
        document(&tasks)
    }

    /// Submits it as a person does.
    fn run(&self, document: &Value, more: &[&str]) -> String {
        self.write("flow.json", &document.to_string());
        let file = self.path("flow.json");
        let words = ["workflow", "run", file.to_str().expect("paths of tests are plain"), "--task", "flow", "--id"];
        self.id(&[&words, more].concat())
    }

    fn id(&self, words: &[&str]) -> String {
        let submitted = self.laptop.run(words);
        assert!(submitted.status.success(), "{submitted:?}");
        submitted.output.trim().to_owned()
    }

    /// What is told of it in the end, in numbers: all tasks that are done, and those of them that were before.
    fn told(&self, job_id: &str) -> (Value, Value) {
        record_of(&self.case.consumer, job_id, PATIENCE);
        let text = fs::read_to_string(self.case.consumer.job_dir(job_id).join("output.json")).expect("it tells");
        let output: Value = serde_json::from_str(&text).expect("it is JSON");
        (output["done"].clone(), output["resumed"].clone())
    }

    fn made(&self, job_id: &str, name: &str) -> Option<String> {
        fs::read_to_string(self.case.consumer.job_dir(job_id).join(name)).ok()
    }
}

#[test]
fn a_rerun_does_what_is_missing_and_one_after_that_what_is_missing_then() {
    let noted = Noted::new();
    let mut daemon = noted.case.consumer.start();
    let first = noted.run(&noted.document("cat b.txt c.txt > d.txt"), &[]);
    assert_eq!((noted.told(&first), noted.ran().as_str()), ((json!(2), json!(null)), "a aa b c"));

    noted.write("c.ok", "");
    let second = noted.id(&["rerun", &first, "--id"]);
    let resumed = |of: &str, tasks: u64| json!({ "of": of, "tasks": tasks });
    assert_eq!((noted.told(&second), noted.ran().as_str()), ((json!(3), resumed(&first, 2)), "b c"));

    // The last one waits, so that a daemon can die under it.
    let home = noted.case.home.path().display().to_string();
    noted.write("b.ok", "");
    let waits = noted.document(&format!("while [ ! -e {home}/go ]; do sleep 0.05; done; cat b.txt c.txt > d.txt"));
    let third = noted.run(&waits, &["--resume", &second]);
    wait_until("the last task", PATIENCE, || fs::read_to_string(noted.path("ran")).is_ok_and(|ran| ran == "b\nd\n"));
    daemon.kill();
    let _daemon = noted.case.consumer.start();
    noted.write("go", "");
    assert_eq!((noted.told(&third), noted.ran().as_str()), ((json!(5), resumed(&second, 3)), "b d"));
    assert_eq!(noted.made(&third, "d.txt").as_deref(), Some("raw\nraw\n1\n2\n"));
    // The earlier ones stay as they were.
    assert!(noted.made(&first, "sub/a.txt").is_some() && noted.made(&first, "b.txt").is_none());
}

#[test]
fn what_has_changed_runs_again_and_what_needs_it() {
    let noted = Noted::new();
    noted.write("b.ok", "");
    noted.write("c.ok", "");
    let _daemon = noted.case.consumer.start();
    let good = noted.document("cat b.txt c.txt > d.txt");
    let first = noted.run(&noted.document("false"), &[]);
    assert_eq!((noted.told(&first).0, noted.ran().as_str()), (json!(4), "a aa b c d"));
    // Another command.
    let second = noted.run(&good, &["--resume", &first]);
    assert_eq!((noted.told(&second).0, noted.ran().as_str()), (json!(5), "d"));
    // Nothing at all is missing.
    let third = noted.run(&good, &["--resume", &second]);
    assert_eq!((noted.told(&third).0, noted.ran().as_str()), (json!(5), ""));
    // A file that is brought.
    noted.write("raw.txt", "RAW\n");
    let fourth = noted.run(&good, &["--resume", &third]);
    assert_eq!((noted.told(&fourth).0, noted.ran().as_str()), (json!(5), "a b d"));
    assert_eq!(noted.made(&fourth, "d.txt").as_deref(), Some("RAW\nRAW\n1\n2\n"));
    // All of it, where that is asked for; so it is of one that has completed.
    let fifth = noted.id(&["rerun", &first, "--anew", "--id"]);
    assert_eq!((noted.told(&fifth), noted.ran().as_str()), ((json!(4), json!(null)), "a aa b c d"));
}

#[test]
fn what_is_gone_runs_anew_and_what_goes_on_is_waited_for() {
    let noted = Noted::new();
    let _daemon = noted.case.consumer.start();
    let first = noted.run(&noted.document("cat b.txt c.txt > d.txt"), &[]);
    assert_eq!(noted.told(&first).0, json!(2));
    fs::remove_dir_all(noted.case.consumer.job_dir(&first)).expect("it is there");
    noted.ran();
    let second = noted.id(&["rerun", &first, "--id"]);
    let (done, resumed) = noted.told(&second);
    assert_eq!((done, noted.ran().as_str(), &resumed["tasks"]), (json!(2), "a aa b c", &json!(0)));
    let said = format!("all tasks ran: the directory of {first} is not here; it was on another site, or was removed");
    assert_eq!(resumed["note"], json!(said));

    let home = noted.case.home.path().display().to_string();
    let waits = format!("while [ ! -e {home}/go ]; do sleep 0.05; done");
    let goes_on = noted.run(&document(&[("a", &[], &[], &[], &waits)]), &[]);
    wait_until("the task", PATIENCE, || noted.case.consumer.job_dir(&format!("{goes_on}-1")).exists());
    let too_early = noted.run(&document(&[("a", &[], &[], &[], &waits)]), &["--resume", &goes_on]);
    let record = record_of(&noted.case.consumer, &too_early, PATIENCE);
    assert!(
        record["stderr_tail"].as_str().is_some_and(|told| told.contains(&format!("{goes_on}, which has not ended"))),
        "{record}"
    );
    noted.write("go", "");
    assert_eq!(record_of(&noted.case.consumer, &goes_on, PATIENCE)["status"], json!("completed"));
    // One that is no workflow.
    let other = noted.case.submit(&json!({ "x": 1 }));
    record_of(&noted.case.consumer, &other, PATIENCE);
    let after = noted.run(&document(&[("a", &[], &[], &[], "true")]), &["--resume", &other]);
    assert_eq!(noted.told(&after).1["note"], json!(format!("all tasks ran: {other} was no workflow")));
}
