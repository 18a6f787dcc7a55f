//! `laptop-consumer`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use testkit::{Consumer, Edge, Laptop, PATIENCE, Process, SCRIPT, signal, wait_until};

use crate::said;

/// The task `command`, as a site has it.
const COMMAND_TASK: &str = r#"
import json, os, subprocess
job = json.load(open("input.json"))
assert job["task"] == "command", job
input = job["input"]
assert set(input) <= {"argv", "files", "stdin"}, input
for name, text in input["files"].items():
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    open(name, "w").write(text)
end = subprocess.run(input["argv"], input=input.get("stdin", ""), capture_output=True, text=True)
json.dump({"exit_code": end.returncode, "stdout": end.stdout, "stderr": end.stderr}, open("output.json", "w"))
"#;

fn with_command_task(edge: &Edge, home: &Path) -> Consumer {
    let program = home.join("command.py");
    fs::write(&program, COMMAND_TASK).expect("a file can be written");
    Consumer::bare(edge, &format!("python3 {}", program.display()))
}

#[test]
fn a_command_runs_on_the_cluster_as_if_it_were_here() {
    let edge = Edge::start();
    let laptop = Laptop::new(&edge);
    let consumer = with_command_task(&edge, &laptop.path(""));
    let _daemon = consumer.start();
    let file = laptop.path("x.py");
    fs::write(&file, "import sys\nprint('hello', sys.argv[1], sys.stdin.read())\nsys.exit('ends with 1')\n").unwrap();
    fs::write(laptop.path("in.txt"), "from a file").unwrap();
    let path = |name: &str| laptop.path(name).display().to_string();
    let (file, stdin) = (path("x.py"), path("in.txt"));
    let run = laptop.run(&["run", "--file", &file, "--stdin", &stdin, "--name", "x", "--", "python3", "x.py", "--a"]);
    assert_eq!(said(&run), (Some(1), "hello --a from a file\n"), "{run:?}");
    assert!(run.log.contains("ends with 1\n"), "{run:?}");

    fs::create_dir(laptop.path("src")).unwrap();
    fs::write(laptop.path("src/y.py"), "print('below')").unwrap();
    let run = laptop.run(&["run", "--file", "src/y.py", "--", "python3", "src/y.py"]);
    assert_eq!(said(&run), (Some(0), "below\n"), "{run:?}");

    let run = laptop.run(&["run", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(said(&run), (Some(0), "out\n"), "{run:?}");
    assert!(run.log.ends_with("err\n"), "{run:?}");
    assert_eq!(said(&laptop.run(&["logs", "last"])), (Some(0), "out\n"), "what it printed is kept");
    let stderr = laptop.run(&["logs", "last", "--stream", "stderr"]);
    assert_eq!((said(&stderr), stderr.log.ends_with("err\n")), ((Some(0), ""), true), "{stderr:?}");
    assert_eq!(laptop.run(&["run", "--", "sh", "-c", "kill -9 $$"]).status.code(), Some(128 + 9));

    // The command never ran, or nobody knows how it ended.
    let run = laptop.run(&["run", "--", "/no/such/program"]);
    assert_eq!(said(&run), (Some(3), ""), "{run:?}");
    assert!(run.log.contains("how the command ended is not known") && run.log.contains("Error"), "{run:?}");
    let run = laptop.run(&["run", "--", "sh", "-c", "head -c 60000 /dev/zero | tr '\\0' x"]);
    assert_eq!(said(&run), (Some(0), "x".repeat(60_000).as_str()), "what is too large for a result comes as a file");

    let queued = laptop.run(&["run", "--no-wait", "--pool", "default", "--", "true"]);
    let id = queued.output.trim();
    assert!(queued.status.success() && id.len() == 36, "{queued:?}");
    assert!(laptop.run(&["wait", id]).status.success());
}

#[test]
fn what_does_not_travel_with_a_command_is_refused_before_anything_is_sent() {
    let edge = Edge::start();
    let laptop = Laptop::new(&edge);
    let path = |name: &str| laptop.path(name).display().to_string();
    fs::create_dir(laptop.path("other")).unwrap();
    for (name, content) in [
        ("large", vec![b'x'; 200_000]),
        ("x.py", b"1".to_vec()),
        ("other/x.py", b"2".to_vec()),
        ("output.json", b"1".to_vec()),
    ] {
        fs::write(laptop.path(name), content).unwrap();
    }
    let large = path("large");
    let [x, other_x, taken, none] = ["x.py", "other/x.py", "output.json", "none"].map(path);
    let cases: [(&[&str], &str); 6] = [
        (&["--stdin", &large, "--", "true"], "--stdin: "),
        (&["--file", &x, "--file", &other_x, "--", "true"], "another file of the name x.py"),
        (&["--file", &taken, "--", "true"], "`output.json` has a meaning of its own"),
        (&["--file", &none, "--", "true"], "No such file"),
        (&["--file", &x], "COMMAND"),
        (&["--no-wait", "--timeout", "1", "--", "true"], "--timeout"),
    ];
    for (arguments, says) in cases {
        let run = laptop.run(&[&["run"], arguments].concat());
        assert_eq!(said(&run), (Some(2), ""), "{run:?}");
        assert!(run.log.contains(says), "{says}: {run:?}");
    }
    assert_eq!(edge.backlog(testkit::Queue::Jobs), 0);
}

#[test]
fn what_does_not_fit_into_the_job_of_a_command_goes_through_the_store_of_files() {
    let edge = Edge::start();
    let laptop = Laptop::new(&edge);
    fs::create_dir(laptop.path("dir")).unwrap();
    for (name, content) in [
        ("small", b"1".to_vec()),
        ("large", vec![b'x'; 200_000]),
        ("half", vec![b'\n'; 40_000]),
        ("more", vec![b'\n'; 40_000]),
        ("image.png", vec![0x89, b'P', 0xff]),
        ("dir/a", b"a".to_vec()),
    ] {
        fs::write(laptop.path(name), content).unwrap();
    }
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--file", "small", "--file", "dir"], &[]),
        (&["--file", "large"], &["large"]),
        (&["--file", "half", "--file", "more"], &["half", "more"]),
        (&["--file", "image.png:in/x", "--file", "small"], &["in/x", "small"]),
        (&["--output", "*.png"], &[]),
    ];
    for (arguments, sent) in cases {
        let run = laptop.run(&[&["run", "--no-wait"], arguments, &["--", "true"]].concat());
        assert!(run.status.success(), "{run:?}");
        let job: Value = serde_json::from_str(&edge.pull(testkit::Queue::Jobs).remove(0).body).unwrap();
        let paths = job["files"].as_array().cloned().unwrap_or_default();
        let paths: Vec<&str> = paths.iter().map(|file| file["path"].as_str().unwrap()).collect();
        assert_eq!(paths, sent, "{arguments:?}");
        let within = job["input"]["files"].as_object().unwrap().len();
        assert_eq!(
            within,
            if sent.is_empty() { arguments.iter().filter(|word| **word == "--file").count() } else { 0 }
        );
        assert_eq!(job.get("outputs").is_some(), arguments.contains(&"--output"));
    }
}

#[test]
fn an_interrupted_run_leaves_the_job_alone() {
    let edge = Edge::start();
    let laptop = Laptop::new(&edge);
    let mut run: Process = laptop.start(&["run", "--", "true"]);
    run.wait_for_log("waiting for its result", PATIENCE);
    signal(run.pid(), rustix::process::Signal::INT);
    assert_eq!(run.wait(PATIENCE).code(), Some(130));
    assert!(run.log().contains("goes on; `laptop-consumer wait "), "{}", run.log());
    assert_eq!(edge.backlog(testkit::Queue::Jobs), 1);
}

#[test]
fn the_end_of_what_a_job_printed_comes_when_it_failed_and_when_it_has_no_output() {
    let edge = Edge::start();
    let laptop = Laptop::new(&edge);
    let consumer = Consumer::bare(&edge, SCRIPT);
    let submit = |text: &str| {
        let submitted = laptop.run(&["submit", "--task", "script", "--input", &json!(text).to_string(), "--id"]);
        submitted.output.trim().to_owned()
    };
    let none = laptop.run(&["logs", "none"]);
    assert_eq!(said(&none), (Some(4), ""), "{none:?}");
    assert!(none.log.contains("hpc-consumer logs none"), "{none:?}");
    let follow = laptop.run(&["logs", "none", "--follow"]);
    assert!(follow.status.code() == Some(4) && follow.log.contains("logs none --follow"), "{follow:?}");

    let failed = submit("echo out; echo why >&2; exit 3");
    let no_output = submit("echo out; echo remark >&2");
    let output = submit("echo out; echo 1 > output.json");
    let silent = submit("true");
    consumer.run_until_idle();
    let results: Vec<Value> = laptop.take_results();
    let of = |id: &str| results.iter().find(|result| result["job_id"] == id).expect("each has a result");
    for (id, says) in [(&failed, "why\n"), (&no_output, "remark\n")] {
        assert_eq!((&of(id)["stdout_tail"], &of(id)["stderr_tail"]), (&json!("out\n"), &json!(says)), "{}", of(id));
        let logs = laptop.run(&["logs", id]);
        assert_eq!((said(&logs), logs.log.as_str()), ((Some(0), "out\n"), says), "{logs:?}");
    }
    let logs = laptop.run(&["logs", &failed, "--stream", "stdout"]);
    assert_eq!((said(&logs), logs.log.as_str()), ((Some(0), "out\n"), ""), "{logs:?}");
    assert!(of(&output).get("stdout_tail").is_none(), "{}", of(&output));
    let logs = laptop.run(&["logs", &output]);
    assert_eq!(said(&logs), (Some(4), ""), "{logs:?}");
    assert!(logs.log.contains(&format!("hpc-consumer logs {output}")), "{logs:?}");
    let logs = laptop.run(&["logs", &silent]);
    assert_eq!((said(&logs), logs.log.contains("printed nothing")), ((Some(0), ""), true), "{logs:?}");
    wait_until("nothing to be left", PATIENCE, || edge.backlog(testkit::Queue::Results) == 0);
}

#[test]
fn an_output_of_any_size_comes_alone_and_as_it_is() {
    let edge = Edge::start();
    let laptop = Laptop::new(&edge);
    let consumer = Consumer::bare(&edge, SCRIPT);
    let script = "echo [ > output.json; yes 1, | head -n 40000 >> output.json; echo 1.50 ] >> output.json";
    let submitted = laptop.run(&["submit", "--task", "script", "--input", &json!(script).to_string(), "--id"]);
    let id = submitted.output.trim().to_owned();
    consumer.run_until_idle();
    let whole = fs::read_to_string(consumer.job_dir(&id).join("output.json")).unwrap();
    assert!(whole.len() > 64_000);
    // The result is in the queue, and the hub has it already.
    for _ in 0..2 {
        let spoken = laptop.run(&["output", "last"]);
        assert!(spoken.output == whole, "{:?} {} bytes: {}", spoken.status, spoken.output.len(), spoken.log);
        assert!(laptop.run(&["output", &id[..8], "-o", "out.json"]).status.success());
        assert!(fs::read_to_string(laptop.path("out.json")).unwrap() == whole);
        fs::write(laptop.path("out.json"), "another").unwrap();
        assert!(laptop.run(&["pull"]).status.success());
    }
    let left: Vec<_> = fs::read_dir(laptop.path("")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains(".part")), "{left:?}");
}

#[test]
fn the_jobs_of_a_file_run_and_what_failed_runs_again_with_its_files() {
    let edge = Edge::start();
    let laptop = Laptop::new(&edge);
    let consumer = Consumer::bare(&edge, SCRIPT);
    fs::write(laptop.path("numbers"), "42").unwrap();
    let gate = laptop.path("mended");
    let good = json!("cp numbers output.json").to_string();
    let bad = json!(format!("test -e {} && cp numbers output.json", gate.display())).to_string();
    fs::write(laptop.path("jobs.ndjson"), format!("{good}\n{bad}\n")).unwrap();
    let submit = ["submit", "--task", "script", "--from", "jobs.ndjson", "--file", "numbers", "--id"];
    let submitted = laptop.run(&submit);
    assert_eq!((submitted.status.code(), submitted.output.lines().count()), (Some(0), 2), "{submitted:?}");
    assert_eq!(laptop.run(&submit).output, submitted.output, "they are the same jobs");
    assert_eq!(edge.backlog(testkit::Queue::Jobs), 2, "and nothing is sent twice");
    consumer.run_until_idle();
    assert_eq!(laptop.take_results().len(), 2);

    fs::write(&gate, "").unwrap();
    let again = laptop.run(&["rerun", "--failed", "--id"]);
    assert_eq!((again.status.code(), again.output.lines().count()), (Some(0), 1), "{again:?}");
    consumer.run_until_idle();
    let output = laptop.run(&["wait", again.output.trim()]);
    assert_eq!((output.status.code(), &output.results()[0]["output"]), (Some(0), &json!(42)), "{output:?}");
    assert_eq!(said(&laptop.run(&["rerun", "--failed"])), (Some(0), ""));

    // Another laptop has what the hub knows.
    let other = Laptop::new(&edge);
    let elsewhere = other.run(&["rerun", submitted.output.lines().next().unwrap(), "--id"]);
    assert_eq!(elsewhere.status.code(), Some(0), "{elsewhere:?}");
    assert!(elsewhere.log.contains("was submitted elsewhere"), "{elsewhere:?}");
}
