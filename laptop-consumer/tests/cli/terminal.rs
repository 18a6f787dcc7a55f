//! What a person at a terminal sees, and is asked.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};

use crate::hub_server::{Reply, Step, brief, sites, status};
use crate::laptop::{Laptop, wait_until};
use crate::server::{ACCOUNT, QUEUE, TOKEN};

/// A program at a terminal.
struct AtTerminal {
    child: Child,
    keyboard: File,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl AtTerminal {
    /// At a terminal that does not say how wide it is.
    fn start(command: &mut Command) -> Self {
        Self::start_in(command, 0)
    }

    /// At a terminal with so many columns.
    fn start_in(command: &mut Command, columns: u16) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there are terminals");
        grantpt(&controller).expect("it is ours");
        unlockpt(&controller).expect("it is ours");
        let name = ptsname(&controller, Vec::new()).expect("it has a name");
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        if columns > 0 {
            let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(&controller, size).expect("it takes a size");
        }
        let end = || OpenOptions::new().read(true).write(true).open(path).expect("it can be opened");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("the program can be started");
        let keyboard = File::from(controller);
        let mut screen = keyboard.try_clone().expect("a descriptor can be had");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sees = Arc::clone(&seen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It ends with an error when the program has ended.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                sees.lock().expect("nobody panics with it").extend_from_slice(&bytes[..count]);
            }
        });
        Self { child, keyboard, seen }
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("nobody panics with it")).into_owned()
    }

    fn wait_for(&self, text: &str) {
        wait_until(&format!("{text:?} on the screen"), || self.screen().contains(text));
    }

    fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("a terminal takes keys");
    }

    fn end(&mut self) -> Option<i32> {
        let mut code = None;
        wait_until("the end of the program", || {
            code = self.child.try_wait().expect("a child can be waited for").map(|status| status.code());
            code.is_some()
        });
        code.flatten()
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_person_is_asked_before_many_jobs_are_canceled() {
    for (answer, cancels) in [("y\n", true), ("\n", false), ("no\n", false)] {
        let laptop = Laptop::new();
        laptop.server.set_hub(|request| {
            let body: Value = serde_json::from_str(&request.body).expect("it is JSON");
            let jobs = if body["dry_run"] == true { 12 } else { 11 };
            Reply::json(&json!({"jobs": jobs, "more": false}))
        });
        let mut person = AtTerminal::start(&mut laptop.command(&["cancel", "--task", "x"]));
        person.wait_for("cancel 12 jobs? [y/N]");
        assert_eq!(laptop.server.asked().len(), 1, "nothing is done before the answer");
        person.types(answer);
        assert_eq!(person.end(), Some(0));
        person.wait_for(if cancels { "11 jobs are to be canceled" } else { "nothing was canceled" });
        assert_eq!(laptop.server.asked().len(), if cancels { 2 } else { 1 });
    }
}

#[test]
fn what_a_job_prints_cannot_drive_the_terminal() {
    let laptop = Laptop::new();
    laptop.server.set_hub(|_| {
        let text = ["a\u{1b}[2Jb\r", "\nc\u{202e}d\r", "e\n"];
        let mut offset = 0;
        let pieces = text.map(|piece| {
            offset += piece.len();
            Step::printed(1, offset - piece.len(), piece)
        });
        Reply::Stream(pieces.into_iter().chain([Step::end()]).collect())
    });
    let mut person = AtTerminal::start(&mut laptop.command(&["logs", "j1", "-f"]));
    assert_eq!(person.end(), Some(0));
    person.wait_for("e\r\n");
    assert_eq!(person.screen(), "a\\u{1b}[2Jb\r\nc\\u{202e}d\r\ne\r\n", "as the lines of a terminal");
}

#[test]
fn who_waits_at_a_terminal_sees_how_far_the_job_is() {
    let laptop = Laptop::new();
    laptop.server.set_hub(|request| match request.asked.as_str() {
        "GET /events" => {
            let mut parked = brief("j1", "parked\u{1b}[2J");
            parked["site"] = json!("beta");
            let [running, parked] = [brief("j1", "running"), parked].map(|brief| Step::event("job", "", &brief));
            Reply::Stream(vec![running, parked, Step::Hold])
        }
        "GET /jobs/j1" => Reply::json(&status("j1", "held")),
        "GET /sites" => Reply::json(&sites()),
        _ => Reply::problem(404, "unknown_job"),
    });
    let mut person = AtTerminal::start(&mut laptop.command(&["wait", "j1"]));
    person.wait_for("parked\\u{1b}[2J at beta for ");
    laptop.server.push(r#"{"job_id":"j1","status":"completed","result_pointer":"file://n/x"}"#);
    laptop.run(&["pull"]);
    assert_eq!(person.end(), Some(0));
    person.wait_for("completed");
    assert!(!person.screen().contains("\u{1b}[2J"), "{:?}", person.screen());
}

#[test]
fn who_waits_without_a_hub_sees_for_how_long() {
    let laptop = Laptop::new();
    let mut person = AtTerminal::start(&mut laptop.command(&["wait", "j1"]));
    person.wait_for("\rj1: no result yet; waited 1 s");
    laptop.server.push(r#"{"job_id":"j1","status":"completed","result_pointer":"file://n/x"}"#);
    assert_eq!(person.end(), Some(0));
    person.wait_for("completed");
    // Elsewhere than at a terminal nothing of it is said.
    assert_eq!(laptop.run(&["wait", "j1"]).stderr, "");
}

#[test]
fn tables_fit_the_terminal() {
    let laptop = Laptop::new();
    let ids = ["67995bdb-e88f-84f3-982a-a41723a075bc", "77995bdb-e88f-84f3-982a-a41723a075bc"];
    laptop.server.set_hub(move |request| {
        if !request.asked.starts_with("GET /jobs") {
            return Reply::problem(404, "unknown_job");
        }
        let jobs = ids.map(|id| {
            let mut job = brief(id, "running");
            (job["name"], job["task"]) = (json!("a name that is as long as it may be"), json!("simulate-everything"));
            job
        });
        Reply::json(&json!({"jobs": jobs}))
    });
    let mut person = AtTerminal::start_in(&mut laptop.command(&["jobs"]), 80);
    assert_eq!(person.end(), Some(0));
    person.wait_for("77995bdb");
    let screen = person.screen();
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    assert!(screen.contains("67995bdb ") && screen.contains("running"), "{screen}");
    let whole = laptop.run(&["jobs", "--output", "text"]).stdout;
    assert!(ids.iter().all(|id| whole.contains(id)) && whole.contains("as long as it may be"), "{whole}");
}

#[test]
fn a_newcomer_is_asked_five_questions_and_no_secret_is_shown() {
    let laptop = Laptop::new();
    let mut command = laptop.command(&["setup"]);
    for name in ["PRODUCER_URL", "HPC_QUEUE_API_KEY", "CF_ACCOUNT_ID", "CF_RESULTS_QUEUE_ID", "CF_QUEUES_API_TOKEN"] {
        command.env_remove(name);
    }
    command.env("CF_API_BASE_URL", "http://127.0.0.1:9/client/v4").env("HOME", laptop.path(""));
    let mut person = AtTerminal::start(&mut command);
    person.wait_for("1/5 The address of the edge");
    person.types("edge.example\n");
    person.wait_for("cannot be used");
    // Nobody answers there, which the doctor says at once.
    person.types("http://127.0.0.1:9\n");
    person.wait_for("2/5 The key");
    person.types("a secret key\n");
    person.wait_for("3/5 The id of the Cloudflare account");
    person.types(&format!("{ACCOUNT}\n"));
    person.wait_for("4/5 An API token");
    person.types(&format!("{TOKEN}\n"));
    person.wait_for("5/5 The id of the queue hpc-results");
    person.types(&format!("{QUEUE}\n"));
    person.wait_for("what the doctor says of it:");
    person.wait_for("next: ");
    assert!(person.end().is_some());
    let screen = person.screen();
    assert!(!screen.contains("secret") && !screen.contains(TOKEN), "{screen}");
    let text = std::fs::read_to_string(laptop.path(".env")).expect("it was written");
    for line in [
        format!("CF_ACCOUNT_ID={ACCOUNT}"),
        format!("CF_QUEUES_API_TOKEN={TOKEN}"),
        "API_KEY='a secret key'".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }

    // What is there is the answer to an empty line, and is changed only when that is agreed to.
    for (answer, changes) in [("n\n", false), ("y\n", true)] {
        let mut command = laptop.command(&["setup", "--producer-url", "https://other.example"]);
        for name in ["HPC_QUEUE_API_KEY", "CF_ACCOUNT_ID", "CF_RESULTS_QUEUE_ID", "CF_QUEUES_API_TOKEN"] {
            command.env_remove(name);
        }
        command.env("CF_API_BASE_URL", "http://127.0.0.1:9/client/v4").env("HOME", laptop.path(""));
        let mut person = AtTerminal::start(&mut command);
        for question in ["2/5", "3/5", "4/5", "5/5"] {
            person.wait_for(question);
            person.types("\n");
        }
        person.wait_for("is there; change it? [y/N]");
        person.types(answer);
        assert_eq!(person.end(), Some(1));
        let text = std::fs::read_to_string(laptop.path(".env")).expect("it is there");
        assert_eq!(text.contains("PRODUCER_URL=https://other.example\n"), changes, "{text}");
        assert!(text.contains("API_KEY='a secret key'\n"), "{text}");
    }
}

#[test]
fn a_person_is_asked_before_results_are_removed() {
    for (answer, left) in [("n\n", 1), ("y\n", 0)] {
        let laptop = Laptop::new();
        laptop.server.push(r#"{"job_id":"j1","status":"completed","result_pointer":"file://n/x"}"#);
        laptop.run(&["pull"]);
        let mut person = AtTerminal::start(&mut laptop.command(&["purge", "j1"]));
        person.wait_for("remove the results of 1 job from ");
        assert!(laptop.stored("j1").is_some(), "nothing is done before the answer");
        person.types(answer);
        assert_eq!(person.end(), Some(0));
        assert_eq!(laptop.names("results").len(), left);
    }
}

#[test]
fn who_submits_many_jobs_at_a_terminal_sees_a_bar_and_the_sum() {
    let laptop = Laptop::new();
    std::fs::write(laptop.path("a.ndjson"), "1\n2\n").expect("a file can be written");
    let mut person = AtTerminal::start(&mut laptop.command(&["submit", "--task", "t", "--from", "a.ndjson"]));
    assert_eq!(person.end(), Some(0));
    person.wait_for("2 jobs are submitted; `laptop-consumer wait --all` waits for all results");
    assert!(person.screen().contains("] 0 of 2 jobs"), "{}", person.screen());
}
