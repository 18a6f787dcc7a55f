//! What is to be done, in its order, to install a service or to take it away. Nothing is done in here, so that it can
//! be shown as well.

use std::path::PathBuf;

use service::crontab::{Block, Unclosed};
use service::watch::Record;
use service::{Start, Way};

use crate::words::Words;

/// One thing to be done. If it fails, nothing further is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A file, in place of what stands there.
    Write(PathBuf, String),
    /// The same, with what nobody needs to see.
    Remember(PathBuf, String),
    Remove(PathBuf),
    /// A program, with this as its input.
    Run(Vec<String>, Option<String>),
    /// A program that fails where there is nothing to be done.
    Try(Vec<String>),
    /// Our program, by ourselves.
    Start,
    Stop,
}

/// What is there before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Before {
    /// What is remembered of it.
    pub(crate) record: Option<Record>,
    /// The unit.
    pub(crate) unit: Option<String>,
    /// The agent.
    pub(crate) agent: Option<String>,
    /// The crontab, or that of Slurm.
    pub(crate) crontab: String,
    pub(crate) scrontab: String,
}

/// Where things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) unit: PathBuf,
    pub(crate) agent: PathBuf,
    pub(crate) record: PathBuf,
    pub(crate) scrontab: PathBuf,
}

/// What is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct After {
    pub(crate) record: Record,
    /// The text of the unit or the agent, or the lines of a crontab.
    pub(crate) text: Text,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Text {
    Unit(String),
    Agent(String),
    Lines(Vec<String>),
    None,
}

/// Whose service it is, by its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) name: &'static str,
    pub(crate) unit: String,
    /// Where launchd has the agents of this user, as `gui/501`.
    pub(crate) domain: String,
    pub(crate) label: String,
}

impl Names {
    pub(crate) fn of(words: &Words, user: u32) -> Self {
        Self { name: words.name, unit: words.unit(), domain: format!("gui/{user}"), label: words.label() }
    }

    /// Our lines in a crontab.
    pub(crate) fn lines(&self) -> Block<'static> {
        Block { name: self.name }
    }

    /// The agent, as launchd is asked for it.
    pub(crate) fn agent(&self) -> String {
        format!("{}/{}", self.domain, self.label)
    }

    /// The steps that install it.
    pub(crate) fn install(&self, before: &Before, after: &After, paths: &Paths) -> Result<Vec<Step>, Unclosed> {
        let mut steps = Vec::new();
        let way = after.record.way;
        if let Some(other) = before.record.as_ref().filter(|record| record.way != way) {
            steps.extend(self.take_away(other.way, before, paths)?);
        }
        let same_start = before.record.as_ref().is_some_and(|record| is_same(record, &after.record));
        let record = serde_json::to_string(&after.record).unwrap_or_default() + "\n";
        steps.push(Step::Remember(paths.record.clone(), record));
        match (way, &after.text) {
            (Way::Systemd, Text::Unit(unit)) => {
                let same = same_start && before.unit.as_ref() == Some(unit);
                steps.push(Step::Write(paths.unit.clone(), unit.clone()));
                steps.push(systemctl(&["daemon-reload"]));
                steps.push(systemctl(&["enable", &self.unit]));
                steps.push(systemctl(&[if same { "start" } else { "restart" }, &self.unit]));
            }
            (Way::Launchd, Text::Agent(agent)) => {
                // It takes no agent that it has, whatever the file says now.
                steps.push(Step::Try(launchctl(&["bootout", &self.agent()])));
                steps.push(Step::Write(paths.agent.clone(), agent.clone()));
                steps.push(Step::Run(launchctl(&["enable", &self.agent()]), None));
                let path = paths.agent.to_string_lossy();
                steps.push(Step::Run(launchctl(&["bootstrap", &self.domain, &path]), None));
            }
            (Way::Cron, Text::Lines(lines)) => {
                let crontab = self.lines().put(&before.crontab, &after.record.version, lines)?;
                steps.push(run(&["crontab", "-"], Some(crontab)));
            }
            (Way::Scrontab, Text::Lines(lines)) => {
                let scrontab = self.lines().put(&before.scrontab, &after.record.version, lines)?;
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
    pub(crate) fn uninstall(&self, way: Way, before: &Before, paths: &Paths) -> Result<Vec<Step>, Unclosed> {
        let mut steps = self.take_away(way, before, paths)?;
        steps.push(Step::Remove(paths.record.clone()));
        Ok(steps)
    }

    fn take_away(&self, way: Way, before: &Before, paths: &Paths) -> Result<Vec<Step>, Unclosed> {
        Ok(match way {
            Way::Systemd => vec![
                systemctl(&["disable", "--now", &self.unit]),
                Step::Remove(paths.unit.clone()),
                systemctl(&["daemon-reload"]),
            ],
            Way::Launchd => {
                vec![Step::Try(launchctl(&["bootout", &self.agent()])), Step::Remove(paths.agent.clone())]
            }
            // First what would start it again.
            Way::Cron => vec![run(&["crontab", "-"], Some(self.lines().without(&before.crontab)?)), Step::Stop],
            Way::Scrontab => vec![
                Step::Write(paths.scrontab.clone(), self.lines().without(&before.scrontab)?),
                run(&["scrontab", &paths.scrontab.to_string_lossy()], None),
                run(&["scancel", "--me", "--name", self.name, "--signal=TERM", "--batch"], None),
            ],
            Way::Detached => vec![Step::Stop],
        })
    }
}

/// Would a new start be one of the same?
fn is_same(one: &Record, other: &Record) -> bool {
    let of = |record: &Record| (record.version.clone(), record.way, record.start.clone());
    of(one) == of(other)
}

pub(crate) fn systemctl(words: &[&str]) -> Step {
    run(&[&["systemctl", "--user"], words].concat(), None)
}

pub(crate) fn launchctl(words: &[&str]) -> Vec<String> {
    ["launchctl"].iter().chain(words).map(|word| (*word).to_owned()).collect()
}

fn run(words: &[&str], input: Option<String>) -> Step {
    Step::Run(words.iter().map(|word| (*word).to_owned()).collect(), input)
}

/// What a line of cron starts.
pub(crate) fn watch(start: &Start, folder: String) -> Start {
    Start {
        program: start.program.clone(),
        arguments: ["service".to_owned(), "watch".to_owned(), folder].into(),
        directory: "/".to_owned(),
        environment: Default::default(),
    }
}

impl Step {
    /// For a person who wants to see it.
    pub(crate) fn shown(&self, what: &str) -> String {
        let indented = |text: &str| text.lines().flat_map(|line| ["    ", line, "\n"]).collect::<String>();
        match self {
            Self::Write(path, text) => format!("write {}\n{}", path.display(), indented(text)),
            Self::Remember(path, _) => format!("remember it in {}\n", path.display()),
            Self::Remove(path) => format!("remove {}\n", path.display()),
            Self::Run(words, None) => format!("run {}\n", words.join(" ")),
            Self::Run(words, Some(input)) => format!("run {} with\n{}", words.join(" "), indented(input)),
            Self::Try(words) => format!("run {}, which may fail\n", words.join(" ")),
            Self::Start => format!("start {what}, detached, unless it runs\n"),
            Self::Stop => format!("stop {what}, if it runs\n"),
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

    const UNIT: &str = "hpc-consumer.service";

    fn names() -> Names {
        let (unit, label) = (UNIT.to_owned(), "hpc-queue.hpc-consumer".to_owned());
        Names { name: "hpc-consumer", unit, domain: "gui/501".to_owned(), label }
    }

    fn paths() -> Paths {
        Paths { unit: "/u".into(), agent: "/a".into(), record: "/r".into(), scrontab: "/s".into() }
    }

    fn after(way: Way, version: &str) -> After {
        let text = match way {
            Way::Systemd => Text::Unit("[Unit]\n".into()),
            Way::Launchd => Text::Agent("<plist>\n".into()),
            Way::Cron | Way::Scrontab => Text::Lines(vec!["@reboot x".into()]),
            _ => Text::None,
        };
        After { record: record(way, version), text }
    }

    fn shown(before: &Before, after: &After) -> String {
        names().install(before, after, &paths()).unwrap().iter().map(|step| step.shown("the daemon")).collect()
    }

    #[test]
    fn a_running_daemon_is_started_anew_only_when_something_is_different() {
        let unit = Some("[Unit]\n".to_owned());
        let before =
            |way, version| Before { record: Some(record(way, version)), unit: unit.clone(), ..Before::default() };
        let last = |way, before: &Before| names().install(before, &after(way, "2"), &paths()).unwrap().pop().unwrap();
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
        let crontab = names().lines().put("1 2 * * * x\n", "1", &["@reboot y".to_owned()]).unwrap();
        let before = Before { record: Some(record(Way::Cron, "1")), crontab, ..Before::default() };
        let shown = shown(&before, &after(Way::Systemd, "1"));
        assert!(shown.starts_with("run crontab - with\n    1 2 * * * x\nstop the daemon"), "{shown}");
        assert!(shown.ends_with("run systemctl --user restart hpc-consumer.service\n"), "{shown}");
    }

    #[test]
    fn what_would_start_it_again_goes_first() {
        let crontab = names().lines().put("", "1", &["@reboot y".to_owned()]).unwrap();
        let before = Before { record: Some(record(Way::Cron, "1")), crontab, ..Before::default() };
        let steps = names().uninstall(Way::Cron, &before, &paths()).unwrap();
        assert_eq!(steps, [run(&["crontab", "-"], Some(String::new())), Step::Stop, Step::Remove("/r".into())]);
    }

    #[test]
    fn launchd_lets_go_of_an_agent_before_it_takes_it_anew() {
        let shown = shown(&Before::default(), &after(Way::Launchd, "1"));
        assert_eq!(
            shown,
            "remember it in /r\nrun launchctl bootout gui/501/hpc-queue.hpc-consumer, which may fail\nwrite /a\n    \
             <plist>\nrun launchctl enable gui/501/hpc-queue.hpc-consumer\nrun launchctl bootstrap gui/501 /a\n"
        );
        let steps = names().uninstall(Way::Launchd, &Before::default(), &paths()).unwrap();
        assert_eq!(steps[1..], [Step::Remove("/a".into()), Step::Remove("/r".into())]);
    }
}
