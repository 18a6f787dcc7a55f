//! What comes from outside: settings files of others, keys in plain view, text, outputs and messages made to do harm.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rustix::fs::{Gid, Uid};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::http::send;
use testkit::{
    Consumer, Edge, Front, Laptop, PATIENCE, Process, Producer, Queue, Refusal, SCRIPT, Spoken, command, parts,
    wait_until, words_of,
};

use crate::private::open_by_list;

/// Two ordinary users. The numbers are nobody's.
const ATTACKER: u32 = 64_001;
const VICTIM: u32 = 64_002;

/// A machine that both of them use: a directory that both can reach, and our programs in it.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().expect("a directory can be made"));
        let is_root = rustix::process::geteuid().is_root();
        assert!(is_root, "this test makes files of two other users, which only root can; run it as root");
        mode(machine.0.path(), 0o755);
        for name in ["laptop-consumer", "hpc-consumer"] {
            fs::copy(parts::program(name), machine.path(name)).expect("a program can be copied");
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A new directory of a user.
    fn directory(&self, name: &str, owner: u32, bits: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("a directory can be made");
        mode(&path, bits);
        own(&path, owner);
        path
    }

    /// What a program of ours says to the victim, who works in this directory, and how it ends.
    fn spoken(&self, program: &str, words: &[&str], directory: &Path) -> (Option<i32>, String) {
        let mut command = Command::new(self.path(program));
        command.env_clear().env("HOME", self.path("home")).env("PATH", "/usr/bin:/bin").current_dir(directory);
        command.env("HPC_QUEUE_API_KEY", "s3cret").env("HPC_QUEUE_CF_QUEUES_API_TOKEN", "s3cret");
        let mut process = Process::start(program, command.args(words).uid(VICTIM).gid(VICTIM), self.0.path());
        (process.wait(PATIENCE).code(), process.output() + &process.log())
    }
}

fn mode(path: &Path, bits: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(bits)).expect("a mode can be set");
}

fn own(path: &Path, id: u32) {
    rustix::fs::chown(path, Some(Uid::from_raw(id)), Some(Gid::from_raw(id))).expect("root gives files away");
}

/// A file of a user.
fn file(path: &Path, content: &str, owner: u32, bits: u32) {
    fs::write(path, content).expect("a file can be written");
    own(path, owner);
    mode(path, bits);
}

/// Does anything in this text do more than stand where it is?
fn hazardous(text: &str) -> Option<&str> {
    text.lines().find(|line| line.chars().any(protocol::text::is_hazardous))
}

#[test]
fn settings_files_of_others_where_a_person_works() {
    let machine = Machine::new();
    machine.directory("home", VICTIM, 0o700);
    let theirs = machine.directory("shared", ATTACKER, 0o755);
    let marker = machine.directory("marks", VICTIM, 0o777).join("ran");
    let server = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    server.set_nonblocking(true).expect("a listener can be asked without waiting");
    let address = server.local_addr().expect("it has an address");
    let program = theirs.join("apptainer");
    file(&program, &format!("#!/bin/sh\ntouch {}\n", marker.display()), ATTACKER, 0o755);
    let lines = format!(
        "PRODUCER_URL=http://{address}\nCF_API_BASE_URL=http://{address}/client/v4\nCF_ACCOUNT_ID=a\n\
         CF_JOBS_QUEUE_ID=j\nCF_RESULTS_QUEUE_ID=r\nRESULTS_DIR=/tmp\nAPPTAINER_IMAGE=/dev/null\nAPPTAINER_BIN={}\n",
        program.display()
    );
    let env = theirs.join(".env");
    file(&env, &lines, ATTACKER, 0o644);
    let ours = machine.directory("ours", VICTIM, 0o755);
    let submit = ["submit", "--task", "echo"];
    let named = |words: &[&'static str], path: &Path| {
        let path: &'static str = path.display().to_string().leak();
        [words, &["--env-file", path]].concat()
    };
    // Found, and named from elsewhere.
    for (program, words, directory) in [
        ("laptop-consumer", submit.to_vec(), &theirs),
        ("laptop-consumer", vec!["pull"], &theirs),
        ("hpc-consumer", vec!["run", "--check"], &theirs),
        ("hpc-consumer", vec!["run", "--exit-when-idle"], &theirs),
        ("laptop-consumer", named(&submit, &env), &ours),
        ("hpc-consumer", named(&["run", "--exit-when-idle"], &env), &ours),
    ] {
        let (code, said) = machine.spoken(program, &words, directory);
        assert!(code == Some(2) && said.contains("belongs to another user (uid 64001)"), "{words:?}: {said}");
    }
    // A file of the victim that others can write, and one that others can put another file in place of.
    let open = machine.directory("open", VICTIM, 0o777);
    for (directory, bits, says) in [(&ours, 0o666, "chmod go-w"), (&ours, 0o660, ""), (&open, 0o600, "--env-file")] {
        file(&directory.join(".env"), &lines, VICTIM, bits);
        if says.is_empty() {
            // The group is another one than the victim's own.
            rustix::fs::chown(directory.join(".env"), None, Some(Gid::from_raw(ATTACKER))).expect("root can");
        }
        let (code, said) = machine.spoken("laptop-consumer", &submit, directory);
        assert!(code == Some(2) && said.contains("by others") && said.contains(says), "{bits:o}: {said}");
    }
    // Of which the mode says that the victim's own group may write, in which nobody else is.
    file(&ours.join(".env"), &lines, VICTIM, 0o600);
    open_by_list(&ours.join(".env"), ATTACKER);
    let (code, said) = machine.spoken("laptop-consumer", &submit, &ours);
    assert!(code == Some(2) && said.contains("by others (mode 0770)"), "{said}");
    assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "somebody was sent something");
    assert!(!marker.exists(), "the program of the other user ran");
}

#[test]
fn a_sites_file_or_a_secret_in_which_others_have_a_say() {
    let machine = Machine::new();
    machine.directory("home", VICTIM, 0o700);
    let ours = machine.directory("ours", VICTIM, 0o755);
    let (site, secret, image) = (ours.join("site.toml"), ours.join("token"), ours.join("a.sif"));
    let check = |of_site: (u32, u32), of_secret: (u32, u32), of_image: (u32, u32)| {
        let text = "[pool.a]\nimage = \"a.sif\"\nsecrets = { k = \"token\" }\n";
        file(&site, text, of_site.0, of_site.1);
        file(&secret, "s3cret", of_secret.0, of_secret.1);
        file(&image, "an image", of_image.0, of_image.1);
        let (code, said) = machine.spoken("hpc-consumer", &["site", "check", "site.toml"], &ours);
        assert!(!said.contains("s3cret"), "{said}");
        (code, said)
    };
    let (well, theirs) = ((VICTIM, 0o600), (ATTACKER, 0o644));
    let (code, said) = check(well, well, well);
    assert_eq!(code, Some(0), "{said}");
    for (of_site, of_secret, says) in [
        (theirs, well, "site.toml belongs to another user (uid 64001)"),
        ((VICTIM, 0o622), well, "`chmod go-w site.toml`"),
        ((VICTIM, 0o200), well, "cannot read the site's file site.toml: Permission denied"),
        (well, theirs, "/token belongs to another user (uid 64001)"),
        (well, (VICTIM, 0o640), "is open to others than you (mode 0640); `chmod 600 "),
        (well, (VICTIM, 0o602), "is open to others than you (mode 0602)"),
        (well, (VICTIM, 0o200), "cannot be read by you (mode 0200); `chmod 600 "),
    ] {
        let (code, said) = check(of_site, of_secret, well);
        assert!(code == Some(2) && said.contains(says), "{says}: {code:?} {said}");
    }
    // An image only keeps jobs from running.
    let (code, said) = check(well, well, (ATTACKER, 0o600));
    assert!(code == Some(0) && said.contains("a.sif cannot be read by you, so its jobs cannot run"), "{said}");
    assert!(said.contains("pools: a (not ready)"), "{said}");
}

#[test]
fn a_settings_file_that_came_in_an_archive_names_the_program() {
    let edge = Edge::start();
    let folder = tempfile::tempdir().expect("a directory can be made");
    let path = |name: &str| folder.path().join(name);
    let mut lines: String = edge.settings().iter().map(|(name, value)| format!("{name}='{value}'\n")).collect();
    for (name, value) in [
        ("RESULTS_DIR", path("results").display().to_string()),
        ("STATE_DIR", path("state").display().to_string()),
        ("RUNTIME", "bare".to_owned()),
        ("CONTAINER_CMD", format!("touch {}", path("ran").display())),
    ] {
        lines.push_str(&format!("{name}='{value}'\n"));
    }
    fs::write(path(".env"), lines).expect("a file can be written");
    mode(&path(".env"), 0o600);
    edge.producer().submit(&json!({"task": "echo"}));
    let run = |words: &[&str]| {
        let mut command = command(&parts::program("hpc-consumer"), folder.path());
        let mut process = Process::start("run", command.args(["run", "--exit-when-idle"]).args(words), folder.path());
        (process.wait(PATIENCE).code(), process.log())
    };
    let (code, log) = run(&[]);
    assert!(code == Some(2) && log.contains("CONTAINER_CMD") && log.contains("--env-file .env"), "{log}");
    assert!(!path("ran").exists(), "what merely lay there has run");
    // Whoever names it means it.
    let (code, log) = run(&["--env-file", ".env"]);
    let keeper = Keeper(path("state"));
    assert!(code == Some(0) && path("ran").exists(), "{log}");
    drop(keeper);
}

/// Ends the keeper of a state.
struct Keeper(PathBuf);

impl Drop for Keeper {
    fn drop(&mut self) {
        let Ok(text) = fs::read_to_string(self.0.join("keeper/keeper.json")) else { return };
        let keeper: Option<Value> = serde_json::from_str(&text).ok();
        let pid = keeper.and_then(|keeper| keeper["pid"].as_u64()).and_then(|pid| u32::try_from(pid).ok());
        if let Some(pid) = pid.filter(|pid| words_of(*pid).iter().any(|word| word == "keeper")) {
            testkit::signal(pid, rustix::process::Signal::TERM);
            wait_until("the end of the keeper", PATIENCE, || !testkit::is_alive(pid));
        }
    }
}

#[test]
fn a_key_in_the_list_of_processes() {
    let edge = Edge::start();
    let home = tempfile::tempdir().expect("a directory can be made");
    let path = |name: &str| home.path().join(name).display().to_string();
    for (name, setting) in [("key", "API_KEY"), ("token", "CF_QUEUES_API_TOKEN")] {
        fs::write(path(name), format!("{}\n", edge.setting(setting))).expect("a file can be written");
        mode(Path::new(&path(name)), 0o600);
    }
    let start = |words: &[&str]| {
        let mut command = command(&parts::program("laptop-consumer"), home.path());
        for name in ["PRODUCER_URL", "CF_API_BASE_URL", "CF_ACCOUNT_ID", "CF_RESULTS_QUEUE_ID"] {
            command.env(name, edge.setting(name));
        }
        command.env("RESULTS_POLL_INTERVAL_SECONDS", "0.2").args(["--output", "json"]).args(words);
        Process::start("laptop", &mut command, home.path())
    };
    let mut tail = start(&["tail", "--token-file", &path("token")]);
    let mut submit = start(&["submit", "--task", "echo", "--api-key-file", &path("key")]);
    assert!(submit.wait(PATIENCE).success(), "{}", submit.log());
    assert_eq!(edge.backlog(Queue::Jobs), 1);
    let result = json!({"v": 1, "job_id": "j1", "status": "completed", "result_pointer": "x"}).to_string();
    edge.push(Queue::Results, &[&result]);
    wait_until("the result", PATIENCE, || tail.output().contains("j1"));
    assert!(tail.is_running());
    let process = format!("/proc/{}", tail.pid());
    assert!(!words_of(tail.pid()).concat().contains(edge.setting("CF_QUEUES_API_TOKEN")), "{:?}", words_of(tail.pid()));
    let environment = fs::read(format!("{process}/environ")).expect("it is our process");
    assert!(!String::from_utf8_lossy(&environment).contains(edge.setting("CF_QUEUES_API_TOKEN")));
    // And what is written on how to submit shows none either.
    for (program, words) in [("local-edge", ["serve", "--help"]), ("laptop-consumer", ["submit", "--help"])] {
        let help = command(&parts::program(program), home.path()).args(words).output().expect("it starts").stdout;
        assert!(!String::from_utf8_lossy(&help).contains("-H \"x-api-key"), "{program}");
    }
}

#[test]
fn the_holder_of_the_queue_token_forges_a_result() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let job = edge.producer().submit(&json!({"task": "script", "input": "echo 42 > output.json"}));
    consumer.run_until_idle();
    let record = consumer.record(&job).expect("it has ended");
    let mut forged = record.clone();
    forged["output"] = json!(43);
    edge.push(Queue::Results, &[&forged.to_string()]);
    let laptop = Laptop::new(&edge);
    let spoken = laptop.run(&["tail", "--until-idle"]);
    assert_eq!(spoken.results(), std::slice::from_ref(&record), "the first one is the result");
    assert!(spoken.log.contains(&format!("another result of the job {job}")), "{}", spoken.log);
    assert_eq!(laptop.run(&["show", &job]).results(), [record]);
    let path = spoken.log.split("is kept in ").nth(1).and_then(|rest| rest.split(".json").next());
    let kept = fs::read_to_string(path.expect("it says where").to_owned() + ".json").expect("it is there");
    assert_eq!(serde_json::from_str::<Value>(&kept).expect("it is JSON"), forged);
}

/// What a terminal would take for a title, a cleared screen and a line of the log, as JSON writes it.
const EVIL: &str = r"\u001b]0;owned\u0007\u001b[2J\r\nERROR all is lost\u009b31m\u202e\u007f";

#[test]
fn a_hostile_queue_service_writes_into_log_and_terminal() {
    let edge = Edge::start();
    let front = Front::before(&edge.address());
    // So that each look is one, and meets the next refusal.
    front.hold_nothing();
    let api = format!("http://{}/client/v4", front.address());
    let assert_harmless = |text: &str| {
        assert!(text.contains("all is lost"), "nothing was said of it: {text}");
        assert_eq!(hazardous(text), None);
        assert!(!text.lines().any(|line| line.starts_with("ERROR")), "it forged a line: {text}");
    };
    let home = tempfile::tempdir().expect("a directory can be made");
    let laptop = |words: &[&str]| {
        let mut command = command(&parts::program("laptop-consumer"), home.path());
        command.env("CF_API_BASE_URL", &api).env("PRODUCER_URL", format!("http://{}", front.address()));
        let mut process = Process::start(
            "laptop",
            command.args(words).args(["--log", "debug", "--env-file"]).arg(edge.env_file()),
            home.path(),
        );
        process.wait(PATIENCE);
        process.output() + &process.log()
    };
    // A trouble that passes is logged, one that does not is the error at the end.
    for (status, code) in [(500, 15_000), (403, 10_000)] {
        front.refuse(1, &Refusal::of_api("/pull", status, code, EVIL));
        assert_harmless(&laptop(&["pull"]));
    }
    let problem = format!(r#"{{"code":"invalid_job","detail":"{EVIL}","field":"{EVIL}"}}"#);
    let refusal = |body: &str, status| Refusal {
        path_suffix: "/jobs",
        status,
        headers: vec![("content-type", "application/problem+json")],
        body: body.to_owned(),
    };
    front.refuse(1, &refusal(&problem, 422));
    assert_harmless(&laptop(&["submit", "--task", "echo"]));
    front.refuse(1, &refusal("<html>\u{1b}[2J\nERROR all is lost\u{9b}31m</html>", 503));
    assert_harmless(&laptop(&["submit", "--task", "echo"]));
    let warning = format!(r#"{{"success":true,"result":{{"ackCount":0,"warnings":{{"l":"{EVIL}"}}}}}}"#);
    let result = json!({"v": 1, "job_id": "j1", "status": "completed", "result_pointer": "x"}).to_string();
    edge.push(Queue::Results, &[&result]);
    front.refuse(1, &Refusal { path_suffix: "/ack", status: 200, headers: Vec::new(), body: warning });
    assert_harmless(&laptop(&["pull"]));
    edge.push(Queue::Results, &[&format!(r#"{{"event_type":"{EVIL}"}}"#)]);
    assert_harmless(&laptop(&["pull"]));
    for format in ["text", "json"] {
        let consumer = Consumer::bare(&edge, SCRIPT).set("CF_API_BASE_URL", &api).set("HPC_QUEUE_LOG_FORMAT", format);
        edge.push(Queue::Jobs, &[&format!(r#"{{"job_id":"j2","task":7,"{EVIL}":"{EVIL}","input":1}}"#)]);
        front.refuse(1, &Refusal::of_api("/pull", 500, 15_000, EVIL));
        let mut daemon = consumer.start();
        daemon.wait_for_log("all is lost", PATIENCE);
        wait_until("the rejection", PATIENCE, || daemon.log().contains("rejected"));
        assert_harmless(&daemon.log());
        front.refuse(1_000, &Refusal::of_api("/pull", 500, 15_000, EVIL));
        wait_until("the trouble to be seen", PATIENCE, || consumer.ask(&["status"]).output.contains("all is lost"));
        for words in [&["status"][..], &["status", "--output", "json"], &["jobs"]] {
            assert_eq!(hazardous(&consumer.ask(words).output), None, "{words:?}");
        }
        daemon.kill();
        // The next one is not to meet what was meant for this one.
        let left = front.refusals_left();
        (0..left).for_each(|_| drop(send(Producer { url: api.clone(), api_key: String::new() }.post("/pull"))));
    }
}

#[test]
fn a_retry_after_of_a_year() {
    let edge = Edge::start();
    let front = Front::before(&edge.address());
    let laptop = Laptop::with_producer(
        &edge,
        Producer { url: format!("http://{}", front.address()), api_key: edge.setting("API_KEY").to_owned() },
    );
    for after in ["31536000", "18446744073709551615"] {
        front.refuse(
            100,
            &Refusal {
                path_suffix: "/jobs",
                status: 429,
                headers: vec![("retry-after", after), ("content-type", "application/problem+json")],
                body: r#"{"code":"queue_full","detail":"later","retryable":true}"#.to_owned(),
            },
        );
        let begin = Instant::now();
        let spoken: Spoken = laptop.run(&["submit", "--task", "echo"]);
        assert_eq!(spoken.status.code(), Some(75), "{spoken:?}");
        assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
    }
    let mut api = Refusal::of_api("/pull", 429, 10_250, "later");
    api.headers.push(("retry-after", "31536000"));
    front.refuse(100, &api);
    let home = tempfile::tempdir().expect("a directory can be made");
    let mut command = command(&parts::program("laptop-consumer"), home.path());
    command.env("CF_API_BASE_URL", format!("http://{}/client/v4", front.address()));
    let mut pull = Process::start("pull", command.args(["pull", "--env-file"]).arg(edge.env_file()), home.path());
    assert_eq!(pull.wait(PATIENCE).code(), Some(75), "{}", pull.log());
    // Who goes on until it works does so within a quarter of an hour.
    let consumer =
        Consumer::bare(&edge, SCRIPT).set("CF_API_BASE_URL", format!("http://{}/client/v4", front.address()));
    consumer.start().wait_for_log("next try in 15 min", PATIENCE);
}

#[test]
fn an_output_that_breaks_whoever_reads_results() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let half = consumer.home().join("half.json");
    fs::write(&half, r#"{"name": "\udcff"}"#).expect("a file can be written");
    let copy = format!("cp {} output.json", half.display());
    let deep = "(yes [ | head -n 23000; yes ] | head -n 23000) > output.json";
    let filler = "yes 1, | head -n 50000";
    let wide = format!("(echo [; {filler}; yes [ | head -n 200; yes ] | head -n 200; echo ]) > output.json");
    for (text, says) in [(copy.as_str(), r"\udcff"), (deep, "deeper than 128"), (&wide, "deeper than 128")] {
        let job = edge.producer().submit(&json!({"task": "script", "input": text}));
        consumer.run_until_idle();
        let record = consumer.record(&job).expect("it has ended");
        assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("output")), "{record}");
        assert!(record["message"].as_str().is_some_and(|message| message.contains(says)), "{record}");
        assert!(record.get("output").is_none(), "{record}");
        let kept = fs::metadata(consumer.job_dir(&job).join("output.json")).expect("the file stays").len();
        assert_eq!(record["output_bytes"], kept, "{record}");
        assert!(record["result_pointer"].as_str().is_some_and(|uri| uri.ends_with("/output.json")), "{record}");
    }
    let innocent = edge.producer().submit(&json!({"task": "script", "input": "echo 1 > output.json"}));
    consumer.run_until_idle();
    // One line after the other, as a program reads them.
    let results = Laptop::new(&edge).take_results();
    assert_eq!((results.len(), &results[3]["job_id"]), (4, &json!(innocent)));
}

#[test]
fn garbage_that_fills_both_ends() {
    /// More than are kept.
    const MESSAGES: usize = 1_200;
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let push = |queue, message: &dyn Fn(usize) -> String| {
        let messages: Vec<String> = (0..MESSAGES).map(message).collect();
        for batch in messages.chunks(100) {
            edge.push(queue, &batch.iter().map(String::as_str).collect::<Vec<_>>());
        }
    };
    push(Queue::Jobs, &|number| format!("garbage {number}"));
    consumer.run_until_idle();
    assert_eq!(edge.backlog(Queue::Jobs), 0);
    let kept = consumer.rejected().len();
    assert!((900..1_050).contains(&kept), "{kept} are kept on the cluster");

    let real = json!({"v": 1, "job_id": "real", "status": "completed", "result_pointer": "x"}).to_string();
    edge.push(Queue::Results, &[&real]);
    push(Queue::Results, &|number| format!("garbage {number}"));
    push(Queue::Results, &|number| json!({"event_type": "heartbeat", "number": number}).to_string());
    push(Queue::Results, &|number| {
        json!({"v": 1, "job_id": "real", "status": "failed", "result_pointer": number.to_string()}).to_string()
    });
    let laptop = Laptop::new(&edge);
    let data = laptop.path("data");
    assert_eq!(laptop.take_results().len(), 1);
    for folder in ["rejected", "events", "conflicting"] {
        let kept = fs::read_dir(data.join(folder)).expect("it is there").count();
        assert!((900..=1_000).contains(&kept), "{kept} are kept in {folder}");
        let size: u64 =
            fs::read_dir(data.join(folder)).unwrap().map(|file| file.unwrap().metadata().unwrap().size()).sum();
        assert!(size <= 64_000_000, "{size} bytes are kept in {folder}");
    }
    assert_eq!(laptop.run(&["show", "real"]).results()[0]["status"], "completed");
}
