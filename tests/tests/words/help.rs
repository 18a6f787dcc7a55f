//! The `--help` of every program and of each of its commands.

use testkit::{command, parts};

use crate::transcript::assert_as_in;

fn help(program: &str, words: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let mut command = command(&parts::program(program), folder.path());
    let output = command.args(words).arg("--help").output().expect("the program can be started");
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("help is text")
}

/// The commands that the help of a program lists, but for `help`.
fn commands(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What belongs to a command is indented further.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
}

fn is_as_it_was(program: &str, expected: &[&str]) {
    let general = help(program, &[]);
    assert_eq!(commands(&general), expected, "each command has its golden file");
    assert_as_in(&format!("{program}/help.txt"), &general);
    for name in expected {
        assert_as_in(&format!("{program}/help-{name}.txt"), &help(program, &[name]));
    }
}

#[test]
fn of_hpc_consumer() {
    is_as_it_was(
        "hpc-consumer",
        &[
            "run",
            "tick",
            "command",
            "jobs",
            "show",
            "status",
            "wait",
            "logs",
            "pools",
            "services",
            "republish",
            "resend",
            "cancel",
            "purge",
            "site",
            "image",
            "scaling",
            "doctor",
            "service",
            "setup",
        ],
    );
    for (group, expected) in [
        ("site", &["check", "explain", "init"][..]),
        ("image", &["update", "status", "back"]),
        ("service", &["install", "uninstall", "start", "stop", "restart", "status", "logs"]),
    ] {
        assert_eq!(commands(&help("hpc-consumer", &[group])), expected, "each command has its golden file");
        for name in expected {
            assert_as_in(&format!("hpc-consumer/help-{group}-{name}.txt"), &help("hpc-consumer", &[group, name]));
        }
    }
}

#[test]
fn of_laptop_consumer() {
    is_as_it_was(
        "laptop-consumer",
        &[
            "submit",
            "run",
            "pull",
            "tail",
            "wait",
            "status",
            "jobs",
            "logs",
            "show",
            "output",
            "rerun",
            "purge",
            "fetch",
            "cancel",
            "doctor",
            "setup",
            "service",
            "completions",
            "workflow",
        ],
    );
    let expected = ["install", "uninstall", "start", "stop", "restart", "status", "logs"];
    assert_eq!(commands(&help("laptop-consumer", &["service"])), expected, "each command has its golden file");
    for name in expected {
        assert_as_in(&format!("laptop-consumer/help-service-{name}.txt"), &help("laptop-consumer", &["service", name]));
    }
}

#[test]
fn of_local_edge() {
    is_as_it_was("local-edge", &["serve", "doctor"]);
}
