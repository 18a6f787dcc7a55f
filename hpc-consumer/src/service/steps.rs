//! What is to be done, in its order, to install a service or to take it away. Nothing is done in here, so that it can
//! be shown as well.

use std::path::PathBuf;

use service::crontab::{Block, Unclosed};
use service::watch::Record;
use service::{Start, Way};

/// The name of the unit, and of all else that has one.
pub(super) const NAME: &str = "hpc-consumer";
pub(super) const UNIT: &str = "hpc-consumer.service";

pub(super) const OURS: Block<'static> = Block { name: NAME };

/// One thing to be done. If it fails, nothing further is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A file, in place of what stands there.
    Write(PathBuf, String),
    /// The same, with what nobody needs to see.
    Remember(PathBuf, String),
    Remove(PathBuf),
    /// A program, with this as its input.
    Run(Vec<String>, Option<String>),
    /// The daemon, by ourselves.
    Start,
    Stop,
}

/// What is there before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Before {
    /// What is remembered of it.
    pub(super) record: Option<Record>,
    /// The unit.
    pub(super) unit: Option<String>,
    /// The crontab, or that of Slurm.
    pub(super) crontab: String,
    pub(super) scrontab: String,
}

/// Where things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paths {
    pub(super) unit: PathBuf,
    pub(super) record: PathBuf,
    pub(super) scrontab: PathBuf,
}

/// What is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct After {
    pub(super) record: Record,
    /// The text of the unit, or the lines of a crontab.
    pub(super) text: Text,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    Unit(String),
    Lines(Vec<String>),
    None,
}

/// The steps that install it.
pub(super) fn install(before: &Before, after: &After, paths: &Paths) -> Result<Vec<Step>, Unclosed> {
    let mut steps = Vec::new();
    let way = after.record.way;
    if let Some(other) = before.record.as_ref().filter(|record| record.way != way) {
        steps.extend(take_away(other.way, before, paths)?);
    }
    let same_start = before.record.as_ref().is_some_and(|record| is_same(record, &after.record));
    let record = serde_json::to_string(&after.record).unwrap_or_default() + "\n";
    steps.push(Step::Remember(paths.record.clone(), record));
    match (way, &after.text) {
        (Way::Systemd, Text::Unit(unit)) => {
            let same = same_start && before.unit.as_ref() == Some(unit);
            steps.push(Step::Write(paths.unit.clone(), unit.clone()));
            steps.push(systemctl(&["daemon-reload"]));
            steps.push(systemctl(&["enable", UNIT]));
            steps.push(systemctl(&[if same { "start" } else { "restart" }, UNIT]));
        }
        (Way::Cron, Text::Lines(lines)) => {
            let crontab = OURS.put(&before.crontab, &after.record.version, lines)?;
            steps.push(run(&["crontab", "-"], Some(crontab)));
        }
        (Way::Scrontab, Text::Lines(lines)) => {
            let scrontab = OURS.put(&before.scrontab, &after.record.version, lines)?;
            steps.push(Step::Write(paths.scrontab.clone(), scrontab));
            steps.push(run(&["scrontab", &paths.scrontab.to_string_lossy()], None));
        }
        _ => {}
    }
    if matches!(way, Way::Cron | Way::Detached) {
        steps.extend((!same_start && before.record.is_some()).then_some(Step::Stop));
        steps.push(Step::Start);
    }
    Ok(steps)
}

/// The steps that take it away.
pub(super) fn uninstall(way: Way, before: &Before, paths: &Paths) -> Result<Vec<Step>, Unclosed> {
    let mut steps = take_away(way, before, paths)?;
    steps.push(Step::Remove(paths.record.clone()));
    Ok(steps)
}

fn take_away(way: Way, before: &Before, paths: &Paths) -> Result<Vec<Step>, Unclosed> {
    Ok(match way {
        Way::Systemd => vec![
            systemctl(&["disable", "--now", UNIT]),
            Step::Remove(paths.unit.clone()),
            systemctl(&["daemon-reload"]),
        ],
        // First what would start it again.
        Way::Cron => vec![run(&["crontab", "-"], Some(OURS.without(&before.crontab)?)), Step::Stop],
        Way::Scrontab => vec![
            Step::Write(paths.scrontab.clone(), OURS.without(&before.scrontab)?),
            run(&["scrontab", &paths.scrontab.to_string_lossy()], None),
            run(&["scancel", "--me", "--name", NAME, "--signal=TERM", "--batch"], None),
        ],
        Way::Detached => vec![Step::Stop],
        Way::Launchd => Vec::new(),
    })
}

/// Would a new start be one of the same?
fn is_same(one: &Record, other: &Record) -> bool {
    let of = |record: &Record| (record.version.clone(), record.way, record.start.clone());
    of(one) == of(other)
}

pub(super) fn systemctl(words: &[&str]) -> Step {
    run(&[&["systemctl", "--user"], words].concat(), None)
}

fn run(words: &[&str], input: Option<String>) -> Step {
    Step::Run(words.iter().map(|word| (*word).to_owned()).collect(), input)
}

/// What a line of cron starts.
pub(super) fn watch(start: &Start, folder: String) -> Start {
    Start {
        program: start.program.clone(),
        arguments: ["service".to_owned(), "watch".to_owned(), folder].into(),
        directory: "/".to_owned(),
        environment: Default::default(),
    }
}

impl Step {
    /// For a person who wants to see it.
    pub(super) fn shown(&self) -> String {
        let indented = |text: &str| text.lines().flat_map(|line| ["    ", line, "\n"]).collect::<String>();
        match self {
            Self::Write(path, text) => format!("write {}\n{}", path.display(), indented(text)),
            Self::Remember(path, _) => format!("remember it in {}\n", path.display()),
            Self::Remove(path) => format!("remove {}\n", path.display()),
            Self::Run(words, None) => format!("run {}\n", words.join(" ")),
            Self::Run(words, Some(input)) => format!("run {} with\n{}", words.join(" "), indented(input)),
            Self::Start => "start the daemon, detached, unless it runs\n".to_owned(),
            Self::Stop => "stop the daemon, if it runs\n".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(way: Way, version: &str) -> Record {
        let start = Start { program: "/p".into(), directory: "/".into(), ..Start::default() };
        Record { v: Record::V, version: version.into(), way, start, stopped_in: None }
    }

    fn paths() -> Paths {
        Paths { unit: "/u".into(), record: "/r".into(), scrontab: "/s".into() }
    }

    fn after(way: Way, version: &str) -> After {
        let text = match way {
            Way::Systemd => Text::Unit("[Unit]\n".into()),
            Way::Cron | Way::Scrontab => Text::Lines(vec!["@reboot x".into()]),
            _ => Text::None,
        };
        After { record: record(way, version), text }
    }

    fn shown(before: &Before, after: &After) -> String {
        install(before, after, &paths()).unwrap().iter().map(Step::shown).collect()
    }

    #[test]
    fn a_running_daemon_is_started_anew_only_when_something_is_different() {
        let unit = Some("[Unit]\n".to_owned());
        let before =
            |way, version| Before { record: Some(record(way, version)), unit: unit.clone(), ..Before::default() };
        let last = |way, before: &Before| install(before, &after(way, "2"), &paths()).unwrap().pop().unwrap();
        assert_eq!(last(Way::Systemd, &before(Way::Systemd, "2")), systemctl(&["start", UNIT]));
        for different in
            [before(Way::Systemd, "1"), Before { unit: None, ..before(Way::Systemd, "2") }, Before::default()]
        {
            assert_eq!(last(Way::Systemd, &different), systemctl(&["restart", UNIT]));
        }
        assert!(!shown(&before(Way::Cron, "2"), &after(Way::Cron, "2")).contains("stop the daemon"));
        assert!(shown(&before(Way::Cron, "1"), &after(Way::Cron, "2")).contains("stop the daemon"));
    }

    #[test]
    fn another_way_is_taken_away_first() {
        let crontab = OURS.put("1 2 * * * x\n", "1", &["@reboot y".to_owned()]).unwrap();
        let before = Before { record: Some(record(Way::Cron, "1")), crontab, ..Before::default() };
        let shown = shown(&before, &after(Way::Systemd, "1"));
        assert!(shown.starts_with("run crontab - with\n    1 2 * * * x\nstop the daemon"), "{shown}");
        assert!(shown.ends_with("run systemctl --user restart hpc-consumer.service\n"), "{shown}");
    }

    #[test]
    fn what_would_start_it_again_goes_first() {
        let crontab = OURS.put("", "1", &["@reboot y".to_owned()]).unwrap();
        let before = Before { record: Some(record(Way::Cron, "1")), crontab, ..Before::default() };
        let steps = uninstall(Way::Cron, &before, &paths()).unwrap();
        assert_eq!(steps, [run(&["crontab", "-"], Some(String::new())), Step::Stop, Step::Remove("/r".into())]);
    }
}
