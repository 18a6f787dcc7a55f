//! The text of a systemd user unit.
//!
//! What hardens services of the system is of no use in those of a user: `ProtectSystem`, `ProtectHome`, `PrivateTmp`
//! and all else that changes what is mounted put the service into a user namespace (`PrivateUsers`), in which files of
//! root belong to nobody, and Apptainer cannot map users; `SystemCallFilter`, `RestrictNamespaces`,
//! `RestrictAddressFamilies`, `RestrictRealtime`, `RestrictSUIDSGID`, `LockPersonality`, `MemoryDenyWriteExecute` and
//! `PrivateDevices` imply `NoNewPrivileges`, under which a setuid Apptainer and `newuidmap` do not work. So a daemon
//! that starts containers gets none of them: what contains jobs is set up for each of them. A program that starts
//! nothing gets `NoNewPrivileges`.

use std::fmt::Write as _;

use crate::start::{Start, Unwritable};

/// From this version on the pauses between starts can grow.
const GROWING_PAUSES: u32 = 254;

/// The first version that starts a service in a group below its own. Without that the service cannot be started again
/// while groups for jobs are beside it.
const SUBGROUPS: u32 = 254;

/// The control group within that of a delegated unit in which systemd starts the daemon. A manager of a user leaves no
/// other mark of what it has delegated.
pub const DELEGATED_GROUP: &str = "daemon";

/// A unit to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit<'a> {
    /// Which program, as in `hpc-consumer`.
    pub name: &'a str,
    /// Of which version.
    pub version: &'a str,
    /// What it does, on one line.
    pub description: &'a str,
    /// What is started.
    pub start: &'a Start,
    /// The only machine on which it is: a home directory is shared by the machines of a cluster.
    pub host: Option<&'a str>,
    /// What sort of program it is.
    pub sort: Sort,
    /// The version of systemd.
    pub systemd: u32,
}

/// What sort of program a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// It tells systemd how it is ([`crate::notify`]), and what it has started outlives it.
    Daemon,
    /// It tells that it is up, and starts nothing. What it prints is somewhere else as well.
    Simple,
}

impl Unit<'_> {
    /// Its text.
    pub fn text(&self) -> Result<String, Unwritable> {
        self.start.check()?;
        let Start { program, arguments, directory, environment } = self.start;
        if program.contains('$') {
            return Err(Unwritable::Dollar(program.clone()));
        }
        if directory.ends_with(['\\', ' ']) {
            return Err(Unwritable::End(directory.clone()));
        }
        let mut text = format!(
            "{MADE_BY}{} {}: `{} service install` makes it anew, and changes in here are lost then.\n",
            self.name, self.version, self.name
        );
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name}{value}");
        };
        line("[Unit]", "");
        line("Description=", self.description);
        if let Some(host) = self.host {
            line("# The home directory may be on other machines as well.", "");
            line(HOST, &percent(host));
        }
        line("# It never gives up; the pauses between starts are below.", "");
        line("StartLimitIntervalSec=0", "");
        line("\n[Service]", "");
        match self.sort {
            Sort::Daemon => {
                line("# It says when it is up, and that it lives.", "");
                line("Type=notify", "");
                line("NotifyAccess=main", "");
                line("TimeoutStartSec=300", "");
                line("WatchdogSec=120", "");
            }
            Sort::Simple => {
                line("# It says when it is up.", "");
                line("Type=notify", "");
                line("NotifyAccess=main", "");
                line("TimeoutStartSec=300", "");
            }
        }
        let words: Vec<String> = [program].into_iter().chain(arguments).map(|word| exec_word(word)).collect();
        line("ExecStart=", &words.join(" "));
        line("WorkingDirectory=", &percent(directory));
        for (name, value) in environment {
            line("Environment=", &percent(&quoted(&format!("{name}={value}"))));
        }
        match self.sort {
            Sort::Daemon => {
                line("ExecReload=kill -HUP $MAINPID", "");
                line("# Jobs run under a keeper that outlives the daemon: the daemon alone is ended.", "");
                line("KillMode=process", "");
                line("# A job that is killed for want of memory is that job's failure, and not the daemon's.", "");
                line("OOMPolicy=continue", "");
                if self.systemd >= SUBGROUPS {
                    line(
                        "# Beside the daemon's own control group there is one for each job that has a limit of memory.",
                        "",
                    );
                    line("Delegate=memory pids", "");
                    line("DelegateSubgroup=", DELEGATED_GROUP);
                }
                line("# Jobs are in here as well: what limits them is the limit of the user.", "");
                line("TasksMax=infinity", "");
                line("# While it drains, for DRAIN_TIMEOUT_SECONDS, it asks for more.", "");
                line("TimeoutStopSec=90", "");
            }
            Sort::Simple => {
                line("StandardOutput=null", "");
                line("NoNewPrivileges=yes", "");
            }
        }
        line("Restart=on-failure", "");
        if self.systemd >= GROWING_PAUSES {
            line("RestartSec=10", "");
            line("RestartSteps=6", "");
            line("RestartMaxDelaySec=600", "");
        } else {
            line("RestartSec=60", "");
        }
        line("# Wrong settings do not get better by themselves.", "");
        line("RestartPreventExitStatus=2", "");
        line("\n[Install]", "");
        line("WantedBy=default.target", "");
        Ok(text)
    }
}

const MADE_BY: &str = "# Made by ";
const HOST: &str = "ConditionHost=";

/// The version of the program that has made this unit, if one of that name has.
pub fn made_by<'a>(name: &str, text: &'a str) -> Option<&'a str> {
    let rest = text.lines().next()?.strip_prefix(MADE_BY)?.strip_prefix(name)?.strip_prefix(' ')?;
    rest.split_once(": ").map(|(version, _)| version)
}

/// The only machine on which this unit is.
pub fn host(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix(HOST))
}

/// The version in what `systemctl show --property=Version` says: `Version=252.38-1`, or `Version=v255`.
pub fn systemd_version(answer: &str) -> Option<u32> {
    let text = answer.lines().find_map(|line| line.strip_prefix("Version="))?;
    let digits: String = text.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Specifiers begin with a percent sign.
fn percent(text: &str) -> String {
    text.replace('%', "%%")
}

/// One word of a command line, in which `$` begins a variable.
fn exec_word(word: &str) -> String {
    percent(&quoted(word)).replace('$', "$$")
}

/// A word in quotes, where it needs them.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-+=/.,:@%$".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        Start {
            program: "/home/a b/bin/hpc-consumer".into(),
            arguments: vec!["run".into(), "--env-file".into(), "/home/a b/100%/$x \"y\\".into()],
            directory: "/home/a b/50%".into(),
            environment: [("PATH".into(), "/opt/a b%:/usr/bin".into())].into(),
        }
    }

    fn unit(start: &Start) -> Unit<'_> {
        Unit {
            name: "hpc-consumer",
            version: "1.2.3",
            description: "hpc-queue",
            start,
            host: Some("login1"),
            sort: Sort::Daemon,
            systemd: 252,
        }
    }

    #[test]
    fn every_word_is_written_as_systemd_reads_it() {
        let text = unit(&start()).text().unwrap();
        let has = |line: &str| assert!(text.lines().any(|found| found == line), "{line} in {text}");
        has(r#"ExecStart="/home/a b/bin/hpc-consumer" run --env-file "/home/a b/100%%/$$x \"y\\""#);
        has("WorkingDirectory=/home/a b/50%%");
        has(r#"Environment="PATH=/opt/a b%%:/usr/bin""#);
        has("ConditionHost=login1");
    }

    #[test]
    fn what_systemd_would_read_otherwise_is_refused() {
        let wrong = Start { directory: "/d\\".into(), ..start() };
        assert_eq!(unit(&wrong).text(), Err(Unwritable::End("/d\\".into())));
        let wrong = Start { program: "/$a".into(), ..start() };
        assert_eq!(unit(&wrong).text(), Err(Unwritable::Dollar("/$a".into())));
        let wrong = Start { directory: "/d\nExecStartPre=/x".into(), ..start() };
        assert!(matches!(unit(&wrong).text(), Err(Unwritable::Control(_))));
    }

    #[test]
    fn the_keeper_outlives_the_daemon_and_containers_can_be_started() {
        let start = start();
        let text = unit(&start).text().unwrap();
        for needed in ["Type=notify", "WatchdogSec=120", "KillMode=process", "RestartPreventExitStatus=2"] {
            assert!(text.lines().any(|line| line == needed), "{needed} in {text}");
        }
        // Each of these implies one of the first two in a unit of a user; see the top of this file.
        for harmful in ["NoNewPrivileges", "PrivateUsers", "Protect", "Private", "Restrict", "SystemCall", "LockPers"] {
            let has = text.lines().any(|line| line.starts_with(harmful));
            assert!(!has, "{harmful} in {text}");
        }
        let simple = Unit { sort: Sort::Simple, host: None, ..unit(&start) }.text().unwrap();
        assert!(simple.contains("NoNewPrivileges=yes") && !simple.contains("WatchdogSec"), "{simple}");
        assert!(!simple.contains("ConditionHost"), "{simple}");
    }

    #[test]
    fn pauses_grow_where_systemd_can_do_it() {
        let start = start();
        let of = |systemd| Unit { systemd, ..unit(&start) }.text().unwrap();
        assert!(of(253).contains("RestartSec=60\n") && !of(253).contains("RestartSteps"));
        assert!(of(254).contains("RestartSec=10\nRestartSteps=6\n"));
        assert!(!of(253).contains("Delegate") && of(254).contains("DelegateSubgroup=daemon\n"));
    }

    #[test]
    fn who_made_a_unit_is_read_from_it() {
        let text = unit(&start()).text().unwrap();
        assert_eq!(made_by("hpc-consumer", &text), Some("1.2.3"));
        assert_eq!(made_by("laptop-consumer", &text), None);
        assert_eq!(made_by("hpc-consumer", "# A systemd user unit.\n[Unit]\n"), None);
        assert_eq!(host(&text), Some("login1"));
        assert_eq!(systemd_version("Version=252.38-1~deb12u1\n"), Some(252));
        assert_eq!(systemd_version("Version=v255\n"), Some(255));
        assert_eq!(systemd_version(""), None);
    }
}
