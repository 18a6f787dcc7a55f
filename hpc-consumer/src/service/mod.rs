//! `hpc-consumer service`: the daemon, started with the machine and again when it has died, by whoever does that here.
//!
//! What is decided stands in the crate `service` and in [`steps`]; [`managers`] asks and tells the service managers,
//! [`detached`] is the daemon that none of them holds, and [`notify`] the daemon's own part.
//!
//! Out of scope: what the daemon does, which `hpc-consumer status` tells. Invariants: what stops, replaces or takes
//! away the service leaves jobs at work, under their keeper; nothing is changed before the settings were found right.

mod arguments;
mod detached;
mod install;
mod managers;
mod notify;
mod steps;

use std::time::Duration;

use anyhow::Context as _;
use program::{Exit, Failure, OutputFormat, escaped_lines, say};
use serde::Serialize;
use service::watch::{Record, Watch};
use service::{Way, crontab};

use self::arguments::{ServiceLogs, ServiceStatus, WatchFolder};
use self::detached::{Folder, Started};
use self::managers::{State, failed};
use self::steps::UNIT;
use crate::config::ServicePlace;
use crate::doctor::ServiceSeen;
use crate::run::{ask, show};

pub(crate) use self::arguments::ServiceCommand;
pub(crate) use self::notify::Notify;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long a service manager may take for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Does what was asked for.
pub(crate) async fn run(command: ServiceCommand, place: ServicePlace) -> anyhow::Result<Exit> {
    let desk = Desk { folder: Folder::new(place.folder.clone()), place };
    match command {
        ServiceCommand::Install(asked) => desk.install(asked).await,
        ServiceCommand::Uninstall(asked) => desk.uninstall(&asked).await,
        ServiceCommand::Start => desk.start().await,
        ServiceCommand::Stop => desk.stop().await,
        ServiceCommand::Restart => desk.restart().await,
        ServiceCommand::Status(asked) => desk.status(&asked).await,
        ServiceCommand::Logs(asked) => desk.logs(&asked).await,
        ServiceCommand::Watch(WatchFolder { folder }) => {
            Desk { folder: Folder::new(folder), ..desk }.watch().await?;
            Ok(Exit::Ok)
        }
    }
}

/// What is installed, if anything is, and how it is.
pub(crate) async fn seen(place: ServicePlace) -> anyhow::Result<Option<ServiceSeen>> {
    let desk = Desk { folder: Folder::new(place.folder.clone()), place };
    let Some(record) = desk.folder.record()? else { return Ok(None) };
    let State { running, said, .. } = desk.state(&record).await?;
    let advice = desk.advice(&record).await;
    Ok(Some(ServiceSeen { way: record.way, version: record.version, ours: VERSION, running, said, advice }))
}

/// The service of this user on this machine.
struct Desk {
    place: ServicePlace,
    folder: Folder,
}

/// What `status` prints for programs.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    way: Way,
    version: &'a str,
    running: bool,
    pid: Option<u32>,
    state: &'a str,
    program: &'a str,
    arguments: &'a [String],
    directory: &'a str,
    log: String,
}

impl Desk {
    /// What is installed; that nothing is, is an error.
    fn installed(&self) -> anyhow::Result<Record> {
        self.folder.record()?.ok_or_else(|| {
            let host = crate::host();
            Failure::with(
                Exit::NotFound,
                format!("no service is installed on {host}; `hpc-consumer service install` does that"),
            )
        })
    }

    async fn start(&self) -> anyhow::Result<Exit> {
        let record = self.installed()?;
        match record.way {
            Way::Systemd => {
                self.systemctl("start").await?;
                say("the daemon runs, under systemd");
            }
            Way::Scrontab => {
                say(&by_scrontab("starts"));
                return Ok(Exit::Unexpected);
            }
            Way::Cron | Way::Detached | Way::Launchd => {
                if record.stopped_in.is_some() {
                    self.folder.write(&Record { stopped_in: None, ..record.clone() })?;
                }
                self.start_detached(&record).await?;
            }
        }
        Ok(Exit::Ok)
    }

    async fn start_detached(&self, record: &Record) -> anyhow::Result<()> {
        say(&match self.folder.start(&self.place, record).await? {
            Started::Up(pid) => format!("the daemon runs, process {pid}; its log is {}", self.folder.log().display()),
            Started::Before(pid) => format!("the daemon runs already, process {pid}"),
            Started::NotYet(pid) => format!(
                "the daemon has started, process {pid}, and has not said yet that it is up; its log is {}",
                self.folder.log().display()
            ),
        });
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<Exit> {
        let record = self.installed()?;
        match record.way {
            Way::Systemd => self.systemctl("stop").await?,
            Way::Scrontab => {
                say(&by_scrontab("ends and starts"));
                return Ok(Exit::Unexpected);
            }
            Way::Cron | Way::Detached | Way::Launchd => {
                // First, or a line of cron would start it again.
                let stopped_in = Some(crate::boot_id().unwrap_or_default());
                self.folder.write(&Record { stopped_in, ..record })?;
                say("the daemon drains; Ctrl-C ends this waiting, and not the daemon");
                if !self.folder.stop().await? {
                    say("the daemon did not run");
                    return Ok(Exit::Ok);
                }
            }
        }
        say("the daemon is stopped; jobs that run go on, under their keeper");
        Ok(Exit::Ok)
    }

    async fn restart(&self) -> anyhow::Result<Exit> {
        let record = self.installed()?;
        match record.way {
            Way::Systemd => {
                self.systemctl("restart").await?;
                say("the daemon runs, under systemd");
            }
            Way::Scrontab => {
                say(&by_scrontab("ends and starts"));
                return Ok(Exit::Unexpected);
            }
            Way::Cron | Way::Detached | Way::Launchd => {
                if self.folder.running().is_some() {
                    say("the daemon drains; jobs that run longer go on, under their keeper");
                }
                self.folder.stop().await?;
                return self.start().await;
            }
        }
        Ok(Exit::Ok)
    }

    /// Tells the unit something, and waits until it is done. How long that may take, the unit says.
    async fn systemctl(&self, word: &str) -> anyhow::Result<()> {
        let words = ["systemctl", "--user", word, UNIT];
        let answer = ask(&words, &self.place.managers, None, None).await;
        let answer = answer.with_context(|| words.join(" "))?;
        if answer.is_ok() { Ok(()) } else { Err(failed(&words, &answer)) }
    }

    /// What a line of cron does.
    async fn watch(&self) -> anyhow::Result<()> {
        let record = self.installed()?;
        self.folder.bound_log();
        match Watch::of(&record, self.folder.running().is_some(), crate::boot_id().as_deref()) {
            Watch::Runs | Watch::Stopped => Ok(()),
            Watch::Start => self.folder.start(&self.place, &record).await.map(drop),
        }
    }

    async fn status(&self, asked: &ServiceStatus) -> anyhow::Result<Exit> {
        let record = self.installed()?;
        let State { running, pid, said } = self.state(&record).await?;
        let log = match record.way {
            Way::Systemd => format!("journalctl --user --unit {UNIT}"),
            _ => self.folder.log().display().to_string(),
        };
        let exit = if running { Exit::Ok } else { Exit::Unexpected };
        if asked.output == OutputFormat::Json {
            let shown = Shown {
                way: record.way,
                version: &record.version,
                running,
                pid,
                state: &said,
                program: &record.start.program,
                arguments: &record.start.arguments,
                directory: &record.start.directory,
                log,
            };
            crate::print(&(serde_json::to_string(&shown)? + "\n"))?;
            return Ok(exit);
        }
        let words = [&record.start.program].into_iter().chain(&record.start.arguments);
        let lines = [
            ("service", format!("by {}, installed by hpc-consumer {}", record.way, record.version)),
            ("runs", shell_words::join(words)),
            ("in", record.start.directory.clone()),
            ("state", said),
            ("log", log),
        ];
        let text: String = lines.iter().map(|(name, value)| format!("{name:<9}{value}\n")).collect();
        crate::print(&escaped_lines(&text))?;
        if record.version != VERSION {
            say(&format!(
                "this is hpc-consumer {VERSION}: `hpc-consumer service install`, as it was installed, brings the service up to date"
            ));
        }
        for advice in self.advice(&record).await {
            say(&advice);
        }
        Ok(exit)
    }

    /// Whether the daemon runs.
    async fn state(&self, record: &Record) -> anyhow::Result<State> {
        match record.way {
            Way::Systemd => self.unit_state().await,
            Way::Scrontab => Ok(State {
                running: false,
                pid: None,
                said: format!("`squeue --me --name={}` shows whether Slurm runs it", steps::NAME),
            }),
            Way::Cron | Way::Detached | Way::Launchd => {
                let running = self.folder.running();
                let said = match Watch::of(record, running.is_some(), crate::boot_id().as_deref()) {
                    Watch::Runs => format!("running, process {}", running.unwrap_or_default()),
                    Watch::Stopped => "stopped; `hpc-consumer service start` starts it".to_owned(),
                    Watch::Start if record.way == Way::Cron => {
                        format!("not running; cron starts it within {} minutes", crontab::MINUTES)
                    }
                    Watch::Start => "not running; `hpc-consumer service start` starts it".to_owned(),
                };
                Ok(State { running: running.is_some(), pid: running.and_then(|pid| u32::try_from(pid).ok()), said })
            }
        }
    }

    async fn logs(&self, asked: &ServiceLogs) -> anyhow::Result<Exit> {
        let record = self.installed()?;
        let lines = asked.lines.to_string();
        let log = self.folder.log().display().to_string();
        let mut words = match record.way {
            Way::Systemd => vec!["journalctl", "--user", "--unit", UNIT, "--no-pager", "--lines", &lines],
            _ => vec!["tail", "-n", &lines],
        };
        if asked.follow {
            words.push(if record.way == Way::Systemd { "--follow" } else { "-f" });
        }
        if record.way != Way::Systemd {
            words.push(&log);
        }
        match show(&words, &self.place.managers).await.with_context(|| words.join(" "))? {
            Some(0) => Ok(Exit::Ok),
            _ => Ok(Exit::Unexpected),
        }
    }
}

/// What nobody but Slurm does.
fn by_scrontab(does: &str) -> String {
    format!(
        "Slurm {does} the daemon: within {} minutes of an end it has it start as a job; `squeue --me --name={name}` shows that job, `scancel --name={name} --me --batch --signal=TERM` ends it, and `hpc-consumer service uninstall` keeps it from starting again",
        crontab::MINUTES,
        name = steps::NAME
    )
}
