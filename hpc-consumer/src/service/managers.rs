//! What the service managers of this machine say: whether they can be used, and how the daemon is that they hold.

use std::fs;

use anyhow::Context as _;
use service::unit::systemd_version;
use service::watch::Record;
use service::way::Lingering;
use service::{Seen, Way};

use super::steps::UNIT;
use super::{ANSWER_MAX, Desk};
use crate::run::{Answer, ask};

/// What cron calls itself.
const CRONS: [&str; 4] = ["cron", "crond", "fcron", "dcron"];

/// How the daemon is.
pub(super) struct State {
    pub(super) running: bool,
    pub(super) pid: Option<u32>,
    pub(super) said: String,
}

/// What was seen of the service managers.
pub(super) struct Managers {
    pub(super) seen: Seen,
    /// The version of systemd.
    pub(super) systemd: u32,
    pub(super) crontab: String,
    pub(super) scrontab: String,
}

impl Desk {
    /// Asks a program for something that changes nothing.
    async fn asked(&self, words: &[&str]) -> Result<Answer, String> {
        ask(words, &self.place.managers, None, Some(ANSWER_MAX)).await.map_err(|error| error.to_string())
    }

    /// Looks which service managers can be used.
    pub(super) async fn managers(&self) -> Managers {
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
    pub(super) async fn unit_state(&self) -> anyhow::Result<State> {
        let words = ["systemctl", "--user", "show", UNIT, "--property=ActiveState,SubState,MainPID,NRestarts,Result"];
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
            said += &format!("; its last end: {}; `hpc-consumer service logs` says more", of("Result"));
        }
        Ok(State { running, pid, said })
    }

    /// What a person has to know of where the daemon is.
    pub(super) async fn advice(&self, record: &Record) -> Vec<String> {
        match record.way {
            Way::Systemd => {
                let user = self.place.user.to_string();
                let answer = self.asked(&["loginctl", "show-user", &user, "--property=Linger"]).await.ok();
                let lingering = Lingering::told(answer.filter(Answer::is_ok).map(|answer| answer.stdout).as_deref());
                lingering.advice().map(str::to_owned).into_iter().collect()
            }
            Way::Scrontab => vec![
                "jobs that run here, and not in allocations of their own, end with the allocation that Slurm gives the daemon; keep STATE_DIR in the settings, on a file system that all nodes see".to_owned(),
            ],
            Way::Detached => vec![
                "nobody starts the daemon again when it has died, or with the machine: `hpc-consumer service start` does".to_owned(),
            ],
            Way::Cron | Way::Launchd => Vec::new(),
        }
    }
}

/// A command that was to do something has not.
pub(super) fn failed(words: &[&str], answer: &Answer) -> anyhow::Error {
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
    fn a_process_is_seen_by_its_name() {
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        assert!(seems_to_run(&[own.trim()]));
        assert!(!seems_to_run(&["no such program"]));
    }
}
