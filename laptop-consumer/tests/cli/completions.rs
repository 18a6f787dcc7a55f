//! What a shell completes.

use std::fs;
use std::process::{Command, Stdio};

use crate::laptop::{Laptop, Running};

/// The commands that take jobs.
const TAKING: [&str; 9] = ["show", "output", "logs", "wait", "status", "rerun", "purge", "fetch", "cancel"];

fn script(laptop: &Laptop, shell: &str) -> String {
    let spoken = laptop.run(&["completions", shell]);
    assert!(spoken.code == Some(0) && spoken.stderr.is_empty(), "{spoken:?}");
    spoken.stdout
}

/// What Bash has for the last of these words.
fn completed(laptop: &Laptop, words: &[&str]) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_laptop-consumer");
    let script = script(laptop, "bash")
        + "\nCOMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _laptop-consumer_with_ids \"$1\" \"${COMP_WORDS[COMP_CWORD]}\" \
           \"${COMP_WORDS[COMP_CWORD-1]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"\n";
    let mut command = Command::new("/bin/bash");
    command.args(["--norc", "-c", &script, "bash", program]).args(words).env_clear();
    command.env("PATH", "/usr/bin:/bin").env("HOME", laptop.path("")).current_dir(laptop.path(""));
    command.env("LAPTOP_DATA_DIR", laptop.path("data"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let spoken = Running::start(&mut command).end();
    assert_eq!(spoken.stderr, "");
    spoken.stdout.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
}

#[test]
fn bash_completes_the_ids_of_jobs_where_a_job_is_meant() {
    let laptop = Laptop::new();
    for job in ["67995bdb-1", "67995bdb-2", "7aaaaaaa-3"] {
        laptop.server.push(format!(r#"{{"job_id":"{job}","status":"completed","result_pointer":"file://n/x"}}"#));
    }
    laptop.run(&["pull"]);
    for command in TAKING {
        let all = completed(&laptop, &[command, ""]);
        assert!(all.len() == 4 && all.contains(&"last".to_owned()), "{command}: {all:?}");
        let mut some = completed(&laptop, &[command, "679"]);
        some.sort();
        assert_eq!(some, ["67995bdb-1", "67995bdb-2"], "{command}");
    }
    // Several of them, and one behind flags that say where jobs are.
    assert_eq!(completed(&laptop, &["wait", "67995bdb-1", "7"]), ["7aaaaaaa-3"]);
    fs::rename(laptop.path("data"), laptop.path("elsewhere")).expect("a directory can be renamed");
    assert_eq!(completed(&laptop, &["show", "7"]), [""; 0]);
    assert_eq!(completed(&laptop, &["--data-dir", "elsewhere", "show", "7"]), ["7aaaaaaa-3"]);
    // What is no job is completed as before.
    assert_eq!(completed(&laptop, &["sho"]), ["show"]);
    assert!(completed(&laptop, &["--data-dir", "elsewhere", "show", "--out"]).contains(&"--output".to_owned()));
    assert_eq!(completed(&laptop, &["--data-dir", "elsewhere", "tail", "7"]), [""; 0]);
}

#[test]
fn the_other_shells_ask_for_ids_in_the_same_places() {
    let laptop = Laptop::new();
    let zsh = script(&laptop, "zsh");
    assert_eq!(zsh.matches(":_laptop-consumer_ids' ").count(), TAKING.len(), "{zsh}");
    assert!(zsh.starts_with("#compdef laptop-consumer") && zsh.contains("\n_laptop-consumer_ids() {"), "{zsh}");
    let fish = script(&laptop, "fish");
    let line = fish.lines().find(|line| line.contains("laptop-consumer ids")).expect("it asks for ids");
    assert!(TAKING.iter().all(|command| line.contains(&format!(" {command}"))), "{line}");
    assert!(fish.contains("function __fish_laptop_consumer_using_subcommand"), "the helper has another name");
    // Nothing here yet is nothing to complete, and no error.
    let ids = laptop.run(&["ids"]);
    assert_eq!((ids.code, ids.stdout.as_str(), ids.stderr.as_str()), (Some(0), "", ""));
}
