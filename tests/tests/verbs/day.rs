//! `docs/day.md`: every command of the page, as it stands there and in its order, against a real edge and daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::{Consumer, Edge, PATIENCE, Process, Spoken, command, parts, wait_until};

/// The tasks of the runtime image. What stands for the task `command` of a site's file is this one's `command`.
fn tasks() -> String {
    let runner = parts::task_runner();
    let runner = runner.display();
    format!("#!/bin/sh\ngrep -q '\"task\": *\"command\"' input.json && exec {runner} command\nexec {runner}\n")
}

/// A part of the page that is run.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    text: String,
    on_cluster: bool,
}

/// The blocks of commands of a page, in their order.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut inside: Option<String> = None;
    for line in page.lines() {
        match &mut inside {
            None if line == "```sh" => inside = Some(String::new()),
            None => {}
            Some(text) if line == "```" => {
                let on_cluster = text.starts_with("# on the cluster\n");
                blocks.push(Block { text: std::mem::take(text), on_cluster });
                inside = None;
            }
            Some(text) => *text += &format!("{line}\n"),
        }
    }
    blocks
}

/// The commands in the last column of a table.
fn commands_of_table(page: &str) -> Vec<String> {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let command =
        |row: &str| row.trim_end_matches([' ', '|']).rsplit("| `").next()?.strip_suffix('`').map(str::to_owned);
    rows.map(|row| command(row).unwrap_or_else(|| panic!("no command in {row}"))).collect()
}

/// Where the person of the page works.
struct Desk {
    home: tempfile::TempDir,
    path: String,
    consumer: Consumer,
}

impl Desk {
    fn new(edge: &Edge) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let program = home.path().join("tasks.sh");
        fs::write(&program, tasks()).expect("a file can be written");
        let settings = fs::read_to_string(edge.env_file()).expect("local-edge has written it");
        let env = home.path().join(".env");
        fs::write(&env, settings + "RESULTS_POLL_INTERVAL_SECONDS=0.2\n").expect("a file can be written");
        fs::set_permissions(&env, fs::Permissions::from_mode(0o600)).expect("a mode can be set");
        let consumer = Consumer::bare(edge, &format!("sh {}", program.display()));
        let programs = parts::program("laptop-consumer");
        let programs = programs.parent().expect("a program lies in a directory").display().to_string();
        let path = format!("{programs}:{}", std::env::var("PATH").expect("a PATH is set"));
        Self { home, path, consumer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        self.read(name).lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }

    /// Runs commands as a person types them, and stops at the first that fails.
    fn run(&self, block: &Block) -> Spoken {
        let said = tempfile::tempdir().expect("a directory can be made");
        let mut shell = command(Path::new("/bin/sh"), self.home.path());
        shell.env("PATH", &self.path).args(["-eu", "-c", &block.text]);
        if block.on_cluster {
            let daemon = self.consumer.command();
            shell.current_dir(self.consumer.home());
            shell.envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
            shell.env("PATH", &self.path);
        }
        let mut process = Process::start("shell", &mut shell, said.path());
        let status = process.wait(PATIENCE);
        let spoken = Spoken { status, output: process.output(), log: process.log() };
        assert!(status.success(), "{}\n{spoken:?}", block.text);
        spoken
    }
}

#[test]
fn every_command_of_a_day_does_what_the_page_says() {
    let page = fs::read_to_string(parts::workspace().join("docs/day.md")).expect("the page is there");
    let blocks = blocks(&page);
    let edge = Edge::start();
    let desk = Desk::new(&edge);
    let daemon = desk.consumer.start();
    let spoken_of = |beginning: &str, spoken: &[(&Block, Spoken)]| -> (String, String) {
        let (_, spoken) = spoken.iter().rev().find(|(block, _)| block.text.contains(beginning)).expect(beginning);
        (spoken.output.clone(), spoken.log.clone())
    };
    // Without it nobody is linked yet, and there is nothing to see.
    wait_until("the site to be linked", PATIENCE, || {
        let block = Block { text: "laptop-consumer status".to_owned(), on_cluster: false };
        desk.run(&block).output.contains("linked, ")
    });
    let mut spoken: Vec<(&Block, Spoken)> = Vec::new();
    for block in &blocks {
        spoken.push((block, desk.run(block)));
    }
    assert!(spoken.len() >= 11, "{blocks:#?}");

    let jobs = desk.read("jobs.txt");
    assert_eq!(jobs.lines().count(), 6, "{jobs}");
    // Twice: with nothing new, and with the two lines that were mended.
    let sent = spoken.iter().filter(|(block, _)| block.text.contains("submit --task simulate --from"));
    let logs: Vec<&str> = sent.skip(1).map(|(_, spoken)| spoken.log.trim()).collect();
    assert!(page.contains(logs[0]) && logs[0].starts_with("6 of 6 lines"), "the page has what is said: {logs:?}");
    assert!(logs.len() == 2 && logs[1].starts_with("4 of 6 lines were submitted before"), "{logs:?}");
    let results = desk.lines("results.ndjson");
    let completed = results.iter().filter(|result| result["status"] == "completed").count();
    assert_eq!((results.len(), completed, desk.read("again.txt").lines().count()), (6, 6, 2), "{results:#?}");
    let (_, said) = spoken_of("--stream stderr", &spoken);
    // Behind the line that says which job is the last one.
    let why = said.lines().last().unwrap_or_default();
    assert!(page.contains(why) && why.contains("-200"), "the page has what is said: {said}");
    assert!(spoken_of("cancel last", &spoken).0.contains("cancelled"), "its result says so");
    let last: Value = serde_json::from_str(&desk.read("last.json")).expect("it is JSON");
    assert!([2, 5].map(|seed| seed.into()).contains(&last["parameters"]["seed"]), "{last}");
    let listed = spoken_of("ls results", &spoken).0;
    assert_eq!(listed.lines().filter(|line| *line == "mean-squared-distance.svg").count(), 6, "{listed}");
    let plot = spoken_of("plot.py", &spoken).0;
    assert_eq!((plot.lines().count(), plot.contains("seed 6  ######")), (6, true), "{plot}");

    let commands = commands_of_table(&page);
    assert!(commands.len() >= 14, "{commands:#?}");
    for text in commands {
        let spoken = desk.run(&Block { text: text.clone(), on_cluster: false });
        match text.as_str() {
            "laptop-consumer run -- hostname" => {
                let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
                assert!(spoken.output.trim().starts_with(host.split('.').next().unwrap_or_default()), "{spoken:?}");
            }
            "laptop-consumer cancel @jobs.txt" => {
                let ended = spoken.output.lines().filter(|line| line.contains(r#""cancel":"ended""#)).count();
                assert_eq!((ended, spoken.output.lines().count()), (6, 6), "{spoken:?}");
            }
            "laptop-consumer status last" => assert_eq!(spoken.output, "completed\n", "{spoken:?}"),
            "laptop-consumer jobs --since 1d" => assert!(spoken.output.lines().count() >= 12, "{spoken:?}"),
            _ => {}
        }
    }
    drop(daemon);
}

#[test]
fn commands_are_found_in_a_page() {
    let page = "a\n```sh\nb c\n```\n```text\nd\n```\n```sh\n# on the cluster\ne\n```\n| x | y |\n| --- | --- |\n| `s` | `t u` |\n";
    let block = |text: &str, on_cluster| Block { text: text.to_owned(), on_cluster };
    assert_eq!(blocks(page), [block("b c\n", false), block("# on the cluster\ne\n", true)]);
    assert_eq!(commands_of_table(page), ["t u"]);
}
