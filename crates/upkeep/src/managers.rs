//! What the service managers of this machine say: whether they can be used, and how the program is that they hold.

use std::fs;

use anyhow::Context as _;
use service::unit::systemd_version;
use service::watch::Record;
use service::way::Lingering;
use service::{Seen, Way};

use crate::ask::{Answer, ask};
use crate::desk::{ANSWER_MAX, Desk};

/// What cron calls itself.
const CRONS: [&str; 4] = ["cron", "crond", "fcron", "dcron"];

/// How the program is.
pub(crate) struct State {
    pub(crate) running: bool,
    pub(crate) pid: Option<u32>,
    pub(crate) said: String,
    /// It has died, and waits for the service manager to start it.
    pub(crate) is_between_starts: bool,
}

impl State {
    /// It runs as this process, or does not run.
    pub(crate) fn of(pid: Option<u32>, said: String) -> Self {
        Self { running: pid.is_some(), pid, said, is_between_starts: false }
    }
}

/// What was seen of the service managers.
pub(crate) struct Managers {
    pub(crate) seen: Seen,
    /// The version of systemd.
    pub(crate) systemd: u32,
    pub(crate) crontab: String,
    pub(crate) scrontab: String,
}

impl Desk {
    /// Asks a program for something that changes nothing.
    async fn asked(&self, words: &[&str]) -> Result<Answer, String> {
        ask(words, &self.place.managers, None, Some(ANSWER_MAX)).await.map_err(|error| error.to_string())
    }

    /// Looks which service managers can be used.
    pub(crate) async fn managers(&self) -> Managers {
        if !self.words.ways.contains(&Way::Launchd) {
            return self.linux("it is of macOS").await;
        }
        let domain = self.names.domain.clone();
        match self.asked(&["launchctl", "print", &domain]).await {
            Ok(answer) if answer.is_ok() => {
                let none = || Err("it is not asked where launchd is".to_owned());
                let seen = Seen { launchd: Ok(()), systemd: none(), cron: none(), scrontab: none() };
                Managers { seen, systemd: 0, crontab: String::new(), scrontab: String::new() }
            }
            Ok(answer) => self.linux(&words_of(&answer)).await,
            Err(why) => self.linux(&why).await,
        }
    }

    /// Where launchd is not.
    async fn linux(&self, no_launchd: &str) -> Managers {
        let (systemd, crontab, scrontab) = tokio::join!(
            self.asked(&["systemctl", "--user", "show", "--property=Version"]),
            self.asked(&["crontab", "-l"]),
            self.asked(&["scrontab", "-l"]),
        );
        let version = systemd.and_then(|answer| match systemd_version(&answer.stdout) {
            Some(version) if answer.is_ok() => Ok(version),
            _ => Err(format!("no systemd of this user answers ({})", words_of(&answer))),
        });
        let crontab = crontab.and_then(table).and_then(|crontab| {
            if seems_to_run(&CRONS) { Ok(crontab) } else { Err("no cron runs on this machine".to_owned()) }
        });
        let scrontab = scrontab.and_then(table);
        Managers {
            seen: Seen {
                launchd: Err(no_launchd.to_owned()),
                systemd: version.clone().map(drop),
                cron: crontab.clone().map(drop),
                scrontab: scrontab.clone().map(drop),
            },
            systemd: version.unwrap_or_default(),
            crontab: crontab.unwrap_or_default(),
            scrontab: scrontab.unwrap_or_default(),
        }
    }

    /// How the unit is.
    pub(crate) async fn unit_state(&self) -> anyhow::Result<State> {
        let unit = &self.names.unit;
        let words = ["systemctl", "--user", "show", unit, "--property=ActiveState,SubState,MainPID,NRestarts,Result"];
        let answer = self.asked(&words).await.map_err(anyhow::Error::msg).with_context(|| words.join(" "))?;
        if !answer.is_ok() {
            return Err(failed(&words, &answer));
        }
        let of = |name: &str| {
            let mut values = answer.stdout.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            values.next().unwrap_or_default()
        };
        let (active, sub, restarts) = (of("ActiveState"), of("SubState"), of("NRestarts"));
        let running = matches!(active, "active" | "reloading");
        let pid = of("MainPID").parse().ok().filter(|pid| *pid > 0);
        let mut said = match pid {
            Some(pid) if running => format!("running, process {pid}"),
            _ => format!("{active} ({sub})"),
        };
        if !matches!(restarts, "" | "0") {
            said += &format!(", started again {restarts} times");
        }
        if !running && !matches!(of("Result"), "" | "success") {
            said += &format!("; its last end: {}; {} says more", of("Result"), self.words.command("logs"));
        }
        Ok(State { running, pid, said, is_between_starts: sub == "auto-restart" })
    }

    /// How the agent is, by what launchd prints of it.
    pub(crate) async fn agent_state(&self) -> anyhow::Result<State> {
        let agent = self.names.agent();
        let answer = self.asked(&["launchctl", "print", &agent]).await.map_err(anyhow::Error::msg)?;
        if !answer.is_ok() {
            let said = format!("stopped; {} starts it", self.words.command("start"));
            return Ok(State::of(None, said));
        }
        Ok(told_of_agent(&answer.stdout))
    }

    /// What a person has to know of where the program is.
    pub(crate) async fn advice(&self, record: &Record) -> Vec<String> {
        match record.way {
            Way::Systemd => {
                let user = self.place.user.to_string();
                let answer = self.asked(&["loginctl", "show-user", &user, "--property=Linger"]).await.ok();
                let lingering = Lingering::told(answer.filter(Answer::is_ok).map(|answer| answer.stdout).as_deref());
                lingering.advice(self.words.lingering).into_iter().collect()
            }
            Way::Scrontab => vec![
                "jobs that run here, and not in allocations of their own, end with the allocation that Slurm gives the daemon; keep STATE_DIR in the settings, on a file system that all nodes see".to_owned(),
            ],
            Way::Detached => vec![format!(
                "nobody starts {} again when it has died, or with the machine: {} does",
                self.words.what,
                self.words.command("start")
            )],
            Way::Cron | Way::Launchd => Vec::new(),
        }
    }
}

/// What launchd prints is for people, and not promised; these two lines have been in it for long.
fn told_of_agent(printed: &str) -> State {
    let of = |name: &str| printed.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(" = "));
    let pid = of("pid").and_then(|pid| pid.parse().ok());
    let said = match pid {
        Some(pid) => format!("running, process {pid}"),
        None => of("state").unwrap_or("unknown").to_owned(),
    };
    State::of(pid, said)
}

/// A command that was to do something has not.
pub(crate) fn failed(words: &[&str], answer: &Answer) -> anyhow::Error {
    anyhow::anyhow!("`{}` failed: {}", words.join(" "), words_of(answer))
}

/// What a program says of its failure.
fn words_of(answer: &Answer) -> String {
    let said = [&answer.stderr, &answer.stdout].into_iter().map(|text| text.trim()).find(|text| !text.is_empty());
    match (said, answer.code) {
        (Some(said), _) => said.lines().collect::<Vec<_>>().join("; "),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "it was ended by a signal".to_owned(),
    }
}

/// The crontab that was printed. Without one, cron says so and fails.
fn table(answer: Answer) -> Result<String, String> {
    let has_none = answer.stderr.to_ascii_lowercase().contains("no crontab for");
    if answer.is_ok() {
        Ok(answer.stdout)
    } else if has_none {
        Ok(String::new())
    } else {
        Err(words_of(&answer))
    }
}

/// Is a process of one of these names seen? Where processes of others are hidden, it may be there.
fn seems_to_run(names: &[&str]) -> bool {
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm"));
    if name("1").is_err() {
        return true;
    }
    let Ok(entries) = fs::read_dir("/proc") else { return true };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let found = pids.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit())).filter_map(|pid| name(&pid).ok());
    found.into_iter().any(|name| names.contains(&name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: i32, stdout: &str, stderr: &str) -> Answer {
        Answer { code: Some(code), stdout: stdout.into(), stderr: stderr.into() }
    }

    #[test]
    fn a_crontab_that_cannot_be_read_is_not_taken_for_an_empty_one() {
        assert_eq!(table(answer(0, "a\n", "")), Ok("a\n".into()));
        assert_eq!(table(answer(1, "", "no crontab for me\n")), Ok(String::new()));
        let denied = "You (me) are not allowed to use this program (crontab)\nSee crontab(1)\n";
        assert!(table(answer(1, "", denied)).unwrap_err().contains("not allowed"));
        assert_eq!(table(answer(1, "", "")), Err("exit code 1".into()));
    }

    #[test]
    fn an_agent_runs_when_it_has_a_process() {
        let running = told_of_agent("gui/501/x = {\n\tactive count = 1\n\tstate = running\n\n\tpid = 4711\n}\n");
        assert!(running.running && running.pid == Some(4711) && running.said == "running, process 4711");
        let waiting = told_of_agent("gui/501/x = {\n\tstate = spawn scheduled\n\tlast exit code = 2\n}\n");
        assert!(!waiting.running && waiting.said == "spawn scheduled", "{}", waiting.said);
    }

    #[test]
    fn a_process_is_seen_by_its_name() {
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        assert!(seems_to_run(&[own.trim()]));
        assert!(!seems_to_run(&["no such program"]));
    }
}
