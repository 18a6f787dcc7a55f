//! What is typed into a shell, and what comes of it.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use snapbox::data::DataFormat;
use snapbox::{Assert, Data, RedactedValue, Redactions};
use tempfile::TempDir;
use testkit::{PATIENCE, Process, parts};

/// What differs from run to run or from machine to machine, and what stands in its place.
const CHANGING: [(&str, &str); 15] = [
    ("[TIME]", r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"),
    ("[ID]", r"\b([0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})\b"),
    ("[PORT]", r"127\.0\.0\.1:(?<redacted>\d{2,})"),
    ("[PID]", r"(process|process id|kill) (?<redacted>\d+)"),
    ("[AGE]", r"(?<redacted>\b\d+ (s|min)) ago"),
    ("[FOR]", r"(PHASE|waiting|running|ending|recorded) +(?<redacted>(FOR|\d+ (s|min)) +)"),
    ("[TOOK]", r"in (?<redacted>\d+\.\d s)"),
    // What the kernel of this machine has.
    ("[FACTS]", r#"isolation of jobs: (?<redacted>[^"\n]+)"#),
    ("[ROOM]", r"has (?<redacted>\d+\.\d GB of \d+\.\d GB) free"),
    ("[LIMITS]", r#"limits( {2,}|","verdict":"ok","text":")(?<redacted>[^"\n]+)"#),
    ("[KERNEL]", r"(?<redacted>(ok|warning) +(user namespaces|/dev/fuse) .+\n( +next: .+\n)?)"),
    ("[SLOTS]", r"settings +(?<redacted>\d+ slots?), pools default"),
    // Where the programs under test are.
    ("[BIN]", r#"(?<redacted>/[^\s<>"]+)/(hpc|laptop)-consumer[ <"]"#),
    ("[UID]", r"gui/(?<redacted>\d+)"),
    ("[VERSION]", r"(version|hpc-consumer|laptop-consumer|local-edge) (?<redacted>\d+\.\d+\.\d+)"),
];

/// A directory, which is the home directory as well, and all that was typed in it.
#[derive(Debug)]
pub(crate) struct Transcript {
    folder: TempDir,
    said: TempDir,
    text: String,
    path: String,
    /// Other directories, and what stands in their place.
    others: Vec<(&'static str, String)>,
}

impl Transcript {
    pub(crate) fn new() -> Self {
        let directory = || tempfile::tempdir().expect("a directory can be made");
        Self {
            folder: directory(),
            said: directory(),
            text: String::new(),
            path: "/usr/bin:/bin".to_owned(),
            others: Vec::new(),
        }
    }

    /// Has programs found in this directory first.
    pub(crate) fn path_first(&mut self, name: &str) {
        self.path = format!("{}:{}", self.path(name).display(), self.path);
    }

    /// Shows another directory of a test by this name.
    pub(crate) fn also_redact(&mut self, placeholder: &'static str, directory: &Path) {
        self.others.push((placeholder, directory.display().to_string()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new file of which nothing is shown, and which nobody else can read.
    pub(crate) fn quiet_file(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::write(&path, content).expect("the directory of a test can be written to");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode can be set");
    }

    /// A new file, and lines that show how it came to be.
    pub(crate) fn file(&mut self, name: &str, content: &str) {
        self.quiet_file(name, content);
        for (line, number) in content.lines().zip(1..) {
            let into = if number == 1 { ">" } else { ">>" };
            let _ = writeln!(self.text, "$ echo {} {into} {name}", shell_words::quote(line));
        }
    }

    /// Runs a line: settings, a program, its arguments.
    pub(crate) fn run(&mut self, line: &str) {
        let _ = writeln!(self.text, "$ {line}");
        let words = shell_words::split(line).expect("the lines of a test are right");
        let is_setting = |word: &&String| word.split_once('=').is_some_and(|(name, _)| !name.starts_with('-'));
        let settings = words.iter().take_while(is_setting).count();
        let (settings, words) = words.split_at(settings);
        let mut command = Command::new(parts::program(&words[0]));
        command.env_clear().env("HOME", self.folder.path()).env("PATH", &self.path).env("ALLOW_ROOT", "1");
        command.current_dir(self.folder.path()).args(&words[1..]);
        command.envs(settings.iter().filter_map(|setting| setting.split_once('=')));
        let mut process = Process::start(&words[0], &mut command, self.said.path());
        let code = process.wait(PATIENCE).code().expect("a program that only speaks ends by itself");
        self.text.push_str(&process.output());
        self.text.push_str(&process.log());
        let _ = writeln!(self.text, "# exit code {code}\n");
    }

    /// Compares all of it with the file of this name.
    pub(crate) fn assert_as_in(&self, name: &str) {
        let mut redactions = Redactions::new();
        let mut redact = |placeholder, value: RedactedValue| {
            redactions.insert(placeholder, value).expect("it is a placeholder");
        };
        redact("[DIR]", self.folder.path().display().to_string().into());
        for (placeholder, directory) in &self.others {
            redact(placeholder, directory.clone().into());
        }
        for (placeholder, pattern) in CHANGING {
            redact(placeholder, Regex::new(pattern).expect("the patterns are right").into());
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host =
            Regex::new(&format!(r"(on |hpc-queue/|//|service-|ConditionHost=)(?<redacted>{})\b", regex::escape(&host)));
        redact("[HOST]", host.expect("a name can be found").into());
        assert_as_in(name, &redactions.redact(&self.text));
    }
}

/// Compares a text with the file of this name.
pub(crate) fn assert_as_in(name: &str, text: &str) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/words/golden").join(name);
    let expected = Data::read_from(&golden, Some(DataFormat::Text)).raw();
    Assert::new().action_env("SNAPSHOTS").eq(text, expected);
}
